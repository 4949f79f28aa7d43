//! What a handler may do, checked at the moment it does it: each rule is a pure
//! function of its input, and [`Tally`] counts what the rules about totals need.
//!
//! A check fails with a [`Violation`], whose sentence names the subject, cell or
//! timer and the sizes: it ends up in the event's dead letter, where it is all
//! that the handler's author sees.
//!
//! Sizes are counted so that whatever passes can be committed: every message
//! with the headers that its batch adds, and all cells of one event beside what
//! a commit record carries anyway, because an event is never split over records.

use crate::model::hidden::is_hidden;
use crate::model::limits::{
    BATCH_HEADER_BYTES, CELLS_PER_KEY_MAX, EFFECT_MESSAGES_MAX, EMIT_OVERHEAD_BYTES, KEY_BYTES_MAX,
    NAME_BYTES_MAX, TIMER_OVERHEAD_BYTES,
};
use crate::model::pattern::matches_any;

/// Bytes of a subject that a handler emits to.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// Bytes of the headers of one message as they are sent. The server takes 64 KiB
/// in a batch, and those that the batch and Weir add are among them.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024 - EMIT_OVERHEAD_BYTES;

/// Live timers of one key. They are all written into each commit record that
/// changes one of them.
pub const TIMERS_PER_KEY_MAX: usize = 256;

/// Bytes of a commit record that are not cells of the event: positions, the
/// partition's clock, the key and its live timers.
pub const RECORD_SLACK_BYTES: usize = 64 * 1024;

/// Bytes that a live timer takes in a record beside its name.
const LIVE_TIMER_BYTES: usize = 32;

const _: () = assert!(
    KEY_BYTES_MAX + TIMERS_PER_KEY_MAX * (NAME_BYTES_MAX + LIVE_TIMER_BYTES) < RECORD_SLACK_BYTES * 3 / 4
);

/// Latest moment that a timer can be due, in Unix nanoseconds: the server keeps
/// times in 64 bits with a sign, and a later one would be long past to it.
pub const TIMER_DUE_MAX: u64 = i64::MAX as u64;

/// Why effects were refused. Not retried: the same event would do the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("emit to {subject:?}: {reason}")]
    Subject { subject: String, reason: &'static str },
    #[error(
        "emit to {subject:?}: not among the subjects that the manifest allows ({allowed}); add it to [emit] in handler.toml"
    )]
    NotAllowed { subject: String, allowed: String },
    #[error(
        "emit to {subject:?}: not a subject of the ledger ({ledger}), so it could not be committed with the rest; add it to the ledger's subjects"
    )]
    NotInLedger { subject: String, ledger: String },
    #[error("emit to {subject:?}: header {header:?} {reason}")]
    Header {
        subject: String,
        header: String,
        reason: &'static str,
    },
    #[error("emit to {subject:?}: {bytes} bytes of headers, the limit is {HEADERS_BYTES_MAX}")]
    Headers { subject: String, bytes: usize },
    #[error("emit to {subject:?}: {bytes} bytes with its headers, the server's max_payload allows {max}")]
    Message {
        subject: String,
        bytes: usize,
        max: usize,
    },
    #[error("the name of {what} {name:?} is {bytes} bytes long, the limit is {NAME_BYTES_MAX}")]
    Name {
        what: &'static str,
        name: String,
        bytes: usize,
    },
    #[error("the name of {what} {name:?} begins with a zero byte; such names are Weir's own")]
    Hidden { what: &'static str, name: String },
    #[error("{what} {name:?}: {bytes} bytes, the server's max_payload allows {max}")]
    Value {
        what: &'static str,
        name: String,
        bytes: usize,
        max: usize,
    },
    #[error(
        "the cells that this event changes are {bytes} bytes together, the server's max_payload allows {max} in one commit record"
    )]
    Record { bytes: usize, max: usize },
    #[error("more than {EFFECT_MESSAGES_MAX} emitted events and timers from one event")]
    Messages,
    #[error("more than {} shared cells and locks in one event", crate::shared::USES_MAX)]
    SharedUses,
    #[error("with cell {name:?} the key would have {count} cells, the limit is {CELLS_PER_KEY_MAX}")]
    Cells { name: String, count: usize },
    #[error("with timer {name:?} the key would have {count} timers, the limit is {TIMERS_PER_KEY_MAX}")]
    Timers { name: String, count: usize },
    #[error(
        "timer {name:?} is due at {due}, beyond {TIMER_DUE_MAX} (Unix nanoseconds; the year 2262), which is as far as \
         the server counts"
    )]
    Due { name: String, due: u64 },
    #[error(
        "effects of {bytes} bytes, the handler's limit is {max} (effects_bytes in [limits] of handler.toml)"
    )]
    Effects { bytes: usize, max: usize },
    #[error("more than {max} bytes logged by one invocation (log_bytes in [limits] of handler.toml)")]
    Log { max: usize },
    #[error("asked for {bytes} random bytes at once, the limit is {max}")]
    Random { bytes: u64, max: u64 },
}

