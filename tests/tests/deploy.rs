//! Code changes while hosts run: by command, by files, for better and for worse.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::plugins::{Plugins, ROTATIONS, component};
use weir_tests::system::{Flights, LEDGER, ROTATIONS_MANIFEST, System};
use weir_tests::{PATIENCE, check, seed, until};

/// The same handler as an earlier plugin: other code with the same effects.
const OLDER: &str = "tests/fixtures/wit/0.1.0/rotations.wasm";

/// Deployments of the test under load; `WEIR_DEPLOYMENTS` says otherwise.
const DEPLOYMENTS: usize = 20;

/// Two folders with `rotations`, version `a` and version `b`.
struct Versions {
    plugins: Plugins,
}

impl Versions {
    fn new() -> Result<Versions> {
        let plugins = Plugins::new()?;
        for (folder, bytes) in [
            ("a", fs::read(component(ROTATIONS)?)?),
            ("b", fs::read(weir_tests::plugins::repository().join(OLDER))?),
        ] {
            plugins.put_bytes("rotations", folder, &bytes, ROTATIONS_MANIFEST)?;
            fs::rename(plugins.path().join("rotations"), plugins.path().join(folder))?;
        }
        Ok(Versions { plugins })
    }

    fn folder(&self, version: &str) -> String {
        self.plugins.path().join(version).display().to_string()
    }
}

/// A system whose hosts watch no folder.
async fn bare() -> Result<System> {
    let mut system = System::start().await?;
    system.launch.plugins = PathBuf::new();
    Ok(system)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_deployed_rolled_back_paused_and_removed() -> Result<()> {
    let (system, versions) = (bare().await?, Versions::new()?);
    let weir = &system.weir;
    let _a = system.launch.clone().name("a").start().await?;
    let _b = system.launch.clone().name("b").start().await?;

    let deployed = weir.run(&["deploy", &versions.folder("a")]).await?.exits(0)?;
    ensure!(deployed.stdout.contains("on 2 of 2 hosts"), "{deployed:?}");
    let mut flights = Flights::new(seed(), 50);
    flights.publish(&system.bus, 500).await?;
    system.all_counted(&flights).await?;
    ensure!(weir.handler("rotations").await?["version"] == "a");

    weir.run(&["deploy", &versions.folder("b")]).await?.exits(0)?;
    flights.publish(&system.bus, 500).await?;
    system.all_counted(&flights).await?;
    let handler = weir.handler("rotations").await?;
    ensure!(
        handler["version"] == "b" && handler["hosts"].as_array().is_some_and(|h| h.len() == 2),
        "{handler}"
    );

    weir.run(&["rollback", "rotations"]).await?.exits(0)?;
    ensure!(weir.handler("rotations").await?["version"] == "a");
    let unknown = weir
        .run(&["rollback", "rotations", "--to", "ffff"])
        .await?
        .exits(2)?;
    ensure!(unknown.stderr.contains("no earlier deployment"), "{unknown:?}");

    weir.run(&["pause", "rotations"]).await?.exits(0)?;
    let before = system.bus.last_sequence(LEDGER).await?;
    flights.publish(&system.bus, 500).await?;
    ensure!(weir.handler("rotations").await?["state"] == "paused");
    ensure!(
        system.bus.last_sequence(LEDGER).await? == before,
        "nothing is committed while paused"
    );
    weir.run(&["resume", "rotations"]).await?.exits(0)?;
    system.all_counted(&flights).await?;
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )?;

    let history: Vec<Value> = weir.json(&["handlers", "--history", "rotations"]).await?;
    let told: Vec<(&str, &str)> = history
        .iter()
        .map(|one| {
            (
                one["version"].as_str().unwrap_or(""),
                one["desired"].as_str().unwrap_or(""),
            )
        })
        .collect();
    let expected = [
        ("a", "running"),
        ("b", "running"),
        ("a", "running"),
        ("a", "paused"),
        ("a", "running"),
    ];
    ensure!(told == expected, "{told:?}");

    // Removed, its state is still there to be read, whether the bucket has it or not.
    weir.run(&["remove", "rotations"]).await?.exits(0)?;
    let (key, count) = flights.counts.iter().next().context("a key")?;
    let cells = weir.cells("rotations", key).await?;
    ensure!(cells["n"] == count.to_string(), "{cells:?}");
    let keys: Vec<String> = weir.json(&["state", "keys", "rotations"]).await?;
    ensure!(keys.len() == flights.counts.len(), "{keys:?}");

    weir.run(&["remove", "rotations", "--purge-state"])
        .await?
        .exits(0)?;
    let purged = weir.run(&["state", "get", "rotations", key]).await?.exits(1)?;
    ensure!(purged.stderr.contains("has no state for key"), "{purged:?}");
    let gone = weir.run(&["pause", "rotations"]).await?.exits(1)?;
    ensure!(gone.stderr.contains("not deployed"), "{gone:?}");
    let left = system.bus.read(LEDGER, "$WEIR.LEDGER.c.rotations.>").await?;
    ensure!(
        left.len() == 8,
        "a tombstone for each partition, and {} records",
        left.len()
    );

    // The next one of that name is another: it begins at the first event, without state.
    weir.run(&["deploy", &versions.folder("a")]).await?.exits(0)?;
    let twice = flights.published * 2;
    system.emitted("rotations.>", twice as usize).await?;
    let cells = weir
        .cells("rotations", flights.counts.keys().next().context("a key")?)
        .await?;
    ensure!(
        cells["n"] == flights.counts.values().next().context("a key")?.to_string(),
        "{cells:?}"
    );
    Ok(())
}

