//! Reads that are one request, or a few of them.
//!
//! Two kinds of answers: the leader's (`STREAM.MSG.GET`, one message in JSON)
//! and a direct get's (ADR-31: any replica, many messages on an inbox of our
//! own, closed by an empty message with status 204).
//!
//! The last messages of many subjects (PROTOCOL rule 10), step by step:
//!
//! 1. Filters go out in chunks that fit a request.
//! 2. 413 says more than 1,024 results: halve the chunk. Where one filter alone
//!    has that many, ask the leader for its subjects and go on with those.
//! 3. 204 with messages pending says that a byte limit was reached. Results
//!    come in order of sequence, so ask again from the next sequence on. A
//!    subject that was still to come can only have moved up, as long as the
//!    replica that answers is not behind the first one; else start the chunk again.
//! 4. A chunk without any result is answered by a bare 404, which says nothing of
//!    how recent it is. If another chunk found something, that subject is asked
//!    for along with the empty chunk.
//! 5. `up_to` is the lowest of all the parts.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Error, Log, Snapshot, Stored};
use super::wire::{from_direct_get, headers, nanos, number};
use super::{JetStream, malformed};

/// Silence in the middle of an answer after which the rest will not come.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that one direct get may answer: far below the 64 MB that a server will
/// hold for a slow client.
const DIRECT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Messages that one direct get may answer.
const DIRECT_MESSAGES_MAX: usize = 4_000;

/// Filters in one request: as many literal subjects as may be answered at once.
const FILTERS_MAX: usize = 1_000;

/// How often a chunk is begun again because a lagging replica came in between.
const LAG_RETRIES: usize = 5;

/// `err_code` of "no message found".
const NO_MESSAGE: u64 = 10037;

/// All of one direct get's answer.
enum Direct {
    Messages {
        messages: Vec<Stored>,
        pending: u64,
        up_to: Option<u64>,
    },
    /// 404, which says nothing of how recent it is.
    Nothing,
    /// 413
    TooMany,
}

#[derive(Deserialize)]
struct RawAnswer {
    message: RawMessage,
}

