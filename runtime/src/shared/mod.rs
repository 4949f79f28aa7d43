//! What all keys, handlers and hosts of a ledger share: cells, and locks with a
//! fencing token.
//!
//! Neither is anything but the last message on a subject of the ledger. An invocation
//! reads that message while it runs; what it does is committed in a batch that expects
//! the message to be the last one still (PROTOCOL rule 15). Of two that have read the
//! same, one commits, and the server refuses the other's batch whole: its events are
//! handled again, on what is there now. So transactions over shared cells are
//! serializable, and no clock decides who holds a lock, only when one may be taken away.
//!
//! Look-alikes:
//! * [`Shared`]: which cell or lock.
//! * [`Use`]: what one invocation read and wrote of it.
//! * [`lock::Lock`]: what a lock's message says.
//! * [`Access`]: how a running guest reads them.

use bytes::Bytes;

use crate::log::Stored;
use crate::model::subjects;

pub mod freed;
pub mod lock;
pub mod locks;
pub mod reader;
pub mod service;

/// Cells and locks that one invocation may use: each is a message of its batch.
pub const USES_MAX: usize = 50;

/// Header of a shared cell that was deleted.
pub const DELETED_HEADER: &str = "Weir-Deleted";

/// How long the mark of a deleted cell is kept, in seconds. The mark tells nobody
/// anything: a cell that is absent again is what it was when it was absent before.
pub const DELETED_TTL_S: u64 = 60;

/// A shared cell or a lock, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shared {
    Cell(Box<str>),
    Lock(Box<str>),
}

impl Shared {
    /// The subject whose last message it is.
    pub fn subject(&self, ledger: &str) -> String {
        match self {
            Shared::Cell(name) => subjects::shared_cell(ledger, name),
            Shared::Lock(name) => subjects::lock(ledger, name),
        }
    }
}

/// What one invocation did with a shared cell or a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Sequence of the message that was read, 0 for none: the commit expects it to be the
    /// last one still.
    pub expected: u64,
    pub write: Option<Write>,
}

/// What becomes of a shared cell or a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Set(Bytes),
    Delete,
}

/// Reads shared cells and locks for a running guest, on its thread.
pub trait Access: Send + Sync {
    /// The last message of a cell or lock, from the leader.
    ///
    /// # Errors
    /// NATS does not answer; a sentence that says so.
    fn last(&self, shared: &Shared) -> Result<Option<Stored>, String>;

    /// The time by which locks expire, in Unix nanoseconds, where the partition's clock
    /// is at `clock`.
    fn now(&self, clock: u64) -> u64;

    /// Who takes locks for `key`.
    fn holder(&self, key: &str) -> lock::Holder;
}
