//! The database's side of an outbox: claims, what became of them, and rejected rows.
//! Every transaction locks the state row first and compares the term in it.

use bytes::Bytes;
use tokio_postgres::{Client, Row as SqlRow, Statement, Transaction};

use super::super::trouble::Trouble;
use super::row::Row;
use super::schema::{Columns, Tables};
use crate::model::limits::EFFECT_MESSAGES_MAX;

/// Rows of one claim, which go into one batch where the server takes it: they and
/// the record stay below the server's limit.
const CLAIM_ROWS_MAX: i64 = 900;

/// Bytes of their payloads and headers: what is held in memory, and half of what a
/// batch may hold. A single row may be larger.
const CLAIM_BYTES_MAX: i64 = 4 * 1024 * 1024;

const _: () = assert!(CLAIM_ROWS_MAX as usize <= EFFECT_MESSAGES_MAX);
const _: () = assert!(CLAIM_BYTES_MAX as usize * 2 <= crate::commit::pack::BATCH_BYTES_MAX);

/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 4_096;

/// What the state row says of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub source: String,
    pub ledger: String,
    /// When that ledger was created, in Unix nanoseconds.
    pub ledger_created: i64,
    /// Random; the outbox's name on the ledger.
    pub identity: String,
    pub term: i64,
    /// Number of the last claim.
    pub claim: i64,
    /// Its rows.
    pub rows: Vec<i64>,
}

/// Statements on the tables of one outbox, for one session.
pub struct Outbox {
    tables: Tables,
    read: Statement,
    any: Statement,
    claim: Statement,
    claimed: Statement,
    settle: Statement,
    reject: Statement,
}

/// A handful of rows that go into the ledger together.
#[derive(Debug)]
pub struct Claim {
    pub number: i64,
    pub rows: Vec<Row>,
}

impl Outbox {
    /// # Errors
    /// The session broke, or the tables are not those that were checked.
    pub async fn prepare(
        client: &Client,
        tables: &Tables,
        columns: &Columns,
        delete: bool,
    ) -> Result<Outbox, Trouble> {
        let Tables {
            outbox,
            rejected,
            state,
        } = tables;
        let Columns {
            payload,
            payload_bytes,
        } = columns;
        let size = format!("coalesce({payload_bytes}, 0)::bigint");
        // A payload that is too large for a message is not even read.
        let fields = format!(
            "o.id::bigint as id, coalesce(o.subject::text, '') as subject, o.headers::text as headers, \
             case when {size} <= $1::bigint then coalesce({payload}, '') end as payload, {size} as bytes"
        );
        let claim = format!(
            "select id, subject, headers, payload, bytes from ( \
               select {fields}, {size} + coalesce(octet_length(o.headers::text), 0) as budget, \
                 sum({size} + coalesce(octet_length(o.headers::text), 0)) over (order by o.id) as through \
               from {outbox} o where o.sent is null order by o.id limit {CLAIM_ROWS_MAX}) as first \
             where through - budget < {CLAIM_BYTES_MAX} order by id"
        );
        let claimed = format!(
            "select {fields} from {outbox} o where o.id = any($2::bigint[]) and o.id > $3::bigint order by o.id"
        );
        let settle = match delete {
            true => format!("delete from {outbox} where id = any($1::bigint[])"),
            false => format!("update {outbox} set sent = now() where id = any($1::bigint[])"),
        };
        let reject = format!(
            "with bad as (select * from unnest($1::bigint[], $2::text[]) as bad (id, reason)), \
                  moved as (delete from {outbox} o using bad where o.id = bad.id \
                    returning o.id, o.subject, o.headers::text::jsonb as headers, {} as payload, bad.reason) \
             insert into {rejected} as r (id, subject, headers, payload, reason) \
             select id, subject, headers, payload, reason from moved \
             on conflict (id) do update set subject = excluded.subject, headers = excluded.headers, \
               payload = excluded.payload, reason = excluded.reason, at = now()",
            payload.replace("payload", "o.payload")
        );
        Ok(Outbox {
            read: client
                .prepare(&format!(
                    "select source, ledger, ledger_created, identity::text, term, claim, rows from {state} \
                     where outbox = $1 for update"
                ))
                .await?,
            any: client
                .prepare(&format!(
                    "select exists (select from {outbox} where sent is null)"
                ))
                .await?,
            claim: client.prepare(&claim).await?,
            claimed: client.prepare(&claimed).await?,
            settle: client.prepare(&settle).await?,
            reject: client.prepare(&reject).await?,
            tables: tables.clone(),
        })
    }

    /// The name of the state row.
    fn key(&self) -> &str {
        self.tables.outbox.name.as_str()
    }

    /// The state as it is, made if there is none.
    ///
    /// # Errors
    /// The session broke.
    pub async fn found(
        &self,
        client: &mut Client,
        source: &str,
        ledger: &str,
        ledger_created: i64,
    ) -> Result<State, Trouble> {
        let transaction = client.transaction().await?;
        let insert = format!(
            "insert into {} (outbox, source, ledger, ledger_created) values ($1, $2, $3, $4) on conflict do nothing",
            self.tables.state
        );
        transaction
            .execute(&insert, &[&self.key(), &source, &ledger, &ledger_created])
            .await?;
        let state = self.locked(&transaction).await?;
        transaction.commit().await?;
        Ok(state)
    }

    async fn locked(&self, transaction: &Transaction<'_>) -> Result<State, Trouble> {
        let row = transaction.query_opt(&self.read, &[&self.key()]).await?;
        let row = row.ok_or_else(|| {
            Trouble::Unavailable(format!(
                "the row of {} in {} is gone",
                self.key(),
                self.tables.state.short()
            ))
        })?;
        Ok(State {
            source: row.get(0),
            ledger: row.get(1),
            ledger_created: row.get(2),
            identity: row.get(3),
            term: row.get(4),
            claim: row.get(5),
            rows: row.get(6),
        })
    }

