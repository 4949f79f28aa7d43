//! From a stored message to an event with its key and partition. Pure.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;

use serde_json::Value;

use crate::effects::{control, dead_letter};
use crate::log::Stored;
use crate::model::dedupe::id_key;
use crate::model::event::{Event, FiredTimer};
use crate::model::hidden::is_hidden;
use crate::model::key::{KeyFrom, partition};
use crate::model::limits::KEY_BYTES_MAX;
use crate::model::position::Position;
use crate::model::subjects::HandlerNames;
use crate::model::trace::Trace;

/// Header in which the server names the schedule that a message was copied from (ADR-51).
const SCHEDULER_HEADER: &str = "Nats-Scheduler";

/// An event on its way to the handler.
#[derive(Debug, Clone)]
pub struct Queued {
    pub event: Event,
    /// When the message at the event's offset was stored (Unix nanoseconds), for
    /// its position. Not the event's time, which a redriven one keeps.
    pub stored: u64,
    /// The event is no input for the handler; it is dead-lettered with this reason.
    pub refused: Option<String>,
    /// The key under which its business id is remembered, if the handler wants that.
    pub id: Option<Arc<str>>,
    /// It is handled over again, and emits nothing.
    pub quiet: bool,
    /// Invocations that failed so far, in this process.
    pub attempts: u32,
    /// What it takes while it waits, in bytes.
    pub bytes: usize,
}

impl Queued {
    fn new(event: Event, stored: u64, refused: Option<String>) -> Queued {
        let bytes = event.size();
        Queued {
            event,
            stored,
            refused,
            id: None,
            quiet: false,
            attempts: 0,
            bytes,
        }
    }

    /// Moves a position in the event's source to this event: sequence and time
    /// are always those of one message (PROTOCOL rule 6).
    pub fn moves(&self, position: &mut Position) {
        position.sequence = self.event.offset;
        position.stored = self.stored;
    }
}

/// What a message of a source is.
#[derive(Debug)]
pub enum Decoded {
    /// An event, of this partition.
    Event(u32, Queued),
    /// Weir's own, in a ledger that is read as a source: no event for anybody.
    Own,
    /// Meant for this handler by Weir itself, and not readable: nobody will ever
    /// handle it.
    Undecodable(Undecodable),
}

/// A message that is not as Weir writes it.
#[derive(Debug)]
pub struct Undecodable {
    pub subject: Box<str>,
    pub sequence: u64,
    pub reason: String,
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
    /// Token of the subject, counted from 1, that is the partition; `None` where the
    /// key alone decides.
    pub partition_token: Option<usize>,
    /// Where an event's business id is; `None` where it is of no account.
    pub id: Option<KeyFrom>,
    pub names: HandlerNames,
}

impl Decoder {
    /// What is in a message.
    pub fn decode(&self, stored: Stored) -> Decoded {
        match &self.key {
            None => {
                let (subject, sequence) = (stored.subject.clone(), stored.sequence);
                match self.internal(stored) {
                    Ok((partition, queued)) => Decoded::Event(partition, queued),
                    Err(reason) => Decoded::Undecodable(Undecodable {
                        subject,
                        sequence,
                        reason,
                    }),
                }
            }
            // The handler reads the ledger it commits into: records and the like are not events (rule 14).
            Some(_) if stored.subject.starts_with("$WEIR.") => Decoded::Own,
            Some(rule) => {
                let (partition, queued) = self.external(rule, stored);
                Decoded::Event(partition, queued)
            }
        }
    }

