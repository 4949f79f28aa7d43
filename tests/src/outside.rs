//! The outside world: an HTTP server that a test tells how to fail, and that remembers by
//! `Idempotency-Key` what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{self, Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes of a request's body: orders are small.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    /// 503.
    Busy,
    /// No answer, for as long as the client waits.
    Hangs,
    /// The connection is closed.
    Reset,
}

/// Decides by how often the key was seen before.
pub type Decide = dyn Fn(usize) -> Fate + Send + Sync;

/// One request: its body, and what became of it.
pub type Asked = (String, Fate);

/// The server; it ends with this.
pub struct Outside {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    _server: JoinSet<()>,
}

struct Seen {
    decide: Box<Decide>,
    by_key: Mutex<BTreeMap<String, Vec<Asked>>>,
    total: watch::Sender<usize>,
    hanging: watch::Sender<usize>,
}

impl Outside {
    pub async fn start(decide: impl Fn(usize) -> Fate + Send + Sync + 'static) -> Result<Outside> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen {
            decide: Box::new(decide),
            by_key: Mutex::default(),
            total: watch::Sender::new(0),
            hanging: watch::Sender::new(0),
        });
        let router = Router::new().fallback(answer).with_state(seen.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It fails only if accepting does, which a test sees as requests that never come.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Outside {
            address,
            seen,
            _server: server,
        })
    }

    /// What was asked, by `Idempotency-Key`; a request without one is under the empty key.
    pub fn asked(&self) -> BTreeMap<String, Vec<Asked>> {
        self.seen.lock().clone()
    }

    /// Waits until at least so many requests came in all.
    pub async fn total(&self, count: usize) -> Result<()> {
        reached(&self.seen.total, count, "requests").await
    }

    /// Waits until at least so many requests hang.
    pub async fn hanging(&self, count: usize) -> Result<()> {
        reached(&self.seen.hanging, count, "requests that hang").await
    }

    /// Requests that hang now.
    pub fn hanging_now(&self) -> usize {
        *self.seen.hanging.borrow()
    }
}

async fn reached(counter: &watch::Sender<usize>, count: usize, what: &str) -> Result<()> {
    let mut counter = counter.subscribe();
    let reached = counter.wait_for(|now| *now >= count);
    tokio::time::timeout(crate::PATIENCE, reached)
        .await
        .with_context(|| format!("waited for {count} {what}"))??;
    Ok(())
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Asked>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request that hangs, until it is dropped because the client is gone.
struct Hanging(Arc<Seen>);

impl Hanging {
    fn new(seen: Arc<Seen>) -> Hanging {
        seen.hanging.send_modify(|waiting| *waiting += 1);
        Hanging(seen)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.hanging.send_modify(|waiting| *waiting -= 1);
    }
}

async fn answer(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let key = request.headers().get("idempotency-key");
    let key = key
        .and_then(|key| key.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let Ok(body) = body::to_bytes(request.into_body(), BODY_BYTES_MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let fate = {
        let mut by_key = seen.lock();
        let asked = by_key.entry(key).or_default();
        let fate = (seen.decide)(asked.len());
        asked.push((String::from_utf8_lossy(&body).into_owned(), fate));
        fate
    };
    seen.total.send_modify(|total| *total += 1);
    match fate {
        Fate::Accepted => StatusCode::ACCEPTED.into_response(),
        Fate::Busy => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fate::Hangs => {
            let _hanging = Hanging::new(seen);
            std::future::pending().await
        }
        Fate::Reset => {
            let nothing = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("closed"))]);
            Body::from_stream(nothing).into_response()
        }
    }
}
