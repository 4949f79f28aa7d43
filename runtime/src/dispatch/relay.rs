//! The transactional outbox: hands on what handlers emitted for streams beside the ledger.
//!
//! An emit to a subject of `[[outbox]]` is an entry in the ledger, in the same batch as
//! everything else that its event did. The owner of the partition relays entries to their
//! streams, one after the other:
//!
//! ```text
//! 1. publish to the stream, with `Nats-Msg-Id: <ledger>:<when it was created>:<sequence of the entry>`
//! 2. once that is acknowledged, the next one; what the stream does not take is sent again until it does
//! 3. now and then, and when there is nothing left: purge what is acknowledged
//! ```
//!
//! **Twice?** What was sent and not yet purged when a host died is seen again by the next
//! one. Within the stream's duplicate window the server knows the id. Beyond it, the relay
//! looks into the stream before it sends the first entries again; since entries are relayed
//! in order, the first one that is not there ends the looking (PROTOCOL rule 16). A host that
//! slept first reads whether the partition is still its own. What is left: a host that falls
//! asleep between that read and its next publish, for longer than the duplicate window; and
//! a stream that has let go of the message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tracing::warn;

use super::context::HandlerContext;
use crate::commit::group::{TO_HEADER, TO_STREAM_HEADER};
use crate::commit::record::incarnation_of;
use crate::log::{Append, AppendError, Error, Log, Start, Stored};

/// The id by which the stream knows a message that it has.
const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

/// Entries that are acknowledged and not yet purged, at most: what a successor looks up. A
/// purge costs the server some 14 ms.
const UNPURGED_MAX: u64 = 100;

/// … and how long they are left when nothing new comes.
const PURGE_AFTER: Duration = Duration::from_secs(1);

/// How long a partition is believed to be this host's without looking.
const BELIEVED_FOR: Duration = Duration::from_millis(500);

/// Pause before the entries are read again after trouble.
const AGAIN: Duration = Duration::from_secs(1);

/// Pauses between tries of what a stream does not take.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How much earlier than an entry its message can seem to be, by the clocks of two servers.
const CLOCKS_APART_NS: u64 = 60_000_000_000;

/// Relays one partition's entries until it is dropped.
#[derive(Debug)]
pub struct Relay(AbortHandle);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    /// `None` for a handler without an outbox.
    pub fn start(context: &Arc<HandlerContext>, partition: u32) -> Option<Relay> {
        if context.manifest.outbox.is_empty() {
            return None;
        }
        let relaying = run(context.clone(), partition);
        Some(Relay(tokio::spawn(relaying).abort_handle()))
    }
}

async fn run(context: Arc<HandlerContext>, partition: u32) {
    loop {
        match Outbox::new(&context, partition).relay().await {
            // Whoever owns the partition now relays it; the lane ends its term by itself.
            Err(Trouble::NotOurs) => return,
            Err(Trouble::Log(error)) => {
                warn!(handler = context.manifest.name, partition, %error, "the outbox cannot be read; trying again");
            }
            Ok(never) => match never {},
        }
        tokio::time::sleep(AGAIN).await;
    }
}

enum Trouble {
    NotOurs,
    Log(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Log(error)
    }
}

/// One pass over the entries, from the oldest on.
struct Outbox<'a> {
    context: &'a HandlerContext,
    partition: u32,
    subject: String,
    /// Entries may have been sent before, by whoever was here before us.
    may_be_there: bool,
    ours_at: Option<Instant>,
    /// Acknowledged entries that are not purged.
    unpurged: u64,
    /// Sequence of the last one that was acknowledged.
    done: u64,
}

impl<'a> Outbox<'a> {
    fn new(context: &'a HandlerContext, partition: u32) -> Outbox<'a> {
        Outbox {
            context,
            partition,
            subject: context.names.outbox(partition),
            may_be_there: true,
            ours_at: None,
            unpurged: 0,
            done: 0,
        }
    }

    fn log(&self) -> &'a dyn Log {
        &*self.context.log
    }

    async fn relay(&mut self) -> Result<std::convert::Infallible, Trouble> {
        let ledger = &self.context.names.ledger;
        let mut reader = self
            .log()
            .read(ledger, std::slice::from_ref(&self.subject), 1)
            .await?;
        let mut entries = Vec::new();
        loop {
            match tokio::time::timeout(PURGE_AFTER, reader.next(&mut entries)).await {
                Ok(read) => drop(read?),
                Err(_) => self.purge().await,
            }
            for entry in entries.drain(..) {
                self.hand_on(&entry).await?;
                self.done = entry.sequence;
                self.unpurged += 1;
                if self.unpurged >= UNPURGED_MAX {
                    self.purge().await;
                }
            }
        }
    }

