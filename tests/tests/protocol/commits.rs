//! Rules 1 and 3: what is in a batch together, and commits whose outcome is not
//! known.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;
use weir::commit::committer::{Attempts, Committer, Settlement, Submission};
use weir::log::{Append, AppendError, Log};
use weir_tests::inproc::{Fate, Kind, LEDGER, Link, World, eventually, key_in, probe};

/// A committer by itself, on a connection that can be told what to do.
struct Sender {
    link: Link,
    committer: Committer,
}

impl Sender {
    fn new(world: &World, incarnation: &str) -> Sender {
        let link = Link::new(&world.log);
        let committer = Committer::start(Arc::new(link.clone()), LEDGER, Attempts::new(incarnation));
        Sender { link, committer }
    }

    /// Hands in a group for each: its partition, the record it expects, what it emits.
    /// The committer finds them all at once.
    async fn submit(&self, groups: &[(u32, u64, &str)]) -> Vec<Settlement> {
        let mut replies = Vec::new();
        for (partition, expected, text) in groups {
            let (reply, receiver) = oneshot::channel();
            let emit = Append {
                subject: format!("out.{partition}"),
                data: text.to_string().into(),
                ..Append::default()
            };
            let record = Append {
                subject: format!("$WEIR.{LEDGER}.c.h.1.{partition}"),
                data: record().encode().into(),
                expected: Some(*expected),
                ..Append::default()
            };
            self.committer
                .submit(Submission {
                    shares: false,
                    messages: vec![emit],
                    record,
                    reply,
                })
                .await;
            replies.push(receiver);
        }
        let mut settled = Vec::new();
        for reply in replies {
            settled.push(reply.await.expect("every submission is settled"));
        }
        settled
    }
}

fn record() -> weir::commit::record::Record {
    use weir::commit::record::{FORMAT, Kind, Record};
    Record {
        format: FORMAT,
        kind: Kind::Commit,
        nonce: 0,
        previous: 0,
        positions: Default::default(),
        starts: Default::default(),
        watermark: None,
        clock: 0,
        timer_generation: 0,
        partitions: 2,
        digest: String::new(),
        manifest_revision: 0,
        host: String::new(),
        repeats: None,
        keys: Vec::new(),
        key_rule: String::new(),
        events: 1,
        parked: None,
    }
}

fn committed(settlement: &Settlement) -> u64 {
    match settlement {
        Settlement::Committed(sequence) => *sequence,
        other => panic!("{other:?} instead of a commit"),
    }
}

/// Rule 1. A batch with one stale fence is refused whole, and the server does not
/// say whose it was: the partition that was not fenced has to come through, the
/// one that was must not.
#[tokio::test]
async fn of_a_batch_with_one_stale_fence_the_others_are_committed() {
    let world = World::new().await;
    let (ours, another) = (Sender::new(&world, "a"), Sender::new(&world, "b"));
    let first = ours.submit(&[(0, 0, "0"), (1, 0, "1")]).await;
    let (zero, one) = (committed(&first[0]), committed(&first[1]));
    assert_eq!(ours.link.sent(Kind::Commit).len(), 1, "they travel together");

    let taken = another.submit(&[(0, zero, "another's")]).await;
    committed(&taken[0]);
    let second = ours.submit(&[(0, zero, "too late"), (1, one, "in time")]).await;

    assert_eq!(second[0], Settlement::Fenced);
    let record = committed(&second[1]);
    assert_eq!(world.texts("out.0").await, ["0", "another's"]);
    assert_eq!(world.texts("out.1").await, ["1", "in time"]);
    let last = world
        .log
        .last(LEDGER, "$WEIR.L.c.h.1.1")
        .await
        .expect("a readable ledger");
    assert_eq!(
        last.map(|l| l.sequence),
        Some(record),
        "each lane learns its own record's sequence"
    );
}

/// Rule 1. A server that is busy, or finds a batch too large or too many of them,
/// has stored nothing: the partitions go again, one by one, and none twice.
#[tokio::test]
async fn what_the_server_is_too_busy_for_goes_again_one_by_one() {
    let busy = |code| AppendError::Busy {
        code,
        description: "as ordered".into(),
    };
    let refusals = [10164, 10176, 10199, 10210].map(busy);
    for refusal in refusals
        .into_iter()
        .chain([AppendError::TooLarge("as ordered".into())])
    {
        let world = World::new().await;
        let sender = Sender::new(&world, "a");
        sender.link.next(Kind::Commit, Fate::Fail(refusal.clone()));

        let settled = sender.submit(&[(0, 0, "0"), (1, 0, "1")]).await;

        settled
            .iter()
            .for_each(|s| assert!(committed(s) > 0, "{refusal}"));
        let sent: Vec<usize> = sender
            .link
            .sent(Kind::Commit)
            .iter()
            .map(|s| s.records.len())
            .collect();
        assert_eq!(sent, [2, 1, 1], "{refusal}");
        let attempts = sender.link.sent(Kind::Commit);
        let attempts: Vec<String> = attempts.into_iter().flat_map(|s| s.attempts).collect();
        let distinct: BTreeSet<&String> = attempts.iter().collect();
        assert_eq!(
            (attempts.len(), distinct.len()),
            (4, 4),
            "each send is an attempt of its own"
        );
        assert_eq!(world.texts("out.*").await.len(), 2, "{refusal}");
    }
}

