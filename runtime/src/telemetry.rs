//! What the process says of itself while it runs: structured lines on stderr.
//! Numbers are in [`crate::metrics`].

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config;

/// The variable with the filter, as in `WEIR_LOG=weir=debug,info`.
pub const FILTER_VARIABLE: &str = "WEIR_LOG";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends log lines of at least `level` to stderr, unless `WEIR_LOG` says what
/// to send.
///
/// # Errors
/// `WEIR_LOG` is no filter, or this was called before.
pub fn start(format: Format, level: LevelFilter) -> anyhow::Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| config::Error::Value {
            key: FILTER_VARIABLE,
            problem: format!("`{text}` is no filter: {error}"),
        })?,
        _ => EnvFilter::default()
            .add_directive(level.into())
            // Says again, as INFO or with each try as ERROR, what we say of the connection ourselves.
            .add_directive("async_nats=warn".parse()?)
            .add_directive("async_nats::connector=off".parse()?),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours());
    match format {
        Format::Text => lines.with_target(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Whether stderr shows colours: a terminal, and `NO_COLOR` not set (https://no-color.org).
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
