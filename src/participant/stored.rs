//! The form in which a registration is stored. Fields are only ever added.
//!
//! There is no expiry in it: a registration that runs out is deleted, so one that is found at the
//! start had not run out when the daemon stopped, and gets its full time again.

use std::time::Duration;

use prost::Message as _;

use super::handlers::{Claim, ClaimedAction, Handlers, Protocol};

#[derive(Clone, PartialEq, prost::Message)]
struct Form {
    #[prost(string, tag = "1")]
    participant: String,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(uint32, tag = "3")]
    protocol: u32,
    #[prost(message, repeated, tag = "4")]
    actions: Vec<ActionForm>,
    #[prost(uint32, tag = "5")]
    max_in_flight: u32,
    #[prost(uint64, tag = "6")]
    ttl_millis: u64,
    #[prost(bytes = "vec", tag = "7")]
    descriptor_set: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ActionForm {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    target: String,
    #[prost(string, repeated, tag = "3")]
    refused_on: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    done_on: Vec<String>,
}

/// Writes a registration.
pub(super) fn encode(handlers: &Handlers) -> Vec<u8> {
    let actions = handlers.in_order().into_iter().map(|(name, target)| ActionForm {
        name: name.to_string(),
        target: target.target.clone(),
        refused_on: target.refused_on.clone(),
        done_on: target.done_on.clone(),
    });
    let form = Form {
        participant: handlers.participant.to_string(),
        endpoint: handlers.endpoint.to_string(),
        protocol: number(handlers.protocol),
        actions: actions.collect(),
        max_in_flight: handlers.max_in_flight,
        ttl_millis: u64::try_from(handlers.ttl.as_millis()).unwrap_or(u64::MAX),
        descriptor_set: handlers.descriptor_set.as_ref().map(|set| set.bytes().to_vec()).unwrap_or_default(),
    };
    form.encode_to_vec()
}

/// Reads a registration back and checks it like a new one.
///
/// # Errors
/// What is damaged, for people.
pub(super) fn decode(body: &[u8]) -> Result<Handlers, String> {
    let form = Form::decode(body).map_err(|cause| cause.to_string())?;
    let claim = Claim {
        participant: form.participant,
        endpoint: form.endpoint,
        protocol: protocol(form.protocol),
        actions: form.actions.into_iter().map(ClaimedAction::from).collect(),
        max_in_flight: form.max_in_flight,
        ttl: Duration::from_millis(form.ttl_millis),
        descriptor_set: form.descriptor_set,
    };
    Handlers::check(&claim).map_err(|invalid| invalid.to_string())
}

fn number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Sagad => 1,
        Protocol::Grpc => 2,
        Protocol::Http => 3,
        // Never stored: it ends with its stream.
        Protocol::Worker => 4,
    }
}

fn protocol(number: u32) -> Option<Protocol> {
    match number {
        1 => Some(Protocol::Sagad),
        2 => Some(Protocol::Grpc),
        3 => Some(Protocol::Http),
        4 => Some(Protocol::Worker),
        _ => None,
    }
}

impl From<ActionForm> for ClaimedAction {
    fn from(form: ActionForm) -> Self {
        Self { name: form.name, target: form.target, refused_on: form.refused_on, done_on: form.done_on }
    }
}

#[cfg(test)]
mod tests {
    use super::super::handlers::tests::claim;
    use super::*;

    #[test]
    fn a_registration_reads_back_as_it_was_written() {
        let mut claim = claim("stock", "http://127.0.0.1:9001", &["deduct", "restore"]);
        claim.max_in_flight = 7;
        claim.ttl = Duration::from_millis(12_345);
        claim.actions[0].target = "shop.Stock/Deduct".into();
        claim.actions[0].refused_on = vec!["NOT_FOUND".into()];
        claim.actions[1].done_on = vec!["ABORTED".into()];
        let handlers = Handlers::check(&claim).unwrap();
        assert_eq!(decode(&encode(&handlers)).unwrap(), handlers);
    }

    #[test]
    fn a_descriptor_set_is_kept_with_its_registration_and_actions_in_their_order() {
        let mut claim = claim("daemon", "http://127.0.0.1:9001", &["watch", "get"]);
        claim.protocol = Some(Protocol::Grpc);
        claim.actions[0].target = "/sagad.v1.SagaService/ListSagas".into();
        claim.actions[1].target = "sagad.v1.SagaService/GetSaga".into();
        claim.descriptor_set = crate::proto::FILE_DESCRIPTOR_SET.to_vec();
        let handlers = Handlers::check(&claim).unwrap();
        assert_eq!(decode(&encode(&handlers)).unwrap(), handlers);
        let asked = Handlers::check(&Claim { descriptor_set: Vec::new(), ..claim }).unwrap();
        assert_ne!(asked, handlers);
    }

    #[test]
    fn a_damaged_registration_is_refused_and_not_guessed() {
        assert!(decode(b"\xff\xff\xff").is_err());
        assert!(decode(b"").unwrap_err().contains("participant"));
    }
}
