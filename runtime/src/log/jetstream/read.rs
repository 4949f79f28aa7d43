//! The ordered reader: our own loop over an ephemeral pull consumer without
//! acknowledgements (PROTOCOL rule 7).
//!
//! The server delivers what was pulled and forgets about it, so that whatever
//! was in flight when a connection breaks never comes again from the same
//! consumer. The reader therefore counts: the sequence that the *consumer* gives
//! each message must rise by exactly one. Where it does not, and wherever the
//! consumer or the connection is lost, the reader is at its end. It makes no other
//! consumer: meanwhile the stream may have been deleted and made again, or have
//! lost its tail, and a consumer at the old sequence would deliver what came after
//! without a word. Who wants to read on looks at the stream first (rule 6).
//!
//! ```text
//!   consumer  1 2 3 4 5 6 . . .       its pulls:  [ 2000 ][ 2000 ]
//!   stream    7 9 12 13 20 21 . . .
//! ```
//!
//! **Invariant**: between `next` calls nothing is asked of the server, and at
//! most two pulls are unanswered, so what waits in memory is bounded, and is
//! less than the subscription holds before it would drop messages.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::{Error, Log, Reader, Stored};
use super::JetStream;
use super::wire::{headers, number};

/// Messages of one pull.
const PULL_MESSAGES: usize = 2_000;

/// Pulls that may be unanswered at a time: one being delivered, one waiting on
/// the server, so that it never runs dry.
const PULLS_MAX: usize = 2;

/// Bytes of one pull, or the server's largest message if that is more.
const PULL_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that the server counts beside headers and payload: subjects.
const MESSAGE_FRAME_BYTES: usize = 4 * 1024;

/// After this the server gives up a pull that it cannot fill, and says so.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// How often the server says that an unfilled pull is still known to it.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Silence after which the consumer counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(11);

/// Time after which the server removes a consumer that nobody pulls from.
const INACTIVE: Duration = Duration::from_secs(35);

/// `async-nats` drops messages beyond this for a slow subscriber; its default.
const SUBSCRIPTION_CAPACITY: usize = 64 * 1024;

const _: () = assert!(PULL_MESSAGES * PULLS_MAX * 2 < SUBSCRIPTION_CAPACITY);
const _: () = assert!(SILENCE_MAX.as_secs() > 2 * HEARTBEAT.as_secs());
const _: () = assert!(INACTIVE.as_secs() > PULL_EXPIRES.as_secs());

pub(super) struct OrderedReader {
    js: JetStream,
    /// Messages that the consumer had before it when it was made.
    found: u64,
    messages: Subscriber,
    inbox: String,
    pull_subject: String,
    /// The least sequence that the next message has.
    from: u64,
    /// Sequence that the consumer gives the next message.
    consumer_sequence: u64,
    /// Messages that were asked for and neither came nor were called off.
    awaited: usize,
    connects: watch::Receiver<u64>,
    /// Why the reader is at its end.
    ended: Option<String>,
}

/// What the server says of a consumer that it has made.
#[derive(Deserialize)]
struct Created {
    num_pending: u64,
}

/// What one message means for the reader.
enum Step {
    /// Appended, with so many still to come.
    Message {
        pending: u64,
    },
    Nothing,
    /// There will be no more.
    Lost(String),
}

impl OrderedReader {
    /// # Errors
    /// [`Error::NoStream`], or that no consumer could be made now.
    pub(super) async fn open(
        js: JetStream,
        stream: &str,
        filters: &[String],
        from: u64,
    ) -> Result<Self, Error> {
        let from = from.max(1);
        // Marks the connection as seen before anything is asked over it.
        let mut connects = js.inner.connects.clone();
        connects.borrow_and_update();
        let inbox = js.client().new_inbox();
        let name = inbox.rsplit('.').next().unwrap_or(&inbox).to_owned();
        let messages = js
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let config = json!({
            "stream_name": stream,
            "config": {
                "name": name,
                "ack_policy": "none",
                "replay_policy": "instant",
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from,
                "filter_subjects": filters,
                "mem_storage": true,
                "num_replicas": 1,
                "inactive_threshold": INACTIVE.as_nanos() as u64,
            },
        });
        let verb = format!("CONSUMER.CREATE.{stream}.{name}");
        let created: Created = js.api(stream, &verb, &config).await?;
        Ok(OrderedReader {
            found: created.num_pending,
            pull_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            js,
            messages,
            inbox,
            from,
            consumer_sequence: 1,
            awaited: 0,
            connects,
            ended: None,
        })
    }

    /// Asks for more, as far as there is room for another pull.
    async fn pull(&mut self) -> Result<(), Error> {
        let bytes_max = PULL_BYTES.max(self.js.max_payload() + MESSAGE_FRAME_BYTES);
        while self.awaited + PULL_MESSAGES <= PULL_MESSAGES * PULLS_MAX {
            let request = json!({
                "batch": PULL_MESSAGES,
                "max_bytes": bytes_max,
                "expires": PULL_EXPIRES.as_nanos() as u64,
                "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
            });
            self.js
                .client()
                .publish_with_reply(
                    self.pull_subject.clone(),
                    self.inbox.clone(),
                    Bytes::from(request.to_string()),
                )
                .await
                .map_err(|error| Error::Unavailable(error.to_string()))?;
            // Cancel safe: nothing is awaited between the publish and this.
            self.awaited += PULL_MESSAGES;
        }
        Ok(())
    }

