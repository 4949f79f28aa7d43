//! A group: what consecutive events of one partition did, merged into the
//! messages and the delta of one commit.
//!
//! * A cell written twice is committed once, with its last value.
//! * A timer set and cancelled within the group is nothing; one set twice is
//!   one message that replaces what was live before the group. The same timer
//!   subject can therefore not stand twice in a batch (rule 5).
//! * Emitted events keep their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::record::{Blob, CellDelta, KeyDelta, TimerEntry};
use crate::effects::{Effects, TimerSet};
use crate::log::{Append, Schedule};
use crate::model::limits::BATCH_HEADER_BYTES;
use crate::model::subjects::{HandlerNames, nothing};
use crate::model::trace::Trace;
use crate::shared::{DELETED_HEADER, DELETED_TTL_S, Shared, Use, Write};
use crate::state::{KeyState, LiveTimer};

/// Names the event that caused a message.
pub const CAUSE_HEADER: &str = "Weir-Cause";

/// Names who emitted a message: `<handler>:<partition>:<revision>` of the deployment.
pub const BY_HEADER: &str = "Weir-By";

/// Name the subject and the stream that an entry of the outbox is for.
pub const TO_HEADER: &str = "Weir-To";
pub const TO_STREAM_HEADER: &str = "Weir-To-Stream";

/// What stands in the headers of what an event causes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The id of the event.
    pub cause: String,
    pub by: String,
    /// The chain that the event belongs to.
    pub trace: Trace,
    /// Where entries of the partition's outbox are kept.
    pub outbox: String,
}

/// Time to live of messages that nobody reads, such as the one that cancels a timer: the
/// shortest there is.
const EMPTY_TTL_S: u64 = 1;

/// Events of one partition on their way to be committed.
#[derive(Debug, Default)]
pub struct Group {
    /// Events consumed, those without effects included.
    pub events: u64,
    /// Of those, the ones whose handler failed for good.
    pub dead_letters: u64,
    /// Of those, the ones that were ignored, because they repeat others.
    pub duplicates: u64,
    /// Bytes of the delta, roughly as they stand in the record.
    pub delta_bytes: usize,
    /// Bytes of the messages, headers included.
    pub message_bytes: usize,
    messages: Vec<Append>,
    keys: Vec<KeyDelta>,
    index: FxHashMap<Arc<str>, usize>,
    timers: BTreeMap<(Arc<str>, Box<str>), TimerChange>,
    /// Of the last event; nothing is added to the group after it.
    shared: BTreeMap<Shared, Use>,
    /// What is parked has changed.
    parked: bool,
}

/// A timer that the group touched: what was live before it, and what is now.
#[derive(Debug)]
struct TimerChange {
    before: Option<u64>,
    now: Option<(u64, TimerSet, Trace)>,
}

impl Group {
    pub fn is_empty(&self) -> bool {
        self.events == 0 && !self.parked
    }

    /// Messages this group has by now, the record not counted.
    pub fn messages(&self) -> usize {
        self.messages.len() + self.timers.len() + self.shared.len()
    }

    /// Whether its commit may be refused for what others have changed meanwhile.
    pub fn shares(&self) -> bool {
        !self.shared.is_empty()
    }

    /// An event was parked: its position moves, though nothing was done.
    pub fn park(&mut self) {
        self.parked = true;
    }

    /// Appends a message as it is: a dead letter.
    pub fn push(&mut self, message: Append) {
        self.message_bytes += size(&message);
        self.messages.push(message);
    }

