//! Rule 6, partition by partition, and what must not go unnoticed: messages that
//! were removed unread, and messages of Weir's own that cannot be read.

use std::time::Duration;

use weir::dead_letters::DeadLetters;
use weir::log::Log;
use weir::model::position::INTERNAL_SOURCE;
use weir_tests::inproc::*;

const COUNT: &str = "add n 1\nshow n out.n";

/// Two reports of a host's status, and some more: what was to be said has been said.
const REPORTED: Duration = Duration::from_millis(1_500);

/// A world in which partition 0 has handled the first event and partition 1 the
/// second one, a key of each, and no host runs.
async fn two_partitions() -> (World, String, String) {
    let world = World::new().await;
    let keys = (key_in(0, 2, 0), key_in(1, 2, 0));
    let host = world.host("a", &[probe(2, "")]).await;
    for key in [&keys.0, &keys.1] {
        let event = world.tell(key, COUNT).await;
        world.handled(key, 2, event).await;
    }
    host.drain().await;
    world.pass(Duration::from_secs(1));
    (world, keys.0, keys.1)
}

/// The source of partition 1 is stopped for this reason, that of partition 0 goes on.
async fn only_the_second_stops(world: &World, part: &str, keys: (&str, &str), emitted: &[&str]) {
    let host = world.host("b", &[probe(2, "")]).await;
    host.not_ready(part).await;
    world.tell(keys.0, COUNT).await;
    world.tell(keys.1, COUNT).await;
    world.emitted("out.n", emitted).await;
    let stopped = host.handler("probe").expect("it runs").stopped_sources;
    assert!(
        stopped.len() == 1 && stopped[0].contains("only partition 1"),
        "{stopped:?}"
    );
    assert_eq!(world.position(&world.names("probe"), 1).await, 2);
    host.drain().await;
    world.emitted("out.n", emitted).await;
}

/// Rule 6. The tail that one partition had read is lost, and that of another is
/// not: it was written to again since, or not.
#[tokio::test]
async fn a_partition_that_read_what_is_lost_stops_and_no_other() {
    for (refilled, part, emitted) in [
        (false, "ends at sequence 1", &["1", "1", "2"][..]),
        (true, "another message at sequence 2", &["1", "1", "2", "3"]),
    ] {
        let (world, sound, gone) = two_partitions().await;
        world.log.lose_tail(SOURCE, 1);
        if refilled {
            world.tell(&sound, COUNT).await;
        }
        only_the_second_stops(&world, part, (&sound, &gone), emitted).await;
    }
}

/// Rule 6. Partitions whose positions are in different streams of one name: as
/// after a repair that moved one of them, or from a host that had not noticed.
#[tokio::test]
async fn a_partition_that_is_in_an_earlier_stream_stops_and_no_other() {
    let (world, sound, gone) = two_partitions().await;
    let (last, mut record) = world.records("probe", 1).await.pop().expect("a record");
    record.previous = last;
    let position = record.positions.get_mut(SOURCE).expect("a position");
    position.created -= 1;
    let subject = world.names("probe").record(1);
    world.publish(LEDGER, &subject, Vec::new(), record.encode()).await;
    let part = "deleted and created again";
    only_the_second_stops(&world, part, (&sound, &gone), &["1", "1", "2"]).await;
}

/// Rule 6. The source loses its tail while it is read: its server was restarted,
/// the host only saw its connection go and come.
#[tokio::test]
async fn a_tail_lost_while_it_is_read_stops_the_source() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    for _ in 0..3 {
        world.tell("k", COUNT).await;
    }
    world.emitted("out.n", &["1", "2", "3"]).await;
    world.handled("k", 1, 3).await;
    let whole = world.log.backup(SOURCE).expect("it is there");
    world.log.lose_tail(SOURCE, 1);
    host.not_ready("lost its tail").await;
    world.pass(Duration::from_secs(1));
    for _ in 0..3 {
        world.tell("k", COUNT).await;
    }
    host.not_ready("another message at sequence 3").await;
    world.emitted("out.n", &["1", "2", "3"]).await;

    // Restored as it was, it goes on.
    world.log.restore(whole);
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2", "3", "4"]).await;
    eventually("nothing is stopped", async || {
        host.handler("probe")
            .is_some_and(|h| h.stopped_sources.is_empty())
    })
    .await;
}

