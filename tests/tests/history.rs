//! `weir state get --at`: what a key's state was, against what `weir state get` said at that moment.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weir_tests::bus::Outgoing;
use weir_tests::host::Output;
use weir_tests::plugins::{PROBE, ROTATIONS, SHARER, TALLY, repository};
use weir_tests::system::{LEDGER, PROBE_MANIFEST, ROTATIONS_MANIFEST, System, TALLY_MANIFEST};
use weir_tests::{PATIENCE, seed, until};

/// The probe on two sources.
const TWO_SOURCES: &str = r#"
partitions = 4
[[source]]
stream = "EVENTS"
subjects = ["events.>"]
[[source]]
stream = "FLIGHTS"
subjects = ["flights.>"]
[key]
subject_token = 2
[emit]
subjects = ["out.>"]
"#;

const NOTIFY: &str = "plugins/notify";

const ACTIVITY: &str = r#"
partitions = 1
[[source]]
stream = "EVENTS"
subjects = ["events.shipped"]
[key]
json = "/order"
[emit]
subjects = ["notifications.sent.*"]
[http]
hosts = ["127.0.0.1:9"]
[config]
url = "http://127.0.0.1:9/"
"#;

type Cells = BTreeMap<String, Value>;

/// A moment, named in several ways, and what the state was then.
struct Moment {
    points: Vec<String>,
    cells: BTreeMap<(String, String), Cells>,
}

async fn get(system: &System, handler: &str, key: &str, more: &[&str]) -> Result<Output> {
    let data = repository().join("target/tmp/weir").display().to_string();
    let args = ["state", "get", handler, key, "--json", "--data", &data];
    system.weir.run(&[&args, more].concat()).await
}

/// The cells of a key now, or at a point; none where it is said that there were none.
async fn cells(system: &System, handler: &str, key: &str, at: Option<&str>) -> Result<(Cells, String)> {
    let more = at.map(|at| ["--at", at]);
    let output = get(system, handler, key, more.as_ref().map_or(&[], |more| more)).await?;
    match output.code {
        Some(0) => Ok((serde_json::from_str(&output.stdout)?, output.stderr)),
        Some(1) if output.stderr.contains("no state for key") => Ok((Cells::new(), output.stderr)),
        _ => bail!("{handler} {key} at {at:?}: {output:?}"),
    }
}

fn now() -> Result<String> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(OffsetDateTime::from_unix_timestamp_nanos(nanos.try_into()?)?.format(&Rfc3339)?)
}

impl Moment {
    /// As it is now, after the last event of a source.
    async fn take(system: &System, handlers: &[&str], keys: &[&str], points: Vec<String>) -> Result<Moment> {
        let mut moment = Moment {
            points,
            cells: BTreeMap::new(),
        };
        for handler in handlers {
            for key in keys {
                let (cells, _) = cells(system, handler, key, None).await?;
                moment.cells.insert(((*handler).into(), (*key).into()), cells);
            }
        }
        Ok(moment)
    }

    /// Compares with what is folded up to each of its points. Returns what was said.
    async fn check(&self, system: &System) -> Result<String> {
        let mut all = String::new();
        for point in &self.points {
            for ((handler, key), then) in &self.cells {
                let (folded, said) = cells(system, handler, key, Some(point)).await?;
                ensure!(
                    folded == *then,
                    "{handler}, key {key} at {point}: {folded:?}, and it was {then:?}\n{said}"
                );
                all += &said;
            }
        }
        Ok(all)
    }
}

/// Publishes a program that says that it was done, after all that is there, and waits for that.
async fn settle(system: &System, handlers: usize, subject: &str, mark: &str) -> Result<u64> {
    let program = format!("emit out.mark.{mark} x");
    let event = Outgoing::new(subject, program).header("K", "marks");
    let sequence = system.bus.publish(event).await?;
    system.emitted(&format!("out.mark.{mark}"), handlers).await?;
    Ok(sequence)
}

