//! Chains of events: what one is an effect of in the end, and loops.

use std::time::Duration;

use weir_tests::inproc::*;
use weir_tests::plugins::repository;

/// A handler that feeds itself is cut off, and every event of the chain says where it began.
#[tokio::test]
async fn a_loop_ends_by_itself() {
    let world = World::new().await;
    let manifest = format!(
        "partitions = 1\n[[source]]\nstream = \"{LEDGER}\"\nsubjects = [\"out.*\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.*\"]\n[limits]\nhops = 5\n"
    );
    assert!(repository().join("tests/fixtures/guests/relay").is_dir());
    let _host = world
        .host("a", &[handler("relay", "tests/fixtures/guests/relay", &manifest)])
        .await;
    let first = world.publish(LEDGER, "out.k", Vec::new(), "x").await;
    eventually("a dead letter", async || {
        world.texts("$WEIR.L.d.*.*.*.*.m").await.len() == 1
    })
    .await;
    let letter = &world.texts("$WEIR.L.d.*.*.*.*.m").await[0];
    assert!(letter.contains("has passed 5 handlers"), "{letter}");
    let chain = world.ledger("out.k").await;
    let said: Vec<(Option<&str>, Option<&str>)> = chain
        .iter()
        .map(|event| (event.header("Weir-Correlation"), event.header("Weir-Hops")))
        .collect();
    let begin = format!("{LEDGER}:{first}");
    let begin = Some(begin.as_str());
    assert_eq!(
        said,
        [
            (None, None),
            (begin, Some("1")),
            (begin, Some("2")),
            (begin, Some("3")),
            (begin, Some("4")),
            (begin, Some("5")),
        ]
    );
}

/// A timer belongs to the chain of the event that set it, and is no hop.
#[tokio::test]
async fn timers_carry_their_chain() {
    let world = World::new().await;
    let _host = world.host("a", &[probe(1, "")]).await;
    let headers = vec![
        ("Weir-Correlation".to_owned(), "order 9".to_owned()),
        ("Weir-Hops".to_owned(), "3".to_owned()),
    ];
    let program = "timer t 1000 timer u 1000 emit out.t late";
    let event = world.publish(SOURCE, "events.k", headers, program).await;
    world.handled("k", 1, event).await;
    for _ in 0..2 {
        let timers = async || world.ledger("$WEIR.L.t.>").await.len();
        eventually("a timer is set", async || timers().await == 1).await;
        world.pass(Duration::from_secs(2));
        eventually("it has fired", async || {
            timers().await == 0 || !world.texts("out.t").await.is_empty()
        })
        .await;
    }
    world.emitted("out.t", &["late"]).await;
    let late = &world.ledger("out.t").await[0];
    assert_eq!(late.header("Weir-Correlation"), Some("order 9"));
    assert_eq!(late.header("Weir-Hops"), Some("4"));
}
