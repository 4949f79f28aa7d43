//! The bounds that more than one module needs. Those of one module only stand
//! in that module; those an operator can set are in the manifest.

/// Messages in one atomic batch: the server's default limit (ADR-50).
pub const BATCH_MESSAGES_MAX: usize = 1_000;

/// Messages that one event may cause: a batch must also hold its record, a dead
/// letter and fillers.
pub const EFFECT_MESSAGES_MAX: usize = 900;

/// Cells per key, so that a key loads in one direct get (the server answers at
/// most 1,024 results).
pub const CELLS_PER_KEY_MAX: usize = 900;

/// Bytes of a key. Written as a token it may be three times as long, and still
/// has to fit a subject beside a cell's name.
pub const KEY_BYTES_MAX: usize = 256;

/// Bytes of a cell's or a timer's name, for the same reason.
pub const NAME_BYTES_MAX: usize = 128;

/// Bytes that the batch and fence headers of one message take at the most:
/// counted in every size check (PROTOCOL rule 13).
pub const BATCH_HEADER_BYTES: usize = 256;

/// Bytes that an emitted event takes beside its own headers and payload: those of
/// the batch, the frame of the headers, the one that names its cause, which holds a
/// stream's name of 255 bytes and a sequence, and those of its chain.
pub const EMIT_OVERHEAD_BYTES: usize = BATCH_HEADER_BYTES + 384 + TRACE_BYTES;

/// Bytes of the headers that carry a chain of events on.
const TRACE_BYTES: usize = 384;

/// Bytes that an entry of the outbox takes beside that: two headers, with a subject and a
/// stream's name of 255 bytes.
pub const OUTBOX_BYTES: usize = 600;

/// Bytes that a timer takes beside its payload: those of the batch, its schedule,
/// two subjects that hold a key and a name, three bytes for each of theirs, and its chain.
pub const TIMER_OVERHEAD_BYTES: usize =
    2 * (3 * (KEY_BYTES_MAX + NAME_BYTES_MAX) + 512) + BATCH_HEADER_BYTES + TRACE_BYTES;

const _: () = assert!(super::trace::CORRELATION_BYTES_MAX + 64 < TRACE_BYTES);

const _: () = assert!(EFFECT_MESSAGES_MAX + 50 < BATCH_MESSAGES_MAX);
