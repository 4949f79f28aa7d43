//! `weir test`: a handler on events from a file, without NATS.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use similar::{ChangeTag, TextDiff};

use super::{WrongUse, print, up};
use crate::deployment::manifest::{self, Manifest};
use crate::deployment::plugins::{self, Deployed};
use crate::handler::{Answers, CodeCache};
use crate::ledger;
use crate::stage::Outcome;
use crate::trial::report::{self, Paint};
use crate::trial::{Setup, Summary, Trial, events, responses, run};

/// Read beside the manifest where no other file is named.
const EVENTS_FILE: &str = "events.jsonl";
const EXPECTED_FILE: &str = "expected.jsonl";
const RESPONSES_FILE: &str = "responses.jsonl";

/// Lines of a difference that are shown around each change.
const CONTEXT_LINES: usize = 2;

const EXAMPLES: &str = "\
Examples:
  weir test .                                     events.jsonl, and expected.jsonl if it is there
  weir test plugins/delays --events late.jsonl    what the handler does with these events
  weir test . --bless                             keeps what it does as what is expected
  weir test . --events e.jsonl --expect x.jsonl   compares; exits with 1 on a difference
  weir test . --json | jq .emits

A line of the events file: {\"subject\": \"orders.7\", \"data\": {\"total\": 5}}
Also: text or data_base64 in place of data, headers, time (RFC 3339), stream. docs/testing.md has all of it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Folder with a handler.toml, or that file
    #[arg(value_name = "DIR")]
    handler: PathBuf,
    /// Events, one JSON object per line [default: events.jsonl beside the manifest]
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Expected effects; a difference exits with 1 [default: expected.jsonl beside the manifest, if it exists and --events is not given]
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// What an activity's requests are answered with, one JSON object per line [default: responses.jsonl beside the manifest, if it exists]
    #[arg(long, value_name = "FILE")]
    responses: Option<PathBuf>,
    /// Writes what the handler does to the file of expected effects
    #[arg(long)]
    bless: bool,
    /// Prints effects as JSON, one line per event
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Prints no effects, only differences
    #[arg(long, short)]
    quiet: bool,
    /// Folder for compiled code
    #[arg(long, value_name = "DIR", env = "WEIR_DATA", default_value = ".weir")]
    data: PathBuf,
}

