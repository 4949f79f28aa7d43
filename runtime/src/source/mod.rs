//! Reading: messages of a stream become events of a partition.
//!
//! * [`decode::Decoder`]: one message to one event: key, partition, or why not. Pure.
//! * [`feed::Feed`]: the task that reads one source of one handler and hands
//!   each partition its events.
//! * [`identity`]: whether a source is still the stream that positions are in.
//! * `lanes`: where each lane of a feed is.
//! * [`progress::Progress`]: what a feed shows of itself.

pub mod decode;
pub mod feed;
pub mod identity;
mod lanes;
pub mod progress;
