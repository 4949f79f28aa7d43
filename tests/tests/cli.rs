//! The `weir` command, as a script or a person uses it: data on stdout, the rest on
//! stderr; 0 done, 1 failed, 2 wrong use.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::bus::{Bus, Outgoing};
use weir_tests::host::{self, Weir, parent, weir};
use weir_tests::plugins::{Plugins, ROTATIONS, component};
use weir_tests::system::{Flights, LEDGER, ROTATIONS_MANIFEST, System};
use weir_tests::{PATIENCE, seed, until};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_2_and_says_what_would_be_right() -> Result<()> {
    for args in [
        &["handlers", "--bogus"][..],
        &["no-such-command"],
        &["state", "get"],
        &["inspect"],
        &["dead-letters", "show", "probe"],
        &["run", "--http", "not an address"],
    ] {
        let output = weir(args).await?.exits(2)?;
        ensure!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}: {output:?}"
        );
    }
    let help = weir(&["--help"]).await?.exits(0)?;
    for command in [
        "up",
        "run",
        "handlers",
        "state",
        "dead-letters",
        "inspect",
        "check",
        "adopt",
        "new",
        "test",
    ] {
        ensure!(help.stdout.contains(command), "--help does not name {command}");
    }
    weir(&["--version"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_says_whether_a_host_would_take_a_file() -> Result<()> {
    let good = component(ROTATIONS)?;
    let good = good.to_str().context("a path that is text")?;
    let output = weir(&["inspect", good, "--json"]).await?.exits(0)?;
    let shown: Value = serde_json::from_str(&output.stdout)?;
    ensure!(shown.to_string().contains("weir:handler"), "{shown}");
    weir(&["inspect", good]).await?.exits(0)?;

    let folder = TempDir::new()?;
    let bad = folder.path().join("bad.wasm");
    fs::write(&bad, "#!/bin/sh\n")?;
    let bad = bad.to_str().context("a path that is text")?;
    let output = weir(&["inspect", bad]).await?.exits(1)?;
    let said = output.stdout + &output.stderr;
    ensure!(
        said.contains("not WebAssembly") && said.contains("bad.wasm"),
        "{said}"
    );

    let missing = weir(&["inspect", "/no/such/file.wasm"]).await?.exits(1)?;
    ensure!(missing.stderr.contains("/no/such/file.wasm"), "{missing:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_and_state_show_what_runs() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let system = System::start().await?;
    system.rotations()?;
    let _host = system.launch.start().await?;
    flights.publish(&system.bus, 500).await?;
    system.all_counted(&flights).await?;
    let weir = &system.weir;

    let handler = weir.caught_up("rotations").await?;
    ensure!(
        handler["version"] == "1.0.0" && handler["dead_letters"] == 0,
        "{handler}"
    );
    ensure!(
        handler["digest"].as_str().is_some_and(|d| d.len() == 64),
        "{handler}"
    );
    let text = weir.run(&["handlers"]).await?.exits(0)?;
    ensure!(
        text.stdout.contains("rotations") && text.stdout.contains("h1"),
        "{text:?}"
    );

    let mut keys: Vec<String> = weir.json(&["state", "keys", "rotations"]).await?;
    keys.sort();
    ensure!(keys.iter().eq(flights.counts.keys()), "{keys:?}");
    let some: Vec<String> = weir.json(&["state", "keys", "rotations", "N0000"]).await?;
    ensure!(
        some.len() == flights.counts.keys().filter(|k| k.starts_with("N0000")).count(),
        "{some:?}"
    );
    let (key, count) = flights.counts.first_key_value().context("no flights")?;
    let cell = weir
        .run(&["state", "get", "rotations", key, "n"])
        .await?
        .exits(0)?;
    ensure!(cell.stdout.trim_end() == count.to_string(), "{cell:?}");

    // The bucket follows behind.
    until("the cell is checkpointed", PATIENCE, async || {
        let cell = weir
            .run(&["state", "get", "rotations", key, "n", "--checkpoint"])
            .await?
            .exits(0)?;
        ensure!(cell.stdout.trim_end() == count.to_string(), "{cell:?}");
        Ok(())
    })
    .await?;

    let unknown = weir.run(&["state", "get", "nobody", "k"]).await?.exits(1)?;
    ensure!(unknown.stderr.contains("nobody"), "{unknown:?}");
    let no_key = weir
        .run(&["state", "get", "rotations", "no-such-key", "n"])
        .await?
        .exits(1)?;
    ensure!(
        no_key.stdout.is_empty() && no_key.stderr.contains("no-such-key"),
        "{no_key:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_run_refuse_a_ledger_that_could_lose_data() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    system.weir.run(&["check"]).await?.exits(0)?;
    let report: Value = system.weir.json(&["check"]).await?;
    ensure!(report.is_object() || report.is_array(), "{report}");
    ensure!(host.term().await? == Some(0));

    // Made by somebody who wanted to save space.
    system.bus.delete(LEDGER).await?;
    system
        .bus
        .create(json!({
            "name": LEDGER,
            "subjects": ["rotations.>", "out.>", format!("$WEIR.{LEDGER}.>")],
            "retention": "limits", "storage": "file", "num_replicas": 1, "discard": "old",
            "max_age": 3_600_000_000_000_u64, "max_bytes": -1, "max_msgs": -1,
        }))
        .await?;
    let refused = system.weir.run(&["check"]).await?.exits(1)?;
    let said = refused.stdout + &refused.stderr;
    let (code, host_said) = system.launch.spawn()?.ends().await?;
    ensure!(code == Some(1), "the host ran on it: {host_said}");
    for text in [&said, &host_said] {
        for setting in [LEDGER, "max_age", "atomic", "nats stream edit"] {
            ensure!(text.contains(setting), "it does not say {setting:?}:\n{text}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn up_is_a_whole_system_and_leaves_nothing_behind() -> Result<()> {
    let plugins = Plugins::new()?;
    plugins.put("rotations", "1.0.0", ROTATIONS, ROTATIONS_MANIFEST)?;
    let folder = TempDir::new()?;
    let up = host::up(plugins.path(), "DEV", folder.path()).await?;
    let servers = up.children()?;
    ensure!(!servers.is_empty(), "it started no server of its own");
    ensure!(
        folder.path().join(".weir").is_dir(),
        "its data is not under .weir"
    );
    up.readyz(200, "").await?;

    ensure!(up.interrupt().await? == Some(0), "Ctrl-C ends it with 0");
    until("its server is gone", PATIENCE, async || {
        let left: Vec<&u32> = servers.iter().filter(|pid| parent(**pid).is_some()).collect();
        ensure!(left.is_empty(), "{left:?} still run");
        Ok(())
    })
    .await
}

/// A handler that is being written gains subjects from one start to the next.
#[tokio::test(flavor = "multi_thread")]
async fn up_takes_in_what_a_handler_has_gained() -> Result<()> {
    let plugins = Plugins::new()?;
    let folder = TempDir::new()?;
    plugins.put("rotations", "1.0.0", ROTATIONS, ROTATIONS_MANIFEST)?;
    let up = host::up(plugins.path(), "DEV", folder.path()).await?;
    ensure!(up.interrupt().await? == Some(0));

    let more = ROTATIONS_MANIFEST
        .replace("[\"rotations.>\"]", "[\"rotations.>\", \"extra.*\"]")
        .replace("FLIGHTS", "MOVES")
        .replace("flights.>", "moves.>");
    plugins.put("rotations-2", "1.0.0", ROTATIONS, &more)?;
    let up = host::up(plugins.path(), "DEV", folder.path()).await?;
    up.readyz(200, "").await?;
    up.says("extra.*").await?;
    let url = server_of(&up)?;
    let bus = Bus::connect(&url).await?;
    bus.publish(Outgoing::new("moves.k", "{}")).await?;
    let weir = Weir::new(&url, "DEV");
    until("the new handler has handled it", PATIENCE, async || {
        let cells = weir.cells("rotations-2", "k").await?;
        ensure!(cells.get("n").map(String::as_str) == Some("1"), "{cells:?}");
        Ok(())
    })
    .await?;
    ensure!(up.interrupt().await? == Some(0));
    Ok(())
}

/// Where a development system's server is.
fn server_of(up: &host::Host) -> Result<String> {
    let said = up.stderr();
    let url = said
        .split_once("nats-server on ")
        .and_then(|(_, rest)| rest.split_once(','));
    Ok(url
        .context("`weir up` does not say where its server is")?
        .0
        .to_owned())
}

/// A terminal's colours are for a terminal; scripts get none, and NO_COLOR ends them for people too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_has_colours_where_nobody_sees_them() -> Result<()> {
    for args in [
        &["--help"][..],
        &["handlers", "--bogus"],
        &["inspect", "/no/such/file"],
    ] {
        let output = weir(args).await?;
        let said = output.stdout + &output.stderr;
        ensure!(!said.contains('\x1b'), "{args:?}: {said:?}");
    }
    Ok(())
}
