//! The ceilings: what the same work costs a program that speaks to JetStream
//! directly, with no sandbox and no generality, one partition, one process.
//!
//! One loop serves all of them. It reads a group of events, updates the counts
//! of their keys in a hash map, makes what goes out, then waits for the commit of
//! the group before and sends its own: execution runs one group ahead of the log
//! ("pipelined one deep"). A commit is what Weir's is, an atomic batch whose last
//! message is the fenced record, or the record alone where nothing goes out.
//!
//! [`service`] is something else: how such a service is usually written by hand,
//! for comparison. It is not atomic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, consumer, kv, stream};
use async_nats::{HeaderMap, Subject};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::fill;
use crate::server::Server;
use crate::wire::{BATCH_MESSAGES_MAX, Reader, Sender, create_stream, key_of, stream_sequence};

/// The stream that the native loops commit into.
const LEDGER: &str = "NATIVE";
const RECORD_SUBJECT: &str = "native.record";

/// Events per commit record where nothing else is in the commit.
const STATE_GROUP_EVENTS: usize = 2_000;

/// Workers of the hand-written service, each with one event at a time.
const SERVICE_WORKERS: usize = 64;

/// How long the hand-written service may stand still.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(120);

/// What a native loop does with each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Counts the events of each key; the record carries the counts that changed.
    pub state: bool,
    /// Sends one event out for each one in.
    pub emit: bool,
}

impl Work {
    /// As many events as fit one commit.
    fn group_events(self) -> usize {
        if self.emit {
            BATCH_MESSAGES_MAX - 1
        } else {
            STATE_GROUP_EVENTS
        }
    }
}

/// Reads all events and does nothing with them. Events per second.
pub async fn read(server: &Server, events: u64) -> Result<f64> {
    let client = server.connect().await?;
    let mut reader = Reader::open(&client, fill::STREAM, fill::SUBJECTS, events).await?;
    let start = Instant::now();
    let mut seen = 0;
    while let Some(messages) = reader.next().await? {
        seen += messages.len() as u64;
    }
    let rate = seen as f64 / start.elapsed().as_secs_f64();
    ensure!(seen == events, "{seen} events read, not {events}");
    Ok(rate)
}

