//! An order: what a customer wants, and the one state that it ends in.
//!
//! ```text
//! web.order.7   {"type":"Place","article":"tea","pieces":2,"cents":600,"card":"good","town":"ulm","door":"open"}
//! shop.saga.7   what became of it, from `fulfilment`
//! shop.order.7  Placed, then Shipped or Cancelled
//! ```

use serde::{Deserialize, Serialize};
use weir_guest::aggregate::{self, Aggregate};
use weir_guest::prelude::*;

/// What is ordered. `card` and `door` say what will go wrong: see the README.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wanted {
    article: String,
    pieces: u32,
    cents: u64,
    card: String,
    town: String,
    door: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {
    wanted: Option<Wanted>,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum End {
    Shipped,
    Cancelled,
}

/// Only the first one can be read from a message: customers do not say that an order was shipped.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Command {
    Place(Wanted),
    #[serde(skip)]
    Complete,
    #[serde(skip)]
    Cancel {
        reason: String,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum OrderEvent {
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

#[derive(Debug, PartialEq, Serialize)]
enum Refusal {
    Empty,
    PlacedBefore,
    NotPlaced,
    Over(End),
}

impl Aggregate for Order {
    const NAME: &'static str = "shop.order";
    type Command = Command;
    type Event = OrderEvent;
    type Rejection = Refusal;

    fn decide(&self, command: Command) -> Result<Vec<OrderEvent>, Refusal> {
        let wanted = self.wanted.clone();
        let event = match (command, wanted, self.end) {
            (Command::Place(wanted), None, _) if wanted.pieces == 0 => return Err(Refusal::Empty),
            (Command::Place(wanted), None, _) => OrderEvent::Placed(wanted),
            (Command::Place(_), Some(_), _) => return Err(Refusal::PlacedBefore),
            (_, None, _) => return Err(Refusal::NotPlaced),
            (_, Some(_), Some(end)) => return Err(Refusal::Over(end)),
            (Command::Complete, Some(wanted), None) => OrderEvent::Shipped {
                article: wanted.article,
                pieces: wanted.pieces,
                cents: wanted.cents,
            },
            (Command::Cancel { reason }, Some(wanted), None) => OrderEvent::Cancelled {
                article: wanted.article,
                reason,
            },
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed(wanted) => self.wanted = Some(wanted.clone()),
            OrderEvent::Shipped { .. } => self.end = Some(End::Shipped),
            OrderEvent::Cancelled { .. } => self.end = Some(End::Cancelled),
        }
    }
}

/// What a saga announces when it is at rest.
#[derive(Deserialize)]
struct Rests {
    status: String,
    reason: Option<String>,
}

#[handler]
fn orders(event: Event) -> Result {
    if event.stream() == "ORDERS" {
        return aggregate::handle::<Order>(&event);
    }
    let Rests { status, reason } = event.json()?;
    let command = match &*status {
        "completed" => Command::Complete,
        "compensated" => Command::Cancel {
            reason: reason.unwrap_or_default(),
        },
        // Stuck: it waits for an operator, and the order with it.
        _ => return Ok(()),
    };
    aggregate::execute::<Order>(&event, command)
}

#[cfg(test)]
mod tests {
    use weir_guest::testing::given;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            article: "tea".into(),
            pieces: 2,
            cents: 600,
            card: "good".into(),
            town: "ulm".into(),
            door: "open".into(),
        }
    }

    #[test]
    fn an_order_is_placed_once() {
        given::<Order>([])
            .when(Command::Place(wanted()))
            .then([OrderEvent::Placed(wanted())]);
        given::<Order>([OrderEvent::Placed(wanted())])
            .when(Command::Place(wanted()))
            .rejects(Refusal::PlacedBefore);
    }

    #[test]
    fn an_order_ends_once() {
        let shipped = || OrderEvent::Shipped {
            article: "tea".into(),
            pieces: 2,
            cents: 600,
        };
        let placed = || OrderEvent::Placed(wanted());
        given::<Order>([placed()])
            .when(Command::Complete)
            .then([shipped()]);
        let cancel = Command::Cancel {
            reason: "late".into(),
        };
        given::<Order>([placed(), shipped()])
            .when(cancel)
            .rejects(Refusal::Over(End::Shipped));
        given::<Order>([])
            .when(Command::Complete)
            .rejects(Refusal::NotPlaced);
    }

    #[test]
    fn a_customer_cannot_say_that_it_was_shipped() {
        let told = testing::event("web.order.7")
            .key("7")
            .data(r#"{"type":"Complete"}"#);
        assert!(testing::Host::new().deliver(orders, told).is_err());
    }
}
