//! What has to hold of the books, whatever was killed. Each check is a sentence, and has a forgery that it has to
//! find: none of them holds by accident.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use weir::sagas::{Saga, Status};

use super::books::{ArticleRow, Books, OrderEvent, OrderRow, Payment, Way};

pub struct Check {
    pub says: &'static str,
    /// The figures, for the table.
    pub holds: fn(&Books) -> Result<String>,
    /// Does what the check is there to find.
    pub forge: fn(&mut Books),
}

pub const CHECKS: [Check; 9] = [
    Check {
        says: "every order ends once, as its saga did",
        holds: orders_end_once,
        forge: |books| {
            let (id, end) = books.orders.last().cloned().expect("orders");
            books.orders.push((id, end));
        },
    },
    Check {
        says: "nothing is sold to who cannot pay or is not there",
        holds: fates_are_kept,
        forge: |books| {
            let id = books.ended(true).pop_first().expect("one is shipped").0;
            books.wanted.get_mut(&id).expect("it was wanted").card = "declined".into();
        },
    },
    Check {
        says: "money taken is that of orders shipped",
        holds: money_is_that_of_shipped_orders,
        forge: |books| {
            let refunds = |payment: &Payment| matches!(payment, Payment::Refunded { cents } if *cents > 0);
            let at = books.payments.iter().position(|(_, payment)| refunds(payment));
            books.payments.remove(at.expect("something is given back"));
        },
    },
    Check {
        says: "stock is never negative, and adds up",
        holds: stock_adds_up,
        forge: |books| {
            let shelf = books.shelves.values_mut().next().expect("a shelf");
            shelf.left += 1;
        },
    },
    Check {
        says: "what couriers brought is what was shipped",
        holds: brought_is_shipped,
        forge: |books| {
            let id = books.ended(true).pop_first().expect("one is shipped").0;
            books.shipped.retain(|shipped| *shipped != id);
        },
    },
    Check {
        says: "no two couriers in one van",
        holds: one_courier_per_van,
        forge: |books| {
            let back = |(_, way): &(String, Way)| way.way == "back";
            let at = books.vans.iter().position(back).expect("somebody comes back");
            let (town, way) = books.vans.remove(at);
            // Out once more before he is back.
            let again = Way {
                order: "x".into(),
                token: way.token + 1,
                way: "out".into(),
            };
            books.vans.splice(at..at, [(town.clone(), again), (town, way)]);
        },
    },
    Check {
        says: "each event for the other team is there once",
        holds: outside_events_are_there_once,
        forge: |books| {
            let entry = books.fleet.last().cloned().expect("vans went out");
            books.fleet.push(entry);
        },
    },
    Check {
        says: "the read model is what the events add up to",
        holds: read_model_is_the_fold,
        forge: |books| {
            books.article_rows.values_mut().next().expect("a row").cents += 1;
        },
    },
    Check {
        says: "no dead letters, no rejected rows",
        holds: |books| {
            ensure!(books.unhandled.is_empty(), "{:#?}", books.unhandled);
            Ok("none".into())
        },
        forge: |books| books.unhandled.push("a letter".into()),
    },
];

impl Books {
    /// Orders that were shipped, or cancelled, and their last event.
    pub fn ended(&self, shipped: bool) -> BTreeMap<String, OrderEvent> {
        let ends = self.orders.iter().filter(|(_, event)| match event {
            OrderEvent::Placed(_) => false,
            OrderEvent::Shipped { .. } => shipped,
            OrderEvent::Cancelled { .. } => !shipped,
        });
        ends.cloned().collect()
    }

    fn saga(&self, id: &str) -> Option<&Saga> {
        self.sagas.iter().find(|saga| saga.id == id)
    }

    /// How many orders ended in which way.
    pub fn final_states(&self) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for (_, event) in &self.orders {
            let state = match event {
                OrderEvent::Placed(_) => continue,
                OrderEvent::Shipped { .. } => "shipped".to_owned(),
                OrderEvent::Cancelled { reason, .. } => format!("cancelled: {reason}"),
            };
            *states.entry(state).or_default() += 1;
        }
        states
    }
}

