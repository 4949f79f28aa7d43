//! Runs events of one partition through the handler, in order, into a group.
//!
//! An event that succeeds is merged into the group. One that fails for good is
//! dead-lettered in the group: its position moves like any other's. One that is to
//! be tried again ends the run; what came before it can be committed.
//!
//! **Invariant**: offsets of a source strictly rise. A broken one is ours, and
//! asserts before anything of it is committed (PROTOCOL rule 4).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, info};

use super::context::HandlerContext;
use super::parked::Parked;
use super::quiet::{Held, Quiet};
use super::tenure::Tenure;
use super::undo::Undo;
use crate::commit::group::{Group, Origin};
use crate::deployment::manifest::{Dedupe, InstanceMode};
use crate::effects::Effects;
use crate::effects::dead_letter::{self, Body, DeadLetter};
use crate::handler::{Call, Fault, Instance};
use crate::log::Append;
use crate::model::event::{Event, FiredTimer};
use crate::model::limits::{BATCH_HEADER_BYTES, BATCH_MESSAGES_MAX};
use crate::model::position::Position;
use crate::model::trace::Trace;
use crate::source::decode::Queued;
use crate::state::KeyState;
use crate::state::cells::Cells;

/// Events of one group: what the design measured as enough to hide the cost of
/// a record.
pub const GROUP_EVENTS_MAX: u64 = 2_000;

/// Messages of a group before it takes no further event: two such groups share
/// a batch of a thousand.
const GROUP_MESSAGES_FULL: usize = 490;

/// Bytes of a group's messages before it takes no further event.
const GROUP_MESSAGE_BYTES_FULL: usize = 2 * 1024 * 1024;

/// Bytes of a group's delta before it takes no further event.
const GROUP_DELTA_BYTES_FULL: usize = 256 * 1024;

/// Bytes of a record beside its delta: positions, starts, digest.
const RECORD_OVERHEAD_BYTES: usize = 16 * 1024;

/// How long one run may take before it hands back what it has, so that a slow
/// handler's events are committed as they are done.
const RUN_FOR: Duration = Duration::from_millis(20);

/// The part of a lane that travels to an execution thread and back.
pub struct Workspace {
    /// `None` after a fault or a discard: the next event makes a new one.
    pub instance: Option<Instance>,
    pub cells: Cells,
    /// The partition's clock, Unix nanoseconds.
    pub clock: u64,
    pub timer_generation: u64,
    /// Per source: highest offset executed, and when it was stored.
    pub positions: Vec<Position>,
    /// Events that wait, the next one first.
    pub events: VecDeque<Queued>,
    /// Bytes of `events`.
    pub waiting_bytes: usize,
    /// The group that is being filled.
    pub group: Group,
    /// Its number; keys written are pinned until a checkpoint of that group.
    pub number: u64,
    /// The state bucket had nothing of the partition when it was taken over.
    pub blank: bool,
    /// Fewer than [`GROUP_EVENTS_MAX`] after the server found a batch too large;
    /// grows again with every commit.
    pub group_events_max: u64,
    /// The group takes nothing more: the next event's effects do not fit it.
    pub sealed: bool,
    /// An event whose commit the server will never take.
    pub untakeable: Option<Untakeable>,
    /// Events that wait for locks.
    pub parked: Parked,
    /// What is handled without emitting anything.
    pub quiet: Option<Quiet>,
    /// What the group that is being filled has changed, where it may have to be taken back.
    pub undo: Option<Undo>,
}

/// An event that is dead-lettered instead of handled, since the server does not
/// take what it makes its handler do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untakeable {
    pub source: usize,
    pub offset: u64,
    /// What the server said.
    pub reason: String,
}

/// Why a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// No event is left.
    Waiting,
    /// The next event's key is not in memory.
    Missing,
    /// The group takes no more, or time is up.
    Full,
    /// An event is to be tried again after a while.
    Retry {
        event: String,
        attempts: u32,
        reason: String,
    },
    /// The next event waits for the generation that is still running.
    Held(Held),
    /// The handler does what cannot be done over again.
    Unrepeatable(String),
}

