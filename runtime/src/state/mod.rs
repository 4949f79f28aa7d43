//! Cells: the state that handlers keep per key.

use std::collections::BTreeMap;

use bytes::Bytes;

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
