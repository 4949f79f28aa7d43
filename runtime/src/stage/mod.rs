//! A handler on a log in memory, one event at a time: what `weir test` and
//! `weir state get --at` stand on.
//!
//! What a handler does here is what it does on a host, because it is done by the host's own parts:
//! [`Decoder`](crate::source::decode::Decoder) finds the key, [`Workspace`](crate::dispatch::execute::Workspace)
//! runs the event and checks its effects, [`Committer`](crate::commit::committer::Committer) commits them to the log in
//! memory, whose schedules are the timers. What is left out is what would make a run differ from the next one: groups
//! (each event is committed by itself), takeovers, checkpoints, and real time.
//!
//! Nothing reaches the network.
//!
//! Time is virtual: the log's clock stands where it is told to. Backoff between attempts costs none: within its
//! partition nothing could happen meanwhile.
//!
//! * [`Stage`]: the handler; whoever has one says what happens next.
//! * `play`: one event, from its turn to its commit.
//! * [`outcome`]: what it came to.
//! * `lines`: what the guest logged meanwhile.
//! * `timers`: which are set.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

use crate::commit::committer::{Attempts, Committer};
use crate::config;
use crate::deployment::compile::compile;
use crate::deployment::plugins::Deployed;
use crate::dispatch::context::{Budget, HandlerContext, LaneStatus, Version, source_names};
use crate::dispatch::execute::Workspace;
use crate::dispatch::executor::Executors;
use crate::dispatch::start::Starts;
use crate::handler::{Answers, CodeCache, Engine};
use crate::ledger;
use crate::log::memory::MemoryLog;
use crate::log::{Log, Stored};
use crate::metrics::HandlerMetrics;
use crate::model::key::partition;
use crate::model::subjects::HandlerNames;
use crate::runtime;
use crate::shared::freed::Freed;
use crate::shared::reader::{Clock, Reader};
use crate::source::decode::{Decoded, Decoder, Queued};
use crate::state::KeyState;

mod lines;
pub mod outcome;
mod play;
mod timers;

use lines::Lines;
pub use outcome::Outcome;
use timers::Timers;

/// Bytes of cells kept in memory: all of them. There are no checkpoints.
const CELLS_BYTES: usize = usize::MAX;

/// What a stage needs beside the handler.
pub struct Setup {
    /// Names of the handler in the ledger, whose name no source has that is not the ledger.
    pub names: HandlerNames,
    /// Subjects of the ledger, without Weir's own.
    pub ledger_subjects: Vec<String>,
    /// When each source was created, that of the ledger last, in Unix nanoseconds. With an event's id
    /// it is the seed of random numbers.
    pub created: Vec<u64>,
    /// Revision of the deployment; 0 for one that is not deployed.
    pub revision: u64,
    /// Largest message that the log takes, in bytes.
    pub max_payload: usize,
    /// What requests are answered with.
    pub answers: Arc<Answers>,
    /// Where compiled code is kept.
    pub code_cache: CodeCache,
    /// Name of this host in dead letters.
    pub host: String,
}

/// A handler that waits for its next event.
pub struct Stage {
    context: Arc<HandlerContext>,
    sharing: Arc<Reader>,
    log: MemoryLog,
    /// Of each source, the internal one last.
    decoders: Vec<Decoder>,
    created: Vec<u64>,
    partitions: HashMap<u32, Partition>,
    timers: Timers,
    /// First sequence of the ledger that was not looked at for fired timers.
    fired_from: u64,
    lines: Lines,
    answers: Arc<Answers>,
    /// Commits so far.
    commits: u64,
}

/// A timer that fired.
#[derive(Debug)]
pub struct Fired {
    pub key: String,
    pub name: String,
    message: Stored,
}

#[derive(Default)]
struct Partition {
    /// `None` while it is on the execution thread.
    workspace: Option<Box<Workspace>>,
    /// Sequence of its last commit record.
    record: u64,
}

impl Stage {
    /// Compiles the handler and prepares a log for it, whose clock stands at `now` (Unix nanoseconds).
    ///
    /// # Errors
    /// The handler is refused, or the machine lacks something.
    pub async fn new(deployed: Deployed, setup: Setup, now: u64) -> anyhow::Result<Stage> {
        let manifest = deployed.manifest.clone();
        let config = config::Ledger {
            name: setup.names.ledger.clone(),
            subjects: setup.ledger_subjects,
            replicas: 1,
            event_ttl: None,
        };
        let log = MemoryLog::with_max_payload(now, setup.max_payload);
        let ledger = ledger::ensure(&log, &config).await?;
        let instances = manifest.partitions.saturating_add(1);
        let engine = Engine::offline(instances, Some(setup.code_cache), setup.answers.clone())
            .context("starting the WebAssembly engine")?;
        let program = compile(&engine, &manifest, deployed.wasm, &ledger, &log).await?;
        let names = setup.names;
        let sources: Vec<&str> = source_names(&manifest).collect();
        let shared: Arc<MemoryLog> = Arc::new(log.clone());
        let sharing = Arc::new(Reader::new(shared.clone(), names.clone(), Clock::Partition));
        let context = HandlerContext {
            names: names.clone(),
            beside: None,
            host: setup.host,
            log: shared.clone(),
            committer: Committer::start(shared.clone(), &ledger.name, Attempts::new("stage")),
            executors: Executors::start(1, 1).context("starting the execution threads")?,
            starts: Arc::new(Starts::new(shared.clone(), names.clone())),
            shared: sharing.clone(),
            freed: Freed::default(),
            metrics: HandlerMetrics::new(&manifest.name, manifest.partitions, &sources),
            counters: Arc::default(),
            budget: Budget::new(runtime::WAITING_BYTES, CELLS_BYTES),
            ledger_created: ledger.created,
            event_ttl_s: None,
            lanes: (0..manifest.partitions).map(|_| LaneStatus::default()).collect(),
            version: Version {
                manifest,
                digest: deployed.digest,
                program,
                revision: setup.revision,
            },
        };
        let decoders = context.decoders();
        Ok(Stage {
            context: Arc::new(context),
            sharing,
            log,
            decoders,
            created: setup.created,
            partitions: HashMap::new(),
            timers: Timers::default(),
            fired_from: 1,
            answers: setup.answers,
            lines: Lines::default(),
            commits: 0,
        })
    }

