//! The log in a process: for `weir test`, the simulator and unit tests. Same
//! semantics as JetStream, one replica, and a clock that only moves when told.
//!
//! * [`MemoryLog`]: the log; clones share it.
//! * [`Faults`]: what goes wrong next, to order.
//! * `store::Store`: one stream, without waiting and without faults.

mod faults;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

pub use faults::{FaultKind, Faults};
use store::Store;

use super::{
    Append, AppendError, Appended, Error, Log, Reader, Snapshot, Start, Stored, StreamSettings, StreamState,
};
use crate::model::limits::{BATCH_HEADER_BYTES, BATCH_MESSAGES_MAX};
use crate::model::pattern::{matches, matches_any};

/// `max_payload` of a server as it comes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// Messages that one call of a reader hands out at most.
const READ_MAX: usize = 2_000;

/// Where the clock of a new log stands, in Unix nanoseconds: 2026-01-01.
const EPOCH: u64 = 1_767_225_600_000_000_000;

/// A log in memory. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Largest message that it takes, in bytes.
    max_payload: usize,
    /// Woken whenever something was stored, or a stream came or went.
    changed: Notify,
    faults: Faults,
}

struct State {
    /// Unix nanoseconds.
    now: u64,
    streams: HashMap<String, Store>,
    /// Times that what a stream holds was changed as only a server that is down
    /// allows: each ends all readers.
    restarts: u64,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

/// A copy of one stream.
#[derive(Debug, Clone)]
pub struct Backup(Store);

impl MemoryLog {
    /// An empty log, its clock at the beginning of 2026.
    pub fn new() -> Self {
        Self::starting_at(EPOCH)
    }

    /// An empty log whose clock stands at `now`, in Unix nanoseconds.
    pub fn starting_at(now: u64) -> Self {
        Self::with_max_payload(now, MAX_PAYLOAD)
    }

    /// The same, that takes messages of up to `max_payload` bytes.
    pub fn with_max_payload(now: u64, max_payload: usize) -> Self {
        MemoryLog {
            shared: Arc::new(Shared {
                max_payload,
                state: Mutex::new(State {
                    now,
                    streams: HashMap::new(),
                    restarts: 0,
                }),
                changed: Notify::new(),
                faults: Faults::default(),
            }),
        }
    }

    /// What goes wrong next.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Unix nanoseconds.
    pub fn now(&self) -> u64 {
        self.lock().now
    }