    /// Takes one message.
    fn take(&mut self, message: Message, into: &mut Vec<Stored>) -> Step {
        if let Some(status) = message.status {
            return self.status(status, &message);
        }
        let Some(delivery) = message.reply.as_deref().and_then(Delivery::parse) else {
            return Step::Lost("a message came without its sequences".into());
        };
        if delivery.consumer_sequence != self.consumer_sequence || delivery.sequence < self.from {
            return Step::Lost("messages are missing".into());
        }
        self.consumer_sequence += 1;
        self.awaited = self.awaited.saturating_sub(1);
        self.from = delivery.sequence + 1;
        into.push(Stored {
            subject: message.subject.as_str().into(),
            sequence: delivery.sequence,
            time: delivery.time,
            headers: message.headers.as_ref().map(headers).unwrap_or_default(),
            data: message.payload,
        });
        Step::Message {
            pending: delivery.pending,
        }
    }

    /// The next message; `Err` says why there will be none.
    async fn wait(&mut self) -> Result<Message, &'static str> {
        let next = async {
            tokio::select! {
                biased;
                // What was in flight on the old connection is gone, and the stream may be another.
                _ = self.connects.changed() => Err("the connection was made anew"),
                message = self.messages.next() => message.ok_or("the subscription ended"),
            }
        };
        timeout(SILENCE_MAX, next).await.unwrap_or(Err("no sign of life"))
    }

    fn status(&mut self, status: StatusCode, message: &Message) -> Step {
        let description = message.description.as_deref().unwrap_or_default();
        let ended = match status {
            StatusCode::IDLE_HEARTBEAT => return Step::Nothing,
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => true,
            StatusCode::REQUEST_TERMINATED => {
                description.eq_ignore_ascii_case("Message Size Exceeds MaxBytes")
                    || description.eq_ignore_ascii_case("Batch Completed")
            }
            _ => false,
        };
        let unfilled = message
            .headers
            .as_ref()
            .and_then(|map| number(map, "Nats-Pending-Messages"));
        match unfilled {
            Some(unfilled) if ended => {
                let unfilled = usize::try_from(unfilled).unwrap_or(usize::MAX);
                self.awaited = self.awaited.saturating_sub(unfilled);
                Step::Nothing
            }
            _ => Step::Lost(format!("the server ended the pull ({status} {description})")),
        }
    }
}

#[async_trait]
impl Reader for OrderedReader {
    fn found(&self) -> u64 {
        self.found
    }

    async fn next(&mut self, into: &mut Vec<Stored>) -> Result<u64, Error> {
        loop {
            if let Some(why) = &self.ended {
                return Err(Error::Unavailable(why.clone()));
            }
            self.pull().await?;
            let mut message = match self.wait().await {
                Ok(message) => message,
                Err(why) => {
                    self.ended = Some(why.into());
                    continue;
                }
            };
            // From here on nothing is awaited, so that a call dropped half-way
            // loses nothing.
            let (mut taken, mut still) = (0, 0);
            loop {
                match self.take(message, into) {
                    Step::Message { pending } => {
                        taken += 1;
                        still = pending;
                    }
                    Step::Nothing => {}
                    Step::Lost(why) => {
                        self.ended = Some(why);
                        break;
                    }
                }
                if taken == PULL_MESSAGES {
                    break;
                }
                // Without `unconstrained` tokio would end this after 128 messages.
                match tokio::task::unconstrained(self.messages.next()).now_or_never() {
                    Some(Some(next)) => message = next,
                    Some(None) | None => break,
                }
            }
            if taken > 0 {
                return Ok(still);
            }
        }
    }
}

/// What the reply subject of a delivered message says of it.
#[derive(Debug, PartialEq)]
struct Delivery {
    sequence: u64,
    consumer_sequence: u64,
    /// Unix time in nanoseconds.
    time: u64,
    pending: u64,
}

impl Delivery {
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`,
    /// or with `<domain>.<account>` after `ACK`, and perhaps a token at the end.
    fn parse(reply: &str) -> Option<Delivery> {
        let numbers = match reply.split('.').count() {
            9 => 5,
            11.. => 7,
            _ => return None,
        };
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.').skip(numbers - 2);
        let mut number = || tokens.next()?.parse().ok();
        Some(Delivery {
            sequence: number()?,
            consumer_sequence: number()?,
            time: number()?,
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_subject() {
        let expected = Some(Delivery {
            sequence: 12,
            consumer_sequence: 3,
            time: 1_785_000_000_000_000_001,
            pending: 9,
        });
        for reply in [
            "$JS.ACK.S.c.1.12.3.1785000000000000001.9",
            "$JS.ACK._.ACC.S.c.1.12.3.1785000000000000001.9",
            "$JS.ACK.hub.ACC.S.c.1.12.3.1785000000000000001.9.tok",
        ] {
            assert_eq!(Delivery::parse(reply), expected, "{reply}");
        }
        for reply in [
            "",
            "$JS.ACK.S.c.1.12.3.1785.x",
            "$JS.ACK.S.c.1.12",
            "_INBOX.1.2.3.4.5.6.7.8",
        ] {
            assert_eq!(Delivery::parse(reply), None, "{reply}");
        }
    }
}
