//! Durable timers of the event's key.
//!
//! A timer that fires is an event of the same key, in order with all the
//! others, whose [`Event::timer`](crate::Event::timer) is the timer's name.
//! Setting one of the same name replaces it. Both happen with the commit, so a
//! timer that was cancelled does not fire.
//!
//! ```
//! use std::time::Duration;
//! use weir_guest::prelude::*;
//!
//! fn handle(event: Event) -> Result {
//!     match event.timer() {
//!         Some("unpaid") => output::emit("orders.cancelled", event.key())?,
//!         _ if event.subject() == "orders.paid" => timers::cancel("unpaid"),
//!         _ => timers::after("unpaid", Duration::from_secs(15 * 60)),
//!     }
//!     Ok(())
//! }
//! # let mut host = testing::Host::new();
//! # let new = testing::event("orders.new").key("7").time(Time::from_unix_secs(100));
//! # let effects = host.deliver(handle, new).unwrap();
//! # assert_eq!(effects.timers[0].at, Some(Time::from_unix_secs(1_000)));
//! # let effects = host.deliver(handle, testing::event("orders.new").key("7").timer("unpaid")).unwrap();
//! # assert_eq!(effects.emitted[0].data, br#""7""#);
//! # let effects = host.deliver(handle, testing::event("orders.paid").key("7")).unwrap();
//! # assert_eq!(effects.timers[0].at, None);
//! ```

use std::time::Duration;

use serde::Serialize;

use crate::event::Time;
use crate::host::{self, calls};

/// Sets a timer. One that is due already fires at once.
pub fn set(name: &str, at: Time) {
    calls::set_timer(name, at.unix_nanos(), &[]);
}

/// Sets a timer whose event carries a value as JSON.
///
/// # Errors
/// Where the value has no form in JSON.
pub fn set_with<T: Serialize + ?Sized>(name: &str, at: Time, value: &T) -> crate::Result {
    calls::set_timer(name, at.unix_nanos(), &serde_json::to_vec(value)?);
    Ok(())
}

/// Sets a timer whose event carries these bytes.
pub fn set_bytes(name: &str, at: Time, data: impl AsRef<[u8]>) {
    calls::set_timer(name, at.unix_nanos(), data.as_ref());
}

/// Sets a timer this long after the event being handled was stored.
pub fn after(name: &str, delay: Duration) {
    set(name, host::now() + delay);
}

/// Removes a timer, if there is one.
pub fn cancel(name: &str) {
    calls::cancel_timer(name);
}
