//! A participant as operators see it.

use std::sync::Arc;

use super::timestamp;
use crate::engine::participants::{
    Health, ParticipantView, Pause, Protocol, RegistrationView, Standing, Target,
};
use crate::proto;
use crate::saga::ids::{ActionName, Timestamp};

/// A participant with its registrations.
#[must_use]
pub fn participant(view: ParticipantView) -> proto::Participant {
    proto::Participant {
        name: view.name.to_string(),
        protocol: view.protocol.map_or(proto::Protocol::Unspecified, protocol).into(),
        health: health(view.health).into(),
        in_flight: view.in_flight,
        breaker: breaker(view.breaker).0.into(),
        actions: view.actions.into_iter().map(action).collect(),
        registrations: view.registrations.into_iter().map(registration).collect(),
        pause: view.pause.map(|Pause { reason, actor, since }| proto::ParticipantPause {
            reason,
            actor,
            since: Some(timestamp(since)),
        }),
    }
}

fn protocol(protocol: Protocol) -> proto::Protocol {
    match protocol {
        Protocol::Sagad => proto::Protocol::Sagad,
        Protocol::Grpc => proto::Protocol::Grpc,
        Protocol::Http => proto::Protocol::Http,
        Protocol::Worker => proto::Protocol::Worker,
    }
}

/// Whether calls go through, and when they do again.
fn breaker(standing: Standing) -> (proto::BreakerState, Option<Timestamp>) {
    match standing {
        Standing::Closed => (proto::BreakerState::Closed, None),
        Standing::Open { next_trial } => (proto::BreakerState::Open, Some(next_trial)),
        Standing::HalfOpen => (proto::BreakerState::HalfOpen, None),
    }
}

fn health(health: Health) -> proto::ParticipantHealth {
    match health {
        Health::Healthy => proto::ParticipantHealth::Healthy,
        Health::Degraded => proto::ParticipantHealth::Degraded,
        Health::Down => proto::ParticipantHealth::Down,
        Health::Absent => proto::ParticipantHealth::Absent,
    }
}

fn action((name, target): (ActionName, Arc<Target>)) -> proto::HandlerAction {
    proto::HandlerAction {
        name: name.to_string(),
        target: target.target.clone(),
        refused_on: target.refused_on.clone(),
        done_on: target.done_on.clone(),
    }
}

fn registration(view: RegistrationView) -> proto::Registration {
    let (breaker, next_trial_at) = breaker(view.breaker);
    proto::Registration {
        registration_id: view.registration_id,
        endpoint: view.endpoint.to_string(),
        max_in_flight: view.max_in_flight,
        in_flight: view.in_flight,
        expires_at: view.expires_at.map(timestamp),
        from_config: view.from_config,
        last_error: view.last_error,
        calls: view.calls,
        unknown_outcomes: view.unknown_outcomes,
        breaker: breaker.into(),
        next_trial_at: next_trial_at.map(timestamp),
        calls_recent: view.calls_recent,
        unknown_recent: view.unknown_recent,
        openings: view.openings,
    }
}
