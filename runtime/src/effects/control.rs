//! A control event: what an operator tells a handler about one of its keys, such as *try that again*.
//!
//! One message on `$WEIR.<L>.r.<h>.<g>.<p>`, beside [redriven dead letters](super::dead_letter), from which
//! its header [`HEADER`] tells it:
//!
//! ```text
//! {"key":"7","data":{"do":"retry"}}
//! ```
//!
//! The handler gets it as an event of that key, in order with all others, on [`SUBJECT`] and with `data` as
//! its payload. No handler can emit on such a subject, and of sources nothing that begins with `$WEIR.` is
//! delivered: whoever finds it knows that it is from somebody who may write into the ledger.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::log::Append;
use crate::model::key::partition;
use crate::model::subjects::HandlerNames;

/// Subject of the event, as the handler sees it.
pub const SUBJECT: &str = "$WEIR.control";

/// Header of the message; its value is the version of the format.
pub const HEADER: &str = "Weir-Control";

/// The only version there is.
pub const VERSION: &str = "1";

/// Why a message is no control event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("a control event of version {0}, and this host knows version {VERSION}")]
    Version(String),
    #[error("a control event that cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Body {
    key: String,
    data: Value,
}

/// What is to be done, as the handler reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Control {
    /// Try again what did not succeed.
    Retry,
    /// Give up, and undo what was done.
    Compensate,
}

/// The message that tells the handler of `names`, which has so many partitions, about `key`.
pub fn encode(names: &HandlerNames, partitions: u32, key: &str, control: Control) -> Append {
    let body = Body {
        key: key.into(),
        data: serde_json::to_value(control).expect("an enum without fields is JSON"),
    };
    Append {
        subject: names.redriven(partition(key, partitions)),
        headers: vec![(HEADER.into(), VERSION.into())],
        data: serde_json::to_vec(&body).expect("text and JSON are JSON").into(),
        ..Append::default()
    }
}

/// The key and the payload of a message with that header, whose value is given.
///
/// # Errors
/// [`encode`] of no version that is known has written it.
pub fn decode(version: &str, message: &Bytes) -> Result<(String, Bytes), DecodeError> {
    if version != VERSION {
        return Err(DecodeError::Version(version.into()));
    }
    let body: Body = serde_json::from_slice(message)?;
    Ok((body.key, body.data.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_back() {
        let names = HandlerNames::new("L", "h", 2);
        for key in ["7", "a \"b\"\n", "ü"] {
            let message = encode(&names, 8, key, Control::Retry);
            assert_eq!(message.subject, names.redriven(partition(key, 8)));
            let (read, data) = decode(VERSION, &message.data).expect("what was just written");
            assert_eq!((read.as_str(), &data[..]), (key, &br#"{"do":"retry"}"#[..]));
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let later = decode("2", &Bytes::from_static(b"{}")).unwrap_err();
        assert_eq!(
            later.to_string(),
            "a control event of version 2, and this host knows version 1"
        );
        for bad in [&b""[..], b"{}", b"{\"key\":7,\"data\":1}", b"\xff"] {
            assert!(matches!(
                decode(VERSION, &Bytes::copy_from_slice(bad)),
                Err(DecodeError::Body(_))
            ));
        }
    }
}
