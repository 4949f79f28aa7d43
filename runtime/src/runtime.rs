//! Wires the parts of a host together. The only file that sees all of them.
//!
//! ```text
//! connect ─> ledger ─> handlers ─┬─> feeds (one per source and handler)
//!                                ├─> lanes (one per partition)
//!                                └─> status
//!            executor, committer: one of each for all handlers
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::admin::status::{HandlerStatus, HostStatus, PartitionStatus, StatusHandle};
use crate::commit::committer::{Attempts, Committer};
use crate::config::{self, Config};
use crate::connect;
use crate::deployment::manifest::InstanceMode;
use crate::deployment::plugins::{self, Deployed};
use crate::dispatch::context::{Budget, Counters, HandlerContext, LaneStatus, State, source_names};
use crate::dispatch::executor::Executor;
use crate::dispatch::lane::Lane;
use crate::dispatch::start::Starts;
use crate::handler::{CodeCache, Engine, Program, ProgramSettings};
use crate::ledger::{self, Ledger};
use crate::log::{Append, Log, SharedLog};
use crate::metrics::HandlerMetrics;
use crate::model::subjects::{FIRST_GENERATION, HandlerNames, host_key, hosts_stream};
use crate::source::decode::Decoder;
use crate::source::feed::{CHUNKS_MAX, Feed, FeedHandle};
use crate::source::progress::SharedProgress;

/// Bytes of events that wait in all lanes together: more than the groups being
/// executed and committed only makes memory cold.
pub const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// How often a host says what it does.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// After this long without a word, a host is taken for gone.
const STATUS_TTL_S: u64 = 10;

/// Status reports over which a rate is measured.
const RATE_REPORTS: usize = 6;

/// How long a host waits for its partitions before it says that it is ready.
const START_FOR: Duration = Duration::from_secs(10);

/// Sandboxes beside one per partition: those being replaced.
const SPARE_INSTANCES: u32 = 64;

/// A host at work.
pub struct Host {
    handlers: Vec<Running>,
    lanes: JoinSet<()>,
    drain: watch::Sender<bool>,
    log: SharedLog,
    ledger: config::Ledger,
    name: String,
}

/// One handler at work.
struct Running {
    context: Arc<HandlerContext>,
    progress: Vec<SharedProgress>,
}

impl Host {
    /// Connects, prepares the ledger and starts every handler of the plugins
    /// folder. Waits for NATS as long as it takes; `status` says so meanwhile.
    ///
    /// # Errors
    /// The server is too old, the ledger could lose data, or the machine lacks something.
    pub async fn start(config: Config, status: StatusHandle) -> anyhow::Result<Host> {
        let (jetstream, ledger) = connect::for_host(&config, &status).await?;
        let deployed = load(&config, &status);
        Host::start_on(Arc::new(jetstream), ledger, deployed, &config, status).await
    }

    /// Starts `deployed` handlers on a log and a ledger that are ready.
    ///
    /// # Errors
    /// The machine lacks something. A handler that is refused is no error: the
    /// others go on, and `status` has the reason.
    pub async fn start_on(
        log: SharedLog,
        ledger: Ledger,
        deployed: Vec<Deployed>,
        config: &Config,
        status: StatusHandle,
    ) -> anyhow::Result<Host> {
        let attempts = Attempts::new(&format!("{:032x}", rand::random::<u128>()));
        let lanes: u32 = deployed.iter().map(|d| d.manifest.partitions).sum();
        let code_cache = CodeCache::new(&config.host.data);
        let engine = Engine::new(lanes + SPARE_INSTANCES, Some(code_cache))
            .context("starting the WebAssembly engine")?;
        let executor = Executor::start(config.host.threads).context("starting the execution threads")?;
        let committer = Committer::start(log.clone(), &ledger.name, attempts.clone());
        let (drain, draining) = watch::channel(false);
        let mut host = Host {
            handlers: Vec::new(),
            lanes: JoinSet::new(),
            drain,
            log: log.clone(),
            ledger: config.ledger.clone(),
            name: config.host.name.clone(),
        };
        for deployed in deployed {
            let name = deployed.manifest.name.clone();
            let program = match compile(&engine, &deployed, &ledger, &*log).await {
                Ok(program) => program,
                Err(error) => {
                    error!(handler = name, "refused: {error:#}");
                    status.set_not_ready(&format!("handler {name}"), format!("refused: {error:#}"));
                    continue;
                }
            };
            let names = HandlerNames::new(&ledger.name, &name, FIRST_GENERATION);
            let manifest = deployed.manifest;
            let partitions = manifest.partitions;
            let sources: Vec<&str> = source_names(&manifest).collect();
            info!(
                handler = name,
                version = manifest.version,
                digest = deployed.digest,
                partitions,
                "starting"
            );
            let context = Arc::new(HandlerContext {
                digest: deployed.digest,
                program,
                names: names.clone(),
                host: config.host.name.clone(),
                log: log.clone(),
                committer: committer.clone(),
                executor: executor.clone(),
                starts: Starts::new(log.clone(), names),
                metrics: HandlerMetrics::new(&name, partitions, &sources),
                counters: Counters::default(),
                budget: Budget::share(WAITING_BYTES, config.host.cache_bytes, lanes as usize),
                ledger_created: ledger.created,
                event_ttl_s: config.ledger.event_ttl.map(|ttl| ttl.as_secs().max(1)),
                lanes: (0..partitions).map(|_| LaneStatus::default()).collect(),
                manifest,
            });
            host.run(context, draining.clone());
        }
        host.report(&attempts, status);
        host.started().await;
        Ok(host)
    }

