//! Shared cells and locks, read from the log while a guest waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;

use super::{Access, Shared, lock};
use crate::log::{SharedLog, Stored};
use crate::model::subjects::HandlerNames;

/// How long a guest, and with it an execution thread, waits for NATS: a few times what a
/// new leader takes. The event is handled again after that.
const READ_FOR: Duration = Duration::from_secs(2);

/// What a host goes by when it decides whether a lock has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    System,
    /// The partition's own, where time is virtual.
    Partition,
}

/// Reads for the guests of one handler.
pub struct Reader {
    log: SharedLog,
    names: HandlerNames,
    clock: Clock,
    was_asked: AtomicBool,
    /// Drives the requests; guests run on threads of their own.
    runtime: Handle,
}

impl Reader {
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn new(log: SharedLog, names: HandlerNames, clock: Clock) -> Reader {
        Reader {
            log,
            names,
            clock,
            was_asked: AtomicBool::new(false),
            runtime: Handle::current(),
        }
    }

    /// Whether any guest has used anything shared: whatever is done with it, it is read first.
    pub fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }
}

impl Access for Reader {
    fn last(&self, shared: &Shared) -> Result<Option<Stored>, String> {
        self.was_asked.store(true, Ordering::Relaxed);
        let subject = shared.subject(&self.names.ledger);
        let (log, ledger, of) = (self.log.clone(), self.names.ledger.clone(), subject.clone());
        let (reply, answer) = mpsc::channel();
        // Activities run within a runtime, where nothing can be blocked on.
        self.runtime.spawn(async move {
            let read = tokio::time::timeout(READ_FOR, log.last(&ledger, &of)).await;
            // Whoever asked waits for it.
            let _ = reply.send(read);
        });
        match answer.recv() {
            Ok(Ok(Ok(stored))) => Ok(stored),
            Ok(Ok(Err(error))) => Err(format!("{subject} cannot be read: {error}")),
            Ok(Err(_)) => Err(format!("{subject} cannot be read: no answer within {READ_FOR:?}")),
            Err(_) => Err(format!("{subject} cannot be read: the host is going down")),
        }
    }

    fn now(&self, clock: u64) -> u64 {
        if self.clock == Clock::Partition {
            return clock;
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    }

    fn holder(&self, key: &str) -> lock::Holder {
        lock::Holder::Key {
            handler: self.names.handler.clone(),
            generation: self.names.generation,
            key: key.to_owned(),
        }
    }
}
