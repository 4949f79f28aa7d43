//! Gives a handler the events of one key again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use bytes::Bytes;

use super::inputs::{Input, Inputs};
use super::own::Own;
use super::point::{Bound, Point};
use super::sources::{self, Begun};
use super::turns::Turns;
use crate::commit::record::Record;
use crate::deployment::artifacts::Artifacts;
use crate::deployment::plugins::Deployed;
use crate::deployment::registry::{Desired, Registered, Registry};
use crate::dispatch::context::source_names;
use crate::handler::{Answers, CodeCache};
use crate::log::Log;
use crate::model::event::FiredTimer;
use crate::model::key::partition;
use crate::model::pattern;
use crate::model::subjects::{HandlerNames, ledger_internal};
use crate::source::decode::{Decoded, Decoder, Queued};
use crate::stage::{Outcome, Setup, Stage};
use crate::state::query;

/// How much later than it is due a server may fire a timer, in nanoseconds: up to 0.6 s was seen (PROTOCOL rule 5).
const FIRES_LATE_NS: u64 = 1_000_000_000;

/// Timers that fire within one second of virtual time. A handler that sets one for a moment that has passed, or is
/// about to, whenever it fires, would never end.
const FIRES_AT_ONCE_MAX: usize = 10_000;
const AT_ONCE_NS: u64 = 1_000_000_000;

/// Why a handler cannot be given its events again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "handler {0} is an activity: what it was answered is nowhere kept, so its state cannot be folded from its events"
    )]
    Activity(String),
    #[error(
        "handler {handler} used shared cells or locks for key {key}: what others had written there is nowhere kept, so \
         the key's state cannot be folded from its events"
    )]
    Shares { handler: String, key: String },
    #[error(
        "timer {name} of key {key} fired {FIRES_AT_ONCE_MAX} times within a second, since it is set for a time that has \
         passed, or is about to: how often it fired by then is nowhere kept"
    )]
    Timers { key: String, name: String },
}

/// Which state is wanted.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub ledger: &'a str,
    pub handler: &'a str,
    pub key: &'a str,
    pub at: &'a Point,
}

/// What came of folding.
#[derive(Debug, Default)]
pub struct Folded {
    pub cells: BTreeMap<String, Bytes>,
    /// What the handler was given.
    pub events: u64,
    pub timers: u64,
    /// Of the deployment that it was done with.
    pub version: String,
    pub digest: String,
    pub revision: u64,
    /// Pairs of component and manifest that this handler was deployed with, as far as the registry remembers.
    pub versions: usize,
    /// Since when (Unix milliseconds) it is a generation that was rebuilt: before, another state was seen.
    pub rebuilt: Option<u64>,
    /// Events that failed for good here, and are not known to have failed in their time, with the reason.
    pub failed_here: Vec<(String, String)>,
    /// Events whose place among those of other sources is not known: they have the order of their times.
    pub tied: u64,
    /// Whether the ledger still has all that it ever had of the partition: timers fired when they really did, and what
    /// was redriven and what operators said is in it.
    pub whole: bool,
    /// Where it is not whole: redriven events and words of operators that are there, and not in the state.
    pub said: usize,
    /// Where it is not whole: timers that were due so shortly before an event, or the point, that it may have come first.
    pub close: u64,
    /// An event that the handler has not committed yet.
    pub ahead: Option<String>,
    /// Sources some of whose messages go by themselves.
    pub expiring: BTreeSet<String>,
}

