//! A point of a handler's past: an event of a source, or a time.

use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::log::{Log, Stored};

/// As somebody names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// Up to this event of a source and with it; without a stream, of the only source.
    Event { stream: Option<String>, sequence: u64 },
    /// Up to this time and with it, in Unix nanoseconds.
    Time(u64),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        if let Ok(sequence) = text.parse() {
            return Ok(Point::Event {
                stream: None,
                sequence,
            });
        }
        // Before the other form: a time has colons, too.
        if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
            let nanos = u64::try_from(time.unix_timestamp_nanos());
            return nanos
                .map(Point::Time)
                .map_err(|_| "it must be a time from 1970 to 2554".into());
        }
        let event = text.rsplit_once(':').and_then(|(stream, sequence)| {
            let sequence = sequence.parse().ok()?;
            (!stream.is_empty()).then(|| (stream.to_owned(), sequence))
        });
        match event {
            Some((stream, sequence)) => Ok(Point::Event {
                stream: Some(stream),
                sequence,
            }),
            None => Err(
                "it must be a stream and a sequence (ORDERS:512), a sequence, or a time (2026-01-31T12:00:00Z)".into(),
            ),
        }
    }
}

/// Why there is no such point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("handler {handler} has several sources, and {sequence} may be of any: name one of {}", events(streams, *sequence))]
    WhichSource {
        handler: String,
        sequence: u64,
        streams: Vec<String>,
    },
    #[error("stream {stream} is no source of handler {handler}, which reads {}", streams.join(", "))]
    NoSource {
        handler: String,
        stream: String,
        streams: Vec<String>,
    },
    #[error("stream {stream} ends at sequence {last}: {sequence} has not come yet")]
    NotYet {
        stream: String,
        last: u64,
        sequence: u64,
    },
    #[error(
        "there is no message {sequence} in stream {stream}: it was removed, or never was; name one from {first} to {last}"
    )]
    Gone {
        stream: String,
        sequence: u64,
        first: u64,
        last: u64,
    },
    #[error("that time has not come yet")]
    Future,
}

impl Error {
    /// Whether what was asked for cannot be meant, whatever the streams hold.
    pub fn is_wrong_use(&self) -> bool {
        matches!(
            self,
            Error::WhichSource { .. } | Error::NoSource { .. } | Error::Future
        )
    }
}

fn events(streams: &[String], sequence: u64) -> String {
    let events = streams.iter().map(|stream| format!("{stream}:{sequence}"));
    events.collect::<Vec<_>>().join(", ")
}

/// Up to where each source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Index of the source whose event it is, and that event's sequence.
    pub event: Option<(usize, u64)>,
    /// Unix nanoseconds; of the event, where it is one.
    pub time: u64,
    /// The [turn](super::turns::Turns) of that event; `None`: it is none of the partition's.
    pub turn: Option<usize>,
}

impl Bound {
    /// Whether a message of a source, which has this turn, is at the point or before it.
    pub fn takes(&self, source: usize, stored: &Stored, turn: usize) -> bool {
        match (self.event, self.turn) {
            (Some((of, sequence)), _) if of == source => stored.sequence <= sequence,
            (_, Some(last)) => (turn, stored.time) <= (last, self.time),
            (_, None) => stored.time <= self.time,
        }
    }
}

impl Point {
    /// Where that is in the sources of a handler, which are read from `streams`; with the event, where it is
    /// one. `now` in Unix nanoseconds.
    ///
    /// # Errors
    /// An [`Error`]; of the log.
    pub async fn bound(
        &self,
        log: &dyn Log,
        handler: &str,
        streams: &[String],
        now: u64,
    ) -> anyhow::Result<(Bound, Option<Stored>)> {
        let bound = |event, time| Bound {
            event,
            time,
            turn: None,
        };
        match self {
            Point::Time(time) if *time > now => Err(Error::Future.into()),
            Point::Time(time) => Ok((bound(None, *time), None)),
            Point::Event { stream, sequence } => {
                let source = source(stream.as_deref(), *sequence, handler, streams)?;
                let event = get(log, &streams[source], *sequence).await?;
                Ok((bound(Some((source, *sequence)), event.time), Some(event)))
            }
        }
    }
}

fn source(stream: Option<&str>, sequence: u64, handler: &str, streams: &[String]) -> Result<usize, Error> {
    match (stream, streams) {
        (None, [_]) => Ok(0),
        (None, _) => Err(Error::WhichSource {
            handler: handler.into(),
            sequence,
            streams: streams.to_vec(),
        }),
        (Some(stream), _) => {
            let found = streams.iter().position(|of| of == stream);
            found.ok_or_else(|| Error::NoSource {
                handler: handler.into(),
                stream: stream.into(),
                streams: streams.to_vec(),
            })
        }
    }
}

async fn get(log: &dyn Log, stream: &str, sequence: u64) -> anyhow::Result<Stored> {
    let state = log.stream(stream).await?;
    if sequence > state.last {
        return Err(Error::NotYet {
            stream: stream.into(),
            last: state.last,
            sequence,
        }
        .into());
    }
    let found = log.get(stream, sequence).await?;
    let gone = || Error::Gone {
        stream: stream.into(),
        sequence,
        first: state.first,
        last: state.last,
    };
    Ok(found.ok_or_else(gone)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_point() {
        let event = |stream: Option<&str>, sequence| Point::Event {
            stream: stream.map(String::from),
            sequence,
        };
        for (text, point) in [
            ("17", event(None, 17)),
            ("ORDERS:17", event(Some("ORDERS"), 17)),
            ("1970-01-01T00:00:01Z", Point::Time(1_000_000_000)),
            ("1970-01-01T02:00:00+01:00", Point::Time(3_600_000_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(point), "{text}");
        }
        for wrong in [
            "",
            "ORDERS",
            ":17",
            "ORDERS:",
            "-1",
            "2026-01-01",
            "1969-01-01T00:00:00Z",
            "2999-01-01T00:00:00Z",
        ] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bound_takes_what_it_names_and_all_before() {
        let stored = |sequence, time| Stored {
            subject: "s".into(),
            sequence,
            time,
            headers: Vec::new(),
            data: "".into(),
        };
        let event = Bound {
            event: Some((1, 7)),
            time: 100,
            turn: None,
        };
        let of_partition = Bound {
            turn: Some(3),
            ..event
        };
        let time = Bound { event: None, ..event };
        // Source, sequence, time, turn.
        for (bound, message, taken) in [
            // Of its own source the sequence counts, whatever a clock said; of others the time.
            (event, (1, 7, 100, 3), true),
            (event, (1, 8, 100, 3), false),
            (event, (1, 6, 101, 3), true),
            (event, (0, 99, 100, 9), true),
            (event, (0, 1, 101, 0), false),
            // What was committed before came before, whenever it was stored.
            (of_partition, (0, 1, 101, 2), true),
            (of_partition, (0, 1, 100, 3), true),
            (of_partition, (0, 1, 101, 3), false),
            (of_partition, (0, 1, 99, 4), false),
            (time, (1, 99, 100, 9), true),
            (time, (1, 1, 101, 0), false),
        ] {
            let (source, sequence, time, turn) = message;
            let found = bound.takes(source, &stored(sequence, time), turn);
            assert_eq!(found, taken, "{bound:?} {message:?}");
        }
    }
}
