//! `weir handlers`: what runs where, from what each host says of itself.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use super::{print, settle};
use crate::admin::status::{HandlerStatus, HostStatus, PartitionStatus};
use crate::config::Options;
use crate::deployment::registry::{Desired, Registered, Registry};
use crate::log::{self, Log};
use crate::model::subjects::hosts_stream;

/// Digits of a digest in the table.
const DIGEST_SHOWN: usize = 12;

const EXAMPLES: &str = "\
Examples:
  weir handlers --ledger SHOP
  weir handlers --ledger SHOP --json | jq '.[] | select(.lag > 0)'
  weir handlers --history delays             its deployments, the oldest first

LAG counts events not yet committed; ERRORS and DEAD-LETTERS count since the hosts started.
Below the table stands what else is wrong: partitions that do not run, sources that are stopped or
lost messages unread, and messages of Weir's own that cannot be read.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Shows the deployments of one handler, with time and who
    #[arg(long, value_name = "NAME")]
    history: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// One handler, over all hosts.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Handler {
    name: String,
    version: String,
    digest: String,
    /// By number; of each the host that has it, or else one that stands by.
    partitions: Vec<Partition>,
    /// Those that have a partition.
    hosts: Vec<String>,
    lag: u64,
    /// Events per second.
    rate: f64,
    errors: u64,
    dead_letters: u64,
    /// The least good of its partitions.
    state: String,
    stopped_sources: Vec<String>,
    /// By source, of those that lost any: messages removed before every partition had read them.
    lost: BTreeMap<String, u64>,
    /// Fired timers and redriven dead letters that cannot be read.
    undecodable: u64,
    /// Hosts that do not run what is deployed, with the reason; what they ran before goes on.
    refused: BTreeMap<String, String>,
    /// The generation that is rebuilt beside it, by `weir replay`.
    rebuilding: Option<u64>,
    /// One whose place was taken, and of which something is left.
    replaced: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Partition {
    host: String,
    #[serde(flatten)]
    status: PartitionStatus,
}