/// Folds the events of a key up to a point. `progress` is told how many messages were read, of how many.
///
/// # Errors
/// An [`Error`], one of [`sources`](super::sources) or [`point`](super::point); the handler is not deployed, or its
/// component is not in the store; of the log.
pub async fn fold(
    log: &dyn Log,
    wanted: &Wanted<'_>,
    code_cache: CodeCache,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Folded> {
    let registry = Registry::of(log, wanted.ledger);
    let Registered { revision, deployment } = registry.deployed(wanted.handler).await?;
    let history = registry.history(wanted.handler).await?;
    let since_removal = history.iter().rev().map(|registered| &registered.deployment);
    let since_removal: Vec<_> = since_removal
        .take_while(|earlier| earlier.desired != Desired::Removed)
        .collect();
    let is_rebuilt = since_removal
        .iter()
        .any(|earlier| earlier.generation != deployment.generation);
    let this_one = since_removal
        .iter()
        .rfind(|earlier| earlier.generation == deployment.generation);
    let versions: BTreeSet<(&str, &str)> = since_removal
        .iter()
        .map(|earlier| (&*earlier.digest, &*earlier.manifest))
        .collect();
    let mut folded = Folded {
        version: deployment.version.clone(),
        digest: deployment.digest.clone(),
        revision,
        versions: versions.len(),
        rebuilt: this_one.filter(|_| is_rebuilt).map(|first| first.time_ms),
        ..Folded::default()
    };
    let names = HandlerNames::new(wanted.ledger, wanted.handler, deployment.generation);
    let manifest = deployment.manifest()?;
    let number = partition(wanted.key, manifest.partitions);
    let Some(record) = log.last(wanted.ledger, &names.record(number)).await? else {
        // Without any partition's record it is a mistake, which this says.
        query::partitions(log, &names).await?;
        return Ok(folded);
    };
    let record = Record::decode(&record)?;
    let begun = sources::begun(log, wanted.ledger, &manifest, &record, (number, wanted.key)).await?;
    let streams: Vec<String> = begun.iter().map(|source| source.stream.clone()).collect();
    let (bound, event) = wanted.at.bound(log, wanted.handler, &streams, now()).await?;

    let deployed = Deployed {
        wasm: Artifacts::of(log, wanted.ledger).get(&deployment.digest).await?,
        digest: deployment.digest,
        text: deployment.manifest,
        manifest,
    };
    let stage = stage(log, &names, (deployed, revision), &begun, code_cache).await?;
    let own = Own::read(log, &names, number, wanted.key, internal(&stage)).await?;
    let ledger = log.stream(wanted.ledger).await?;
    let mut inputs: Vec<Input> = Vec::new();
    for (source, decoder) in begun.iter().zip(stage.decoders()) {
        if let (Some(begin), false) = (source.begin, source.filters.is_empty()) {
            inputs.push(Input::new(
                decoder.clone(),
                source.filters.clone(),
                source.created,
                begin,
            ));
        }
    }
    if own.first.is_some() {
        let filters = vec![names.fired(number), names.redriven(number)];
        inputs.push(Input::new(internal(&stage).clone(), filters, ledger.created, 1));
    }
    let manifest = stage.version().manifest.clone();
    let sources: Vec<&str> = source_names(&manifest).collect();
    let turns = Turns::read(log, &names, number, &sources);
    // Of an event of another partition, this one's records say nothing.
    let (ours, is_of_key) = match (bound.event, event) {
        (Some((source, sequence)), Some(event)) => {
            let (decoded, subject) = (stage.decoders()[source].decode(event.clone()), &event.subject);
            let had = begun[source].begin.is_some_and(|begin| sequence >= begin);
            let is_read = begun[source]
                .filters
                .iter()
                .any(|filter| pattern::matches(filter, subject));
            match decoded {
                Decoded::Event(of, queued) if of == number => {
                    (true, had && is_read && *queued.event.key == *wanted.key)
                }
                _ => (false, false),
            }
        }
        _ => (false, false),
    };
    let inputs = Inputs::open(log, wanted.key, (bound, ours), inputs, turns, progress).await?;
    let folding = Folding {
        stage,
        bound,
        key: wanted.key,
        own: &own,
        record: &record,
        sources: &sources,
        at_once: (0, 0),
        folded: &mut folded,
    };
    let reached = folding.run(inputs).await?;
    if let (Some((source, sequence)), false, true) = (bound.event, reached, is_of_key) {
        bail!(
            "the server that was asked for stream {} does not have message {sequence} yet; repeat the command",
            sources[source]
        );
    }

    // Whatever went meanwhile may be what was to be read next.
    for source in &begun {
        source.check(wanted.handler, wanted.ledger, &log.stream(&source.stream).await?)?;
    }
    if folded.whole && !own.is_whole(log, &names).await? {
        bail!(
            "old records of handler {} were removed at this moment; repeat the command",
            wanted.handler
        );
    }
    Ok(folded)
}

fn internal(stage: &Stage) -> &Decoder {
    stage.decoders().last().expect("there is the internal source")
}

/// Unix nanoseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// The handler, as it is in this ledger and on this server.
async fn stage(
    log: &dyn Log,
    names: &HandlerNames,
    (deployed, revision): (Deployed, u64),
    begun: &[Begun],
    code_cache: CodeCache,
) -> anyhow::Result<Stage> {
    let ledger = log.stream(&names.ledger).await?;
    let mut ledger_subjects = ledger.settings.subjects;
    ledger_subjects.retain(|subject| *subject != ledger_internal(&names.ledger));
    let created = begun.iter().map(|source| source.created);
    let setup = Setup {
        names: names.clone(),
        ledger_subjects,
        created: created.chain([ledger.created]).collect(),
        revision,
        max_payload: log.max_payload(),
        answers: Arc::new(Answers::default()),
        code_cache,
        host: "history".into(),
    };
    let stage = Stage::new(deployed, setup, 0).await?;
    match stage.version().program.is_activity() {
        true => Err(Error::Activity(names.handler.clone()).into()),
        false => Ok(stage),
    }
}

struct Folding<'a> {
    stage: Stage,
    bound: Bound,
    key: &'a str,
    own: &'a Own,
    /// The partition's last.
    record: &'a Record,
    /// Names of all sources, the internal one last.
    sources: &'a [&'a str],
    /// A moment of virtual time, and how many timers fired then.
    at_once: (u64, usize),
    folded: &'a mut Folded,
}

