//! The port to the durable log: all that Weir asks of JetStream, and nothing
//! more. `jetstream` speaks to a server, `memory` is the same thing in a
//! process, with faults to order; both pass one conformance suite
//! (`tests/tests/log_conformance.rs`).
//!
//! Look-alikes:
//! * [`Append`] is a message on its way in, [`Stored`] one that is in.
//! * [`Log::last`] and [`Log::get`] ask the leader; [`Log::last_many`] and
//!   [`Log::scan`] may be answered by any replica, which may lag. The fence
//!   decides, never a read.
//! * [`AppendError::Unknown`] is not a failure: the append may have happened.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::event::Headers;

pub mod jetstream;
pub mod memory;

/// A message to append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Append {
    pub subject: String,
    pub headers: Headers,
    pub data: Bytes,
    /// The fence: the sequence of the last message on `subject`, 0 for none.
    pub expected: Option<u64>,
    /// A fence on another subject of the stream, and the sequence of its last message.
    /// Only where `expected` is none, and of no subject that the batch writes before.
    pub expected_of: Option<(String, u64)>,
    /// Time to live in seconds, at least 1 (`Nats-TTL`).
    pub ttl_s: Option<u64>,
    /// Removes everything that the subject held before (`Nats-Rollup: sub`).
    pub rollup: bool,
    pub schedule: Option<Schedule>,
}

/// A message schedule (ADR-51): the message is kept on its own subject, and a
/// copy is stored on `target` when it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Unix time in nanoseconds.
    pub due: u64,
    pub target: String,
    /// Subject of the schedule that this one replaces; it is purged in the same
    /// message (`Nats-Schedule-Next: purge` with `Nats-Scheduler`, PROTOCOL rule 5).
    pub replaces: Option<String>,
}

/// A message that is in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub subject: Box<str>,
    pub sequence: u64,
    /// Unix time in nanoseconds.
    pub time: u64,
    pub headers: Headers,
    pub data: Bytes,
}

impl Stored {
    /// Value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Value of the last header of that name: of several, the one that the server
    /// added to what the message brought along.
    pub fn last_header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .rfind(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// What the server says of an append that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Sequence of the last message of the batch.
    pub sequence: u64,
}

/// Answer of [`Log::last_many`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Last message of each subject that has one, in no order.
    pub messages: Vec<Stored>,
    /// The replica that answered had everything up to this sequence; `None`
    /// where it did not say, so that the answer proves nothing.
    pub up_to: Option<u64>,
}

/// A stream as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    pub name: String,
    /// Its identity: when it was created, as Unix time in nanoseconds. Of one that was restored from a
    /// backup and adopted (`weir adopt`), when the stream was created that the backup is of.
    pub created: u64,
    /// When the server made it: other than `created` only where it was adopted.
    pub made: u64,
    /// First sequence that is still stored (`last + 1` in an empty stream).
    pub first: u64,
    /// Last sequence ever given, 0 in a new stream.
    pub last: u64,
    pub settings: StreamSettings,
}

impl StreamState {
    /// Whether events from sequence `begin` on have gone. From its ledger Weir itself removes what is done
    /// with, which are no events: there they go only by a limit of the stream.
    pub fn has_lost(&self, begin: u64, ledger: &str) -> bool {
        let settings = &self.settings;
        let limited =
            settings.max_age_s.is_some() || settings.max_messages.is_some() || settings.max_bytes.is_some();
        self.first > begin && (self.name != ledger || limited)
    }
}

/// The settings of a stream that Weir sets, or checks before it trusts one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    pub subjects: Vec<String>,
    pub replicas: usize,
    pub atomic_publish: bool,
    pub direct_get: bool,
    pub message_ttl: bool,
    pub schedules: bool,
    pub rollup: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub sealed: bool,
    pub memory_storage: bool,
    /// `PersistMode: async`.
    pub persist_async: bool,
    /// `limits` retention, as opposed to `interest` or `workqueue`.
    pub limits_retention: bool,
    pub discard_new: bool,
    pub max_age_s: Option<u64>,
    pub max_messages: Option<i64>,
    pub max_messages_per_subject: Option<i64>,
    pub max_bytes: Option<i64>,
    pub max_message_bytes: Option<i32>,
    /// Window of `Nats-Msg-Id` deduplication, in seconds.
    pub duplicate_window_s: u64,
    /// Mirror or sourced from other streams.
    pub sourced: bool,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    First,
    /// After what is stored now.
    New,
    Sequence(u64),
    /// Unix nanoseconds: the first message stored then or later.
    Time(u64),
}

impl Start {
    /// What `all`, `new` or an RFC 3339 time since 1970 means; `None` for anything else.
    pub fn named(text: &str) -> Option<Start> {
        match text {
            "all" => Some(Start::First),
            "new" => Some(Start::New),
            _ => {
                let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
                Some(Start::Time(time.unix_timestamp_nanos().try_into().ok()?))
            }
        }
    }
}

