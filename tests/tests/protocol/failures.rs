//! Rules 13 and 19, and retries: events that fail, and commits that cannot be made.

use weir::dead_letters::DeadLetters;
use weir::effects::dead_letter::{Body, HEADER_BYTES_MAX, TEXT_BYTES_MAX};
use weir::log::{AppendError, Log};
use weir::model::event::Headers;
use weir::model::limits::BATCH_HEADER_BYTES;
use weir_tests::inproc::*;

/// Rule 13. Whatever an event looks like, and whatever its handler says of it,
/// its dead letter fits and the partition goes on.
#[tokio::test]
async fn a_dead_letter_always_fits() {
    let world = World::new().await;
    let _host = world.host("a", &[probe(1, "")]).await;
    let max = world.log.max_payload();
    let many =
        |n: usize, value: String| -> Headers { (0..n).map(|i| (format!("H{i}"), value.clone())).collect() };
    let padded = |program: &str, bytes: usize| program.to_owned() + &"\n".repeat(bytes - program.len());
    let cases: [(&str, Headers, String, Body); 6] = [
        ("nothing special", Vec::new(), "reject no".into(), Body::Message),
        (
            "many headers",
            many(100, "\u{1}".repeat(2_000)),
            "reject no".into(),
            Body::Message,
        ),
        // Each of these takes six bytes in JSON.
        (
            "headers that grow",
            many(1, "\u{1}".repeat(HEADER_BYTES_MAX - 2)),
            "reject no".into(),
            Body::Message,
        ),
        (
            "a long reason",
            Vec::new(),
            format!("reject {}", "\u{1}".repeat(100_000)),
            Body::Message,
        ),
        (
            "a payload that just fits",
            Vec::new(),
            padded("reject no", max - BATCH_HEADER_BYTES - 100),
            Body::Message,
        ),
        (
            "the largest payload",
            Vec::new(),
            padded("reject no", max - BATCH_HEADER_BYTES),
            Body::Reference,
        ),
    ];
    let names = world.names("probe");
    let letters = DeadLetters::new(&world.log, &names);
    for (case, headers, program, body) in cases {
        let event = world.publish(SOURCE, "events.k", headers, program.clone()).await;
        world.handled("k", 1, event).await;
        let found = letters.find(&format!("{SOURCE}:{event}")).await.expect(case);
        assert_eq!(
            (&*found.letter.kind, found.letter.body),
            ("reject", body),
            "{case}"
        );
        assert!(found.letter.reason.len() <= TEXT_BYTES_MAX, "{case}");
        let payload = letters.payload(&found.letter).await.expect(case);
        assert_eq!(payload, program, "{case}: the original bytes");
    }
    world.tell("k", "emit out.k on").await;
    world.emitted("out.k", &["on"]).await;
}

/// Rule 19. A ledger that takes nothing: the partition says why and waits, skips
/// nothing, and goes on by itself when somebody has mended it.
#[tokio::test]
async fn a_commit_that_cannot_be_made_stops_the_partition() {
    let full = AppendError::Refused {
        code: 10077,
        description: "maximum bytes exceeded".into(),
    };
    for stage in [Kind::Commit, Kind::Takeover] {
        let world = World::new().await;
        let link = Link::new(&world.log);
        let refused = Fate::Fail(full.clone());
        link.rule(move |sent| match sent.kind == stage {
            true => refused.clone(),
            false => Fate::Pass,
        });
        let host = HostOptions::named("a")
            .on(&link)
            .start(&world, &[probe(1, "")])
            .await;
        for _ in 0..3 {
            world.tell("k", "add n 1\nshow n out.n").await;
        }
        host.stopped("probe", 0, "maximum bytes exceeded").await;
        host.stopped("probe", 0, "takes no commit").await;
        world.emitted("out.n", &[]).await;

        link.release();
        world.emitted("out.n", &["1", "2", "3"]).await;
        eventually("the host is ready again", async || {
            host.status.not_ready().is_empty()
        })
        .await;
    }
}

/// An event that is tried again holds up its own partition, so that order is
/// kept, and no other. Given up, its dead letter is in the batch that moves the
/// position past it, and nothing of what it did is.
#[tokio::test]
async fn retries_keep_the_order_and_end_in_a_dead_letter() {
    let world = World::new().await;
    let retry = "[retry]\nattempts = 3\nbackoff_ms = [50, 1500]\n";
    let host = world.host("a", &[probe(2, retry)]).await;
    let (key, other) = (key_in(0, 2, 0), key_in(1, 2, 0));
    let failing = world.tell(&key, "set c 1\nemit out.k one\nretry not yet").await;
    let after = world.tell(&key, "emit out.k two\nshow c out.c").await;
    host.partition_is("probe", 0, "retrying").await;
    world.tell(&other, "emit out.other on").await;
    world.emitted("out.other", &["on"]).await;
    assert_eq!(world.texts("out.k").await.len(), 0, "the one behind waits");
    world.handled(&key, 2, after).await;

    world.emitted("out.k", &["two"]).await;
    world.emitted("out.c", &["<none>"]).await;
    let names = world.names("probe");
    let letters = DeadLetters::new(&world.log, &names);
    let found = letters
        .find(&format!("{SOURCE}:{failing}"))
        .await
        .expect("a dead letter");
    let letter = &found.letter;
    assert_eq!(
        (letter.attempts, &*letter.kind, &*letter.reason),
        (3, "retry", "not yet")
    );
    let batch = host
        .sent(Kind::Commit)
        .into_iter()
        .find(|s| s.subjects.contains(&found.subject));
    let record = batch.expect("it was sent").records;
    assert_eq!(
        record,
        [names.record(0)],
        "with the record that moves the position"
    );
}

