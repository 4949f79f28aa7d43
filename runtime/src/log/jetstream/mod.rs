//! The log on a NATS server, or a cluster of them. The only folder that imports
//! `async-nats`, of which it uses the connection and little else: JetStream's
//! own requests are written here as JSON, because the protocol needs fields and
//! answers that the crate's structs do not have.
//!
//! * `answer`: answering requests of others.
//! * `append`: single messages and atomic batches, and what each error code means.
//! * `query`: reads that are one request: last, get, scan, last of many.
//! * `read`: the ordered reader.
//! * `stream`: streams themselves: state, creation, purge, where to start.
//! * `connect`: options, and the oldest server that will do.
//! * `wire`: turning the server's messages into [`Stored`].

mod answer;
mod append;
mod connect;
mod query;
mod read;
mod stream;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, RequestErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

pub use answer::{Request, Requests};
pub use connect::{ConnectError, ConnectOptions, Tls, check_server_version, connect, without_credentials};

use super::{
    Append, AppendError, Appended, Error, Log, Reader, Snapshot, Start, Stored, StreamSettings, StreamState,
};

/// How long one request to the API may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// `err_code` of "stream not found".
const STREAM_NOT_FOUND: u64 = 10059;

/// A connection to NATS, which comes back by itself when it breaks.
#[derive(Clone)]
pub struct JetStream {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// Number of times that the connection was made.
    connects: watch::Receiver<u64>,
    /// Subjects that the server did not let us publish to. It says so beside the
    /// request, which itself gets no answer.
    denied: broadcast::Sender<Arc<str>>,
}

/// An error as JetStream's API writes it.
#[derive(Debug, Deserialize)]
struct ApiError {
    /// As in HTTP.
    #[serde(default)]
    code: u64,
    /// Which error it is; the list is the server's `errors.json`.
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What an account may use of JetStream, and what it uses. Limits are -1 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Bytes of file storage.
    pub storage: u64,
    pub max_storage: i64,
    pub streams: u64,
    pub max_streams: i64,
    pub consumers: u64,
    pub max_consumers: i64,
}

/// What can go wrong with a request before anybody looks into its answer.
enum RequestFailed {
    NoResponders,
    Denied,
    /// No answer in time, or no connection.
    NoAnswer(String),
}

impl JetStream {
    /// The server's version, once a connection was made.
    pub fn server_version(&self) -> Option<String> {
        self.inner.client.try_server_info().map(|info| info.version)
    }

