//! A lane: the task of one partition of one handler.
//!
//! ```text
//!            ┌────────────────────── fenced ───────────────────────┐
//!            v                                                     │
//!   take over ──> term: accept ─> load ─> execute ─> commit ──> settle
//!            ^                                                     │
//!            └── lost, refused, too large: from the last record ───┘
//! ```
//!
//! A term is one uninterrupted ownership. Whatever goes wrong in it ends it, and
//! the next one begins with a takeover from the last record, never from memory
//! (PROTOCOL rule 3): there is one way to recover, and it is the way every
//! start takes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::context::{HandlerContext, State};
use super::execute::GROUP_EVENTS_MAX;
use super::standby::{self, Standby};
use super::tenure::{self, Claim, Failure};
use super::term::{End, Term};
use crate::commit::record::Record;
use crate::log::Stored;
use crate::model::position::Position;
use crate::source::feed::{Chunk, Command, FeedHandle};

/// How often a standby looks at the owner's last record.
const STANDBY_LOOK: Duration = Duration::from_millis(500);

/// Pause before a partition is taken over again after trouble, with jitter.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Pause while something has to be mended by somebody.
const STOPPED_PAUSE: Duration = Duration::from_secs(3);

/// The task of one partition.
pub struct Lane {
    /// In the version that executes.
    pub context: Arc<HandlerContext>,
    /// In the version that is to execute; changes between two groups.
    pub versions: watch::Receiver<Arc<HandlerContext>>,
    pub partition: u32,
    pub chunks: mpsc::Receiver<Chunk>,
    /// By index of the source.
    pub feeds: Vec<FeedHandle>,
    /// Becomes true when the host drains.
    pub drain: watch::Receiver<bool>,
    /// Of the last request to the feeds; chunks of earlier ones are dropped.
    pub epoch: u64,
}

impl Lane {
    pub fn new(
        mut versions: watch::Receiver<Arc<HandlerContext>>,
        partition: u32,
        chunks: mpsc::Receiver<Chunk>,
        feeds: Vec<FeedHandle>,
        drain: watch::Receiver<bool>,
    ) -> Lane {
        let context = versions.borrow_and_update().clone();
        Lane {
            context,
            versions,
            partition,
            chunks,
            feeds,
            drain,
            epoch: 0,
        }
    }

    /// Runs until the host drains.
    pub async fn run(mut self) {
        let mut claim = Claim::Any;
        let mut group_events_max = GROUP_EVENTS_MAX;
        let mut untakeable = None;
        let budget = self.context.budget.clone();
        let _share = budget.share();
        while !*self.drain.borrow() {
            self.take_version();
            let context = self.context.clone();
            let Some(taken) = self
                .dropping_chunks(tenure::take_over(&context, self.partition, claim))
                .await
            else {
                break;
            };
            let end = match taken {
                Ok(tenure) => {
                    claim = Claim::Own;
                    self.show(State::Running, None);
                    let max = std::mem::replace(&mut group_events_max, GROUP_EVENTS_MAX);
                    let term = Term::new(&mut self, tenure, max, untakeable.take());
                    let (end, left) = term.run().await;
                    if let Some(left) = left
                        && self.dropping_chunks(left).await.is_none()
                    {
                        break;
                    }
                    end
                }
                Err(Failure::Fenced(host)) => {
                    info!(
                        owner = host,
                        partition = self.partition,
                        "another host owns the partition"
                    );
                    End::Fenced
                }
                Err(Failure::Unavailable(reason)) => End::Restart(reason),
                Err(Failure::Stopped(reason)) => End::Stopped(reason),
            };
            self.context.lane(self.partition).set_waiting(0);
            match end {
                End::Drained => break,
                End::Fenced => {
                    self.context.metrics.fenced();
                    warn!(
                        handler = self.context.manifest.name,
                        partition = self.partition,
                        "fenced: another host took the partition over; standing by"
                    );
                    if self.stand_by().await {
                        claim = Claim::Any;
                    }
                }
                End::Restart(reason) => {
                    warn!(
                        handler = self.context.manifest.name,
                        partition = self.partition,
                        reason,
                        "starting over from the last record"
                    );
                    self.show(State::Starting, Some(reason));
                    self.pause(RESTART_PAUSE.mul_f64(rand::random_range(0.5..1.5)))
                        .await;
                }
                End::TooLarge {
                    reason,
                    events,
                    event,
                } if events > 1 || event.is_some() => {
                    group_events_max = (events / 2).max(1);
                    untakeable = event;
                    warn!(
                        partition = self.partition,
                        group_events_max, reason, "committing smaller groups"
                    );
                }
                End::TooLarge { reason, .. } | End::Stopped(reason) => {
                    error!(
                        handler = self.context.manifest.name,
                        partition = self.partition,
                        reason,
                        "partition stopped"
                    );
                    self.show(State::Stopped, Some(reason));
                    self.pause(STOPPED_PAUSE).await;
                }
                End::Broken(reason) => {
                    error!(
                        handler = self.context.manifest.name,
                        partition = self.partition,
                        reason,
                        "partition stopped for good"
                    );
                    self.show(State::Stopped, Some(reason));
                    // Other code may do better.
                    let mut versions = self.versions.clone();
                    if self.dropping_chunks(versions.changed()).await.is_none() {
                        break;
                    }
                }
            }
        }
    }

