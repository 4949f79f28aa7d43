//! The books of a run: all that is written down anywhere, read back once it is at rest.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use weir::sagas::Saga;
use weir_tests::bus::Read;

use super::orders::{Generated, Wanted};
use super::world::{FLEET, HANDLERS, LEDGER, World};

/// One entry of a subject's log: the order's id, or whatever the third token is, and the payload.
pub type Log<T> = Vec<(String, T)>;

/// Of `shop.order.*`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub enum OrderEvent {
    Placed(Wanted),
    Shipped {
        article: String,
        pieces: u32,
        cents: u64,
    },
    Cancelled {
        article: String,
        reason: String,
    },
}

/// Of `shop.payment.*`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type")]
pub enum Payment {
    Charged { cents: u64 },
    Confirmed { cents: u64 },
    Refunded { cents: u64 },
}

/// Of `stock.reserved.*` and `stock.released.*`.
#[derive(Debug, Clone, Deserialize)]
pub struct Stock {
    pub article: String,
    pub pieces: i64,
    pub left: i64,
    pub again: bool,
    /// `reserved`, `released` or `out`.
    #[serde(skip)]
    pub verb: String,
}

/// The state of `stock`.
#[derive(Debug, Clone, Deserialize)]
pub struct Shelf {
    pub left: i64,
    pub held: BTreeMap<String, i64>,
}

/// Of `shipping.van.*` and `fleet.*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Way {
    pub order: String,
    pub token: u64,
    pub way: String,
}

/// A row of the table `orders`.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderRow {
    pub article: String,
    pub pieces: Option<i32>,
    pub cents: Option<i64>,
    pub status: String,
    pub reason: Option<String>,
}

/// A row of the table `articles`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArticleRow {
    pub placed: i32,
    pub shipped: i32,
    pub cancelled: i32,
    pub pieces: i32,
    pub cents: i64,
}

#[derive(Clone)]
pub struct Books {
    /// What was asked for, and what the warehouse brought.
    pub wanted: BTreeMap<String, Wanted>,
    pub twice: usize,
    pub delivered: BTreeMap<String, i64>,
    /// The ledger.
    pub orders: Log<OrderEvent>,
    pub refused: Log<serde_json::Value>,
    pub payments: Log<Payment>,
    pub stock: Log<Stock>,
    pub vans: Log<Way>,
    pub shipped: Vec<String>,
    pub recalled: Vec<String>,
    /// The other team's stream.
    pub fleet: Log<Way>,
    /// Committed state.
    pub sagas: Vec<Saga>,
    pub shelves: BTreeMap<String, Shelf>,
    /// The read model.
    pub order_rows: BTreeMap<String, OrderRow>,
    pub article_rows: BTreeMap<String, ArticleRow>,
    /// What nobody could handle: events and rows.
    pub unhandled: Vec<String>,
}

impl Books {
    pub async fn read(world: &World, generated: &Generated) -> Result<Books> {
        let ledger = async |filter| world.bus.read(LEDGER, filter).await;
        let ids = |messages: Vec<Read>| -> Vec<String> { messages.iter().map(|one| token(one, 2)).collect() };
        let mut shelves = BTreeMap::new();
        for article in generated.deliveries.keys() {
            let cells = world.weir.cells("stock", article).await?;
            let shelf = cells.get("shelf").context("stock has no cell `shelf`")?;
            shelves.insert(article.clone(), serde_json::from_str(shelf)?);
        }
        let mut stock = Log::<Stock>::new();
        for message in ledger("stock.*.*").await? {
            let entry: Stock = serde_json::from_slice(&message.data)?;
            let verb = token(&message, 1);
            stock.push((token(&message, 2), Stock { verb, ..entry }));
        }
        let sql = world.sql().await?;
        let mut unhandled = Vec::new();
        for handler in HANDLERS {
            for letter in world.weir.dead_letters(handler).await? {
                unhandled.push(format!("{handler}: {letter:?}"));
            }
        }
        for row in sql.query("select reason from weir_rejected_rows", &[]).await? {
            unhandled.push(row.get(0));
        }
        let mut order_rows = BTreeMap::new();
        for row in sql
            .query(
                "select id, article, pieces, cents, status, reason from orders",
                &[],
            )
            .await?
        {
            let order = OrderRow {
                article: row.get(1),
                pieces: row.get(2),
                cents: row.get(3),
                status: row.get(4),
                reason: row.get(5),
            };
            order_rows.insert(row.get(0), order);
        }
        let mut article_rows = BTreeMap::new();
        for row in sql
            .query(
                "select article, placed, shipped, cancelled, pieces, cents from articles",
                &[],
            )
            .await?
        {
            let article = ArticleRow {
                placed: row.get(1),
                shipped: row.get(2),
                cancelled: row.get(3),
                pieces: row.get(4),
                cents: row.get(5),
            };
            article_rows.insert(row.get(0), article);
        }
        let delivered = generated.deliveries.iter();
        Ok(Books {
            wanted: generated.orders.iter().cloned().collect(),
            twice: generated.twice,
            delivered: delivered
                .map(|(article, pieces)| (article.clone(), pieces.iter().map(|n| i64::from(*n)).sum()))
                .collect(),
            orders: log(&ledger("shop.order.*").await?, 2)?,
            refused: log(&ledger("shop.order.*.rejected").await?, 2)?,
            payments: log(&ledger("shop.payment.*").await?, 2)?,
            stock,
            vans: log(&ledger("shipping.van.*").await?, 2)?,
            shipped: ids(ledger("shipping.shipped.*").await?),
            recalled: ids(ledger("shipping.recalled.*").await?),
            fleet: log(&world.bus.read(FLEET, "fleet.*").await?, 1)?,
            sagas: world.weir.json(&["sagas", "list", "fulfilment"]).await?,
            shelves,
            order_rows,
            article_rows,
            unhandled,
        })
    }
}

fn token(message: &Read, index: usize) -> String {
    message
        .subject
        .split('.')
        .nth(index)
        .unwrap_or_default()
        .to_owned()
}

fn log<T: DeserializeOwned>(messages: &[Read], index: usize) -> Result<Log<T>> {
    let entry = |message: &Read| {
        let payload = serde_json::from_slice(&message.data);
        Ok((
            token(message, index),
            payload.with_context(|| message.subject.clone())?,
        ))
    };
    messages.iter().map(entry).collect()
}
