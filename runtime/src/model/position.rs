//! How far a partition has read a source.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Name of the internal source in positions: timers that fired and redriven
/// dead letters. The sources of a manifest are named by their streams.
pub const INTERNAL_SOURCE: &str = "$WEIR";

/// Position of a partition in a source, and what identifies the source, so that
/// a stream deleted and made again is noticed (PROTOCOL rule 6).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode, Serialize, Deserialize,
)]
pub struct Position {
    /// Unix time in nanoseconds at which the stream was created.
    #[n(0)]
    pub created: u64,
    /// Everything up to this sequence is done; 0 is the very beginning.
    #[n(1)]
    pub sequence: u64,
    /// When the message at `sequence` was stored (Unix nanoseconds), 0 where
    /// that is not known: the position was set rather than read.
    #[n(2)]
    pub stored: u64,
}
