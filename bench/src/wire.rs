//! What the filler, the native loops and the checks say to JetStream, without
//! the conveniences of async-nats that would cost a ceiling its height:
//! * [`Reader`] takes a known number of messages from a stream, through an
//!   ephemeral pull consumer that acknowledges nothing, large pulls always
//!   outstanding.
//! * [`Sender`] appends atomic batches (ADR-50), or one message as an ordinary
//!   publish, and settles each before the next: one in flight.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
};
use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use serde::Deserialize;

use crate::server::SUBSCRIPTION_CAPACITY;

/// Messages that one pull asks for.
const PULL_MESSAGES: u64 = 10_000;

/// Messages asked for and not yet arrived, below which another pull is sent: the
/// server always has one to serve while the other drains.
const PULL_OUTSTANDING: u64 = 2 * PULL_MESSAGES;

const _: () = assert!(PULL_OUTSTANDING + PULL_MESSAGES < SUBSCRIPTION_CAPACITY as u64);

/// Messages handed out at once.
const CHUNK_MESSAGES: usize = 4_096;

/// How long the server may be silent while it owes messages or an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages in one atomic batch: the server's default limit (ADR-50).
pub const BATCH_MESSAGES_MAX: usize = 1_000;

/// A stream as this benchmark needs it: one replica, file storage.
pub async fn create_stream(client: &Client, name: &str, subjects: &[&str]) -> Result<()> {
    jetstream::new(client.clone())
        .create_stream(stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
            storage: stream::StorageType::File,
            num_replicas: 1,
            allow_direct: true,
            allow_atomic_publish: true,
            ..Default::default()
        })
        .await
        .with_context(|| format!("cannot create stream {name}"))?;
    Ok(())
}

/// Takes a known number of messages from a stream, in order.
pub struct Reader {
    client: Client,
    chunks: ReadyChunks<Subscriber>,
    inbox: Subject,
    pull_subject: Subject,
    total: u64,
    requested: u64,
    received: u64,
}

impl Reader {
    /// `total` messages that are in the stream already, from the first one whose
    /// subject matches `filter`.
    pub async fn open(client: &Client, stream: &str, filter: &str, total: u64) -> Result<Reader> {
        let consumer = jetstream::new(client.clone())
            .get_stream(stream)
            .await
            .with_context(|| format!("no stream {stream}"))?
            .create_consumer(consumer::pull::Config {
                ack_policy: consumer::AckPolicy::None,
                deliver_policy: consumer::DeliverPolicy::All,
                filter_subject: filter.to_owned(),
                memory_storage: true,
                ..Default::default()
            })
            .await
            .with_context(|| format!("cannot create a consumer on {stream}"))?;
        let pending = consumer.cached_info().num_pending;
        ensure!(
            pending == total,
            "stream {stream} holds {pending} messages on {filter}, not {total}"
        );
        let inbox = Subject::from(client.new_inbox());
        let chunks = client
            .subscribe(inbox.clone())
            .await?
            .ready_chunks(CHUNK_MESSAGES);
        let name = &consumer.cached_info().name;
        Ok(Reader {
            client: client.clone(),
            chunks,
            inbox,
            pull_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}").into(),
            total,
            requested: 0,
            received: 0,
        })
    }

    /// The next messages, at least one; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Message>>> {
        if self.received == self.total {
            return Ok(None);
        }
        while self.requested < self.total && self.requested - self.received < PULL_OUTSTANDING {
            let batch = PULL_MESSAGES.min(self.total - self.requested);
            let expires_ns = ANSWER_TIMEOUT.as_nanos();
            let pull = format!(r#"{{"batch":{batch},"expires":{expires_ns}}}"#);
            self.client
                .publish_with_reply(self.pull_subject.clone(), self.inbox.clone(), pull.into())
                .await?;
            self.requested += batch;
        }
        let messages = tokio::time::timeout(ANSWER_TIMEOUT, self.chunks.next())
            .await
            .context("the server stopped delivering")?
            .context("the connection was closed")?;
        if let Some(message) = messages.iter().find(|m| m.status.is_some()) {
            bail!(
                "a pull ended early: {:?} {:?}",
                message.status,
                message.description
            );
        }
        self.received += messages.len() as u64;
        Ok(Some(messages))
    }
}

