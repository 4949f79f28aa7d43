//! `weir state`: what handlers keep.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use super::print;
use crate::config::Options;
use crate::handler::CodeCache;
use crate::history::{self, Folded, Point, Wanted};
use crate::log::Log;
use crate::state::query;

/// Digits of a digest that are shown.
const DIGEST_SHOWN: usize = 12;

/// Events that failed while state was folded, each shown with its reason.
const FAILURES_SHOWN: usize = 3;

const EXAMPLES: &str = "\
Examples:
  weir state get rotations N14228             every cell of a key
  weir state get rotations N14228 n           one cell, its bytes as they are
  weir state keys rotations N1                keys that begin with N1
  weir state get order 7 --at ORDERS:512      as it was once that event of a source was handled
  weir state get order 7 --at 2026-01-31T12:00:00Z

Committed state: the bucket with all commits since then on top. --checkpoint reads the bucket alone, as
`nats kv get` does. No host needs to run.

--at gives the handler, as it is deployed now, all events of the key up to that point again, here. A time takes what
was stored by then. Between sources, commit records say the order as far as there are any, else the times do. It is refused
where events have expired, and of handlers that use shared cells or call other services.
docs/patterns/event-sourcing.md says what is exact.";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Shows the cells of a key
    #[command(after_help = EXAMPLES)]
    Get {
        /// Name of the handler
        name: String,
        key: String,
        /// One cell, whose bytes are written as they are
        cell: Option<String>,
        /// Shows the state as it was: up to an event of a source, or a time (RFC 3339)
        #[arg(long, value_name = "STREAM:SEQ|SEQ|TIME", conflicts_with = "checkpoint")]
        at: Option<Point>,
        /// Folder for compiled code, for --at
        #[arg(long, value_name = "DIR", env = "WEIR_DATA", default_value = ".weir")]
        data: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Lists keys
    #[command(after_help = EXAMPLES)]
    Keys {
        /// Name of the handler
        name: String,
        /// What the keys begin with
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
pub struct How {
    /// Reads the checkpoint only, which may be some moments behind
    #[arg(long)]
    checkpoint: bool,
    /// Prints JSON: an object of cell names and values, text as it is, other bytes as {"base64": …}
    #[arg(long)]
    json: bool,
}

pub async fn state(options: &Options, command: Command) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    match command {
        Command::Get {
            name,
            key,
            cell,
            at,
            data,
            how,
        } => {
            let mut cells = match &at {
                Some(at) => {
                    let wanted = Wanted {
                        ledger: &ledger,
                        handler: &name,
                        key: &key,
                        at,
                    };
                    folded(&log, &wanted, CodeCache::new(&data)).await?
                }
                None => {
                    let names = super::names(&log, &ledger, &name).await?;
                    query::get(&log, &names, &key, how.checkpoint).await?
                }
            };
            if let Some(cell) = &cell {
                cells.retain(|name, _| name == cell);
            }
            if cells.is_empty() {
                let has = if at.is_some() { "had" } else { "has" };
                match cell {
                    Some(cell) => eprintln!("weir: handler {name} {has} no cell {cell} for key {key}"),
                    None => eprintln!("weir: handler {name} {has} no state for key {key}"),
                }
                return Ok(ExitCode::from(super::FAILED));
            }
            if how.json {
                let cells: Map<String, Value> = cells
                    .into_iter()
                    .map(|(name, data)| (name, print::value(&data)))
                    .collect();
                print::json(&cells)?;
            } else if let (Some(_), Some(data)) = (cell, cells.values().next()) {
                print::bytes(data)?;
            } else {
                let rows: Vec<[String; 3]> = cells
                    .iter()
                    .map(|(name, data)| [name.clone(), data.len().to_string(), print::shown(data)])
                    .collect();
                print::table(["CELL", "BYTES", "VALUE"], &rows)?;
            }
        }
        Command::Keys { name, prefix, how } => {
            let names = super::names(&log, &ledger, &name).await?;
            let keys = query::keys(&log, &names, &prefix, how.checkpoint).await?;
            if how.json {
                print::json(&keys)?;
            } else {
                for key in keys {
                    print::line(&key)?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The cells of a key as they were, by folding; how that was done goes to stderr.
async fn folded(
    log: &dyn Log,
    wanted: &Wanted<'_>,
    code_cache: CodeCache,
) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} messages")
            .expect("a template that a test has seen"),
    );
    bar.set_prefix(wanted.key.to_owned());
    let mut progress = |read, of| {
        bar.set_length(of);
        bar.set_position(read);
    };
    let folded = history::fold(log, wanted, code_cache, &mut progress).await;
    bar.finish_and_clear();
    let folded = folded?;
    for line in notes(&folded, wanted.handler) {
        eprintln!("weir: {line}");
    }
    Ok(folded.cells)
}

/// How it was folded, and what that leaves open.
fn notes(folded: &Folded, handler: &str) -> Vec<String> {
    let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut notes = vec![format!(
        "{} and {}, folded with version {} of {handler} ({}), deployment {}",
        count(folded.events, "event"),
        count(folded.timers, "timer"),
        folded.version,
        &folded.digest[..folded.digest.len().min(DIGEST_SHOWN)],
        folded.revision,
    )];
    if folded.versions > 1 {
        notes.push(format!(
            "{handler} has had {} versions (`weir handlers --history {handler}`): what an earlier one kept may have been \
             something else",
            folded.versions
        ));
    }
    if let Some(time_ms) = folded.rebuilt {
        notes.push(format!(
            "{handler} was rebuilt on {} (`weir replay`): this is what it makes of these events since then, and not what \
             was seen before",
            print::time(time_ms.saturating_mul(1_000_000))
        ));
    }
    for (event, reason) in folded.failed_here.iter().take(FAILURES_SHOWN) {
        notes.push(format!(
            "{event} failed here and is not in it ({reason}); that it failed in its time is not known"
        ));
    }
    if folded.failed_here.len() > FAILURES_SHOWN {
        notes.push(format!("{} events failed here in all", folded.failed_here.len()));
    }
    if folded.tied > 0 {
        notes.push(format!(
            "{} committed together with timers or events of other sources, or before the first commit record that is left: they have \
             the order of their times",
            count(folded.tied, "event")
        ));
    }
    if let Some(event) = &folded.ahead {
        notes.push(format!(
            "{handler} has not committed {event} yet: this is what its state will be"
        ));
    }
    for stream in &folded.expiring {
        notes.push(format!(
            "messages of stream {stream} expire one by one (Nats-TTL): those that are gone are not in it"
        ));
    }
    if folded.whole {
        return notes;
    }
    if folded.timers > 0 {
        let close = match folded.close {
            0 => String::new(),
            n => format!(
                "; {n} of them less than a second before the next event or the point, which may have come first"
            ),
        };
        notes.push(format!(
            "when timers fired is no longer in the ledger: here they fired when they were due{close}"
        ));
    }
    if folded.said > 0 {
        notes.push(format!(
            "{} of the key (dead letters that were redriven, what an operator told a saga) not in it: those before them are \
             no longer in the ledger",
            count(folded.said as u64, "message")
        ));
    }
    notes
}
