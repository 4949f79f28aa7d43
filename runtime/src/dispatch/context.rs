//! What all lanes of one handler share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::start::Starts;
use crate::commit::committer::Committer;
use crate::commit::record::{FORMAT, Kind, Record};
use crate::deployment::manifest::Manifest;
use crate::dispatch::executor::Executor;
use crate::handler::Program;
use crate::log::{Append, SharedLog};
use crate::metrics::HandlerMetrics;
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::HandlerNames;

/// One deployed handler on one host.
pub struct HandlerContext {
    pub manifest: Manifest,
    /// SHA-256 of the component, hexadecimal.
    pub digest: String,
    pub program: Arc<Program>,
    pub names: HandlerNames,
    pub host: String,
    pub log: SharedLog,
    pub committer: Committer,
    pub executor: Executor,
    pub starts: Starts,
    pub metrics: HandlerMetrics,
    pub counters: Counters,
    pub budget: Budget,
    /// When the ledger was created, Unix nanoseconds.
    pub ledger_created: u64,
    /// Time to live of emitted events, if the operator wants one.
    pub event_ttl_s: Option<u64>,
    /// One per partition.
    pub lanes: Vec<LaneStatus>,
}

/// Names of all sources of a handler as positions have them, in the order of
/// their indices: those of the manifest by their stream, then the internal one.
pub fn source_names(manifest: &Manifest) -> impl Iterator<Item = &str> {
    manifest
        .sources
        .iter()
        .map(|s| s.stream.as_str())
        .chain([INTERNAL_SOURCE])
}

impl HandlerContext {
    /// Names of all sources, in the order of their indices.
    pub fn source_names(&self) -> impl Iterator<Item = &str> {
        source_names(&self.manifest)
    }

    /// A record of this handler and host that changes nothing: what every record says of
    /// who wrote it. The caller adds where the partition is.
    pub fn record(&self, kind: Kind, previous: u64) -> Record {
        Record {
            format: FORMAT,
            kind,
            nonce: rand::random(),
            previous,
            positions: BTreeMap::new(),
            starts: BTreeMap::new(),
            watermark: None,
            clock: 0,
            timer_generation: 0,
            partitions: self.manifest.partitions,
            digest: self.digest.clone(),
            manifest_revision: 0,
            host: self.host.clone(),
            keys: Vec::new(),
            key_rule: self.manifest.key.describe(),
            events: 0,
        }
    }

    /// Positions by the names of their sources, as records have them.
    pub fn named(&self, positions: &[Position]) -> BTreeMap<String, Position> {
        let names = self.source_names().map(String::from);
        names.zip(positions.iter().copied()).collect()
    }

    /// The message of a record, with its fence.
    pub fn record_message(&self, partition: u32, record: &Record) -> Append {
        Append {
            subject: self.names.record(partition),
            data: record.encode().into(),
            expected: Some(record.previous),
            ..Append::default()
        }
    }

    pub fn lane(&self, partition: u32) -> &LaneStatus {
        &self.lanes[partition as usize]
    }
}

/// Memory of one lane: the host's budgets, shared out evenly.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Bytes of events that wait in the lane.
    pub waiting: usize,
    /// Bytes of cells kept in memory.
    pub cells: usize,
}

impl Budget {
    /// Bytes of waiting events that a lane may always have: one large event.
    const WAITING_MIN: usize = 1024 * 1024;
    const CELLS_MIN: usize = 256 * 1024;

    /// Shares the host's budgets, in bytes, among `lanes` lanes.
    pub fn share(waiting: usize, cells: usize, lanes: usize) -> Budget {
        let lanes = lanes.max(1);
        Budget {
            waiting: (waiting / lanes).max(Self::WAITING_MIN),
            cells: (cells / lanes).max(Self::CELLS_MIN),
        }
    }
}

/// Counts since the host started, for status.
#[derive(Debug, Default)]
pub struct Counters {
    pub events: AtomicU64,
    pub errors: AtomicU64,
    pub dead_letters: AtomicU64,
}

/// What a lane shows of itself.
#[derive(Debug)]
pub struct LaneStatus {
    state: watch::Sender<(State, Option<String>)>,
    pub waiting: AtomicU64,
    pub record: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Running,
    /// Another host owns the partition.
    Standby,
    /// An event failed and is tried again later.
    Retrying,
    /// Cannot go on until somebody mends something.
    Stopped,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Standby => "standby",
            State::Retrying => "retrying",
            State::Stopped => "stopped",
        }
    }
}

impl Default for LaneStatus {
    fn default() -> Self {
        LaneStatus {
            state: watch::Sender::new((State::Starting, None)),
            waiting: AtomicU64::new(0),
            record: AtomicU64::new(0),
        }
    }
}

impl LaneStatus {
    pub fn set(&self, state: State, reason: Option<String>) {
        self.state.send_replace((state, reason));
    }

    pub fn get(&self) -> (State, Option<String>) {
        self.state.borrow().clone()
    }

    /// Waits until the lane is past its start, whatever came of it.
    pub async fn started(&self) {
        // The sender is `self`, so that the channel is open.
        let _ = self
            .state
            .subscribe()
            .wait_for(|(state, _)| *state != State::Starting)
            .await;
    }

    pub fn set_waiting(&self, events: u64) {
        self.waiting.store(events, Ordering::Relaxed);
    }
}
