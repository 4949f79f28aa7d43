//! Sagas and aggregates on real hosts: many sagas whose steps fail in every way there is, a host killed in the
//! middle of them, and an operator who settles what is stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use weir::sagas::{Saga, Status};
use weir_tests::bus::Outgoing;
use weir_tests::system::{LEDGER, System};
use weir_tests::{PATIENCE, seed, until};

const SAGA: &str = "tests/fixtures/guests/saga";
const DESK: &str = "tests/fixtures/guests/desk";
const TAB: &str = "tests/fixtures/guests/tab";

/// All that saga and desk say to each other.
const SUBJECTS: &str =
    "do.*.*,undo.*.*,done.*.*,refused.*.*,undone.*.*,unable.*.*,books.*.*,ended.*,bar.tab.>";

const DESK_MANIFEST: &str = r#"
partitions = 4
[[source]]
stream = "LEDGER"
subjects = ["do.*.*", "undo.*.*"]
[key]
subject_token = 3
[emit]
subjects = ["done.*.*", "refused.*.*", "undone.*.*", "unable.*.*", "books.*.*"]
"#;

fn saga_manifest(timeout_ms: u32) -> String {
    format!(
        r#"
partitions = 4
[[source]]
stream = "EVENTS"
subjects = ["events.new.*"]
[[source]]
stream = "LEDGER"
subjects = ["done.*.*", "refused.*.*", "undone.*.*", "unable.*.*"]
[key]
subject_token = 3
[emit]
subjects = ["do.*.*", "undo.*.*", "ended.*"]
[config]
timeout_ms = "{timeout_ms}"
"#
    )
}

/// Sagas of the test with kills, in chunks; the host is killed in the middle of each but the last.
const CHUNKS: usize = 6;
const CHUNK_SAGAS: usize = 50;

/// Time for an answer in that test: less than a host takes to start, so that kills make late answers, too.
const TIMEOUT_MS: u32 = 700;

/// Everything else than that is an answer; see the guest `desk`.
const LETTERS: [&str; 12] = ["o", "o", "o", "o", "o", "t", "lo", "so", "llo", "r", "l", "s"];
const UNDO_LETTERS: [&str; 6] = ["o", "o", "t", "lo", "ro", "srlo"];

/// One that needs an operator: it refuses as often as a saga asks by itself.
const STUBBORN: &str = "rrrro";

async fn system() -> Result<System> {
    let mut system = System::start().await?;
    system.launch.subjects = SUBJECTS.into();
    system.plugins.put("desk", "1", DESK, DESK_MANIFEST)?;
    Ok(system)
}

async fn order(system: &System, id: &str, order: &Value) -> Result<()> {
    let event = Outgoing::new(format!("events.new.{id}"), order.to_string());
    // Twice, under two ids of their own: a saga begins once.
    system.bus.publish(event.clone().id(format!("{id}-a"))).await?;
    system.bus.publish(event.id(format!("{id}-b"))).await?;
    Ok(())
}

async fn sagas(system: &System) -> Result<Vec<Saga>> {
    system.weir.json(&["sagas", "list", "saga"]).await
}

async fn saga(system: &System, id: &str) -> Result<Saga> {
    system.weir.json(&["sagas", "show", "saga", id]).await
}

/// Waits until all of them are at rest, and returns them.
async fn at_rest(system: &System, count: usize) -> Result<Vec<Saga>> {
    until(&format!("{count} sagas are at rest"), PATIENCE, async || {
        let all = sagas(system).await?;
        let moving = |saga: &&Saga| matches!(saga.status, Status::Running | Status::Compensating);
        let moves = all.iter().find(moving);
        ensure!(
            all.len() == count && moves.is_none(),
            "{} of them, and {moves:?}",
            all.len()
        );
        Ok(all)
    })
    .await
}