impl Workspace {
    /// The workspace of a partition just taken over: no instance and no key in memory.
    pub fn new(tenure: &Tenure, group_events_max: u64, untakeable: Option<Untakeable>) -> Workspace {
        let mut parked = Parked::default();
        tenure.parked.iter().cloned().for_each(|event| parked.push(event));
        Workspace {
            instance: None,
            cells: Cells::default(),
            clock: tenure.clock,
            timer_generation: tenure.timer_generation,
            positions: tenure.positions.clone(),
            blank: tenure.blank,
            events: VecDeque::new(),
            waiting_bytes: 0,
            group: Group::default(),
            // Number 1 stands for what was committed before the takeover.
            number: 2,
            group_events_max,
            sealed: false,
            untakeable,
            parked,
            quiet: tenure.quiet.clone(),
            undo: None,
        }
    }

    /// Whether the group takes another event.
    pub fn full(&self) -> bool {
        self.sealed
            || self.group.events >= self.group_events_max
            || self.group.messages() >= GROUP_MESSAGES_FULL
            || self.group.message_bytes >= GROUP_MESSAGE_BYTES_FULL
            || self.group.delta_bytes >= GROUP_DELTA_BYTES_FULL
    }

    /// The group as it is, to be committed; an empty one takes its place.
    pub fn take_group(&mut self) -> (Group, u64, Option<Undo>) {
        let number = self.number;
        self.number += 1;
        self.sealed = false;
        (std::mem::take(&mut self.group), number, self.undo.take())
    }

    /// Executes waiting events until the group is full or something has to be
    /// waited for. Those that were parked and need wait no longer come first.
    pub fn run(&mut self, context: &HandlerContext, partition: u32) -> Ended {
        let until = Instant::now() + RUN_FOR;
        // What is committed is not sent again after a crash: each is handed over as soon as it is done.
        let one_by_one = context.program.is_activity();
        loop {
            if self.full() || Instant::now() >= until {
                return Ended::Full;
            }
            if context.program.shares() && self.undo.is_none() {
                self.undo = Some(Undo::new(self));
            }
            let ended = match self.parked.ready().cloned() {
                Some(queued) => self.run_parked(context, partition, queued),
                None => match self.events.pop_front() {
                    Some(queued) => self.run_next(context, partition, queued),
                    None => return Ended::Waiting,
                },
            };
            if let Some(ended) = ended {
                return ended;
            }
            if one_by_one {
                return Ended::Full;
            }
        }
    }

    /// Runs the next event that waits.
    fn run_next(&mut self, context: &HandlerContext, partition: u32, mut queued: Queued) -> Option<Ended> {
        self.assert_rises(&queued.event, partition);
        if let Some(held) = self.held(context, &queued.event) {
            self.events.push_front(queued);
            return Some(Ended::Held(held));
        }
        queued.quiet |= self.covered(context, &queued.event);
        let key = &queued.event.key;
        let step = match queued.refused.is_none() && self.parked.holds_up(key) {
            // Parked, it would be forgotten that it is quiet.
            true if self.parked.has_room(queued.bytes) && !queued.quiet => Step::Behind,
            true => Step::Retry(format!("waits behind {} parked events", self.parked.len())),
            false => self.one(context, partition, &mut queued),
        };
        let done = |workspace: &mut Workspace, queued: &Queued| {
            workspace.waiting_bytes -= queued.bytes;
            queued.moves(&mut workspace.positions[usize::from(queued.event.source)]);
            if let Some(undo) = &mut workspace.undo {
                undo.taken(queued);
            }
        };
        let ended = match step {
            Step::Done => {
                done(self, &queued);
                self.group.events += 1;
                return None;
            }
            Step::Behind => {
                done(self, &queued);
                self.group.park();
                self.parked.push(queued);
                return None;
            }
            Step::Locked { lock, until } if self.parked.has_room(queued.bytes) => {
                done(self, &queued);
                self.group.park();
                self.parked.park(queued, lock, until);
                return None;
            }
            Step::Locked { lock, .. } => retry(
                &queued,
                format!("waits for lock {lock:?} with {} parked events", self.parked.len()),
            ),
            Step::Missing => Ended::Missing,
            Step::Postponed => Ended::Full,
            Step::Retry(reason) => retry(&queued, reason),
            Step::Unrepeatable(reason) => Ended::Unrepeatable(reason),
        };
        self.events.push_front(queued);
        Some(ended)
    }

