//! What one event, or one timer that fired, came to: read from the batch that
//! commits it, so that what is shown is what becomes visible.

use bytes::Bytes;
use tracing::Level;

use crate::commit::group::{BY_HEADER, CAUSE_HEADER, TO_HEADER, TO_STREAM_HEADER};
use crate::commit::record::KeyDelta;
use crate::effects::dead_letter::DeadLetter;
use crate::handler::Asked;
use crate::log::Append;
use crate::model::event::{Event, Headers};
use crate::model::subjects::HandlerNames;
use crate::model::trace::{CORRELATION_HEADER, HOPS_HEADER};
use crate::state::KeyState;

/// All that is shown of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// `<stream>:<sequence>`.
    pub id: String,
    pub subject: String,
    /// Empty where the event has no valid key.
    pub key: String,
    /// Unix nanoseconds.
    pub time: u64,
    /// The timer's name, where this is one that fired.
    pub timer: Option<String>,
    /// What the handler logged in its last attempt.
    pub log: Vec<(Level, String)>,
    /// Attempts that failed and were followed by another.
    pub attempts: Vec<Attempt>,
    /// What it asked the outside world in its last attempt, in that order.
    pub requests: Vec<Asked>,
    /// In the order of the calls.
    pub emits: Vec<Emitted>,
    /// In the order of their names.
    pub cells: Vec<CellChange>,
    /// In the order of their names.
    pub timers: Vec<TimerChange>,
    pub dead_letter: Option<DeadLetter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub reason: String,
    /// How long a host would wait before the next one, in milliseconds.
    pub backoff_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub subject: String,
    /// Those that the handler gave it.
    pub headers: Headers,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellChange {
    pub name: String,
    pub before: Option<Bytes>,
    /// `None`: deleted.
    pub after: Option<Bytes>,
}

/// What Weir adds to the headers of each emitted event.
const OWN_HEADERS: [&str; 6] = [
    CAUSE_HEADER,
    BY_HEADER,
    CORRELATION_HEADER,
    HOPS_HEADER,
    TO_HEADER,
    TO_STREAM_HEADER,
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerChange {
    pub name: String,
    /// When it is due, in Unix nanoseconds, and what it carries; `None`: cancelled.
    pub set: Option<(u64, Bytes)>,
}

/// How the handler came to its effects.
#[derive(Debug, Default)]
pub struct Course {
    pub log: Vec<(Level, String)>,
    pub attempts: Vec<Attempt>,
    pub requests: Vec<Asked>,
}

impl Outcome {
    /// Reads what a group of one event is about to commit. `before` is the state
    /// of its key until then.
    pub fn read(
        names: &HandlerNames,
        partition: u32,
        event: &Event,
        before: &KeyState,
        (messages, keys): (&[Append], &[KeyDelta]),
        course: Course,
    ) -> Outcome {
        let mut outcome = Outcome {
            id: event.id(),
            subject: event.subject.to_string(),
            key: event.key.to_string(),
            time: event.time,
            timer: event.timer.as_ref().map(|timer| timer.name.to_string()),
            log: course.log,
            attempts: course.attempts,
            requests: course.requests,
            emits: Vec::new(),
            cells: Vec::new(),
            timers: Vec::new(),
            dead_letter: None,
        };
        for message in messages {
            outcome.message(names, partition, message);
        }
        for delta in keys.iter().filter(|delta| delta.key == event.key) {
            outcome.cells.extend(delta.cells.iter().map(|change| CellChange {
                name: change.cell.to_string(),
                before: before.cells.get(&change.cell).cloned(),
                after: change.value.as_ref().map(|value| value.0.clone()),
            }));
        }
        outcome
    }

    fn message(&mut self, names: &HandlerNames, partition: u32, message: &Append) {
        if let Some((_, name, _)) = names.parse_timer(&message.subject) {
            let set = message
                .schedule
                .as_ref()
                .map(|schedule| (schedule.due, message.data.clone()));
            self.timers.push(TimerChange { name, set });
        } else if !message.subject.starts_with('$') || message.subject == names.outbox(partition) {
            let mut headers = message.headers.clone();
            let to = headers.iter().find(|(name, _)| name == TO_HEADER);
            let subject = to.map_or_else(|| message.subject.clone(), |(_, subject)| subject.clone());
            headers.retain(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
            self.emits.push(Emitted {
                subject,
                headers,
                data: message.data.clone(),
            });
        } else if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&message.data)
            && letter.id == self.id
            && message.subject.ends_with(".m")
        {
            self.dead_letter = Some(letter);
        }
    }

    /// Whether nothing came of it.
    pub fn is_nothing(&self) -> bool {
        self.emits.is_empty() && self.cells.is_empty() && self.timers.is_empty() && self.dead_letter.is_none()
    }
}
