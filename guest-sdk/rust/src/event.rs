//! What a handler is called with.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bindings;

/// Subject of what an operator tells a handler about one key. No guest can emit on it.
const CONTROL_SUBJECT: &str = "$WEIR.control";

/// What an operator tells a handler about one key, with a command such as `weir sagas retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Control {
    /// Try again what did not succeed.
    Retry,
    /// Give up, and undo what was done.
    Compensate,
}

/// One event: a JetStream message of a source, or a timer that fired.
#[derive(Clone)]
pub struct Event(bindings::Event);

impl Event {
    pub(crate) fn new(event: bindings::Event) -> Self {
        Event(event)
    }

    /// Stable and unique, `<stream>:<sequence>`: the same in every attempt, and
    /// so a good idempotency key for whatever the handler emits.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The stream that the event is stored in.
    pub fn stream(&self) -> &str {
        &self.0.stream
    }

    /// Its sequence in that stream.
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// The subject it was published on.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The key it belongs to, as `[key]` of `handler.toml` says. State, timers
    /// and order are per key.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// When the stream stored it. The only clock there is.
    pub fn time(&self) -> Time {
        Time(self.0.time)
    }

    /// The timer's name, if this is a timer that fired.
    pub fn timer(&self) -> Option<&str> {
        self.0.timer.as_deref()
    }

    /// What an operator says, if this is that. It has been made by `weir`, and cannot be emitted
    /// by a handler.
    ///
    /// ```
    /// use weir_guest::prelude::*;
    /// use weir_guest::Control;
    ///
    /// fn handle(event: Event) -> Result {
    ///     if event.control()? == Some(Control::Retry) {
    ///         log::info!("an operator wants {} tried again", event.key());
    ///     }
    ///     Ok(())
    /// }
    /// # let told = testing::event("$WEIR.control").key("7").data(r#"{"do":"retry"}"#);
    /// # assert_eq!(testing::Host::new().deliver(handle, told).unwrap().log.len(), 1);
    /// ```
    ///
    /// # Errors
    /// Something that this version of the SDK does not know; with `?` a rejection.
    pub fn control(&self) -> Result<Option<Control>, serde_json::Error> {
        match self.timer().is_none() && self.subject() == CONTROL_SUBJECT {
            true => self.json().map(Some),
            false => Ok(None),
        }
    }

    /// The first header of that name, which is compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All headers in the order of the message.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_str()))
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        &self.0.data
    }

    /// The payload read as JSON.
    ///
    /// ```
    /// use weir_guest::prelude::*;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order { total: f64 }
    ///
    /// fn handle(event: Event) -> Result {
    ///     let order: Order = event.json()?;      // rejects what is not an order
    ///     log::debug!("{}", order.total);
    ///     Ok(())
    /// }
    /// # let bad = testing::event("orders").data("{}");
    /// # assert!(testing::Host::new().deliver(handle, bad).unwrap_err().is_reject());
    /// ```
    ///
    /// # Errors
    /// Where the payload is not JSON of that shape. With `?` it becomes a
    /// rejection: the same bytes will not read better next time.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0.data)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.0.id)
            .field("subject", &self.0.subject)
            .field("key", &self.0.key)
            .field("timer", &self.0.timer)
            .field("data_bytes", &self.0.data.len())
            .finish_non_exhaustive()
    }
}

/// A moment: Unix time in nanoseconds, UTC.
///
/// ```
/// use std::time::Duration;
/// use weir_guest::Time;
/// let later = Time::from_unix_secs(1) + Duration::from_millis(5);
/// assert_eq!(later.unix_nanos(), 1_005_000_000);
/// assert_eq!(later - Time::from_unix_secs(1), Duration::from_millis(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// The last moment that there is, where the seconds are too many.
    pub const fn from_unix_secs(secs: u64) -> Self {
        Time(secs.saturating_mul(1_000_000_000))
    }

    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    pub const fn unix_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

/// Stops at the last moment that there is, in the year 2554.
impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// How long after `earlier`; zero where it was not after.
impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