async fn is(system: &System, id: &str, status: Status) -> Result<Saga> {
    until(
        &format!("saga {id} is {}", status.as_str()),
        PATIENCE,
        async || {
            let saga = saga(system, id).await?;
            ensure!(saga.status == status, "{saga:?}");
            Ok(saga)
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_saga_ends_once_whatever_is_killed() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed());
    let system = system().await?;
    system
        .plugins
        .put("saga", "1", SAGA, &saga_manifest(TIMEOUT_MS))?;
    let mut host = system.launch.start().await?;
    let count = CHUNKS * CHUNK_SAGAS;
    let mut number = 0;
    for chunk in 0..CHUNKS {
        let before = system.bus.last_sequence(LEDGER).await?;
        for _ in 0..CHUNK_SAGAS {
            let mut letters = || *LETTERS.choose(&mut rng).expect("letters");
            let (charge, reserve, mut ship) = (letters(), letters(), letters());
            let mut undo = *UNDO_LETTERS.choose(&mut rng).expect("letters");
            if number % 60 == 0 {
                (ship, undo) = ("r", STUBBORN);
            }
            let it = json!({"charge": charge, "reserve": reserve, "ship": ship, "undo": undo});
            order(&system, &number.to_string(), &it).await?;
            number += 1;
        }
        if chunk == CHUNKS / 2 {
            // Another deployment, while sagas are between two steps.
            system
                .plugins
                .put("saga", "2", SAGA, &saga_manifest(TIMEOUT_MS + 1))?;
        }
        if chunk + 1 < CHUNKS {
            // Each saga is several commits, so that this is in the middle of them.
            system
                .progress(before, rng.random_range(1..CHUNK_SAGAS as u64))
                .await?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..50))).await;
            host.kill().await?;
            host = system.launch.start().await?;
        }
    }

    // What has used up its attempts waits for an operator, who has it tried again until it succeeds.
    let mut retried = BTreeSet::new();
    loop {
        let all = at_rest(&system, count).await?;
        let stuck: Vec<&Saga> = all.iter().filter(|saga| saga.status == Status::Stuck).collect();
        if stuck.is_empty() {
            break;
        }
        for saga in stuck {
            let why = saga.waits_for.as_deref().unwrap_or_default();
            ensure!(why.starts_with("an operator: "), "{saga:?}");
            // Whether a step that cannot be undone happened is known to people, or to nobody.
            let (id, gives_up) = (
                saga.id.as_str(),
                why.contains("cannot be undone") && retried.contains(&saga.id),
            );
            let command = if gives_up { "compensate" } else { "retry" };
            retried.insert(saga.id.clone());
            system.weir.run(&["sagas", command, "saga", id]).await?.exits(0)?;
            let updated = saga.updated;
            until(&format!("saga {id} has heard of it"), PATIENCE, async || {
                let now = self::saga(&system, id).await?;
                ensure!(now.updated > updated, "{now:?}");
                Ok(())
            })
            .await?;
        }
    }
    ensure!(!retried.is_empty(), "some were to need an operator");
    check(&system, count).await
}