/// A partition that waits for a retry gives back what it has been handed instead
/// of filling up, which would stop the reader for all partitions; and reads it
/// again, in order and once.
#[tokio::test]
async fn a_partition_that_waits_does_not_hold_up_the_others() {
    /// So many that one partition's share of the memory for waiting events is 1 MiB.
    const PARTITIONS: u32 = 64;
    /// Several times as much, and more chunks than its channel holds.
    const EVENTS: usize = 60;
    const EVENT_BYTES: usize = 100_000;
    let world = World::new().await;
    let retry = "[retry]\nattempts = 2\nbackoff_ms = [5000]\n";
    let host = world.host("a", &[probe(PARTITIONS, retry)]).await;
    let (slow, other) = (key_in(0, PARTITIONS, 0), key_in(1, PARTITIONS, 0));
    world.tell(&slow, "retry later").await;
    host.partition_is("probe", 0, "retrying").await;
    let program = format!("add n 1\nshow n out.slow\n{}", "\n".repeat(EVENT_BYTES));
    for _ in 0..EVENTS {
        world.tell(&slow, &program).await;
        let event = world.tell(&other, "emit out.other on").await;
        world.handled(&other, PARTITIONS, event).await;
    }
    assert_eq!(world.texts("out.slow").await.len(), 0, "it still waits");
    let numbers: Vec<String> = (1..=EVENTS).map(|n| n.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    world.emitted("out.slow", &numbers).await;
}

/// The server takes no commit with a certain message, at no group size: the event
/// that caused it becomes a dead letter, those around it are committed.
#[tokio::test]
async fn an_event_that_cannot_be_committed_does_not_stop_its_partition() {
    let world = World::new().await;
    let link = Link::new(&world.log);
    link.rule(|sent| match sent.subjects.iter().any(|s| s == "out.huge") {
        true => Fate::Fail(AppendError::TooLarge("as ordered".into())),
        false => Fate::Pass,
    });
    for program in [
        "add n 1\nshow n out.n",
        "add n 10\nemit out.huge x",
        "add n 1\nshow n out.n",
    ] {
        world.tell("k", program).await;
    }
    let _host = HostOptions::named("a")
        .on(&link)
        .start(&world, &[probe(1, "")])
        .await;
    world.emitted("out.n", &["1", "2"]).await;
    let names = world.names("probe");
    let letters = DeadLetters::new(&world.log, &names)
        .list()
        .await
        .expect("dead letters");
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0].letter;
    assert_eq!((&*letter.id, &*letter.kind), ("EVENTS:2", "violation"));
    assert!(letter.reason.contains("as ordered"), "{}", letter.reason);
}

/// Rule 1. A server that is busy with every batch of more than a few messages takes
/// smaller ones than we think: it does not say which of the two it is.
#[tokio::test]
async fn groups_shrink_until_a_server_with_smaller_batches_takes_them() {
    const EVENTS: usize = 40;
    const TAKES: usize = 12;
    let world = World::new().await;
    let link = Link::new(&world.log);
    link.rule(
        |sent| match sent.kind == Kind::Commit && sent.subjects.len() > TAKES {
            true => Fate::Fail(AppendError::Busy {
                code: 10176,
                description: "as ordered".into(),
            }),
            false => Fate::Pass,
        },
    );
    for _ in 0..EVENTS {
        world.tell("k", "add n 1\nshow n out.n").await;
    }
    let _host = HostOptions::named("a")
        .on(&link)
        .start(&world, &[probe(1, "")])
        .await;
    let numbers: Vec<String> = (1..=EVENTS).map(|n| n.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    world.emitted("out.n", &numbers).await;
}

/// An owner that waits to try an event again commits nothing for longer than a host
/// may be silent, and is not taken for gone: another would begin with the first
/// attempt, and the event never become a dead letter.
#[tokio::test]
async fn an_owner_that_waits_keeps_its_partition() {
    let world = World::new().await;
    let retry = "[retry]\nattempts = 2\nbackoff_ms = [4000]\n";
    // Of these two, `b` weighs more for the partition.
    let owner = world.host("b", &[probe(1, retry)]).await;
    let other = world.host("a", &[probe(1, retry)]).await;
    let failing = world.tell("k", "retry not yet").await;
    owner.partition_is("probe", 0, "retrying").await;
    other.partition_is("probe", 0, "standby").await;
    world.handled("k", 1, failing).await;
    let records = world.records("probe", 0).await;
    let hosts: Vec<&str> = records.iter().map(|(_, record)| &*record.host).collect();
    assert!(hosts.iter().all(|host| *host == "b"), "{hosts:?}");
}
