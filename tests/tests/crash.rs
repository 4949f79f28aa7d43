//! Whatever is killed, and whenever: every event counts once, in its order.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_tests::check;
use weir_tests::host::Host;
use weir_tests::seed;
use weir_tests::system::{Flights, LEDGER, System};

const CHUNKS: usize = 25;
const CHUNK_EVENTS: usize = 2_000;
const KEYS: usize = 500;
/// Chunks in which the server is killed, too.
const SERVER_KILLS: [usize; 4] = [4, 10, 16, 22];
/// Chunks in which the host is killed once more, while it starts.
const KILLED_IN_START_EVERY: usize = 4;
/// Commands that ask for cells at once.
const COMMANDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_at_any_instant_loses_and_doubles_nothing() -> Result<()> {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut flights = Flights::new(seed, KEYS);
    let mut system = System::start().await?;
    system.rotations()?;
    let (mut host_kills, mut server_kills) = (0, 0);

    let mut host = system.launch.start().await?;
    for chunk in 0..CHUNKS {
        let before = system.bus.last_sequence(LEDGER).await?;
        flights.publish(&system.bus, CHUNK_EVENTS).await?;

        // While it makes progress: each event is a message at least, and there are more of them than
        // are waited for.
        let more = rng.random_range(1..CHUNK_EVENTS as u64 * 3 / 4);
        let mut now = system.progress(before, more).await?;

        if SERVER_KILLS.contains(&chunk) {
            flights.publish(&system.bus, CHUNK_EVENTS / 10).await?;
            system.nats.kill();
            system.nats.restart()?;
            server_kills += 1;
            // The host finds its way back by itself.
            now = system.progress(now, 1).await?;
        }

        // Progress is seen after a commit; the rest of the way to the next one is random.
        kill_after(host, rng.random_range(0..30)).await?;
        host_kills += 1;
        if chunk % KILLED_IN_START_EVERY == 0 {
            kill_after(system.launch.spawn()?, rng.random_range(0..600)).await?;
            host_kills += 1;
        }
        println!("chunk {chunk}: killed after {now} messages of the ledger");
        host = system.launch.start().await?;
    }
    println!("{host_kills} kills of the host, {server_kills} of the server");
    ensure!(host_kills >= 20 && server_kills >= 3, "the run was to kill more");
    ensure!(flights.published >= 50_000, "the run was to be longer");

    system.all_counted(&flights).await?;
    system.weir.caught_up("rotations").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)?;

    // The cells say the same.
    let weir = &system.weir;
    let cells = stream::iter(flights.counts.keys())
        .map(async |key| {
            let cells = weir.cells("rotations", key).await?;
            let n = cells.get("n").map_or("0", String::as_str).parse()?;
            anyhow::Ok((key.clone(), n))
        })
        .buffer_unordered(COMMANDS)
        .try_collect()
        .await?;
    check::same_counts(&cells, &flights.counts)?;

    // The position is at the end: another start reads what is new, and nothing again.
    ensure!(host.term().await? == Some(0), "SIGTERM ends a host with 0");
    let _host = system.launch.start().await?;
    flights.publish(&system.bus, 100).await?;
    system.all_counted(&flights).await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// Kills the host at an instant of the seed's choice, whatever it is doing then.
async fn kill_after(host: Host, delay_ms: u64) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    host.kill().await
}
