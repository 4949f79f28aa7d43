//! A handler is rebuilt beside itself: what was emitted is not emitted again, and what was not
//! is, whatever happens in between.

use std::collections::BTreeMap;

use weir::commit::record::{self, Record};
use weir::dead_letters::DeadLetters;
use weir::deployment::deploy::{self, When};
use weir::deployment::rebuild::{self, Rebuilding};
use weir::log::{Log as _, Start};
use weir::model::subjects::HandlerNames;
use weir::state::query;
use weir_tests::inproc::*;
use weir_tests::plugins::SHARER;

const COUNT: &str = "add n 1\nshow n out.n";

fn names(generation: u64) -> HandlerNames {
    HandlerNames::new(LEDGER, "probe", generation)
}

/// The last record of a partition in a generation.
async fn last(world: &World, generation: u64, partition: u32) -> Option<Record> {
    let subject = names(generation).record(partition);
    let last = world.log.last(LEDGER, &subject).await.expect("a ledger");
    last.map(|last| Record::decode(&last).expect("a record"))
}

async fn begin(world: &World) -> Rebuilding {
    rebuild::begin(&world.log, LEDGER, "probe", None, "somebody")
        .await
        .expect("a replay begins")
}

/// Waits until the rebuilt generation has come to where the running one is now.
async fn caught_up(world: &World, rebuilding: &Rebuilding) {
    let target = rebuilding.target(&world.log).await.expect("records");
    eventually("it has caught up", async || {
        let come = rebuilding.come(&world.log).await.expect("records");
        rebuilding.is_there(&come, &target)
    })
    .await;
}

/// A host with the probe, and its connection.
async fn linked(world: &World, partitions: u32) -> (TestHost, Link) {
    let host = world.host("a", &[probe(partitions, "")]).await;
    let link = host.link();
    (host, link)
}

/// Has one event handled, and the handler rebuilt up to there.
async fn caught_up_with_one_event(world: &World) -> Rebuilding {
    let event = world.tell("k", COUNT).await;
    world.handled("k", 1, event).await;
    let rebuilding = begin(world).await;
    caught_up(world, &rebuilding).await;
    rebuilding
}

/// Waits until a host says this of the generation that is rebuilt.
async fn says(host: &TestHost, part: &str) {
    eventually(&format!("it says {part:?}"), async || {
        let handler = host.handler("probe");
        let mut reasons = handler.iter().flat_map(|handler| &handler.rebuilding);
        reasons.any(|partition| {
            partition
                .reason
                .as_deref()
                .is_some_and(|reason| reason.contains(part))
        })
    })
    .await;
}

async fn cells(world: &World, generation: u64, key: &str) -> BTreeMap<String, String> {
    let cells = query::get(&world.log, &names(generation), key, false).await;
    let cells = cells.expect("committed state").into_iter();
    cells
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect()
}

async fn take_place(world: &World, rebuilding: &Rebuilding) {
    rebuilding
        .take_place(&world.log, "somebody")
        .await
        .expect("it takes its place");
}

/// Waits until nothing is quiet any more, and nothing is left of the generation before.
async fn cleaned(world: &World) {
    eventually("the generation before is gone", async || {
        rebuild::clean(&world.log, LEDGER, "probe", "somebody")
            .await
            .expect("a ledger")
    })
    .await;
}

#[tokio::test]
async fn what_was_emitted_is_not_emitted_again() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    for n in ["1", "2", "3"] {
        world.tell("k", COUNT).await;
        world
            .emitted("out.n", &["1", "2", "3"][..n.parse().expect("a number")])
            .await;
    }
    let rebuilding = begin(&world).await;
    caught_up(&world, &rebuilding).await;
    assert_eq!(
        last(&world, 2, 0).await.expect("a record").format,
        3,
        "older hosts leave it alone"
    );
    world.tell("k", COUNT).await;
    take_place(&world, &rebuilding).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2", "3", "4", "5"]).await;
    cleaned(&world).await;
    assert_eq!(cells(&world, 2, "k").await["n"], "5");
    assert_eq!(
        last(&world, 1, 0).await.expect("a record").kind,
        record::Kind::Tombstone
    );
    assert_eq!(last(&world, 2, 0).await.expect("a record").format, 1);
    assert!(cells(&world, 1, "k").await.is_empty());
    // As good as any other: it is rebuilt once more.
    let rebuilding = begin(&world).await;
    assert_eq!(rebuilding.rebuild.generation, 3);
    caught_up(&world, &rebuilding).await;
    take_place(&world, &rebuilding).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2", "3", "4", "5", "6"]).await;
    cleaned(&world).await;
    assert_eq!(cells(&world, 3, "k").await["n"], "6");
    host.drain().await;
}

