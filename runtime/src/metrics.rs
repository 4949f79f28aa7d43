//! The numbers of `/metrics`. Labels come from manifests, never from traffic, so
//! that no event can make a new series.
//!
//! Handles are looked up once, in [`HandlerMetrics::new`]; using one is an
//! atomic addition. Everything is counted per group, nothing per event, but
//! for what went wrong.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub const EVENTS: &str = "weir_events_total";
pub const GROUPS: &str = "weir_groups_total";
pub const COMMIT_SECONDS: &str = "weir_commit_seconds";
pub const HANDLER_SECONDS: &str = "weir_handler_seconds";
pub const LAG_EVENTS: &str = "weir_lag_events";
pub const UNREAD_EVENTS: &str = "weir_unread_events";
pub const RETRIES: &str = "weir_retries_total";
pub const DEAD_LETTERS: &str = "weir_dead_letters_total";
pub const CACHE_BYTES: &str = "weir_cache_bytes";
pub const FENCED: &str = "weir_fenced_total";
pub const OUTBOX_RELAYED: &str = "weir_outbox_relayed_total";
pub const OUTBOX_FAILING: &str = "weir_outbox_failing";
pub const DUPLICATES: &str = "weir_duplicates_total";
pub const CONFLICTS: &str = "weir_conflicts_total";
pub const LOST_MESSAGES: &str = "weir_lost_messages_total";
pub const UNDECODABLE: &str = "weir_undecodable_messages_total";
pub const SOURCES_STOPPED: &str = "weir_sources_stopped";
pub const NATS_CONNECTED: &str = "weir_nats_connected";

/// Bounds of the latency histograms, in seconds: from below one fenced publish
/// (0.18 ms, DESIGN) to the time after which a commit's outcome is unknown.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Starts counting in this process. Once; before it, nothing is counted.
///
/// # Errors
/// Something else has installed a recorder.
pub fn start() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(EVENTS, "Events whose effects are committed.");
    describe_counter!(GROUPS, "Groups of events committed.");
    describe_histogram!(
        COMMIT_SECONDS,
        "From sending a group's commit until it is settled."
    );
    describe_histogram!(HANDLER_SECONDS, "Mean time of one invocation, per group.");
    describe_gauge!(LAG_EVENTS, "Events read and not yet committed.");
    describe_gauge!(UNREAD_EVENTS, "Events of a source that are not read yet.");
    describe_counter!(RETRIES, "Invocations that failed and are tried again.");
    describe_counter!(DEAD_LETTERS, "Events dead-lettered.");
    describe_gauge!(CACHE_BYTES, "Bytes of cells kept in memory.");
    describe_counter!(FENCED, "Commits refused because another host has the partition.");
    describe_counter!(
        OUTBOX_RELAYED,
        "Entries of the outbox that other streams have taken."
    );
    describe_gauge!(
        OUTBOX_FAILING,
        "Partitions whose next entry of the outbox is not taken by its stream."
    );
    describe_counter!(
        DUPLICATES,
        "Events ignored because they repeat others ([dedupe])."
    );
    describe_counter!(
        CONFLICTS,
        "Groups executed again because a shared cell or lock had changed meanwhile."
    );
    describe_counter!(
        LOST_MESSAGES,
        "Messages of a source that its stream removed before every partition had read them."
    );
    describe_counter!(
        UNDECODABLE,
        "Timers that fired and redriven dead letters that cannot be read, and are not handled."
    );
    describe_gauge!(
        SOURCES_STOPPED,
        "Sources that were stopped because their stream is not the one read before."
    );
    describe_gauge!(NATS_CONNECTED, "1 while the connection to NATS stands, else 0.");
}

/// Says whether the connection to NATS stands.
pub fn connected(connected: bool) {
    gauge!(NATS_CONNECTED).set(f64::from(u8::from(connected)));
}

/// The numbers of one handler on this host.
#[derive(Clone)]
pub struct HandlerMetrics {
    events: Counter,
    groups: Counter,
    commit_seconds: Histogram,
    handler_seconds: Histogram,
    retries: Counter,
    dead_letters: Counter,
    fenced: Counter,
    conflicts: Counter,
    duplicates: Counter,
    outbox_relayed: Counter,
    outbox_failing: Gauge,
    sources_stopped: Gauge,
    /// By partition.
    lag: Vec<Gauge>,
    cache: Vec<Gauge>,
    /// By source, in the manifest's order, the internal one last.
    unread: Vec<Gauge>,
    lost: Vec<Counter>,
    undecodable: Counter,
}