/// Nothing is lost, doubled or out of order, each output says which deployment made
/// it, and a partition that has switched never goes back.
#[tokio::test(flavor = "multi_thread")]
async fn code_changes_under_load() -> Result<()> {
    let (system, versions) = (bare().await?, Versions::new()?);
    let deployments = match std::env::var("WEIR_DEPLOYMENTS") {
        Ok(number) => number.parse()?,
        Err(_) => DEPLOYMENTS,
    };
    let _a = system.launch.clone().name("a").start().await?;
    let _b = system.launch.clone().name("b").start().await?;
    system
        .weir
        .run(&["deploy", &versions.folder("a")])
        .await?
        .exits(0)?;

    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let nats = system.nats.url();
    let load = tokio::spawn(async move {
        let bus = weir_tests::bus::Bus::connect(&nats).await?;
        let mut flights = Flights::new(seed(), 400);
        while stopped.try_recv().is_err() {
            flights.publish(&bus, 200).await?;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        anyhow::Ok(flights)
    });
    for n in 0..deployments {
        let version = ["b", "a"][n % 2];
        system
            .weir
            .run(&["deploy", &versions.folder(version)])
            .await?
            .exits(0)?;
    }
    let _ = stop.send(());
    let flights = load.await??;
    system.all_counted(&flights).await?;
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )?;

    // Partition by partition, in the order of the ledger.
    let mut last: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut switches = 0;
    let mut pauses: Vec<u64> = Vec::new();
    for message in system.bus.read(LEDGER, "rotations.>").await? {
        let by = message.header("Weir-By").context("an event without Weir-By")?;
        let (partition, revision) = by.rsplit_once(':').context("a revision")?;
        let revision: u64 = revision.parse()?;
        let before = last.insert(partition.to_owned(), (revision, message.time));
        if let Some((before, time)) = before {
            ensure!(
                before <= revision,
                "{partition} went back from {before} to {revision} at {}",
                message.sequence
            );
            if before < revision {
                switches += 1;
                pauses.push(message.time.saturating_sub(time));
            }
        }
    }
    pauses.sort_unstable();
    let ms = |ns: &u64| *ns as f64 / 1e6;
    println!(
        "{} events, {deployments} deployments, {switches} switches; from the last event of one version to the first of \
         the next: median {:.1} ms, longest {:.1} ms (events come every 100 ms)",
        flights.published,
        pauses.get(pauses.len() / 2).map_or(0.0, ms),
        pauses.last().map_or(0.0, ms),
    );
    ensure!(
        last.len() == 8 && switches >= deployments,
        "{switches} switches of {last:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_folder_is_deployed_as_it_changes() -> Result<()> {
    let (system, versions) = (System::start().await?, Versions::new()?);
    let host = system.launch.start().await?;
    let folder = system.plugins.path().join("rotations");
    let version = async |wanted: &str| {
        until(&format!("version {wanted} runs"), PATIENCE, async || {
            let found = system.weir.handler("rotations").await?;
            ensure!(
                found["version"] == wanted && found["state"] == "running",
                "{found}"
            );
            Ok(())
        })
        .await
    };
    // Half-written: the component comes a while after the manifest.
    fs::create_dir(&folder)?;
    let from = versions.plugins.path().join("a");
    fs::copy(from.join("handler.toml"), folder.join("handler.toml"))?;
    host.says("there is no file").await?;
    fs::copy(from.join("guest.wasm"), folder.join("guest.wasm"))?;
    version("a").await?;
    host.readyz(200, "").await?;
    let mut flights = Flights::new(seed(), 20);
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;

    let from = versions.plugins.path().join("b");
    for file in ["guest.wasm", "handler.toml"] {
        fs::copy(from.join(file), folder.join(file))?;
    }
    version("b").await?;

    fs::write(folder.join("guest.wasm"), b"not Wasm")?;
    host.says("refused").await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;
    version("b").await?;

    fs::remove_dir_all(&folder)?;
    until("it is removed", PATIENCE, async || {
        let all: Vec<Value> = system.weir.json(&["handlers"]).await?;
        ensure!(all.is_empty(), "{all:?}");
        Ok(())
    })
    .await?;
    check::same_counts(
        &check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?,
        &flights.counts,
    )
}

/// What was replaced by a deployment since does not come back with a host that starts.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_replaced_do_not_come_back() -> Result<()> {
    let (system, versions) = (System::start().await?, Versions::new()?);
    system
        .plugins
        .put("rotations", "folder", ROTATIONS, ROTATIONS_MANIFEST)?;
    let host = system.launch.start().await?;
    system
        .weir
        .run(&["deploy", &versions.folder("b")])
        .await?
        .exits(0)?;
    ensure!(host.term().await? == Some(0));
    let host = system.launch.start().await?;
    host.says("was replaced since by another deployment").await?;
    ensure!(system.weir.handler("rotations").await?["version"] == "b");

    // Taking them out of the folder, as the host says one may, does not remove what runs.
    fs::remove_dir_all(system.plugins.path().join("rotations"))?;
    host.says("what another deployment runs goes on").await?;
    ensure!(system.weir.handler("rotations").await?["version"] == "b");

    system
        .plugins
        .put("rotations", "newer", ROTATIONS, ROTATIONS_MANIFEST)?;
    until("the folder's new version runs", PATIENCE, async || {
        let found = system.weir.handler("rotations").await?;
        ensure!(found["version"] == "newer", "{found}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_deployments_hurt_nobody() -> Result<()> {
    let (system, versions) = (bare().await?, Versions::new()?);
    let weir = &system.weir;
    let _host = system.launch.start().await?;
    weir.run(&["deploy", &versions.folder("a")]).await?.exits(0)?;
    let mut flights = Flights::new(seed(), 20);
    flights.publish(&system.bus, 200).await?;

    let bad = Plugins::new()?;
    let folder = bad.path().join("rotations").display().to_string();
    let refused = async |said: &str| -> Result<()> {
        let output = weir.run(&["deploy", &folder]).await?;
        ensure!(
            output.code != Some(0) && output.stderr.contains(said),
            "expected {said:?} of {output:#?}"
        );
        Ok(())
    };
    bad.put_bytes("rotations", "bad", b"not Wasm", ROTATIONS_MANIFEST)?;
    refused("nothing was deployed").await?;
    let more = ROTATIONS_MANIFEST.replace("partitions = 8", "partitions = 9");
    bad.put("rotations", "bad", ROTATIONS, &more)?;
    refused("it has 8 partitions in this ledger").await?;
    let other = ROTATIONS_MANIFEST.replace("flights.>", "flights.*");
    bad.put("rotations", "bad", ROTATIONS, &other)?;
    refused("it reads flights.> of stream FLIGHTS").await?;
    let outside = ROTATIONS_MANIFEST.replace("rotations.>", "elsewhere.>");
    bad.put("rotations", "bad", ROTATIONS, &outside)?;
    refused("not among the subjects of ledger LEDGER").await?;
    bad.put("twin", "bad", ROTATIONS, ROTATIONS_MANIFEST)?;
    let twin = fs::read_to_string(bad.path().join("twin/handler.toml"))?;
    fs::write(
        bad.path().join("twin/handler.toml"),
        twin.replace("name = \"twin\"", "name = \"rotations\""),
    )?;
    let both = weir
        .run(&["deploy", &bad.path().display().to_string()])
        .await?
        .exits(2)?;
    ensure!(both.stderr.contains("names are unique"), "{both:?}");

    // One that traps on its first event: its events are dead letters, others go on.
    system.plugins.put(
        "probe",
        "1",
        weir_tests::plugins::PROBE,
        weir_tests::system::PROBE_MANIFEST,
    )?;
    let probe = system.plugins.path().join("probe").display().to_string();
    weir.run(&["deploy", &probe]).await?.exits(0)?;
    let id = system.tell("k", "trap").await?;
    system.dead_letter("probe", &id).await?;
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;
    ensure!(weir.handler("rotations").await?["version"] == "a");
    let history: Vec<Value> = weir.json(&["handlers", "--history", "rotations"]).await?;
    ensure!(history.len() == 1, "{history:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_signed_is_run() -> Result<()> {
    let (system, versions) = (bare().await?, Versions::new()?);
    let keys = TempDir::new()?;
    let (ours, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let seed_file = |name: &str, pair: &nkeys::KeyPair| -> Result<String> {
        let file = keys.path().join(name);
        fs::write(&file, pair.seed()? + "\n")?;
        Ok(file.display().to_string())
    };
    let (ours_file, other_file) = (seed_file("ours.nk", &ours)?, seed_file("other.nk", &other)?);
    let _host = system
        .launch
        .clone()
        .with(&["--trusted-keys", &ours.public_key()])
        .start()
        .await?;
    let a = versions.folder("a");
    let unsigned = system.weir.run(&["deploy", &a]).await?.exits(1)?;
    ensure!(unsigned.stderr.contains("it is not signed"), "{unsigned:?}");
    system
        .weir
        .run(&["deploy", &a, "--sign", &ours_file])
        .await?
        .exits(0)?;
    let b = versions.folder("b");
    let foreign = system
        .weir
        .run(&["deploy", &b, "--sign", &other_file])
        .await?
        .exits(1)?;
    ensure!(
        foreign.stderr.contains("not among the trusted keys")
            && foreign.stderr.contains("was deployed again"),
        "{foreign:?}"
    );
    let mut flights = Flights::new(seed(), 20);
    flights.publish(&system.bus, 200).await?;
    system.all_counted(&flights).await?;
    ensure!(system.weir.handler("rotations").await?["version"] == "a");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_explained_back_to_the_first() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let second = "partitions = 1\n[[source]]\nstream = \"LEDGER\"\nsubjects = [\"rotations.>\"]\n[emit]\nsubjects = [\"out.>\"]\n";
    // Emits where the allowlist sends it: `rotations` of a rotation.
    system
        .plugins
        .put("again", "7", ROTATIONS, &second.replace("out.>", "rotations.>"))?;
    let _host = system.launch.start().await?;
    let mut flights = Flights::new(seed(), 1);
    flights.publish(&system.bus, 1).await?;
    // It loops on its own output, which is the point here: pause it after a few.
    let found = system.emitted("rotations.>", 3).await?;
    system.weir.run(&["pause", "again"]).await?.exits(0)?;
    let last = found.get(2).context("three events")?;
    let event = format!("LEDGER:{}", last.sequence);
    let explained: Value = system.weir.json(&["explain", &event]).await?;
    let chain = explained["chain"].as_array().context("a chain")?;
    ensure!(chain.len() == 4, "{explained:#}");
    ensure!(
        chain[0]["id"] == event && chain[0]["emitted"]["handler"] == "again",
        "{explained:#}"
    );
    ensure!(
        chain[0]["emitted"]["version"] == "7" && chain[0]["emitted"]["host"] == "h1",
        "{explained:#}"
    );
    ensure!(chain[2]["emitted"]["handler"] == "rotations", "{explained:#}");
    ensure!(
        chain[3]["id"] == "FLIGHTS:1" && chain[3]["emitted"].is_null(),
        "{explained:#}"
    );
    let said = system.weir.run(&["explain", &event]).await?.exits(0)?;
    ensure!(said.stdout.contains("no handler emitted it"), "{said:?}");
    system.weir.run(&["explain", "FLIGHTS:99"]).await?.exits(1)?;
    system.weir.run(&["explain", "FLIGHTS"]).await?.exits(2)?;
    Ok(())
}
