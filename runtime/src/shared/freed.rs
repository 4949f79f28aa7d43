//! Tells the lanes of a host which locks became free, so that events that wait for one
//! need not ask again and again.
//!
//! Only a hint: a lane also tries again when a lock expires, and what it then reads and
//! commits decides.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::lock::Lock;
use crate::log::{Error, SharedLog, Start, Stored};
use crate::model::subjects::{locks, parse_lock};

/// Locks that became free and that a lane has not heard of yet. One that falls behind
/// tries all that it waits for.
const UNHEARD_MAX: usize = 256;

/// Pause before the locks are watched again after trouble.
const AGAIN: Duration = Duration::from_secs(1);

/// The name of a lock that became free; `None`: any may have.
pub type Name = Option<Arc<str>>;

/// Hands out the news. Clones are the same.
#[derive(Debug, Clone)]
pub struct Freed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    news: broadcast::Sender<Name>,
    task: OnceLock<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Default for Freed {
    fn default() -> Self {
        Freed(Arc::new(Inner {
            news: broadcast::Sender::new(UNHEARD_MAX),
            task: OnceLock::new(),
        }))
    }
}

impl Freed {
    pub fn subscribe(&self) -> broadcast::Receiver<Name> {
        self.0.news.subscribe()
    }

    /// Watches the locks of a ledger from now on, until the last clone is dropped. Once is enough.
    pub fn watch(&self, log: &SharedLog, ledger: &str) {
        self.0.task.get_or_init(|| {
            let watch = watch(log.clone(), ledger.to_owned(), self.0.news.clone());
            tokio::spawn(watch).abort_handle()
        });
    }
}

async fn watch(log: SharedLog, ledger: String, news: broadcast::Sender<Name>) {
    loop {
        let Err(error) = follow(&log, &ledger, &news).await;
        warn!(%error, "locks cannot be watched; events wait for them until they expire");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(
    log: &SharedLog,
    ledger: &str,
    news: &broadcast::Sender<Name>,
) -> Result<std::convert::Infallible, Error> {
    let from = log.resolve(ledger, Start::New).await?;
    let mut reader = log.read(ledger, &[locks(ledger)], from).await?;
    // Whatever became free while nobody watched.
    let _ = news.send(None);
    let mut arrived = Vec::new();
    loop {
        reader.next(&mut arrived).await?;
        for name in arrived.drain(..).filter_map(|stored| freed(ledger, &stored)) {
            debug!(lock = name, "freed");
            // Without lanes that wait there is nobody to tell.
            let _ = news.send(Some(name.into()));
        }
    }
}

/// The lock's name, if this is the message that frees it.
fn freed(ledger: &str, stored: &Stored) -> Option<String> {
    let free = Lock::decode(stored).is_ok_and(|lock| lock.holder.is_none());
    free.then(|| parse_lock(ledger, &stored.subject))?
}
