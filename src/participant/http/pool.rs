//! Connections of HTTP/1.1 to one endpoint: a call has one to itself, and leaves it to the next.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::answer::Reply;
use super::{read, told};
use crate::clock::Stopwatch;
use crate::participant::handlers::Endpoint;
use crate::participant::socket;
use crate::tasks::{Death, Tasks};

/// How long a connection waits for its next call. Common servers close theirs after five seconds or
/// more; one that is closed under a call costs the call its answer.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Most connections that wait.
const IDLE_CONNECTIONS_MAX: usize = 1_024;
/// Longest time for a connection to end with its last call: its task is only to be scheduled.
const SETTLED_WITHIN: Duration = Duration::from_millis(10);
/// Largest head of an answer, in bytes.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 100;

type Connection = SendRequest<Full<Bytes>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    tasks: Tasks,
    idle: Mutex<Idle>,
}

/// The connections that wait, the one used last at the end.
#[derive(Debug, Default)]
struct Idle {
    connections: Vec<(Connection, Stopwatch)>,
    /// Whether a task looks after those that wait for too long.
    is_swept: bool,
}

impl Pool {
    /// Connects to nothing yet.
    pub(super) fn new(endpoint: &Endpoint, tasks: &Tasks) -> Self {
        let idle = Mutex::default();
        Self(Arc::new(Shared { endpoint: endpoint.clone(), tasks: tasks.clone(), idle }))
    }

    /// Sends one request and reads its answer. A request of which nothing was written, because the
    /// server had closed the connection meanwhile, goes over another one; any other is sent once.
    pub(super) async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, String> {
        loop {
            let waited = self.0.waiting().await;
            let is_fresh = waited.is_none();
            let mut connection = match waited {
                Some(connection) => connection,
                None => self.0.connect().await?,
            };
            match connection.try_send_request(request).await {
                Ok(answer) => {
                    let reply = read(answer).await?;
                    self.0.leave(connection);
                    return Ok(reply);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_fresh => request = unsent,
                    _ => return Err(told(error.error())),
                },
            }
        }
    }
}

impl Shared {
    /// A connection that waits and can be used.
    async fn waiting(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.idle.lock().connections.pop()?;
            if since.elapsed() < IDLE_MAX
                && let Ok(Ok(())) = tokio::time::timeout(SETTLED_WITHIN, connection.ready()).await
            {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let socket = TokioIo::new(socket::connect(&self.endpoint).await?);
        let made = Builder::new()
            .max_buf_size(HEAD_MAX_BYTES)
            .max_headers(HEADERS_MAX)
            .handshake::<_, Full<Bytes>>(socket)
            .await;
        let (requests, connection) = made.map_err(|error| told(&error))?;
        let stop = self.tasks.stopping();
        self.tasks.spawn("connection to a participant", Death::Logged, async move {
            tokio::select! {
                // The call on it hears of the error itself.
                _ended = connection => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(requests)
    }

    /// Keeps a connection for the next call.
    fn leave(self: &Arc<Self>, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.connections.len() < IDLE_CONNECTIONS_MAX {
            idle.connections.push((connection, Stopwatch::start()));
        }
        if !std::mem::replace(&mut idle.is_swept, true) {
            drop(idle);
            let (shared, stop) = (Arc::downgrade(self), self.tasks.stopping());
            self.tasks.spawn("idle connections", Death::Logged, async move {
                tokio::select! {
                    () = sweep(shared) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

/// Closes connections that nobody needs any more, until none waits.
async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut idle = shared.idle.lock();
        idle.connections.retain(|(connection, since)| since.elapsed() < IDLE_MAX && !connection.is_closed());
        if idle.connections.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}
