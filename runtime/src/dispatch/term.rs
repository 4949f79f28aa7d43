//! One term of a lane: one uninterrupted ownership of a partition.
//!
//! ```text
//!   accepted ──────────> executed ──────────> in flight ──────────> committed ──────> checkpointed
//!   (waiting, pending)   (workspace.group)    (one submission)      (dirty)           (state bucket)
//! ```
//!
//! One loop, one `select!`; each arm is cancel safe because what it waits for is
//! kept in the term and polled again:
//!
//! 1. *chunk*: events from a feed, skipped up to what was accepted (rule 4).
//! 2. *ran*: the workspace is back from an execution thread.
//! 3. *settled*: what became of the group in flight. In this order: promote the
//!    delta, release the lane for the next group, count.
//! 4. *checkpointed*: the bucket has caught up.
//! 5. *deadline*: a retry's backoff is over; a checkpoint or an idle move is due.
//! 6. *leave*: the host drains, or the partition is to be another's: execute nothing
//!    more, commit what is executed.
//! 7. *freed*: a lock that parked events may wait for became free.
//! 8. *version*: another version of the handler is to execute: commit what is executed,
//!    then go on with its code. Nothing of the old one is executed after that.
//!
//! Group n+1 is executed, on state that n changed, while n commits. If n is not
//! committed, the term ends and n+1 is gone with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{broadcast, oneshot};

use super::context::{HandlerContext, State};
use super::execute::{Ended, Untakeable, Workspace, missing_keys};
use super::lane::Lane;
use super::relay::Relay;
use super::tenure::Tenure;
use super::undo::Undo;
use crate::commit::committer::Settlement;
use crate::commit::record::{KeyDelta, Kind, ParkedEvent, Watermark};
use crate::model::position::Position;
use crate::shared::freed;
use crate::source::decode::Queued;
use crate::source::feed::Chunk;
use crate::state::checkpoint;
use crate::state::dirty::{Dirty, DirtyKey};
use crate::state::load;
use crate::state::meta::Mark;

use upkeep::CHECKPOINT_AFTER;

mod beside;
mod commit;
mod upkeep;

/// Keys loaded before one run: one direct get, or a few.
const LOAD_KEYS_MAX: usize = 500;

/// Keys of one direct get: between two, the lane sees whether its memory is full.
const LOAD_KEYS_AT_ONCE: usize = 100;

/// A run that takes longer is no reason to hold up other partitions.
const LONG_RUN: Duration = Duration::from_millis(250);

/// Locks heard to be free while the workspace is away; beyond it, all are tried.
const FREED_MAX: usize = 64;

/// How often a quiet lane looks whether to move its position.
const IDLE_LOOK: Duration = Duration::from_secs(2);

/// Why a term ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Everything executed is committed, and the partition may be another's.
    Released,
    Fenced,
    /// Something is not known, or failed for now: take over again.
    Restart(String),
    /// The server does not take a group of this many events; of a group of one,
    /// it is known which.
    TooLarge {
        reason: String,
        events: u64,
        event: Option<Untakeable>,
    },
    /// Somebody has to mend something; then it goes on.
    Stopped(String),
    /// An invariant of ours is broken: nothing more is committed.
    Broken(String),
}

/// One ownership of a partition.
pub struct Term<'a> {
    lane: &'a mut Lane,
    context: Arc<HandlerContext>,
    partition: u32,
    tenure: Tenure,
    /// `None` while it is on an execution thread.
    workspace: Option<Box<Workspace>>,
    running: Option<Running>,
    flight: Option<Flight>,
    flushing: Option<Flushing>,
    /// Accepted, not yet handed to the workspace.
    pending: VecDeque<Queued>,
    pending_bytes: usize,
    /// Bytes and events that the workspace held when it was last seen.
    workspace_bytes: usize,
    workspace_events: usize,
    /// Per source: highest offset accepted.
    accepted: Vec<Position>,
    /// Per source: highest offset handed to the workspace.
    handed: Vec<Position>,
    /// The next run begins with loading the keys it needs.
    load_first: bool,
    /// What the feeds sent was dropped for want of room; they are asked again later.
    shed: bool,
    retry_at: Option<Instant>,
    /// The next event waits for the generation that is still running.
    held: bool,
    /// Another version is to execute, as soon as what this one has done is submitted.
    switching: bool,
    /// Number of the last committed group, and of the last checkpointed one;
    /// what a takeover replays counts as group 1.
    committed: u64,
    checkpointed: u64,
    dirty_since: Option<Instant>,
    records_since_checkpoint: u64,
    records_since_purge: u64,
    moved_at: Instant,
    idle_look_at: Instant,
    freed: broadcast::Receiver<freed::Name>,
    /// Of those heard, the ones that the workspace has not been told.
    unheard: Vec<freed::Name>,
    /// Groups in succession that others were faster than.
    conflicts: u32,
    /// Business ids of slices before this one are purged; see [`Dedupe`](crate::model::dedupe::Dedupe).
    ids_purged: Option<u64>,
    /// Hands on what is for streams beside the ledger.
    relay: Option<Relay>,
}

