//! Tells another system of each order that is shipped, and says what it answered.
//!
//! Posts the order and its carrier to the configured `url`, and emits
//! `notifications.sent.<order>` with the status of the answer. Whatever
//! goes wrong on the way is tried again: the host sends the same `Idempotency-Key` then, so that the
//! other system can tell a second attempt from a second order.

use serde::{Deserialize, Serialize};
use weir_guest::http;
use weir_guest::prelude::*;

#[derive(Deserialize, Serialize)]
struct Shipped {
    order: String,
    carrier: String,
}

#[derive(Serialize)]
struct Sent<'a> {
    order: &'a str,
    status: u16,
    of: &'a str,
}

#[handler]
fn notify(event: Event) -> Result {
    let shipped: Shipped = event.json()?;
    let url: String = config::parse("url")?;
    let response = http::post(url).json(&shipped)?.send()?.ok()?;
    let sent = Sent {
        order: &shipped.order,
        status: response.status,
        of: event.id(),
    };
    output::emit(
        &format!("notifications.sent.{}", subject_token(event.key())),
        &sent,
    )
}
