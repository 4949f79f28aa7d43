//! The tables of an outbox: what they look like, and whether those that are there will do.
//!
//! * `outbox`: the rows, as the service inserts them. It may have more columns.
//! * `outbox_rejected`: rows that the ledger can never have, with the reason.
//! * `weir_outboxes`: one row per outbox of the schema: its claim, its term, its counts.

use std::collections::BTreeMap;

use tokio_postgres::{Client, GenericClient};

use super::super::identifier::Table;
use super::super::trouble::Trouble;

/// The channel on which the trigger says that rows were inserted. One for all outboxes;
/// the payload names the table.
pub const CHANNEL: &str = "weir_outbox";

/// Where claims are kept.
const STATE: &str = "weir_outboxes";

/// Held while tables are created, so that two that start at once do not collide in the catalog.
const CREATING: &str = "weir: creating tables";

/// The tables of one outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    pub outbox: Table,
    pub rejected: Table,
    pub state: Table,
}

/// Expressions that read the columns of an outbox, whose types are the service's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The payload as `bytea`.
    pub payload: &'static str,
    /// Its bytes, without reading what is stored out of line, where that can be.
    pub payload_bytes: &'static str,
}

impl Tables {
    /// # Errors
    /// The name is too long for the tables beside it.
    pub fn of(outbox: Table) -> Result<Tables, String> {
        Ok(Tables {
            rejected: outbox.beside(&format!("{}_rejected", outbox.name.as_str()))?,
            state: outbox.beside(STATE)?,
            outbox,
        })
    }

