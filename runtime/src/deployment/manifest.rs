//! `handler.toml`: what a handler reads, how events get their key, and what it
//! may do.
//!
//! * [`Manifest`] is one that was read and found valid; the rest of the host
//!   sees only this.
//! * The structs of [`parse`](self::parse) mirror the file and keep where each
//!   field stands in it, so that every error can name its line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::toml_file;

pub use crate::model::dedupe::Dedupe;
pub use crate::model::host_pattern::HostPattern;
pub use crate::model::key::KeyFrom;

mod parse;
#[cfg(test)]
mod tests;

/// The file in a handler's folder.
pub const FILE_NAME: &str = "handler.toml";

/// Bytes of a handler's name: a token of many subjects.
pub const NAME_BYTES_MAX: usize = 64;

/// Partitions of one handler. Each has a commit record of its own, and a host
/// that holds all of them must read that many at start.
pub const PARTITIONS_MAX: u32 = 1_024;

/// Partitions where the manifest does not say.
pub const PARTITIONS_DEFAULT: u32 = 16;

/// Memory of an instance where the manifest does not say, and the most it may
/// say: the address space of 32-bit Wasm.
pub const MEMORY_MIB_DEFAULT: u32 = 64;
pub const MEMORY_MIB_MAX: u32 = 4_096;

/// Time of one invocation where the manifest does not say, and the most it may
/// say: a partition, and a stop of the host, waits that long.
pub const TIME_MS_DEFAULT: u32 = 1_000;
pub const TIME_MS_MAX: u32 = 600_000;

/// Bytes that one invocation may emit, write and set, where the manifest does
/// not say.
pub const EFFECTS_BYTES_DEFAULT: usize = 512 * 1024;

/// The most it may say. Far above what a server takes in one message, far
/// below what would hurt the host.
pub const EFFECTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that one invocation may log, where the manifest does not say.
pub const LOG_BYTES_DEFAULT: usize = 16 * 1024;
pub const LOG_BYTES_MAX: usize = 1024 * 1024;

/// Handlers that a chain of events may pass, where the manifest does not say: far more than a
/// workflow has, few enough that a loop ends before anybody pays for it.
pub const HOPS_DEFAULT: u32 = 256;
pub const HOPS_MAX: u32 = 100_000;

/// Hosts that one activity may name: what a person can review.
pub const HOSTS_MAX: usize = 64;

/// Bytes of a response's body, where the manifest does not say: an answer of an API, not a download.
pub const RESPONSE_BYTES_DEFAULT: usize = 1024 * 1024;

/// The most it may say: as much as an invocation may emit, of which it could keep nothing more.
pub const RESPONSE_BYTES_MAX: usize = EFFECTS_BYTES_MAX;

/// Invocations of one event, where the manifest does not say.
pub const ATTEMPTS_DEFAULT: u32 = 5;
pub const ATTEMPTS_MAX: u32 = 1_000_000;

/// Waits between them, where the manifest does not say; in milliseconds.
pub const BACKOFF_MS_DEFAULT: [u64; 3] = [100, 1_000, 10_000];

/// The longest wait between two attempts: an hour, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 3_600_000;

/// The highest version of state: each costs a call at the first event of a key that is older.
pub const STATE_VERSION_MAX: u32 = 1_000;

/// The shortest and the longest time that business ids are remembered, in seconds.
pub const DEDUPE_WINDOW_S_MIN: u64 = 1;
pub const DEDUPE_WINDOW_S_MAX: u64 = 10 * 365 * 86_400;

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot be read: {error}", file.display())]
    Read { file: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Invalid(#[from] toml_file::Error),
}

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
    /// Token of the subject, counted from 1, that is the event's partition: a host then
    /// reads only what it owns. Every source subject has a `*` there.
    pub partition_token: Option<usize>,
    /// Which events repeat others and are ignored; `None`: none.
    pub dedupe: Option<Dedupe>,
    /// Subjects (wildcards allowed) that the handler may emit to.
    pub emit: Vec<String>,
    /// Streams beside the ledger that the handler emits for.
    pub outbox: Vec<Outbox>,
    /// Of an activity: what it may call. `None`: no handler that calls anything.
    pub http: Option<HttpAccess>,
    pub limits: Limits,
    pub retry: Retry,
    pub config: BTreeMap<String, String>,
    pub instance: InstanceMode,
    /// Version of what the cells hold, from 1; above it, the component exports `migrate`.
    pub state_version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub stream: String,
    pub subjects: Vec<String>,
    pub start: crate::log::Start,
}

/// `[http]`: what an activity may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAccess {
    /// Not empty.
    pub hosts: Vec<HostPattern>,
    /// Bytes of the body of one response.
    pub response_bytes: usize,
}

/// Events for a stream beside the ledger: written down with everything else that their
/// event does, and handed on after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    pub stream: std::sync::Arc<str>,
    pub subjects: Vec<String>,
}

impl Manifest {
    /// Reads and checks a manifest: the file, or the [`FILE_NAME`] in a folder. With its text.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in the file.
    pub fn read(path: &Path) -> Result<(Manifest, String), Error> {
        let file = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let text = std::fs::read_to_string(&file).map_err(|error| Error::Read {
            file: file.clone(),
            error,
        })?;
        let manifest = Self::parse(&file, &text)?;
        Ok((manifest, text))
    }

    /// Checks the text of a manifest whose file is, or would be, `file`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in the text.
    pub fn parse(file: &Path, text: &str) -> Result<Manifest, toml_file::Error> {
        parse::manifest(toml_file::Document { file, text }, true)
    }

    /// Checks the text of a manifest that was deployed: its component is not a file here.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in the text.
    pub fn parse_deployed(file: &Path, text: &str) -> Result<Manifest, toml_file::Error> {
        parse::manifest(toml_file::Document { file, text }, false)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub memory_mib: u32,
    pub time_ms: u32,
    pub effects_bytes: usize,
    /// Bytes that one invocation may log.
    pub log_bytes: usize,
    /// Handlers that a chain of events may pass before an event that emits is refused.
    pub hops: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Invocations in all before the event is dead-lettered; at least 1.
    pub attempts: u32,
    /// Wait before each further attempt; the last one repeats. Not empty.
    pub backoff_ms: Vec<u64>,
}

impl Retry {
    /// How long to wait after `failed` attempts, at least one, in milliseconds.
    pub fn wait_ms(&self, failed: u32) -> u64 {
        let step = self.backoff_ms.get(failed.saturating_sub(1) as usize);
        step.or(self.backoff_ms.last()).copied().unwrap_or(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InstanceMode {
    /// One instance per partition, replaced after a fault or a discard.
    #[default]
    Reused,
    /// A new instance for each event: the guest remembers nothing but its cells.
    PerEvent,
}
