//! Who takes part, made durable: each change of the registry is stored before it is in effect.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::catalog::Entry;
use super::error::{EngineError, Violation};
use super::settings::RETRY_AFTER;
use super::shared::Shared;
use crate::participant::registry::RegistryError;
use crate::participant::targets::{self, TargetsError};
use crate::saga::ids::{ParticipantName, Timestamp};
use crate::store::{StoredPause, StoredRegistration};

pub use crate::participant::handlers::{
    Claim, ClaimedAction, FieldProblem, Handlers, InvalidClaim, Protocol, Target,
};
pub use crate::participant::listing::{Health, ParticipantView, RegistrationView, Standing};
pub use crate::participant::pause::Pause;
pub use crate::participant::registry::Registered;
pub use crate::participant::worker::{Outbound, Seat, WorkerClaim};

/// Expired registrations are looked for at least this often.
const EXPIRY_LOOK_MAX: Duration = Duration::from_secs(30);
/// And not more often than this.
const EXPIRY_LOOK_MIN: Duration = Duration::from_millis(250);

impl Engine {
    /// Registers one endpoint, or replaces what the same participant and endpoint registered. It is
    /// durable once answered.
    ///
    /// # Errors
    /// Precondition: it contradicts what is registered already, or the endpoint cannot be asked for what
    /// it offers. Invalid: it does not offer what an action names. Overloaded: a limit is reached.
    pub async fn register_handlers(&self, handlers: Handlers) -> Result<Registered, EngineError> {
        self.shared.check_taking()?;
        targets::check(&handlers, &self.shared.tasks).await?;
        let prepared = self.shared.registry.prepare(handlers).await?;
        if let Some(row) = prepared.to_store() {
            let row = StoredRegistration { registration_id: row.registration_id, body: row.body };
            self.shared.store.put_registration(row).await?;
        }
        Ok(prepared.activate())
    }

    /// Gives a registration its full time to live again; `None` when it never runs out.
    ///
    /// # Errors
    /// `NotFound`: no such registration, or it ran out.
    pub fn renew_registration(&self, registration_id: &str) -> Result<Option<Timestamp>, EngineError> {
        // Nothing is stored: what is in the store has not run out, and gets a full time anyway
        // when it is read back.
        Ok(self.shared.registry.renew(registration_id)?)
    }

    /// Ends a registration; calls in flight finish.
    ///
    /// # Errors
    /// `NotFound`: no such registration. Precondition: it comes from the configuration.
    pub async fn deregister_handlers(&self, registration_id: &str) -> Result<(), EngineError> {
        let ending = self.shared.registry.prepare_end(registration_id).await?;
        self.shared.store.delete_registration(ending.registration_id()).await?;
        ending.finish();
        Ok(())
    }

    /// Registers a worker for as long as its stream lives, which is to be served next.
    ///
    /// # Errors
    /// Precondition: the participant is registered with another protocol. Overloaded: a limit is reached.
    pub async fn seat_worker(&self, handlers: Handlers) -> Result<Seat, EngineError> {
        self.shared.check_taking()?;
        Ok(self.shared.registry.attach(handlers, &self.shared.tasks, &self.shared.metrics).await?)
    }

    /// Lets nobody call a participant any more: calls in flight finish, its sagas wait. A pause that
    /// stands is kept as it is. Durable once answered.
    ///
    /// # Errors
    /// `NotFound`: nobody of this name is registered, and no active definition calls it. Overloaded: a
    /// limit is reached.
    pub async fn pause_participant(
        &self,
        participant: ParticipantName,
        actor: String,
        reason: String,
    ) -> Result<ParticipantView, EngineError> {
        self.shared.check_taking()?;
        self.must_be_known(&participant)?;
        let pause = Pause { reason, actor, since: self.shared.clock.now() };
        let pausing = self.shared.registry.prepare_pause(participant.clone(), Some(pause.clone())).await?;
        if pausing.changes_anything() {
            let Pause { reason, actor, since } = pause;
            tracing::warn!(%participant, actor, reason, "a participant is paused: its sagas wait");
            let row = StoredPause { participant: participant.clone(), reason, actor, since };
            self.shared.store.put_pause(row).await?;
        }
        pausing.activate();
        Ok(self.participant(&participant))
    }

    /// Lets a paused participant be called again; one that is not paused is left as it is.
    ///
    /// # Errors
    /// As [`Engine::pause_participant`].
    pub async fn resume_participant(
        &self,
        participant: ParticipantName,
        actor: &str,
        reason: &str,
    ) -> Result<ParticipantView, EngineError> {
        self.shared.check_taking()?;
        self.must_be_known(&participant)?;
        let resuming = self.shared.registry.prepare_pause(participant.clone(), None).await?;
        if resuming.changes_anything() {
            tracing::info!(%participant, actor, reason, "a participant is not paused any more");
            self.shared.store.delete_pause(&participant).await?;
        }
        resuming.activate();
        Ok(self.participant(&participant))
    }

    /// A name that was mistyped must not look like success.
    fn must_be_known(&self, participant: &ParticipantName) -> Result<(), EngineError> {
        let is_called = || {
            let calls =
                |entry: &Entry| entry.compiled.definition.handlers().participants().contains(participant);
            self.shared.catalog.all().iter().any(|entry| entry.active && calls(entry))
        };
        if self.shared.registry.knows(participant) || is_called() {
            return Ok(());
        }
        Err(EngineError::NotFound { what: "participant", name: participant.to_string() })
    }

    /// One that is known; without registrations as one that is absent.
    fn participant(&self, name: &ParticipantName) -> ParticipantView {
        let known = self.list_participants(Some(name)).pop();
        known.unwrap_or_else(|| ParticipantView::absent(name))
    }

    /// Every known participant by name, or only the one asked for.
    #[must_use]
    pub fn list_participants(&self, only: Option<&ParticipantName>) -> Vec<ParticipantView> {
        self.shared.registry.list(only.map(ParticipantName::as_str))
    }

    /// Takes up the stored pauses.
    pub(super) fn restore_pauses(&self, rows: Vec<StoredPause>) {
        for StoredPause { participant, reason, actor, since } in rows {
            tracing::warn!(%participant, actor, reason, "a participant is still paused: its sagas wait");
            self.shared.registry.restore_pause(participant, Pause { reason, actor, since });
        }
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

impl From<TargetsError> for EngineError {
    fn from(error: TargetsError) -> Self {
        match error {
            TargetsError::NotOffered(fields) => Self::Invalid(
                fields.into_iter().map(|found| Violation::new(found.field, found.problem)).collect(),
            ),
            TargetsError::NotAsked(reason) => Self::Precondition(reason),
        }
    }
}

impl From<RegistryError> for EngineError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Precondition(reason) => Self::Precondition(reason),
            RegistryError::NotFound { id } => Self::NotFound { what: "registration", name: id },
            RegistryError::Full(reason) => Self::Overloaded { reason, retry_after: RETRY_AFTER },
            RegistryError::Damaged { .. } => Self::DataLoss(error.to_string()),
        }
    }
}
