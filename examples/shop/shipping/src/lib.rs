//! A courier takes the town's van, brings the goods, and brings back the van.
//!
//! | event | what is done |
//! | --- | --- |
//! | `shipping.ship.7` | the van is locked, as soon as it is free; the courier is sent |
//! | `courier.back.7` | the van is given back; the answer is `shipping.shipped.7` or `shipping.refused.7` |
//! | `shipping.recall.7` | whatever has become of it, the goods come back; the answer is `shipping.recalled.7` |
//!
//! A courier may be lost, and the van with him. Once its time is over the next one takes it, and whoever held
//! it before cannot bring it back any more: his lock's token is not the van's.
//!
//! Each way of a van is written down twice: on `shipping.van.<town>` in the ledger, and on `fleet.<town>`
//! for the team that keeps the vans, by the outbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_guest::prelude::*;
use weir_guest::saga;

/// How long a courier may be out before the van is given to another.
const TOUR: Duration = Duration::from_secs(3);

/// Of the command; the saga's data has more.
#[derive(Deserialize)]
struct Parcel {
    town: String,
    door: String,
}

/// Of an order's key, in the cell `tour`.
#[derive(Serialize, Deserialize)]
struct Tour {
    town: String,
    /// Of the lock.
    token: u64,
    state: State,
}

#[derive(Serialize, Deserialize)]
enum State {
    Out,
    Shipped,
    Refused { reason: String },
    Recalled,
}

#[derive(Deserialize)]
struct Back {
    delivered: bool,
}

/// One way of a van: who has it, and since which tour.
#[derive(Serialize)]
struct Way<'a> {
    order: &'a str,
    token: u64,
    way: &'a str,
}

#[handler]
fn shipping(event: Event) -> Result {
    let cell = state::cell::<Tour>("tour");
    let tour = cell.get()?;
    let verb = event.subject().split('.').nth(1).unwrap_or_default();
    let tour = match (verb, tour) {
        ("ship", None) => send(&event)?,
        // Sent again, since the answer was late. He is still out: there will be one.
        ("ship", Some(tour)) => {
            match &tour.state {
                State::Out => {}
                State::Shipped => saga::reply(&event, "shipping.shipped")?.json(&tour.token)?,
                State::Refused { reason } => saga::reply(&event, "shipping.refused")?.json(reason)?,
                State::Recalled => saga::reply(&event, "shipping.refused")?.json("it was recalled")?,
            }
            return Ok(());
        }
        ("back", Some(tour)) if matches!(tour.state, State::Out) => returns(&event, tour)?,
        // He was recalled meanwhile.
        ("back", _) => return Ok(()),
        ("recall", tour) => {
            saga::reply(&event, "shipping.recalled")?.json(&())?;
            match tour {
                Some(tour) => recall(&event, tour)?,
                // It never began, and will not begin later.
                None => Tour {
                    town: String::new(),
                    token: 0,
                    state: State::Recalled,
                },
            }
        }
        _ => return Err(Error::reject(format!("nothing is done on {}", event.subject()))),
    };
    Ok(cell.set(&tour)?)
}

fn send(command: &Event) -> Result<Tour> {
    let parcel: Parcel = command.json()?;
    // Ends here while another courier has the van, and goes on once it is back.
    let token = shared::lock(&van(&parcel.town), TOUR);
    let tour = Tour {
        town: parcel.town,
        token,
        state: State::Out,
    };
    write_down(command, &tour, "out")?;
    let sent = format!("courier.sent.{}", subject_token(command.key()));
    output::to(sent).json(&parcel.door)?;
    Ok(tour)
}

fn returns(event: &Event, tour: Tour) -> Result<Tour> {
    let Back { delivered } = event.json()?;
    let id = subject_token(event.key());
    let reason = match (give_back(event, &tour, "back")?, delivered) {
        (true, true) => {
            output::emit(&format!("shipping.shipped.{id}"), &tour.token)?;
            return Ok(Tour {
                state: State::Shipped,
                ..tour
            });
        }
        (true, false) => "nobody opened",
        (false, _) => "the courier was lost",
    };
    output::emit(&format!("shipping.refused.{id}"), reason)?;
    let reason = reason.to_owned();
    Ok(Tour {
        state: State::Refused { reason },
        ..tour
    })
}