/// One partition, so that what is done after all others is done is the last of all.
fn one_partition(manifest: &str) -> String {
    manifest.replace("partitions = 4", "partitions = 1")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_what_it_was_at_every_moment() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed());
    let system = System::start().await?;
    let by_token = one_partition(PROBE_MANIFEST);
    system.plugins.put("probe", "1.0.0", PROBE, &by_token)?;
    // No server can tell a header: all events are read, and most are of other keys.
    let by_header = by_token.replace("subject_token = 2", "header = \"K\"");
    system.plugins.put("by-header", "1.0.0", PROBE, &by_header)?;
    let _host = system.launch.start().await?;

    let keys = ["a", "b", "c"];
    let mut moments = Vec::new();
    for round in 0..5 {
        let events: Vec<Outgoing> = (0..60)
            .map(|_| {
                let key = keys[random.random_range(0..keys.len())];
                let program = match random.random_range(0..6) {
                    0 => "set last x\nadd n 1".to_owned(),
                    1 => "delete last\nadd n 1".to_owned(),
                    2 => "add n 1\nreject no".to_owned(),
                    // Repeats what the state was: wrong if any before it is missing.
                    3 => "add n 2\nshow n out.n".to_owned(),
                    n => format!("add n 1\nset c{n} {}", random.random_range(0..1_000)),
                };
                Outgoing::new(format!("events.{key}"), program).header("K", key)
            })
            .collect();
        system.bus.publish_all(&events).await?;
        let last = settle(&system, 2, "events.marks", &round.to_string()).await?;
        let points = vec![format!("EVENTS:{last}"), last.to_string(), now()?];
        moments.push(Moment::take(&system, &["probe", "by-header"], &keys, points).await?);
        // The event that is the point, too: the last one of its key before.
        let of_key = system.bus.read("EVENTS", "events.a").await?;
        let of_key = of_key.last().context("an event of key a")?.sequence;
        moments.push(Moment::take(&system, &["probe"], &["a"], vec![of_key.to_string()]).await?);
    }
    for moment in &moments {
        let said = moment.check(&system).await?;
        ensure!(said.contains("folded with version 1.0.0 of probe"), "{said}");
    }
    // One event less is another state: each adds to `n`, but for those that are refused.
    let accepted: Vec<u64> = system
        .bus
        .read("EVENTS", "events.a")
        .await?
        .iter()
        .filter(|event| !event.text().contains("reject"))
        .map(|event| event.sequence)
        .collect();
    let last = accepted.last().context("an event of key a")?;
    let (at, _) = cells(&system, "probe", "a", Some(&last.to_string())).await?;
    let (before, _) = cells(&system, "probe", "a", Some(&(last - 1).to_string())).await?;
    ensure!(at["n"] != before["n"], "{at:?} and {before:?}");

    let first = accepted[0];
    if first > 1 {
        let at = (first - 1).to_string();
        let none = get(&system, "probe", "a", &["--at", &at]).await?.exits(1)?;
        ensure!(none.stderr.contains("had no state for key a"), "{none:?}");
    }
    let one = ["n", "--at", &last.to_string()];
    let data = repository().join("target/tmp/weir").display().to_string();
    let plain = [&["state", "get", "probe", "a"], &one[..], &["--data", &data]].concat();
    let cell = system.weir.run(&plain).await?.exits(0)?;
    ensure!(Some(&*cell.stdout) == at["n"].as_str(), "{cell:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_and_redriven_events_have_their_turn() -> Result<()> {
    let system = System::start().await?;
    let manifest = one_partition(PROBE_MANIFEST);
    system.plugins.put("probe", "1.0.0", PROBE, &manifest)?;
    let host = system.launch.start().await?;
    let mut moments = Vec::new();
    let take = async |points: Vec<String>| Moment::take(&system, &["probe"], &["k", "other"], points).await;

    // One is replaced, one cancelled, one left; another key's generations are between them.
    system
        .tell(
            "k",
            "timer a 60000 add a 1\ntimer b 60000 add b 1\ntimer c 200 add c 1",
        )
        .await?;
    system.tell("other", "timer a 100 add a 1").await?;
    system
        .tell("k", "timer a 300 add a 10; emit out.fired x\ncancel b\nadd n 1")
        .await?;
    system.emitted("out.fired", 1).await?;
    moments.push(take(vec![now()?]).await?);
    let fired = settle(&system, 1, "events.marks", "fired").await?;
    moments.push(take(vec![fired.to_string(), now()?]).await?);

    // One that sets itself again when it fires, and then it is cancelled.
    system
        .tell(
            "k",
            "timer r 100 add r 1; timer r 60000 add r 10; emit out.again x",
        )
        .await?;
    system.emitted("out.again", 1).await?;
    let again = settle(&system, 1, "events.marks", "again").await?;
    system.tell("k", "cancel r\nadd n 1").await?;
    let cancelled = settle(&system, 1, "events.marks", "cancelled").await?;
    moments.push(take(vec![cancelled.to_string(), now()?]).await?);

    // While nothing was purged, the ledger knows when each timer fired.
    for moment in &moments {
        let said = moment.check(&system).await?;
        ensure!(!said.contains("no longer in the ledger"), "{said}");
    }
    let (before, _) = cells(&system, "probe", "k", Some(&again.to_string())).await?;
    let (after, _) = cells(&system, "probe", "k", Some(&cancelled.to_string())).await?;
    ensure!(before["n"] != after["n"], "{before:?} and {after:?}");

    // An event fails, and is redriven when what it needs is there.
    let failed = system.tell("k", "need key\nadd n 100").await?;
    system.dead_letter("probe", &failed).await?;
    let at = settle(&system, 1, "events.marks", "failed").await?;
    let mut redriven = vec![take(vec![at.to_string()]).await?];
    system.tell("k", "set key x").await?;
    let at = settle(&system, 1, "events.marks", "set").await?;
    redriven.push(take(vec![at.to_string()]).await?);
    system
        .weir
        .run(&["dead-letters", "redrive", "probe", &failed])
        .await?
        .exits(0)?;
    until("the redriven event is handled", PATIENCE, async || {
        let (cells, _) = cells(&system, "probe", "k", None).await?;
        ensure!(cells["n"] == "102", "{cells:?}");
        Ok(())
    })
    .await?;
    let at = settle(&system, 1, "events.marks", "redriven").await?;
    redriven.push(take(vec![at.to_string(), now()?]).await?);
    for moment in &redriven {
        moment.check(&system).await?;
    }

    // What upkeep does in time: all goes but the last record. Then timers fire when they are due.
    system.weir.caught_up("probe").await?;
    ensure!(host.term().await? == Some(0));
    let stream = system.bus.js.get_stream(LEDGER).await?;
    let (records, fired) = ("$WEIR.LEDGER.c.probe.1.0", "$WEIR.LEDGER.f.probe.1.0");
    stream.purge().filter(records).keep(1).await?;
    stream.purge().filter(fired).await?;
    for moment in &moments {
        let said = moment.check(&system).await?;
        ensure!(said.contains("when they were due"), "{said}");
    }
    let (_, said) = cells(&system, "probe", "k", Some(&now()?)).await?;
    ensure!(said.contains("1 message of the key"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_sources_the_time_of_the_event_is_the_bound() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed());
    let system = System::start().await?;
    system
        .plugins
        .put("probe", "1.0.0", PROBE, &one_partition(TWO_SOURCES))?;
    let host = system.launch.start().await?;
    let mut moments = Vec::new();
    for round in 0..12 {
        let (stream, subject) = [("EVENTS", "events"), ("FLIGHTS", "flights")][random.random_range(0..2)];
        // Order tells: the last one wins, and all that came before counts.
        let program = format!("set last {round}\nadd n {round}\nadd {stream} 1");
        system
            .bus
            .publish(Outgoing::new(format!("{subject}.k"), program))
            .await?;
        let last = settle(&system, 1, &format!("{subject}.marks"), &round.to_string()).await?;
        let points = vec![format!("{stream}:{last}"), now()?];
        moments.push(Moment::take(&system, &["probe"], &["k"], points).await?);
    }
    for moment in &moments {
        moment.check(&system).await?;
    }

    // A sequence alone may be of either; so may no other stream be named.
    for (at, code, part) in [
        ("1", 2, "EVENTS:1, FLIGHTS:1"),
        ("LEDGER:1", 2, "EVENTS, FLIGHTS"),
        ("EVENTS:100000", 1, "has not come yet"),
        ("2500-01-01T00:00:00Z", 2, "not come yet"),
        ("yesterday", 2, "a time"),
    ] {
        let output = get(&system, "probe", "k", &["--at", at]).await?.exits(code)?;
        ensure!(
            output.stderr.contains(part) && output.stdout.is_empty(),
            "{at}: {output:?}"
        );
    }
    // What is there and not committed yet is what the state will be.
    ensure!(host.term().await? == Some(0));
    let ahead = system.tell("k", "set last ahead").await?;
    let (cells, said) = cells(&system, "probe", "k", Some(&ahead)).await?;
    ensure!(cells["last"] == "ahead", "{cells:?}");
    ensure!(said.contains(&format!("not committed {ahead}")), "{said}");
    Ok(())
}

/// The events of a source that a later version reads are older than what was handled before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_later_counts_later_whenever_it_was_stored() -> Result<()> {
    let system = System::start().await?;
    let both = one_partition(TWO_SOURCES);
    let one = both.replace("[[source]]\nstream = \"EVENTS\"\nsubjects = [\"events.>\"]\n", "");
    system.plugins.put("probe", "1.0.0", PROBE, &one)?;
    let _host = system.launch.start().await?;
    let older = system.tell("k", "set last older\nadd n 1").await?;
    let flight = Outgoing::new("flights.k", "set last newer\nadd n 1\nemit out.one x");
    let newer = format!("FLIGHTS:{}", system.bus.publish(flight).await?);
    system.emitted("out.one", 1).await?;
    let first = Moment::take(&system, &["probe"], &["k"], vec![newer]).await?;
    system.plugins.put("probe", "2.0.0", PROBE, &both)?;
    settle(&system, 1, "events.marks", "both").await?;
    let second = Moment::take(&system, &["probe"], &["k"], vec![older, now()?]).await?;
    for moment in [&first, &second] {
        moment.check(&system).await?;
    }
    let last = |moment: &Moment| {
        moment
            .cells
            .values()
            .map(|cells| cells["last"].clone())
            .collect::<Vec<_>>()
    };
    ensure!(last(&first) == ["newer"] && last(&second) == ["older"]);

    // Without that source nobody knows any more what came from there.
    system.plugins.put("probe", "3.0.0", PROBE, &one)?;
    until("version 3.0.0 is deployed", PATIENCE, async || {
        let output = get(&system, "probe", "k", &["--at", "FLIGHTS:1"])
            .await?
            .exits(1)?;
        ensure!(output.stderr.contains("used to read stream EVENTS"), "{output:?}");
        Ok(())
    })
    .await
}