/// The running generation has executed an event, and never commits it. Had the other one handled
/// it, which is quiet, nobody would emit it.
#[tokio::test]
async fn what_is_not_committed_is_not_taken_for_done() {
    let world = World::new().await;
    let (host, link) = linked(&world, 2).await;
    let (slow, other) = (key_in(0, 2, 0), key_in(1, 2, 0));
    for key in [&slow, &other] {
        let event = world.tell(key, COUNT).await;
        world.handled(key, 2, event).await;
    }
    let rebuilding = begin(&world).await;
    caught_up(&world, &rebuilding).await;
    let lost = names(1).record(0);
    link.rule(
        // Its tombstone comes alone.
        move |sent| match sent.subjects.len() > 1 && sent.records.contains(&lost) {
            true => Fate::LoseRequest,
            false => Fate::Pass,
        },
    );
    let executed = world.tell(&slow, COUNT).await;
    eventually("it is executed", async || {
        let commits = link.sent(Kind::Commit);
        let last = commits
            .iter()
            .rev()
            .find(|sent| sent.records.contains(&names(1).record(0)));
        last.is_some_and(|sent| sent.subjects.len() == 2)
            && link
                .sent(Kind::Takeover)
                .iter()
                .filter(|t| t.records.contains(&names(1).record(0)))
                .count()
                > 1
    })
    .await;
    // By now the other generation has handled a later event of another partition.
    let later = world.tell(&other, COUNT).await;
    eventually("the other partition goes on", async || {
        let record = last(&world, 2, 1).await.expect("a record");
        record.positions[SOURCE].sequence >= later
    })
    .await;
    let record = last(&world, 2, 0).await.expect("a record");
    assert!(record.positions[SOURCE].sequence < executed);
    take_place(&world, &rebuilding).await;
    eventually("it is emitted", async || world.texts("out.n").await.len() == 4).await;
    cleaned(&world).await;
    assert_eq!(world.texts("out.n").await.len(), 4);
    assert_eq!(cells(&world, 2, &slow).await["n"], "2");
    host.drain().await;
}

