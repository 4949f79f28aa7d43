//! State may be far larger than memory: a million keys on a real host whose cache
//! has room for a few of them.

use anyhow::{Result, ensure};
use weir_tests::bus::Outgoing;
use weir_tests::host::Host;
use weir_tests::system::System;
use weir_tests::{PATIENCE, until};

const KEYS: usize = 1_000_000;
/// Keys are published in this many runs, so that the test never holds all of them.
const RUNS: usize = 20;
/// Memory for cells. A million keys need about 25 times as much.
const CACHE_MIB: u64 = 32;
/// What the host may have beside cells: code, stacks, guests, events on their way and
/// checkpoints being written. Measured at about 270 MiB; with all keys in memory the host
/// has 1,080 MiB.
const REST_MIB: u64 = 500;
/// Every so many keys get a second event, which needs their cells back.
const SECOND_EVERY: usize = 997;

#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys_run_within_the_budget() -> Result<()> {
    let memory = a_million_keys(CACHE_MIB).await?;
    ensure!(
        memory < (CACHE_MIB + REST_MIB) << 20,
        "the host had {} MiB with a cache of {CACHE_MIB} MiB",
        memory >> 20
    );
    Ok(())
}

/// What the budget saves: `cargo test --release -- --ignored --nocapture a_million_keys`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_million_keys_in_memory() -> Result<()> {
    a_million_keys(8 * 1024).await.map(drop)
}

/// Handles events of a million keys and a second one of some; returns the most memory
/// that the host ever had, in bytes.
async fn a_million_keys(cache_mib: u64) -> Result<u64> {
    let system = System::start().await?;
    system.tally()?;
    let launch = system
        .launch
        .clone()
        .with(&["--cache-mib", &cache_mib.to_string()]);
    let host = launch.start().await?;
    let event = |key: usize| Outgoing::new(format!("flights.K{key:07}"), "{}");
    for run in 0..RUNS {
        let keys = run * KEYS / RUNS..(run + 1) * KEYS / RUNS;
        system
            .bus
            .publish_all(&keys.map(event).collect::<Vec<_>>())
            .await?;
    }
    committed(&host, KEYS).await?;

    let seconds: Vec<usize> = (0..KEYS).step_by(SECOND_EVERY).collect();
    let events: Vec<Outgoing> = seconds.iter().copied().map(event).collect();
    system.bus.publish_all(&events).await?;
    committed(&host, KEYS + seconds.len()).await?;

    for key in [seconds[0], seconds[seconds.len() / 2], seconds[seconds.len() - 1]] {
        for (key, count) in [(key, "2"), (key + 1, "1")] {
            let cells = system.weir.cells("tally", &format!("K{key:07}")).await?;
            ensure!(
                cells.get("n").map(String::as_str) == Some(count),
                "{key}: {cells:?}"
            );
        }
    }
    let memory = host.memory_max()?;
    println!(
        "a million keys with a cache of {cache_mib} MiB took {} MiB",
        memory >> 20
    );
    ensure!(host.term().await? == Some(0));
    Ok(memory)
}

/// Waits until the host has committed so many events.
async fn committed(host: &Host, events: usize) -> Result<()> {
    until(
        &format!("{events} events are committed"),
        4 * PATIENCE,
        async || {
            let (_, metrics) = host.get("/metrics").await?;
            let line = metrics
                .lines()
                .find_map(|line| line.strip_prefix("weir_events_total{handler=\"tally\"} "));
            ensure!(line == Some(&*events.to_string()), "{line:?}");
            Ok(())
        },
    )
    .await
}
