//! `weir deploy`: from files to every host.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::settle::{self, Patience, Settled};
use super::{WrongUse, print};
use crate::config::{self, Options};
use crate::deployment::compile::compile;
use crate::deployment::deploy::{self, Outcome, When};
use crate::deployment::plugins::{self, Deployed};
use crate::deployment::registry::{Desired, Registered, Registry, deployer};
use crate::deployment::signature::{self, Signature};
use crate::handler::Engine;
use crate::ledger::{self, Ledger};
use crate::log::jetstream::JetStream;

const EXAMPLES: &str = "\
Examples:
  weir deploy plugins/delays --ledger SHOP
  weir deploy plugins/* --ledger SHOP
  weir deploy plugins/delays --sign deploy.nk     signed with an NKey seed, for hosts with --trusted-keys

The component is checked here first, then stored in NATS; every host fetches and compiles it and goes over to
it between two commits. Returns once all of them have. Where one refuses, the version before is deployed again.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Folders of handlers, or their handler.toml
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// File with an NKey seed to sign with
    #[arg(long, value_name = "FILE", env = "WEIR_SIGN")]
    sign: Option<PathBuf>,
    /// Who deploys, for `weir handlers --history` [default: USER@MACHINE]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    patience: Patience,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub async fn deploy(options: &Options, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for path in &arguments.paths {
        for deployed in read(path) {
            found.push(deployed.map_err(|error| WrongUse(error.to_string()))?);
        }
    }
    let seed = arguments.sign.as_ref().map(|file| {
        std::fs::read_to_string(file).map_err(|error| config::Error::Read {
            file: file.clone(),
            error,
        })
    });
    let seed = seed.transpose()?;
    let (log, name) = super::connect(options).await?;
    let ledger = ledger::find(&log, &name).await.with_context(|| {
        format!("ledger {name}: start a host on it first (`weir run`), which creates what is missing")
    })?;
    let by = arguments.by.clone().unwrap_or_else(deployer);
    let mut results = Vec::new();
    let mut code = ExitCode::SUCCESS;
    // All are compiled before the first is deployed.
    let engine = Engine::new(1, None)?;
    for found in &found {
        compile(&engine, &found.manifest, found.wasm.clone(), &ledger, &log)
            .await
            .with_context(|| {
                format!(
                    "handler {} is refused, and nothing was deployed",
                    found.manifest.name
                )
            })?;
    }
    for found in &found {
        let signature = seed.as_deref().map(|seed| {
            signature::sign(seed.trim(), &found.manifest.name, &found.digest, &found.text)
                .map_err(|error| WrongUse(error.to_string()))
        });
        let settled = one(&log, &ledger, found, &by, signature.transpose()?, &arguments).await?;
        if settled.failed() {
            code = ExitCode::from(super::FAILED);
        }
        if !arguments.json {
            settled.say()?;
        }
        results.push(settled);
    }
    // Room for the next; whoever may not purge leaves it to others.
    if let Err(error) = deploy::collect(&log, &ledger.name).await {
        tracing::debug!(%error, "components that nobody refers to could not be removed");
    }
    if arguments.json {
        print::json(&results)?;
    }
    Ok(code)
}

fn read(path: &std::path::Path) -> Vec<Result<Deployed, plugins::Error>> {
    match path.is_dir() {
        true => plugins::load_folder(path),
        false => vec![plugins::load(path)],
    }
}

async fn one(
    log: &JetStream,
    ledger: &Ledger,
    found: &Deployed,
    by: &str,
    signature: Option<Signature>,
    arguments: &Arguments,
) -> anyhow::Result<Settled> {
    let name = &found.manifest.name;
    let registry = Registry::of(log, &ledger.name);
    let before = registry.latest(name).await?;
    let outcome = deploy::deploy(log, &ledger.name, found, by, signature, When::Always).await?;
    let (Outcome::Deployed(revision) | Outcome::Unchanged(revision) | Outcome::Superseded(revision)) =
        outcome;
    let mut settled = settle::wait(log, &ledger.name, name, revision, &arguments.patience).await?;
    if settled.refused() && matches!(outcome, Outcome::Deployed(_)) {
        settled.went_back = back(&registry, before, revision, by).await?;
    }
    Ok(settled)
}

/// Deploys again what ran before a deployment that a host refused.
async fn back(
    registry: &Registry<'_>,
    before: Option<Registered>,
    refused: u64,
    by: &str,
) -> anyhow::Result<Option<String>> {
    let Some(before) = before.filter(|before| before.deployment.desired != Desired::Removed) else {
        return Ok(None);
    };
    let latest = registry.deployed(&before.deployment.name).await?;
    if latest.revision != refused {
        bail!(
            "handler {} was deployed by somebody else meanwhile",
            before.deployment.name
        );
    }
    let (generation, generations) = (
        latest.deployment.generation,
        latest.deployment.generations.clone(),
    );
    let again = before.deployment.with(by, generation, generations);
    registry.put(&again, Some(&latest)).await?;
    Ok(Some(format!("{} ({})", again.version, again.digest)))
}
