//! The commit record: one message per group on the partition's record subject,
//! and the only thing that a new owner has to read before it goes on.
//!
//! The body is CBOR, a map with small integers as keys, so that a newer host
//! can add a field that an older one skips. [`FORMAT`] rises only when an older
//! host must not go on; such a host says so and steps back. Which attempt wrote
//! a record stands in its header [`ATTEMPT_HEADER`] and not in the body: a
//! retry is a new attempt with the same body.
//!
//! Broken: a body that does not decode, a format that is newer than ours, or a
//! record whose `previous` is not the record before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::log::{Append, Stored};
use crate::model::position::Position;
use crate::state::LiveTimer;

/// Newest format this host reads. It writes [`FORMAT_REPEATS`] where a handler is rebuilt, which an
/// older host would do aloud, [`FORMAT_PARKED`] where events are parked, which it would lose, and
/// else the first one.
pub const FORMAT: u16 = FORMAT_REPEATS;
const FORMAT_FIRST: u16 = 1;
const FORMAT_PARKED: u16 = 2;
const FORMAT_REPEATS: u16 = 3;

/// `<incarnation, 32 hexadecimal digits>-<attempt number>`, unique per send.
pub const ATTEMPT_HEADER: &str = "Weir-Attempt";

/// Why a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A group of events.
    #[n(0)]
    Commit,
    /// A new owner fences the one before it. Changes nothing else.
    #[n(1)]
    Takeover,
    /// Nothing happened for the partition; its positions move.
    #[n(2)]
    Idle,
    /// The handler was removed.
    #[n(3)]
    Tombstone,
}

/// How far the state bucket is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Watermark {
    /// Every record up to this ledger sequence is in the bucket.
    #[n(0)]
    pub record: u64,
    /// Nonce of that record.
    #[n(1)]
    pub nonce: u64,
    /// Sequence of the bucket's stream at which it was.
    #[n(2)]
    pub bucket: u64,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    #[n(0)]
    pub format: u16,
    #[n(1)]
    pub kind: Kind,
    /// Random; tells this record from another one at the same sequence of a
    /// ledger that lost its tail (rule 9).
    #[n(2)]
    pub nonce: u64,
    /// Sequence of the partition's record before this one, 0 for the first.
    #[n(3)]
    pub previous: u64,
    /// Per source (its stream; the internal source is `$WEIR`).
    #[n(4)]
    pub positions: BTreeMap<String, Position>,
    /// Where each source began at first, the same for all partitions.
    #[n(5)]
    pub starts: BTreeMap<String, Position>,
    #[n(6)]
    pub watermark: Option<Watermark>,
    /// Unix nanoseconds; the partition's clock never goes back (rule 17).
    #[n(7)]
    pub clock: u64,
    /// Highest timer generation given out.
    #[n(8)]
    pub timer_generation: u64,
    /// Number of partitions of the handler; a record of another number stops it.
    #[n(9)]
    pub partitions: u32,
    /// SHA-256 of the component, hexadecimal.
    #[n(10)]
    pub digest: String,
    /// Revision of the manifest; 0 for one from a folder.
    #[n(11)]
    pub manifest_revision: u64,
    /// Host name, for people.
    #[n(12)]
    pub host: String,
    #[n(13)]
    pub keys: Vec<KeyDelta>,
    /// How an event's key is found, as text: a record of another rule stops the handler.
    #[n(14)]
    pub key_rule: String,
    /// Events in the group.
    #[n(15)]
    pub events: u64,
    /// Events at or before the positions that are still to be handled, in the order of each
    /// key: they wait for a lock.
    #[n(16)]
    pub parked: Option<Vec<ParkedEvent>>,
    /// The partition is rebuilt: what an earlier generation has handled is handled again, quietly.
    #[n(17)]
    pub repeats: Option<Repeats>,
}