/// A subject that an event can be published to: tokens that are not empty, no
/// wildcards, nothing invisible, and not one of the system's.
pub fn subject(subject: &str) -> Result<(), Violation> {
    let reason = if subject.is_empty() {
        "an empty subject"
    } else if subject.len() > SUBJECT_BYTES_MAX {
        return Err(Violation::Subject {
            subject: excerpt(subject),
            reason: "longer than 255 bytes",
        });
    } else if subject.starts_with('$') {
        "subjects that begin with $ belong to NATS and to Weir"
    } else if subject.split('.').any(str::is_empty) {
        "it has an empty token"
    } else if subject.contains(['*', '>']) {
        "wildcards cannot be published to"
    } else if subject.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "it contains white space or a control character"
    } else {
        return Ok(());
    };
    Err(Violation::Subject {
        subject: subject.into(),
        reason,
    })
}

const _: () = assert!(SUBJECT_BYTES_MAX == 255, "named in a message above");

/// The subject is in the manifest's allowlist and in the ledger.
pub fn allowed(subject: &str, emit: &[String], ledger: &[String]) -> Result<(), Violation> {
    let list = |patterns: &[String]| match patterns {
        [] => "none".to_owned(),
        patterns => patterns.join(", "),
    };
    if !matches_any(emit, subject) {
        return Err(Violation::NotAllowed {
            subject: subject.into(),
            allowed: list(emit),
        });
    }
    if !matches_any(ledger, subject) {
        return Err(Violation::NotInLedger {
            subject: subject.into(),
            ledger: list(ledger),
        });
    }
    Ok(())
}

/// Checks the headers of an event emitted to `subject`, and returns their bytes
/// as they are sent.
pub fn headers(subject: &str, headers: &[(String, String)]) -> Result<usize, Violation> {
    const VERSION_BYTES: usize = "NATS/1.0\r\n\r\n".len();
    const PER_HEADER_BYTES: usize = ": \r\n".len();
    if headers.is_empty() {
        return Ok(0);
    }
    let mut bytes = VERSION_BYTES;
    for (name, value) in headers {
        let reserved = |prefix: &str| {
            name.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let reason = if name.is_empty() {
            Some("has an empty name")
        } else if !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            Some("has a name with a character that headers cannot have (visible ASCII without ':' only)")
        } else if reserved("Nats-") || reserved("Weir-") {
            Some("begins with a prefix that belongs to the server or to Weir")
        } else if value.contains(['\r', '\n', '\0']) {
            Some("has a value with a line break or a zero byte")
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(Violation::Header {
                subject: subject.into(),
                header: excerpt(name),
                reason,
            });
        }
        bytes += name.len() + value.len() + PER_HEADER_BYTES;
    }
    header_bytes(subject, bytes)?;
    Ok(bytes)
}

/// That many bytes of headers fit one message.
pub fn header_bytes(subject: &str, bytes: usize) -> Result<(), Violation> {
    if bytes > HEADERS_BYTES_MAX {
        return Err(Violation::Headers {
            subject: subject.into(),
            bytes,
        });
    }
    Ok(())
}

/// The name of a cell or a timer (`what`) fits the subjects it becomes part of.
pub fn name(what: &'static str, name: &str) -> Result<(), Violation> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Violation::Name {
            what,
            name: excerpt(name),
            bytes: name.len(),
        });
    }
    if is_hidden(name) {
        return Err(Violation::Hidden {
            what,
            name: name.into(),
        });
    }
    Ok(())
}

/// One event of a batch fits `max_payload`, with all that is added to it.
pub fn message(subject: &str, header_bytes: usize, data: usize, max_payload: usize) -> Result<(), Violation> {
    let bytes = header_bytes.saturating_add(data);
    let max = max_payload.saturating_sub(EMIT_OVERHEAD_BYTES);
    if bytes > max {
        return Err(Violation::Message {
            subject: subject.into(),
            bytes,
            max,
        });
    }
    Ok(())
}

