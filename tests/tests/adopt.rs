//! Streams that were backed up and restored by the server's own API go on after `weir adopt`, and
//! others do not.

use anyhow::{Context as _, Result, ensure};
use weir::commit::record::Record;
use weir_tests::backup::Backup;
use weir_tests::bus::Bus;
use weir_tests::host::{Output, Weir};
use weir_tests::nats::NatsServer;
use weir_tests::system::{Flights, LEDGER, System};
use weir_tests::{check, seed};

/// In the order in which an operator takes them while hosts run: what comes later may be
/// newer, but not older.
const STREAMS: [&str; 5] = [
    "KV_weir_LEDGER",
    LEDGER,
    "KV_weir_LEDGER_handlers",
    "OBJ_weir_LEDGER_artifacts",
    SOURCE,
];

const SOURCE: &str = "FLIGHTS";

/// The system moves to a new server, which has what was backed up and nothing else.
async fn move_to_a_new_server(system: &mut System) -> Result<()> {
    let mut backups = Vec::new();
    for stream in STREAMS {
        backups.push((
            stream,
            system.bus.created(stream).await?,
            system.bus.backup(stream).await?,
        ));
    }
    let nats = NatsServer::start()?;
    system.bus = Bus::connect(&nats.url()).await?;
    system.weir = Weir::new(&nats.url(), LEDGER);
    system.launch.nats = nats.url();
    system.nats = nats;
    for (stream, created, backup) in backups {
        system.bus.restore(&backup).await?;
        // What all of this is about: a server that keeps it needs no adopting.
        ensure!(system.bus.created(stream).await? != created, "{stream}");
    }
    Ok(())
}

async fn adopt(system: &System, stream: &str) -> Result<()> {
    let done = system.weir.run(&["adopt", stream]).await?.exits(0)?;
    ensure!(done.stdout.contains(&format!("{stream} adopted")), "{done:?}");
    let again = system.weir.run(&["adopt", stream]).await?.exits(0)?;
    ensure!(again.stdout.contains("nothing to do"), "{again:?}");
    Ok(())
}

/// Whether `weir check` finds something wrong with the identity of a stream.
async fn needs_adoption(system: &System, stream: &str) -> Result<bool> {
    let said = system.weir.run(&["check"]).await?.stdout;
    let line = said
        .lines()
        .find(|line| line.contains(&format!("identity of {stream}:")));
    let line = line.with_context(|| format!("{stream} is not in {said}"))?;
    ensure!(
        line.starts_with("FAIL") == line.contains(&format!("weir adopt {stream}")),
        "{line}"
    );
    Ok(line.starts_with("FAIL"))
}

