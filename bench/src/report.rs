//! The results: what `--json` prints, and the table for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

/// Everything that one run measured. A part that was not asked for is absent.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub results: Vec<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// The largest resident set of any host process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// Events per second of each native loop.
    pub native: BTreeMap<&'static str, f64>,
    pub machine: Machine,
}

/// One kind of work, by Weir and by the native loop, in events per second.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub name: &'static str,
    pub weir_per_s: f64,
    pub native_per_s: f64,
    pub ratio: f64,
    /// Of the host that did it.
    #[serde(skip)]
    pub peak_mib: f64,
}

/// From a publish to its output at a JetStream consumer of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

#[derive(Debug, Default, Serialize)]
pub struct Machine {
    pub cores: usize,
}

impl Report {
    /// Keeps the largest.
    pub fn note_peak(&mut self, mib: f64) {
        self.peak_mib = Some(self.peak_mib.unwrap_or(0.0).max(mib));
    }

    /// For people: one line per kind of work.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |cells: [String; 5]| {
            let [name, weir, native, ratio, peak] = cells;
            let row = format!("{name:<16} {weir:>12} {native:>12} {ratio:>7} {peak:>10}");
            let _ = writeln!(text, "{}", row.trim_end());
        };
        line(["", "weir/s", "native/s", "ratio", "peak MiB"].map(str::to_owned));
        for (name, rate) in &self.native {
            if !self.results.iter().any(|c| c.name == *name) {
                line([
                    (*name).to_owned(),
                    String::new(),
                    whole(*rate),
                    String::new(),
                    String::new(),
                ]);
            }
        }
        for c in &self.results {
            line([
                c.name.to_owned(),
                whole(c.weir_per_s),
                whole(c.native_per_s),
                format!("{:.2}", c.ratio),
                format!("{:.0}", c.peak_mib),
            ]);
        }
        if let Some(Latency { p50, p99 }) = self.latency_ms {
            let _ = writeln!(
                text,
                "\npublish to visible output, 100 events/s: p50 {p50:.1} ms, p99 {p99:.1} ms"
            );
        }
        if let Some(peak) = self.peak_mib {
            let _ = writeln!(text, "peak memory of a host: {peak:.0} MiB");
        }
        let _ = writeln!(
            text,
            "{} cores, shared by the server, Weir and this program",
            self.machine.cores
        );
        text
    }
}

/// A rate with thousands set apart, as in `303,000`.
fn whole(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Median and 99th percentile (nearest rank) of latencies in milliseconds;
/// `None` of none.
pub fn latency(mut ms: Vec<f64>) -> Option<Latency> {
    ms.sort_by(f64::total_cmp);
    let rank = |quantile: f64| {
        let rank = (quantile * ms.len() as f64).ceil() as usize;
        ms.get(rank.max(1) - 1).copied()
    };
    Some(Latency {
        p50: rank(0.50)?,
        p99: rank(0.99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(latency(vec![]), None);
        assert_eq!(latency(vec![7.0]), Some(Latency { p50: 7.0, p99: 7.0 }));
        let hundred = (1..=100).rev().map(f64::from).collect();
        assert_eq!(latency(hundred), Some(Latency { p50: 50.0, p99: 99.0 }));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(whole(999.4), "999");
        assert_eq!(whole(303_000.0), "303,000");
        assert_eq!(whole(1_234_567.0), "1,234,567");
    }

    #[test]
    fn the_json_holds_what_readers_of_it_rely_on() {
        let report = Report {
            results: vec![Comparison {
                name: "state-only",
                weir_per_s: 100.0,
                native_per_s: 200.0,
                ratio: 0.5,
                peak_mib: 1.0,
            }],
            ..Report::default()
        };
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(
            json["results"],
            serde_json::json!([{"name": "state-only", "weir_per_s": 100.0, "native_per_s": 200.0, "ratio": 0.5}])
        );
    }
}
