//! `PROTOCOL_SAGAD`: the daemon as a client of `sagad.v1.ParticipantService`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint as Connector};
use tonic::{Request, Status};

use super::Outgoing;
use super::handlers::Endpoint;
use super::outcome::{Answer, OUTPUT_MAX_BYTES};
use crate::proto;
use crate::proto::participant_service_client::ParticipantServiceClient;
use crate::proto::{CompensateRequest, ExecuteRequest, ProbeRequest};
use crate::saga::ids::Timestamp;
use crate::saga::json::Json;
use crate::saga::words::Phase;

/// Connections to one endpoint. A single one is a bottleneck under load; the more there are, the
/// fewer calls share a write to the socket.
const CHANNELS: usize = 2;
/// Longest time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The operating system asks a silent peer for a sign of life after this time, and gives it up after
/// [`KEEP_ALIVE_PROBES`] further ones without an answer. Pings of HTTP/2 would do the same faster,
/// but gRPC servers take more than one in five minutes for abuse and close the connection under the
/// calls in flight.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(10);
/// The time between two such questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many of them go without an answer.
const KEEP_ALIVE_PROBES: u32 = 3;
/// Flow-control window of one call, in bytes: an answer of the largest size fits.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Flow-control window of one connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Largest answer, in bytes: an output and what is around it.
const ANSWER_MAX_BYTES: usize = OUTPUT_MAX_BYTES + 64 * 1024;
/// Largest request, in bytes: three documents, and labels.
const REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024;
/// How much longer the participant is given by `grpc-timeout` than by `deadline`. The daemon's
/// own timeout comes first, so that a passed timeout always reads the same.
const GRPC_TIMEOUT_SLACK: Duration = Duration::from_millis(100);
/// The header has room for eight digits only; nobody waits this long for one answer.
const GRPC_TIMEOUT_MAX: Duration = Duration::from_hours(24 * 365);

/// The connections to one endpoint; made when they are first needed, and again when they break.
#[derive(Debug)]
pub(super) struct Client {
    connector: Connector,
    lines: Vec<Mutex<Line>>,
    next: AtomicUsize,
}

/// One connection, and how many were given up before it.
#[derive(Debug, Clone)]
struct Line {
    channel: Channel,
    generation: u64,
}

/// A call that has no answer yet. If it is given up, so is its connection: whatever swallowed the
/// call may swallow the next one too. Other calls on it go on.
struct Unanswered<'a> {
    line: &'a Mutex<Line>,
    generation: u64,
    connector: &'a Connector,
    is_answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut line = self.line.lock();
        if !self.is_answered && line.generation == self.generation {
            *line = Line { channel: self.connector.connect_lazy(), generation: self.generation + 1 };
        }
    }
}

impl Client {
    /// Must be called inside the runtime; connects to nothing yet.
    ///
    /// # Errors
    /// The endpoint is not one that a connection can be made to.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, tonic::transport::Error> {
        let connector = Connector::from_shared(endpoint.as_str().to_owned())?
            .user_agent(concat!("sagad/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEP_ALIVE_TIME))
            .tcp_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .tcp_keepalive_retries(Some(KEEP_ALIVE_PROBES))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let line = || Mutex::new(Line { channel: connector.connect_lazy(), generation: 0 });
        let lines = (0..CHANNELS).map(|_| line()).collect();
        Ok(Self { connector, lines, next: AtomicUsize::new(0) })
    }

    /// Sends the call and waits for its answer, however long it takes: the caller has the clock.
    pub(super) async fn call(&self, outgoing: Outgoing, now: Timestamp) -> Result<Answer, Status> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len();
        let line = &self.lines[turn];
        let Line { channel, generation } = line.lock().clone();
        let mut unanswered = Unanswered { line, generation, connector: &self.connector, is_answered: false };
        let answer = send(channel, outgoing, now).await;
        unanswered.is_answered = true;
        answer
    }
}

async fn send(channel: Channel, outgoing: Outgoing, now: Timestamp) -> Result<Answer, Status> {
    let mut client = ParticipantServiceClient::new(channel)
        .max_decoding_message_size(ANSWER_MAX_BYTES)
        .max_encoding_message_size(REQUEST_MAX_BYTES);
    let timeout = outgoing.duty.timeout;
    match outgoing.duty.phase {
        Phase::Action => {
            let answer = client.execute(timed(execute(outgoing, now), timeout)).await?;
            Ok(answer.into_inner().into())
        }
        Phase::Compensation => {
            let answer = client.compensate(timed(compensate(outgoing, now), timeout)).await?;
            Ok(answer.into_inner().into())
        }
        Phase::Probe => {
            let answer = client.probe(timed(probe(outgoing, now), timeout)).await?;
            Ok(answer.into_inner().into())
        }
    }
}

fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout.saturating_add(GRPC_TIMEOUT_SLACK).min(GRPC_TIMEOUT_MAX));
    request
}

fn text(document: Option<Json>) -> String {
    document.map(|json| json.text().to_owned()).unwrap_or_default()
}

fn execute(outgoing: Outgoing, now: Timestamp) -> ExecuteRequest {
    let Outgoing { saga_id, definition, labels, duty, key, action_key: _, token } = outgoing;
    ExecuteRequest {
        saga_id: saga_id.to_string(),
        definition: definition.to_string(),
        step: duty.step,
        action: duty.action.to_string(),
        idempotency_key: key,
        attempt: duty.attempt,
        epoch: duty.epoch,
        input_json: duty.input.text().to_owned(),
        labels: labels.as_ref().clone(),
        token,
        deadline: Some(proto::timestamp(now + duty.timeout)),
    }
}

/// Two requests with the same fields under types of their own.
macro_rules! follow_up {
    ($function:ident -> $request:ident) => {
        fn $function(outgoing: Outgoing, now: Timestamp) -> $request {
            let Outgoing { saga_id, definition, labels, duty, key, action_key, token } = outgoing;
            $request {
                saga_id: saga_id.to_string(),
                definition: definition.to_string(),
                step: duty.step,
                action: duty.action.to_string(),
                idempotency_key: key,
                attempt: duty.attempt,
                epoch: duty.epoch,
                input_json: duty.input.text().to_owned(),
                labels: labels.as_ref().clone(),
                token,
                deadline: Some(proto::timestamp(now + duty.timeout)),
                action_idempotency_key: action_key,
                action_input_json: text(duty.action_input),
                action_output_json: text(duty.action_output),
            }
        }
    };
}

follow_up!(compensate -> CompensateRequest);
follow_up!(probe -> ProbeRequest);
