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

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{Event, Time};
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

/// When the timer of that name is due, if it is set.
pub fn due(name: &str) -> Option<Time> {
    calls::timer_due(name).map(Time::from_unix_nanos)
}

/// A timer that carries a `T` as JSON.
///
/// ```
/// use std::time::Duration;
/// use weir_guest::prelude::*;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Reminder { to: String, times: u32 }
///
/// fn handle(event: Event) -> Result {
///     let remind = timers::timer::<Reminder>("remind");
///     if let Some(mut reminder) = remind.fired(&event)? {
///         output::emit("reminders", &reminder)?;
///         reminder.times += 1;
///         return match reminder.times {
///             3.. => Ok(()),
///             _ => remind.after(Duration::from_secs(3600), &reminder),
///         };
///     }
///     if remind.due().is_none() {
///         remind.after(Duration::from_secs(60), &Reminder { to: event.key().into(), times: 0 })?;
///     }
///     Ok(())
/// }
/// # let mut host = testing::Host::new();
/// # host.deliver(handle, testing::event("a").key("k")).unwrap();
/// # let fired = host.fire_until(handle, Time::from_unix_secs(100_000)).unwrap();
/// # assert_eq!(fired.len(), 3);
/// # assert_eq!(fired[2].emitted[0].data, br#"{"to":"k","times":2}"#);
/// ```
pub fn timer<T: Serialize + DeserializeOwned>(name: &str) -> Timer<'_, T> {
    Timer {
        name,
        carries: PhantomData,
    }
}

/// Made by [`timer`].
pub struct Timer<'a, T> {
    name: &'a str,
    carries: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Timer<'_, T> {
    /// Sets it, or replaces what was set.
    ///
    /// # Errors
    /// Where the value has no form in JSON.
    pub fn set(&self, at: Time, value: &T) -> crate::Result {
        set_with(self.name, at, value)
    }

    /// Sets it this long after the event being handled was stored.
    ///
    /// # Errors
    /// Where the value has no form in JSON.
    pub fn after(&self, delay: Duration, value: &T) -> crate::Result {
        self.set(host::now() + delay, value)
    }

    /// Removes it, if it is set.
    pub fn cancel(&self) {
        cancel(self.name);
    }

    /// When it is due, if it is set.
    pub fn due(&self) -> Option<Time> {
        due(self.name)
    }

    /// What it carries, if `event` is this timer that fired.
    ///
    /// # Errors
    /// Where it was set with something that is no `T`; with `?` a rejection.
    pub fn fired(&self, event: &Event) -> crate::Result<Option<T>> {
        match event.timer() == Some(self.name) {
            true => Ok(Some(event.json()?)),
            false => Ok(None),
        }
    }
}
