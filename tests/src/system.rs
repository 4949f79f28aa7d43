//! A whole Weir system for one test: a server with two sources, a folder for
//! handlers, how a host is launched, and the commands.
//!
//! ```text
//! FLIGHTS  flights.<key>  ── rotations, tally ──▶ rotations.<key>  ┐
//! EVENTS   events.<key>   ── probe ─────────────▶ out.>            ┴ LEDGER
//! ```

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir::admin::status::HostStatus;
use weir::effects::dead_letter::DeadLetter;

use crate::bus::{Bus, Outgoing, Read};
use crate::host::{Launch, Weir};
use crate::nats::NatsServer;
use crate::plugins::{PROBE, Plugins, ROTATIONS, TALLY};
use crate::{PATIENCE, until};

/// The ledger of every test.
pub const LEDGER: &str = "LEDGER";

/// Sources, key and subjects of `rotations` in tests.
pub const ROTATIONS_MANIFEST: &str = r#"
partitions = 8

[[source]]
stream = "FLIGHTS"
subjects = ["flights.>"]

[key]
subject_token = 2

[emit]
subjects = ["rotations.>"]
"#;

/// Sources and key of `tally` in tests.
pub const TALLY_MANIFEST: &str = r#"
partitions = 8

[[source]]
stream = "FLIGHTS"
subjects = ["flights.>"]

[key]
subject_token = 2
"#;

/// Sources, key and limits of `probe` in tests: low limits, so that what runs
/// into them does so soon, and few attempts.
pub const PROBE_MANIFEST: &str = r#"
partitions = 4

[[source]]
stream = "EVENTS"
subjects = ["events.>"]

[key]
subject_token = 2

[emit]
subjects = ["out.>"]

[limits]
memory_mib = 16
time_ms = 500
effects_bytes = 524288

[retry]
attempts = 2
backoff_ms = [50]
"#;

pub struct System {
    pub nats: NatsServer,
    pub bus: Bus,
    pub plugins: Plugins,
    pub launch: Launch,
    pub weir: Weir,
}

impl System {
    /// Starts the server and makes the sources. No host runs yet, and no handler
    /// is in the folder.
    pub async fn start() -> Result<System> {
        System::start_on(NatsServer::start()?).await
    }

    /// The same on a server that was started already.
    pub async fn start_on(nats: NatsServer) -> Result<System> {
        let bus = Bus::connect(&nats.url()).await?;
        bus.source("FLIGHTS", "flights.>").await?;
        bus.source("EVENTS", "events.>").await?;
        let plugins = Plugins::new()?;
        Ok(System {
            launch: Launch::new(&nats.url(), LEDGER, "rotations.>,out.>", plugins.path())?,
            weir: Weir::new(&nats.url(), LEDGER),
            nats,
            bus,
            plugins,
        })
    }

    pub fn rotations(&self) -> Result<()> {
        self.plugins
            .put("rotations", "1.0.0", ROTATIONS, ROTATIONS_MANIFEST)
    }

    pub fn tally(&self) -> Result<()> {
        self.plugins.put("tally", "1.0.0", TALLY, TALLY_MANIFEST)
    }

    pub fn probe(&self) -> Result<()> {
        self.plugins.put("probe", "1.0.0", PROBE, PROBE_MANIFEST)
    }

    /// Publishes a program for the probe, and returns the event's id.
    pub async fn tell(&self, key: &str, program: &str) -> Result<String> {
        let sequence = self
            .bus
            .publish(Outgoing::new(format!("events.{key}"), program))
            .await?;
        Ok(format!("EVENTS:{sequence}"))
    }

    /// Waits for at least `count` messages on `filter` of the ledger, and returns
    /// all there are.
    pub async fn emitted(&self, filter: &str, count: usize) -> Result<Vec<Read>> {
        until(&format!("{count} messages on {filter}"), PATIENCE, async || {
            let found = self.bus.read(LEDGER, filter).await?;
            ensure!(found.len() >= count, "there are {}", found.len());
            Ok(found)
        })
        .await
    }

    /// Waits until `rotations` has emitted for every event that was published.
    pub async fn all_counted(&self, flights: &Flights) -> Result<()> {
        let expected = flights.published;
        until(&format!("{expected} rotations"), PATIENCE, async || {
            let found = self.bus.count(LEDGER, "rotations.>").await?;
            ensure!(found >= expected, "there are {found}");
            Ok(())
        })
        .await
    }

    /// Waits until one more commit of any kind is in the ledger than at `since`,
    /// or `more` messages, and returns its last sequence.
    pub async fn progress(&self, since: u64, more: u64) -> Result<u64> {
        until(
            &format!("{more} messages after {since} of the ledger"),
            PATIENCE,
            async || {
                let last = self.bus.last_sequence(LEDGER).await?;
                ensure!(last >= since + more, "the last is {last}");
                Ok(last)
            },
        )
        .await
    }

    /// Waits for the dead letter of an event.
    pub async fn dead_letter(&self, handler: &str, id: &str) -> Result<DeadLetter> {
        until(&format!("dead letter {id} of {handler}"), PATIENCE, async || {
            let all = self.weir.dead_letters(handler).await?;
            let ids: Vec<String> = all.iter().map(|letter| letter.id.clone()).collect();
            let found = all.into_iter().find(|letter| letter.id == id);
            found.ok_or_else(|| anyhow::anyhow!("there are {ids:?}"))
        })
        .await
    }

    /// What each host says of itself, from the bucket in which they do.
    pub async fn hosts(&self) -> Result<Vec<HostStatus>> {
        let messages = self
            .bus
            .read("KV_weir_LEDGER_hosts", "$KV.weir_LEDGER_hosts.hosts.*")
            .await?;
        let mut latest = BTreeMap::new();
        for message in messages.into_iter().filter(|message| !message.data.is_empty()) {
            latest.insert(message.subject.clone(), serde_json::from_slice(&message.data)?);
        }
        Ok(latest.into_values().collect())
    }

    /// What one host says of itself.
    pub async fn host(&self, name: &str) -> Result<HostStatus> {
        let found = self.hosts().await?.into_iter().find(|status| status.host == name);
        found.ok_or_else(|| anyhow::anyhow!("host {name} says nothing of itself"))
    }
}

/// A seeded stream of events for `rotations` and `tally`, and what their counts
/// must come to.
pub struct Flights {
    rng: StdRng,
    keys: Vec<String>,
    pub published: u64,
    pub counts: BTreeMap<String, u64>,
}

impl Flights {
    /// Events over `keys` keys: half of them over the first fifth of the keys.
    pub fn new(seed: u64, keys: usize) -> Flights {
        Flights {
            rng: StdRng::seed_from_u64(seed),
            keys: (0..keys).map(|i| format!("N{i:05}")).collect(),
            published: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Publishes the next `count` events; returns once the source has them.
    pub async fn publish(&mut self, bus: &Bus, count: usize) -> Result<()> {
        let mut batch = Vec::with_capacity(count);
        for _ in 0..count {
            let among = if self.rng.random() {
                self.keys.len()
            } else {
                self.keys.len().div_ceil(5)
            };
            let key = &self.keys[self.rng.random_range(0..among)];
            let number = self.published;
            self.published += 1;
            *self.counts.entry(key.clone()).or_default() += 1;
            let event = Outgoing::new(format!("flights.{key}"), format!(r#"{{"flight":{number}}}"#));
            batch.push(event.id(format!("flight-{number}")));
        }
        bus.publish_all(&batch).await
    }
}
