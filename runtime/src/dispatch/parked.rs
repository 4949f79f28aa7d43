//! Events that wait for a lock, and those of their keys behind them. Pure.
//!
//! A partition's position moves past a parked event, so that other keys go on; the
//! commit record lists what is parked, so that a new owner knows what is still to be
//! done, and reads it from its source again. Per key, events keep their order: while
//! one is parked, every later one of the key joins it.
//!
//! ```text
//!   park ──> waiting ──wake (freed, expired)──> ready ──handled──> gone
//!               ^                                 │
//!               └────────── locked again ─────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::commit::record::ParkedEvent;
use crate::source::decode::Queued;

/// Parked events of one partition: each commit record lists them all. Beyond it, the
/// partition waits with the next one.
pub const PARKED_MAX: usize = 256;

/// Bytes of them, which are held in memory until their locks are free.
pub const PARKED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The parked events of one partition.
#[derive(Debug, Clone, Default)]
pub struct Parked {
    keys: BTreeMap<Arc<str>, Line>,
    events: usize,
    bytes: usize,
}

/// The parked events of one key, in their order. Not empty.
#[derive(Debug, Clone)]
struct Line {
    /// What the first one waits for; `None`: it is ready to be tried.
    waits: Option<Waits>,
    events: VecDeque<Queued>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Waits {
    lock: String,
    /// When the lock expires, in Unix nanoseconds.
    until: u64,
}

impl Parked {
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether an event of that size can be parked, too.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.events < PARKED_MAX && self.bytes + bytes <= PARKED_BYTES_MAX
    }

    /// Whether the key's events have to wait behind a parked one.
    pub fn holds_up(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Parks an event that waits for a lock, the first of its key.
    pub fn park(&mut self, event: Queued, lock: String, until: u64) {
        let key = event.event.key.clone();
        debug_assert!(!self.holds_up(&key), "the first of its key");
        self.push(event);
        if let Some(line) = self.keys.get_mut(&key) {
            line.waits = Some(Waits { lock, until });
        }
    }

    /// Parks an event behind those of its key, or as one that is ready.
    pub fn push(&mut self, event: Queued) {
        self.events += 1;
        self.bytes += event.bytes;
        let line = self.keys.entry(event.event.key.clone()).or_insert(Line {
            waits: None,
            events: VecDeque::new(),
        });
        line.events.push_back(event);
    }

    /// The first event of a key that is ready to be tried. What came of that is said by one of
    /// [`handled`](Parked::handled), [`locked`](Parked::locked), [`again`](Parked::again).
    pub fn ready(&self) -> Option<&Queued> {
        let mut lines = self.keys.values();
        lines.find(|line| line.waits.is_none())?.events.front()
    }

    /// The first event of `key` is done.
    pub fn handled(&mut self, key: &Arc<str>) {
        let Some(line) = self.keys.get_mut(key) else {
            return;
        };
        if let Some(done) = line.events.pop_front() {
            self.events -= 1;
            self.bytes -= done.bytes;
        }
        if line.events.is_empty() {
            self.keys.remove(key);
        }
    }

    /// The first event of `key` has to wait again.
    pub fn locked(&mut self, key: &str, lock: String, until: u64) {
        if let Some(line) = self.keys.get_mut(key) {
            line.waits = Some(Waits { lock, until });
        }
    }

    /// The first event of `key` failed and is tried again.
    pub fn again(&mut self, event: Queued) {
        if let Some(first) = self
            .keys
            .get_mut(&event.event.key)
            .and_then(|line| line.events.front_mut())
        {
            *first = event;
        }
    }

    /// Events that wait for `lock` are ready, or all if none is named. Whether any became so.
    pub fn wake(&mut self, lock: Option<&str>) -> bool {
        self.wake_if(|waits| lock.is_none_or(|lock| waits.lock == lock))
    }

    /// Events whose locks have expired by `now` (Unix nanoseconds) are ready.
    pub fn wake_expired(&mut self, now: u64) -> bool {
        self.wake_if(|waits| waits.until <= now)
    }

    fn wake_if(&mut self, is_free: impl Fn(&Waits) -> bool) -> bool {
        let mut woken = false;
        for line in self.keys.values_mut() {
            if line.waits.as_ref().is_some_and(&is_free) {
                line.waits = None;
                woken = true;
            }
        }
        woken
    }

    /// When the first lock expires that an event waits for, in Unix nanoseconds.
    pub fn first_expiry(&self) -> Option<u64> {
        let waits = self.keys.values().filter_map(|line| line.waits.as_ref());
        waits.map(|waits| waits.until).min()
    }

    /// As a commit record lists them: `sources` has the names by index.
    pub fn list(&self, sources: &[&str]) -> Vec<ParkedEvent> {
        let events = self.keys.values().flat_map(|line| &line.events);
        events
            .map(|queued| ParkedEvent {
                source: sources[usize::from(queued.event.source)].to_owned(),
                offset: queued.event.offset,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::event::Event;

    fn event(key: &str, offset: u64) -> Queued {
        let event = Event {
            source: 0,
            stream: "S".into(),
            sequence: offset,
            offset,
            subject: "s".into(),
            key: key.into(),
            time: 0,
            timer: None,
            headers: Vec::new(),
            data: Bytes::new(),
        };
        Queued {
            stored: 0,
            refused: None,
            id: None,
            quiet: false,
            attempts: 0,
            bytes: 10,
            event,
        }
    }

    fn offsets(parked: &Parked) -> Vec<u64> {
        parked
            .list(&["S"])
            .into_iter()
            .map(|event| event.offset)
            .collect()
    }

    #[test]
    fn a_key_waits_in_its_order_and_others_do_not_wait_for_it() {
        let mut parked = Parked::default();
        parked.park(event("a", 1), "van".into(), 100);
        parked.push(event("a", 3));
        parked.park(event("b", 2), "car".into(), 50);
        assert!(parked.holds_up("a") && !parked.holds_up("c"));
        assert_eq!((parked.len(), parked.first_expiry()), (3, Some(50)));
        assert!(parked.ready().is_none());

        assert!(parked.wake(Some("van")) && !parked.wake(Some("van")));
        let first = parked.ready().cloned().expect("was woken");
        assert_eq!(first.event.offset, 1);
        parked.handled(&first.event.key);
        let second = parked.ready().expect("the one behind it");
        assert_eq!(second.event.offset, 3);
        parked.locked("a", "van".into(), 200);
        assert!(parked.ready().is_none());
        assert_eq!(offsets(&parked), [3, 2]);

        assert!(parked.wake_expired(50));
        assert_eq!(parked.ready().map(|q| q.event.offset), Some(2));
        parked.handled(&"b".into());
        assert!(parked.wake_expired(200));
        parked.handled(&"a".into());
        assert!(parked.is_empty() && !parked.holds_up("a"));
    }

    #[test]
    fn room_is_bounded_by_number_and_bytes() {
        let mut parked = Parked::default();
        assert!(parked.has_room(PARKED_BYTES_MAX) && !parked.has_room(PARKED_BYTES_MAX + 1));
        for n in 0..PARKED_MAX as u64 {
            assert!(parked.has_room(10));
            parked.push(event("k", n));
        }
        assert!(!parked.has_room(0));
        parked.handled(&"k".into());
        assert!(parked.has_room(10));
    }
}
