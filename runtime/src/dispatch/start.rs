//! Where a source begins that a partition has no position for yet.
//!
//! `start = "new"` and a start by time are resolved to one number for all
//! partitions of the handler, and the number is kept in every record from the
//! first takeover on (PROTOCOL rule 7): a partition that starts later, on another
//! host or after a crash, begins where the others did.
//!
//! Partition 0 decides. Its first takeover expects that there is no record, so
//! of two hosts that start at the same time one resolves for both; the other
//! partitions wait for that record, and read it from the leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::commit::record::{self, Record};
use crate::log::{self, SharedLog, Start};
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::HandlerNames;

/// The partition whose first record says where all begin.
pub const DECIDES: u32 = 0;

/// How often that record is looked for, and how long a takeover waits for it
/// before it says so and tries again.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("where stream {0} begins is decided by partition {DECIDES}, which has not begun yet")]
    Undecided(String),
}

/// Starts of one handler's sources.
pub struct Starts {
    log: SharedLog,
    names: HandlerNames,
    /// Those that partition [`DECIDES`] has recorded.
    recorded: Mutex<BTreeMap<String, Position>>,
}

impl Starts {
    pub fn new(log: SharedLog, names: HandlerNames) -> Starts {
        Starts {
            log,
            names,
            recorded: Mutex::default(),
        }
    }

    /// The position at which `partition` begins to read a source named `name`,
    /// on `stream`.
    ///
    /// # Errors
    /// The stream is missing, NATS does not answer, or it is not decided yet.
    pub async fn of(
        &self,
        partition: u32,
        name: &str,
        stream: &str,
        start: Start,
    ) -> Result<Position, Error> {
        // These two mean another sequence each time they are asked for.
        let moves = matches!(start, Start::New | Start::Time(_));
        let begin = Instant::now();
        loop {
            if let Some(position) = self.recorded(name).await? {
                return Ok(position);
            }
            // No event of a partition is internal before its first record.
            if !moves || partition == DECIDES || name == INTERNAL_SOURCE {
                break;
            }
            if begin.elapsed() >= WAIT {
                return Err(Error::Undecided(stream.into()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let state = self.log.stream(stream).await?;
        let first = self.log.resolve(stream, start).await?;
        Ok(Position {
            created: state.created,
            sequence: first.saturating_sub(1),
            stored: 0,
        })
    }

    async fn recorded(&self, name: &str) -> Result<Option<Position>, Error> {
        let mut recorded = self.recorded.lock().await;
        if !recorded.contains_key(name)
            && let Some(stored) = self
                .log
                .last(&self.names.ledger, &self.names.record(DECIDES))
                .await?
        {
            recorded.extend(Record::decode(&stored)?.starts);
        }
        Ok(recorded.get(name).copied())
    }
}
