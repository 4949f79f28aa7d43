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

use crate::model::hidden::{VERSION_CELL, is_hidden};

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

impl KeyState {
    /// Cells that are the handler's.
    pub fn visible(&self) -> impl Iterator<Item = (&Box<str>, &Bytes)> {
        // Hidden names are the first in byte order.
        self.cells.iter().skip_while(|(name, _)| is_hidden(name))
    }

    /// Number of cells that are the handler's.
    pub fn visible_len(&self) -> usize {
        self.cells.len() - self.cells.keys().take_while(|name| is_hidden(name)).count()
    }

    /// The version of the cells' contents (`state_version` in `handler.toml`), from 1.
    pub fn version(&self) -> u32 {
        let written = self.cells.get(VERSION_CELL);
        let version = written.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        version.unwrap_or(1)
    }
}

/// A timer that is set and has not fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveTimer {
    /// Unique in the partition: a fire of any other generation is nothing.
    pub generation: u64,
    /// Unix time in nanoseconds.
    pub due: u64,
}
