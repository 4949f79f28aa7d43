//! What a host says of itself several times a second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Newest format that this version reads, and the one it writes.
pub const FORMAT: u16 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub format: u16,
    pub host: String,
    /// The process: 32 hexadecimal digits, new at each start.
    pub incarnation: String,
    /// Rises with every beat of a process.
    pub number: u64,
    /// It stops, and gives its partitions away.
    pub leaving: bool,
    /// The machine and the space in which `pid` means something.
    pub machine: String,
    pub pid: u32,
    /// Partitions that it holds, by handler, as ranges: `[[0, 3], [7, 7]]`.
    pub holds: BTreeMap<String, Vec<(u32, u32)>>,
}

impl Beat {
    /// Whether its process is known to have ended: it was on this machine, and is not
    /// there any more. False where that cannot be known.
    pub fn has_ended(&self) -> bool {
        self.machine == crate::os::machine() && !crate::os::runs(self.pid)
    }
}
