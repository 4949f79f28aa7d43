//! From a stored message to an event with its key and partition. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use crate::effects::dead_letter;
use crate::log::Stored;
use crate::model::event::{Event, FiredTimer};
use crate::model::key::{KeyFrom, partition};
use crate::model::limits::KEY_BYTES_MAX;
use crate::model::subjects::HandlerNames;

/// Header in which the server names the schedule that a message was copied from (ADR-51).
const SCHEDULER_HEADER: &str = "Nats-Scheduler";

/// An event on its way to the handler.
#[derive(Debug, Clone)]
pub struct Queued {
    pub event: Event,
    /// The event is no input for the handler; it is dead-lettered with this reason.
    pub refused: Option<String>,
    /// Invocations that failed so far, in this process.
    pub attempts: u32,
    /// What it takes while it waits, in bytes.
    pub bytes: usize,
}

impl Queued {
    fn new(event: Event, refused: Option<String>) -> Queued {
        let bytes = event.size();
        Queued {
            event,
            refused,
            attempts: 0,
            bytes,
        }
    }
}

/// Decodes the messages of one source of one handler.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Index of the source.
    pub source: u16,
    pub stream: Arc<str>,
    /// `None` for the internal source.
    pub key: Option<KeyFrom>,
    pub partitions: u32,
    pub names: HandlerNames,
}

impl Decoder {
    /// The event in a message and its partition; `None` if the message is
    /// Weir's own and means nothing to this handler.
    pub fn decode(&self, stored: Stored) -> Option<(u32, Queued)> {
        match &self.key {
            None => self.internal(stored),
            // The handler reads the ledger it commits into: records and the like are not events (rule 14).
            Some(_) if stored.subject.starts_with("$WEIR.") => None,
            Some(rule) => Some(self.external(rule, stored)),
        }
    }

    fn external(&self, rule: &KeyFrom, stored: Stored) -> (u32, Queued) {
        let key = match key(rule, &stored) {
            Ok(key) if key.is_empty() => Err(format!("the key is empty ({})", rule.describe())),
            Ok(key) if key.len() > KEY_BYTES_MAX => Err(format!(
                "the key has {} bytes, at most {KEY_BYTES_MAX} are allowed ({})",
                key.len(),
                rule.describe()
            )),
            other => other,
        };
        // Without a key, the subject decides who dead-letters the event.
        let partition = partition(key.as_deref().unwrap_or(&stored.subject), self.partitions);
        let (key, refused): (Arc<str>, _) = match key {
            Ok(key) => ((*key).into(), None),
            Err(reason) => ("".into(), Some(reason)),
        };
        let event = Event {
            source: self.source,
            stream: self.stream.clone(),
            sequence: stored.sequence,
            offset: stored.sequence,
            subject: stored.subject,
            key,
            time: stored.time,
            timer: None,
            headers: stored.headers,
            data: stored.data,
        };
        (partition, Queued::new(event, refused))
    }

    fn internal(&self, stored: Stored) -> Option<(u32, Queued)> {
        let partition: u32 = stored.subject.rsplit('.').next()?.parse().ok()?;
        let event = if *stored.subject == *self.names.fired(partition) {
            let (key, name, generation) = self.names.parse_timer(stored.header(SCHEDULER_HEADER)?)?;
            Event {
                source: self.source,
                stream: self.stream.clone(),
                sequence: stored.sequence,
                offset: stored.sequence,
                subject: stored.subject,
                key: key.into(),
                time: stored.time,
                timer: Some(FiredTimer {
                    name: name.into(),
                    generation,
                }),
                headers: Vec::new(),
                data: stored.data,
            }
        } else {
            let (letter, data) = dead_letter::decode_redriven(&stored.data).ok()?;
            Event {
                source: self.source,
                stream: letter.stream.into(),
                sequence: letter.sequence,
                offset: stored.sequence,
                subject: letter.subject.into(),
                key: letter.key.into(),
                time: letter.time,
                timer: letter.timer.map(|name| FiredTimer {
                    name: name.into(),
                    generation: FiredTimer::REDRIVEN,
                }),
                headers: letter.headers,
                data,
            }
        };
        let refused = event
            .key
            .is_empty()
            .then(|| "the redriven event has no key".to_string());
        (partition < self.partitions).then(|| (partition, Queued::new(event, refused)))
    }
}

