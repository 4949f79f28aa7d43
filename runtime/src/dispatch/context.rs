//! What all lanes of one handler share.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::quiet::Beside;
use super::start::Starts;
use crate::commit::committer::Committer;
use crate::commit::record::{Author, Kind, Record};
use crate::deployment::manifest::Manifest;
use crate::dispatch::executor::{Executor, Executors};
use crate::handler::Program;
use crate::log::SharedLog;
use crate::metrics::HandlerMetrics;
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::HandlerNames;
use crate::shared::Access;
use crate::shared::freed::Freed;
use crate::source::decode::Decoder;

/// One deployment of a handler, ready to run.
#[derive(Clone)]
pub struct Version {
    pub manifest: Manifest,
    /// SHA-256 of the component, hexadecimal.
    pub digest: String,
    pub program: Arc<Program>,
    /// Its revision in the registry; 0 for `weir test`.
    pub revision: u64,
}

/// One handler on one host, in one version. Everything but the version is shared
/// with the contexts of its versions before and after.
#[derive(Clone)]
pub struct HandlerContext {
    pub version: Version,
    pub names: HandlerNames,
    /// Where this generation is not the one that runs, but rebuilt beside it.
    pub beside: Option<Beside>,
    pub host: String,
    pub log: SharedLog,
    pub committer: Committer,
    /// For handlers, and for activities.
    pub executors: Executors,
    pub starts: Arc<Starts>,
    /// Reads shared cells and locks.
    pub shared: Arc<dyn Access>,
    /// Which locks became free, for events that wait for one.
    pub freed: Freed,
    pub metrics: HandlerMetrics,
    pub counters: Arc<Counters>,
    pub budget: Budget,
    /// When the ledger was created, Unix nanoseconds.
    pub ledger_created: u64,
    /// Time to live of emitted events, if the operator wants one.
    pub event_ttl_s: Option<u64>,
    /// One per partition.
    pub lanes: Arc<[LaneStatus]>,
}

impl Deref for HandlerContext {
    type Target = Version;
    fn deref(&self) -> &Version {
        &self.version
    }
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

    /// The threads on which this version runs.
    pub fn executor(&self) -> &Executor {
        self.executors.of(&self.program)
    }

    /// What every record of this host says of who wrote it.
    pub fn author(&self) -> Author {
        Author {
            partitions: self.manifest.partitions,
            key_rule: self.manifest.key.describe(),
            digest: self.digest.clone(),
            manifest_revision: self.revision,
            host: self.host.clone(),
        }
    }

    /// A record of this handler and host that changes nothing. The caller adds where the
    /// partition is.
    pub fn record(&self, kind: Kind, previous: u64) -> Record {
        Record::new(kind, previous, self.author())
    }

    /// Positions by the names of their sources, as records have them.
    pub fn named(&self, positions: &[Position]) -> BTreeMap<String, Position> {
        let names = self.source_names().map(String::from);
        names.zip(positions.iter().copied()).collect()
    }

    /// Decoders of all sources, in the order of their indices: the handler's own
    /// messages in the ledger last.
    pub fn decoders(&self) -> Vec<Decoder> {
        let manifest = &self.manifest;
        let decoder = |source: usize, stream: &str| Decoder {
            source: source as u16,
            stream: stream.into(),
            key: Some(manifest.key.clone()),
            partitions: manifest.partitions,
            partition_token: manifest.partition_token,
            id: manifest.dedupe.as_ref().map(|dedupe| dedupe.from.clone()),
            names: self.names.clone(),
        };
        let sources = manifest.sources.iter().enumerate();
        let external = sources.map(|(n, source)| decoder(n, &source.stream));
        let own = Decoder {
            key: None,
            partition_token: None,
            id: None,
            ..decoder(manifest.sources.len(), &self.names.ledger)
        };
        external.chain([own]).collect()
    }

    pub fn lane(&self, partition: u32) -> &LaneStatus {
        &self.lanes[partition as usize]
    }
}

/// Memory of lanes: the host's budgets, shared out evenly among those that have an
/// owner here. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    waiting: usize,
    cells: usize,
    lanes: Arc<AtomicUsize>,
}

impl Budget {
    /// Bytes of waiting events that a lane may always have: one large event.
    const WAITING_MIN: usize = 1024 * 1024;
    const CELLS_MIN: usize = 256 * 1024;

    /// The host's budgets, in bytes; no lane has a share yet.
    pub fn new(waiting: usize, cells: usize) -> Budget {
        Budget {
            waiting,
            cells,
            lanes: Arc::default(),
        }
    }

    /// A share for one lane, until it is dropped.
    pub fn share(&self) -> Share {
        self.lanes.fetch_add(1, Ordering::Relaxed);
        Share(self.lanes.clone())
    }

    /// Bytes of events that wait in one lane.
    pub fn waiting(&self) -> usize {
        (self.waiting / self.lanes()).max(Self::WAITING_MIN)
    }

    /// Bytes of cells that one lane keeps in memory.
    pub fn cells(&self) -> usize {
        (self.cells / self.lanes()).max(Self::CELLS_MIN)
    }

    fn lanes(&self) -> usize {
        self.lanes.load(Ordering::Relaxed).max(1)
    }
}

/// One lane's share of a [`Budget`].
#[derive(Debug)]
pub struct Share(Arc<AtomicUsize>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    /// Of the deployment that executes.
    pub revision: AtomicU64,
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
            revision: AtomicU64::new(0),
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
