//! Appending: one message as an ordinary publish, several as an atomic batch
//! (ADR-50), and what each answer means.
//!
//! A batch is sent without waiting: only its last message asks for a reply. If
//! one of the others is refused, the server forgets the batch and refuses the
//! last one, so nothing is visible before the last is taken.

use std::str::FromStr;
use std::time::Duration;

use async_nats::Subject;
use async_nats::header::{
    HeaderMap, HeaderName, HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM,
};
use serde::Deserialize;

use super::super::{Append, AppendError, Appended, Error, Log};
use super::wire::rfc3339;
use super::{ApiError, JetStream, RequestFailed, STREAM_NOT_FOUND};
use crate::model::limits::BATCH_HEADER_BYTES;
use crate::model::pattern::matches;

/// How long an append may take before its outcome counts as unknown.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The server's limit for the headers of one message, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// `NATS/1.0`, and the line ends around the headers.
const HEADER_FRAME_BYTES: usize = 12;

const BATCH_ID: HeaderName = HeaderName::from_static("Nats-Batch-Id");
const BATCH_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Batch-Sequence");
const BATCH_COMMIT: HeaderName = HeaderName::from_static("Nats-Batch-Commit");
const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
const EXPECTED_SUBJECT: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");
const ROLLUP: HeaderName = HeaderName::from_static("Nats-Rollup");
const SCHEDULE: HeaderName = HeaderName::from_static("Nats-Schedule");
const SCHEDULE_TARGET: HeaderName = HeaderName::from_static("Nats-Schedule-Target");
const SCHEDULE_NEXT: HeaderName = HeaderName::from_static("Nats-Schedule-Next");
const SCHEDULER: HeaderName = HeaderName::from_static("Nats-Scheduler");

/// The server's answer to a publish.
#[derive(Debug, Deserialize)]
struct Ack {
    error: Option<ApiError>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    /// Messages in the batch.
    count: Option<usize>,
}

