//! `handler.toml`: what a handler reads, how events get their key, and what it
//! may do.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A manifest that was read and found valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `[a-z0-9-]`, unique in the ledger, at most 64 bytes.
    pub name: String,
    /// The component file, resolved against the manifest's folder.
    pub component: PathBuf,
    pub version: String,
    /// 1 to 1,024; fixed at first deployment.
    pub partitions: u32,
    /// At least one; no two of one stream.
    pub sources: Vec<Source>,
    pub key: KeyFrom,
    /// Subjects (wildcards allowed) that the handler may emit to.
    pub emit: Vec<String>,
    pub limits: Limits,
    pub retry: Retry,
    pub config: BTreeMap<String, String>,
    pub instance: InstanceMode,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub stream: String,
    pub subjects: Vec<String>,
    pub start: crate::log::Start,
}

/// Where an event's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFrom {
    Subject,
    Header(String),
    /// Token of the subject, counted from 1.
    SubjectToken(usize),
    /// JSON pointer (RFC 6901) into the payload.
    Json(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub memory_mib: u32,
    pub time_ms: u32,
    pub effects_bytes: usize,
    /// Bytes that one invocation may log.
    pub log_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Invocations in all before the event is dead-lettered; at least 1.
    pub attempts: u32,
    /// Wait before each further attempt; the last one repeats. Not empty.
    pub backoff_ms: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InstanceMode {
    /// One instance per partition, replaced after a fault or a discard.
    #[default]
    Reused,
    /// A new instance for each event: the guest remembers nothing but its cells.
    PerEvent,
}