impl Folding<'_> {
    /// Returns whether the event that is the bound was among them.
    async fn run(mut self, mut inputs: Inputs<'_>) -> anyhow::Result<bool> {
        self.folded.whole = self.own.first.is_some();
        let (mut last, mut reached) = (None, false);
        while let Some((partition, queued)) = inputs.next().await? {
            last = Some((usize::from(queued.event.source), queued.event.offset));
            reached |= last == self.bound.event;
            // A redriven event keeps its time; when it came is when it was stored.
            self.pass(queued.stored).await?;
            self.take(partition, queued).await?;
        }
        // What an event sets for a time that has passed fires after it.
        if last.is_none() || last != self.bound.event {
            self.pass(self.bound.time).await?;
        }
        if self.stage.has_shared() {
            let (handler, key) = (self.stage.version().manifest.name.clone(), self.key.to_owned());
            return Err(Error::Shares { handler, key }.into());
        }
        let state = self.stage.state(self.key);
        let cells = state.map(|state| {
            state
                .visible()
                .map(|(cell, value)| (cell.to_string(), value.clone()))
        });
        self.folded.cells = cells.map(Iterator::collect).unwrap_or_default();
        self.folded.expiring = inputs.expiring;
        self.folded.tied = inputs.tied;
        if !self.folded.whole {
            let said = self.own.said.iter();
            self.folded.said = said.filter(|time| **time <= self.bound.time).count();
        }
        Ok(reached)
    }

    /// Lets time pass; timers fire when they are due, where nobody knows better.
    async fn pass(&mut self, to: u64) -> anyhow::Result<()> {
        if self.folded.whole {
            return self.stage.pass(to).await;
        }
        while let Some(fired) = self.stage.next_fired(to, &BTreeSet::new()).await? {
            let due = self.stage.now();
            self.at_once = match self.at_once {
                (moment, times) if due.saturating_sub(moment) < AT_ONCE_NS => (moment, times + 1),
                _ => (due, 1),
            };
            if self.at_once.1 > FIRES_AT_ONCE_MAX {
                let (key, name) = (fired.key, fired.name);
                return Err(Error::Timers { key, name }.into());
            }
            if let Some(outcome) = self.stage.fire(fired).await? {
                self.folded.timers += 1;
                self.folded.close += u64::from(to.saturating_sub(due) < FIRES_LATE_NS);
                self.came_of_it(&outcome);
            }
        }
        self.stage.advance(to);
        Ok(())
    }

    /// Gives the handler an event.
    async fn take(&mut self, partition: u32, mut queued: Queued) -> anyhow::Result<()> {
        let (source, offset) = (usize::from(queued.event.source), queued.event.offset);
        let id = queued.event.id();
        let is_own = source + 1 == self.sources.len();
        let fired = queued.event.timer.as_mut();
        let fired = fired.filter(|timer| timer.generation != FiredTimer::REDRIVEN);
        // What was redriven, or said by an operator, has its turn now.
        let is_second = is_own && fired.is_none();
        if let Some(timer) = fired {
            // Generations count the timers of all keys. Which one this is says its name, and that it was due.
            let state = self.stage.state(self.key);
            let live = state.and_then(|state| state.timers.get(&timer.name));
            let Some(live) = live.filter(|live| live.due <= queued.stored) else {
                return Ok(()); // it was replaced or cancelled
            };
            timer.generation = live.generation;
        }
        let has_failed = match is_second {
            false => self.own.failed.contains(&id),
            true => self.own.failed_again.contains(&offset),
        };
        if has_failed {
            queued.refused = Some("it failed when it came to its turn".into());
        }
        let is_timer = queued.event.timer.is_some();
        let name = self.sources.get(source).context("a source of the handler")?;
        let committed = self.record.positions.get(*name);
        if committed.is_none_or(|position| position.sequence < offset) {
            self.folded.ahead = Some(id);
        }
        let refused = queued.refused.is_some();
        let outcome = self.stage.handle(partition, queued).await?;
        match is_timer {
            true => self.folded.timers += 1,
            false => self.folded.events += 1,
        }
        if let Some(outcome) = outcome.filter(|_| !refused) {
            self.came_of_it(&outcome);
        }
        Ok(())
    }

    fn came_of_it(&mut self, outcome: &Outcome) {
        if let Some(letter) = &outcome.dead_letter {
            self.folded
                .failed_here
                .push((letter.id.clone(), letter.reason.clone()));
        }
    }
}
