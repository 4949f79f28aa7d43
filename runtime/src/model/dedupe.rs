//! Business ids that a handler has seen: how they are kept as state. Pure.
//!
//! An id is a key of its own beside those of events, in the partition of the event that
//! had it, with one hidden cell: the time of that event. It is committed with the event's
//! effects and checkpointed like any state. Its cell is named after a **slice** of time, an
//! eighth of the window, so that all ids of a slice are forgotten with one purge.

use std::sync::Arc;
use std::time::Duration;

use super::hidden::is_hidden;
use super::key::KeyFrom;

/// Slices of a window: ids are kept for up to this fraction longer than needed.
const SLICES: u64 = 8;

/// The shortest slice. Purging is no work for every moment.
const SLICE_MIN: Duration = Duration::from_secs(1);

/// Slices, at most, that are purged when a partition has a new owner, which does not know
/// what the one before has purged: two windows.
const PURGED_AT_ONCE: u64 = 2 * SLICES;

/// The `[dedupe]` table of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedupe {
    /// Where the id is: a header, or a JSON pointer into the payload.
    pub from: KeyFrom,
    /// How long, by the times of the events, an id is remembered.
    pub window: Duration,
}

impl Dedupe {
    /// Whether an event of `time` repeats one that had its id at `seen` (Unix nanoseconds).
    pub fn repeats(&self, seen: u64, time: u64) -> bool {
        // One that is older, by the clocks of two sources, repeats it as well.
        time.saturating_sub(seen) < self.window.as_nanos() as u64
    }

    /// Name of the cell that remembers an id handled when the partition's clock was at
    /// `clock` (Unix nanoseconds).
    pub fn cell(&self, clock: u64) -> String {
        self.cell_of(clock / self.slice_ns())
    }

    /// Slices that nobody asks for any more once the partition's clock is at `clock`, of
    /// which those before `purged` are purged already, as the names of their cells; and the
    /// first one that is still needed.
    pub fn outdated(&self, clock: u64, purged: Option<u64>) -> (Vec<String>, u64) {
        let needed_from = clock.saturating_sub(self.window.as_nanos() as u64) / self.slice_ns();
        let from = purged.unwrap_or(needed_from.saturating_sub(PURGED_AT_ONCE));
        let slices = from.max(needed_from.saturating_sub(PURGED_AT_ONCE))..needed_from;
        (slices.map(|slice| self.cell_of(slice)).collect(), needed_from)
    }

    fn slice_ns(&self) -> u64 {
        (self.window.as_nanos() as u64 / SLICES).max(SLICE_MIN.as_nanos() as u64)
    }

    fn cell_of(&self, slice: u64) -> String {
        format!("\0{}-{slice}", self.slice_ns() / 1_000_000_000)
    }
}

/// The key under which an id is remembered. No event has such a key.
pub fn id_key(id: &str) -> Arc<str> {
    let key = format!("\0id:{id}");
    debug_assert!(is_hidden(&key));
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn window(seconds: u64) -> Dedupe {
        Dedupe {
            from: KeyFrom::Header("Id".into()),
            window: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn within_the_window_exactly() {
        let dedupe = window(80);
        assert!(dedupe.repeats(100 * SECOND, 100 * SECOND));
        assert!(dedupe.repeats(100 * SECOND, 180 * SECOND - 1));
        assert!(!dedupe.repeats(100 * SECOND, 180 * SECOND));
        assert!(dedupe.repeats(100 * SECOND, 7), "an older one repeats it, too");
    }

    #[test]
    fn a_slice_is_outdated_only_when_all_its_ids_are() {
        let dedupe = window(80);
        // Ids of the seconds 100 to 109 are in one slice.
        assert_eq!(dedupe.cell(100 * SECOND), dedupe.cell(110 * SECOND - 1));
        assert_ne!(dedupe.cell(100 * SECOND), dedupe.cell(110 * SECOND));
        let gone = |clock: u64| dedupe.outdated(clock * SECOND, Some(9)).0;
        assert!(!gone(189).contains(&dedupe.cell(100 * SECOND)));
        assert!(gone(190).contains(&dedupe.cell(100 * SECOND)));
        // What is purged already is not purged again.
        let (cells, next) = dedupe.outdated(190 * SECOND, Some(10));
        assert_eq!((cells, next), (vec![dedupe.cell(100 * SECOND)], 11));
        assert_eq!(dedupe.outdated(195 * SECOND, Some(11)), (vec![], 11));
    }

    #[test]
    fn a_new_owner_purges_no_more_than_two_windows() {
        assert_eq!(window(80).outdated(1_000_000 * SECOND, None).0.len(), 16);
        assert!(window(1).outdated(0, None).0.is_empty());
    }
}