/// The host that takes over ends the generation before, and is gone. The next one goes by
/// what that has left.
#[tokio::test]
async fn a_switch_that_is_interrupted_goes_on() {
    let world = World::new().await;
    let (host, link) = linked(&world, 1).await;
    let rebuilding = caught_up_with_one_event(&world).await;
    // What follows is done before the switch, and not done over again by then.
    let behind = names(2).record(0);
    let stuck = behind.clone();
    link.rule(
        move |sent| match sent.kind != Kind::Takeover && sent.records.contains(&stuck) {
            true => Fate::LoseRequest,
            false => Fate::Pass,
        },
    );
    for _ in 0..3 {
        let event = world.tell("k", COUNT).await;
        world.handled("k", 1, event).await;
    }
    let taking = behind.clone();
    link.rule(
        move |sent| match sent.kind == Kind::Takeover && sent.records.contains(&taking) {
            true => Fate::LoseRequest,
            false => Fate::Pass,
        },
    );
    take_place(&world, &rebuilding).await;
    eventually("the generation before has ended", async || {
        let record = last(&world, 1, 0).await.expect("a record");
        record.kind == record::Kind::Tombstone
    })
    .await;
    drop(host);
    let _host = world.host("b", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2", "3", "4", "5"]).await;
    cleaned(&world).await;
    assert_eq!(cells(&world, 2, "k").await["n"], "5");
}

/// A host that has not heard of the switch commits nothing more, and nothing of it is lost.
#[tokio::test]
async fn whoever_has_not_heard_of_it_is_fenced() {
    let world = World::new().await;
    let (old, link) = linked(&world, 1).await;
    let rebuilding = caught_up_with_one_event(&world).await;
    link.freeze(true);
    take_place(&world, &rebuilding).await;
    let new = world.host("b", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2"]).await;
    link.freeze(false);
    for _ in 0..5 {
        world.tell("k", COUNT).await;
    }
    world.emitted("out.n", &["1", "2", "3", "4", "5", "6", "7"]).await;
    cleaned(&world).await;
    old.drain().await;
    new.drain().await;
    assert_eq!(cells(&world, 2, "k").await["n"], "7");
}

/// What the running generation has given up it has not emitted: the other one waits in front of it,
/// until somebody has decided.
#[tokio::test]
async fn what_was_given_up_is_waited_for() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let rebuilding = caught_up_with_one_event(&world).await;
    let failing = world.tell("k", "reject no").await;
    world.handled("k", 1, failing).await;
    says(&host, "given up").await;
    let record = last(&world, 2, 0).await.expect("a record");
    assert!(record.positions[SOURCE].sequence < failing);
    let refused = rebuilding.take_place(&world.log, "somebody").await;
    let refused = refused.expect_err("there is a dead letter").to_string();
    assert!(refused.contains("1 events are dead letters"), "{refused}");
    let names = names(1);
    let letters = DeadLetters::new(&world.log, &names);
    let found = letters.list().await.expect("letters");
    letters.forget(&found[0]).await.expect("dropped");
    caught_up(&world, &rebuilding).await;
    host.drain().await;
}

/// The same, given up at the last moment: it is handled as if for the first time.
#[tokio::test]
async fn what_is_given_up_at_the_switch_is_handled_aloud() {
    let world = World::new().await;
    let (host, link) = linked(&world, 1).await;
    let rebuilding = caught_up_with_one_event(&world).await;
    let running = names(1).record(0);
    let held = running.clone();
    // With a dead letter, which nobody can see before it is there.
    link.rule(
        move |sent| match sent.subjects.len() > 1 && sent.records.contains(&held) {
            true => Fate::Hold,
            false => Fate::Pass,
        },
    );
    world.tell("k", "reject no").await;
    eventually("it is given up", async || {
        let commits = link.sent(Kind::Commit);
        commits
            .iter()
            .any(|sent| sent.subjects.len() == 3 && sent.records.contains(&running))
    })
    .await;
    take_place(&world, &rebuilding).await;
    link.release();
    let event = world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2"]).await;
    cleaned(&world).await;
    let record = last(&world, 2, 0).await.expect("a record");
    assert!(record.positions[SOURCE].sequence >= event);
    let names = names(2);
    let letters = DeadLetters::new(&world.log, &names)
        .list()
        .await
        .expect("letters");
    assert_eq!(letters.len(), 1);
    assert!(!letters[0].letter.quiet, "it was handled for the first time");
    host.drain().await;
}

/// It begins no later than the running generation has come: what is between would be
/// handled by none.
#[tokio::test]
async fn it_begins_where_the_running_one_is_at_the_latest() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let event = world.tell("k", COUNT).await;
    world.handled("k", 1, event).await;
    let far = Some(Start::Sequence(1_000));
    let rebuilding = rebuild::begin(&world.log, LEDGER, "probe", far, "somebody").await;
    let rebuilding = rebuilding.expect("it begins");
    caught_up(&world, &rebuilding).await;
    take_place(&world, &rebuilding).await;
    world.tell("k", COUNT).await;
    eventually("the next event is handled", async || {
        world.texts("out.n").await.len() == 2
    })
    .await;
    cleaned(&world).await;
    host.drain().await;
}

/// A lock that another holds, by now the running generation itself, is not waited for: what is
/// parked is tried again as if for the first time.
#[tokio::test]
async fn nothing_is_parked_that_is_done_over_again() {
    let world = World::new().await;
    let manifest = format!(
        "partitions = 1\n[[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n[key]\nsubject_token = 2\n\
         [emit]\nsubjects = [\"out.>\"]\n"
    );
    let host = world.host("a", &[handler("probe", SHARER, &manifest)]).await;
    world.tell("h", "lock van 600000 out.h").await;
    world.emitted("out.h", &["1"]).await;
    let waits = world.tell("w", "lock van 600000 out.w").await;
    world.tell("h", "unlock van").await;
    world.emitted("out.w", &["2"]).await;
    let from = Some(Start::Sequence(waits));
    rebuild::begin(&world.log, LEDGER, "probe", from, "somebody")
        .await
        .expect("it begins");
    says(&host, "waits for a lock, which cannot be done over again").await;
    assert_eq!(last(&world, 2, 0).await.expect("a record").parked, None);
    world.emitted("out.w", &["2"]).await;
    host.drain().await;
}

