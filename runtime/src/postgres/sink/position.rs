//! Where a sink is: its row in `weir_positions`, and what the database refused, in
//! `weir_rejected_rows`. Both are in the schema of the tables that the sink writes.

use tokio_postgres::{Client, Row, Transaction};

use super::super::identifier::{Identifier, Table};
use super::super::trouble::Trouble;
use crate::log::Stored;
use crate::model::position::Position;

/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 4_096;

/// The two tables of a schema's sinks.
#[derive(Debug, Clone)]
pub struct Positions {
    positions: Table,
    rejected: Table,
}

/// What a sink's row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub stream: String,
    pub subjects: Vec<String>,
    pub position: Position,
}

/// What a transaction adds to a sink's row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Events.
    pub applied: i64,
    pub rejected: i64,
    /// Sequences of the stream that were removed before they were read.
    pub lost: i64,
}

/// A number of ours in the database, which has no unsigned ones.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Positions {
    /// # Errors
    /// Never for a schema that is an identifier; as text.
    pub fn of(schema: &Identifier) -> Result<Positions, String> {
        let positions = Table {
            schema: schema.clone(),
            name: Identifier::new("weir_positions")?,
        };
        Ok(Positions {
            rejected: positions.beside("weir_rejected_rows")?,
            positions,
        })
    }

    /// As people write it.
    pub fn shown(&self) -> String {
        self.positions.short()
    }

    fn sql(&self) -> String {
        format!(
            "create table if not exists {positions} (
               sink     text primary key,
               stream   text not null,
               subjects text[] not null,
               created  bigint not null,
               sequence bigint not null,
               stored   bigint not null,
               applied  bigint not null default 0,
               rejected bigint not null default 0,
               lost     bigint not null default 0,
               updated  timestamptz not null default now()
             );
             create table if not exists {rejected} (
               sink     text not null,
               stream   text not null,
               created  bigint not null,
               sequence bigint not null,
               subject  text not null,
               payload  bytea not null,
               reason   text not null,
               at       timestamptz not null default now(),
               primary key (sink, stream, created, sequence)
             );",
            positions = self.positions,
            rejected = self.rejected
        )
    }

    /// Creates the tables if they are missing.
    ///
    /// # Errors
    /// The database does not allow it, or the session broke.
    pub async fn ensure(&self, client: &mut Client) -> Result<(), Trouble> {
        let there = "select to_regclass($1) is not null and to_regclass($2) is not null";
        let names = (self.positions.to_string(), self.rejected.to_string());
        if client.query_one(there, &[&names.0, &names.1]).await?.get(0) {
            return Ok(()); // a sink needs no right to create them then
        }
        let transaction = client.transaction().await?;
        // Two that start at once would collide in the catalog.
        transaction
            .execute(
                "select pg_advisory_xact_lock(hashtextextended($1, 0))",
                &[&names.0],
            )
            .await?;
        transaction.batch_execute(&self.sql()).await?;
        Ok(transaction.commit().await?)
    }

    /// The sink's row.
    ///
    /// # Errors
    /// The session broke.
    pub async fn find(&self, client: &Client, sink: &str) -> Result<Option<Found>, Trouble> {
        let select = format!(
            "select stream, subjects, created, sequence, stored from {} where sink = $1",
            self.positions
        );
        Ok(client.query_opt(&select, &[&sink]).await?.map(|row| Found {
            stream: row.get(0),
            subjects: row.get(1),
            position: position(&row, 2),
        }))
    }

    /// Makes the sink's row, unless there is one.
    ///
    /// # Errors
    /// The session broke.
    pub async fn begin(&self, client: &Client, sink: &str, found: &Found) -> Result<(), Trouble> {
        let insert = format!(
            "insert into {} (sink, stream, subjects, created, sequence, stored) values ($1, $2, $3, $4, $5, $6) \
             on conflict do nothing",
            self.positions
        );
        let Position {
            created,
            sequence,
            stored,
        } = found.position;
        let (created, sequence, stored) = (signed(created), signed(sequence), signed(stored));
        client
            .execute(
                &insert,
                &[
                    &sink,
                    &found.stream,
                    &found.subjects,
                    &created,
                    &sequence,
                    &stored,
                ],
            )
            .await?;
        Ok(())
    }

    /// Locks the sink's row for the rest of the transaction, if it is where we are.
    ///
    /// # Errors
    /// [`Trouble::Fenced`] where it is not; or the session broke.
    pub async fn lock(
        &self,
        transaction: &Transaction<'_>,
        sink: &str,
        ours: Position,
    ) -> Result<(), Trouble> {
        let select = format!(
            "select created, sequence, stored from {} where sink = $1 for update",
            self.positions
        );
        match transaction.query_opt(&select, &[&sink]).await? {
            Some(row) if position(&row, 0) == ours => Ok(()),
            Some(row) => Err(Trouble::Fenced(format!(
                "sink {sink} is at sequence {}, we were at {}",
                position(&row, 0).sequence,
                ours.sequence
            ))),
            None => Err(Trouble::Fenced(format!(
                "the row of sink {sink} in {} is gone: somebody lets it begin anew",
                self.shown()
            ))),
        }
    }

    /// Moves the sink's row, which is locked.
    ///
    /// # Errors
    /// The session broke.
    pub async fn advance(
        &self,
        transaction: &Transaction<'_>,
        sink: &str,
        to: Position,
        counts: Counts,
    ) -> Result<(), Trouble> {
        let update = format!(
            "update {} set created = $2, sequence = $3, stored = $4, applied = applied + $5, \
             rejected = rejected + $6, lost = lost + $7, updated = now() where sink = $1",
            self.positions
        );
        let (created, sequence, stored) = (signed(to.created), signed(to.sequence), signed(to.stored));
        transaction
            .execute(
                &update,
                &[
                    &sink,
                    &created,
                    &sequence,
                    &stored,
                    &counts.applied,
                    &counts.rejected,
                    &counts.lost,
                ],
            )
            .await?;
        Ok(())
    }

    /// Keeps an event that the database refused.
    ///
    /// # Errors
    /// The session broke.
    pub async fn reject(
        &self,
        transaction: &Transaction<'_>,
        sink: &str,
        stream: &str,
        created: u64,
        event: &Stored,
        reason: &str,
    ) -> Result<(), Trouble> {
        let insert = format!(
            "insert into {} (sink, stream, created, sequence, subject, payload, reason) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
            self.rejected
        );
        let (created, sequence) = (signed(created), signed(event.sequence));
        // PostgreSQL's text has no zero bytes, and errors may quote what does.
        let reason = reason.replace('\0', "\u{fffd}");
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        transaction
            .execute(
                &insert,
                &[
                    &sink,
                    &stream,
                    &created,
                    &sequence,
                    &&*event.subject,
                    &&*event.data,
                    &reason,
                ],
            )
            .await?;
        Ok(())
    }
}

/// Created time, sequence and stored time, from column `first` on.
fn position(row: &Row, first: usize) -> Position {
    Position {
        created: unsigned(row.get(first)),
        sequence: unsigned(row.get(first + 1)),
        stored: unsigned(row.get(first + 2)),
    }
}
