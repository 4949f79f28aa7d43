//! What is committed and not yet in the state bucket, for one partition.
//!
//! Repeated writes of a cell coalesce: only the last value is checkpointed.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::commit::record::{KeyDelta, TimerEntry};

/// Bytes that a changed key takes beside its cells: its entry, and a map of its own with
/// room for a few. An estimate; what is dirty is held twice, here and in the cache.
const KEY_OVERHEAD_BYTES: usize = 360;

/// Bytes that a changed cell takes beside its name and value.
const CELL_OVERHEAD_BYTES: usize = 64;

/// Committed changes since the last checkpoint.
#[derive(Debug, Default)]
pub struct Dirty {
    keys: FxHashMap<Arc<str>, DirtyKey>,
    bytes: usize,
}

/// Last committed value of each changed cell of a key.
#[derive(Debug, Clone, Default)]
pub struct DirtyKey {
    pub cells: FxHashMap<Box<str>, Option<Bytes>>,
    pub timers: Option<Vec<TimerEntry>>,
    /// Ledger sequence of the last commit that changed the key.
    pub record: u64,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes held, an estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, key: &str) -> Option<&DirtyKey> {
        self.keys.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &DirtyKey)> {
        self.keys.iter()
    }

    /// Adds what the record at ledger sequence `record` changed.
    pub fn merge(&mut self, delta: Vec<KeyDelta>, record: u64) {
        for changed in delta {
            let dirty = self.keys.entry(changed.key).or_insert_with(|| {
                self.bytes += KEY_OVERHEAD_BYTES;
                DirtyKey::default()
            });
            dirty.record = record;
            for cell in changed.cells {
                let value = cell.value.map(|blob| blob.0);
                self.bytes += value.as_ref().map_or(0, Bytes::len);
                let named = cell.cell.len() + CELL_OVERHEAD_BYTES;
                match dirty.cells.insert(cell.cell, value) {
                    Some(before) => self.bytes -= before.map_or(0, |b| b.len()),
                    None => self.bytes += named,
                }
            }
            if changed.timers.is_some() {
                dirty.timers = changed.timers;
            }
        }
    }
}
