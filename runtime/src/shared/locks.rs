//! Locks from outside of handlers: for the command, and for services that take one
//! themselves ([`service`](super::service)). The same messages with the same expectations.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::lock::{Holder, Lock, Taken};
use crate::log::{self, Append, AppendError, Log, Stored};
use crate::model::subjects::{lock, locks, parse_lock};
use crate::state::load;

/// Tries to change a lock that others change at the same time. Each try that fails is
/// somebody else's that succeeded.
const TRIES_MAX: u32 = 50;

/// Why a lock cannot be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Read(#[from] load::Error),
    #[error("lock {name:?}: {error}")]
    Append { name: String, error: AppendError },
    #[error("the message of lock {name:?} at sequence {sequence} cannot be read: {detail}")]
    Broken {
        name: String,
        sequence: u64,
        detail: String,
    },
    #[error("lock {0:?} has changed {TRIES_MAX} times meanwhile; try again")]
    Contended(String),
    #[error("nobody ever took lock {0:?}: check its name with `weir locks list`")]
    Unknown(String),
}

/// One lock, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: String,
    #[serde(flatten)]
    pub lock: Lock,
    /// Whether others may take it by now.
    pub expired: bool,
}

/// The locks of a ledger.
pub struct Locks<'a> {
    log: &'a dyn Log,
    ledger: &'a str,
}

impl<'a> Locks<'a> {
    pub fn new(log: &'a dyn Log, ledger: &'a str) -> Locks<'a> {
        Locks { log, ledger }
    }

    /// All locks that are held, or with `free` all that ever were, by name.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn list(&self, free: bool) -> Result<Vec<Listed>, Error> {
        let found = load::last_many_now(self.log, self.ledger, &[locks(self.ledger)]).await?;
        let mut listed = Vec::new();
        for stored in found.messages {
            let Some(name) = parse_lock(self.ledger, &stored.subject) else {
                continue;
            };
            let lock = decode(&name, &stored)?;
            if free || lock.holder.is_some() {
                let expired = lock.holder.is_some() && lock.is_free(now());
                listed.push(Listed { name, lock, expired });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Takes a lock away from whoever holds it. What its holder does under it from here on
    /// is refused. Returns the lock as it was.
    ///
    /// # Errors
    /// There is no such lock, or the ledger cannot be written.
    pub async fn break_open(&self, name: &str) -> Result<Lock, Error> {
        let change = |before: Option<Lock>| match before {
            None => Err(Error::Unknown(name.to_owned())),
            Some(lock) => Ok((Some(lock.freed()), lock)),
        };
        self.change(name, change).await
    }

    /// Takes or extends a lock for `who`: the lock, or who holds it until when.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn take(&self, name: &str, who: &Holder, ttl_ms: u64) -> Result<Result<Lock, Lock>, Error> {
        let change = |before: Option<Lock>| match (Lock::take(before.as_ref(), who, now(), ttl_ms), before) {
            (Taken::Yes(taken), _) => Ok((Some(taken.clone()), Ok(taken))),
            (Taken::No { .. }, Some(held)) => Ok((None, Err(held))),
            (Taken::No { .. }, None) => unreachable!("nobody holds a lock that never was"),
        };
        self.change(name, change).await
    }

    /// Gives a lock back that `who` holds under `token`. False if it is not so, any more.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn free(&self, name: &str, who: &Holder, token: u64) -> Result<bool, Error> {
        let change = |before: Option<Lock>| {
            let held = before.filter(|lock| lock.token == token && lock.holder.as_ref() == Some(who));
            Ok((held.as_ref().map(Lock::freed), held.is_some()))
        };
        self.change(name, change).await
    }

    /// Reads a lock, decides, and writes what is decided if the lock is still the one read.
    async fn change<T>(
        &self,
        name: &str,
        change: impl Fn(Option<Lock>) -> Result<(Option<Lock>, T), Error>,
    ) -> Result<T, Error> {
        let subject = lock(self.ledger, name);
        for _ in 0..TRIES_MAX {
            let stored = self.log.last(self.ledger, &subject).await?;
            let before = stored.as_ref().map(|stored| decode(name, stored)).transpose()?;
            let (after, outcome) = change(before)?;
            let Some(after) = after else {
                return Ok(outcome);
            };
            let message = Append {
                subject: subject.clone(),
                data: after.encode(),
                expected: Some(stored.map_or(0, |stored| stored.sequence)),
                rollup: true,
                ..Append::default()
            };
            match self.log.append(self.ledger, vec![message]).await {
                Ok(_) => return Ok(outcome),
                // Of an unknown outcome the next look tells: taking what one holds extends it,
                // and freeing what is free is done.
                Err(AppendError::Fenced(_) | AppendError::Busy { .. } | AppendError::Unknown(_)) => {}
                Err(error) => {
                    return Err(Error::Append {
                        name: name.to_owned(),
                        error,
                    });
                }
            }
        }
        Err(Error::Contended(name.to_owned()))
    }
}

fn decode(name: &str, stored: &Stored) -> Result<Lock, Error> {
    Lock::decode(stored).map_err(|error| Error::Broken {
        name: name.to_owned(),
        sequence: stored.sequence,
        detail: error.to_string(),
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
