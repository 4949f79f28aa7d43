//! The keys of one partition that are in memory, with everything executed so
//! far applied, committed or not.
//!
//! This is the executor's view and is thrown away whole when a group is
//! discarded. What is *committed* and not yet in the bucket is
//! [`dirty::Dirty`](super::dirty::Dirty).
//!
//! **Invariant**: a key that was written after the last checkpoint is never
//! evicted, because the bucket does not have it; a key that is not here is in
//! the bucket as it should be.

use std::sync::Arc;

use lru::LruCache;
use rustc_hash::FxBuildHasher;

use super::KeyState;

/// Bytes that a cached key takes beside its contents: map entries, pointers,
/// allocator headers. An estimate from measuring a million small keys, of which
/// each took 840 bytes with its one cell.
const KEY_OVERHEAD_BYTES: usize = 240;

/// Bytes of a node in a key's map of cells or timers. The first comes with the first
/// entry; further ones have room for eleven and are half full at least.
const NODE_BYTES: usize = 560;
const NODE_ENTRIES_MIN: usize = 6;

/// Bytes that a cell or timer takes beside its node, its name and its value: what an
/// allocator rounds up.
const CELL_OVERHEAD_BYTES: usize = 24;

/// Pinned keys that one eviction passes over in search of a free one.
const PINNED_SKIPPED_MAX: usize = 64;

#[derive(Debug)]
pub struct Cells {
    keys: LruCache<Arc<str>, Entry, FxBuildHasher>,
    bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    state: Arc<KeyState>,
    bytes: usize,
    /// Number of the last group that wrote the key; 0 if none did.
    written: u64,
}

impl Default for Cells {
    fn default() -> Self {
        Cells {
            keys: LruCache::unbounded_with_hasher(FxBuildHasher),
            bytes: 0,
            evicted: 0,
        }
    }
}

impl Cells {
    pub fn contains(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// Bytes held, an estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys evicted since the partition was taken over: while it is 0, nothing
    /// that was here is missing.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Puts a key as it is in the bucket, or in the log after it.
    pub fn insert(&mut self, key: Arc<str>, state: KeyState, written: u64) {
        self.restore(key, Arc::new(state), written);
    }

    /// A key's state, now the most recently used. `None`: not loaded.
    pub fn get(&mut self, key: &str) -> Option<&Arc<KeyState>> {
        self.keys.get(key).map(|entry| &entry.state)
    }

    /// Number of the last group that wrote the key; 0 if none did.
    pub fn written(&self, key: &str) -> u64 {
        self.keys.peek(key).map_or(0, |entry| entry.written)
    }

    /// Puts a key back as it was before it was changed.
    pub fn restore(&mut self, key: Arc<str>, state: Arc<KeyState>, written: u64) {
        let bytes = bytes(&key, &state);
        self.bytes += bytes;
        let entry = Entry {
            state,
            bytes,
            written,
        };
        if let Some(before) = self.keys.put(key, entry) {
            self.bytes -= before.bytes;
        }
    }

    /// Changes a key's state in group number `group`.
    ///
    /// # Panics
    /// If the key is not loaded: changing what was never read would lose cells.
    pub fn update(&mut self, key: &Arc<str>, group: u64, change: impl FnOnce(&mut KeyState)) {
        let entry = self
            .keys
            .get_mut(key)
            .expect("a key is loaded before it is written");
        change(Arc::make_mut(&mut entry.state));
        entry.written = group;
        let bytes = bytes(key, &entry.state);
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
    }

    /// Evicts least recently used keys until at most `budget` bytes are held.
    /// Keys written after group `checkpointed` stay. Returns whether the budget
    /// was reached; if not, a checkpoint is due.
    pub fn shrink(&mut self, budget: usize, checkpointed: u64) -> bool {
        let mut skipped = 0;
        while self.bytes > budget {
            let Some((key, entry)) = self.keys.pop_lru() else {
                return true;
            };
            if entry.written > checkpointed {
                self.keys.put(key, entry);
                skipped += 1;
                if skipped > PINNED_SKIPPED_MAX {
                    return false;
                }
            } else {
                self.bytes -= entry.bytes;
                self.evicted += 1;
            }
        }
        true
    }
}

fn bytes(key: &str, state: &KeyState) -> usize {
    let cells: usize = state
        .cells
        .iter()
        .map(|(name, value)| name.len() + value.len() + CELL_OVERHEAD_BYTES)
        .sum();
    let timers: usize = state
        .timers
        .keys()
        .map(|name| name.len() + CELL_OVERHEAD_BYTES)
        .sum();
    let nodes = |entries: usize| entries.div_ceil(NODE_ENTRIES_MIN) * NODE_BYTES;
    let nodes = nodes(state.cells.len()) + nodes(state.timers.len());
    KEY_OVERHEAD_BYTES + key.len() + nodes + cells + timers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(keys: u64) -> Cells {
        let mut cells = Cells::default();
        for n in 1..=keys {
            cells.insert(n.to_string().into(), KeyState::default(), n);
        }
        cells
    }

    #[test]
    fn the_budget_holds_but_pinned_keys_stay() {
        let mut cells = cells(10);
        assert!(!cells.shrink(0, 6), "four keys are newer than the checkpoint");
        assert_eq!(cells.len(), 4);
        for n in 7..=10 {
            assert!(cells.contains(&n.to_string()));
        }
        assert_eq!(cells.evicted(), 6);
        assert!(cells.shrink(0, 10));
        assert_eq!((cells.len(), cells.bytes()), (0, 0));
    }

    #[test]
    fn a_write_pins_and_is_counted() {
        let mut cells = cells(1);
        let before = cells.bytes();
        cells.update(&"1".into(), 5, |state| {
            state
                .cells
                .insert("n".into(), bytes::Bytes::from_static(b"12345"));
        });
        assert_eq!(cells.bytes(), before + NODE_BYTES + 1 + 5 + CELL_OVERHEAD_BYTES);
        assert!(!cells.shrink(0, 4));
    }
}
