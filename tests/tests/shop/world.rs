//! The servers, the hosts and the sink of a run, and what is done to them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use weir_tests::bus::Bus;
use weir_tests::host::{Host, Launch, Output, Weir};
use weir_tests::nats::NatsServer;
use weir_tests::plugins::{component, repository};
use weir_tests::postgres::{Postgres, service};

/// The ledger, as the handlers' manifests name it.
pub const LEDGER: &str = "SHOP";
/// The stream of the other team.
pub const FLEET: &str = "FLEET";

const SHOP: &str = "examples/shop";
pub const HANDLERS: [&str; 7] = [
    "orders",
    "fulfilment",
    "payments",
    "stock",
    "shipping",
    "couriers",
    "sales",
];
const SUBJECTS: &str = "shop.>,stock.>,payments.>,shipping.>,courier.>,rows.>";
const HOSTS: usize = 2;

/// Of all runs: an interpreter takes half a minute to compile.
const COMPILED: &str = "shop-compiled";

/// So soon that nothing that is handed on a second time would be known to the other team's stream.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// The handler of the read model: its rows are not to be written again when it is rebuilt.
const REPLAYED: &str = "sales";

/// How long hosts and servers are away. Longer than a step of a saga waits, at times.
const AWAY_MS: std::ops::Range<u64> = 100..2_500;

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    host_kills: u32,
    host_stops: u32,
    host_drains: u32,
    server_kills: u32,
    sink_kills: u32,
    postgres_crashes: u32,
    /// Of the handler of the read model.
    replays: u32,
}

pub struct World {
    pub bus: Bus,
    pub weir: Weir,
    pub done: Done,
    nats: NatsServer,
    postgres: Postgres,
    launch: Launch,
    hosts: Vec<Host>,
    /// Hosts that there ever were.
    started: u32,
    sink: Host,
    /// A replay under way. What happens to servers may end the command, and not what it has begun.
    replay: Option<JoinHandle<Result<Output>>>,
}

impl World {
    /// Everything runs, and all handlers are deployed.
    pub async fn start() -> Result<World> {
        let nats = NatsServer::start()?;
        let bus = Bus::connect(&nats.url()).await?;
        bus.source("ORDERS", "web.order.*").await?;
        bus.source("DELIVERIES", "warehouse.delivered.*").await?;
        let window = u64::try_from(DUPLICATE_WINDOW.as_nanos())?;
        bus.create(json!({ "name": FLEET, "subjects": ["fleet.>"], "duplicate_window": window }))
            .await?;

        let postgres = Postgres::start()?;
        let schema = std::fs::read_to_string(repository().join(SHOP).join("sales/schema.sql"))?;
        postgres.connect().await?.batch_execute(&schema).await?;

        let mut launch = Launch::new(&nats.url(), LEDGER, SUBJECTS, "".as_ref())?;
        launch.data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(COMPILED);
        let mut world = World {
            sink: start_sink(&postgres, &nats)?,
            bus,
            weir: Weir::new(&nats.url(), LEDGER),
            done: Done::default(),
            nats,
            postgres,
            launch,
            hosts: Vec::new(),
            started: 0,
            replay: None,
        };
        // The first one compiles what is deployed, and the others find it compiled.
        world.start_host()?;
        world.hosts[0].ready().await?;
        deploy(&world.weir).await?;
        for _ in 1..HOSTS {
            world.start_host()?;
        }
        Ok(world)
    }

    /// Somebody finds that a projection should be rebuilt, whatever else is going on.
    fn somebody_replays(&mut self) {
        if self.replay.as_ref().is_none_or(JoinHandle::is_finished) {
            let weir = self.weir.clone();
            self.replay = Some(tokio::spawn(async move { weir.run(&["replay", REPLAYED]).await }));
            self.done.replays += 1;
        }
    }

