//! One event on a stage, from its turn to its commit.

use anyhow::{Context as _, bail};
use tokio::sync::oneshot;
use tracing::dispatcher;

use super::outcome::{Attempt, Course, Outcome};
use super::{Partition, Stage};
use crate::commit::committer::{Settlement, Submission};
use crate::commit::group::Group;
use crate::commit::record::{KeyDelta, Kind, Record};
use crate::dispatch::execute::{Ended, Workspace, is_stale};
use crate::dispatch::parked::{PARKED_MAX, Parked};
use crate::log::{Append, Log};
use crate::model::event::Event;
use crate::model::position::Position;
use crate::model::subjects::nothing;
use crate::source::decode::Queued;
use crate::state::cells::Cells;

/// Commits between two removals of what the log in memory holds and nobody reads any more: often
/// enough that it stays small, seldom enough to cost nothing.
const FORGET_EVERY: u64 = 64;

impl Stage {
    /// Runs one event, or without it the first parked one that is ready, and commits what
    /// it did. `None`: it did not come to its turn, or was a timer of no account.
    pub(super) async fn play(
        &mut self,
        number: u32,
        event: Event,
        queued: Option<Queued>,
    ) -> anyhow::Result<Option<Outcome>> {
        let mut partition = self.partitions.remove(&number).unwrap_or_default();
        let mut workspace = match partition.workspace.take() {
            Some(workspace) => workspace,
            None => Box::new(self.workspace()),
        };
        let before = workspace.cells.get(&event.key).cloned().unwrap_or_default();
        let stale = is_stale(&event, &before);
        let (mut workspace, course) = self.execute(workspace, number, queued).await?;

        let (group, ..) = workspace.take_group();
        let (events, shares) = (group.events, group.shares());
        let (messages, keys) = group.finish(&self.context.names, number);
        let outcome = Outcome::read(
            &self.context.names,
            number,
            &event,
            &before,
            (&messages, &keys),
            course,
        );
        for delta in &keys {
            self.timers.update(delta);
        }
        let record = self.record(&workspace, &partition, keys, events);
        partition.record = self.commit(number, messages, shares, record).await?;
        partition.workspace = Some(workspace);
        self.partitions.insert(number, partition);
        self.commits += 1;
        if self.commits.is_multiple_of(FORGET_EVERY) {
            self.forget().await?;
        }
        Ok((!stale && events > 0).then_some(outcome))
    }

    /// Removes what was committed and nobody reads: all but timers, the last records, and what is shared.
    async fn forget(&self) -> anyhow::Result<()> {
        let names = &self.context.names;
        let others = [
            names.outbox_all(),
            names.dead_letters_all(),
            nothing(&names.ledger),
        ];
        let emitted = self.context.manifest.emit.iter().cloned().chain(others);
        let records = self.partitions.iter();
        let records = records.map(|(number, partition)| (names.record(*number), partition.record));
        let fired = (names.fired_all(), self.fired_from);
        let past = emitted.map(|subject| (subject, u64::MAX)).chain(records);
        for (subject, below) in past.chain([fired]) {
            self.log.purge(&names.ledger, &subject, below).await?;
        }
        Ok(())
    }

    /// As a partition is that no host had before.
    fn workspace(&self) -> Workspace {
        let begin = |created: &u64| Position {
            created: *created,
            ..Position::default()
        };
        Workspace {
            instance: None,
            cells: Cells::default(),
            clock: 0,
            timer_generation: 0,
            positions: self.created.iter().map(begin).collect(),
            events: Default::default(),
            waiting_bytes: 0,
            group: Group::default(),
            number: 1,
            blank: true,
            // What each of them did is shown.
            group_events_max: 1,
            sealed: false,
            untakeable: None,
            parked: Parked::default(),
            quiet: None,
            undo: None,
        }
    }

    /// Runs one event until it is done with: handled, or dead-lettered after its
    /// last attempt.
    async fn execute(
        &self,
        mut workspace: Box<Workspace>,
        partition: u32,
        queued: Option<Queued>,
    ) -> anyhow::Result<(Box<Workspace>, Course)> {
        if let Some(queued) = queued {
            workspace.waiting_bytes += queued.bytes;
            workspace.events.push_back(queued);
        }
        let mut attempts: Vec<Attempt> = Vec::new();
        loop {
            let (context, dispatch) = (self.context.clone(), self.lines.dispatch());
            let ran = self.context.executor().run(move || {
                let ended = dispatcher::with_default(&dispatch, || workspace.run(&context, partition));
                (workspace, ended)
            });
            let ended;
            (workspace, ended) = ran.await.context("the host broke an invariant of its own")?;
            match ended {
                Ended::Waiting => break,
                Ended::Full if !workspace.group.is_empty() => break,
                Ended::Retry { .. } if workspace.parked.len() == PARKED_MAX => {
                    bail!("more than {PARKED_MAX} events wait for locks that nobody gives back")
                }
                Ended::Retry { reason, .. } => {
                    // The next attempt is the same one again, and logs the same.
                    self.lines.take();
                    self.answers.take_asked();
                    attempts.push(Attempt {
                        backoff_ms: self.context.manifest.retry.wait_ms(attempts.len() as u32 + 1),
                        reason,
                    });
                }
                // The time of a run is up before its event began; only the clock of
                // this machine can be the cause.
                Ended::Full => {}
                Ended::Held(_) | Ended::Unrepeatable(_) => {
                    bail!("an event waits for another generation, and there is none")
                }
                Ended::Missing => bail!("a key is not in memory, although nothing is ever evicted"),
            }
        }
        let course = Course {
            log: self.lines.take(),
            attempts,
            requests: self.answers.take_asked(),
        };
        Ok((workspace, course))
    }

    fn record(
        &self,
        workspace: &Workspace,
        partition: &Partition,
        keys: Vec<KeyDelta>,
        events: u64,
    ) -> Record {
        Record {
            positions: self.context.named(&workspace.positions),
            clock: workspace.clock,
            timer_generation: workspace.timer_generation,
            keys,
            events,
            ..self.context.record(Kind::Commit, partition.record)
        }
    }

    async fn commit(
        &self,
        partition: u32,
        messages: Vec<Append>,
        shares: bool,
        record: Record,
    ) -> anyhow::Result<u64> {
        let (reply, settled) = oneshot::channel();
        let message = record.message(self.context.names.record(partition));
        let submission = Submission {
            messages,
            record: message,
            shares,
            reply,
        };
        self.context.committer.submit(submission).await;
        match settled.await.context("the committer ended")? {
            Settlement::Committed(sequence) => Ok(sequence),
            other => bail!("the log did not take what the handler did: {other:?}"),
        }
    }
}
