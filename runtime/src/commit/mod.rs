//! Making effects durable: groups become atomic batches on the ledger, each
//! partition's commit record last (PROTOCOL, rules 1 to 3).
//!
//! ```text
//! lane ── Group ──> Submission ──> Committer ── one batch, several lanes ──> ledger
//!   ^                                  │
//!   └────────── Settlement ────────────┘   committed, fenced, lost, too large, refused
//! ```
//!
//! * [`record::Record`]: what a commit record says.
//! * [`group::Group`]: effects of consecutive events of one partition, merged.
//! * [`pack`]: which submissions go into one batch. Pure.
//! * [`tombstone`]: the last record of a partition.
//! * [`committer::Committer`]: sends, and settles what became of it.

pub mod committer;
pub mod group;
pub mod pack;
pub mod record;
pub mod tombstone;