    /// Merges what one event did, and applies it to the key's state, so that
    /// the next event sees it. `generation` is the partition's timer counter.
    pub fn apply(
        &mut self,
        key: &Arc<str>,
        origin: &Origin,
        effects: Effects,
        state: &mut KeyState,
        generation: &mut u64,
        event_ttl_s: Option<u64>,
    ) {
        let next = match effects.emits.is_empty() {
            true => Trace::default(),
            false => origin.trace.clone().next(),
        };
        for emit in effects.emits {
            let mut headers = emit.headers;
            headers.push((CAUSE_HEADER.into(), origin.cause.clone()));
            headers.push((BY_HEADER.into(), origin.by.clone()));
            next.add_to(&mut headers);
            self.push(match emit.stream {
                None => Append {
                    subject: emit.subject,
                    headers,
                    data: emit.data,
                    ttl_s: event_ttl_s,
                    ..Append::default()
                },
                // Kept until it is handed on, however long that takes.
                Some(stream) => {
                    headers.push((TO_HEADER.into(), emit.subject));
                    headers.push((TO_STREAM_HEADER.into(), stream.to_string()));
                    Append {
                        subject: origin.outbox.clone(),
                        headers,
                        data: emit.data,
                        ..Append::default()
                    }
                }
            });
        }
        self.share(effects.shared);
        self.write_cells(key, effects.cells, state);
        if effects.timers.is_empty() {
            return;
        }
        for (name, change) in effects.timers {
            let before = state.timers.remove(&name).map(|live| live.generation);
            let now = change.map(|set| {
                *generation += 1;
                state.timers.insert(
                    name.clone(),
                    LiveTimer {
                        generation: *generation,
                        due: set.due,
                    },
                );
                // A timer is the event's own doing, and no hop.
                (*generation, set, origin.trace.clone())
            });
            self.message_bytes +=
                now.as_ref().map_or(0, |(_, set, _)| set.data.len()) + 2 * BATCH_HEADER_BYTES;
            self.timers
                .entry((key.clone(), name))
                .and_modify(|change| change.now = now.clone())
                .or_insert(TimerChange { before, now });
        }
        self.write_timers(key, state);
    }

    /// A live timer fired: it is live no more, and nothing is left of it to purge.
    pub fn timer_fired(&mut self, key: &Arc<str>, name: &str, state: &mut KeyState) {
        state.timers.remove(name);
        self.write_timers(key, state);
    }

    fn share(&mut self, shared: BTreeMap<Shared, Use>) {
        assert!(
            self.shared.is_empty(),
            "nothing is added after an event that shares"
        );
        for used in shared.values() {
            let data = match &used.write {
                Some(Write::Set(data)) => data.len(),
                _ => 0,
            };
            self.message_bytes += data + 2 * BATCH_HEADER_BYTES;
        }
        self.shared = shared;
    }

    fn delta(&mut self, key: &Arc<str>) -> &mut KeyDelta {
        let at = match self.index.get(key) {
            Some(at) => *at,
            None => {
                let at = self.keys.len();
                self.keys.push(KeyDelta {
                    key: key.clone(),
                    cells: Vec::new(),
                    timers: None,
                });
                self.index.insert(key.clone(), at);
                self.delta_bytes += key.len() + 16;
                at
            }
        };
        &mut self.keys[at]
    }

    /// Writes cells of a key, `None` deletes one, and applies that to its state.
    pub fn write_cells(
        &mut self,
        key: &Arc<str>,
        cells: impl IntoIterator<Item = (Box<str>, Option<Bytes>)>,
        state: &mut KeyState,
    ) {
        for (cell, value) in cells {
            self.write_cell(key, &cell, value.clone());
            match value {
                Some(value) => state.cells.insert(cell, value),
                None => state.cells.remove(&cell),
            };
        }
    }

    fn write_cell(&mut self, key: &Arc<str>, cell: &str, value: Option<Bytes>) {
        let grown = value.as_ref().map_or(0, Bytes::len);
        let delta = self.delta(key);
        let value = value.map(Blob);
        let before = match delta.cells.iter_mut().find(|c| &*c.cell == cell) {
            Some(there) => {
                let before = there.value.as_ref().map_or(0, |v| v.0.len());
                there.value = value;
                before
            }
            None => {
                delta.cells.push(CellDelta {
                    cell: cell.into(),
                    value,
                });
                self.delta_bytes += cell.len() + 8;
                0
            }
        };
        self.delta_bytes = self.delta_bytes + grown - before;
    }

