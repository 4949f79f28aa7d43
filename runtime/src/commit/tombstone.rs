//! The end of a partition: its last record, which fences whoever still owns it (PROTOCOL
//! rule 11). Written by whoever removes a handler, and by the generation that takes over from
//! an earlier one.

use std::time::{Duration, Instant};

use super::record::{self, Author, Kind, Record, Watermark};
use crate::log::{self, AppendError, Log};
use crate::model::subjects::HandlerNames;

/// How long owners may go on committing after their end was asked for, before it is given
/// up: it can be repeated.
const END_FOR: Duration = Duration::from_secs(30);

/// Pause before a tombstone is tried again.
const END_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("partition {partition} could not be ended: {reason}; repeat the command")]
    Refused { partition: u32, reason: String },
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Refused { .. } => true,
            Error::Log(error) => error.is_transient(),
            Error::Record(_) => false,
        }
    }
}

/// What becomes of the state of a partition that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It stays to be read.
    Kept,
    /// It is purged next: the tombstone says that nothing is missing in the bucket.
    Purged,
}

/// Commits the tombstone of a partition, also of one that never began: a host that has not
/// heard of the end could begin it. Returns the tombstone, which may have been there already, and
/// the sequence below which no record is of use any more.
///
/// # Errors
/// Of the log; [`Error::Refused`] where its owner is always faster.
pub async fn end(
    log: &dyn Log,
    names: &HandlerNames,
    author: &Author,
    partition: u32,
    state: State,
) -> Result<(Record, u64), Error> {
    let begin = Instant::now();
    let subject = names.record(partition);
    loop {
        let last = log.last(&names.ledger, &subject).await?;
        let sequence = last.as_ref().map_or(0, |last| last.sequence);
        let record = match &last {
            Some(last) => Record::decode(last)?,
            None => Record::new(Kind::Tombstone, 0, author.clone()),
        };
        let covered = record.watermark.map_or(0, |watermark| watermark.record);
        let ended = last.is_some() && record.kind == Kind::Tombstone;
        if ended && state == State::Kept {
            return Ok((record, covered));
        }
        if ended && covered == record.previous {
            return Ok((record, sequence));
        }
        let everything = Watermark {
            record: sequence,
            nonce: record.nonce,
            bucket: record.watermark.map_or(0, |watermark| watermark.bucket),
        };
        let tombstone = Record {
            format: record.format,
            positions: record.positions,
            starts: record.starts,
            watermark: match state == State::Purged && last.is_some() {
                true => Some(everything),
                false => record.watermark,
            },
            clock: record.clock,
            timer_generation: record.timer_generation,
            parked: record.parked,
            repeats: record.repeats,
            ..Record::new(Kind::Tombstone, sequence, author.clone())
        };
        let message = tombstone.message(subject.clone());
        // Its owner may commit once more; whatever happened, the next look tells.
        let reason = match log.append(&names.ledger, vec![message]).await {
            Ok(_) if state == State::Kept => return Ok((tombstone, covered)),
            Ok(appended) => return Ok((tombstone, appended.sequence)),
            Err(AppendError::Fenced(_) | AppendError::Busy { .. } | AppendError::Unknown(_))
                if begin.elapsed() < END_FOR =>
            {
                tokio::time::sleep(END_PAUSE).await;
                continue;
            }
            Err(error) => error.to_string(),
        };
        return Err(Error::Refused { partition, reason });
    }
}
