//! The transactional outbox: emits for a stream of another team.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use weir_tests::bus::{Bus, Outgoing};
use weir_tests::plugins::PROBE;
use weir_tests::system::{LEDGER, System};
use weir_tests::{PATIENCE, seed, until};

const MANIFEST: &str = r#"
partitions = 4
[[source]]
stream = "EVENTS"
subjects = ["events.>"]
[key]
subject_token = 2
[emit]
subjects = ["out.>"]
[[outbox]]
stream = "TEAM"
subjects = ["team.>"]
"#;

const EVENTS: usize = 600;
const KEYS: usize = 20;
const KILLS: usize = 5;

/// The other team's stream forgets message ids so soon that none of what a host sends again
/// would be known to it.
async fn create_team(bus: &Bus) -> Result<()> {
    let window = Duration::from_millis(100).as_nanos() as u64;
    bus.create(json!({ "name": "TEAM", "subjects": ["team.>"], "duplicate_window": window }))
        .await
}

/// Killed again and again, hosts hand every entry on once, in the order of its key, with what
/// else its event did.
#[tokio::test(flavor = "multi_thread")]
async fn each_entry_is_handed_on_once() -> Result<()> {
    let seed = seed();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let system = System::start().await?;
    create_team(&system.bus).await?;
    system.plugins.put("probe", "1", PROBE, MANIFEST)?;
    let launch = system.launch.clone().name("a");
    let mut host = launch.start().await?;
    for chunk in 0..=KILLS {
        let events: Vec<Outgoing> = (0..EVENTS / (KILLS + 1))
            .map(|n| {
                let n = chunk * (EVENTS / (KILLS + 1)) + n;
                let key = n % KEYS;
                let program = format!("add n 1\nemit team.k{key} {n}\nemit out.k{key} {n}");
                Outgoing::new(format!("events.k{key}"), program)
            })
            .collect();
        let before = system.bus.messages("TEAM").await?;
        system.bus.publish_all(&events).await?;
        if chunk < KILLS {
            let some = random.random_range(1..events.len() as u64);
            until("some are handed on", PATIENCE, async || {
                ensure!(system.bus.messages("TEAM").await? >= before + some);
                Ok(())
            })
            .await?;
            std::mem::replace(&mut host, launch.spawn()?).kill().await?;
        }
    }
    until("all are handed on", PATIENCE, async || {
        let found = system.bus.messages("TEAM").await?;
        ensure!(found >= EVENTS as u64, "{found} of {EVENTS}");
        Ok(())
    })
    .await?;
    system.weir.caught_up("probe").await?;
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in system.bus.read("TEAM", "team.>").await? {
        ensure!(message.header("Weir-Cause").is_some() && message.header("Weir-To").is_none());
        let n = message.text().parse().context("a number")?;
        by_key.entry(message.subject.clone()).or_default().push(n);
    }
    for key in 0..KEYS {
        let expected: Vec<usize> = (0..EVENTS).filter(|n| n % KEYS == key).collect();
        let found = by_key.remove(&format!("team.k{key}")).unwrap_or_default();
        ensure!(found == expected, "key {key}: {found:?} instead of {expected:?}");
    }
    // What is handed on is not kept.
    until("the outbox is empty", PATIENCE, async || {
        let left = system.bus.count(LEDGER, "$WEIR.*.o.>").await?;
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await
}

/// A stream that is not there: everything else is committed, entries wait and say so, and go
/// once it is there. Until then the handler is not removed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_waits() -> Result<()> {
    let system = System::start().await?;
    system.plugins.put("probe", "1", PROBE, MANIFEST)?;
    let host = system.launch.clone().name("a").start().await?;
    system.tell("k", "emit team.k first\nemit out.k first").await?;
    system.tell("k", "emit team.k second\nemit out.k second").await?;
    system.emitted("out.k", 2).await?;
    until("it says so", PATIENCE, async || {
        let (_, metrics) = host.get("/metrics").await?;
        ensure!(
            metrics.contains("weir_outbox_failing{handler=\"probe\"} 1"),
            "{metrics}"
        );
        Ok(())
    })
    .await?;
    host.says("an entry of the outbox is not taken").await?;
    let removed = system.weir.run(&["remove", "probe"]).await?.exits(1)?;
    ensure!(
        removed
            .stderr
            .contains("not handed on yet, in 1 of its partitions"),
        "{}",
        removed.stderr
    );

    create_team(&system.bus).await?;
    until("they are handed on", PATIENCE, async || {
        let found = system.bus.read("TEAM", "team.k").await?;
        let texts: Vec<String> = found.iter().map(|message| message.text()).collect();
        ensure!(texts == ["first", "second"], "{texts:?}");
        Ok(())
    })
    .await?;
    until("it is well again", PATIENCE, async || {
        let (_, metrics) = host.get("/metrics").await?;
        ensure!(metrics.contains("weir_outbox_failing{handler=\"probe\"} 0"));
        Ok(())
    })
    .await?;
    // A subject that is for no stream is refused as ever.
    let event = system.tell("k", "emit other.k x").await?;
    let letter = system.dead_letter("probe", &event).await?;
    ensure!(letter.kind == "violation", "{letter:?}");
    Ok(())
}
