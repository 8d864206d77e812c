//! The participants as operators see them, and both directions between the wire and the room.

use std::collections::BTreeMap;
use std::time::Duration;

use super::handlers::{Claim, ClaimedAction, Endpoint, FieldProblem, Protocol, Target};
use crate::proto;
use crate::saga::ids::{ActionName, ParticipantName, Timestamp};

/// What the latest calls say of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Calls go through, or none was made yet.
    Healthy,
    /// The latest call to some registration had no definite answer.
    Degraded,
    /// No registration has answered its latest calls.
    Down,
    /// There is no live registration.
    Absent,
}

/// One participant with its live registrations.
#[derive(Debug, Clone)]
pub struct ParticipantView {
    /// Its name.
    pub name: ParticipantName,
    /// How it is called; `None` when it has no registration.
    pub protocol: Option<Protocol>,
    /// What its latest calls say.
    pub health: Health,
    /// Calls in flight to it.
    pub in_flight: u32,
    /// Calls that wait for one of those to end.
    pub waiting: usize,
    /// What its live registrations offer together.
    pub actions: BTreeMap<ActionName, Target>,
    /// Its live registrations, by endpoint.
    pub registrations: Vec<RegistrationView>,
}

/// One live registration.
#[derive(Debug, Clone)]
pub struct RegistrationView {
    /// Its identity.
    pub registration_id: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Most calls at a time.
    pub max_in_flight: u32,
    /// Calls in flight.
    pub in_flight: u32,
    /// When it runs out; `None` for one from the configuration.
    pub expires_at: Option<Timestamp>,
    /// Whether it stands in the configuration.
    pub from_config: bool,
    /// Why its latest unknown outcome was unknown; empty when there was none.
    pub last_error: String,
    /// Calls since the daemon started.
    pub calls: u64,
    /// Those of them whose outcome was unknown.
    pub unknown_outcomes: u64,
}

/// A point in time on the wire.
#[must_use]
pub(super) fn wire_time(Timestamp(millis): Timestamp) -> prost_types::Timestamp {
    // Below a thousand million, so it fits.
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

impl From<Health> for proto::ParticipantHealth {
    fn from(health: Health) -> Self {
        match health {
            Health::Healthy => Self::Healthy,
            Health::Degraded => Self::Degraded,
            Health::Down => Self::Down,
            Health::Absent => Self::Absent,
        }
    }
}

impl From<Protocol> for proto::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Sagad => Self::Sagad,
            Protocol::Grpc => Self::Grpc,
            Protocol::Http => Self::Http,
        }
    }
}

impl From<ParticipantView> for proto::Participant {
    fn from(view: ParticipantView) -> Self {
        let action = |(name, target): (ActionName, Target)| proto::HandlerAction {
            name: name.to_string(),
            target: target.target,
            refused_on: target.refused_on,
            done_on: target.done_on,
        };
        let protocol = view.protocol.map_or(proto::Protocol::Unspecified, proto::Protocol::from);
        Self {
            name: view.name.to_string(),
            protocol: protocol.into(),
            health: proto::ParticipantHealth::from(view.health).into(),
            in_flight: view.in_flight,
            // Calls are always let through in this version.
            breaker: proto::BreakerState::Closed.into(),
            actions: view.actions.into_iter().map(action).collect(),
            registrations: view.registrations.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<RegistrationView> for proto::Registration {
    fn from(view: RegistrationView) -> Self {
        Self {
            registration_id: view.registration_id,
            endpoint: view.endpoint.to_string(),
            max_in_flight: view.max_in_flight,
            in_flight: view.in_flight,
            expires_at: view.expires_at.map(wire_time),
            from_config: view.from_config,
            last_error: view.last_error,
            calls: view.calls,
            unknown_outcomes: view.unknown_outcomes,
        }
    }
}

impl TryFrom<proto::RegisterHandlersRequest> for Claim {
    type Error = FieldProblem;

    fn try_from(request: proto::RegisterHandlersRequest) -> Result<Self, FieldProblem> {
        let protocol = match request.protocol() {
            proto::Protocol::Unspecified => None,
            proto::Protocol::Sagad => Some(Protocol::Sagad),
            proto::Protocol::Grpc => Some(Protocol::Grpc),
            proto::Protocol::Http => Some(Protocol::Http),
        };
        let ttl = match request.ttl {
            None => Duration::ZERO,
            Some(ttl) => {
                Duration::try_from(ttl).map_err(|_| FieldProblem::new("ttl", "must not be negative"))?
            }
        };
        let action = |action: proto::HandlerAction| ClaimedAction {
            name: action.name,
            target: action.target,
            refused_on: action.refused_on,
            done_on: action.done_on,
        };
        Ok(Self {
            participant: request.participant,
            endpoint: request.endpoint,
            protocol,
            actions: request.actions.into_iter().map(action).collect(),
            max_in_flight: request.max_in_flight,
            ttl,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_known_protocol_claims_none() {
        let request = proto::RegisterHandlersRequest { protocol: 99, ..Default::default() };
        assert_eq!(Claim::try_from(request).unwrap().protocol, None);
    }

    #[test]
    fn a_negative_ttl_is_the_ttls_problem() {
        let ttl = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let request = proto::RegisterHandlersRequest { ttl, ..Default::default() };
        assert_eq!(Claim::try_from(request).unwrap_err().field, "ttl");
    }
}
