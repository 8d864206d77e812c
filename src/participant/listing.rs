//! The participants as operators see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::handlers::{Endpoint, Protocol, Target};
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
}
