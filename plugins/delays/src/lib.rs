//! How late each carrier departs.
//!
//! Events are flights, keyed by carrier. A flight that was cancelled has no
//! `dep_delay`, did not depart and is not counted. Three cells per carrier:
//!
//! | cell | holds |
//! | --- | --- |
//! | `count` | departures |
//! | `sum` | minutes of delay of all of them; early departures count below zero |
//! | `max` | the worst delay, in minutes |
//!
//! Every 1,000th departure of a carrier emits the figures so far on
//! `stats.carrier.<carrier>`; each that is later than the configured
//! `threshold_minutes` an alert on `alerts.delay`.

use serde::{Deserialize, Serialize};
use weir_guest::prelude::*;

/// Departures of a carrier between two emits of its figures.
const STATS_EVERY: u64 = 1_000;

#[derive(Deserialize)]
struct Flight {
    /// Minutes, below zero for an early departure; `None`: cancelled.
    dep_delay: Option<i64>,
    flight: u32,
    tailnum: Option<String>,
    origin: String,
    dest: String,
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
    flight: u32,
    tailnum: Option<&'a str>,
    origin: &'a str,
    dest: &'a str,
    delay_minutes: i64,
    of: &'a str,
}

#[handler]
fn delays(event: Event) -> Result {
    let carrier = event.key();
    let flight: Flight = event.json()?;
    let Some(delay) = flight.dep_delay else {
        return Ok(());
    };

    let count = state::cell::<u64>("count").update(|count| *count += 1)?;
    let sum = state::cell::<i64>("sum").update(|sum| *sum += delay)?;
    let max = state::cell::<Option<i64>>("max").update(|max| *max = (*max).max(Some(delay)))?;

    if count.is_multiple_of(STATS_EVERY) {
        let stats = Stats {
            carrier,
            departures: count,
            mean_delay_minutes: sum as f64 / count as f64,
            worst_delay_minutes: max.unwrap_or(delay),
        };
        output::emit(&format!("stats.carrier.{}", subject_token(carrier)), &stats)?;
    }
    if delay > config::parse("threshold_minutes")? {
        let alert = Alert {
            carrier,
            flight: flight.flight,
            tailnum: flight.tailnum.as_deref(),
            origin: &flight.origin,
            dest: &flight.dest,
            delay_minutes: delay,
            of: event.id(),
        };
        output::emit("alerts.delay", &alert)?;
    }
    Ok(())
}
