//! Timers are events of their key: each fires once, in the key's order, unless it
//! was replaced or cancelled. The moments below are inputs, not expectations: no
//! test asserts how late a timer may be.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use weir_tests::bus::Read;
use weir_tests::system::{LEDGER, System};
use weir_tests::{PATIENCE, until};

fn texts(messages: &[Read]) -> Vec<String> {
    messages.iter().map(Read::text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_fires_once_in_the_order_of_its_key() -> Result<()> {
    let system = System::start().await?;
    system.probe()?;
    let _host = system.launch.start().await?;

    // Event, timer, event: each adds to the same cell, and shows what it then holds.
    let count = "add n 1; show n out.order";
    system
        .tell(
            "k",
            &format!("add n 1\nshow n out.order\ntimer t 200 {count}; event out.timer"),
        )
        .await?;
    system.emitted("out.order", 2).await?;
    system.tell("k", "add n 1\nshow n out.order").await?;
    let order = system.emitted("out.order", 3).await?;
    ensure!(texts(&order) == ["1", "2", "3"], "{:?}", texts(&order));

    let timer = system.emitted("out.timer", 1).await?[0].text();
    ensure!(
        timer.contains("key k\n") && timer.contains("timer t\n"),
        "{timer}"
    );

    // A later timer of the same key fires behind anything that was to come twice.
    system.tell("k", "timer last 200 emit out.last x").await?;
    system.emitted("out.last", 1).await?;
    ensure!(
        system.bus.count(LEDGER, "out.order").await? == 3,
        "the timer fired again"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_or_cancelled_timer_does_not_fire() -> Result<()> {
    let system = System::start().await?;
    system.probe()?;
    let _host = system.launch.start().await?;

    system
        .tell("k", "timer r 1500 emit out.replaced x\ntimer c 1500 emit out.cancelled x\ntimer o 1500 emit out.once a")
        .await?;
    system
        .tell("k", "timer r 60000 emit out.replaced y\ncancel c")
        .await?;
    // Replaced within one event: only the last one counts.
    system
        .tell("k", "timer o 100 emit out.once b\ntimer o 1600 emit out.once c")
        .await?;
    // Due after all of them, so that what was wrongly kept has fired before.
    system.tell("k", "timer last 3000 emit out.last x").await?;
    system.emitted("out.last", 1).await?;
    ensure!(
        system.bus.count(LEDGER, "out.replaced").await? == 0,
        "a replaced timer fired"
    );
    ensure!(
        system.bus.count(LEDGER, "out.cancelled").await? == 0,
        "a cancelled timer fired"
    );
    let once = system.bus.read(LEDGER, "out.once").await?;
    ensure!(texts(&once) == ["c"], "{:?}", texts(&once));
    Ok(())
}

/// The race (PROTOCOL rule 5): the server stores a timer that fires, then purges
/// the schedule's subject. A replacement stored on that subject in between would
/// be destroyed. Here replacements come while the old timers fire: whether the
/// old one fires is open, but the new one must, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_replaced_while_it_fires_is_not_lost() -> Result<()> {
    const KEYS: usize = 400;
    let system = System::start().await?;
    system.probe()?;
    let _host = system.launch.start().await?;

    for key in 0..KEYS {
        // Due around the time at which the second loop comes by.
        let due = 400 + (key * 7) % 800;
        system
            .tell(&format!("k{key}"), &format!("timer t {due} emit out.old.{key} x"))
            .await?;
    }
    for key in 0..KEYS {
        system
            .tell(&format!("k{key}"), &format!("timer t 500 emit out.new.{key} x"))
            .await?;
    }
    system.emitted("out.new.*", KEYS).await?;
    system.tell("k0", "timer last 1000 emit out.last x").await?;
    system.emitted("out.last", 1).await?;
    for (filter, least) in [("out.new.*", 1), ("out.old.*", 0)] {
        let mut fired: BTreeMap<String, usize> = BTreeMap::new();
        for message in system.bus.read(LEDGER, filter).await? {
            *fired.entry(message.subject).or_default() += 1;
        }
        println!("{} of {KEYS} fired on {filter}", fired.len());
        ensure!(
            fired.len() >= least * KEYS,
            "timers were lost: {} of {KEYS}",
            fired.len()
        );
        ensure!(fired.values().all(|n| *n == 1), "timers fired twice: {fired:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_survives_the_death_of_its_host() -> Result<()> {
    let mut system = System::start().await?;
    system.probe()?;
    let host = system.launch.start().await?;
    system
        .tell("k", "timer t 3000 emit out.fired x\nemit out.set x")
        .await?;
    system.emitted("out.set", 1).await?;
    host.kill().await?;
    system.nats.kill();
    system.nats.restart()?;

    // It fires into the ledger with no host there; the next one finds it.
    until("the server fires the timer", PATIENCE, async || {
        let fired = system.bus.count(LEDGER, "$WEIR.LEDGER.f.probe.>").await?;
        ensure!(fired == 1, "there are {fired}");
        Ok(())
    })
    .await?;
    let host = system.launch.start().await?;
    system.emitted("out.fired", 1).await?;

    // Nor does it fire again for a third.
    host.kill().await?;
    let _host = system.launch.start().await?;
    system.tell("k", "emit out.last x").await?;
    system.emitted("out.last", 1).await?;
    ensure!(
        system.bus.count(LEDGER, "out.fired").await? == 1,
        "it fired twice"
    );
    Ok(())
}
