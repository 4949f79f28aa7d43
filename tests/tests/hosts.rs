//! Many hosts as one: partitions go where hosts come, and stay alive when hosts die.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::system::{Flights, LEDGER, System};
use weir_tests::{PATIENCE, check, seed, until};

const KEYS: usize = 400;
const PARTITIONS: usize = 8;

/// Kills of the test that measures; `WEIR_KILLS` says otherwise.
const KILLS: usize = 3;

/// Partitions of `rotations` by host, as `weir hosts` shows them.
async fn owned(system: &System) -> Result<BTreeMap<String, usize>> {
    let hosts: Vec<Value> = system.weir.json(&["hosts"]).await?;
    let owned = |host: &Value| host["owns"]["rotations"].as_array().map_or(0, Vec::len);
    Ok(hosts
        .iter()
        .map(|host| (host["host"].as_str().unwrap_or_default().to_owned(), owned(host)))
        .collect())
}

/// Waits until exactly these hosts own all partitions, each some.
async fn shared_among(system: &System, hosts: &[&str]) -> Result<()> {
    until(
        &format!("partitions are shared among {hosts:?}"),
        PATIENCE,
        async || {
            let owned = owned(system).await?;
            let all: usize = owned.values().sum();
            ensure!(all == PARTITIONS && owned.keys().eq(hosts), "{owned:?}");
            ensure!(owned.values().all(|partitions| *partitions > 0), "{owned:?}");
            Ok(())
        },
    )
    .await
}

/// Under load, hosts are added and taken away in good order: partitions are handed
/// over between two commits, so that nobody is fenced and nothing executed in vain.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_handed_over_as_hosts_come_and_go() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let mut flights = Flights::new(seed(), KEYS);
    let a = system.launch.clone().name("a").start().await?;
    shared_among(&system, &["a"]).await?;
    flights.publish(&system.bus, 5_000).await?;
    let b = system.launch.clone().name("b").start().await?;
    flights.publish(&system.bus, 5_000).await?;
    shared_among(&system, &["a", "b"]).await?;
    let c = system.launch.clone().name("c").start().await?;
    flights.publish(&system.bus, 5_000).await?;
    shared_among(&system, &["a", "b", "c"]).await?;

    flights.publish(&system.bus, 5_000).await?;
    let said = a.stderr();
    ensure!(a.term().await? == Some(0), "it drains");
    flights.publish(&system.bus, 5_000).await?;
    shared_among(&system, &["b", "c"]).await?;
    system.all_counted(&flights).await?;
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )?;
    for said in [said, b.stderr(), c.stderr()] {
        for trouble in ["fenced", "not released in time", "starting over"] {
            ensure!(!said.contains(trouble), "{trouble}:\n{said}");
        }
    }
    Ok(())
}

/// Killed under load, a host's partitions go on elsewhere. Prints how long that took:
/// from the kill to the next commit of the last of its partitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_is_replaced() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let kills = match std::env::var("WEIR_KILLS") {
        Ok(number) => number.parse()?,
        Err(_) => KILLS,
    };
    let mut flights = Flights::new(seed(), KEYS);
    let _stays = system.launch.clone().name("stays").start().await?;
    let mut times = Vec::new();
    for n in 0..kills {
        let name = format!("dies-{n}");
        let dies = system.launch.clone().name(&name).start().await?;
        shared_among(&system, &[&name, "stays"]).await?;
        flights.publish(&system.bus, 2_000).await?;
        system.all_counted(&flights).await?;
        let hosts: Vec<Value> = system.weir.json(&["hosts"]).await?;
        let his = hosts
            .iter()
            .find(|host| host["host"] == *name)
            .context("it is there")?;
        let his: Vec<u64> = his["owns"]["rotations"]
            .as_array()
            .context("what it owns")?
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        let before = system.bus.last_sequence(LEDGER).await?;
        dies.kill().await?;
        let killed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        // Every key, so that each partition has something to commit.
        flights.publish(&system.bus, 4_000).await?;
        system.all_counted(&flights).await?;
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        for message in system.bus.read(LEDGER, "rotations.>").await? {
            let partition = message
                .header("Weir-By")
                .and_then(|by| by.split(':').nth(1)?.parse().ok());
            let partition: u64 = partition.context("an event without Weir-By")?;
            if message.sequence > before && his.contains(&partition) {
                first.entry(partition).or_insert(message.time);
            }
        }
        ensure!(
            first.len() == his.len(),
            "commits of {first:?}, and not of all of {his:?}"
        );
        let last = first.values().max().context("it owned something")?;
        times.push(Duration::from_nanos(last.saturating_sub(killed)));
        shared_among(&system, &["stays"]).await?;
    }
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )?;
    times.sort();
    println!(
        "{kills} kills; until the last of its partitions committed again: median {:?}, worst {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_one_hosts() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let first = system.launch.clone().name("twin").start().await?;
    let second = system.launch.clone().name("twin").spawn()?;
    let (code, said) = second.ends().await?;
    ensure!(
        code == Some(1) && said.contains("a host named twin runs on this ledger already"),
        "{said}"
    );
    let mut flights = Flights::new(seed(), 20);
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;
    // One that was killed does not keep its name.
    first.kill().await?;
    let _third = system.launch.clone().name("twin").start().await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await
}
