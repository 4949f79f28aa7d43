//! Locks on real hosts: many keys of several hosts that freeze contend for a few; an operator and
//! services that are no handlers take part.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use weir_tests::bus::{Bus, Outgoing};
use weir_tests::plugins::SHARER;
use weir_tests::system::{LEDGER, System};
use weir_tests::{PATIENCE, seed, until};

const MANIFEST: &str = r#"
partitions = 12
[[source]]
stream = "EVENTS"
subjects = ["events.>"]
[key]
subject_token = 2
[emit]
subjects = ["out.>"]
"#;

/// Critical sections of the contended test; `WEIR_SECTIONS` says otherwise.
const SECTIONS: usize = 400;
const LOCKS: usize = 4;
const KEYS: usize = 24;

/// Time that a section may take: freezes last longer.
const TTL_MS: u64 = 1_000;

fn sections() -> Result<usize> {
    match std::env::var("WEIR_SECTIONS") {
        Ok(text) => text.parse().context("WEIR_SECTIONS is a number"),
        Err(_) => Ok(SECTIONS),
    }
}

/// Each section is two events: one that enters, when the lock is free, and one that leaves. Hosts
/// are frozen past the locks' time and killed meanwhile. In the order of the ledger, nobody enters
/// while another is inside, tokens rise, and whoever lost the lock leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn critical_sections_do_not_overlap() -> Result<()> {
    let (sections, seed) = (sections()?, seed());
    println!("seed {seed}, {sections} sections");
    let mut random = StdRng::seed_from_u64(seed);
    let system = System::start().await?;
    system.plugins.put("sharer", "1", SHARER, MANIFEST)?;
    let mut hosts = Vec::new();
    for name in ["a", "b", "c"] {
        hosts.push(system.launch.clone().name(name).start().await?);
    }
    let begin = Instant::now();
    let events: Vec<Outgoing> = (0..sections)
        .flat_map(|n| {
            let (key, lock) = (n % KEYS, (n / KEYS + n) % LOCKS);
            let enter = format!("lock van{lock} {TTL_MS} out.van{lock}.enter");
            let leave = format!("leave van{lock} {TTL_MS} out.van{lock}.leave");
            [enter, leave].map(|program| Outgoing::new(format!("events.k{key}"), program))
        })
        .collect();
    for (n, chunk) in events.chunks(events.len().div_ceil(8)).enumerate() {
        system.bus.publish_all(chunk).await?;
        let frozen = random.random_range(0..hosts.len());
        match n % 4 {
            3 => {
                let name = ["a", "b", "c"][frozen];
                let again = system.launch.clone().name(name);
                std::mem::replace(&mut hosts[frozen], again.spawn()?)
                    .kill()
                    .await?;
            }
            _ => {
                hosts[frozen].stop().await?;
                // What is frozen has to be so for longer than its lock lasts: nothing else ends it.
                tokio::time::sleep(Duration::from_millis(TTL_MS + random.random_range(0..1_000))).await;
                hosts[frozen].cont().await?;
            }
        }
    }
    until("every section is over", 5 * PATIENCE, async || {
        let left: usize = system.bus.read(LEDGER, "out.*.leave").await?.len();
        ensure!(left == sections, "{left} of {sections}");
        Ok(())
    })
    .await?;
    let took = begin.elapsed();

    let mut inside: BTreeMap<String, u64> = BTreeMap::new();
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    let (mut entered, mut lost) = (0, 0);
    // When each was left, and how long the next one waited for it from then on.
    let (mut left, mut waited) = (BTreeMap::new(), Vec::new());
    for message in system.bus.read(LEDGER, "out.>").await? {
        let mut tokens = message.subject.split('.').skip(1);
        let (van, what) = (
            tokens.next().unwrap_or_default(),
            tokens.next().unwrap_or_default(),
        );
        let at = format!("{} at {}", message.subject, message.sequence);
        let text = message.text();
        if text == "<lost>" {
            lost += 1;
            continue;
        }
        let token: u64 = text.parse().with_context(|| at.clone())?;
        let before = highest.insert(van.to_owned(), token).unwrap_or(0);
        if what == "enter" {
            entered += 1;
            ensure!(token > before, "{at}: token {token} after {before}");
            inside.insert(van.to_owned(), token);
            let since = left.remove(van);
            waited.extend(since.map(|since: u64| message.time.saturating_sub(since)));
        } else {
            // One that found its lock given up, and free, has taken it anew to leave.
            ensure!(
                token >= before,
                "{at}: token {token} left after {before} had entered"
            );
            inside.remove(van);
            left.insert(van.to_owned(), message.time);
        }
    }
    ensure!(entered == sections, "{entered} entered");
    waited.sort_unstable();
    let ms = |ns: Option<&u64>| ns.map_or(0.0, |ns| *ns as f64 / 1e6);
    println!(
        "from one leaving to the next entering: median {:.1} ms, longest {:.1} ms",
        ms(waited.get(waited.len() / 2)),
        ms(waited.last())
    );
    println!(
        "{sections} sections in {:.1} s, {:.0} a second; {lost} found their lock taken after it had expired; none overlapped",
        took.as_secs_f64(),
        sections as f64 / took.as_secs_f64()
    );
    for host in &hosts {
        let said = host.stderr();
        ensure!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

async fn ask(bus: &Bus, verb: &str, request: Value) -> Result<Value> {
    let subject = format!("weir.{LEDGER}.locks.{verb}");
    let answer = bus.client.request(subject, request.to_string().into()).await?;
    Ok(serde_json::from_slice(&answer.payload)?)
}

/// A handler, a service over plain NATS and an operator share a lock.
#[tokio::test(flavor = "multi_thread")]
async fn services_and_operators_take_part() -> Result<()> {
    let system = System::start().await?;
    system.plugins.put("sharer", "1", SHARER, MANIFEST)?;
    let _host = system.launch.clone().name("a").start().await?;
    let bus = &system.bus;
    let mine = json!({ "name": "van", "holder": "billing", "ttl_ms": 600_000 });
    let taken = ask(bus, "take", mine.clone()).await?;
    ensure!(taken["token"] == 1 && taken["until"].is_u64(), "{taken}");
    let extended = ask(bus, "take", mine).await?;
    ensure!(
        extended["token"] == 1 && extended["until"].as_u64() > taken["until"].as_u64(),
        "{extended}"
    );

    // A handler's event waits for it, and is told when it is given back.
    system.tell("k", "lock van 600000 out.k").await?;
    system.tell("other", "emit out.other passes").await?;
    system.emitted("out.other", 1).await?;
    ensure!(bus.read(LEDGER, "out.k").await?.is_empty());
    let stale = json!({ "name": "van", "holder": "billing", "token": 0 });
    ensure!(ask(bus, "free", stale).await? == json!({ "freed": false }));
    let free = json!({ "name": "van", "holder": "billing", "token": 1 });
    ensure!(ask(bus, "free", free.clone()).await? == json!({ "freed": true }));
    ensure!(ask(bus, "free", free).await? == json!({ "freed": false }));
    ensure!(system.emitted("out.k", 1).await?[0].text() == "2");

    let other = json!({ "name": "van", "holder": "billing", "ttl_ms": 1_000 });
    let held = ask(bus, "take", other.clone()).await?;
    ensure!(held["held_by"] == "sharer/k", "{held}");
    let listed: Value = system.weir.json(&["locks", "list"]).await?;
    ensure!(listed[0]["name"] == "van" && listed[0]["token"] == 2, "{listed}");
    ensure!(
        listed[0]["holder"]["key"]["key"] == "k" && listed[0]["expired"] == false,
        "{listed}"
    );

    // Taken away by an operator, it is the next one's, and its holder's commits are refused.
    let broken = system.weir.run(&["locks", "break", "van"]).await?.exits(0)?;
    ensure!(broken.stdout.contains("taken from sharer/k"), "{}", broken.stdout);
    ensure!(ask(bus, "take", other).await?["token"] == 3);
    system.tell("k", "leave van 1000 out.k").await?;
    ensure!(system.emitted("out.k", 2).await?[1].text() == "<lost>");
    system.weir.run(&["locks", "break", "none"]).await?.exits(1)?;

    for (verb, wrong, part) in [
        ("take", json!({ "name": "van" }), "missing field"),
        (
            "take",
            json!({ "name": "", "holder": "x", "ttl_ms": 1 }),
            "must not be empty",
        ),
        ("keep", json!({}), "is not take or free"),
    ] {
        let answer = ask(bus, verb, wrong).await?;
        ensure!(
            answer["error"].as_str().is_some_and(|e| e.contains(part)),
            "{answer}"
        );
    }
    Ok(())
}
