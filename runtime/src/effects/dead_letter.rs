//! A dead letter: what is kept of an event that its handler will not take.
//!
//! Two messages of the same batch: the description (this, as JSON) on
//! `$WEIR.<L>.d.<h>.<g>.<p>.<id>.m`, and the original payload on `….b`. Where
//! the payload would not fit beside its batch headers, `body` is
//! [`Body::Reference`] and the bytes stay in the source stream
//! (PROTOCOL rule 13).
//!
//! A **redriven** event is one message on `$WEIR.<L>.r.<h>.<g>.<p>`:
//!
//! ```text
//! 4 bytes   length of the description, big-endian
//! …         the description: the same JSON, its reason empty, no backtrace
//! …         the original payload, wherever the dead letter had it
//! ```
//!
//! Anything else is broken, and [`decode_redriven`] says how.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::log::Stored;
use crate::model::event::Headers;

/// Bytes kept of a reason and of a backtrace: a dead letter must always fit.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Bytes kept of all headers together; the rest are dropped and counted in
/// `headers_dropped`.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's id, `<stream>:<sequence>`; what the commands take.
    pub id: String,
    pub stream: String,
    pub sequence: u64,
    pub subject: String,
    /// Empty where the event has no valid key.
    pub key: String,
    /// Unix time in nanoseconds at which the source stored the event.
    pub time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<String>,
    pub headers: Headers,
    #[serde(default)]
    pub headers_dropped: usize,
    pub handler: String,
    pub handler_version: String,
    pub handler_digest: String,
    pub partition: u32,
    /// Invocations that failed; 0 if the handler was not called.
    pub attempts: u32,
    /// `reject`, `retry`, `trap`, `timeout`, `memory`, `violation`, `unrepeatable` or `input`.
    pub kind: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    pub body: Body,
    /// An earlier generation of the handler has handled the event: redriven, it emits nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
}

/// Where the original bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// On the dead letter's `.b` subject.
    Message,
    /// In the source stream, at `sequence`.
    Reference,
}

/// Why bytes are no redriven event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("a redriven event of {0} bytes ends before its description does")]
    Short(usize),
    #[error("the description of a redriven event: {0}")]
    Description(#[from] serde_json::Error),
}

/// Reads the description of a dead letter.
///
/// # Errors
/// Why it is none.
pub fn read(stored: &Stored) -> Result<DeadLetter, String> {
    serde_json::from_slice(&stored.data)
        .map_err(|error| format!("dead letter {} does not read as one: {error}", stored.subject))
}

/// The message that redrives `letter`, whose payload is given.
pub fn encode_redriven(letter: &DeadLetter, payload: &[u8]) -> Bytes {
    let description = DeadLetter {
        reason: String::new(),
        backtrace: None,
        body: Body::Message,
        ..letter.clone()
    };
    let json = serde_json::to_vec(&description).expect("a dead letter has only strings and numbers");
    let length =
        u32::try_from(json.len()).expect("a description is bounded by TEXT_BYTES_MAX and HEADER_BYTES_MAX");
    let mut message = BytesMut::with_capacity(4 + json.len() + payload.len());
    message.put_u32(length);
    message.put_slice(&json);
    message.put_slice(payload);
    message.freeze()
}

/// Reads what [`encode_redriven`] wrote: the description and the payload.
///
/// # Errors
/// The message was not written by it.
pub fn decode_redriven(message: &Bytes) -> Result<(DeadLetter, Bytes), DecodeError> {
    let short = || DecodeError::Short(message.len());
    let (length, rest) = message.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_be_bytes(*length) as usize;
    let json = rest.get(..length).ok_or_else(short)?;
    let letter = serde_json::from_slice(json)?;
    Ok((letter, message.slice(4 + length..)))
}

/// As much of a reason or a backtrace as is kept.
pub fn bounded_text(mut text: String) -> String {
    const CUT: &str = " … (cut)";
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - CUT.len()));
        text.push_str(CUT);
    }
    text
}

/// As many headers as are kept, and how many were dropped.
pub fn bounded_headers(headers: &Headers) -> (Headers, usize) {
    let mut bytes = 0;
    let kept: Headers = headers
        .iter()
        .take_while(|(name, value)| {
            bytes += name.len() + value.len();
            bytes <= HEADER_BYTES_MAX
        })
        .cloned()
        .collect();
    let dropped = headers.len() - kept.len();
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let text = bounded_text("ü".repeat(TEXT_BYTES_MAX));
        assert!(text.len() <= TEXT_BYTES_MAX && text.ends_with("(cut)"));
        assert_eq!(bounded_text("short".into()), "short");
        let header = |n: usize| (n.to_string(), "x".repeat(HEADER_BYTES_MAX / 2));
        let (kept, dropped) = bounded_headers(&(0..5).map(header).collect());
        assert_eq!((kept.len(), dropped), (1, 4));
    }

    fn letter(body: Body) -> DeadLetter {
        DeadLetter {
            id: "S:7".into(),
            stream: "S".into(),
            sequence: 7,
            subject: "s.ü".into(),
            key: "k".into(),
            time: 1,
            timer: Some("t".into()),
            headers: vec![("A".into(), "b".into())],
            headers_dropped: 1,
            handler: "h".into(),
            handler_version: "1".into(),
            handler_digest: "00".into(),
            partition: 3,
            attempts: 5,
            kind: "trap".into(),
            reason: "unreachable".into(),
            backtrace: Some("at handle".into()),
            body,
            quiet: true,
        }
    }

    #[test]
    fn redriven_events_round_trip_without_what_was_wrong_with_them() {
        let expected = DeadLetter {
            reason: String::new(),
            backtrace: None,
            ..letter(Body::Message)
        };
        for payload in [&b""[..], b"x", &[0xff; 1000]] {
            for body in [Body::Message, Body::Reference] {
                let message = encode_redriven(&letter(body), payload);
                let (read, bytes) = decode_redriven(&message).expect("what was just written");
                assert_eq!((&read, &bytes[..]), (&expected, payload));
            }
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let whole = encode_redriven(&letter(Body::Message), b"");
        for end in 0..whole.len() {
            assert!(decode_redriven(&whole.slice(..end)).is_err(), "{end} bytes");
        }
        assert!(matches!(
            decode_redriven(&Bytes::from_static(b"\0\0\0\x02{}")),
            Err(DecodeError::Description(_))
        ));
        assert!(decode_redriven(&Bytes::from_static(b"\xff\xff\xff\xff{}")).is_err());
    }
}
