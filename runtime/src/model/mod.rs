//! Plain values: no tokio, NATS or wasmtime below this folder.
//!
//! * [`event::Event`]: one message as a handler sees it.
//! * [`key`]: keys, their partition, and how they are written into subjects.
//! * [`position::Position`]: how far a partition has read a source.
//! * [`pattern`]: what a valid subject is, what a pattern matches, and which patterns cover which.
//! * [`subjects`]: every name in NATS that Weir gives.
//! * [`dedupe`]: how business ids are remembered.
//! * [`hidden`]: which names are Weir's own among those of handlers.
//! * [`trace::Trace`]: the chain of events that one belongs to.
//! * [`host_pattern`]: the hosts that an activity may call.
//! * [`limits`]: every bound that more than one module needs, with its reason.

pub mod dedupe;
pub mod event;
pub mod hidden;
pub mod host_pattern;
pub mod key;
pub mod limits;
pub mod pattern;
pub mod position;
pub mod subjects;
pub mod trace;
