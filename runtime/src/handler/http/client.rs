//! Requests over the network.
//!
//! HTTP/1.1, over TLS for `https`, certificates checked against the system's roots. Connections are kept and
//! used again by whatever activity asks the same host next; nothing else is shared between handlers. No redirects
//! are followed, no proxy is used, no cookies are kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tracing::{debug, warn};
use wasmtime_wasi_http::p2::bindings::http::types::DnsErrorPayload;
use wasmtime_wasi_http::{RequestOptions, WasiBody};

use super::{ErrorCode, Failed, Sent};

/// How long a connection waits for another request: shorter than most servers wait before they close it.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Connections to one host that wait for another request: as many as a handler of 16 partitions needs at once.
const IDLE_PER_HOST_MAX: usize = 16;

/// Bytes of a response's head, all its headers together. Servers send some; what is larger is an attack.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, WasiBody>);

impl Client {
    pub fn new() -> Client {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Client(client)
    }

    /// Sends a request, and returns the response as soon as its head is there. The guest's own
    /// timeouts are those in `options`.
    pub async fn send(&self, mut request: Request<WasiBody>, options: RequestOptions) -> Sent {
        let mut connection = capture_connection(&mut request);
        let mut response = self.0.request(request);
        let connected = async {
            connection.wait_for_connection_metadata().await;
        };
        if let Some(most) = options.connect_timeout {
            tokio::select! {
                biased;
                // It may have failed to connect, or be here already.
                response = &mut response => return received(response),
                connected = timeout(most, connected) => connected.map_err(|_| {
                    let detail = format!("no connection within {most:?}, the guest's connect-timeout");
                    Failed::new(ErrorCode::ConnectionTimeout, detail)
                })?,
            }
        }
        match options.first_byte_timeout {
            None => received(response.await),
            Some(most) => received(timeout(most, response).await.map_err(|_| {
                let detail = format!("no response within {most:?}, the guest's first-byte-timeout");
                Failed::new(ErrorCode::ConnectionReadTimeout, detail)
            })?),
        }
    }
}

fn tls() -> ClientConfig {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        debug!(%error, "a certificate of the system cannot be used");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        warn!(
            "this system has no certificates to check servers with, so that every https request of an activity will \
             fail: install them (ca-certificates), or name their file in SSL_CERT_FILE"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the versions that it is built with")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn received(response: Result<http::Response<hyper::body::Incoming>, legacy::Error>) -> Sent {
    match response {
        Ok(response) => Ok(response.map(|body| body.map_err(|error| failed(&error)).boxed_unsync())),
        Err(error) if error.is_connect() => Err(connect_failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// An error and all that it says was the cause. What an `io::Error` was made of is its
/// content rather than its cause, and is one here.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let content = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match content {
            Some(content) => Some(content as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

/// The innermost cause of a type.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

fn detail(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Nothing was sent.
fn connect_failed(error: &(dyn std::error::Error + 'static)) -> Failed {
    let detail = detail(error);
    let code = match find::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(_)) => ErrorCode::TlsCertificateError,
        Some(_) => ErrorCode::TlsProtocolError,
        // The connector has no kind for it.
        None if detail.contains("dns error") => ErrorCode::DnsError(DnsErrorPayload {
            rcode: None,
            info_code: None,
        }),
        None => match find::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => ErrorCode::ConnectionRefused,
            Some(io::ErrorKind::TimedOut) => ErrorCode::ConnectionTimeout,
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
                ErrorCode::ConnectionTerminated
            }
            _ => ErrorCode::DestinationUnavailable,
        },
    };
    Failed { code, detail }
}

/// The request may have arrived.
fn failed(error: &(dyn std::error::Error + 'static)) -> Failed {
    let code = match find::<hyper::Error>(error) {
        Some(error) if error.is_parse_too_large() => ErrorCode::HttpResponseHeaderSectionSize(None),
        Some(error) if error.is_parse() => ErrorCode::HttpProtocolError,
        Some(error) if error.is_user() => ErrorCode::HttpRequestBodySize(None),
        _ => ErrorCode::ConnectionTerminated,
    };
    Failed {
        code,
        detail: detail(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the TLS connector hands them on: an error of TLS in one of I/O in another.
    #[test]
    fn what_lies_within_says_what_it_was() {
        let nested = |error| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        for (error, code) in [
            (nested(certificate), "TlsCertificateError"),
            (nested(rustls::Error::HandshakeNotComplete), "TlsProtocolError"),
            (
                io::Error::from(io::ErrorKind::ConnectionRefused),
                "ConnectionRefused",
            ),
            (
                io::Error::other(io::Error::from(io::ErrorKind::TimedOut)),
                "ConnectionTimeout",
            ),
            (io::Error::other("dns error: no such name"), "DnsError"),
            (io::Error::other("?"), "DestinationUnavailable"),
        ] {
            let failed = connect_failed(&error);
            let shown = format!("{:?}", failed.code);
            assert!(shown.contains(code), "{shown} for {error:?}");
            assert!(!failed.detail.contains(": ?: ?"), "{}", failed.detail);
        }
    }
}
