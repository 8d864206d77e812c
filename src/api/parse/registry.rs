//! Requests of `RegistryService`.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::complete_step_request::Outcome;

use super::violations::Violations;
use crate::api::limits::{
    ACTIONS_MAX, CODE_MAX_BYTES, ENDPOINT_MAX_BYTES, Limits, MAX_IN_FLIGHT_MAX, MESSAGE_MAX_BYTES,
    TOKEN_MAX_BYTES,
};
use crate::engine::error::EngineError;
use crate::engine::registry_port::{
    HandlerAction, MAX_IN_FLIGHT_DEFAULT, Protocol, RegisterHandlers, TTL_DEFAULT, TTL_MAX,
};
use crate::proto;
use crate::saga::ids::{ActionName, ParticipantName};
use crate::saga::input::Completion;
use crate::saga::words::Refusal;

/// The code of a refusal whose participant gave none.
const CODE_DEFAULT: &str = "REFUSED";
/// The message of a refusal whose participant gave none.
const MESSAGE_DEFAULT: &str = "refused without a message";

/// Checks a registration.
pub fn register_handlers(request: proto::RegisterHandlersRequest) -> Result<RegisterHandlers, EngineError> {
    let mut bad = Violations::default();
    let participant = bad.name("participant", &request.participant, ParticipantName::parse);
    let endpoint = endpoint(&mut bad, request.endpoint);
    let protocol = protocol(&mut bad, request.protocol);
    let actions = actions(&mut bad, &request.actions);
    let max_in_flight = match request.max_in_flight {
        0 => Some(MAX_IN_FLIGHT_DEFAULT),
        over if over > MAX_IN_FLIGHT_MAX => {
            bad.add("max_in_flight", format!("{over} is over the limit of {MAX_IN_FLIGHT_MAX}"));
            None
        }
        given => Some(given),
    };
    let ttl = match bad.span("ttl", request.ttl, TTL_MAX) {
        Some(Duration::ZERO) => Some(TTL_DEFAULT),
        other => other,
    };
    bad.finish(|| {
        Some(RegisterHandlers {
            participant: participant?,
            endpoint: endpoint?,
            protocol: protocol?,
            actions: actions?,
            max_in_flight: max_in_flight?,
            ttl: ttl?,
        })
    })
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

fn protocol(bad: &mut Violations, number: i32) -> Option<Protocol> {
    match bad.known::<proto::Protocol>("protocol", number)? {
        proto::Protocol::Sagad => Some(Protocol::Sagad),
        proto::Protocol::Unspecified => {
            bad.add("protocol", "is required; served by this version: PROTOCOL_SAGAD");
            None
        }
        other @ (proto::Protocol::Grpc | proto::Protocol::Http) => {
            let name = other.as_str_name();
            bad.add("protocol", format!("{name} is not served by this version; served: PROTOCOL_SAGAD"));
            None
        }
    }
}

fn endpoint(bad: &mut Violations, url: String) -> Option<String> {
    let url = bad.required("endpoint", url, ENDPOINT_MAX_BYTES)?;
    match endpoint_problem(&url) {
        Some(problem) => {
            bad.add("endpoint", problem);
            None
        }
        None => Some(url),
    }
}

fn endpoint_problem(url: &str) -> Option<String> {
    let shape = "must be a URL such as http://127.0.0.1:9001";
    let Ok(parsed) = url.parse::<http::Uri>() else { return Some(shape.to_owned()) };
    let Some(authority) = parsed.authority() else { return Some(shape.to_owned()) };
    match parsed.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Some("https is not served by this version; use http on a private network".to_owned());
        }
        _ => return Some(shape.to_owned()),
    }
    if authority.as_str().contains('@') {
        return Some("must not carry a user or password".to_owned());
    }
    let host = authority.host();
    let has_port = authority.as_str().len() > host.len();
    if host.is_empty() || (has_port && authority.port_u16().is_none_or(|port| port == 0)) {
        return Some(shape.to_owned());
    }
    if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
        return Some("must not have a path or query".to_owned());
    }
    None
}

fn actions(bad: &mut Violations, actions: &[proto::HandlerAction]) -> Option<Vec<HandlerAction>> {
    if actions.is_empty() {
        bad.add("actions", "at least one is required");
        return None;
    }
    if actions.len() > ACTIONS_MAX {
        bad.add("actions", format!("{} actions are over the limit of {ACTIONS_MAX}", actions.len()));
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut valid = Vec::with_capacity(actions.len());
    for (place, action) in actions.iter().enumerate() {
        let field = format!("actions[{place}].name");
        let Some(name) = bad.name(&field, &action.name, ActionName::parse) else { continue };
        if seen.insert(name.clone()) {
            valid.push(HandlerAction { name });
        } else {
            bad.add(field, format!("{name} stands in the list twice"));
        }
    }
    (valid.len() == actions.len()).then_some(valid)
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
    fn a_registration_lasts_thirty_seconds_and_takes_64_calls_unless_told() {
        let parsed = register_handlers(valid()).unwrap();
        assert_eq!(parsed.ttl, TTL_DEFAULT);
        assert_eq!(parsed.max_in_flight, 64);
        assert_eq!(parsed.actions.len(), 2);
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
    fn a_protocol_of_a_later_version_is_refused_with_the_one_that_is_served() {
        let request = proto::RegisterHandlersRequest { protocol: proto::Protocol::Http.into(), ..valid() };
        let text = register_handlers(request).unwrap_err().to_string();
        assert!(text.contains("PROTOCOL_HTTP") && text.contains("PROTOCOL_SAGAD"), "{text}");
    }

    #[test]
    fn an_endpoint_is_a_plain_http_url() {
        for good in ["http://127.0.0.1:9001", "http://stock.shop.svc/", "http://[::1]:80"] {
            assert_eq!(endpoint_problem(good), None, "{good}");
        }
        for wrong in [
            "127.0.0.1:9001",
            "stock",
            "https://stock",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://u:p@a",
            "http://a/path",
            "http://a?x=1",
            "unix:/tmp/s",
            "http://a b",
        ] {
            assert!(endpoint_problem(wrong).is_some(), "{wrong}");
        }
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
