//! Rules 10 and 17, and the cache: what a handler sees of its state, its clock
//! and its memory.

use std::time::Duration;

use weir::dead_letters::DeadLetters;
use weir::state::query;
use weir_tests::inproc::*;

/// Rule 10. A replica of the state bucket that lags answers a load: without the
/// newest cells, or without any. Neither may be believed.
#[tokio::test]
async fn a_load_from_a_replica_that_lags_is_asked_again() {
    for behind in [1, 2, 5, 1_000] {
        let world = World::new().await;
        let host = HostOptions::named("a")
            .tiny_cache()
            .start(&world, &[probe(1, "")])
            .await;
        for n in 1..=5 {
            world.tell("k", &format!("set c {n}")).await;
        }
        world.checkpoint("k", 1).await;
        host.drain().await;
        let host = world.host("b", &[probe(1, "")]).await;
        host.partition_is("probe", 0, "running").await;

        world.log.faults().lag(20, behind);
        world.tell("k", "show c out.c").await;
        world.emitted("out.c", &["5"]).await;
        assert!(host.loads() > 1, "the answer was asked for again");
    }
}

/// Keys are listed from outside while the host works: meanwhile one key is deleted,
/// another appears, and a checkpoint brings both into the bucket. What is read of
/// the bucket then does not fit the records that were read before.
#[tokio::test]
async fn keys_are_listed_as_they_were_at_one_moment() {
    let world = World::new().await;
    let _host = HostOptions::named("a")
        .tiny_cache()
        .start(&world, &[probe(1, "")])
        .await;
    let event = world.tell("gone", "set c 1").await;
    world.handled("gone", 1, event).await;
    let link = Link::new(&world.log);
    let (asked, release) = link.hold_scan();
    let names = world.names("probe");
    let meanwhile = async {
        asked.await.expect("the bucket is scanned");
        world.tell("gone", "delete c").await;
        world.tell("new", "set c 1").await;
        world.checkpoint("filled", 1).await;
        release.send(()).expect("it waits");
    };
    let (keys, ()) = tokio::join!(query::keys(&link, &names, "", false), meanwhile);
    let keys: Vec<String> = keys.expect("readable").into_iter().collect();
    assert_eq!(keys, ["filled", "new"]);
}

/// A replica of the ledger that lags answers with an earlier record: what was
/// committed before the call would be missing.
#[tokio::test]
async fn keys_are_not_listed_from_a_replica_that_lags() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let event = world.tell("k", "set c 1").await;
    world.handled("k", 1, event).await;
    host.drain().await;
    world.log.faults().lag(1, 1);
    let keys = query::keys(&world.log, &world.names("probe"), "", false).await;
    assert_eq!(keys.expect("readable").len(), 1);
}

/// More state than memory: keys are forgotten when they are in the bucket, and
/// loaded when they are needed, from replicas that lag behind what this very
/// host has just written there, and while earlier groups are still under way.
#[tokio::test]
async fn state_larger_than_memory_is_forgotten_and_loaded() {
    const KEYS: usize = 15;
    const CELL_BYTES: usize = 20_000;
    const ROUNDS: u64 = 6;
    let world = World::new().await;
    let host = HostOptions::named("a")
        .tiny_cache()
        .start(&world, &[probe(1, "")])
        .await;
    let mut last = 0;
    for round in 0..ROUNDS {
        world.log.faults().lag(100, 30);
        for key in 0..KEYS {
            let program =
                format!("add n 1\nfill c{round} 1 {CELL_BYTES}\nshow n out.{key}\ncells c out.cells");
            last = world.tell(&format!("k{key}"), &program).await;
        }
    }
    world.handled("k0", 1, last).await;
    let numbers: Vec<String> = (1..=ROUNDS).map(|n| n.to_string()).collect();
    for key in 0..KEYS {
        assert_eq!(world.texts(&format!("out.{key}")).await, numbers, "k{key}");
    }
    let cells = world.texts("out.cells").await;
    let all = (0..ROUNDS)
        .map(|n| format!("c{n}0"))
        .collect::<Vec<_>>()
        .join(",");
    let last_round = &cells[KEYS * (ROUNDS as usize - 1)..];
    assert!(last_round.iter().all(|names| *names == all), "{cells:?}");
    assert!(host.loads() > ROUNDS, "keys were forgotten and loaded");
}

/// Rule 17. A partition's clock never goes back, not even on another host: an
/// event that is redriven has its first time, which is long past.
#[tokio::test]
async fn a_partitions_clock_never_goes_back() {
    let world = World::new().await;
    let once = probe(1, "[retry]\nattempts = 1\n");
    let host = world.host("a", std::slice::from_ref(&once)).await;
    let early = world.tell("k", "need go\nemit out.k redriven").await;
    world.handled("k", 1, early).await;
    world.pass(Duration::from_secs(100));
    let late = world.tell("k", "set go 1").await;
    let clock = world.now();
    world.handled("k", 1, late).await;
    host.drain().await;

    let _host = world.host("b", &[once]).await;
    let names = world.names("probe");
    let letters = DeadLetters::new(&world.log, &names);
    let letter = letters
        .find(&format!("{SOURCE}:{early}"))
        .await
        .expect("a dead letter");
    assert!(letter.letter.time < clock);
    letters.redrive(&letter).await.expect("redriven");
    world.emitted("out.k", &["redriven"]).await;

    let clocks: Vec<u64> = world
        .records("probe", 0)
        .await
        .iter()
        .map(|(_, r)| r.clock)
        .collect();
    assert!(clocks.is_sorted(), "{clocks:?}");
    assert_eq!(clocks.last(), Some(&clock));
}

/// Rule 17. An instance is kept from event to event, and remembers. What it
/// remembers of an event that failed, or whose commit was lost, never happened:
/// another one takes its place.
#[tokio::test]
async fn an_instance_that_remembers_what_never_happened_is_replaced() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let told = async |program: &str| {
        let event = world.tell("k", program).await;
        world.handled("k", 1, event).await;
    };
    told("remember out.r").await;
    told("remember out.r").await;
    told("remember out.r\nreject no").await;
    world.emitted("out.r", &["1", "2"]).await;
    told("remember out.r").await;
    host.next(Kind::Commit, Fate::LoseRequest);
    told("remember out.r").await;
    told("remember out.r").await;
    world.emitted("out.r", &["1", "2", "1", "1", "2"]).await;
}
