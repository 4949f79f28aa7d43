use clap::Parser;
use weir::config::{HostOptions, LedgerOptions, Options};
#[derive(Parser)]
struct A { #[command(subcommand)] c: C }
#[derive(clap::Subcommand)]
enum C { Run { #[command(flatten)] o: Options, #[command(flatten)] l: LedgerOptions, #[command(flatten)] h: HostOptions } }
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let A { c: C::Run { o, l, h } } = A::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or("info".into())).init();
    let config = o.host(&l, &h)?;
    let status = weir::admin::status::StatusHandle::new();
    let metrics = weir::metrics::start()?;
    let server = weir::admin::http::Server::bind(config.host.http, status.clone(), metrics).await?;
    let address = server.address()?;
    status.set_http(format!("http://{address}"));
    tokio::spawn(server.serve(std::future::pending()));
    let host = weir::runtime::Host::start(config, status).await?;
    println!("weir ready host=x ledger=x nats=x http=http://{address}");
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
    host.drain(std::time::Duration::from_secs(10)).await
}
