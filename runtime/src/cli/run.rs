//! `weir run`: a host, as a service.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::print;
use crate::admin::http;
use crate::admin::status::StatusHandle;
use crate::config::{Config, HostOptions, LedgerOptions, Options};
use crate::metrics;
use crate::runtime::Host;

/// How long a host may take to finish what it began. After it, groups are
/// dropped, which loses nothing: whoever comes next does them again.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Key in [`StatusHandle`] while the host starts or stops.
const NOT_READY: &str = "host";

const EXAMPLES: &str = "\
Examples:
  weir run                                      as weir.toml in this folder says
  weir run --config /etc/weir.toml
  weir run --nats nats://127.0.0.1:4222 --ledger SHOP --subjects 'stats.>,orders.>' --plugins plugins

Prints one line on stdout once it is ready:
  weir ready host=h1 ledger=SHOP nats=nats://127.0.0.1:4222 http=http://127.0.0.1:9464

SIGTERM or Ctrl-C drains: groups are finished or dropped, then it exits with 0. A second one exits at once,
which is safe too.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub ledger: LedgerOptions,
    #[command(flatten)]
    pub host: HostOptions,
}

pub async fn run(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = options.host(&arguments.ledger, &arguments.host)?;
    let mut signals = Signals::new()?;
    serve(config, &mut signals).await
}

/// Runs a host until a signal ends it.
pub async fn serve(mut config: Config, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let status = StatusHandle::new();
    status.set_not_ready(NOT_READY, "starting");
    // Before NATS is there, so that /readyz can say that it is not.
    let server = http::Server::bind(config.host.http, status.clone(), metrics::start()?).await?;
    config.host.http = server.address()?;
    status.set_http(config.host.http.to_string());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async move {
        // An error means that the sender is gone: the host has ended either way.
        let _ = stopped.await;
    }));

    let host = tokio::select! {
        host = Host::start(config.clone(), status.clone()) => host?,
        () = signals.next() => {
            tracing::info!("stopped before the host was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    status.clear(NOT_READY);
    print::line(&ready_line(&config))?;

    signals.next().await;
    status.set_not_ready(NOT_READY, "draining");
    tracing::info!("draining; a second signal stops at once");
    tokio::select! {
        () = host.drain(DRAIN_MAX) => {}
        () = signals.next() => {
            tracing::warn!("stopped without draining; what was not committed is done again by the next host");
            return Ok(ExitCode::from(super::FAILED));
        }
    }
    let _ = stop.send(()); // fails only if the server has ended, which the next line reports
    serving.await.context("the HTTP address")??;
    Ok(ExitCode::SUCCESS)
}

/// What a script waits for. Values hold no spaces but a host's name might.
fn ready_line(config: &Config) -> String {
    format!(
        "weir ready host={} ledger={} nats={} http=http://{}",
        config.host.name.replace(char::is_whitespace, "_"),
        config.ledger.name,
        config.nats.url_shown(),
        config.host.http
    )
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
