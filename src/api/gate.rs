//! What every RPC passes through before its service and after it: a place among those in flight, a
//! deadline, a span, a figure, and an orderly end when the daemon shuts down.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::limits::{Limits, WAIT_MAX};
use super::methods::{self, Class, Method};
use super::status;
use crate::clock::Stopwatch;
use crate::engine::error::EngineError;

/// The end of an RPC, for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcEnd {
    /// `package.Service/Method`, or `unknown`: a fixed set.
    pub method: &'static str,
    /// What the client was told; `Cancelled` when it did not wait for it.
    pub code: Code,
    /// From the request's head to the answer's end.
    pub took: Duration,
}

/// Hears of every RPC's end. Must not block.
pub type RpcObserver = Arc<dyn Fn(RpcEnd) + Send + Sync>;

/// Puts a [`Gate`] before a service.
#[derive(Clone)]
pub(super) struct GateLayer(Arc<Shared>);

struct Shared {
    calls: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    request_timeout: Duration,
    message_max_bytes: usize,
    draining: CancellationToken,
    observe: RpcObserver,
}

impl GateLayer {
    /// A gate with the caps and times of `limits`. Streams end when `draining` fires.
    pub(super) fn new(limits: &Limits, draining: CancellationToken, observe: RpcObserver) -> Self {
        Self(Arc::new(Shared {
            calls: Arc::new(Semaphore::new(limits.calls_max)),
            waits: Arc::new(Semaphore::new(limits.waits_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            workers: Arc::new(Semaphore::new(limits.workers_max)),
            request_timeout: limits.request_timeout,
            message_max_bytes: limits.message_max_bytes(),
            draining,
            observe,
        }))
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, shared: self.0.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        let method = methods::find(request.uri().path());
        let mut rpc = InFlight::start(method, &shared.observe);
        let Some(permit) = shared.place_for(method.class) else {
            let refused = status::shed("too many requests in flight");
            return Box::pin(std::future::ready(Ok(rpc.answer(refused))));
        };
        rpc.permit = Some(permit);
        let limit = shared.time_limit(method.class, request.headers());
        // Begun here, not at the first poll: it must fire before the server's own timer, whose
        // answer is CANCELLED, gets to speak.
        let deadline = tokio::time::sleep(limit);
        let span = rpc.span.clone();
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let work = async move {
            let answer = tokio::select! {
                biased;
                answer = AssertUnwindSafe(inner.call(request)).catch_unwind() => answer,
                () = deadline => return Ok(rpc.answer(status::timed_out(limit))),
            };
            Ok(match answer {
                Ok(Ok(response)) => shared.watched(response, rpc),
                Ok(Err(never)) => match never {},
                Err(_) => {
                    tracing::error!(method = method.name, "a request met a bug and was dropped");
                    rpc.answer(Status::internal(
                        "this request met a bug in the daemon: whether it was done is not known",
                    ))
                }
            })
        };
        Box::pin(work.instrument(span))
    }
}

impl Shared {
    fn place_for(&self, class: Class) -> Option<OwnedSemaphorePermit> {
        let places = match class {
            Class::Call => &self.calls,
            Class::Wait => &self.waits,
            Class::Stream => &self.streams,
            Class::Worker => &self.workers,
        };
        places.clone().try_acquire_owned().ok()
    }

    /// Time until the head of the answer.
    fn time_limit(&self, class: Class, headers: &HeaderMap) -> Duration {
        let ours = match class {
            Class::Call | Class::Stream | Class::Worker => self.request_timeout,
            Class::Wait => WAIT_MAX + self.request_timeout,
        };
        client_deadline(headers).map_or(ours, |theirs| theirs.min(ours))
    }

    /// What the codec says of a message that never reached its service. Only the client can mend
    /// it, but the codec's own codes say otherwise. Our services answer with none of these, and with
    /// `RESOURCE_EXHAUSTED` only when the details say when to come back.
    fn codec_problem(&self, code: Option<Code>, headers: &HeaderMap) -> Option<String> {
        let too_long = || Some(format!("is longer than {} bytes", self.message_max_bytes));
        match code? {
            Code::OutOfRange => too_long(),
            Code::ResourceExhausted if !headers.contains_key(Status::GRPC_STATUS_DETAILS) => too_long(),
            Code::Internal => Some("cannot be decoded".to_owned()),
            _ => None,
        }
    }

    /// The answer with a body that reports its end.
    fn watched(&self, response: Response<Body>, rpc: InFlight) -> Response<Body> {
        let code = code_in(response.headers());
        if let Some(problem) = self.codec_problem(code, response.headers()) {
            return rpc.answer(status::bad_message(&problem));
        }
        let cut = match rpc.method.class {
            Class::Stream => Some(Box::pin(self.draining.clone().cancelled_owned())),
            Class::Call | Class::Wait | Class::Worker => None,
        };
        let mut watched = WatchedBody { inner: Body::empty(), rpc: Some(rpc), cut, ended: false };
        if let Some(code) = code {
            watched.finish(code);
        }
        response.map(|body| {
            watched.inner = body;
            Body::new(watched)
        })
    }
}

/// The client's own deadline: up to eight digits and a unit.
fn client_deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// One RPC from its head to its end, which is reported exactly once: also when the client leaves.
struct InFlight {
    method: Method,
    since: Stopwatch,
    span: tracing::Span,
    observe: RpcObserver,
    permit: Option<OwnedSemaphorePermit>,
    reported: bool,
}

impl InFlight {
    fn start(method: Method, observe: &RpcObserver) -> Self {
        let span = tracing::debug_span!(
            "rpc",
            method = method.name,
            code = tracing::field::Empty,
            millis = tracing::field::Empty
        );
        let observe = observe.clone();
        Self { method, since: Stopwatch::start(), span, observe, permit: None, reported: false }
    }

    /// Ends it with `status` as the whole answer.
    fn answer(mut self, status: Status) -> Response<Body> {
        self.report(status.code());
        status.into_http()
    }

    fn report(&mut self, code: Code) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let took = self.since.elapsed();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.span.record("code", tracing::field::debug(code)).record("millis", millis);
        tracing::debug!(parent: &self.span, "ended");
        (self.observe)(RpcEnd { method: self.method.name, code, took });
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.report(Code::Cancelled);
    }
}

/// An answer's body: holds the RPC's place until its end.
struct WatchedBody {
    inner: Body,
    rpc: Option<InFlight>,
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl WatchedBody {
    fn finish(&mut self, code: Code) {
        if let Some(mut rpc) = self.rpc.take() {
            rpc.report(code);
        }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
            self.ended = true;
            let status = status::from_engine(EngineError::Stopping);
            self.finish(status.code());
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.ended = true;
                    self.finish(code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(error)) => self.finish(error.code()),
            None => {
                self.ended = true;
                self.finish(Code::Unknown);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_clients_deadline_is_answered_by_us_and_on_time() {
        let stuck = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let (ends, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let observe: RpcObserver = Arc::new(move |end| ends.send(end).unwrap());
        let mut gate = GateLayer::new(&Limits::default(), CancellationToken::new(), observe).layer(stuck);
        let request = Request::builder()
            .uri("/sagad.v1.SagaService/WaitSaga")
            .header("grpc-timeout", "10m")
            .body(Body::empty())
            .unwrap();
        let answer = gate.call(request).await.unwrap();
        assert_eq!(code_in(answer.headers()), Some(Code::DeadlineExceeded));
        let end = seen.recv().await.unwrap();
        assert_eq!((end.method, end.code), ("sagad.v1.SagaService/WaitSaga", Code::DeadlineExceeded));
        assert!(end.took >= Duration::from_millis(10));
    }

    #[test]
    fn a_clients_deadline_is_read_in_every_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            client_deadline(&headers)
        };
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("40m", Some(Duration::from_millis(40))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0S", Some(Duration::ZERO)),
            ("999999999S", None),
            ("5x", None),
            ("-5S", None),
            ("S", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
        assert_eq!(client_deadline(&HeaderMap::new()), None);
    }
}
