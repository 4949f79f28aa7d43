//! One spec, many languages: `rotations` of every guest language, and as it was
//! compiled against every released version of the interface, through a real NATS.
//! What comes out is compared byte for byte with what the contract says, so all
//! are also the same as each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::prelude::*;
use serde_json::json;
use wasmparser::{Parser, Payload};
use weir_tests::bus::Outgoing;
use weir_tests::plugins::{SHARER, component, repository};
use weir_tests::system::System;
use weir_tests::{PATIENCE, seed, until};

/// The key is in a header, so that it can be any text at all.
const MANIFEST: &str = r#"
partitions = 4

[[source]]
stream = "FLIGHTS"
subjects = ["flights.>"]

[key]
header = "Key"

[emit]
subjects = ["rotations.*"]

[limits]
memory_mib = 64
time_ms = 1000

[retry]
attempts = 2
backoff_ms = [20]
"#;

/// Keys that are easy to get wrong, as a subject's token or in JSON.
const KEYS: [&str; 12] = [
    "N14228",
    "a.b.*.>",
    "with space",
    "quo\"te\\back/slash",
    "<b>&amp;'",
    "tab\tand\u{1}control\u{7f}",
    "ключ",
    "日本語",
    "🛩\u{fe0f}",
    "line\u{2028}and\u{2029}paragraph",
    "%41_-~",
    "0",
];

const EVENTS: usize = 600;

/// What `Weir-Test` has `rotations` do, and the dead letter that comes of it.
const FAILURES: [(&str, &str, &str, u32); 5] = [
    ("reject", "reject", "asked to reject", 1),
    ("retry", "retry", "asked to retry", 2),
    ("trap", "trap", "asked to trap", 2),
    ("spin", "timeout", "took longer than 1000 ms", 2),
    ("hoard", "memory", "needed more than 64 MiB", 2),
];

/// Languages whose `rotations` is at `plugins/<language>/rotations`.
const LANGUAGES: [&str; 5] = ["c", "go", "javascript", "python", "typescript"];

macro_rules! languages {
    ($($name:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() -> Result<()> {
            conforms(&component(concat!("plugins/", stringify!($name), "/rotations"))?).await
        }
    )* };
}

languages! { c go javascript python typescript }

#[tokio::test(flavor = "multi_thread")]
async fn rust() -> Result<()> {
    conforms(&component("plugins/rotations")?).await
}

/// Compiled when that version was released, and never since.
#[tokio::test(flavor = "multi_thread")]
async fn every_released_version_of_the_interface() -> Result<()> {
    let released = repository().join("wit/released");
    let mut versions = 0;
    for version in fs::read_dir(&released)? {
        let version = version?.file_name();
        let fixture = repository()
            .join("tests/fixtures/wit")
            .join(&version)
            .join("rotations.wasm");
        conforms(&fixture)
            .await
            .with_context(|| format!("compiled against {}", version.display()))?;
        versions += 1;
    }
    ensure!(versions > 0, "no version is released");
    Ok(())
}

