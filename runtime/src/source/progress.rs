//! What a feed shows of itself: to lanes, how far the source has been seen; to
//! people, why it is not read, and what of it nobody will ever read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::position::Position;

/// How far a source has been seen, and why it is not read, for lanes and status.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// Everything up to here was handed out.
    pub position: Position,
    /// Messages still to come, as the server counted at the last read.
    pub unread: u64,
    /// Why the source is stopped, for all partitions or for some of them.
    pub stopped: Vec<String>,
    /// Messages that were gone before every partition had read them, since the host started.
    pub lost: u64,
    /// Messages for this handler that were not readable, since the host started.
    pub undecodable: u64,
    /// Epoch of the last request of each partition that was taken up.
    pub(super) epochs: BTreeMap<u32, u64>,
}

/// Shared view of a feed's [`Progress`].
#[derive(Debug, Default, Clone)]
pub struct SharedProgress(Arc<Mutex<Progress>>);

impl SharedProgress {
    pub fn get(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far everything was handed to a partition that asked with `epoch`;
    /// `None` while that request has not been taken up, or cannot be.
    pub fn seen(&self, partition: u32, epoch: u64) -> Option<Position> {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (progress.epochs.get(&partition) == Some(&epoch)).then_some(progress.position)
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ranges that are remembered: one more for each time that a reader came back,
/// found messages gone, and read on.
const RANGES_MAX: usize = 1_000;

/// Sequences that were gone before they were read, each counted once: a source
/// that stands still is looked at again at every reconnect.
#[derive(Debug, Default)]
pub struct Lost {
    /// When the stream was created in which these are.
    created: u64,
    /// Apart from each other, in order.
    counted: Vec<Range<u64>>,
}

impl Lost {
    /// Of the stream created then, everything in `gone` was lost. Returns how
    /// many of them were not counted before.
    pub fn add(&mut self, created: u64, gone: Range<u64>) -> u64 {
        if self.created != created {
            self.created = created;
            self.counted.clear();
        }
        if gone.is_empty() {
            return 0;
        }
        let counted = |ranges: &[Range<u64>]| ranges.iter().map(|r| r.end - r.start).sum::<u64>();
        let before = counted(&self.counted);
        let mut gone = gone; // takes in all that it touches
        self.counted.retain(|range| {
            let touches = range.start <= gone.end && gone.start <= range.end;
            if touches {
                gone = range.start.min(gone.start)..range.end.max(gone.end);
            }
            !touches
        });
        let at = self.counted.partition_point(|range| range.start < gone.start);
        self.counted.insert(at, gone);
        let new = counted(&self.counted) - before;
        if self.counted.len() > RANGES_MAX {
            self.counted.remove(0); // the one that no position will come to again
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_counted_once() {
        let mut lost = Lost::default();
        for (created, gone, new) in [
            (1, 5..5, 0),
            (1, 5..10, 5),
            (1, 5..10, 0),
            (1, 7..12, 2),
            (1, 3..12, 2),
            (1, 20..25, 5), // 12 to 19 were read
            (1, 22..30, 5),
            (1, 11..31, 9),
            (1, 1..31, 2),
            (2, 5..10, 5), // made again: other messages
        ] {
            assert_eq!(lost.add(created, gone.clone()), new, "{gone:?}");
        }
    }
}
