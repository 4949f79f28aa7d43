//! One suite for both implementations of the log port, so that what the
//! simulator learns in memory holds on a server. At the end stand the cases
//! that only a server has: restarts, and streams deleted behind our back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use weir::effects::check::TIMER_DUE_MAX;
use weir::log::jetstream::{ConnectOptions, JetStream, connect};
use weir::log::memory::MemoryLog;
use weir::log::*;
use weir_tests::nats::NatsServer;

/// A log under test, and how time passes there.
struct Rig {
    log: SharedLog,
    memory: Option<MemoryLog>,
    _server: Option<NatsServer>,
}

impl Rig {
    fn memory() -> Rig {
        let memory = MemoryLog::new();
        Rig {
            log: Arc::new(memory.clone()),
            memory: Some(memory),
            _server: None,
        }
    }

    async fn jetstream() -> Rig {
        let server = NatsServer::start().expect("a server");
        let log = connected(&server).await;
        Rig {
            log: Arc::new(log),
            memory: None,
            _server: Some(server),
        }
    }

    /// Unix nanoseconds on the log's clock.
    fn now(&self) -> u64 {
        self.memory.as_ref().map_or_else(
            || {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("after 1970")
                    .as_nanos() as u64
            },
            MemoryLog::now,
        )
    }

    /// Waits until a condition holds, moving the clock where it does not move by itself.
    async fn until<F: Future<Output = bool>>(&self, what: &str, condition: impl Fn() -> F) {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < Duration::from_secs(20), "still not: {what}");
            match &self.memory {
                Some(memory) => memory.advance(500_000_000),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn connected(server: &NatsServer) -> JetStream {
    let options = ConnectOptions {
        url: server.url(),
        ..ConnectOptions::default()
    };
    let log = connect(options).await.expect("options are good");
    assert!(log.wait_connected(Duration::from_secs(10)).await);
    log
}

fn settings() -> StreamSettings {
    StreamSettings {
        subjects: vec!["s.>".into()],
        replicas: 1,
        atomic_publish: true,
        direct_get: true,
        message_ttl: true,
        schedules: true,
        rollup: true,
        deny_delete: false,
        deny_purge: false,
        sealed: false,
        memory_storage: false,
        persist_async: false,
        limits_retention: true,
        discard_new: false,
        max_age_s: None,
        max_messages: None,
        max_messages_per_subject: None,
        max_bytes: None,
        max_message_bytes: None,
        duplicate_window_s: 120,
        sourced: false,
    }
}

fn message(subject: &str, data: &str) -> Append {
    Append {
        subject: subject.into(),
        data: Bytes::copy_from_slice(data.as_bytes()),
        ..Append::default()
    }
}

fn fenced(subject: &str, expected: u64) -> Append {
    Append {
        expected: Some(expected),
        ..message(subject, "x")
    }
}

async fn put(log: &SharedLog, subject: &str, data: &str) -> u64 {
    log.append("S", vec![message(subject, data)])
        .await
        .expect("taken")
        .sequence
}

fn is_fenced<T>(outcome: &Result<T, AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Fenced(_)))
}

/// Each case begins with an empty stream `S` on `s.>`.
macro_rules! suite {
    ($($case:ident)*) => {
        mod memory { $(#[tokio::test] async fn $case() {
            let rig = super::Rig::memory();
            rig.log.create_stream("S", &super::settings()).await.expect("created");
            super::$case(&rig).await;
        })* }
        mod jetstream { $(#[tokio::test] async fn $case() {
            let rig = super::Rig::jetstream().await;
            rig.log.create_stream("S", &super::settings()).await.expect("created");
            super::$case(&rig).await;
        })* }
    };
}

suite! {
    settings_read_back subjects_change fences fences_elsewhere batches_are_whole lasts_and_scans many_lasts rollup_and_purge ttl
    schedules_fire schedules_at_the_ends_of_time schedules_are_replaced_and_cancelled reading starts too_large missing_stream emptied_subject
}

