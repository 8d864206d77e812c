//! `PROTOCOL_HTTP`: JSON over HTTP/1.1, or over HTTP/2 where the target says so.
//!
//! ```text
//! Route (the target, read at the registration)
//!   └─► request: method, path with fields, keys as headers, the input as it is stored
//!         └─► pool (HTTP/1.1) or line (HTTP/2) ─► Reply ─► answer: the outcome
//! ```

mod answer;
mod pool;
mod problem;
mod route;
mod target;
#[cfg(test)]
pub(super) mod tests;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Full};

use super::Outgoing;
use super::handlers::Endpoint;
use super::keys;
use super::line::Line;
use super::outcome::{MESSAGE_MAX_CHARS, OUTPUT_MAX_BYTES, cut, with_sources};
use super::socket::AGENT;
use crate::saga::ids::Timestamp;
use crate::saga::words::{Outcome, Phase, Refusal, codes};
use crate::tasks::Tasks;
use answer::Reply;
use pool::Pool;
pub(super) use route::Route;

/// Largest body of an answer, in bytes.
const BODY_MAX_BYTES: usize = OUTPUT_MAX_BYTES;
/// The key once more, by the name that services and gateways know.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Where a service finishes what it answered with 202: a path on the daemon's HTTP port.
const CALLBACK_PATH: HeaderName = HeaderName::from_static("sagad-callback-path");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The connections to one endpoint; made when they are first needed.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    /// HTTP/1.1.
    pool: Pool,
    /// HTTP/2.
    line: Line,
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(endpoint: &Endpoint, tasks: &Tasks) -> Self {
        Self {
            endpoint: endpoint.clone(),
            pool: Pool::new(endpoint, tasks),
            line: Line::new(endpoint, tasks),
        }
    }

    /// Makes the call and says what is known after it, however long it takes: the caller has the clock.
    pub(super) async fn call(&self, outgoing: Outgoing, route: &Route, now: Timestamp) -> Outcome {
        let phase = outgoing.duty.phase;
        if phase == Phase::Probe && !outgoing.duty.is_named {
            return Outcome::Unsupported;
        }
        let path = match route.target.fill(outgoing.duty.input.value()) {
            Ok(path) => path,
            Err(why) => return mismatch(phase, &why),
        };
        match self.exchange(route, &path, &outgoing).await {
            Ok(reply) => answer::outcome(route, phase, &reply, now),
            Err(cause) => Outcome::Unknown(cut(&cause, MESSAGE_MAX_CHARS)),
        }
    }

    async fn exchange(&self, route: &Route, path: &str, outgoing: &Outgoing) -> Result<Reply, String> {
        let body = if route.has_body() {
            Bytes::copy_from_slice(outgoing.duty.input.text().as_bytes())
        } else {
            Bytes::new()
        };
        let mut request = Request::new(body);
        *request.method_mut() = route.method.clone();
        *request.headers_mut() = headers(route, outgoing)?;
        if route.version == Version::HTTP_2 {
            *request.uri_mut() = uri(&format!("{}{path}", self.endpoint))?;
            let (exchange, unanswered) =
                self.line.open().await.map_err(|status| status.message().to_owned())?;
            let reply = match exchange.send(request).await {
                Ok(answer) => read(answer).await,
                Err(status) => Err(with_sources(format!("HTTP/2: {}", status.message()), &status)),
            };
            unanswered.answered();
            return reply;
        }
        *request.uri_mut() = uri(path)?;
        let host = HeaderValue::from_str(self.endpoint.authority()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
        self.pool.exchange(request.map(Full::new)).await
    }
}

fn uri(text: &str) -> Result<http::Uri, String> {
    text.parse().map_err(|error| format!("not sent: {text:?} is no URL: {error}"))
}

fn headers(route: &Route, outgoing: &Outgoing) -> Result<HeaderMap, String> {
    let mut headers = keys::headers(outgoing);
    let mut put = |name: HeaderName, text: &str| match HeaderValue::from_str(text) {
        Ok(value) => {
            headers.insert(name, value);
            Ok(())
        }
        Err(error) => Err(format!("not sent: the header {name}: {error}")),
    };
    put(CALLBACK_PATH, &format!("/v1/steps/{}", target::encoded(&outgoing.token)))?;
    match outgoing.duty.phase {
        Phase::Action | Phase::Compensation => put(IDEMPOTENCY_KEY, &outgoing.key)?,
        // A question is asked again and again: nobody shall answer it from what was said before.
        Phase::Probe => {}
    }
    if route.has_body() {
        put(CONTENT_LENGTH, &outgoing.duty.input.text().len().to_string())?;
        headers.insert(CONTENT_TYPE, JSON);
    }
    headers.insert(ACCEPT, JSON);
    headers.insert(USER_AGENT, AGENT);
    Ok(headers)
}

/// The input does not fit the target, on this attempt and on every other.
fn mismatch(phase: Phase, why: &str) -> Outcome {
    let message = format!("nothing was sent: {why}");
    match phase {
        Phase::Action | Phase::Compensation => Outcome::Refused(Refusal {
            code: codes::INPUT_MISMATCH.to_owned(),
            message: cut(&message, MESSAGE_MAX_CHARS),
        }),
        // A question that was not asked says nothing about the effect.
        Phase::Probe => Outcome::Unknown(cut(&message, MESSAGE_MAX_CHARS)),
    }
}

/// Reads an answer to its end, within the limit.
async fn read<B>(answer: Response<B>) -> Result<Reply, String>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let (head, mut body) = answer.into_parts();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            format!("HTTP {} and then a body that broke off: {}", head.status.as_u16(), told(&error))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > BODY_MAX_BYTES {
            return Err(format!(
                "HTTP {} with a body over the limit of {BODY_MAX_BYTES} bytes",
                head.status.as_u16()
            ));
        }
        read.extend_from_slice(&data);
    }
    Ok(Reply { status: head.status, headers: head.headers, body: read.into() })
}

fn told(error: &(dyn std::error::Error + 'static)) -> String {
    with_sources(error.to_string(), error)
}
