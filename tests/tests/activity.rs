//! Activities: `plugins/notify` on a real host, against an outside world that fails.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use weir_tests::bus::Outgoing;
use weir_tests::outside::{Fate, Outside};
use weir_tests::seed;
use weir_tests::system::{Flights, LEDGER, System};

const NOTIFY: &str = "plugins/notify";

/// Orders of the long test.
const ORDERS: usize = 150;
const PARTITIONS: usize = 8;
/// How often the host is killed while requests are under way.
const KILLS: usize = 5;

/// Sources, key, subjects and limits of `notify`, which calls `host` and no other.
struct Notify {
    host: String,
    url: String,
    subject: &'static str,
    time_ms: u32,
    attempts: u32,
}

impl Notify {
    fn of(outside: &Outside) -> Notify {
        Notify {
            host: outside.address.to_string(),
            url: format!("http://{}/shipped", outside.address),
            subject: "events.shipped",
            time_ms: 1_000,
            attempts: 1_000,
        }
    }

    fn put(&self, system: &System, name: &str) -> Result<()> {
        let Notify {
            host,
            url,
            subject,
            time_ms,
            attempts,
        } = self;
        let manifest = format!(
            r#"
partitions = {PARTITIONS}

[[source]]
stream = "EVENTS"
subjects = ["{subject}"]

[key]
json = "/order"

[emit]
subjects = ["notifications.sent.*"]

[http]
hosts = ["{host}"]

[limits]
time_ms = {time_ms}

[retry]
attempts = {attempts}
backoff_ms = [20]

[config]
url = "{url}"
"#
        );
        system.plugins.put(name, "1.0.0", NOTIFY, &manifest)
    }
}

async fn start() -> Result<System> {
    let mut system = System::start().await?;
    system.launch.subjects = "notifications.>,rotations.>,out.>".into();
    Ok(system)
}

fn order(number: usize) -> String {
    format!("A-{number}")
}