async fn settings_read_back(rig: &Rig) {
    let state = rig.log.stream("S").await.expect("there");
    assert_eq!(state.settings, settings());
    assert_eq!((state.first, state.last), (1, 0));
    let other = StreamSettings {
        message_ttl: false,
        ..settings()
    };
    let again = rig.log.create_stream("S", &other).await.expect("exists already");
    assert_eq!(again.created, state.created);
}

async fn subjects_change(rig: &Rig) {
    put(&rig.log, "s.a", "1").await;
    let before = rig.log.stream("S").await.expect("is there");
    let subjects = ["s.>", "more.*"].map(String::from);
    rig.log.set_subjects("S", &subjects).await.expect("changed");
    put(&rig.log, "more.a", "2").await;
    let after = rig.log.stream("S").await.expect("is there");
    assert_eq!(after.settings.subjects, subjects);
    let mut others = after.settings;
    others.subjects.clone_from(&before.settings.subjects);
    assert_eq!(others, before.settings);
    assert_eq!((after.created, after.first, after.last), (before.created, 1, 2));
}

async fn fences(rig: &Rig) {
    let log = &rig.log;
    let first = log
        .append("S", vec![fenced("s.a", 0)])
        .await
        .expect("a new subject")
        .sequence;
    assert!(is_fenced(&log.append("S", vec![fenced("s.a", 0)]).await));
    assert!(is_fenced(&log.append("S", vec![fenced("s.a", first + 7)]).await));
    put(log, "s.b", "other").await;
    log.append("S", vec![fenced("s.a", first)])
        .await
        .expect("a fence is per subject");
}

/// What shared cells and locks rest on.
async fn fences_elsewhere(rig: &Rig) {
    let log = &rig.log;
    let (a, b) = (put(log, "s.a", "1").await, put(log, "s.b", "1").await);
    let expecting = |subject: &str, other: &str, expected: u64| Append {
        expected_of: Some((other.into(), expected)),
        ..message(subject, "x")
    };
    let before = log.stream("S").await.expect("there").last;
    for stale in [
        vec![expecting("s.n", "s.a", a + 9), message("s.c", "x")],
        vec![message("s.c", "x"), expecting("s.n", "s.none", 1)],
        vec![
            expecting("s.n", "s.a", a),
            expecting("s.n", "s.b", b + 9),
            fenced("s.c", 0),
        ],
    ] {
        assert!(is_fenced(&log.append("S", stale).await));
    }
    assert_eq!(log.stream("S").await.expect("there").last, before);
    // Several on one filler subject, one of a subject that never was, and a fenced message that
    // replaces all before it.
    let whole = vec![
        expecting("s.n", "s.a", a),
        expecting("s.n", "s.none", 0),
        Append {
            rollup: true,
            ..fenced("s.b", b)
        },
        fenced("s.c", 0),
    ];
    let end = log.append("S", whole).await.expect("all as expected").sequence;
    assert_eq!(end, before + 4);
    let all = log.scan("S", "s.b", 1, 9).await.expect("read");
    assert_eq!(all.iter().map(|m| m.sequence).collect::<Vec<_>>(), [end - 1]);
    // Nothing can be expected of a subject that the batch has written.
    let twice = vec![fenced("s.a", a), expecting("s.n", "s.a", a)];
    let twice = log.append("S", twice).await;
    assert!(matches!(twice, Err(AppendError::Busy { .. })), "{twice:?}");
}

