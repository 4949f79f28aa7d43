//! How a handler fails, and what `?` makes of the errors of others.

use std::any::Any;
use std::fmt::{self, Display};

use crate::bindings::Failure;

/// What a handler returns.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// The two ways to fail. Either way nothing of the invocation is kept.
///
/// * **retry**: the host calls again with its backoff, events of the same
///   partition wait, and when the attempts are used up the event is
///   dead-lettered.
/// * **reject**: no attempt will do better; the event is dead-lettered now.
///
/// `?` on an error of the standard kind makes a *retry* of it, but a *reject* of
/// JSON that cannot be read, and of a request that is not allowed. [`OrFail`] decides otherwise.
///
/// ```
/// use weir_guest::prelude::*;
///
/// fn handle(event: Event) -> Result {
///     let amount: i64 = event.json()?;
///     if amount < 0 {
///         return Err(Error::reject(format!("negative amount {amount}")));
///     }
///     let factor: i64 = event.header("Factor").or_reject("no Factor")?.parse().or_reject("Factor")?;
///     output::emit("out", &(amount * factor))
/// }
/// # let mut host = testing::Host::new();
/// # let error = host.deliver(handle, testing::event("a").data("5").header("Factor", "x")).unwrap_err();
/// # assert_eq!(error.to_string(), "reject: Factor: invalid digit found in string");
/// # let error = host.deliver(handle, testing::event("a").data("5")).unwrap_err();
/// # assert_eq!(error.to_string(), "reject: no Factor");
/// ```
///
/// It is not a `std::error::Error` itself, which is what lets `?` take them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Retry,
    Reject,
}

impl Error {
    /// Call again later.
    pub fn retry(reason: impl Display) -> Self {
        Error {
            kind: Kind::Retry,
            reason: reason.to_string(),
        }
    }

    /// Dead-letter the event.
    pub fn reject(reason: impl Display) -> Self {
        Error {
            kind: Kind::Reject,
            reason: reason.to_string(),
        }
    }

    pub fn is_reject(&self) -> bool {
        self.kind == Kind::Reject
    }

    /// What the dead letter and the log will say.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn into_failure(self) -> Failure {
        match self.kind {
            Kind::Retry => Failure::Retry(self.reason),
            Kind::Reject => Failure::Reject(self.reason),
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Retry => "retry",
            Kind::Reject => "reject",
        };
        write!(f, "{kind}: {}", self.reason)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let unreadable = (&error as &dyn Any)
            .downcast_ref::<serde_json::Error>()
            .is_some_and(|json| !json.is_io());
        #[cfg(feature = "http")]
        let denied = (&error as &dyn Any)
            .downcast_ref::<crate::http::Error>()
            .is_some_and(crate::http::Error::is_denied);
        #[cfg(not(feature = "http"))]
        let denied = false;
        let reason = chain(&error);
        match unreadable || denied {
            true => Error::reject(reason),
            false => Error::retry(reason),
        }
    }
}

/// The error and what caused it, as `a: b: c`. Causes that the message already
/// ends with are not said twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Decides what a missing value or an error means for the event. `message` says
/// what was being done; the cause follows it.
///
/// ```
/// use weir_guest::OrFail;
/// let error = "x".parse::<u8>().or_reject("age").unwrap_err();
/// assert_eq!(error.to_string(), "reject: age: invalid digit found in string");
/// let error = None::<u8>.or_retry("no rate for today yet").unwrap_err();
/// assert_eq!(error.to_string(), "retry: no rate for today yet");
/// ```
pub trait OrFail<T> {
    fn or_reject(self, message: impl Display) -> Result<T>;

    fn or_retry(self, message: impl Display) -> Result<T>;
}

impl<T, E: Into<Error>> OrFail<T> for std::result::Result<T, E> {
    fn or_reject(self, message: impl Display) -> Result<T> {
        self.map_err(|error| Error::reject(format!("{message}: {}", error.into().reason)))
    }

    fn or_retry(self, message: impl Display) -> Result<T> {
        self.map_err(|error| Error::retry(format!("{message}: {}", error.into().reason)))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_reject(self, message: impl Display) -> Result<T> {
        self.ok_or_else(|| Error::reject(message))
    }

    fn or_retry(self, message: impl Display) -> Result<T> {
        self.ok_or_else(|| Error::retry(message))
    }
}

/// What a handler may return: `()`, or a result with an error that `?` takes.
pub trait Outcome {
    #[doc(hidden)]
    fn into_result(self) -> Result;
}

impl Outcome for () {
    fn into_result(self) -> Result {
        Ok(())
    }
}

impl<E: Into<Error>> Outcome for std::result::Result<(), E> {
    fn into_result(self) -> Result {
        self.map_err(Into::into)
    }
}
