//! A lock, as the message on its subject says it is. Pure.
//!
//! ```text
//!   (nothing) ──take──> held, token 1 ──extend──> held, token 1 ──free──> free, token 1
//!                           │  past `until`                                  │
//!                           └──take, by another──> held, token 2 <───take────┘
//! ```
//!
//! Every arrow is a message that expects the one before it, so that of two who take a
//! lock one succeeds. Messages do not expire: the token counts on for as long as the
//! ledger lives, and strictly rises from holder to holder.

use serde::{Deserialize, Serialize};

use crate::log::Stored;

/// The shortest and the longest time that a lock can be held for without extending it, in
/// milliseconds. Below it, hosts whose clocks differ a little would take locks from each
/// other all the time; above it, a lock that was forgotten is for `weir locks break`.
pub const TTL_MS_MIN: u64 = 100;
pub const TTL_MS_MAX: u64 = 7 * 24 * 3_600_000;

const NANOS_PER_MS: u64 = 1_000_000;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// A key of a handler, in a generation of it.
    Key {
        handler: String,
        generation: u64,
        key: String,
    },
    /// A service that is no handler, by the name that it gave itself.
    Service { name: String },
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Key { handler, key, .. } => write!(f, "{handler}/{key}"),
            Holder::Service { name } => f.write_str(name),
        }
    }
}

/// What the message of a lock says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// `None`: the lock is free.
    pub holder: Option<Holder>,
    /// The fencing token of its holder, or of the last one.
    pub token: u64,
    /// When others may take it, in Unix nanoseconds. Until somebody does, it is still held.
    pub until: u64,
    /// Since when it is held, in Unix nanoseconds.
    pub since: u64,
}

/// What became of an attempt to take a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is the taker's, if this is written.
    Yes(Lock),
    /// Another holds it until then, in Unix nanoseconds.
    No { until: u64 },
}

impl Lock {
    /// Reads a lock's message.
    ///
    /// # Errors
    /// Somebody else than Weir wrote it.
    pub fn decode(stored: &Stored) -> Result<Lock, serde_json::Error> {
        serde_json::from_slice(&stored.data)
    }

    pub fn encode(&self) -> bytes::Bytes {
        serde_json::to_vec(self).expect("a lock is plain data").into()
    }

    /// Takes or extends a lock for `who`, from `now` for `ttl_ms`.
    pub fn take(before: Option<&Lock>, who: &Holder, now: u64, ttl_ms: u64) -> Taken {
        let ttl_ms = ttl_ms.clamp(TTL_MS_MIN, TTL_MS_MAX);
        let until = now.saturating_add(ttl_ms * NANOS_PER_MS);
        let token = before.map_or(0, |lock| lock.token);
        match before {
            Some(lock) if lock.holder.as_ref() == Some(who) => Taken::Yes(Lock {
                until: until.max(lock.until),
                ..lock.clone()
            }),
            Some(lock) if lock.holder.is_some() && lock.until > now => Taken::No { until: lock.until },
            _ => Taken::Yes(Lock {
                holder: Some(who.clone()),
                token: token + 1,
                until,
                since: now,
            }),
        }
    }

    /// The lock without a holder; its token stays taken.
    pub fn freed(&self) -> Lock {
        Lock {
            holder: None,
            until: 0,
            ..self.clone()
        }
    }

    /// Whether another could take it now.
    pub fn is_free(&self, now: u64) -> bool {
        self.holder.is_none() || self.until <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(key: &str) -> Holder {
        Holder::Key {
            handler: "h".into(),
            generation: 1,
            key: key.into(),
        }
    }

    fn yes(taken: Taken) -> Lock {
        match taken {
            Taken::Yes(lock) => lock,
            Taken::No { until } => panic!("held until {until}"),
        }
    }

    #[test]
    fn from_holder_to_holder_tokens_rise() {
        let first = yes(Lock::take(None, &key("a"), 0, 1_000));
        assert_eq!((first.token, first.until), (1, SECOND));
        // Another has to wait, the holder does not.
        assert_eq!(
            Lock::take(Some(&first), &key("b"), SECOND - 1, 1_000),
            Taken::No { until: SECOND }
        );
        let extended = yes(Lock::take(Some(&first), &key("a"), SECOND - 1, 2_000));
        assert_eq!((extended.token, extended.until), (1, 3 * SECOND - 1));
        // After it expired, whoever comes first.
        let second = yes(Lock::take(Some(&extended), &key("b"), 3 * SECOND, 1_000));
        assert_eq!((second.token, second.holder.as_ref()), (2, Some(&key("b"))));
        let third = yes(Lock::take(Some(&second.freed()), &key("a"), 3 * SECOND, 1_000));
        assert_eq!(third.token, 3);
    }

    #[test]
    fn what_expired_and_nobody_took_is_still_held() {
        let first = yes(Lock::take(None, &key("a"), 0, 1_000));
        let again = yes(Lock::take(Some(&first), &key("a"), 9 * SECOND, 1_000));
        assert_eq!((again.token, again.until), (1, 10 * SECOND));
    }

    #[test]
    fn times_to_live_have_bounds() {
        let short = yes(Lock::take(None, &key("a"), 0, 0));
        assert_eq!(short.until, TTL_MS_MIN * NANOS_PER_MS);
        let long = yes(Lock::take(None, &key("a"), u64::MAX - 5, u64::MAX));
        assert_eq!(long.until, u64::MAX);
    }

    #[test]
    fn a_lock_reads_back() {
        let lock = yes(Lock::take(None, &key("a"), 7, 1_000));
        let stored = Stored {
            subject: "s".into(),
            sequence: 1,
            time: 0,
            headers: Vec::new(),
            data: lock.encode(),
        };
        assert_eq!(Lock::decode(&stored).expect("what was written"), lock);
    }
}