/// What the version of that time would not take, the one of today would: it counts where it was redriven.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_failed_then_is_not_taken_twice() -> Result<()> {
    let system = System::start().await?;
    let large = one_partition(PROBE_MANIFEST);
    let small = large.replace("effects_bytes = 524288", "effects_bytes = 1024");
    system.plugins.put("probe", "1.0.0", PROBE, &small)?;
    let _host = system.launch.start().await?;
    let failed = system.tell("k", "add n 1\nfill c 1 2000").await?;
    system.dead_letter("probe", &failed).await?;
    // And once more when it was redriven.
    let redrive = ["dead-letters", "redrive", "probe", &failed];
    system.weir.run(&redrive).await?.exits(0)?;
    system.dead_letter("probe", &failed).await?;
    system.tell("k", "add n 10").await?;
    let before = settle(&system, 1, "events.marks", "before").await?;
    let points = vec![before.to_string(), now()?];
    let before = Moment::take(&system, &["probe"], &["k"], points).await?;
    let goes_over = async |version: &str, manifest: &str| {
        system.plugins.put("probe", version, PROBE, manifest)?;
        until(&format!("version {version} runs"), PATIENCE, async || {
            let handler = system.weir.handler("probe").await?;
            ensure!(handler["version"] == version, "{handler}");
            Ok(())
        })
        .await
    };
    goes_over("2.0.0", &large).await?;
    // It is a dead letter still.
    before.check(&system).await?;
    system.weir.run(&redrive).await?.exits(0)?;
    until("the redriven event is handled", PATIENCE, async || {
        let (cells, _) = cells(&system, "probe", "k", None).await?;
        ensure!(cells["n"] == "11", "{cells:?}");
        Ok(())
    })
    .await?;
    let after = settle(&system, 1, "events.marks", "after").await?;
    let points = vec![after.to_string(), now()?];
    let after = Moment::take(&system, &["probe"], &["k"], points).await?;
    for moment in [&before, &after] {
        let said = moment.check(&system).await?;
        ensure!(!said.contains("failed here"), "{said}");
    }
    // What failed by the code of today, and not in its time, is said.
    goes_over("3.0.0", &small).await?;
    let (_, said) = cells(&system, "probe", "k", Some(&now()?)).await?;
    ensure!(said.contains("failed here and is not in it"), "{said}");
    Ok(())
}

