//! The handler on its log: stores an event or lets time pass until a timer
//! fires, runs it, commits it, and says what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::oneshot;
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::layer::SubscriberExt;

use super::events::{Error, Given};
use super::outcome::{Attempt, Course, Outcome};
use super::report::GuestLines;
use crate::commit::committer::{Attempts, Committer, Settlement, Submission};
use crate::commit::group::Group;
use crate::commit::record::{KeyDelta, Kind, Record};
use crate::config;
use crate::deployment::compile::compile;
use crate::deployment::plugins::Deployed;
use crate::dispatch::context::{Budget, HandlerContext, LaneStatus, Version, source_names};
use crate::dispatch::execute::{Ended, Workspace, is_stale};
use crate::dispatch::executor::Executors;
use crate::dispatch::parked::{PARKED_MAX, Parked};
use crate::dispatch::start::Starts;
use crate::handler::{Answers, CodeCache, Engine};
use crate::ledger;
use crate::log::memory::MemoryLog;
use crate::log::{Append, Log, Stored, StreamSettings};
use crate::metrics::HandlerMetrics;
use crate::model::event::Event;
use crate::model::position::Position;
use crate::model::subjects::{FIRST_GENERATION, HandlerNames};
use crate::runtime;
use crate::shared::freed::Freed;
use crate::shared::reader::{Clock, Reader};
use crate::source::decode::{Decoded, Decoder, Queued};
use crate::state::cells::Cells;

/// Timers that fire in one trial. Far above what a file of events sets; it ends
/// handlers whose timers set each other for ever.
pub const FIRES_MAX: usize = 10_000;

/// How often one timer of one key fires after the last event. A timer that sets
/// itself again whenever it fires would never end.
pub const FIRES_AFTER_LAST_MAX: usize = 10;

/// Name of the ledger; not one that a source has.
const LEDGER: &str = "TEST";

/// When every source was created, in Unix nanoseconds. With an event's id it is
/// the seed of random numbers, which are the same in every trial.
const CREATED: u64 = 1;

/// How long before the first event the log begins, in nanoseconds: streams are
/// created meanwhile.
const LEAD: u64 = 1_000_000_000;

/// Bytes of cells kept in memory: all of them. A trial has no checkpoints.
const CELLS_BYTES: usize = usize::MAX;

/// What a trial needs beside the handler.
pub struct Setup {
    /// Subjects of the ledger.
    pub ledger_subjects: Vec<String>,
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
    log: MemoryLog,
    /// Of each source, the internal one last.
    decoders: Vec<Decoder>,
    partitions: HashMap<u32, Partition>,
    timers: Timers,
    /// First sequence of the ledger that was not looked at for fired timers.
    fired_from: u64,
    lines: Lines,
    answers: Arc<Answers>,
    summary: Summary,
}

#[derive(Default)]
struct Partition {
    /// `None` while it is on the execution thread.
    workspace: Option<Box<Workspace>>,
    /// Sequence of its last commit record.
    record: u64,
}

/// What a trial came to, in numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    pub events: usize,
    pub timers: usize,
    pub emits: usize,
    pub dead_letters: usize,
    /// Events that waited for a lock to the end.
    pub parked: usize,
    /// Timers, by key and name, that were still set when the trial ended because
    /// they set themselves again [`FIRES_AFTER_LAST_MAX`] times.
    pub endless: BTreeSet<(String, String)>,
}

/// What guests log, and the subscriber that catches it on the execution thread.
struct Lines {
    caught: Arc<Mutex<Vec<(tracing::Level, String)>>>,
    dispatch: Dispatch,
}