    /// Waits until the connection stands; false if it does not within `timeout`.
    pub async fn wait_connected(&self, timeout: Duration) -> bool {
        let mut connects = self.inner.connects.clone();
        let wait = async {
            while !self.connected() {
                if connects.changed().await.is_err() {
                    return false; // the client has closed
                }
            }
            true
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or(false)
    }

    /// What the account may use, and uses. Accounts with tiers have limits per
    /// number of replicas; theirs read as those of the account as a whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where JetStream is off; [`Error::Refused`] where it
    /// is off for this account, or this user may not ask.
    pub async fn account_limits(&self) -> Result<AccountLimits, Error> {
        #[derive(Deserialize)]
        struct Info {
            storage: u64,
            streams: u64,
            consumers: u64,
            limits: Limits,
        }
        #[derive(Deserialize)]
        struct Limits {
            max_storage: i64,
            max_streams: i64,
            max_consumers: i64,
        }
        let info: Info = self.api("", "INFO", &serde_json::json!({})).await?;
        Ok(AccountLimits {
            storage: info.storage,
            max_storage: info.limits.max_storage,
            streams: info.streams,
            max_streams: info.limits.max_streams,
            consumers: info.consumers,
            max_consumers: info.limits.max_consumers,
        })
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Sends a request that may be denied by the server's permissions.
    async fn request(
        &self,
        subject: &str,
        request: async_nats::Request,
        timeout: Duration,
    ) -> Result<async_nats::Message, RequestFailed> {
        let mut denied = self.inner.denied.subscribe();
        let answer = self
            .client()
            .send_request(subject.to_owned(), request.timeout(Some(timeout)));
        let refused = async {
            loop {
                match denied.recv().await {
                    Ok(other) if *other == *subject => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            () = refused => Err(RequestFailed::Denied),
            answer = answer => answer.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => RequestFailed::NoResponders,
                _ => RequestFailed::NoAnswer(error.to_string()),
            }),
        }
    }

    /// Asks JetStream's API: `verb` is what follows `$JS.API.`, with the names in it.
    async fn api<T: DeserializeOwned>(
        &self,
        stream: &str,
        verb: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Error> {
        #[derive(Deserialize)]
        struct Failure {
            error: Option<ApiError>,
        }
        let payload = serde_json::to_vec(body).map_err(|error| malformed(verb, error))?;
        let request = async_nats::Request::new().payload(Bytes::from(payload));
        let answer = self
            .request(&format!("$JS.API.{verb}"), request, REQUEST_TIMEOUT)
            .await
            .map_err(|failed| match failed {
                RequestFailed::NoResponders => {
                    Error::Unavailable("JetStream is not ready, or not enabled".into())
                }
                RequestFailed::NoAnswer(detail) => Error::Unavailable(detail),
                RequestFailed::Denied => Error::Refused {
                    what: verb.into(),
                    code: 0,
                    description: format!("this user may not publish to $JS.API.{verb}"),
                },
            })?;
        let failure: Failure =
            serde_json::from_slice(&answer.payload).map_err(|error| malformed(verb, error))?;
        match failure.error {
            None => serde_json::from_slice(&answer.payload).map_err(|error| malformed(verb, error)),
            Some(error) if error.err_code == STREAM_NOT_FOUND => Err(Error::NoStream(stream.into())),
            Some(error) if matches!(error.code, 429 | 503) => Err(Error::Unavailable(error.description)),
            Some(error) => Err(Error::Refused {
                what: verb.into(),
                code: error.err_code,
                description: error.description,
            }),
        }
    }
}

fn malformed(what: &str, detail: impl ToString) -> Error {
    Error::Malformed {
        what: what.into(),
        detail: detail.to_string(),
    }
}

#[async_trait]
impl Log for JetStream {
    fn max_payload(&self) -> usize {
        self.client().max_payload()
    }

    fn connected(&self) -> bool {
        self.client().connection_state() == State::Connected
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, Error> {
        self.stream_state(stream).await
    }

    async fn set_subjects(&self, stream: &str, subjects: &[String]) -> Result<(), Error> {
        self.change_subjects(stream, subjects).await
    }

    async fn create_stream(&self, stream: &str, settings: &StreamSettings) -> Result<StreamState, Error> {
        self.create(stream, settings).await
    }

    async fn append(&self, stream: &str, batch: Vec<Append>) -> Result<Appended, AppendError> {
        self.publish(stream, batch).await
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Error> {
        self.get_from_leader(stream, &serde_json::json!({ "last_by_subj": subject }))
            .await
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error> {
        if sequence == 0 {
            return Ok(None); // the server would take 0 for "not given"
        }
        self.get_from_leader(stream, &serde_json::json!({ "seq": sequence }))
            .await
    }

    async fn scan(&self, stream: &str, filter: &str, from: u64, max: usize) -> Result<Vec<Stored>, Error> {
        self.scan_direct(stream, filter, from, max).await
    }

    async fn last_many(&self, stream: &str, filters: &[String]) -> Result<Snapshot, Error> {
        self.last_of_many(stream, filters).await
    }

    async fn purge(&self, stream: &str, filter: &str, below: u64) -> Result<(), Error> {
        self.purge_below(stream, filter, below).await
    }

    async fn resolve(&self, stream: &str, start: Start) -> Result<u64, Error> {
        self.resolve_start(stream, start).await
    }

    async fn read(&self, stream: &str, filters: &[String], from: u64) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(
            read::OrderedReader::open(self.clone(), stream, filters, from).await?,
        ))
    }
}
