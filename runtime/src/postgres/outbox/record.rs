//! The record of an outbox source on the ledger: JSON, one message on
//! `$WEIR.<L>.s.<name>`, which replaces the one before it (`Nats-Rollup: sub`). Which attempt wrote it is
//! in the header [`ATTEMPT_HEADER`], for people: what settles an append
//! is the claim's number, which no other claim of this outbox has.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::commit::record::ATTEMPT_HEADER;
use crate::log::{Append, Stored};

/// Newest format this version reads, and the one it writes.
const FORMAT: u16 = 1;

/// How far an outbox is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format: u16,
    /// Which outbox this is: a random name that its state row was given when it was made.
    pub outbox: String,
    /// The last claim of which rows are in the ledger, 0 before the first.
    pub claim: i64,
    /// Rows of that claim up to this id are; 0 before the first.
    pub through: i64,
}

impl Record {
    pub fn new(outbox: &str, claim: i64, through: i64) -> Record {
        Record {
            format: FORMAT,
            outbox: outbox.into(),
            claim,
            through,
        }
    }

    /// # Errors
    /// It does not decode, or a newer version of Weir has written it; as text.
    pub fn decode(stored: &Stored) -> Result<Record, String> {
        let at = format!("record {} at sequence {}", stored.subject, stored.sequence);
        let record: Record =
            serde_json::from_slice(&stored.data).map_err(|error| format!("{at} cannot be read: {error}"))?;
        match record.format > FORMAT {
            true => Err(format!(
                "{at} has format {}, this version reads up to {FORMAT}: upgrade it",
                record.format
            )),
            false => Ok(record),
        }
    }

    /// The message, fenced by the sequence of the record before it.
    pub fn message(&self, subject: &str, expected: u64, attempt: String) -> Append {
        let data = serde_json::to_vec(self).expect("a struct of numbers and text is JSON");
        Append {
            subject: subject.into(),
            headers: vec![(ATTEMPT_HEADER.into(), attempt)],
            data: Bytes::from(data),
            expected: Some(expected),
            rollup: true,
            ..Append::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(data: &str) -> Stored {
        Stored {
            subject: "$WEIR.L.s.o".into(),
            sequence: 7,
            time: 0,
            headers: Vec::new(),
            data: Bytes::copy_from_slice(data.as_bytes()),
        }
    }

    #[test]
    fn records_read_back_and_newer_ones_do_not() {
        let record = Record::new("u", 3, 90);
        let message = record.message("$WEIR.L.s.o", 5, "a-1".into());
        assert_eq!(message.expected, Some(5));
        let text = std::str::from_utf8(&message.data).expect("text");
        assert_eq!(Record::decode(&stored(text)), Ok(record));
        let newer = text.replace("\"format\":1", "\"format\":2,\"more\":[]");
        assert!(Record::decode(&stored(&newer)).is_err_and(|error| error.contains("upgrade")));
        assert!(Record::decode(&stored("{}")).is_err_and(|error| error.contains("sequence 7")));
    }
}