    /// Waits until every partition was taken over, or cannot be for now.
    async fn started(&self) {
        let lanes = self.handlers.iter().flat_map(|running| &running.context.lanes);
        let all = futures::future::join_all(lanes.map(LaneStatus::started));
        if tokio::time::timeout(START_FOR, all).await.is_err() {
            warn!("not all partitions are taken over after {START_FOR:?}; going on with those that are");
        }
    }

    /// Starts the feeds and lanes of one handler.
    fn run(&mut self, context: Arc<HandlerContext>, drain: watch::Receiver<bool>) {
        let manifest = &context.manifest;
        let partitions = manifest.partitions;
        let sources = manifest.sources.len() + 1;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..partitions)
            .map(|_| mpsc::channel(CHUNKS_MAX * sources))
            .unzip();
        let decoder = |source: usize, stream: &str, key| Decoder {
            source: source as u16,
            stream: stream.into(),
            key,
            partitions,
            names: context.names.clone(),
        };
        let internal = vec![context.names.fired_all(), context.names.redriven_all()];
        let external = manifest.sources.iter().enumerate().map(|(n, source)| {
            (
                source.subjects.clone(),
                decoder(n, &source.stream, Some(manifest.key.clone())),
            )
        });
        let all = external.chain([(internal, decoder(sources - 1, &context.names.ledger, None))]);
        let feeds: Vec<FeedHandle> = all
            .map(|(filters, decoder)| {
                let lanes: BTreeMap<u32, _> = (0..).zip(senders.iter().cloned()).collect();
                Feed::start(context.log.clone(), filters, decoder, lanes)
            })
            .collect();
        for (partition, chunks) in (0..).zip(receivers) {
            let lane = Lane::new(context.clone(), partition, chunks, feeds.clone(), drain.clone());
            self.lanes.spawn(lane.run());
        }
        let progress = feeds.into_iter().map(|feed| feed.progress).collect();
        self.handlers.push(Running { context, progress });
    }

    /// Stops taking events, finishes what is under way, and leaves. What is not
    /// done `within` that time is dropped, which is as safe as a crash.
    pub async fn drain(mut self, within: Duration) {
        info!("draining");
        self.drain.send_replace(true);
        let lanes = async { while self.lanes.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(within, lanes).await;
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

    /// Starts telling what this host does, to `status` and to the hosts bucket.
    fn report(&self, attempts: &Attempts, status: StatusHandle) {
        let handlers: Vec<Reporter> = self
            .handlers
            .iter()
            .map(|running| Reporter {
                context: running.context.clone(),
                progress: running.progress.clone(),
                counted: Vec::new(),
            })
            .collect();
        let report = Report {
            handlers,
            host: self.name.clone(),
            incarnation: attempts.incarnation().into(),
            log: self.log.clone(),
            ledger: self.ledger.clone(),
            drain: self.drain.subscribe(),
        };
        tokio::spawn(report.run(status));
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

/// Compiles a handler for a ledger.
///
/// # Errors
/// The handler would read or write what it may not, or its file is refused.
pub(crate) async fn compile(
    engine: &Arc<Engine>,
    deployed: &Deployed,
    ledger: &Ledger,
    log: &dyn Log,
) -> anyhow::Result<Arc<Program>> {
    let manifest = &deployed.manifest;
    if let Some(subject) = manifest.emit.iter().find(|subject| !ledger.takes(subject)) {
        bail!(
            "emit subject `{subject}` is not among the subjects of ledger {} ({}): add it there, or take it out of \
             `[emit] subjects`",
            ledger.name,
            ledger.subjects.join(", ")
        );
    }
    for source in manifest.sources.iter().filter(|s| s.stream == ledger.name) {
        if let Some(subject) = source
            .subjects
            .iter()
            .find(|s| s.starts_with('*') || s.starts_with('>'))
        {
            bail!(
                "source subject `{subject}` would read the ledger's own records: begin it with a literal token"
            );
        }
    }
    let settings = ProgramSettings {
        handler: manifest.name.clone(),
        limits: manifest.limits,
        emit: manifest.emit.clone(),
        ledger_subjects: ledger.subjects.clone(),
        config: manifest.config.clone(),
        max_payload: log.max_payload(),
        per_event: manifest.instance == InstanceMode::PerEvent,
    };
    let (engine, wasm) = (engine.clone(), deployed.wasm.clone());
    let compiled = tokio::task::spawn_blocking(move || Program::compile(&engine, &wasm, settings)).await?;
    compiled.with_context(|| manifest.component.display().to_string())
}

/// Tells what a host does, every [`STATUS_EVERY`].
struct Report {
    handlers: Vec<Reporter>,
    host: String,
    incarnation: String,
    log: SharedLog,
    /// Of which the hosts bucket is made again: a server that restarts forgets
    /// a stream in memory.
    ledger: config::Ledger,
    drain: watch::Receiver<bool>,
}

struct Reporter {
    context: Arc<HandlerContext>,
    progress: Vec<SharedProgress>,
    /// When, and events committed by then: the last few reports.
    counted: Vec<(Instant, u64)>,
}

impl Report {
    async fn run(mut self, status: StatusHandle) {
        let mut every = tokio::time::interval(STATUS_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = self.drain.wait_for(|drain| *drain) => {
                    status.set_not_ready("host", "draining");
                    return;
                }
            }
            let host = HostStatus {
                host: self.host.clone(),
                incarnation: self.incarnation.clone(),
                weir_version: env!("CARGO_PKG_VERSION").into(),
                http: status.http(),
                time_ms: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |d| d.as_millis() as u64),
                handlers: self.handlers.iter_mut().map(Reporter::status).collect(),
                not_ready: status.not_ready(),
            };
            crate::metrics::connected(self.log.connected());
            self.readiness(&host, &status);
            let message = Append {
                subject: host_key(&self.ledger.name, &self.host),
                data: serde_json::to_vec(&host).expect("a status is plain data").into(),
                ttl_s: Some(STATUS_TTL_S),
                ..Append::default()
            };
            status.set(host);
            if !self.log.connected() {
                continue;
            }
            let stream = hosts_stream(&self.ledger.name);
            let Err(error) = self.log.append(&stream, vec![message]).await else {
                continue;
            };
            let settings = ledger::hosts_settings(&self.ledger);
            if let Err(cause) = self.log.create_stream(&stream, &settings).await {
                warn!(%error, %cause, "what this host does cannot be written down for `weir handlers`");
            }
        }
    }

    fn readiness(&self, host: &HostStatus, status: &StatusHandle) {
        match self.log.connected() {
            true => status.clear("nats"),
            false => status.set_not_ready("nats", "the connection to NATS is lost; reconnecting"),
        }
        for handler in &host.handlers {
            // One that starts for the first time has no reason yet.
            let stopped = handler.partitions.iter().find(|p| {
                p.state == State::Stopped.as_str()
                    || (p.state == State::Starting.as_str() && p.reason.is_some())
            });
            let source = handler.stopped_sources.first();
            let reason = stopped
                .map(|p| {
                    format!(
                        "partition {} is {}: {}",
                        p.partition,
                        p.state,
                        p.reason.as_deref().unwrap_or("?")
                    )
                })
                .or(source.map(|reason| format!("a source is stopped: {reason}")));
            let key = format!("handler {}", handler.name);
            match reason {
                Some(reason) => status.set_not_ready(&key, reason),
                None => status.clear(&key),
            }
        }
    }
}

impl Reporter {
    fn status(&mut self) -> HandlerStatus {
        let context = &self.context;
        let events = context.counters.events.load(Ordering::Relaxed);
        self.counted.push((Instant::now(), events));
        if self.counted.len() > RATE_REPORTS {
            self.counted.remove(0);
        }
        let (since, before) = self.counted[0];
        let seconds = since.elapsed().as_secs_f64();
        let mut partitions = Vec::with_capacity(context.lanes.len());
        for (partition, lane) in (0..).zip(&context.lanes) {
            let (state, reason) = lane.get();
            let waiting = lane.waiting.load(Ordering::Relaxed);
            context.metrics.lag(partition, waiting);
            let record = lane.record.load(Ordering::Relaxed);
            partitions.push(PartitionStatus {
                partition,
                state: state.as_str().into(),
                reason,
                waiting,
                record,
            });
        }
        let mut unread = 0;
        let mut stopped = 0;
        let mut stopped_sources = Vec::new();
        let mut lost = BTreeMap::new();
        let mut undecodable = 0;
        for (source, (progress, name)) in self.progress.iter().zip(context.source_names()).enumerate() {
            let progress = progress.get();
            context.metrics.unread(source, progress.unread);
            context.metrics.lost(source, progress.lost);
            unread += progress.unread;
            stopped += usize::from(!progress.stopped.is_empty());
            stopped_sources.extend(progress.stopped);
            if progress.lost > 0 {
                lost.insert(name.to_owned(), progress.lost);
            }
            undecodable += progress.undecodable;
        }
        context.metrics.sources_stopped(stopped);
        context.metrics.undecodable(undecodable);
        HandlerStatus {
            name: context.manifest.name.clone(),
            version: context.manifest.version.clone(),
            digest: context.digest.clone(),
            partitions,
            unread,
            rate: if seconds > 0.1 {
                (events - before) as f64 / seconds
            } else {
                0.0
            },
            errors: context.counters.errors.load(Ordering::Relaxed),
            dead_letters: context.counters.dead_letters.load(Ordering::Relaxed),
            stopped_sources,
            lost,
            undecodable,
        }
    }
}
