//! One host's connection to the log in memory. A test says what becomes of the
//! appends that match, and looks at what was sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use weir::commit::record::{self, Record};
use weir::log::memory::MemoryLog;
use weir::log::{
    Append, AppendError, Appended, Error, Log, Reader, Snapshot, Start, Stored, StreamSettings, StreamState,
};

use super::LEDGER;

/// What becomes of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes through.
    Pass,
    /// It is stored, and nobody hears of it.
    LoseReply,
    /// It never arrives, and nobody hears of that either.
    LoseRequest,
    /// The sender gives up on it, and it arrives when the test says so
    /// ([`Link::deliver`]).
    Delay,
    /// It waits, and its sender with it, until the test releases it.
    Hold,
    Fail(AppendError),
}

/// What an append is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records of commits, with their messages.
    Commit,
    Takeover,
    Idle,
    /// Meta alone: the last step of a takeover.
    Meta,
    Checkpoint,
    /// What a host says of itself.
    Status,
    /// Of a deployment, or a piece of its component.
    Deployment,
}

/// An append as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub kind: Kind,
    pub subjects: Vec<String>,
    /// Subjects of the commit records in it.
    pub records: Vec<String>,
    /// Their attempt ids.
    pub attempts: Vec<String>,
}

impl Sent {
    fn of(stream: &str, batch: &[Append]) -> Sent {
        let subjects: Vec<String> = batch.iter().map(|a| a.subject.clone()).collect();
        let is_record = |append: &&Append| append.subject.starts_with(&format!("$WEIR.{LEDGER}.c."));
        let records: Vec<&Append> = batch.iter().filter(is_record).collect();
        let kind = match records.first() {
            Some(append) => {
                let stored = Stored {
                    subject: append.subject.clone().into(),
                    sequence: 0,
                    time: 0,
                    headers: Vec::new(),
                    data: append.data.clone(),
                };
                match Record::decode(&stored).expect("a host sends whole records").kind {
                    record::Kind::Takeover => Kind::Takeover,
                    record::Kind::Idle => Kind::Idle,
                    record::Kind::Commit | record::Kind::Tombstone => Kind::Commit,
                }
            }
            None if stream.ends_with("_hosts") => Kind::Status,
            None if stream.ends_with("_handlers") || stream.ends_with("_artifacts") => Kind::Deployment,
            None if batch.len() == 1 => Kind::Meta,
            None => Kind::Checkpoint,
        };
        let attempt = |append: &&Append| {
            let header = append
                .headers
                .iter()
                .find(|(name, _)| name == record::ATTEMPT_HEADER);
            header.map(|(_, attempt)| attempt.clone())
        };
        Sent {
            kind,
            attempts: records.iter().filter_map(attempt).collect(),
            records: records.iter().map(|a| a.subject.clone()).collect(),
            subjects,
        }
    }
}

type Rule = Box<dyn FnMut(&Sent) -> Fate + Send>;

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    sent: Vec<Sent>,
    delayed: Vec<(String, Vec<Append>)>,
    /// Bulk reads of cells.
    loads: u64,
    /// Subjects of the readers that were opened on sources, oldest first.
    readers: Vec<Vec<String>>,
    /// The next scan of a bucket says that it was asked for, and waits.
    held_scan: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
    /// The host freezes when it has read the last message of this subject.
    freezes_after: Option<String>,
}

/// A connection. Clones are the same one.
#[derive(Clone)]
pub struct Link {
    log: MemoryLog,
    state: Arc<Mutex<State>>,
    /// How often held appends were released.
    released: watch::Sender<u64>,
    frozen: watch::Sender<bool>,
    cut: watch::Sender<bool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    pub fn new(log: &MemoryLog) -> Link {
        Link {
            log: log.clone(),
            state: Arc::default(),
            released: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
            cut: watch::Sender::new(false),
        }
    }

    /// Asks `rule` about every append from now on. Of several rules, the first
    /// that does not say [`Fate::Pass`] decides.
    pub fn rule(&self, rule: impl FnMut(&Sent) -> Fate + Send + 'static) {
        self.state().rules.push(Box::new(rule));
    }

    /// The next append of this kind has this fate.
    pub fn next(&self, kind: Kind, fate: Fate) {
        self.next_of(kind, "", fate);
    }

    /// The next append of this kind with a record on a subject that ends so.
    pub fn next_of(&self, kind: Kind, record_ends: &str, fate: Fate) {
        let mut fate = Some(fate);
        let ends = record_ends.to_owned();
        self.rule(move |sent| {
            let matches =
                sent.kind == kind && (ends.is_empty() || sent.records.iter().any(|r| r.ends_with(&ends)));
            match matches {
                true => fate.take().unwrap_or(Fate::Pass),
                false => Fate::Pass,
            }
        });
    }

    /// Forgets all rules, and lets go of what is held.
    pub fn release(&self) {
        self.state().rules.clear();
        self.released.send_modify(|n| *n += 1);
    }

    /// Delivers what was delayed. Returns what became of each.
    pub async fn deliver(&self) -> Vec<Result<Appended, AppendError>> {
        let delayed = std::mem::take(&mut self.state().delayed);
        let mut results = Vec::new();
        for (stream, batch) in delayed {
            results.push(self.log.append(&stream, batch).await);
        }
        results
    }

    /// Stops the host where it stands, as SIGSTOP does: whatever it does next waits.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Stops the host at the moment at which it has read the last message of
    /// `subject`, once.
    pub fn freeze_after_reading(&self, subject: &str) {
        self.state().freezes_after = Some(subject.into());
    }