async fn ship(system: &System, subject: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    let event = |number| {
        let data = format!(r#"{{"order":"{}","carrier":"UA"}}"#, order(number));
        Outgoing::new(subject, data).id(format!("{subject} {number}"))
    };
    system
        .bus
        .publish_all(&numbers.map(event).collect::<Vec<_>>())
        .await
}

/// The order that a request or an emitted event is about.
fn order_in(json: &[u8]) -> Result<String> {
    let value: Value = serde_json::from_slice(json)?;
    Ok(value["order"].as_str().context("no order")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_told_of_and_committed_once_whatever_fails() -> Result<()> {
    let seed = seed();
    let rng = Mutex::new(StdRng::seed_from_u64(seed));
    let outside = Outside::start(move |before| {
        let roll: u32 = rng.lock().expect("no panic").random_range(0..100);
        match (before, roll) {
            // Of each key at last one is answered.
            (4.., _) | (_, 0..55) => Fate::Accepted,
            (_, 55..75) => Fate::Busy,
            (_, 75..90) => Fate::Reset,
            _ => Fate::Hangs,
        }
    })
    .await?;
    let system = start().await?;
    Notify::of(&outside).put(&system, "notify")?;

    let mut host = system.launch.start().await?;
    for kill in 0..KILLS {
        let each = ORDERS / KILLS;
        ship(&system, "events.shipped", kill * each..(kill + 1) * each).await?;
        let before: usize = outside.asked().values().map(Vec::len).sum();
        outside.total(before + each / 2).await?;
        host.kill().await?;
        host = system.launch.start().await?;
    }
    system.emitted("notifications.sent.>", ORDERS).await?;
    system.weir.caught_up("notify").await?;

    let mut sent: BTreeMap<String, u32> = BTreeMap::new();
    for message in system.bus.read(LEDGER, "notifications.sent.>").await? {
        let value: Value = serde_json::from_slice(&message.data)?;
        ensure!(value["status"] == 202, "{value}");
        *sent.entry(order_in(&message.data)?).or_default() += 1;
    }
    ensure!(
        sent.len() == ORDERS && sent.values().all(|times| *times == 1),
        "each order is committed once: {sent:?}"
    );
    ensure!(system.weir.dead_letters("notify").await?.is_empty());

    // One key for each order and one order for each key, however often it was sent.
    let asked = outside.asked();
    let mut key_of: BTreeMap<String, &str> = BTreeMap::new();
    for (key, requests) in &asked {
        for (body, _) in requests {
            let order = order_in(body.as_bytes())?;
            let of = *key_of.entry(order.clone()).or_insert(key);
            ensure!(of == key, "{order} was sent with {of} and with {key}");
        }
        let accepted = requests.iter().any(|(_, fate)| *fate == Fate::Accepted);
        ensure!(accepted, "{key} was never accepted: {requests:?}");
    }
    ensure!(key_of.len() == ORDERS && asked.len() == ORDERS, "{key_of:?}");
    let requests: usize = asked.values().map(Vec::len).sum();
    let doubled = asked.values().filter(|requests| {
        let accepted = requests.iter().filter(|(_, fate)| *fate == Fate::Accepted);
        accepted.count() > 1
    });
    println!(
        "{requests} requests for {ORDERS} orders; {} were accepted more than once, by a host that was killed",
        doubled.count()
    );
    ensure!(requests > ORDERS, "nothing was sent again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_answer_and_commit_sends_the_same_key_again() -> Result<()> {
    let outside = Outside::start(|before| match before {
        0 => Fate::Hangs,
        _ => Fate::Accepted,
    })
    .await?;
    let system = start().await?;
    Notify {
        time_ms: 600_000,
        ..Notify::of(&outside)
    }
    .put(&system, "notify")?;
    let host = system.launch.start().await?;
    ship(&system, "events.shipped", 0..1).await?;
    // The server has it, and nobody will ever hear so.
    outside.hanging(1).await?;
    host.kill().await?;
    let _host = system.launch.start().await?;
    system.emitted("notifications.sent.>", 1).await?;
    let asked = outside.asked();
    ensure!(asked.len() == 1 && !asked.contains_key(""), "{asked:?}");
    ensure!(asked.values().all(|requests| requests.len() == 2), "{asked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_that_hang_hold_up_nobody_else_and_end_by_their_time() -> Result<()> {
    let outside = Outside::start(|_| Fate::Hangs).await?;
    let system = start().await?;
    system.rotations()?;
    let patient = Notify {
        time_ms: 600_000,
        ..Notify::of(&outside)
    };
    patient.put(&system, "patient")?;
    // One execution thread: a wait on it would be the end of everything.
    let host = system.launch.clone().with(&["--threads", "1"]).start().await?;
    ship(&system, "events.shipped", 0..100).await?;
    outside.hanging(PARTITIONS).await?;

    let mut flights = Flights::new(seed(), 50);
    flights.publish(&system.bus, 5_000).await?;
    system.all_counted(&flights).await?;
    ensure!(outside.hanging_now() == PARTITIONS, "all of them still wait");

    let impatient = Notify {
        subject: "events.late",
        time_ms: 200,
        attempts: 2,
        ..Notify::of(&outside)
    };
    impatient.put(&system, "impatient")?;
    ship(&system, "events.late", 0..1).await?;
    let id = format!("EVENTS:{}", system.bus.last_sequence("EVENTS").await?);
    let letter = system.dead_letter("impatient", &id).await?;
    ensure!(letter.kind == "timeout" && letter.attempts == 2, "{letter:?}");
    ensure!(
        letter.reason.contains("longer than 200 ms (time_ms in [limits]"),
        "{letter:?}"
    );

    // Both attempts had one key, and so has the event that is redriven.
    let asked_by_impatient = || {
        let mut asked = outside.asked();
        asked.retain(|_, requests| requests.len() > 1);
        asked
    };
    let before = asked_by_impatient();
    ensure!(before.len() == 1, "{before:?}");
    let redriven: Value = system
        .weir
        .json(&["dead-letters", "redrive", "impatient", &id])
        .await?;
    ensure!(redriven["failed"] == serde_json::json!([]), "{redriven}");
    system.dead_letter("impatient", &id).await?;
    outside.total(PARTITIONS + 4).await?;
    let after = asked_by_impatient();
    ensure!(
        after.keys().eq(before.keys()) && after.values().all(|requests| requests.len() == 4),
        "{after:?}"
    );

    // A host that is told to stop does not wait for them for ever.
    ensure!(outside.hanging_now() >= PARTITIONS);
    host.kill().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_does_not_name_is_never_called() -> Result<()> {
    let named = Outside::start(|_| Fate::Accepted).await?;
    let other = Outside::start(|_| Fate::Accepted).await?;
    let system = start().await?;
    Notify {
        url: format!("http://{}/shipped", other.address),
        ..Notify::of(&named)
    }
    .put(&system, "notify")?;
    let host = system.launch.start().await?;
    ship(&system, "events.shipped", 0..1).await?;
    let letter = system.dead_letter("notify", "EVENTS:1").await?;
    let expected = format!("{} is not among [http] hosts of handler.toml", other.address);
    ensure!(
        letter.kind == "reject" && letter.reason.contains(&expected),
        "{letter:?}"
    );
    host.says("request denied: its host is not among").await?;
    ensure!(other.asked().is_empty() && named.asked().is_empty());
    Ok(())
}
