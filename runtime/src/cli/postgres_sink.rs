//! `weir postgres-sink`: from a stream into tables, exactly once.

use std::process::ExitCode;
use std::sync::Arc;

use super::service::{self, PostgresOptions};
use super::{WrongUse, print};
use crate::config::{LedgerOptions, Options};
use crate::log::Start;
use crate::model::pattern;
use crate::postgres::identifier::{Identifier, PUBLIC};
use crate::postgres::sink::{Settings, Sink};

const EXAMPLES: &str = "\
Examples:
  weir postgres-sink --postgres postgres://shop@db/shop --ledger SHOP --name orders --subjects 'rows.orders.>'
  weir postgres-sink --postgres postgres://shop@db/shop --stream IMPORT --name import --subjects 'import.>' --once

An event says what to do with rows: one operation, or a list of them that are done together or not at all:
  {\"table\":\"orders\",\"key\":{\"id\":7},\"set\":{\"status\":\"paid\",\"total\":12.50}}    changes the row, or makes it
  {\"table\":\"orders\",\"key\":{\"id\":7},\"delete\":true}                             removes it
The key names the columns of a unique constraint; values are converted to the types of the columns.

Rows and position are changed in one transaction, so that each event counts once, whatever is killed and whenever.
The position is in the table weir_positions; what the database refuses is in weir_rejected_rows, with the reason,
and stops nothing. To build the tables anew, empty them and start with another --name.

Of several sinks with one name, one works and the others wait. Prints one line on stdout once it works:
  weir ready sink=orders stream=SHOP nats=nats://127.0.0.1:4222 postgres=postgres://db/shop

SIGTERM or Ctrl-C ends it after the transaction that is under way; SIGKILL is as safe.
sslmode means what it means to psql: prefer (the default) uses TLS if the server has it, require insists,
verify-full also checks who answers (sslrootcert=FILE, or the authorities of the system).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    postgres: PostgresOptions,
    /// Name of this sink, unique in the schema
    #[arg(long)]
    name: String,
    /// Subjects that are applied
    #[arg(long, value_name = "SUBJECTS", value_delimiter = ',', required = true)]
    subjects: Vec<String>,
    /// Stream that is read [default: the ledger]
    #[arg(long)]
    stream: Option<String>,
    /// Schema of the tables; no other can be written to
    #[arg(long, default_value = PUBLIC)]
    schema: Identifier,
    /// Where a new sink begins: all, new, a sequence, or an RFC 3339 time
    #[arg(long, default_value = "all", value_parser = start)]
    start: Start,
    /// Ends when everything was applied
    #[arg(long)]
    once: bool,
}

pub async fn postgres_sink(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (nats, stream) = match &arguments.stream {
        Some(stream) => (options.check(&LedgerOptions::default())?.0, stream.clone()),
        None => options.client()?,
    };
    let subjects: Vec<String> = arguments.subjects.iter().map(|s| s.trim().to_owned()).collect();
    for (index, subject) in subjects.iter().enumerate() {
        pattern::check(subject).map_err(|problem| WrongUse(format!("--subjects: {problem}")))?;
        if let Some(other) = subjects[..index]
            .iter()
            .find(|other| pattern::overlap(other, subject))
        {
            return Err(WrongUse(format!("--subjects: `{subject}` overlaps `{other}`")).into());
        }
    }
    let name = &arguments.name;
    if name.is_empty() || name.len() > pattern::TOKEN_BYTES_MAX || name.contains(char::is_control) {
        return Err(WrongUse(format!(
            "--name: 1 to {} bytes without control characters",
            pattern::TOKEN_BYTES_MAX
        ))
        .into());
    }
    let address = arguments.postgres.address(&format!("postgres-sink {name}"))?;
    let ready = format!(
        "weir ready sink={} stream={stream} nats={} postgres={address}",
        name.replace(char::is_whitespace, "_"),
        nats.url_shown()
    );
    let settings = Settings {
        name: name.clone(),
        stream,
        subjects,
        schema: arguments.schema.clone(),
        start: arguments.start,
        once: arguments.once,
    };
    service::run(&nats, &format!("postgres-sink {name}"), |jetstream| {
        Sink::new(Arc::new(jetstream), address, settings, move || {
            print::ready(&ready)
        })
    })
    .await
}

/// As in a manifest.
fn start(text: &str) -> Result<Start, String> {
    let sequence = text.parse().ok().filter(|sequence| *sequence > 0);
    sequence
        .map(Start::Sequence)
        .or_else(|| Start::named(text))
        .ok_or_else(|| "it must be all, new, a sequence from 1 or an RFC 3339 time since 1970".into())
}
