//! Rules 4, 6, 7 and 14: reading sources.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weir::log::AppendError;
use weir_tests::inproc::*;
use weir_tests::plugins::{PROBE, TALLY};

const COUNT: &str = "add n 1\nshow n out.n";

/// Rule 4. One partition begins anew and the reader goes back for it, to events
/// that another partition has executed but not committed: they must not pass it
/// a second time.
#[tokio::test]
async fn a_reader_that_goes_back_for_one_partition_repeats_nothing_to_another() {
    let world = World::new().await;
    let (slow, restarted) = (key_in(0, 2, 0), key_in(1, 2, 0));
    let host = world.host("a", &[probe(2, "")]).await;
    let commits_of_slow = world.names("probe").record(0);
    let held = commits_of_slow.clone();
    host.rule(
        move |sent| match sent.kind == Kind::Commit && sent.records.contains(&held) {
            true => Fate::Hold,
            false => Fate::Pass,
        },
    );
    world.tell(&slow, COUNT).await;
    eventually("the commit of one partition is under way", async || {
        host.sent(Kind::Commit)
            .iter()
            .any(|s| s.records.contains(&commits_of_slow))
    })
    .await;
    // Executed behind the one under way, or waiting.
    world.tell(&slow, COUNT).await;

    host.next_of(Kind::Commit, ".1", Fate::LoseRequest);
    let last = world.tell(&restarted, "add n 1").await;
    world.handled(&restarted, 2, last).await;
    world.tell(&slow, COUNT).await;
    host.release();

    world.emitted("out.n", &["1", "2", "3"]).await;
    assert_eq!(world.cells("probe", &restarted).await["n"], "1");
    host.partition_is("probe", 0, "running").await;
}

/// Rule 4. The same where a host gains a partition from another that crashed:
/// while its first partition has one commit under way and events executed behind
/// it, the reader goes back to where the gained one is.
#[tokio::test]
async fn a_reader_that_goes_back_for_a_gained_partition_repeats_nothing() {
    let world = World::new().await;
    let (kept, gained) = (key_in(0, 2, 0), key_in(1, 2, 0));
    // Of these two, `b` weighs more for partition 0, and `a` for partition 1.
    let other = world.host("a", &[probe(2, "")]).await;
    other.partition_is("probe", 0, "running").await;
    other.partition_is("probe", 1, "running").await;
    let link = Link::new(&world.log);
    let may_gain = Arc::new(AtomicBool::new(false));
    let options = HostOptions::named("b").on(&link);
    let host = options.start(&world, &[probe(2, "")]).await;
    host.partition_is("probe", 0, "running").await;
    host.partition_is("probe", 1, "standby").await;
    let first = world.tell(&kept, COUNT).await;
    world.handled(&kept, 2, first).await;

    let commits_of_kept = world.names("probe").record(0);
    let held = commits_of_kept.clone();
    let holds = may_gain.clone();
    link.rule(
        move |sent| match sent.kind == Kind::Commit && sent.records.contains(&held) {
            // One is held, until all is released; there is never another under way.
            true if !holds.load(Ordering::SeqCst) => Fate::Hold,
            _ => Fate::Pass,
        },
    );
    world.tell(&kept, COUNT).await;
    eventually("the commit of the kept partition is under way", async || {
        let sent = host.sent(Kind::Commit);
        sent.iter()
            .filter(|s| s.records.contains(&commits_of_kept))
            .count()
            == 2
    })
    .await;
    for _ in 0..3 {
        world.tell(&kept, COUNT).await;
    }
    eventually("all events are accepted", async || {
        host.handler("probe")
            .is_some_and(|h| h.partitions[0].waiting == 4)
    })
    .await;

    drop(other);
    may_gain.store(true, Ordering::SeqCst);
    let event = world.tell(&gained, "add n 1\nshow n out.gained").await;
    world.handled(&gained, 2, event).await;
    host.partition_is("probe", 1, "running").await;
    world.tell(&kept, COUNT).await;
    host.release();

    world.emitted("out.n", &["1", "2", "3", "4", "5", "6"]).await;
    world.emitted("out.gained", &["1"]).await;
    // Had an event come twice, the partition would be stopped for good.
    host.partition_is("probe", 0, "running").await;
}

