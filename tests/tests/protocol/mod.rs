//! The rules of the commit protocol, each opened as a race or a case and then
//! closed: hosts in the process of the test, on a log in memory. The numbers are
//! those of `PROTOCOL.md`. What is the server's own is tried on a real one, in
//! `log_conformance`.

mod chains;
mod commits;
mod dedupe;
mod failures;
mod identity;
mod migrations;
mod ownership;
mod rebuild;
mod removal;
mod shared;
mod shared_languages;
mod sources;
mod state;
mod timers;
