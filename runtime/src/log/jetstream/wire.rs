//! Turning the server's messages into [`Stored`].
//!
//! `async-nats` keeps headers in a hash map, in a different order each time. A
//! handler must see the same event at every execution (DESIGN, "Determinism"),
//! so headers are sorted by name here; values of one name keep their order.

use async_nats::{HeaderMap, Message};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::{Error, Stored};
use super::malformed;
use crate::model::event::Headers;

/// Headers that a direct get adds to those of the message.
const DIRECT_GET_HEADERS: [&str; 7] = [
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
    "Nats-UpTo-Sequence",
];

/// Headers in an order that does not change.
pub(super) fn headers(map: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len());
    for (name, values) in map.iter() {
        let name: &str = name.as_ref();
        headers.extend(values.iter().map(|v| (name.to_owned(), v.as_str().to_owned())));
    }
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// Number in a header that the server adds, after those of the message.
pub(super) fn number(map: &HeaderMap, name: &str) -> Option<u64> {
    map.get_last(name)?.as_str().parse().ok()
}

/// A message as a direct get answers it.
pub(super) fn from_direct_get(message: Message) -> Result<Stored, Error> {
    let missing = || malformed("a direct get", "a message without its sequence, subject or time");
    let map = message.headers.as_ref().ok_or_else(missing)?;
    let subject = map.get_last("Nats-Subject").ok_or_else(missing)?;
    let time = map.get_last("Nats-Time-Stamp").ok_or_else(missing)?;
    let mut headers = headers(map);
    headers.retain(|(name, _)| !DIRECT_GET_HEADERS.contains(&name.as_str()));
    Ok(Stored {
        subject: subject.as_str().into(),
        sequence: number(map, "Nats-Sequence").ok_or_else(missing)?,
        time: unix_nanos(time.as_str())?,
        headers,
        data: message.payload,
    })
}

/// Unix nanoseconds of an RFC 3339 time, as the server writes them.
pub(super) fn unix_nanos(text: &str) -> Result<u64, Error> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| malformed("a time", format!("`{text}`: {error}")))?;
    nanos(time)
}

pub(super) fn nanos(time: OffsetDateTime) -> Result<u64, Error> {
    u64::try_from(time.unix_timestamp_nanos())
        .map_err(|_| malformed("a time", format!("{time} is before 1970")))
}

/// RFC 3339 of Unix nanoseconds.
pub(super) fn rfc3339(nanos: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(nanos.into())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .expect("u64 nanoseconds end in the year 2554, which RFC 3339 can write")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        for time in [0, 1, 1_785_000_000_123_456_789, u64::MAX] {
            assert_eq!(unix_nanos(&rfc3339(time)), Ok(time));
        }
        assert!(unix_nanos("yesterday").is_err());
        assert!(unix_nanos("1960-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn headers_are_sorted_and_keep_the_order_of_values() {
        let mut map = HeaderMap::new();
        map.append("b", "2");
        map.append("a", "z");
        map.append("a", "y");
        let expected: Headers = [("a", "z"), ("a", "y"), ("b", "2")]
            .map(|(n, v)| (n.into(), v.into()))
            .into();
        assert_eq!(headers(&map), expected);
    }
}
