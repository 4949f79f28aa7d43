//! Rule 5: timers.

use std::time::Duration;

use weir_tests::inproc::{Fate, Kind, World, eventually, probe};

const SECOND: Duration = Duration::from_secs(1);

/// What happens to a timer that is live, as programs of the probe, and what fires
/// in the end.
const STORIES: [(&[&str], &[&str]); 4] = [
    (&["timer t 1000 emit out.t first"], &["first"]),
    (
        &["timer t 1000 emit out.t first", "timer t 2000 emit out.t second"],
        &["second"],
    ),
    (&["timer t 1000 emit out.t first", "cancel t"], &[]),
    (
        &[
            "timer t 1000 emit out.t first",
            "cancel t",
            "timer t 2000 emit out.t second",
        ],
        &["second"],
    ),
];

/// Rule 5. A timer is set, replaced and cancelled, all within one group or each
/// in a group of its own: only what is live at the end fires, and once.
#[tokio::test]
async fn what_is_live_in_the_end_fires_once() {
    for (programs, fires) in STORIES {
        for in_one_group in [true, false] {
            let world = World::new().await;
            let mut host = None;
            if !in_one_group {
                host = Some(world.host("a", &[probe(1, "")]).await);
            }
            let mut last = 0;
            for program in programs {
                last = world.tell("k", program).await;
                if !in_one_group {
                    world.handled("k", 1, last).await;
                }
            }
            let host = match host {
                Some(host) => host,
                None => world.host("a", &[probe(1, "")]).await,
            };
            world.handled("k", 1, last).await;
            let groups = host.sent(Kind::Commit).len();
            assert_eq!(
                groups,
                if in_one_group { 1 } else { programs.len() },
                "{programs:?}"
            );

            let scheduled = world.ledger("$WEIR.L.t.>").await.into_iter();
            let scheduled = scheduled.filter(|timer| !timer.data.is_empty()).count();
            assert_eq!(scheduled, fires.len(), "{programs:?}: nothing else is scheduled");

            world.pass(10 * SECOND);
            let end = world.tell("k", "emit out.t end").await;
            world.handled("k", 1, end).await;
            // Fires and events are two sources, in no order between them.
            let mut expected: Vec<&str> = fires.to_vec();
            eventually("what fires has fired", async || {
                world.texts("out.t").await.len() > expected.len()
            })
            .await;
            expected.push("end");
            let mut found = world.texts("out.t").await;
            found.sort_by_key(|text| text == "end");
            assert_eq!(found, expected, "{programs:?} in one group: {in_one_group}");
            let live = world.ledger("$WEIR.L.t.>").await;
            assert_eq!(live.len(), 0, "no schedule is left: {live:?}");
        }
    }
}

/// Rule 5. A timer fires while the commit that replaces it is under way: what
/// fired is of a generation that is not live any more, and is nothing.
#[tokio::test]
async fn a_timer_that_fires_while_it_is_replaced_is_nothing() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let set = world.tell("k", "timer t 1000 emit out.t first").await;
    world.handled("k", 1, set).await;
    host.next(Kind::Commit, Fate::Hold);
    let replaced = world.tell("k", "timer t 9000 emit out.t second").await;
    eventually("the replacement is under way", async || {
        host.sent(Kind::Commit).len() == 2
    })
    .await;

    world.pass(2 * SECOND);
    assert_eq!(world.ledger("$WEIR.L.f.>").await.len(), 1, "the old one fired");
    host.release();
    world.handled("k", 1, replaced).await;
    world.pass(10 * SECOND);

    world.emitted("out.t", &["second"]).await;
    eventually("both fires are consumed", async || {
        let fired = world.ledger("$WEIR.L.f.>").await.last().map_or(0, |f| f.sequence);
        let records = world.records("probe", 0).await;
        records
            .last()
            .is_some_and(|(_, r)| r.positions["$WEIR"].sequence >= fired)
    })
    .await;
    world.emitted("out.t", &["second"]).await;
}

/// Rule 5. A timer fires while no host runs, and hosts crash before and after it
/// was handled: it is handled once.
#[tokio::test]
async fn a_timer_fires_once_across_restarts() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    let set = world.tell("k", "timer t 1000 emit out.t fired").await;
    world.handled("k", 1, set).await;
    drop(host);
    world.pass(2 * SECOND);

    let host = world.host("b", &[probe(1, "")]).await;
    host.next(Kind::Commit, Fate::LoseReply);
    world.emitted("out.t", &["fired"]).await;
    drop(host);
    let _host = world.host("c", &[probe(1, "")]).await;
    let after = world.tell("k", "emit out.t after").await;
    world.handled("k", 1, after).await;
    world.emitted("out.t", &["fired", "after"]).await;
}

/// The server counts times in 64 bits with a sign: to it, what is beyond them is
/// long past, and such a timer would fire at once. It is the handler's error.
#[tokio::test]
async fn a_timer_beyond_the_servers_range_is_a_handlers_error() {
    let world = World::new().await;
    let _host = world.host("a", &[probe(1, "")]).await;
    for due in [1u64 << 63, u64::MAX] {
        let event = world
            .tell("k", &format!("timer-at far {due} emit out.t fired"))
            .await;
        world.handled("k", 1, event).await;
        let letters = world.texts(&world.names("probe").dead_letters()).await;
        let letter = letters.last().expect("a dead letter");
        let names_it = letter.contains("violation") && letter.contains(&format!("is due at {due}"));
        assert!(names_it, "{letter}");
    }
    let event = world
        .tell(
            "k",
            &format!("timer-at far {} emit out.t fired", (1u64 << 63) - 1),
        )
        .await;
    world.handled("k", 1, event).await;
    assert_eq!(
        world.ledger("$WEIR.L.t.>").await.len(),
        1,
        "the last moment that is allowed"
    );
    world.emitted("out.t", &[]).await;
}
