//! Letting a stream that was restored from a backup be the one that positions and state were
//! taken in (`weir adopt`).
//!
//! A stream's created time is its identity (PROTOCOL rule 6), and a server may give a restored
//! stream a new one. What is recorded says which one is expected; what is stored decides whether
//! this is that stream:
//!
//! 1. Of all partitions that have anything of the stream, the expected created time is the same.
//! 2. Every position is in the stream but for its created time ([`identity`]).
//! 3. Of a ledger, the record that the state bucket rests on is there, too (rule 9).
//! 4. At least one message was seen that must be the same one: a time of storing, to the
//!    nanosecond, or a record's nonce. Else an empty stream would do.
//!
//! Only then the created time is written into the stream's metadata
//! ([`JetStream::adopt`](crate::log::jetstream::JetStream::adopt)), from where every answer of
//! the server brings it along. Whatever is not checked here, hosts find when they take over.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::commit::record::{self, Kind, Record};
use crate::log::{self, Log, Stored};
use crate::membership::Beat;
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::{self, HandlerNames};
use crate::source::identity;
use crate::state::meta::{Doubt, Meta};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("{key} in the state bucket cannot be read: {error}")]
    Meta { key: String, error: serde_json::Error },
    #[error(
        "host {hosts} runs, and has taken {ledger} for another ledger since its start: stop all hosts, repeat this command, \
         and start them again"
    )]
    Running { hosts: String, ledger: String },
    #[error(
        "ledger {ledger} has no commit record of a partition that reads stream {stream}, so nothing says which stream it \
         was; restore and adopt the ledger first, or check the name"
    )]
    Unknown { ledger: String, stream: String },
    #[error(
        "stream {stream} was created more than once, and partitions have read different ones: {}; only those of one can \
         go on: end the others (weir remove NAME), and repeat this command", .groups.join("; ")
    )]
    Several { stream: String, groups: Vec<String> },
    #[error(
        "stream {stream} is adopted already, as another stream than the partitions of ledger {ledger} expect: perhaps by \
         another ledger that reads it, whose positions would mean nothing then; if that one is not to go on, remove \
         weir-adopted from the stream's metadata, and repeat this command"
    )]
    Taken { stream: String, ledger: String },
    #[error("stream {stream} is not the one that positions and state were taken in:\n{}", .lines.join("\n"))]
    Another { stream: String, lines: Vec<String> },
    #[error(
        "stream {stream} has none of the messages any more up to which partitions have read it, so nothing shows that it \
         is the same stream; restore a backup that has some, or start its handlers under new names to read it from its \
         beginning"
    )]
    Unseen { stream: String },
}

/// What a ledger and its state bucket say of each partition that goes on.
pub struct Recorded {
    ledger: String,
    partitions: Vec<Partition>,
}

struct Partition {
    names: HandlerNames,
    number: u32,
    last: Stored,
    record: Record,
    meta: Option<Meta>,
}

/// A stream that may go by the created time that is expected of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub stream: String,
    /// When the server made it, Unix nanoseconds.
    pub made: u64,
    /// The created time that is expected.
    pub created: u64,
    /// Whether it goes by that one already.
    pub done: bool,
    pub partitions: usize,
    /// Messages of which it is known that they are the same.
    pub seen: usize,
}

impl Partition {
    /// Positions of this partition in `stream`, and where it began.
    fn positions<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = Position> + 'a {
        let of = |positions: &'a BTreeMap<String, Position>| {
            let here = positions.iter().filter(move |(source, _)| {
                // A source that was taken out of the manifest has a start, and no position.
                self.stream_of(source) == stream && self.record.positions.contains_key(*source)
            });
            here.map(|(_, position)| *position)
        };
        let all = of(&self.record.positions).chain(of(&self.record.starts));
        all.filter(|position| position.created != 0)
    }

    fn stream_of<'a>(&'a self, source: &'a str) -> &'a str {
        match source {
            INTERNAL_SOURCE => &self.names.ledger,
            stream => stream,
        }
    }

    /// The created times that this partition expects of `stream`.
    fn expects(&self, stream: &str) -> BTreeSet<u64> {
        let meta = self.meta.as_ref().filter(|_| stream == self.names.ledger);
        let positions = self.positions(stream).map(|position| position.created);
        positions.chain(meta.map(|meta| meta.ledger_created)).collect()
    }

    fn shown(&self) -> String {
        format!("handler {}, partition {}", self.names.handler, self.number)
    }
}