    /// Tries a parked event again.
    fn run_parked(&mut self, context: &HandlerContext, partition: u32, mut queued: Queued) -> Option<Ended> {
        let key = queued.event.key.clone();
        match self.one(context, partition, &mut queued) {
            Step::Done => {
                self.parked.handled(&key);
                self.group.events += 1;
                None
            }
            Step::Locked { lock, until } => {
                self.parked.locked(&key, lock, until);
                None
            }
            Step::Missing => Some(Ended::Missing),
            Step::Postponed => Some(Ended::Full),
            Step::Retry(reason) => {
                let ended = retry(&queued, reason);
                self.parked.again(queued);
                Some(ended)
            }
            Step::Behind => unreachable!("said of events that were not parked"),
            Step::Unrepeatable(_) => unreachable!("nothing is parked that was handled before"),
        }
    }

    fn assert_rises(&self, event: &Event, partition: u32) {
        let at = self.positions[usize::from(event.source)].sequence;
        assert!(
            event.offset > at,
            "partition {partition}: event {} at offset {} comes after offset {at} of source {}",
            event.id(),
            event.offset,
            event.source
        );
    }

    fn one(&mut self, context: &HandlerContext, partition: u32, queued: &mut Queued) -> Step {
        if let Some(reason) = queued.refused.clone() {
            return self.dead_letter(context, partition, queued, "input", reason, None);
        }
        let event = &queued.event;
        let Some(state) = self.state_of(&event.key) else {
            return Step::Missing;
        };
        if let Some(undo) = &mut self.undo {
            undo.key(&event.key, &state, self.cells.written(&event.key));
        }
        if let Some(id) = &queued.id {
            let Some(seen) = self.state_of(id) else {
                return Step::Missing;
            };
            if let Some(undo) = &mut self.undo {
                undo.key(id, &seen, self.cells.written(id));
            }
            if context
                .manifest
                .dedupe
                .as_ref()
                .is_some_and(|dedupe| seen_within_window(dedupe, &seen, event))
            {
                debug!(event = event.id(), "repeats one that was handled; ignored");
                self.group.duplicates += 1;
                return Step::Done;
            }
        }
        if is_stale(event, &state) {
            debug!(key = &*event.key, "a timer fired that was replaced or cancelled");
            return Step::Done;
        }
        if let Some(reason) = self.take_untakeable(event) {
            drop(state);
            self.consume_timer(event);
            let reason = format!("the server does not take what the handler did with it: {reason}");
            return self.dead_letter(context, partition, queued, "violation", reason, None);
        }
        let clock = self.clock.max(event.time);
        let outcome = match self.invoke(context, event, clock, &state) {
            Ok(effects) if queued.quiet => hush(effects),
            Err(Fault::Locked { .. }) if queued.quiet => Err(unrepeatable("waits for a lock")),
            outcome => outcome,
        };
        let fault = match outcome {
            Ok(effects)
                if !effects.emits.is_empty() && Trace::hops_of(event) >= context.manifest.limits.hops =>
            {
                too_many_hops(context.manifest.limits.hops)
            }
            Ok(effects) => match self.fit(context, &effects) {
                Fit::Now => {
                    // So that the key's state is changed in place.
                    drop(state);
                    self.clock = clock;
                    // Others may change what it shares: the sooner it is committed, the better.
                    self.sealed |= !effects.shared.is_empty();
                    self.merge(context, partition, event, effects);
                    self.remember(context, queued);
                    return Step::Done;
                }
                Fit::NextGroup => {
                    // The instance remembers an event that will come again.
                    self.instance = None;
                    self.sealed = true;
                    return Step::Postponed;
                }
                Fit::Never(fault) => fault,
            },
            Err(fault) => fault,
        };
        self.failed(context, partition, queued, fault)
    }

    /// Why an event has to wait for the generation before.
    fn held(&self, context: &HandlerContext, event: &Event) -> Option<Held> {
        self.quiet.as_ref()?.holds(event, source_name(context, event))
    }