/// Stream sequence of a delivered message, from its reply subject
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`.
pub fn stream_sequence(message: &Message) -> Result<u64> {
    message
        .reply
        .as_deref()
        .and_then(|reply| reply.split('.').nth(5))
        .and_then(|sequence| sequence.parse().ok())
        .with_context(|| format!("no stream sequence in {:?}", message.reply))
}

/// Key of an event: the second token of `bench.<key>` or `out.<key>`.
pub fn key_of(subject: &str) -> Result<&str> {
    subject
        .split('.')
        .nth(1)
        .with_context(|| format!("no key in subject {subject}"))
}

/// The part of a publish acknowledgement that matters here.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<serde_json::Value>,
}

/// Appends batches, one in flight.
pub struct Sender {
    client: Client,
    acks: Subscriber,
    inbox: Subject,
    /// Distinct in the server: a random inbox, and a number per batch.
    batches: u64,
    in_flight: bool,
    /// Sequence of the last message that was acknowledged.
    last: u64,
}

impl Sender {
    pub async fn new(client: &Client) -> Result<Sender> {
        let inbox = Subject::from(client.new_inbox());
        Ok(Sender {
            client: client.clone(),
            acks: client.subscribe(inbox.clone()).await?,
            inbox,
            batches: 0,
            in_flight: false,
            last: 0,
        })
    }

    /// Waits for what is in flight, then sends `messages`: one alone as an
    /// ordinary publish, more as an atomic batch. Returns without waiting.
    pub async fn send(&mut self, messages: Vec<(Subject, Bytes)>) -> Result<()> {
        self.settle().await?;
        self.put(messages, None).await
    }

    /// The same with a fence: the last message expects to follow the last message
    /// that this sender appended.
    pub async fn send_fenced(&mut self, messages: Vec<(Subject, Bytes)>) -> Result<()> {
        self.settle().await?;
        self.put(messages, Some(self.last)).await
    }

    async fn put(&mut self, messages: Vec<(Subject, Bytes)>, expected: Option<u64>) -> Result<()> {
        let count = messages.len();
        ensure!(
            (1..=BATCH_MESSAGES_MAX).contains(&count),
            "a batch of {count} messages"
        );
        self.batches += 1;
        // A batch's id has 64 characters at the most; the inbox's own token is random.
        let token = self.inbox.rsplit('.').next().unwrap_or_default();
        let id = format!("{token}-{}", self.batches);
        for (n, (subject, data)) in messages.into_iter().enumerate() {
            let mut headers = HeaderMap::new();
            if count > 1 {
                headers.insert(NATS_BATCH_ID, id.as_str());
                headers.insert(NATS_BATCH_SEQUENCE, (n + 1).to_string());
            }
            if n + 1 < count {
                self.client.publish_with_headers(subject, headers, data).await?;
                continue;
            }
            if count > 1 {
                headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            }
            if let Some(sequence) = expected {
                headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
            }
            self.client
                .publish_with_reply_and_headers(subject, self.inbox.clone(), headers, data)
                .await?;
        }
        self.in_flight = true;
        Ok(())
    }

    /// Waits until what was sent is stored; an error if it was refused.
    pub async fn settle(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.in_flight) {
            return Ok(());
        }
        let message = tokio::time::timeout(ANSWER_TIMEOUT, self.acks.next())
            .await
            .context("the server did not acknowledge an append")?
            .context("the connection was closed")?;
        if let Some(status) = message.status {
            bail!("no stream took an append: {status}");
        }
        let ack: Ack = serde_json::from_slice(&message.payload)?;
        if let Some(error) = ack.error {
            bail!("the server refused an append: {error}");
        }
        self.last = ack.seq;
        Ok(())
    }
}