/// From its ledger Weir itself removes what is done with: that is no event that expired.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_a_source_like_any() -> Result<()> {
    let system = System::start().await?;
    system.rotations()?;
    let tally = TALLY_MANIFEST
        .replace("FLIGHTS", LEDGER)
        .replace("flights.>", "rotations.>");
    system.plugins.put("tally", "1.0.0", TALLY, &tally)?;
    let host = system.launch.start().await?;
    for n in 0..4 {
        let flight = Outgoing::new("flights.k", format!("{{\"flight\":{n}}}"));
        system.bus.publish(flight).await?;
    }
    let emitted = system.emitted("rotations.k", 4).await?;
    until("all are tallied", PATIENCE, async || {
        let (cells, _) = cells(&system, "tally", "k", None).await?;
        ensure!(cells.get("n").is_some_and(|n| n == "4"), "{cells:?}");
        Ok(())
    })
    .await?;
    ensure!(host.term().await? == Some(0));
    let stream = system.bus.js.get_stream(LEDGER).await?;
    let purge = stream.purge().filter("$WEIR.LEDGER.c.>");
    purge.sequence(emitted[0].sequence).await?;
    ensure!(stream.get_info().await?.state.first_sequence > 1);
    for (n, event) in (1_u64..).zip(&emitted) {
        let at = format!("{LEDGER}:{}", event.sequence);
        let (cells, said) = cells(&system, "tally", "k", Some(&at)).await?;
        ensure!(
            cells["n"].as_str() == Some(&*n.to_string()),
            "{at}: {cells:?}\n{said}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_is_refused() -> Result<()> {
    let mut system = System::start().await?;
    system.launch.subjects = "rotations.>,out.>,notifications.>".into();
    system.rotations()?;
    system.plugins.put("notify", "1.0.0", NOTIFY, ACTIVITY)?;
    system.plugins.put("sharer", "1.0.0", SHARER, PROBE_MANIFEST)?;
    let _host = system.launch.start().await?;
    for n in 0..4 {
        system
            .bus
            .publish(Outgoing::new("flights.k", format!("{{\"flight\":{n}}}")))
            .await?;
    }
    // It imports what is shared, and uses it for the second event only.
    system.tell("k", "count n").await?;
    system.tell("k", "set seats 9").await?;
    system.emitted("rotations.k", 4).await?;
    for handler in ["sharer", "notify"] {
        system.weir.caught_up(handler).await?;
    }

    let refused = async |handler: &str, part: &str| {
        let output = get(&system, handler, "k", &["--at", "2"]).await?.exits(1)?;
        ensure!(
            output.stdout.is_empty() && output.stderr.contains(part),
            "{output:?}"
        );
        Ok(())
    };
    let before = cells(&system, "sharer", "k", Some("1")).await?;
    ensure!(before.0["n"] == "1", "{before:?}");
    refused("sharer", "used shared cells or locks for key k").await?;
    refused("notify", "is an activity").await?;
    refused("nobody", "nobody is not deployed").await?;

    // Another component of the same handler: what it kept may be something else.
    let wasm = std::fs::read(weir_tests::plugins::component(ROTATIONS)?)?;
    let before = cells(&system, "rotations", "k", Some("2")).await?;
    ensure!(
        before.0["n"] == "2" && !before.1.contains("versions"),
        "{before:?}"
    );
    let other = with_section(wasm);
    system
        .plugins
        .put_bytes("rotations", "2.0.0", &other, ROTATIONS_MANIFEST)?;
    until("version 2.0.0 runs", PATIENCE, async || {
        let handler = system.weir.handler("rotations").await?;
        ensure!(handler["version"] == "2.0.0", "{handler}");
        Ok(())
    })
    .await?;
    let after = cells(&system, "rotations", "k", Some("2")).await?;
    ensure!(
        after.0["n"] == "2" && after.1.contains("version 2.0.0") && after.1.contains("2 versions"),
        "{after:?}"
    );

    // Gaps may be anywhere; and what expired is missed at the beginning.
    system
        .bus
        .change("FLIGHTS", |settings| {
            settings["max_msgs_per_subject"] = 100.into()
        })
        .await?;
    refused("rotations", "keeps 100 messages of each subject").await?;
    system
        .bus
        .change("FLIGHTS", |settings| {
            settings["max_msgs_per_subject"] = (-1).into()
        })
        .await?;
    let stream = system.bus.js.get_stream("FLIGHTS").await?;
    stream.purge().sequence(3).await?;
    refused(
        "rotations",
        "from sequence 3 on, and handler rotations began at 1",
    )
    .await?;
    system.bus.delete("FLIGHTS").await?;
    system.bus.source("FLIGHTS", "flights.>").await?;
    refused("rotations", "deleted and created again").await
}

/// The same code in another file: a custom section is added.
fn with_section(mut component: Vec<u8>) -> Vec<u8> {
    component.extend([0, 2, 1, b'x']);
    component
}
