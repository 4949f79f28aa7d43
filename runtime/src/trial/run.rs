//! One trial: events in the order of their file, and the timers that are due between and after them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::events::{Error, Given};
use crate::deployment::plugins::Deployed;
use crate::handler::{Answers, CodeCache};
use crate::log::memory::MAX_PAYLOAD;
use crate::log::{Append, Log, Stored, StreamSettings};
use crate::model::subjects::{FIRST_GENERATION, HandlerNames};
use crate::stage::{self, Fired, Outcome, Stage};
use crate::{config, ledger};

/// Timers that fire in one trial. Far above what a file of events sets; it ends
/// handlers whose timers set each other for ever.
pub const FIRES_MAX: usize = 10_000;

/// How often one timer of one key fires after the last event. A timer that sets
/// itself again whenever it fires would never end.
pub const FIRES_AFTER_LAST_MAX: usize = 10;

/// Name of the ledger; not one that a source has.
const LEDGER: &str = "TEST";

/// When every source was created, in Unix nanoseconds: random numbers are the same in every trial.
const CREATED: u64 = 1;

/// How long before the first event the log begins, in nanoseconds: streams are
/// created meanwhile.
const LEAD: u64 = 1_000_000_000;

/// What a trial needs beside the handler.
pub struct Setup {
    /// Subjects of the ledger.
    pub ledger_subjects: Vec<String>,
    /// What requests are answered with.
    pub answers: Arc<Answers>,
    /// Where compiled code is kept.
    pub code_cache: CodeCache,
}

/// A handler that waits for its events.
pub struct Trial {
    stage: Stage,
    /// The stream of each source.
    streams: Vec<String>,
    summary: Summary,
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

impl Trial {
    /// Compiles the handler and prepares a log for it that begins at the time of
    /// the first event.
    ///
    /// # Errors
    /// The handler is refused, or the machine lacks something.
    pub async fn new(deployed: Deployed, setup: Setup, first: u64) -> anyhow::Result<Trial> {
        let sources = deployed.manifest.sources.clone();
        let mut name = LEDGER.to_owned();
        while sources.iter().any(|source| source.stream == name) {
            name.push('_');
        }
        let setup = stage::Setup {
            names: HandlerNames::new(&name, &deployed.manifest.name, FIRST_GENERATION),
            ledger_subjects: setup.ledger_subjects,
            created: vec![CREATED; sources.len() + 1],
            revision: 0,
            max_payload: MAX_PAYLOAD,
            answers: setup.answers,
            code_cache: setup.code_cache,
            host: "test".into(),
        };
        let stage = Stage::new(deployed, setup, first.saturating_sub(LEAD)).await?;
        let any = config::Ledger {
            name: String::new(),
            subjects: Vec::new(),
            replicas: 1,
            event_ttl: None,
        };
        for source in &sources {
            let settings = StreamSettings {
                subjects: source.subjects.clone(),
                ..ledger::ledger_settings(&any)
            };
            stage.log().create_stream(&source.stream, &settings).await?;
        }
        Ok(Trial {
            stage,
            streams: sources.into_iter().map(|source| source.stream).collect(),
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
        file: &Path,
        events: Vec<Given>,
        mut show: impl FnMut(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<Summary> {
        for given in events {
            // A timer that is due at that very moment comes first.
            while let Some(fired) = self.stage.next_fired(given.time, &self.summary.endless).await? {
                self.fire(fired, &mut show).await?;
            }
            self.stage.advance(given.time);
            let source = given.source;
            let stored = self.store(file, given).await?;
            self.summary.events += 1;
            if let Some(outcome) = self.stage.deliver(source, stored).await? {
                self.came_of_it(&outcome, &mut show)?;
            }
            self.unpark(&mut show).await?;
        }
        let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
        while let Some(fired) = self.stage.next_fired(u64::MAX, &self.summary.endless).await? {
            let which = (fired.key.clone(), fired.name.clone());
            let times = times.entry(which.clone()).or_default();
            if *times == FIRES_AFTER_LAST_MAX {
                self.summary.endless.insert(which);
                continue;
            }
            *times += 1;
            self.fire(fired, &mut show).await?;
        }
        self.summary.parked = self.stage.parked();
        Ok(self.summary)
    }

    fn came_of_it(
        &mut self,
        outcome: &Outcome,
        show: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.summary.emits += outcome.emits.len();
        self.summary.dead_letters += usize::from(outcome.dead_letter.is_some());
        show(outcome)
    }

    /// Stores an event as its publisher would.
    async fn store(&self, file: &Path, given: Given) -> anyhow::Result<Stored> {
        let (stream, log) = (&self.streams[given.source], self.stage.log());
        let message = Append {
            subject: given.subject,
            headers: given.headers,
            data: given.data,
            ..Append::default()
        };
        let appended = log.append(stream, vec![message]).await.map_err(|error| Error {
            file: file.to_owned(),
            line: given.line,
            field: String::new(),
            problem: format!("no stream takes this event: {error}"),
        })?;
        let stored = log.get(stream, appended.sequence).await?;
        // Nobody reads it again, and all that a stream holds is looked through when time passes.
        log.purge(stream, ">", appended.sequence + 1).await?;
        stored.context("what was just stored is there")
    }

    async fn fire(
        &mut self,
        fired: Fired,
        show: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (key, name) = (fired.key.clone(), fired.name.clone());
        let Some(outcome) = self.stage.fire(fired).await? else {
            return Ok(());
        };
        self.summary.timers += 1;
        if self.summary.timers > FIRES_MAX {
            bail!(
                "timers fired {FIRES_MAX} times, last `{name}` of key `{key}`: does the handler set timers without end?"
            );
        }
        self.came_of_it(&outcome, show)?;
        self.unpark(show).await
    }

    /// Tries events again that wait for a lock, as long as that gets any of them further.
    async fn unpark(&mut self, show: &mut impl FnMut(&Outcome) -> anyhow::Result<()>) -> anyhow::Result<()> {
        while let Some(outcome) = self.stage.unpark().await? {
            self.came_of_it(&outcome, show)?;
        }
        Ok(())
    }
}
