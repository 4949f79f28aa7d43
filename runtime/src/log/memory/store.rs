//! One stream in memory: plain values, the time is handed in.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::{Append, AppendError, Appended, Schedule, Stored, StreamSettings, StreamState};
use crate::model::event::Headers;
use crate::model::pattern::matches;

const NANOS_PER_S: u64 = 1_000_000_000;

/// Headers that a message brings along for the server, which a fired schedule does not keep.
const SCHEDULE_HEADERS: [&str; 3] = ["Nats-Schedule", "Nats-Schedule-Target", "Nats-TTL"];

#[derive(Debug, Clone)]
pub(super) struct Store {
    name: String,
    created: u64,
    settings: StreamSettings,
    last: u64,
    messages: BTreeMap<u64, Kept>,
    /// Sequences of each subject that has messages, in order.
    subjects: HashMap<Box<str>, Vec<u64>>,
}

#[derive(Debug, Clone)]
struct Kept {
    stored: Stored,
    /// Unix nanoseconds.
    expires: Option<u64>,
    schedule: Option<Schedule>,
}

impl Store {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn new(name: &str, settings: &StreamSettings, now: u64) -> Store {
        Store {
            name: name.into(),
            created: now,
            settings: settings.clone(),
            last: 0,
            messages: BTreeMap::new(),
            subjects: HashMap::new(),
        }
    }

    pub(super) fn set_subjects(&mut self, subjects: &[String]) {
        self.settings.subjects = subjects.to_vec();
    }

