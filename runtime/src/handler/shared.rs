//! What one invocation reads and writes of shared cells and locks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::shared::lock::{Lock, Taken};
use crate::shared::{Access, DELETED_HEADER, Shared, Use, Write};

/// Ends an invocation that waits for a lock.
#[derive(Debug, Clone, thiserror::Error)]
#[error("lock {name:?} is held by another")]
pub struct Locked {
    pub name: String,
    /// When it can be taken if it is not freed before, in Unix nanoseconds.
    pub until: u64,
}

/// Ends an invocation for which the log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Uses of one invocation. What was read once reads the same again.
pub struct SharedUses {
    key: Arc<str>,
    clock: u64,
    cells: BTreeMap<Shared, Seen<Bytes>>,
    locks: BTreeMap<Shared, Seen<Lock>>,
}

/// A cell or a lock as this invocation sees it.
struct Seen<T> {
    /// Sequence of the message that was read; 0 for none.
    expected: u64,
    now: Option<T>,
    written: bool,
}

impl SharedUses {
    pub fn new(key: &Arc<str>, clock: u64) -> SharedUses {
        SharedUses {
            key: key.clone(),
            clock,
            cells: BTreeMap::new(),
            locks: BTreeMap::new(),
        }
    }

    /// Cells and locks used so far.
    pub fn len(&self) -> usize {
        self.cells.len() + self.locks.len()
    }

    pub fn get(&mut self, access: &dyn Access, name: &str) -> Result<Option<Vec<u8>>, Unreadable> {
        Ok(self.cell(access, name)?.now.as_ref().map(|value| value.to_vec()))
    }

    /// Writes a cell, or deletes it. What it was is read first: a blind write would undo
    /// what somebody else has written meanwhile.
    pub fn write(&mut self, access: &dyn Access, name: &str, value: Option<Bytes>) -> Result<(), Unreadable> {
        let cell = self.cell(access, name)?;
        cell.written |= value.is_some() || cell.now.is_some();
        cell.now = value;
        Ok(())
    }

    /// Takes or extends a lock for the event's key: its token, or until when another
    /// holds it.
    pub fn try_lock(
        &mut self,
        access: &dyn Access,
        name: &str,
        ttl_ms: u64,
    ) -> Result<Result<u64, u64>, Unreadable> {
        let (who, now) = (access.holder(&self.key), access.now(self.clock));
        let lock = self.lock(access, name)?;
        Ok(match Lock::take(lock.now.as_ref(), &who, now, ttl_ms) {
            Taken::Yes(taken) => {
                let token = taken.token;
                lock.now = Some(taken);
                lock.written = true;
                Ok(token)
            }
            Taken::No { until } => Err(until),
        })
    }

    pub fn unlock(&mut self, access: &dyn Access, name: &str) -> Result<(), Unreadable> {
        let who = access.holder(&self.key);
        let lock = self.lock(access, name)?;
        if let Some(held) = lock
            .now
            .as_ref()
            .filter(|held| held.holder.as_ref() == Some(&who))
        {
            lock.now = Some(held.freed());
            lock.written = true;
        }
        Ok(())
    }

    /// What the commit has to expect and to write.
    pub fn finish(&mut self) -> BTreeMap<Shared, Use> {
        let cells = std::mem::take(&mut self.cells).into_iter().map(|(name, seen)| {
            let write = seen.written.then(|| seen.now.map_or(Write::Delete, Write::Set));
            (
                name,
                Use {
                    expected: seen.expected,
                    write,
                },
            )
        });
        let locks = std::mem::take(&mut self.locks).into_iter().map(|(name, seen)| {
            let write = seen
                .now
                .filter(|_| seen.written)
                .map(|lock| Write::Set(lock.encode()));
            (
                name,
                Use {
                    expected: seen.expected,
                    write,
                },
            )
        });
        cells.chain(locks).collect()
    }

    fn cell(&mut self, access: &dyn Access, name: &str) -> Result<&mut Seen<Bytes>, Unreadable> {
        seen(&mut self.cells, Shared::Cell(name.into()), access, |stored| {
            Ok(stored
                .header(DELETED_HEADER)
                .is_none()
                .then(|| stored.data.clone()))
        })
    }

    fn lock(&mut self, access: &dyn Access, name: &str) -> Result<&mut Seen<Lock>, Unreadable> {
        seen(&mut self.locks, Shared::Lock(name.into()), access, |stored| {
            Lock::decode(stored).map(Some).map_err(|error| {
                Unreadable(format!(
                    "the message of lock {name:?} at sequence {} cannot be read: {error}; see `weir locks break`",
                    stored.sequence
                ))
            })
        })
    }
}

fn seen<'a, T>(
    all: &'a mut BTreeMap<Shared, Seen<T>>,
    shared: Shared,
    access: &dyn Access,
    decode: impl FnOnce(&crate::log::Stored) -> Result<Option<T>, Unreadable>,
) -> Result<&'a mut Seen<T>, Unreadable> {
    use std::collections::btree_map::Entry;
    match all.entry(shared) {
        Entry::Occupied(seen) => Ok(seen.into_mut()),
        Entry::Vacant(new) => {
            let last = access.last(new.key()).map_err(Unreadable)?;
            Ok(new.insert(Seen {
                expected: last.as_ref().map_or(0, |stored| stored.sequence),
                now: last.as_ref().map(decode).transpose()?.flatten(),
                written: false,
            }))
        }
    }
}
