//! An order, event-sourced: `decide` and `evolve`, and nothing else.
//!
//! ```console
//! $ nats pub orders.7 '{"type":"Add","product":"tea","cents":300}'
//! $ nats pub orders.7 '{"type":"Place"}' -H Expected-Version:1
//! $ weir state get order 7 aggregate
//! {"version":2,"state":{"lines":{"tea":300},"status":"Placed"}}
//! ```
//!
//! Events are on `shop.order.<id>`, refusals on `shop.order.<id>.rejected`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_guest::aggregate::{self, Aggregate};
use weir_guest::prelude::*;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {
    /// Cents by product.
    lines: BTreeMap<String, u64>,
    status: Status,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Status {
    #[default]
    Open,
    Placed,
    Cancelled,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Command {
    Add { product: String, cents: u64 },
    Place,
    Cancel { reason: String },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum OrderEvent {
    Added { product: String, cents: u64 },
    Placed { cents: u64 },
    Cancelled { reason: String },
}

#[derive(Debug, PartialEq, Serialize)]
enum Refusal {
    Empty,
    NotOpen(Status),
}

impl Aggregate for Order {
    const NAME: &'static str = "shop.order";
    type Command = Command;
    type Event = OrderEvent;
    type Rejection = Refusal;

    fn decide(&self, command: Command) -> Result<Vec<OrderEvent>, Refusal> {
        match (command, self.status) {
            (Command::Add { product, cents }, Status::Open) => Ok(vec![OrderEvent::Added { product, cents }]),
            (Command::Place, Status::Open) if self.lines.is_empty() => Err(Refusal::Empty),
            (Command::Place, Status::Open) => Ok(vec![OrderEvent::Placed { cents: self.cents() }]),
            // It is asked for again where the answer was late.
            (Command::Cancel { .. }, Status::Cancelled) => Ok(Vec::new()),
            (Command::Cancel { reason }, _) => Ok(vec![OrderEvent::Cancelled { reason }]),
            (_, status) => Err(Refusal::NotOpen(status)),
        }
    }

    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Added { product, cents } => *self.lines.entry(product.clone()).or_default() += cents,
            OrderEvent::Placed { .. } => self.status = Status::Placed,
            OrderEvent::Cancelled { .. } => self.status = Status::Cancelled,
        }
    }
}

impl Order {
    fn cents(&self) -> u64 {
        self.lines.values().sum()
    }
}

#[handler]
fn order(event: Event) -> Result {
    aggregate::handle::<Order>(&event)
}

#[cfg(test)]
mod tests {
    use weir_guest::testing::given;

    use super::*;

    fn tea() -> OrderEvent {
        OrderEvent::Added {
            product: "tea".into(),
            cents: 300,
        }
    }

    #[test]
    fn an_order_is_placed_for_what_its_lines_cost() {
        given::<Order>([tea(), tea()])
            .when(Command::Place)
            .then([OrderEvent::Placed { cents: 600 }]);
        given::<Order>([]).when(Command::Place).rejects(Refusal::Empty);
    }

    #[test]
    fn a_cancelled_order_stays_so() {
        let cancelled = || OrderEvent::Cancelled { reason: "x".into() };
        let cancel = || Command::Cancel { reason: "y".into() };
        given::<Order>([tea(), cancelled()]).when(cancel()).then([]);
        given::<Order>([tea(), cancelled()])
            .when(Command::Place)
            .rejects(Refusal::NotOpen(Status::Cancelled));
    }
}
