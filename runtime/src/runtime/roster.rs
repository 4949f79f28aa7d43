//! What this host knows of each deployed handler: for its supervisor, which changes it, and
//! for the [`report`](super::report), which tells it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::deployment::registry::Registered;
use crate::dispatch::context::HandlerContext;
use crate::source::progress::SharedProgress;

/// What is known here of each deployed handler, by name.
#[derive(Default)]
pub struct Roster {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Since when the registry cannot be followed.
    blind_since: Mutex<Option<Instant>>,
    /// Moves with every change.
    changes: watch::Sender<u64>,
}

/// One handler on this host.
#[derive(Clone)]
pub struct Entry {
    /// The deployment that this host has seen last.
    pub registered: Registered,
    /// Whether it has done what that deployment asks for, or refused.
    pub settled: bool,
    /// Why it has not.
    pub refused: Option<String>,
    pub running: Option<Shown>,
    /// The generation that is rebuilt beside it.
    pub rebuilding: Option<Shown>,
}

/// What runs, as far as others may look at it.
#[derive(Clone)]
pub struct Shown {
    pub context: watch::Receiver<Arc<HandlerContext>>,
    /// By source: of its feed, or of the feeds of its partitions.
    pub progress: Vec<Vec<SharedProgress>>,
}

impl Roster {
    /// All handlers that are not removed.
    pub fn all(&self) -> Vec<Entry> {
        self.lock().values().cloned().collect()
    }

    /// How long the registry could not be followed, if it cannot.
    pub fn blind_for(&self) -> Option<Duration> {
        let since = *self.blind_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed())
    }

    pub fn sees(&self, sees: bool) {
        let mut since = self.blind_since.lock().unwrap_or_else(PoisonError::into_inner);
        match sees {
            true => *since = None,
            false => drop(since.get_or_insert_with(Instant::now)),
        }
    }

    /// Moves with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something has changed that the roster does not see by itself.
    pub fn touch(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Waits until every handler has settled.
    pub async fn settled(&self) {
        let mut changes = self.changes.subscribe();
        while !self.lock().values().all(|entry| entry.settled) {
            // The sender is `self`, so that the channel is open.
            let _ = changes.changed().await;
        }
    }

    pub fn update(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(name) {
            change(entry);
        }
        self.touch();
    }

    /// A deployment was seen.
    pub fn saw(&self, registered: &Registered) {
        let name = registered.deployment.name.clone();
        let mut entries = self.lock();
        let before = entries.get(&name);
        let running = before.and_then(|entry| entry.running.clone());
        let rebuilding = before.and_then(|entry| entry.rebuilding.clone());
        let entry = Entry {
            registered: registered.clone(),
            settled: false,
            refused: None,
            running,
            rebuilding,
        };
        entries.insert(name, entry);
        drop(entries);
        self.touch();
    }

    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
        self.touch();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every change leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
