//! Holds what came out against what must have.

use std::collections::{BTreeMap, BTreeSet};

use crate::expected::{Carrier, Expected};

/// What came out: cells and dead letters as the `weir` command shows them,
/// events as the ledger holds them.
#[derive(Debug, Default)]
pub struct Actual {
    /// From the cells of `delays`, and the alerts counted in the ledger.
    pub carriers: BTreeMap<String, Carrier>,
    /// Subject to payloads in the order of the ledger, alerts apart.
    pub ordered: BTreeMap<String, Vec<String>>,
    /// In the order of the ledger.
    pub alerts: Vec<String>,
    /// Ids.
    pub dead_letters: Vec<String>,
}

/// Every difference, a line each. None: each flight was handled exactly once, in
/// the order of its key.
pub fn differences(expected: &Expected, actual: &Actual) -> Vec<String> {
    let mut lines = Vec::new();
    for name in keys(&expected.carriers, &actual.carriers) {
        let (want, got) = (expected.carriers.get(name), actual.carriers.get(name));
        if want != got {
            lines.push(format!(
                "carrier {name}: {} instead of {}",
                shown(got),
                shown(want)
            ));
        }
    }
    for subject in keys(&expected.ordered, &actual.ordered) {
        let events = |of: &BTreeMap<String, Vec<String>>| of.get(subject).cloned().unwrap_or_default();
        lines.extend(difference(
            subject,
            &events(&expected.ordered),
            &events(&actual.ordered),
        ));
    }
    lines.extend(difference(
        "alerts.delay",
        &expected.alerts,
        &sorted(&actual.alerts),
    ));
    lines.extend(difference(
        "dead letters",
        &expected.dead_letters,
        &sorted(&actual.dead_letters),
    ));
    lines
}

/// Where two lists first part.
fn difference(of: &str, want: &[String], got: &[String]) -> Option<String> {
    if want == got {
        return None;
    }
    let at = want.iter().zip(got).take_while(|(want, got)| want == got).count();
    Some(format!(
        "{of}: {} instead of {}; number {} is {} instead of {}",
        got.len(),
        want.len(),
        at + 1,
        got.get(at).map_or("missing", String::as_str),
        want.get(at).map_or("none", String::as_str)
    ))
}

fn keys<'a, V>(a: &'a BTreeMap<String, V>, b: &'a BTreeMap<String, V>) -> BTreeSet<&'a str> {
    a.keys().chain(b.keys()).map(String::as_str).collect()
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list
}

fn shown(carrier: Option<&Carrier>) -> String {
    carrier.map_or("nothing".into(), |carrier| {
        let Carrier {
            departures,
            delay_sum_minutes,
            delay_max_minutes,
            alerts,
        } = carrier;
        format!(
            "{departures} departures, sum {delay_sum_minutes}, max {delay_max_minutes:?}, {alerts} alerts"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{expected, flights};

    fn sound() -> (Expected, Actual) {
        let expected = expected::expected(&flights::tests::three(), 120).unwrap();
        let actual = Actual {
            carriers: expected.carriers.clone(),
            ordered: expected.ordered.clone(),
            alerts: expected.alerts.clone(),
            dead_letters: expected.dead_letters.clone(),
        };
        (expected, actual)
    }

    #[test]
    fn what_must_come_out_passes() {
        let (expected, actual) = sound();
        assert_eq!(differences(&expected, &actual), Vec::<String>::new());
    }

    /// Each of the ways to handle a flight more or less than once, or too late.
    #[test]
    fn every_kind_of_difference_is_seen() {
        type Spoil = fn(&mut Actual);
        let cases: [(&str, Spoil); 8] = [
            ("a departure is not counted", |a| {
                a.carriers.get_mut("UA").unwrap().departures -= 1
            }),
            ("a carrier is missing", |a| {
                a.carriers.retain(|name, _| name != "AA")
            }),
            ("an event is lost", |a| {
                drop(a.ordered.get_mut("rotations.N14228").unwrap().pop())
            }),
            ("an event is doubled", |a| {
                let events = a.ordered.get_mut("rotations.N14228").unwrap();
                events.push(events[1].clone());
            }),
            ("events change places", |a| {
                a.ordered.get_mut("rotations.N14228").unwrap().swap(0, 1)
            }),
            ("an event too many", |a| {
                drop(a.ordered.insert("rotations.X".into(), vec!["{}".into()]))
            }),
            ("an alert is doubled", |a| a.alerts.push(a.alerts[0].clone())),
            ("a dead letter is lost", |a| a.dead_letters.clear()),
        ];
        for (case, spoil) in cases {
            let (expected, mut actual) = sound();
            spoil(&mut actual);
            assert_eq!(differences(&expected, &actual).len(), 1, "{case}");
        }
    }
}
