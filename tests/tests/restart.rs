//! Orderly ends and new beginnings.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use weir_tests::proxy::Proxy;
use weir_tests::system::{Flights, LEDGER, System};
use weir_tests::{PATIENCE, check, seed, until};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_the_next_start_continues() -> Result<()> {
    let mut flights = Flights::new(seed(), 100);
    let system = System::start().await?;
    system.rotations()?;
    for _ in 0..3 {
        let host = system.launch.start().await?;
        let before = system.bus.last_sequence(LEDGER).await?;
        flights.publish(&system.bus, 5_000).await?;
        system.progress(before, 500).await?;
        ensure!(host.term().await? == Some(0), "a drained host exits with 0");
    }
    let _host = system.launch.start().await?;
    system.all_counted(&flights).await?;
    system.weir.caught_up("rotations").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// All events are of one key, so that seven of the eight partitions have nothing to
/// commit. Were their positions never moved, each start would read the
/// stream from its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn positions_of_idle_partitions_move_too() -> Result<()> {
    let mut flights = Flights::new(seed(), 1);
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    let at_start = last_records(&system).await?;
    ensure!(
        at_start.len() == 8,
        "a takeover record per partition: {at_start:?}"
    );
    flights.publish(&system.bus, 25_000).await?;
    until("every partition has committed a position", PATIENCE, async || {
        let now = last_records(&system).await?;
        ensure!(
            now.iter().all(|(subject, last)| *last > at_start[subject]),
            "{now:?}"
        );
        Ok(())
    })
    .await?;
    system.all_counted(&flights).await?;
    ensure!(host.term().await? == Some(0));
    check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    Ok(())
}

async fn last_records(system: &System) -> Result<BTreeMap<String, u64>> {
    let records = system.bus.read(LEDGER, "$WEIR.LEDGER.c.rotations.>").await?;
    Ok(records.into_iter().map(|r| (r.subject, r.sequence)).collect())
}

/// PROTOCOL rule 6: of a source that was made again, a consumer at the old position
/// would silently deliver only what comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_made_again_is_stopped_and_named() -> Result<()> {
    let mut flights = Flights::new(seed(), 10);
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 100).await?;
    system.all_counted(&flights).await?;

    system.bus.delete("FLIGHTS").await?;
    stopped(&system, "stream FLIGHTS does not exist").await?;
    system.bus.source("FLIGHTS", "flights.>").await?;
    stopped(&system, "stream FLIGHTS was deleted and created again").await?;
    host.says("was deleted and created again").await?;

    // Another start does not forget it.
    ensure!(host.term().await? == Some(0));
    let mut more = Flights::new(seed(), 10);
    more.publish(&system.bus, 150).await?;
    let host = system.launch.start().await?;
    host.says("was deleted and created again").await?;
    stopped(&system, "stream FLIGHTS was deleted and created again").await?;
    ensure!(
        system.bus.count(LEDGER, "rotations.>").await? == 100,
        "it went on reading"
    );
    Ok(())
}

/// The same while the host's connection is cut: it sees nothing of it, only that
/// it may connect again.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_made_again_behind_a_cut_connection_is_stopped() -> Result<()> {
    let mut flights = Flights::new(seed(), 10);
    let system = System::start().await?;
    system.rotations()?;
    let proxy = Proxy::start(&system.nats.url()).await?;
    let host = system.launch.clone().through(&proxy.url()).start().await?;
    flights.publish(&system.bus, 100).await?;
    system.all_counted(&flights).await?;

    proxy.close();
    system.bus.delete("FLIGHTS").await?;
    system.bus.source("FLIGHTS", "flights.>").await?;
    let mut more = Flights::new(seed(), 10);
    more.publish(&system.bus, 150).await?;
    proxy.open();
    stopped(&system, "stream FLIGHTS was deleted and created again").await?;
    host.readyz(503, "deleted and created again").await?;
    let handler = system.weir.handler("rotations").await?;
    ensure!(handler["state"] == "source-stopped", "{handler}");
    ensure!(
        system.bus.count(LEDGER, "rotations.>").await? == 100,
        "it went on reading"
    );
    Ok(())
}

/// PROTOCOL rule 6: a server comes back with an older copy of the source, its created
/// time unchanged, and is written to again. The host only sees its connection break.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lost_its_tail_in_a_restart_of_the_server_is_stopped() -> Result<()> {
    let mut flights = Flights::new(seed(), 10);
    let mut system = System::start().await?;
    system.rotations()?;
    flights.publish(&system.bus, 50).await?;
    let source = system.nats.dir().join("data/jetstream/$G/streams/FLIGHTS");
    let older = tempfile::tempdir()?;
    system.nats.kill();
    copy(&source, older.path())?;
    system.nats.restart()?;
    let host = system.launch.start().await?;
    // So many that each partition with keys has read some of what will be lost.
    flights.publish(&system.bus, 1_000).await?;
    system.all_counted(&flights).await?;
    system.weir.caught_up("rotations").await?;

    system.nats.kill();
    std::fs::remove_dir_all(&source)?;
    copy(older.path(), &source)?;
    system.nats.restart()?;
    stopped(&system, "stream FLIGHTS ends at sequence 50").await?;
    // A consumer at the old position would deliver the last of these, in silence.
    let mut more = Flights::new(seed(), 10);
    more.publish(&system.bus, 1_500).await?;
    stopped(&system, "stream FLIGHTS has another message at sequence").await?;
    host.readyz(503, "another message at sequence").await?;
    ensure!(
        system.bus.count(LEDGER, "rotations.>").await? == 1_050,
        "it went on reading"
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Waits until the host shows a stopped source with that reason.
async fn stopped(system: &System, reason: &str) -> Result<()> {
    until(
        &format!("a source is stopped because {reason}"),
        PATIENCE,
        async || {
            let status = system.host("h1").await?;
            let handler = status.handlers.first().context("the host shows no handler")?;
            let sources = &handler.stopped_sources;
            ensure!(
                sources.iter().any(|source| source.contains(reason)),
                "{sources:?}"
            );
            Ok(())
        },
    )
    .await
}