    /// Moves the clock on by that many nanoseconds: messages expire, schedules fire.
    pub fn advance(&self, nanos: u64) {
        let mut state = self.lock();
        state.now = state.now.saturating_add(nanos);
        let now = state.now;
        for store in state.streams.values_mut() {
            store.pass_time(now);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Deletes a stream, as an operator might.
    pub fn delete_stream(&self, stream: &str) {
        self.lock().streams.remove(stream);
        self.shared.changed.notify_waiters();
    }

    /// Takes back everything after `sequence`, as a machine does that lost power
    /// before its disk had it. Sequences are given out again from there.
    pub fn lose_tail(&self, stream: &str, sequence: u64) {
        let mut state = self.lock();
        state.restarts += 1;
        if let Some(store) = state.streams.get_mut(stream) {
            store.lose_tail(sequence);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// A copy of a stream as it is now, for [`MemoryLog::restore`]. `None`: there is none.
    pub fn backup(&self, stream: &str) -> Option<Backup> {
        self.lock().streams.get(stream).cloned().map(Backup)
    }

    /// Replaces a stream by an earlier copy of it, as an operator does with a
    /// backup, or a machine whose disk lost what came later.
    pub fn restore(&self, backup: Backup) {
        let Backup(store) = backup;
        let mut state = self.lock();
        state.restarts += 1;
        state.streams.insert(store.name().to_owned(), store);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock left a whole state behind:
        // every change is made in one go.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, stream: &str, f: impl FnOnce(&mut Store, u64) -> T) -> Result<T, Error> {
        let mut state = self.lock();
        let now = state.now;
        let store = state
            .streams
            .get_mut(stream)
            .ok_or_else(|| Error::NoStream(stream.into()))?;
        Ok(f(store, now))
    }

    fn reachable(&self) -> Result<(), Error> {
        if self.connected() {
            Ok(())
        } else {
            Err(Error::Unavailable("cut off, as ordered".into()))
        }
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn max_payload(&self) -> usize {
        self.shared.max_payload
    }

    fn connected(&self) -> bool {
        !self.shared.faults.is_cut_off()
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, Error> {
        self.reachable()?;
        self.with(stream, |store, _| store.state())
    }

    async fn create_stream(&self, stream: &str, settings: &StreamSettings) -> Result<StreamState, Error> {
        self.reachable()?;
        let mut state = self.lock();
        let now = state.now;
        // So that a stream made again is told from the one before.
        state.now += 1;
        let store = state
            .streams
            .entry(stream.into())
            .or_insert_with(|| Store::new(stream, settings, now));
        Ok(store.state())
    }

    async fn set_subjects(&self, stream: &str, subjects: &[String]) -> Result<(), Error> {
        self.reachable()?;
        self.with(stream, |store, _| store.set_subjects(subjects))
    }

    async fn append(&self, stream: &str, batch: Vec<Append>) -> Result<Appended, AppendError> {
        for append in &batch {
            let headers: usize = append.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
            let size = headers + append.data.len() + BATCH_HEADER_BYTES;
            if size > self.shared.max_payload {
                let subject = &append.subject;
                return Err(AppendError::TooLarge(format!("{size} bytes on {subject}")));
            }
        }
        if !self.connected() {
            return Err(AppendError::Busy {
                code: 0,
                description: "not connected; nothing was sent".into(),
            });
        }
        if batch.len() > BATCH_MESSAGES_MAX {
            return Err(AppendError::Busy {
                code: 10199,
                description: format!("atomic publish batch is too large: {BATCH_MESSAGES_MAX}"),
            });
        }
        let fault = self.shared.faults.next_append();
        if let Some(error) = fault.and_then(FaultKind::before) {
            return Err(error);
        }
        let outcome = self
            .with(stream, |store, now| store.append(batch, now))
            .unwrap_or_else(|error| {
                Err(AppendError::Refused {
                    code: 10059,
                    description: error.to_string(),
                })
            });
        self.shared.changed.notify_waiters();
        match fault {
            Some(FaultKind::LoseReply) => Err(AppendError::Unknown("the reply was lost, as ordered".into())),
            _ => outcome,
        }
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Error> {
        self.reachable()?;
        self.with(stream, |store, _| store.last(subject, u64::MAX).cloned())
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error> {
        self.reachable()?;
        self.with(stream, |store, _| store.get(sequence).cloned())
    }

    async fn scan(&self, stream: &str, filter: &str, from: u64, max: usize) -> Result<Vec<Stored>, Error> {
        self.reachable()?;
        let behind = self.shared.faults.behind();
        self.with(stream, |store, _| {
            let up_to = store.last_sequence().saturating_sub(behind);
            store
                .from(from)
                .take_while(|stored| stored.sequence <= up_to)
                .filter(|stored| matches(filter, &stored.subject))
                .take(max)
                .cloned()
                .collect()
        })
    }

    async fn last_many(&self, stream: &str, filters: &[String]) -> Result<Snapshot, Error> {
        self.reachable()?;
        let behind = self.shared.faults.behind();
        self.with(stream, |store, _| {
            let up_to = store.last_sequence().saturating_sub(behind);
            let messages = store.last_many(filters, up_to);
            // As on a server, an answer without any result has no date.
            let up_to = (!messages.is_empty()).then_some(up_to);
            Snapshot { messages, up_to }
        })
    }

    async fn purge(&self, stream: &str, filter: &str, below: u64) -> Result<(), Error> {
        self.reachable()?;
        self.with(stream, |store, _| store.purge(filter, below))
    }

    async fn resolve(&self, stream: &str, start: Start) -> Result<u64, Error> {
        self.reachable()?;
        self.with(stream, |store, _| {
            let state = store.state();
            match start {
                Start::First => state.first,
                Start::New => state.last + 1,
                Start::Sequence(sequence) => sequence.max(1),
                Start::Time(time) => {
                    let found = store.from(0).find(|stored| stored.time >= time);
                    found.map_or(state.last + 1, |stored| stored.sequence)
                }
            }
        })
    }

    async fn read(&self, stream: &str, filters: &[String], from: u64) -> Result<Box<dyn Reader>, Error> {
        let created = self.stream(stream).await?.created;
        let found = self.with(stream, |store, _| {
            let matching = |stored: &&Stored| filters.is_empty() || matches_any(filters, &stored.subject);
            store.from(from).filter(matching).count() as u64
        })?;
        Ok(Box::new(MemoryReader {
            found,
            log: self.clone(),
            stream: stream.into(),
            filters: filters.to_vec(),
            from,
            created,
            restarts: self.lock().restarts,
        }))
    }
}

struct MemoryReader {
    log: MemoryLog,
    found: u64,
    stream: String,
    filters: Vec<String>,
    /// First sequence that was not handed out yet.
    from: u64,
    created: u64,
    restarts: u64,
}

#[async_trait]
impl Reader for MemoryReader {
    fn found(&self) -> u64 {
        self.found
    }

    async fn next(&mut self, into: &mut Vec<Stored>) -> Result<u64, Error> {
        let shared = self.log.shared.clone();
        loop {
            // Listens before it looks, so that nothing slips in between.
            let changed = shared.changed.notified();
            self.log.reachable()?;
            if self.log.lock().restarts != self.restarts {
                return Err(Error::Unavailable("the server was restarted, as ordered".into()));
            }
            let before = into.len();
            let still = self.log.with(&self.stream, |store, _| {
                if store.state().created != self.created {
                    return Err(Error::NoStream(self.stream.clone()));
                }
                let matching =
                    |stored: &&Stored| self.filters.is_empty() || matches_any(&self.filters, &stored.subject);
                let mut found = store.from(self.from).filter(matching);
                into.extend(found.by_ref().take(READ_MAX).cloned());
                Ok(found.count() as u64)
            })??;
            if let Some(last) = into[before..].last() {
                self.from = last.sequence + 1;
                return Ok(still);
            }
            changed.await;
        }
    }
}
