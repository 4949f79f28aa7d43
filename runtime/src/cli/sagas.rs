//! `weir sagas`: transactions of several handlers, and what an operator can do about one.

use std::process::ExitCode;

use serde_json::json;

use super::print;
use crate::config::Options;
use crate::effects::control::Control;
use crate::sagas::{Saga, Sagas, Status, Step};

/// Characters of what a saga waits for, in the table.
const WAITS_FOR_SHOWN: usize = 80;

const EXAMPLES: &str = "\
Examples:
  weir sagas list order-saga                        those that began last first
  weir sagas list order-saga --status stuck         those that wait for you
  weir sagas show order-saga 7                      its steps, and what it waits for
  weir sagas retry order-saga 7                     sends again what was not answered, with all its attempts anew
  weir sagas compensate order-saga 7                gives it up, and undoes what was done

Committed state: no host needs to run to list or show it. What retry and compensate ask for is an event of the
saga's key, and is done when its handler has come to it.";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Lists the sagas of a handler
    #[command(after_help = EXAMPLES)]
    List {
        /// Name of the handler
        name: String,
        /// Only those that are so
        #[arg(long, value_enum)]
        status: Option<Status>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows a saga with its steps
    #[command(after_help = EXAMPLES)]
    Show(Which),
    /// Sends again what was not answered
    #[command(after_help = EXAMPLES)]
    Retry(Which),
    /// Gives a saga up, and undoes what was done
    #[command(after_help = EXAMPLES)]
    Compensate(Which),
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// Name of the handler
    name: String,
    /// Id of the saga: its key
    id: String,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub async fn sagas(options: &Options, command: Command) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let name = match &command {
        Command::List { name, .. } => name,
        Command::Show(which) | Command::Retry(which) | Command::Compensate(which) => &which.name,
    };
    let names = super::names(&log, &ledger, name).await?;
    let sagas = Sagas::new(&log, &names);
    match command {
        Command::List { status, json, .. } => list(sagas, status, json).await?,
        Command::Show(which) => show(sagas, &which).await?,
        Command::Retry(which) => tell(sagas, &which, Control::Retry).await?,
        Command::Compensate(which) => tell(sagas, &which, Control::Compensate).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(sagas: Sagas<'_>, status: Option<Status>, json: bool) -> anyhow::Result<()> {
    let mut found = sagas.list().await?;
    found.retain(|saga| status.is_none_or(|status| saga.status == status));
    if json {
        return print::json(&found);
    }
    let rows: Vec<[String; 6]> = found.iter().map(row).collect();
    let header = ["ID", "SAGA", "STATUS", "STARTED", "STEPS", "WAITS FOR, OR WHY"];
    Ok(print::table(header, &rows)?)
}

fn row(saga: &Saga) -> [String; 6] {
    let done = saga.steps.iter().filter(|step| step.status == "done").count();
    let why = saga.waits_for.as_ref().or(saga.reason.as_ref());
    [
        saga.id.clone(),
        saga.saga.clone(),
        saga.status.as_str().into(),
        print::time(saga.started),
        format!("{done}/{}", saga.steps.len()),
        print::cut(why.map_or("", String::as_str), WAITS_FOR_SHOWN),
    ]
}

async fn show(sagas: Sagas<'_>, which: &Which) -> anyhow::Result<()> {
    let saga = sagas.find(&which.id).await?;
    if which.json {
        return print::json(&saga);
    }
    print::line(&page(&saga))?;
    let rows: Vec<[String; 6]> = saga.steps.iter().map(step).collect();
    let header = ["STEP", "STATUS", "ATTEMPTS", "STARTED", "ENDED", "DETAIL"];
    Ok(print::table(header, &rows)?)
}

/// A saga for people, without its steps.
fn page(saga: &Saga) -> String {
    let mut lines = vec![
        format!("saga       {} {}", saga.saga, saga.id),
        format!("status     {}", saga.status.as_str()),
        format!("started    {}", print::time(saga.started)),
        format!("updated    {}", print::time(saga.updated)),
    ];
    lines.extend(saga.reason.iter().map(|reason| format!("reason     {reason}")));
    lines.extend(saga.waits_for.iter().map(|what| format!("waits for  {what}")));
    lines.extend(saga.deadline.map(|at| format!("until      {}", print::time(at))));
    lines.push(format!("data       {}\n", saga.data));
    lines.join("\n")
}

fn step(step: &Step) -> [String; 6] {
    let attempts = match step.compensation_attempts {
        0 => step.attempts.to_string(),
        back => format!("{} and {back} back", step.attempts),
    };
    let time = |at: Option<u64>| at.map(print::time).unwrap_or_default();
    [
        step.name.clone(),
        step.status.clone(),
        attempts,
        time(step.started),
        time(step.ended),
        step.detail.clone().unwrap_or_default(),
    ]
}

async fn tell(sagas: Sagas<'_>, which: &Which, control: Control) -> anyhow::Result<()> {
    let event = sagas.tell(&which.id, control).await?;
    if which.json {
        return print::json(&json!({ "id": which.id, "event": event }));
    }
    eprintln!("saga {} of {} was told, by event {event}", which.id, which.name);
    Ok(())
}
