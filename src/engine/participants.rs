//! Who takes part, made durable: each change of the registry is stored before it is in effect.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Engine;
use super::error::{EngineError, Violation};
use super::registry_port::{
    BreakerState, HandlerAction, ParticipantHealth, ParticipantView, Protocol, RegisterHandlers, Registered,
    RegistrationView, RegistryPort,
};
use super::settings::RETRY_AFTER;
use super::shared::Shared;
use crate::participant::handlers::{self, Claim, ClaimedAction};
use crate::participant::listing::{self, Health};
use crate::participant::registry::RegistryError;
use crate::saga::ids::{ParticipantName, Timestamp};
use crate::store::StoredRegistration;

/// Expired registrations are looked for at least this often.
const EXPIRY_LOOK_MAX: Duration = Duration::from_secs(30);
/// And not more often than this.
const EXPIRY_LOOK_MIN: Duration = Duration::from_millis(250);

impl RegistryPort for Engine {
    fn register_handlers(&self, request: RegisterHandlers) -> BoxFuture<'_, Result<Registered, EngineError>> {
        self.register(request).boxed()
    }

    fn renew_registration<'a>(
        &'a self,
        registration_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, EngineError>> {
        // Nothing is stored: what is in the store has not run out, and gets a full time anyway
        // when it is read back.
        std::future::ready(self.shared.registry.renew(registration_id).map_err(EngineError::from)).boxed()
    }

    fn deregister_handlers<'a>(&'a self, registration_id: &'a str) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let ending = self.shared.registry.prepare_end(registration_id).await?;
            self.shared.store.delete_registration(ending.registration_id()).await?;
            ending.finish();
            Ok(())
        }
        .boxed()
    }

    fn list_participants(&self, only: Option<&ParticipantName>) -> Vec<ParticipantView> {
        self.shared.registry.list(only.map(ParticipantName::as_str)).into_iter().map(view_of).collect()
    }
}

impl Engine {
    async fn register(&self, request: RegisterHandlers) -> Result<Registered, EngineError> {
        self.shared.check_taking()?;
        let ttl = request.ttl;
        let prepared = self.shared.registry.prepare(&claim_of(request)).await?;
        if let Some(row) = prepared.to_store() {
            let row = StoredRegistration { registration_id: row.registration_id, body: row.body };
            self.shared.store.put_registration(row).await?;
        }
        let registered = prepared.activate();
        // One that the configuration holds never runs out; its service may renew it all the same.
        let expires_at = registered.expires_at.unwrap_or_else(|| self.shared.clock.now() + ttl);
        Ok(Registered { registration_id: registered.registration_id, expires_at })
    }

    /// Takes up the stored registrations, each with its full time from now. A row that is of no
    /// use any more is deleted.
    pub(super) async fn restore_registrations(&self, rows: Vec<StoredRegistration>) {
        for row in rows {
            let id = row.registration_id;
            if let Err(error) = self.shared.registry.restore(&id, &row.body) {
                tracing::warn!(registration = id, %error, "a stored registration is dropped");
                delete(&self.shared, &id).await;
            }
        }
    }
}

/// Drops registrations that ran out, and their rows.
pub(super) async fn drop_expired(shared: Arc<Shared>) {
    loop {
        let now = shared.clock.now();
        let next = shared.registry.next_expiry().map_or(EXPIRY_LOOK_MAX, |at| at.since(now));
        tokio::time::sleep(next.clamp(EXPIRY_LOOK_MIN, EXPIRY_LOOK_MAX)).await;
        let expired = shared.registry.take_expired().await;
        for id in &expired.registration_ids {
            tracing::info!(registration = id, "a registration ran out");
            delete(&shared, id).await;
        }
    }
}

/// A row that stays comes back at the next start, and runs out again.
async fn delete(shared: &Shared, id: &str) {
    if let Err(error) = shared.store.delete_registration(id).await {
        tracing::warn!(registration = id, %error, "a registration's row could not be deleted");
    }
}

impl From<RegistryError> for EngineError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Invalid(problems) => Self::Invalid(
                problems.into_iter().map(|problem| Violation::new(problem.field, problem.problem)).collect(),
            ),
            RegistryError::Precondition(reason) => Self::Precondition(reason),
            RegistryError::NotFound { id } => Self::NotFound { what: "registration", name: id },
            RegistryError::Full(reason) => Self::Overloaded { reason, retry_after: RETRY_AFTER },
            RegistryError::Damaged { .. } => Self::DataLoss(error.to_string()),
        }
    }
}

fn claim_of(request: RegisterHandlers) -> Claim {
    let protocol = match request.protocol {
        Protocol::Sagad => handlers::Protocol::Sagad,
    };
    let action =
        |action: HandlerAction| ClaimedAction { name: action.name.to_string(), ..ClaimedAction::default() };
    Claim {
        participant: request.participant.to_string(),
        endpoint: request.endpoint,
        protocol: Some(protocol),
        actions: request.actions.into_iter().map(action).collect(),
        max_in_flight: request.max_in_flight,
        ttl: request.ttl,
    }
}

fn view_of(view: listing::ParticipantView) -> ParticipantView {
    ParticipantView {
        name: view.name,
        protocol: view.protocol.and_then(|protocol| match protocol {
            handlers::Protocol::Sagad => Some(Protocol::Sagad),
            // Refused when they are registered.
            handlers::Protocol::Grpc | handlers::Protocol::Http => None,
        }),
        health: match view.health {
            Health::Healthy => ParticipantHealth::Healthy,
            Health::Degraded => ParticipantHealth::Degraded,
            Health::Down => ParticipantHealth::Down,
            Health::Absent => ParticipantHealth::Absent,
        },
        in_flight: view.in_flight,
        breaker: BreakerState::Closed,
        actions: view.actions.into_keys().map(|name| HandlerAction { name }).collect(),
        registrations: view.registrations.into_iter().map(registration_of).collect(),
    }
}

fn registration_of(view: listing::RegistrationView) -> RegistrationView {
    RegistrationView {
        registration_id: view.registration_id,
        endpoint: view.endpoint.to_string(),
        max_in_flight: view.max_in_flight,
        in_flight: view.in_flight,
        expires_at: view.expires_at,
        from_config: view.from_config,
        last_error: view.last_error,
        calls: view.calls,
        unknown_outcomes: view.unknown_outcomes,
    }
}