fn orders_end_once(books: &Books) -> Result<String> {
    let mut events: BTreeMap<&str, Vec<&OrderEvent>> = BTreeMap::new();
    for (id, event) in &books.orders {
        events.entry(id).or_default().push(event);
    }
    ensure!(
        events.keys().copied().eq(books.wanted.keys().map(String::as_str)),
        "other orders were placed than were wanted"
    );
    ensure!(
        books.refused.len() == books.twice,
        "{} orders came twice, and {} were refused",
        books.twice,
        books.refused.len()
    );
    ensure!(
        books.sagas.len() == books.wanted.len(),
        "{} sagas",
        books.sagas.len()
    );
    for saga in &books.sagas {
        let events = events
            .get(&*saga.id)
            .with_context(|| format!("no order of {saga:?}"))?;
        let expected = match (&events[..], saga.status) {
            ([OrderEvent::Placed(placed), OrderEvent::Shipped { .. }], Status::Completed) => placed,
            ([OrderEvent::Placed(placed), OrderEvent::Cancelled { reason, .. }], Status::Compensated)
                if saga.reason.as_ref() == Some(reason) =>
            {
                placed
            }
            _ => anyhow::bail!("{events:?} with {saga:?}"),
        };
        ensure!(*expected == books.wanted[&saga.id], "{}: {expected:?}", saga.id);
    }
    Ok(format!("{} orders", events.len()))
}

fn fates_are_kept(books: &Books) -> Result<String> {
    let shipped = books.ended(true);
    for id in shipped.keys() {
        let wanted = &books.wanted[id];
        ensure!(
            wanted.card == "good" && wanted.door == "open",
            "{id} was shipped: {wanted:?}"
        );
    }
    let good = books
        .wanted
        .values()
        .filter(|wanted| wanted.card == "good" && wanted.door == "open");
    Ok(format!("{} of {} that could be", shipped.len(), good.count()))
}

fn money_is_that_of_shipped_orders(books: &Books) -> Result<String> {
    let mut taken: BTreeMap<&str, i64> = BTreeMap::new();
    for (id, payment) in &books.payments {
        let balance = taken.entry(id).or_default();
        match payment {
            Payment::Charged { cents } => *balance += i64::try_from(*cents)?,
            Payment::Confirmed { cents } => ensure!(*balance == i64::try_from(*cents)?, "{id}: {payment:?}"),
            Payment::Refunded { cents } => *balance -= i64::try_from(*cents)?,
        }
    }
    let shipped = books.ended(true);
    let mut sum = 0;
    for (id, wanted) in &books.wanted {
        let expected = match shipped.contains_key(id) {
            true => i64::try_from(wanted.cents)?,
            false => 0,
        };
        let balance = taken.get(&**id).copied().unwrap_or(0);
        ensure!(
            balance == expected,
            "{balance} cents instead of {expected} are taken for {id}: {:#?}",
            books.saga(id)
        );
        sum += balance;
    }
    Ok(format!("{}.{:02} €", sum / 100, sum % 100))
}

fn stock_adds_up(books: &Books) -> Result<String> {
    let shipped = books.ended(true);
    let mut held: BTreeMap<&str, BTreeMap<String, i64>> = BTreeMap::new();
    for (id, entry) in &books.stock {
        ensure!(entry.left >= 0, "{id}: {entry:?}");
        let held = held.entry(&entry.article).or_default();
        let consistent = match (&*entry.verb, entry.again) {
            ("reserved", false) => held.insert(id.clone(), entry.pieces).is_none(),
            ("released", false) => held.remove(id) == Some(entry.pieces),
            ("reserved", true) => held.get(id) == Some(&entry.pieces),
            _ => !held.contains_key(id),
        };
        ensure!(consistent, "{id}: {entry:?}, and {held:?} are held");
    }
    let (mut sold, mut left) = (0, 0);
    for (article, delivered) in &books.delivered {
        let shelf = &books.shelves[article];
        let held = held.remove(&**article).unwrap_or_default();
        ensure!(
            shelf.held == held,
            "{article}: {:?} are held, and the events say {held:?}",
            shelf.held
        );
        for id in held.keys() {
            ensure!(
                shipped.contains_key(id),
                "{article} is held for {id}, which is not shipped: {:#?}",
                books.saga(id)
            );
        }
        let pieces: i64 = held.values().sum();
        ensure!(
            shelf.left >= 0 && shelf.left + pieces == *delivered,
            "{article}: {delivered} were delivered, {pieces} are sold, {} are left",
            shelf.left
        );
        (sold, left) = (sold + pieces, left + shelf.left);
    }
    let ordered: u32 = shipped.keys().map(|id| books.wanted[id].pieces).sum();
    ensure!(
        sold == i64::from(ordered),
        "{sold} pieces are gone, and {ordered} were shipped"
    );
    Ok(format!("{sold} sold, {left} left"))
}

