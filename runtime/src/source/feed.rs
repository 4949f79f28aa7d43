//! Reads one source of one handler, once for all its partitions, and hands each
//! lane its events in order.
//!
//! 1. A lane asks for events after a position with [`Command::From`]. The reader
//!    is moved back if it is past that point.
//! 2. Messages are decoded and sorted by partition; a lane gets those at or after
//!    the sequence it still needs, so that a reader moved back for one lane
//!    repeats nothing to the others.
//! 3. A lane that is slow stops the reader by its full channel. A lane that
//!    waits (a retry's backoff, another owner) drops what it gets and asks again
//!    from its position later, so that it holds up nobody.
//! 4. After each read, [`Progress`](super::progress::Progress) says how far the
//!    source has been seen: a lane without events of its own may move its position
//!    there.
//!
//! Where subjects have the partition's number as a token, each partition has a feed of its
//! own, with a filter of its own, which reads while its lane asks. A consumer with several
//! filters would do, and was seen to be 25 times slower (nats-server 2.15.1).
//!
//! Whoever reads from a position must know that the stream is still the one that
//! it was taken in ([`identity`](super::identity), PROTOCOL rule 6). The reader is opened *before* that is
//! asked, and ends by itself where anything breaks, a connection or a consumer:
//!
//! ```text
//!   open reader ──> ask for identity ──> read ... read ──> reader ends ──> open reader
//!        └──────── no break in here, or the reader ends ──────┘
//! ```
//!
//! A lane whose position is not in the stream gets nothing, is shown as stopped,
//! and is looked at again every few seconds; the others go on.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::decode::{Decoded, Decoder, Queued, Undecodable};
use super::lanes::{Lanes, Verdict};
use super::progress::{Lost, SharedProgress};
use crate::log::{self, Reader, SharedLog, Stored, StreamState};
use crate::model::position::Position;

/// Chunks that wait in a lane's channel. Each holds one read's events of the
/// lane, so this bounds how far a source runs ahead of its slowest lane.
pub const CHUNKS_MAX: usize = 4;

/// How long a stopped source waits before it is looked at again.
const STOPPED_PAUSE: Duration = Duration::from_secs(3);

/// Pause before another reader is opened where NATS does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long there may be no reader before the source is shown as stopped: a
/// server that restarts is back in less.
const UNAVAILABLE_AFTER: Duration = Duration::from_secs(10);

/// A reader that lasted so long without a message was at work: one that gets no answer
/// at all gives up well before.
const SOUND_AFTER: Duration = Duration::from_secs(30);

/// How long more lanes are waited for before the reader is placed: at start all
/// of them ask within a moment, and each may ask for an earlier sequence.
const GATHER: Duration = Duration::from_millis(30);

/// Messages that are gathered before they are handed out, while more are known
/// to be on their way: each hand-out wakes every lane that has events in it.
const HAND_OUT_MESSAGES: usize = 4_000;

/// How long they are gathered at the most.
const HAND_OUT_WAIT: Duration = Duration::from_millis(4);

/// What a lane receives.
#[derive(Debug)]
pub struct Chunk {
    pub source: u16,
    /// Echo of the command's epoch: older chunks are of an older request.
    pub epoch: u64,
    pub events: Vec<Queued>,
}

/// What a lane asks for.
#[derive(Debug)]
pub enum Command {
    /// Events of `partition` after `position`, marked with `epoch`.
    From {
        partition: u32,
        epoch: u64,
        position: Position,
    },
    /// `partition` wants nothing until it asks again.
    Leave { partition: u32 },
}

/// A lane's end of a feed.
#[derive(Debug, Clone)]
pub struct FeedHandle {
    pub commands: mpsc::UnboundedSender<Command>,
    pub progress: SharedProgress,
}

/// The task that reads one source.
pub struct Feed {
    log: SharedLog,
    filters: Vec<String>,
    decoder: Decoder,
    lanes: Lanes,
    commands: mpsc::UnboundedReceiver<Command>,
    progress: SharedProgress,
    /// The stream that is read, and the last message of it that was handed out.
    at: Position,
    lost: Lost,
    /// Up to here, what cannot be decoded was counted.
    undecodable_up_to: u64,
    /// Since when there has been no reader.
    unavailable_since: Option<Instant>,
}

/// Reads on while the server says that there is more, so that under load lanes
/// get their events by the hundred. A message that comes alone is not held back.
async fn gather(
    reader: &mut dyn Reader,
    messages: &mut Vec<Stored>,
    mut unread: u64,
) -> Result<u64, log::Error> {
    let deadline = Instant::now() + HAND_OUT_WAIT;
    while unread > 0 && messages.len() < HAND_OUT_MESSAGES {
        match tokio::time::timeout_at(deadline, reader.next(messages)).await {
            Ok(read) => unread = read?,
            Err(_) => break,
        }
    }
    Ok(unread)
}