impl JetStream {
    pub(super) async fn publish(&self, stream: &str, batch: Vec<Append>) -> Result<Appended, AppendError> {
        let max_payload = self.max_payload();
        for append in &batch {
            check_size(append, max_payload)?;
        }
        if !self.connected() {
            // The client would keep it and send it whenever it is back.
            return Err(AppendError::Busy {
                code: 0,
                description: "not connected to NATS; nothing was sent".into(),
            });
        }
        match tokio::time::timeout(APPEND_TIMEOUT, self.send(stream, batch)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AppendError::Unknown(format!(
                "none within {} s",
                APPEND_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn send(&self, stream: &str, mut batch: Vec<Append>) -> Result<Appended, AppendError> {
        let count = batch.len();
        let Some(last) = batch.pop() else {
            return Err(refused(0, "an empty batch"));
        };
        let mut last_headers = headers(&last)?;
        let expected_stream = HeaderValue::from_str(stream).map_err(|error| refused(0, error))?;
        last_headers.insert(NATS_EXPECTED_STREAM, expected_stream);
        let mut denied = self.inner.denied.subscribe();
        let mut subjects = Vec::with_capacity(count - 1);
        if count > 1 {
            // The client's inboxes end in an id that is unique for all processes.
            let inbox = self.client().new_inbox();
            let id = inbox.rsplit('.').next().unwrap_or(&inbox);
            let id = HeaderValue::from_str(id).map_err(|error| refused(0, error))?;
            // Headers are all made before the first message goes: a batch
            // broken off half-way would hold a place on the server for 10 s.
            let mut messages = Vec::with_capacity(count - 1);
            for (index, append) in batch.into_iter().enumerate() {
                let mut headers = headers(&append)?;
                headers.insert(BATCH_ID, id.clone());
                headers.insert(BATCH_SEQUENCE, HeaderValue::from(index + 1));
                let subject = Subject::from(append.subject);
                subjects.push(subject.clone());
                messages.push((subject, headers, append.data));
            }
            last_headers.insert(BATCH_ID, id);
            last_headers.insert(BATCH_SEQUENCE, HeaderValue::from(count));
            last_headers.insert(BATCH_COMMIT, "1");
            for (subject, headers, data) in messages {
                self.client()
                    .publish_with_headers(subject, headers, data)
                    .await
                    .map_err(|error| refused(0, error))?; // nothing is visible without the last message
            }
        }
        let request = async_nats::Request::new()
            .headers(last_headers)
            .payload(last.data);
        match self.request(&last.subject, request, APPEND_TIMEOUT).await {
            Ok(answer) => match understand(stream, count, &answer.payload) {
                // The batch has a hole: one of its messages was not permitted, or went elsewhere.
                Err(error @ AppendError::Busy { code, .. }) => match denied.try_recv() {
                    Ok(subject) => Err(not_permitted(&subject)),
                    Err(_) if code == BATCH_INCOMPLETE => {
                        Err(self.explain_hole(stream, &subjects, error).await)
                    }
                    Err(_) => Err(error),
                },
                outcome => outcome,
            },
            Err(RequestFailed::Denied) => Err(not_permitted(&last.subject)),
            Err(RequestFailed::NoAnswer(detail)) => Err(AppendError::Unknown(detail)),
            Err(RequestFailed::NoResponders) => Err(self.explain_silence(stream, &last.subject).await),
        }
    }

    /// The server does not say which message of a batch it misses. One whose subject
    /// the stream does not have will always be missing.
    async fn explain_hole(&self, stream: &str, subjects: &[Subject], error: AppendError) -> AppendError {
        match self.stream_state(stream).await {
            Ok(state) => subjects
                .iter()
                .find(|subject| !state.settings.subjects.iter().any(|s| matches(s, subject)))
                .map_or(error, |subject| not_taken(stream, subject)),
            Err(_) => error,
        }
    }

    /// Nobody listens on the subject: the stream is gone or does not have it, or
    /// has no leader just now. Nothing was stored in any case.
    async fn explain_silence(&self, stream: &str, subject: &str) -> AppendError {
        match self.stream_state(stream).await {
            Err(Error::NoStream(_)) => refused(STREAM_NOT_FOUND, format!("stream {stream} does not exist")),
            Ok(state) if !state.settings.subjects.iter().any(|s| matches(s, subject)) => {
                not_taken(stream, subject)
            }
            Ok(_) | Err(_) => AppendError::Busy {
                code: 503,
                description: format!("stream {stream} has no leader"),
            },
        }
    }
}

fn refused(code: u64, description: impl ToString) -> AppendError {
    AppendError::Refused {
        code,
        description: description.to_string(),
    }
}

fn not_taken(stream: &str, subject: &str) -> AppendError {
    refused(0, format!("stream {stream} does not have subject {subject}"))
}

fn not_permitted(subject: &str) -> AppendError {
    refused(0, format!("this user may not publish to {subject}"))
}

/// The server drops the connection over a message that is too large, so it must not go out.
fn check_size(append: &Append, max_payload: usize) -> Result<(), AppendError> {
    let headers: usize = append.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
    let schedule = append.schedule.as_ref().map_or(0, |schedule| {
        schedule.target.len() + schedule.replaces.as_ref().map_or(0, String::len) + BATCH_HEADER_BYTES
    });
    let headers = HEADER_FRAME_BYTES + headers + schedule + BATCH_HEADER_BYTES;
    if headers > HEADER_BYTES_MAX {
        return Err(AppendError::TooLarge(format!(
            "{headers} bytes of headers on {}; NATS takes {HEADER_BYTES_MAX}",
            append.subject
        )));
    }
    let size = headers + append.data.len();
    if size > max_payload {
        return Err(AppendError::TooLarge(format!(
            "{size} bytes on {}; NATS takes {max_payload} (max_payload)",
            append.subject
        )));
    }
    Ok(())
}

fn headers(append: &Append) -> Result<HeaderMap, AppendError> {
    let mut map = HeaderMap::new();
    for (name, value) in &append.headers {
        let name =
            HeaderName::from_str(name).map_err(|error| refused(0, format!("header {name:?}: {error}")))?;
        let value =
            HeaderValue::from_str(value).map_err(|error| refused(0, format!("header {name}: {error}")))?;
        map.append(name, value);
    }
    if let Some(expected) = append.expected {
        map.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
    }
    if let Some((subject, expected)) = &append.expected_of {
        map.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(*expected));
        let subject = HeaderValue::from_str(subject).map_err(|error| refused(0, error))?;
        map.insert(EXPECTED_SUBJECT, subject);
    }
    if let Some(ttl_s) = append.ttl_s {
        map.insert(TTL, format!("{ttl_s}s"));
    }
    if append.rollup {
        map.insert(ROLLUP, "sub");
    }
    if let Some(schedule) = &append.schedule {
        let subject = |text: &str| HeaderValue::from_str(text).map_err(|error| refused(0, error));
        map.insert(SCHEDULE, format!("@at {}", rfc3339(schedule.due)));
        map.insert(SCHEDULE_TARGET, subject(&schedule.target)?);
        if let Some(replaces) = &schedule.replaces {
            map.insert(SCHEDULE_NEXT, "purge");
            map.insert(SCHEDULER, subject(replaces)?);
        }
    }
    Ok(map)
}

fn understand(stream: &str, count: usize, payload: &[u8]) -> Result<Appended, AppendError> {
    let ack: Ack = serde_json::from_slice(payload)
        .map_err(|error| AppendError::Unknown(format!("an answer that is none: {error}")))?;
    if let Some(error) = ack.error {
        return Err(meaning(error));
    }
    if ack.stream != stream || ack.seq == 0 || (count > 1 && ack.count != Some(count)) {
        return Err(AppendError::Unknown(format!(
            "{count} messages to {stream} were answered as {:?} to {} at {}",
            ack.count, ack.stream, ack.seq
        )));
    }
    Ok(Appended { sequence: ack.seq })
}

/// `err_code` of a batch that ends and of which the server has not seen every message.
const BATCH_INCOMPLETE: u64 = 10176;

/// What an error says about the batch. Codes are those of the server's
/// `errors.json`, where most of them have no other explanation than their text.
fn meaning(error: ApiError) -> AppendError {
    let (code, description) = (error.err_code, error.description);
    match code {
        10071 => AppendError::Fenced(description),
        // Message, or its headers, over the stream's or the server's limit.
        10054 | 10097 => AppendError::TooLarge(description),
        // Another append on a fenced subject under way (10164), sequences not
        // known yet (10163), a message id in process (10158), too many requests
        // (10167), batch incomplete (10176) or too large (10199), too many
        // batches (10210, 10211), no meta leader (10008), not the leader (10009).
        10008 | 10009 | 10158 | 10163 | 10164 | 10167 | 10176 | 10199 | 10210 | 10211 => {
            AppendError::Busy { code, description }
        }
        // The store said no. A full stream is found before anything is stored;
        // a disk that fails may do so half-way.
        10077 if description.contains("maximum") => AppendError::Refused { code, description },
        10077 => AppendError::Unknown(format!("{description} (code {code})")),
        // Account or server out of memory or storage: 503 or 500, but not for a moment.
        10023 | 10028 | 10047 => AppendError::Refused { code, description },
        _ if matches!(error.code, 429 | 503) => AppendError::Busy { code, description },
        _ if error.code >= 500 => AppendError::Unknown(format!("{description} (code {code})")),
        _ => AppendError::Refused { code, description },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let meaning = |code, err_code, description: &str| {
            meaning(ApiError {
                code,
                err_code,
                description: description.into(),
            })
        };
        assert!(matches!(
            meaning(400, 10071, "wrong last sequence: 5"),
            AppendError::Fenced(_)
        ));
        assert!(matches!(
            meaning(400, 10164, ""),
            AppendError::Busy { code: 10164, .. }
        ));
        assert!(matches!(
            meaning(503, 10077, "maximum messages exceeded"),
            AppendError::Refused { .. }
        ));
        assert!(matches!(
            meaning(503, 10077, "no space left on device"),
            AppendError::Unknown(_)
        ));
        assert!(matches!(meaning(400, 10054, ""), AppendError::TooLarge(_)));
        assert!(matches!(meaning(503, 10999, ""), AppendError::Busy { .. }));
        assert!(matches!(meaning(500, 10999, ""), AppendError::Unknown(_)));
        assert!(matches!(
            meaning(400, 10109, "invalid operation on sealed stream"),
            AppendError::Refused { .. }
        ));
    }

    #[test]
    fn an_answer_for_another_stream_or_count_settles_nothing() {
        let ok = br#"{"stream":"L","seq":7,"batch":"x","count":3}"#;
        assert_eq!(understand("L", 3, ok), Ok(Appended { sequence: 7 }));
        assert!(matches!(understand("M", 3, ok), Err(AppendError::Unknown(_))));
        assert!(matches!(understand("L", 2, ok), Err(AppendError::Unknown(_))));
        assert!(matches!(understand("L", 1, b"+OK"), Err(AppendError::Unknown(_))));
    }
}
