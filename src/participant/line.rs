//! One HTTP/2 connection to an endpoint: made at the first call, shared by all calls that run, and
//! made again once it is broken.
//!
//! A call writes its own frames and is woken by its own answer. Beside the calls there is one task
//! a connection, which moves bytes between frames and socket.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::USER_AGENT;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tonic::Status;

use super::handlers::Endpoint;
use super::socket::{self, AGENT};
use crate::tasks::{Death, Tasks};

/// Flow-control window of one call, in bytes: an answer of the largest size fits.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Flow-control window of one connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Longest list of headers in an answer, in bytes.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;

/// A connection that is being made, is there, or could not be made.
type Connecting = Shared<BoxFuture<'static, Result<SendRequest<Bytes>, Status>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    endpoint: Endpoint,
    tasks: Tasks,
    current: Mutex<Current>,
}

/// The connection, and how many were given up before it.
#[derive(Debug, Clone)]
struct Current {
    connecting: Connecting,
    generation: u64,
}

/// A call that has no answer yet. If it is dropped so, its connection is given up: whatever swallowed
/// the call may swallow the next one too. Other calls on it go on.
pub(super) struct Unanswered<'a> {
    line: &'a Line,
    generation: u64,
    is_answered: bool,
}

impl Line {
    /// Connects to nothing yet.
    pub(super) fn new(endpoint: &Endpoint, tasks: &Tasks) -> Self {
        let connecting = connect(endpoint.clone(), tasks.clone()).boxed().shared();
        let current = Mutex::new(Current { connecting, generation: 0 });
        Self { endpoint: endpoint.clone(), tasks: tasks.clone(), current }
    }

    /// The means to send one call, over a connection that is not known to be broken.
    ///
    /// # Errors
    /// No connection could be made: nothing was sent.
    pub(super) async fn open(&self) -> Result<(Exchange, Unanswered<'_>), Status> {
        loop {
            let Current { connecting, generation } = self.current.lock().clone();
            let is_old = connecting.peek().is_some();
            let mut connected = connecting.await;
            if let Ok(requests) = connected {
                connected = requests.ready().await.map_err(Status::from);
            }
            match connected {
                Ok(requests) => {
                    let unanswered = Unanswered { line: self, generation, is_answered: false };
                    return Ok((Exchange(requests), unanswered));
                }
                // It broke, or was closed in good order, since it was used last.
                Err(_) if is_old => self.give_up(generation),
                Err(status) => {
                    self.give_up(generation);
                    return Err(status);
                }
            }
        }
    }

    /// How many connections were given up so far.
    pub(super) fn generation(&self) -> u64 {
        self.current.lock().generation
    }

    /// Has the next call make a new connection.
    fn give_up(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.generation == generation {
            let connecting = connect(self.endpoint.clone(), self.tasks.clone()).boxed().shared();
            *current = Current { connecting, generation: generation + 1 };
        }
    }
}

impl Unanswered<'_> {
    /// The call has its answer, whatever that says.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.line.give_up(self.generation);
        }
    }
}

async fn connect(endpoint: Endpoint, tasks: Tasks) -> Result<SendRequest<Bytes>, Status> {
    let socket = socket::connect(&endpoint).await.map_err(Status::unavailable)?;
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_MAX_BYTES)
        .handshake(socket)
        .await?;
    let stop = tasks.stopping();
    tasks.spawn("connection to a participant", Death::Logged, async move {
        tokio::select! {
            // Every call on it hears of the error itself.
            _ended = connection => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(requests)
}

/// Sends one request over a connection.
pub(super) struct Exchange(SendRequest<Bytes>);

impl Exchange {
    /// Sends a request with all of its body. Returns once the answer has begun.
    ///
    /// # Errors
    /// The connection or the call broke; what became of it is not known.
    pub(super) async fn send(self, request: Request<Bytes>) -> Result<Response<AnswerBody>, Status> {
        let Self(mut requests) = self;
        let (mut head, body) = request.into_parts();
        head.headers.insert(USER_AGENT, AGENT);
        let (answer, mut sending) = requests.send_request(Request::from_parts(head, ()), false)?;
        sending.send_data(body, true)?;
        Ok(answer.await?.map(AnswerBody))
    }
}

/// The body of an answer.
pub(super) struct AnswerBody(RecvStream);

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = std::task::ready!(self.0.poll_data(cx)) {
            let frame = data.and_then(|data| {
                self.0.flow_control().release_capacity(data.len())?;
                Ok(Frame::data(data))
            });
            return Poll::Ready(Some(frame));
        }
        self.0.poll_trailers(cx).map_ok(|trailers| trailers.map(Frame::trailers)).map(Result::transpose)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
