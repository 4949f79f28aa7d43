//! The host's HTTP address. Nothing on it changes anything or shows an event,
//! and nobody is asked who they are: keep it on a private network.
//!
//! | path | answers |
//! | --- | --- |
//! | `/healthz` | 200 while the process can answer |
//! | `/readyz` | 200, or 503 with one reason per line |
//! | `/metrics` | Prometheus text |

use std::future::Future;
use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::status::StatusHandle;

/// An address that is taken and not yet answered on.
pub struct Server {
    listener: TcpListener,
    router: Router,
}

#[derive(Clone)]
struct Shared {
    status: StatusHandle,
    metrics: PrometheusHandle,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// Somebody else has it, or it is not one of this machine.
    pub async fn bind(
        address: SocketAddr,
        status: StatusHandle,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Server> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address} (host.http): choose another with --http, or 127.0.0.1:0 for any"
            )
        })?;
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(render))
            .with_state(Shared { status, metrics });
        Ok(Server { listener, router })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    ///
    /// # Errors
    /// Of the system.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until `stop` completes.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        axum::serve(self.listener, self.router)
            .with_graceful_shutdown(stop)
            .await
            .context("the HTTP address failed")
    }
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let reasons = shared.status.not_ready();
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    shared.metrics.run_upkeep();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.metrics.render())
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn a_host_gets_ready_and_stops_being_so() {
        let status = StatusHandle::new();
        let metrics = PrometheusBuilder::new().build_recorder();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(loopback, status.clone(), metrics.handle())
            .await
            .expect("an address");
        let address = server.address().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));

        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        status.set_not_ready("nats", "NATS does not answer");
        status.set_not_ready("handler delays", "partition 3 is stopped");
        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.ends_with("handler delays: partition 3 is stopped\nnats: NATS does not answer\n"),
            "{answer}"
        );
        status.clear("nats");
        status.clear("handler delays");
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        metrics::with_local_recorder(&metrics, || metrics::counter!("seen").increment(3));
        assert!(fetch(address, "/metrics").await.contains("seen 3"));
        assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));

        let taken = Server::bind(address, status, metrics.handle())
            .await
            .err()
            .expect("taken");
        assert!(taken.to_string().contains("--http"), "{taken}");
        stop.send(()).expect("the server still runs");
        serving.await.expect("no panic").expect("a clean end");
    }
}
