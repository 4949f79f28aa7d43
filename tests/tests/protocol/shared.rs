//! Rule 15: shared cells and locks.

use std::time::Duration;

use weir::deployment::plugins::Deployed;
use weir::model::key::partition;
use weir_tests::inproc::*;
use weir_tests::plugins::SHARER;

const PARTITIONS: u32 = 2;

fn sharer(partitions: u32) -> Deployed {
    let manifest = format!(
        "partitions = {partitions}\n\
         [[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    handler("sharer", SHARER, &manifest)
}

/// Two keys, of partitions 0 and 1.
fn keys() -> (String, String) {
    (key_in(0, PARTITIONS, 0), key_in(1, PARTITIONS, 0))
}

/// Waits until a key's event at `sequence` is committed.
async fn handled(world: &World, key: &str, sequence: u64) {
    eventually("the event is committed", async || {
        world
            .position(&world.names("sharer"), partition(key, PARTITIONS))
            .await
            >= sequence
    })
    .await;
}

/// A host whose next commit of partition 0 waits until the test releases it.
async fn holding(world: &World) -> TestHost {
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    host.next_of(Kind::Commit, ".0", Fate::Hold);
    host
}

async fn is_held(host: &TestHost) {
    eventually("the commit is on its way", async || {
        host.sent(Kind::Commit)
            .iter()
            .any(|sent| sent.records.iter().any(|record| record.ends_with(".0")))
    })
    .await;
}

/// Of two that read the same number and add to it, the slower one adds again.
#[tokio::test]
async fn an_update_is_never_lost() {
    let world = World::new().await;
    let host = holding(&world).await;
    let (slow, fast) = keys();
    world.tell(&slow, "count mine\nadd sum 1\nget sum out.slow").await;
    is_held(&host).await;
    let event = world.tell(&fast, "add sum 10\nget sum out.fast").await;
    handled(&world, &fast, event).await;
    host.release();
    world.emitted("out.slow", &["11"]).await;
    world.emitted("out.fast", &["10"]).await;
    assert_eq!(world.cells("sharer", &slow).await["mine"], "1", "counted once");
    assert_eq!(
        world.texts("$WEIR.L.x.c.sum").await,
        ["11"],
        "and nothing older is kept"
    );
}

/// What was only read is expected, too: without that, each of these would see the
/// other's number as it was, and the sum would be what no order of the two gives.
#[tokio::test]
async fn no_write_skew() {
    let world = World::new().await;
    let host = holding(&world).await;
    let (slow, fast) = keys();
    world.tell(&slow, "get b out.slow\nset a written").await;
    is_held(&host).await;
    let event = world.tell(&fast, "get a out.fast\nset b written").await;
    handled(&world, &fast, event).await;
    host.release();
    world.emitted("out.slow", &["written"]).await;
    world.emitted("out.fast", &["<none>"]).await;
}

/// Only read, and nothing emitted that could carry the expectation.
#[tokio::test]
async fn a_read_alone_is_expected_by_a_message_of_its_own() {
    let world = World::new().await;
    let host = holding(&world).await;
    let (slow, fast) = keys();
    let event = world.tell(&slow, "get a out.slow").await;
    is_held(&host).await;
    let set = world.tell(&fast, "set a 1\nset b 2\ndelete c").await;
    handled(&world, &fast, set).await;
    host.release();
    handled(&world, &slow, event).await;
    world.emitted("out.slow", &["1"]).await;
    let event = world.tell(&fast, "delete a\nget b out.b").await;
    handled(&world, &fast, event).await;
    world.tell(&slow, "get a out.slow\nget b out.slow\nset a 3").await;
    world.emitted("out.slow", &["1", "<none>", "2"]).await;
    assert_eq!(world.texts("$WEIR.L.x.c.a").await, ["3"]);
}

/// A host whose first commit waits until the test releases it: all that was published before is in it,
/// up to the first event that shares something.
async fn holding_the_first(world: &World, handlers: &[Deployed]) -> TestHost {
    let link = Link::new(&world.log);
    link.next_of(Kind::Commit, ".0", Fate::Hold);
    HostOptions::named("a").on(&link).start(world, handlers).await
}

/// The one commit that is held, with a message on each of these subjects.
fn is_the_first(host: &TestHost, subjects: &[&str]) {
    let mut sent = host.sent(Kind::Commit);
    sent.retain(|sent| sent.records.iter().any(|record| record.ends_with(".0")));
    let has = |subject: &&str| sent[0].subjects.iter().any(|s| s.starts_with(*subject));
    assert!(sent.len() == 1 && subjects.iter().all(has), "{sent:?}");
}

/// A group that is taken back is taken back whole: cells, timers, positions, and what
/// its events before the one that shares had done.
#[tokio::test]
async fn what_is_taken_back_is_done_again_once() {
    let world = World::new().await;
    let (slow, fast) = keys();
    let other = key_in(0, PARTITIONS, 1);
    for _ in 0..4 {
        world.tell(&slow, "count n").await;
        world.tell(&other, "count n").await;
    }
    world.tell(&slow, "count n\nadd sum 1\nemit out.slow done").await;
    let last = world.tell(&other, "count n\nemit out.other done").await;
    let host = holding_the_first(&world, &[sharer(PARTITIONS)]).await;
    is_held(&host).await;
    is_the_first(&host, &["$WEIR.L.x.c.sum", "out.slow"]);
    let event = world.tell(&fast, "add sum 1").await;
    handled(&world, &fast, event).await;
    host.release();
    handled(&world, &other, last).await;
    world.emitted("out.slow", &["done"]).await;
    world.emitted("out.other", &["done"]).await;
    assert_eq!(world.cells("sharer", &slow).await["n"], "5");
    assert_eq!(world.cells("sharer", &other).await["n"], "5");
    assert_eq!(world.texts("$WEIR.L.x.c.sum").await, ["2"]);
}

/// A holder that is frozen past its time: what it did under the lock is refused whole by
/// the server, and it learns that the lock is another's.
#[tokio::test]
async fn a_stale_holder_commits_nothing() {
    let world = World::new().await;
    let host = holding(&world).await;
    host.mend();
    let (slow, fast) = keys();
    let event = world.tell(&slow, "try-lock van 100 out.slow").await;
    handled(&world, &slow, event).await;
    host.next_of(Kind::Commit, ".0", Fate::Hold);
    let before = host.sent(Kind::Commit).len();
    world
        .tell(
            &slow,
            "try-lock van 100 out.slow\nemit out.slow drives\ncount tours",
        )
        .await;
    eventually("it is about to commit", async || {
        host.sent(Kind::Commit).len() > before
    })
    .await;
    world.tell(&fast, "lock van 60000 out.fast").await;
    world.emitted("out.fast", &["2"]).await;
    host.release();
    let event = world.tell(&slow, "count tours").await;
    handled(&world, &slow, event).await;
    world.emitted("out.slow", &["1", "<held>", "drives"]).await;
    assert_eq!(world.cells("sharer", &slow).await["tours"], "2");
}

/// An event that waits for a lock lets other keys pass and none of its own, across a
/// restart, and goes on when the lock is given back.
#[tokio::test]
async fn waiting_for_a_lock_holds_up_only_its_key() {
    let world = World::new().await;
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    let (holder, _) = keys();
    let (waits, other) = (key_in(0, PARTITIONS, 1), key_in(0, PARTITIONS, 2));
    world.tell(&holder, "lock van 600000 out.holder").await;
    world.emitted("out.holder", &["1"]).await;
    world
        .tell(&waits, "lock van 600000 out.waits\nemit out.waits loads")
        .await;
    world.tell(&waits, "emit out.waits behind").await;
    let event = world.tell(&other, "emit out.other passes").await;
    handled(&world, &other, event).await;
    world.emitted("out.other", &["passes"]).await;
    world.emitted("out.waits", &[]).await;
    host.drain().await;

    let _host = world.host("b", &[sharer(PARTITIONS)]).await;
    let event = world.tell(&waits, "emit out.waits last").await;
    handled(&world, &waits, event).await;
    let event = world.tell(&other, "emit out.other again").await;
    handled(&world, &other, event).await;
    world.emitted("out.waits", &[]).await;
    world.tell(&holder, "unlock van").await;
    world
        .emitted("out.waits", &["2", "loads", "behind", "last"])
        .await;
    let records = world.records("sharer", 0).await;
    assert_eq!(
        records.last().expect("a record").1.parked,
        None,
        "nothing is left"
    );
}

/// An event that waited, and whose commit then meets another's on something else, does not go
/// back to waiting for a lock that is free.
#[tokio::test]
async fn a_conflict_does_not_lose_the_news_of_a_free_lock() {
    let world = World::new().await;
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    let (waits, holder) = keys();
    world.tell(&holder, "lock van 600000 out.holder").await;
    world.emitted("out.holder", &["1"]).await;
    let event = world.tell(&waits, "lock van 600000 out.waits\nadd sum 1").await;
    handled(&world, &waits, event).await;
    host.next_of(Kind::Commit, ".0", Fate::Hold);
    let before = host.sent(Kind::Commit).len();
    world.tell(&holder, "unlock van").await;
    eventually("it has the lock, nearly", async || {
        let sent = host.sent(Kind::Commit);
        sent[before..]
            .iter()
            .any(|sent| sent.records.iter().any(|record| record.ends_with(".0")))
    })
    .await;
    let event = world.tell(&holder, "add sum 1").await;
    handled(&world, &holder, event).await;
    host.release();
    world.emitted("out.waits", &["2"]).await;
    assert_eq!(world.texts("$WEIR.L.x.c.sum").await, ["2"]);
}

/// The lock of a holder that never gives it back is taken when its time is over.
#[tokio::test]
async fn a_lock_expires() {
    let world = World::new().await;
    let _host = world.host("a", &[sharer(PARTITIONS)]).await;
    let (holder, waits) = keys();
    world.tell(&holder, "lock van 300 out.holder").await;
    world.emitted("out.holder", &["1"]).await;
    world.tell(&waits, "lock van 60000 out.waits").await;
    world.emitted("out.waits", &["2"]).await;
    world
        .tell(&holder, "unlock van\ntry-lock van 1000 out.holder")
        .await;
    world.emitted("out.holder", &["1", "<held>"]).await;
}

/// An event that waits, and that its source forgets meanwhile, is a dead letter.
#[tokio::test]
async fn what_waits_and_is_gone_is_a_dead_letter() {
    let world = World::new().await;
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    let (holder, waits) = keys();
    world.tell(&holder, "lock van 600000 out.holder").await;
    world.emitted("out.holder", &["1"]).await;
    let event = world.tell(&waits, "lock van 600000 out.waits").await;
    handled(&world, &waits, event).await;
    host.drain().await;
    weir::log::Log::purge(&world.log, SOURCE, "events.>", event + 1)
        .await
        .expect("purged");
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    eventually("the dead letter", async || {
        host.handler("sharer")
            .is_some_and(|handler| handler.dead_letters == 1)
    })
    .await;
    assert!(world.texts("$WEIR.L.d.>").await[0].contains("waited for a lock"));
}

/// An event that waits, and whose source is another stream by the time that it is looked for: what
/// stands at its sequence now is another event.
#[tokio::test]
async fn what_waits_is_not_taken_from_another_stream_of_its_name() {
    let world = World::new().await;
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    let (holder, waits) = keys();
    world.tell(&holder, "lock van 600000 out.holder").await;
    world.emitted("out.holder", &["1"]).await;
    let event = world.tell(&waits, "lock van 600000 out.waits").await;
    handled(&world, &waits, event).await;
    host.drain().await;
    world.log.delete_stream(SOURCE);
    world.create_source(SOURCE, "events.>").await;
    for _ in 0..event {
        world.tell(&waits, "emit out.waits another").await;
    }
    let host = world.host("a", &[sharer(PARTITIONS)]).await;
    eventually("the dead letter", async || {
        host.handler("sharer")
            .is_some_and(|handler| handler.dead_letters == 1)
    })
    .await;
    assert!(world.texts("$WEIR.L.d.>").await[0].contains("waited for a lock"));
    world.emitted("out.waits", &[]).await;
}

/// An event that is no input for the handler stays so when its group is taken back.
#[tokio::test]
async fn what_is_refused_is_refused_again() {
    let world = World::new().await;
    let manifest = format!(
        "partitions = 1\n[[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n\
         [key]\nheader = \"Key\"\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    let say = async |key: Option<&str>, program: &str| {
        let headers = key.map(|key| ("Key".to_owned(), key.to_owned()));
        world
            .publish(
                SOURCE,
                "events.x",
                headers.into_iter().collect(),
                program.to_owned(),
            )
            .await
    };
    say(None, "emit out.never x").await;
    say(Some("a"), "add sum 1\nemit out.a done").await;
    let host = holding_the_first(&world, &[handler("sharer", SHARER, &manifest)]).await;
    is_held(&host).await;
    is_the_first(&host, &["$WEIR.L.d.", "$WEIR.L.x.c.sum"]);
    // Somebody else writes the cell meanwhile.
    let subject = weir::model::subjects::shared_cell(LEDGER, "sum");
    world.publish(LEDGER, &subject, Vec::new(), "10").await;
    host.release();
    world.emitted("out.a", &["done"]).await;
    assert_eq!(world.texts("$WEIR.L.x.c.sum").await, ["11"]);
    world.emitted("out.never", &[]).await;
    let letters = world.texts("$WEIR.L.d.*.*.*.*.m").await;
    assert!(
        letters.len() == 1 && letters[0].contains("no header `Key`"),
        "{letters:?}"
    );
}

/// What is remembered of an event beside its effects takes nothing of them away.
#[tokio::test]
async fn locks_hold_where_repetitions_are_ignored() {
    let world = World::new().await;
    let manifest = format!(
        "partitions = 1\n[[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n\
         [dedupe]\nheader = \"Id\"\nwindow = \"1h\"\n"
    );
    let _host = world.host("a", &[handler("sharer", SHARER, &manifest)]).await;
    let say = async |key: &str, id: &str, program: &str| {
        let headers = vec![("Id".to_owned(), id.to_owned())];
        let subject = format!("events.{key}");
        world.publish(SOURCE, &subject, headers, program.to_owned()).await
    };
    say("a", "1", "lock van 600000 out.a\nadd sum 1").await;
    say("b", "2", "try-lock van 600000 out.b\nadd sum 1").await;
    say("b", "3", "lock van 600000 out.b").await;
    say("a", "1", "emit out.a repeated").await;
    world.emitted("out.b", &["<held>"]).await;
    say("a", "4", "unlock van").await;
    world.emitted("out.b", &["<held>", "2"]).await;
    world.emitted("out.a", &["1"]).await;
    assert_eq!(world.texts("$WEIR.L.x.c.sum").await, ["2"]);
}

/// Three hosts add to one number: every addition counts once.
#[tokio::test]
async fn many_add_to_one() {
    const EACH: u64 = 40;
    let world = World::new().await;
    let mut hosts = Vec::new();
    for name in ["a", "b", "c"] {
        hosts.push(world.host(name, &[sharer(6)]).await);
    }
    for n in 0..EACH {
        for key in 0..6 {
            world
                .tell(
                    &key_in(key, 6, 0),
                    &format!("add sum 1\ncount n\nadd by{} 1", n % 3),
                )
                .await;
        }
    }
    let whole = (EACH * 6).to_string();
    let begin = std::time::Instant::now();
    while world.texts("$WEIR.L.x.c.sum").await != [whole.as_str()] {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{:?}",
            world.texts("$WEIR.L.x.c.sum").await
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for key in 0..6 {
        let cells = world.cells("sharer", &key_in(key, 6, 0)).await;
        assert_eq!(cells["n"], EACH.to_string());
    }
}