/// Each saga is over in one way, and the desk's books say the same; no command went out twice.
async fn check(system: &System, count: usize) -> Result<()> {
    let all = sagas(system).await?;
    ensure!(all.len() == count, "{} sagas", all.len());
    let mut booked: BTreeMap<(String, String), i64> = BTreeMap::new();
    for message in system.bus.read(LEDGER, "books.*.*").await? {
        let mut tokens = message.subject.split('.').skip(1).map(str::to_owned);
        let (step, id) = (tokens.next().context("a step")?, tokens.next().context("an id")?);
        *booked.entry((id, step)).or_default() += message.text().parse::<i64>()?;
    }
    let mut statuses: BTreeMap<&str, usize> = BTreeMap::new();
    for saga in &all {
        *statuses.entry(saga.status.as_str()).or_default() += 1;
        let expected = match saga.status {
            Status::Completed => 1,
            Status::Compensated => 0,
            _ => anyhow::bail!("it is not over: {saga:?}"),
        };
        for step in ["charge", "reserve"] {
            let amount = booked.get(&(saga.id.clone(), step.into())).copied().unwrap_or(0);
            ensure!(amount == expected, "{step} is {amount} in the books: {saga:?}");
        }
        let shipped = booked
            .get(&(saga.id.clone(), "ship".into()))
            .copied()
            .unwrap_or(0);
        let given_up = saga.reason.as_deref() == Some("given up by an operator");
        ensure!(
            shipped == expected || given_up,
            "ship is {shipped} in the books: {saga:?}"
        );
    }
    println!("{statuses:?}");
    ensure!(statuses.len() == 2, "both ends were to be reached: {statuses:?}");

    let mut sent = BTreeSet::new();
    for subject in ["do.*.*", "undo.*.*"] {
        for message in system.bus.read(LEDGER, subject).await? {
            let header = |name: &str| message.header(name).unwrap_or_default().to_owned();
            let command = (header("Saga-Id"), header("Saga-Step"), header("Saga-Attempt"));
            let key = format!("order/{}/{}", command.0, command.1);
            ensure!(header("Idempotency-Key") == key, "{message:?}");
            ensure!(sent.insert(command), "sent twice: {message:?}");
        }
    }
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for message in system.bus.read(LEDGER, "ended.*").await? {
        if message.header("Event-Type") != Some("stuck") {
            *ended.entry(message.subject).or_default() += 1;
        }
    }
    ensure!(
        ended.len() == count && ended.values().all(|n| *n == 1),
        "{ended:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_retries_and_gives_up_sagas() -> Result<()> {
    let system = system().await?;
    // So long that nothing but the operator moves a saga whose answer is lost.
    system.plugins.put("saga", "1", SAGA, &saga_manifest(3_600_000))?;
    let _host = system.launch.start().await?;
    order(
        &system,
        "good",
        &json!({"charge": "o", "reserve": "o", "ship": "o", "undo": "o"}),
    )
    .await?;
    order(
        &system,
        "slow",
        &json!({"charge": "o", "reserve": "lo", "ship": "o", "undo": "o"}),
    )
    .await?;
    order(
        &system,
        "lost",
        &json!({"charge": "o", "reserve": "l", "ship": "o", "undo": "o"}),
    )
    .await?;
    let weir = &system.weir;
    is(&system, "good", Status::Completed).await?;
    let waits = |saga: Saga| {
        saga.waits_for
            .is_some_and(|what| what.starts_with("an answer to reserve: done.reserve.*"))
    };
    for id in ["slow", "lost"] {
        until(&format!("{id} waits for reserve"), PATIENCE, async || {
            ensure!(waits(saga(&system, id).await?));
            Ok(())
        })
        .await?;
    }

    let running: Vec<Saga> = weir
        .json(&["sagas", "list", "saga", "--status", "running"])
        .await?;
    let ids: BTreeSet<&str> = running.iter().map(|saga| saga.id.as_str()).collect();
    ensure!(ids == BTreeSet::from(["slow", "lost"]), "{ids:?}");
    let table = weir.run(&["sagas", "list", "saga"]).await?.exits(0)?.stdout;
    ensure!(
        table.contains("good") && table.contains("3/3") && table.contains("1/3"),
        "{table}"
    );
    let page = weir
        .run(&["sagas", "show", "saga", "slow"])
        .await?
        .exits(0)?
        .stdout;
    for part in [
        "status     running",
        "waits for  an answer to reserve",
        "charge",
        "pending",
    ] {
        ensure!(page.contains(part), "{part}: {page}");
    }

    let told: Value = weir.json(&["sagas", "retry", "saga", "slow"]).await?;
    ensure!(
        told["event"].as_str().is_some_and(|id| id.starts_with("LEDGER:")),
        "{told}"
    );
    let slow = is(&system, "slow", Status::Completed).await?;
    ensure!(slow.steps[1].attempts == 2, "{slow:?}");

    weir.run(&["sagas", "compensate", "saga", "lost"])
        .await?
        .exits(0)?;
    let lost = is(&system, "lost", Status::Compensated).await?;
    ensure!(
        lost.reason.as_deref() == Some("given up by an operator"),
        "{lost:?}"
    );
    let statuses: Vec<&str> = lost.steps.iter().map(|step| &*step.status).collect();
    ensure!(
        statuses == ["compensated", "compensated", "pending"],
        "{statuses:?}"
    );

    for (command, id, said) in [
        ("retry", "good", "saga good is completed: it is over"),
        ("compensate", "lost", "saga lost is compensated: it is over"),
        ("show", "none", "has no saga none; `weir sagas list saga`"),
        ("retry", "none", "has no saga none"),
    ] {
        let refused = weir.run(&["sagas", command, "saga", id]).await?.exits(1)?;
        ensure!(refused.stderr.contains(said), "{refused:?}");
    }
    let unknown = weir.run(&["sagas", "list", "nobody"]).await?.exits(1)?;
    ensure!(
        unknown.stderr.contains("nobody has committed nothing"),
        "{unknown:?}"
    );
    weir.run(&["sagas", "list", "saga", "--status", "odd"])
        .await?
        .exits(2)?;
    check(&system, 3).await
}

/// What an operator says cannot be said by a handler, nor by whoever publishes into a source.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_says_what_an_operator_says() -> Result<()> {
    let system = System::start().await?;
    system.bus.source("FORGED", "$WEIR.control").await?;
    let manifest = "partitions = 4\n[[source]]\nstream = \"FORGED\"\nsubjects = [\"$WEIR.control\"]\n\
                    [[source]]\nstream = \"EVENTS\"\nsubjects = [\"events.*\"]\n[emit]\nsubjects = [\"out.>\"]\n";
    system
        .plugins
        .put("probe", "1", weir_tests::plugins::PROBE, manifest)?;
    let _host = system.launch.start().await?;
    let forged = Outgoing::new("$WEIR.control", "emit out.forged x");
    system.bus.publish(forged).await?;
    let emitted = system.tell("a", "emit $WEIR.control x").await?;
    let letter = system.dead_letter("probe", &emitted).await?;
    ensure!(
        letter.kind == "violation" && letter.reason.contains("begin with $"),
        "{letter:?}"
    );
    system.tell("a", "emit out.true x").await?;
    system.emitted("out.true", 1).await?;
    system.weir.caught_up("probe").await?;
    ensure!(system.bus.count(LEDGER, "out.forged").await? == 0);
    Ok(())
}