impl JetStream {
    /// One message from the leader.
    pub(super) async fn get_from_leader(&self, stream: &str, body: &Value) -> Result<Option<Stored>, Error> {
        let verb = format!("STREAM.MSG.GET.{stream}");
        let raw = match self.api::<RawAnswer>(stream, &verb, body).await {
            Ok(answer) => answer.message,
            Err(Error::Refused { code: NO_MESSAGE, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let message = StreamMessage::try_from(raw).map_err(|error| malformed(&verb, error))?;
        Ok(Some(Stored {
            subject: message.subject.as_str().into(),
            sequence: message.sequence,
            time: nanos(message.time)?,
            headers: headers(&message.headers),
            data: message.payload,
        }))
    }

    pub(super) async fn scan_direct(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        max: usize,
    ) -> Result<Vec<Stored>, Error> {
        let mut found = Vec::new();
        let mut from = from.max(1);
        while found.len() < max {
            let batch = (max - found.len()).min(DIRECT_MESSAGES_MAX);
            let body =
                json!({ "seq": from, "next_by_subj": filter, "batch": batch, "max_bytes": DIRECT_BYTES_MAX });
            match self.direct(stream, &body).await? {
                Direct::Messages {
                    messages, pending, ..
                } => {
                    let Some(last) = messages.last() else { break };
                    from = last.sequence + 1;
                    found.extend(messages);
                    if pending == 0 {
                        break;
                    }
                }
                Direct::Nothing => break,
                Direct::TooMany => return Err(malformed("a direct get", "413 to a request for one subject")),
            }
        }
        Ok(found)
    }

    pub(super) async fn last_of_many(&self, stream: &str, filters: &[String]) -> Result<Snapshot, Error> {
        let bytes_max = self.max_payload() / 2;
        let mut chunks = chunks(filters, bytes_max);
        let mut empty: Vec<Vec<String>> = Vec::new();
        let mut messages: HashMap<Box<str>, Stored> = HashMap::new();
        let mut up_to = Lowest::default();
        let mut sentinel = None;
        loop {
            while let Some(chunk) = chunks.pop() {
                match self.last_of_chunk(stream, &chunk, &mut messages).await? {
                    Some(Some(part)) => up_to.add(Some(part)),
                    Some(None) if sentinel.is_none() => empty.push(chunk),
                    Some(None) => up_to.add(None), // the sentinel has gone meanwhile
                    None if chunk.len() > 1 => {
                        let (left, right) = chunk.split_at(chunk.len() / 2);
                        chunks.push(left.to_vec());
                        chunks.push(right.to_vec());
                    }
                    None => {
                        let (subjects, last) = self.subjects(stream, &chunk[0]).await?;
                        // A subject that appeared since is not among them.
                        up_to.add(Some(last));
                        chunks.extend(self::chunks(&subjects, bytes_max));
                    }
                }
            }
            if empty.is_empty() {
                break;
            }
            sentinel = messages.keys().next().cloned();
            let Some(sentinel) = &sentinel else {
                up_to.add(None);
                break;
            };
            for mut chunk in empty.drain(..) {
                chunk.push(sentinel.to_string());
                chunks.push(chunk);
            }
        }
        Ok(Snapshot {
            messages: messages.into_values().collect(),
            up_to: up_to.get(),
        })
    }

    /// `None` where there are too many results; else up to which sequence, if that was said.
    async fn last_of_chunk(
        &self,
        stream: &str,
        chunk: &[String],
        into: &mut HashMap<Box<str>, Stored>,
    ) -> Result<Option<Option<u64>>, Error> {
        'again: for _ in 0..LAG_RETRIES {
            let (mut from, mut up_to) = (0, Lowest::default());
            loop {
                let body = json!({ "multi_last": chunk, "seq": from, "max_bytes": DIRECT_BYTES_MAX });
                match self.direct(stream, &body).await? {
                    Direct::TooMany => return Ok(None),
                    Direct::Nothing if from == 0 => return Ok(Some(None)),
                    // What is pending cannot have gone, unless somebody purges: look again.
                    Direct::Nothing => continue 'again,
                    Direct::Messages {
                        messages,
                        pending,
                        up_to: part,
                    } => {
                        if from > 0 && part < up_to.get() {
                            continue 'again;
                        }
                        up_to.add(part);
                        if let Some(last) = messages.last() {
                            from = last.sequence + 1;
                        }
                        let progress = !messages.is_empty();
                        for stored in messages {
                            let newer = into
                                .get(&stored.subject)
                                .is_none_or(|old| old.sequence < stored.sequence);
                            if newer {
                                into.insert(stored.subject.clone(), stored);
                            }
                        }
                        if pending == 0 {
                            return Ok(Some(up_to.get()));
                        }
                        if !progress {
                            return Err(malformed("a direct get", "messages pending, but none sent"));
                        }
                    }
                }
            }
        }
        Err(Error::Unavailable(format!(
            "replicas of {stream} lag too far apart for one reading"
        )))
    }

    /// Every subject that matches `filter`, and the last sequence before they were listed.
    async fn subjects(&self, stream: &str, filter: &str) -> Result<(Vec<String>, u64), Error> {
        let (mut subjects, mut last) = (Vec::new(), None);
        loop {
            let body = json!({ "subjects_filter": filter, "offset": subjects.len() });
            let info = self.stream_info(stream, &body).await?;
            last.get_or_insert(info.state.last_seq);
            let page = info.state.subjects.unwrap_or_default();
            let done = page.is_empty() || subjects.len() + page.len() >= info.total;
            subjects.extend(page.into_keys());
            if done {
                return Ok((subjects, last.unwrap_or(0)));
            }
        }
    }

    /// Sends a direct get and gathers its answer.
    async fn direct(&self, stream: &str, body: &Value) -> Result<Direct, Error> {
        let unavailable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
        let inbox = self.client().new_inbox();
        let mut answers = self
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| unavailable(&error))?;
        let payload = serde_json::to_vec(body).map_err(|error| malformed("a direct get", error))?;
        self.client()
            .publish_with_reply(
                format!("$JS.API.DIRECT.GET.{stream}"),
                inbox,
                Bytes::from(payload),
            )
            .await
            .map_err(|error| unavailable(&error))?;
        let mut messages = Vec::new();
        loop {
            let answer = tokio::time::timeout(DIRECT_TIMEOUT, answers.next())
                .await
                .map_err(|_| {
                    Error::Unavailable(format!("no answer to a direct get within {DIRECT_TIMEOUT:?}"))
                })?
                .ok_or_else(|| Error::Unavailable("the client is closed".into()))?;
            match answer.status.map(|status| status.as_u16()) {
                None => messages.push(from_direct_get(answer)?),
                Some(204) => return end_of_answer(messages, &answer),
                Some(404) => return Ok(Direct::Nothing),
                Some(413) => return Ok(Direct::TooMany),
                Some(503) => return Err(self.explain_no_direct_get(stream).await),
                Some(code) => {
                    return Err(Error::Refused {
                        what: "a direct get".into(),
                        code: code.into(),
                        description: answer.description.unwrap_or_default(),
                    });
                }
            }
        }
    }

    async fn explain_no_direct_get(&self, stream: &str) -> Error {
        match self.stream_state(stream).await {
            Ok(state) if !state.settings.direct_get => Error::Refused {
                what: "a direct get".into(),
                code: 503,
                description: format!("stream {stream} does not allow direct gets (allow_direct)"),
            },
            Ok(_) => Error::Unavailable(format!("stream {stream} is not ready")),
            Err(error) => error,
        }
    }
}

fn end_of_answer(messages: Vec<Stored>, end: &Message) -> Result<Direct, Error> {
    let map = end.headers.as_ref();
    let pending = map
        .and_then(|map| number(map, "Nats-Num-Pending"))
        .ok_or_else(|| malformed("a direct get", "an end without Nats-Num-Pending"))?;
    Ok(Direct::Messages {
        messages,
        pending,
        up_to: map.and_then(|map| number(map, "Nats-UpTo-Sequence")),
    })
}

/// Filters in pieces that one request can hold.
fn chunks(filters: &[String], bytes_max: usize) -> Vec<Vec<String>> {
    let mut chunks: Vec<Vec<String>> = Vec::new();
    let mut bytes = usize::MAX;
    for filter in filters {
        let size = filter.len() + 3; // quotes and comma
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < FILTERS_MAX && bytes + size <= bytes_max => {
                chunk.push(filter.clone());
                bytes += size;
            }
            _ => {
                chunks.push(vec![filter.clone()]);
                bytes = size;
            }
        }
    }
    chunks
}

