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
//! 4. After each read, [`Progress`] says how far the source has been seen: a lane
//!    without events of its own may move its position there.
//!
//! Before reading on from a position, the source's identity is checked
//! (PROTOCOL rule 6). A source that is not the one the position was taken in
//! stops, says so, and is looked at again every few seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::decode::{Decoder, Queued};
use crate::log::{self, Reader, SharedLog, Stored};
use crate::model::position::Position;

/// Chunks that wait in a lane's channel. Each holds one read's events of the
/// lane, so this bounds how far a source runs ahead of its slowest lane.
pub const CHUNKS_MAX: usize = 4;

/// How long a stopped source waits before it is looked at again.
const STOPPED_PAUSE: Duration = Duration::from_secs(3);

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
}

/// How far a source has been seen, and why it is not read, for lanes and status.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// Everything up to here was handed out.
    pub position: Position,
    /// Messages still to come, as the server counted at the last read.
    pub unread: u64,
    /// Why the source is stopped.
    pub stopped: Option<String>,
    /// Messages that were gone before they were read.
    pub lost: u64,
    /// Epoch of the last request of each partition that was taken up.
    epochs: BTreeMap<u32, u64>,
}

/// Shared view of a feed's [`Progress`].
#[derive(Debug, Default, Clone)]
pub struct SharedProgress(Arc<Mutex<Progress>>);