/// Goods that were brought are fetched back; a courier who is out turns round, if he is heard of at all.
fn recall(event: &Event, tour: Tour) -> Result<Tour> {
    if matches!(tour.state, State::Out) {
        give_back(event, &tour, "recalled")?;
    }
    Ok(Tour {
        state: State::Recalled,
        ..tour
    })
}

/// Frees the van, unless it is another's by now. If its lock is taken away while this is being
/// committed, it is done again, and then sees that.
fn give_back(event: &Event, tour: &Tour, way: &str) -> Result<bool> {
    let van = van(&tour.town);
    match shared::try_lock(&van, TOUR) {
        Some(token) if token == tour.token => {
            shared::unlock(&van);
            write_down(event, tour, way)?;
            Ok(true)
        }
        // It was free, and is not ours any more: what was taken just now is put back.
        Some(_) => {
            shared::unlock(&van);
            Ok(false)
        }
        None => Ok(false),
    }
}

fn write_down(event: &Event, tour: &Tour, way: &str) -> Result {
    let town = subject_token(&tour.town);
    let way = Way {
        order: event.key(),
        token: tour.token,
        way,
    };
    output::emit(&format!("shipping.van.{town}"), &way)?;
    output::emit(&format!("fleet.{town}"), &way)
}

fn van(town: &str) -> String {
    format!("van/{town}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ship(host: &mut testing::Host, order: &str) -> Result<testing::Effects> {
        host.deliver(shipping, command("shipping.ship", order))
    }

    fn command(subject: &str, order: &str) -> testing::EventBuilder {
        let command = testing::event(&format!("{subject}.{order}")).key(order);
        command
            .header("Saga-Id", order)
            .data(r#"{"town":"ulm","door":"open"}"#)
    }

    /// Subjects and payloads of what is emitted once the courier of an order is back.
    fn back(host: &mut testing::Host, order: &str) -> Vec<String> {
        let event = testing::event(&format!("courier.back.{order}")).key(order);
        let effects = host.deliver(shipping, event.data(r#"{"delivered":true}"#));
        let emitted = effects.expect("handled").emitted.into_iter();
        emitted
            .map(|one| format!("{} {}", one.subject, String::from_utf8_lossy(&one.data)))
            .collect()
    }

    #[test]
    fn the_next_one_waits_for_the_van() {
        let mut host = testing::Host::new();
        ship(&mut host, "7").expect("handled");
        let waits = ship(&mut host, "8").expect_err("the van is out");
        assert_eq!(waits.reason(), "waits for lock \"van/ulm\"");
        let shipped = back(&mut host, "7");
        assert_eq!(shipped.last().expect("an answer"), "shipping.shipped.7 1");
        ship(&mut host, "8").expect("handled");
    }

    #[test]
    fn who_lost_the_van_does_not_bring_it_back() {
        let mut host = testing::Host::new();
        ship(&mut host, "7").expect("handled");
        host.break_lock("van/ulm");
        ship(&mut host, "8").expect("handled");
        assert_eq!(
            back(&mut host, "7"),
            [r#"shipping.refused.7 "the courier was lost""#]
        );
        assert_eq!(host.lock_holder("van/ulm"), Some("8"));
    }

    #[test]
    fn who_is_recalled_brings_back_the_van_and_nothing_else_happens() {
        let mut host = testing::Host::new();
        ship(&mut host, "7").expect("handled");
        let recall = command("shipping.recall", "7");
        let effects = host.deliver(shipping, recall).expect("handled");
        assert_eq!(effects.emitted[0].subject, "shipping.recalled.7");
        assert_eq!(host.lock_holder("van/ulm"), None);
        assert!(back(&mut host, "7").is_empty());
    }
}
