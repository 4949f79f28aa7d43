//! A dead letter: what is kept of an event that its handler will not take.
//!
//! Two messages of the same batch: the description (this, as JSON) on
//! `$WEIR.<L>.d.<h>.<g>.<p>.<id>.m`, and the original payload on `….b`. Where
//! the payload would not fit beside its batch headers, `body` is
//! [`Body::Reference`] and the bytes stay in the source stream
//! (PROTOCOL rule 13). The same JSON without its reason is the
//! description of a redriven event.

use serde::{Deserialize, Serialize};

use crate::model::event::Headers;

/// Bytes kept of a reason and of a backtrace: a dead letter must always fit.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Bytes kept of all headers together; the rest are dropped and counted in
/// `headers_dropped`.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's id, `<stream>:<sequence>`; what the commands take.
    pub id: String,
    pub stream: String,
    pub sequence: u64,
    pub subject: String,
    /// Empty where the event has no valid key.
    pub key: String,
    /// Unix time in nanoseconds at which the source stored the event.
    pub time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<String>,
    pub headers: Headers,
    #[serde(default)]
    pub headers_dropped: usize,
    pub handler: String,
    pub handler_version: String,
    pub handler_digest: String,
    pub partition: u32,
    /// Invocations that failed; 0 if the handler was not called.
    pub attempts: u32,
    /// `reject`, `retry`, `trap`, `timeout`, `memory`, `violation` or `input`.
    pub kind: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    pub body: Body,
}

/// Where the original bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// On the dead letter's `.b` subject.
    Message,
    /// In the source stream, at `sequence`.
    Reference,
}
