//! The chain that an event belongs to: which event it began with, and how many handlers
//! it has passed. Carried in headers, from each event to those that it causes, so that a
//! loop of handlers that feed each other ends by itself.

use super::event::{Event, Headers};

/// Names the first event of the chain.
pub const CORRELATION_HEADER: &str = "Weir-Correlation";

/// How many handlers lie between the first event and this one, in decimal.
pub const HOPS_HEADER: &str = "Weir-Hops";

/// Bytes of a correlation that comes from outside; a longer one is not carried on.
pub const CORRELATION_BYTES_MAX: usize = 300;

/// The chain of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Id of the first event, or what its publisher has put into the header.
    pub correlation: String,
    pub hops: u32,
}

impl Trace {
    /// The chain that `event` belongs to. One that says of none begins one.
    pub fn of(event: &Event) -> Trace {
        let given = header(event, CORRELATION_HEADER)
            .filter(|text| !text.is_empty() && text.len() <= CORRELATION_BYTES_MAX);
        Trace {
            correlation: given.map_or_else(|| event.id(), str::to_owned),
            hops: Trace::hops_of(event),
        }
    }

    /// How many handlers the chain of `event` has passed.
    pub fn hops_of(event: &Event) -> u32 {
        let hops = header(event, HOPS_HEADER).and_then(|hops| hops.parse().ok());
        hops.unwrap_or(0)
    }

    /// The chain of an event that is emitted in handling one of this.
    pub fn next(self) -> Trace {
        Trace {
            hops: self.hops.saturating_add(1),
            ..self
        }
    }

    /// The headers that carry it.
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::with_capacity(2);
        self.add_to(&mut headers);
        headers
    }

    /// Adds the headers that carry it.
    pub fn add_to(&self, headers: &mut Headers) {
        headers.push((CORRELATION_HEADER.into(), self.correlation.clone()));
        headers.push((HOPS_HEADER.into(), self.hops.to_string()));
    }

    /// Of the headers of a stored message, those that carry a chain.
    pub fn only(headers: Headers) -> Headers {
        let carries = |name: &str| name == CORRELATION_HEADER || name == HOPS_HEADER;
        headers.into_iter().filter(|(name, _)| carries(name)).collect()
    }
}

fn header<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let found = event.headers.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(headers: &[(&str, &str)]) -> Event {
        Event {
            source: 0,
            stream: "S".into(),
            sequence: 7,
            offset: 7,
            subject: "s".into(),
            key: "k".into(),
            time: 0,
            timer: None,
            headers: headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            data: Bytes::new(),
        }
    }

    #[test]
    fn an_event_begins_a_chain_or_goes_on_with_one() {
        let long = "x".repeat(CORRELATION_BYTES_MAX + 1);
        for (headers, correlation, hops) in [
            (vec![], "S:7", 0),
            (vec![(CORRELATION_HEADER, "order 9")], "order 9", 0),
            (vec![(CORRELATION_HEADER, "S:1"), (HOPS_HEADER, "3")], "S:1", 3),
            (vec![(CORRELATION_HEADER, ""), (HOPS_HEADER, "many")], "S:7", 0),
            (vec![(CORRELATION_HEADER, &long)], "S:7", 0),
        ] {
            let trace = Trace::of(&event(&headers));
            assert_eq!((trace.correlation.as_str(), trace.hops), (correlation, hops));
        }
    }

    #[test]
    fn a_chain_is_read_back_a_hop_further() {
        let trace = Trace::of(&event(&[])).next().next();
        let mut headers = vec![("Other".into(), "x".into())];
        trace.add_to(&mut headers);
        let headers = Trace::only(headers);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(Trace::of(&event(&headers)), trace);
    }
}