    /// The state, locked, if the term is still ours.
    async fn ours(&self, transaction: &Transaction<'_>, term: i64) -> Result<State, Trouble> {
        let state = self.locked(transaction).await?;
        match state.term == term {
            true => Ok(state),
            false => Err(Trouble::Fenced(format!(
                "the state row of {} is of term {}, ours is {term}",
                self.key(),
                state.term
            ))),
        }
    }

    /// Begins a term: what an owner before does with this outbox fails from here on.
    ///
    /// # Errors
    /// [`Trouble::Fenced`] where a later term has begun; or the session broke.
    pub async fn begin(&self, client: &mut Client, term: i64) -> Result<State, Trouble> {
        let transaction = client.transaction().await?;
        let state = self.locked(&transaction).await?;
        if state.term >= term {
            return Err(Trouble::Fenced(format!(
                "term {} has begun after ours, {term}",
                state.term
            )));
        }
        let set = format!(
            "update {} set term = $2, updated = now() where outbox = $1",
            self.tables.state
        );
        transaction.execute(&set, &[&self.key(), &term]).await?;
        transaction.commit().await?;
        Ok(State { term, ..state })
    }

    /// Whether there is a row that is not sent.
    ///
    /// # Errors
    /// The session broke.
    pub async fn has_rows(&self, client: &Client) -> Result<bool, Trouble> {
        Ok(client.query_one(&self.any, &[]).await?.get(0))
    }

    /// Marks the rows of the last claim as sent, or deletes them, and claims the next ones.
    /// `sent` is the last claim that is in the ledger, whole.
    ///
    /// # Errors
    /// [`Trouble::Fenced`] where the term is over; or the session broke.
    pub async fn advance(
        &self,
        client: &mut Client,
        term: i64,
        sent: i64,
        bytes_max: i64,
    ) -> Result<Claim, Trouble> {
        let transaction = client.transaction().await?;
        let settled = self.settled(&transaction, term, sent).await?;
        let rows = rows(transaction.query(&self.claim, &[&bytes_max]).await?);
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let number = match ids.is_empty() {
            true => sent,
            false => sent + 1,
        };
        self.write(&transaction, number, &ids, settled).await?;
        transaction.commit().await?;
        Ok(Claim { number, rows })
    }

    async fn settled(&self, transaction: &Transaction<'_>, term: i64, sent: i64) -> Result<i64, Trouble> {
        let state = self.ours(transaction, term).await?;
        // Of a claim that is not the one sent, all rows were rejected.
        let settled = match state.claim == sent && !state.rows.is_empty() {
            true => transaction.execute(&self.settle, &[&state.rows]).await?,
            false => 0,
        };
        Ok(i64::try_from(settled).unwrap_or(i64::MAX))
    }

    async fn write(
        &self,
        transaction: &Transaction<'_>,
        claim: i64,
        rows: &[i64],
        settled: i64,
    ) -> Result<(), Trouble> {
        let set = format!(
            "update {} set claim = $2, rows = $3, sent = sent + $4, updated = now() where outbox = $1",
            self.tables.state
        );
        transaction
            .execute(&set, &[&self.key(), &claim, &rows, &settled])
            .await?;
        Ok(())
    }

    /// Marks the rows of the last claim as sent, or deletes them, and claims nothing.
    ///
    /// # Errors
    /// [`Trouble::Fenced`] where the term is over; or the session broke.
    pub async fn settle(&self, client: &mut Client, term: i64, sent: i64) -> Result<(), Trouble> {
        let transaction = client.transaction().await?;
        let settled = self.settled(&transaction, term, sent).await?;
        self.write(&transaction, sent, &[], settled).await?;
        Ok(transaction.commit().await?)
    }

    /// Rows of the last claim with an id above `through`.
    ///
    /// # Errors
    /// The session broke.
    pub async fn claimed(
        &self,
        client: &Client,
        state: &State,
        through: i64,
        bytes_max: i64,
    ) -> Result<Vec<Row>, Trouble> {
        Ok(rows(
            client
                .query(&self.claimed, &[&bytes_max, &state.rows, &through])
                .await?,
        ))
    }

    /// Moves rows to `<table>_rejected`. They must be certain not to be in the ledger, ever.
    ///
    /// # Errors
    /// [`Trouble::Fenced`] where the term is over; or the session broke.
    pub async fn reject(&self, client: &mut Client, term: i64, bad: &[(i64, String)]) -> Result<(), Trouble> {
        let ids: Vec<i64> = bad.iter().map(|(id, _)| *id).collect();
        let reasons: Vec<&str> = bad
            .iter()
            .map(|(_, reason)| &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)])
            .collect();
        let transaction = client.transaction().await?;
        self.ours(&transaction, term).await?;
        let moved = transaction.execute(&self.reject, &[&ids, &reasons]).await?;
        let moved = i64::try_from(moved).unwrap_or(i64::MAX);
        let set = format!(
            "update {} set rejected = rejected + $2, updated = now() where outbox = $1",
            self.tables.state
        );
        transaction.execute(&set, &[&self.key(), &moved]).await?;
        Ok(transaction.commit().await?)
    }
}

fn rows(found: Vec<SqlRow>) -> Vec<Row> {
    found
        .into_iter()
        .map(|row| Row {
            id: row.get(0),
            subject: row.get(1),
            headers: row.get(2),
            payload: row.get::<_, Option<&[u8]>>(3).map(Bytes::copy_from_slice),
            bytes: row.get(4),
        })
        .collect()
}