impl HandlerMetrics {
    /// Registers all series of a handler, so that each is there from the start, as zero.
    pub fn new(handler: &str, partitions: u32, sources: &[&str]) -> HandlerMetrics {
        let name = || handler.to_owned();
        let by_partition = |metric: &'static str| {
            (0..partitions)
                .map(|partition| gauge!(metric, "handler" => name(), "partition" => partition.to_string()))
                .collect()
        };
        let unread =
            |source: &&str| gauge!(UNREAD_EVENTS, "handler" => name(), "source" => (*source).to_owned());
        let lost =
            |source: &&str| counter!(LOST_MESSAGES, "handler" => name(), "source" => (*source).to_owned());
        let this = HandlerMetrics {
            events: counter!(EVENTS, "handler" => name()),
            groups: counter!(GROUPS, "handler" => name()),
            commit_seconds: histogram!(COMMIT_SECONDS, "handler" => name()),
            handler_seconds: histogram!(HANDLER_SECONDS, "handler" => name()),
            retries: counter!(RETRIES, "handler" => name()),
            dead_letters: counter!(DEAD_LETTERS, "handler" => name()),
            fenced: counter!(FENCED, "handler" => name()),
            conflicts: counter!(CONFLICTS, "handler" => name()),
            duplicates: counter!(DUPLICATES, "handler" => name()),
            outbox_relayed: counter!(OUTBOX_RELAYED, "handler" => name()),
            outbox_failing: gauge!(OUTBOX_FAILING, "handler" => name()),
            sources_stopped: gauge!(SOURCES_STOPPED, "handler" => name()),
            lag: by_partition(LAG_EVENTS),
            cache: by_partition(CACHE_BYTES),
            unread: sources.iter().map(unread).collect(),
            lost: sources.iter().map(lost).collect(),
            undecodable: counter!(UNDECODABLE, "handler" => name()),
        };
        for counter in [
            &this.events,
            &this.groups,
            &this.retries,
            &this.dead_letters,
            &this.fenced,
            &this.conflicts,
            &this.duplicates,
            &this.outbox_relayed,
            &this.undecodable,
        ]
        .into_iter()
        .chain(&this.lost)
        {
            counter.increment(0);
        }
        this
    }

    /// A group was executed: its events, and how long all of them took.
    pub fn executed(&self, events: u64, took: Duration) {
        if events > 0 {
            self.handler_seconds.record(took.as_secs_f64() / events as f64);
        }
    }

    /// A commit was settled: the events and groups in it, and how long it took.
    pub fn committed(&self, events: u64, groups: u64, took: Duration) {
        self.events.increment(events);
        self.groups.increment(groups);
        self.commit_seconds.record(took.as_secs_f64());
    }

    pub fn retried(&self) {
        self.retries.increment(1);
    }

    pub fn dead_lettered(&self, events: u64) {
        self.dead_letters.increment(events);
    }

    pub fn fenced(&self) {
        self.fenced.increment(1);
    }

    pub fn relayed(&self) {
        self.outbox_relayed.increment(1);
    }

    /// A partition's outbox does not get on, until what is returned is dropped.
    pub fn outbox_failing(&self) -> Failing {
        self.outbox_failing.increment(1.0);
        Failing(self.outbox_failing.clone())
    }

    /// Events that repeat others.
    pub fn ignored(&self, events: u64) {
        self.duplicates.increment(events);
    }

    pub fn conflicted(&self) {
        self.conflicts.increment(1);
    }

    /// Events of a partition that are read and not yet committed.
    pub fn lag(&self, partition: u32, events: u64) {
        if let Some(gauge) = self.lag.get(partition as usize) {
            gauge.set(events as f64);
        }
    }

    /// Bytes of a partition's cells in memory.
    pub fn cache(&self, partition: u32, bytes: usize) {
        if let Some(gauge) = self.cache.get(partition as usize) {
            gauge.set(bytes as f64);
        }
    }

    /// Events of a source that are not read yet.
    pub fn unread(&self, source: usize, events: u64) {
        if let Some(gauge) = self.unread.get(source) {
            gauge.set(events as f64);
        }
    }

    /// Messages of a source that were gone before every partition had read them, since the host started.
    pub fn lost(&self, source: usize, messages: u64) {
        if let Some(counter) = self.lost.get(source) {
            counter.absolute(messages);
        }
    }

    /// Internal messages that cannot be read, since the host started.
    pub fn undecodable(&self, messages: u64) {
        self.undecodable.absolute(messages);
    }

    pub fn sources_stopped(&self, sources: usize) {
        self.sources_stopped.set(sources as f64);
    }
}

/// Counted in a gauge for as long as it lives.
pub struct Failing(Gauge);

impl Drop for Failing {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_there_from_the_start_and_count() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let metrics = HandlerMetrics::new("h", 2, &["S"]);
            let text = handle.render();
            for line in [
                "weir_dead_letters_total{handler=\"h\"} 0",
                "weir_lost_messages_total{handler=\"h\",source=\"S\"} 0",
            ] {
                assert!(text.contains(line), "no {line} in\n{text}");
            }
            metrics.committed(7, 2, Duration::from_millis(3));
            metrics.lag(1, 5);
            metrics.lag(2, 5); // no such partition: nothing
            metrics.unread(0, 9);
            metrics.cache(0, 100);
            metrics.lost(0, 4);
            metrics.lost(0, 6);
            metrics.undecodable(1);
        });
        let text = handle.render();
        for line in [
            "weir_events_total{handler=\"h\"} 7",
            "weir_groups_total{handler=\"h\"} 2",
            "weir_lag_events{handler=\"h\",partition=\"1\"} 5",
            "weir_unread_events{handler=\"h\",source=\"S\"} 9",
            "weir_cache_bytes{handler=\"h\",partition=\"0\"} 100",
            "weir_lost_messages_total{handler=\"h\",source=\"S\"} 6",
            "weir_undecodable_messages_total{handler=\"h\"} 1",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(!text.contains("partition=\"2\""), "{text}");
    }
}
