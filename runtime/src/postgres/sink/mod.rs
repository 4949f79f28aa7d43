//! From a stream into tables, each event exactly once.
//!
//! Events say what to do with rows ([`operation`]). One transaction applies many
//! of them and moves the sink's position in `weir_positions`:
//!
//! 1. Lock the position and compare it with ours. Another one means that somebody
//!    else of this name has gone on: give up and read it again.
//! 2. Apply the events, in the order of the stream, each of them whole or not at all.
//! 3. What the database refuses goes into `weir_rejected_rows`, with the reason.
//! 4. Write the new position, and commit.
//!
//! A commit whose answer is lost is settled by the position, which the next term
//! reads. Nothing is remembered between terms.
//!
//! **One event, one fate.** All events of a chunk are first applied without
//! stopping, their statements sent one behind the other without waiting for answers. If one is
//! refused, the chunk is undone and done again with a savepoint before each event, so
//! that what is refused is that event and no other. Deferred constraints are checked after each event in both,
//! so that an event's fate does not depend on the chunk that it happens to be in.
//!
//! **The stream is the one that the position is in** (PROTOCOL rule 6): that is
//! looked at after each reader is opened, and a reader ends with whatever breaks.

mod apply;
pub mod operation;
mod position;
mod work;

pub use work::{Settings, Sink};