fn key<'a>(rule: &KeyFrom, stored: &'a Stored) -> Result<Cow<'a, str>, String> {
    match rule {
        KeyFrom::Subject => Ok(Cow::Borrowed(&stored.subject)),
        KeyFrom::Header(name) => stored
            .header(name)
            .map(Cow::Borrowed)
            .ok_or_else(|| format!("the event has no header `{name}`")),
        KeyFrom::SubjectToken(n) => stored
            .subject
            .split('.')
            .nth(n - 1)
            .map(Cow::Borrowed)
            .ok_or_else(|| format!("the subject {} has no token {n}", stored.subject)),
        KeyFrom::Json(pointer) => {
            let value: serde_json::Value = serde_json::from_slice(&stored.data)
                .map_err(|e| format!("the payload is not JSON, which the key `{pointer}` needs: {e}"))?;
            match value.pointer(pointer) {
                Some(serde_json::Value::String(text)) => Ok(Cow::Owned(text.clone())),
                Some(serde_json::Value::Number(number)) => Ok(Cow::Owned(number.to_string())),
                Some(serde_json::Value::Bool(truth)) => Ok(Cow::Owned(truth.to_string())),
                Some(serde_json::Value::Null) => {
                    Err(format!("the payload's `{pointer}` is null, and it is the key"))
                }
                Some(_) => Err(format!(
                    "the payload's `{pointer}` is not a string, number or boolean"
                )),
                None => Err(format!("the payload has no `{pointer}`, and it is the key")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(key: Option<KeyFrom>) -> Decoder {
        Decoder {
            source: 0,
            stream: "S".into(),
            key,
            partitions: 4,
            names: HandlerNames::new("L", "h", 1),
        }
    }

    fn stored(subject: &str, headers: &[(&str, &str)], data: &str) -> Stored {
        Stored {
            subject: subject.into(),
            sequence: 5,
            time: 6,
            headers: headers
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
            data: data.to_string().into(),
        }
    }

    #[test]
    fn keys_and_why_there_is_none() {
        let json = |p: &str| KeyFrom::Json(p.into());
        let long = format!(r#"{{"t":"{}"}}"#, "x".repeat(257));
        for (rule, data, expected) in [
            (KeyFrom::Subject, "", Ok("a.b")),
            (KeyFrom::SubjectToken(2), "", Ok("b")),
            (KeyFrom::SubjectToken(3), "", Err("has no token 3")),
            (KeyFrom::Header("H".into()), "", Ok("v")),
            (KeyFrom::Header("X".into()), "", Err("no header `X`")),
            (json("/t"), r#"{"t":"k"}"#, Ok("k")),
            (json("/t"), r#"{"t":7}"#, Ok("7")),
            (json("/t"), r#"{"t":null}"#, Err("is null")),
            (json("/t"), r#"{"t":[]}"#, Err("not a string")),
            (json("/t"), "{}", Err("has no `/t`")),
            (json("/t"), "no", Err("not JSON")),
            (json("/t"), r#"{"t":""}"#, Err("empty")),
            (json("/t"), &long, Err("257 bytes")),
        ] {
            let (_, queued) = decoder(Some(rule))
                .decode(stored("a.b", &[("H", "v")], data))
                .unwrap();
            match (expected, queued.refused) {
                (Ok(key), None) => assert_eq!(&*queued.event.key, key),
                (Err(part), Some(reason)) => assert!(reason.contains(part), "{reason}"),
                (expected, refused) => panic!("{data}: expected {expected:?}, got {refused:?}"),
            }
        }
    }

    #[test]
    fn the_ledgers_own_messages_are_no_events() {
        assert!(
            decoder(Some(KeyFrom::Subject))
                .decode(stored("$WEIR.L.c.h.1.0", &[], ""))
                .is_none()
        );
    }

    #[test]
    fn a_fired_timer_names_its_key_and_generation() {
        let timer = HandlerNames::new("L", "h", 1).timer(3, "k", "t", 9);
        let (partition, queued) = decoder(None)
            .decode(stored("$WEIR.L.f.h.1.3", &[(SCHEDULER_HEADER, &timer)], "x"))
            .unwrap();
        assert_eq!((partition, &*queued.event.key), (3, "k"));
        assert_eq!(
            queued.event.timer,
            Some(FiredTimer {
                name: "t".into(),
                generation: 9
            })
        );
        let of_another_generation = HandlerNames::new("L", "h", 2).timer(3, "k", "t", 9);
        let other = stored(
            "$WEIR.L.f.h.1.3",
            &[(SCHEDULER_HEADER, &of_another_generation)],
            "x",
        );
        assert!(decoder(None).decode(other).is_none());
    }
}