pub async fn handlers(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (log, ledger) = super::connect(options).await?;
    if let Some(name) = &arguments.history {
        return history(&log, &ledger, name, arguments.json).await;
    }
    if let Err(log::Error::NoStream(_)) = log.stream(&hosts_stream(&ledger)).await {
        bail!(
            "no host has ever run on ledger {ledger}; check the name (--ledger), or start one with `weir run`"
        );
    }
    let statuses = settle::statuses(&log, &ledger).await?;
    let deployed = Registry::of(&log, &ledger).all().await?;
    if statuses.is_empty() {
        eprintln!("weir: no host runs on ledger {ledger} at this moment");
    }
    for status in &statuses {
        for reason in &status.not_ready {
            eprintln!("weir: host {} is not ready: {reason}", status.host);
        }
    }
    let handlers = merge(&statuses, &deployed);
    if arguments.json {
        print::json(&handlers)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 10]> = handlers.iter().map(row).collect();
    print::table(
        [
            "NAME",
            "VERSION",
            "DIGEST",
            "PARTITIONS",
            "OWNER",
            "LAG",
            "RATE",
            "ERRORS",
            "DEAD-LETTERS",
            "STATE",
        ],
        &rows,
    )?;
    for handler in &handlers {
        explain(handler)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The deployments of one handler that the registry remembers.
async fn history(log: &dyn Log, ledger: &str, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let history = Registry::of(log, ledger).history(name).await?;
    if history.is_empty() {
        bail!("handler {name} was never deployed on ledger {ledger}");
    }
    if json {
        print::json(&history)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 6]> = history
        .iter()
        .map(|Registered { revision, deployment }| {
            let state = match deployment.desired {
                Desired::Running if deployment.generations.rebuild.is_some() => "rebuilding",
                Desired::Running => "deployed",
                Desired::Paused => "paused",
                Desired::Removed => "removed",
            };
            [
                revision.to_string(),
                print::time(deployment.time_ms.saturating_mul(1_000_000)),
                deployment.version.clone(),
                deployment.digest.chars().take(DIGEST_SHOWN).collect(),
                state.into(),
                deployment.by.clone(),
            ]
        })
        .collect();
    print::table(["REVISION", "TIME", "VERSION", "DIGEST", "STATE", "BY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(handler: &Handler) -> [String; 10] {
    [
        handler.name.clone(),
        handler.version.clone(),
        handler.digest.chars().take(DIGEST_SHOWN).collect(),
        handler.partitions.len().to_string(),
        handler.hosts.join(","),
        handler.lag.to_string(),
        format!("{:.0}/s", handler.rate),
        handler.errors.to_string(),
        handler.dead_letters.to_string(),
        handler.state.clone(),
    ]
}

/// Why a handler does not run as it should, below the table.
fn explain(handler: &Handler) -> std::io::Result<()> {
    for (host, reason) in &handler.refused {
        let name = &handler.name;
        print::line(&format!(
            "{name}: host {host} refused the deployment, and goes on as before: {reason}"
        ))?;
    }
    for source in &handler.stopped_sources {
        print::line(&format!("{}: source stopped: {source}", handler.name))?;
    }
    for (source, messages) in &handler.lost {
        print::line(&format!(
            "{}: source {source}: {messages} messages were removed from the stream before every partition had read them",
            handler.name
        ))?;
    }
    if handler.undecodable > 0 {
        print::line(&format!(
            "{}: {} fired timers or redriven dead letters cannot be read; the hosts' logs name them",
            handler.name, handler.undecodable
        ))?;
    }
    if let Some(generation) = handler.rebuilding {
        let name = &handler.name;
        print::line(&format!(
            "{name}: generation {generation} is rebuilt beside it; `weir replay {name}` shows how far that is"
        ))?;
    }
    if let Some(generation) = handler.replaced {
        let name = &handler.name;
        print::line(&format!(
            "{name}: generation {generation} is replaced, and not removed yet; `weir replay {name}` does that"
        ))?;
    }
    for Partition { host, status } in &handler.partitions {
        if let Some(reason) = &status.reason {
            let (name, partition, state) = (&handler.name, status.partition, &status.state);
            print::line(&format!(
                "{name}: partition {partition} on {host} is {state}: {reason}"
            ))?;
        }
    }
    Ok(())
}

/// How good a partition's state is; higher is better. Of the same partition
/// on several hosts, the one that runs it tells.
fn goodness(state: &str) -> u8 {
    match state {
        "running" => 4,
        "retrying" => 3,
        "starting" => 2,
        "stopped" => 1,
        _ => 0, // `standby`, or a state of a newer version
    }
}

/// Puts together what is deployed and what all hosts say.
fn merge(hosts: &[HostStatus], deployed: &[Registered]) -> Vec<Handler> {
    let mut by_name: BTreeMap<&str, Vec<(&str, &HandlerStatus)>> = BTreeMap::new();
    for host in hosts {
        for handler in &host.handlers {
            by_name
                .entry(&handler.name)
                .or_default()
                .push((&host.host, handler));
        }
    }
    let mut handlers: Vec<Handler> = by_name.into_values().map(|on| merge_one(&on)).collect();
    for Registered { deployment, .. } in deployed {
        let rebuild = deployment.generations.rebuild.as_ref();
        let rebuilding = rebuild.map(|rebuild| rebuild.generation);
        let of_it = handlers
            .iter_mut()
            .filter(|handler| handler.name == deployment.name);
        of_it.for_each(|handler| {
            handler.rebuilding = rebuilding;
            handler.replaced = deployment.generations.replaced;
        });
        let paused = deployment.desired == Desired::Paused;
        match handlers
            .iter_mut()
            .find(|handler| handler.name == deployment.name)
        {
            Some(handler) if paused => handler.state = "paused".into(),
            Some(_) => {}
            None => handlers.push(Handler {
                name: deployment.name.clone(),
                version: deployment.version.clone(),
                digest: deployment.digest.clone(),
                state: if paused { "paused" } else { "nowhere" }.into(),
                ..Handler::default()
            }),
        }
    }
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

fn merge_one(on: &[(&str, &HandlerStatus)]) -> Handler {
    let mut partitions: BTreeMap<u32, Partition> = BTreeMap::new();
    for (host, handler) in on {
        for status in &handler.partitions {
            let rank = |status: &PartitionStatus| (goodness(&status.state), status.record);
            let better = partitions
                .get(&status.partition)
                .is_none_or(|best| rank(&best.status) < rank(status));
            if better {
                let host = (*host).to_owned();
                let status = status.clone();
                partitions.insert(status.partition, Partition { host, status });
            }
        }
    }
    let owned = |host: &str| {
        let of_host = partitions.values().filter(|partition| partition.host == host);
        of_host
            .filter(|partition| goodness(&partition.status.state) > 0)
            .count()
    };
    // During a change of version, that of most partitions.
    let (_, most) = on
        .iter()
        .max_by_key(|(host, _)| owned(host))
        .expect("a handler was named by at least one host");
    let mut hosts: Vec<String> = on
        .iter()
        .filter(|(host, _)| owned(host) > 0)
        .map(|(host, _)| (*host).to_owned())
        .collect();
    hosts.sort();
    let waiting: u64 = partitions
        .values()
        .map(|partition| partition.status.waiting)
        .sum();
    // Each host that reads a whole source counts the same: the largest is nearest to
    // the truth. Those that read what is theirs count each their own.
    let unread = on
        .iter()
        .filter(|(_, handler)| !handler.reads_own)
        .map(|(_, handler)| handler.unread);
    let own = on
        .iter()
        .filter(|(_, handler)| handler.reads_own)
        .map(|(_, handler)| handler.unread);
    let unread = unread.max().unwrap_or(0) + own.sum::<u64>();
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    for (source, messages) in on.iter().flat_map(|(_, handler)| &handler.lost) {
        let most = lost.entry(source.clone()).or_default();
        *most = (*most).max(*messages);
    }
    let undecodable = on
        .iter()
        .map(|(_, handler)| handler.undecodable)
        .max()
        .unwrap_or(0);
    let mut stopped_sources: Vec<String> = on.iter().flat_map(|(_, h)| h.stopped_sources.clone()).collect();
    stopped_sources.sort();
    stopped_sources.dedup();
    let worst = partitions
        .values()
        .min_by_key(|partition| goodness(&partition.status.state));
    let refused: BTreeMap<String, String> = on
        .iter()
        .filter_map(|(host, handler)| Some(((*host).to_owned(), handler.refused.clone()?)))
        .collect();
    let state = match worst {
        None if !refused.is_empty() => "refused".to_owned(),
        _ if !stopped_sources.is_empty() => "source-stopped".to_owned(),
        Some(worst) => worst.status.state.clone(),
        None => "starting".to_owned(),
    };
    Handler {
        name: most.name.clone(),
        version: most.version.clone(),
        digest: most.digest.clone(),
        hosts,
        lag: unread + waiting,
        rate: on.iter().map(|(_, handler)| handler.rate).sum(),
        errors: on.iter().map(|(_, handler)| handler.errors).sum(),
        dead_letters: on.iter().map(|(_, handler)| handler.dead_letters).sum(),
        state,
        stopped_sources,
        lost,
        undecodable,
        refused,
        rebuilding: None,
        replaced: None,
        partitions: partitions.into_values().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, version: &str, unread: u64, partitions: &[(u32, &str, u64)]) -> HostStatus {
        HostStatus {
            host: name.into(),
            handlers: vec![HandlerStatus {
                name: "h".into(),
                version: version.into(),
                digest: format!("digest of {version}"),
                partitions: partitions
                    .iter()
                    .map(|(partition, state, waiting)| PartitionStatus {
                        partition: *partition,
                        state: (*state).into(),
                        reason: None,
                        waiting: *waiting,
                        record: 1,
                        revision: 1,
                    })
                    .collect(),
                unread,
                rate: 10.0,
                errors: 1,
                dead_letters: 2,
                stopped_sources: Vec::new(),
                lost: [("S".to_owned(), unread)].into(),
                undecodable: unread,
                ..HandlerStatus::default()
            }],
            ..HostStatus::default()
        }
    }

    #[test]
    fn a_partition_is_where_it_runs() {
        let one = host(
            "one",
            "1",
            7,
            &[(0, "running", 3), (1, "standby", 0), (2, "running", 0)],
        );
        let two = host(
            "two",
            "2",
            9,
            &[(0, "standby", 0), (1, "running", 4), (2, "standby", 50)],
        );
        for hosts in [[one.clone(), two.clone()], [two, one]] {
            let merged = merge(&hosts, &[]);
            assert_eq!(merged.len(), 1);
            let handler = &merged[0];
            let owners: Vec<&str> = handler.partitions.iter().map(|p| p.host.as_str()).collect();
            assert_eq!(owners, ["one", "two", "one"]);
            assert_eq!(handler.hosts, ["one", "two"]);
            assert_eq!(handler.lag, 9 + 3 + 4);
            assert_eq!((handler.lost["S"], handler.undecodable), (9, 9));
            assert_eq!(
                (handler.version.as_str(), handler.state.as_str()),
                ("1", "running")
            );
            assert_eq!((handler.rate, handler.errors, handler.dead_letters), (20.0, 2, 4));
        }
    }

    #[test]
    fn the_least_good_partition_is_the_state() {
        for (states, expected) in [
            (["running", "running"], "running"),
            (["running", "retrying"], "retrying"),
            (["starting", "retrying"], "starting"),
            (["running", "stopped"], "stopped"),
            (["running", "standby"], "standby"),
        ] {
            let merged = merge(
                &[host("one", "1", 0, &[(0, states[0], 0), (1, states[1], 0)])],
                &[],
            );
            assert_eq!(merged[0].state, expected, "{states:?}");
        }
        let mut stopped = host("one", "1", 0, &[(0, "running", 0)]);
        stopped.handlers[0]
            .stopped_sources
            .push("S is another stream".into());
        let merged = merge(&[stopped], &[]);
        assert_eq!(merged[0].state, "source-stopped");
        assert_eq!(merge(&[], &[]), []);
    }

    #[test]
    fn the_json_has_the_names_of_the_contract() {
        let merged = merge(&[host("one", "1", 0, &[(0, "running", 0)])], &[]);
        let json = serde_json::to_value(&merged).expect("plain data");
        let object = json[0].as_object().expect("an object");
        for name in [
            "name",
            "version",
            "digest",
            "partitions",
            "hosts",
            "lag",
            "rate",
            "errors",
            "dead_letters",
            "state",
            "stopped_sources",
            "lost",
            "undecodable",
            "refused",
            "rebuilding",
        ] {
            assert!(object.contains_key(name), "{name}");
        }
        assert_eq!(json[0]["partitions"][0]["host"], "one");
        assert_eq!(json[0]["partitions"][0]["state"], "running");
    }
}
