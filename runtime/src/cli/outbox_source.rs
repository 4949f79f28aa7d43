//! `weir outbox-source`: from the outbox table of a service into the ledger, exactly once.

use std::process::ExitCode;
use std::sync::Arc;

use super::service::{self, PostgresOptions};
use super::{WrongUse, print};
use crate::config::Options;
use crate::model::pattern::TOKEN_BYTES_MAX;
use crate::postgres::identifier::Table;
use crate::postgres::outbox::schema::Tables;
use crate::postgres::outbox::{Settings, Source};

const EXAMPLES: &str = "\
Examples:
  weir outbox-source --print-schema                         the tables, as SQL to be read and run
  weir outbox-source --postgres postgres://shop@db/shop --ledger SHOP --create
  weir outbox-source --postgres postgres://shop@db/shop --ledger SHOP --table sales.outbox --delete
  weir outbox-source --postgres postgres://shop@db/shop --ledger SHOP --once

A service inserts into the table in the transaction that changes its own:
  begin;
  update orders set status = 'paid' where id = 7;
  insert into outbox (subject, payload) values ('orders.7', '{\"status\":\"paid\"}');
  commit;
Each row then becomes one event of the ledger, whatever is killed and whenever. Rows that the ledger can never
have (no valid subject, none of the ledger's, too large) are moved to the table outbox_rejected with the reason.

Of several sources with one name, one works and the others wait. Prints one line on stdout once it works:
  weir ready source=outbox table=outbox ledger=SHOP nats=nats://127.0.0.1:4222 postgres=postgres://db/shop

SIGTERM or Ctrl-C ends it after what is under way; SIGKILL is as safe.
sslmode means what it means to psql: prefer (the default) uses TLS if the server has it, require insists,
verify-full also checks who answers (sslrootcert=FILE, or the authorities of the system).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    postgres: PostgresOptions,
    /// The table that rows are taken from, in the schema `public` unless it says another
    #[arg(long, value_name = "[SCHEMA.]TABLE", default_value = "outbox")]
    table: Table,
    /// Name of this source, unique in the ledger [default: the table's name]
    #[arg(long)]
    name: Option<String>,
    /// Deletes rows once they are known to be in the ledger, instead of marking them as sent
    #[arg(long)]
    delete: bool,
    /// Creates the tables if they are missing
    #[arg(long)]
    create: bool,
    /// Ends when no row is left
    #[arg(long)]
    once: bool,
    /// Prints the tables as SQL, and does nothing else
    #[arg(long)]
    print_schema: bool,
}

pub async fn outbox_source(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tables = Tables::of(arguments.table.clone()).map_err(WrongUse)?;
    if arguments.print_schema {
        print::bytes(tables.sql().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (nats, ledger) = options.client()?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => tables.outbox.name.as_str().to_owned(),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > TOKEN_BYTES_MAX || !name.bytes().all(valid) {
        return Err(WrongUse(format!(
            "`{name}` is no name for a source: 1 to {TOKEN_BYTES_MAX} of the characters A-Z, a-z, 0-9, _ and -; give one \
             with --name"
        ))
        .into());
    }
    let address = arguments.postgres.address(&format!("outbox-source {name}"))?;
    let ready = format!(
        "weir ready source={name} table={} ledger={ledger} nats={} postgres={address}",
        tables.outbox.short().replace(char::is_whitespace, "_"),
        nats.url_shown()
    );
    let settings = Settings {
        name: name.clone(),
        tables,
        ledger,
        delete: arguments.delete,
        create: arguments.create,
        once: arguments.once,
    };
    service::run(&nats, &format!("outbox-source {name}"), |jetstream| {
        Source::new(Arc::new(jetstream), address, settings, move || {
            print::ready(&ready)
        })
    })
    .await
}
