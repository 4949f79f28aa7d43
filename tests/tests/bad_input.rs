//! The table "Limits and bad input" of the contract, row by row, each with the
//! message that people get to read.

use anyhow::{Result, ensure};
use weir_tests::bus::Outgoing;
use weir_tests::nats::NatsServer;
use weir_tests::plugins::PROBE;
use weir_tests::system::{Flights, LEDGER, PROBE_MANIFEST, System};
use weir_tests::{PATIENCE, check, seed, until};

/// Like [`PROBE_MANIFEST`], with the key in a header.
const KEYED_MANIFEST: &str = r#"
partitions = 2

[[source]]
stream = "EVENTS"
subjects = ["events.>"]

[key]
header = "Customer-Id"

[emit]
subjects = ["out.>"]
"#;

/// Row: an event without the key its manifest names, or with one over 256 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn events_without_a_key_are_dead_letters_and_the_handler_is_not_called() -> Result<()> {
    let system = System::start().await?;
    system.plugins.put("keyed", "1.0.0", PROBE, KEYED_MANIFEST)?;
    let _host = system.launch.start().await?;

    let event = |key: Option<String>| {
        let event = Outgoing::new("events.x", "emit out.called yes");
        match key {
            Some(key) => event.header("Customer-Id", key),
            None => event,
        }
    };
    for (key, reason) in [
        (None, "the event has no header `Customer-Id`"),
        (
            Some("k".repeat(257)),
            "the key has 257 bytes, at most 256 are allowed",
        ),
    ] {
        let sequence = system.bus.publish(event(key)).await?;
        let letter = system.dead_letter("keyed", &format!("EVENTS:{sequence}")).await?;
        ensure!(
            letter.kind == "input" && letter.reason.contains(reason),
            "{letter:?}"
        );
        ensure!(letter.attempts == 0, "the handler was called: {letter:?}");
    }
    ensure!(system.bus.count(LEDGER, "out.called").await? == 0);

    // A key of 256 bytes is one.
    system.bus.publish(event(Some("k".repeat(256)))).await?;
    system.emitted("out.called", 1).await?;
    Ok(())
}

