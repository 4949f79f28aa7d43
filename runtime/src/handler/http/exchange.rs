//! One request and its response, as a task.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::info;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::{Body, ErrorCode, Failed, Transport, shown};
use crate::handler::program::ProgramSettings;

/// Pieces of a body that wait for the guest: one is read while it works on the one before.
const PIECES_WAITING: usize = 1;

/// Everything that one exchange needs beside its request.
pub(super) struct Exchange {
    pub transport: Arc<Transport>,
    pub handler: Arc<ProgramSettings>,
    pub event_id: String,
    pub options: RequestOptions,
    /// Who waits for the response.
    pub head: oneshot::Sender<Result<Response<WasiBody>, Error>>,
}

/// A piece of a body; `None` is its end. Without one the body is cut off.
type Piece = Result<Option<Frame<Bytes>>, Error>;

impl Exchange {
    /// Sends the request, then its response to [`Exchange::head`], then the response's body.
    pub async fn run(self, request: Request<WasiBody>) {
        let (method, url) = (request.method().clone(), shown(request.uri()));
        let (handler, event) = (self.handler.clone(), self.event_id.clone());
        if let Err(failed) = self.exchange(request).await {
            info!(
                handler = handler.handler,
                event,
                %method,
                url,
                code = ?failed.code,
                "request failed: {}",
                failed.detail
            );
        }
    }

    async fn exchange(self, request: Request<WasiBody>) -> Result<(), Failed> {
        let bytes_max = self.handler.http.as_ref().map_or(0, |http| http.response_bytes) as u64;
        let sent = self.transport.send(request, self.options).await;
        let (parts, body) = match sent.and_then(|response| check_length(response, bytes_max)) {
            Ok(response) => response.into_parts(),
            Err(failed) => {
                // Nobody waits where the guest has dropped the future.
                let _ = self.head.send(Err(failed.code.clone().into()));
                return Err(failed);
            }
        };
        let (pieces, received) = mpsc::channel(PIECES_WAITING);
        let response = Response::from_parts(parts, receiving(received));
        if self.head.send(Ok(response)).is_err() {
            return Ok(());
        }
        let ended = pass_on(body, &pieces, self.options.between_bytes_timeout, bytes_max).await;
        // Nobody waits where the guest has dropped the body.
        let _ = match &ended {
            Ok(()) => pieces.send(Ok(None)).await,
            Err(failed) => pieces.send(Err(failed.code.clone().into())).await,
        };
        ended
    }
}

/// Refuses at once what says of itself that it is too large.
fn check_length(response: Response<Body>, bytes_max: u64) -> Result<Response<Body>, Failed> {
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    match length.filter(|length| *length > bytes_max) {
        Some(length) => Err(too_large(length, bytes_max)),
        None => Ok(response),
    }
}

fn too_large(bytes: u64, bytes_max: u64) -> Failed {
    let detail = format!("the limit is {bytes_max} bytes (response_bytes in [http] of handler.toml)");
    Failed::new(ErrorCode::HttpResponseBodySize(Some(bytes)), detail)
}

/// Passes a body on until it ends, or nobody reads it any more.
async fn pass_on(
    mut body: Body,
    pieces: &mpsc::Sender<Piece>,
    between_bytes: Option<Duration>,
    bytes_max: u64,
) -> Result<(), Failed> {
    let mut bytes = 0;
    loop {
        let next = match between_bytes {
            Some(most) => timeout(most, body.frame()).await.map_err(|_| {
                let detail = format!("the body paused for {most:?}, the guest's between-bytes-timeout");
                Failed::new(ErrorCode::ConnectionReadTimeout, detail)
            })?,
            None => body.frame().await,
        };
        let Some(frame) = next else { return Ok(()) };
        let frame = frame?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if bytes > bytes_max {
            return Err(too_large(bytes, bytes_max));
        }
        if pieces.send(Ok(Some(frame))).await.is_err() {
            return Ok(());
        }
    }
}

/// The receiving end of [`pass_on`], as a body.
fn receiving(mut pieces: mpsc::Receiver<Piece>) -> WasiBody {
    let frames = stream::poll_fn(move |context| {
        pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => piece.transpose(),
            None => Some(Err(Error::ConnectionTerminated)),
        })
    });
    StreamBody::new(frames).boxed_unsync()
}
