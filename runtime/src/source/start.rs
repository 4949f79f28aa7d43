//! Where a source begins that a partition has no position for yet.
//!
//! `start = "new"` and a start by time are resolved to one number for all
//! partitions of the handler, and the number is kept in every record from the
//! first takeover on (PROTOCOL rule 7): a partition that starts later, on another
//! host or after a crash, begins where the others did.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use crate::commit::record::{self, Record};
use crate::log::{self, SharedLog, Start};
use crate::model::position::Position;
use crate::model::subjects::HandlerNames;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
}

/// Resolved starts of one handler's sources.
pub struct Starts {
    log: SharedLog,
    names: HandlerNames,
    resolved: Mutex<Option<BTreeMap<String, Position>>>,
}

impl Starts {
    pub fn new(log: SharedLog, names: HandlerNames) -> Starts {
        Starts {
            log,
            names,
            resolved: Mutex::new(None),
        }
    }

    /// The position that a source named `name`, on `stream`, begins at.
    ///
    /// # Errors
    /// The stream is missing, or NATS does not answer; nothing is remembered then.
    pub async fn of(&self, name: &str, stream: &str, start: Start) -> Result<Position, Error> {
        let mut resolved = self.resolved.lock().await;
        if resolved.is_none() {
            *resolved = Some(self.recorded().await?);
        }
        let known = resolved.get_or_insert_default();
        if let Some(position) = known.get(name) {
            return Ok(*position);
        }
        let state = self.log.stream(stream).await?;
        let first = self.log.resolve(stream, start).await?;
        let position = Position {
            created: state.created,
            sequence: first.saturating_sub(1),
            stored: 0,
        };
        known.insert(name.into(), position);
        Ok(position)
    }

    /// Starts that some partition's record has already.
    async fn recorded(&self) -> Result<BTreeMap<String, Position>, Error> {
        let mut starts = BTreeMap::new();
        for stored in self
            .log
            .last_many(&self.names.ledger, &[self.names.records()])
            .await?
            .messages
        {
            starts.extend(Record::decode(&stored)?.starts);
        }
        Ok(starts)
    }
}
