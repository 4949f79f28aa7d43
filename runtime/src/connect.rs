//! Connections: a command gives up soon and says why, a host waits.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::admin::status::StatusHandle;
use crate::config::{Config, Nats};
use crate::ledger::{self, Ledger};
use crate::log;
use crate::log::jetstream::{self, JetStream, check_server_version};
use crate::metrics;

/// How long a command waits for a server.
const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// How often a host that waits for a server says so.
const REMINDER: Duration = Duration::from_secs(5);

/// Waits between two tries to read or create the streams of the ledger.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Key in [`StatusHandle`] while NATS or the ledger is not there yet.
const NOT_READY: &str = "nats";

/// Connects for one command.
///
/// # Errors
/// No server answers within some seconds, or it is too old.
pub async fn for_command(nats: &Nats) -> anyhow::Result<JetStream> {
    let jetstream = open(nats, "weir").await?;
    if !jetstream.wait_connected(COMMAND_PATIENCE).await {
        bail!(
            "no connection to NATS at {} within {} s: is the server running, and are URL (--nats) and credentials right?",
            nats.url_shown(),
            COMMAND_PATIENCE.as_secs()
        );
    }
    version_suffices(&jetstream)?;
    Ok(jetstream)
}

/// Connects a host and makes sure of its ledger. Waits as long as it takes for
/// what may come by itself, and says so on stderr and in `status`.
///
/// # Errors
/// What waiting does not mend: unreadable credentials, a server that is too
/// old, a ledger whose settings could lose data, no permission.
pub async fn for_host(config: &Config, status: &StatusHandle) -> anyhow::Result<(JetStream, Ledger)> {
    metrics::connected(false);
    let jetstream = open(&config.nats, &format!("weir {}", config.host.name)).await?;
    let url = config.nats.url_shown();
    while !jetstream.wait_connected(REMINDER).await {
        tracing::warn!(%url, "NATS does not answer; waiting");
        status.set_not_ready(NOT_READY, format!("NATS at {url} does not answer"));
    }
    metrics::connected(true);
    version_suffices(&jetstream)?;
    let version = jetstream.server_version().unwrap_or_default();
    tracing::info!(%url, version, "connected to NATS");
    let mut wait = RETRY_FIRST;
    let ledger = loop {
        match ledger::ensure(&jetstream, &config.ledger).await {
            Ok(ledger) => break ledger,
            Err(ledger::Error::Log(log::Error::Unavailable(reason))) => {
                tracing::warn!(%reason, ledger = %config.ledger.name, "the ledger cannot be reached; trying again");
                status.set_not_ready(NOT_READY, format!("ledger {}: {reason}", config.ledger.name));
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
            Err(error) => return Err(error).with_context(|| format!("ledger {}", config.ledger.name)),
        }
    };
    status.clear(NOT_READY);
    Ok((jetstream, ledger))
}

/// Connects a service that is no host. Waits as long as it takes for a server, and says so.
///
/// # Errors
/// Credentials that cannot be read; a server that is too old.
pub async fn for_service(nats: &Nats, name: &str) -> anyhow::Result<JetStream> {
    let jetstream = open(nats, name).await?;
    while !jetstream.wait_connected(REMINDER).await {
        tracing::warn!(url = %nats.url_shown(), "NATS does not answer; waiting");
    }
    version_suffices(&jetstream)?;
    Ok(jetstream)
}

/// Starts connecting; the connection may not stand yet.
async fn open(nats: &Nats, name: &str) -> anyhow::Result<JetStream> {
    Ok(jetstream::connect(nats.options(name)).await?)
}

/// Once the connection stands.
fn version_suffices(jetstream: &JetStream) -> anyhow::Result<()> {
    match jetstream.server_version() {
        Some(version) => check_server_version(&version).map_err(anyhow::Error::msg),
        None => bail!("the NATS server went away before it said its version; try again"),
    }
}
