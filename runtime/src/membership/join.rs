//! The task that beats, listens, and tells lanes what it makes of it.
//!
//! A host's name is claimed by compare-and-set: each beat expects the one before it.
//! Where another process of that name beats, the later one is refused at its start,
//! and one that slept so long that its name was taken claims nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::beat::{Beat, FORMAT};
use super::holdings::Holdings;
use super::members::{DEAD_AFTER, Members, View};
use crate::log::{self, Append, AppendError, Reader, SharedLog, Stored};
use crate::model::subjects::{alive_key, alive_keys, hosts_stream};

/// How often a host shows that it is alive; also the pause after trouble.
const BEAT_EVERY: Duration = Duration::from_millis(250);

const _: () = assert!(BEAT_EVERY.as_millis() * 5 < DEAD_AFTER.as_millis());

/// After this long without another, the server forgets a beat: well after everybody
/// has taken its host for dead.
const BEAT_TTL_S: u64 = 10;

/// How long a start waits for a silent namesake to be dead, and for the first beat.
const CLAIM_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a host named {0} runs on this ledger already: give this one another name (--name)")]
    Taken(String),
    #[error("this host cannot show that it is alive: {0}")]
    Beat(AppendError),
    #[error(transparent)]
    Log(#[from] log::Error),
}

/// This host's place among the others. Dropped, it beats no more.
pub struct Membership {
    view: watch::Receiver<Arc<View>>,
    holdings: Holdings,
    gone: Option<oneshot::Sender<()>>,
    task: JoinSet<()>,
}

/// What the task has in hand.
struct Task {
    log: SharedLog,
    ledger: String,
    members: Members,
    view: watch::Sender<Arc<View>>,
    beat: Beat,
    /// Sequence of our last beat, as far as we know.
    sequence: u64,
    holdings: Holdings,
    /// Said once.
    lost_name: bool,
}

type Sending = BoxFuture<'static, Result<u64, AppendError>>;

/// Claims the host's name, and begins to beat and to listen. The first view is there
/// when this returns.
///
/// # Errors
/// The name is taken, or nothing can be written.
pub async fn join(log: SharedLog, ledger: &str, host: &str, incarnation: &str) -> Result<Membership, Error> {
    let holdings = Holdings::default();
    let (view, shown) = watch::channel(Arc::new(View::default()));
    let mut task = Task {
        log,
        ledger: ledger.into(),
        members: Members::new(host, incarnation),
        view,
        beat: Beat {
            format: FORMAT,
            host: host.into(),
            incarnation: incarnation.into(),
            machine: crate::os::machine().into(),
            pid: std::process::id(),
            ..Beat::default()
        },
        sequence: 0,
        holdings: holdings.clone(),
        lost_name: false,
    };
    task.find().await?;
    task.claim().await?;
    task.show();
    let (gone, goes) = oneshot::channel();
    let mut running = JoinSet::new();
    running.spawn(task.run(goes));
    Ok(Membership {
        view: shown,
        holdings,
        gone: Some(gone),
        task: running,
    })
}

impl Membership {
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    pub fn holdings(&self) -> Holdings {
        self.holdings.clone()
    }

    /// Tells the others that this host gives its partitions away.
    pub fn leave(&self) {
        self.holdings.leave();
    }

    /// Says goodbye. What is still held is held no more.
    pub async fn end(mut self) {
        if let Some(gone) = self.gone.take() {
            // Fails only if the task has ended, which the next line waits for.
            let _ = gone.send(());
        }
        while self.task.join_next().await.is_some() {}
    }
}

impl Task {
    /// Who is there already. From the bucket's own beats, which may be of hosts that
    /// are dead for some seconds.
    async fn find(&mut self) -> Result<(), log::Error> {
        let (stream, keys) = (hosts_stream(&self.ledger), alive_keys(&self.ledger));
        let found = self.log.last_many(&stream, &[keys]).await?;
        let now = Instant::now();
        for beat in found.messages.iter().filter_map(decode) {
            if !beat.has_ended() {
                self.members.found(beat, now);
            }
        }
        Ok(())
    }

    /// Claims the name: waits for a namesake to be dead, and refuses a live one.
    async fn claim(&mut self) -> Result<(), Error> {
        let begin = Instant::now();
        let subject = alive_key(&self.ledger, &self.beat.host);
        let mut silent: Option<(u64, Instant)> = None;
        loop {
            let last = self.log.last(&hosts_stream(&self.ledger), &subject).await?;
            let namesake = last
                .as_ref()
                .and_then(decode)
                .filter(|beat| beat.incarnation != self.beat.incarnation && !beat.has_ended());
            self.sequence = last.map_or(0, |last| last.sequence);
            let waits = match namesake {
                None => false,
                Some(_) => match silent {
                    Some((sequence, since)) if sequence == self.sequence => since.elapsed() < DEAD_AFTER,
                    Some(_) => return Err(Error::Taken(self.beat.host.clone())),
                    None => {
                        silent = Some((self.sequence, Instant::now()));
                        true
                    }
                },
            };
            if !waits {
                match self.send().await {
                    Ok(sequence) => {
                        self.sequence = sequence;
                        return Ok(());
                    }
                    Err(error) if begin.elapsed() >= CLAIM_FOR => return Err(Error::Beat(error)),
                    Err(error) => warn!(%error, "this host cannot show that it is alive; trying again"),
                }
            }
            tokio::time::sleep(BEAT_EVERY).await;
        }
    }