async fn batches_are_whole(rig: &Rig) {
    let log = &rig.log;
    let (a, b) = (put(log, "s.a", "1").await, put(log, "s.b", "1").await);
    let before = log.stream("S").await.expect("there").last;
    for stale in 0..3 {
        let mut batch = vec![message("s.c", "x"), message("s.d", "x"), message("s.e", "x")];
        batch[stale] = fenced("s.a", a + 9);
        assert!(is_fenced(&log.append("S", batch).await), "stale at {stale}");
    }
    // The same subject twice in one batch, both with a fence.
    let twice = log.append("S", vec![fenced("s.a", a), fenced("s.a", a)]).await;
    assert!(
        matches!(twice, Err(AppendError::Busy { code: 10164, .. })),
        "{twice:?}"
    );
    assert!(
        log.scan("S", "s.>", before + 1, 10)
            .await
            .expect("read")
            .is_empty()
    );

    let batch = vec![
        message("s.c", "1"),
        fenced("s.a", a),
        message("s.c", "2"),
        fenced("s.b", b),
    ];
    let end = log.append("S", batch).await.expect("fences hold").sequence;
    let stored = log.scan("S", "s.>", before + 1, 10).await.expect("read");
    let shape: Vec<_> = stored.iter().map(|m| (m.sequence, &*m.subject)).collect();
    assert_eq!(
        shape,
        [(end - 3, "s.c"), (end - 2, "s.a"), (end - 1, "s.c"), (end, "s.b")]
    );

    let many = (0..1_000).map(|i| message(&format!("s.m.{i}"), "x")).collect();
    assert_eq!(
        log.append("S", many).await.expect("as many as go").sequence,
        end + 1_000
    );
    let over = (0..1_001).map(|i| message(&format!("s.m.{i}"), "x")).collect();
    let over = log.append("S", over).await;
    assert!(matches!(over, Err(AppendError::Busy { .. })), "{over:?}");
    assert_eq!(log.stream("S").await.expect("there").last, end + 1_000);
}

async fn lasts_and_scans(rig: &Rig) {
    let log = &rig.log;
    let headed = Append {
        headers: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
        ..message("s.a", "one")
    };
    let one = log.append("S", vec![headed]).await.expect("taken").sequence;
    let two = put(log, "s.a", "two").await;
    let last = log.last("S", "s.a").await.expect("read").expect("there");
    assert_eq!((last.sequence, &last.data[..]), (two, &b"two"[..]));
    assert!(log.last("S", "s.none").await.expect("read").is_none());
    let got = log.get("S", one).await.expect("read").expect("there");
    assert_eq!(
        (got.header("a"), got.header("b"), &got.data[..]),
        (Some("1"), Some("2"), &b"one"[..])
    );
    // The same message, headers and all, whichever way it is read.
    assert_eq!(
        log.scan("S", "s.*", one, 1).await.expect("read"),
        std::slice::from_ref(&got)
    );
    let mut reader = log.read("S", &[], one).await.expect("a reader");
    assert_eq!(read_until(&mut *reader, 2).await.0[0], got);
    assert!(log.get("S", 99).await.expect("read").is_none());
    assert!(log.get("S", 0).await.expect("read").is_none());
    assert!(log.scan("S", "s.a", two + 1, 9).await.expect("read").is_empty());
}

async fn many_lasts(rig: &Rig) {
    let log = &rig.log;
    let empty = log.last_many("S", &["s.x".into()]).await.expect("read");
    assert_eq!(empty, Snapshot::default());
    for third in 0..3 {
        let batch = (0..900)
            .map(|i| message(&format!("s.k.{}", third * 900 + i), "x"))
            .collect();
        log.append("S", batch).await.expect("taken");
    }
    let newer = put(log, "s.k.5", "newer").await;
    let wild = log
        .last_many("S", &["s.k.*".into()])
        .await
        .expect("more than 1,024");
    let subjects: BTreeSet<_> = wild.messages.iter().map(|m| m.subject.clone()).collect();
    assert_eq!((subjects.len(), wild.messages.len()), (2_700, 2_700));
    assert!(wild.messages.iter().any(|m| m.sequence == newer));
    assert_eq!(wild.up_to, Some(newer));
    let named: Vec<String> = (0..2_600).map(|i| format!("s.k.{i}")).collect();
    let named = log.last_many("S", &named).await.expect("in several requests");
    assert_eq!((named.messages.len(), named.up_to), (2_600, Some(newer)));
    // Parts without a result are dated by those with one.
    let mut sparse: Vec<String> = (0..2_100).map(|i| format!("s.none.{i}")).collect();
    sparse.push("s.k.1".into());
    let sparse = log.last_many("S", &sparse).await.expect("read");
    assert_eq!((sparse.messages.len(), sparse.up_to), (1, Some(newer)));
    // More bytes than one answer holds.
    let big = "x".repeat(900_000);
    for i in 0..12 {
        put(log, &format!("s.big.{i}"), &big).await;
    }
    let bigs = log
        .last_many("S", &["s.big.*".into()])
        .await
        .expect("in several answers");
    assert_eq!((bigs.messages.len(), bigs.up_to), (12, Some(newer + 12)));
    assert_eq!(log.scan("S", "s.big.*", 1, 99).await.expect("read").len(), 12);
}

