//! What a handler will not take is kept, can be looked at, and comes back.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weir_tests::bus::Outgoing;
use weir_tests::plugins::PROBE;
use weir_tests::system::{LEDGER, PROBE_MANIFEST, System};
use weir_tests::{PATIENCE, check, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_event_keeps_its_id_and_counts_once() -> Result<()> {
    let system = System::start().await?;
    system.probe()?;
    let _host = system.launch.start().await?;
    let weir = &system.weir;

    let id = system
        .tell("k", "need customer\nadd n 1\nevent out.event")
        .await?;
    let letter = system.dead_letter("probe", &id).await?;
    ensure!(
        letter.kind == "retry" && letter.reason == "no cell customer" && letter.attempts == 2,
        "{letter:?}"
    );
    ensure!(letter.subject == "events.k" && letter.key == "k", "{letter:?}");

    let shown: Value = weir.json(&["dead-letters", "show", "probe", &id]).await?;
    let shown = shown.to_string();
    ensure!(
        shown.contains("no cell customer") && shown.contains("need customer"),
        "{shown}"
    );

    system.tell("k", "set customer Ada\nemit out.ready x").await?;
    system.emitted("out.ready", 1).await?;
    let redriven: Value = weir.json(&["dead-letters", "redrive", "probe", &id]).await?;
    ensure!(
        redriven == json!({ "redriven": [id], "failed": [] }),
        "{redriven}"
    );
    let event = system.emitted("out.event", 1).await?[0].text();
    ensure!(event.contains(&format!("id {id}\n")), "it came back as {event}");

    // It is gone from the list, and cannot be redriven again.
    ensure!(weir.dead_letters("probe").await?.is_empty());
    let again = weir
        .run(&["dead-letters", "redrive", "probe", &id])
        .await?
        .exits(1)?;
    ensure!(
        again.stderr.contains(&format!("no dead letter {id}")),
        "{again:?}"
    );
    system.tell("k", "emit out.last x").await?;
    system.emitted("out.last", 1).await?;
    ensure!(system.bus.count(LEDGER, "out.event").await? == 1);
    ensure!(weir.cells("probe", "k").await?["n"] == "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_event_that_fails_again_is_a_dead_letter_again() -> Result<()> {
    let system = System::start().await?;
    system.probe()?;
    let _host = system.launch.start().await?;
    let id = system.tell("k", "reject never").await?;
    system.dead_letter("probe", &id).await?;
    system
        .weir
        .run(&["dead-letters", "redrive", "probe", &id])
        .await?
        .exits(0)?;
    // Behind it in the same partition: once that is handled, so is the redriven one.
    until("it is back in the list", PATIENCE, async || {
        let letters = system.weir.dead_letters("probe").await?;
        let handler = system.weir.handler("probe").await?;
        ensure!(
            letters.len() == 1 && handler["dead_letters"] == 2,
            "{letters:?} {handler}"
        );
        ensure!(letters[0].id == id, "{letters:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_ones_are_gone_and_the_others_stay() -> Result<()> {
    let system = System::start().await?;
    system.probe()?;
    let _host = system.launch.start().await?;
    let weir = &system.weir;
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = system.tell(&format!("k{n}"), &format!("reject {n}")).await?;
        system.dead_letter("probe", &id).await?;
        ids.push(id);
    }
    weir.run(&["dead-letters", "drop", "probe", &ids[0], &ids[2]])
        .await?
        .exits(0)?;
    let left = weir.dead_letters("probe").await?;
    ensure!(left.len() == 1 && left[0].id == ids[1], "{left:?}");

    let unknown = weir
        .run(&["dead-letters", "show", "probe", "EVENTS:999"])
        .await?
        .exits(1)?;
    ensure!(unknown.stderr.contains("EVENTS:999"), "{unknown:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_broken_version_are_redriven_into_the_mended_one() -> Result<()> {
    let system = System::start().await?;
    let broken = PROBE_MANIFEST.replace("out.>", "out.nothing");
    system.plugins.put("probe", "1.0.0", PROBE, &broken)?;
    let host = system.launch.start().await?;
    let id = system.tell("k", "emit out.done x").await?;
    let letter = system.dead_letter("probe", &id).await?;
    ensure!(
        letter.handler_version == "1.0.0" && letter.reason.contains("add it to [emit] in handler.toml"),
        "{letter:?}"
    );
    ensure!(host.term().await? == Some(0));

    system.plugins.put("probe", "1.0.1", PROBE, PROBE_MANIFEST)?;
    let _host = system.launch.start().await?;
    system
        .weir
        .run(&["dead-letters", "redrive", "probe", &id])
        .await?
        .exits(0)?;
    system.emitted("out.done", 1).await?;
    ensure!(system.weir.dead_letters("probe").await?.is_empty());
    Ok(())
}

/// A rejected event leaves no hole in the numbers of its key, and takes the next
/// free number once it is redriven.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_rejected_was_never_counted() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let _host = system.launch.start().await?;
    let flight = || Outgoing::new("flights.N1", "{}");
    system.bus.publish(flight()).await?;
    let bad = system.bus.publish(flight().header("Weir-Test", "reject")).await?;
    system.bus.publish(flight()).await?;
    let letter = system.dead_letter("rotations", &format!("FLIGHTS:{bad}")).await?;
    ensure!(
        letter.headers.iter().any(|(name, _)| name == "Weir-Test"),
        "{letter:?}"
    );
    system.emitted("rotations.N1", 2).await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    ensure!(counts["N1"] == 2, "{counts:?}");
    Ok(())
}
