//! From an outbox table into the ledger, each row exactly once.
//!
//! A service inserts rows into the table in its own transactions. Which rows go
//! into the ledger together is decided in the database, and that they are in it is
//! decided on the ledger:
//!
//! 1. **Claim** (one transaction): of the rows that are visible and not sent, the
//!    first by id; their ids go into the state row, under the number after the last one.
//! 2. **Append** (one atomic batch): the rows' messages and, LAST, a record with the
//!    claim's number and the id up to which it is done, which expects the record
//!    before it (`$WEIR.<L>.s.<name>`).
//! 3. **Settle** (in the transaction of the next claim): its rows are marked as sent, or deleted.
//!
//! ```text
//!   state row    claim 7 {ids}              claim 8 {ids}, 7 sent         claim 9 {ids}, 8 sent
//!   ledger                  ─▶ rows, record 7              ─▶ rows, record 8
//! ```
//!
//! So the number in the database is that of the last record, or one more. A crash
//! anywhere leaves one of these two, and the start after it reads which: the claim is
//! sent, or it is not. Any other difference means that one side is not the one that the
//! other side knows: a database or ledger that was restored or made again. Then the source
//! stops, because it would lose or double.
//!
//! **Why claims and not a position in the table.** Ids are given out before
//! transactions commit, so a row with a lower id may become visible after one with a higher. A
//! source that remembers the highest id skips it. Ordering by transaction id and reading up to the oldest that still
//! runs (`pg_snapshot_xmin`) skips nothing, but one long transaction anywhere in
//! the server holds everything back; transaction ids do not survive a dump and restore; and
//! the order is wrong where it matters: a transaction may have got its number
//! long before it waited for the row that another one was changing. Here a row is taken
//! when it is seen and not yet sent, whatever its id.
//!
//! **Order.** If B's row was inserted after A's transaction had committed, A's id is
//! lower, and whoever sees B sees A: A is in an earlier claim, or before B in the
//! same. So a service that inserts while it holds the lock on what the row is about
//! gets that thing's rows in the order of its changes. (The sequence must hand out ids in the
//! order of asking: `cache 1`, which is what `bigserial` has.) Within a transaction, the order is that of the ids.
//!
//! **Takeover.** A start commits a record first, which changes nothing and
//! expects the last one; from then on nothing of an owner before can arrive. Its sequence
//! is the *term*, which goes into the state row: every transaction of ours compares it there, so
//! that the owner before can neither claim nor settle nor reject. An append without an answer,
//! and any other trouble, ends the term; the next one finds out.
//!
//! **Rejected rows.** What can never be in the ledger is moved to `<table>_rejected`, with the
//! reason, in the transaction that claims it, or in one of its own after it was certainly not
//! sent: a row is in the outbox, rejected or in the ledger, and never in two of them.

mod record;
mod row;
pub mod schema;
mod source;
mod state;

pub use source::{Settings, Source};
