//! The `meta` key of a partition in the state bucket: its sequence fences
//! checkpoints (PROTOCOL rule 8), its contents tell whether bucket and ledger
//! belong together (rules 2 and 9). JSON, since a bucket is read by people too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::log::{Append, Stored};
use crate::model::position::Position;

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

impl Meta {
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
