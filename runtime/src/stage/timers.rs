//! Timers that are set on a stage.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::commit::record::KeyDelta;

/// Timers that are set, in the order in which they are due.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(u64, Arc<str>, Box<str>)>,
    of: HashMap<Arc<str>, Vec<(u64, Box<str>)>>,
}

impl Timers {
    pub fn update(&mut self, delta: &KeyDelta) {
        let Some(timers) = &delta.timers else { return };
        for (due, name) in self.of.remove(&delta.key).unwrap_or_default() {
            self.due.remove(&(due, delta.key.clone(), name));
        }
        if timers.is_empty() {
            return;
        }
        for timer in timers {
            self.due
                .insert((timer.due, delta.key.clone(), timer.name.clone()));
        }
        let all = timers.iter().map(|timer| (timer.due, timer.name.clone()));
        self.of.insert(delta.key.clone(), all.collect());
    }

    /// When the next one is due that is not among `without`.
    pub fn next(&self, without: &BTreeSet<(String, String)>) -> Option<u64> {
        let counts = |key: &str, name: &str| {
            without.is_empty() || !without.contains(&(key.to_owned(), name.to_owned()))
        };
        let mut due = self.due.iter();
        due.find(|(_, key, name)| counts(key, name)).map(|(due, ..)| *due)
    }
}
