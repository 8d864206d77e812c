//! A participant as operators see it.

use super::timestamp;
use crate::engine::registry_port::{
    BreakerState, HandlerAction, ParticipantHealth, ParticipantView, Protocol, RegistrationView,
};
use crate::proto;

/// A participant with its registrations.
#[must_use]
pub fn participant(view: ParticipantView) -> proto::Participant {
    proto::Participant {
        name: view.name.to_string(),
        protocol: view.protocol.map_or(proto::Protocol::Unspecified, protocol).into(),
        health: health(view.health).into(),
        in_flight: view.in_flight,
        breaker: breaker(view.breaker).into(),
        actions: view.actions.iter().map(action).collect(),
        registrations: view.registrations.into_iter().map(registration).collect(),
    }
}

fn protocol(protocol: Protocol) -> proto::Protocol {
    match protocol {
        Protocol::Sagad => proto::Protocol::Sagad,
    }
}

fn health(health: ParticipantHealth) -> proto::ParticipantHealth {
    match health {
        ParticipantHealth::Healthy => proto::ParticipantHealth::Healthy,
        ParticipantHealth::Degraded => proto::ParticipantHealth::Degraded,
        ParticipantHealth::Down => proto::ParticipantHealth::Down,
        ParticipantHealth::Absent => proto::ParticipantHealth::Absent,
    }
}

fn breaker(breaker: BreakerState) -> proto::BreakerState {
    match breaker {
        BreakerState::Closed => proto::BreakerState::Closed,
        BreakerState::Open => proto::BreakerState::Open,
        BreakerState::HalfOpen => proto::BreakerState::HalfOpen,
    }
}

fn action(action: &HandlerAction) -> proto::HandlerAction {
    proto::HandlerAction { name: action.name.to_string(), ..Default::default() }
}

fn registration(view: RegistrationView) -> proto::Registration {
    proto::Registration {
        registration_id: view.registration_id,
        endpoint: view.endpoint,
        max_in_flight: view.max_in_flight,
        in_flight: view.in_flight,
        expires_at: view.expires_at.map(timestamp),
        from_config: view.from_config,
        last_error: view.last_error,
        calls: view.calls,
        unknown_outcomes: view.unknown_outcomes,
    }
}
