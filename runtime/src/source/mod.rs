//! Reading: messages of a stream become events of a partition.
//!
//! * [`decode::Decoder`]: one message to one event: key, partition, or why not. Pure.
//! * [`feed::Feed`]: the task that reads one source of one handler and hands
//!   each partition its events.
//! * [`start::Starts`]: where a source begins that has no position yet.

pub mod decode;
pub mod feed;
pub mod start;
