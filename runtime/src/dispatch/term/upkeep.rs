//! What a term does beside its events: the bucket catches up with the commits, what is of no
//! use any more is removed, positions of an idle partition move. Nothing here delays a commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::warn;

use super::{End, Flushing, Term};
use crate::commit::record::{Kind, ParkedEvent, Watermark};
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::bucket_stream;
use crate::state::checkpoint::{self, Checkpoint};
use crate::state::meta::Meta;

/// A checkpoint is due when committed changes are this old, …
pub(super) const CHECKPOINT_AFTER: Duration = Duration::from_secs(5);

/// … or when this many bytes of them are kept, …
const CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;

/// … or this many records would have to be replayed.
const CHECKPOINT_RECORDS: u64 = 4_096;

/// Records below the watermark that are left to gather before they are purged:
/// a purge costs the server about 14 ms.
const PURGE_RECORDS: u64 = 2_000;

/// An idle partition moves its position after this many messages for others, …
const IDLE_MESSAGES: u64 = 10_000;

/// … or, if there were any, after this long.
const IDLE_AFTER: Duration = Duration::from_secs(10);

impl Term<'_> {
    // ---- checkpoint ---------------------------------------------------------

    pub(super) fn start_checkpoint(&mut self, now: Instant) {
        let changes_due = self
            .dirty_since
            .is_some_and(|since| now >= since + CHECKPOINT_AFTER)
            || self.tenure.dirty.bytes() >= CHECKPOINT_BYTES.min(self.context.budget.cells() / 2)
            || self
                .workspace
                .as_ref()
                .is_some_and(|w| w.cells.bytes() > self.context.budget.cells());
        // Records without any change are replayed, too, and purged only once they
        // are below a watermark.
        let due = (changes_due && !self.tenure.dirty.is_empty())
            || self.records_since_checkpoint >= CHECKPOINT_RECORDS;
        if self.flushing.is_some() || !due {
            return;
        }
        let dirty = Arc::new(std::mem::take(&mut self.tenure.dirty));
        self.dirty_since = None;
        self.records_since_checkpoint = 0;
        let names: Vec<String> = self.context.source_names().map(String::from).collect();
        let job = Checkpoint {
            names: self.context.names.clone(),
            partition: self.partition,
            ledger_created: self.context.ledger_created,
            checkpointed: self.tenure.checkpointed,
            record: self.tenure.record,
            positions: Meta::positions(
                &names
                    .into_iter()
                    .zip(self.tenure.positions.iter().copied())
                    .collect(),
            ),
            meta: self.tenure.meta,
        };
        let (context, cells) = (self.context.clone(), dirty.clone());
        let write = async move {
            job.write(&*context.log, context.committer.attempts(), &cells)
                .await
        };
        // Its own task: checkpoints go on while this lane waits for something else.
        let write = tokio::spawn(write)
            .map(|done| done.unwrap_or_else(|e| Err(checkpoint::Error::Failed(e.to_string()))));
        self.flushing = Some(Flushing {
            dirty,
            number: self.committed,
            record: self.tenure.record,
            clock: self.tenure.clock,
            result: write.boxed(),
        });
    }

    pub(super) fn flushed(&mut self, result: Result<u64, checkpoint::Error>) -> Result<(), End> {
        let flushing = self.flushing.take().expect("what was flushed was being flushed");
        match result {
            Ok(bucket) => {
                self.tenure.meta = bucket;
                self.tenure.checkpointed = Some(flushing.record);
                self.tenure.watermark = Some(Watermark {
                    record: flushing.record.record,
                    nonce: flushing.record.nonce,
                    bucket,
                });
                self.checkpointed = flushing.number;
                self.forget_ids(flushing.clock);
                if let Some(workspace) = self.workspace.as_mut() {
                    workspace
                        .cells
                        .shrink(self.context.budget.cells(), self.checkpointed);
                }
                Ok(())
            }
            // The record tells who owns the partition; the takeover reads it.
            Err(checkpoint::Error::Fenced) => Err(End::Restart("a checkpoint was fenced".into())),
            Err(checkpoint::Error::Failed(reason)) => {
                Err(End::Restart(format!("a checkpoint failed: {reason}")))
            }
        }
    }

    /// Removes business ids that nobody asks for any more, which by now are all in the
    /// bucket.
    fn forget_ids(&mut self, clock: u64) {
        let Some(dedupe) = &self.context.manifest.dedupe else {
            return;
        };
        let (cells, purged) = dedupe.outdated(clock, self.ids_purged);
        self.ids_purged = Some(purged);
        if cells.is_empty() {
            return;
        }
        let (log, names, partition) = (
            self.context.log.clone(),
            self.context.names.clone(),
            self.partition,
        );
        let below = self.tenure.meta;
        tokio::spawn(async move {
            let bucket = bucket_stream(&names.ledger);
            for cell in cells {
                let filter = names.cell_in_partition(partition, &cell);
                // What is left over costs room, nothing else.
                if let Err(error) = log.purge(&bucket, &filter, below).await {
                    warn!(filter, %error, "business ids of no use any more could not be purged");
                }
            }
        });
    }

    /// Removes what is of no use any more: records below the watermark of a
    /// record that is settled, which is never the last one (rule 2), and fired
    /// timers and redriven events up to the position that it settled.
    pub(super) fn purge(&mut self, settled: Option<Watermark>, parked: &[ParkedEvent]) {
        let Some(watermark) = settled else { return };
        if self.records_since_purge < PURGE_RECORDS {
            return;
        }
        self.records_since_purge = 0;
        let (log, names, partition) = (
            self.context.log.clone(),
            self.context.names.clone(),
            self.partition,
        );
        let position = self.tenure.positions.last().map_or(0, |p| p.sequence);
        let parked = parked.iter().filter(|event| event.source == INTERNAL_SOURCE);
        let internal = parked.map(|event| event.offset - 1).fold(position, u64::min);
        tokio::spawn(async move {
            for (subject, below) in [
                (names.record(partition), watermark.record),
                (names.fired(partition), internal + 1),
                (names.redriven(partition), internal + 1),
            ] {
                // What is left over costs room, nothing else; the next purge takes it along. Records go first:
                // while the first one is there, so is all the rest (`history/own`).
                if let Err(error) = log.purge(&names.ledger, &subject, below).await {
                    warn!(subject, %error, "what is of no use any more could not be purged");
                    return;
                }
            }
        });
    }

    // ---- idle ---------------------------------------------------------------

    /// Moves the positions of a partition that has nothing to do, so that a
    /// restart does not read the sources again. Only messages that were really
    /// handed out count: commit records of this very move do not (rule 14).
    pub(super) async fn move_if_idle(&mut self, now: Instant) -> Result<(), End> {
        // How far was seen has to be asked before the channel is found empty:
        // what is handed out after that is not counted.
        let mut seen: Vec<Option<Position>> = self
            .lane
            .feeds
            .iter()
            .map(|feed| feed.progress.seen(self.partition, self.lane.epoch))
            .collect();
        while let Ok(chunk) = self.lane.chunks.try_recv() {
            self.accept(chunk);
        }
        let at_rest = self.pending.is_empty()
            && self.flight.is_none()
            && self.retry_at.is_none()
            && !self.shed
            && self
                .workspace
                .as_ref()
                .is_some_and(|w| w.events.is_empty() && w.group.is_empty());
        if !at_rest {
            return Ok(());
        }
        let repeats = self.tenure.quiet.is_some();
        self.look_at_the_one_before().await?;
        for (source, seen) in seen.iter_mut().enumerate() {
            let bound = self.tenure.quiet.as_ref().and_then(|quiet| quiet.bound(source));
            *seen = match (*seen, bound) {
                (Some(seen), Some(bound)) if seen.sequence > bound.sequence => Some(bound),
                (seen, _) => seen,
            };
        }
        let Some(workspace) = self.workspace.as_mut() else {
            return Ok(());
        };
        let ahead = |(position, seen): (&Position, &Option<Position>)| {
            seen.map_or(0, |seen| seen.sequence.saturating_sub(position.sequence))
        };
        let messages: u64 = workspace.positions.iter().zip(&seen).map(ahead).sum();
        // Somebody waits for a generation that is rebuilt.
        let due = messages >= IDLE_MESSAGES || now >= self.moved_at + IDLE_AFTER || repeats;
        if messages == 0 || !due {
            return Ok(());
        }
        for (source, seen) in seen.iter().enumerate() {
            if let Some(seen) = seen.filter(|seen| seen.sequence > workspace.positions[source].sequence) {
                workspace.positions[source] = seen;
                self.accepted[source] = seen;
                self.handed[source] = seen;
            }
        }
        self.submit(Kind::Idle).await;
        Ok(())
    }
}
