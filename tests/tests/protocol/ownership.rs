//! Rules 2, 8 and 9: who owns a partition, and whether ledger and state bucket
//! belong together.

use std::time::Duration;

use weir::log::Log;
use weir::model::subjects::bucket_stream;
use weir_tests::inproc::*;

const COUNT: &str = "add n 1\nshow n out.n";

/// A world in which the probe's only partition has handled two events and is
/// checkpointed, with a record that rests on it. Its host has stopped.
async fn checkpointed() -> World {
    let world = World::new().await;
    let host = tiny("a").start(&world, &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    world.tell("k", COUNT).await;
    world.checkpoint("k", 1).await;
    host.drain().await;
    world
}

fn tiny(name: &str) -> HostOptions {
    HostOptions::named(name).tiny_cache()
}

/// Starts a host on a world whose records and bucket do not belong together, and
/// checks that it commits nothing.
async fn stops(world: &World, part: &str) {
    let records = world.records("probe", 0).await.len();
    let host = world.host("b", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    host.stopped("probe", 0, part).await;
    assert_eq!(
        world.records("probe", 0).await.len(),
        records,
        "nothing is committed"
    );
}

/// Rule 11. More partitions would send keys to owners that know nothing of them and
/// begin at the first event. What is deployed goes on.
#[tokio::test]
async fn neither_partitions_nor_key_change_in_place() {
    let world = World::new().await;
    let host = world.host("a", &[probe(2, "")]).await;
    for key in ["k1", "k2", "k3", "k4"] {
        let event = world.tell(key, COUNT).await;
        world.handled(key, 2, event).await;
    }
    host.drain().await;
    let host = world.host("b", &[probe(4, "")]).await;
    host.not_ready("it has 2 partitions in this ledger, and `partitions` says 4")
        .await;
    let event = world.tell("k1", COUNT).await;
    world.handled("k1", 2, event).await;
    host.drain().await;
    let by_header = "[key]\nheader = \"K\"\n";
    let manifest = format!(
        "partitions = 2\n[[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n{by_header}\
         [emit]\nsubjects = [\"out.>\"]\n"
    );
    let other_key = handler("probe", weir_tests::plugins::PROBE, &manifest);
    let host = world.host("c", &[other_key]).await;
    host.not_ready("it has its key from `subject_token 2` in this ledger")
        .await;
    host.drain().await;

    let host = world.host("d", &[probe(2, "")]).await;
    let event = world.tell("k1", COUNT).await;
    world.handled("k1", 2, event).await;
    assert_eq!(world.texts("out.n").await.len(), 6, "each event once");
    host.drain().await;
}

/// Rule 2. Without a record, an expectation of 0 lets anybody in: it is only a
/// fresh start where the bucket knows nothing of the partition either.
#[tokio::test]
async fn records_that_are_gone_are_no_fresh_start() {
    let world = checkpointed().await;
    let subject = world.names("probe").record(0);
    world
        .log
        .purge(LEDGER, &subject, u64::MAX)
        .await
        .expect("a purge");
    stops(&world, "has no commit record of partition 0").await;
}

/// Rule 2. A record that rests on a checkpoint whose bucket is gone: what was
/// before it cannot be replayed any more.
#[tokio::test]
async fn a_bucket_that_is_gone_is_no_fresh_start() {
    let world = checkpointed().await;
    let bucket = bucket_stream(LEDGER);
    world.log.purge(&bucket, ">", u64::MAX).await.expect("a purge");
    stops(&world, "the state bucket has lost").await;
}

/// Rule 2. A ledger made again under its name, with a record copied back: the
/// sequences of the bucket mean nothing in it.
#[tokio::test]
async fn a_ledger_made_again_does_not_belong_to_the_bucket() {
    let world = checkpointed().await;
    let subject = world.names("probe").record(0);
    let copied = world
        .log
        .last(LEDGER, &subject)
        .await
        .expect("a ledger")
        .expect("a record");
    world.log.delete_stream(LEDGER);
    world.prepare_ledger().await;
    world.publish(LEDGER, &subject, copied.headers, copied.data).await;
    stops(&world, "belongs to an earlier ledger").await;
}

/// Rule 9. The ledger lost commits whose cells are in the bucket already.
#[tokio::test]
async fn a_bucket_ahead_of_its_ledger_stops_the_partition() {
    let world = checkpointed().await;
    let (first, _) = world.records("probe", 0).await[0];
    world.log.lose_tail(LEDGER, first);
    stops(&world, "the ledger lost acknowledged commits").await;
}

/// Rule 9. The ledger lost its tail and went on: there is a record where the
/// bucket's was, and it is another one.
#[tokio::test]
async fn another_record_at_the_same_sequence_is_noticed() {
    let world = checkpointed().await;
    let subject = world.names("probe").record(0);
    let records = world.ledger(&subject).await;
    let meta = world.bucket(&world.names("probe").meta(0)).await.expect("a meta");
    let meta: serde_json::Value = serde_json::from_slice(&meta.data).expect("JSON");
    let newest = meta["newest"]["record"].as_u64().expect("a sequence");
    let before = records
        .iter()
        .rfind(|r| r.sequence < newest)
        .expect("an earlier record");
    world.log.lose_tail(LEDGER, newest - 1);
    let again = world
        .publish(LEDGER, &subject, before.headers.clone(), before.data.clone())
        .await;
    assert_eq!(again, newest);
    stops(&world, "is not the one that the state bucket was written from").await;
}

/// Rule 8. A host is stopped in the middle of a checkpoint and sleeps while
/// another takes the partition over and deletes the cell that it is about to
/// write: the cell must not come back.
#[tokio::test]
async fn a_checkpoint_of_a_replaced_owner_is_refused() {
    let world = World::new().await;
    let asleep = tiny("a").start(&world, &[probe(1, "")]).await;
    asleep.next(Kind::Checkpoint, Fate::Hold);
    world.tell("k", "set c old\nfill big 1 140000").await;
    eventually("the checkpoint is under way", async || {
        !asleep.sent(Kind::Checkpoint).is_empty()
    })
    .await;

    let awake = tiny("b").start(&world, &[probe(1, "")]).await;
    world.tell("k", "show c out.c\ndelete c\ndelete big0").await;
    world.emitted("out.c", &["old"]).await;
    world.checkpoint("other", 1).await;
    let cell = world.names("probe").cell(0, "k", "c");
    assert!(world.bucket(&cell).await.is_none_or(|c| c.data.is_empty()));

    asleep.release();
    asleep.partition_is("probe", 0, "standby").await;
    assert!(
        world.bucket(&cell).await.is_none_or(|c| c.data.is_empty()),
        "the cell came back"
    );
    awake.drain().await;
    drop(asleep);
    let _host = world.host("c", &[probe(1, "")]).await;
    world.tell("k", "show c out.c").await;
    world.emitted("out.c", &["old", "<none>"]).await;
}

/// Rule 8. A checkpoint of several batches is broken off after its first one: meta
/// still names the record before it, so that replay writes all of it again.
#[tokio::test]
async fn half_a_checkpoint_is_no_checkpoint() {
    let world = World::new().await;
    let host = tiny("a").start(&world, &[probe(1, "")]).await;
    let mut batches = 0;
    let link = host.link();
    host.rule(move |sent| match sent.kind {
        Kind::Checkpoint => {
            batches += 1;
            match batches {
                1 => Fate::Pass,
                _ => {
                    link.freeze(true);
                    Fate::LoseRequest
                }
            }
        }
        _ => Fate::Pass,
    });
    // More cells than one batch takes; enough bytes to be written at once, but not with the first key.
    for key in ["k1", "k2"] {
        world.tell(key, "fill c 600 45").await;
    }
    eventually("half a checkpoint is written", async || host.is_frozen()).await;
    drop(host);

    let _host = world.host("b", &[probe(1, "")]).await;
    for (key, subject) in [("k1", "out.one"), ("k2", "out.two")] {
        world.tell(key, &format!("cells c {subject}")).await;
        eventually("the cells are named", async || {
            !world.texts(subject).await.is_empty()
        })
        .await;
        let names = world.texts(subject).await;
        assert_eq!(names[0].split(',').count(), 600, "{key}: {names:?}");
    }
}

/// Rule 9, the other way round: the bucket is older than the ledger says (a lost
/// tail, a backup that was restored). What the records still hold is replayed; the
/// cells do not go back in time.
#[tokio::test]
async fn a_bucket_that_went_back_in_time_is_replayed() {
    let world = World::new().await;
    let host = tiny("a").start(&world, &[probe(1, "")]).await;
    world.tell("k", "set c old").await;
    world.checkpoint("k", 1).await;
    let backup = world.log.backup(&bucket_stream(LEDGER)).expect("a bucket");
    world.tell("k", "set c new").await;
    world.checkpoint("k", 1).await;
    host.drain().await;
    world.log.restore(backup);

    let host = world.host("b", &[probe(1, "")]).await;
    world.tell("k", "show c out.c").await;
    world.emitted("out.c", &["new"]).await;
    host.drain().await;
    let cell = &world.cells("probe", "k").await["c"];
    assert_eq!(&cell[..], b"new");
}

/// A handler without state changes nothing that would have to be checkpointed: its
/// records get below a watermark all the same, and are purged.
#[tokio::test]
async fn records_without_changes_are_purged_too() {
    /// Groups until a checkpoint is due for their number, and some.
    const GROUPS: u64 = 4_200;
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    for _ in 0..GROUPS {
        let event = world.tell("k", "emit out.k on").await;
        while world.position(&world.names("probe"), 0).await < event {
            tokio::task::yield_now().await;
        }
    }
    assert!(host.sent(Kind::Commit).len() as u64 >= GROUPS, "a group each");
    eventually("old records are gone", async || {
        world.tell("k", "emit out.k on").await;
        (world.records("probe", 0).await.len() as u64) < GROUPS / 2
    })
    .await;
}

/// Rule 2. Records below the watermark are purged, and never the last one: an
/// owner that was replaced long ago would find nothing that refuses it.
#[tokio::test]
async fn old_records_are_purged_but_never_the_last() {
    /// Groups until a purge is worth its cost, and some.
    const GROUPS: u64 = 2_100;
    let world = World::new().await;
    let host = tiny("a").start(&world, &[probe(1, "")]).await;
    let mut last = 0;
    for _ in 0..GROUPS {
        last = world.tell("k", "add n 1").await;
        world.handled("k", 1, last).await;
    }
    assert!(host.sent(Kind::Commit).len() as u64 >= GROUPS, "a group each");
    world.checkpoint("k", 1).await;
    eventually("old records are gone", async || {
        (world.records("probe", 0).await.len() as u64) < GROUPS / 2
    })
    .await;

    let records = world.records("probe", 0).await;
    let (_, newest) = records.last().expect("the last record is never purged");
    assert!(newest.positions[SOURCE].sequence > last);
    let watermark = newest.watermark.expect("a checkpoint").record;
    assert!(records[0].0 <= watermark, "all after the watermark are there");
    for pair in records.windows(2) {
        assert_eq!(pair[1].1.previous, pair[0].0, "without a gap");
    }
    drop(host);
    let _host = world.host("b", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &[&(GROUPS + 1).to_string()]).await;
}

/// Rules 1 and 8. A host that was stopped with everything it had under way, while
/// another went on: continued, it commits nothing more, stands by, and takes the
/// partition back once the other is gone and there is work.
#[tokio::test]
async fn a_host_that_was_replaced_while_it_slept_commits_nothing() {
    let world = World::new().await;
    let asleep = world.host("a", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1"]).await;
    asleep.freeze(true);
    world.tell("k", COUNT).await;
    world.tell("k", COUNT).await;
    let awake = world.host("b", &[probe(1, "")]).await;
    world.emitted("out.n", &["1", "2", "3"]).await;

    asleep.freeze(false);
    // For a moment it may know that it was fenced, and not yet by whom.
    eventually("it stands by, and knows who owns the partition", async || {
        let status = asleep.partition_is("probe", 0, "standby").await;
        status.reason.as_deref() == Some("owned by host b")
    })
    .await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2", "3", "4"]).await;
    drop(awake);
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1", "2", "3", "4", "5"]).await;
    asleep.partition_is("probe", 0, "running").await;
}

/// Rule 9. A host is stopped between its reads of the last record and of meta,
/// and another takes the partition over, checkpoints and commits: what it has read
/// does not belong together, but nothing is lost, and it must not say so.
#[tokio::test]
async fn a_takeover_that_is_overtaken_between_its_reads_is_no_loss() {
    for meta_is_there in [false, true] {
        for after_the_record in [false, true] {
            let world = World::new().await;
            let names = world.names("probe");
            if meta_is_there {
                world
                    .host("before", &[probe(1, "")])
                    .await
                    .partition_is("probe", 0, "running")
                    .await;
            }
            let link = Link::new(&world.log);
            link.freeze_after_reading(&match after_the_record {
                true => names.record(0),
                false => names.meta(0),
            });
            let overtaken = HostOptions::named("a")
                .on(&link)
                .start(&world, &[probe(1, "")])
                .await;
            eventually("it has read one of the two", async || link.is_frozen()).await;
            let _other = tiny("b").start(&world, &[probe(1, "")]).await;
            world.checkpoint("k", 1).await;

            let mut state = String::new();
            overtaken.freeze(false);
            eventually("it knows its place", async || {
                let partition = overtaken.handler("probe").map(|h| h.partitions[0].clone());
                let partition = partition.expect("a status");
                assert_ne!(partition.state, "stopped", "{:?}", partition.reason);
                state = partition.state;
                state != "starting"
            })
            .await;
            assert!(["running", "standby"].contains(&&*state), "{state}");
        }
    }
}

/// Rule 3. A lagging replica does not know the newest records: replay notices the
/// gap and asks the leader.
#[tokio::test]
async fn replay_does_not_believe_a_replica_that_lags() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    for _ in 0..3 {
        let event = world.tell("k", COUNT).await;
        world.handled("k", 1, event).await;
    }
    drop(host);
    for behind in [1, 2, 3, 1_000] {
        world.log.faults().lag(50, behind);
        let host = world.host("b", &[probe(1, "")]).await;
        host.partition_is("probe", 0, "running").await;
        world.log.faults().lag(0, 0);
        world.pass(Duration::from_secs(1));
        let event = world.tell("k", "show n out.seen").await;
        world.handled("k", 1, event).await;
        drop(host);
    }
    world.emitted("out.seen", &["3"; 4]).await;
}

/// A record of a format that this version does not know: a newer host is at work. This
/// one says so, and leaves all partitions to it, not only that one.
#[tokio::test]
async fn a_host_steps_back_from_what_a_newer_version_wrote() {
    let world = World::new().await;
    let host = world.host("a", &[probe(2, "")]).await;
    world.tell(&key_in(0, 2, 0), COUNT).await;
    world.emitted("out.n", &["1"]).await;
    host.drain().await;
    let (last, record) = world.records("probe", 0).await.pop().expect("a record");
    let newer = weir::commit::record::Record {
        format: weir::commit::record::FORMAT + 1,
        previous: last,
        ..record
    };
    world
        .publish(
            LEDGER,
            &world.names("probe").record(0),
            Vec::new(),
            newer.encode(),
        )
        .await;
    let before = world.records("probe", 1).await.len();

    let host = world.host("b", &[probe(2, "")]).await;
    host.stopped("probe", 0, "upgrade this host").await;
    host.not_ready("leaves all partitions to it").await;
    host.partition_is("probe", 1, "standby").await;
    world.tell(&key_in(1, 2, 0), COUNT).await;
    host.partition_is("probe", 1, "standby").await;
    let kinds = world.records("probe", 1).await;
    assert!(
        kinds.iter().skip(before).all(|(_, record)| record.events == 0),
        "it handles nothing more"
    );
}

/// Rule 12. A record of a later deployment than this host has heard of: its old code
/// must not take over, and goes on once it has caught up.
#[tokio::test]
async fn old_code_does_not_take_over_from_new_code() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    world.emitted("out.n", &["1"]).await;
    host.drain().await;
    let (last, record) = world.records("probe", 0).await.pop().expect("a record");
    let later = weir::commit::record::Record {
        manifest_revision: record.manifest_revision + 1,
        previous: last,
        ..record
    };
    let subject = world.names("probe").record(0);
    let later = world.publish(LEDGER, &subject, Vec::new(), later.encode()).await;

    let host = world.host("a", &[probe(1, "")]).await;
    world.tell("k", COUNT).await;
    let mut reason = String::new();
    eventually("it says that it waits", async || {
        let partition = host.handler("probe").map(|h| h.partitions[0].clone());
        reason = partition.and_then(|p| p.reason).unwrap_or_default();
        reason.contains("has run deployment")
    })
    .await;
    let (newest, _) = world.records("probe", 0).await.pop().expect("a record");
    assert_eq!(newest, later, "nothing was committed: {reason}");

    // Deployed once more, by another host's files.
    let other = world.host("z", &[probe(1, "[config]\nx = \"1\"\n")]).await;
    world.emitted("out.n", &["1", "2"]).await;
    drop(other);
}
