//! What one more host costs, and one more handler. Printed as tables for
//! `docs/scaling.md`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use tokio::process::Command;

use crate::server::Server;
use crate::weir::{COUNTER, Guest, Host, LEDGER, PARTITIONS, TALLY, check_output, program, write_plugin};
use crate::wire::create_stream;
use crate::{Args, FULL, QUICK, fill};

const HOSTS: [usize; 3] = [1, 2, 4];
const HANDLERS: [usize; 3] = [1, 100, 1_000];

/// How often each number of hosts has its turn: a virtual machine may be half as fast for a minute.
const ROUNDS: usize = 3;

/// How long hosts get to know each other before there is work.
const ACQUAINTED: Duration = Duration::from_secs(3);

/// A thousand handlers on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long an idle host is watched.
const IDLE: Duration = Duration::from_secs(20);

/// How long nothing may happen.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// How often hosts at work are asked for their counters, which costs them time that is measured.
const WORK_SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Runs what was asked for.
pub async fn run(args: &Args) -> Result<()> {
    let size = if args.quick { &QUICK } else { &FULL };
    let program = std::env::current_exe()?;
    let dir = tempfile::Builder::new()
        .prefix("weir-bench-")
        .tempdir_in(program.parent().context("the program is in no folder")?)?;
    let server = Server::start(dir.path()).await?;
    if args.hosts {
        fill::fill(&server, size.events).await?;
        fill::fill_partitioned(&server, size.events).await?;
        println!(
            "| hosts | each reads | events/s | hosts, per event | server, per event | events in a group | partitions of each |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for source in [Source::Whole, Source::Owned] {
            compare_hosts(&server, source, size.events, dir.path()).await?;
        }
    }
    if args.handlers {
        println!("| handlers | partitions | all owned after | memory, idle | processor, idle |");
        println!("| --- | --- | --- | --- | --- |");
        for handlers in HANDLERS {
            with_handlers(&server, handlers, dir.path()).await?;
        }
    }
    Ok(())
}

/// What a host reads of its source.
#[derive(Clone, Copy)]
enum Source {
    /// All of it.
    Whole,
    /// What its partitions get.
    Owned,
}

impl Source {
    fn reads(self) -> &'static str {
        match self {
            Source::Whole => "all",
            Source::Owned => "its own",
        }
    }
}

/// A row for each number of hosts. They take turns, so that a machine that is slower for a
/// while is so for all of them; the best of each counts, of each column for itself.
async fn compare_hosts(server: &Server, source: Source, events: u64, dir: &Path) -> Result<()> {
    let mut best: [Option<Cost>; HOSTS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (best, count) in best.iter_mut().zip(HOSTS) {
            let cost = with_hosts(server, count, source, events, dir).await?;
            eprintln!("{count} hosts: {cost}");
            *best = Some(match best.take() {
                Some(before) => before.better(cost),
                None => cost,
            });
        }
    }
    for (count, cost) in HOSTS.iter().zip(best.into_iter().flatten()) {
        println!("| {count} | {} | {cost} |", source.reads());
    }
    Ok(())
}

/// What a run of some hosts took.
struct Cost {
    events_per_s: f64,
    /// Processor time of all hosts per event, while they were at work.
    hosts_us: f64,
    /// Processor time of the server per event, meanwhile.
    server_us: f64,
    /// How many events were committed at once, on average.
    in_group: f64,
    owned: String,
}

impl Cost {
    fn better(self, other: Cost) -> Cost {
        Cost {
            events_per_s: self.events_per_s.max(other.events_per_s),
            hosts_us: self.hosts_us.min(other.hosts_us),
            server_us: self.server_us.min(other.server_us),
            in_group: self.in_group.max(other.in_group),
            owned: self.owned,
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.0} | {:.1} us | {:.1} us | {:.0} | {}",
            self.events_per_s, self.hosts_us, self.server_us, self.in_group, self.owned
        )
    }
}

/// A moment of a run.
struct Sample {
    at: Instant,
    events: u64,
    groups: u64,
    hosts: Duration,
    server: Duration,
}

impl Sample {
    async fn take(server: &Server, hosts: &[Host]) -> Result<Sample> {
        let (mut events, mut groups) = (0, 0);
        for host in hosts {
            let counters = host.counters().await?;
            events += counters.events;
            groups += counters.groups;
        }
        Ok(Sample {
            at: Instant::now(),
            events,
            groups,
            hosts: hosts.iter().map(Host::cpu).sum::<Result<_>>()?,
            server: server.cpu()?,
        })
    }
}