    /// Holds the next scan of a bucket: the first end says when it was asked for,
    /// the second one lets it go.
    pub fn hold_scan(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (asked, was_asked) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.state().held_scan = Some((asked, released));
        (was_asked, release)
    }

    pub fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    /// Takes the connection away, or gives it back.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// All is well again: neither frozen nor cut off, without rules, nothing held.
    pub fn mend(&self) {
        self.cut(false);
        self.freeze(false);
        self.release();
    }

    /// Appends of this kind so far.
    pub fn sent(&self, kind: Kind) -> Vec<Sent> {
        let state = self.state();
        state.sent.iter().filter(|s| s.kind == kind).cloned().collect()
    }

    /// What its readers read of the sources, oldest first.
    pub fn readers(&self) -> Vec<Vec<String>> {
        self.state().readers.clone()
    }

    /// Bulk reads of cells so far.
    pub fn loads(&self) -> u64 {
        self.state().loads
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        // The sender lives in this very link.
        let _ = frozen.wait_for(|frozen| !*frozen).await;
    }

    async fn reachable(&self) -> Result<(), Error> {
        self.thawed().await;
        match *self.cut.borrow() {
            true => Err(Error::Unavailable("cut off, as ordered".into())),
            false => Ok(()),
        }
    }

    fn fate(&self, sent: &Sent) -> Fate {
        let mut state = self.state();
        state.sent.push(sent.clone());
        let mut rules = state.rules.iter_mut().map(|rule| rule(sent));
        rules.find(|fate| *fate != Fate::Pass).unwrap_or(Fate::Pass)
    }
}

fn lost() -> AppendError {
    AppendError::Unknown("no answer, as ordered".into())
}

#[async_trait]
impl Log for Link {
    fn max_payload(&self) -> usize {
        self.log.max_payload()
    }

    fn connected(&self) -> bool {
        !*self.cut.borrow()
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, Error> {
        self.reachable().await?;
        self.log.stream(stream).await
    }

    async fn create_stream(&self, stream: &str, settings: &StreamSettings) -> Result<StreamState, Error> {
        self.reachable().await?;
        self.log.create_stream(stream, settings).await
    }

    async fn set_subjects(&self, stream: &str, subjects: &[String]) -> Result<(), Error> {
        self.reachable().await?;
        self.log.set_subjects(stream, subjects).await
    }

    async fn append(&self, stream: &str, batch: Vec<Append>) -> Result<Appended, AppendError> {
        self.thawed().await;
        if !self.connected() {
            return Err(AppendError::Busy {
                code: 0,
                description: "not connected; nothing was sent".into(),
            });
        }
        let mut released = self.released.subscribe();
        released.mark_unchanged();
        match self.fate(&Sent::of(stream, &batch)) {
            Fate::Pass => {}
            Fate::LoseReply => {
                let _unheard = self.log.append(stream, batch).await;
                return Err(lost());
            }
            Fate::LoseRequest => return Err(lost()),
            Fate::Delay => {
                self.state().delayed.push((stream.into(), batch));
                return Err(lost());
            }
            Fate::Hold => {
                // The sender lives in this very link.
                let _ = released.changed().await;
                self.thawed().await;
            }
            Fate::Fail(error) => return Err(error),
        }
        self.log.append(stream, batch).await
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Error> {
        self.reachable().await?;
        let last = self.log.last(stream, subject).await;
        if self.state().freezes_after.take_if(|s| s == subject).is_some() {
            self.freeze(true);
        }
        last
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error> {
        self.reachable().await?;
        self.log.get(stream, sequence).await
    }

    async fn scan(&self, stream: &str, filter: &str, from: u64, max: usize) -> Result<Vec<Stored>, Error> {
        self.reachable().await?;
        let held = match stream {
            LEDGER => None,
            _ => self.state().held_scan.take(),
        };
        if let Some((asked, released)) = held {
            // Either end may be gone: then nobody waits for it.
            let _ = asked.send(());
            let _ = released.await;
        }
        self.log.scan(stream, filter, from, max).await
    }

    async fn last_many(&self, stream: &str, filters: &[String]) -> Result<Snapshot, Error> {
        self.reachable().await?;
        if stream != LEDGER {
            self.state().loads += 1;
        }
        self.log.last_many(stream, filters).await
    }

    async fn purge(&self, stream: &str, filter: &str, below: u64) -> Result<(), Error> {
        self.reachable().await?;
        self.log.purge(stream, filter, below).await
    }

    async fn resolve(&self, stream: &str, start: Start) -> Result<u64, Error> {
        self.reachable().await?;
        self.log.resolve(stream, start).await
    }

    async fn read(&self, stream: &str, filters: &[String], from: u64) -> Result<Box<dyn Reader>, Error> {
        self.reachable().await?;
        if [super::SOURCE, super::OTHER_SOURCE].contains(&stream) {
            self.state().readers.push(filters.to_vec());
        }
        Ok(Box::new(LinkReader {
            link: self.clone(),
            reader: self.log.read(stream, filters, from).await?,
        }))
    }
}

struct LinkReader {
    link: Link,
    reader: Box<dyn Reader>,
}

#[async_trait]
impl Reader for LinkReader {
    fn found(&self) -> u64 {
        self.reader.found()
    }

    async fn next(&mut self, into: &mut Vec<Stored>) -> Result<u64, Error> {
        self.link.reachable().await?;
        let mut cut = self.link.cut.subscribe();
        tokio::select! {
            biased;
            _ = cut.wait_for(|cut| *cut) => Err(Error::Unavailable("cut off, as ordered".into())),
            read = self.reader.next(into) => read,
        }
    }
}
