//! `PROTOCOL_SAGAD`: the daemon as a client of `sagad.v1.ParticipantService`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use tonic::{Request, Status};

use super::Outgoing;
use super::handlers::Endpoint;
use super::line::{Exchange, Line};
use super::outcome::{Answer, OUTPUT_MAX_BYTES, outcome};
use crate::proto;
use crate::proto::participant_service_client::ParticipantServiceClient;
use crate::proto::{CompensateRequest, ExecuteRequest, ProbeRequest};
use crate::saga::ids::Timestamp;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase};
use crate::tasks::Tasks;

/// Connections to one endpoint. A single one is a bottleneck under load; the more there are, the
/// fewer calls share a write to the socket.
const LINES: usize = 2;
/// Largest answer, in bytes: an output and what is around it.
const ANSWER_MAX_BYTES: usize = OUTPUT_MAX_BYTES + 64 * 1024;
/// Largest request, in bytes: three documents, and labels.
pub(super) const REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024;
/// How much longer the participant is given by `grpc-timeout` than by `deadline`. The daemon's
/// own timeout comes first, so that a passed timeout always reads the same.
const GRPC_TIMEOUT_SLACK: Duration = Duration::from_millis(100);
/// The header has room for eight digits only; nobody waits this long for one answer.
const GRPC_TIMEOUT_MAX: Duration = Duration::from_hours(24 * 365);

/// The connections to one endpoint; made when they are first needed, and again when they break.
#[derive(Debug)]
pub(super) struct Client {
    origin: Uri,
    lines: [Line; LINES],
    next: AtomicUsize,
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(endpoint: &Endpoint, tasks: &Tasks) -> Self {
        Self {
            origin: endpoint.uri(),
            lines: std::array::from_fn(|_| Line::new(endpoint, tasks)),
            next: AtomicUsize::new(0),
        }
    }

    /// Makes the call and says what is known after it, however long it takes: the caller has the clock.
    pub(super) async fn call(&self, outgoing: Outgoing, now: Timestamp) -> Outcome {
        let phase = outgoing.duty.phase;
        outcome(phase, self.exchange(outgoing, now).await)
    }

    async fn exchange(&self, outgoing: Outgoing, now: Timestamp) -> Result<Answer, Status> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % LINES;
        let (exchange, unanswered) = self.lines[turn].open().await?;
        let answer = send(exchange, self.origin.clone(), outgoing, now).await;
        unanswered.answered();
        answer
    }
}

async fn send(exchange: Exchange, origin: Uri, outgoing: Outgoing, now: Timestamp) -> Result<Answer, Status> {
    let mut client = ParticipantServiceClient::with_origin(exchange, origin)
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

/// The request of an action.
pub(super) fn execute(outgoing: Outgoing, now: Timestamp) -> ExecuteRequest {
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
        /// The request of a call that speaks of an action made before.
        pub(super) fn $function(outgoing: Outgoing, now: Timestamp) -> $request {
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