    /// Whether the handler has used shared cells or locks. Some import them and do not: components
    /// in Python and JavaScript import the whole world.
    pub fn has_shared(&self) -> bool {
        self.sharing.was_asked()
    }

    /// The handler that runs here.
    pub fn version(&self) -> &Version {
        &self.context.version
    }

    /// The log in memory, for a source that is to be written there.
    pub fn log(&self) -> &MemoryLog {
        &self.log
    }

    /// Decoders of all sources, in the order of their indices: the internal one last.
    pub fn decoders(&self) -> &[Decoder] {
        &self.decoders
    }

    /// All that is kept of a key; `None`: it had no event.
    pub fn state(&mut self, key: &str) -> Option<&KeyState> {
        let partition = partition(key, self.context.manifest.partitions);
        let workspace = self.partitions.get_mut(&partition)?.workspace.as_mut()?;
        workspace.cells.get(key).map(|state| &**state)
    }

    /// Where the clock stands, in Unix nanoseconds.
    pub fn now(&self) -> u64 {
        self.log.now()
    }

    /// The next timer that fires by `until`; the clock is left standing where it was due. `None`: no
    /// other does, and the clock is where it was. Those in `without` (key and name) are passed over.
    ///
    /// # Errors
    /// Of this process.
    pub async fn next_fired(
        &mut self,
        until: u64,
        without: &BTreeSet<(String, String)>,
    ) -> anyhow::Result<Option<Fired>> {
        let (ledger, fired) = (self.context.names.ledger.clone(), self.context.names.fired_all());
        loop {
            let mut waiting = self.log.scan(&ledger, &fired, self.fired_from, 1).await?;
            if let Some(message) = waiting.pop() {
                self.fired_from = message.sequence + 1;
                let (key, name) = message
                    .last_header("Nats-Scheduler")
                    .and_then(|subject| self.context.names.parse_timer(subject))
                    .map(|(key, name, _)| (key, name))
                    .context("a fired timer names its schedule")?;
                let which = (key, name);
                if without.contains(&which) {
                    continue;
                }
                let (key, name) = which;
                return Ok(Some(Fired { key, name, message }));
            }
            match self.timers.next(without) {
                Some(due) if due <= until => {
                    ensure!(
                        due > self.log.now(),
                        "a timer that was due at {due} did not fire; this is a fault of Weir"
                    );
                    self.advance(due);
                }
                _ => return Ok(None),
            }
        }
    }

    /// Runs a timer that fired. `None`: it was replaced or cancelled meanwhile.
    ///
    /// # Errors
    /// Of this process.
    pub async fn fire(&mut self, fired: Fired) -> anyhow::Result<Option<Outcome>> {
        let internal = self.decoders.len() - 1;
        self.deliver(internal, fired.message).await
    }

    /// Lets time pass without taking notice of the timers that fire.
    ///
    /// # Errors
    /// Of this process.
    pub async fn pass(&mut self, to: u64) -> anyhow::Result<()> {
        self.advance(to);
        let ledger = self.log.stream(&self.context.names.ledger).await?;
        self.fired_from = ledger.last + 1;
        Ok(())
    }

    /// Tries an event again that waits for a lock. `None`: no other gets any further.
    ///
    /// # Errors
    /// Of this process.
    pub async fn unpark(&mut self) -> anyhow::Result<Option<Outcome>> {
        let mut ready = None;
        for (number, partition) in &mut self.partitions {
            let Some(workspace) = &mut partition.workspace else {
                continue;
            };
            // Locks that others still hold are found to be so, and nothing is gained.
            workspace.parked.wake(None);
            if let Some(first) = workspace.parked.ready() {
                ready = ready.or(Some((*number, first.event.clone())));
            }
        }
        match ready {
            Some((number, event)) => self.play(number, event, None).await,
            None => Ok(None),
        }
    }

    /// Events that wait for a lock.
    pub fn parked(&self) -> usize {
        let workspaces = self.partitions.values().filter_map(|p| p.workspace.as_ref());
        workspaces.map(|workspace| workspace.parked.len()).sum()
    }

    /// Moves the clock on to `to` (Unix nanoseconds), never back.
    pub fn advance(&self, to: u64) {
        self.log.advance(to.saturating_sub(self.log.now()));
    }

    /// Runs the event in a message of a source, and commits it. `None`: a timer that was replaced or
    /// cancelled, or an event that waits for a lock.
    ///
    /// # Errors
    /// Of this process; the message is no event.
    pub async fn deliver(&mut self, source: usize, stored: Stored) -> anyhow::Result<Option<Outcome>> {
        match self.decoders[source].decode(stored) {
            Decoded::Event(partition, queued) => self.handle(partition, queued).await,
            other => bail!("only events are delivered, not {other:?}"),
        }
    }

    /// Runs one event, and commits it. `None`: as in [`Stage::deliver`].
    ///
    /// # Errors
    /// Of this process.
    pub async fn handle(&mut self, partition: u32, queued: Queued) -> anyhow::Result<Option<Outcome>> {
        let event = queued.event.clone();
        self.play(partition, event, Some(queued)).await
    }
}
