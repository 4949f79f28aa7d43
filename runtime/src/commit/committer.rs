//! Sends submissions to the ledger and settles what became of them.
//!
//! One committer per host. A submission is one group of one partition; a
//! partition has at most one on its way, so that its fence is known.
//!
//! 1. Take every submission that waits. One that is only a record is an ordinary
//!    publish; the others are packed into atomic batches, records last.
//! 2. `10071`, a stale fence: the server does not say whose. Read the records of
//!    all: those that moved were fenced, the rest go again (rule 1). One that expects
//!    something of shared cells travels alone: where its record has not moved, they have.
//! 3. Busy: nothing happened. Back off beside the queues, so that nobody waits
//!    for it, and go again, each by itself. Busy many times: the lane is told, for
//!    the server's batches may be smaller than the group.
//! 4. No answer: read each record. Ours: committed. Anything else: *lost*, and
//!    the lane settles it with a fenced takeover record (rule 3), since the
//!    append may still arrive.
//! 5. Refused or too large: the lane decides, nothing is skipped (rule 19).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::group::size;
use super::pack;
use super::record::ATTEMPT_HEADER;
use crate::log::{Append, AppendError, SharedLog};

/// Atomic batches of one host under way. The server allows 50 per stream; two
/// keep it busy while one is answered.
const BATCHES_IN_FLIGHT: usize = 2;

/// Single records under way: enough to hide the round trip, few enough that
/// batches do not queue behind them.
const SINGLES_IN_FLIGHT: usize = 64;

/// Submissions that wait in the committer; each lane has at most one.
const WAITING_MAX: usize = 4_096;

/// Sends of one submission that the server abandoned, or fenced for another's
/// sake, before the lane is told: some seconds.
pub const SENDS_MAX: u32 = 20;

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_millis(500);

/// How long a lost reply is looked up before the lane is left to settle it.
const SETTLE_FOR: Duration = Duration::from_secs(5);

/// What a lane wants committed.
#[derive(Debug)]
pub struct Submission {
    /// Everything that becomes visible with the record.
    pub messages: Vec<Append>,
    /// The commit record, with its fence; its attempt header is added here.
    pub record: Append,
    /// Whether `messages` expect something of what others may write: shared cells, locks.
    /// Such a submission travels alone, so that it is known whose expectation failed.
    pub shares: bool,
    pub reply: oneshot::Sender<Settlement>,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Durable; the record has this sequence.
    Committed(u64),
    /// The partition has another owner: nothing was committed, nothing will be.
    Fenced,
    /// A shared cell or lock has changed since it was read. Nothing was committed.
    Conflict,
    /// It may have been committed or may yet be. Only a takeover record tells.
    Lost(String),
    /// The server takes no batch or message of this size. Nothing was committed.
    TooLarge(String),
    /// The server did not take it, many times: it is busy, or takes only smaller
    /// batches, and does not say which (rule 1). Nothing was committed.
    Busy(String),
    /// The server takes nothing until somebody mends something. Nothing was committed.
    Refused(String),
}

/// Hands submissions to the committer's task.
#[derive(Debug, Clone)]
pub struct Committer {
    submissions: mpsc::Sender<Submission>,
    attempts: Arc<Attempts>,
}

/// Gives out attempt ids: unique per send, across processes (rule 3).
#[derive(Debug)]
pub struct Attempts {
    incarnation: String,
    next: AtomicU64,
}

impl Attempts {
    pub fn new(incarnation: &str) -> Arc<Attempts> {
        Arc::new(Attempts {
            incarnation: incarnation.into(),
            next: AtomicU64::new(1),
        })
    }

    pub fn next(&self) -> String {
        format!(
            "{}-{}",
            self.incarnation,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }

    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }
}

struct Waiting {
    submission: Submission,
    sends: u32,
    alone: bool,
    bytes: usize,
    attempt: String,
}

impl pack::Sized for Waiting {
    fn messages(&self) -> usize {
        self.submission.messages.len() + 1
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn alone(&self) -> bool {
        self.alone
    }
}

impl Waiting {
    fn new(submission: Submission) -> Self {
        let bytes = submission.messages.iter().map(size).sum::<usize>() + size(&submission.record);
        Waiting {
            sends: 0,
            alone: submission.shares,
            submission,
            bytes,
            attempt: String::new(),
        }
    }

