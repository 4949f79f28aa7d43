//! Requests to the outside world, for activities (feature `http`).
//!
//! ```
//! use weir_guest::prelude::*;
//! use weir_guest::http;
//!
//! #[handler]
//! fn notify(event: Event) -> Result {
//!     let response = http::post("https://api.example.com/notify").json(event.key())?.send()?.ok()?;
//!     output::emit("notifications.sent", &response.status)
//! }
//! # let answer = http::Response::new(202);
//! # let mut host = testing::Host::new().respond("POST", "https://api.example.com/notify", answer);
//! # let effects = host.deliver(notify, testing::event("orders.shipped").key("7")).unwrap();
//! # assert_eq!(effects.requests[0].body, br#""7""#);
//! # assert_eq!(effects.emitted[0].data, b"202");
//! ```
//!
//! A handler that has this module is an *activity*: its `handler.toml` must name the hosts that it calls
//! (`[http] hosts`). **A request may be sent more than once**: whenever the event is executed again, after
//! a retry or a crash. The host gives each request an `Idempotency-Key`, which is the same then, so that a server that
//! knows such keys does the work once. A second request of the same invocation to the same URL is another
//! request and has another key: to try again, return [`Error::retry`](crate::Error::retry).
//!
//! Nothing follows redirects, and the time that a request waits counts for `time_ms`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error;

/// A request that was not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is sent without `send`"]
pub struct Request {
    pub method: String,
    /// Absolute, like `https://api.example.com/notify?x=1`.
    pub url: String,
    /// In the order in which they were added.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How long connecting, the response's first byte, and each pause in its body may take;
    /// `None`: as long as the invocation may.
    pub timeout: Option<Duration>,
}

pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

pub fn post(url: impl Into<String>) -> Request {
    request("POST", url)
}

pub fn put(url: impl Into<String>) -> Request {
    request("PUT", url)
}

pub fn delete(url: impl Into<String>) -> Request {
    request("DELETE", url)
}

/// A request of any method.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
    }
}

impl Request {
    /// Adds a header. An `Idempotency-Key` takes the place of the host's.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Makes a value the body, as JSON, and says so in `Content-Type`.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> error::Result<Self> {
        let body = serde_json::to_vec(value)?;
        Ok(self.header("Content-Type", "application/json").body(body))
    }

    /// Bounds each wait, which is otherwise bound by what is left of the invocation's time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request, and waits for the whole response. Any status is one: see [`Response::ok`].
    ///
    /// # Errors
    /// There is no response. `?` makes a *retry* of it, or a *reject* where the request is not
    /// allowed and never will be.
    pub fn send(self) -> Result<Response, Error> {
        crate::host::calls::send(self)
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// One without headers and body, for tests.
    pub fn new(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The same with another body.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Response {
        self.body = body.into();
        self
    }

    /// The first header of that name, whatever its letters' case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The response, if its status says that all went well.
    ///
    /// # Errors
    /// A *retry* where another attempt may do better: 408, 409, 425, 429 and all from 500. A *reject* otherwise.
    ///
    /// ```
    /// use weir_guest::http::Response;
    /// assert!(Response::new(204).ok().is_ok());
    /// assert!(!Response::new(503).ok().unwrap_err().is_reject());
    /// assert!(Response::new(404).ok().unwrap_err().is_reject());
    /// ```
    pub fn ok(self) -> error::Result<Response> {
        // 409 is what a server answers while another request with the same key is under way.
        match self.status {
            200..300 => Ok(self),
            408 | 409 | 425 | 429 | 500.. => Err(error::Error::retry(self.refusal())),
            _ => Err(error::Error::reject(self.refusal())),
        }
    }

    fn refusal(&self) -> String {
        /// Characters of the body that are worth reading in a log.
        const SHOWN_MAX: usize = 200;
        let text: String = String::from_utf8_lossy(&self.body)
            .chars()
            .take(SHOWN_MAX)
            .collect();
        match text.is_empty() {
            true => format!("the server answered {}", self.status),
            false => format!("the server answered {}: {text}", self.status),
        }
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// It is none of that type.
    pub fn json<T: DeserializeOwned>(&self) -> error::Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    reason: String,
    denied: bool,
}

impl Error {
    pub(crate) fn new(reason: impl Into<String>) -> Error {
        Error {
            reason: reason.into(),
            denied: false,
        }
    }

    /// Of a request that will never be sent.
    pub(crate) fn denied(reason: impl Into<String>) -> Error {
        Error {
            reason: reason.into(),
            denied: true,
        }
    }

    /// Whether the request was not allowed or no request at all, so that trying again is
    /// of no use. Nothing was sent.
    pub fn is_denied(&self) -> bool {
        self.denied
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

/// Parts of an absolute URL: whether it is `https`, host and port, path and query.
pub(crate) fn parts(url: &str) -> Result<(bool, &str, &str), Error> {
    let wrong = || Error::denied(format!("{url:?} is no absolute http or https URL"));
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let https = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(wrong()),
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest.split_at(path_at) {
        ("", _) => Err(wrong()),
        (authority, "") => Ok((https, authority, "/")),
        (authority, path) => Ok((https, authority, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_fall_into_their_parts() {
        for (url, expected) in [
            ("https://a.net", (true, "a.net", "/")),
            ("http://a.net:80/x?y=1#z", (false, "a.net:80", "/x?y=1")),
            ("https://a.net?y", (true, "a.net", "?y")),
        ] {
            assert_eq!(parts(url), Ok(expected), "{url}");
        }
        for url in ["a.net/x", "ftp://a.net/", "https://", "https:///x", ""] {
            assert!(parts(url).unwrap_err().is_denied(), "{url}");
        }
    }
}