    /// All that an outbox needs, in SQL. What exists is left as it is, but for the
    /// column `sent`, which an outbox without it gets.
    pub fn sql(&self) -> String {
        let Tables {
            outbox,
            rejected,
            state,
        } = self;
        let (schema, name) = (&outbox.schema, outbox.name.as_str());
        let index = format!("\"{}\"", cut(name, "_unsent").replace('"', "\"\""));
        let literal = outbox.to_string().replace('\'', "''");
        format!(
            "\
-- What the service inserts, in its own transactions: subject, headers, payload.
create table if not exists {outbox} (
  id      bigserial primary key,
  subject text not null,
  headers jsonb,                -- {{\"Name\": \"value\", ...}}
  payload bytea not null,       -- or text, json, jsonb: then its text is sent
  sent    timestamptz           -- when its commit was known; set by weir outbox-source
);
alter table {outbox} add column if not exists sent timestamptz;
create index if not exists {index} on {outbox} (id) where sent is null;

-- Rows that the ledger can never have, and why.
create table if not exists {rejected} (
  id      bigint primary key,
  subject text,
  headers jsonb,
  payload bytea,
  reason  text not null,
  at      timestamptz not null default now()
);

-- How far each outbox of this schema is. Written by weir outbox-source only.
create table if not exists {state} (
  outbox         text primary key,
  source         text not null,
  ledger         text not null,
  ledger_created bigint not null,
  identity       uuid not null default gen_random_uuid(),
  term           bigint not null default 0,
  claim          bigint not null default 0,
  rows           bigint[] not null default '{{}}',
  sent           bigint not null default 0,
  rejected       bigint not null default 0,
  updated        timestamptz not null default now()
);

-- Optional: wakes the source at once, instead of within a second. PostgreSQL lets
-- transactions that notify commit one at a time: leave this out where thousands do per second.
create or replace function {schema}.weir_outbox_wake() returns trigger language plpgsql as $$
begin
  perform pg_notify('{CHANNEL}', tg_table_schema || '.' || tg_table_name);
  return null;
end $$;
do $$ begin
  if not exists (select from pg_trigger where tgrelid = '{literal}'::regclass and tgname = 'weir_outbox_wake') then
    create trigger weir_outbox_wake after insert on {outbox}
      for each statement execute function {schema}.weir_outbox_wake();
  end if;
end $$;
"
        )
    }

    /// Creates what is missing.
    ///
    /// # Errors
    /// The database does not allow it, or the session broke.
    pub async fn create(&self, client: &mut Client) -> Result<(), Trouble> {
        if self.missing(client).await?.is_empty() {
            return Ok(()); // without the locks that `alter table` takes
        }
        let transaction = client.transaction().await?;
        transaction
            .execute(
                "select pg_advisory_xact_lock(hashtextextended($1, 0))",
                &[&CREATING],
            )
            .await?;
        transaction.batch_execute(&self.sql()).await?;
        Ok(transaction.commit().await?)
    }

    /// Checks the tables.
    ///
    /// # Errors
    /// What is missing or of a type that will not do, with what to do.
    pub async fn check(&self, client: &Client) -> Result<Columns, Trouble> {
        let missing = self.missing(client).await?;
        if !missing.is_empty() {
            return Err(Trouble::Stopped(format!(
                "missing: {}. Run `weir outbox-source --create` with these arguments, or have the statements run that \
                 `weir outbox-source --print-schema` prints",
                missing.join(", ")
            )));
        }
        let types = columns(client, &self.outbox).await?;
        let id: bool = client
            .query_one(
                "select attnotnull from pg_attribute where attrelid = to_regclass($1) and attname = 'id'",
                &[&self.outbox.to_string()],
            )
            .await?
            .get(0);
        if !id {
            return Err(Trouble::Stopped(format!(
                "column id of table {} may be null; make it the primary key",
                self.outbox.short()
            )));
        }
        let of = |column: &str| types.get(column).map_or("", String::as_str);
        for (column, found, wanted) in [
            ("id", of("id"), &["bigint", "integer"][..]),
            ("subject", of("subject"), &["text", "character varying"]),
            ("headers", of("headers"), &["json", "jsonb"]),
            ("sent", of("sent"), &["timestamp with time zone"]),
        ] {
            if !wanted.contains(&found) {
                return Err(Trouble::Stopped(format!(
                    "column {column} of table {} is {found}; it must be {}",
                    self.outbox.short(),
                    wanted.join(" or ")
                )));
            }
        }
        Ok(match of("payload") {
            "bytea" => Columns {
                payload: "payload",
                payload_bytes: "octet_length(payload)",
            },
            "text" | "character varying" => Columns {
                payload: "convert_to(payload, 'UTF8')",
                payload_bytes: "octet_length(payload)",
            },
            _ => Columns {
                payload: "convert_to(payload::text, 'UTF8')",
                payload_bytes: "octet_length(payload::text)",
            },
        })
    }

    /// Tables and columns that are not there.
    async fn missing(&self, client: &Client) -> Result<Vec<String>, Trouble> {
        let mut missing = Vec::new();
        for (table, wanted) in [
            (&self.outbox, &["id", "subject", "headers", "payload", "sent"][..]),
            (&self.rejected, &["id", "subject", "headers", "payload", "reason"]),
            (&self.state, &["outbox", "identity", "term", "claim", "rows"]),
        ] {
            let found = columns(client, table).await?;
            if found.is_empty() {
                missing.push(format!("table {}", table.short()));
                continue;
            }
            let columns = wanted.iter().filter(|column| !found.contains_key(**column));
            missing.extend(columns.map(|column| format!("column {column} of table {}", table.short())));
        }
        Ok(missing)
    }
}

/// Names and types of a table's columns; empty if there is no such table.
async fn columns(client: &impl GenericClient, table: &Table) -> Result<BTreeMap<String, String>, Trouble> {
    let rows = client
        .query(
            "select attname::text, format_type(atttypid, null) from pg_attribute \
             where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
            &[&table.to_string()],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A name that still fits with something behind it.
fn cut(name: &str, suffix: &str) -> String {
    const NAME_BYTES_MAX: usize = 63;
    let end = name.floor_char_boundary(NAME_BYTES_MAX - suffix.len());
    format!("{}{suffix}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_are_refused_or_cut() {
        let long = "x".repeat(60);
        assert!(
            Tables::of(long.parse().expect("a table")).is_err(),
            "its _rejected is too long"
        );
        assert_eq!(cut(&long, "_unsent").len(), 63);
        let tables = Tables::of("o'\"x".parse().expect("a table")).expect("fits");
        let sql = tables.sql();
        assert!(sql.contains("'\"public\".\"o''\"\"x\"'::regclass"), "{sql}");
        assert!(sql.contains("index if not exists \"o'\"\"x_unsent\""), "{sql}");
    }
}