    /// Whether the generation before has handled an event.
    fn covered(&self, context: &HandlerContext, event: &Event) -> bool {
        let quiet = self.quiet.as_ref();
        quiet.is_some_and(|quiet| quiet.covers(event, source_name(context, event)))
    }

    fn take_untakeable(&mut self, event: &Event) -> Option<String> {
        let is_it = |u: &mut Untakeable| u.source == usize::from(event.source) && u.offset == event.offset;
        Some(self.untakeable.take_if(is_it)?.reason)
    }

    /// The state of a key, `None` if it has to be loaded. A partition that begins
    /// here, and of which nothing was evicted, has all its keys in memory.
    fn state_of(&mut self, key: &Arc<str>) -> Option<Arc<KeyState>> {
        if let Some(state) = self.cells.get(key) {
            return Some(state.clone());
        }
        if !self.blank || self.cells.evicted() > 0 {
            return None;
        }
        self.cells.insert(key.clone(), KeyState::default(), 0);
        self.cells.get(key).cloned()
    }

    fn invoke(
        &mut self,
        context: &HandlerContext,
        event: &Event,
        clock: u64,
        state: &Arc<KeyState>,
    ) -> Result<Effects, Fault> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None if context.program.shares() => {
                context.program.instantiate_sharing(context.shared.clone())?
            }
            None => context.program.instantiate()?,
        };
        let mut source = usize::from(event.source);
        if source == context.manifest.sources.len() {
            // One that is redriven comes from the ledger, and is to have the seed that it had at first.
            let first = context.source_names().position(|name| name == &*event.stream);
            source = first.unwrap_or(source);
        }
        let source_created = self.positions[source].created;
        let outcome = instance.handle(
            event,
            &Call {
                clock,
                source_created,
            },
            state,
        );
        if outcome.is_ok() && context.manifest.instance == InstanceMode::Reused {
            self.instance = Some(instance);
        }
        outcome
    }

    /// Whether the group still takes these effects: its delta has to fit one
    /// record, its messages one batch.
    fn fit(&self, context: &HandlerContext, effects: &Effects) -> Fit {
        let cells: usize = effects
            .cells
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, |v| v.len()) + 8)
            .sum();
        let record_max = context
            .log
            .max_payload()
            .saturating_sub(RECORD_OVERHEAD_BYTES + BATCH_HEADER_BYTES);
        // Room for the record, and for a dead letter that may follow.
        let messages =
            self.group.messages() + effects.emits.len() + effects.timers.len() + effects.shared.len() + 3;
        match (
            self.group.delta_bytes + cells <= record_max,
            self.group.is_empty(),
        ) {
            (true, _) if messages <= BATCH_MESSAGES_MAX => Fit::Now,
            (_, false) => Fit::NextGroup,
            (true, true) => Fit::Never(Fault::Violation(format!(
                "{messages} messages do not fit one batch"
            ))),
            (false, true) => Fit::Never(Fault::Violation(format!(
                "the {cells} bytes of cells that this event writes do not fit one commit record of {record_max} bytes"
            ))),
        }
    }

    fn merge(&mut self, context: &HandlerContext, partition: u32, event: &Event, effects: Effects) {
        self.consume_timer(event);
        let (group, generation) = (&mut self.group, &mut self.timer_generation);
        let origin = match effects.emits.is_empty() && effects.timers.is_empty() {
            true => Origin::default(),
            false => Origin {
                trace: Trace::of(event),
                outbox: match context.manifest.outbox.is_empty() {
                    true => String::new(),
                    false => context.names.outbox(partition),
                },
                cause: event.id(),
                by: format!("{}:{partition}:{}", context.manifest.name, context.revision),
            },
        };
        let mut apply = |effects, state: &mut KeyState| {
            group.apply(
                &event.key,
                &origin,
                effects,
                state,
                generation,
                context.event_ttl_s,
            );
        };
        if effects.cells.is_empty() && effects.timers.is_empty() {
            // The key is not written, and need not be kept in memory.
            apply(effects, &mut KeyState::default());
        } else {
            self.cells
                .update(&event.key, self.number, |state| apply(effects, state));
        }
    }

    /// The event failed: again later, or, if that is of no use, a dead letter.
    fn failed(
        &mut self,
        context: &HandlerContext,
        partition: u32,
        queued: &mut Queued,
        fault: Fault,
    ) -> Step {
        self.instance = None;
        let fault = match fault {
            Fault::Host(reason) => return Step::Retry(reason),
            Fault::Locked { lock, until } => return Step::Locked { lock, until },
            Fault::Unrepeatable(what) if self.quiet.as_ref().is_some_and(Quiet::beside) => {
                return Step::Unrepeatable(format!("event {} {what}", queued.event.id()));
            }
            fault => fault,
        };
        // Somebody has to decide whether it is done as if for the first time.
        queued.quiet &= !matches!(fault, Fault::Unrepeatable(_));
        queued.attempts += 1;
        context.counters.errors.fetch_add(1, Ordering::Relaxed);
        let (kind, reason) = (fault.kind(), fault.reason());
        info!(
            handler = context.manifest.name,
            event = queued.event.id(),
            attempt = queued.attempts,
            kind,
            reason,
            "handler failed"
        );
        if fault.permanent() || queued.attempts >= context.manifest.retry.attempts {
            let backtrace = fault.backtrace().map(String::from);
            self.consume_timer(&queued.event);
            return self.dead_letter(context, partition, queued, kind, reason, backtrace);
        }
        context.metrics.retried();
        Step::Retry(format!("{kind}: {reason}"))
    }

    /// A live timer that was handled, or given up, is live no more.
    fn consume_timer(&mut self, event: &Event) {
        let Some(timer) = event
            .timer
            .as_ref()
            .filter(|t| t.generation != FiredTimer::REDRIVEN)
        else {
            return;
        };
        let group = &mut self.group;
        self.cells.update(&event.key, self.number, |state| {
            group.timer_fired(&event.key, &timer.name, state)
        });
    }

    fn dead_letter(
        &mut self,
        context: &HandlerContext,
        partition: u32,
        queued: &Queued,
        kind: &str,
        reason: String,
        backtrace: Option<String>,
    ) -> Step {
        let event = &queued.event;
        let id = event.id();
        let body_subject = context.names.dead_letter_body(partition, &id);
        let fits = event.data.len() + body_subject.len() + BATCH_HEADER_BYTES <= context.log.max_payload();
        let (headers, headers_dropped) = dead_letter::bounded_headers(&event.headers);
        let letter = DeadLetter {
            stream: event.stream.to_string(),
            sequence: event.sequence,
            subject: event.subject.to_string(),
            key: event.key.to_string(),
            time: event.time,
            timer: event.timer.as_ref().map(|t| t.name.to_string()),
            headers,
            headers_dropped,
            handler: context.manifest.name.clone(),
            handler_version: context.manifest.version.clone(),
            handler_digest: context.digest.clone(),
            partition,
            attempts: queued.attempts,
            kind: kind.into(),
            reason: dead_letter::bounded_text(reason),
            backtrace: backtrace.map(dead_letter::bounded_text),
            body: if fits { Body::Message } else { Body::Reference },
            quiet: queued.quiet,
            id: id.clone(),
        };
        let data = serde_json::to_vec(&letter).expect("a dead letter is plain data");
        let subject = context.names.dead_letter(partition, &id);
        self.group.push(Append {
            subject,
            data: data.into(),
            ..Append::default()
        });
        if fits {
            self.group.push(Append {
                subject: body_subject,
                data: event.data.clone(),
                ..Append::default()
            });
        }
        self.group.dead_letters += 1;
        // What repeats it is no second try: redriving it is.
        self.remember(context, queued);
        Step::Done
    }

    /// Keeps an event's business id, so that the ones that repeat it are known.
    fn remember(&mut self, context: &HandlerContext, queued: &Queued) {
        let (Some(id), Some(dedupe)) = (&queued.id, &context.manifest.dedupe) else {
            return;
        };
        let cell: Box<str> = dedupe.cell(self.clock).into();
        let time = Bytes::from(queued.event.time.to_string());
        let group = &mut self.group;
        self.cells.update(id, self.number, |state| {
            // Of an id that was seen before the window, only the latest time counts.
            let mut cells: BTreeMap<_, _> = state.cells.keys().map(|name| (name.clone(), None)).collect();
            cells.insert(cell, Some(time));
            group.write_cells(id, cells, state);
        });
    }
}

