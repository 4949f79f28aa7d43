//! `weir test`: a handler on events from a file, on a [`stage`](crate::stage).
//!
//! The log's clock goes to each event's time, and stops on the way wherever a timer is due. Requests of
//! activities are answered from a file.
//!
//! * [`events`]: the file.
//! * [`responses`]: what an activity's requests are answered with.
//! * [`run`]: the events and the timers, one after the other.
//! * [`report`]: what came of each as text, and as a line of JSON to compare.

pub mod events;
pub mod report;
pub mod responses;
pub mod run;

pub use events::Given;
pub use run::{Setup, Summary, Trial};