/// Reads, works and commits. Events per second until the last commit is settled.
pub async fn commit(server: &Server, events: u64, work: Work) -> Result<f64> {
    server.delete_streams_except(&[fill::STREAM]).await?;
    let reading = server.connect().await?;
    let committing = server.connect().await?;
    create_stream(&committing, LEDGER, &["out.>", RECORD_SUBJECT]).await?;
    let mut reader = Reader::open(&reading, fill::STREAM, fill::SUBJECTS, events).await?;
    let mut sender = Sender::new(&committing).await?;

    let record_subject = Subject::from(RECORD_SUBJECT);
    let mut counts = Counts::default();
    let mut group = Group::default();
    let mut groups = 0;
    let start = Instant::now();
    while let Some(messages) = reader.next().await? {
        for message in messages {
            group.events += 1;
            group.position = stream_sequence(&message)?;
            let key = key_of(&message.subject)?;
            let n = if work.state { counts.add_one(key) } else { 0 };
            if work.emit {
                let data = if work.state {
                    let of = group.position;
                    format!(r#"{{"key":"{key}","n":{n},"of":"{}:{of}"}}"#, fill::STREAM).into()
                } else {
                    message.payload.clone()
                };
                group.out.push((format!("out.{key}").into(), data));
            }
            if group.events == work.group_events() {
                groups += 1;
                commit_group(&mut sender, &record_subject, &mut group, &mut counts).await?;
            }
        }
    }
    if group.events > 0 {
        groups += 1;
        commit_group(&mut sender, &record_subject, &mut group, &mut counts).await?;
    }
    sender.settle().await?;
    let rate = events as f64 / start.elapsed().as_secs_f64();

    let expected = groups + if work.emit { events } else { 0 };
    let stored = jetstream::new(committing)
        .get_stream(LEDGER)
        .await?
        .cached_info()
        .state
        .messages;
    ensure!(
        stored == expected,
        "the native ledger holds {stored} messages, not {expected}"
    );
    Ok(rate)
}

/// Consecutive events that are committed together.
#[derive(Default)]
struct Group {
    events: usize,
    /// Source sequence of the last one.
    position: u64,
    out: Vec<(Subject, Bytes)>,
}

async fn commit_group(
    sender: &mut Sender,
    record_subject: &Subject,
    group: &mut Group,
    counts: &mut Counts,
) -> Result<()> {
    let record = counts.take_record(group.position);
    let mut messages = std::mem::take(group).out;
    messages.push((record_subject.clone(), record));
    sender.send_fenced(messages).await
}

/// The count of each key, and which of them changed in the group at hand.
#[derive(Default)]
struct Counts {
    slots: HashMap<Box<str>, usize>,
    keys: Vec<KeyCount>,
    changed: Vec<usize>,
}

struct KeyCount {
    key: Box<str>,
    n: u64,
    changed: bool,
}

impl Counts {
    fn add_one(&mut self, key: &str) -> u64 {
        let slot = match self.slots.get(key) {
            Some(slot) => *slot,
            None => {
                let slot = self.keys.len();
                self.slots.insert(key.into(), slot);
                self.keys.push(KeyCount {
                    key: key.into(),
                    n: 0,
                    changed: false,
                });
                slot
            }
        };
        let entry = &mut self.keys[slot];
        entry.n += 1;
        if !entry.changed {
            entry.changed = true;
            self.changed.push(slot);
        }
        entry.n
    }

    /// The commit record: the position, then the counts that changed.
    fn take_record(&mut self, position: u64) -> Bytes {
        let mut record = BytesMut::new();
        record.put_u64(position);
        for slot in self.changed.drain(..) {
            let entry = &mut self.keys[slot];
            entry.changed = false;
            // A key here has six characters (`fill::key_token`).
            record.put_u8(entry.key.len() as u8);
            record.put_slice(entry.key.as_bytes());
            record.put_u64(entry.n);
        }
        record.freeze()
    }
}

/// The hand-written service: 64 workers, a key always on the same one; per event a
/// compare-and-set of the key's count in a KV bucket, a publish with
/// `Nats-Msg-Id`, and an acknowledgement that is itself acknowledged. Workers
/// keep the revisions they wrote, so nothing is read back.
pub async fn service(server: &Server, events: u64) -> Result<f64> {
    server.delete_streams_except(&[fill::STREAM]).await?;
    let client = server.connect().await?;
    let jetstream = jetstream::new(client.clone());
    create_stream(&client, LEDGER, &["out.>"]).await?;
    let bucket = jetstream
        .create_key_value(kv::Config {
            bucket: "native".to_owned(),
            storage: stream::StorageType::File,
            ..Default::default()
        })
        .await?;
    let source = jetstream.get_stream(fill::STREAM).await?;
    let in_flight_max = (SERVICE_WORKERS * 16) as i64;
    let consumer = source
        .create_consumer(consumer::pull::Config {
            durable_name: Some("native-service".to_owned()),
            ack_policy: consumer::AckPolicy::Explicit,
            filter_subject: fill::SUBJECTS.to_owned(),
            max_ack_pending: in_flight_max,
            ..Default::default()
        })
        .await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(in_flight_max as usize)
        .messages()
        .await?;

    let service = Arc::new(Service {
        client,
        jetstream,
        bucket,
    });
    let mut workers = tokio::task::JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..SERVICE_WORKERS {
        let (queue, events) = mpsc::channel(16);
        queues.push(queue);
        workers.spawn(service.clone().worker(events));
    }

    let start = Instant::now();
    let dispatch = async {
        for _ in 0..events {
            // `split` would take the reply subject away, which the worker needs.
            let message = messages.next().await.context("the consumer ended")??.message;
            let sequence = stream_sequence(&message)?;
            let worker = key_of(&message.subject)?
                .bytes()
                .fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(b as usize))
                % SERVICE_WORKERS;
            if queues[worker].send((message, sequence)).await.is_err() {
                // A worker that stopped has its reason below.
                break;
            }
        }
        drop(queues);
        let mut done = 0;
        while let Some(handled) = workers.join_next().await {
            done += handled??;
        }
        anyhow::Ok(done)
    };
    let done: u64 = tokio::time::timeout(SERVICE_TIMEOUT, dispatch)
        .await
        .context("the hand-written service stood still")??;
    let rate = done as f64 / start.elapsed().as_secs_f64();
    ensure!(
        done == events,
        "the hand-written service did {done} of {events} events"
    );
    source.delete_consumer("native-service").await?;
    Ok(rate)
}

struct Service {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    bucket: kv::Store,
}

impl Service {
    async fn worker(
        self: Arc<Service>,
        mut events: mpsc::Receiver<(async_nats::Message, u64)>,
    ) -> Result<u64> {
        let mut revisions: HashMap<String, (u64, u64)> = HashMap::new();
        let mut done = 0;
        while let Some((message, sequence)) = events.recv().await {
            let key = key_of(&message.subject)?.to_owned();
            let (revision, n) = revisions.entry(key.clone()).or_default();
            *n += 1;
            *revision = self.bucket.update(&key, n.to_string().into(), *revision).await?;

            let id = format!("{}:{sequence}", fill::STREAM);
            let data = format!(r#"{{"key":"{key}","n":{n},"of":"{id}"}}"#);
            let mut headers = HeaderMap::new();
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
            self.jetstream
                .publish_with_headers(format!("out.{key}"), headers, data.into())
                .await?
                .await?;

            // `double_ack` would subscribe to an inbox for each; a request does not.
            let ack = message.reply.context("an event without a reply subject")?;
            self.client.request(ack, "+ACK".into()).await?;
            done += 1;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn a_record_carries_each_changed_count_once() {
        let mut counts = Counts::default();
        assert_eq!(
            [counts.add_one("a"), counts.add_one("a"), counts.add_one("b")],
            [1, 2, 1]
        );
        // position, then per key: length, key, count
        assert_eq!(counts.take_record(3).len(), 8 + 2 * (1 + 1 + 8));
        assert_eq!(counts.take_record(3).len(), 8);
        assert_eq!(counts.add_one("a"), 3);
        assert_eq!(counts.take_record(4).len(), 8 + (1 + 1 + 8));
    }
}