    /// The next beat, on its way.
    fn send(&mut self) -> Sending {
        self.beat.number += 1;
        self.beat.leaving = self.holdings.leaving();
        self.beat.holds = self.holdings.ranges();
        let message = Append {
            subject: alive_key(&self.ledger, &self.beat.host),
            data: serde_json::to_vec(&self.beat)
                .expect("a beat is plain data")
                .into(),
            expected: Some(self.sequence),
            ttl_s: Some(BEAT_TTL_S),
            ..Append::default()
        };
        let (log, stream) = (self.log.clone(), hosts_stream(&self.ledger));
        async move { Ok(log.append(&stream, vec![message]).await?.sequence) }.boxed()
    }

    async fn run(mut self, mut goes: oneshot::Receiver<()>) {
        let mut every = tokio::time::interval(BEAT_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = self.holdings.changes();
        let mut sending: Option<Sending> = None;
        let mut due = false;
        let mut reader: Option<Box<dyn Reader>> = None;
        let mut messages = Vec::new();
        loop {
            if due && sending.is_none() {
                due = false;
                sending = Some(self.send());
            }
            let view_changes = self.members.changes_at(Instant::now());
            let view_changes = view_changes.unwrap_or_else(|| Instant::now() + DEAD_AFTER);
            tokio::select! {
                biased;
                _ = &mut goes => break,
                sent = async { sending.as_mut().expect("guarded").await }, if sending.is_some() => {
                    sending = None;
                    self.sent(sent).await;
                }
                Ok(()) = changes.changed() => {
                    if self.holdings.leaving() {
                        self.members.leave();
                    }
                    due = true;
                }
                _ = every.tick() => {
                    due = true;
                    if reader.is_none() {
                        reader = self.listen().await;
                    }
                }
                read = async { reader.as_mut().expect("guarded").next(&mut messages).await }, if reader.is_some() => {
                    if read.is_err() {
                        reader = None;
                    }
                    self.hear(&mut messages);
                }
                () = tokio::time::sleep_until(view_changes.into()) => {}
            }
            self.show();
        }
        self.goodbye().await;
    }

    /// Everything that the bucket has, and what comes: after trouble too, since the
    /// stream may be another one.
    async fn listen(&self) -> Option<Box<dyn Reader>> {
        let (stream, keys) = (hosts_stream(&self.ledger), alive_keys(&self.ledger));
        self.log.read(&stream, &[keys], 1).await.ok()
    }

    fn hear(&mut self, messages: &mut Vec<Stored>) {
        let now = Instant::now();
        for stored in messages.drain(..) {
            match decode(&stored) {
                Some(beat) => self.members.heard(beat, now),
                None if stored.data.is_empty() => {
                    // A goodbye: the last token is the name.
                    let name = stored.subject.rsplit('.').next().unwrap_or_default();
                    if let Some(name) = crate::model::key::untoken(name) {
                        self.members.gone(&name);
                    }
                }
                None => {}
            }
        }
    }

    async fn sent(&mut self, sent: Result<u64, AppendError>) {
        match sent {
            Ok(sequence) => {
                self.sequence = sequence;
                if std::mem::take(&mut self.lost_name) {
                    info!(host = self.beat.host, "the name of this host is its own again");
                }
            }
            // Ours expired, or was written and nobody heard of it, or the name was taken.
            Err(AppendError::Fenced(_) | AppendError::Busy { .. } | AppendError::Unknown(_)) => {
                self.look().await;
            }
            // The bucket is away; the status report makes it again.
            Err(AppendError::Refused { .. } | AppendError::TooLarge(_)) => self.sequence = 0,
        }
    }

    /// Which beat the next one has to expect.
    async fn look(&mut self) {
        let subject = alive_key(&self.ledger, &self.beat.host);
        let Ok(last) = self.log.last(&hosts_stream(&self.ledger), &subject).await else {
            return;
        };
        let namesake = last.as_ref().and_then(decode);
        let taken =
            namesake.is_some_and(|beat| beat.incarnation != self.beat.incarnation && !beat.has_ended());
        if !taken {
            self.sequence = last.map_or(0, |last| last.sequence);
        } else if !std::mem::replace(&mut self.lost_name, true) {
            warn!(
                host = self.beat.host,
                "another process has taken the name of this host, which was silent for too long; it owns nothing \
                 until that one ends"
            );
        }
    }

    fn show(&mut self) {
        let view = match self.lost_name {
            true => View::default(),
            false => self.members.view(Instant::now()),
        };
        self.view.send_if_modified(|shown| {
            if **shown == view {
                return false;
            }
            if !shown.sharing().eq(view.sharing()) {
                info!(
                    hosts = view.sharing().collect::<Vec<_>>().join(","),
                    "partitions are shared among"
                );
            }
            *shown = Arc::new(view);
            true
        });
    }

    /// It would expire by itself; this only shows it sooner.
    async fn goodbye(mut self) {
        let message = Append {
            subject: alive_key(&self.ledger, &self.beat.host),
            headers: vec![("KV-Operation".into(), "DEL".into())],
            expected: Some(self.sequence),
            ttl_s: Some(1),
            ..Append::default()
        };
        let log = self.log.clone();
        if let Err(AppendError::Fenced(_)) = log
            .append(&hosts_stream(&self.ledger), vec![message.clone()])
            .await
        {
            // The last beat was still on its way.
            self.look().await;
            let again = Append {
                expected: Some(self.sequence),
                ..message
            };
            if let Err(error) = log.append(&hosts_stream(&self.ledger), vec![again]).await {
                warn!(%error, "could not say goodbye");
            }
        }
    }
}

/// A beat that this version reads.
fn decode(stored: &Stored) -> Option<Beat> {
    let beat: Beat = serde_json::from_slice(&stored.data).ok()?;
    (beat.format <= FORMAT).then_some(beat)
}