    fn external(&self, rule: &KeyFrom, stored: Stored) -> (u32, Queued) {
        let fields = Fields::of(&stored);
        let key = match fields.find(rule, "key") {
            Ok(key) if key.is_empty() => Err(format!("the key is empty ({})", rule.describe())),
            Ok(key) if is_hidden(&key) => Err(format!(
                "the key {key:?} begins with a zero byte; such keys are Weir's own ({})",
                rule.describe()
            )),
            Ok(key) if key.len() > KEY_BYTES_MAX => Err(format!(
                "the key has {} bytes, at most {KEY_BYTES_MAX} are allowed ({})",
                key.len(),
                rule.describe()
            )),
            other => other,
        };
        // Without a key, the subject decides who dead-letters the event.
        let by_key = partition(key.as_deref().unwrap_or(&stored.subject), self.partitions);
        let (mut key, mut refused): (Arc<str>, _) = match key {
            Ok(key) => ((*key).into(), None),
            Err(reason) => ("".into(), Some(reason)),
        };
        let partition = match self.partition_token {
            None => by_key,
            Some(n) => {
                let token = stored.subject.split('.').nth(n - 1).unwrap_or_default();
                let named = token
                    .parse()
                    .ok()
                    .filter(|partition| *partition < self.partitions);
                if refused.is_none() && named != Some(by_key) {
                    refused = Some(format!(
                        "token {n} of the subject is `{token}`, and its key {key:?} is of partition {by_key} of {}: map \
                         subjects with `partition({}, …)` of NATS over the same key",
                        self.partitions, self.partitions
                    ));
                    // Its state is elsewhere; it has no key here.
                    key = "".into();
                }
                named.unwrap_or(by_key)
            }
        };
        let id = match self.id.as_ref().filter(|_| refused.is_none()) {
            None => None,
            Some(rule) => match fields.business_id(rule) {
                Ok(id) => Some(id_key(&id)),
                Err(reason) => {
                    refused = Some(reason);
                    None
                }
            },
        };
        let time = stored.time;
        let event = Event {
            source: self.source,
            stream: self.stream.clone(),
            sequence: stored.sequence,
            offset: stored.sequence,
            subject: stored.subject,
            key,
            time,
            timer: None,
            headers: stored.headers,
            data: stored.data,
        };
        let queued = Queued {
            id,
            ..Queued::new(event, time, refused)
        };
        (partition, queued)
    }

    /// A timer that fired, a control event or a redriven dead letter. Nobody but Weir writes these,
    /// so what is not exactly as Weir writes it is an error.
    fn internal(&self, stored: Stored) -> Result<(u32, Queued), String> {
        let partition = self.internal_partition(&stored.subject)?;
        let time = stored.time;
        let (event, refused, quiet) = if *stored.subject == *self.names.fired(partition) {
            (self.fired(partition, stored)?, None, false)
        } else if let Some(version) = stored.header(control::HEADER) {
            let (key, data) = control::decode(version, &stored.data).map_err(|e| e.to_string())?;
            (self.control(partition, &stored, &key, data)?, None, false)
        } else {
            let (event, quiet) = self.redriven(partition, stored)?;
            let refused = event
                .key
                .is_empty()
                .then(|| "the redriven event has no key".to_string());
            (event, refused, quiet)
        };
        let queued = Queued {
            quiet,
            ..Queued::new(event, time, refused)
        };
        Ok((partition, queued))
    }

    /// The partition that the subject of an internal message ends in.
    fn internal_partition(&self, subject: &str) -> Result<u32, String> {
        let token = subject.rsplit('.').next().unwrap_or_default();
        let partition: u32 = token
            .parse()
            .map_err(|_| format!("its subject ends in `{token}`, which is no partition"))?;
        if partition >= self.partitions {
            return Err(format!(
                "it is for partition {partition}, but the handler has {}",
                self.partitions
            ));
        }
        Ok(partition)
    }

