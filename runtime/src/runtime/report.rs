//! What a host says of itself, twice a second: to `/readyz` and metrics of this
//! process, and to the hosts bucket, from which `weir handlers` reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use super::roster::{Entry, Roster, Shown};
use crate::admin::status::{HandlerStatus, HostStatus, PartitionStatus, StatusHandle};
use crate::commit::record;
use crate::config;
use crate::deployment::manifest::PARTITIONS_MAX;
use crate::deployment::registry::now_ms;
use crate::dispatch::context::{HandlerContext, State};
use crate::ledger;
use crate::log::{Append, SharedLog};
use crate::membership::Holdings;
use crate::model::subjects::{host_part_key, hosts_stream};

/// How often a host says what it does.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// After this long without the registry, deployments may pass this host by.
const BLIND_AFTER: Duration = Duration::from_secs(10);

/// Partitions in one message: of some 110 bytes each, and of several hundred where all
/// have a reason not to run, which is still below what a server takes.
const PART_WEIGHT: usize = 1_100;

/// What a handler is beside its partitions, in partitions.
const HANDLER_WEIGHT: usize = 4;

const _: () = assert!(PARTITIONS_MAX as usize + HANDLER_WEIGHT <= PART_WEIGHT);

/// Partitions of a rebuilt generation that are told with their reasons: enough to see what is wrong.
const REBUILDING_SHOWN: usize = 4;

/// How long changes gather before a host says so out of turn.
const STATUS_SOON: Duration = Duration::from_millis(20);

/// After this long without a word, what a host said is forgotten.
const STATUS_TTL_S: u64 = 10;

/// Status reports over which a rate is measured.
const RATE_REPORTS: usize = 6;

/// Tells what a host does, every [`STATUS_EVERY`].
pub struct Report {
    pub roster: Arc<Roster>,
    pub host: String,
    pub incarnation: String,
    pub log: SharedLog,
    /// Of which the hosts bucket is made again: a server that restarts forgets
    /// a stream in memory.
    pub ledger: config::Ledger,
    pub holdings: Holdings,
    pub drain: watch::Receiver<bool>,
}

/// By handler: when, and events committed by then: the last few reports.
type Counted = BTreeMap<String, Vec<(Instant, u64)>>;

