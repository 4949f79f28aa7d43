//! A commit whose outcome the host cannot know: its reply is lost, or it is lost
//! itself, or the connection breaks in its midst. The host must find out, never
//! guess: guessing "made" loses the events, guessing "not made" counts them twice.

use std::collections::BTreeMap;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_tests::proxy::{Commit, Loss, Proxy};
use weir_tests::system::{Flights, LEDGER, System};
use weir_tests::{PATIENCE, check, seed, until};

const KEYS: usize = 100;
const ROUND_EVENTS: usize = 500;
/// Times that each loss is made.
const ROUNDS: usize = 2;

/// `rotations` emits, so that its groups are atomic batches.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch() -> Result<()> {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut flights = Flights::new(seed, KEYS);
    let system = System::start().await?;
    system.rotations()?;
    let proxy = Proxy::start(&system.nats.url()).await?;
    let _host = system.launch.clone().through(&proxy.url()).start().await?;

    for _ in 0..ROUNDS {
        for loss in [Loss::Reply, Loss::Request, Loss::MidBatch, Loss::AfterRequest] {
            // Part of them before, so that the loss falls anywhere in a run.
            let before = rng.random_range(0..ROUND_EVENTS);
            flights.publish(&system.bus, before).await?;
            let lost = proxy.lose(Commit::Batch, loss);
            flights.publish(&system.bus, ROUND_EVENTS - before).await?;
            lost.happened().await?;
            println!("{loss:?} happened");
            system.all_counted(&flights).await?;
            let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
            check::same_counts(&counts, &flights.counts)?;
        }
    }
    Ok(())
}

/// `tally` only counts, so that its groups are single records.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_single_record() -> Result<()> {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut flights = Flights::new(seed, KEYS);
    let system = System::start().await?;
    system.tally()?;
    let proxy = Proxy::start(&system.nats.url()).await?;
    let _host = system.launch.clone().through(&proxy.url()).start().await?;

    for _ in 0..ROUNDS {
        for loss in [Loss::Reply, Loss::Request, Loss::AfterRequest] {
            let before = rng.random_range(0..ROUND_EVENTS);
            flights.publish(&system.bus, before).await?;
            let lost = proxy.lose(Commit::Single, loss);
            flights.publish(&system.bus, ROUND_EVENTS - before).await?;
            lost.happened().await?;
            println!("{loss:?} happened");
            tallied(&system, &flights).await?;
        }
    }
    Ok(())
}

/// A server that answers nothing for a while, with the connection up, and a
/// connection that is refused for a while: the host waits, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn of_everything_while_nothing_gets_through() -> Result<()> {
    let mut flights = Flights::new(seed(), KEYS);
    let system = System::start().await?;
    system.rotations()?;
    let proxy = Proxy::start(&system.nats.url()).await?;
    let host = system.launch.clone().through(&proxy.url()).start().await?;

    flights.publish(&system.bus, 2_000).await?;
    system.progress(0, 200).await?;
    proxy.hold();
    flights.publish(&system.bus, 500).await?;
    host.readyz(503, "").await?;
    proxy.open();
    system.all_counted(&flights).await?;
    host.readyz(200, "").await?;

    proxy.close();
    flights.publish(&system.bus, 500).await?;
    host.readyz(503, "NATS").await?;
    proxy.open();
    system.all_counted(&flights).await?;
    host.readyz(200, "").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// Waits until the cells hold the true counts; more than the true count is
/// not waited for.
async fn tallied(system: &System, flights: &Flights) -> Result<()> {
    let counts = until("every cell counts its events", PATIENCE, async || {
        let mut counts = BTreeMap::new();
        for key in flights.counts.keys() {
            let cells = system.weir.cells("tally", key).await?;
            counts.insert(
                key.clone(),
                cells.get("n").map_or("0", String::as_str).parse::<u64>()?,
            );
        }
        let total: u64 = counts.values().sum();
        anyhow::ensure!(
            total >= flights.published,
            "{total} of {} events",
            flights.published
        );
        Ok(counts)
    })
    .await?;
    check::same_counts(&counts, &flights.counts)
}