    fn fired(&self, partition: u32, stored: Stored) -> Result<Event, String> {
        let scheduler = stored
            .last_header(SCHEDULER_HEADER)
            .ok_or_else(|| format!("it has no header {SCHEDULER_HEADER}, which names the timer"))?;
        let (key, name, generation) = self
            .names
            .parse_timer(scheduler)
            .ok_or_else(|| format!("its {SCHEDULER_HEADER} `{scheduler}` is no timer of this handler"))?;
        // Weir writes a timer's subject in one way only; so a timer cannot fire
        // into another partition, nor look like one that was redriven.
        if generation == FiredTimer::REDRIVEN
            || self.names.timer(partition, &key, &name, generation) != scheduler
        {
            return Err(format!(
                "its {SCHEDULER_HEADER} `{scheduler}` is no timer of partition {partition}"
            ));
        }
        self.check_key(&key, partition)?;
        Ok(Event {
            source: self.source,
            stream: self.stream.clone(),
            sequence: stored.sequence,
            offset: stored.sequence,
            key: key.into(),
            time: stored.time,
            timer: Some(FiredTimer {
                name: name.into(),
                generation,
            }),
            headers: Trace::only(stored.headers),
            subject: stored.subject,
            data: stored.data,
        })
    }

    fn control(&self, partition: u32, stored: &Stored, key: &str, data: Bytes) -> Result<Event, String> {
        self.check_key(key, partition)?;
        Ok(Event {
            source: self.source,
            stream: self.stream.clone(),
            sequence: stored.sequence,
            offset: stored.sequence,
            subject: control::SUBJECT.into(),
            key: key.into(),
            time: stored.time,
            timer: None,
            headers: Vec::new(),
            data,
        })
    }

    /// The event, and whether it emits nothing.
    fn redriven(&self, partition: u32, stored: Stored) -> Result<(Event, bool), String> {
        let (letter, data) = dead_letter::decode_redriven(&stored.data).map_err(|e| e.to_string())?;
        if !letter.key.is_empty() {
            self.check_key(&letter.key, partition)?;
        }
        let event = Event {
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
        };
        Ok((event, letter.quiet))
    }

    /// A key's state is in one partition only.
    fn check_key(&self, key: &str, partition: u32) -> Result<(), String> {
        let of_key = self::partition(key, self.partitions);
        if of_key != partition {
            return Err(format!(
                "its key {key:?} is of partition {of_key}, not {partition}"
            ));
        }
        Ok(())
    }
}

/// What rules find in a message. Its payload is read as JSON once, and only if a rule needs that.
struct Fields<'a> {
    stored: &'a Stored,
    json: OnceCell<Result<Value, String>>,
}

impl<'a> Fields<'a> {
    fn of(stored: &'a Stored) -> Self {
        Fields {
            stored,
            json: OnceCell::new(),
        }
    }

    /// What a rule finds; `what` it is, for the error.
    fn find(&self, rule: &KeyFrom, what: &str) -> Result<Cow<'a, str>, String> {
        let stored = self.stored;
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
            KeyFrom::Json(pointer) => self.json(pointer, what).map(Cow::Owned),
        }
    }

    fn json(&self, pointer: &str, what: &str) -> Result<String, String> {
        let read = || serde_json::from_slice(&self.stored.data).map_err(|error| error.to_string());
        let value = self.json.get_or_init(read).as_ref();
        let value = value.map_err(|error| {
            format!("the payload is not JSON, which the {what} `{pointer}` needs: {error}")
        })?;
        match value.pointer(pointer) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Bool(truth)) => Ok(truth.to_string()),
            Some(Value::Null) => Err(format!("the payload's `{pointer}` is null, and it is the {what}")),
            Some(_) => Err(format!(
                "the payload's `{pointer}` is not a string, number or boolean"
            )),
            None => Err(format!("the payload has no `{pointer}`, and it is the {what}")),
        }
    }

    /// The id by which a handler knows an event that it has had before.
    fn business_id(&self, rule: &KeyFrom) -> Result<Cow<'a, str>, String> {
        let id = self.find(rule, "business id");
        let id = id.map_err(|reason| format!("[dedupe]: {reason}"))?;
        if id.is_empty() || id.len() > KEY_BYTES_MAX {
            return Err(format!(
                "[dedupe]: the business id ({}) has {} bytes; 1 to {KEY_BYTES_MAX} are allowed",
                rule.describe(),
                id.len()
            ));
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