type RunResult = Result<(Box<Workspace>, Ended), End>;

struct Running {
    since: Instant,
    result: BoxFuture<'static, RunResult>,
}

/// A submission under way.
struct Flight {
    since: Instant,
    reply: oneshot::Receiver<Settlement>,
    reached: Reached,
    nonce: u64,
    events: u64,
    dead_letters: u64,
    duplicates: u64,
    keys: Vec<KeyDelta>,
    watermark: Option<Watermark>,
    /// Whether it may be refused for what others have changed, and how to take it back then.
    shares: bool,
    undo: Option<Undo>,
}

/// Where the partition is once a submission is committed.
struct Reached {
    /// Number of the group.
    number: u64,
    positions: Vec<Position>,
    clock: u64,
    timer_generation: u64,
    parked: Vec<ParkedEvent>,
}

/// A checkpoint under way.
struct Flushing {
    dirty: Arc<Dirty>,
    number: u64,
    record: Mark,
    /// The partition's clock at `record`.
    clock: u64,
    result: BoxFuture<'static, Result<u64, checkpoint::Error>>,
}

enum Happened {
    Chunk(Option<Chunk>),
    Ran(RunResult),
    Settled(Result<Settlement, oneshot::error::RecvError>),
    Checkpointed(Result<u64, checkpoint::Error>),
    Freed(freed::Name),
    Version,
    Deadline,
    Leave,
}