/// What was removed before it was read is counted, once however often the
/// connection is made anew.
#[tokio::test]
async fn what_was_removed_unread_is_counted_once() {
    let world = World::new().await;
    let host = world.host("a", &[probe(2, "")]).await;
    let event = world.tell("k", COUNT).await;
    world.handled("k", 2, event).await;
    host.drain().await;
    for _ in 0..3 {
        world.tell("k", COUNT).await;
    }
    world.log.purge(SOURCE, ">", 5).await.expect("purged");

    let host = world.host("b", &[probe(2, "")]).await;
    let lost = || host.handler("probe").and_then(|h| h.lost.get(SOURCE).copied());
    // The other partition begins before the first event, at which nothing was lost to this one.
    eventually("the loss is counted", async || lost() == Some(4)).await;
    for _ in 0..2 {
        host.cut(true);
        host.not_ready("connection to NATS is lost").await;
        host.cut(false);
        eventually("it is back", async || host.status.not_ready().is_empty()).await;
        tokio::time::sleep(REPORTED).await;
        assert_eq!(lost(), Some(4));
    }
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2"]).await;
    tokio::time::sleep(REPORTED).await;
    assert_eq!(lost(), Some(4));
}

/// Messages on Weir's own subjects that are not as Weir writes them are counted,
/// and stop nothing.
#[tokio::test]
async fn what_cannot_be_read_of_weirs_own_is_counted_once() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let names = world.names("probe");
    for subject in [names.fired(0), names.redriven(0), names.fired(7)] {
        world.publish(LEDGER, &subject, Vec::new(), "x").await;
    }
    world.tell("k", "timer t 1000 emit out.t fired").await;
    let undecodable = || host.handler("probe").map_or(0, |h| h.undecodable);
    eventually("they are counted", async || undecodable() == 3).await;
    eventually("the timer is set", async || {
        !world.ledger("$WEIR.L.t.>").await.is_empty()
    })
    .await;
    // The partition starts over from its last record, and the reader goes back with it.
    host.next(Kind::Commit, Fate::LoseRequest);
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1"]).await;
    world.pass(Duration::from_secs(2));
    world.emitted("out.t", &["fired"]).await;
    tokio::time::sleep(REPORTED).await;
    assert_eq!(undecodable(), 3);
}

/// Rule 6 rests on it: the stored time of a position is that of the message at
/// its sequence. A redriven event has a time and a sequence of its own, which
/// here is by chance that of the message that redrives it.
#[tokio::test]
async fn a_positions_time_is_that_of_its_message() {
    const SAME: u64 = 101;
    let world = World::new().await;
    for _ in 1..SAME {
        world.tell("k", "").await;
    }
    let failing = world.tell("k", "need go\nemit out.k redriven").await;
    assert_eq!(failing, SAME);
    let once = probe(1, "[retry]\nattempts = 1\n");
    let host = world.host("a", std::slice::from_ref(&once)).await;
    world.handled("k", 1, failing).await;
    world.pass(Duration::from_secs(1));
    let go = world.tell("k", "set go 1\ntimer t 0 emit out.t fired").await;
    world.handled("k", 1, go).await;
    world.emitted("out.t", &["fired"]).await;
    while world.log.stream(LEDGER).await.expect("there").last < SAME - 1 {
        world.publish(LEDGER, "in.filler", Vec::new(), "").await;
    }
    world.pass(Duration::from_secs(1));
    let names = world.names("probe");
    let letters = DeadLetters::new(&world.log, &names);
    let letter = letters.find(&format!("{SOURCE}:{failing}")).await;
    letters
        .redrive(&letter.expect("a dead letter"))
        .await
        .expect("redriven");
    world.emitted("out.k", &["redriven"]).await;
    host.drain().await;

    let records = world.records("probe", 0).await;
    let internal = &records.last().expect("a record").1.positions[INTERNAL_SOURCE];
    assert_eq!(internal.sequence, SAME, "the case is the one that was meant");
    let mut known = 0;
    for (source, position) in records.iter().flat_map(|(_, record)| &record.positions) {
        let stream = if source == INTERNAL_SOURCE { LEDGER } else { source };
        if position.stored == 0 {
            continue; // not known, which is no claim
        }
        known += 1;
        if let Some(there) = world.log.get(stream, position.sequence).await.expect("readable") {
            assert_eq!(position.stored, there.time, "{source} at {}", position.sequence);
        }
    }
    assert!(known > 2 && internal.stored != 0, "{known} known, {internal:?}");
}
