//! The benchmark of Weir: the same work by a program that speaks to JetStream
//! directly (`native`) and by a `weir run` process (`weir`), on one nats-server, R1
//! file storage, 200-byte events of 10,000 keys, in one run on one machine.
//!
//! * `process`: what Linux says of a process
//! * `server`: the nats-server that all of it runs on
//! * `wire`: pulls, batches and fences, as bare as they get
//! * `fill`: the events
//! * `native`: the ceilings
//! * `weir`: the host under test
//! * `scale`: several hosts, and many handlers
//! * `report`: what comes out
//!
//! Nothing here uses the `weir` library, so that neither side of the comparison
//! is measured with the other's code. Results go to stdout, progress to stderr.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::native::Work;
use crate::report::{Comparison, Report};
use crate::server::Server;

mod fill;
mod native;
mod process;
mod report;
mod scale;
mod server;
mod weir;
mod wire;

/// Measures Weir beside native JetStream loops that do the same work.
#[derive(Parser)]
#[command(name = "weir-bench", version)]
struct Args {
    /// Fewer events and one run of each: under five minutes.
    #[arg(long)]
    quick: bool,

    /// Prints the results as one JSON document.
    #[arg(long)]
    json: bool,

    /// Only this case; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<Case>,

    /// Instead: rate and processor time per event of 1, 2 and 4 hosts on this machine, the best of three rounds.
    #[arg(long)]
    hosts: bool,

    /// Instead: what 1, 100 and 1,000 handlers cost a host that has nothing to do.
    #[arg(long)]
    handlers: bool,

    /// Only the native loops; needs neither the host nor its guests.
    #[arg(long)]
    native_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Reading alone (native only)
    Read,
    /// Counting per key, no events out
    #[value(name = "state-only")]
    State,
    /// One event out per event in, no state
    #[value(name = "stateless-1:1")]
    Stateless,
    /// Counting per key, and one event out per event in
    #[value(name = "state+1:1")]
    StateEmit,
    /// The hand-written service (native only)
    Service,
    /// From publish to visible output at 100 events/s (Weir only)
    Latency,
}

/// How much is run.
struct Size {
    events: u64,
    service_events: u64,
    latency_s: u64,
    /// Runs of each loop and of each host; the best counts, for both alike.
    runs: usize,
}

const QUICK: Size = Size {
    events: 300_000,
    service_events: 20_000,
    latency_s: 10,
    runs: 1,
};
const FULL: Size = Size {
    events: 1_000_000,
    service_events: 100_000,
    latency_s: 30,
    runs: 3,
};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.hosts || args.handlers {
        return match scale::run(&args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    match run(&args).await {
        Ok(report) if args.json => match serde_json::to_string(&report) {
            Ok(json) => {
                println!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.into()),
        },
        Ok(report) => {
            print!("{}", report.table());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<Report> {
    let size = if args.quick { &QUICK } else { &FULL };
    let wanted = |case| args.only.is_empty() || args.only.contains(&case);

    // Beside the program: on the disk of the build, never in a memory file system.
    let program = std::env::current_exe()?;
    let dir = tempfile::Builder::new()
        .prefix("weir-bench-")
        .tempdir_in(program.parent().context("the program is in no folder")?)
        .context("cannot create a folder for the run")?;
    let server = Server::start(dir.path()).await?;

    let start = Instant::now();
    fill::fill(&server, size.events).await?;
    progress("fill", size.events as f64 / start.elapsed().as_secs_f64());

    let mut report = Report::default();
    report.machine.cores = std::thread::available_parallelism()?.get();
    if wanted(Case::Read) {
        let mut best = 0.0;
        for _ in 0..size.runs {
            best = f64::max(best, native::read(&server, size.events).await?);
        }
        progress("native read", best);
        report.native.insert("read", best);
    }
    let cases = [
        (
            Case::State,
            "state-only",
            Work {
                state: true,
                emit: false,
            },
            weir::TALLY,
        ),
        (
            Case::Stateless,
            "stateless-1:1",
            Work {
                state: false,
                emit: true,
            },
            weir::RELAY,
        ),
        (
            Case::StateEmit,
            "state+1:1",
            Work {
                state: true,
                emit: true,
            },
            weir::COUNTER,
        ),
    ];
    for (case, name, work, guest) in cases {
        if !wanted(case) {
            continue;
        }
        let mut native_per_s = 0.0;
        for _ in 0..size.runs {
            native_per_s = f64::max(native_per_s, native::commit(&server, size.events, work).await?);
        }
        progress(&format!("native {name}"), native_per_s);
        report.native.insert(name, native_per_s);
        if args.native_only {
            continue;
        }
        let (mut weir_per_s, mut peak_mib) = (0.0, 0.0);
        for _ in 0..size.runs {
            let run = weir::rate(&server, guest, size.events, dir.path()).await?;
            weir_per_s = f64::max(weir_per_s, run.per_s);
            peak_mib = f64::max(peak_mib, run.peak_mib);
        }
        progress(&format!("weir {name}"), weir_per_s);
        report.note_peak(peak_mib);
        report.results.push(Comparison {
            name,
            weir_per_s,
            native_per_s,
            ratio: weir_per_s / native_per_s,
            peak_mib,
        });
    }
    if wanted(Case::Service) {
        let mut best = 0.0;
        for _ in 0..size.runs {
            best = f64::max(best, native::service(&server, size.service_events).await?);
        }
        progress("native service", best);
        report.native.insert("service", best);
    }
    if wanted(Case::Latency) && !args.native_only {
        eprintln!("latency at 100 events/s for {} s ...", size.latency_s);
        let (latency, peak_mib) = weir::latency(&server, weir::COUNTER, size.latency_s, dir.path()).await?;
        report.latency_ms = Some(latency);
        report.note_peak(peak_mib);
    }
    Ok(report)
}

fn progress(what: &str, per_s: f64) {
    eprintln!("{what}: {per_s:.0} events/s");
}

/// Root of the repository that this program was built from.
fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
