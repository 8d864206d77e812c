//! The participants as operators see them.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use super::breaker::Standing;
use super::handlers::{Endpoint, Protocol, Target};
use super::pause::Pause;
use super::roster::{Lane, Roster};
use crate::saga::ids::{ActionName, ParticipantName, Timestamp};

/// What the latest calls say of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Calls go through, or none was made yet.
    Healthy,
    /// The latest call to some registration had no definite answer, or not all calls go through.
    Degraded,
    /// No call goes through to any registration.
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
    /// Whether calls go through to one of its registrations at least.
    pub breaker: Standing,
    /// Who paused it, if it is paused.
    pub pause: Option<Pause>,
    /// What its live registrations offer together.
    pub actions: BTreeMap<ActionName, Arc<Target>>,
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
    /// Whether calls go through to it.
    pub breaker: Standing,
    /// How often calls to it came to be held back, since it was registered.
    pub openings: u64,
    /// Calls that ended over the last minute.
    pub calls_recent: u64,
    /// Those of them whose outcome was unknown.
    pub unknown_recent: u64,
}

impl ParticipantView {
    /// One of which nothing is known but its name.
    #[must_use]
    pub fn absent(name: &ParticipantName) -> Self {
        Self {
            name: name.clone(),
            protocol: None,
            health: Health::Absent,
            in_flight: 0,
            breaker: Standing::Closed,
            pause: None,
            actions: BTreeMap::new(),
            registrations: Vec::new(),
        }
    }

    pub(super) fn of(name: &ParticipantName, roster: &Roster, now: Timestamp) -> Self {
        let live: Vec<&Lane> = roster.lanes().iter().filter(|lane| lane.is_live(now)).collect();
        let mut actions = BTreeMap::new();
        for lane in &live {
            actions.extend(lane.handlers.actions.clone());
        }
        let mut registrations: Vec<_> = live.iter().map(|lane| RegistrationView::of(lane, now)).collect();
        registrations.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        let in_lanes: u32 = roster.lanes().iter().map(|lane| lane.in_flight).sum();
        Self {
            name: name.clone(),
            protocol: roster.lanes().first().map(|lane| lane.handlers.protocol),
            health: health(&live, now),
            in_flight: in_lanes + roster.draining.values().sum::<u32>(),
            breaker: breaker(&live, now),
            pause: roster.pause.clone(),
            actions,
            registrations,
        }
    }
}

fn health(live: &[&Lane], now: Timestamp) -> Health {
    let is_open = |lane: &&Lane| matches!(lane.breaker.standing(now), Standing::Open { .. });
    let is_well = |lane: &&Lane| lane.breaker.is_closed() && !lane.breaker.is_in_doubt();
    if live.is_empty() {
        Health::Absent
    } else if live.iter().all(is_open) {
        Health::Down
    } else if live.iter().all(is_well) {
        Health::Healthy
    } else {
        Health::Degraded
    }
}

/// The best of its endpoints' counts: one that lets calls through takes them.
fn breaker(live: &[&Lane], now: Timestamp) -> Standing {
    let rank = |standing: &Standing| match standing {
        Standing::Closed => (0, Timestamp(0)),
        Standing::HalfOpen => (1, Timestamp(0)),
        Standing::Open { next_trial } => (2, *next_trial),
    };
    let standings = live.iter().map(|lane| lane.breaker.standing(now));
    standings.min_by_key(rank).unwrap_or(Standing::Closed)
}

impl RegistrationView {
    fn of(lane: &Lane, now: Timestamp) -> Self {
        let (calls_recent, unknown_recent) = lane.minute.total(now);
        Self {
            registration_id: lane.id.to_string(),
            endpoint: lane.handlers.endpoint.clone(),
            max_in_flight: lane.handlers.max_in_flight,
            in_flight: lane.in_flight,
            expires_at: lane.expires_at,
            from_config: lane.is_configured(),
            last_error: lane.last_error.clone(),
            calls: lane.calls,
            unknown_outcomes: lane.unknown_outcomes,
            breaker: lane.breaker.standing(now),
            openings: lane.breaker.openings(),
            calls_recent,
            unknown_recent,
        }
    }
}