/// The lowest of several `up_to`; none as soon as one of them is unknown.
#[derive(Default)]
struct Lowest {
    lowest: Option<u64>,
    unknown: bool,
}

impl Lowest {
    fn add(&mut self, part: Option<u64>) {
        match part {
            Some(part) => self.lowest = Some(self.lowest.map_or(part, |lowest| lowest.min(part))),
            None => self.unknown = true,
        }
    }

    fn get(&self) -> Option<u64> {
        if self.unknown { None } else { self.lowest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_to_count_and_bytes() {
        let filters: Vec<String> = (0..2_500).map(|i| format!("s.{i:04}")).collect();
        let parts = chunks(&filters, usize::MAX / 2);
        assert_eq!(
            parts.iter().map(Vec::len).collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );
        let parts = chunks(&filters, 90);
        assert!(parts.iter().all(|part| part.len() == 10), "{}", parts[0].len());
        assert_eq!(parts.concat(), filters);
        assert!(chunks(&[], 100).is_empty());
    }

    #[test]
    fn one_unknown_part_makes_the_whole_unknown() {
        let mut lowest = Lowest::default();
        assert_eq!(lowest.get(), None);
        lowest.add(Some(7));
        lowest.add(Some(5));
        assert_eq!(lowest.get(), Some(5));
        lowest.add(None);
        assert_eq!(lowest.get(), None);
    }
}
