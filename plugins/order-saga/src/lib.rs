//! What has to happen once an order is placed: the customer is charged, the goods are reserved and
//! shipped. Where one of them is refused or never answered, what was done is undone.
//!
//! ```console
//! $ weir sagas list order-saga
//! $ weir sagas show order-saga 7
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_guest::prelude::*;
use weir_guest::saga::{Saga, compensation, step, typed};

/// What every command says: all that payments, stock and shipping need of an order.
#[derive(Serialize, Deserialize)]
struct Order {
    order: String,
    cents: u64,
    /// What shipping is to bring along; known once the goods are reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shelf: Option<String>,
}

#[derive(Deserialize)]
struct Placed {
    cents: u64,
}

#[derive(Deserialize)]
struct Reserved {
    shelf: String,
}

#[handler]
fn order_saga(event: Event) -> Result {
    Saga::<Order>::named("order")
        .starts_with(typed("shop.order.*", "Placed"), |event| {
            let Placed { cents } = event.json()?;
            Ok(Order {
                order: event.key().into(),
                cents,
                shelf: None,
            })
        })
        .announces_on("shop.saga")
        .step(
            step("charge", "payments.charge")
                .done_on("payments.charged.*")
                .refused_on("payments.declined.*")
                .timeout(Duration::from_secs(10)),
            compensation("payments.refund").done_on("payments.refunded.*"),
        )
        .step(
            step("reserve", "stock.reserve")
                .done_with("stock.reserved.*", |order: &mut Order, answer| {
                    let Reserved { shelf } = answer.json()?;
                    order.shelf = Some(shelf);
                    Ok(())
                })
                .refused_on("stock.out.*"),
            compensation("stock.release").done_on("stock.released.*"),
        )
        .last(
            step("ship", "shipping.ship")
                .done_on("shipping.shipped.*")
                .refused_on("shipping.refused.*")
                .attempts(5),
        )
        .handle(&event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_out_of_stock_gives_the_money_back() {
        let mut host = testing::Host::new();
        let mut hears = |subject: &str, kind: &str, data: &str| {
            let event = testing::event(subject).key("7").header("Event-Type", kind);
            let effects = host.deliver(order_saga, event.data(data)).expect("handled");
            let subjects = effects.emitted.into_iter().map(|one| one.subject);
            subjects.collect::<Vec<_>>()
        };
        assert!(hears("shop.order.7", "Added", r#"{"product":"tea","cents":300}"#).is_empty());
        assert_eq!(
            hears("shop.order.7", "Placed", r#"{"cents":300}"#),
            ["payments.charge.7"]
        );
        assert_eq!(hears("payments.charged.7", "", ""), ["stock.reserve.7"]);
        assert_eq!(hears("stock.out.7", "", ""), ["payments.refund.7"]);
        assert_eq!(hears("payments.refunded.7", "", ""), ["shop.saga.7"]);
    }
}
