//! Waiting until every host has done what a deployment asks for, with progress.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::print;
use crate::admin::status::{HandlerStatus, HostStatus};
use crate::log::{self, Log};
use crate::model::subjects::{host_keys, hosts_stream};

/// How often hosts are looked at. They say what they do twice a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A host that has said nothing new for this long is not waited for.
const SILENT_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub struct Patience {
    /// Seconds to wait for all hosts; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// What became of a deployment.
#[derive(Debug, Serialize)]
pub struct Settled {
    pub name: String,
    pub revision: u64,
    pub hosts: Vec<OnHost>,
    /// What was deployed again since a host refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub went_back: Option<String>,
    /// Whether hosts were waited for.
    waited: bool,
}

/// One host's part of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnHost {
    pub host: String,
    pub state: Progress,
    /// Partitions that execute it, or do not execute any more.
    pub done: usize,
    pub partitions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    Preparing,
    Switching,
    Done,
    Refused,
    /// The host has said nothing for some seconds.
    Silent,
}

impl Settled {
    pub fn refused(&self) -> bool {
        self.hosts.iter().any(|host| host.state == Progress::Refused)
    }

    pub fn failed(&self) -> bool {
        self.waited
            && self
                .hosts
                .iter()
                .any(|host| !matches!(host.state, Progress::Done | Progress::Silent))
    }

    /// For people.
    ///
    /// # Errors
    /// Of stdout.
    pub fn say(&self) -> std::io::Result<()> {
        let name = &self.name;
        for host in &self.hosts {
            let reason = host
                .reason
                .as_ref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            match host.state {
                Progress::Done => {}
                Progress::Silent => {
                    eprintln!("weir: host {} says nothing, and was not waited for", host.host);
                }
                Progress::Refused => eprintln!("weir: host {} refused {name}{reason}", host.host),
                Progress::Preparing | Progress::Switching => eprintln!(
                    "weir: host {} is not done: {} of {} partitions{reason}",
                    host.host, host.done, host.partitions
                ),
            }
        }
        if let Some(before) = &self.went_back {
            eprintln!("weir: version {before} of {name} was deployed again");
        } else if self.refused() {
            eprintln!("weir: whatever version of {name} such a host had before goes on running there");
        }
        let done = self
            .hosts
            .iter()
            .filter(|host| host.state == Progress::Done)
            .count();
        let on = match (self.waited, self.hosts.len()) {
            (false, _) => "not waited for hosts".to_owned(),
            (true, 0) => "no host runs at this moment".to_owned(),
            (true, hosts) => format!("on {done} of {hosts} hosts"),
        };
        print::line(&format!("{name} revision {}: {on}", self.revision))
    }
}

