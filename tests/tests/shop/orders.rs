//! What customers want, and what will go wrong with it: both follow from the seed.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use weir_tests::bus::Outgoing;

/// Orders per article, about: each article is nearly sold out at the end.
const ORDERS_PER_ARTICLE: usize = 40;
const ARTICLES_MIN: usize = 4;

/// Vans, too: so few that couriers wait for each other.
const TOWNS: usize = 24;

/// What `payments` makes of a card, and how often each is used.
const CARDS: [(&str, u32); 3] = [("good", 85), ("declined", 10), ("silent", 5)];

/// What `couriers` finds behind a door.
const DOORS: [(&str, u32); 3] = [("open", 85), ("closed", 9), ("nowhere", 6)];

/// Customers of a hundred who press the button twice.
const TWICE: u32 = 5;

/// As `orders` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub article: String,
    pub pieces: u32,
    pub cents: u64,
    pub card: String,
    pub town: String,
    pub door: String,
}

/// All that comes from outside.
pub struct Generated {
    /// By their ids, in the order of being placed.
    pub orders: Vec<(String, Wanted)>,
    /// Of them, those that are placed twice.
    pub twice: usize,
    /// Pieces by article; each number is a delivery.
    pub deliveries: BTreeMap<String, Vec<u32>>,
    /// What is sent for each order.
    messages: Vec<Vec<Outgoing>>,
}

impl Generated {
    pub fn new(seed: u64, count: usize) -> Generated {
        let mut random = StdRng::seed_from_u64(seed);
        let articles = (count / ORDERS_PER_ARTICLE).max(ARTICLES_MIN);
        let (mut orders, mut messages, mut twice) = (Vec::new(), Vec::new(), 0);
        for n in 0..count {
            let article = random.random_range(0..articles);
            let pieces = random.random_range(1..=3);
            let wanted = Wanted {
                article: format!("article-{article}"),
                pieces,
                cents: u64::from(pieces) * (300 + 50 * article as u64),
                card: pick(&mut random, &CARDS),
                town: format!("town-{}", random.random_range(0..TOWNS)),
                door: pick(&mut random, &DOORS),
            };
            let id = format!("o{n}");
            let mut place = json!(wanted);
            place["type"] = "Place".into();
            let message = Outgoing::new(format!("web.order.{id}"), place.to_string());
            let mut sent = vec![message.clone().id(id.clone())];
            if random.random_ratio(TWICE, 100) {
                twice += 1;
                sent.push(message.id(format!("{id}-again")));
            }
            messages.push(sent);
            orders.push((id, wanted));
        }
        let pieces_each = u32::try_from(count / articles).unwrap_or(u32::MAX) * 2;
        let deliveries = (0..articles).map(|article| {
            // Together less than what is asked for.
            let delivery =
                |random: &mut StdRng| pieces_each * 3 / 10 + random.random_range(1..=pieces_each / 5 + 1);
            (
                format!("article-{article}"),
                vec![delivery(&mut random), delivery(&mut random)],
            )
        });
        Generated {
            deliveries: deliveries.collect(),
            orders,
            twice,
            messages,
        }
    }

    /// What customers send for so many orders at a time.
    pub fn placed(&self, at_once: usize) -> impl Iterator<Item = Vec<Outgoing>> {
        self.messages.chunks(at_once).map(<[_]>::concat)
    }

    /// The first, the second delivery of each article.
    pub fn delivered(&self, number: usize) -> Vec<Outgoing> {
        let deliveries = self.deliveries.iter();
        let messages = deliveries.map(|(article, pieces)| {
            let delivery = json!({ "pieces": pieces[number] });
            Outgoing::new(format!("warehouse.delivered.{article}"), delivery.to_string())
                .id(format!("{article}-{number}"))
        });
        messages.collect()
    }
}

fn pick(random: &mut StdRng, among: &[(&str, u32)]) -> String {
    let weighted = among.choose_weighted(random, |(_, weight)| *weight);
    weighted.expect("weights are above zero").0.to_owned()
}