/// Why something other than an append failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection, no leader, no answer in time: the same call may succeed later.
    #[error("NATS does not answer: {0}")]
    Unavailable(String),
    #[error("stream {0} does not exist")]
    NoStream(String),
    /// The server understood and said no.
    #[error("NATS refused {what}: {description} (code {code})")]
    Refused {
        what: String,
        code: u64,
        description: String,
    },
    /// An answer that does not read as one.
    #[error("NATS answered {what} with something unexpected: {detail}")]
    Malformed { what: String, detail: String },
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }
}

/// Why an append was not taken, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// 10071: a fence of the batch is stale. Nothing of it is visible. The
    /// server does not say which.
    #[error("a fence was stale: {0}")]
    Fenced(String),
    /// 10164, 10176, 10199, 10210 and the like: not now, or not in this
    /// shape. Nothing of the batch is visible. Back off, and send less at once.
    #[error("the server is busy or the batch was abandoned: {description} (code {code})")]
    Busy { code: u64, description: String },
    /// A message or the batch is over a limit of the server. Nothing is visible.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The server will not take it until somebody changes something: full,
    /// sealed, deleted, not permitted. Nothing is visible.
    #[error("{description} (code {code})")]
    Refused { code: u64, description: String },
    /// No answer. It may have happened, or may still happen.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl AppendError {
    /// Whether the same append may succeed later, or has succeeded.
    pub fn is_transient(&self) -> bool {
        matches!(self, AppendError::Unknown(_) | AppendError::Busy { .. })
    }
}

/// The durable log. Cheap to share; every method can be called concurrently.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Largest message (headers and payload) that the server takes, in bytes.
    fn max_payload(&self) -> usize;

    /// Whether the connection stands at this moment.
    fn connected(&self) -> bool;

    /// The stream as its leader sees it. [`Error::NoStream`] if there is none.
    async fn stream(&self, stream: &str) -> Result<StreamState, Error>;

    /// Creates the stream; it is no error if it exists with any settings.
    async fn create_stream(&self, stream: &str, settings: &StreamSettings) -> Result<StreamState, Error>;

    /// Gives a stream other subjects, and leaves every other setting of it as it is.
    async fn set_subjects(&self, stream: &str, subjects: &[String]) -> Result<(), Error>;

    /// Appends one message, or several as one atomic batch (ADR-50): all or
    /// none, in order, the answer only after all are stored. Bounded in time by
    /// the implementation; [`AppendError::Unknown`] after that.
    async fn append(&self, stream: &str, batch: Vec<Append>) -> Result<Appended, AppendError>;

    /// Last message on a literal subject, from the leader.
    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Error>;

    /// The message at a sequence, from the leader; `None` if it is gone.
    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error>;

    /// Messages from sequence `from` on whose subject matches `filter`
    /// (wildcards allowed), in order, at most `max`. An empty answer means that
    /// there are none. May come from a lagging replica.
    async fn scan(&self, stream: &str, filter: &str, from: u64, max: usize) -> Result<Vec<Stored>, Error>;

    /// Last message of every subject that matches one of `filters` (wildcards
    /// allowed). Splits requests and asks for the rest as the server's limits
    /// require (PROTOCOL rule 10), so that an `Ok` is complete; `up_to` is then
    /// the lowest of the parts. May come from a lagging replica.
    async fn last_many(&self, stream: &str, filters: &[String]) -> Result<Snapshot, Error>;

    /// Removes messages below sequence `below` whose subject matches `filter`.
    async fn purge(&self, stream: &str, filter: &str, below: u64) -> Result<(), Error>;

    /// The sequence that `start` means now: the first one to read.
    async fn resolve(&self, stream: &str, start: Start) -> Result<u64, Error>;

    /// Reads messages that match one of `filters` from sequence `from` on.
    async fn read(&self, stream: &str, filters: &[String], from: u64) -> Result<Box<dyn Reader>, Error>;
}

/// Reads a stream in order, without acknowledgements, for as long as nothing
/// breaks. Whoever opens another one after that looks first whether the stream is
/// still the same (PROTOCOL rule 6): a reader would not notice.
#[async_trait]
pub trait Reader: Send {
    /// Matching messages from its start on that the stream had when it was opened. With 0,
    /// [`Reader::next`] waits for what is yet to be stored.
    fn found(&self) -> u64;

    /// Waits until there is at least one message, appends what has arrived to
    /// `into` (at most a few thousand), and returns how many matching messages
    /// the server says are still to come. In order, without gaps and without
    /// repetition (PROTOCOL rule 7). Does not ask the server for more while nobody
    /// calls it, but for a bounded number of messages that were asked for already.
    ///
    /// Cancel safe: a call dropped half-way loses nothing.
    ///
    /// # Errors
    /// The reader is at its end, and says why: the connection was lost or made
    /// anew, the stream or the server's side of the reader is gone, messages are
    /// missing. Whatever it appended before is good.
    async fn next(&mut self, into: &mut Vec<Stored>) -> Result<u64, Error>;
}

/// A log that can be handed around.
pub type SharedLog = Arc<dyn Log>;