enum Stop {
    /// No lane is left.
    Ended,
    /// Placed anew on a lane's request.
    Replace,
    /// Something broke, or NATS does not answer.
    Unavailable(String),
    /// The source is not usable, for these reasons.
    Unusable(Vec<String>),
}

impl From<log::Error> for Stop {
    fn from(error: log::Error) -> Stop {
        match error {
            log::Error::Unavailable(reason) => Stop::Unavailable(reason),
            log::Error::NoStream(name) => Stop::Unusable(vec![format!(
                "stream {name} does not exist; create it, or remove the source from the handler"
            )]),
            other => Stop::Unusable(vec![other.to_string()]),
        }
    }
}

impl Feed {
    /// Starts the task. `lanes` are the partitions' channels.
    pub fn start(
        log: SharedLog,
        filters: Vec<String>,
        decoder: Decoder,
        lanes: BTreeMap<u32, mpsc::Sender<Chunk>>,
    ) -> FeedHandle {
        let (sender, commands) = mpsc::unbounded_channel();
        let progress = SharedProgress::default();
        let feed = Feed {
            log,
            filters,
            decoder,
            lanes: Lanes::new(lanes),
            commands,
            progress: progress.clone(),
            at: Position::default(),
            lost: Lost::default(),
            undecodable_up_to: 0,
            unavailable_since: None,
        };
        tokio::spawn(feed.run());
        FeedHandle {
            commands: sender,
            progress,
        }
    }

