//! What one more host costs, and one more handler. Printed as tables for
//! `docs/scaling.md`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use tokio::process::Command;

use crate::server::Server;
use crate::weir::{COUNTER, Guest, Host, LEDGER, PARTITIONS, TALLY, check_output, program, write_plugin};
use crate::wire::create_stream;
use crate::{Args, FULL, QUICK, fill};

const HOSTS: [usize; 3] = [1, 2, 4];
const HANDLERS: [usize; 3] = [1, 100, 1_000];

/// How long hosts get to know each other before there is work.
const ACQUAINTED: Duration = Duration::from_secs(3);

/// A thousand handlers on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long an idle host is watched.
const IDLE: Duration = Duration::from_secs(20);

/// How long nothing may happen.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

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
        println!("| hosts | each reads | events/s | processor time per event | partitions of each |");
        println!("| --- | --- | --- | --- | --- |");
        for source in [Source::Whole, Source::Owned] {
            for hosts in HOSTS {
                with_hosts(&server, hosts, source, size.events, dir.path()).await?;
            }
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

async fn with_hosts(server: &Server, count: usize, source: Source, events: u64, dir: &Path) -> Result<()> {
    server
        .delete_streams_except(&[fill::STREAM, fill::PARTITIONED])
        .await?;
    let (stream, subjects, reads) = match source {
        Source::Whole => (fill::STREAM, fill::SUBJECTS, "all"),
        Source::Owned => (fill::PARTITIONED, fill::PARTITIONED_SUBJECTS, "its own"),
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
    let before = cpu(&hosts)?;
    deploy(server, &folder).await?;
    let mut first: Option<(Instant, u64)> = None;
    let mut last = (Instant::now(), 0);
    let per_s = loop {
        let mut done = 0;
        for host in &hosts {
            done += host.counters().await?.events;
        }
        let now = Instant::now();
        if done > last.1 {
            first.get_or_insert((now, done));
            last = (now, done);
        }
        if let (Some((start, before)), true) = (first, done >= events) {
            break (events - before) as f64 / (now - start).as_secs_f64();
        }
        if now - last.0 > STALL_TIMEOUT {
            bail!("{done} of {events} events\n{}", hosts[0].last_words().await);
        }
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    };
    let each = (cpu(&hosts)? - before).as_secs_f64() * 1e6 / events as f64;
    let owned = owned(server).await?;
    drop(hosts);
    check_output(server, COUNTER, events).await?;
    println!("| {count} | {reads} | {per_s:.0} | {each:.1} us | {owned} |");
    Ok(())
}

fn cpu(hosts: &[Host]) -> Result<Duration> {
    hosts.iter().map(Host::cpu).sum()
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
