//! From a manifest and a component to a program, for one ledger.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::manifest::{InstanceMode, Manifest};
use crate::handler::{Engine, Program, ProgramSettings};
use crate::ledger::Ledger;
use crate::log::Log;
use crate::model::pattern;

/// Compiles a handler for a ledger.
///
/// # Errors
/// The handler would read or write what it may not, or its file is refused.
pub async fn compile(
    engine: &Arc<Engine>,
    manifest: &Manifest,
    wasm: Vec<u8>,
    ledger: &Ledger,
    log: &dyn Log,
) -> anyhow::Result<Arc<Program>> {
    if let Some(subject) = manifest.emit.iter().find(|subject| !ledger.takes(subject)) {
        bail!(
            "emit subject `{subject}` is not among the subjects of ledger {} ({}): add it there, or take it out of \
             `[emit] subjects`",
            ledger.name,
            ledger.subjects.join(", ")
        );
    }
    let outside = manifest.outbox.iter().flat_map(|outbox| &outbox.subjects);
    for subject in outside {
        if let Some(own) = ledger.subjects.iter().find(|own| pattern::overlap(own, subject)) {
            bail!(
                "outbox subject `{subject}` is among the subjects of ledger {} (`{own}`): what is for the ledger is \
                 emitted, see `[emit] subjects`",
                ledger.name
            );
        }
    }
    for source in manifest.sources.iter().filter(|s| s.stream == ledger.name) {
        if let Some(subject) = source
            .subjects
            .iter()
            .find(|s| s.starts_with('*') || s.starts_with('>'))
        {
            bail!(
                "source subject `{subject}` would read the ledger's own records: begin it with a literal token"
            );
        }
    }
    let settings = ProgramSettings {
        handler: manifest.name.clone(),
        limits: manifest.limits,
        emit: manifest.emit.clone(),
        outbox: manifest.outbox.clone(),
        ledger_subjects: ledger.subjects.clone(),
        config: manifest.config.clone(),
        http: manifest.http.clone(),
        max_payload: log.max_payload(),
        per_event: manifest.instance == InstanceMode::PerEvent,
        state_version: manifest.state_version,
    };
    let engine = engine.clone();
    let compiled = tokio::task::spawn_blocking(move || Program::compile(&engine, &wasm, settings)).await?;
    compiled.with_context(|| manifest.component.display().to_string())
}
