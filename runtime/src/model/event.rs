//! One event, as it travels from a source to a handler.

use std::sync::Arc;

use bytes::Bytes;

/// Name and value of each header. Sorted by name where they were read from a
/// stream, so that a handler sees the same order each time.
pub type Headers = Vec<(String, String)>;

/// One message of a source, decoded: what a handler is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Index of the source in the handler's list; the internal source (timers
    /// that fired, redriven dead letters) comes after those of the manifest.
    pub source: u16,
    /// The stream the event was first stored in. A redriven event keeps its own.
    pub stream: Arc<str>,
    /// Sequence in `stream`; with it, the event's id.
    pub sequence: u64,
    /// Sequence in the source it was read from: what positions count. Differs
    /// from `sequence` only for a redriven event.
    pub offset: u64,
    pub subject: Box<str>,
    pub key: Arc<str>,
    /// Unix time in nanoseconds at which the stream stored it.
    pub time: u64,
    pub timer: Option<FiredTimer>,
    pub headers: Headers,
    pub data: Bytes,
}

/// Which timer an event is the firing of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiredTimer {
    pub name: Box<str>,
    /// Generation of the timer; one that is not live any more is consumed as nothing.
    pub generation: u64,
}

impl FiredTimer {
    /// Generation of a timer's event that comes back as a redriven dead letter:
    /// its timer is long consumed, and it is handled all the same.
    pub const REDRIVEN: u64 = u64::MAX;
}

impl Event {
    /// The event's id, `<stream>:<sequence>`: stable and unique.
    pub fn id(&self) -> String {
        format!("{}:{}", self.stream, self.sequence)
    }

    /// Bytes that this event holds while it waits, for budgets. An estimate,
    /// never less than the payload.
    pub fn size(&self) -> usize {
        const STRUCT_BYTES: usize = 200; // the struct, its allocations' headers
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 48).sum();
        STRUCT_BYTES + self.subject.len() + self.key.len() + headers + self.data.len()
    }
}
