//! `weir dead-letters`: events that a handler would not take.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::print;
use crate::config::Options;
use crate::dead_letters::{DeadLetters, Error, Found};
use crate::log::Log;

/// Characters of a reason in the table.
const REASON_SHOWN: usize = 80;

const EXAMPLES: &str = "\
Examples:
  weir dead-letters list delays
  weir dead-letters show delays FLIGHTS:5012        why, and the original event
  weir dead-letters redrive delays FLIGHTS:5012     gives the event to the handler again, under the same id
  weir dead-letters redrive delays --all
  weir dead-letters drop delays --all --kind input  removes those that the handler was never called for";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Lists the dead letters of a handler
    #[command(after_help = EXAMPLES)]
    List {
        /// Name of the handler
        name: String,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows dead letters with their original bytes
    #[command(after_help = EXAMPLES)]
    Show {
        /// Name of the handler
        name: String,
        /// Ids of the events, like FLIGHTS:5012
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Gives events back to their handler and removes the dead letters
    #[command(after_help = EXAMPLES)]
    Redrive(Which),
    /// Removes dead letters
    #[command(after_help = EXAMPLES)]
    Drop(Which),
}

/// What [`Fault::kind`](crate::handler::Fault::kind) says, and `input` for what
/// no handler was called for.
const KINDS: [&str; 7] = [
    "reject",
    "retry",
    "trap",
    "timeout",
    "memory",
    "violation",
    "input",
];

#[derive(Debug, Args)]
pub struct Which {
    /// Name of the handler
    name: String,
    /// Ids of the events, like FLIGHTS:5012
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All there are
    #[arg(long)]
    all: bool,
    /// Of all, only those of one kind: reject, retry, trap, timeout, memory, violation or input
    #[arg(long, value_name = "KIND", requires = "all", value_parser = KINDS, hide_possible_values = true)]
    kind: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub async fn dead_letters(options: &Options, command: Command) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    match command {
        Command::List { name, json } => list(&log, &ledger, &name, json).await,
        Command::Show { name, ids, json } => show(&log, &ledger, &name, &ids, json).await,
        Command::Redrive(which) => each(&log, &ledger, &which, Act::Redrive).await,
        Command::Drop(which) => each(&log, &ledger, &which, Act::Drop).await,
    }
}

async fn list(log: &dyn Log, ledger: &str, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let names = super::names(log, ledger, name).await?;
    let found = DeadLetters::new(log, &names).list().await?;
    if json {
        print::json(
            &found
                .iter()
                .map(|found| describe(found, None))
                .collect::<Vec<_>>(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 6]> = found
        .iter()
        .map(|Found { letter, stored, .. }| {
            [
                letter.id.clone(),
                letter.key.clone(),
                print::time(*stored),
                letter.attempts.to_string(),
                letter.kind.clone(),
                print::cut(&letter.reason, REASON_SHOWN),
            ]
        })
        .collect();
    print::table(["ID", "KEY", "SINCE", "ATTEMPTS", "KIND", "REASON"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn show(
    log: &dyn Log,
    ledger: &str,
    name: &str,
    ids: &[String],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let names = super::names(log, ledger, name).await?;
    let letters = DeadLetters::new(log, &names);
    let mut documents = Vec::new();
    for id in ids {
        let found = letters.find(id).await?;
        let payload = match letters.payload(&found.letter).await {
            Ok(payload) => Ok(payload),
            // The description is still worth showing.
            Err(error @ (Error::PayloadGone { .. } | Error::SourceGone { .. })) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if json {
            let payload = match &payload {
                Ok(data) => print::value(data),
                Err(gone) => json!({ "error": gone }),
            };
            documents.push(describe(&found, Some(payload)));
            continue;
        }
        print::line(&page(&found))?;
        match payload {
            Ok(data) => {
                print::bytes(&data)?;
                print::line("")?;
            }
            Err(gone) => eprintln!("weir: {gone}"),
        }
    }
    if json {
        print::json(&documents)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A dead letter for people, without its payload.
fn page(found: &Found) -> String {
    let letter = &found.letter;
    let mut lines = vec![
        format!("id         {}", letter.id),
        format!("subject    {}", letter.subject),
        format!("key        {}", letter.key),
        format!("stored     {}", print::time(letter.time)),
        format!("since      {}", print::time(found.stored)),
        format!(
            "handler    {} {} ({}), partition {}",
            letter.handler, letter.handler_version, letter.handler_digest, letter.partition
        ),
        format!("attempts   {}", letter.attempts),
        format!("reason     {}: {}", letter.kind, letter.reason),
    ];
    lines.extend(letter.timer.iter().map(|timer| format!("timer      {timer}")));
    lines.extend(
        letter
            .headers
            .iter()
            .map(|(name, value)| format!("header     {name}: {value}")),
    );
    if letter.headers_dropped > 0 {
        lines.push(format!(
            "           and {} more, which were not kept",
            letter.headers_dropped
        ));
    }
    lines.extend(letter.backtrace.iter().map(|trace| format!("backtrace\n{trace}")));
    lines.push("payload".into());
    lines.join("\n")
}

/// A dead letter for programs.
fn describe(found: &Found, payload: Option<Value>) -> Value {
    let mut document = json!(found.letter);
    document["dead_since"] = json!(print::time(found.stored));
    document["record"] = json!(found.sequence);
    if let Some(payload) = payload {
        document["payload"] = payload;
    }
    document
}

#[derive(Clone, Copy)]
enum Act {
    Redrive,
    Drop,
}

/// Redrives or drops each; goes on after one that fails.
async fn each(log: &dyn Log, ledger: &str, which: &Which, act: Act) -> anyhow::Result<ExitCode> {
    let names = super::names(log, ledger, &which.name).await?;
    let letters = DeadLetters::new(log, &names);
    let chosen: Vec<Result<Found, String>> = if which.all {
        let of_kind = |found: &Found| which.kind.as_ref().is_none_or(|kind| *kind == found.letter.kind);
        letters
            .list()
            .await?
            .into_iter()
            .filter(of_kind)
            .map(Ok)
            .collect()
    } else {
        which.ids.iter().cloned().map(Err).collect()
    };
    let bar = progress(chosen.len());
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for one in chosen {
        let outcome = async {
            let found = match &one {
                Ok(found) => found.clone(),
                Err(id) => letters.find(id).await?,
            };
            match act {
                Act::Redrive => letters.redrive(&found).await,
                Act::Drop => letters.forget(&found).await,
            }
        };
        let outcome = outcome.await;
        let id = one.map_or_else(|id| id, |found| found.letter.id);
        match outcome {
            Ok(()) => done.push(id),
            Err(error) => {
                bar.suspend(|| eprintln!("weir: {error}"));
                failed.push(json!({ "id": id, "error": error.to_string() }));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let word = match act {
        Act::Redrive => "redriven",
        Act::Drop => "dropped",
    };
    if which.json {
        print::json(&json!({ word: done, "failed": failed }))?;
    } else {
        eprintln!("{} {word}, {} failed", done.len(), failed.len());
    }
    Ok(match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(super::FAILED),
    })
}

/// A bar on a terminal; nothing elsewhere, nor for one or two.
fn progress(total: usize) -> ProgressBar {
    const WORTH_A_BAR: usize = 3;
    if total < WORTH_A_BAR || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}").expect("a valid template");
    ProgressBar::new(total as u64).with_style(style)
}
