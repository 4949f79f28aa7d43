//! Writes committed cells into the state bucket, behind the commits.
//!
//! Each batch ends with the partition's meta, which expects the meta before it.
//! A takeover rewrites meta, so that a replaced owner's batch is refused whole,
//! however long it slept (PROTOCOL rule 8). A batch before the last one leaves
//! `checkpointed` as it was and only moves `newest` (rule 9): after a crash in
//! between, replay writes the same cells again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dirty::Dirty;
use super::load::{COMMIT_HEADER, OPERATION_DELETE, OPERATION_HEADER, Timers};
use super::meta::{Mark, Meta};
use crate::commit::committer::Attempts;
use crate::commit::group::size;
use crate::commit::record::ATTEMPT_HEADER;
use crate::log::{Append, AppendError, Log};
use crate::model::subjects::{HandlerNames, bucket_stream};

/// Cells of one batch: the server's thousand, less the meta and some room.
const CELLS_PER_BATCH: usize = 900;

/// Bytes of one batch, staged in the server's memory.
const BYTES_PER_BATCH: usize = 4 * 1024 * 1024;

/// How long the mark of a deleted cell stays in the bucket: long enough for
/// watchers of the bucket to see it. Weir itself needs none (rule 8).
const DELETED_TTL_S: u64 = 3_600;

/// Sends of a batch that the server is too busy for.
const SENDS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// One checkpoint of one partition.
pub struct Checkpoint {
    pub names: HandlerNames,
    pub partition: u32,
    pub ledger_created: u64,
    /// What meta said before.
    pub checkpointed: Option<Mark>,
    /// Last committed record that `dirty` contains.
    pub record: Mark,
    pub positions: BTreeMap<String, (u64, u64)>,
    /// Sequence of meta in the bucket's stream.
    pub meta: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another owner rewrote meta.
    #[error("the checkpoint was fenced")]
    Fenced,
    #[error("the checkpoint failed: {0}")]
    Failed(String),
}

impl Checkpoint {
    /// Writes all of `dirty`. Returns meta's new sequence, which is also the
    /// bucket sequence at which everything up to `record` is there.
    ///
    /// # Errors
    /// [`Error::Fenced`]: the partition changed hands. [`Error::Failed`]: not
    /// known how far it came; the partition has to be taken over again.
    pub async fn write(&self, log: &dyn Log, attempts: &Attempts, dirty: &Dirty) -> Result<u64, Error> {
        let mut meta = self.meta;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for cell in self.cells(dirty) {
            let grown = size(&cell);
            if batch.len() == CELLS_PER_BATCH || (bytes + grown > BYTES_PER_BATCH && !batch.is_empty()) {
                meta = self
                    .send(log, attempts, std::mem::take(&mut batch), meta, self.checkpointed)
                    .await?;
                bytes = 0;
            }
            bytes += grown;
            batch.push(cell);
        }
        self.send(log, attempts, batch, meta, Some(self.record)).await
    }

    fn cells<'a>(&'a self, dirty: &'a Dirty) -> impl Iterator<Item = Append> + 'a {
        dirty.iter().flat_map(move |(key, changed)| {
            let commit = (COMMIT_HEADER.to_string(), changed.record.to_string());
            let timers = changed.timers.as_ref().map(|timers| {
                let value = (!timers.is_empty()).then(|| {
                    serde_json::to_vec(&Timers::new(timers))
                        .expect("timers are plain data")
                        .into()
                });
                (self.names.timers_cell(self.partition, key), value)
            });
            let cells = changed
                .cells
                .iter()
                .map(|(cell, value)| (self.names.cell(self.partition, key, cell), value.clone()));
            cells.chain(timers).map(move |(subject, value)| match value {
                Some(data) => Append {
                    subject,
                    headers: vec![commit.clone()],
                    data,
                    ..Append::default()
                },
                None => Append {
                    subject,
                    headers: vec![commit.clone(), (OPERATION_HEADER.into(), OPERATION_DELETE.into())],
                    ttl_s: Some(DELETED_TTL_S),
                    ..Append::default()
                },
            })
        })
    }

    async fn send(
        &self,
        log: &dyn Log,
        attempts: &Attempts,
        cells: Vec<Append>,
        expected: u64,
        checkpointed: Option<Mark>,
    ) -> Result<u64, Error> {
        let bucket = bucket_stream(&self.names.ledger);
        let subject = self.names.meta(self.partition);
        let meta = Meta {
            ledger_created: self.ledger_created,
            checkpointed,
            newest: self.record,
            positions: self.positions.clone(),
        };
        for _ in 0..SENDS_MAX {
            let attempt = attempts.next();
            let mut batch = cells.clone();
            batch.push(meta.append(subject.clone(), expected, &attempt));
            match log.append(&bucket, batch).await {
                Ok(appended) => return Ok(appended.sequence),
                Err(AppendError::Fenced(_)) => return Err(Error::Fenced),
                Err(AppendError::Busy { .. }) => tokio::time::sleep(PAUSE).await,
                Err(AppendError::Unknown(reason)) => {
                    let last = log
                        .last(&bucket, &subject)
                        .await
                        .map_err(|e| Error::Failed(e.to_string()))?;
                    return match last {
                        Some(last) if last.header(ATTEMPT_HEADER) == Some(&attempt) => Ok(last.sequence),
                        _ => Err(Error::Failed(reason)),
                    };
                }
                Err(error) => return Err(Error::Failed(error.to_string())),
            }
        }
        Err(Error::Failed(format!("the server was busy {SENDS_MAX} times")))
    }
}