impl Lines {
    /// What was caught since the last time.
    fn take(&self) -> Vec<(tracing::Level, String)> {
        std::mem::take(&mut *self.caught.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stage {
    /// Compiles the handler and prepares a log for it that begins at the time of
    /// the first event.
    ///
    /// # Errors
    /// The handler is refused, or the machine lacks something.
    pub async fn new(deployed: Deployed, setup: Setup, first: u64) -> anyhow::Result<Stage> {
        let manifest = deployed.manifest.clone();
        let mut ledger_name = LEDGER.to_owned();
        while manifest.sources.iter().any(|source| source.stream == ledger_name) {
            ledger_name.push('_');
        }
        let config = config::Ledger {
            name: ledger_name,
            subjects: setup.ledger_subjects,
            replicas: 1,
            event_ttl: None,
        };
        let log = MemoryLog::starting_at(first.saturating_sub(LEAD));
        let ledger = ledger::ensure(&log, &config).await?;
        for source in &manifest.sources {
            let settings = StreamSettings {
                subjects: source.subjects.clone(),
                ..ledger::ledger_settings(&config)
            };
            log.create_stream(&source.stream, &settings).await?;
        }

        let instances = manifest.partitions.saturating_add(1);
        let engine = Engine::offline(instances, Some(setup.code_cache), setup.answers.clone())
            .context("starting the WebAssembly engine")?;
        let program = compile(&engine, &manifest, deployed.wasm, &ledger, &log).await?;
        let names = HandlerNames::new(&ledger.name, &manifest.name, FIRST_GENERATION);
        let sources: Vec<&str> = source_names(&manifest).collect();
        let shared: Arc<MemoryLog> = Arc::new(log.clone());
        let context = HandlerContext {
            names: names.clone(),
            beside: None,
            host: setup.host,
            log: shared.clone(),
            committer: Committer::start(shared.clone(), &ledger.name, Attempts::new("test")),
            executors: Executors::start(1, 1).context("starting the execution threads")?,
            starts: Arc::new(Starts::new(shared.clone(), names.clone())),
            shared: Arc::new(Reader::new(shared, names.clone(), Clock::Partition)),
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
                revision: 0,
            },
        };
        let decoders = context.decoders();
        let caught: Arc<Mutex<Vec<_>>> = Arc::default();
        let subscriber = tracing_subscriber::registry().with(GuestLines::into(caught.clone()));
        Ok(Stage {
            context: Arc::new(context),
            log,
            decoders,
            partitions: HashMap::new(),
            timers: Timers::default(),
            fired_from: 1,
            answers: setup.answers,
            lines: Lines {
                caught,
                dispatch: Dispatch::new(subscriber),
            },
            summary: Summary::default(),
        })
    }

    /// Runs all events, the timers due between them, and those left after the
    /// last one. `show` is called with each outcome, in order.
    ///
    /// # Errors
    /// Those of `show`, an event that no stream would take, or timers without end.
    pub async fn run(
        mut self,
        file: &std::path::Path,
        events: Vec<Given>,
        mut show: impl FnMut(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<Summary> {
        for given in events {
            self.fire_until(given.time, None, &mut show).await?;
            self.advance(given.time);
            let source = given.source;
            let stored = self.store(file, given).await?;
            self.summary.events += 1;
            if let Some(outcome) = self.deliver(source, stored).await? {
                self.count(&outcome);
                show(&outcome)?;
            }
            self.unpark(&mut show).await?;
        }
        let mut fired = BTreeMap::new();
        self.fire_until(u64::MAX, Some(&mut fired), &mut show).await?;
        let workspaces = self.partitions.values().filter_map(|p| p.workspace.as_ref());
        self.summary.parked = workspaces.map(|workspace| workspace.parked.len()).sum();
        Ok(self.summary)
    }

    fn count(&mut self, outcome: &Outcome) {
        self.summary.emits += outcome.emits.len();
        self.summary.dead_letters += usize::from(outcome.dead_letter.is_some());
    }

    /// Stores an event as its publisher would.
    async fn store(&self, file: &std::path::Path, given: Given) -> anyhow::Result<Stored> {
        let stream = &self.context.manifest.sources[given.source].stream;
        let message = Append {
            subject: given.subject,
            headers: given.headers,
            data: given.data,
            ..Append::default()
        };
        let appended = self
            .log
            .append(stream, vec![message])
            .await
            .map_err(|error| Error {
                file: file.to_owned(),
                line: given.line,
                field: String::new(),
                problem: format!("no stream takes this event: {error}"),
            })?;
        let stored = self.log.get(stream, appended.sequence).await?;
        stored.context("what was just stored is there")
    }

    /// Lets time pass until `until`, and every timer fire that is due by then. A
    /// timer that is due at that very moment comes first.
    ///
    /// `fired` counts, after the last event, how often each timer fired.
    async fn fire_until(
        &mut self,
        until: u64,
        mut fired: Option<&mut BTreeMap<(String, String), usize>>,
        show: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let ledger = &self.context.names.ledger;
            let waiting = self
                .log
                .scan(
                    ledger,
                    &self.context.names.fired_all(),
                    self.fired_from,
                    usize::MAX,
                )
                .await?;
            if waiting.is_empty() {
                match self.timers.next(&self.summary.endless) {
                    Some(due) if due <= until => {
                        ensure!(
                            due > self.log.now(),
                            "a timer that was due at {due} did not fire; this is a fault of `weir test`"
                        );
                        self.advance(due);
                        continue;
                    }
                    _ => return Ok(()),
                }
            }
            for stored in waiting {
                self.fired_from = stored.sequence + 1;
                self.fire(stored, &mut fired, show).await?;
            }
        }
    }

    async fn fire(
        &mut self,
        stored: Stored,
        fired: &mut Option<&mut BTreeMap<(String, String), usize>>,
        show: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let internal = self.decoders.len() - 1;
        let which = stored
            .header("Nats-Scheduler")
            .and_then(|subject| self.context.names.parse_timer(subject))
            .map(|(key, name, _)| (key, name))
            .context("a fired timer names its schedule")?;
        if self.summary.endless.contains(&which) {
            return Ok(());
        }
        if let Some(fired) = fired {
            let times = fired.entry(which.clone()).or_default();
            if *times == FIRES_AFTER_LAST_MAX {
                self.summary.endless.insert(which);
                return Ok(());
            }
            *times += 1;
        }
        let Some(outcome) = self.deliver(internal, stored).await? else {
            return Ok(());
        };
        self.summary.timers += 1;
        if self.summary.timers > FIRES_MAX {
            let (key, name) = which;
            bail!(
                "timers fired {FIRES_MAX} times, last `{name}` of key `{key}`: does the handler set timers without end?"
            );
        }
        self.count(&outcome);
        show(&outcome)?;
        self.unpark(show).await
    }

    /// Tries events again that wait for a lock, as long as that gets any of them further.
    async fn unpark(&mut self, show: &mut impl FnMut(&Outcome) -> anyhow::Result<()>) -> anyhow::Result<()> {
        loop {
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
            let Some((number, event)) = ready else {
                return Ok(());
            };
            let Some(outcome) = self.play(number, event, None).await? else {
                return Ok(());
            };
            self.count(&outcome);
            show(&outcome)?;
        }
    }

    fn advance(&self, to: u64) {
        self.log.advance(to.saturating_sub(self.log.now()));
    }

    /// Runs one event and commits it. `None`: a timer that was replaced or cancelled.
    async fn deliver(&mut self, source: usize, stored: Stored) -> anyhow::Result<Option<Outcome>> {
        let (number, queued) = match self.decoders[source].decode(stored) {
            Decoded::Event(partition, queued) => (partition, queued),
            other => bail!("only events are delivered, not {other:?}"),
        };
        let event = queued.event.clone();
        self.play(number, event, Some(queued)).await
    }

    /// Runs one event, or without it the first parked one that is ready, and commits what
    /// it did. `None`: it did not come to its turn, or was a timer of no account.
    async fn play(
        &mut self,
        number: u32,
        event: Event,
        queued: Option<Queued>,
    ) -> anyhow::Result<Option<Outcome>> {
        let mut partition = self.partitions.remove(&number).unwrap_or_default();
        let mut workspace = match partition.workspace.take() {
            Some(workspace) => workspace,
            None => Box::new(self.workspace()),
        };
        let before = workspace.cells.get(&event.key).cloned().unwrap_or_default();
        let stale = is_stale(&event, &before);
        let (mut workspace, course) = self.execute(workspace, number, queued).await?;

        let (group, ..) = workspace.take_group();
        let (events, shares) = (group.events, group.shares());
        let (messages, keys) = group.finish(&self.context.names, number);
        let outcome = Outcome::read(
            &self.context.names,
            number,
            &event,
            &before,
            (&messages, &keys),
            course,
        );
        for delta in &keys {
            self.timers.update(delta);
        }
        let record = self.record(&workspace, &partition, keys, events);
        partition.record = self.commit(number, messages, shares, record).await?;
        partition.workspace = Some(workspace);
        self.partitions.insert(number, partition);
        Ok((!stale && events > 0).then_some(outcome))
    }

    /// As a partition is that no host had before.
    fn workspace(&self) -> Workspace {
        let begin = Position {
            created: CREATED,
            ..Position::default()
        };
        Workspace {
            instance: None,
            cells: Cells::default(),
            clock: 0,
            timer_generation: 0,
            positions: vec![begin; self.decoders.len()],
            events: Default::default(),
            waiting_bytes: 0,
            group: Group::default(),
            number: 1,
            blank: true,
            // What each of them did is shown.
            group_events_max: 1,
            sealed: false,
            untakeable: None,
            parked: Parked::default(),
            quiet: None,
            undo: None,
        }
    }

    /// Runs one event until it is done with: handled, or dead-lettered after its
    /// last attempt.
    async fn execute(
        &self,
        mut workspace: Box<Workspace>,
        partition: u32,
        queued: Option<Queued>,
    ) -> anyhow::Result<(Box<Workspace>, Course)> {
        if let Some(queued) = queued {
            workspace.waiting_bytes += queued.bytes;
            workspace.events.push_back(queued);
        }
        let mut attempts: Vec<Attempt> = Vec::new();
        loop {
            let (context, dispatch) = (self.context.clone(), self.lines.dispatch.clone());
            let ran = self.context.executor().run(move || {
                let ended = dispatcher::with_default(&dispatch, || workspace.run(&context, partition));
                (workspace, ended)
            });
            let ended;
            (workspace, ended) = ran.await.context("the host broke an invariant of its own")?;
            match ended {
                Ended::Waiting => break,
                Ended::Full if !workspace.group.is_empty() => break,
                Ended::Retry { .. } if workspace.parked.len() == PARKED_MAX => {
                    bail!("more than {PARKED_MAX} events wait for locks that nobody gives back")
                }
                Ended::Retry { reason, .. } => {
                    // The next attempt is the same one again, and logs the same.
                    self.lines.take();
                    self.answers.take_asked();
                    attempts.push(Attempt {
                        backoff_ms: self.context.manifest.retry.wait_ms(attempts.len() as u32 + 1),
                        reason,
                    });
                }
                // The time of a run is up before its event began; only the clock of
                // this machine can be the cause.
                Ended::Full => {}
                Ended::Held(_) | Ended::Unrepeatable(_) => {
                    bail!("an event waits for another generation, and there is none")
                }
                Ended::Missing => bail!("a key is not in memory, although nothing is ever evicted"),
            }
        }
        let course = Course {
            log: self.lines.take(),
            attempts,
            requests: self.answers.take_asked(),
        };
        Ok((workspace, course))
    }

    fn record(
        &self,
        workspace: &Workspace,
        partition: &Partition,
        keys: Vec<KeyDelta>,
        events: u64,
    ) -> Record {
        Record {
            positions: self.context.named(&workspace.positions),
            clock: workspace.clock,
            timer_generation: workspace.timer_generation,
            keys,
            events,
            ..self.context.record(Kind::Commit, partition.record)
        }
    }

    async fn commit(
        &self,
        partition: u32,
        messages: Vec<Append>,
        shares: bool,
        record: Record,
    ) -> anyhow::Result<u64> {
        let (reply, settled) = oneshot::channel();
        let message = record.message(self.context.names.record(partition));
        let submission = Submission {
            messages,
            record: message,
            shares,
            reply,
        };
        self.context.committer.submit(submission).await;
        match settled.await.context("the committer ended")? {
            Settlement::Committed(sequence) => Ok(sequence),
            other => bail!("the log did not take what the handler did: {other:?}"),
        }
    }
}

/// Timers that are set, in the order in which they are due.
#[derive(Debug, Default)]
struct Timers {
    due: BTreeSet<(u64, Arc<str>, Box<str>)>,
    of: HashMap<Arc<str>, Vec<(u64, Box<str>)>>,
}

impl Timers {
    fn update(&mut self, delta: &KeyDelta) {
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
    fn next(&self, without: &BTreeSet<(String, String)>) -> Option<u64> {
        let counts = |key: &str, name: &str| {
            without.is_empty() || !without.contains(&(key.to_owned(), name.to_owned()))
        };
        let mut due = self.due.iter();
        due.find(|(_, key, name)| counts(key, name)).map(|(due, ..)| *due)
    }
}