/// The value of a cell or of a timer (`what`) fits a message of its own.
pub fn value(what: &'static str, name: &str, bytes: usize, max_payload: usize) -> Result<(), Violation> {
    let max = max_payload.saturating_sub(TIMER_OVERHEAD_BYTES);
    if bytes > max {
        return Err(Violation::Value {
            what,
            name: name.into(),
            bytes,
            max,
        });
    }
    Ok(())
}

/// A timer named `name` can be due then (Unix nanoseconds). What is past fires at once.
pub fn due(name: &str, due: u64) -> Result<(), Violation> {
    if due > TIMER_DUE_MAX {
        return Err(Violation::Due {
            name: name.into(),
            due,
        });
    }
    Ok(())
}

/// What the effects of one invocation come to so far. What is replaced by a later
/// call counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Emitted events and timers, cancelled ones among them: messages of the batch.
    pub messages: usize,
    /// Bytes of all cells written, names and values.
    pub cell_bytes: usize,
    /// Bytes of everything else.
    pub other_bytes: usize,
}

impl Tally {
    /// The totals are within the limits. `effects_bytes` is the manifest's.
    pub fn check(&self, effects_bytes: usize, max_payload: usize) -> Result<(), Violation> {
        if self.messages > EFFECT_MESSAGES_MAX {
            return Err(Violation::Messages);
        }
        let bytes = self.cell_bytes.saturating_add(self.other_bytes);
        if bytes > effects_bytes {
            return Err(Violation::Effects {
                bytes,
                max: effects_bytes,
            });
        }
        let max = max_payload.saturating_sub(BATCH_HEADER_BYTES + RECORD_SLACK_BYTES);
        if self.cell_bytes > max {
            return Err(Violation::Record {
                bytes: self.cell_bytes,
                max,
            });
        }
        Ok(())
    }
}

/// A key that has `count` cells after `name` was written is not too wide.
pub fn cells(name: &str, count: usize) -> Result<(), Violation> {
    if count > CELLS_PER_KEY_MAX {
        return Err(Violation::Cells {
            name: name.into(),
            count,
        });
    }
    Ok(())
}

/// An event uses not too many shared cells and locks.
pub fn shared(count: usize) -> Result<(), Violation> {
    if count > crate::shared::USES_MAX {
        return Err(Violation::SharedUses);
    }
    Ok(())
}

/// A key that has `count` live timers after `name` was set has not too many.
pub fn timers(name: &str, count: usize) -> Result<(), Violation> {
    if count > TIMERS_PER_KEY_MAX {
        return Err(Violation::Timers {
            name: name.into(),
            count,
        });
    }
    Ok(())
}