/// An aggregate whose `evolve` panics at its second event: the first was emitted, and is not committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_evolve_commits_nothing_of_the_command() -> Result<()> {
    let mut system = System::start().await?;
    system.launch.subjects = SUBJECTS.into();
    let manifest = "partitions = 4\n[[source]]\nstream = \"EVENTS\"\nsubjects = [\"events.*\"]\n\
                    [key]\nsubject_token = 2\n[emit]\nsubjects = [\"bar.tab.>\"]\n\
                    [retry]\nattempts = 2\nbackoff_ms = [50]\n";
    system.plugins.put("tab", "1", TAB, manifest)?;
    let _host = system.launch.start().await?;
    let publish = async |amount: &str| system.bus.publish(Outgoing::new("events.ann", amount)).await;
    publish("10").await?;
    let unlucky = publish("14").await?;
    publish("0").await?;
    publish("6").await?;
    let events = system.emitted("bar.tab.ann", 4).await?;
    let versions: Vec<_> = events
        .iter()
        .filter_map(|event| event.header("Aggregate-Version"))
        .collect();
    ensure!(versions == ["1", "2", "3", "4"], "{versions:?}");
    let letter = system.dead_letter("tab", &format!("EVENTS:{unlucky}")).await?;
    ensure!(
        (letter.attempts, letter.kind.as_str()) == (2, "trap"),
        "{letter:?}"
    );
    ensure!(
        letter.reason.contains("seven is unlucky") || letter.backtrace.is_some(),
        "{letter:?}"
    );
    let cells = system.weir.cells("tab", "ann").await?;
    ensure!(
        cells["aggregate"] == r#"{"version":4,"state":{"total":16}}"#,
        "{cells:?}"
    );
    let rejected = system.emitted("bar.tab.ann.rejected", 1).await?;
    ensure!(
        rejected[0].text().contains(r#""version":2,"reason":"nothing""#),
        "{rejected:?}"
    );
    Ok(())
}
