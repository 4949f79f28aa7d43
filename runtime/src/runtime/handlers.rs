//! The handlers of a host: for each that is deployed, a supervisor that makes what
//! runs here what the registry says.
//!
//! ```text
//!   registry ──> follow ──> supervisor (one per handler) ──> Running: feeds and lanes
//!                                │ fetch, verify, compile
//!                                └ refused: the version before goes on
//! ```
//!
//! A new version of the same sources is handed to the lanes, which go over to it
//! between two groups. Other sources need other readers, so that the handler is
//! stopped and started; its partitions are taken over again from their records.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::commit::committer::Committer;
use crate::deployment::artifacts::{self, Artifacts};
use crate::deployment::compile::compile;
use crate::deployment::registry::{self, Desired, Registered};
use crate::deployment::signature;
use crate::dispatch::context::{Budget, HandlerContext, LaneStatus, Version, source_names};
use crate::dispatch::executor::Executors;
use crate::dispatch::lane::Lane;
use crate::dispatch::ownership::Ownership;
use crate::dispatch::start::Starts;
use crate::handler::Engine;
use crate::ledger::Ledger;
use crate::log::{self, SharedLog};
use crate::membership::{Holdings, View};
use crate::metrics::HandlerMetrics;
use crate::model::pattern;
use crate::model::subjects::{HandlerNames, handler_keys, handlers_stream};
use crate::shared::freed::Freed;
use crate::shared::reader::{Clock, Reader};
use crate::source::decode::Decoder;
use crate::source::feed::{CHUNKS_MAX, Chunk, Feed, FeedHandle};
use crate::source::progress::SharedProgress;

