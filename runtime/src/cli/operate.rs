//! `weir rollback`, `weir pause`, `weir resume`, `weir remove`: what is done to a
//! handler that is deployed.

use std::process::ExitCode;

use super::settle::{self, Patience};
use super::{WrongUse, print};
use crate::config::Options;
use crate::deployment::deploy;
use crate::deployment::registry::{Desired, Registry, deployer};

const ROLLBACK: &str = "\
Examples:
  weir rollback delays                      the deployment before the one that runs
  weir rollback delays --to 3f1a            the last one of a component whose digest begins so
  weir handlers --history delays            what there is to go back to

State and positions stay as they are: the earlier version goes on where the later one was.";

const REMOVE: &str = "\
Examples:
  weir remove delays                        its cells and dead letters stay to be read
  weir remove delays --purge-state          they go, too

Timers and positions go in any case. A handler that is deployed under the same name later is another one: it
begins where its manifest says, without state. To stop a handler for a while, use `weir pause`.";

#[derive(Debug, clap::Args)]
#[command(after_help = ROLLBACK)]
pub struct Rollback {
    /// The handler
    name: String,
    /// Digest of the component to go back to, or its beginning
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    #[command(flatten)]
    patience: Patience,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// The handler
    name: String,
    #[command(flatten)]
    patience: Patience,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = REMOVE)]
pub struct Remove {
    /// The handler
    name: String,
    /// Also removes its cells and dead letters
    #[arg(long)]
    purge_state: bool,
}

pub async fn rollback(options: &Options, arguments: &Rollback) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let (name, to) = (&arguments.name, arguments.to.as_deref());
    let registered = match deploy::roll_back(&log, &ledger, name, to, &deployer()).await {
        Err(error @ deploy::Error::NoEarlier { .. }) => return Err(WrongUse(error.to_string()).into()),
        registered => registered?,
    };
    eprintln!(
        "weir: back to version {} ({})",
        registered.deployment.version, registered.deployment.digest
    );
    settled(
        &log,
        &ledger,
        name,
        registered.revision,
        &arguments.patience,
        arguments.json,
    )
    .await
}

pub async fn pause(options: &Options, which: &Which) -> anyhow::Result<ExitCode> {
    change(options, which, Desired::Paused).await
}

pub async fn resume(options: &Options, which: &Which) -> anyhow::Result<ExitCode> {
    change(options, which, Desired::Running).await
}

async fn change(options: &Options, which: &Which, desired: Desired) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let registry = Registry::of(&log, &ledger);
    let latest = registry.deployed(&which.name).await?;
    let revision = match latest.deployment.desired == desired {
        true => latest.revision,
        false => {
            let changed = latest.deployment.again(&deployer(), desired);
            registry.put(&changed, Some(&latest)).await?
        }
    };
    settled(&log, &ledger, &which.name, revision, &which.patience, which.json).await
}

async fn settled(
    log: &dyn crate::log::Log,
    ledger: &str,
    name: &str,
    revision: u64,
    patience: &Patience,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let settled = settle::wait(log, ledger, name, revision, patience).await?;
    match json {
        true => print::json(&settled)?,
        false => settled.say()?,
    }
    Ok(match settled.failed() {
        true => ExitCode::from(super::FAILED),
        false => ExitCode::SUCCESS,
    })
}

pub async fn remove(options: &Options, arguments: &Remove) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let name = &arguments.name;
    deploy::remove(&log, &ledger, name, &deployer(), arguments.purge_state).await?;
    print::line(&format!("{name} removed"))?;
    Ok(ExitCode::SUCCESS)
}