    async fn run(mut self) {
        loop {
            if !self.lanes.any_asks() {
                // What is to come is for others to count.
                self.progress.update(|p| p.unread = 0);
                self.show_stopped(Vec::new());
                let Some(command) = self.commands.recv().await else {
                    return;
                };
                self.accept(command);
            }
            if !self.gather().await {
                return;
            }
            if !self.lanes.any_asks() {
                continue;
            }
            let pause = match self.read().await {
                Stop::Ended => return,
                Stop::Replace => continue,
                Stop::Unavailable(reason) => {
                    warn!(
                        stream = &*self.decoder.stream,
                        reason, "source not readable; trying again"
                    );
                    let since = *self.unavailable_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNAVAILABLE_AFTER {
                        self.show_stopped(vec![format!(
                            "stream {} cannot be read: {reason}",
                            self.decoder.stream
                        )]);
                    }
                    RETRY_PAUSE
                }
                Stop::Unusable(reasons) => {
                    self.show_stopped(reasons);
                    STOPPED_PAUSE
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.accept(command),
                    None => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes the commands that come in quick succession. `false`: nobody is left to send any.
    async fn gather(&mut self) -> bool {
        loop {
            match tokio::time::timeout(GATHER, self.commands.recv()).await {
                Ok(Some(command)) => self.accept(command),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    fn accept(&mut self, command: Command) {
        let partition = match command {
            Command::From {
                partition,
                epoch,
                position,
            } => {
                self.lanes.ask(partition, epoch, position);
                partition
            }
            Command::Leave { partition } => {
                self.lanes.leave(partition);
                partition
            }
        };
        // Until the position is checked and the reader placed, the lane must not
        // take what it has not been handed for seen.
        self.progress.update(|p| p.epochs.remove(&partition));
    }

    async fn read(&mut self) -> Stop {
        let mut reader = match self.open().await {
            Ok(reader) => reader,
            Err(stop) => return stop,
        };
        let opened = Instant::now();
        let mut messages: Vec<Stored> = Vec::new();
        let mut look_again = tokio::time::interval_at(opened + STOPPED_PAUSE, STOPPED_PAUSE);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let some_stopped = self.lanes.any_is_stopped();
            let unread = tokio::select! {
                biased;
                command = self.commands.recv() => {
                    let Some(command) = command else { return Stop::Ended };
                    self.accept(command);
                    while let Ok(command) = self.commands.try_recv() {
                        self.accept(command);
                    }
                    match self.look(|verdict| verdict == Verdict::Unchecked).await {
                        Ok(()) => continue,
                        Err(stop) => return stop,
                    }
                }
                _ = look_again.tick(), if some_stopped => {
                    match self.look(|verdict| verdict != Verdict::Sound).await {
                        Ok(()) => continue,
                        Err(stop) => return stop,
                    }
                }
                read = reader.next(&mut messages) => match read {
                    Ok(unread) => unread,
                    // Whatever it was: the next look at the stream says what is wrong.
                    Err(error) => {
                        if opened.elapsed() >= SOUND_AFTER {
                            self.unavailable_since = None;
                        }
                        return Stop::Unavailable(error.to_string());
                    }
                },
            };
            self.unavailable_since = None;
            let unread = match gather(&mut *reader, &mut messages, unread).await {
                Ok(unread) => unread,
                // What was read is good; the next call says what is wrong.
                Err(_) => unread,
            };
            if !self.distribute(&mut messages).await {
                return Stop::Ended;
            }
            self.progress.update(|p| {
                p.position = self.at;
                p.unread = unread;
            });
        }
    }

    /// A reader at the lowest position that is in the stream.
    async fn open(&mut self) -> Result<Box<dyn Reader>, Stop> {
        let mut from = self.lanes.lowest_wanted().map(|lowest| lowest.sequence + 1);
        loop {
            let reader = match from {
                Some(from) => Some(self.log.read(&self.decoder.stream, &self.filters, from).await?),
                None => None,
            };
            let state = self.check(|_| true).await?;
            match (reader, self.lanes.lowest_sound()) {
                (_, None) => return Err(Stop::Unusable(self.lanes.reasons(&state))),
                (Some(reader), Some(lowest)) if from == Some(lowest.sequence + 1) => {
                    self.place(lowest, &state);
                    return Ok(reader);
                }
                // A lane that asked for less is stopped, or one goes on: begin where the others are.
                (_, Some(lowest)) => from = Some(lowest.sequence + 1),
            }
        }
    }

    /// The reader is after `lowest`.
    fn place(&mut self, lowest: Position, state: &StreamState) {
        self.at = Position {
            created: state.created,
            ..lowest
        };
        self.progress.update(|p| p.position = self.at);
        self.take_up();
        self.show_stopped(self.lanes.reasons(state));
        // From its ledger Weir itself removes what is done with, and nothing else is lost there.
        let ledger = *self.decoder.stream == *self.decoder.names.ledger;
        if lowest.created != 0 && !ledger {
            self.count_lost(lowest.sequence + 1, state);
        }
    }

    async fn check(&mut self, which: impl Fn(Verdict) -> bool) -> Result<StreamState, log::Error> {
        self.lanes.check(&*self.log, &self.decoder.stream, which).await
    }

    /// Checks lanes while a reader is at work. It is placed anew if one of them
    /// needs what it has passed.
    async fn look(&mut self, which: impl Fn(Verdict) -> bool) -> Result<(), Stop> {
        let state = self.check(which).await?;
        let lowest = self.lanes.lowest_sound().map(|lowest| lowest.sequence);
        if state.created != self.at.created || lowest.is_none_or(|lowest| lowest < self.at.sequence) {
            return Err(Stop::Replace);
        }
        self.take_up();
        self.show_stopped(self.lanes.reasons(&state));
        Ok(())
    }

    /// From here on, lanes whose positions are in the stream may go by what was seen.
    fn take_up(&mut self) {
        let epochs = self.lanes.epochs();
        self.progress.update(|p| p.epochs = epochs);
    }

    /// Shows why the source is stopped, if it is; says so once.
    fn show_stopped(&self, reasons: Vec<String>) {
        let before = self
            .progress
            .update(|p| std::mem::replace(&mut p.stopped, reasons.clone()));
        for reason in reasons.iter().filter(|reason| !before.contains(reason)) {
            warn!(stream = &*self.decoder.stream, reason, "source stopped");
        }
        if reasons.is_empty() && !before.is_empty() {
            info!(stream = &*self.decoder.stream, "source goes on");
        }
    }

    /// Counts what was removed before the reader came to it.
    fn count_lost(&mut self, from: u64, state: &StreamState) {
        let lost = self.lost.add(state.created, from..state.first.max(from));
        if lost > 0 {
            warn!(
                handler = self.decoder.names.handler,
                stream = &*self.decoder.stream,
                from,
                first = state.first,
                lost,
                "messages were removed before every partition had read them"
            );
            self.progress.update(|p| p.lost += lost);
        }
    }

    /// Hands out what was read. `false`: no lane is left.
    async fn distribute(&mut self, messages: &mut Vec<Stored>) -> bool {
        let mut at = self.at;
        let mut events: BTreeMap<u32, Vec<Queued>> = BTreeMap::new();
        for stored in messages.drain(..) {
            let (sequence, time) = (stored.sequence, stored.time);
            let what = self.decoder.decode(stored);
            if matches!(what, Decoded::Own) {
                // Not seen, as far as positions go: the record that moves a position
                // would be the reason to move it again (rule 14).
                continue;
            }
            (at.sequence, at.stored) = (sequence, time);
            match what {
                Decoded::Event(partition, queued) if self.lanes.needs(partition, sequence) => {
                    events.entry(partition).or_default().push(queued);
                }
                Decoded::Event(..) | Decoded::Own => {}
                Decoded::Undecodable(what) => self.undecodable(&what),
            }
        }
        self.lanes.send(self.decoder.source, events).await;
        self.lanes.handed(at);
        self.at = at;
        !self.lanes.is_empty()
    }

    /// Counts what cannot be decoded, and says so.
    fn undecodable(&mut self, what: &Undecodable) {
        if what.sequence <= self.undecodable_up_to {
            return; // the reader went back, and has come to it again
        }
        self.undecodable_up_to = what.sequence;
        warn!(
            handler = self.decoder.names.handler,
            stream = &*self.decoder.stream,
            subject = &*what.subject,
            sequence = what.sequence,
            reason = what.reason,
            "a message of Weir's own cannot be read; nobody handles it"
        );
        self.progress.update(|p| p.undecodable += 1);
    }
}