async fn rollup_and_purge(rig: &Rig) {
    let log = &rig.log;
    put(log, "s.a", "1").await;
    put(log, "s.a", "2").await;
    let rollup = Append {
        rollup: true,
        ..message("s.a", "3")
    };
    let third = log.append("S", vec![rollup]).await.expect("taken").sequence;
    assert_eq!(log.scan("S", "s.a", 1, 9).await.expect("read").len(), 1);
    put(log, "s.a", "4").await;
    log.purge("S", "s.*", third).await.expect("nothing is below");
    log.purge("S", "s.*", 0).await.expect("nothing is below");
    assert_eq!(log.scan("S", "s.a", 1, 9).await.expect("read").len(), 2);
    log.purge("S", "s.*", third + 1).await.expect("purged");
    assert_eq!(log.scan("S", "s.a", 1, 9).await.expect("read").len(), 1);
}

async fn ttl(rig: &Rig) {
    let short = Append {
        ttl_s: Some(1),
        ..message("s.short", "x")
    };
    rig.log
        .append("S", vec![short, message("s.long", "x")])
        .await
        .expect("taken");
    assert!(rig.log.last("S", "s.short").await.expect("read").is_some());
    rig.until("expired", || async {
        rig.log.last("S", "s.short").await.expect("read").is_none()
    })
    .await;
    assert!(rig.log.last("S", "s.long").await.expect("read").is_some());
}

fn timer(rig: &Rig, subject: &str, in_ms: u64, replaces: Option<&str>) -> Append {
    let schedule = Schedule {
        due: rig.now() + in_ms * 1_000_000,
        target: "s.fired".into(),
        replaces: replaces.map(Into::into),
    };
    Append {
        schedule: Some(schedule),
        ..message(subject, subject)
    }
}

async fn fired(rig: &Rig) -> Vec<Stored> {
    rig.log.scan("S", "s.fired", 1, 99).await.expect("read")
}

async fn schedules_fire(rig: &Rig) {
    let log = &rig.log;
    let past = Append {
        headers: vec![("Mine".into(), "kept".into())],
        ..timer(rig, "s.t.1", 0, None)
    };
    let taken = log.append("S", vec![past, timer(rig, "s.t.2", 1_200, None)]);
    // Its own last message, not what a schedule that is past due stored behind it.
    assert_eq!(taken.await.expect("taken").sequence, 2);
    rig.until("both fired", || async { fired(rig).await.len() == 2 })
        .await;
    let fired = fired(rig).await;
    println!("headers of a fired schedule: {:?}", fired[0].headers);
    assert_eq!(
        (fired[0].header("Nats-Scheduler"), fired[0].header("Mine")),
        (Some("s.t.1"), Some("kept"))
    );
    assert_eq!(
        (fired[1].header("Nats-Scheduler"), &fired[1].data[..]),
        (Some("s.t.2"), &b"s.t.2"[..])
    );
    rig.until("gone", || async {
        log.scan("S", "s.t.*", 1, 9).await.expect("read").is_empty()
    })
    .await;
}

