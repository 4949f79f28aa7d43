//! Answering requests of others: the one thing beside the log that hosts do over NATS.

use std::future::Future;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use tracing::warn;

use super::super::Error;
use super::{JetStream, REQUEST_TIMEOUT};

/// What somebody asks.
#[derive(Debug)]
pub struct Request {
    pub subject: String,
    pub data: Bytes,
}

/// Requests of others that are still to be answered.
pub struct Requests {
    client: Client,
    arriving: Subscriber,
}

impl JetStream {
    /// Takes requests on `subject` (wildcards allowed), of which the server gives each to one of
    /// all that do so. From here on the server knows: whoever asks is answered.
    ///
    /// # Errors
    /// The connection does not stand.
    pub async fn requests(&self, subject: &str) -> Result<Requests, Error> {
        const QUEUE: &str = "weir";
        let client = self.client().clone();
        let unavailable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
        let subscribed = client.queue_subscribe(subject.to_owned(), QUEUE.into()).await;
        let arriving = subscribed.map_err(|error| unavailable(&error))?;
        match tokio::time::timeout(REQUEST_TIMEOUT, client.flush()).await {
            Ok(flushed) => flushed.map_err(|error| unavailable(&error))?,
            Err(elapsed) => return Err(unavailable(&elapsed)),
        }
        Ok(Requests { client, arriving })
    }
}

impl Requests {
    /// Answers until the connection is closed. At most `at_once` at a time; others wait in the client.
    pub async fn answer<F>(self, at_once: usize, answer: impl Fn(Request) -> F)
    where
        F: Future<Output = Bytes>,
    {
        let Requests { client, arriving } = self;
        arriving
            .for_each_concurrent(at_once, |message| {
                let answered = answer(Request {
                    subject: message.subject.to_string(),
                    data: message.payload,
                });
                let client = &client;
                async move {
                    // Without anybody to answer there is nothing to ask for.
                    let Some(reply) = message.reply else { return };
                    let answered = answered.await;
                    if let Err(error) = client.publish(reply, answered).await {
                        warn!(%error, "a request could not be answered");
                    }
                }
            })
            .await;
    }
}
