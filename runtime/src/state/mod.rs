//! Cells: the state that handlers keep per key. Log first, checkpoint behind:
//! a change is durable once its commit record is; the state bucket follows.
//!
//! Look-alikes:
//! * [`KeyState`]: all cells and timers of one key, as a handler sees them.
//! * [`cells::Cells`]: the keys in memory, uncommitted changes included. The
//!   executor's.
//! * [`dirty::Dirty`]: what is committed and not yet in the bucket. The
//!   checkpoint's.
//! * [`meta::Meta`]: fence and sentinel of a partition's checkpoints.

use std::collections::BTreeMap;

use bytes::Bytes;

pub mod cells;
pub mod checkpoint;
pub mod dirty;
pub mod load;
pub mod meta;
pub mod query;
pub mod replay;

/// All cells and live timers of one key, as the executor sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    pub cells: BTreeMap<Box<str>, Bytes>,
    pub timers: BTreeMap<Box<str>, LiveTimer>,
}

/// A timer that is set and has not fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveTimer {
    /// Unique in the partition: a fire of any other generation is nothing.
    pub generation: u64,
    /// Unix time in nanoseconds.
    pub due: u64,
}
