//! The handlers of a host: for each that is deployed, a supervisor that makes what
//! runs here what the registry says.
//!
//! ```text
//!   registry ──> follow ──> supervisor (one per handler) ──> Running: feeds and lanes
//!                                │ fetch, verify, compile
//!                                └ refused: the version before goes on
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::roster::Roster;
use super::supervisor::Supervisor;
use crate::commit::committer::Committer;
use crate::deployment::registry::{self, Desired, Registered};
use crate::dispatch::context::Budget;
use crate::dispatch::executor::Executors;
use crate::handler::Engine;
use crate::ledger::Ledger;
use crate::log::{self, SharedLog};
use crate::membership::{Holdings, View};
use crate::model::subjects::{handler_keys, handlers_stream};
use crate::shared::freed::Freed;

/// Pause before something that NATS did not answer is asked again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What all handlers of a host share.
pub struct Parts {
    pub engine: Arc<Engine>,
    pub executors: Executors,
    pub committer: Committer,
    pub log: SharedLog,
    pub ledger: Ledger,
    pub host: String,
    pub event_ttl_s: Option<u64>,
    pub budget: Budget,
    pub freed: Freed,
    pub view: watch::Receiver<Arc<View>>,
    pub holdings: Holdings,
    /// Public NKeys of which one must have signed a deployment; all do if empty.
    pub trusted: Vec<String>,
    /// Components of files that this host has just deployed: they need not be
    /// fetched back. Each is taken once.
    pub at_hand: Mutex<HashMap<String, Vec<u8>>>,
    /// Taken while something is compiled, which uses all processors and much memory.
    pub compiling: Semaphore,
}

/// The supervisors.
pub struct Handlers {
    parts: Arc<Parts>,
    roster: Arc<Roster>,
    drain: watch::Receiver<bool>,
    wanted: BTreeMap<String, watch::Sender<Registered>>,
    supervisors: JoinSet<()>,
    /// The highest revision seen.
    seen: u64,
}

impl Handlers {
    pub fn new(parts: Arc<Parts>, roster: Arc<Roster>, drain: watch::Receiver<bool>) -> Handlers {
        Handlers {
            parts,
            roster,
            drain,
            wanted: BTreeMap::new(),
            supervisors: JoinSet::new(),
            seen: 0,
        }
    }

    /// Begins with what is registered now.
    ///
    /// # Errors
    /// Of the log.
    pub async fn begin(&mut self) -> Result<(), log::Error> {
        let (stream, keys) = (
            handlers_stream(&self.parts.ledger.name),
            handler_keys(&self.parts.ledger.name),
        );
        let snapshot = self.parts.log.last_many(&stream, &[keys]).await?;
        self.apply_all(&snapshot.messages);
        Ok(())
    }

    /// Follows the registry until the host drains; then every handler has stopped.
    pub async fn follow(mut self) {
        let mut drain = self.drain.clone();
        tokio::select! {
            () = self.read() => {}
            _ = drain.wait_for(|drain| *drain) => {}
        }
        while self.supervisors.join_next().await.is_some() {}
    }

    async fn read(&mut self) {
        let (stream, keys) = (
            handlers_stream(&self.parts.ledger.name),
            handler_keys(&self.parts.ledger.name),
        );
        let mut messages = Vec::new();
        loop {
            let failed = match self
                .parts
                .log
                .read(&stream, std::slice::from_ref(&keys), self.seen + 1)
                .await
            {
                Err(error) => error,
                Ok(mut reader) => loop {
                    self.roster.sees(true);
                    if let Err(error) = reader.next(&mut messages).await {
                        break error;
                    }
                    self.apply_all(&messages);
                    messages.clear();
                },
            };
            self.apply_all(&messages);
            messages.clear();
            self.roster.sees(false);
            warn!(%failed, "the registry of handlers cannot be followed; trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn apply_all(&mut self, messages: &[log::Stored]) {
        for stored in messages {
            self.seen = self.seen.max(stored.sequence);
            match registry::decode(stored) {
                Ok(registered) => self.apply(registered),
                Err(error) => error!("a deployment is passed over: {error}"),
            }
        }
    }

    fn apply(&mut self, registered: Registered) {
        let name = registered.deployment.name.clone();
        if let Some(wanted) = self.wanted.get(&name) {
            if wanted.borrow().revision < registered.revision {
                self.roster.saw(&registered);
                wanted.send_replace(registered);
            }
            return;
        }
        if registered.deployment.desired == Desired::Removed {
            return;
        }
        self.roster.saw(&registered);
        let (sender, wanted) = watch::channel(registered);
        self.wanted.insert(name.clone(), sender);
        let supervisor = Supervisor::new(
            self.parts.clone(),
            self.roster.clone(),
            self.drain.clone(),
            name,
            wanted,
        );
        self.supervisors.spawn(supervisor.run());
    }
}
