//! Events that a handler emits. They appear in the ledger when the invocation
//! is committed, in the order of the calls, and never if it fails.
//!
//! A subject outside the `[emit]` table of `handler.toml` fails the invocation.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! fn handle(event: Event) -> Result {
//!     output::emit("totals.today", &17)?;                  // JSON
//!     output::to("copies.raw")                             // anything, with headers
//!         .header("Copied-From", event.id())
//!         .bytes(event.data());
//!     Ok(())
//! }
//! # let effects = testing::Host::new().deliver(handle, testing::event("a").data("xy")).unwrap();
//! # assert_eq!(effects.emitted[0].data, b"17");
//! # assert_eq!(effects.emitted[1].data, b"xy");
//! # assert_eq!(effects.emitted[1].headers, [("Copied-From".to_string(), "TEST:1".to_string())]);
//! ```

use std::borrow::Cow;

use serde::Serialize;

use crate::host::calls;

/// Emits a value as JSON.
///
/// # Errors
/// Where the value has no form in JSON, such as a map whose keys are not text.
pub fn emit<T: Serialize + ?Sized>(subject: &str, value: &T) -> crate::Result {
    to(subject).json(value)
}

/// Emits bytes.
pub fn emit_bytes(subject: &str, data: impl AsRef<[u8]>) {
    to(subject).bytes(data);
}

/// Begins an event with headers. Nothing is emitted before [`Message::json`] or
/// [`Message::bytes`].
pub fn to<'a>(subject: impl Into<Cow<'a, str>>) -> Message<'a> {
    Message {
        subject: subject.into(),
        headers: Vec::new(),
    }
}

/// An event about to be emitted.
#[must_use = "nothing is emitted before `.json(…)` or `.bytes(…)`"]
pub struct Message<'a> {
    subject: Cow<'a, str>,
    headers: Vec<(String, String)>,
}

impl Message<'_> {
    /// Adds a header; a name may be given more than once. Names that begin with
    /// `Nats-` belong to the server.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Emits it with a value as JSON.
    ///
    /// # Errors
    /// Those of [`emit`].
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> crate::Result {
        let data = serde_json::to_vec(value)?;
        self.bytes(data);
        Ok(())
    }

    /// Emits it with these bytes.
    pub fn bytes(self, data: impl AsRef<[u8]>) {
        calls::emit(&self.subject, self.headers, data.as_ref());
    }
}