/// The first moment that a timer can be due at, and the last one.
async fn schedules_at_the_ends_of_time(rig: &Rig) {
    let log = &rig.log;
    let at = |subject: &str, due: u64| Append {
        schedule: Some(Schedule {
            due,
            target: "s.fired".into(),
            replaces: None,
        }),
        ..message(subject, "x")
    };
    let batch = vec![
        at("s.t.first", 0),
        at("s.t.second", 1),
        at("s.t.last", TIMER_DUE_MAX),
    ];
    log.append("S", batch).await.expect("taken");
    rig.until("what is past has fired", || async { fired(rig).await.len() == 2 })
        .await;
    // The clock moves on a little, and the last one still waits.
    let later = timer(rig, "s.t.later", 700, None);
    log.append("S", vec![later]).await.expect("taken");
    rig.until("another has fired", || async { fired(rig).await.len() == 3 })
        .await;
    assert!(log.last("S", "s.t.last").await.expect("read").is_some());
}

async fn schedules_are_replaced_and_cancelled(rig: &Rig) {
    let log = &rig.log;
    let (first, doomed) = (timer(rig, "s.t.1", 1_500, None), timer(rig, "s.t.2", 1_500, None));
    log.append("S", vec![first, doomed]).await.expect("taken");
    let second = timer(rig, "s.t.3", 2_500, Some("s.t.1"));
    let cancel = Append {
        rollup: true,
        ttl_s: Some(1),
        ..message("s.t.2", "")
    };
    log.append("S", vec![second, cancel]).await.expect("taken");
    assert!(
        log.last("S", "s.t.1").await.expect("read").is_none(),
        "the old one is purged"
    );
    rig.until("fired, and all gone", || async {
        !fired(rig).await.is_empty() && log.scan("S", "s.t.*", 1, 9).await.expect("read").is_empty()
    })
    .await;
    let fired = fired(rig).await;
    println!("headers of a fired replacement: {:?}", fired[0].headers);
    let by: Vec<_> = fired.iter().map(|m| m.header("Nats-Scheduler")).collect();
    assert_eq!(by, [Some("s.t.3")]);
}

async fn read_until(reader: &mut dyn Reader, count: usize) -> (Vec<Stored>, u64) {
    let (mut into, mut still) = (Vec::new(), 0);
    while into.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(40), reader.next(&mut into));
        match next.await.expect("in time") {
            Ok(pending) => still = pending,
            Err(error) => panic!("{error}"),
        }
    }
    (into, still)
}

async fn reading(rig: &Rig) {
    let log = &rig.log;
    for i in 0..9 {
        let batch = (0..1_000)
            .map(|j| message(&format!("s.{}.{i}", j % 3), &j.to_string()))
            .collect();
        log.append("S", batch).await.expect("taken");
    }
    let mut reader = log
        .read("S", &["s.0.>".into(), "s.1.*".into()], 1_001)
        .await
        .expect("a reader");
    // Of each thousand, 334 are on s.0 and 333 on s.1.
    assert_eq!(reader.found(), 8 * 667);
    let (messages, still) = read_until(&mut *reader, 8 * 667).await;
    assert_eq!((messages.len(), still), (8 * 667, 0));
    assert!(messages.is_sorted_by(|a, b| a.sequence < b.sequence));
    assert!(
        messages
            .iter()
            .all(|m| m.sequence > 1_000 && !m.subject.starts_with("s.2"))
    );
    // A call that is dropped loses nothing, and a waiting one sees what comes.
    let mut into = Vec::new();
    let nothing = tokio::time::timeout(Duration::from_millis(300), reader.next(&mut into)).await;
    assert!(nothing.is_err() && into.is_empty());
    let (sequence, (messages, _)) = tokio::join!(put(log, "s.0.x", "late"), read_until(&mut *reader, 1));
    assert_eq!(messages[0].sequence, sequence);
}

async fn starts(rig: &Rig) {
    let log = &rig.log;
    assert_eq!(log.resolve("S", Start::New).await, Ok(1));
    put(log, "s.a", "1").await;
    if let Some(memory) = &rig.memory {
        memory.advance(1);
    }
    let second = put(log, "s.a", "2").await;
    let time = log.get("S", second).await.expect("read").expect("there").time;
    assert_eq!(log.resolve("S", Start::Time(0)).await, Ok(1));
    assert_eq!(log.resolve("S", Start::Time(time)).await, Ok(second));
    assert_eq!(log.resolve("S", Start::Time(time + 1)).await, Ok(second + 1));
    assert_eq!(log.resolve("S", Start::New).await, Ok(second + 1));
    assert_eq!(log.resolve("S", Start::Sequence(0)).await, Ok(1));
    log.purge("S", ">", second + 1).await.expect("purged");
    assert_eq!(log.resolve("S", Start::First).await, Ok(second + 1));
}

