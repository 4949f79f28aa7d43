//! What a partition handles over again, and does not emit again: the partition of a generation
//! that is rebuilt beside the one that runs (`weir replay`).
//!
//! ```text
//!   generation g      handles and emits ─────────────────────> P │ tombstone
//!   generation g+1    starts ──> quiet, never ahead of g ──> │ quiet up to P │ emits
//!                                                          switch
//! ```
//!
//! * **Beside**: while g runs, its partition in g+1 stays at or below what g has *committed*; an
//!   event that g+1 handled quietly and g never did would be emitted by neither.
//! * **After the switch** the first owner of a partition of g+1 ends it in g. That tombstone says how
//!   far g came; up to there g+1 is quiet, and its records say so until it is there.
//! * What g gave up on (a dead letter, a redriven one, a parked event) it has not emitted. Beside
//!   g, g+1 waits in front of it; after the switch it is handled aloud, as for the first time.

use std::collections::BTreeMap;

use super::context::HandlerContext;
use super::tenure::Failure;
use crate::commit::record::{self, Kind, Record, Repeats};
use crate::commit::tombstone;
use crate::effects::dead_letter;
use crate::log::{self, Stored};
use crate::model::event::Event;
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::HandlerNames;

/// Redriven events read with one request.
const REDRIVEN_AT_ONCE: usize = 256;

type GivenUp = BTreeMap<(Box<str>, u64), bool>;

/// What is handled quietly in one partition. A copy per term; the record has what lasts.
#[derive(Debug, Clone)]
pub struct Quiet {
    /// What the record says.
    pub repeats: Repeats,
    /// The generation that was before.
    of: HandlerNames,
    /// Per source: how far the generation before has come.
    come: Vec<Position>,
    /// Events up to there that it has not done, by stream and sequence; of each, whether one before
    /// it has.
    given_up: GivenUp,
}

impl Quiet {
    /// What the owner of a partition whose last record is `before` has to be quiet about.
    /// Ends the partition in the generation before, if this one has taken its place.
    ///
    /// # Errors
    /// Of the log; the generation before cannot be read.
    pub async fn resume(
        context: &HandlerContext,
        partition: u32,
        before: Option<&Record>,
    ) -> Result<Option<Quiet>, Failure> {
        let recorded = before.and_then(|before| before.repeats.clone());
        let repeats = match (&context.beside, recorded) {
            (Some(beside), _) => Repeats {
                of: beside.of,
                until: None,
            },
            (None, Some(repeats)) => repeats,
            (None, None) => return Ok(None),
        };
        if context.program.is_activity() {
            return Err(Failure::Stopped(
                "the handler is being rebuilt, and its code calls other systems, which would be called again: deploy \
                 code that does not, or cancel the replay"
                    .into(),
            ));
        }
        let mut quiet = Quiet {
            of: HandlerNames {
                generation: repeats.of,
                ..context.names.clone()
            },
            come: Vec::new(),
            given_up: GivenUp::new(),
            repeats,
        };
        if context.beside.is_none() && quiet.repeats.until.is_none() {
            let author = context.author();
            let state = tombstone::State::Kept;
            let (end, _) = tombstone::end(&*context.log, &quiet.of, &author, partition, state).await?;
            let until = end.positions.iter();
            let until = until.filter(|(source, _)| *source != INTERNAL_SOURCE);
            quiet.repeats.until = Some(until.map(|(name, at)| (name.clone(), at.sequence)).collect());
        }
        quiet.look(context, partition).await?;
        Ok(Some(quiet))
    }

    /// Looks how far the generation before has come.
    ///
    /// # Errors
    /// Of the log; its record cannot be read.
    pub async fn look(&mut self, context: &HandlerContext, partition: u32) -> Result<(), Failure> {
        let (log, of) = (&*context.log, &self.of);
        let subjects = [of.record(partition), of.dead_letters_of(partition)];
        let found = log.last_many(&of.ledger, &subjects).await?;
        let (records, letters): (Vec<Stored>, Vec<Stored>) = found
            .messages
            .into_iter()
            .partition(|stored| *stored.subject == subjects[0]);
        let record = records.first().map(Record::decode).transpose()?;
        let ends = record
            .as_ref()
            .is_some_and(|record| record.kind == Kind::Tombstone);
        // Dead letters are committed with the positions that pass them: those of this record are
        // among them, if the answer is of its time.
        let fresh = records
            .first()
            .is_none_or(|stored| found.up_to >= Some(stored.sequence));
        // Only handlers of which every partition has begun are rebuilt.
        let Some(record) = record.filter(|_| fresh && (ends || self.beside())) else {
            return Err(Failure::Unavailable(format!(
                "partition {partition} of generation {} cannot be read yet; asking again",
                of.generation
            )));
        };
        let mut given_up = GivenUp::new();
        // The empty ones are redriven or dropped.
        for letter in letters.iter().filter(|letter| !letter.data.is_empty()) {
            let letter = dead_letter::read(letter).map_err(Failure::Stopped)?;
            given_up.insert((letter.stream.into(), letter.sequence), letter.quiet);
        }
        let parked = record.parked.iter().flatten();
        given_up.extend(parked.map(|event| ((event.source.as_str().into(), event.offset), false)));
        // After the letters: what is none any more by now is seen here, unless it was handled
        // meanwhile and failed again.
        let internal = |record: &Record| record.positions.get(INTERNAL_SOURCE).map_or(0, |at| at.sequence);
        let handled = internal(&record);
        given_up.extend(redriven(log, of, partition, handled).await?);
        let now = log.last(&of.ledger, &subjects[0]).await?;
        let now = now.as_ref().map(Record::decode).transpose()?;
        if now.is_none_or(|now| internal(&now) != handled) {
            return Err(Failure::Unavailable(format!(
                "partition {partition} of generation {} handles what was redriven; looking again",
                of.generation
            )));
        }
        self.come = context
            .source_names()
            .map(|name| match name {
                INTERNAL_SOURCE => Position::default(),
                name => record.positions.get(name).copied().unwrap_or_default(),
            })
            .collect();
        if let Some(until) = &self.repeats.until {
            // As the record has it, whatever became of the tombstone.
            for (at, name) in self.come.iter_mut().zip(context.source_names()) {
                at.sequence = until.get(name).copied().unwrap_or(0);
            }
        }
        self.given_up = given_up;
        Ok(())
    }