/// What the probe is told, and what its dead letter must say: kind, and a part of the reason.
type Case = (&'static str, &'static str, &'static str);

/// Row: a handler that traps, loops, allocates or recurses without end, or floods
/// the log. Rows: effects over a limit, and emits to where it may not.
const FAULTS: &[Case] = &[
    ("trap", "trap", "unreachable"),
    ("panic told to", "trap", "told to"),
    ("spin", "timeout", "500 ms (time_ms in [limits] of handler.toml)"),
    (
        "hoard",
        "memory",
        "16 MiB of memory (memory_mib in [limits] of handler.toml)",
    ),
    ("recurse", "trap", "recursed too deep"),
    (
        "log-flood",
        "violation",
        "bytes logged by one invocation (log_bytes in [limits]",
    ),
    ("reject no such customer", "reject", "no such customer"),
    ("retry not yet", "retry", "not yet"),
    (
        "emit-many out.many 901",
        "violation",
        "more than 900 emitted events",
    ),
    (
        "emit-bytes out.big 600000",
        "violation",
        "the handler's limit is 524288 (effects_bytes in [limits] of handler.toml)",
    ),
    (
        "emit elsewhere.x hi",
        "violation",
        r#"emit to "elsewhere.x": not among the subjects"#,
    ),
    (
        "emit out..x hi",
        "violation",
        r#"emit to "out..x": it has an empty token"#,
    ),
    ("emit out.* hi", "violation", r#"emit to "out.*": wildcards"#),
    (
        "emit $JS.API.STREAM.DELETE.FLIGHTS hi",
        "violation",
        r#"emit to "$JS.API.STREAM.DELETE.FLIGHTS": subjects that begin with $"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn faults_fail_their_event_and_nothing_else() -> Result<()> {
    let mut flights = Flights::new(seed(), 10);
    let system = System::start().await?;
    system.probe()?;
    system.rotations()?;
    let host = system.launch.start().await?;

    for (case, (program, kind, reason)) in FAULTS.iter().enumerate() {
        // What it did before it failed must not be seen either.
        let bad = system
            .tell(
                "k",
                &format!("set before {case}\nemit out.before {case}\n{program}"),
            )
            .await?;
        let good = system.tell("k", &format!("emit out.after {case}")).await?;
        let letter = system.dead_letter("probe", &bad).await?;
        ensure!(
            letter.kind == *kind && letter.reason.contains(reason),
            "{program} ended as {letter:?}"
        );
        let attempts = if matches!(*kind, "violation" | "reject") {
            1
        } else {
            2
        };
        ensure!(
            letter.attempts == attempts,
            "{program} was tried otherwise: {letter:?}"
        );
        ensure!(
            *kind != "trap" || letter.backtrace.is_some(),
            "{program} has no backtrace: {letter:?}"
        );

        // The partition goes on, and so do other handlers.
        let after = system.emitted("out.after", case + 1).await?;
        ensure!(after[case].text() == case.to_string(), "{good} came to {after:?}");
        flights.publish(&system.bus, 20).await?;
        system.all_counted(&flights).await?;
    }
    ensure!(
        system.bus.count(LEDGER, "out.before").await? == 0,
        "effects of failures were committed"
    );
    // No state at all: every one of its events that wrote a cell failed.
    system.weir.run(&["state", "get", "probe", "k"]).await?.exits(1)?;
    ensure!(host.get("/healthz").await?.0 == 200);

    // The limits are limits, not one less.
    system.tell("k", "emit-many out.many 900").await?;
    system.emitted("out.many", 900).await?;
    ensure!(system.weir.dead_letters("probe").await?.len() == FAULTS.len());
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// Row: a cell or an event over the server's `max_payload`.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_would_not_take_fails_its_event_with_the_sizes() -> Result<()> {
    let system = System::start().await?;
    let manifest = PROBE_MANIFEST.replace("effects_bytes = 524288", "effects_bytes = 8388608");
    system.plugins.put("probe", "1.0.0", PROBE, &manifest)?;
    let _host = system.launch.start().await?;

    for (program, reason) in [
        (
            "emit-bytes out.big 1100000",
            r#"emit to "out.big": 1100000 bytes"#,
        ),
        ("fill big 1 1100000", r#""big0": 1100000 bytes"#),
        ("fill part 4 300000", "bytes together"),
    ] {
        let id = system.tell("k", program).await?;
        let letter = system.dead_letter("probe", &id).await?;
        ensure!(
            letter.kind == "violation"
                && letter.reason.contains(reason)
                && letter.reason.contains("max_payload"),
            "{program} ended as {letter:?}"
        );
    }
    system
        .tell("k", "emit-bytes out.big 900000\nfill part 3 300000")
        .await?;
    ensure!(system.emitted("out.big", 1).await?[0].data.len() == 900_000);
    ensure!(system.weir.cells("probe", "k").await?.len() == 3);
    Ok(())
}

/// A component that imports `foo:bar/baz`, and one that exports nothing
/// (component model binary format, version 0x0d).
const IMPORTS_UNKNOWN: &[u8] = b"\0asm\x0d\0\x01\0\x07\x03\x01\x42\0\x0a\x10\x01\0\x0bfoo:bar/baz\x05\0";
const EXPORTS_NOTHING: &[u8] = b"\0asm\x0d\0\x01\0";
/// A core module with nothing in it.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Row: a file that is not Wasm, imports something unknown, or exports no `handle`.
#[tokio::test(flavor = "multi_thread")]
async fn bad_components_are_refused_and_the_others_run() -> Result<()> {
    let mut flights = Flights::new(seed(), 10);
    let system = System::start().await?;
    system.rotations()?;
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty", b"", "the file is empty"),
        ("script", b"#!/bin/sh\necho hi\n", "not WebAssembly"),
        ("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0", "not WebAssembly"),
        ("imports", IMPORTS_UNKNOWN, "imports foo:bar/baz"),
        ("exports", EXPORTS_NOTHING, "exports no function `handle`"),
        ("core", CORE_MODULE, "without a component-type section"),
    ];
    for (name, bytes, _) in cases {
        system.plugins.put_bytes(name, "1.0.0", bytes, PROBE_MANIFEST)?;
    }
    let host = system.launch.start().await?;
    for (name, _, reason) in cases {
        host.says(reason).await?;
        let line = host
            .stderr()
            .lines()
            .any(|line| line.contains(reason) && line.contains(name));
        ensure!(line, "no line says both {name:?} and {reason:?}");
    }
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// Row: NATS down at start, or lost later.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_waits_for_nats_and_goes_on_where_it_was() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let mut system = System::start().await?;
    system.rotations()?;
    flights.publish(&system.bus, 500).await?;
    system.nats.kill();

    let host = system.launch.clone().known_port()?.spawn()?;
    host.readyz(503, "NATS").await?;
    host.says("NATS").await?;
    ensure!(host.get("/healthz").await?.0 == 200, "waiting is not being ill");
    system.nats.restart()?;
    host.ready().await?;
    host.readyz(200, "").await?;
    system.all_counted(&flights).await?;

    system.nats.kill();
    host.readyz(503, "NATS").await?;
    system.nats.restart()?;
    flights.publish(&system.bus, 500).await?;
    system.all_counted(&flights).await?;
    host.readyz(200, "").await?;
    // The restarted server has forgotten the bucket in which hosts say what they do.
    until("`weir handlers` shows it again", PATIENCE, async || {
        system.weir.handler("rotations").await.map(drop)
    })
    .await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// An account with little storage, which is what a full ledger is: a ledger has no
/// limit of its own, for that would discard records (`discard new` and schedules
/// exclude each other in the server).
const SMALL_ACCOUNT: &str = r#"
accounts { SMALL { jetstream { max_file: 16MB }, users: [ { user: small, password: small } ] } }
no_auth_user: small
"#;

/// Row: ledger full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_ledger_stops_commits_until_there_is_room() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let system = System::start_on(NatsServer::start_with(SMALL_ACCOUNT)?).await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;

    // Events that it finds when there is no room any more.
    host.stop().await?;
    flights.publish(&system.bus, 500).await?;
    system.bus.source("FILLER", "filler").await?;
    for bytes in [1_000_000, 10_000, 100] {
        while system
            .bus
            .publish(Outgoing::new("filler", vec![b'x'; bytes]))
            .await
            .is_ok()
        {}
    }
    host.cont().await?;
    says_what_to_do(&system, &host, "insufficient").await?;

    system.bus.delete("FILLER").await?;
    system.all_counted(&flights).await?;
    host.readyz(200, "").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// Row: ledger changed by someone: it does not take the emitted subjects any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_changed_stops_commits_until_it_is_mended() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;

    let before = system.bus.settings(LEDGER).await?["subjects"].clone();
    let without = before
        .as_array()
        .into_iter()
        .flatten()
        .filter(|s| *s != "rotations.>");
    let without: Vec<_> = without.cloned().collect();
    system
        .bus
        .change(LEDGER, |settings| settings["subjects"] = without.into())
        .await?;
    flights.publish(&system.bus, 500).await?;
    says_what_to_do(&system, &host, "does not have subject rotations.").await?;

    system
        .bus
        .change(LEDGER, |settings| settings["subjects"] = before)
        .await?;
    system.all_counted(&flights).await?;
    host.readyz(200, "").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// Row: ledger read-only. Sealing cannot be undone: what can be shown is that the
/// host says so, and that its events stay where they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_ledger_stops_commits() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;

    system
        .bus
        .change(LEDGER, |settings| settings["sealed"] = true.into())
        .await?;
    flights.publish(&system.bus, 500).await?;
    says_what_to_do(&system, &host, "sealed").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    ensure!(counts.values().sum::<u64>() == 200, "{counts:?}");
    Ok(())
}

/// Row: ledger deleted. A host that made a new one would begin at the beginning, and
/// count everything a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_ledger_stops_commits_and_is_not_made_again() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;

    system.bus.delete(LEDGER).await?;
    flights.publish(&system.bus, 500).await?;
    says_what_to_do(&system, &host, "does not exist").await?;
    ensure!(
        system.bus.settings(LEDGER).await.is_err(),
        "the host made a new ledger"
    );
    Ok(())
}

/// PROTOCOL rule 19: the host's user loses the right to publish what a handler emits.
/// A denied publish has no answer, only an error beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_was_lost_stops_commits_until_it_is_back() -> Result<()> {
    let users = |denied: &str| {
        format!(
            "no_auth_user: admin\n\
             authorization {{ users [ {{ user: admin, password: p }}, \
             {{ user: weir, password: p, permissions: {{ publish: {{ deny: {denied:?} }} }} }} ] }}"
        )
    };
    let mut flights = Flights::new(seed(), 20);
    let mut system = System::start_on(NatsServer::start_with(&users("nothing"))?).await?;
    system.rotations()?;
    let as_user = system.nats.url().replace("://", "://weir:p@");
    let host = system.launch.clone().through(&as_user).start().await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;

    system.nats.reload(&users("rotations.>")).await?;
    flights.publish(&system.bus, 500).await?;
    says_what_to_do(&system, &host, "rotations.").await?;

    system.nats.reload(&users("nothing")).await?;
    system.all_counted(&flights).await?;
    host.readyz(200, "").await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

/// The ledger, what is wrong with it and what to do are on `/readyz`, in `weir
/// handlers` and in the log.
async fn says_what_to_do(system: &System, host: &weir_tests::host::Host, wrong: &str) -> Result<()> {
    const TO_DO: &str = "and the partition goes on by itself";
    let said = |text: &str| -> Result<()> {
        for part in [LEDGER, wrong, TO_DO] {
            ensure!(text.contains(part), "no {part:?} in {text}");
        }
        Ok(())
    };
    host.says(TO_DO).await?;
    let line = host.stderr().lines().any(|line| said(line).is_ok());
    ensure!(line, "no line of the log says it: {}", host.stderr());
    until("/readyz and `weir handlers` say it", PATIENCE, async || {
        let (status, body) = host.get("/readyz").await?;
        ensure!(status == 503, "{status}");
        said(&body)?;
        said(&system.weir.handler("rotations").await?.to_string())
    })
    .await
}
