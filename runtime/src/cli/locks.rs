//! `weir locks`: who holds which lock, and taking one away.

use std::process::ExitCode;

use super::print;
use crate::config::Options;
use crate::shared::locks::{Listed, Locks};

const EXAMPLES: &str = "\
Examples:
  weir locks list                       those that are held
  weir locks list --all                 those that were once held, too
  weir locks break van-1                takes it away: what its holder does under it from here on is refused

A lock whose time is over is still held until somebody else takes it; nobody has to break it.";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Lists locks, and who holds them
    #[command(after_help = EXAMPLES)]
    List {
        /// Also those that nobody holds
        #[arg(long)]
        all: bool,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Takes a lock away from whoever holds it
    #[command(after_help = EXAMPLES)]
    Break {
        /// Name of the lock
        name: String,
        /// Prints JSON: the lock as it was
        #[arg(long)]
        json: bool,
    },
}

pub async fn locks(options: &Options, command: Command) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let locks = Locks::new(&log, &ledger);
    match command {
        Command::List { all, json } => {
            let found = locks.list(all).await?;
            if json {
                print::json(&found)?;
            } else {
                let rows: Vec<[String; 5]> = found.iter().map(row).collect();
                print::table(["LOCK", "HOLDER", "TOKEN", "SINCE", "UNTIL"], &rows)?;
            }
        }
        Command::Break { name, json } => {
            let was = locks.break_open(&name).await?;
            match (json, &was.holder) {
                (true, _) => print::json(&was)?,
                (false, Some(holder)) => {
                    print::line(&format!("{name} taken from {holder}, token {}", was.token))?
                }
                (false, None) => print::line(&format!("{name} was free"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(listed: &Listed) -> [String; 5] {
    let lock = &listed.lock;
    let until = match (&lock.holder, listed.expired) {
        (None, _) => String::new(),
        (Some(_), false) => print::time(lock.until),
        (Some(_), true) => format!("{} (over)", print::time(lock.until)),
    };
    [
        listed.name.clone(),
        lock.holder.as_ref().map_or("-".into(), ToString::to_string),
        lock.token.to_string(),
        print::time(lock.since),
        until,
    ]
}
