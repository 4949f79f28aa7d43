//! The `meta` key of a partition in the state bucket: its sequence fences
//! checkpoints (PROTOCOL rule 8), its contents tell whether bucket and ledger
//! belong together (rules 2 and 9). JSON, since a bucket is read by people too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::commit::record::{self, Record};
use crate::log::{self, Append, Log, Stored};
use crate::model::position::Position;
use crate::model::subjects::HandlerNames;

/// One commit record, named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Ledger sequence.
    pub record: u64,
    pub nonce: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When the ledger that the cells come from was created, Unix nanoseconds.
    pub ledger_created: u64,
    /// Everything up to this record is in the bucket.
    pub checkpointed: Option<Mark>,
    /// No cell in the bucket comes from a later record than this one.
    pub newest: Mark,
    /// Positions at `checkpointed`, for people; a new owner goes by the record's.
    pub positions: BTreeMap<String, (u64, u64)>,
}

/// Why a ledger is not the one that a meta was written from (rule 9).
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error(
        "ledger {ledger} ends at record {last} of partition {partition}, but the state bucket holds cells of record \
         {newest}: the ledger lost acknowledged commits"
    )]
    Lost {
        ledger: String,
        partition: u32,
        last: u64,
        newest: u64,
    },
    #[error("record {record} of ledger {ledger} is not the one that the state bucket was written from")]
    Other { ledger: String, record: u64 },
    /// Says nothing against the ledger by itself: records are purged.
    #[error("record {0}, which the state bucket was written from, is gone; reading again")]
    Gone(u64),
}

impl Meta {
    /// Whether the ledger has the newest record that the bucket rests on. `last` is the partition's
    /// last record, read after this meta.
    ///
    /// # Errors
    /// See [`Doubt`].
    pub async fn is_of(
        &self,
        log: &dyn Log,
        names: &HandlerNames,
        partition: u32,
        last: (&Stored, &Record),
    ) -> Result<(), Doubt> {
        let (stored, record) = last;
        let (ledger, newest) = (names.ledger.clone(), self.newest.record);
        let nonce = if stored.sequence == newest {
            Some(record.nonce)
        } else if stored.sequence < newest {
            return Err(Doubt::Lost {
                ledger,
                partition,
                last: stored.sequence,
                newest,
            });
        } else {
            match log.get(&ledger, newest).await? {
                Some(there) if *there.subject == names.record(partition) => {
                    Some(Record::decode(&there)?.nonce)
                }
                // Something else is stored where the record was.
                Some(_) => None,
                // A purge stops at the watermark, which is not beyond the newest: another
                // owner has come so far since meta was read.
                None => return Err(Doubt::Gone(newest)),
            }
        };
        match nonce == Some(self.newest.nonce) {
            true => Ok(()),
            false => Err(Doubt::Other {
                ledger,
                record: newest,
            }),
        }
    }

    /// The message that writes this meta, if the one before it is still at `expected`.
    pub fn append(&self, subject: String, expected: u64, attempt: &str) -> Append {
        Append {
            subject,
            headers: vec![(crate::commit::record::ATTEMPT_HEADER.into(), attempt.into())],
            data: serde_json::to_vec(self).expect("a meta is plain data").into(),
            expected: Some(expected),
            ..Append::default()
        }
    }

    /// # Errors
    /// The stored bytes are not a meta.
    pub fn decode(stored: &Stored) -> Result<Meta, serde_json::Error> {
        serde_json::from_slice(&stored.data)
    }

    /// Positions as they stand in a meta: sequence, and when it was stored.
    pub fn positions(positions: &BTreeMap<String, Position>) -> BTreeMap<String, (u64, u64)> {
        positions
            .iter()
            .map(|(name, p)| (name.clone(), (p.sequence, p.stored)))
            .collect()
    }
}
