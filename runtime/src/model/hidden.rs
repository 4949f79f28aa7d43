//! Names that belong to Weir among those of handlers: what begins with a zero byte.
//!
//! What Weir keeps of a key beside the handler's cells is kept in cells, too, so that it
//! is committed, replayed and checkpointed in the one way there is. Handlers neither
//! see nor write such cells, and no event has such a key.

/// Cell with the version of a key's state, in decimal; a key without one has version 1.
pub const VERSION_CELL: &str = "\0version";

/// Whether a cell, timer or key of that name is Weir's own.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('\0')
}
