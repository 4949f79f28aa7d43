//! What the state of a key was: `weir state get --at`.
//!
//! Cells are kept as they are now; what they were is in the events. So the handler as it is deployed is given all
//! events of the key up to the point again, on a [`stage`](crate::stage), and its cells are read there.
//!
//! 1. [`sources`]: where the handler began to read each of its sources, and whether all is still there. It is refused
//!    to fold what is not whole.
//! 2. [`point`]: up to where, of each source.
//! 3. [`own`]: what the ledger still knows of the handler's past. While no record of the partition was purged, that
//!    is all of it: when each timer fired, what was redriven, what operators said.
//! 4. [`turns`]: in which order the partition took the events of its sources, as far as records still say.
//! 5. [`inputs`]: the events of the key, one at a time in that order.
//! 6. [`fold`]: gives them to the handler.
//!
//! What cannot be known, because nobody keeps it, is decided by the times at which the server stored the events: the
//! order between two sources, and when a timer fired. [`Folded`] says what of it was needed.

pub mod fold;
pub mod inputs;
pub mod own;
pub mod point;
pub mod sources;
pub mod turns;

pub use fold::{Folded, Wanted, fold};
pub use point::Point;
