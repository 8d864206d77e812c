//! A service that speaks HTTP with JSON bodies and knows nothing of sagas.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sagad::proto::{HandlerAction, Protocol, RegisterHandlersRequest};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::Status;

use super::daemon::Daemon;

/// Largest body of a request, in bytes.
const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// One request as the service saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path, such as `POST /deduct`.
    pub line: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    /// A header's text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What the service answers.
#[derive(Debug, Clone)]
pub struct Told {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    after: Duration,
}

impl Told {
    /// A status with a JSON body.
    pub fn json(status: u16, body: &str) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_owned(), after: Duration::ZERO }
    }

    /// With a further header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same, but only after some time.
    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("a status");
        let mut answer = (status, self.body).into_response();
        for (name, value) in self.headers {
            answer.headers_mut().insert(name, value.parse().expect("a header"));
        }
        answer
    }
}

type Script = dyn Fn(&Asked) -> Told + Send + Sync;

struct State {
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    count: watch::Sender<usize>,
}

/// A service that runs until it is dropped.
pub struct HttpService {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

impl HttpService {
    /// Starts one that answers by `script`.
    pub async fn scripted(script: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (asked, count) = (Mutex::default(), watch::Sender::new(0));
        let state = Arc::new(State { script: Box::new(script), asked, count });
        let behind = Arc::clone(&state);
        let pages =
            axum::Router::new().fallback(move |request: Request| answer(Arc::clone(&behind), request));
        let server = tokio::spawn(async move {
            axum::serve(listener, pages).await.expect("the service serves");
        });
        Ok(Self { address, state, server })
    }

    /// Registers it under `name` for actions with their targets.
    pub async fn register(
        &self,
        daemon: &Daemon,
        name: &str,
        actions: &[(&str, &str)],
    ) -> Result<(), Status> {
        let actions = actions.iter().map(|(action, target)| HandlerAction {
            name: (*action).to_owned(),
            target: (*target).to_owned(),
            ..HandlerAction::default()
        });
        let request = RegisterHandlersRequest {
            participant: name.to_owned(),
            endpoint: format!("http://{}", self.address),
            protocol: Protocol::Http.into(),
            actions: actions.collect(),
            max_in_flight: 0,
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            descriptor_set: Vec::new(),
        };
        daemon.registry().register_handlers(request).await.map(drop)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().clone()
    }

    /// Waits until a request that `wanted` picks has come.
    pub async fn seen(&self, wanted: impl Fn(&Asked) -> bool) -> Asked {
        let mut count = self.state.count.subscribe();
        loop {
            if let Some(asked) = self.state.asked.lock().iter().find(|asked| wanted(asked)) {
                return asked.clone();
            }
            count.changed().await.expect("the service lives as long as its state");
        }
    }
}

impl Drop for HttpService {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(state: Arc<State>, request: Request) -> Told {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_MAX_BYTES).await.expect("a whole body");
    let asked = Asked {
        line: format!("{} {}", head.method, head.uri),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("a text"),
    };
    let told = (state.script)(&asked);
    state.asked.lock().push(asked);
    state.count.send_modify(|count| *count += 1);
    tokio::time::sleep(told.after).await;
    told
}
