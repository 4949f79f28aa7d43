//! `weir hosts`: who shares the partitions, and what each owns.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::{print, settle};
use crate::config::Options;
use crate::log::{self, Log};
use crate::membership::Beat;
use crate::model::subjects::{alive_keys, hosts_stream};

const EXAMPLES: &str = "\
Examples:
  weir hosts --ledger SHOP
  weir hosts --ledger SHOP --json | jq '.[].owns'

A host that ends in good order disappears at once, one that was killed within some seconds.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Host {
    host: String,
    version: String,
    http: String,
    /// `ready`, `not-ready` or `leaving`.
    state: &'static str,
    not_ready: Vec<String>,
    /// Partitions by handler.
    owns: BTreeMap<String, Vec<u32>>,
    /// Events committed per second.
    rate: f64,
}

pub async fn hosts(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    let found = match log
        .last_many(&hosts_stream(&ledger), &[alive_keys(&ledger)])
        .await
    {
        Err(log::Error::NoStream(_)) => {
            anyhow::bail!(
                "no host has ever run on ledger {ledger}; check the name (--ledger), or start one with `weir run`"
            )
        }
        found => found?,
    };
    let statuses = settle::statuses(&log, &ledger).await?;
    let mut hosts = Vec::new();
    for message in found.messages.iter().filter(|message| !message.data.is_empty()) {
        let Ok(beat) = serde_json::from_slice::<Beat>(&message.data) else {
            eprintln!("weir: {} is of another version of Weir", message.subject);
            continue;
        };
        let status = statuses
            .iter()
            .find(|status| status.host == beat.host && status.incarnation == beat.incarnation);
        let not_ready = status.map(|status| status.not_ready.clone()).unwrap_or_default();
        hosts.push(Host {
            version: status
                .map(|status| status.weir_version.clone())
                .unwrap_or_default(),
            http: status.map(|status| status.http.clone()).unwrap_or_default(),
            state: match (beat.leaving, not_ready.is_empty()) {
                (true, _) => "leaving",
                (_, true) => "ready",
                (_, false) => "not-ready",
            },
            not_ready,
            // From zero: the sum of no floats is -0.0.
            rate: status.map_or(0.0, |status| {
                status
                    .handlers
                    .iter()
                    .map(|handler| handler.rate)
                    .fold(0.0, |sum, rate| sum + rate)
            }),
            owns: beat
                .holds
                .into_iter()
                .map(|(handler, ranges)| {
                    (
                        handler,
                        ranges.into_iter().flat_map(|(from, to)| from..=to).collect(),
                    )
                })
                .collect(),
            host: beat.host,
        });
    }
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    if hosts.is_empty() {
        eprintln!("weir: no host runs on ledger {ledger} at this moment");
    }
    if arguments.json {
        print::json(&hosts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 6]> = hosts.iter().map(row).collect();
    print::table(["HOST", "VERSION", "STATE", "PARTITIONS", "RATE", "OWNS"], &rows)?;
    for host in &hosts {
        for reason in &host.not_ready {
            print::line(&format!("{} is not ready: {reason}", host.host))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(host: &Host) -> [String; 6] {
    let owns: Vec<String> = host
        .owns
        .iter()
        .map(|(handler, partitions)| format!("{handler}({})", partitions.len()))
        .collect();
    [
        host.host.clone(),
        host.version.clone(),
        host.state.into(),
        host.owns.values().map(Vec::len).sum::<usize>().to_string(),
        format!("{:.0}/s", host.rate),
        owns.join(" "),
    ]
}