impl SharedProgress {
    pub fn get(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far everything was handed to a partition that asked with `epoch`;
    /// `None` while that request has not been taken up.
    pub fn seen(&self, partition: u32, epoch: u64) -> Option<Position> {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (progress.epochs.get(&partition) == Some(&epoch)).then_some(progress.position)
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A lane's end of a feed.
#[derive(Debug, Clone)]
pub struct FeedHandle {
    pub commands: mpsc::UnboundedSender<Command>,
    pub progress: SharedProgress,
}

struct LanePort {
    chunks: mpsc::Sender<Chunk>,
    epoch: u64,
    /// First sequence the lane still needs; `None` until it asks.
    next: Option<u64>,
}

/// The task that reads one source.
pub struct Feed {
    log: SharedLog,
    filters: Vec<String>,
    decoder: Decoder,
    lanes: BTreeMap<u32, LanePort>,
    commands: mpsc::UnboundedReceiver<Command>,
    progress: SharedProgress,
    /// When the stream was created, as the lanes' positions say.
    created: u64,
    /// Sequence of the last message read, and when it was stored.
    at: Position,
}

/// Reads on while the server says that there is more, so that under load lanes
/// get their events by the hundred. A message that comes alone is not held back.
async fn gather(
    reader: &mut dyn Reader,
    messages: &mut Vec<Stored>,
    mut unread: u64,
) -> Result<u64, log::Error> {
    let deadline = tokio::time::Instant::now() + HAND_OUT_WAIT;
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
    /// Placed anew on a lane's request, or after trouble.
    Replace,
    /// The source is not usable, for this reason.
    Unusable(String),
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
        let lanes = lanes
            .into_iter()
            .map(|(p, chunks)| {
                (
                    p,
                    LanePort {
                        chunks,
                        epoch: 0,
                        next: None,
                    },
                )
            })
            .collect();
        let feed = Feed {
            log,
            filters,
            decoder,
            lanes,
            commands,
            progress: progress.clone(),
            created: 0,
            at: Position::default(),
        };
        tokio::spawn(feed.run());
        FeedHandle {
            commands: sender,
            progress,
        }
    }

    async fn run(mut self) {
        loop {
            if self.lanes.values().all(|lane| lane.next.is_none()) {
                let Some(command) = self.commands.recv().await else {
                    return;
                };
                self.accept(command);
            }
            if !self.gather().await {
                return;
            }
            match self.read().await {
                Stop::Ended => return,
                Stop::Replace => {}
                Stop::Unusable(reason) => {
                    warn!(stream = &*self.decoder.stream, reason, "source stopped");
                    self.progress.update(|p| p.stopped = Some(reason));
                    tokio::select! {
                        command = self.commands.recv() => match command {
                            Some(command) => self.accept(command),
                            None => return,
                        },
                        () = tokio::time::sleep(STOPPED_PAUSE) => {}
                    }
                }
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
        let Command::From {
            partition,
            epoch,
            position,
        } = command;
        let Some(lane) = self.lanes.get_mut(&partition) else {
            return;
        };
        lane.epoch = epoch;
        lane.next = Some(position.sequence + 1);
        if position.sequence < self.at.sequence || self.created == 0 {
            self.at = position;
        }
        self.created = position.created;
        // Until the reader is placed, the lane must not take what it has not been handed for seen.
        self.progress.update(|p| {
            p.epochs.insert(partition, epoch);
            if p.position.created != position.created || position.sequence < p.position.sequence {
                p.position = position;
            }
        });
    }

    async fn read(&mut self) -> Stop {
        let from = self
            .lanes
            .values()
            .filter_map(|lane| lane.next)
            .min()
            .unwrap_or(1);
        if let Err(stop) = self.check(from).await {
            return stop;
        }
        let mut reader = match self.log.read(&self.decoder.stream, &self.filters, from).await {
            Ok(reader) => reader,
            Err(error) => return Stop::Unusable(error.to_string()),
        };
        self.progress.update(|p| p.stopped = None);
        let mut messages: Vec<Stored> = Vec::new();
        loop {
            let unread = tokio::select! {
                biased;
                command = self.commands.recv() => {
                    let Some(command) = command else { return Stop::Ended };
                    let before = self.at.sequence;
                    self.accept(command);
                    while let Ok(command) = self.commands.try_recv() {
                        self.accept(command);
                    }
                    if self.at.sequence < before {
                        return Stop::Replace;
                    }
                    continue;
                }
                read = reader.next(&mut messages) => match read {
                    Ok(unread) => unread,
                    Err(log::Error::Unavailable(reason)) => {
                        warn!(stream = &*self.decoder.stream, reason, "source not readable; trying again");
                        return Stop::Replace;
                    }
                    Err(error) => return Stop::Unusable(error.to_string()),
                },
            };
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

    /// PROTOCOL rule 6: is this the stream that the positions are in?
    async fn check(&mut self, from: u64) -> Result<(), Stop> {
        let stream = &self.decoder.stream;
        let unusable = |e: log::Error| match e {
            log::Error::Unavailable(reason) => Stop::Unusable(reason),
            log::Error::NoStream(name) => Stop::Unusable(format!(
                "stream {name} does not exist; create it, or remove the source from the handler"
            )),
            other => Stop::Unusable(other.to_string()),
        };
        let state = self.log.stream(stream).await.map_err(unusable)?;
        let remedy = "start the handler under a new name to read it from its beginning";
        if self.created != state.created {
            return Err(Stop::Unusable(format!(
                "stream {stream} was deleted and created again since this handler read it: {remedy}"
            )));
        }
        if state.last + 1 < from {
            return Err(Stop::Unusable(format!(
                "stream {stream} ends at sequence {}, but this handler read up to {}: it was restored from an \
                 older copy or lost its tail; {remedy}",
                state.last,
                from - 1
            )));
        }
        if self.at.sequence + 1 == from && self.at.stored != 0 {
            let there = self.log.get(stream, self.at.sequence).await.map_err(unusable)?;
            if there.is_some_and(|message| message.time != self.at.stored) {
                return Err(Stop::Unusable(format!(
                    "stream {stream} has another message at sequence {} than this handler read: {remedy}",
                    self.at.sequence
                )));
            }
        }
        if state.first > from {
            let lost = state.first - from;
            info!(
                stream = &**stream,
                from,
                first = state.first,
                "messages were removed before they were read"
            );
            self.progress.update(|p| p.lost += lost);
        }
        self.at = if self.at.sequence + 1 == from {
            self.at
        } else {
            Position {
                created: self.created,
                sequence: from - 1,
                stored: 0,
            }
        };
        Ok(())
    }

    /// Hands out what was read. `false`: no lane is left.
    async fn distribute(&mut self, messages: &mut Vec<Stored>) -> bool {
        let Some(last) = messages.last() else { return true };
        let at = Position {
            created: self.created,
            sequence: last.sequence,
            stored: last.time,
        };
        let mut chunks: BTreeMap<u32, Vec<Queued>> = BTreeMap::new();
        for stored in messages.drain(..) {
            let sequence = stored.sequence;
            let Some((partition, queued)) = self.decoder.decode(stored) else {
                continue;
            };
            if self
                .lanes
                .get(&partition)
                .is_some_and(|lane| lane.next.is_some_and(|next| sequence >= next))
            {
                chunks.entry(partition).or_default().push(queued);
            }
        }
        for (partition, events) in chunks {
            let lane = &self.lanes[&partition];
            let chunk = Chunk {
                source: self.decoder.source,
                epoch: lane.epoch,
                events,
            };
            if lane.chunks.send(chunk).await.is_err() {
                self.lanes.remove(&partition);
            }
        }
        for lane in self.lanes.values_mut() {
            lane.next = lane.next.map(|next| next.max(at.sequence + 1));
        }
        self.at = at;
        !self.lanes.is_empty()
    }
}
