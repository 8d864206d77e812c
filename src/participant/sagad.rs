//! `PROTOCOL_SAGAD`: the daemon as a client of `sagad.v1.ParticipantService`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use prost::Message;
use tonic::Code;

use super::Outgoing;
use super::handlers::Endpoint;
use super::line::Line;
use super::outcome::{Answer, NoOutcome, cause, outcome};
use super::wire::{self, NoAnswer, Question};
use crate::proto::{self, CompensateRequest, ExecuteRequest, ProbeRequest};
use crate::proto::{CompensateResponse, ExecuteResponse, ProbeResponse};
use crate::saga::ids::Timestamp;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase};
use crate::tasks::Tasks;

/// Connections to one endpoint. A single one is a bottleneck under load; the more there are, the
/// fewer calls share a write to the socket.
const LINES: usize = 2;
/// Largest request, in bytes: three documents, and labels.
pub(super) const REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Headers of a request, those of the connection among them.
const HEADERS: usize = 4;
const EXECUTE: &str = "/sagad.v1.ParticipantService/Execute";
const COMPENSATE: &str = "/sagad.v1.ParticipantService/Compensate";
const PROBE: &str = "/sagad.v1.ParticipantService/Probe";

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
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % LINES;
        let (exchange, unanswered) = match self.lines[turn].open().await {
            Ok(opened) => opened,
            Err(status) => return Outcome::Unknown(cause(&status)),
        };
        let timeout = outgoing.duty.timeout;
        let question = match phase {
            Phase::Action => question(EXECUTE, timeout, &execute(outgoing, now)),
            Phase::Compensation => question(COMPENSATE, timeout, &compensate(outgoing, now)),
            Phase::Probe => question(PROBE, timeout, &probe(outgoing, now)),
        };
        let answer = match question {
            Ok(question) => wire::ask(exchange, &self.origin, question).await.map_err(NoAnswer::cause),
            Err(cause) => Err(cause),
        };
        unanswered.answered();
        let answer = answer.map_err(NoOutcome::Broken).and_then(|answer| match phase {
            Phase::Action => read::<ExecuteResponse>(answer),
            Phase::Compensation => read::<CompensateResponse>(answer),
            Phase::Probe => read::<ProbeResponse>(answer),
        });
        outcome(phase, answer)
    }
}

fn question(method: &'static str, timeout: Duration, request: &impl Message) -> Result<Question, String> {
    let length = request.encoded_len();
    if length > REQUEST_MAX_BYTES {
        return Err(format!(
            "not sent: the request has {length} bytes, over the limit of {REQUEST_MAX_BYTES}"
        ));
    }
    let mut headers = HeaderMap::with_capacity(HEADERS);
    wire::give_time(&mut headers, timeout);
    Ok(Question::unary(PathAndQuery::from_static(method), headers, request))
}

/// The answer's one message.
fn read<A: Message + Default + Into<Answer>>(answer: wire::Answer) -> Result<Answer, NoOutcome> {
    if answer.status.code != Code::Ok {
        return Err(NoOutcome::Status(answer.status.code, answer.status.message));
    }
    let message = answer.only().map_err(NoOutcome::Broken)?;
    let read = A::decode(&message[..]).map(Into::into);
    read.map_err(|error| NoOutcome::Broken(format!("the answer cannot be read: {error}")))
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
