//! Events that repeat others, by a business id.

use std::time::Duration;

use weir::dead_letters::DeadLetters;
use weir_tests::inproc::*;

const WINDOW: Duration = Duration::from_secs(80);

fn remembering() -> weir::deployment::plugins::Deployed {
    probe(1, "[dedupe]\nheader = \"Order-Id\"\nwindow = \"80s\"\n")
}

impl Said for World {
    async fn say(&self, key: &str, id: &str, program: &str) -> u64 {
        let headers = vec![("Order-Id".to_owned(), id.to_owned())];
        self.publish(SOURCE, &format!("events.{key}"), headers, program.to_owned())
            .await
    }
}

trait Said {
    async fn say(&self, key: &str, id: &str, program: &str) -> u64;
}

/// One id counts once within the window, whatever comes between: other events, a
/// checkpoint, another host; and once more after it.
#[tokio::test]
async fn an_id_counts_once_within_its_window() {
    let world = World::new().await;
    let host = HostOptions::named("a")
        .tiny_cache()
        .start(&world, &[remembering()])
        .await;
    // In one group, and in one after it.
    world.say("k", "1", "add n 1\nemit out.k first").await;
    world.say("k", "1", "add n 1\nemit out.k again").await;
    let event = world.say("k", "2", "add n 1\nemit out.k other").await;
    world.handled("k", 1, event).await;
    world.say("k", "1", "add n 1\nemit out.k again").await;
    // From the bucket: what was checkpointed is evicted from so small a cache.
    for round in 0..3 {
        let event = world
            .say(
                "big",
                &format!("big {round}"),
                &format!("fill big{round} 4 60000"),
            )
            .await;
        world.handled("big", 1, event).await;
    }
    let meta = world.names("probe").meta(0);
    eventually("a checkpoint", async || {
        let meta = world.bucket(&meta).await.expect("a meta");
        String::from_utf8_lossy(&meta.data).contains("\"checkpointed\":{")
    })
    .await;
    world.say("k", "1", "add n 1\nemit out.k again").await;
    host.drain().await;

    let _host = world.host("b", &[remembering()]).await;
    world.say("k", "1", "add n 1\nemit out.k again").await;
    world.pass(WINDOW - Duration::from_nanos(world.now() % 1_000_000_000 + 1));
    let event = world.say("k", "2", "add n 1\nemit out.k again").await;
    world.handled("k", 1, event).await;
    assert_eq!(world.cells("probe", "k").await["n"], "2");
    world.pass(2 * WINDOW);
    world.say("k", "1", "add n 1\nemit out.k later").await;
    world.emitted("out.k", &["first", "other", "later"]).await;
    let keys = weir::state::query::keys(&world.log, &world.names("probe"), "", false)
        .await
        .expect("keys");
    assert_eq!(
        keys.into_iter().collect::<Vec<_>>(),
        ["big", "k"],
        "ids are hidden"
    );
}

/// A dead letter is what became of its id: a repetition is ignored, redriving it is not.
#[tokio::test]
async fn a_dead_letter_is_redriven_and_not_repeated() {
    let world = World::new().await;
    let _host = world.host("a", &[remembering()]).await;
    let event = world.say("k", "1", "reject no\nemit out.k handled").await;
    let again = world.say("k", "1", "emit out.k repeated").await;
    world.handled("k", 1, again).await;
    world.emitted("out.k", &[]).await;
    let names = world.names("probe");
    let letters = DeadLetters::new(&world.log, &names);
    let letter = letters
        .find(&format!("{SOURCE}:{event}"))
        .await
        .expect("a letter");
    letters.redrive(&letter).await.expect("redriven");
    // It is rejected again, which shows that it was handled.
    eventually("handled once more", async || {
        let letter = letters.find(&format!("{SOURCE}:{event}")).await;
        letter.is_ok_and(|found| found.letter.attempts == 1)
    })
    .await;
}

/// Without an id, or with one that is too long, an event is a dead letter.
#[tokio::test]
async fn an_event_without_an_id_is_a_dead_letter() {
    let world = World::new().await;
    let _host = world.host("a", &[remembering()]).await;
    world.tell("k", "emit out.k never").await;
    world.say("k", &"x".repeat(257), "emit out.k never").await;
    let event = world.say("k", "1", "emit out.k on").await;
    world.handled("k", 1, event).await;
    world.emitted("out.k", &["on"]).await;
    let reasons = world.texts("$WEIR.L.d.*.*.*.*.m").await;
    assert!(reasons[0].contains("no header `Order-Id`"), "{}", reasons[0]);
    assert!(reasons[1].contains("257 bytes; 1 to 256"), "{}", reasons[1]);
}

/// Ids that are past their window are removed from the bucket.
#[tokio::test]
async fn ids_are_forgotten() {
    let world = World::new().await;
    let _host = HostOptions::named("a")
        .tiny_cache()
        .start(&world, &[remembering()])
        .await;
    let ids = || async {
        let bucket = weir::model::subjects::bucket_stream(LEDGER);
        let all = weir::log::Log::scan(&world.log, &bucket, "$KV.weir_L.probe.1.0.=00id=3A1.*", 1, 9).await;
        all.expect("the bucket is readable").len()
    };
    world.say("k", "1", "emit out.k 1").await;
    let checkpoint = async |n: u64| {
        world.say("k", &format!("big {n}"), "fill x 1 140000").await;
        world.say("k", &format!("end {n}"), "delete x0").await;
    };
    checkpoint(0).await;
    eventually("it is in the bucket", async || ids().await == 1).await;
    world.pass(3 * WINDOW);
    checkpoint(1).await;
    checkpoint(2).await;
    eventually("it is gone", async || ids().await == 0).await;
}
