//! A host that stands still, is replaced, and goes on without knowing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use weir::commit::record::{Kind, Record};
use weir_tests::system::{Flights, LEDGER, System};
use weir_tests::{PATIENCE, check, seed, until};

const KEYS: usize = 200;

/// The race: A is stopped with a group under way and the next one executed. B
/// takes A's partitions over. A, continued, still believes that it owns them, and
/// sends what it had. Only the fence in the server stands between that and a
/// second count of the same events.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_slept_commits_nothing_after_it_was_replaced() -> Result<()> {
    let mut flights = Flights::new(seed(), KEYS);
    let system = System::start().await?;
    system.rotations()?;
    let a = system.launch.clone().name("a").start().await?;
    flights.publish(&system.bus, 20_000).await?;
    let stopped_at = system.progress(0, 2_000).await?;
    a.stop().await?;

    let b = system.launch.clone().name("b").start().await?;
    system.progress(stopped_at, 1_000).await?;
    let taken_over_at = everything_owned_by(&system, "b").await?;

    a.cont().await?;
    flights.publish(&system.bus, 5_000).await?;
    a.says("fenced").await?;
    system.all_counted(&flights).await?;

    // Nothing of a's since the takeover, until a took partitions over again itself, as a
    // host that has come back.
    let incarnation_a = system.host("a").await?.incarnation;
    let mut came_back = BTreeSet::new();
    for record in system.bus.read(LEDGER, "$WEIR.LEDGER.c.rotations.>").await? {
        let attempt = record
            .header("Weir-Attempt")
            .context("a record without its attempt")?;
        if record.sequence < taken_over_at || !attempt.starts_with(&incarnation_a) {
            continue;
        }
        let (sequence, subject) = (record.sequence, record.subject.clone());
        let kind = Record::decode(&record.stored())?.kind;
        ensure!(
            !came_back.insert(subject.clone()) || kind == Kind::Takeover,
            "a committed record {sequence} of {subject} after it was replaced"
        );
    }
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )?;

    // b is gone with work to do: a, which stood by, takes it back by itself.
    b.kill().await?;
    flights.publish(&system.bus, 5_000).await?;
    system.all_counted(&flights).await?;
    everything_owned_by(&system, "a").await?;
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )
}

/// Waits until the last record of every partition is of that host's process.
/// Returns the highest sequence of these records.
async fn everything_owned_by(system: &System, host: &str) -> Result<u64> {
    until(
        &format!("every partition is owned by {host}"),
        PATIENCE,
        async || {
            let incarnation = system.host(host).await?.incarnation;
            let mut last = BTreeMap::new();
            for record in system.bus.read(LEDGER, "$WEIR.LEDGER.c.rotations.>").await? {
                let owned = record
                    .header("Weir-Attempt")
                    .is_some_and(|a| a.starts_with(&incarnation));
                last.insert(record.subject.clone(), (owned, record.sequence));
            }
            ensure!(
                !last.is_empty() && last.values().all(|(owned, _)| *owned),
                "{last:?}"
            );
            Ok(last.values().map(|(_, sequence)| *sequence).max().unwrap_or(0))
        },
    )
    .await
}
