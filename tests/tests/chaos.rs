//! Everything at once: hosts and servers are killed, stopped and continued at random,
//! connections are cut and fall silent, code is deployed all the while, and at the end
//! every event has been counted once and in its order.
//!
//! `cargo xtask chaos --minutes N --seed S` runs it for longer than the tests do.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_tests::bus::Bus;
use weir_tests::host::{Host, Launch, Weir};
use weir_tests::nats::Cluster;
use weir_tests::plugins::{Plugins, ROTATIONS, component, repository};
use weir_tests::proxy::Proxy;
use weir_tests::system::{Flights, LEDGER, ROTATIONS_MANIFEST};
use weir_tests::{check, seed, until};

const HOSTS: usize = 3;
const SERVERS: usize = 3;
const KEYS: usize = 300;

/// Events published per step.
const EVENTS: usize = 100;

/// How long a run goes on where nobody says.
const MINUTES: f64 = 1.0;

/// How long the hosts have, after the last fault, to do what is left.
const SETTLE: Duration = Duration::from_secs(120);

/// What was done.
#[derive(Debug, Default)]
struct Done {
    host_kills: u32,
    host_stops: u32,
    host_drains: u32,
    server_kills: u32,
    server_stops: u32,
    cuts: u32,
    isolations: u32,
    silences: u32,
    deployments: u32,
    deployments_failed: u32,
}

/// A host, and the wires between it and each server.
struct Member {
    host: Host,
    wires: Vec<Proxy>,
}

struct Chaos {
    random: StdRng,
    cluster: Cluster,
    launch: Launch,
    hosts: Vec<Member>,
    started: u32,
    versions: Plugins,
    weir: Weir,
    done: Done,
}

impl Chaos {
    async fn start(seed: u64) -> Result<Chaos> {
        let cluster = Cluster::start(SERVERS).await?;
        let versions = Plugins::new()?;
        let older = fs::read(repository().join("tests/fixtures/wit/0.1.0/rotations.wasm"))?;
        let newer = fs::read(component(ROTATIONS)?)?;
        for (folder, bytes) in [("a", newer), ("b", older)] {
            versions.put_bytes("rotations", folder, &bytes, ROTATIONS_MANIFEST)?;
            fs::rename(versions.path().join("rotations"), versions.path().join(folder))?;
        }
        let url = cluster.url();
        let mut launch = Launch::new(&url, LEDGER, "rotations.>", "".as_ref())?;
        launch.replicas = SERVERS;
        Ok(Chaos {
            random: StdRng::seed_from_u64(seed),
            weir: Weir::new(&url, LEDGER),
            cluster,
            launch,
            hosts: Vec::new(),
            started: 0,
            versions,
            done: Done::default(),
        })
    }

    async fn start_host(&mut self) -> Result<()> {
        self.started += 1;
        let mut wires = Vec::new();
        for url in self.cluster.urls() {
            wires.push(Proxy::start(&url).await?);
        }
        let urls: Vec<String> = wires.iter().map(Proxy::url).collect();
        let launch = self.launch.clone().name(&format!("h{}", self.started));
        let host = launch.through(&urls.join(",")).spawn()?;
        self.hosts.push(Member { host, wires });
        Ok(())
    }

    async fn deploy(&mut self) -> Result<()> {
        let version = ["a", "b"][self.done.deployments as usize % 2];
        let folder = self.versions.path().join(version).display().to_string();
        // Not waited for: hosts and servers may be away.
        let deployed = self.weir.run(&["deploy", &folder, "--timeout", "0"]).await?;
        match deployed.code {
            Some(0) => self.done.deployments += 1,
            _ => self.done.deployments_failed += 1,
        }
        Ok(())
    }

