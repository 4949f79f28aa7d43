//! `weir replay` on real servers and hosts: while events come in and hosts die.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_tests::bus::Bus;
use weir_tests::host::Weir;
use weir_tests::system::{Flights, LEDGER, System};
use weir_tests::{PATIENCE, check, seed, until};

const BUCKET: &str = "KV_weir_LEDGER";

/// Publishes until it is told to stop, and returns what it has published.
fn load(
    system: &System,
    mut flights: Flights,
) -> (
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<Result<Flights>>,
) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let nats = system.nats.url();
    let load = tokio::spawn(async move {
        let bus = Bus::connect(&nats).await?;
        while stopped.try_recv().is_err() {
            flights.publish(&bus, 50).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(flights)
    });
    (stop, load)
}

/// Twice, the second time while a host is killed and its replacement joins.
#[tokio::test(flavor = "multi_thread")]
async fn state_is_rebuilt_under_load_while_hosts_die() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let _a = system.launch.clone().name("a").start().await?;
    let b = system.launch.clone().name("b").start().await?;
    let mut flights = Flights::new(seed(), 200);
    flights.publish(&system.bus, 5_000).await?;
    let (stop, load) = load(&system, flights);

    let first: Value = system.weir.json(&["replay", "rotations"]).await?;
    ensure!(first["generation"] == 2 && first["before"] == 1, "{first}");

    let weir = Weir::new(&system.nats.url(), LEDGER);
    let second = tokio::spawn(async move { weir.json::<Value>(&["replay", "rotations"]).await });
    until("the next generation has begun", PATIENCE, async || {
        let records = system.bus.count(LEDGER, "$WEIR.LEDGER.c.rotations.3.*").await?;
        ensure!(records > 0, "no record");
        Ok(())
    })
    .await?;
    b.kill().await?;
    let _c = system.launch.clone().name("c").start().await?;
    let second = second.await??;
    ensure!(second["generation"] == 3, "{second}");

    let _ = stop.send(());
    let flights = load.await??;
    system.all_counted(&flights).await?;
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )?;
    for (key, count) in flights.counts.iter().take(20) {
        let cells = system.weir.cells("rotations", key).await?;
        ensure!(cells["n"] == count.to_string(), "{key}: {cells:?}, not {count}");
    }
    for generation in [1, 2] {
        let records = format!("$WEIR.LEDGER.c.rotations.{generation}.*");
        let cells = format!("$KV.weir_LEDGER.rotations.{generation}.>");
        ensure!(
            system.bus.count(LEDGER, &records).await? == 8,
            "a tombstone for each partition"
        );
        ensure!(
            system.bus.count(BUCKET, &cells).await? == 0,
            "cells of generation {generation}"
        );
    }
    println!("{} events, 2 replays: {first}, {second}", flights.published);
    Ok(())
}

/// Interrupted, taken up again, cancelled, begun with a later event.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_interrupted_taken_up_and_cancelled() -> Result<()> {
    let mut system = System::start().await?;
    system.probe()?;
    let host = system.launch.clone().name("a").start().await?;
    let weir = &system.weir;
    for n in 1..=3 {
        system.tell("k", "add n 1\nshow n out.n").await?;
        system.emitted("out.n", n).await?;
    }
    // No host goes on with it, so that the command waits.
    host.kill().await?;
    let binary = weir_tests::host::weir_binary()?;
    let url = system.nats.url();
    let waiting = tokio::process::Command::new(binary)
        .args(["replay", "probe", "--nats", &url, "--ledger", LEDGER])
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    until("it is registered", PATIENCE, async || {
        let handler = weir.handler("probe").await?;
        ensure!(handler["rebuilding"] == 2, "{handler}");
        Ok(())
    })
    .await?;
    drop(waiting);
    let again = weir.run(&["replay", "probe", "--from", "all"]).await?.exits(2)?;
    ensure!(again.stderr.contains("being rebuilt already"), "{again:?}");
    system.launch.plugins = PathBuf::new();
    let _host = system.launch.clone().name("b").start().await?;
    let taken_up = weir.run(&["replay", "probe"]).await?.exits(0)?;
    ensure!(
        taken_up.stdout.contains("generation 2 has taken the place of 1"),
        "{taken_up:?}"
    );

    // From the second event on: two of three.
    weir.run(&["replay", "probe", "--from", "2"]).await?.exits(0)?;
    ensure!(weir.cells("probe", "k").await?["n"] == "2");
    let past = ["state", "get", "probe", "k", "n", "--at", "EVENTS:3"];
    let past = weir.run(&past).await?.exits(0)?;
    ensure!(
        past.stdout == "2" && past.stderr.contains("was rebuilt on"),
        "{past:?}"
    );
    system.tell("k", "add n 1\nshow n out.n").await?;
    let emitted: Vec<String> = system
        .emitted("out.n", 4)
        .await?
        .iter()
        .map(|m| m.text())
        .collect();
    ensure!(emitted == ["1", "2", "3", "3"], "{emitted:?}");

    let none = weir.run(&["replay", "probe", "--cancel"]).await?.exits(2)?;
    ensure!(none.stderr.contains("is not being rebuilt"), "{none:?}");
    // What it does now cannot be done twice: the replay says so and ends, the handler goes on.
    let id = system.tell("k", "reject no").await?;
    system.dead_letter("probe", &id).await?;
    let letters = weir.run(&["replay", "probe"]).await?.exits(2)?;
    ensure!(
        letters.stderr.contains("1 events are dead letters"),
        "{letters:?}"
    );
    weir.run(&["dead-letters", "drop", "probe", &id])
        .await?
        .exits(0)?;
    system.tell("k", "timer t 100000000\nemit out.timer set").await?;
    system.emitted("out.timer", 1).await?;
    let timers = weir.run(&["replay", "probe"]).await?.exits(2)?;
    ensure!(timers.stderr.contains("it has used timers"), "{timers:?}");
    let unknown = weir.run(&["replay", "nobody"]).await?.exits(1)?;
    ensure!(unknown.stderr.contains("not deployed"), "{unknown:?}");
    Ok(())
}
