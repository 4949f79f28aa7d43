//! The result, as a table or as JSON.

use serde_json::json;

use crate::compare::Actual;
use crate::expected::Carrier;

pub struct Summary<'a> {
    pub actual: &'a Actual,
    pub events: usize,
    /// From the first flight stored to the last event emitted.
    pub seconds: f64,
    pub differences: &'a [String],
}

/// Lines shown of the differences; one mistake often makes thousands.
const DIFFERENCES_SHOWN: usize = 20;

impl Summary<'_> {
    pub fn print(&self) {
        println!("carrier  departures  mean delay  worst delay  alerts");
        for (name, carrier) in &self.actual.carriers {
            let mean = if carrier.departures == 0 {
                "-".into()
            } else {
                format!("{:.1}", carrier.mean_minutes())
            };
            let worst = carrier
                .delay_max_minutes
                .map_or("-".into(), |max| max.to_string());
            let Carrier {
                departures, alerts, ..
            } = carrier;
            println!("{name:<7}  {departures:>10}  {mean:>10}  {worst:>11}  {alerts:>6}");
        }
        println!(
            "\n{} flights through two handlers in {:.1} s: {:.0} events/s",
            self.events,
            self.seconds,
            self.rate()
        );
        println!(
            "{} events emitted, {} flights without an aircraft dead-lettered",
            self.emitted(),
            self.actual.dead_letters.len()
        );
        if self.differences.is_empty() {
            println!("every number equals the one computed from the CSV");
            return;
        }
        println!("{} differences from what the CSV says:", self.differences.len());
        for line in self.differences.iter().take(DIFFERENCES_SHOWN) {
            println!("  {line}");
        }
        if self.differences.len() > DIFFERENCES_SHOWN {
            println!("  …");
        }
    }

    pub fn print_json(&self) {
        let result = json!({
            "carriers": self.actual.carriers,
            "events": self.events,
            "emitted": self.emitted(),
            "dead_letters": self.actual.dead_letters.len(),
            "seconds": self.seconds,
            "events_per_s": self.rate(),
            "differences": self.differences,
        });
        println!("{result}");
    }

    fn rate(&self) -> f64 {
        // Two handlers take each flight; a flight is counted once.
        self.events as f64 / self.seconds
    }

    fn emitted(&self) -> usize {
        self.actual.ordered.values().map(Vec::len).sum::<usize>() + self.actual.alerts.len()
    }
}