impl Recorded {
    /// # Errors
    /// There is no such ledger; a record is not to be read; or of the log.
    pub async fn read(log: &dyn Log, ledger: &str) -> Result<Recorded, Error> {
        let records = log.last_many(ledger, &[subjects::records(ledger)]).await?;
        let mut partitions = Vec::new();
        for last in records.messages {
            let Some((names, number)) = subjects::parse_record(ledger, &last.subject) else {
                continue; // nobody takes it for a record
            };
            let record = Record::decode(&last)?;
            if record.kind != Kind::Tombstone {
                partitions.push(Partition {
                    names,
                    number,
                    last,
                    record,
                    meta: None,
                });
            }
        }
        partitions.sort_by(|a, b| {
            let key = |p: &Partition| (p.names.handler.clone(), p.names.generation, p.number);
            key(a).cmp(&key(b))
        });
        let keys = partitions
            .iter()
            .map(|partition| partition.names.meta(partition.number));
        let keys: Vec<String> = keys.collect();
        let metas = match keys.is_empty() {
            true => Vec::new(),
            false => {
                let bucket = subjects::bucket_stream(ledger);
                log.last_many(&bucket, &keys).await?.messages
            }
        };
        let places: HashMap<&str, usize> = keys.iter().map(String::as_str).zip(0..).collect();
        for stored in metas.iter().filter(|stored| !stored.data.is_empty()) {
            let meta = Meta::decode(stored).map_err(|error| Error::Meta {
                key: stored.subject.to_string(),
                error,
            })?;
            if let Some(place) = places.get(&*stored.subject) {
                partitions[*place].meta = Some(meta);
            }
        }
        Ok(Recorded {
            ledger: ledger.into(),
            partitions,
        })
    }

    /// Every stream that something is recorded of: the ledger, and sources.
    pub fn streams(&self) -> BTreeSet<&str> {
        self.partitions
            .iter()
            .flat_map(|p| p.record.positions.keys().map(|source| p.stream_of(source)))
            .collect()
    }

    /// The created time that partitions expect of `stream`, which has `now`.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::Several`].
    pub fn expected(&self, stream: &str, now: u64) -> Result<u64, Error> {
        let mut groups: BTreeMap<u64, Vec<&Partition>> = BTreeMap::new();
        for partition in &self.partitions {
            for created in partition.expects(stream) {
                groups.entry(created).or_default().push(partition);
            }
        }
        let mut all = groups.keys();
        match (all.next(), all.next()) {
            (Some(created), None) => Ok(*created),
            (None, _) => Err(Error::Unknown {
                ledger: self.ledger.clone(),
                stream: stream.into(),
            }),
            (Some(_), Some(_)) => Err(Error::Several {
                stream: stream.into(),
                groups: groups
                    .iter()
                    .map(|(created, of)| group(*created == now, of))
                    .collect(),
            }),
        }
    }

    /// Checks that `stream` is the one that partitions expect, but for its created time.
    ///
    /// # Errors
    /// It is not, or that cannot be known; of the log.
    pub async fn plan(&self, log: &dyn Log, stream: &str) -> Result<Plan, Error> {
        let state = log.stream(stream).await?;
        let created = self.expected(stream, state.created)?;
        let of: Vec<&Partition> = self
            .partitions
            .iter()
            .filter(|partition| !partition.expects(stream).is_empty())
            .collect();
        let mut plan = Plan {
            stream: stream.into(),
            made: state.made,
            created,
            done: created == state.created,
            partitions: of.len(),
            seen: 0,
        };
        if plan.done {
            return Ok(plan);
        }
        if state.created != state.made {
            return Err(Error::Taken {
                stream: stream.into(),
                ledger: self.ledger.clone(),
            });
        }
        if stream == self.ledger {
            no_host_runs(log, stream).await?;
        }
        // As the stream would have it that is there now.
        let here = |position| Position {
            created: state.created,
            ..position
        };
        let positions = of.iter().flat_map(|partition| partition.positions(stream));
        let checked = identity::check(log, stream, positions.map(here)).await?;
        plan.seen = checked.seen;
        let mut lines = Vec::new();
        for partition in of {
            let unsound = partition.positions(stream).find_map(|position| {
                let why = checked.unsound.get(&here(position))?;
                Some(why.describe(&checked.state, position.sequence))
            });
            let state = match (&partition.meta, stream == self.ledger) {
                (Some(meta), true) => partition.rests_on_ledger(log, meta, &mut plan.seen).await?,
                _ => None,
            };
            let why = unsound.or(state);
            lines.extend(why.map(|why| format!("{}: {why}", partition.shown())));
        }
        let stream = stream.to_owned();
        match plan.seen {
            _ if !lines.is_empty() => Err(Error::Another { stream, lines }),
            0 => Err(Error::Unseen { stream }),
            _ => Ok(plan),
        }
    }
}