/// Whether an event's business id was seen within the window.
fn seen_within_window(dedupe: &Dedupe, seen: &KeyState, event: &Event) -> bool {
    let times = seen.cells.values();
    let mut times = times.filter_map(|time| std::str::from_utf8(time).ok()?.parse().ok());
    times.any(|time| dedupe.repeats(time, event.time))
}

/// Whether a timer fired that was replaced or cancelled since.
pub fn is_stale(event: &Event, state: &KeyState) -> bool {
    let Some(timer) = event
        .timer
        .as_ref()
        .filter(|t| t.generation != FiredTimer::REDRIVEN)
    else {
        return false;
    };
    state
        .timers
        .get(&timer.name)
        .is_none_or(|live| live.generation != timer.generation)
}

/// The source that an event is from, as positions name it.
fn source_name<'a>(context: &'a HandlerContext, event: &Event) -> &'a str {
    let name = context.source_names().nth(usize::from(event.source));
    name.expect("events come from the sources of the handler")
}

/// Leaves of an event that is handled over again what it changes in its own key: what it
/// emits was emitted.
///
/// # Errors
/// It does something that others would see twice.
fn hush(mut effects: Effects) -> Result<Effects, Fault> {
    match &effects {
        effects if effects.timers.values().any(Option::is_some) => Err(unrepeatable("sets a timer")),
        effects if !effects.shared.is_empty() => Err(unrepeatable("uses shared cells or locks")),
        effects if effects.emits.iter().any(|emit| emit.stream.is_some()) => {
            Err(unrepeatable("writes to the outbox"))
        }
        _ => {
            effects.emits.clear();
            Ok(effects)
        }
    }
}