impl<'a> Term<'a> {
    /// A term whose groups begin small if the server found the last one too large.
    pub fn new(
        lane: &'a mut Lane,
        tenure: Tenure,
        group_events_max: u64,
        untakeable: Option<Untakeable>,
    ) -> Term<'a> {
        let (context, partition) = (lane.context.clone(), lane.partition);
        let workspace = Workspace::new(&tenure, group_events_max, untakeable);
        lane.ask(&tenure.positions);
        let now = Instant::now();
        context
            .lane(partition)
            .record
            .store(tenure.record.record, Ordering::Relaxed);
        Term {
            partition,
            workspace: Some(Box::new(workspace)),
            running: None,
            flight: None,
            flushing: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            workspace_bytes: 0,
            workspace_events: 0,
            accepted: tenure.positions.clone(),
            handed: tenure.positions.clone(),
            load_first: false,
            shed: false,
            retry_at: None,
            held: false,
            switching: false,
            committed: 1,
            checkpointed: 0,
            dirty_since: (!tenure.dirty.is_empty()).then_some(now),
            records_since_checkpoint: 0,
            records_since_purge: 0,
            moved_at: now,
            idle_look_at: now + IDLE_LOOK,
            freed: context.freed.subscribe(),
            unheard: Vec::new(),
            conflicts: 0,
            ids_purged: None,
            relay: Relay::start(&context, partition),
            context,
            tenure,
            lane,
        }
    }

    /// Works until the term ends. Also returns what is still on an execution
    /// thread: nothing else of the partition should be given to one before that is back.
    pub async fn run(mut self) -> (End, Option<BoxFuture<'static, ()>>) {
        let end = self.work().await;
        let left = self.running.take();
        (end, left.map(|running| running.result.map(drop).boxed()))
    }

    async fn work(&mut self) -> End {
        loop {
            let leaving = self.lane.leaving();
            if let Err(end) = self.advance(leaving).await {
                return end;
            }
            if leaving && self.running.is_none() && self.flight.is_none() {
                return End::Released;
            }
            self.shed_if_slow();
            self.show_waiting();
            let step = match self.next(leaving).await {
                Happened::Chunk(Some(chunk)) => {
                    self.accept(chunk);
                    Ok(())
                }
                Happened::Chunk(None) => Err(End::Restart("the sources' readers ended".into())),
                Happened::Ran(result) => result.and_then(|(workspace, ended)| self.ran(workspace, ended)),
                Happened::Settled(settlement) => self.settled(settlement),
                Happened::Checkpointed(result) => self.flushed(result),
                Happened::Freed(name) => {
                    self.heard(name);
                    Ok(())
                }
                Happened::Version => {
                    self.switching = true;
                    Ok(())
                }
                Happened::Deadline | Happened::Leave => Ok(()),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn next(&mut self, leaving: bool) -> Happened {
        let room = self.waiting_bytes() < self.context.budget.waiting();
        let deadline = tokio::time::Instant::from_std(self.deadline());
        let mut owners = self.lane.ownership.watcher();
        tokio::select! {
            biased;
            settled = async { (&mut self.flight.as_mut().expect("guarded").reply).await }, if self.flight.is_some() => Happened::Settled(settled),
            ran = async { (&mut self.running.as_mut().expect("guarded").result).await }, if self.running.is_some() => {
                self.running = None;
                Happened::Ran(ran)
            }
            flushed = async { (&mut self.flushing.as_mut().expect("guarded").result).await }, if self.flushing.is_some() => Happened::Checkpointed(flushed),
            chunk = self.lane.chunks.recv(), if room || self.shed => Happened::Chunk(chunk),
            _ = self.lane.drain.wait_for(|drain| *drain), if !leaving => Happened::Leave,
            () = owners.changed(), if !leaving => Happened::Leave,
            freed = self.freed.recv(), if self.shares() => Happened::Freed(freed.unwrap_or(None)),
            Ok(()) = self.lane.versions.changed() => Happened::Version,
            () = tokio::time::sleep_until(deadline) => Happened::Deadline,
        }
    }

    /// When something is to be done that nothing else wakes this lane for.
    fn deadline(&self) -> Instant {
        let long_run = self
            .running
            .as_ref()
            .map(|r| r.since + LONG_RUN)
            .filter(|at| *at > Instant::now());
        let checkpoint = self
            .dirty_since
            .filter(|_| self.flushing.is_none())
            .map(|since| since + CHECKPOINT_AFTER);
        [
            self.retry_at.filter(|_| self.workspace.is_some()),
            long_run,
            checkpoint,
            self.lock_expiry(),
        ]
        .into_iter()
        .flatten()
        .fold(self.idle_look_at, Instant::min)
    }

    /// Starts everything that can be started.
    async fn advance(&mut self, leaving: bool) -> Result<(), End> {
        let now = Instant::now();
        if self.flight.is_none() && self.workspace.as_ref().is_some_and(|w| !w.group.is_empty()) {
            self.submit(Kind::Commit).await;
        }
        self.switch_if_due();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            match self.held {
                // What is said of it holds until it is tried.
                true => self.look_at_the_one_before().await?,
                false => self.lane.show(State::Running, None),
            }
        }
        self.wake_parked();
        if !leaving && !self.switching && self.retry_at.is_none() {
            self.start_run();
        }
        self.ask_again_if_shed();
        self.start_checkpoint(now);
        if now >= self.idle_look_at {
            self.idle_look_at = now + IDLE_LOOK;
            self.move_if_idle(now).await?;
        }
        Ok(())
    }

    fn waiting_bytes(&self) -> usize {
        self.pending_bytes + self.workspace_bytes
    }

    fn show_waiting(&self) {
        let in_flight = self.flight.as_ref().map_or(0, |f| f.events);
        let executed = self.workspace.as_ref().map_or(0, |w| w.group.events);
        let waiting = (self.pending.len() + self.workspace_events) as u64 + executed + in_flight;
        self.context.lane(self.partition).set_waiting(waiting);
    }

    // ---- locks --------------------------------------------------------------

    fn shares(&self) -> bool {
        self.context.program.shares()
    }

    fn heard(&mut self, name: freed::Name) {
        if name.is_none() || self.unheard.len() >= FREED_MAX {
            self.unheard.clear();
            self.unheard.push(None);
        } else {
            self.unheard.push(name);
        }
    }

    /// When a lock expires that an event waits for.
    fn lock_expiry(&self) -> Option<Instant> {
        let workspace = self.workspace.as_ref().filter(|_| self.retry_at.is_none())?;
        let expiry = workspace.parked.first_expiry()?;
        let now = self.context.shared.now(workspace.clock);
        Some(Instant::now() + Duration::from_nanos(expiry.saturating_sub(now)))
    }

    /// Events whose locks are free, or have expired, are ready to be tried.
    fn wake_parked(&mut self) {
        let Some(workspace) = self.workspace.as_mut().filter(|w| !w.parked.is_empty()) else {
            return;
        };
        for name in self.unheard.drain(..) {
            workspace.parked.wake(name.as_deref());
        }
        let now = self.context.shared.now(workspace.clock);
        workspace.parked.wake_expired(now);
    }

    // ---- accept -------------------------------------------------------------

    fn accept(&mut self, chunk: Chunk) {
        if chunk.epoch != self.lane.epoch || self.shed {
            return;
        }
        let accepted = &mut self.accepted[usize::from(chunk.source)];
        for queued in chunk.events {
            if queued.event.offset > accepted.sequence {
                queued.moves(accepted);
                self.pending_bytes += queued.bytes;
                self.pending.push_back(queued);
            }
        }
    }

    /// A lane that waits or computes for long gives back its room instead of
    /// stopping the reader for all partitions.
    fn shed_if_slow(&mut self) {
        // After a conflict the pause is shorter than reading again takes.
        let slow = (self.retry_at.is_some() && self.conflicts == 0)
            || self
                .running
                .as_ref()
                .is_some_and(|r| r.since.elapsed() > LONG_RUN);
        if slow && !self.shed && self.waiting_bytes() >= self.context.budget.waiting() {
            self.shed = true;
            self.pending.clear();
            self.pending_bytes = 0;
            self.accepted.clone_from(&self.handed);
        }
    }

    fn ask_again_if_shed(&mut self) {
        if self.shed && self.retry_at.is_none() && self.waiting_bytes() <= self.context.budget.waiting() / 2 {
            self.shed = false;
            let positions = self.accepted.clone();
            self.lane.ask(&positions);
        }
    }

    // ---- version ------------------------------------------------------------

    /// Goes over to the version that is to execute, once the group that the one before
    /// it has filled is on its way. Records say which version wrote them; if that group
    /// is not committed, the next term executes its events again, with the new one.
    fn switch_if_due(&mut self) {
        let Some(workspace) = self.workspace.as_mut() else {
            return;
        };
        if !self.switching || !workspace.group.is_empty() {
            return;
        }
        self.switching = false;
        self.lane.take_version();
        self.context = self.lane.context.clone();
        // One that is at work goes on: entries say themselves where they are to go.
        self.relay = self
            .relay
            .take()
            .or_else(|| Relay::start(&self.context, self.partition));
        workspace.instance = None;
        // What the old code could not do the new one may try at once.
        if self.retry_at.take().is_some() {
            self.lane.show(State::Running, None);
            workspace
                .events
                .front_mut()
                .into_iter()
                .for_each(|first| first.attempts = 0);
        }
    }

    // ---- execute ------------------------------------------------------------

    fn start_run(&mut self) {
        let too_much_pinned = |cells: usize| cells > 2 * self.context.budget.cells();
        let Some(workspace) = self.workspace.as_ref() else {
            return;
        };
        let nothing =
            workspace.events.is_empty() && self.pending.is_empty() && workspace.parked.ready().is_none();
        // What shares something is committed before anything is executed on top of it.
        if nothing
            || self.flight.as_ref().is_some_and(|flight| flight.shares)
            || workspace.full()
            || (too_much_pinned(workspace.cells.bytes())
                && (self.flushing.is_some() || self.flight.is_some()))
        {
            return;
        }
        let Some(mut workspace) = self.workspace.take() else {
            return;
        };
        for queued in self.pending.drain(..) {
            queued.moves(&mut self.handed[usize::from(queued.event.source)]);
            workspace.waiting_bytes += queued.bytes;
            workspace.events.push_back(queued);
        }
        self.pending_bytes = 0;
        self.workspace_bytes = workspace.waiting_bytes;
        self.workspace_events = workspace.events.len();
        let missing = match std::mem::take(&mut self.load_first) {
            true => missing_keys(
                &workspace.events,
                &workspace.parked,
                &workspace.cells,
                LOAD_KEYS_MAX,
            ),
            false => Vec::new(),
        };
        let overlays = missing
            .iter()
            .filter_map(|key| Some((key.clone(), self.uncheckpointed(key)?)))
            .collect();
        let (context, partition, at_least) = (self.context.clone(), self.partition, self.tenure.meta);
        let result = async move {
            if !missing.is_empty() {
                fill(&context, partition, &mut workspace, missing, overlays, at_least).await?;
            }
            let executor = context.executor().clone();
            let ran = executor.run(move || {
                let started = Instant::now();
                let before = workspace.group.events;
                let ended = workspace.run(&context, partition);
                context
                    .metrics
                    .executed(workspace.group.events - before, started.elapsed());
                (workspace, ended)
            });
            ran.await.map_err(|_| {
                End::Broken(
                    "a host invariant broke while an event was executed; see the log, and report it".into(),
                )
            })
        };
        self.running = Some(Running {
            since: Instant::now(),
            result: result.boxed(),
        });
    }

    /// What is committed of a key and may not be in the bucket yet, and the
    /// number of the group that pins it.
    fn uncheckpointed(&self, key: &Arc<str>) -> Option<(Vec<DirtyKey>, u64)> {
        let flushing = self
            .flushing
            .as_ref()
            .and_then(|f| Some((f.dirty.get(key)?, f.number)));
        let dirty = self.tenure.dirty.get(key).map(|dirty| (dirty, self.committed));
        let number = dirty.or(flushing)?.1;
        Some((
            flushing
                .into_iter()
                .chain(dirty)
                .map(|(d, _)| d.clone())
                .collect(),
            number,
        ))
    }

    fn ran(&mut self, mut workspace: Box<Workspace>, ended: Ended) -> Result<(), End> {
        workspace
            .cells
            .shrink(self.context.budget.cells(), self.checkpointed);
        self.context
            .metrics
            .cache(self.partition, workspace.cells.bytes());
        self.workspace_bytes = workspace.waiting_bytes;
        self.workspace_events = workspace.events.len();
        self.load_first = ended == Ended::Missing;
        self.workspace = Some(workspace);
        if std::mem::take(&mut self.held) && !matches!(ended, Ended::Held(_)) {
            self.lane.show(State::Running, None);
        }
        match ended {
            Ended::Retry {
                event,
                attempts,
                reason,
            } => {
                let step = self.context.manifest.retry.wait_ms(attempts);
                self.retry_at = Some(Instant::now() + Duration::from_millis(step));
                let reason = format!("event {event} failed {attempts} times, last with {reason}");
                self.lane.show(State::Retrying, Some(reason));
            }
            Ended::Held(held) => self.hold(held),
            Ended::Unrepeatable(reason) => return Err(End::Stopped(reason)),
            Ended::Waiting | Ended::Missing | Ended::Full => {}
        }
        Ok(())
    }
}

/// Loads `missing` keys and puts what is not in the bucket yet over them. Stops
/// where the memory for cells is used up: the rest is loaded when it is needed.
async fn fill(
    context: &HandlerContext,
    partition: u32,
    workspace: &mut Workspace,
    missing: Vec<Arc<str>>,
    overlays: HashMap<Arc<str>, (Vec<DirtyKey>, u64)>,
    at_least: u64,
) -> Result<(), End> {
    for some in missing.chunks(LOAD_KEYS_AT_ONCE) {
        let loaded = load::load(&*context.log, &context.names, partition, some, at_least)
            .await
            .map_err(|error| End::Restart(format!("state could not be loaded: {error}")))?;
        for (key, mut state) in loaded {
            let mut written = 0;
            if let Some((changes, number)) = overlays.get(&key) {
                changes.iter().for_each(|dirty| load::overlay(&mut state, dirty));
                written = *number;
            }
            workspace.cells.insert(key, state, written);
        }
        if workspace.cells.bytes() > context.budget.cells() {
            break;
        }
    }
    Ok(())
}