    fn settle(self, settlement: Settlement) {
        // A lane that is gone has nothing to learn from it.
        let _ = self.submission.reply.send(settlement);
    }
}

impl Committer {
    /// Starts the committer's task; it ends when the last handle is dropped.
    pub fn start(log: SharedLog, ledger: &str, attempts: Arc<Attempts>) -> Committer {
        let (submissions, receiver) = mpsc::channel(WAITING_MAX);
        let sender = Arc::new(Sender {
            log,
            ledger: ledger.into(),
            attempts: attempts.clone(),
        });
        tokio::spawn(run(sender, receiver));
        Committer {
            submissions,
            attempts,
        }
    }

    /// Queues a submission; its settlement comes by its `reply`.
    pub async fn submit(&self, submission: Submission) {
        // The task lives as long as a handle does, so the channel is open.
        let _ = self.submissions.send(submission).await;
    }

    pub fn attempts(&self) -> &Arc<Attempts> {
        &self.attempts
    }
}

/// What became of something under way, with those that have to go again.
enum Landed {
    Batch(Vec<Waiting>),
    Single(Vec<Waiting>),
    /// Has waited long enough to go again.
    Rested(Box<Waiting>),
}

/// Those that wait to be sent.
#[derive(Default)]
struct Queues {
    singles: VecDeque<Waiting>,
    batches: VecDeque<Waiting>,
}

impl Queues {
    fn push(&mut self, waiting: Waiting) {
        match waiting.submission.messages.is_empty() {
            true => self.singles.push_back(waiting),
            false => self.batches.push_back(waiting),
        }
    }
}

async fn run(sender: Arc<Sender>, mut submissions: mpsc::Receiver<Submission>) {
    let mut queues = Queues::default();
    let mut under_way: FuturesUnordered<BoxFuture<'static, Landed>> = FuturesUnordered::new();
    let (mut batches_flying, mut singles_flying) = (0, 0);
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            Some(landed) = under_way.next(), if !under_way.is_empty() => {
                let again = match landed {
                    Landed::Batch(again) => { batches_flying -= 1; again }
                    Landed::Single(again) => { singles_flying -= 1; again }
                    Landed::Rested(waiting) => { queues.push(*waiting); Vec::new() }
                };
                for waiting in again {
                    under_way.push(Box::pin(async move {
                        tokio::time::sleep(backoff(waiting.sends)).await;
                        Landed::Rested(Box::new(waiting))
                    }));
                }
            }
            received = submissions.recv(), if open => {
                let mut next = received;
                open = next.is_some();
                while let Some(submission) = next {
                    queues.push(Waiting::new(submission));
                    next = submissions.try_recv().ok();
                }
            }
        }
        while singles_flying < SINGLES_IN_FLIGHT {
            let Some(waiting) = queues.singles.pop_front() else {
                break;
            };
            let sender = sender.clone();
            singles_flying += 1;
            under_way.push(Box::pin(async move {
                Landed::Single(sender.send(vec![waiting]).await)
            }));
        }
        while batches_flying < BATCHES_IN_FLIGHT && !queues.batches.is_empty() {
            let batch = pack::next_batch(&mut queues.batches);
            let sender = sender.clone();
            batches_flying += 1;
            under_way.push(Box::pin(async move { Landed::Batch(sender.send(batch).await) }));
        }
    }
}

struct Sender {
    log: SharedLog,
    ledger: String,
    attempts: Arc<Attempts>,
}

