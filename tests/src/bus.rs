//! The test's own connection to NATS: it makes sources, publishes into them and
//! reads streams back. It speaks to the server directly, never through the
//! proxy, and shares no code with the host, so that a mistake of the host's port
//! to the log cannot hide itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::{self, consumer, message::PublishMessage, stream};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::Value;

use crate::{PATIENCE, until};

/// Publishes that wait for their acknowledgement at once.
const WINDOW: usize = 1_000;
/// Messages asked for at once while reading a stream back.
const READ_BATCH: usize = 2_000;
/// Time until a request counts as lost: longer than a restart of the server takes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server keeps a consumer that nobody asks any more.
const READER_KEPT: Duration = Duration::from_secs(10);
/// Pause before messages that were not acknowledged are published again.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Bus {
    pub client: async_nats::Client,
    pub js: jetstream::Context,
}

/// A message to publish. `id` deduplicates, so that a publish whose
/// acknowledgement was lost can be repeated.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub subject: String,
    pub headers: Vec<(&'static str, String)>,
    pub data: Vec<u8>,
    pub id: Option<String>,
}

impl Outgoing {
    pub fn new(subject: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Outgoing {
            subject: subject.into(),
            headers: Vec::new(),
            data: data.into(),
            id: None,
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// A message read back.
#[derive(Debug, Clone)]
pub struct Read {
    pub subject: String,
    pub sequence: u64,
    /// Unix time in nanoseconds when it was stored.
    pub time: u64,
    pub headers: Vec<(String, String)>,
    pub data: Bytes,
}

impl Read {
    /// As the runtime's own code takes it.
    pub fn stored(&self) -> weir::log::Stored {
        weir::log::Stored {
            subject: self.subject.clone().into(),
            sequence: self.sequence,
            time: self.time,
            headers: self.headers.clone(),
            data: self.data.clone(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

impl Bus {
    pub async fn connect(url: &str) -> Result<Bus> {
        let mut options = async_nats::ConnectOptions::new();
        // The client library parses these and does not use them.
        if let Some((user, password)) = url
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('@')?.0.split_once(':'))
        {
            options = options.user_and_password(user.into(), password.into());
        }
        let client = options
            .retry_on_initial_connect()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(url.split(',').map(str::to_owned).collect::<Vec<_>>())
            .await
            .with_context(|| format!("connect to {url}"))?;
        let js = jetstream::new(client.clone());
        Ok(Bus { client, js })
    }

    /// Makes a source: a stream with file storage and the server's defaults.
    pub async fn source(&self, name: &str, subjects: &str) -> Result<()> {
        let config = stream::Config {
            name: name.into(),
            subjects: vec![subjects.into()],
            ..Default::default()
        };
        self.js.create_stream(config).await?;
        Ok(())
    }

    /// Makes a source that so many servers keep.
    pub async fn replicated_source(&self, name: &str, subjects: &str, replicas: usize) -> Result<()> {
        let config = stream::Config {
            name: name.into(),
            subjects: vec![subjects.into()],
            num_replicas: replicas,
            ..Default::default()
        };
        until(&format!("stream {name} is there"), PATIENCE, async || {
            Ok(self.js.get_or_create_stream(config.clone()).await.map(drop)?)
        })
        .await
    }

    /// Publishes one message and returns its sequence.
    pub async fn publish(&self, message: Outgoing) -> Result<u64> {
        Ok(self
            .js
            .send_publish(message.subject.clone(), build(message))
            .await?
            .await?
            .sequence)
    }

    /// Publishes all, in order, and returns once the server has them. Survives a
    /// restart of the server where the messages have ids.
    pub async fn publish_all(&self, messages: &[Outgoing]) -> Result<()> {
        for window in messages.chunks(WINDOW) {
            let begin = Instant::now();
            while let Err(error) = self.publish_window(window).await {
                ensure!(
                    begin.elapsed() < PATIENCE && window.iter().all(|m| m.id.is_some()),
                    "published without success: {error:#}"
                );
                // No leader, perhaps: the answer that there is none comes at once.
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn publish_window(&self, window: &[Outgoing]) -> Result<()> {
        let mut acks = Vec::with_capacity(window.len());
        for message in window {
            let publish = build(message.clone());
            acks.push(self.js.send_publish(message.subject.clone(), publish).await?);
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }

    /// Sequence of the last message that a stream ever took.
    pub async fn last_sequence(&self, stream: &str) -> Result<u64> {
        Ok(self.info(stream).await?.state.last_sequence)
    }

    /// Messages that a stream holds now.
    pub async fn messages(&self, stream: &str) -> Result<u64> {
        Ok(self.info(stream).await?.state.messages)
    }

    async fn info(&self, stream: &str) -> Result<stream::Info> {
        let stream = self.js.get_stream_no_info(stream).await?;
        Ok(stream.get_info().await?)
    }

    /// How many messages on `filter` a stream holds.
    pub async fn count(&self, stream: &str, filter: &str) -> Result<u64> {
        Ok(self.reader(stream, filter).await?.cached_info().num_pending)
    }

    async fn reader(&self, stream: &str, filter: &str) -> Result<consumer::PullConsumer> {
        self.js
            .get_stream_no_info(stream)
            .await?
            .create_consumer(consumer::pull::Config {
                filter_subject: filter.into(),
                ack_policy: consumer::AckPolicy::None,
                inactive_threshold: READER_KEPT,
                ..Default::default()
            })
            .await
            .with_context(|| format!("read {filter} of {stream}"))
    }

    /// Everything on `filter` that a stream holds, in order.
    pub async fn read(&self, stream: &str, filter: &str) -> Result<Vec<Read>> {
        let consumer = self.reader(stream, filter).await?;
        let mut pending = consumer.cached_info().num_pending;
        let mut all = Vec::new();
        while pending > 0 {
            let mut batch = consumer.fetch().max_messages(READ_BATCH).messages().await?;
            let before = all.len();
            while let Some(message) = batch.next().await {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => bail!("reading {filter} of {stream}: {error}"),
                };
                let info = message.info().map_err(|e| anyhow::anyhow!("{e}"))?;
                pending = info.pending;
                let sequence = info.stream_sequence;
                let time = info.published.unix_timestamp_nanos().try_into()?;
                all.push(Read {
                    sequence,
                    time,
                    headers: headers(message.headers.as_ref()),
                    subject: message.message.subject.to_string(),
                    data: message.message.payload,
                });
            }
            ensure!(
                all.len() > before,
                "{stream} says {pending} messages of {filter} are to come, and sends none"
            );
        }
        Ok(all)
    }

    /// Settings of a stream as the server answers them. Raw, because a typed
    /// round trip would lose the settings that the client library does not know.
    pub async fn settings(&self, stream: &str) -> Result<Value> {
        let answer = self.api(&format!("STREAM.INFO.{stream}"), Value::Null).await?;
        Ok(answer["config"].clone())
    }

    /// Changes settings of a stream, as an operator would.
    pub async fn change(&self, stream: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut settings = self.settings(stream).await?;
        change(&mut settings);
        self.api(&format!("STREAM.UPDATE.{stream}"), settings).await?;
        Ok(())
    }

    /// Makes a stream with exactly these settings.
    pub async fn create(&self, settings: Value) -> Result<()> {
        let name = settings["name"]
            .as_str()
            .context("the settings have no name")?
            .to_owned();
        self.api(&format!("STREAM.CREATE.{name}"), settings).await?;
        Ok(())
    }

    pub async fn delete(&self, stream: &str) -> Result<()> {
        self.api(&format!("STREAM.DELETE.{stream}"), Value::Null).await?;
        Ok(())
    }

    pub(crate) async fn api(&self, call: &str, request: Value) -> Result<Value> {
        let payload = match request {
            Value::Null => Bytes::new(),
            request => serde_json::to_vec(&request)?.into(),
        };
        let answer = self.client.request(format!("$JS.API.{call}"), payload).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        match answer.get("error") {
            Some(error) => bail!("{call}: {error}"),
            None => Ok(answer),
        }
    }
}

fn build(message: Outgoing) -> PublishMessage {
    let mut publish = PublishMessage::build().payload(message.data.into());
    for (name, value) in message.headers {
        publish = publish.header(name, value.as_str());
    }
    match message.id {
        Some(id) => publish.message_id(id),
        None => publish,
    }
}

fn headers(map: Option<&async_nats::HeaderMap>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, values) in map.into_iter().flat_map(|map| map.iter()) {
        all.extend(values.iter().map(|value| (name.to_string(), value.to_string())));
    }
    all
}