pub async fn test(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = match arguments.handler.is_dir() {
        true => arguments.handler.clone(),
        false => arguments.handler.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let deployed = load(&arguments.handler, &folder)?;
    let file = arguments
        .events
        .clone()
        .unwrap_or_else(|| folder.join(EVENTS_FILE));
    let text = fs::read_to_string(&file).map_err(|error| {
        let hint = match arguments.events {
            Some(_) => "",
            None => "; name a file of events with --events",
        };
        WrongUse(format!("{}: cannot be read: {error}{hint}", file.display()))
    })?;
    let events = events::read(&file, &text, &deployed.manifest.sources)?;
    let answers = Arc::new(answers(&arguments, &folder)?);
    let expected = Expected::find(&arguments, &folder)?;

    let first = events.first().map_or(events::FIRST_TIME, |event| event.time);
    let setup = Setup {
        ledger_subjects: ledger_subjects(&deployed.manifest)?,
        answers,
        code_cache: CodeCache::new(&arguments.data),
    };
    let trial = Trial::new(deployed, setup, first).await?;
    let paint = Paint::of_stdout();
    let mut found = String::new();
    let show = |outcome: &Outcome| {
        found.push_str(&report::json_line(outcome, false));
        found.push('\n');
        match (arguments.json, arguments.quiet) {
            (true, _) => print::line(&report::json_line(outcome, true))?,
            (false, false) => print::line(&report::text(outcome, paint))?,
            (false, true) => {}
        }
        Ok(())
    };
    let summary = trial.run(&file, events, show).await?;
    tell(&summary);
    match expected {
        None => Ok(ExitCode::SUCCESS),
        Some(expected) if arguments.bless => expected.bless(&found),
        Some(expected) => expected.compare(&found, arguments.json),
    }
}

/// Reads what requests are answered with: the file that was named, or the one beside the manifest.
fn answers(arguments: &Arguments, folder: &Path) -> anyhow::Result<Answers> {
    let file = match &arguments.responses {
        Some(file) => file.clone(),
        None => folder.join(RESPONSES_FILE),
    };
    match fs::read_to_string(&file) {
        Ok(text) => Ok(responses::read(&file, &text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && arguments.responses.is_none() => {
            Ok(Answers::default())
        }
        Err(error) => bail!(WrongUse(format!("{}: cannot be read: {error}", file.display()))),
    }
}

/// Reads the handler; says how to build it where its component is missing.
fn load(path: &Path, folder: &Path) -> anyhow::Result<Deployed> {
    let file = match path.is_dir() {
        true => path.join(manifest::FILE_NAME),
        false => path.to_owned(),
    };
    plugins::load(&file).map_err(|error| {
        let component_missing = matches!(
            &error,
            plugins::Error::Manifest(manifest::Error::Invalid(error)) if error.field == "component"
        );
        let shown = match folder.as_os_str().is_empty() {
            true => ".".into(),
            false => folder.display().to_string(),
        };
        let builds = |file: &str| component_missing && folder.join(file).is_file();
        let hint = if builds("Makefile") {
            format!("\nbuild it with: make -C {shown}")
        } else if builds("Cargo.toml") {
            format!("\nbuild it with: cargo build --release --target wasm32-unknown-unknown --manifest-path {shown}/Cargo.toml")
        } else {
            String::new()
        };
        match &error {
            plugins::Error::Manifest(_) => WrongUse(format!("{error}{hint}")).into(),
            _ => anyhow::Error::from(error),
        }
    })
}

/// A ledger for all that the handler may emit, as `weir up` makes one.
fn ledger_subjects(manifest: &Manifest) -> anyhow::Result<Vec<String>> {
    let mut subjects = Vec::new();
    up::widen(&mut subjects, manifest.emit.iter());
    ledger::check_subjects(&subjects)
        .map_err(|problem| WrongUse(format!("[emit] subjects: no ledger can have them: {problem}")))?;
    Ok(subjects)
}

/// What there was, to stderr.
fn tell(summary: &Summary) {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut parts = vec![count(summary.events, "event")];
    if summary.timers > 0 {
        parts.push(format!("{} fired", count(summary.timers, "timer")));
    }
    parts.push(format!("{} emitted", summary.emits));
    if summary.dead_letters > 0 {
        parts.push(count(summary.dead_letters, "dead letter"));
    }
    if summary.parked > 0 {
        let verb = if summary.parked == 1 { "waits" } else { "wait" };
        parts.push(format!(
            "{} still {verb} for a lock",
            count(summary.parked, "event")
        ));
    }
    eprintln!("{}", parts.join(", "));
    for (key, name) in &summary.endless {
        eprintln!(
            "timer {name} of key {key} sets itself again; it fires {} times after the last event, and no more",
            run::FIRES_AFTER_LAST_MAX
        );
    }
}

/// The file of expected effects.
struct Expected {
    file: PathBuf,
    /// `None`: there is no such file yet, and it is to be written.
    text: Option<String>,
}

impl Expected {
    /// The file that was named; else the one beside the manifest, which belongs
    /// to the events beside it.
    fn find(arguments: &Arguments, folder: &Path) -> anyhow::Result<Option<Expected>> {
        let beside = folder.join(EXPECTED_FILE);
        let (file, must) = match &arguments.expect {
            Some(file) => (file.clone(), !arguments.bless),
            None if arguments.events.is_some() && arguments.bless => {
                bail!(WrongUse("name the file to write with --expect".into()))
            }
            None if arguments.events.is_some() => return Ok(None),
            None => (beside, false),
        };
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(Expected {
                file,
                text: Some(text),
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => {
                Ok(arguments.bless.then_some(Expected { file, text: None }))
            }
            Err(error) => bail!(WrongUse(format!("{}: cannot be read: {error}", file.display()))),
        }
    }

    fn bless(self, found: &str) -> anyhow::Result<ExitCode> {
        let shown = self.file.display();
        if self.text.as_deref() == Some(found) {
            eprintln!("{shown} is as it should be");
            return Ok(ExitCode::SUCCESS);
        }
        let folder = match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut whole = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            whole.permissions(fs::Permissions::from_mode(0o644));
        }
        let mut whole = whole
            .tempfile_in(folder)
            .with_context(|| format!("{shown}: cannot be written"))?;
        whole.write_all(found.as_bytes())?;
        whole
            .persist(&self.file)
            .with_context(|| format!("{shown}: cannot be written"))?;
        eprintln!("wrote {shown}, {} lines", found.lines().count());
        Ok(ExitCode::SUCCESS)
    }

    fn compare(self, found: &str, json: bool) -> anyhow::Result<ExitCode> {
        let shown = self.file.display();
        let expected = normal(self.text.as_deref().unwrap_or_default());
        if expected == found {
            eprintln!("as {shown} expects");
            return Ok(ExitCode::SUCCESS);
        }
        // Where stdout is for programs, the difference is not among its lines.
        let paint = match json {
            true => Paint::plain(),
            false => Paint::of_stdout(),
        };
        let difference = difference(&self.file, &expected, found, paint);
        match json {
            true => eprint!("{difference}"),
            false => print::bytes(difference.as_bytes())?,
        }
        eprintln!("weir: not what {shown} expects; --bless keeps what the handler does now");
        Ok(ExitCode::from(super::FAILED))
    }
}

/// Lines without the white space around them, and no empty ones: what an editor
/// may have changed.
fn normal(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// A unified difference from what was expected to what was found.
fn difference(file: &Path, expected: &str, found: &str, paint: Paint) -> String {
    let diff = TextDiff::from_lines(expected, found);
    let mut out = format!("--- {}\n+++ what the handler does\n", file.display());
    for hunk in diff.unified_diff().context_radius(CONTEXT_LINES).iter_hunks() {
        out.push_str(&format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let line = change.value().trim_end_matches('\n');
            let line = match change.tag() {
                ChangeTag::Delete => paint.red(&format!("-{line}")),
                ChangeTag::Insert => paint.green(&format!("+{line}")),
                ChangeTag::Equal => format!(" {line}"),
            };
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_that_an_editor_adds_makes_no_difference() {
        assert_eq!(normal("{\"a\":1}\r\n\n{\"b\":2}"), "{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn differences_are_unified() {
        let shown = difference(Path::new("x"), "a\nb\nc\n", "a\nB\nc\n", Paint::plain());
        let expected = "--- x\n+++ what the handler does\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
        assert_eq!(shown, expected);
    }
}
