//! Responses that were written down beforehand: what `weir test` answers requests with, so that a
//! test needs no network.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use wasmtime_wasi_http::WasiBody;

use super::{ErrorCode, Failed, Sent};

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// A request that was made, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: Method,
    pub url: String,
    pub body: Bytes,
    /// `None`: there is no answer for it.
    pub status: Option<StatusCode>,
}

/// Answers by method and URL. Several of one are given in their order, the last of them again and again.
#[derive(Debug, Default)]
pub struct Answers {
    answers: Mutex<HashMap<(Method, String), VecDeque<Answer>>>,
    asked: Mutex<Vec<Asked>>,
}

impl Answers {
    /// Adds an answer behind those that its method and URL have.
    pub fn push(&mut self, method: Method, url: String, answer: Answer) {
        let answers = self.answers.get_mut().unwrap_or_else(PoisonError::into_inner);
        answers.entry((method, url)).or_default().push_back(answer);
    }

    /// What was asked since the last time.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn answer(&self, request: Request<WasiBody>) -> Sent {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|error| {
            let detail = format!("the guest ended the body of its request too early: {error}");
            Failed::new(ErrorCode::HttpRequestBodySize(None), detail)
        })?;
        let (method, url) = (parts.method, parts.uri.to_string());
        let answer = self.next(&method, &url);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Asked {
            method,
            url,
            body: body.to_bytes(),
            status: answer.as_ref().map(|answer| answer.status),
        });
        let answer = answer.ok_or_else(|| {
            Failed::new(
                ErrorCode::ConnectionRefused,
                "there is no response for this method and URL",
            )
        })?;
        let body = Full::new(answer.body).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = answer.status;
        response.headers_mut().extend(answer.headers);
        Ok(response)
    }

    fn next(&self, method: &Method, url: &str) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = answers.get_mut(&(method.clone(), url.to_owned()))?;
        match queue.len() {
            0 | 1 => queue.front().cloned(),
            _ => queue.pop_front(),
        }
    }
}