/// A handler on the other source, that goes on whatever happens to the first.
fn bystander() -> weir::deployment::plugins::Deployed {
    let manifest = format!(
        "partitions = 1\n[[source]]\nstream = \"{OTHER_SOURCE}\"\nsubjects = [\"others.>\"]\n[key]\nsubject_token = 2\n"
    );
    handler("tally", TALLY, &manifest)
}

async fn bystander_goes_on(world: &World, times: u8) {
    world.publish(OTHER_SOURCE, "others.k", Vec::new(), "").await;
    eventually("the other handler goes on", async || {
        world
            .cells("tally", "k")
            .await
            .get("n")
            .is_some_and(|n| n[0] == b'0' + times)
    })
    .await;
}

/// Rule 6. A source that was deleted and made again would be read from the old
/// position in silence, and everything before it would never be read.
#[tokio::test]
async fn a_source_made_again_stops_its_handler_and_no_other() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, ""), bystander()]).await;
    for _ in 0..3 {
        world.tell("k", COUNT).await;
    }
    world.emitted("out.n", &["1", "2", "3"]).await;
    bystander_goes_on(&world, 1).await;

    world.log.delete_stream(SOURCE);
    world.create_source(SOURCE, "events.>").await;
    for _ in 0..5 {
        world.tell("k", COUNT).await;
    }

    host.not_ready("deleted and created again").await;
    bystander_goes_on(&world, 2).await;
    host.drain().await;
    let host = world.host("b", &[probe(1, ""), bystander()]).await;
    host.not_ready("deleted and created again").await;
    bystander_goes_on(&world, 3).await;
    world.emitted("out.n", &["1", "2", "3"]).await;
}

/// Rule 6. A source that lost its tail ends below the position; once it is filled
/// again, it has other messages where those were that this handler read.
#[tokio::test]
async fn a_source_that_lost_its_tail_stops_its_handler() {
    for (refilled, part) in [(0, "lost its tail"), (3, "another message at sequence 3")] {
        let world = World::new().await;
        let host = world.host("a", &[probe(1, "")]).await;
        for _ in 0..3 {
            world.tell("k", COUNT).await;
        }
        world.emitted("out.n", &["1", "2", "3"]).await;
        host.drain().await;

        world.log.lose_tail(SOURCE, 1);
        world.pass(Duration::from_secs(1));
        for _ in 0..refilled {
            world.tell("k", COUNT).await;
        }

        let host = world.host("b", &[probe(1, "")]).await;
        host.not_ready(part).await;
        world.emitted("out.n", &["1", "2", "3"]).await;
    }
}

