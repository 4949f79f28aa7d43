//! The checks that a run ends with.
//!
//! `rotations` numbers the events of each key. Whatever was killed, lost or
//! paused, the numbers that one reads from the ledger are 1, 2, 3, … per key, in
//! that order, and each input event is behind exactly one of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::bus::Bus;

/// Offenders that a report names.
const SHOWN_MAX: usize = 10;

/// What `rotations` emits.
#[derive(Debug, Clone, Deserialize)]
pub struct Rotation {
    pub key: String,
    pub n: u64,
    /// The event's id.
    pub of: String,
}

/// What is wrong with a sequence of rotations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub disordered: Vec<String>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, which) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("out of order", &self.disordered),
        ] {
            let first: Vec<&str> = which.iter().take(SHOWN_MAX).map(String::as_str).collect();
            writeln!(f, "{} {what}: {}", which.len(), first.join("; "))?;
        }
        Ok(())
    }
}

/// Reads the rotations on `filter` and asserts that per key they are exactly
/// 1, 2, 3, …, each of another event, of events in source order. Returns how many
/// there are of each key.
pub async fn per_key_sequence(bus: &Bus, ledger: &str, filter: &str) -> Result<BTreeMap<String, u64>> {
    let mut rotations = Vec::new();
    for message in bus.read(ledger, filter).await? {
        let rotation: Rotation = serde_json::from_slice(&message.data)
            .with_context(|| format!("message {} is no rotation: {}", message.sequence, message.text()))?;
        rotations.push((message.sequence, rotation));
    }
    let (counts, faults) = judge(&rotations);
    ensure!(
        faults == Faults::default(),
        "{} rotations of {} keys:\n{faults}",
        rotations.len(),
        counts.len()
    );
    Ok(counts)
}

/// Counts the rotations of each key, and finds what is wrong. `rotations` is in
/// the order of the ledger, each with its sequence there.
pub fn judge(rotations: &[(u64, Rotation)]) -> (BTreeMap<String, u64>, Faults) {
    #[derive(Default)]
    struct Seen {
        numbers: BTreeSet<u64>,
        last: u64,
        source: u64,
    }
    let mut keys: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut events: HashMap<&str, u64> = HashMap::new();
    let mut faults = Faults::default();
    for (sequence, Rotation { key, n, of }) in rotations {
        let seen = keys.entry(key).or_default();
        let at = format!("{key} n={n} of {of} at {sequence}");
        let source = of.rsplit(':').next().and_then(|s| s.parse().ok()).unwrap_or(0);
        let first = events.insert(of, *sequence);
        if !seen.numbers.insert(*n) {
            faults.doubled.push(at);
        } else if let Some(first) = first {
            faults
                .doubled
                .push(format!("{at}, whose event was counted at {first}"));
        } else if *n < seen.last || source <= seen.source {
            faults
                .disordered
                .push(format!("{at}, after n={} of {}", seen.last, seen.source));
        }
        seen.last = *n;
        seen.source = source;
    }
    for (key, seen) in &keys {
        let highest = seen.numbers.last().copied().unwrap_or(0);
        let missing = (1..=highest).filter(|n| !seen.numbers.contains(n));
        faults.lost.extend(missing.map(|n| format!("{key} n={n}")));
    }
    let counts = keys
        .into_iter()
        .map(|(key, seen)| (key.to_owned(), seen.numbers.len() as u64))
        .collect();
    (counts, faults)
}

/// Asserts that the counts are those expected, and names the first that differ.
pub fn same_counts(found: &BTreeMap<String, u64>, expected: &BTreeMap<String, u64>) -> Result<()> {
    let keys: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let different: Vec<String> = keys
        .into_iter()
        .filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| format!("{key}: {:?} instead of {:?}", found.get(key), expected.get(key)))
        .collect();
    ensure!(
        different.is_empty(),
        "{} keys have another count: {}",
        different.len(),
        different[..different.len().min(SHOWN_MAX)].join("; ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rotations of one key `k`, from numbers and sources.
    fn faults(of_k: &[(u64, u64)]) -> Faults {
        let rotations: Vec<(u64, Rotation)> = (100..)
            .zip(of_k)
            .map(|(sequence, (n, source))| {
                let rotation = Rotation {
                    key: "k".into(),
                    n: *n,
                    of: format!("F:{source}"),
                };
                (sequence, rotation)
            })
            .collect();
        judge(&rotations).1
    }

    #[test]
    fn each_kind_of_fault_is_seen() {
        assert_eq!(faults(&[(1, 5), (2, 7), (3, 8)]), Faults::default());
        assert_eq!(faults(&[(1, 5), (3, 8)]).lost, ["k n=2"]);
        assert_eq!(faults(&[(2, 5)]).lost, ["k n=1"]);
        assert_eq!(faults(&[(1, 5), (1, 5)]).doubled.len(), 1);
        assert_eq!(
            faults(&[(1, 5), (2, 5)]).doubled.len(),
            1,
            "one event counted twice"
        );
        let swapped = faults(&[(2, 7), (1, 5)]);
        assert_eq!((swapped.disordered.len(), swapped.lost.len()), (1, 0));
        assert_eq!(faults(&[(1, 7), (2, 5)]).disordered.len(), 1, "source order");
    }
}