impl Report {
    /// Reports until the host drains.
    pub async fn run(mut self, status: StatusHandle) {
        let mut counted = Counted::new();
        let mut shown: Vec<String> = Vec::new();
        let mut changes = self.roster.changes();
        let mut every = tokio::time::interval(STATUS_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                _ = every.tick() => false,
                Ok(()) = changes.changed() => true,
                _ = self.drain.wait_for(|drain| *drain) => {
                    status.set_not_ready("host", "draining");
                    return;
                }
            };
            if changed {
                // Soon, since somebody may be waiting for it.
                tokio::time::sleep(STATUS_SOON).await;
            }
            let entries = self.roster.all();
            let handlers: Vec<HandlerStatus> = entries
                .iter()
                .map(|entry| of_handler(entry, &mut counted))
                .collect();
            for gone in shown
                .iter()
                .filter(|name| !handlers.iter().any(|h| h.name == **name))
            {
                status.clear(&format!("handler {gone}"));
                counted.remove(gone);
            }
            shown = handlers.iter().map(|handler| handler.name.clone()).collect();
            let host = HostStatus {
                host: self.host.clone(),
                incarnation: self.incarnation.clone(),
                weir_version: env!("CARGO_PKG_VERSION").into(),
                record_format: record::FORMAT,
                http: status.http(),
                time_ms: now_ms(),
                handlers,
                not_ready: status.not_ready(),
            };
            crate::metrics::connected(self.log.connected());
            self.readiness(&host, &status);
            let messages = messages(&self.ledger.name, &host);
            status.set(host);
            if !self.log.connected() {
                continue;
            }
            let stream = hosts_stream(&self.ledger.name);
            let mut failed = None;
            for message in messages {
                failed = self.log.append(&stream, vec![message]).await.err().or(failed);
            }
            let Some(error) = failed else { continue };
            let settings = ledger::hosts_settings(&self.ledger);
            if let Err(cause) = self.log.create_stream(&stream, &settings).await {
                warn!(%error, %cause, "what this host does cannot be written down for `weir handlers`");
            }
        }
    }

    fn readiness(&self, host: &HostStatus, status: &StatusHandle) {
        match self.log.connected() {
            true => status.clear("nats"),
            false => status.set_not_ready("nats", "the connection to NATS is lost; reconnecting"),
        }
        if self.holdings.has_withdrawn() {
            let reason = "a newer version of Weir is at work on this ledger, and this host leaves all partitions to it: upgrade it";
            status.set_not_ready("version", reason);
        }
        match self.roster.blind_for() {
            Some(long) if long >= BLIND_AFTER => {
                let reason = format!("what is deployed cannot be read for {} s", long.as_secs());
                status.set_not_ready("registry", reason);
            }
            _ => status.clear("registry"),
        }
        for handler in &host.handlers {
            // One that starts for the first time has no reason yet.
            let stopped = handler.partitions.iter().find(|p| {
                p.state == State::Stopped.as_str()
                    || (p.state == State::Starting.as_str() && p.reason.is_some())
            });
            let source = handler.stopped_sources.first();
            let refused = handler.refused.as_ref();
            let reason = refused.map(|reason| format!("refused: {reason}"));
            let reason = reason.or(stopped
                .map(|p| {
                    format!(
                        "partition {} is {}: {}",
                        p.partition,
                        p.state,
                        p.reason.as_deref().unwrap_or("?")
                    )
                })
                .or(source.map(|reason| format!("a source is stopped: {reason}"))));
            let key = format!("handler {}", handler.name);
            match reason {
                Some(reason) => status.set_not_ready(&key, reason),
                None => status.clear(&key),
            }
        }
    }
}

/// What the host says, in as many messages as it takes.
fn messages(ledger: &str, host: &HostStatus) -> Vec<Append> {
    let weight = |handler: &HandlerStatus| handler.partitions.len() + HANDLER_WEIGHT;
    let mut weighed = 0;
    let parts = host.handlers.chunk_by(|before, next| {
        weighed += weight(before);
        let fits = weighed + weight(next) <= PART_WEIGHT;
        if !fits {
            weighed = 0;
        }
        fits
    });
    let parts: Vec<&[HandlerStatus]> = match host.handlers.is_empty() {
        true => vec![&[]],
        false => parts.collect(),
    };
    let message = |(part, handlers): (usize, &[HandlerStatus])| {
        let status = HostStatus {
            host: host.host.clone(),
            incarnation: host.incarnation.clone(),
            weir_version: host.weir_version.clone(),
            record_format: host.record_format,
            http: host.http.clone(),
            time_ms: host.time_ms,
            handlers,
            not_ready: host.not_ready.clone(),
        };
        Append {
            subject: host_part_key(ledger, &host.host, part),
            data: serde_json::to_vec(&status)
                .expect("a status is plain data")
                .into(),
            ttl_s: Some(STATUS_TTL_S),
            ..Append::default()
        }
    };
    parts.into_iter().enumerate().map(message).collect()
}

fn of_handler(entry: &Entry, counted: &mut Counted) -> HandlerStatus {
    let deployment = &entry.registered.deployment;
    let mut status = HandlerStatus {
        name: deployment.name.clone(),
        version: deployment.version.clone(),
        digest: deployment.digest.clone(),
        revision: entry.registered.revision,
        settled: entry.settled,
        refused: entry.refused.clone(),
        ..HandlerStatus::default()
    };
    if let Some(shown) = &entry.running {
        of_running(
            shown,
            counted.entry(deployment.name.clone()).or_default(),
            &mut status,
        );
    }
    if let Some(shown) = &entry.rebuilding {
        let context = shown.context.borrow().clone();
        let held_up = |partition: &PartitionStatus| {
            partition.reason.is_some() && partition.state != State::Standby.as_str()
        };
        let partitions = partitions(&context).filter(held_up);
        status.rebuilding = partitions.take(REBUILDING_SHOWN).collect();
    }
    status
}