/// Waits until every host has done what revision `revision` of a handler asks for, one
/// refuses, or patience is at its end.
///
/// # Errors
/// Of the log.
pub async fn wait(
    log: &dyn Log,
    ledger: &str,
    name: &str,
    revision: u64,
    patience: &Patience,
) -> anyhow::Result<Settled> {
    let mut settled = Settled {
        name: name.into(),
        revision,
        hosts: Vec::new(),
        went_back: None,
        waited: patience.timeout > 0,
    };
    if !settled.waited {
        return Ok(settled);
    }
    let until = Instant::now() + Duration::from_secs(patience.timeout);
    let mut heard: BTreeMap<String, (u64, Instant)> = BTreeMap::new();
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} partitions {msg}")
            .expect("a template that a test has seen"),
    );
    bar.set_prefix(name.to_owned());
    loop {
        let now = Instant::now();
        let mut hosts = Vec::new();
        for status in statuses(log, ledger).await? {
            let heard = heard.entry(status.host.clone()).or_insert((status.time_ms, now));
            if heard.0 != status.time_ms {
                *heard = (status.time_ms, now);
            }
            let mut on = on_host(&status, name, revision);
            if now.duration_since(heard.1) >= SILENT_AFTER {
                on.state = Progress::Silent;
            }
            hosts.push(on);
        }
        settled.hosts = hosts;
        show(&bar, &settled.hosts);
        let over = settled
            .hosts
            .iter()
            .all(|host| matches!(host.state, Progress::Done | Progress::Silent));
        if over || settled.refused() || now >= until {
            bar.finish_and_clear();
            return Ok(settled);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(bar: &ProgressBar, hosts: &[OnHost]) {
    let done: usize = hosts.iter().map(|host| host.done).sum();
    let all: usize = hosts.iter().map(|host| host.partitions).sum();
    bar.set_length(all as u64);
    bar.set_position(done as u64);
    let waiting: Vec<&str> = hosts
        .iter()
        .filter(|host| host.state != Progress::Done)
        .map(|host| host.host.as_str())
        .collect();
    bar.set_message(match waiting.is_empty() {
        true => String::new(),
        false => format!("waiting for {}", waiting.join(", ")),
    });
}

/// What all hosts say of themselves.
///
/// # Errors
/// Of the log.
pub async fn statuses(log: &dyn Log, ledger: &str) -> anyhow::Result<Vec<HostStatus>> {
    let found = match log.last_many(&hosts_stream(ledger), &[host_keys(ledger)]).await {
        Err(log::Error::NoStream(_)) => return Ok(Vec::new()),
        found => found?,
    };
    let mut statuses: Vec<HostStatus> = Vec::new();
    for message in found.messages.iter().filter(|message| !message.data.is_empty()) {
        match serde_json::from_slice::<HostStatus>(&message.data) {
            Ok(part) => match statuses.iter_mut().find(|status| status.host == part.host) {
                Some(status) => join(status, part),
                None => statuses.push(part),
            },
            // Of a newer version, perhaps; the others are still worth showing.
            Err(error) => eprintln!(
                "weir: what {} says of itself cannot be read: {error}",
                message.subject
            ),
        }
    }
    statuses.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(statuses)
}

/// Puts together what one host says in several messages. Of an earlier process, or of
/// a time when there were more of them, some may still be there.
fn join(status: &mut HostStatus, part: HostStatus) {
    let older = match part.time_ms > status.time_ms {
        true => std::mem::replace(status, part),
        false => part,
    };
    if status.incarnation != older.incarnation {
        return;
    }
    for handler in older.handlers {
        if !status.handlers.iter().any(|known| known.name == handler.name) {
            status.handlers.push(handler);
        }
    }
}

fn on_host(status: &HostStatus, name: &str, revision: u64) -> OnHost {
    let mut on = OnHost {
        host: status.host.clone(),
        state: Progress::Preparing,
        done: 0,
        partitions: 0,
        reason: None,
    };
    let Some(handler) = status.handlers.iter().find(|handler| handler.name == name) else {
        // It knows nothing of the handler: not yet, or not any more.
        return on;
    };
    let owned = |handler: &HandlerStatus| {
        let owned = handler
            .partitions
            .iter()
            .filter(|partition| partition.state != "standby");
        owned.cloned().collect::<Vec<_>>()
    };
    let partitions = owned(handler);
    on.partitions = partitions.len();
    on.done = partitions
        .iter()
        .filter(|partition| partition.revision >= revision && partition.state != "starting")
        .count();
    if handler.revision < revision || !handler.settled {
        return on;
    }
    on.reason.clone_from(&handler.refused);
    on.state = match on.done == on.partitions {
        _ if handler.refused.is_some() => Progress::Refused,
        true => Progress::Done,
        false => Progress::Switching,
    };
    on
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::PartitionStatus;

    fn host(revision: u64, settled: bool, partitions: &[(&str, u64)]) -> HostStatus {
        HostStatus {
            host: "one".into(),
            handlers: vec![HandlerStatus {
                name: "h".into(),
                revision,
                settled,
                partitions: (0..)
                    .zip(partitions)
                    .map(|(partition, (state, revision))| PartitionStatus {
                        partition,
                        state: (*state).into(),
                        reason: None,
                        waiting: 0,
                        record: 1,
                        revision: *revision,
                    })
                    .collect(),
                ..HandlerStatus::default()
            }],
            ..HostStatus::default()
        }
    }

    #[test]
    fn a_host_is_done_when_all_it_owns_has_switched() {
        for (host, expected) in [
            (host(6, true, &[("running", 6)]), Progress::Preparing),
            (host(7, false, &[("running", 6)]), Progress::Preparing),
            (
                host(7, true, &[("running", 6), ("running", 7)]),
                Progress::Switching,
            ),
            (host(7, true, &[("starting", 7)]), Progress::Switching),
            (host(7, true, &[("running", 7), ("standby", 3)]), Progress::Done),
            (host(8, true, &[("retrying", 8)]), Progress::Done),
            (host(7, true, &[]), Progress::Done),
        ] {
            assert_eq!(on_host(&host, "h", 7).state, expected, "{host:?}");
        }
        let mut refusing = host(7, true, &[("running", 6)]);
        refusing.handlers[0].refused = Some("too old".into());
        assert_eq!(on_host(&refusing, "h", 7).state, Progress::Refused);
        assert_eq!(on_host(&refusing, "other", 7).state, Progress::Preparing);
    }
}
