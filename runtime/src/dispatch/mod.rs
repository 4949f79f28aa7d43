//! Partitions at work: who owns one, what it executes, and when it commits.
//!
//! * [`lane::Lane`]: the task of one partition, from takeover to handing over.
//! * [`term::Term`]: one uninterrupted ownership: the loop of a lane at work.
//! * [`start::Starts`]: where a source begins that has no position yet.
//! * [`tenure`]: what a lane knows while it owns its partition, and how it gets it.
//! * [`execute`]: runs events through the handler into a group. Synchronous.
//! * [`parked`]: events that wait for locks; [`unpark`] reads them again.
//! * [`quiet`]: what a handler that is rebuilt does over again, and emits no more.
//! * [`relay`]: hands on what handlers emit for streams beside the ledger.
//! * [`undo`]: takes a group back that others were faster than.
//! * [`executor::Executor`]: the threads on which that happens.

pub mod context;
pub mod execute;
pub mod executor;
pub mod lane;
pub mod ownership;
pub mod parked;
pub mod quiet;
pub mod relay;
pub mod start;
pub mod tenure;
pub mod term;
pub mod undo;
pub mod unpark;