/// The probe with two partitions, reading what is new.
fn from_new() -> weir::deployment::plugins::Deployed {
    let manifest = format!(
        "partitions = 2\n[[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\nstart = \"new\"\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    handler("probe", PROBE, &manifest)
}

/// A connection on which takeovers of one partition have this fate.
fn link_with(world: &World, partition: u32, fate: Fate) -> Link {
    let link = Link::new(&world.log);
    let ends = format!(".{partition}");
    link.rule(
        move |sent| match sent.kind == Kind::Takeover && sent.records[0].ends_with(&ends) {
            true => fate.clone(),
            false => Fate::Pass,
        },
    );
    link
}

fn not_now() -> Fate {
    Fate::Fail(AppendError::Fenced("as ordered".into()))
}

/// Rule 7. `start = "new"` is one number for all partitions: one that starts
/// after a crash, and after more events, begins where the others did, even if
/// the replicas do not know of their records yet.
#[tokio::test]
async fn a_start_at_new_is_resolved_once() {
    let world = World::new().await;
    let (early, late) = (key_in(0, 2, 0), key_in(1, 2, 0));
    world.tell(&early, "emit out.k before").await;
    world.tell(&late, "emit out.k before").await;

    let link = link_with(&world, 1, not_now());
    let host = HostOptions::named("a")
        .on(&link)
        .start(&world, &[from_new()])
        .await;
    host.partition_is("probe", 0, "running").await;
    world.tell(&late, "emit out.late after").await;
    world.tell(&early, "emit out.early after").await;
    world.emitted("out.early", &["after"]).await;
    drop(host);

    world.log.faults().lag(50, 1_000);
    let host = world.host("b", &[from_new()]).await;
    world.emitted("out.late", &["after"]).await;
    world.emitted("out.k", &[]).await;
    host.drain().await;
    for partition in [0, 1] {
        let records = world.records("probe", partition).await;
        assert_eq!(records[0].1.starts[SOURCE].sequence, 2);
    }
}

/// Rule 7. Two hosts start a handler at the same time, and an event arrives
/// between the moments at which they look: one of them decides for both.
#[tokio::test]
async fn of_two_hosts_that_start_at_once_one_decides_what_is_new() {
    let world = World::new().await;
    let late = key_in(1, 2, 0);
    let deciding = link_with(&world, 0, Fate::Hold);
    deciding.rule(|sent| match sent.kind == Kind::Takeover {
        true => not_now(),
        false => Fate::Pass,
    });
    let options = HostOptions::named("a").on(&deciding);
    let _first = options.start(&world, &[from_new()]).await;
    eventually("the first has looked", async || {
        !deciding.sent(Kind::Takeover).is_empty()
    })
    .await;
    world.tell(&late, "emit out.late between").await;
    let options = HostOptions::named("b").on(&link_with(&world, 0, not_now()));
    let second = options.start(&world, &[from_new()]).await;
    second.partition_is("probe", 0, "starting").await;
    deciding.release();
    world.emitted("out.late", &["between"]).await;
}

/// How long rule 14 is watched: over the pause after which an idle partition
/// moves its position, and a look or two.
const IDLE_WATCHED: Duration = Duration::from_secs(15);

/// Rule 14. A handler that reads the ledger it commits into: an idle partition
/// moves its position past what others read, by a record in that same ledger. If
/// its own record counted as something to move past, it would never end.
#[tokio::test]
async fn the_record_of_an_idle_partition_causes_no_other() {
    let world = World::new().await;
    let manifest = format!(
        "partitions = 2\n[[source]]\nstream = \"{LEDGER}\"\nsubjects = [\"in.>\", \"out.>\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    let reader = handler("probe", PROBE, &manifest);
    let (busy, idle) = (key_in(0, 2, 0), 1);
    let mut last = 0;
    for _ in 0..10_000 {
        last = world.publish(LEDGER, &format!("in.{busy}"), Vec::new(), "").await;
    }
    let host = world.host("a", &[reader]).await;
    eventually("the idle partition has moved", async || {
        let records = world.records("probe", idle).await;
        records
            .last()
            .is_some_and(|(_, r)| r.positions[LEDGER].sequence >= last)
    })
    .await;

    let moved = world.records("probe", idle).await.len();
    let begin = Instant::now();
    while begin.elapsed() < IDLE_WATCHED {
        assert_eq!(world.records("probe", idle).await.len(), moved);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(host.sent(Kind::Idle).len(), 1);
}

/// A handler that reads these subjects of the ledger it commits into.
fn reads_ledger(subjects: &str) -> weir::deployment::plugins::Deployed {
    let manifest = format!(
        "partitions = 2\n[[source]]\nstream = \"{LEDGER}\"\nsubjects = [{subjects}]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    handler("probe", PROBE, &manifest)
}

/// Rule 14. Even where a handler's subjects take in Weir's own, these are no
/// events: not its records, nor those of others. Nor do they count as something to
/// move past: each record would cause the next, for ever.
#[tokio::test]
async fn records_of_the_ledger_are_no_events_and_cause_no_others() {
    let world = World::new().await;
    let reader = reads_ledger("\"in.>\", \"$WEIR.L.c.>\", \"$WEIR.L.d.>\"");
    let host = world.host("a", &[reader]).await;
    world.publish(LEDGER, "in.k", Vec::new(), COUNT).await;
    world.publish(LEDGER, "in.k", Vec::new(), "reject no").await;
    world.publish(LEDGER, "in.k", Vec::new(), COUNT).await;
    world.emitted("out.n", &["1", "2"]).await;

    let records = async || world.ledger(&world.names("probe").records()).await.len();
    // Each partition moves its position past what the other read, once.
    let at_most = records().await + 2;
    let begin = Instant::now();
    while begin.elapsed() < 2 * IDLE_WATCHED {
        assert!(records().await <= at_most, "records cause records");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(host.sent(Kind::Idle).len() <= 2);
    let letters = world.ledger(&world.names("probe").dead_letters()).await;
    assert_eq!(letters.len(), 1, "only the event that was rejected");
}

/// Rule 14. Subjects of the ledger that begin with a wildcard take in all of
/// Weir's own messages, and are refused.
#[tokio::test]
async fn all_of_the_ledger_is_no_source() {
    for subjects in ["\">\"", "\"*.k\"", "\"in.k\", \"*.x.>\""] {
        let world = World::new().await;
        let host = world.host("a", &[reads_ledger(subjects), bystander()]).await;
        host.not_ready("would read the ledger's own records").await;
        bystander_goes_on(&world, 1).await;
        assert_eq!(world.ledger(&world.names("probe").records()).await, []);
    }
}

/// Where the partition's number stands in the subject, each host reads what it owns
/// and nothing else; a host that gains a partition reads that, too.
#[tokio::test]
async fn hosts_read_only_what_they_own() {
    const PARTITIONS: u32 = 4;
    let manifest = format!(
        "partitions = {PARTITIONS}\n[[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.*.*\"]\n\
         [key]\nsubject_token = 3\n[partition]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    let handlers = [handler("probe", weir_tests::plugins::PROBE, &manifest)];
    let world = World::new().await;
    let a = world.host("a", &handlers).await;
    let b = world.host("b", &handlers).await;
    let mut owners = vec![String::new(); PARTITIONS as usize];
    eventually("each host owns some partitions and knows which", async || {
        for host in [&a, &b] {
            let handler = host.handler("probe");
            for partition in handler.map(|handler| handler.partitions).unwrap_or_default() {
                if partition.state == "running" {
                    owners[partition.partition as usize].clone_from(&host.name);
                }
            }
        }
        ["a", "b"]
            .iter()
            .all(|name| owners.iter().any(|owner| owner == name))
            && b.readers()
                .last()
                .is_some_and(|read| read.len() < PARTITIONS as usize)
            && a.readers()
                .last()
                .is_some_and(|read| read.len() < PARTITIONS as usize)
    })
    .await;
    let publish = async |key: &str, partition: u32| {
        world
            .publish(SOURCE, &format!("events.{partition}.{key}"), Vec::new(), COUNT)
            .await
    };
    for partition in 0..PARTITIONS {
        let key = key_in(partition, PARTITIONS, 0);
        let event = publish(&key, partition).await;
        world.handled(&key, PARTITIONS, event).await;
    }
    // `b` came second: what it has ever read is what it owns.
    let owned: BTreeSet<Vec<String>> = (0..PARTITIONS)
        .filter(|partition| owners[*partition as usize] == "b")
        .map(|partition| vec![format!("events.{partition}.*")])
        .collect();
    assert_eq!(b.readers().into_iter().collect::<BTreeSet<_>>(), owned);
    // Published for one partition with another's key: who reads it says so.
    let stray = key_in(0, PARTITIONS, 1);
    let event = publish(&stray, 1).await;
    eventually("it is a dead letter of partition 1", async || {
        let letters = world.ledger(&world.names("probe").dead_letters()).await;
        letters.iter().any(|letter| {
            let subject = letter.subject.to_string();
            subject.contains(".1.") && String::from_utf8_lossy(&letter.data).contains(&format!("{event}"))
        })
    })
    .await;
    drop(a);
    for partition in 0..PARTITIONS {
        let key = key_in(partition, PARTITIONS, 0);
        let event = publish(&key, partition).await;
        world.handled(&key, PARTITIONS, event).await;
    }
    world
        .emitted("out.n", &["1", "1", "1", "1", "2", "2", "2", "2"])
        .await;
}