    fn write_timers(&mut self, key: &Arc<str>, state: &KeyState) {
        let all = TimerEntry::all(&state.timers);
        let bytes = |timers: &[TimerEntry]| timers.iter().map(|t| t.name.len() + 24).sum::<usize>();
        let grown = bytes(&all);
        let before = self.delta(key).timers.replace(all).map_or(0, |t| bytes(&t));
        self.delta_bytes = self.delta_bytes + grown - before;
    }

    /// The messages of the batch before the record, and the record's delta.
    pub fn finish(self, names: &HandlerNames, partition: u32) -> (Vec<Append>, Vec<KeyDelta>) {
        let mut messages = self.messages;
        for ((key, name), change) in self.timers {
            let before = change
                .before
                .map(|generation| names.timer(partition, &key, &name, generation));
            match (change.now, before) {
                (Some((generation, set, trace)), replaces) => messages.push(Append {
                    subject: names.timer(partition, &key, &name, generation),
                    headers: trace.headers(),
                    data: set.data,
                    schedule: Some(Schedule {
                        due: set.due,
                        target: names.fired(partition),
                        replaces,
                    }),
                    ..Append::default()
                }),
                (None, Some(subject)) => messages.push(Append {
                    subject,
                    rollup: true,
                    ttl_s: Some(EMPTY_TTL_S),
                    ..Append::default()
                }),
                (None, None) => {}
            }
        }
        let mut expected = Vec::new();
        for (shared, used) in self.shared {
            let subject = shared.subject(&names.ledger);
            match used.write {
                None => expected.push((subject, used.expected)),
                Some(write) => messages.push(written(subject, used.expected, write)),
            }
        }
        expect(&mut messages, expected, &nothing(&names.ledger));
        (messages, self.keys)
    }
}

/// What becomes of a shared cell or lock: only the last message of its subject is kept.
fn written(subject: String, expected: u64, write: Write) -> Append {
    let append = Append {
        subject,
        expected: Some(expected),
        rollup: true,
        ..Append::default()
    };
    match write {
        Write::Set(data) => Append { data, ..append },
        Write::Delete => Append {
            headers: vec![(DELETED_HEADER.into(), "1".into())],
            ttl_s: Some(DELETED_TTL_S),
            ..append
        },
    }
}

/// Adds what is expected of subjects that are not written: a message carries one
/// expectation, so to messages that have none, and then to `filler` ones (rule 15).
fn expect(messages: &mut Vec<Append>, expected: Vec<(String, u64)>, filler: &str) {
    let mut expected = expected.into_iter();
    let free = |m: &&mut Append| m.expected.is_none() && m.schedule.is_none() && !m.rollup;
    for (message, of) in messages.iter_mut().filter(free).zip(expected.by_ref()) {
        message.expected_of = Some(of);
    }
    messages.extend(expected.map(|of| Append {
        subject: filler.to_owned(),
        expected_of: Some(of),
        ttl_s: Some(EMPTY_TTL_S),
        ..Append::default()
    }));
}

