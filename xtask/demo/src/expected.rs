//! What must come out, computed from the flights alone: this shares no code with
//! the handlers. `compare.rs` holds it against what did come out.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::flights::Flight;

/// Departures of a carrier between two of its `stats` events, as documented by
/// `plugins/delays`.
const STATS_EVERY: u64 = 1_000;

/// Figures of one carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Carrier {
    /// Flights that left; a cancelled one has no delay.
    pub departures: u64,
    pub delay_sum_minutes: i64,
    /// `None` before the first departure.
    pub delay_max_minutes: Option<i64>,
    pub alerts: u64,
}

impl Carrier {
    pub const NONE: Carrier = Carrier {
        departures: 0,
        delay_sum_minutes: 0,
        delay_max_minutes: None,
        alerts: 0,
    };

    pub fn mean_minutes(&self) -> f64 {
        self.delay_sum_minutes as f64 / self.departures as f64
    }
}

/// All that must be there when every flight was handled exactly once.
#[derive(Debug, Default)]
pub struct Expected {
    pub carriers: BTreeMap<String, Carrier>,
    /// Subject to payloads in order, of `stats.carrier.*` and `rotations.*`.
    pub ordered: BTreeMap<String, Vec<String>>,
    /// Payloads of `alerts.delay`: sorted, since carriers share the subject.
    pub alerts: Vec<String>,
    /// Ids of the events without a tail number, sorted.
    pub dead_letters: Vec<String>,
}

#[derive(Serialize)]
struct Stats<'a> {
    carrier: &'a str,
    departures: u64,
    mean_delay_minutes: f64,
    worst_delay_minutes: i64,
}

#[derive(Serialize)]
struct Alert<'a> {
    carrier: &'a str,
    flight: i64,
    tailnum: Option<&'a str>,
    origin: &'a str,
    dest: &'a str,
    delay_minutes: i64,
    of: &'a str,
}

/// Computes it for flights that were stored in this order from sequence 1.
pub fn expected(flights: &[Flight], threshold_minutes: i64) -> Result<Expected> {
    let mut expected = Expected::default();
    let mut rotations: BTreeMap<&str, u64> = BTreeMap::new();
    for (flight, sequence) in flights.iter().zip(1u64..) {
        let id = format!("{}:{sequence}", crate::STREAM);
        match &flight.tailnum {
            None => expected.dead_letters.push(id.clone()),
            Some(tailnum) => {
                let n = rotations.entry(tailnum).or_default();
                *n += 1;
                let payload = format!(r#"{{"key":"{tailnum}","n":{n},"of":"{id}"}}"#);
                expected.push(format!("rotations.{tailnum}"), payload);
            }
        }
        let carrier = expected
            .carriers
            .entry(flight.carrier.clone())
            .or_insert(Carrier::NONE);
        let Some(delay) = flight.dep_delay else {
            continue;
        };
        carrier.departures += 1;
        carrier.delay_sum_minutes += delay;
        let worst = carrier.delay_max_minutes.map_or(delay, |max| max.max(delay));
        carrier.delay_max_minutes = Some(worst);
        if delay > threshold_minutes {
            carrier.alerts += 1;
            expected.alerts.push(serde_json::to_string(&Alert {
                carrier: &flight.carrier,
                flight: flight.flight,
                tailnum: flight.tailnum.as_deref(),
                origin: &flight.origin,
                dest: &flight.dest,
                delay_minutes: delay,
                of: &id,
            })?);
        }
        if carrier.departures % STATS_EVERY == 0 {
            let stats = serde_json::to_string(&Stats {
                carrier: &flight.carrier,
                departures: carrier.departures,
                mean_delay_minutes: carrier.mean_minutes(),
                worst_delay_minutes: worst,
            })?;
            expected.push(format!("stats.carrier.{}", flight.carrier), stats);
        }
    }
    expected.alerts.sort();
    expected.dead_letters.sort();
    Ok(expected)
}

impl Expected {
    fn push(&mut self, subject: String, payload: String) {
        self.ordered.entry(subject).or_default().push(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights;

    #[test]
    fn three_flights_by_hand() {
        let expected = expected(&flights::tests::three(), 120).unwrap();
        let united = Carrier {
            departures: 2,
            delay_sum_minutes: 158,
            delay_max_minutes: Some(156),
            alerts: 1,
        };
        assert_eq!(expected.carriers["UA"], united);
        assert_eq!(expected.carriers["AA"], Carrier::NONE);
        assert_eq!(
            expected.ordered["rotations.N14228"],
            [
                r#"{"key":"N14228","n":1,"of":"FLIGHTS:1"}"#,
                r#"{"key":"N14228","n":2,"of":"FLIGHTS:3"}"#
            ]
        );
        assert_eq!(
            expected.alerts,
            [
                r#"{"carrier":"UA","flight":22,"tailnum":"N14228","origin":"JFK","dest":"SYR","delay_minutes":156,"of":"FLIGHTS:3"}"#
            ]
        );
        assert_eq!(expected.dead_letters, ["FLIGHTS:2"]);
    }

    #[test]
    fn figures_every_thousand_departures() {
        let departure = flights::tests::three().remove(0);
        let expected = expected(&vec![departure; 2_999], 120).unwrap();
        let stats = &expected.ordered["stats.carrier.UA"];
        assert_eq!(stats.len(), 2);
        assert_eq!(
            stats[1],
            r#"{"carrier":"UA","departures":2000,"mean_delay_minutes":2.0,"worst_delay_minutes":2}"#
        );
    }
}