    /// From here on, the latest version executes.
    pub fn take_version(&mut self) {
        self.context = self.versions.borrow_and_update().clone();
        self.context.lane(self.partition).set_version(&self.context);
    }

    pub fn show(&self, state: State, reason: Option<String>) {
        self.context.lane(self.partition).set(state, reason);
    }

    /// Asks the feeds for everything after `positions`. Chunks of earlier
    /// requests are dropped from here on.
    pub fn ask(&mut self, positions: &[Position]) {
        self.epoch += 1;
        for (feed, position) in self.feeds.iter().zip(positions) {
            // The feeds live as long as their lanes do.
            let _ = feed.commands.send(Command::From {
                partition: self.partition,
                epoch: self.epoch,
                position: *position,
            });
        }
    }

    async fn pause(&mut self, pause: Duration) {
        self.dropping_chunks(tokio::time::sleep(pause)).await;
    }

    /// Waits for `work` and drops what the feeds send meanwhile, so that they
    /// never wait for this lane. `None` if the host drains first.
    async fn dropping_chunks<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                Some(_) = self.chunks.recv() => {}
                _ = self.drain.wait_for(|drain| *drain) => return None,
            }
        }
    }

    /// Watches the owner. Returns true when it is time to take the partition
    /// back, false if the host drains.
    async fn stand_by(&mut self) -> bool {
        let patience = standby::PATIENCE + standby::JITTER.mul_f64(rand::random());
        let mut standby: Option<Standby> = None;
        loop {
            let context = self.context.clone();
            let subject = context.names.record(self.partition);
            let Some(last) = self
                .noting(&mut standby, context.log.last(&context.names.ledger, &subject))
                .await
            else {
                return false;
            };
            match last {
                Ok(Some(stored)) => match self.positions(&stored) {
                    Ok((host, positions)) => {
                        self.show(State::Standby, Some(format!("owned by host {host}")));
                        let standby = standby.get_or_insert_with(|| {
                            self.ask(&positions);
                            Standby::new(stored.sequence, positions.clone(), patience)
                        });
                        if standby.observe(stored.sequence, &positions, Instant::now()) {
                            info!(
                                partition = self.partition,
                                owner = host,
                                "the owner has not moved while there is work; taking over"
                            );
                            return true;
                        }
                    }
                    Err(reason) => self.show(State::Standby, Some(reason)),
                },
                // Its records are gone: a takeover finds out what that means.
                Ok(None) => return true,
                Err(error) => self.show(State::Standby, Some(error.to_string())),
            }
            if self
                .noting(&mut standby, tokio::time::sleep(STANDBY_LOOK))
                .await
                .is_none()
            {
                return false;
            }
        }
    }

    /// Waits for `work` and notes in `standby` which events exist. `None` if the host drains.
    async fn noting<T>(&mut self, standby: &mut Option<Standby>, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                Some(chunk) = self.chunks.recv() => {
                    if let (Some(standby), true) = (standby.as_mut(), chunk.epoch == self.epoch) {
                        for queued in &chunk.events {
                            standby.saw(chunk.source, queued.event.offset);
                        }
                    }
                }
                _ = self.drain.wait_for(|drain| *drain) => return None,
            }
        }
    }

    fn positions(&self, stored: &Stored) -> Result<(String, Vec<Position>), String> {
        let record = Record::decode(stored).map_err(|e| e.to_string())?;
        self.context
            .lane(self.partition)
            .record
            .store(stored.sequence, Ordering::Relaxed);
        let positions = self
            .context
            .source_names()
            .map(|name| record.positions.get(name).copied().unwrap_or_default())
            .collect();
        Ok((record.host, positions))
    }
}