/// The lanes of a handler, as they are told.
fn partitions(context: &HandlerContext) -> impl Iterator<Item = PartitionStatus> {
    (0..).zip(&*context.lanes).map(|(partition, lane)| {
        let (state, reason) = lane.get();
        PartitionStatus {
            partition,
            state: state.as_str().into(),
            reason,
            waiting: lane.waiting.load(Ordering::Relaxed),
            record: lane.record.load(Ordering::Relaxed),
            revision: lane.revision.load(Ordering::Relaxed),
        }
    })
}

fn of_running(shown: &Shown, counted: &mut Vec<(Instant, u64)>, status: &mut HandlerStatus) {
    let context = shown.context.borrow().clone();
    // What runs, which is not what is deployed while that is being prepared or refused.
    status.version.clone_from(&context.manifest.version);
    status.digest.clone_from(&context.digest);
    let events = context.counters.events.load(Ordering::Relaxed);
    if counted.last().is_some_and(|(_, before)| *before > events) {
        counted.clear(); // it was started again
    }
    counted.push((Instant::now(), events));
    if counted.len() > RATE_REPORTS {
        counted.remove(0);
    }
    let (since, before) = counted[0];
    let seconds = since.elapsed().as_secs_f64();
    if seconds > 0.1 {
        status.rate = (events - before) as f64 / seconds;
    }
    status.partitions.extend(partitions(&context));
    for partition in &status.partitions {
        context.metrics.lag(partition.partition, partition.waiting);
    }
    status.reads_own = context.manifest.partition_token.is_some();
    let mut stopped = 0;
    for (source, (feeds, name)) in shown.progress.iter().zip(context.source_names()).enumerate() {
        let (mut unread, mut lost) = (0, 0);
        let mut reasons = Vec::new();
        for feed in feeds {
            let progress = feed.get();
            unread += progress.unread;
            // Each counts what the stream has removed, whose ever it was.
            lost = progress.lost.max(lost);
            reasons.extend(progress.stopped);
            status.undecodable += progress.undecodable;
        }
        reasons.dedup();
        context.metrics.unread(source, unread);
        context.metrics.lost(source, lost);
        status.unread += unread;
        stopped += usize::from(!reasons.is_empty());
        status.stopped_sources.extend(reasons);
        if lost > 0 {
            status.lost.insert(name.to_owned(), lost);
        }
    }
    context.metrics.sources_stopped(stopped);
    context.metrics.undecodable(status.undecodable);
    status.errors = context.counters.errors.load(Ordering::Relaxed);
    status.dead_letters = context.counters.dead_letters.load(Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Large or many handlers are told in several messages, none of which a server
    /// would refuse, and nothing is left out.
    #[test]
    fn what_is_too_much_for_one_message_is_told_in_several() {
        const PAYLOAD_MAX: usize = 1024 * 1024;
        for (handlers, partitions, parts) in [(0, 0, 1), (3, 1, 1), (3, PARTITIONS_MAX, 3), (200, 16, 4)] {
            let partition = |partition| PartitionStatus {
                partition,
                state: "retrying".into(),
                reason: Some("x".repeat(300)),
                waiting: u64::MAX,
                record: u64::MAX,
                revision: u64::MAX,
            };
            let host = HostStatus {
                host: "h".into(),
                handlers: (0..handlers)
                    .map(|n| HandlerStatus {
                        name: format!("handler-{n}"),
                        partitions: (0..partitions).map(partition).collect(),
                        ..HandlerStatus::default()
                    })
                    .collect(),
                ..HostStatus::default()
            };
            let messages = messages("L", &host);
            assert_eq!(messages.len(), parts, "{handlers} of {partitions}");
            let mut told = Vec::new();
            for message in messages {
                assert!(message.data.len() < PAYLOAD_MAX, "{} bytes", message.data.len());
                let part: HostStatus = serde_json::from_slice(&message.data).expect("a status");
                told.extend(part.handlers);
            }
            assert_eq!(told, host.handlers);
        }
    }
}
