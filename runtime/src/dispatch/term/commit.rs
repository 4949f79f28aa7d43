//! What a term has executed becomes a submission, and what becomes of that.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{End, Flight, Reached, Term};
use crate::commit::committer::{Settlement, Submission};
use crate::commit::group::Group;
use crate::commit::record::{Kind, Record};
use crate::dispatch::execute::{GROUP_EVENTS_MAX, Untakeable};
use crate::dispatch::tenure::takes_nothing;
use crate::dispatch::undo::Undo;
use crate::state::meta::Mark;

/// Pause, at most, before a group that others were faster than is executed again: it
/// doubles with each time, and is drawn at random, so that they do not meet again.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(64);

impl Term<'_> {
    pub(super) async fn submit(&mut self, kind: Kind) {
        let Some(workspace) = self.workspace.as_mut() else {
            return;
        };
        let names: Vec<&str> = self.context.source_names().collect();
        let parked = workspace.parked.list(&names);
        let (group, number, undo) = workspace.take_group();
        let reached = Reached {
            number,
            positions: workspace.positions.clone(),
            clock: workspace.clock,
            timer_generation: workspace.timer_generation,
            parked,
        };
        self.send(kind, group, undo, reached).await;
    }

    pub(super) async fn send(&mut self, kind: Kind, group: Group, undo: Option<Undo>, reached: Reached) {
        let (events, dead_letters, duplicates) = (group.events, group.dead_letters, group.duplicates);
        let shares = group.shares();
        let (messages, keys) = group.finish(&self.context.names, self.partition);
        let mut record = Record {
            positions: self.context.named(&reached.positions),
            starts: self.tenure.starts.clone(),
            watermark: self.tenure.watermark,
            clock: reached.clock,
            timer_generation: reached.timer_generation,
            keys,
            events,
            ..self.context.record(kind, self.tenure.record.record)
        };
        let quiet = self.tenure.quiet.as_ref();
        let repeats = quiet.and_then(|quiet| quiet.recorded(&reached.positions));
        record.unfinished(reached.parked.clone(), repeats);
        let message = record.message(self.context.names.record(self.partition));
        let (reply, receiver) = oneshot::channel();
        self.flight = Some(Flight {
            since: Instant::now(),
            reply: receiver,
            reached,
            nonce: record.nonce,
            events,
            dead_letters,
            duplicates,
            keys: std::mem::take(&mut record.keys),
            watermark: record.watermark,
            shares,
            undo,
        });
        self.context
            .committer
            .submit(Submission {
                messages,
                record: message,
                shares,
                reply,
            })
            .await;
    }

    pub(super) fn settled(
        &mut self,
        settlement: Result<Settlement, oneshot::error::RecvError>,
    ) -> Result<(), End> {
        let mut flight = self.flight.take().expect("what settled was in flight");
        let sequence = match settlement {
            Ok(Settlement::Committed(sequence)) => sequence,
            Ok(Settlement::Fenced) => return Err(End::Fenced),
            Ok(Settlement::Conflict) => return self.conflicted(flight.undo.take()),
            Ok(Settlement::Lost(reason)) => {
                return Err(End::Restart(format!("a commit's outcome is unknown: {reason}")));
            }
            Ok(Settlement::TooLarge(reason)) => return Err(self.too_large(&flight, reason)),
            Ok(Settlement::Busy(reason)) if flight.events > 1 => {
                let events = flight.events;
                return Err(End::TooLarge {
                    reason,
                    events,
                    event: None,
                });
            }
            Ok(Settlement::Busy(reason)) => {
                return Err(End::Stopped(format!(
                    "ledger {} takes no commit: {reason}; it is tried again until it does",
                    self.context.names.ledger
                )));
            }
            Ok(Settlement::Refused(reason)) => {
                return Err(End::Stopped(takes_nothing(&self.context.names.ledger, &reason)));
            }
            Err(_) => return Err(End::Restart("the committer ended".into())),
        };
        if !flight.keys.is_empty() {
            self.dirty_since.get_or_insert_with(Instant::now);
            self.tenure.dirty.merge(flight.keys, sequence);
        }
        self.tenure.record = Mark {
            record: sequence,
            nonce: flight.nonce,
        };
        self.tenure.positions = flight.reached.positions;
        self.forget_what_is_done();
        self.tenure.clock = flight.reached.clock;
        self.committed = flight.reached.number;
        self.conflicts = 0;
        self.records_since_checkpoint += 1;
        self.records_since_purge += 1;
        self.moved_at = Instant::now();
        if let Some(workspace) = self.workspace.as_mut() {
            workspace.group_events_max = GROUP_EVENTS_MAX.min(workspace.group_events_max * 2);
        }
        self.purge(flight.watermark, &flight.reached.parked);

        let context = &self.context;
        context
            .lane(self.partition)
            .record
            .store(sequence, Ordering::Relaxed);
        context
            .counters
            .events
            .fetch_add(flight.events, Ordering::Relaxed);
        context
            .counters
            .dead_letters
            .fetch_add(flight.dead_letters, Ordering::Relaxed);
        context
            .metrics
            .committed(flight.events, 1, flight.since.elapsed());
        context.metrics.dead_lettered(flight.dead_letters);
        context.metrics.ignored(flight.duplicates);
        Ok(())
    }

    /// Others were faster: nothing of the group counts, and its events are executed again
    /// on what there is now. Nothing was executed on top of it meanwhile.
    pub(super) fn conflicted(&mut self, undo: Option<Undo>) -> Result<(), End> {
        let (Some(undo), Some(workspace)) = (undo, self.workspace.as_mut()) else {
            return Err(End::Restart(
                "a group that shares something cannot be taken back; it is executed anew".into(),
            ));
        };
        undo.restore(workspace);
        self.workspace_bytes = workspace.waiting_bytes;
        self.workspace_events = workspace.events.len();
        self.context.metrics.conflicted();
        let bound = CONFLICT_PAUSE_MAX.min(Duration::from_millis(1) * 2u32.saturating_pow(self.conflicts));
        self.conflicts += 1;
        self.retry_at = Some(Instant::now() + bound.mul_f64(rand::random_range(0.0..1.0)));
        Ok(())
    }

    /// A group that the server will not take at any time. Of one event, that event
    /// is to blame, and must not stop the partition for good.
    pub(super) fn too_large(&self, flight: &Flight, reason: String) -> End {
        let moved = flight.reached.positions.iter().zip(&self.tenure.positions);
        let event = moved
            .enumerate()
            .find(|(_, (reached, before))| reached.sequence > before.sequence)
            .filter(|_| flight.events == 1 && flight.dead_letters == 0)
            .map(|(source, (reached, _))| Untakeable {
                source,
                offset: reached.sequence,
                reason: reason.clone(),
            });
        End::TooLarge {
            reason,
            events: flight.events,
            event,
        }
    }
}
