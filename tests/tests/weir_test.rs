//! `weir test`, as a handler's author uses it: the real command on the guests of this
//! repository, without a server.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::host::{Output, weir};
use weir_tests::plugins::{PROBE, Plugins, ROTATIONS, repository};

/// The probe by the second token of the subject: what each event does stands in it.
const PROBE_MANIFEST: &str = "\
    partitions = 4\n\
    [[source]]\nstream = \"EVENTS\"\nsubjects = [\"events.>\"]\n\
    [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n\
    [retry]\nattempts = 3\nbackoff_ms = [100, 5000]\n";

/// A folder with the probe, and the events that a test gives it.
struct Trial {
    plugins: Plugins,
}

impl Trial {
    fn new(events: &[&str]) -> Result<Trial> {
        let plugins = Plugins::new()?;
        plugins.put("probe", "1", PROBE, PROBE_MANIFEST)?;
        let trial = Trial { plugins };
        trial.write("events.jsonl", &events.join("\n"))?;
        Ok(trial)
    }

    fn folder(&self) -> std::path::PathBuf {
        self.plugins.path().join("probe")
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.folder().join(file), text)?)
    }

    fn read(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder().join(file))?)
    }

    async fn run(&self, flags: &[&str]) -> Result<Output> {
        test(&self.folder(), flags).await
    }

    /// Effects as `--json` prints them.
    async fn lines(&self) -> Result<Vec<Value>> {
        let output = self.run(&["--json"]).await?.exits(0)?;
        let lines = output.stdout.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }
}

