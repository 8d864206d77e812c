//! The HTTP port: whether the daemon is alive, whether it takes work, and its figures. Further pages,
//! such as [`super::callback`], are merged into it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Readiness;
use super::net::Door;

/// Connections at a time on this port. More are closed at once.
const CONNECTIONS_MAX: usize = 512;
/// A connection without a byte in either direction for this long is closed.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// Time for requests in flight to finish at a shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The form of the figures.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all figures as text; called for every scrape.
pub type Scrape = Arc<dyn Fn() -> String + Send + Sync>;

/// What the port shows.
#[derive(Clone)]
pub struct HttpPorts {
    /// Whether the daemon takes work.
    pub readiness: watch::Receiver<Readiness>,
    /// Its figures.
    pub scrape: Scrape,
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(ports: HttpPorts) -> axum::Router {
    axum::Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ports)
}

/// Serves `pages` on `listener` until `shutdown` is done.
pub async fn serve(
    listener: TcpListener,
    pages: axum::Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopping = CancellationToken::new();
    let stopped = stopping.clone();
    let signal = async move {
        shutdown.await;
        stopped.cancel();
    };
    let door = Door::new(listener, CONNECTIONS_MAX, QUIET_MAX);
    let serving = axum::serve(door, pages).with_graceful_shutdown(signal);
    let overdue = async {
        stopping.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = serving.into_future() => served,
        () = overdue => Ok(()),
    }
}

/// The process runs and answers; nothing more is meant.
async fn healthz() -> &'static str {
    "alive\n"
}

async fn readyz(State(ports): State<HttpPorts>) -> Response {
    let readiness = ports.readiness.borrow().clone();
    let code = if readiness.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{}\n", readiness.describe())).into_response()
}

async fn metrics(State(ports): State<HttpPorts>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], (ports.scrape)()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::tasks::{Death, Tasks};

    async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: sagad\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_port_tells_life_readiness_and_figures_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, readiness) = watch::channel(Readiness::Starting("reading open sagas".to_owned()));
        let scrape: Scrape = Arc::new(|| "sagad_up 1\n# EOF\n".to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let tasks = Tasks::new();
        tasks.spawn("pages", Death::Logged, async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serve(listener, router(HttpPorts { readiness, scrape }), stopped).await.unwrap();
        });
        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let starting = fetch(address, "/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503"), "{starting}");
        assert!(starting.contains("reading open sagas"), "{starting}");
        tell.send(Readiness::Serving).unwrap();
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        for not_ready in [Readiness::Draining, Readiness::Failed("the disk is gone".to_owned())] {
            tell.send(not_ready).unwrap();
            assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 503"));
            assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        }
        let figures = fetch(address, "/metrics").await;
        assert!(figures.contains("openmetrics-text") && figures.contains("sagad_up 1"), "{figures}");
        assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));
        stop.send(()).unwrap();
        tasks.ended().await;
    }
}
