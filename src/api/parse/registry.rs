//! Requests of `RegistryService`.

use std::time::Duration;

use proto::complete_step_request::Outcome;

use super::violations::Violations;
use crate::api::limits::{CODE_MAX_BYTES, Limits, MESSAGE_MAX_BYTES, TOKEN_MAX_BYTES};
use crate::engine::error::EngineError;
use crate::engine::participants::{
    Claim, ClaimedAction, FieldProblem, Handlers, InvalidClaim, Protocol, WorkerClaim,
};
use crate::proto;
use crate::saga::ids::ParticipantName;
use crate::saga::input::Completion;
use crate::saga::words::Refusal;

/// The code of a refusal whose participant gave none.
const CODE_DEFAULT: &str = "REFUSED";
/// The message of a refusal whose participant gave none.
const MESSAGE_DEFAULT: &str = "refused without a message";

/// Checks a registration. What its fields must be is the participant room's to say; here is only
/// what the wire can say and a claim cannot.
pub fn register_handlers(request: proto::RegisterHandlersRequest) -> Result<Handlers, EngineError> {
    let mut bad = Violations::default();
    let protocol = bad.known("protocol", request.protocol).and_then(protocol);
    let ttl = bad.span("ttl", request.ttl, Duration::MAX);
    let claim = Claim {
        participant: request.participant,
        endpoint: request.endpoint,
        protocol,
        actions: request.actions.into_iter().map(action).collect(),
        max_in_flight: request.max_in_flight,
        ttl: ttl.unwrap_or_default(),
        descriptor_set: request.descriptor_set,
    };
    let handlers = match Handlers::check(&claim) {
        Ok(handlers) => Some(handlers),
        Err(InvalidClaim(problems)) => {
            for FieldProblem { field, problem } in problems {
                bad.add_unless_named(field, problem);
            }
            None
        }
    };
    bad.finish(|| handlers)
}

/// Checks the first message of a worker.
pub fn worker_hello(first: proto::OpenWorkerRequest) -> Result<Handlers, EngineError> {
    let mut bad = Violations::default();
    let Some(hello) = first.hello else {
        bad.add("hello", "is required in the first message");
        return bad.finish(|| None);
    };
    let proto::WorkerHello { participant, worker, actions, max_in_flight } = hello;
    let handlers = match (WorkerClaim { participant, worker, actions, max_in_flight }).check() {
        Ok(handlers) => Some(handlers),
        Err(InvalidClaim(problems)) => {
            for FieldProblem { field, problem } in problems {
                bad.add(format!("hello.{field}"), problem);
            }
            None
        }
    };
    bad.finish(|| handlers)
}

fn protocol(protocol: proto::Protocol) -> Option<Protocol> {
    match protocol {
        proto::Protocol::Unspecified => None,
        proto::Protocol::Sagad => Some(Protocol::Sagad),
        proto::Protocol::Grpc => Some(Protocol::Grpc),
        proto::Protocol::Http => Some(Protocol::Http),
        proto::Protocol::Worker => Some(Protocol::Worker),
    }
}

fn action(action: proto::HandlerAction) -> ClaimedAction {
    let proto::HandlerAction { name, target, refused_on, done_on } = action;
    ClaimedAction { name, target, refused_on, done_on }
}

/// Checks the id of a registration.
pub fn registration_id(id: String) -> Result<String, EngineError> {
    let mut bad = Violations::default();
    let id = bad.required("registration_id", id, TOKEN_MAX_BYTES);
    bad.finish(|| id)
}

/// Checks whose registrations are wanted; `None` for all.
pub fn only_participant(name: &str) -> Result<Option<ParticipantName>, EngineError> {
    if name.is_empty() {
        return Ok(None);
    }
    let mut bad = Violations::default();
    let name = bad.name("participant", name, ParticipantName::parse);
    bad.finish(|| name.map(Some))
}

/// Checks the late end of a pending step: its token and its outcome.
pub fn complete_step(
    request: proto::CompleteStepRequest,
    limits: &Limits,
) -> Result<(String, Completion), EngineError> {
    let mut bad = Violations::default();
    let token = bad.required("token", request.token, TOKEN_MAX_BYTES);
    let outcome = match request.outcome {
        Some(Outcome::Done(done)) => {
            bad.json("done.output_json", &done.output_json, limits.input_json_max_bytes).map(Completion::Done)
        }
        Some(Outcome::Refused(refused)) => refusal(&mut bad, refused).map(Completion::Refused),
        Some(Outcome::Pending(_)) => {
            bad.add("pending", "only done and refused finish a step");
            None
        }
        None => {
            bad.add("outcome", "is required: done or refused");
            None
        }
    };
    bad.finish(|| token.zip(outcome))
}

fn refusal(bad: &mut Violations, refused: proto::Refused) -> Option<Refusal> {
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let code = bad.text("refused.code", refused.code, CODE_MAX_BYTES);
    let message = bad.text("refused.message", refused.message, MESSAGE_MAX_BYTES);
    Some(Refusal { code: or(code?, CODE_DEFAULT), message: or(message?, MESSAGE_DEFAULT) })
}

