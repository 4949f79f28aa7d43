//! `weir state`: what handlers keep.

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::print;
use crate::config::Options;
use crate::state::query;

const EXAMPLES: &str = "\
Examples:
  weir state get rotations N14228             every cell of a key
  weir state get rotations N14228 n           one cell, its bytes as they are
  weir state keys rotations N1                keys that begin with N1

Committed state: the bucket with all commits since then on top. --checkpoint reads the bucket alone, as
`nats kv get` does. No host needs to run.";

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
        Command::Get { name, key, cell, how } => {
            let names = super::names(&log, &ledger, &name).await?;
            let mut cells = query::get(&log, &names, &key, how.checkpoint).await?;
            if let Some(cell) = &cell {
                cells.retain(|name, _| name == cell);
            }
            if cells.is_empty() {
                match cell {
                    Some(cell) => eprintln!("weir: handler {name} has no cell {cell} for key {key}"),
                    None => eprintln!("weir: handler {name} has no state for key {key}"),
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
