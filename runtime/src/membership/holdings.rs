//! The partitions that this host holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Shared by lanes, which change it, and the beat, which tells it. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    held: Arc<Mutex<BTreeMap<String, BTreeSet<u32>>>>,
    leaving: Arc<AtomicBool>,
    withdrawn: Arc<AtomicBool>,
    changes: watch::Sender<u64>,
}

impl Holdings {
    /// From before a partition is taken over, until everything that was executed of it
    /// is committed.
    pub fn set(&self, handler: &str, partition: u32, held: bool) {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match held {
            true => all.entry(handler.to_owned()).or_default().insert(partition),
            false => all
                .get_mut(handler)
                .is_some_and(|partitions| partitions.remove(&partition)),
        };
        drop(all);
        if changed {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    /// This host gives all partitions away, and takes none any more.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Leaves because this host is of an older version than others. Returns whether
    /// that is news.
    pub fn withdraw(&self) -> bool {
        let news = !self.withdrawn.swap(true, Ordering::SeqCst);
        self.leave();
        news
    }

    pub fn has_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::SeqCst)
    }

    /// Moves with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// By handler, as ranges.
    pub fn ranges(&self) -> BTreeMap<String, Vec<(u32, u32)>> {
        let all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(_, partitions)| !partitions.is_empty())
            .map(|(handler, partitions)| {
                let mut ranges: Vec<(u32, u32)> = Vec::new();
                for &partition in partitions {
                    match ranges.last_mut() {
                        Some((_, to)) if *to + 1 == partition => *to = partition,
                        _ => ranges.push((partition, partition)),
                    }
                }
                (handler.clone(), ranges)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_as_ranges() {
        let holdings = Holdings::default();
        let changes = holdings.changes();
        for partition in [3, 0, 1, 7, 2] {
            holdings.set("h", partition, true);
        }
        assert!(changes.has_changed().is_ok_and(|changed| changed));
        assert_eq!(holdings.ranges()["h"], [(0, 3), (7, 7)]);
        holdings.set("h", 1, false);
        assert_eq!(holdings.ranges()["h"], [(0, 0), (2, 3), (7, 7)]);
        for partition in 0..8 {
            holdings.set("h", partition, false);
        }
        assert!(holdings.ranges().is_empty());
    }
}