async fn with_hosts(server: &Server, count: usize, source: Source, events: u64, dir: &Path) -> Result<Cost> {
    server
        .delete_streams_except(&[fill::STREAM, fill::PARTITIONED])
        .await?;
    let (stream, subjects) = match source {
        Source::Whole => (fill::STREAM, fill::SUBJECTS),
        Source::Owned => (fill::PARTITIONED, fill::PARTITIONED_SUBJECTS),
    };
    let dir = tempfile::Builder::new().prefix("hosts").tempdir_in(dir)?;
    let folder = dir.path().join("counter");
    write_plugin(&folder, COUNTER.name, COUNTER, stream, subjects)?;
    let mut hosts = Vec::new();
    for n in 0..count {
        let name = format!("bench{n}");
        hosts.push(Host::launch(server, COUNTER, &name, None, dir.path(), READY_TIMEOUT).await?);
    }
    tokio::time::sleep(ACQUAINTED).await;
    deploy(server, &folder).await?;
    let (start, end) = match work(server, &hosts, events).await {
        Ok(samples) => samples,
        Err(error) => return Err(error.context(hosts[0].last_words().await)),
    };
    let owned = owned(server).await?;
    drop(hosts);
    check_output(server, COUNTER, events).await?;
    let done = (end.events - start.events) as f64;
    Ok(Cost {
        events_per_s: done / (end.at - start.at).as_secs_f64(),
        hosts_us: (end.hosts - start.hosts).as_secs_f64() * 1e6 / done,
        server_us: (end.server - start.server).as_secs_f64() * 1e6 / done,
        in_group: done / (end.groups - start.groups) as f64,
        owned,
    })
}

/// Waits until `events` are committed: the first moment at which some are, and the last.
/// What starting costs, and compiling, is before the first.
async fn work(server: &Server, hosts: &[Host], events: u64) -> Result<(Sample, Sample)> {
    let mut first: Option<Sample> = None;
    let mut last = (Instant::now(), 0);
    loop {
        let sample = Sample::take(server, hosts).await?;
        if sample.events > last.1 {
            last = (sample.at, sample.events);
        }
        ensure!(
            sample.at - last.0 < STALL_TIMEOUT,
            "{} of {events} events, then none for {STALL_TIMEOUT:?}",
            sample.events
        );
        match first {
            Some(first) if sample.events >= events => return Ok((first, sample)),
            None if sample.events > 0 => first = Some(sample),
            _ => {}
        }
        tokio::time::sleep(WORK_SAMPLE_INTERVAL).await;
    }
}

async fn deploy(server: &Server, folder: &Path) -> Result<()> {
    let status = Command::new(program()?)
        .args(["deploy", "--nats", server.url(), "--ledger", LEDGER])
        .arg(folder)
        .stdout(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "weir deploy failed");
    Ok(())
}

/// Partitions of each host, as `weir hosts` says.
async fn owned(server: &Server) -> Result<String> {
    let output = Command::new(program()?)
        .args(["hosts", "--json", "--nats", server.url(), "--ledger", LEDGER])
        .output()
        .await?;
    let hosts: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
    let owned = hosts.iter().map(|host| {
        host["owns"][COUNTER.name]
            .as_array()
            .map_or(0, Vec::len)
            .to_string()
    });
    Ok(owned.collect::<Vec<_>>().join(", "))
}

async fn with_handlers(server: &Server, count: usize, dir: &Path) -> Result<()> {
    const SOURCE: &str = "IDLE";
    server.delete_streams_except(&[]).await?;
    create_stream(&server.connect().await?, SOURCE, &["idle.>"]).await?;
    let dir = tempfile::Builder::new().prefix("handlers").tempdir_in(dir)?;
    let plugins = dir.path().join("plugins");
    let guest: Guest = TALLY;
    for n in 0..count {
        let name = format!("tally-{n}");
        write_plugin(&plugins.join(&name), &name, guest, SOURCE, "idle.>")?;
    }
    let start = Instant::now();
    let host = Host::launch(server, guest, "bench", Some(&plugins), dir.path(), READY_TIMEOUT).await?;
    // A record of its takeover for each partition.
    let records = count as u64 * u64::from(PARTITIONS);
    let js = jetstream::new(server.connect().await?);
    loop {
        let messages = js.get_stream(LEDGER).await?.get_info().await?.state.messages;
        if messages >= records {
            break;
        }
        ensure!(
            start.elapsed() < READY_TIMEOUT,
            "{messages} of {records} partitions\n{}",
            host.last_words().await
        );
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
    let owned = start.elapsed();
    // What the start left to do.
    tokio::time::sleep(ACQUAINTED).await;
    let before = host.cpu()?;
    tokio::time::sleep(IDLE).await;
    let idle = (host.cpu()? - before).as_secs_f64() / IDLE.as_secs_f64();
    println!(
        "| {count} | {records} | {:.1} s | {:.0} MiB | {:.1} % of one |",
        owned.as_secs_f64(),
        host.resident_mib()?,
        idle * 100.0
    );
    Ok(())
}