impl Sender {
    /// Sends one batch and settles what it can. Returns those that must go again.
    async fn send(&self, mut batch: Vec<Waiting>) -> Vec<Waiting> {
        let result = self.log.append(&self.ledger, self.messages(&mut batch)).await;
        match result {
            Ok(appended) => {
                let records = batch.len() as u64;
                for (i, waiting) in batch.into_iter().enumerate() {
                    waiting.settle(Settlement::Committed(appended.sequence + 1 + i as u64 - records));
                }
                Vec::new()
            }
            Err(AppendError::Fenced(_)) => self.part_the_fenced(batch).await,
            Err(AppendError::Busy { code, description }) => {
                debug!(
                    code,
                    description,
                    partitions = batch.len(),
                    "commit not taken; sending again, one by one"
                );
                again(batch, &description)
            }
            Err(AppendError::TooLarge(reason)) if batch.len() > 1 => again(batch, &reason),
            Err(AppendError::TooLarge(reason)) => settle_all(batch, Settlement::TooLarge(reason)),
            Err(AppendError::Refused { code, description }) => settle_all(
                batch,
                Settlement::Refused(format!("{description} (NATS error {code})")),
            ),
            Err(AppendError::Unknown(reason)) => {
                warn!(
                    reason,
                    partitions = batch.len(),
                    "no answer to a commit; reading what became of it"
                );
                self.look_up(batch, reason).await;
                Vec::new()
            }
        }
    }

    /// The batch: all messages, then all records (rule 1). A retry has a new
    /// attempt id, and leaves the submission whole for the next one.
    fn messages(&self, batch: &mut [Waiting]) -> Vec<Append> {
        let count = batch.iter().map(|w| w.submission.messages.len() + 1).sum();
        let mut all = Vec::with_capacity(count);
        for waiting in batch.iter() {
            all.extend(waiting.submission.messages.iter().cloned());
        }
        for waiting in batch.iter_mut() {
            waiting.attempt = self.attempts.next();
            let mut record = waiting.submission.record.clone();
            record
                .headers
                .push((ATTEMPT_HEADER.into(), waiting.attempt.clone()));
            all.push(record);
        }
        all
    }

    async fn part_the_fenced(&self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let mut rest = Vec::new();
        for waiting in batch {
            let record = &waiting.submission.record;
            match self.log.last(&self.ledger, &record.subject).await {
                Ok(last) if last.as_ref().map_or(0, |l| l.sequence) == record.expected.unwrap_or(0) => {
                    match waiting.submission.shares {
                        true => waiting.settle(Settlement::Conflict),
                        false => rest.push(waiting),
                    }
                }
                Ok(_) => waiting.settle(Settlement::Fenced),
                Err(error) => waiting.settle(Settlement::Lost(error.to_string())),
            }
        }
        again(rest, "the server found a stale fence where there is none")
    }

    async fn look_up(&self, batch: Vec<Waiting>, reason: String) {
        let until = Instant::now() + SETTLE_FOR;
        for waiting in batch {
            let settlement = loop {
                match self
                    .log
                    .last(&self.ledger, &waiting.submission.record.subject)
                    .await
                {
                    Ok(Some(last)) if last.header(ATTEMPT_HEADER) == Some(&waiting.attempt) => {
                        break Settlement::Committed(last.sequence);
                    }
                    Ok(_) => break Settlement::Lost(reason.clone()),
                    Err(error) if Instant::now() > until => break Settlement::Lost(error.to_string()),
                    Err(_) => tokio::time::sleep(BACKOFF_LAST).await,
                }
            };
            waiting.settle(settlement);
        }
    }
}

fn settle_all(batch: Vec<Waiting>, settlement: Settlement) -> Vec<Waiting> {
    for waiting in batch {
        waiting.settle(settlement.clone());
    }
    Vec::new()
}

/// Those that go again: by themselves, and not for ever.
fn again(batch: Vec<Waiting>, reason: &str) -> Vec<Waiting> {
    let mut rest = Vec::new();
    for mut waiting in batch {
        waiting.sends += 1;
        waiting.alone = true;
        if waiting.sends >= SENDS_MAX {
            waiting.settle(Settlement::Busy(format!("not taken {SENDS_MAX} times: {reason}")));
        } else {
            rest.push(waiting);
        }
    }
    rest
}

/// Doubles from [`BACKOFF_FIRST`] to [`BACKOFF_LAST`], with jitter of a half, so
/// that hosts which collided do not meet again.
pub fn backoff(sends: u32) -> Duration {
    let full = BACKOFF_LAST.min(BACKOFF_FIRST * 2u32.saturating_pow(sends - 1));
    full.mul_f64(rand::random_range(0.5..1.0))
}