fn brought_is_shipped(books: &Books) -> Result<String> {
    let recalled: BTreeSet<&String> = books.recalled.iter().collect();
    let brought: BTreeSet<&String> = books.shipped.iter().filter(|id| !recalled.contains(id)).collect();
    let shipped = books.ended(true);
    ensure!(
        brought.iter().copied().eq(shipped.keys()),
        "couriers brought {brought:?}, and shipped are {:?}",
        shipped.keys()
    );
    Ok(format!("{} parcels", brought.len()))
}

/// Who is out in a van has it until he is back, or it is taken from him for good.
fn one_courier_per_van(books: &Books) -> Result<String> {
    let mut vans: BTreeMap<&str, (u64, Option<&Way>)> = BTreeMap::new();
    let (mut tours, mut taken) = (BTreeSet::new(), 0);
    for (town, way) in &books.vans {
        let (last, inside) = vans.entry(town).or_default();
        if way.way == "out" {
            ensure!(
                way.token > *last,
                "{town}: {way:?} after a tour with token {last}"
            );
            ensure!(
                tours.insert(&way.order),
                "{town}: {way:?} is out for a second time"
            );
            taken += usize::from(inside.is_some());
            (*last, *inside) = (way.token, Some(way));
        } else {
            let who = inside.take();
            let his = who.is_some_and(|who| who.order == way.order && who.token == way.token);
            ensure!(his, "{town}: {way:?}, and in the van is {who:?}");
        }
    }
    Ok(format!(
        "{} tours, {taken} vans taken from lost couriers",
        tours.len()
    ))
}

fn outside_events_are_there_once(books: &Books) -> Result<String> {
    // Each order's in their order; those of different orders may overtake each other.
    let by_order = |log: &[(String, Way)]| {
        let mut all: BTreeMap<String, Vec<(String, Way)>> = BTreeMap::new();
        for (town, way) in log {
            all.entry(way.order.clone())
                .or_default()
                .push((town.clone(), way.clone()));
        }
        all
    };
    let (inside, outside) = (by_order(&books.vans), by_order(&books.fleet));
    for (order, ways) in &inside {
        let found = outside.get(order);
        ensure!(
            found == Some(ways),
            "{order}: {found:?} outside, and {ways:?} in the ledger"
        );
    }
    ensure!(
        inside.len() == outside.len(),
        "{} orders more outside",
        outside.len() - inside.len()
    );
    Ok(format!("{} events", books.fleet.len()))
}

fn read_model_is_the_fold(books: &Books) -> Result<String> {
    let mut orders: BTreeMap<String, OrderRow> = BTreeMap::new();
    let mut articles: BTreeMap<String, ArticleRow> = BTreeMap::new();
    for (id, event) in &books.orders {
        let (article, status, reason) = match event {
            OrderEvent::Placed(wanted) => {
                let row = OrderRow {
                    article: wanted.article.clone(),
                    pieces: Some(wanted.pieces.try_into()?),
                    cents: Some(wanted.cents.try_into()?),
                    status: "placed".into(),
                    reason: None,
                };
                orders.insert(id.clone(), row);
                articles.entry(wanted.article.clone()).or_default().placed += 1;
                continue;
            }
            OrderEvent::Shipped {
                article,
                pieces,
                cents,
            } => {
                let sums = articles.entry(article.clone()).or_default();
                sums.shipped += 1;
                sums.pieces += i32::try_from(*pieces)?;
                sums.cents += i64::try_from(*cents)?;
                (article, "shipped", None)
            }
            OrderEvent::Cancelled { article, reason } => {
                articles.entry(article.clone()).or_default().cancelled += 1;
                (article, "cancelled", Some(reason.clone()))
            }
        };
        let row = orders
            .get_mut(id)
            .with_context(|| format!("{id} was not placed"))?;
        ensure!(row.article == *article, "{id}: {event:?} of {row:?}");
        (row.status, row.reason) = (status.into(), reason);
    }
    for (id, row) in &orders {
        let found = books.order_rows.get(id);
        ensure!(found == Some(row), "{id}: {found:?} instead of {row:?}");
    }
    for (article, row) in &articles {
        let found = books.article_rows.get(article);
        ensure!(found == Some(row), "{article}: {found:?} instead of {row:?}");
    }
    let (more_orders, more_articles) = (books.order_rows.len(), books.article_rows.len());
    ensure!(
        (more_orders, more_articles) == (orders.len(), articles.len()),
        "there are rows of nothing"
    );
    Ok(format!("{more_orders} orders, {more_articles} articles"))
}
