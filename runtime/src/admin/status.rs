//! What a host says of itself and its handlers. Written into the hosts bucket
//! every half second with a TTL, read by `weir handlers`.
//!
//! * [`HostStatus`] is the document.
//! * [`StatusHandle`] is where the core leaves the latest one within the process,
//!   beside the reasons for which `/readyz` says no.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The latest status of this host. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    status: Option<HostStatus>,
    not_ready: BTreeMap<String, String>,
    http: String,
}

impl StatusHandle {
    /// No status, and no reason not to be ready.
    pub fn new() -> StatusHandle {
        StatusHandle::default()
    }

    pub fn set(&self, status: HostStatus) {
        self.lock().status = Some(status);
    }

    /// Where this host answers over HTTP; part of every status.
    pub fn set_http(&self, address: impl Into<String>) {
        self.lock().http = address.into();
    }

    pub fn http(&self) -> String {
        self.lock().http.clone()
    }

    /// The latest status; `None` before the first.
    pub fn get(&self) -> Option<HostStatus> {
        self.lock().status.clone()
    }

    /// The host is not ready because of `what`, until that is cleared. A second
    /// reason for the same replaces the first.
    pub fn set_not_ready(&self, what: &str, reason: impl Into<String>) {
        self.lock().not_ready.insert(what.to_owned(), reason.into());
    }

    /// `what` is no reason any more, if it was one.
    pub fn clear(&self, what: &str) {
        self.lock().not_ready.remove(what);
    }

    /// Why the host is not ready, as `what: reason`, by name. Empty if it is.
    pub fn not_ready(&self) -> Vec<String> {
        let shared = self.lock();
        let reasons = shared.not_ready.iter();
        reasons
            .map(|(what, reason)| format!("{what}: {reason}"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Both fields are whole after every change, so a panic elsewhere leaves them usable.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host, with its handlers, or with some of them where it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus<H = Vec<HandlerStatus>> {
    pub host: String,
    /// The process: 32 hexadecimal digits, new at each start.
    pub incarnation: String,
    pub weir_version: String,
    /// The newest format of commit records that it reads.
    #[serde(default)]
    pub record_format: u16,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub http: String,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    pub handlers: H,
    /// Why `/readyz` says no, as `what: reason`. Empty if it says yes.
    #[serde(default)]
    pub not_ready: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HandlerStatus {
    pub name: String,
    pub version: String,
    /// SHA-256 of the component file, hexadecimal.
    pub digest: String,
    /// The deployment that the host has seen last, which may not run yet.
    #[serde(default)]
    pub revision: u64,
    /// Whether the host has done what it asks for, or refused.
    #[serde(default)]
    pub settled: bool,
    /// Why the host does not run it; what ran before goes on.
    #[serde(default)]
    pub refused: Option<String>,
    pub partitions: Vec<PartitionStatus>,
    /// Of the generation that is rebuilt beside it: the first few partitions that do not
    /// get on, with their reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebuilding: Vec<PartitionStatus>,
    /// Events of all sources not yet read: of all partitions, unless `reads_own`.
    pub unread: u64,
    /// The host reads only what its partitions get.
    #[serde(default)]
    pub reads_own: bool,
    /// Events committed per second, over the last few seconds.
    pub rate: f64,
    /// Failed invocations since the host started.
    pub errors: u64,
    /// Events dead-lettered since the host started.
    pub dead_letters: u64,
    /// Sources that were stopped, with the reason (PROTOCOL rule 6).
    pub stopped_sources: Vec<String>,
    /// Messages that a source's stream removed before every partition had read
    /// them, since the host started, by source; those that lost none are left out.
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
    /// Timers that fired and redriven dead letters that cannot be read, since the
    /// host started.
    #[serde(default)]
    pub undecodable: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionStatus {
    pub partition: u32,
    /// One of `starting`, `running`, `standby`, `retrying`, `stopped`.
    pub state: String,
    /// Why, where the state is not `running`.
    pub reason: Option<String>,
    /// Events read and not yet committed.
    pub waiting: u64,
    /// Sequence of the last commit record.
    pub record: u64,
    /// Deployment that executes.
    #[serde(default)]
    pub revision: u64,
}
