//! Wires the parts of a host together. The only file that sees all of them.
//!
//! ```text
//! connect ─> ledger ─> membership ─> folder ─> registry ─> handlers ─┬─> feeds (one per source and handler)
//!                                                                    └─> lanes (one per partition)
//!            executors, committer: one of each for all handlers
//!            report: what all of this does
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::admin::status::StatusHandle;
use crate::commit::committer::{Attempts, Committer};
use crate::config::{self, Config};
use crate::connect;
use crate::deployment::compile::compile;
use crate::deployment::deploy::{self, Outcome, When};
use crate::deployment::folder::{Change, Folder, Was};
use crate::deployment::plugins::{self, Deployed};
use crate::deployment::registry::{Registry, deployer};
use crate::dispatch::context::{Budget, LaneStatus};
use crate::dispatch::executor::Executors;
use crate::handler::{CodeCache, Engine};
use crate::ledger::Ledger;
use crate::log::{self, Append, SharedLog};
use crate::membership::{self, Membership};
use crate::model::subjects::{host_key, hosts_stream};
use crate::shared::{self, freed::Freed};

use handlers::{Handlers, Parts};
use report::Report;
use roster::Roster;

mod handlers;
mod report;
mod roster;
mod running;
mod supervisor;

/// Bytes of events that wait in all lanes together: more than the groups being
/// executed and committed only makes memory cold.
pub const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Components that are compiled, or loaded from the cache, at once.
const COMPILATIONS: usize = 2;

/// How long a host waits for its partitions before it says that it is ready.
const START_FOR: Duration = Duration::from_secs(10);

/// Pause before something that NATS did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How often a watched folder is looked at.
const FOLDER_LOOK: Duration = Duration::from_millis(300);

/// A host at work. Dropped, it has crashed.
pub struct Host {
    membership: Membership,
    roster: Arc<Roster>,
    /// Ends once every handler has stopped.
    handlers: JoinSet<()>,
    /// What goes on until the host ends.
    others: JoinSet<()>,
    drain: watch::Sender<bool>,
    log: SharedLog,
    ledger: config::Ledger,
    name: String,
}

impl Host {
    /// Connects, prepares the ledger, deploys what the plugins folder has that is
    /// new, and starts every handler that is deployed. Waits for NATS as long as it
    /// takes; `status` says so meanwhile.
    ///
    /// # Errors
    /// The server is too old, the ledger could lose data, or the machine lacks something.
    pub async fn start(config: Config, status: StatusHandle) -> anyhow::Result<Host> {
        let (jetstream, ledger) = connect::for_host(&config, &status).await?;
        let found = load(&config, &status);
        let log: SharedLog = Arc::new(jetstream.clone());
        let name = ledger.name.clone();
        let requests = shared::service::listen(&jetstream, &name).await;
        let mut host = Host::start_on(log.clone(), ledger, found, &config, status).await?;
        if let Some(requests) = requests {
            host.others.spawn(shared::service::serve(requests, log, name));
        }
        Ok(host)
    }

