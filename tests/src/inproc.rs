//! Weir in the process of a test, without a server: hosts on one log in memory,
//! each behind a connection of its own that does what the test tells it to.
//!
//! * [`World`]: the log, the ledger, and what can be read from them.
//! * [`TestHost`]: a host as `weir run` starts it. Dropped, it has crashed: what
//!   it had handed to its connection may still arrive.
//! * [`Link`](link::Link): a host's connection to the log. Two hosts in one
//!   world stand for two processes.
//!
//! The log's clock stands still until a test moves it ([`World::pass`]), so that
//! timers fire when the test says. Pauses of the host itself are real time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir::admin::status::{HandlerStatus, PartitionStatus, StatusHandle};
use weir::commit::record::Record;
use weir::config;
use weir::deployment::plugins::{Deployed, load_folder};
use weir::ledger::{self, Ledger};
use weir::log::memory::MemoryLog;
use weir::log::{Append, Log, Stored, StreamSettings};
use weir::model::event::Headers;
use weir::model::key::partition;
use weir::model::subjects::{FIRST_GENERATION, HandlerNames, bucket_stream};
use weir::runtime::Host;
use weir::state::query;

use crate::plugins::Plugins;

mod link;

pub use link::{Fate, Kind, Link, Sent};

/// The ledger of every world.
pub const LEDGER: &str = "L";
/// The stream that tests publish to, and its subjects.
pub const SOURCE: &str = "EVENTS";
/// Another one.
pub const OTHER_SOURCE: &str = "OTHERS";

/// How long a condition may take. Far above what any takes; it bounds what
/// never comes.
const PATIENCE: Duration = Duration::from_secs(40);

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Bytes of cells that make a checkpoint due at once, in a host whose cache is
/// as small as [`HostOptions::tiny_cache`] makes it.
const CHECKPOINT_AT_ONCE: usize = 140_000;

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not in [`PATIENCE`].
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(comes(condition).await, "waited {PATIENCE:?} for: {what}");
}

