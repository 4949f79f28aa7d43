//! What a host says of itself and its handlers. Written into the hosts bucket
//! about once a second with a TTL, read by `weir handlers` and by `/readyz`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    pub host: String,
    /// The process: 32 hexadecimal digits, new at each start.
    pub incarnation: String,
    pub weir_version: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub http: String,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    pub handlers: Vec<HandlerStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandlerStatus {
    pub name: String,
    pub version: String,
    /// SHA-256 of the component file, hexadecimal.
    pub digest: String,
    pub partitions: Vec<PartitionStatus>,
    /// Events of all sources not yet read.
    pub unread: u64,
    /// Events committed per second, over the last few seconds.
    pub rate: f64,
    /// Failed invocations since the host started.
    pub errors: u64,
    /// Events dead-lettered since the host started.
    pub dead_letters: u64,
    /// Sources that were stopped, with the reason (PROTOCOL rule 6).
    pub stopped_sources: Vec<String>,
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
}