/// Bytes of a message as size checks count them.
pub fn size(message: &Append) -> usize {
    let headers: usize = message.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
    message.subject.len() + headers + message.data.len() + BATCH_HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Emit;

    fn set(due: u64) -> Option<TimerSet> {
        Some(TimerSet {
            due,
            data: Bytes::new(),
        })
    }

    struct Story {
        group: Group,
        state: KeyState,
        generation: u64,
    }

    impl Story {
        /// A key whose timer `t` is live in generation 7.
        fn with_live_timer() -> Story {
            let mut state = KeyState::default();
            state.timers.insert(
                "t".into(),
                LiveTimer {
                    generation: 7,
                    due: 1,
                },
            );
            Story {
                group: Group::default(),
                state,
                generation: 7,
            }
        }

        fn timer(mut self, change: Option<TimerSet>) -> Story {
            let effects = Effects {
                timers: [("t".into(), change)].into(),
                ..Effects::default()
            };
            self.group.apply(
                &"k".into(),
                &Origin::default(),
                effects,
                &mut self.state,
                &mut self.generation,
                None,
            );
            self
        }

        fn messages(self) -> Vec<(String, Option<String>)> {
            let names = HandlerNames::new("L", "h", 1);
            let (messages, _) = self.group.finish(&names, 0);
            messages
                .into_iter()
                .map(|m| (m.subject, m.schedule.and_then(|s| s.replaces)))
                .collect()
        }
    }

    fn subject(generation: u64) -> String {
        format!("$WEIR.L.t.h.1.0.k.t.{generation}")
    }

    #[test]
    fn a_timer_set_twice_replaces_what_was_live_before_the_group() {
        let messages = Story::with_live_timer().timer(set(5)).timer(set(6)).messages();
        assert_eq!(messages, [(subject(9), Some(subject(7)))]);
    }

    #[test]
    fn a_timer_set_and_cancelled_cancels_only_what_was_live_before() {
        let messages = Story::with_live_timer().timer(set(5)).timer(None).messages();
        assert_eq!(messages, [(subject(7), None)]);
    }

    #[test]
    fn a_timer_born_and_cancelled_in_the_group_is_nothing() {
        let mut story = Story::with_live_timer();
        story.group.timer_fired(&"k".into(), "t", &mut story.state);
        assert!(story.state.timers.is_empty());
        assert_eq!(story.timer(set(5)).timer(None).messages(), []);
    }

    #[test]
    fn what_was_read_is_expected_by_whatever_message_is_free() {
        let used = |expected, write| Use { expected, write };
        let shared = [
            (Shared::Cell("a".into()), used(1, None)),
            (Shared::Cell("b".into()), used(2, None)),
            (
                Shared::Cell("c".into()),
                used(3, Some(Write::Set(Bytes::from("v")))),
            ),
            (Shared::Lock("d".into()), used(0, Some(Write::Delete))),
        ];
        let emit = Emit {
            subject: "out".into(),
            headers: Vec::new(),
            data: Bytes::new(),
            stream: None,
        };
        let effects = Effects {
            emits: vec![emit],
            shared: shared.into(),
            ..Effects::default()
        };
        let mut group = Group::default();
        let (mut state, mut generation) = (KeyState::default(), 0);
        group.apply(
            &"k".into(),
            &Origin::default(),
            effects,
            &mut state,
            &mut generation,
            None,
        );
        assert!(group.shares() && group.messages() == 5);
        let (messages, _) = group.finish(&HandlerNames::new("L", "h", 1), 0);
        let shape: Vec<_> = messages
            .iter()
            .map(|m| {
                (
                    m.subject.as_str(),
                    m.expected,
                    m.expected_of.as_ref().map(|(s, e)| (s.as_str(), *e)),
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                ("out", None, Some(("$WEIR.L.x.c.a", 1))),
                ("$WEIR.L.x.c.c", Some(3), None),
                ("$WEIR.L.x.l.d", Some(0), None),
                ("$WEIR.L.x.n", None, Some(("$WEIR.L.x.c.b", 2))),
            ]
        );
        assert!(messages[1].rollup && messages[1].ttl_s.is_none() && messages[2].ttl_s.is_some());
    }

    #[test]
    fn a_cell_is_committed_once_with_its_last_value() {
        let mut story = Story::with_live_timer();
        for value in ["1", "2222", "3"] {
            let effects = Effects {
                cells: [("n".into(), Some(Bytes::from(value)))].into(),
                ..Effects::default()
            };
            story.group.apply(
                &"k".into(),
                &Origin::default(),
                effects,
                &mut story.state,
                &mut story.generation,
                None,
            );
        }
        assert_eq!(story.group.delta_bytes, 1 + 16 + 1 + 8 + 1);
        let (_, delta) = story.group.finish(&HandlerNames::new("L", "h", 1), 0);
        assert_eq!(
            delta[0].cells,
            [CellDelta {
                cell: "n".into(),
                value: Some(Blob(Bytes::from("3")))
            }]
        );
    }
}