    /// Returns once the stream has the entry's message.
    async fn hand_on(&mut self, entry: &Stored) -> Result<(), Trouble> {
        let (Some(to), Some(stream)) = (entry.header(TO_HEADER), entry.header(TO_STREAM_HEADER)) else {
            warn!(
                subject = self.subject,
                sequence = entry.sequence,
                "this is no entry of an outbox; passed over"
            );
            return Ok(());
        };
        let id = self.id(entry);
        if self.may_be_there {
            self.may_be_there = self.is_there(stream, to, &id, entry.time).await?;
            if self.may_be_there {
                return Ok(());
            }
        }
        let message = message(entry, to, &id);
        let mut pause = PAUSE_FIRST;
        let mut failing = None;
        loop {
            self.make_sure_it_is_ours().await?;
            match self.log().append(stream, vec![message.clone()]).await {
                Ok(_) => break,
                Err(error) => {
                    if failing.is_none() {
                        failing = Some(self.context.metrics.outbox_failing());
                        warn!(
                            handler = self.context.manifest.name,
                            partition = self.partition,
                            stream,
                            subject = to,
                            entry = entry.sequence,
                            error = %describe(&error),
                            "an entry of the outbox is not taken; it is sent again until it is, and those behind it wait"
                        );
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.context.metrics.relayed();
        Ok(())
    }

    /// The same in every attempt, and of no other entry of any ledger.
    fn id(&self, entry: &Stored) -> String {
        let (ledger, created) = (&self.context.names.ledger, self.context.ledger_created);
        format!("{ledger}:{created}:{}", entry.sequence)
    }

    /// Whether the stream has the message, which was sent after `time` if it was.
    async fn is_there(&self, stream: &str, subject: &str, id: &str, time: u64) -> Result<bool, Trouble> {
        let since = Start::Time(time.saturating_sub(CLOCKS_APART_NS));
        let from = match self.log().resolve(stream, since).await {
            Ok(from) => from,
            // It has nothing; that it is not there is said when it is to be written.
            Err(Error::NoStream(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // A reader, since streams of others need not allow direct gets.
        let mut reader = self.log().read(stream, &[subject.to_owned()], from).await?;
        let mut left = reader.found();
        let mut messages = Vec::new();
        while left > 0 {
            left = reader.next(&mut messages).await?;
            let has_id = |stored: Stored| stored.header(MESSAGE_ID_HEADER) == Some(id);
            if messages.drain(..).any(has_id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A process that slept may have been replaced: the partition's last record says who has it.
    async fn make_sure_it_is_ours(&mut self) -> Result<(), Trouble> {
        if self.ours_at.is_some_and(|at| at.elapsed() < BELIEVED_FOR) {
            return Ok(());
        }
        let asked = Instant::now();
        let (log, names) = (self.log(), &self.context.names);
        let last = log.last(&names.ledger, &names.record(self.partition)).await?;
        let ours = self.context.committer.attempts().incarnation();
        if last.as_ref().and_then(incarnation_of) != Some(ours) {
            return Err(Trouble::NotOurs);
        }
        self.ours_at = Some(asked);
        Ok(())
    }

    async fn purge(&mut self) {
        if self.unpurged == 0 {
            return;
        }
        let ledger = &self.context.names.ledger;
        // What is left over costs room, and a look by whoever comes next.
        if let Err(error) = self.log().purge(ledger, &self.subject, self.done + 1).await {
            warn!(subject = self.subject, %error, "entries that were handed on could not be purged");
        }
        self.unpurged = 0;
    }
}

/// What goes to the stream: the entry without what only the ledger needed.
fn message(entry: &Stored, to: &str, id: &str) -> Append {
    let own = |name: &str| name == TO_HEADER || name == TO_STREAM_HEADER || name.starts_with("Nats-");
    let mut headers = entry.headers.clone();
    headers.retain(|(name, _)| !own(name));
    headers.push((MESSAGE_ID_HEADER.into(), id.into()));
    Append {
        subject: to.into(),
        headers,
        data: entry.data.clone(),
        ..Append::default()
    }
}

fn describe(error: &AppendError) -> String {
    match error {
        AppendError::Refused { .. } | AppendError::TooLarge(_) => {
            format!("{error}; make the stream take it: its subjects, limits and permissions")
        }
        other => other.to_string(),
    }
}
