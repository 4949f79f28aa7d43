//! A lane: the task of one partition of one handler.
//!
//! ```text
//!      ┌──────────── fenced, or another host's by now ───────────┐
//!      v                                                         │
//!   wait for its turn ─> take over ─> term: accept ─> load ─> execute ─> commit ─> settle
//!                            ^                                   │
//!                            └─ lost, refused, too large: from the last record
//! ```
//!
//! Its turn is when the partition is to be this host's and no other that is alive
//! holds it ([`membership`](crate::membership)).
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
use super::ownership::{self, Ownership};
use super::tenure::{self, Claim, Failure};
use super::term::{End, Term};
use crate::model::position::Position;
use crate::source::feed::{Chunk, Command, FeedHandle};

/// Pause after another host took the partition over, with jitter: by then each has
/// heard of the other. Doubles with every time in succession, up to the maximum.
const FENCED_PAUSE: Duration = Duration::from_millis(300);
const FENCED_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A term that lasted so long was undisputed.
const UNDISPUTED_AFTER: Duration = Duration::from_secs(5);

/// Pause before a partition is taken over again after trouble, with jitter.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// How long a newer deployment is waited for before the last record is looked at again.
const BEHIND_PAUSE: Duration = Duration::from_secs(2);

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
    /// Becomes true when the host drains, or the handler stops here.
    pub drain: watch::Receiver<bool>,
    pub ownership: Ownership,
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
        ownership: Ownership,
    ) -> Lane {
        let context = versions.borrow_and_update().clone();
        Lane {
            context,
            versions,
            partition,
            chunks,
            feeds,
            drain,
            ownership,
            epoch: 0,
        }
    }

    /// Runs until the host drains.
    pub async fn run(mut self) {
        let mut claim = Claim::Any;
        let mut group_events_max = GROUP_EVENTS_MAX;
        let mut untakeable = None;
        let mut fenced_pause = FENCED_PAUSE;
        let budget = self.context.budget.clone();
        let mut share = None;
        while !*self.drain.borrow() {
            if !self.ownership.mine() {
                (share, claim) = (None, Claim::Any);
            }
            if !self.its_turn().await {
                break;
            }
            self.take_version();
            self.ownership.hold(true);
            share.get_or_insert_with(|| budget.share());
            let began = Instant::now();
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
                        "another host has taken the partition over"
                    );
                    End::Fenced
                }
                Err(Failure::Behind(reason)) => {
                    info!(
                        partition = self.partition,
                        reason, "waiting for a newer deployment"
                    );
                    self.show(State::Starting, Some(reason));
                    let mut versions = self.versions.clone();
                    let news = tokio::time::timeout(BEHIND_PAUSE, versions.changed());
                    self.dropping_chunks(news).await;
                    continue;
                }
                Err(Failure::Newer(reason)) => {
                    if self.ownership.withdraw() {
                        error!(
                            handler = self.context.manifest.name,
                            partition = self.partition,
                            reason,
                            "a newer version of Weir is at work; this host leaves all partitions to it"
                        );
                    }
                    self.release();
                    self.show(State::Stopped, Some(reason));
                    self.pause(STOPPED_PAUSE).await;
                    continue;
                }
                Err(Failure::Unavailable(reason)) => End::Restart(reason),
                Err(Failure::Stopped(reason)) => End::Stopped(reason),
            };
            self.context.lane(self.partition).set_waiting(0);
            if began.elapsed() >= UNDISPUTED_AFTER {
                fenced_pause = FENCED_PAUSE;
            }
            match end {
                // Of a host that drains, the loop ends; else the partition is another's now.
                End::Released => self.release(),
                End::Fenced => {
                    self.release();
                    claim = Claim::Any;
                    self.context.metrics.fenced();
                    warn!(
                        handler = self.context.manifest.name,
                        partition = self.partition,
                        "fenced: another host took the partition over"
                    );
                    let reason = "another host took the partition over".to_owned();
                    self.show(State::Standby, Some(reason));
                    self.pause(fenced_pause.mul_f64(rand::random_range(1.0..2.0)))
                        .await;
                    fenced_pause = (fenced_pause * 2).min(FENCED_PAUSE_MAX);
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
        self.release();
    }

    /// Waits until the partition is this host's to take over. False if the host drains.
    async fn its_turn(&mut self) -> bool {
        let mut forced_at: Option<Instant> = None;
        loop {
            let mine = self.ownership.mine();
            let holder = self.ownership.holder();
            let now = Instant::now();
            match (mine, &holder) {
                (true, None) => return true,
                (true, Some(holder)) => {
                    let at = *forced_at.get_or_insert(now + ownership::RELEASE_MAX);
                    if now >= at {
                        warn!(
                            handler = self.context.manifest.name,
                            partition = self.partition,
                            holder = &**holder,
                            "not released in time; taking the partition over"
                        );
                        return true;
                    }
                    self.show(State::Standby, Some(format!("host {holder} is to release it")));
                }
                (false, _) => {
                    forced_at = None;
                    let reason = match holder.or_else(|| self.ownership.owner()) {
                        Some(host) => format!("owned by host {host}"),
                        None => "this host shares in no partitions".to_owned(),
                    };
                    self.show(State::Standby, Some(reason));
                }
            }
            let mut ownership = self.ownership.watcher();
            let wait = forced_at.map_or(ownership::RELEASE_MAX, |at| at - now);
            let changed = tokio::time::timeout(wait, ownership.changed());
            if self.dropping_chunks(changed).await.is_none() {
                return false;
            }
        }
    }

    /// Everything that was executed is settled: another host may go on.
    fn release(&mut self) {
        for feed in &self.feeds {
            // The feeds live as long as their lanes do.
            let _ = feed.commands.send(Command::Leave {
                partition: self.partition,
            });
        }
        self.ownership.hold(false);
    }

    /// Whether nothing more is to be executed: the host drains, or the partition is
    /// to be another's.
    pub fn leaving(&mut self) -> bool {
        *self.drain.borrow() || !self.ownership.mine()
    }

    /// From here on, the latest version executes.
    pub fn take_version(&mut self) {
        self.context = self.versions.borrow_and_update().clone();
        let status = self.context.lane(self.partition);
        status.revision.store(self.context.revision, Ordering::Relaxed);
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
}