/// Rule 1. What a partition expects is known only once its commit is settled: the
/// next group waits, and takes in what comes meanwhile. Other partitions go on.
#[tokio::test]
async fn a_partition_has_one_commit_under_way() {
    let world = World::new().await;
    let (slow, other) = (key_in(0, 2, 0), key_in(1, 2, 0));
    let host = world.host("a", &[probe(2, "")]).await;
    for key in [&slow, &other] {
        let first = world.tell(key, SINGLE).await;
        world.handled(key, 2, first).await;
    }
    let commits = || {
        let sent = host.sent(Kind::Commit).into_iter();
        sent.filter(|s| s.records.iter().any(|record| record.ends_with(".0")))
            .count()
    };
    let before = commits();
    host.next_of(Kind::Commit, ".0", Fate::Hold);
    world.tell(&slow, SINGLE).await;
    eventually("a commit is held", async || commits() == before + 1).await;
    for _ in 0..20 {
        let last = world.tell(&slow, SINGLE).await;
        let event = world.tell(&other, SINGLE).await;
        world.handled(&other, 2, event).await;
        assert!(last < event);
    }
    assert_eq!(
        commits(),
        before + 1,
        "a second one was sent before the first was settled"
    );
    host.release();
    let last = world.tell(&slow, SINGLE).await;
    world.handled(&slow, 2, last).await;
    assert_eq!(world.cells("probe", &slow).await["n"], "23");
    assert!(
        commits() <= before + 5,
        "what came meanwhile is one group, or few"
    );
}

/// Programs for five events of one key: with messages of their own, so that they
/// are committed by a batch, or without, by a single record.
const BATCH: &str = "add n 1\nshow n out.n";
const SINGLE: &str = "add n 1";

/// Rule 3. The answer to a commit is lost, or the commit, or the sender gives up
/// on it and it arrives much later: only the ledger knows which it was.
#[tokio::test]
async fn a_commit_without_an_answer_loses_and_doubles_nothing() {
    for program in [BATCH, SINGLE] {
        for fate in [Fate::LoseReply, Fate::LoseRequest, Fate::Delay] {
            let case = format!("{fate:?} of {program:?}");
            let world = World::new().await;
            let key = key_in(0, 2, 0);
            let host = world.host("a", &[probe(2, "")]).await;
            let first = world.tell(&key, program).await;
            world.handled(&key, 2, first).await;

            host.next(Kind::Commit, fate.clone());
            for _ in 0..3 {
                world.tell(&key, program).await;
            }
            let last = world.tell(&key, program).await;
            world.handled(&key, 2, last).await;
            let late = host.deliver().await;

            assert_eq!(late.len(), usize::from(fate == Fate::Delay), "{case}");
            for late in late {
                assert!(matches!(late, Err(AppendError::Fenced(_))), "{case}: {late:?}");
            }
            assert_eq!(world.cells("probe", &key).await["n"], "5", "{case}");
            if program == BATCH {
                assert_eq!(world.texts("out.n").await, ["1", "2", "3", "4", "5"], "{case}");
            }
            let takeovers = host.sent(Kind::Takeover).len();
            let expected = if fate == Fate::LoseReply { 2 } else { 3 };
            assert_eq!(
                takeovers, expected,
                "{case}: an unknown outcome is settled by a takeover, a known one is not"
            );
        }
    }
}

/// Rule 3. The takeover's own answer can be lost, too; and the rewrite of meta.
#[tokio::test]
async fn a_takeover_without_an_answer_is_settled_like_any_commit() {
    for kind in [Kind::Takeover, Kind::Meta] {
        for fate in [Fate::LoseReply, Fate::LoseRequest, Fate::Delay] {
            let world = World::new().await;
            let link = Link::new(&world.log);
            link.next(kind, fate.clone());
            let options = weir_tests::inproc::HostOptions::named("a").on(&link);
            let host = options.start(&world, &[probe(1, "")]).await;
            world.tell("k", BATCH).await;
            world.emitted("out.n", &["1"]).await;
            for late in host.deliver().await {
                assert!(
                    matches!(late, Err(AppendError::Fenced(_))),
                    "{kind:?} {fate:?}: {late:?}"
                );
            }
            world.tell("k", BATCH).await;
            world.emitted("out.n", &["1", "2"]).await;
        }
    }
}

/// Rule 3. Whether the last record is its own, a process tells by its random
/// incarnation: a second process of the same name took the partition over while
/// the first one's commit was lost on its way.
#[tokio::test]
async fn a_namesake_is_not_taken_for_oneself() {
    let world = World::new().await;
    let first = world.host("twin", &[probe(1, "")]).await;
    world.tell("k", BATCH).await;
    world.emitted("out.n", &["1"]).await;
    let link = first.link();
    first.rule(move |sent| match sent.kind {
        Kind::Commit => {
            link.freeze(true);
            Fate::LoseRequest
        }
        _ => Fate::Pass,
    });
    world.tell("k", BATCH).await;
    eventually("a commit is lost", async || first.is_frozen()).await;

    let second = world.host("twin", &[probe(1, "")]).await;
    world.emitted("out.n", &["1", "2"]).await;
    first.mend();

    first.partition_is("probe", 0, "standby").await;
    assert_eq!(
        first.sent(Kind::Takeover).len(),
        1,
        "it does not take over from its namesake"
    );
    world.tell("k", BATCH).await;
    world.emitted("out.n", &["1", "2", "3"]).await;
    second.partition_is("probe", 0, "running").await;
}