/// Waits until `condition` holds, and says whether it did in [`PATIENCE`].
pub async fn comes(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if condition().await {
            return true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}

/// A handler made of a guest of the repository and the rest of its manifest.
///
/// # Panics
/// If the guest was not built, or the manifest is wrong.
pub fn handler(name: &str, guest: &str, manifest: &str) -> Deployed {
    let plugins = Plugins::new().expect("a temporary folder");
    plugins.put(name, "1", guest, manifest).expect("a guest");
    load_folder(plugins.path()).remove(0).expect("a valid manifest")
}

/// The probe, reading [`SOURCE`] by the second token of the subject. `more` is
/// added to the manifest.
pub fn probe(partitions: u32, more: &str) -> Deployed {
    let manifest = format!(
        "partitions = {partitions}\n\
         [[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n{more}"
    );
    handler("probe", crate::plugins::PROBE, &manifest)
}

/// A key of `partition`, one for each `n`.
pub fn key_in(wanted: u32, partitions: u32, n: usize) -> String {
    (0..)
        .map(|i| format!("k{i}"))
        .filter(|key| partition(key, partitions) == wanted)
        .nth(n)
        .expect("keys do not run out")
}

/// A log, a ledger in it and two source streams.
pub struct World {
    pub log: MemoryLog,
    config: config::Ledger,
}

impl Default for World {
    fn default() -> Self {
        World {
            log: MemoryLog::new(),
            config: config::Ledger {
                name: LEDGER.into(),
                subjects: ["out.>", "rotations.*", "in.>"].map(String::from).to_vec(),
                replicas: 1,
                event_ttl: None,
            },
        }
    }
}

impl World {
    pub async fn new() -> World {
        let world = World::default();
        world.prepare_ledger().await;
        world.create_source(SOURCE, "events.>").await;
        world.create_source(OTHER_SOURCE, "others.>").await;
        world
    }

    /// As a host does at start: creates what is missing of the ledger.
    pub async fn prepare_ledger(&self) -> Ledger {
        ledger::ensure(&self.log, &self.config).await.expect("a ledger")
    }

    pub async fn create_source(&self, stream: &str, subjects: &str) {
        let settings = StreamSettings {
            subjects: vec![subjects.into()],
            ..ledger::ledger_settings(&self.config)
        };
        self.log.create_stream(stream, &settings).await.expect("a stream");
    }

    /// Starts a host with these handlers, on a connection of its own.
    pub async fn host(&self, name: &str, handlers: &[Deployed]) -> TestHost {
        HostOptions::named(name).start(self, handlers).await
    }

    /// Moves the log's clock: timers fire, messages expire.
    pub fn pass(&self, time: Duration) {
        self.log.advance(time.as_nanos() as u64);
    }

    pub fn now(&self) -> u64 {
        self.log.now()
    }

    /// Appends a message, and returns its sequence.
    pub async fn publish(
        &self,
        stream: &str,
        subject: &str,
        headers: Headers,
        data: impl Into<Bytes>,
    ) -> u64 {
        let message = Append {
            subject: subject.into(),
            headers,
            data: data.into(),
            ..Append::default()
        };
        let appended = self.log.append(stream, vec![message]).await;
        appended.expect("a message is appended").sequence
    }

    /// Publishes an event of `key`: a program for the probe.
    pub async fn tell(&self, key: &str, program: &str) -> u64 {
        let program = program.to_owned();
        self.publish(SOURCE, &format!("events.{key}"), Vec::new(), program)
            .await
    }

    /// Messages of the ledger that match `filter`, oldest first.
    pub async fn ledger(&self, filter: &str) -> Vec<Stored> {
        let all = self.log.scan(LEDGER, filter, 1, usize::MAX).await;
        all.expect("the ledger is readable")
    }

    /// Their payloads as text.
    pub async fn texts(&self, filter: &str) -> Vec<String> {
        let messages = self.ledger(filter).await.into_iter();
        messages
            .map(|m| String::from_utf8_lossy(&m.data).into_owned())
            .collect()
    }

    /// Waits until exactly these were emitted on `filter`, in this order.
    pub async fn emitted(&self, filter: &str, expected: &[&str]) {
        let mut last = Vec::new();
        let begin = Instant::now();
        while last != expected {
            last = self.texts(filter).await;
            assert!(
                begin.elapsed() < PATIENCE && last.len() <= expected.len(),
                "{filter}: {last:?} instead of {expected:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub fn names(&self, handler: &str) -> HandlerNames {
        HandlerNames::new(LEDGER, handler, FIRST_GENERATION)
    }

    /// Commit records of a partition that are still there, oldest first.
    pub async fn records(&self, handler: &str, partition: u32) -> Vec<(u64, Record)> {
        let stored = self
            .ledger(&self.names(handler).record(partition))
            .await
            .into_iter();
        stored
            .map(|stored| (stored.sequence, Record::decode(&stored).expect("a record")))
            .collect()
    }

    /// Committed cells of a key.
    pub async fn cells(&self, handler: &str, key: &str) -> BTreeMap<String, Bytes> {
        query::get(&self.log, &self.names(handler), key, false)
            .await
            .expect("committed state")
    }

    /// Last message of a subject of the state bucket.
    pub async fn bucket(&self, subject: &str) -> Option<Stored> {
        let last = self.log.last(&bucket_stream(LEDGER), subject).await;
        last.expect("the bucket is readable")
    }

    /// Makes a host with a tiny cache checkpoint a partition of the probe, by
    /// means of `key` in it, and waits until a record rests on that.
    pub async fn checkpoint(&self, key: &str, partitions: u32) {
        let partition = partition(key, partitions);
        let meta = self.names("probe").meta(partition);
        let before = self.bucket(&meta).await.map_or(0, |m| m.sequence);
        self.tell(key, &format!("fill checkpoint 1 {CHECKPOINT_AT_ONCE}"))
            .await;
        eventually("a checkpoint", async || {
            self.bucket(&meta).await.is_some_and(|m| m.sequence > before)
        })
        .await;
        let begin = Instant::now();
        loop {
            // The host learns of its checkpoint a moment after we do.
            let event = self.tell(key, "delete checkpoint").await;
            self.handled(key, partitions, event).await;
            let last = self.records("probe", partition).await.pop();
            if last.is_some_and(|(_, record)| record.watermark.is_some_and(|w| w.bucket > before)) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "no record rests on the checkpoint");
        }
    }

    /// Waits until the probe has committed the event of `key` at `sequence`.
    pub async fn handled(&self, key: &str, partitions: u32, sequence: u64) {
        let partition = partition(key, partitions);
        let names = self.names("probe");
        eventually("the event is committed", async || {
            self.position(&names, partition).await >= sequence
        })
        .await;
    }

    /// How far a partition has committed [`SOURCE`].
    pub async fn position(&self, names: &HandlerNames, partition: u32) -> u64 {
        let subject = names.record(partition);
        let last = self.log.last(LEDGER, &subject).await.expect("a readable ledger");
        let record = last.map(|last| Record::decode(&last).expect("a record"));
        record
            .and_then(|record| Some(record.positions.get(SOURCE)?.sequence))
            .unwrap_or(0)
    }
}

/// How a host is started.
#[derive(Debug, Clone)]
pub struct HostOptions {
    name: String,
    cache_bytes: usize,
    link: Option<Link>,
}

impl HostOptions {
    pub fn named(name: &str) -> HostOptions {
        HostOptions {
            name: name.into(),
            cache_bytes: 64 * 1024 * 1024,
            link: None,
        }
    }

    /// The least that a partition keeps of cells, which is 256 KiB.
    pub fn tiny_cache(mut self) -> HostOptions {
        self.cache_bytes = 1;
        self
    }

    /// On a connection that was told what to do before the host starts.
    pub fn on(mut self, link: &Link) -> HostOptions {
        self.link = Some(link.clone());
        self
    }

    pub async fn start(self, world: &World, handlers: &[Deployed]) -> TestHost {
        let link = self.link.unwrap_or_else(|| Link::new(&world.log));
        let name = self.name.clone();
        let config = config::Config {
            nats: config::Nats::default(),
            ledger: world.config.clone(),
            host: config::Host {
                name: self.name,
                plugins: None,
                // Shared, so that a guest is compiled once for all tests.
                data: crate::plugins::repository().join("target/tmp/weir"),
                http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                threads: 2,
                activity_threads: 1,
                cache_bytes: self.cache_bytes,
                trusted: Vec::new(),
                // Many hosts share the address space of one test.
                instances: 200,
                folder_wins: false,
            },
        };
        let ledger = world.prepare_ledger().await;
        let status = StatusHandle::new();
        let host = Host::start_on(
            Arc::new(link.clone()),
            ledger,
            handlers.to_vec(),
            &config,
            status.clone(),
        )
        .await
        .expect("a host starts");
        TestHost {
            name,
            host,
            link,
            status,
        }
    }
}

/// A host that runs. Dropping it is a crash.
pub struct TestHost {
    pub name: String,
    host: Host,
    link: Link,
    pub status: StatusHandle,
}

impl Deref for TestHost {
    type Target = Link;
    fn deref(&self) -> &Link {
        &self.link
    }
}

impl TestHost {
    /// Its connection, which outlives it: what is on its way there may still arrive.
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// Stops it in good order.
    pub async fn drain(self) {
        self.host.drain(Duration::from_secs(10)).await;
    }

    /// What it says of a handler, a moment old at the most.
    pub fn handler(&self, name: &str) -> Option<HandlerStatus> {
        let handlers = self.status.get()?.handlers;
        handlers.into_iter().find(|h| h.name == name)
    }

    /// Waits until a partition is in `state`, and returns what is said of it.
    pub async fn partition_is(&self, handler: &str, partition: u32, state: &str) -> PartitionStatus {
        let mut found = None;
        eventually(&format!("{handler}/{partition} is {state}"), async || {
            found = self
                .handler(handler)
                .and_then(|h| h.partitions.into_iter().nth(partition as usize))
                .filter(|p| p.state == state);
            found.is_some()
        })
        .await;
        found.expect("just seen")
    }

    /// Waits until a partition is stopped for a reason that contains `part`, and
    /// `/readyz` says so, too.
    pub async fn stopped(&self, handler: &str, partition: u32, part: &str) {
        let status = self.partition_is(handler, partition, "stopped").await;
        let reason = status.reason.unwrap_or_default();
        assert!(reason.contains(part), "stopped because {reason:?}, not {part:?}");
        self.not_ready(part).await;
    }

    /// Waits until `/readyz` gives a reason that contains `part`.
    pub async fn not_ready(&self, part: &str) {
        eventually(&format!("/readyz says {part:?}"), async || {
            self.status.not_ready().iter().any(|reason| reason.contains(part))
        })
        .await;
    }
}
