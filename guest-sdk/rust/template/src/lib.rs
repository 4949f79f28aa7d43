//! Counts the events of each key, and says when a minute has passed since the first.

use std::time::Duration;

use serde::Serialize;
use serde::de::IgnoredAny;
use weir_guest::prelude::*;

const QUIET_AFTER: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Count<'a> {
    key: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Quiet<'a> {
    key: &'a str,
    quiet: bool,
}

#[handler]
fn handle(event: Event) -> Result {
    let key = event.key();
    let subject = format!("counts.{}", subject_token(key));
    if event.timer() == Some("quiet") {
        return output::emit(&subject, &Quiet { key, quiet: true });
    }
    let _: IgnoredAny = event.json()?; // what is not JSON is rejected
    let count = state::cell::<u64>("count").update(|count| *count += 1)?;
    if count == 1 {
        timers::after("quiet", QUIET_AFTER);
    }
    output::emit(&subject, &Count { key, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_falls_quiet() {
        let mut host = testing::Host::new();
        let event = || testing::event("events.a").key("a").data("{}");
        host.deliver(handle, event()).unwrap();
        let second = host.deliver(handle, event()).unwrap();
        assert_eq!(second.emitted[0].data, br#"{"key":"a","count":2}"#);

        let fired = host.fire_until(handle, Time::from_unix_secs(60)).unwrap();
        assert_eq!(fired[0].emitted[0].data, br#"{"key":"a","quiet":true}"#);
    }

    #[test]
    fn rejects_what_is_not_json() {
        let event = testing::event("events.a").key("a").data("no");
        assert!(testing::Host::new().deliver(handle, event).unwrap_err().is_reject());
    }
}