    /// Starts on a log and a ledger that are ready, with what was `found` in files.
    ///
    /// # Errors
    /// The machine lacks something. A handler that is refused is no error: the
    /// others go on, and `status` has the reason.
    pub async fn start_on(
        log: SharedLog,
        ledger: Ledger,
        found: Vec<Deployed>,
        config: &Config,
        status: StatusHandle,
    ) -> anyhow::Result<Host> {
        let attempts = Attempts::new(&format!("{:032x}", rand::random::<u128>()));
        let membership = loop {
            let joined = membership::join(
                log.clone(),
                &ledger.name,
                &config.host.name,
                attempts.incarnation(),
            )
            .await;
            let Err(membership::Error::Log(log::Error::Unavailable(reason))) = joined else {
                break joined?;
            };
            warn!(reason, "the other hosts cannot be seen; trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        let code_cache = CodeCache::new(&config.host.data);
        let parts = Arc::new(Parts {
            engine: Engine::new(config.host.instances, Some(code_cache))
                .context("starting the WebAssembly engine")?,
            executors: Executors::start(config.host.threads, config.host.activity_threads)
                .context("starting the execution threads")?,
            committer: Committer::start(log.clone(), &ledger.name, attempts.clone()),
            log: log.clone(),
            ledger,
            host: config.host.name.clone(),
            event_ttl_s: config.ledger.event_ttl.map(|ttl| ttl.as_secs().max(1)),
            budget: Budget::new(WAITING_BYTES, config.host.cache_bytes),
            freed: Freed::default(),
            view: membership.view(),
            holdings: membership.holdings(),
            trusted: config.host.trusted.clone(),
            at_hand: Mutex::default(),
            compiling: Semaphore::new(COMPILATIONS),
        });
        let files = Files {
            parts: parts.clone(),
            status: status.clone(),
            by: format!("{} (folder of host {})", deployer(), config.host.name),
            again: config.host.folder_wins,
        };
        for found in &found {
            files.deploy(found, true).await;
        }
        let (drain, draining) = watch::channel(false);
        let roster = Arc::new(Roster::default());
        let mut handlers = Handlers::new(parts, roster.clone(), draining.clone());
        while let Err(error) = handlers.begin().await {
            let log::Error::Unavailable(reason) = error else {
                return Err(error).context("reading what is deployed");
            };
            warn!(reason, "what is deployed cannot be read; trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let mut host = Host {
            membership,
            roster: roster.clone(),
            handlers: JoinSet::new(),
            others: JoinSet::new(),
            drain,
            log: log.clone(),
            ledger: config.ledger.clone(),
            name: config.host.name.clone(),
        };
        host.handlers.spawn(handlers.follow());
        let report = Report {
            roster,
            host: host.name.clone(),
            incarnation: attempts.incarnation().into(),
            holdings: host.membership.holdings(),
            log,
            ledger: config.ledger.clone(),
            drain: draining,
        };
        host.others.spawn(report.run(status));
        if let Some(path) = &config.host.plugins {
            let mut folder = Folder::new(path);
            folder.handled(&found);
            host.others.spawn(files.watch(folder));
        }
        host.started().await;
        Ok(host)
    }

    /// Waits until every partition was taken over, or cannot be for now.
    async fn started(&self) {
        self.roster.settled().await;
        let entries = self.roster.all();
        let contexts: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some(entry.running.as_ref()?.context.borrow().clone()))
            .collect();
        let lanes = contexts.iter().flat_map(|context| context.lanes.iter());
        let all = futures::future::join_all(lanes.map(LaneStatus::started));
        if tokio::time::timeout(START_FOR, all).await.is_err() {
            warn!("not all partitions are taken over after {START_FOR:?}; going on with those that are");
        }
        self.roster.touch();
    }

    /// Stops taking events, finishes what is under way, and leaves. What is not
    /// done `within` that time is dropped, which is as safe as a crash.
    pub async fn drain(mut self, within: Duration) {
        info!("draining");
        self.membership.leave();
        self.drain.send_replace(true);
        let handlers = async { while self.handlers.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(within, handlers).await;
        self.membership.end().await;
        let gone = Append {
            subject: host_key(&self.ledger.name, &self.name),
            headers: vec![("KV-Operation".into(), "DEL".into())],
            ttl_s: Some(1),
            ..Append::default()
        };
        // It would expire by itself; this only shows it sooner.
        if let Err(error) = self
            .log
            .append(&hosts_stream(&self.ledger.name), vec![gone])
            .await
        {
            warn!(%error, "could not say goodbye");
        }
        match drained {
            Ok(()) => info!("drained"),
            Err(_) => warn!("not drained within {within:?}; what was under way will be executed again"),
        }
    }
}

/// The handlers of the plugins folder that can be read; the others are reported.
fn load(config: &Config, status: &StatusHandle) -> Vec<Deployed> {
    let Some(folder) = &config.host.plugins else {
        return Vec::new();
    };
    let mut loaded = Vec::new();
    let mut refused = Vec::new();
    for deployed in plugins::load_folder(folder) {
        match deployed {
            Ok(deployed) => loaded.push(deployed),
            // It is watched: one may come.
            Err(error @ plugins::Error::Empty { .. }) => info!("{error}"),
            Err(error) => {
                error!("refused: {error}");
                refused.push(error.to_string());
            }
        }
    }
    if !refused.is_empty() {
        status.set_not_ready("plugins", format!("refused: {}", refused.join("; ")));
    }
    loaded
}

/// Deploys what is found in this host's files.
struct Files {
    parts: Arc<Parts>,
    status: StatusHandle,
    by: String,
    /// Whether what was deployed once and replaced is deployed again at start.
    again: bool,
}

impl Files {
    /// Follows a folder for as long as the host runs.
    async fn watch(self, mut folder: Folder) {
        let mut every = tokio::time::interval(FOLDER_LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            for change in folder.look() {
                match change {
                    Change::Found(found) => self.deploy(&found, false).await,
                    Change::Unreadable(error) => {
                        error!("refused: {error}");
                        self.status.set_not_ready("plugins", format!("refused: {error}"));
                    }
                    Change::Gone(was) => self.remove(&was).await,
                }
            }
        }
    }

    async fn deploy(&self, found: &Deployed, at_start: bool) {
        let name = &found.manifest.name;
        let (log, ledger) = (&*self.parts.log, &self.parts.ledger);
        let what = format!("plugins, handler {name}");
        let wasm = found.wasm.clone();
        if let Err(refusal) = compile(&self.parts.engine, &found.manifest, wasm, ledger, log).await {
            return self.refused(&what, name, &format!("{refusal:#}"));
        }
        if !self.parts.trusted.is_empty() {
            return self.refused(
                &what,
                name,
                "files in a folder are not signed, and this host runs only what one of its trusted keys has signed \
                 (`weir deploy --sign`)",
            );
        }
        self.parts
            .at_hand
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(found.digest.clone(), found.wasm.clone());
        let when = match at_start && !self.again {
            true => When::New,
            false => When::Always,
        };
        let deployed = loop {
            let deployed = deploy::deploy(log, &ledger.name, found, &self.by, None, when).await;
            if !again(name, &deployed).await {
                break deployed;
            }
        };
        match deployed {
            Ok(Outcome::Superseded(revision)) => {
                warn!(
                    handler = name,
                    digest = found.digest,
                    revision,
                    "the folder has a version that was replaced since by another deployment, which goes on; deploy it \
                     with `weir deploy`, or take it out of the folder"
                );
                self.status.clear(&what);
            }
            Ok(_) => {
                self.status.clear(&what);
                self.status.clear("plugins");
            }
            Err(error) => self.refused(&what, name, &error.to_string()),
        }
    }

    fn refused(&self, what: &str, name: &str, reason: &str) {
        error!(handler = name, "refused: {reason}");
        self.status.set_not_ready(what, format!("refused: {reason}"));
    }

    /// Removes a handler whose files have disappeared, unless another deployment has
    /// replaced those files' since.
    async fn remove(&self, was: &Was) {
        let name = &was.name;
        let (log, ledger) = (&*self.parts.log, &self.parts.ledger.name);
        self.status.clear(&format!("plugins, handler {name}"));
        let latest = loop {
            let latest = Registry::of(log, ledger)
                .latest(name)
                .await
                .map_err(deploy::Error::from);
            if !again(name, &latest).await {
                break latest;
            }
        };
        match latest {
            Ok(Some(latest))
                if latest.deployment.digest == was.digest && latest.deployment.manifest == was.text => {}
            Ok(_) => {
                info!(
                    handler = name,
                    "its folder has disappeared; what another deployment runs goes on"
                );
                return;
            }
            Err(error) => {
                error!(handler = name, %error, "its folder has disappeared; try `weir remove {name}`");
                return;
            }
        }
        info!(handler = name, "its folder has disappeared; removing it");
        let removed = loop {
            let removed = deploy::remove(log, ledger, name, &self.by, false).await;
            if !again(name, &removed).await {
                break removed;
            }
        };
        if let Err(error) = removed {
            error!(handler = name, %error, "could not be removed; try `weir remove {name}`");
        }
    }
}

/// Whether to try again, after a pause: NATS did not answer.
async fn again<T>(handler: &str, result: &Result<T, deploy::Error>) -> bool {
    let Err(error) = result else { return false };
    if !error.is_transient() {
        return false;
    }
    warn!(handler, %error, "what happened in the folder cannot be written down; trying again");
    tokio::time::sleep(RETRY_PAUSE).await;
    true
}