/// A language that is added has to be in the list above.
#[test]
fn every_language_is_tested() -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(repository().join("plugins"))? {
        let folder = entry?.path();
        if folder.join("rotations/handler.toml").is_file() {
            found.extend(folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    found.sort();
    ensure!(found == LANGUAGES, "{found:?}");
    Ok(())
}

/// Of a handler that imports `shared`, hosts keep what its groups may have to be taken back to. Where
/// the tools of a language allow it, only handlers that use it import it.
#[test]
fn what_is_shared_is_imported_only_where_it_is_used() -> Result<()> {
    for (guest, uses) in [
        ("plugins/rotations", false),
        ("plugins/c/rotations", false),
        ("plugins/go/rotations", false),
        (SHARER, true),
        ("tests/fixtures/guests/go/sharer", true),
    ] {
        let module = fs::read(component(guest)?)?;
        let imports = imports(&module).with_context(|| guest.to_owned())?;
        let imported = imports
            .iter()
            .any(|from| from.starts_with("weir:handler/shared@"));
        ensure!(imported == uses, "{guest} imports from {imports:?}");
    }
    Ok(())
}

/// What a core module imports from.
fn imports(module: &[u8]) -> Result<BTreeSet<String>> {
    ensure!(Parser::is_core_wasm(module), "not a core module");
    let mut found = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(imports) = payload? {
            for import in imports.into_imports() {
                found.insert(import?.module.to_owned());
            }
        }
    }
    Ok(found)
}

async fn conforms(component: &Path) -> Result<()> {
    let system = System::start().await?;
    let bytes = fs::read(component)
        .with_context(|| format!("{}: build it with `cargo xtask plugins`", component.display()))?;
    system.plugins.put_bytes("rotations", "1.0.0", &bytes, MANIFEST)?;
    let host = system.launch.start().await?;

    let mut expected = Expected::default();
    let mut rng = StdRng::seed_from_u64(seed());
    let keys: Vec<&str> = (0..EVENTS)
        .map(|_| *KEYS.choose(&mut rng).unwrap_or(&"0"))
        .collect();
    let events: Vec<Outgoing> = keys.iter().map(|key| event(key)).collect();
    system.bus.publish_all(&events).await?;
    for (index, key) in keys.iter().enumerate() {
        expected.count(key, index as u64 + 1);
    }
    expected.check(&system).await?;

    for (order, kind, reason, attempts) in FAILURES {
        let key = KEYS[0];
        let failing = system.bus.publish(event(key).header("Weir-Test", order)).await?;
        let letter = system
            .dead_letter("rotations", &format!("FLIGHTS:{failing}"))
            .await
            .with_context(|| order.to_owned())?;
        ensure!(
            letter.kind == kind && letter.reason.contains(reason) && letter.attempts == attempts,
            "{order}: {letter:?}"
        );
        ensure!(
            kind != "trap" || letter.backtrace.is_some(),
            "a trap has a backtrace: {letter:?}"
        );
        // What it did before it failed is gone, and the next event finds a sound instance.
        expected.count(key, system.bus.publish(event(key)).await?);
        expected
            .check(&system)
            .await
            .with_context(|| format!("after {order}"))?;
    }
    ensure!(host.term().await? == Some(0));
    Ok(())
}

fn event(key: &str) -> Outgoing {
    Outgoing::new("flights.x", "{}").header("Key", key)
}

/// What the contract says must come out.
#[derive(Default)]
struct Expected {
    counts: BTreeMap<String, u64>,
    /// Payloads by subject, in order.
    emitted: BTreeMap<String, Vec<String>>,
    total: usize,
}

impl Expected {
    fn count(&mut self, key: &str, sequence: u64) {
        let n = self.counts.entry(key.into()).or_default();
        *n += 1;
        let payload = format!(
            "{{\"key\":{},\"n\":{n},\"of\":\"FLIGHTS:{sequence}\"}}",
            json!(key)
        );
        let subject = format!("rotations.{}", token(key));
        self.emitted.entry(subject).or_default().push(payload);
        self.total += 1;
    }

    async fn check(&self, system: &System) -> Result<()> {
        let read = system.emitted("rotations.*", self.total).await?;
        let mut emitted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in read {
            emitted
                .entry(message.subject.clone())
                .or_default()
                .push(message.text());
        }
        for (subject, payloads) in &self.emitted {
            ensure!(
                emitted.get(subject) == Some(payloads),
                "on {subject}:\n{:?}\ninstead of\n{payloads:?}",
                emitted.get(subject)
            );
        }
        ensure!(emitted.len() == self.emitted.len(), "{:?}", emitted.keys());
        for (key, n) in &self.counts {
            until("the cell holds the count", PATIENCE, async || {
                let cells = system.weir.cells("rotations", key).await?;
                ensure!(
                    cells == BTreeMap::from([("n".into(), n.to_string())]),
                    "{cells:?}"
                );
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// A key as one token of a subject, as the contract says.
fn token(key: &str) -> String {
    let mut token = String::new();
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token.push(byte.into()),
            other => write!(token, "%{other:02X}").expect("a string takes everything"),
        }
    }
    token
}