/// The beginning of a text that may be of any length.
fn excerpt(text: &str) -> String {
    const EXCERPT_BYTES: usize = 80;
    if text.len() <= EXCERPT_BYTES {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(EXCERPT_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|p| (*p).to_owned()).collect()
    }

    #[test]
    fn subjects() {
        for good in ["a", "a.b", "stats.carrier.UA", "ü.日本", "a-b_c=41.%20", "a.$b"] {
            assert_eq!(subject(good), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        for (bad, reason) in [
            ("", "empty subject"),
            (".", "empty token"),
            ("a.", "empty token"),
            (".a", "empty token"),
            ("a..b", "empty token"),
            ("a.*", "wildcards"),
            ("a.>", "wildcards"),
            ("a*b", "wildcards"),
            ("a b", "white space"),
            ("a\tb", "white space"),
            ("a\r\nPUB x", "white space"),
            ("a\u{0}", "control"),
            ("a\u{a0}b", "white space"),
            ("$JS.API.STREAM.DELETE.X", "begin with $"),
            ("$", "begin with $"),
            (long.as_str(), "255 bytes"),
        ] {
            let sentence = subject(bad).expect_err(bad).to_string();
            assert!(sentence.contains(reason), "{bad:?}: {sentence}");
        }
        assert_eq!(subject(&"x".repeat(255)), Ok(()));
    }

    #[test]
    fn both_lists_must_cover_a_subject() {
        let emit = list(&["stats.>", "alerts.*"]);
        let ledger = list(&["stats.carrier.>", "alerts.>"]);
        assert_eq!(allowed("stats.carrier.UA", &emit, &ledger), Ok(()));
        assert_eq!(allowed("alerts.delay", &emit, &ledger), Ok(()));
        let sentence = allowed("alerts.delay.x", &emit, &ledger).unwrap_err().to_string();
        assert!(
            sentence.contains("\"alerts.delay.x\"") && sentence.contains("stats.>, alerts.*"),
            "{sentence}"
        );
        let sentence = allowed("stats.other", &emit, &ledger).unwrap_err().to_string();
        assert!(sentence.contains("not a subject of the ledger"), "{sentence}");
        let sentence = allowed("a", &[], &ledger).unwrap_err().to_string();
        assert!(sentence.contains("(none)"), "{sentence}");
    }

    #[test]
    fn header_names_and_values() {
        let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(headers("s", &[]), Ok(0));
        assert_eq!(headers("s", &one("A", "b")), Ok("NATS/1.0\r\nA: b\r\n\r\n".len()));
        assert!(headers("s", &one("X-Nats-Id", "ü")).is_ok());
        for (name, value) in [
            ("", "v"),
            ("a:b", "v"),
            ("a b", "v"),
            ("a\r\nb", "v"),
            ("ü", "v"),
            ("Nats-Msg-Id", "v"),
            ("nats-expected-last-sequence", "v"),
            ("WEIR-Key", "v"),
            ("ok", "a\r\nNats-Rollup: all"),
            ("ok", "a\nb"),
            ("ok", "\0"),
        ] {
            assert!(
                matches!(headers("s", &one(name, value)), Err(Violation::Header { .. })),
                "{name:?} {value:?}"
            );
        }
        let fits = HEADERS_BYTES_MAX - "NATS/1.0\r\nA: \r\n\r\n".len();
        assert_eq!(headers("s", &one("A", &"x".repeat(fits))), Ok(HEADERS_BYTES_MAX));
        assert!(matches!(
            headers("s", &one("A", &"x".repeat(fits + 1))),
            Err(Violation::Headers { .. })
        ));
    }

    #[test]
    fn sizes_at_their_edges() {
        let max = 10_000;
        assert_eq!(message("s", 100, max - EMIT_OVERHEAD_BYTES - 100, max), Ok(()));
        assert!(message("s", 100, max - EMIT_OVERHEAD_BYTES - 99, max).is_err());
        assert!(message("s", usize::MAX, 1, max).is_err());
        assert_eq!(value("cell", "c", max - TIMER_OVERHEAD_BYTES, max), Ok(()));
        assert!(value("cell", "c", max - TIMER_OVERHEAD_BYTES + 1, max).is_err());
        assert_eq!(name("cell", &"n".repeat(NAME_BYTES_MAX)), Ok(()));
        assert!(name("timer", &"ü".repeat(NAME_BYTES_MAX)).is_err());
        assert!(name("cell", "\0version").is_err());
        assert_eq!((due("t", 0), due("t", TIMER_DUE_MAX)), (Ok(()), Ok(())));
        for far in [TIMER_DUE_MAX + 1, u64::MAX] {
            let sentence = due("t", far).expect_err("too far").to_string();
            assert!(
                sentence.contains(&format!("timer \"t\" is due at {far}")),
                "{sentence}"
            );
        }
        assert_eq!(cells("c", CELLS_PER_KEY_MAX), Ok(()));
        assert!(cells("c", CELLS_PER_KEY_MAX + 1).is_err());
        assert_eq!(timers("t", TIMERS_PER_KEY_MAX), Ok(()));
        assert!(timers("t", TIMERS_PER_KEY_MAX + 1).is_err());
    }

    #[test]
    fn totals_at_their_edges() {
        let tally = |messages, cell_bytes, other_bytes| Tally {
            messages,
            cell_bytes,
            other_bytes,
        };
        let payload = 1 << 20;
        assert_eq!(tally(EFFECT_MESSAGES_MAX, 50, 50).check(100, payload), Ok(()));
        assert_eq!(
            tally(EFFECT_MESSAGES_MAX + 1, 0, 0).check(100, payload),
            Err(Violation::Messages)
        );
        assert_eq!(
            tally(0, 50, 51).check(100, payload),
            Err(Violation::Effects { bytes: 101, max: 100 })
        );
        let max = payload - BATCH_HEADER_BYTES - RECORD_SLACK_BYTES;
        assert_eq!(tally(0, max, 0).check(usize::MAX, payload), Ok(()));
        assert_eq!(
            tally(0, max + 1, 0).check(usize::MAX, payload),
            Err(Violation::Record { bytes: max + 1, max })
        );
        assert!(tally(0, usize::MAX, 1).check(100, payload).is_err());
    }
}
