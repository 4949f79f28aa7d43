//! PostgreSQL, both ways, exactly once: from a table into the ledger
//! ([`outbox`]), and from a stream into tables ([`sink`]).
//!
//! Both rest on one thing: a position and what it stands for change in one
//! atomic step. For the outbox that is a batch on the ledger, for the sink a
//! transaction in the database. The other side is read again after any trouble.
//!
//! * `address`: a URL of PostgreSQL, with what it demands of TLS.
//! * `tls`: how much of a server's certificate is believed.
//! * `session`: one connection, whose turn it is, and what wakes it.
//! * `identifier`: names of tables and columns, quoted.
//! * `trouble`: what an error means for whoever meets it.
//! * `service`: a process that goes from trouble to the next try until it is told to stop.

pub mod address;
pub mod identifier;
pub mod outbox;
pub mod service;
pub mod session;
pub mod sink;
mod tls;
pub mod trouble;

/// Tables whose names begin so are Weir's own: no event may change them.
const OWN_PREFIX: &str = "weir_";