async fn test(handler: &Path, flags: &[&str]) -> Result<Output> {
    let data = repository().join("target/tmp/weir");
    let (handler, data) = (handler.display().to_string(), data.display().to_string());
    weir(&[&["test", &handler, "--data", &data], flags].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_does_is_shown() -> Result<()> {
    let trial = Trial::new(&[
        r#"{"subject": "events.a", "text": "set c one\nset gone x\nemit out.x {\"n\": 1.0}\nemit-header out.h A b\nlog info hello"}"#,
        r#"{"subject": "events.a", "text": "set c two\ndelete gone\nevent out.event", "headers": {"H": "v"}, "time": "2026-01-01T00:10:00Z"}"#,
        r#"{"subject": "events.b", "text": ""}"#,
    ])?;
    let output = trial.run(&[]).await?.exits(0)?;
    let expected = "\
EVENTS:1  events.a  key a  2026-01-01T00:00:00Z
  log     info: hello
  emit    out.x {\"n\": 1.0}
  emit    out.h [A: b] (empty)
  cell    c: (none) -> one
  cell    gone: (none) -> x
EVENTS:2  events.a  key a  2026-01-01T00:10:00Z
  emit    out.event id EVENTS:2\\nstream EVENTS\\nsequence 2\\nsubject events.a\\nkey a\\ntime 1767226200000000000\\ntimer <none>\\nheader H: v\\n
  cell    c: one -> two
  cell    gone: x -> (none)
EVENTS:3  events.b  key b  2026-01-01T00:10:01Z
  nothing
";
    ensure!(output.stdout == expected, "{}", output.stdout);
    ensure!(output.stderr == "3 events, 3 emitted\n", "{}", output.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_dead_letters_with_reason_and_backtrace() -> Result<()> {
    let trial = Trial::new(&[
        r#"{"subject": "events.a", "text": "panic at the disco"}"#,
        r#"{"subject": "events.a", "text": "retry later"}"#,
        r#"{"subject": "events.a", "text": "emit other.x no"}"#,
        r#"{"subject": "events.a", "text": "set kept 1\nreject never"}"#,
        r#"{"subject": "events", "text": ""}"#,
    ])
    .and_then(|trial| {
        // A subject without a second token has no key.
        let manifest = PROBE_MANIFEST.replace("\"events.>\"", "\"events.>\", \"events\"");
        trial.plugins.put("probe", "1", PROBE, &manifest)?;
        Ok(trial)
    })?;
    let output = trial.run(&[]).await?.exits(0)?;
    for said in [
        "failed  attempt 1: trap: panicked at",
        "again after 100 ms",
        "again after 5000 ms",
        "at the disco",
        "dead letter trap: ",
        "(3 attempts)",
        "probe::probe", // a name in the backtrace
        "dead letter retry: later (3 attempts)",
        "dead letter violation: ",
        "other.x",
        "dead letter reject: never (1 attempt)",
        "no key",
        "dead letter input: the subject events has no token 2 (the handler was not called)",
    ] {
        ensure!(
            output.stdout.contains(said),
            "it does not say {said:?}:\n{}",
            output.stdout
        );
    }
    ensure!(!output.stdout.contains("kept"), "{}", output.stdout);

    let lines = trial.lines().await?;
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line["dead_letter"]["kind"].clone())
        .collect();
    ensure!(
        kinds == ["trap", "retry", "violation", "reject", "input"],
        "{kinds:?}"
    );
    ensure!(
        lines[0]["failed_attempts"][1]["backoff_ms"] == 5000,
        "{}",
        lines[0]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_fire_in_virtual_time() -> Result<()> {
    let trial = Trial::new(&[
        r#"{"subject": "events.a", "text": "timer second 3000 emit out.t two\ntimer first 1000 emit out.t one; timer late 90000 emit out.t late"}"#,
        // At the moment at which `first` is due, which comes before it.
        r#"{"subject": "events.a", "text": "add n 1"}"#,
        r#"{"subject": "events.b", "text": "timer gone 1000 emit out.t never"}"#,
        r#"{"subject": "events.b", "text": "cancel gone\nadd n 1", "time": "2026-01-01T00:00:02.5Z"}"#,
        r#"{"subject": "events.a", "text": "add n 1", "time": "2026-01-01T00:00:10Z"}"#,
    ])?;
    let lines = trial.lines().await?;
    let order: Vec<String> = lines
        .iter()
        .map(|line| match line["timer"].as_str() {
            Some(timer) => format!("{timer} {}", line["time"].as_str().unwrap_or_default()),
            None => line["event"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    let expected = [
        "EVENTS:1",
        "first 2026-01-01T00:00:01Z",
        "EVENTS:2",
        "EVENTS:3",
        "EVENTS:4",
        "second 2026-01-01T00:00:03Z",
        "EVENTS:5",
        "late 2026-01-01T00:01:31Z",
    ];
    ensure!(order == expected, "{order:#?}");
    ensure!(lines[4]["cancelled"][0] == "gone", "{}", lines[4]);
    ensure!(lines[7]["emits"][0]["text"] == "late", "{}", lines[7]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_without_end_end() -> Result<()> {
    let trial = Trial::new(&[r#"{"subject": "events.a", "text": "renew tick 1000"}"#])?;
    let output = trial.run(&["--json"]).await?.exits(0)?;
    let fired = output
        .stdout
        .lines()
        .filter(|line| line.contains("\"timer\":\"tick\""))
        .count();
    ensure!(fired == 10, "{fired}: {}", output.stdout);
    ensure!(
        output.stderr.contains("timer tick of key a sets itself again"),
        "{}",
        output.stderr
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_shown_and_blessed() -> Result<()> {
    let trial = Trial::new(&[
        r#"{"subject": "events.a", "text": "add n 1"}"#,
        r#"{"subject": "events.a", "text": "add n 1"}"#,
    ])?;
    let blessed = trial.run(&["--bless"]).await?.exits(0)?;
    ensure!(blessed.stderr.contains("wrote"), "{blessed:?}");
    let expected = trial.read("expected.jsonl")?;
    let first = r#"{"event":"EVENTS:1","subject":"events.a","key":"a","cells":{"n":1}}"#;
    ensure!(expected.lines().next() == Some(first), "{expected}");
    let same = trial.run(&["--quiet"]).await?.exits(0)?;
    ensure!(same.stdout.is_empty() && same.stderr.contains("as "), "{same:?}");

    trial.write("expected.jsonl", &expected.replace("\"n\":2", "\"n\":3"))?;
    let different = trial.run(&["--quiet"]).await?.exits(1)?;
    let diff: Vec<&str> = different.stdout.lines().collect();
    ensure!(
        diff[0].starts_with("--- ")
            && diff[1] == "+++ what the handler does"
            && diff[2] == "@@ -1,2 +1,2 @@"
            && diff[3] == format!(" {first}")
            && diff[4]
                == "-{\"event\":\"EVENTS:2\",\"subject\":\"events.a\",\"key\":\"a\",\"cells\":{\"n\":3}}"
            && diff[5]
                == "+{\"event\":\"EVENTS:2\",\"subject\":\"events.a\",\"key\":\"a\",\"cells\":{\"n\":2}}",
        "{}",
        different.stdout
    );
    // With --json stdout is for programs.
    let different = trial.run(&["--json"]).await?.exits(1)?;
    ensure!(
        different.stdout.lines().all(|line| line.starts_with('{')),
        "{different:?}"
    );
    ensure!(
        different.stderr.contains("+++ what the handler does"),
        "{different:?}"
    );
    trial.run(&["--bless"]).await?.exits(0)?;
    ensure!(trial.read("expected.jsonl")? == expected);

    // Other events have other effects: the file beside the manifest is not theirs.
    let others = trial.folder().join("others.jsonl");
    fs::write(&others, r#"{"subject": "events.z"}"#)?;
    let others = others.display().to_string();
    trial.run(&["--events", &others]).await?.exits(0)?;
    trial.run(&["--events", &others, "--bless"]).await?.exits(2)?;
    let named = trial.folder().join("expected.jsonl").display().to_string();
    trial
        .run(&["--events", &others, "--expect", &named])
        .await?
        .exits(1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_2_and_names_the_place() -> Result<()> {
    for (line, said) in [
        ("nonsense", "events.jsonl:2: no JSON object"),
        (
            r#"{"subject": "elsewhere"}"#,
            "events.jsonl:2: subject: no [[source]] takes `elsewhere`; there are EVENTS (events.>)",
        ),
        (
            r#"{"subject": "events.a", "tmie": 1}"#,
            "events.jsonl:2: unknown field `tmie`",
        ),
        (
            r#"{"subject": "events.a", "time": "2020-01-01T00:00:00Z"}"#,
            "events.jsonl:2: time: `2020-01-01T00:00:00Z` is before",
        ),
    ] {
        let trial = Trial::new(&[r#"{"subject": "events.a"}"#, line])?;
        let output = trial.run(&[]).await?.exits(2)?;
        ensure!(
            output.stdout.is_empty() && output.stderr.contains(said),
            "{line}: {output:?}"
        );
    }

    let trial = Trial::new(&[])?;
    fs::remove_file(trial.folder().join("events.jsonl"))?;
    let output = trial.run(&[]).await?.exits(2)?;
    ensure!(output.stderr.contains("events.jsonl: cannot be read") && output.stderr.contains("--events"));
    trial.write("events.jsonl", "")?;
    trial.run(&["--expect", "/no/such/file"]).await?.exits(2)?;

    // Not built yet: says what builds it.
    fs::remove_file(trial.folder().join("guest.wasm"))?;
    let output = trial.run(&[]).await?.exits(2)?;
    ensure!(output.stderr.contains("there is no file"), "{output:?}");
    trial.write("Cargo.toml", "")?;
    let output = trial.run(&[]).await?.exits(2)?;
    ensure!(
        output.stderr.contains("build it with: cargo build --release"),
        "{output:?}"
    );
    trial.write("Makefile", "")?;
    let output = trial.run(&[]).await?.exits(2)?;
    ensure!(output.stderr.contains("build it with: make -C "), "{output:?}");

    // Built, and no component: that is the file's fault.
    trial.write("guest.wasm", "#!/bin/sh\n")?;
    let output = trial.run(&[]).await?.exits(1)?;
    ensure!(output.stderr.contains("not WebAssembly"), "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_counts_what_a_host_would_count() -> Result<()> {
    let folder = TempDir::new()?;
    let events = folder.path().join("flights.jsonl");
    fs::write(
        &events,
        "{\"subject\": \"flights.JFK.UA\", \"data\": {\"tailnum\": \"N1 4.8\"}, \"headers\": {\"Weir-Test\": \"\"}}\n\
         {\"subject\": \"flights.JFK.UA\", \"data\": {\"tailnum\": null}}\n\
         {\"subject\": \"flights.JFK.UA\", \"data\": {\"tailnum\": \"N1 4.8\"}}\n",
    )?;
    let handler = repository().join(ROTATIONS);
    let output = test(&handler, &["--json", "--events", &events.display().to_string()])
        .await?
        .exits(0)?;
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let last = lines.last().context("three events")?;
    ensure!(last["emits"][0]["subject"] == "rotations.N1%204%2E8", "{last}");
    ensure!(
        output
            .stdout
            .contains(r#""data":{"key":"N1 4.8","n":2,"of":"FLIGHTS:3"}"#),
        "{}",
        output.stdout
    );
    ensure!(lines[1]["dead_letter"]["kind"] == "input", "{}", lines[1]);
    Ok(())
}

/// Every example does with its events what is written beside it.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_it_says() -> Result<()> {
    let mut folders = Vec::new();
    for parent in [
        "plugins",
        "plugins/c",
        "plugins/go",
        "plugins/javascript",
        "plugins/python",
        "plugins/typescript",
        "examples/shop",
    ] {
        for entry in fs::read_dir(repository().join(parent))? {
            folders.push(entry?.path());
        }
    }
    folders.retain(|folder| folder.join("handler.toml").is_file());
    for folder in &folders {
        let output = test(folder, &["--quiet"]).await?;
        let compared = output.stderr.contains("expected.jsonl expects");
        ensure!(compared, "{}: {output:?}", folder.display());
        output.exits(0)?;
    }
    ensure!(folders.len() >= 21, "{folders:?}");
    Ok(())
}

/// Clocks, random numbers and hash seeds of every language follow from the events: another
/// run sees the same. Clocks and random numbers follow from the one event: so does an
/// instance that has handled nothing before. And no two events see the same random numbers.
#[tokio::test(flavor = "multi_thread")]
async fn chance_is_the_same_each_time() -> Result<()> {
    for language in ["go", "javascript", "python"] {
        let folder = repository()
            .join("tests/fixtures/guests")
            .join(language)
            .join("chance");
        let first = test(&folder, &["--json"]).await?.exits(0)?.stdout;
        let again = test(&folder, &["--json"]).await?.exits(0)?.stdout;
        ensure!(first == again, "{language}: {first}\n{again}");
        let lines: Vec<Value> = first
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let drawn: Vec<&Value> = lines.iter().map(|line| &line["emits"][0]["data"]).collect();
        ensure!(drawn.len() == 3, "{language}: {first}");
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            for name in ["time", "random", "crypto", "uuid", "urandom"] {
                let (a, b) = (&drawn[a][name], &drawn[b][name]);
                ensure!(a.is_null() || a != b, "{language} drew {name} {a} twice");
            }
        }

        let copy = TempDir::new()?;
        fs::copy(folder.join("chance.wasm"), copy.path().join("chance.wasm"))?;
        fs::copy(folder.join("events.jsonl"), copy.path().join("events.jsonl"))?;
        let manifest = fs::read_to_string(folder.join("handler.toml"))?;
        let manifest = format!("instance = \"per-event\"\n{manifest}");
        fs::write(copy.path().join("handler.toml"), manifest)?;
        let alone = test(copy.path(), &["--json"]).await?.exits(0)?.stdout;
        let alone: Vec<Value> = alone
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        ensure!(alone.len() == lines.len(), "{language}: {alone:?}");
        for (line, alone) in lines.iter().zip(alone) {
            let drawn = |line: &Value| line["emits"][0]["data"].clone();
            let (reused, alone) = (drawn(line), drawn(&alone));
            ensure!(
                reused.is_object() && reused == alone,
                "{language}, in an instance of its own: {alone:?} and not {reused:?}"
            );
        }
    }
    Ok(())
}