/// What a partition does over again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Repeats {
    /// The generation that has emitted what is not to be emitted again.
    #[n(0)]
    pub of: u64,
    /// How far that one came in the end, per source. `None` while it still runs.
    #[n(1)]
    pub until: Option<BTreeMap<String, u64>>,
}

/// Who writes a record: what every record says of its handler and host.
#[derive(Debug, Clone)]
pub struct Author {
    pub partitions: u32,
    pub key_rule: String,
    pub digest: String,
    pub manifest_revision: u64,
    pub host: String,
}

/// An event that waits, where its source has it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ParkedEvent {
    /// The source by its name in positions.
    #[n(0)]
    pub source: String,
    #[n(1)]
    pub offset: u64,
}

/// What a group changed of one key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyDelta {
    #[cbor(n(0), with = "shared_text")]
    pub key: Arc<str>,
    #[n(1)]
    pub cells: Vec<CellDelta>,
    /// All live timers of the key, if any of them changed.
    #[n(2)]
    pub timers: Option<Vec<TimerEntry>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CellDelta {
    #[n(0)]
    pub cell: Box<str>,
    /// `None`: deleted.
    #[n(1)]
    pub value: Option<Blob>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TimerEntry {
    #[n(0)]
    pub name: Box<str>,
    #[n(1)]
    pub generation: u64,
    #[n(2)]
    pub due: u64,
}

impl TimerEntry {
    /// All live timers of a key, in the order of their names.
    pub fn all<'a>(timers: impl IntoIterator<Item = (&'a Box<str>, &'a LiveTimer)>) -> Vec<TimerEntry> {
        timers
            .into_iter()
            .map(|(name, timer)| TimerEntry {
                name: name.clone(),
                generation: timer.generation,
                due: timer.due,
            })
            .collect()
    }
}

/// A key as CBOR text; shared, because it outlives the record in maps of dirty keys.
mod shared_text {
    use std::sync::Arc;

    pub fn encode<C, W: minicbor::encode::Write>(
        text: &Arc<str>,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(text)?.ok()
    }

    pub fn decode<C>(d: &mut minicbor::Decoder<'_>, _: &mut C) -> Result<Arc<str>, minicbor::decode::Error> {
        Ok(d.str()?.into())
    }
}

/// Bytes that CBOR writes as a byte string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl<C> Encode<C> for Blob {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Blob {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Blob(Bytes::copy_from_slice(d.bytes()?)))
    }
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("commit record {subject} at sequence {sequence} cannot be read: {detail}")]
    Broken {
        subject: String,
        sequence: u64,
        detail: String,
    },
    #[error(
        "commit record {subject} at sequence {sequence} has format {format}, this host reads up to {FORMAT}: \
         upgrade this host, or stop it and leave the partition to the newer ones"
    )]
    Newer {
        subject: String,
        sequence: u64,
        format: u16,
    },
}

impl Record {
    /// A record that changes nothing. The caller adds where the partition is.
    pub fn new(kind: Kind, previous: u64, author: Author) -> Record {
        Record {
            format: FORMAT_FIRST,
            kind,
            nonce: rand::random(),
            previous,
            positions: BTreeMap::new(),
            starts: BTreeMap::new(),
            watermark: None,
            clock: 0,
            timer_generation: 0,
            partitions: author.partitions,
            digest: author.digest,
            manifest_revision: author.manifest_revision,
            host: author.host,
            keys: Vec::new(),
            key_rule: author.key_rule,
            events: 0,
            parked: None,
            repeats: None,
        }
    }

    /// The message of a record on its subject, with its fence.
    pub fn message(&self, subject: String) -> Append {
        Append {
            subject,
            data: self.encode().into(),
            expected: Some(self.previous),
            ..Append::default()
        }
    }