    pub(super) fn state(&self) -> StreamState {
        StreamState {
            name: self.name.clone(),
            created: self.created,
            made: self.created,
            first: self.messages.keys().next().copied().unwrap_or(self.last + 1),
            last: self.last,
            settings: self.settings.clone(),
        }
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.last
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Stored> {
        self.messages.get(&sequence).map(|kept| &kept.stored)
    }

    /// Last message on a subject at or before a sequence.
    pub(super) fn last(&self, subject: &str, up_to: u64) -> Option<&Stored> {
        let sequences = self.subjects.get(subject)?;
        let sequence = sequences.iter().rev().find(|sequence| **sequence <= up_to)?;
        self.get(*sequence)
    }

    pub(super) fn last_many(&self, filters: &[String], up_to: u64) -> Vec<Stored> {
        let matching = |subject: &str| filters.iter().any(|filter| matches(filter, subject));
        let subjects = self.subjects.keys().filter(|subject| matching(subject));
        subjects
            .filter_map(|subject| self.last(subject, up_to).cloned())
            .collect()
    }

    pub(super) fn from(&self, sequence: u64) -> impl Iterator<Item = &Stored> {
        self.messages.range(sequence..).map(|(_, kept)| &kept.stored)
    }

    pub(super) fn purge(&mut self, filter: &str, below: u64) {
        let gone: Vec<u64> = self
            .messages
            .range(..below)
            .filter(|(_, kept)| matches(filter, &kept.stored.subject))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in gone {
            self.remove(sequence);
        }
    }

    pub(super) fn lose_tail(&mut self, sequence: u64) {
        let lost: Vec<u64> = self.messages.range(sequence + 1..).map(|(s, _)| *s).collect();
        for sequence in lost {
            self.remove(sequence);
        }
        self.last = self.last.min(sequence);
    }

    /// All or nothing: every check comes before the first change.
    pub(super) fn append(&mut self, batch: Vec<Append>, now: u64) -> Result<Appended, AppendError> {
        self.check(&batch)?;
        let single = batch.len() == 1;
        for (index, append) in batch.into_iter().enumerate() {
            self.put(append, now, (!single).then_some(index + 1));
        }
        let appended = Appended { sequence: self.last };
        // A schedule that is past due fires at once, and stores a message of its own.
        self.pass_time(now);
        Ok(appended)
    }

    fn check(&self, batch: &[Append]) -> Result<(), AppendError> {
        let refuse = |code, description: String| Err(AppendError::Refused { code, description });
        if batch.is_empty() {
            return refuse(0, "an empty batch".into());
        }
        if batch.len() > 1 && !self.settings.atomic_publish {
            return refuse(10174, "atomic publish is disabled".into());
        }
        if self.settings.sealed {
            return refuse(10109, "invalid operation on sealed stream".into());
        }
        let mut written = HashSet::new();
        for append in batch {
            let subject = append.subject.as_str();
            if !self.settings.subjects.iter().any(|s| matches(s, subject)) {
                return refuse(0, format!("stream {} does not have subject {subject}", self.name));
            }
            if append.ttl_s.is_some() && !self.settings.message_ttl {
                return refuse(10166, "per-message TTL is disabled".into());
            }
            if append.schedule.is_some() && !self.settings.schedules {
                return refuse(10188, "message schedules is disabled".into());
            }
            if append.rollup && !self.settings.rollup {
                return refuse(10111, "rollup not permitted".into());
            }
            let first_of_subject = written.insert(subject);
            let elsewhere = append.expected_of.as_ref();
            let (subject, expected, first_of_subject) = match (append.expected, elsewhere) {
                (Some(expected), _) => (subject, expected, first_of_subject),
                (None, Some((subject, expected))) => {
                    (subject.as_str(), *expected, !written.contains(&**subject))
                }
                (None, None) => continue,
            };
            if !first_of_subject {
                // As on a server: the batch itself is under way on that subject.
                return Err(AppendError::Busy {
                    code: 10164,
                    description: "wrong last sequence".into(),
                });
            }
            let last = self.last(subject, u64::MAX).map_or(0, |stored| stored.sequence);
            if expected != last {
                return Err(AppendError::Fenced(format!("wrong last sequence: {last}")));
            }
        }
        let full = |max: Option<i64>| {
            max.is_some_and(|max| (self.messages.len() + batch.len()) as i64 > max)
                && self.settings.discard_new
        };
        if full(self.settings.max_messages) {
            return refuse(10077, "maximum messages exceeded".into());
        }
        Ok(())
    }

    /// `place` is the message's in its batch.
    fn put(&mut self, append: Append, now: u64, place: Option<usize>) {
        if append.rollup {
            self.remove_subject(&append.subject);
        }
        if let Some(replaces) = append
            .schedule
            .as_ref()
            .and_then(|schedule| schedule.replaces.as_ref())
        {
            self.remove_subject(replaces);
        }
        let headers = stored_headers(&append, place);
        self.last += 1;
        self.keep(Kept {
            expires: append
                .ttl_s
                .map(|ttl_s| now.saturating_add(ttl_s.saturating_mul(NANOS_PER_S))),
            schedule: append.schedule,
            stored: Stored {
                subject: append.subject.into(),
                sequence: self.last,
                time: now,
                headers,
                data: append.data,
            },
        });
    }

    fn keep(&mut self, kept: Kept) {
        let (subject, sequence) = (kept.stored.subject.clone(), kept.stored.sequence);
        let sequences = self.subjects.entry(subject.clone()).or_default();
        sequences.push(sequence);
        let oldest = sequences[0];
        let over = self
            .settings
            .max_messages_per_subject
            .is_some_and(|max| sequences.len() as i64 > max);
        // A schedule replaces the one on its subject.
        let rescheduled = kept.schedule.is_some() && sequences.len() > 1;
        self.messages.insert(sequence, kept);
        if over || rescheduled {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, sequence: u64) {
        let Some(kept) = self.messages.remove(&sequence) else {
            return;
        };
        if let Some(sequences) = self.subjects.get_mut(&kept.stored.subject) {
            sequences.retain(|s| *s != sequence);
            if sequences.is_empty() {
                self.subjects.remove(&kept.stored.subject);
            }
        }
    }

    fn remove_subject(&mut self, subject: &str) {
        for sequence in self.subjects.get(subject).cloned().unwrap_or_default() {
            self.remove(sequence);
        }
    }

    /// Lets messages expire and schedules fire, in the order in which they are due.
    pub(super) fn pass_time(&mut self, now: u64) {
        let expired = |kept: &Kept| kept.expires.is_some_and(|expires| expires <= now);
        let expired: Vec<u64> = self
            .messages
            .iter()
            .filter(|(_, kept)| expired(kept))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in expired {
            self.remove(sequence);
        }
        let due = |kept: &Kept| kept.schedule.as_ref().map(|s| s.due).filter(|due| *due <= now);
        let mut fired: Vec<(u64, u64)> = self
            .messages
            .iter()
            .filter_map(|(sequence, kept)| due(kept).map(|due| (due, *sequence)))
            .collect();
        fired.sort_unstable();
        for (_, sequence) in fired {
            self.fire(sequence, now);
        }
    }

    /// A copy goes to the target, the schedule's subject is purged (ADR-51).
    fn fire(&mut self, sequence: u64, now: u64) {
        let Some(Kept {
            stored,
            schedule: Some(schedule),
            ..
        }) = self.messages.get(&sequence)
        else {
            return;
        };
        let (mut fired, target) = (stored.clone(), schedule.target.clone());
        fired
            .headers
            .retain(|(name, _)| !SCHEDULE_HEADERS.contains(&name.as_str()));
        set(&mut fired.headers, "Nats-Scheduler", fired.subject.to_string());
        set(&mut fired.headers, "Nats-Schedule-Next", "purge".into());
        self.remove_subject(&fired.subject);
        self.last += 1;
        (fired.subject, fired.sequence, fired.time) = (target.into(), self.last, now);
        self.keep(Kept {
            stored: fired,
            expires: None,
            schedule: None,
        });
    }
}

fn set(headers: &mut Headers, name: &str, value: String) {
    headers.retain(|(n, _)| n != name);
    headers.push((name.into(), value));
    headers.sort_by(|a, b| a.0.cmp(&b.0));
}

/// The headers that a server stores: the message's own, and those that were for it.
fn stored_headers(append: &Append, place: Option<usize>) -> Headers {
    let mut headers = append.headers.clone();
    let mut add = |name: &str, value: String| headers.push((name.into(), value));
    if let Some(expected) = append.expected {
        add("Nats-Expected-Last-Subject-Sequence", expected.to_string());
    }
    if let Some((subject, expected)) = &append.expected_of {
        add("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        add("Nats-Expected-Last-Subject-Sequence-Subject", subject.clone());
    }
    if let Some(place) = place {
        add("Nats-Batch-Sequence", place.to_string());
    }
    if let Some(ttl_s) = append.ttl_s {
        add("Nats-TTL", format!("{ttl_s}s"));
    }
    if append.rollup {
        add("Nats-Rollup", "sub".into());
    }
    if let Some(schedule) = &append.schedule {
        add("Nats-Schedule", format!("@at {} ns", schedule.due));
        add("Nats-Schedule-Target", schedule.target.clone());
        if let Some(replaces) = &schedule.replaces {
            add("Nats-Schedule-Next", "purge".into());
            add("Nats-Scheduler", replaces.clone());
        }
    }
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}
