//! What an order goes through: goods are reserved, money is taken, a courier brings them. Where one
//! of these is refused or never answered, what was done is undone, the last step first.
//!
//! ```console
//! $ weir sagas list fulfilment
//! $ weir sagas show fulfilment 7
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_guest::prelude::*;
use weir_guest::saga::{Saga, compensation, step, typed};

/// How long an answer is waited for, and a courier, who may have to wait for a van. Short, so that a run
/// with thousands of orders is over soon; a real shop gives a courier a day.
const PATIENCE: Duration = Duration::from_secs(2);
const COURIER: Duration = Duration::from_secs(5);

/// How often a step is asked for: an answer may be lost with whoever was to give it.
const ATTEMPTS: u32 = 2;

/// Pauses between two attempts of a compensation, which has to succeed in the end.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

#[derive(Serialize, Deserialize)]
struct Order {
    /// The payload of `Placed` does not say it: its subject does.
    #[serde(default)]
    order: String,
    article: String,
    pieces: u32,
    cents: u64,
    card: String,
    town: String,
    door: String,
}

/// The commands of `payments`, which is an aggregate.
#[derive(Serialize)]
#[serde(tag = "type")]
enum Payment {
    Charge { cents: u64, card: String },
    Refund,
}

/// Stock is kept per article, so that the article is the key there.
fn shelf(verb: &str) -> impl Fn(&Order) -> String + use<> {
    let verb = verb.to_owned();
    move |order| {
        let article = subject_token(&order.article);
        format!("stock.{verb}.{article}.{}", subject_token(&order.order))
    }
}

#[handler]
fn fulfilment(event: Event) -> Result {
    Saga::<Order>::named("fulfilment")
        .starts_with(typed("shop.order.*", "Placed"), |event| {
            let order: Order = event.json()?;
            Ok(Order {
                order: event.key().into(),
                ..order
            })
        })
        .announces_on("shop.saga")
        .step(
            step("reserve", "stock.reserve")
                .to(shelf("reserve"))
                .done_on("stock.reserved.*")
                .refused_on("stock.out.*")
                .timeout(PATIENCE)
                .attempts(ATTEMPTS),
            compensation("stock.release")
                .to(shelf("release"))
                .done_on("stock.released.*")
                .timeout(PATIENCE)
                .backoff(BACKOFF.0, BACKOFF.1),
        )
        .step(
            step("charge", "payments.charge")
                .with(|order: &Order| Payment::Charge {
                    cents: order.cents,
                    card: order.card.clone(),
                })
                .done_on(typed("shop.payment.*", "Charged"))
                // It was asked for twice, and the first answer came too late to count.
                .done_on(typed("shop.payment.*", "Confirmed"))
                .refused_on("shop.payment.*.rejected")
                .timeout(PATIENCE)
                .attempts(ATTEMPTS),
            compensation("payments.refund")
                .with(|_: &Order| Payment::Refund)
                .done_on(typed("shop.payment.*", "Refunded"))
                .timeout(PATIENCE)
                .backoff(BACKOFF.0, BACKOFF.1),
        )
        .step(
            step("ship", "shipping.ship")
                .done_on("shipping.shipped.*")
                .refused_on("shipping.refused.*")
                .timeout(COURIER)
                .attempts(ATTEMPTS),
            // Also where nobody knows whether the courier was there: goods that he brought are fetched back.
            compensation("shipping.recall")
                .done_on("shipping.recalled.*")
                .timeout(PATIENCE)
                .backoff(BACKOFF.0, BACKOFF.1),
        )
        .end()
        .handle(&event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACED: &str = r#"{"type":"Placed","article":"tea","pieces":2,"cents":600,"card":"good","town":"ulm","door":"open"}"#;

    /// Subjects of what the saga of order 7 says to each of these events.
    fn says(events: &[(&str, &str)]) -> Vec<String> {
        let mut host = testing::Host::new();
        let mut last = Vec::new();
        for (subject, kind) in events {
            let event = testing::event(*subject).key("7").header("Event-Type", *kind);
            let effects = host.deliver(fulfilment, event.data(PLACED)).expect("handled");
            last = effects.emitted.into_iter().map(|one| one.subject).collect();
        }
        last
    }

    const RESERVED: [(&str, &str); 2] = [("shop.order.7", "Placed"), ("stock.reserved.7", "")];
    const CHARGED: (&str, &str) = ("shop.payment.7", "Charged");

    #[test]
    fn goods_money_courier() {
        assert_eq!(says(&RESERVED[..1]), ["stock.reserve.tea.7"]);
        assert_eq!(says(&RESERVED), ["payments.charge.7"]);
        let charged = [&RESERVED[..], &[CHARGED]].concat();
        assert_eq!(says(&charged), ["shipping.ship.7"]);
        let shipped = [&charged[..], &[("shipping.shipped.7", "")]].concat();
        assert_eq!(says(&shipped), ["shop.saga.7"]);
    }

    #[test]
    fn whoever_is_not_at_home_has_his_money_back() {
        let refused = [&RESERVED[..], &[CHARGED, ("shipping.refused.7", "")]].concat();
        assert_eq!(says(&refused), ["payments.refund.7"]);
        let refunded = [&refused[..], &[("shop.payment.7", "Refunded")]].concat();
        assert_eq!(says(&refunded), ["stock.release.tea.7"]);
        let released = [&refunded[..], &[("stock.released.7", "")]].concat();
        assert_eq!(says(&released), ["shop.saga.7"]);
    }

    #[test]
    fn a_card_that_is_declined_gives_the_goods_back() {
        let declined = [&RESERVED[..], &[("shop.payment.7.rejected", "Rejected")]].concat();
        assert_eq!(says(&declined), ["stock.release.tea.7"]);
    }
}