async fn all_is_right(system: &System, flights: &Flights) -> Result<()> {
    system.all_counted(flights).await?;
    let counts = check::per_key_sequence(&system.bus, LEDGER, "rotations.>").await?;
    check::same_counts(&counts, &flights.counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_system_goes_on_as_often_as_it_is_restored() -> Result<()> {
    let mut flights = Flights::new(seed(), 20);
    let mut system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 500).await?;
    system.all_counted(&flights).await?;
    system.weir.caught_up("rotations").await?;
    ensure!(host.term().await? == Some(0));
    ensure!(!needs_adoption(&system, LEDGER).await? && !needs_adoption(&system, SOURCE).await?);

    for _ in 0..2 {
        // Events that nobody has handled yet are in the backup, too.
        flights.publish(&system.bus, 50).await?;
        move_to_a_new_server(&mut system).await?;
        ensure!(needs_adoption(&system, LEDGER).await? && needs_adoption(&system, SOURCE).await?);

        // Whoever starts a host first is told what to do.
        let host = system.launch.spawn()?;
        host.says("stop all hosts and run: weir adopt LEDGER").await?;
        let refused = system.weir.run(&["adopt", LEDGER]).await?.exits(1)?;
        ensure!(refused.stderr.contains("host h1 runs"), "{refused:?}");
        host.term().await?;

        let tried = system.weir.run(&["adopt", LEDGER, "--dry-run"]).await?.exits(0)?;
        ensure!(tried.stdout.contains("may be adopted"), "{tried:?}");
        ensure!(needs_adoption(&system, LEDGER).await?, "only tried");
        adopt(&system, LEDGER).await?;

        // A source is adopted while hosts wait for it, and they go on by themselves.
        let host = system.launch.spawn()?;
        host.says("run: weir adopt FLIGHTS").await?;
        adopt(&system, SOURCE).await?;
        ensure!(!needs_adoption(&system, LEDGER).await? && !needs_adoption(&system, SOURCE).await?);
        flights.publish(&system.bus, 450).await?;
        all_is_right(&system, &flights).await?;
        let key = flights.counts.keys().next().context("a key")?;
        let cells = system.weir.cells("rotations", key).await?;
        ensure!(cells["n"] == flights.counts[key].to_string(), "{cells:?}");
        ensure!(host.term().await? == Some(0));
    }

    // What was adopted is this stream, not its name and settings.
    let settings = system.bus.settings(SOURCE).await?;
    ensure!(settings["metadata"]["weir-adopted"].is_string(), "{settings}");
    system.bus.delete(SOURCE).await?;
    system.bus.create(settings).await?;
    let host = system.launch.spawn()?;
    host.readyz(503, "stream FLIGHTS was deleted and created again")
        .await?;
    Ok(())
}

/// Puts another stream in the place of the source, or of the ledger.
async fn replace(system: &System, stream: &str, backup: &Backup) -> Result<()> {
    system.bus.delete(stream).await?;
    system.bus.restore(backup).await
}

async fn refused(system: &System, stream: &str, parts: &[String]) -> Result<Output> {
    let refused = system.weir.run(&["adopt", stream]).await?.exits(1)?;
    for part in parts {
        ensure!(refused.stderr.contains(part), "no {part:?} in {refused:#?}");
    }
    let metadata = system.bus.settings(stream).await?["metadata"]["weir-adopted"].clone();
    ensure!(metadata.is_null(), "it was adopted: {metadata}");
    Ok(refused)
}

/// The last record of each partition, and how far it has read the source.
async fn positions(system: &System) -> Result<Vec<(u32, u64)>> {
    let records = system.bus.read(LEDGER, "$WEIR.LEDGER.c.rotations.1.*").await?;
    let mut positions = std::collections::BTreeMap::new();
    for read in records {
        let (_, partition) = read.subject.rsplit_once('.').context("a subject")?;
        let record = Record::decode(&read.stored())?;
        positions.insert(partition.parse()?, record.positions[SOURCE].sequence);
    }
    Ok(positions.into_iter().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_stream_is_not_adopted() -> Result<()> {
    let mut flights = Flights::new(seed(), 50);
    let system = System::start().await?;
    system.rotations()?;
    let host = system.launch.start().await?;
    flights.publish(&system.bus, 40).await?;
    system.all_counted(&flights).await?;
    let older_source = system.bus.backup(SOURCE).await?;
    let older_ledger = system.bus.backup(LEDGER).await?;
    flights.publish(&system.bus, 460).await?;
    system.all_counted(&flights).await?;
    system.weir.caught_up("rotations").await?;
    ensure!(host.term().await? == Some(0));
    // Its takeovers are in the state bucket, and not in the older ledger.
    let host = system.launch.start().await?;
    system.weir.caught_up("rotations").await?;
    ensure!(host.term().await? == Some(0));
    let whole_source = system.bus.backup(SOURCE).await?;
    let whole_ledger = system.bus.backup(LEDGER).await?;
    let read = positions(&system).await?;
    ensure!(read.len() == 8, "{read:?}");

    // An older copy of the source: every partition that has read more is named.
    replace(&system, SOURCE, &older_source).await?;
    let beyond: Vec<String> = read
        .iter()
        .filter(|(_, sequence)| *sequence > 40)
        .map(|(partition, sequence)| {
            format!(
                "handler rotations, partition {partition}: stream FLIGHTS ends at sequence 40, but was read up to {sequence}"
            )
        })
        .collect();
    ensure!(!beyond.is_empty(), "{read:?}");
    refused(&system, SOURCE, &beyond).await?;

    // An empty one.
    system.bus.delete(SOURCE).await?;
    system.bus.source(SOURCE, "flights.>").await?;
    refused(&system, SOURCE, &["ends at sequence 0".into()]).await?;

    // As many messages as before, the very same ones, stored at another time.
    Flights::new(seed(), 50).publish(&system.bus, 500).await?;
    let other = read.iter().filter(|(_, sequence)| *sequence > 0);
    let other = other.map(|(partition, sequence)| {
        format!(
            "handler rotations, partition {partition}: stream FLIGHTS has another message at sequence {sequence}"
        )
    });
    refused(&system, SOURCE, &other.collect::<Vec<_>>()).await?;

    // One that nothing was read of, and one that nobody has.
    refused(&system, "EVENTS", &["nothing says which stream it was".into()]).await?;
    system.weir.run(&["adopt", "NOWHERE"]).await?.exits(1)?;

    // The whole one.
    replace(&system, SOURCE, &whole_source).await?;
    adopt(&system, SOURCE).await?;

    // What has been adopted as something else, for another ledger perhaps, stays that.
    let settings = system.bus.settings(SOURCE).await?;
    let mine = settings["metadata"]["weir-adopted"]
        .as_str()
        .context("an entry")?;
    let (made, _) = mine.split_once(' ').context("two times")?;
    let says = async |text: &str| {
        system
            .bus
            .change(SOURCE, |settings| {
                settings["metadata"]["weir-adopted"] = text.into()
            })
            .await
    };
    says(&format!("{made} 1")).await?;
    let taken = system.weir.run(&["adopt", SOURCE]).await?.exits(1)?;
    ensure!(taken.stderr.contains("is adopted already"), "{taken:?}");
    // An entry that cannot be read says nothing.
    says("mine").await?;
    adopt(&system, SOURCE).await?;

    // A ledger that is older than the state, and an empty one.
    replace(&system, LEDGER, &older_ledger).await?;
    let lost = "handler rotations, partition 0: ledger LEDGER ends at record".to_owned();
    refused(
        &system,
        LEDGER,
        &[lost, "the ledger lost acknowledged commits".into()],
    )
    .await?;
    let settings = system.bus.settings(LEDGER).await?;
    system.bus.delete(LEDGER).await?;
    system.bus.create(settings).await?;
    refused(&system, LEDGER, &["has no commit record".into()]).await?;

    // The whole one: and all goes on.
    replace(&system, LEDGER, &whole_ledger).await?;
    adopt(&system, LEDGER).await?;
    let _host = system.launch.start().await?;
    flights.publish(&system.bus, 100).await?;
    all_is_right(&system, &flights).await
}
