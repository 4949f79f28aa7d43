//! `weir adopt`: a restored stream is the one that it was before.

use std::process::ExitCode;

use super::print;
use crate::adopt::{Plan, Recorded};
use crate::config::Options;

const EXAMPLES: &str = "\
Examples:
  weir adopt SHOP --ledger SHOP               the ledger, while no host runs
  weir adopt ORDERS --ledger SHOP             a source; hosts go on by themselves
  weir adopt ORDERS --ledger SHOP --dry-run   only checks that it may

A server may give a stream that it restores from a backup a new creation time. To hosts it is another stream then, and
they stop. This compares the stream with all positions and state that were taken in it, and has it go by its old creation
time, which is kept in its metadata (weir-adopted). Needs permission to change the stream: $JS.API.STREAM.UPDATE.<stream>.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The stream: the ledger or a source
    stream: String,
    /// Checks only, and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub async fn adopt(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let recorded = Recorded::read(&log, &ledger).await?;
    let plan = recorded.plan(&log, &arguments.stream).await?;
    if !plan.done && !arguments.dry_run {
        log.adopt(&plan.stream, plan.made, plan.created).await?;
    }
    match arguments.json {
        true => print::json(&plan)?,
        false => print::line(&text(&plan, arguments.dry_run))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(plan: &Plan, dry_run: bool) -> String {
    let Plan {
        stream,
        made,
        created,
        done,
        partitions,
        seen,
    } = plan;
    let created = print::time(*created);
    if *done {
        return format!(
            "{stream} is the stream of {created} that its {partitions} partitions expect; there is nothing to do"
        );
    }
    let becomes = match dry_run {
        true => "may be adopted",
        false => "adopted",
    };
    format!(
        "{stream} {becomes}: made at {}, it is the stream of {created} that {partitions} partitions expect; {seen} messages \
         were compared",
        print::time(*made)
    )
}