    /// Lists the events that are parked and says what is handled over again, and takes the
    /// format that this needs.
    pub fn unfinished(&mut self, parked: Vec<ParkedEvent>, repeats: Option<Repeats>) {
        self.format = match (parked.is_empty(), &repeats) {
            (_, Some(_)) => FORMAT_REPEATS,
            (false, None) => FORMAT_PARKED,
            (true, None) => FORMAT_FIRST,
        };
        self.parked = Some(parked).filter(|parked| !parked.is_empty());
        self.repeats = repeats;
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.keys.len() * 48);
        minicbor::encode(self, &mut out).expect("writing to memory cannot fail");
        out
    }

    /// Reads the record in a stored message.
    ///
    /// # Errors
    /// The body does not decode, or its format is newer than ours.
    pub fn decode(stored: &Stored) -> Result<Record, Error> {
        let record: Record = minicbor::decode(&stored.data).map_err(|e| Error::Broken {
            subject: stored.subject.to_string(),
            sequence: stored.sequence,
            detail: e.to_string(),
        })?;
        if record.format > FORMAT {
            return Err(Error::Newer {
                subject: stored.subject.to_string(),
                sequence: stored.sequence,
                format: record.format,
            });
        }
        Ok(record)
    }
}

/// Incarnation part of a stored record's attempt header.
pub fn incarnation_of(stored: &Stored) -> Option<&str> {
    stored
        .header(ATTEMPT_HEADER)?
        .split_once('-')
        .map(|(incarnation, _)| incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            format: FORMAT,
            kind: Kind::Commit,
            nonce: 9,
            previous: 4,
            positions: [(
                "S".to_string(),
                Position {
                    created: 1,
                    sequence: 2,
                    stored: 3,
                },
            )]
            .into(),
            starts: BTreeMap::new(),
            watermark: Some(Watermark {
                record: 1,
                nonce: 2,
                bucket: 3,
            }),
            clock: 5,
            timer_generation: 6,
            partitions: 16,
            digest: "d".into(),
            manifest_revision: 0,
            host: "h".into(),
            keys: vec![KeyDelta {
                key: "k".into(),
                cells: vec![
                    CellDelta {
                        cell: "n".into(),
                        value: Some(Blob(Bytes::from_static(b"17"))),
                    },
                    CellDelta {
                        cell: "m".into(),
                        value: None,
                    },
                ],
                timers: Some(vec![TimerEntry {
                    name: "t".into(),
                    generation: 1,
                    due: 2,
                }]),
            }],
            key_rule: "subject".into(),
            events: 1,
            parked: Some(vec![ParkedEvent {
                source: "S".into(),
                offset: 2,
            }]),
            repeats: Some(Repeats {
                of: 1,
                until: Some([("S".to_string(), 7)].into()),
            }),
        }
    }

    fn stored(data: Vec<u8>) -> Stored {
        Stored {
            subject: "s".into(),
            sequence: 7,
            time: 0,
            headers: vec![],
            data: data.into(),
        }
    }

    #[test]
    fn a_record_reads_back() {
        assert_eq!(Record::decode(&stored(record().encode())), Ok(record()));
    }

    #[test]
    fn a_newer_format_and_a_broken_body_are_told_apart() {
        let newer = Record {
            format: FORMAT + 1,
            ..record()
        };
        assert!(matches!(
            Record::decode(&stored(newer.encode())),
            Err(Error::Newer { sequence: 7, .. })
        ));
        let mut cut = record().encode();
        cut.pop();
        assert!(matches!(
            Record::decode(&stored(cut)),
            Err(Error::Broken { sequence: 7, .. })
        ));
    }

    #[test]
    fn a_field_of_the_future_is_skipped() {
        let mut bytes = record().encode();
        assert_eq!(bytes[0], 0xb2, "a map of eighteen entries");
        bytes[0] = 0xb3;
        bytes.extend(minicbor::to_vec((99u32,)).unwrap()[1..].iter());
        bytes.extend(minicbor::to_vec("later").unwrap());
        assert_eq!(Record::decode(&stored(bytes)), Ok(record()));
    }
}
