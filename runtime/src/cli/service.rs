//! What the small services beside a host have in common: they work until a signal ends them.

use std::process::ExitCode;
use std::time::Duration;

use super::WrongUse;
use super::run::Signals;
use crate::config::Nats;
use crate::connect;
use crate::log::jetstream::JetStream;
use crate::postgres::address::Address;
use crate::postgres::service::{Stop, Worker, serve};

/// How long a service may take to finish what it began. After it, that is dropped, which
/// loses nothing: the next start finds out what became of it.
const FINISH_MAX: Duration = Duration::from_secs(10);

/// A database, from the command line.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct PostgresOptions {
    /// Database, like postgres://user@host:5432/database?sslmode=verify-full
    #[arg(
        id = "postgres",
        long,
        value_name = "URL",
        env = "WEIR_POSTGRES",
        hide_env_values = true
    )]
    pub url: Option<String>,
}

impl PostgresOptions {
    /// # Errors
    /// There is no URL, or it is none.
    pub fn address(&self, name: &str) -> anyhow::Result<Address> {
        let Some(url) = &self.url else {
            return Err(WrongUse("name the database, with --postgres or WEIR_POSTGRES".into()).into());
        };
        // Not parsed by clap, whose error would show the password.
        match url.parse::<Address>() {
            Ok(address) => Ok(address.named(&format!("weir {name}"))),
            Err(error) => Err(WrongUse(format!("--postgres: {error}")).into()),
        }
    }
}

/// Connects to NATS, makes the worker, and lets it work until it ends or a signal comes.
///
/// # Errors
/// Those of the worker; of connecting, what waiting does not mend.
pub async fn run<W: Worker>(
    nats: &Nats,
    name: &str,
    worker: impl FnOnce(JetStream) -> W,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let connection = format!("weir {name}");
    let jetstream = tokio::select! {
        jetstream = connect::for_service(nats, &connection) => jetstream?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let mut worker = worker(jetstream);
    let (stopper, stop) = Stop::new();
    let stopped = async {
        signals.next().await;
        stopper.stop();
        tokio::select! {
            () = signals.next() => {}
            () = tokio::time::sleep(FINISH_MAX) => {}
        }
        tracing::warn!("stopped in the midst of work; the next start finds out what became of it");
    };
    tokio::select! {
        done = serve(&mut worker, stop) => done?,
        () = stopped => {}
    }
    Ok(ExitCode::SUCCESS)
}