fn unrepeatable(what: &str) -> Fault {
    Fault::Unrepeatable(format!(
        "{what}, which cannot be done over again while the handler is rebuilt (docs/replay.md)"
    ))
}

/// Whether effects fit the group that is being filled.
enum Fit {
    Now,
    NextGroup,
    /// Not even a group of their own.
    Never(Fault),
}

/// What became of one event.
enum Step {
    Done,
    /// Its key has to be loaded first.
    Missing,
    /// Does not fit the group any more; it is the first of the next one.
    Postponed,
    Retry(String),
    /// Waits for a lock that another holds until then (Unix nanoseconds).
    Locked {
        lock: String,
        until: u64,
    },
    /// Waits behind a parked event of its key.
    Behind,
    /// It cannot be handled over again; nothing of it was done.
    Unrepeatable(String),
}

fn too_many_hops(limit: u32) -> Fault {
    Fault::Violation(format!(
        "the chain of events that this one belongs to has passed {limit} handlers, as many as it may (hops in [limits] \
         of handler.toml); if it is no loop, raise the limit"
    ))
}

fn retry(queued: &Queued, reason: String) -> Ended {
    Ended::Retry {
        event: queued.event.id(),
        attempts: queued.attempts.max(1),
        reason,
    }
}

/// Distinct keys of waiting events that are not in memory, in the order they
/// are needed, at most `max`.
pub fn missing_keys(events: &VecDeque<Queued>, parked: &Parked, cells: &Cells, max: usize) -> Vec<Arc<str>> {
    let mut seen = rustc_hash::FxHashSet::default();
    let mut missing = Vec::new();
    let next = parked.ready().into_iter().chain(events);
    for queued in next.take(GROUP_EVENTS_MAX as usize) {
        let key = &queued.event.key;
        let keys = [Some(key), queued.id.as_ref()].into_iter().flatten();
        for key in keys.filter(|_| queued.refused.is_none()) {
            if !cells.contains(key) && seen.insert(key.clone()) {
                missing.push(key.clone());
            }
        }
        if missing.len() >= max {
            break;
        }
    }
    missing
}