/// Nor is it deployed, while there is something to do over again.
#[tokio::test]
async fn what_cannot_be_repeated_is_not_deployed_meanwhile() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    caught_up_with_one_event(&world).await;
    let outbox = probe(1, "[[outbox]]\nstream = \"TEAM\"\nsubjects = [\"team.>\"]\n");
    let refused = deploy::deploy(&world.log, LEDGER, &outbox, "somebody", None, When::Always).await;
    let refused = refused
        .expect_err("it would write to the outbox again")
        .to_string();
    assert!(refused.contains("it may not have an [[outbox]]"), "{refused}");
    // Removed, nothing is left of either generation.
    deploy::remove(&world.log, LEDGER, "probe", "somebody", false)
        .await
        .expect("removed");
    for generation in [1, 2] {
        let record = last(&world, generation, 0).await.expect("a record");
        assert_eq!(record.kind, record::Kind::Tombstone, "of generation {generation}");
    }
    host.drain().await;
    // And the next of its name gets a number that none of them had.
    let host = world.host("b", &[probe(1, "")]).await;
    deploy::deploy(&world.log, LEDGER, &probe(1, ""), "somebody", None, When::Always)
        .await
        .expect("deployed");
    eventually("it begins anew", async || last(&world, 3, 0).await.is_some()).await;
    host.drain().await;
}

/// An event that fails when it is handled over again becomes a dead letter, and emits nothing when
/// it is redriven: the generation before has emitted it.
#[tokio::test]
async fn what_fails_over_again_is_redriven_quietly() {
    let world = World::new().await;
    let fails_with = |with: &str| probe(1, &format!("[config]\nfails = \"{with}\"\n"));
    let host = world.host("a", &[fails_with("no")]).await;
    let event = world
        .tell("k", "reject-if fails yes\nadd n 1\nshow n out.n")
        .await;
    world.handled("k", 1, event).await;
    host.drain().await;
    let host = world.host("a", &[fails_with("yes")]).await;
    let rebuilding = begin(&world).await;
    caught_up(&world, &rebuilding).await;
    take_place(&world, &rebuilding).await;
    cleaned(&world).await;
    let names = names(2);
    let letters = DeadLetters::new(&world.log, &names);
    let found = letters.list().await.expect("letters");
    assert!(found.len() == 1 && found[0].letter.quiet, "{found:?}");
    host.drain().await;
    let host = world.host("a", &[fails_with("no again")]).await;
    letters.redrive(&found[0]).await.expect("redriven");
    eventually("it is handled", async || {
        cells(&world, 2, "k").await.get("n").is_some_and(|n| n == "1")
    })
    .await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2"]).await;
    host.drain().await;
}

/// What cannot be done over again stops the rebuilding, and nothing else.
#[tokio::test]
async fn what_cannot_be_repeated_is_refused() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let rebuilding = caught_up_with_one_event(&world).await;
    let event = world.tell("k", "timer t 1000000").await;
    world.handled("k", 1, event).await;
    says(&host, "sets a timer").await;
    rebuilding
        .cancel(&world.log, "somebody")
        .await
        .expect("cancelled");
    let event = world.tell("k", COUNT).await;
    world.handled("k", 1, event).await;
    world.emitted("out.n", &["1", "2"]).await;
    let error = rebuild::begin(&world.log, LEDGER, "probe", None, "somebody").await;
    let error = error.expect_err("it has timers").to_string();
    assert!(error.contains("it has used timers"), "{error}");
    host.drain().await;
}

#[tokio::test]
async fn cancelled_nothing_is_left_of_it() {
    let world = World::new().await;
    let host = world.host("a", &[probe(2, "")]).await;
    let event = world.tell("k", COUNT).await;
    world.handled("k", 2, event).await;
    let rebuilding = begin(&world).await;
    caught_up(&world, &rebuilding).await;
    rebuilding
        .cancel(&world.log, "somebody")
        .await
        .expect("cancelled");
    for partition in 0..2 {
        let record = last(&world, 2, partition).await.expect("a record");
        assert_eq!(record.kind, record::Kind::Tombstone);
    }
    assert!(cells(&world, 2, "k").await.is_empty());
    let event = world.tell("k", COUNT).await;
    world.handled("k", 2, event).await;
    assert_eq!(cells(&world, 1, "k").await["n"], "2");
    // From the second event on.
    let from = Some(Start::Sequence(event));
    let rebuilding = rebuild::begin(&world.log, LEDGER, "probe", from, "somebody")
        .await
        .expect("begun");
    assert_eq!(rebuilding.rebuild.generation, 3, "no number is given twice");
    caught_up(&world, &rebuilding).await;
    take_place(&world, &rebuilding).await;
    cleaned(&world).await;
    assert_eq!(cells(&world, 3, "k").await["n"], "1");
    host.drain().await;
}