    /// Whether this generation is still beside the one before.
    pub fn beside(&self) -> bool {
        self.repeats.until.is_none()
    }

    /// How far a source may be read: not beyond what the generation before has done.
    pub fn bound(&self, source: usize) -> Option<Position> {
        self.beside().then(|| self.come[source])
    }

    /// Where a source begins that is to begin at `start`: not beyond what the generation before has
    /// done, or nobody would handle what is between.
    pub fn begin(&self, source: usize, start: Position) -> Position {
        let come = self.come[source];
        match come.sequence < start.sequence {
            true => come,
            false => start,
        }
    }

    /// Why an event has to wait for the generation before, if it has to.
    pub fn holds(&self, event: &Event, source_name: &str) -> Option<Held> {
        if !self.beside() || source_name == INTERNAL_SOURCE {
            None
        } else if event.offset > self.come[usize::from(event.source)].sequence {
            Some(Held::NotYetThere)
        } else if self.given_up(event, source_name).is_some() {
            Some(Held::GivenUp(event.id()))
        } else {
            None
        }
    }

    /// Whether the generation before has handled an event, so that nothing of it is emitted again.
    pub fn covers(&self, event: &Event, source_name: &str) -> bool {
        source_name != INTERNAL_SOURCE
            && event.offset <= self.come[usize::from(event.source)].sequence
            && self.given_up(event, source_name) != Some(false)
    }

    /// Whether the generation before has given an event up, and if so, whether one before that
    /// has emitted what there is to emit of it.
    fn given_up(&self, event: &Event, source_name: &str) -> Option<bool> {
        if self.given_up.is_empty() {
            return None;
        }
        let event = (Box::from(source_name), event.offset);
        self.given_up.get(&event).copied()
    }

    /// What is to be in a record at these positions: nothing once all is done.
    pub fn recorded(&self, positions: &[Position]) -> Option<Repeats> {
        let short = |(at, until): (&Position, &Position)| at.sequence < until.sequence;
        let done = !self.beside() && !positions.iter().zip(&self.come).any(short);
        (!done).then(|| self.repeats.clone())
    }
}

/// Why an event waits for the generation before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// It has not come so far.
    NotYetThere,
    /// It has given this event up for now.
    GivenUp(String),
}

/// Events that were redriven and are not handled yet. A scan may be answered by a replica
/// that lags; the last one is known from the leader.
async fn redriven(
    log: &dyn log::Log,
    of: &HandlerNames,
    partition: u32,
    handled: u64,
) -> Result<Vec<((Box<str>, u64), bool)>, Failure> {
    let subject = of.redriven(partition);
    let last = log.last(&of.ledger, &subject).await?;
    let last = last.map_or(0, |stored| stored.sequence);
    let (mut from, mut events) = (handled + 1, Vec::new());
    while from <= last {
        let some = log.scan(&of.ledger, &subject, from, REDRIVEN_AT_ONCE).await?;
        let Some(furthest) = some.last() else {
            return Err(Failure::Unavailable(format!(
                "redriven event {last} of partition {partition} is not to be read yet; asking again"
            )));
        };
        from = furthest.sequence + 1;
        let letters = some
            .iter()
            .filter_map(|stored| dead_letter::decode_redriven(&stored.data).ok());
        events.extend(letters.map(|(letter, _)| ((letter.stream.into(), letter.sequence), letter.quiet)));
    }
    Ok(events)
}

impl From<record::Error> for Failure {
    fn from(error: record::Error) -> Self {
        match error {
            record::Error::Newer { .. } => Failure::Newer(error.to_string()),
            record::Error::Broken { .. } => Failure::Stopped(error.to_string()),
        }
    }
}

impl From<tombstone::Error> for Failure {
    fn from(error: tombstone::Error) -> Self {
        match error {
            tombstone::Error::Log(error) => error.into(),
            tombstone::Error::Record(error) => error.into(),
            tombstone::Error::Refused { .. } => Failure::Unavailable(error.to_string()),
        }
    }
}

/// What a handler is rebuilt beside, and from where on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The generation that runs.
    pub of: u64,
    /// Where each source begins, the same for all partitions.
    pub starts: BTreeMap<String, Position>,
}