async fn too_large(rig: &Rig) {
    let huge = "x".repeat(rig.log.max_payload());
    let outcome = rig
        .log
        .append("S", vec![message("s.a", "x"), message("s.a", &huge)])
        .await;
    assert!(matches!(outcome, Err(AppendError::TooLarge(_))), "{outcome:?}");
    assert!(rig.log.last("S", "s.a").await.expect("read").is_none());
}

async fn missing_stream(rig: &Rig) {
    let (log, gone) = (&rig.log, Error::NoStream("T".into()));
    assert_eq!(log.stream("T").await, Err(gone.clone()));
    assert_eq!(log.last("T", "s.a").await, Err(gone.clone()));
    assert_eq!(log.scan("T", "s.a", 1, 1).await, Err(gone.clone()));
    assert_eq!(log.last_many("T", &["s.a".into()]).await, Err(gone.clone()));
    assert_eq!(log.read("T", &[], 1).await.err(), Some(gone));
    for (stream, subject) in [("T", "t.a"), ("S", "t.a"), ("T", "s.a")] {
        let outcome = log.append(stream, vec![message(subject, "x")]).await;
        assert!(
            matches!(outcome, Err(AppendError::Refused { .. })),
            "{stream} {subject}: {outcome:?}"
        );
    }
}

/// PROTOCOL rule 2: with no record left, expecting 0 succeeds.
async fn emptied_subject(rig: &Rig) {
    let log = &rig.log;
    let first = put(log, "s.a", "1").await;
    log.purge("S", "s.a", first + 1).await.expect("purged");
    let batch = vec![fenced("s.a", 0), message("s.b", "x")];
    log.append("S", batch).await.expect("taken, which is the danger");
}

/// Reads `count` messages from `from` on, with as many readers as it takes.
async fn read_with_readers(log: &SharedLog, from: u64, count: usize) -> Vec<Stored> {
    let mut into = Vec::<Stored>::new();
    let begun = Instant::now();
    while into.len() < count {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{} of {count}",
            into.len()
        );
        let next = into.last().map_or(from, |last| last.sequence + 1);
        let Ok(mut reader) = log.read("S", &["s.a".into()], next).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while into.len() < count && reader.next(&mut into).await.is_ok() {}
    }
    into
}

/// What was in flight at a kill comes again, once, from another reader: the first
/// one ends, for the stream may not be the same any more.
#[tokio::test]
async fn a_reader_ends_with_its_connection() {
    let mut server = NatsServer::start().expect("a server");
    let log: SharedLog = Arc::new(connected(&server).await);
    log.create_stream("S", &settings()).await.expect("created");
    for _ in 0..10 {
        log.append("S", (0..1_000).map(|_| message("s.a", "x")).collect())
            .await
            .expect("taken");
    }
    let mut reader = log.read("S", &["s.a".into()], 1).await.expect("a reader");
    let mut unread = log.read("S", &["s.a".into()], 9_991).await.expect("a reader");
    let (mut seen, _) = read_until(&mut *reader, 1).await;
    server.kill();
    server.restart().expect("back");
    for reader in [&mut reader, &mut unread] {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(40), async {
            loop {
                if let Err(error) = reader.next(&mut rest).await {
                    break error;
                }
            }
        });
        assert!(matches!(end.await.expect("in time"), Error::Unavailable(_)));
        // It stays at its end.
        let again = reader.next(&mut rest).await;
        assert!(matches!(again, Err(Error::Unavailable(_))), "{again:?}");
        if seen
            .last()
            .is_some_and(|last| Some(last.sequence + 1) == rest.first().map(|m| m.sequence))
        {
            seen.extend(rest);
        }
    }
    let next = seen.last().map_or(1, |last| last.sequence + 1);
    let rest = read_with_readers(&log, next, 10_000 - seen.len()).await;
    seen.extend(rest);
    let sequences: Vec<u64> = seen.iter().map(|m| m.sequence).collect();
    assert_eq!(sequences, (1..=10_000).collect::<Vec<_>>());
    let tail = read_with_readers(&log, 9_991, 10).await;
    assert_eq!(tail[0].sequence, 9_991);
}

