//! Runs a handler on events from a file, in this process: `weir test`.
//!
//! What a handler does here is what it would do on a host, because it is done by
//! the host's own parts: [`Decoder`](crate::source::decode::Decoder) finds the
//! key, [`Workspace`](crate::dispatch::execute::Workspace) runs the event and
//! checks its effects, [`Committer`](crate::commit::committer::Committer) commits
//! them to the log in memory, whose schedules are the timers. What is left out is
//! what would make a run differ from the next one: groups (each event is
//! committed by itself), takeovers, checkpoints, and real time.
//!
//! Nothing reaches the network: requests of activities are answered from a file.
//!
//! Time is virtual. The log's clock goes to each event's time, and stops on the
//! way wherever a timer is due. Backoff between attempts costs none: within its
//! partition nothing could happen meanwhile.
//!
//! * [`events`]: the file.
//! * [`responses`]: what an activity's requests are answered with.
//! * [`stage`]: the handler on its log, one event or timer at a time.
//! * [`outcome`]: what one event came to.
//! * [`report`]: that as text, and as a line of JSON to compare.

pub mod events;
pub mod outcome;
pub mod report;
pub mod responses;
pub mod stage;

pub use events::Given;
pub use outcome::Outcome;
pub use stage::{Setup, Stage, Summary};