/// Pause before something that NATS did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What all handlers of a host share.
pub struct Parts {
    pub engine: Arc<Engine>,
    pub executors: Executors,
    pub committer: Committer,
    pub log: SharedLog,
    pub ledger: Ledger,
    pub host: String,
    pub event_ttl_s: Option<u64>,
    pub budget: Budget,
    pub freed: Freed,
    pub view: watch::Receiver<Arc<View>>,
    pub holdings: Holdings,
    /// Public NKeys of which one must have signed a deployment; all do if empty.
    pub trusted: Vec<String>,
    /// Components of files that this host has just deployed: they need not be
    /// fetched back. Each is taken once.
    pub at_hand: Mutex<HashMap<String, Vec<u8>>>,
    /// Taken while something is compiled, which uses all processors and much memory.
    pub compiling: Semaphore,
}

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

    fn sees(&self, sees: bool) {
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

    fn update(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(name) {
            change(entry);
        }
        self.touch();
    }

    /// A deployment was seen.
    fn saw(&self, registered: &Registered) {
        let name = registered.deployment.name.clone();
        let mut entries = self.lock();
        let running = entries.get(&name).and_then(|entry| entry.running.clone());
        let entry = Entry {
            registered: registered.clone(),
            settled: false,
            refused: None,
            running,
        };
        entries.insert(name, entry);
        drop(entries);
        self.touch();
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
        self.touch();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every change leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisors.
pub struct Handlers {
    parts: Arc<Parts>,
    roster: Arc<Roster>,
    drain: watch::Receiver<bool>,
    wanted: BTreeMap<String, watch::Sender<Registered>>,
    supervisors: JoinSet<()>,
    /// The highest revision seen.
    seen: u64,
}

impl Handlers {
    pub fn new(parts: Arc<Parts>, roster: Arc<Roster>, drain: watch::Receiver<bool>) -> Handlers {
        Handlers {
            parts,
            roster,
            drain,
            wanted: BTreeMap::new(),
            supervisors: JoinSet::new(),
            seen: 0,
        }
    }

    /// Begins with what is registered now.
    ///
    /// # Errors
    /// Of the log.
    pub async fn begin(&mut self) -> Result<(), log::Error> {
        let (stream, keys) = (
            handlers_stream(&self.parts.ledger.name),
            handler_keys(&self.parts.ledger.name),
        );
        let snapshot = self.parts.log.last_many(&stream, &[keys]).await?;
        self.apply_all(&snapshot.messages);
        Ok(())
    }

    /// Follows the registry until the host drains; then every handler has stopped.
    pub async fn follow(mut self) {
        let mut drain = self.drain.clone();
        tokio::select! {
            () = self.read() => {}
            _ = drain.wait_for(|drain| *drain) => {}
        }
        while self.supervisors.join_next().await.is_some() {}
    }

    async fn read(&mut self) {
        let (stream, keys) = (
            handlers_stream(&self.parts.ledger.name),
            handler_keys(&self.parts.ledger.name),
        );
        let mut messages = Vec::new();
        loop {
            let failed = match self
                .parts
                .log
                .read(&stream, std::slice::from_ref(&keys), self.seen + 1)
                .await
            {
                Err(error) => error,
                Ok(mut reader) => loop {
                    self.roster.sees(true);
                    if let Err(error) = reader.next(&mut messages).await {
                        break error;
                    }
                    self.apply_all(&messages);
                    messages.clear();
                },
            };
            self.apply_all(&messages);
            messages.clear();
            self.roster.sees(false);
            warn!(%failed, "the registry of handlers cannot be followed; trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn apply_all(&mut self, messages: &[log::Stored]) {
        for stored in messages {
            self.seen = self.seen.max(stored.sequence);
            match registry::decode(stored) {
                Ok(registered) => self.apply(registered),
                Err(error) => error!("a deployment is passed over: {error}"),
            }
        }
    }

    fn apply(&mut self, registered: Registered) {
        let name = registered.deployment.name.clone();
        if let Some(wanted) = self.wanted.get(&name) {
            if wanted.borrow().revision < registered.revision {
                self.roster.saw(&registered);
                wanted.send_replace(registered);
            }
            return;
        }
        if registered.deployment.desired == Desired::Removed {
            return;
        }
        self.roster.saw(&registered);
        let (sender, wanted) = watch::channel(registered);
        self.wanted.insert(name.clone(), sender);
        let supervisor = Supervisor {
            parts: self.parts.clone(),
            roster: self.roster.clone(),
            drain: self.drain.clone(),
            name,
            wanted,
            running: None,
        };
        self.supervisors.spawn(supervisor.run());
    }
}

/// Keeps one handler as the registry wants it.
struct Supervisor {
    parts: Arc<Parts>,
    roster: Arc<Roster>,
    drain: watch::Receiver<bool>,
    name: String,
    wanted: watch::Receiver<Registered>,
    running: Option<Running>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut drain = self.drain.clone();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            tokio::select! {
                () = self.settle(&wanted) => {}
                _ = drain.wait_for(|drain| *drain) => break,
            }
            tokio::select! {
                Ok(()) = self.wanted.changed() => {}
                _ = drain.wait_for(|drain| *drain) => break,
            }
        }
        self.stop().await;
    }

    /// Does what a deployment asks for.
    async fn settle(&mut self, wanted: &Registered) {
        let deployment = &wanted.deployment;
        let refused = match deployment.desired {
            Desired::Running => match self.prepare(wanted).await {
                Ok(version) => {
                    self.execute(version, deployment.generation).await;
                    None
                }
                Err(refusal) => {
                    let reason = format!("{refusal:#}");
                    error!(
                        handler = self.name,
                        revision = wanted.revision,
                        reason,
                        "deployment refused"
                    );
                    Some(reason)
                }
            },
            Desired::Paused | Desired::Removed => {
                self.stop().await;
                info!(
                    handler = self.name,
                    revision = wanted.revision,
                    "{}",
                    match deployment.desired {
                        Desired::Removed => "removed",
                        _ => "paused",
                    }
                );
                None
            }
        };
        if deployment.desired == Desired::Removed {
            self.roster.forget(&self.name);
            return;
        }
        let shown = self.running.as_ref().map(Running::shown);
        self.roster.update(&self.name, |entry| {
            entry.running = shown;
            // A newer one may have come in meanwhile.
            if entry.registered.revision == wanted.revision {
                entry.settled = true;
                entry.refused = refused;
            }
        });
    }

    /// Fetches, verifies and compiles, off the threads that execute.
    async fn prepare(&self, wanted: &Registered) -> anyhow::Result<Version> {
        let (parts, deployment) = (&self.parts, &wanted.deployment);
        signature::check(
            &parts.trusted,
            deployment.signature.as_ref(),
            &deployment.name,
            &deployment.digest,
            &deployment.manifest,
        )?;
        let manifest = deployment.manifest()?;
        let at_hand = parts
            .at_hand
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&deployment.digest);
        let wasm = match at_hand {
            Some(wasm) => wasm,
            None => self.fetch(&deployment.digest).await?,
        };
        let turn = parts.compiling.acquire().await;
        let _turn = turn.expect("it is never closed");
        let program = compile(&parts.engine, &manifest, wasm, &parts.ledger, &*parts.log).await?;
        Ok(Version {
            manifest,
            digest: deployment.digest.clone(),
            program,
            revision: wanted.revision,
        })
    }

    async fn fetch(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let artifacts = Artifacts::of(&*self.parts.log, &self.parts.ledger.name);
        loop {
            match artifacts.get(digest).await {
                Err(artifacts::Error::Log(log::Error::Unavailable(reason))) => {
                    warn!(
                        handler = self.name,
                        reason, "its component cannot be fetched; trying again"
                    );
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                fetched => return fetched.context("fetching its component"),
            }
        }
    }

    /// Starts a version, or hands it to the lanes of the one before.
    async fn execute(&mut self, version: Version, generation: u64) {
        info!(
            handler = self.name,
            version = version.manifest.version,
            digest = version.digest,
            revision = version.revision,
            partitions = version.manifest.partitions,
            "{}",
            if self.running.is_some() {
                "switching"
            } else {
                "starting"
            }
        );
        match &self.running {
            Some(running) if running.takes(&version, generation) => running.switch(version),
            _ => {
                self.stop().await;
                self.running = Some(Running::start(&self.parts, version, generation));
            }
        }
    }

    async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

/// A handler at work. Dropped, it has crashed.
struct Running {
    versions: watch::Sender<Arc<HandlerContext>>,
    progress: Vec<Vec<SharedProgress>>,
    stop: watch::Sender<bool>,
    lanes: JoinSet<()>,
}

impl Running {
    /// Starts the feeds and lanes.
    fn start(parts: &Parts, version: Version, generation: u64) -> Running {
        let manifest = version.manifest.clone();
        let names = HandlerNames::new(&parts.ledger.name, &manifest.name, generation);
        let partitions = manifest.partitions;
        let streams: Vec<&str> = source_names(&manifest).collect();
        let context = Arc::new(HandlerContext {
            names: names.clone(),
            host: parts.host.clone(),
            log: parts.log.clone(),
            committer: parts.committer.clone(),
            executors: parts.executors.clone(),
            starts: Arc::new(Starts::new(parts.log.clone(), names.clone())),
            shared: Arc::new(Reader::new(parts.log.clone(), names, Clock::System)),
            freed: parts.freed.clone(),
            metrics: HandlerMetrics::new(&manifest.name, partitions, &streams),
            counters: Arc::default(),
            budget: parts.budget.clone(),
            ledger_created: parts.ledger.created,
            event_ttl_s: parts.event_ttl_s,
            lanes: (0..partitions).map(|_| LaneStatus::default()).collect(),
            version,
        });
        watch_locks(&context);
        let (stop, stopped) = watch::channel(false);
        let (versions, version) = watch::channel(context.clone());

        let (senders, receivers): (Vec<_>, Vec<_>) = (0..partitions)
            .map(|_| mpsc::channel(CHUNKS_MAX * streams.len()))
            .unzip();
        let feeds = feeds(&context, &senders);
        let mut lanes = JoinSet::new();
        for (partition, chunks) in (0..).zip(receivers) {
            let ownership = Ownership::new(
                parts.view.clone(),
                parts.holdings.clone(),
                &parts.host,
                &manifest.name,
                partition,
            );
            let lane = Lane::new(
                version.clone(),
                partition,
                chunks,
                feeds.iter().map(|feeds| feeds.of(partition)).collect(),
                stopped.clone(),
                ownership,
            );
            lanes.spawn(lane.run());
        }
        Running {
            versions,
            progress: feeds.into_iter().map(SourceFeeds::progress).collect(),
            stop,
            lanes,
        }
    }

    /// Whether the lanes can go over to a version as they are.
    fn takes(&self, version: &Version, generation: u64) -> bool {
        let context = self.versions.borrow();
        let reads = |version: &Version| {
            let sources = version.manifest.sources.iter();
            sources
                .map(|source| (source.stream.clone(), source.subjects.clone()))
                .collect::<Vec<_>>()
        };
        let id_of = |version: &Version| {
            let dedupe = version.manifest.dedupe.as_ref();
            dedupe.map(|dedupe| dedupe.from.clone())
        };
        context.names.generation == generation
            && context.manifest.partitions == version.manifest.partitions
            && context.manifest.key == version.manifest.key
            && context.manifest.partition_token == version.manifest.partition_token
            && id_of(&context) == id_of(version)
            && reads(&context) == reads(version)
    }

    fn switch(&self, version: Version) {
        self.versions.send_modify(|context| {
            *context = Arc::new(HandlerContext {
                version,
                ..(**context).clone()
            });
        });
        watch_locks(&self.versions.borrow());
    }

    fn shown(&self) -> Shown {
        Shown {
            context: self.versions.subscribe(),
            progress: self.progress.clone(),
        }
    }

    /// Finishes what is under way.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.lanes.join_next().await.is_some() {}
    }
}

/// The feeds of one source.
enum SourceFeeds {
    /// One for all partitions.
    Whole(FeedHandle),
    /// One for each: its number is in the subject.
    Each(Vec<FeedHandle>),
}

impl SourceFeeds {
    fn of(&self, partition: u32) -> FeedHandle {
        match self {
            SourceFeeds::Whole(feed) => feed.clone(),
            SourceFeeds::Each(feeds) => feeds[partition as usize].clone(),
        }
    }

    fn progress(self) -> Vec<SharedProgress> {
        match self {
            SourceFeeds::Whole(feed) => vec![feed.progress],
            SourceFeeds::Each(feeds) => feeds.into_iter().map(|feed| feed.progress).collect(),
        }
    }
}

/// The feeds of all sources, the handler's own messages in the ledger last.
fn feeds(context: &HandlerContext, lanes: &[mpsc::Sender<Chunk>]) -> Vec<SourceFeeds> {
    let own = vec![context.names.fired_all(), context.names.redriven_all()];
    let subjects = context.manifest.sources.iter().map(|source| &source.subjects);
    let start = |subjects, decoder, lanes: BTreeMap<u32, _>| {
        Feed::start(context.log.clone(), subjects, decoder, lanes)
    };
    let feeds_of = |(decoder, subjects): (Decoder, &Vec<String>)| match decoder.partition_token {
        None => {
            let lanes = (0..).zip(lanes.iter().cloned()).collect();
            SourceFeeds::Whole(start(subjects.clone(), decoder, lanes))
        }
        Some(token) => {
            let each = (0..).zip(lanes).map(|(partition, lane)| {
                let subjects = subjects.iter();
                let number = partition.to_string();
                let subjects = subjects.flat_map(|subject| pattern::with_token(subject, token, &number));
                let lane = BTreeMap::from([(partition, lane.clone())]);
                start(subjects.collect(), decoder.clone(), lane)
            });
            SourceFeeds::Each(each.collect())
        }
    };
    let decoders = context.decoders().into_iter();
    decoders.zip(subjects.chain([&own])).map(feeds_of).collect()
}

/// Events of a handler that uses locks are told when one is free.
fn watch_locks(context: &HandlerContext) {
    if context.program.shares() {
        context.freed.watch(&context.log, &context.names.ledger);
    }
}
