//! What the surface asks of the registry of participants, in types that are already valid.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::saga::ids::{ActionName, ParticipantName, Timestamp};

use super::error::EngineError;

/// A registration's time to live when none is asked for.
pub const TTL_DEFAULT: Duration = Duration::from_secs(30);
/// The longest time to live of a registration.
pub const TTL_MAX: Duration = Duration::from_hours(1);
/// Calls at a time to one endpoint when no number is asked for.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 64;

/// Keeps who can be called and where. Registrations are durable once answered.
pub trait RegistryPort: Send + Sync + 'static {
    /// Registers one endpoint, or replaces what the same participant and endpoint registered.
    ///
    /// # Errors
    /// Precondition: another protocol for the participant is registered already.
    fn register_handlers(&self, request: RegisterHandlers) -> BoxFuture<'_, Result<Registered, EngineError>>;

    /// Gives a registration its full time to live again; `None` when it never runs out.
    ///
    /// # Errors
    /// `NotFound`: no such registration, or it ran out.
    fn renew_registration<'a>(
        &'a self,
        registration_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, EngineError>>;

    /// Ends a registration; calls in flight finish.
    ///
    /// # Errors
    /// `NotFound`: no such registration. Precondition: it comes from the configuration.
    fn deregister_handlers<'a>(&'a self, registration_id: &'a str) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Every known participant by name, or only the one asked for.
    fn list_participants(&self, only: Option<&ParticipantName>) -> Vec<ParticipantView>;
}

/// How a participant is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// It implements this daemon's own participant service.
    Sagad,
}

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterHandlers {
    /// Who.
    pub participant: ParticipantName,
    /// Where: `http://HOST:PORT`.
    pub endpoint: String,
    /// How.
    pub protocol: Protocol,
    /// What it offers: at least one, no name twice.
    pub actions: Vec<HandlerAction>,
    /// Calls at a time; at least 1.
    pub max_in_flight: u32,
    /// How long it lasts without being renewed; above zero.
    pub ttl: Duration,
}

/// An action that a participant offers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandlerAction {
    /// Its name: what follows the first dot of a definition's `call`.
    pub name: ActionName,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Renews and ends it.
    pub registration_id: String,
    /// When it runs out unless renewed.
    pub expires_at: Timestamp,
}

/// What the latest calls say of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipantHealth {
    /// Calls go through, or none was made yet.
    Healthy,
    /// Some calls go through.
    Degraded,
    /// None goes through.
    Down,
    /// There is no live registration.
    Absent,
}

/// Whether calls to a participant are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// They are.
    Closed,
    /// They are parked.
    Open,
    /// A few trial calls are.
    HalfOpen,
}

/// A participant as operators see it.
#[derive(Debug, Clone)]
pub struct ParticipantView {
    /// Its name.
    pub name: ParticipantName,
    /// How it is called; `None` when it has no registration.
    pub protocol: Option<Protocol>,
    /// What its latest calls say.
    pub health: ParticipantHealth,
    /// Calls in flight over all registrations.
    pub in_flight: u32,
    /// Whether calls are let through.
    pub breaker: BreakerState,
    /// What its live registrations offer, by name.
    pub actions: Vec<HandlerAction>,
    /// Its live registrations, by endpoint.
    pub registrations: Vec<RegistrationView>,
}

/// One endpoint of a participant.
#[derive(Debug, Clone)]
pub struct RegistrationView {
    /// Its identity.
    pub registration_id: String,
    /// Where it is.
    pub endpoint: String,
    /// Most calls at a time.
    pub max_in_flight: u32,
    /// Calls in flight.
    pub in_flight: u32,
    /// When it runs out; `None` when it never does.
    pub expires_at: Option<Timestamp>,
    /// Whether it stands in the configuration.
    pub from_config: bool,
    /// What went wrong with the latest call without a definite answer; empty for nothing.
    pub last_error: String,
    /// Calls since the daemon started.
    pub calls: u64,
    /// Those without a definite answer.
    pub unknown_outcomes: u64,
}