#[cfg(test)]
mod tests {
    use super::super::violations::fields_of;
    use super::*;

    fn valid() -> proto::RegisterHandlersRequest {
        proto::RegisterHandlersRequest {
            participant: "stock".into(),
            endpoint: "http://127.0.0.1:9001".into(),
            protocol: proto::Protocol::Sagad.into(),
            actions: vec![action("deduct"), action("restore")],
            ..Default::default()
        }
    }

    fn action(name: &str) -> proto::HandlerAction {
        proto::HandlerAction { name: name.into(), ..Default::default() }
    }

    #[test]
    fn a_registration_keeps_what_each_action_says() {
        let deduct = proto::HandlerAction {
            target: "shop.Stock/Deduct".into(),
            refused_on: vec!["NOT_FOUND".into()],
            done_on: vec!["ABORTED".into()],
            ..action("deduct")
        };
        let handlers =
            register_handlers(proto::RegisterHandlersRequest { actions: vec![deduct], ..valid() }).unwrap();
        let target = handlers.actions.values().next().unwrap();
        assert_eq!(target.target, "shop.Stock/Deduct");
        assert_eq!((&*target.refused_on[0], &*target.done_on[0]), ("NOT_FOUND", "ABORTED"));
    }

    #[test]
    fn each_wrong_field_of_a_registration_is_named() {
        let ttl = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let cases: Vec<(&str, proto::RegisterHandlersRequest)> = vec![
            ("participant", proto::RegisterHandlersRequest { participant: "a.b".into(), ..valid() }),
            ("endpoint", proto::RegisterHandlersRequest { endpoint: String::new(), ..valid() }),
            ("actions", proto::RegisterHandlersRequest { actions: vec![], ..valid() }),
            (
                "actions[1].name",
                proto::RegisterHandlersRequest { actions: vec![action("a"), action("a")], ..valid() },
            ),
            ("actions[0].name", proto::RegisterHandlersRequest { actions: vec![action("")], ..valid() }),
            ("ttl", proto::RegisterHandlersRequest { ttl: ttl(3_601), ..valid() }),
            ("ttl", proto::RegisterHandlersRequest { ttl: ttl(-1), ..valid() }),
            ("max_in_flight", proto::RegisterHandlersRequest { max_in_flight: u32::MAX, ..valid() }),
            ("protocol", proto::RegisterHandlersRequest { protocol: 0, ..valid() }),
            ("protocol", proto::RegisterHandlersRequest { protocol: 42, ..valid() }),
        ];
        for (field, request) in cases {
            let shown = format!("{request:?}");
            assert_eq!(fields_of(register_handlers(request)), [field], "{shown}");
        }
    }

    #[test]
    fn each_wrong_field_of_a_workers_hello_is_named() {
        let hello =
            |hello: Option<proto::WorkerHello>| proto::OpenWorkerRequest { hello, ..Default::default() };
        assert_eq!(fields_of(worker_hello(hello(None))), ["hello"]);
        let empty = hello(Some(proto::WorkerHello::default()));
        assert_eq!(fields_of(worker_hello(empty)), ["hello.participant", "hello.worker", "hello.actions"]);
        let good = proto::WorkerHello {
            participant: "stock".into(),
            worker: "one".into(),
            actions: vec!["deduct".into()],
            max_in_flight: 3,
        };
        assert_eq!(worker_hello(hello(Some(good))).unwrap().max_in_flight, 3);
    }

    #[test]
    fn only_done_and_refused_finish_a_step() {
        let limits = Limits::default();
        let with = |outcome| proto::CompleteStepRequest { token: "t".into(), outcome };
        assert_eq!(fields_of(complete_step(with(None), &limits)), ["outcome"]);
        let pending = Some(Outcome::Pending(proto::Pending::default()));
        assert_eq!(fields_of(complete_step(with(pending), &limits)), ["pending"]);
        let garbled = Some(Outcome::Done(proto::Done { output_json: "{".into() }));
        assert_eq!(fields_of(complete_step(with(garbled), &limits)), ["done.output_json"]);
        assert_eq!(
            fields_of(complete_step(proto::CompleteStepRequest::default(), &limits)),
            ["token", "outcome"]
        );
        let empty = Some(Outcome::Done(proto::Done::default()));
        let (token, outcome) = complete_step(with(empty), &limits).unwrap();
        assert_eq!((token.as_str(), outcome), ("t", Completion::Done(crate::saga::json::Json::null())));
    }

    #[test]
    fn a_refusal_always_has_a_code_and_a_message() {
        let silent = proto::CompleteStepRequest {
            token: "t".into(),
            outcome: Some(Outcome::Refused(proto::Refused::default())),
        };
        let (_, outcome) = complete_step(silent, &Limits::default()).unwrap();
        let refusal = Refusal { code: CODE_DEFAULT.into(), message: MESSAGE_DEFAULT.into() };
        assert_eq!(outcome, Completion::Refused(refusal));
    }
}