impl Partition {
    /// Why the ledger is not the one that this partition's state was written from.
    async fn rests_on_ledger(
        &self,
        log: &dyn Log,
        meta: &Meta,
        seen: &mut usize,
    ) -> Result<Option<String>, Error> {
        let last = (&self.last, &self.record);
        match meta.is_of(log, &self.names, self.number, last).await {
            Ok(()) => {
                *seen += 1;
                Ok(None)
            }
            // Of a bucket that is older than the ledger; a takeover says what is missing.
            Err(Doubt::Gone(_)) => Ok(None),
            Err(doubt @ (Doubt::Lost { .. } | Doubt::Other { .. })) => Ok(Some(doubt.to_string())),
            Err(Doubt::Log(error)) => Err(error.into()),
            Err(Doubt::Record(error)) => Err(error.into()),
        }
    }
}

/// Partitions that expect the same, in a sentence.
fn group(as_it_is: bool, of: &[&Partition]) -> String {
    let which = match as_it_is {
        true => "the one that is there now",
        false => "an earlier one",
    };
    let first = of.first().map(|partition| partition.shown()).unwrap_or_default();
    match of.len() - 1 {
        0 => format!("{which}: {first}"),
        more => format!("{which}: {first} and {more} more"),
    }
}

/// A host keeps the created time of its ledger from its start to its end.
async fn no_host_runs(log: &dyn Log, ledger: &str) -> Result<(), Error> {
    let hosts = subjects::hosts_stream(ledger);
    let beats = match log.last_many(&hosts, &[subjects::alive_keys(ledger)]).await {
        Err(log::Error::NoStream(_)) => return Ok(()),
        found => found?.messages,
    };
    let running = beats.iter().filter(|stored| !stored.data.is_empty());
    let running = running.filter_map(|stored| match serde_json::from_slice::<Beat>(&stored.data) {
        Ok(beat) => (!beat.has_ended()).then_some(beat.host),
        Err(_) => Some(stored.subject.to_string()), // of another version, and alive
    });
    let running: Vec<String> = running.collect();
    match running.is_empty() {
        true => Ok(()),
        false => Err(Error::Running {
            hosts: running.join(", "),
            ledger: ledger.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::record::Author;
    use crate::state::meta::Mark;

    const LEDGER: &str = "L";
    const SOURCE: &str = "S";

    /// A partition of a handler with positions in streams that were created at these times.
    fn partition(handler: &str, source: u64, ledger: u64) -> Partition {
        let at = |created| Position {
            created,
            sequence: 3,
            stored: 9,
        };
        let author = Author {
            partitions: 1,
            key_rule: String::new(),
            digest: String::new(),
            manifest_revision: 1,
            host: String::new(),
        };
        let mut record = Record::new(Kind::Commit, 0, author);
        record.positions = [(SOURCE, source), (INTERNAL_SOURCE, ledger)]
            .map(|(name, created)| (name.to_owned(), at(created)))
            .into();
        record.starts = record.positions.clone();
        record.starts.insert("dropped".into(), at(1));
        Partition {
            names: HandlerNames::new(LEDGER, handler, 1),
            number: 0,
            last: Stored {
                subject: "".into(),
                sequence: 3,
                time: 9,
                headers: Vec::new(),
                data: Vec::new().into(),
            },
            meta: Some(Meta {
                ledger_created: ledger,
                checkpointed: None,
                newest: Mark { record: 3, nonce: 1 },
                positions: BTreeMap::new(),
            }),
            record,
        }
    }

    #[test]
    fn all_partitions_must_expect_the_same() {
        let recorded = |partitions: Vec<Partition>| Recorded {
            ledger: LEDGER.into(),
            partitions,
        };
        let alike = recorded(vec![partition("a", 5, 7), partition("b", 5, 7)]);
        assert_eq!(alike.expected(SOURCE, 8).expect("one"), 5);
        assert_eq!(alike.expected(LEDGER, 8).expect("one"), 7);
        assert!(matches!(alike.expected("dropped", 8), Err(Error::Unknown { .. })));
        assert_eq!(alike.streams(), BTreeSet::from([LEDGER, SOURCE]));

        // One began after the restore, and before the stream was adopted.
        let mixed = recorded(vec![
            partition("a", 5, 7),
            partition("b", 5, 7),
            partition("late", 8, 7),
        ]);
        assert_eq!(mixed.expected(LEDGER, 8).expect("one"), 7);
        let said = mixed.expected(SOURCE, 8).expect_err("two").to_string();
        for part in [
            "an earlier one: handler a, partition 0 and 1 more",
            "the one that is there now: handler late, partition 0",
        ] {
            assert!(said.contains(part), "{said}");
        }

        // A meta counts as much as a position.
        let mut other_bucket = partition("a", 5, 7);
        other_bucket.meta.as_mut().expect("a meta").ledger_created = 6;
        let mixed = recorded(vec![other_bucket]);
        assert!(matches!(mixed.expected(LEDGER, 8), Err(Error::Several { .. })));
    }
}
