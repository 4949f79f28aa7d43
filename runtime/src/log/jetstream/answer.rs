//! Answering requests of others: the one thing beside the log that hosts do over NATS.

use std::future::Future;

use bytes::Bytes;
use futures::StreamExt as _;
use tracing::warn;

use super::super::Error;
use super::JetStream;

/// What somebody asks.
#[derive(Debug)]
pub struct Request {
    pub subject: String,
    pub data: Bytes,
}

impl JetStream {
    /// Answers requests on `subject` (wildcards allowed), of which the server gives each to
    /// one of all that do so, until the connection is closed. At most `at_once` at a time;
    /// others wait in the client.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn answer<F>(
        &self,
        subject: &str,
        at_once: usize,
        answer: impl Fn(Request) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Bytes>,
    {
        const QUEUE: &str = "weir";
        let subscribed = self
            .client()
            .queue_subscribe(subject.to_owned(), QUEUE.into())
            .await;
        let requests = subscribed.map_err(|error| Error::Unavailable(error.to_string()))?;
        requests
            .for_each_concurrent(at_once, |message| {
                let answered = answer(Request {
                    subject: message.subject.to_string(),
                    data: message.payload,
                });
                async {
                    // Without anybody to answer there is nothing to ask for.
                    let Some(reply) = message.reply else { return };
                    let answered = answered.await;
                    if let Err(error) = self.client().publish(reply, answered).await {
                        warn!(%error, "a request could not be answered");
                    }
                }
            })
            .await;
        Ok(())
    }
}
