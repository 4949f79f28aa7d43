//! `weir explain`: where an event comes from.

use std::process::ExitCode;

use super::{WrongUse, print};
use crate::config::Options;
use crate::explain::{self, Explanation};

/// Digits of a digest that are shown.
const DIGEST_SHOWN: usize = 12;

const EXAMPLES: &str = "\
Examples:
  weir explain SHOP:5012 --ledger SHOP
  weir explain SHOP:5012 --ledger SHOP --json | jq -r '.chain[-1].id'

An event is named by its stream and its sequence there. Shown is who emitted it, what else that did, and what
it was caused by, back to an event that no handler emitted.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The event
    #[arg(value_name = "STREAM:SEQUENCE")]
    event: String,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub async fn explain(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let event = &arguments.event;
    let parsed = event.rsplit_once(':').and_then(|(stream, sequence)| {
        let sequence: u64 = sequence.parse().ok()?;
        Some((stream, sequence))
    });
    let Some((stream, sequence)) = parsed else {
        return Err(WrongUse(format!(
            "`{event}` must be a stream and a sequence, like SHOP:5012"
        ))
        .into());
    };
    let (log, ledger) = super::connect(options).await?;
    let explanation = explain::explain(&log, &ledger, stream, sequence).await?;
    match arguments.json {
        true => print::json(&explanation)?,
        false => say(&explanation)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn say(explanation: &Explanation) -> std::io::Result<()> {
    for step in &explanation.chain {
        let event = &step.event;
        print::line(&format!(
            "{}  {}  {}",
            event.id,
            event.subject,
            print::time(event.time)
        ))?;
        let Some(by) = &step.emitted else {
            print::line("  no handler emitted it")?;
            continue;
        };
        let digest = by
            .digest
            .as_deref()
            .map(|digest| &digest[..digest.len().min(DIGEST_SHOWN)]);
        let host = by.host.as_deref().map(|host| format!(" on host {host}"));
        print::line(&format!(
            "  emitted by {} version {} ({}), deployment {}, partition {}{}",
            by.handler,
            by.version.as_deref().unwrap_or("unknown"),
            digest.unwrap_or("its deployment is no longer in the history"),
            by.revision,
            by.partition,
            host.unwrap_or_default(),
        ))?;
        if let Some(record) = by.record {
            print::line(&format!("  in commit record {record}"))?;
        }
        print::line(&format!("  because of {}", by.cause))?;
    }
    if let Some(broken) = &explanation.broken {
        print::line(&format!("  {broken}"))?;
    }
    for event in &explanation.beside {
        print::line(&format!("beside it: {}  {}", event.id, event.subject))?;
    }
    for cell in &explanation.cells {
        print::line(&format!("cell written in that commit: {cell}"))?;
    }
    Ok(())
}
