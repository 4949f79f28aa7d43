//! A component, compiled and linked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::activity_bindings::HandlerPre as ActivityPre;
use super::artifact::{self, Refusal};
use super::bindings::HandlerPre;
use super::host::Host;
use super::{Engine, Fault, Instance};
use crate::deployment::manifest::{HttpAccess, Limits, Outbox};
use crate::model::pattern;
use crate::shared::Access;

/// What a manifest, the ledger and the server say of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSettings {
    /// Name of the handler, for its log.
    pub handler: String,
    pub limits: Limits,
    /// Subjects that it may emit to, with NATS wildcards.
    pub emit: Vec<String>,
    /// Streams beside the ledger, and the subjects that are for them.
    pub outbox: Vec<Outbox>,
    /// Subjects of the ledger; an emit must be among these too.
    pub ledger_subjects: Vec<String>,
    pub config: BTreeMap<String, String>,
    /// What an activity may call.
    pub http: Option<HttpAccess>,
    /// The server's `max_payload` in bytes.
    pub max_payload: usize,
    /// A new instance for each event.
    pub per_event: bool,
    /// Version of the cells that the code reads and writes, from 1.
    pub state_version: u32,
}

impl ProgramSettings {
    /// The stream beside the ledger that a subject is for.
    pub(super) fn outbox_of(&self, subject: &str) -> Option<Arc<str>> {
        let of = |outbox: &&Outbox| pattern::matches_any(&outbox.subjects, subject);
        self.outbox.iter().find(of).map(|outbox| outbox.stream.clone())
    }
}

/// One component, compiled and linked, with the limits and configuration of its
/// manifest. Shared by all partitions of a handler.
pub struct Program {
    pub(super) engine: Arc<Engine>,
    pub(super) pre: Pre,
    pub(super) settings: Arc<ProgramSettings>,
    /// Whether it uses shared cells or locks.
    pub(super) shares: bool,
    pub(super) kind: Kind,
}

/// What a component imports beside the handler's own interfaces, which decides how it is linked and called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: it is spared WASI's context.
    Plain,
    /// WASI without capabilities.
    Wasi,
    /// WASI, and outgoing HTTP.
    Activity,
}

/// A linked component, ready to be instantiated.
pub(super) enum Pre {
    Handler(HandlerPre<Host>),
    /// Called so that it can be suspended.
    Activity(ActivityPre<Host>),
}

impl Program {
    /// Compiles a component, or a core module that carries its component type.
    /// Takes 20 ms for a small handler and seconds for one with an interpreter
    /// inside, on all cores: keep it off the hot path.
    ///
    /// # Errors
    /// [`Refusal`]: this host would not run the file.
    pub fn compile(
        engine: &Arc<Engine>,
        wasm: &[u8],
        settings: ProgramSettings,
    ) -> Result<Arc<Program>, Refusal> {
        let accepted = artifact::accept(engine, wasm)?;
        artifact::check_migration(accepted.migrates, settings.state_version)?;
        match (accepted.kind, &settings.http) {
            (Kind::Activity, None) => return Err(Refusal::NoHosts),
            (Kind::Plain | Kind::Wasi, Some(_)) => return Err(Refusal::NoActivity),
            _ => {}
        }
        Ok(Arc::new(Program {
            engine: Arc::clone(engine),
            pre: accepted.pre,
            settings: Arc::new(settings),
            kind: accepted.kind,
            shares: accepted.shares,
        }))
    }

    /// Whether its invocations call the outside world, and may wait for it.
    pub fn is_activity(&self) -> bool {
        self.kind == Kind::Activity
    }

    /// A new sandbox, with the component's own initialisation done.
    ///
    /// # Errors
    /// The initialisation trapped, took too long or needed too much memory, or
    /// the engine has no instance left.
    pub fn instantiate(self: &Arc<Self>) -> Result<Instance, Fault> {
        Instance::new(self, None)
    }

    /// The same, for a program that [shares](Program::shares) something.
    ///
    /// # Errors
    /// Those of [`Program::instantiate`].
    pub fn instantiate_sharing(self: &Arc<Self>, access: Arc<dyn Access>) -> Result<Instance, Fault> {
        Instance::new(self, Some(access))
    }

    /// Whether it uses shared cells or locks, so that its groups may be refused for what
    /// others have changed.
    pub fn shares(&self) -> bool {
        self.shares
    }
}
