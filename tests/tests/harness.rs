//! The harness against a real server, without Weir: a proxy that loses nothing
//! would make every test of a lost commit pass.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::json;
use weir_tests::bus::{Bus, Outgoing};
use weir_tests::nats::NatsServer;
use weir_tests::proxy::{Commit, Loss, Proxy};
use weir_tests::system::Flights;
use weir_tests::{PATIENCE, seed, until};

/// A server with a ledger, the proxy before it, a client of each.
struct Rig {
    nats: NatsServer,
    proxy: Proxy,
    direct: Bus,
    through: Bus,
}

impl Rig {
    async fn start() -> Result<Rig> {
        let nats = NatsServer::start()?;
        let proxy = Proxy::start(&nats.url()).await?;
        let direct = Bus::connect(&nats.url()).await?;
        let settings = json!({
            "name": "L", "subjects": ["out.>", "$WEIR.L.>"], "storage": "file", "retention": "limits",
            "num_replicas": 1, "max_age": 0, "allow_atomic": true,
        });
        direct.create(settings).await?;
        Ok(Rig {
            through: Bus::connect(&proxy.url()).await?,
            nats,
            proxy,
            direct,
        })
    }

    /// Sends an atomic batch of three through the proxy, as a host would; waits
    /// for the answer no longer than `patience`.
    async fn batch(&self, id: &str, patience: Duration) -> Result<Bytes> {
        let client = &self.through.client;
        for sequence in 1..=2 {
            let headers = headers(id, sequence, false);
            client.publish_with_headers("out.x", headers, "x".into()).await?;
        }
        let request = async_nats::Request::new()
            .headers(headers(id, 3, true))
            .timeout(Some(patience));
        let answer = client.send_request("$WEIR.L.c.h.1.0", request).await?;
        Ok(answer.payload)
    }

    async fn single(&self, patience: Duration) -> Result<Bytes> {
        let request = async_nats::Request::new()
            .payload("r".into())
            .timeout(Some(patience));
        Ok(self
            .through
            .client
            .send_request("$WEIR.L.c.h.1.0", request)
            .await?
            .payload)
    }

    async fn stored(&self) -> Result<u64> {
        self.direct.last_sequence("L").await
    }
}

fn headers(batch: &str, sequence: u64, commit: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Batch-Id", batch);
    headers.insert("Nats-Batch-Sequence", sequence.to_string().as_str());
    if commit {
        headers.insert("Nats-Batch-Commit", "1");
    }
    headers
}

/// Long enough for a local server, short enough to wait for in vain.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_loses_what_it_is_told_to_and_nothing_else() -> Result<()> {
    let rig = Rig::start().await?;
    rig.batch("all", PATIENCE).await?;
    ensure!(rig.stored().await? == 3, "an undisturbed batch is stored");

    let lost = rig.proxy.swallow_reply_of_next_commit(Commit::Batch);
    rig.single(PATIENCE).await?;
    ensure!(rig.batch("reply", SHORT).await.is_err(), "the reply came through");
    lost.happened().await?;
    ensure!(
        rig.stored().await? == 7,
        "the batch whose reply was lost is stored"
    );

    let lost = rig.proxy.swallow_next_commit(Commit::Batch);
    ensure!(
        rig.batch("request", SHORT).await.is_err(),
        "the commit came through"
    );
    lost.happened().await?;
    ensure!(
        rig.stored().await? == 7,
        "the batch whose commit was lost is not stored"
    );

    let lost = rig.proxy.swallow_reply_of_next_commit(Commit::Single);
    ensure!(rig.single(SHORT).await.is_err());
    lost.happened().await?;
    ensure!(rig.stored().await? == 8);

    let lost = rig.proxy.swallow_next_commit(Commit::Single);
    ensure!(rig.single(SHORT).await.is_err());
    lost.happened().await?;
    ensure!(rig.stored().await? == 8);

    rig.batch("after", PATIENCE).await?;
    ensure!(rig.stored().await? == 11, "one fault is one fault");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_cuts_and_clients_come_back() -> Result<()> {
    let rig = Rig::start().await?;
    for (n, loss) in [Loss::MidBatch, Loss::AfterRequest].into_iter().enumerate() {
        let lost = rig.proxy.lose(Commit::Batch, loss);
        ensure!(
            rig.batch(&format!("cut-{n}"), SHORT).await.is_err(),
            "{loss:?} was answered"
        );
        lost.happened().await?;
        let back = async || rig.single(SHORT).await;
        until("the client is connected again", PATIENCE, back).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_holds_and_refuses() -> Result<()> {
    let mut rig = Rig::start().await?;
    rig.single(PATIENCE).await?;
    rig.proxy.hold();
    ensure!(
        rig.single(Duration::from_millis(300)).await.is_err(),
        "held, and yet it answered"
    );
    rig.proxy.open();
    until("what was held comes through", PATIENCE, async || {
        ensure!(rig.stored().await? == 2);
        Ok(())
    })
    .await?;

    rig.proxy.close();
    ensure!(
        rig.single(Duration::from_millis(300)).await.is_err(),
        "closed, and yet it answered"
    );
    rig.proxy.open();
    until("connected again", PATIENCE, async || rig.single(SHORT).await).await?;

    // A server that was restarted is the same one behind the proxy.
    rig.nats.kill();
    rig.nats.restart()?;
    until("connected again", PATIENCE, async || rig.single(SHORT).await).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_survives_a_restart_and_doubles_nothing() -> Result<()> {
    let mut nats = NatsServer::start()?;
    let bus = Bus::connect(&nats.url()).await?;
    bus.source("FLIGHTS", "flights.>").await?;
    let mut flights = Flights::new(seed(), 50);
    let publishing = {
        let bus = bus.clone();
        tokio::spawn(async move {
            flights.publish(&bus, 5_000).await?;
            anyhow::Ok(flights)
        })
    };
    until("it has begun", PATIENCE, async || {
        ensure!(bus.last_sequence("FLIGHTS").await? > 100);
        Ok(())
    })
    .await?;
    nats.kill();
    nats.restart()?;
    let flights = publishing.await??;
    ensure!(bus.messages("FLIGHTS").await? == flights.published);
    for (key, count) in &flights.counts {
        ensure!(
            bus.count("FLIGHTS", &format!("flights.{key}")).await? == *count,
            "{key}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_read_whole_and_settings_changed() -> Result<()> {
    let nats = NatsServer::start()?;
    let bus = Bus::connect(&nats.url()).await?;
    bus.source("S", "s.>").await?;
    let messages: Vec<Outgoing> = (0..4_500)
        .map(|n| Outgoing::new(format!("s.{}", n % 3), n.to_string()).header("N", n.to_string()))
        .collect();
    bus.publish_all(&messages).await?;
    let all = bus.read("S", "s.>").await?;
    let numbers: Vec<String> = all.iter().map(|m| m.text()).collect();
    ensure!(numbers == (0..4_500).map(|n| n.to_string()).collect::<Vec<_>>());
    ensure!(all[7].header("N") == Some("7") && all[7].sequence == 8);
    ensure!(bus.read("S", "s.1").await?.len() == 1_500);
    ensure!(bus.read("S", "other").await?.is_empty());

    bus.change("S", |settings| settings["max_age"] = 1_000_000_000_000_u64.into())
        .await?;
    let age = bus.settings("S").await?["max_age"]
        .as_u64()
        .context("no max_age")?;
    ensure!(age == 1_000_000_000_000);
    bus.delete("S").await?;
    ensure!(bus.settings("S").await.is_err());
    Ok(())
}
