//! Reads the commit records of a partition after its watermark, in order and
//! without a gap.

use std::collections::VecDeque;

use super::dirty::Dirty;
use crate::commit::record::{self, Record};
use crate::log::{self, Log};

/// Records asked for at once. Each holds a group's delta, 256 KiB at the most.
const PAGE: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("{subject}: the record at sequence {sequence} is missing, but the one after it expects it")]
    Gap { subject: String, sequence: u64 },
}

/// Everything committed after `after` (a record's sequence, 0 for all) and up
/// to the record at `last`, which the leader named.
///
/// # Errors
/// A record is missing on the leader too, or cannot be read.
pub async fn deltas(
    log: &dyn Log,
    ledger: &str,
    subject: &str,
    after: u64,
    last: u64,
) -> Result<Dirty, Error> {
    let mut dirty = Dirty::default();
    let mut at = after;
    while at < last {
        let page = log.scan(ledger, subject, at + 1, PAGE).await?;
        let mut moved = false;
        for stored in page {
            if stored.sequence > last {
                break;
            }
            let record = Record::decode(&stored)?;
            if record.previous != at {
                break;
            }
            moved = true;
            at = stored.sequence;
            dirty.merge(record.keys, at);
        }
        if !moved {
            // A replica that lags, or a gap: the leader knows.
            for (sequence, record) in from_leader(log, ledger, subject, at, last).await? {
                dirty.merge(record.keys, sequence);
            }
            at = last;
        }
    }
    Ok(dirty)
}

/// Follows the records back from `last` to `after`, each named by the next.
async fn from_leader(
    log: &dyn Log,
    ledger: &str,
    subject: &str,
    after: u64,
    last: u64,
) -> Result<VecDeque<(u64, Record)>, Error> {
    let mut records = VecDeque::new();
    let mut sequence = last;
    while sequence > after {
        let gap = || Error::Gap {
            subject: subject.into(),
            sequence,
        };
        let stored = log.get(ledger, sequence).await?.ok_or_else(gap)?;
        if &*stored.subject != subject {
            return Err(gap());
        }
        let record = Record::decode(&stored)?;
        let previous = record.previous;
        records.push_front((sequence, record));
        sequence = previous;
    }
    if sequence != after {
        return Err(Error::Gap {
            subject: subject.into(),
            sequence: after,
        });
    }
    Ok(records)
}