/// A reader that waits for longer than a pull lives goes on all the same.
#[tokio::test]
async fn a_quiet_reader_does_not_end() {
    let rig = Rig::jetstream().await;
    rig.log.create_stream("S", &settings()).await.expect("created");
    let mut reader = rig.log.read("S", &[], 1).await.expect("a reader");
    let mut into = Vec::new();
    let quiet = tokio::time::timeout(Duration::from_secs(40), reader.next(&mut into)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let sequence = put(&rig.log, "s.a", "x").await;
    let (messages, _) = read_until(&mut *reader, 1).await;
    assert_eq!(messages[0].sequence, sequence);
}

/// Deleted, and deleted and made again under its name: neither is what was read.
#[tokio::test]
async fn a_reader_ends_with_its_stream() {
    let server = NatsServer::start().expect("a server");
    let log = connected(&server).await;
    let other = async_nats::connect(server.url()).await.expect("connected");
    for made_again in [false, true] {
        log.create_stream("S", &settings()).await.expect("created");
        let mut reader = log.read("S", &[], 1).await.expect("a reader");
        let mut into = Vec::new();
        // It has its pulls out and waits.
        let waits = tokio::time::timeout(Duration::from_millis(300), reader.next(&mut into)).await;
        assert!(waits.is_err());
        other
            .request("$JS.API.STREAM.DELETE.S", Bytes::new())
            .await
            .expect("deleted");
        if made_again {
            log.create_stream("S", &settings()).await.expect("created");
            let message = vec![message("s.a", "of another stream")];
            log.append("S", message).await.expect("taken");
        }
        let next = tokio::time::timeout(Duration::from_secs(30), reader.next(&mut into));
        let end = next.await.expect("in time");
        assert!(matches!(end, Err(Error::Unavailable(_))), "{end:?}");
        assert_eq!(into, []);
    }
}

/// A publish that is not permitted gets no answer; the log says why all the same.
#[tokio::test]
async fn a_denied_publish_is_refused() {
    let server = NatsServer::start_with(
        r#"authorization { users [{ user: u, password: p, permissions: { publish: { deny: "s.no" } } }] }"#,
    )
    .expect("a server");
    let options = ConnectOptions {
        url: server.url().replace("nats://", "nats://u:p@"),
        ..ConnectOptions::default()
    };
    let log = connect(options).await.expect("options are good");
    assert!(log.wait_connected(Duration::from_secs(10)).await);
    log.create_stream("S", &settings()).await.expect("created");
    for batch in [
        vec![message("s.no", "x")],
        vec![message("s.yes", "x"), message("s.no", "x")],
        vec![message("s.no", "x"), message("s.yes", "x")],
    ] {
        let outcome = log.append("S", batch).await;
        assert!(matches!(outcome, Err(AppendError::Refused { .. })), "{outcome:?}");
    }
    assert_eq!(log.stream("S").await.expect("there").last, 0);
}

/// A host may start before its server does.
#[tokio::test]
async fn connecting_waits_for_the_server() {
    let mut server = NatsServer::start().expect("a server");
    server.kill();
    let options = ConnectOptions {
        url: server.url(),
        ..ConnectOptions::default()
    };
    let log = connect(options).await.expect("options are good");
    assert!(!log.connected());
    assert_eq!(log.server_version(), None);
    let outcome = log.append("S", vec![message("s.a", "x")]).await;
    assert!(matches!(outcome, Err(AppendError::Busy { .. })), "{outcome:?}");
    server.restart().expect("up");
    assert!(log.wait_connected(Duration::from_secs(20)).await);
    log.create_stream("S", &settings()).await.expect("created");
    assert!(log.server_version().is_some());
}
