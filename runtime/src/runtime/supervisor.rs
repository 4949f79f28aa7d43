//! Makes what runs of one handler on this host what the registry says.
//!
//! A new version of the same sources is handed to the lanes, which go over to it
//! between two groups. Other sources need other readers, so that the handler is
//! stopped and started; its partitions are taken over again from their records.

use std::sync::{Arc, PoisonError};

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::handlers::{Parts, RETRY_PAUSE};
use super::roster::Roster;
use super::running::Running;
use crate::deployment::artifacts::{self, Artifacts};
use crate::deployment::compile::compile;
use crate::deployment::registry::{Deployment, Desired, Registered};
use crate::deployment::signature;
use crate::dispatch::context::Version;
use crate::dispatch::quiet::Beside;
use crate::log;

/// Keeps one handler as the registry wants it.
pub struct Supervisor {
    parts: Arc<Parts>,
    roster: Arc<Roster>,
    drain: watch::Receiver<bool>,
    name: String,
    wanted: watch::Receiver<Registered>,
    running: Option<Running>,
    /// The generation that is rebuilt beside it.
    rebuilding: Option<Running>,
}

impl Supervisor {
    pub fn new(
        parts: Arc<Parts>,
        roster: Arc<Roster>,
        drain: watch::Receiver<bool>,
        name: String,
        wanted: watch::Receiver<Registered>,
    ) -> Supervisor {
        Supervisor {
            parts,
            roster,
            drain,
            name,
            wanted,
            running: None,
            rebuilding: None,
        }
    }

    /// Until the host drains; then the handler has stopped.
    pub async fn run(mut self) {
        let mut drain = self.drain.clone();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            tokio::select! {
                () = self.settle(&wanted) => {}
                _ = drain.wait_for(|drain| *drain) => break,
            }
            tokio::select! {
                Ok(()) = self.wanted.changed() => {}
                _ = drain.wait_for(|drain| *drain) => break,
            }
        }
        self.stop().await;
    }

    /// Does what a deployment asks for.
    async fn settle(&mut self, wanted: &Registered) {
        let deployment = &wanted.deployment;
        let refused = match deployment.desired {
            Desired::Running => match self.prepare(wanted).await {
                Ok(version) => {
                    self.execute(version, deployment).await;
                    None
                }
                Err(refusal) => {
                    let reason = format!("{refusal:#}");
                    error!(
                        handler = self.name,
                        revision = wanted.revision,
                        reason,
                        "deployment refused"
                    );
                    Some(reason)
                }
            },
            Desired::Paused | Desired::Removed => {
                self.stop().await;
                info!(
                    handler = self.name,
                    revision = wanted.revision,
                    "{}",
                    match deployment.desired {
                        Desired::Removed => "removed",
                        _ => "paused",
                    }
                );
                None
            }
        };
        if deployment.desired == Desired::Removed {
            self.roster.forget(&self.name);
            return;
        }
        let shown = self.running.as_ref().map(Running::shown);
        let rebuilding = self.rebuilding.as_ref().map(Running::shown);
        self.roster.update(&self.name, |entry| {
            entry.running = shown;
            entry.rebuilding = rebuilding;
            // A newer one may have come in meanwhile.
            if entry.registered.revision == wanted.revision {
                entry.settled = true;
                entry.refused = refused;
            }
        });
    }

    /// Fetches, verifies and compiles, off the threads that execute.
    async fn prepare(&self, wanted: &Registered) -> anyhow::Result<Version> {
        let (parts, deployment) = (&self.parts, &wanted.deployment);
        signature::check(
            &parts.trusted,
            deployment.signature.as_ref(),
            &deployment.name,
            &deployment.digest,
            &deployment.manifest,
        )?;
        let manifest = deployment.manifest()?;
        let at_hand = parts
            .at_hand
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&deployment.digest);
        let wasm = match at_hand {
            Some(wasm) => wasm,
            None => self.fetch(&deployment.digest).await?,
        };
        let turn = parts.compiling.acquire().await;
        let _turn = turn.expect("it is never closed");
        let program = compile(&parts.engine, &manifest, wasm, &parts.ledger, &*parts.log).await?;
        Ok(Version {
            manifest,
            digest: deployment.digest.clone(),
            program,
            revision: wanted.revision,
        })
    }

    async fn fetch(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let artifacts = Artifacts::of(&*self.parts.log, &self.parts.ledger.name);
        loop {
            match artifacts.get(digest).await {
                Err(artifacts::Error::Log(log::Error::Unavailable(reason))) => {
                    warn!(
                        handler = self.name,
                        reason, "its component cannot be fetched; trying again"
                    );
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                fetched => return fetched.context("fetching its component"),
            }
        }
    }

    /// Starts a version, or hands it to the lanes of the one before.
    async fn execute(&mut self, version: Version, deployment: &Deployment) {
        let generation = deployment.generation;
        info!(
            handler = self.name,
            version = version.manifest.version,
            digest = version.digest,
            revision = version.revision,
            partitions = version.manifest.partitions,
            "{}",
            if self.running.is_some() {
                "switching"
            } else {
                "starting"
            }
        );
        let rebuild = deployment.generations.rebuild.as_ref();
        // One that has taken its place is no more beside it.
        let is_it = |running: &Running| rebuild.is_some_and(|rebuild| running.is_of(rebuild.generation));
        if !self.rebuilding.as_ref().is_some_and(is_it) {
            stop(&mut self.rebuilding).await;
        }
        match &self.running {
            Some(running) if running.takes(&version, generation) => running.switch(version.clone()),
            _ => {
                stop(&mut self.running).await;
                self.running = Some(Running::start(&self.parts, version.clone(), generation, None));
            }
        }
        let Some(rebuild) = rebuild else { return };
        match &self.rebuilding {
            Some(running) if running.takes(&version, rebuild.generation) => running.switch(version),
            _ => {
                stop(&mut self.rebuilding).await;
                info!(handler = self.name, generation = rebuild.generation, "rebuilding");
                let beside = Beside {
                    of: generation,
                    starts: rebuild.starts.clone(),
                };
                let running = Running::start(&self.parts, version, rebuild.generation, Some(beside));
                self.rebuilding = Some(running);
            }
        }
    }

    async fn stop(&mut self) {
        stop(&mut self.rebuilding).await;
        stop(&mut self.running).await;
    }
}

async fn stop(running: &mut Option<Running>) {
    if let Some(running) = running.take() {
        running.stop().await;
    }
}