    /// Something is wrong with all connections of one host, and then right again.
    async fn disturb(&mut self, host: usize, pause: Duration) {
        let wires = &self.hosts[host].wires;
        match self.random.random_range(0..3) {
            0 => {
                wires.iter().for_each(Proxy::cut);
                self.done.cuts += 1;
            }
            // Nothing is to be reached for a while.
            1 => {
                wires.iter().for_each(Proxy::close);
                self.done.isolations += 1;
                tokio::time::sleep(pause).await;
            }
            // Connections stay, and nothing comes through, as where a cable is out.
            _ => {
                wires.iter().for_each(Proxy::hold);
                self.done.silences += 1;
                tokio::time::sleep(pause).await;
            }
        }
        wires.iter().for_each(Proxy::open);
    }

    /// One fault, and its end.
    async fn something_happens(&mut self) -> Result<()> {
        let host = self.random.random_range(0..self.hosts.len());
        let server = self.random.random_range(0..self.cluster.size());
        let pause = Duration::from_millis(self.random.random_range(100..4_000));
        match self.random.random_range(0..100) {
            0..25 => {
                let member = self.hosts.swap_remove(host);
                member.host.kill().await?;
                self.done.host_kills += 1;
                tokio::time::sleep(pause / 4).await;
                self.start_host().await?;
            }
            25..40 => {
                self.hosts[host].host.stop().await?;
                self.done.host_stops += 1;
                tokio::time::sleep(pause).await;
                self.hosts[host].host.cont().await?;
            }
            40..50 => {
                let member = self.hosts.swap_remove(host);
                self.start_host().await?;
                let code = member.host.term().await?;
                // None: the signal came before it listened to any.
                anyhow::ensure!(
                    code.is_none_or(|code| code < 2),
                    "a drained host ended with {code:?}"
                );
                self.done.host_drains += 1;
            }
            50..65 => self.disturb(host, pause).await,
            65..75 => {
                self.cluster.server(server).kill();
                self.done.server_kills += 1;
                tokio::time::sleep(pause / 2).await;
                self.cluster.server(server).restart()?;
                self.cluster.healthy(server).await?;
            }
            75..85 => {
                self.cluster.server(server).signal("STOP").await?;
                self.done.server_stops += 1;
                tokio::time::sleep(pause).await;
                self.cluster.server(server).signal("CONT").await?;
                self.cluster.healthy(server).await?;
            }
            _ => self.deploy().await?,
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_disordered_whatever_happens() -> Result<()> {
    let seed = seed();
    let minutes: f64 = match std::env::var("WEIR_CHAOS_MINUTES") {
        Ok(minutes) => minutes.parse().context("WEIR_CHAOS_MINUTES")?,
        Err(_) => MINUTES,
    };
    let mut chaos = Chaos::start(seed).await?;
    let bus = Bus::connect(&chaos.cluster.url()).await?;
    bus.replicated_source("FLIGHTS", "flights.>", SERVERS).await?;
    for _ in 0..HOSTS {
        chaos.start_host().await?;
        chaos.hosts.last().context("just started")?.host.ready().await?;
    }
    chaos.deploy().await?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(async move {
        let mut flights = Flights::new(seed, KEYS);
        while !*stopped.borrow() {
            flights.publish(&bus, EVENTS).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok((bus, flights))
    });
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < minutes * 60.0 {
        chaos.something_happens().await?;
        anyhow::ensure!(!load.is_finished(), "the publisher gave up");
    }
    stop.send_replace(true);
    let (bus, flights) = load.await??;

    let expected = flights.published;
    let settled = until("everything is counted", SETTLE, async || {
        let found = bus.count(LEDGER, "rotations.>").await?;
        anyhow::ensure!(found >= expected, "{found} of {expected}");
        Ok(())
    });
    let settled = settled.await;
    if settled.is_err() {
        let handlers = chaos.weir.run(&["handlers"]).await?;
        let hosts = chaos.weir.run(&["hosts"]).await?;
        eprintln!(
            "{}{}{}{}",
            handlers.stdout, handlers.stderr, hosts.stdout, hosts.stderr
        );
    }
    settled?;
    let counts = check::per_key_sequence(&bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)?;
    println!(
        "WEIR_SEED={seed}: {:?} in {:.1} minutes; {expected} events checked, 0 lost, 0 doubled, 0 out of order",
        chaos.done,
        begin.elapsed().as_secs_f64() / 60.0
    );
    Ok(())
}