    /// What was begun is brought to its end.
    pub async fn replayed(&mut self) -> Result<()> {
        let Some(replay) = self.replay.take() else {
            return Ok(());
        };
        let ended = replay.await??;
        if ended.code != Some(0) {
            self.weir.run(&["replay", REPLAYED]).await?.exits(0)?;
        }
        Ok(())
    }

    /// One fault, and its end.
    pub async fn something_happens(&mut self, random: &mut StdRng) -> Result<()> {
        let host = random.random_range(0..self.hosts.len());
        let away = Duration::from_millis(random.random_range(AWAY_MS));
        if random.random_bool(0.3) {
            self.somebody_replays();
        }
        match random.random_range(0..100) {
            0..30 => {
                self.hosts.swap_remove(host).kill().await?;
                tokio::time::sleep(away / 4).await;
                self.start_host()?;
                self.done.host_kills += 1;
            }
            30..45 => {
                self.hosts[host].stop().await?;
                // What is frozen has to be so for a while: nothing else ends it.
                tokio::time::sleep(away).await;
                self.hosts[host].cont().await?;
                self.done.host_stops += 1;
            }
            45..55 => {
                self.start_host()?;
                let code = self.hosts.swap_remove(host).term().await?;
                // None: the signal came before it listened to any.
                ensure!(
                    code.is_none_or(|code| code < 2),
                    "a drained host ended with {code:?}"
                );
                self.done.host_drains += 1;
            }
            55..75 => {
                self.nats.kill();
                tokio::time::sleep(away / 2).await;
                self.nats.restart()?;
                self.done.server_kills += 1;
            }
            75..90 => {
                let next = start_sink(&self.postgres, &self.nats)?;
                std::mem::replace(&mut self.sink, next).kill().await?;
                self.done.sink_kills += 1;
            }
            _ => {
                self.postgres.stop()?;
                tokio::time::sleep(away / 2).await;
                self.postgres.restart()?;
                self.done.postgres_crashes += 1;
            }
        }
        Ok(())
    }

    /// Adds a host. It has a name of its own: that of one which may still run is refused.
    fn start_host(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("h{}", self.started);
        self.hosts.push(self.launch.clone().name(&name).spawn()?);
        Ok(())
    }

    /// What a run that does not go on shows of itself.
    pub async fn describe(&self) -> String {
        let mut all = String::new();
        for words in [
            &["hosts"][..],
            &["handlers"],
            &["locks", "list"],
            &["sagas", "list", "fulfilment", "--status", "running"],
            &["sagas", "list", "fulfilment", "--status", "compensating"],
            &["sagas", "list", "fulfilment", "--status", "stuck"],
        ] {
            match self.weir.run(words).await {
                Ok(output) => {
                    all += &format!("\nweir {}:\n{}{}", words.join(" "), output.stdout, output.stderr)
                }
                Err(error) => all += &format!("\nweir {}: {error:#}", words.join(" ")),
            }
        }
        for host in &self.hosts {
            match host.get("/readyz").await {
                Ok((status, body)) => all += &format!("\n/readyz: {status} {body}"),
                Err(error) => all += &format!("\n/readyz: {error:#}"),
            }
        }
        all
    }

    /// A session to look at the tables with.
    pub async fn sql(&self) -> Result<Client> {
        self.postgres.connect().await
    }
}

/// `weir deploy` of each handler, which returns once every host runs it.
async fn deploy(weir: &Weir) -> Result<()> {
    for handler in HANDLERS {
        let folder = format!("{SHOP}/{handler}");
        component(&folder)?; // or says how to build it
        let folder = repository().join(folder).display().to_string();
        weir.run(&["deploy", &folder]).await?.exits(0)?;
    }
    Ok(())
}

fn start_sink(postgres: &Postgres, nats: &NatsServer) -> Result<Host> {
    let (postgres, nats) = (postgres.url(), nats.url());
    service(&[
        "postgres-sink",
        "--postgres",
        &postgres,
        "--nats",
        &nats,
        "--ledger",
        LEDGER,
        "--name",
        "sales",
        "--subjects",
        "rows.sales.*",
    ])
}
