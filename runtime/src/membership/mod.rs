//! Which host owns which partition, agreed on without asking anybody.
//!
//! ```text
//!   every host ── beat, four times a second ──> hosts bucket ──> every host
//!                                                                   │ members: who is alive, who holds what
//!                                                                   v
//!   lane: mine? <── owner(handler, partition) by rendezvous <────── View
//! ```
//!
//! * [`Beat`]: what a host says of itself, under `alive.<host>`.
//! * [`Members`](members::Members): what has been heard of all of them. Pure.
//! * [`View`]: who is alive and who holds which partition, for lanes.
//! * [`Holdings`]: which partitions this host holds, said in its next beat.
//! * [`join`]: the task that beats and listens.
//!
//! Views may differ for a moment. That is harmless: the fence decides who commits.
//! It is only to be rare, so that nothing is executed in vain:
//!
//! 1. A partition that should move is *released* by the host that holds it, once what
//!    it executed is committed; the next owner waits for that, or for its death.
//! 2. A newcomer counts for the others after [`members::JOIN_AFTER`], so that one
//!    that does not stay moves nothing.
//! 3. A host is dead when it was silent for [`members::DEAD_AFTER`] in which our own
//!    beats came back to us. Where those do not, the view stays as it is: not hearing
//!    is not the same as nobody speaking.

mod beat;
mod holdings;
mod join;
pub mod members;
mod rendezvous;

pub use beat::Beat;
pub use holdings::Holdings;
pub use join::{Error, Membership, join};
pub use members::View;
