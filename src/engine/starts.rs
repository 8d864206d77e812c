//! Starting a saga: the checks in front of its shard, in the order in which clients hear of them.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::catalog::Entry;
use super::error::{EngineError, Violation};
use super::follow;
use super::load::{Loaded, load};
use super::mail::{Accepted, Ask, SameRequest, StartOrder};
use super::request::{StartAnswer, StartRequest};
use super::settings::{MAIL_SLOW, RESIDENT_MAX, RETRY_AFTER, RETRY_AFTER_MAX};
use crate::clock::Stopwatch;
use crate::saga::definition::Definition;
use crate::saga::event::Event;
use crate::saga::expr::lock_keys;
use crate::saga::ids::{LockKey, SagaId};
use crate::store::StoreError;

impl Engine {
    /// Starts a saga. Answers once the start is durable, or later if it is to wait.
    ///
    /// # Errors
    /// `AlreadyExists` comes before every other check; then `NotFound`, `Precondition` (a retired
    /// version), `Invalid`, `Overloaded`; `Unavailable` when the store failed.
    pub async fn start(&self, request: StartRequest) -> Result<StartAnswer, EngineError> {
        self.shared.check_taking()?;
        let watch = Stopwatch::start();
        let same = SameRequest {
            definition: request.definition.clone(),
            version_asked: request.version,
            input: request.input.clone(),
            labels: Arc::new(request.labels.clone()),
        };
        let id = match &request.id {
            Some(id) => {
                if let Some(answer) = self.existing(id, &same, &request).await? {
                    return Ok(answer);
                }
                id.clone()
            }
            None => self.new_id(),
        };
        let order = self.check_start(&id, &request, same)?;
        let accepted = self.ask(&id, Ask::Start(Arc::new(order))).await?;
        if !accepted.existed {
            let name = request.definition.as_str();
            self.shared.metrics.saga_started(name, watch.elapsed(), self.shared.clock.now());
        }
        Ok(self.started(accepted, &request).await)
    }

    /// The saga behind a repeated start. Looked up before the mail box, so that it is answered
    /// under overload too; the shard looks again.
    async fn existing(
        &self,
        id: &SagaId,
        same: &SameRequest,
        request: &StartRequest,
    ) -> Result<Option<StartAnswer>, EngineError> {
        let known = match self.shared.published(id) {
            Some(saga) => SameRequest::of(&saga),
            None => match self.first_request(id).await? {
                Some(first) => first,
                None => return Ok(None),
            },
        };
        if known != *same {
            return Err(EngineError::AlreadyExists(id.to_string()));
        }
        if request.wait.is_zero() {
            return Ok(Some(StartAnswer { saga: self.get(id).await?, existed: true }));
        }
        match self.follow(id).await {
            Ok(live) => {
                let saga = Arc::clone(&live.borrow());
                let accepted = Accepted { saga, existed: true, live };
                Ok(Some(self.started(accepted, request).await))
            }
            // Without a place to wait it is answered as it stands.
            Err(EngineError::Overloaded { .. }) => {
                Ok(Some(StartAnswer { saga: self.get(id).await?, existed: true }))
            }
            Err(error) => Err(error),
        }
    }

    /// What the stored saga was started with.
    async fn first_request(&self, id: &SagaId) -> Result<Option<SameRequest>, EngineError> {
        let facts = self.shared.store.facts(id, 0, 1).await.map_err(|error| self.note_damage(id, error))?;
        Ok(match facts.first().map(|fact| &fact.event) {
            Some(Event::SagaStarted(started)) => Some(SameRequest::of_started(started)),
            Some(_) | None => None,
        })
    }

    async fn started(&self, accepted: Accepted, request: &StartRequest) -> StartAnswer {
        let Accepted { mut saga, existed, live } = accepted;
        if request.wait > Duration::ZERO
            && let Ok(_place) = self.place_to_wait()
        {
            let stop = self.shared.tasks.stopping();
            saga = tokio::select! {
                seen = follow::until(live, request.wait_for, request.wait) => seen.saga(),
                () = stop.cancelled() => saga,
            };
        }
        StartAnswer { saga: self.view(saga), existed }
    }

    fn check_start(
        &self,
        id: &SagaId,
        request: &StartRequest,
        same: SameRequest,
    ) -> Result<StartOrder, EngineError> {
        let entry = self.shared.catalog.for_start(&request.definition, request.version)?;
        check_input(&entry, request, self.shared.settings.input_max_bytes)?;
        let definition = Arc::clone(&entry.compiled.definition);
        let locks = keys_of(id, &entry, request)?;
        self.check_room()?;
        self.check_backlog(id, &definition)?;
        Ok(StartOrder { definition, same, locks })
    }

    /// Refuses starts, and only starts, while there is no room for more sagas.
    fn check_room(&self) -> Result<(), EngineError> {
        let overloaded = |reason: &str| {
            Err(EngineError::Overloaded { reason: reason.to_owned(), retry_after: RETRY_AFTER })
        };
        if self.shared.store.stats().disk_low {
            return overloaded("the store's disk is nearly full");
        }
        let resident: usize = self.shared.shards.iter().map(|door| door.published.len()).sum();
        if resident >= RESIDENT_MAX {
            return overloaded("too many sagas are open");
        }
        Ok(())
    }

    /// Refuses a start that would only wait behind others: for a participant that is behind, or for a
    /// shard that is. Sagas that can be carried are worth more than starts that are late, and who is
    /// refused learns so at once.
    fn check_backlog(&self, id: &SagaId, definition: &Definition) -> Result<(), EngineError> {
        let participants = definition.handlers().participants();
        if let Some((participant, behind)) = self.shared.dispatch.first_behind(participants) {
            let (calls, first_waits) = (behind.calls_waiting, behind.first_waits);
            let waits = humantime::format_duration(first_waits);
            let reason =
                format!("participant {participant} is behind: {calls} calls wait, the first for {waits}");
            return Err(EngineError::Overloaded { reason, retry_after: first_waits.min(RETRY_AFTER_MAX) });
        }
        let door = self.shared.shard_of(id);
        let waited = door.mail_waited();
        if waited <= MAIL_SLOW {
            return Ok(());
        }
        let left = door.mailbox.depth();
        if left >= self.shared.settings.batch_max {
            let waited = waited.min(RETRY_AFTER_MAX);
            let reason = format!("the daemon is behind: {left} requests wait");
            return Err(EngineError::Overloaded { reason, retry_after: waited });
        }
        Ok(())
    }

    /// A UUIDv7: ids made one after the other lie side by side in the store.
    fn new_id(&self) -> SagaId {
        let millis = u64::try_from(self.shared.clock.now().0).unwrap_or(0);
        let nanos = u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
        let at = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1_000, nanos);
        SagaId::parse(&uuid::Uuid::new_v7(at).to_string()).expect("a UUID has the form of an id")
    }

    /// Sets a saga aside that the store calls damaged.
    pub(super) fn note_damage(&self, id: &SagaId, error: StoreError) -> EngineError {
        if let StoreError::Damaged { .. } = &error {
            self.shared.stuck.quarantine(id, &error.to_string(), self.shared.clock.now());
        }
        EngineError::from(error)
    }

    /// Reads a saga that is not in memory.
    pub(super) async fn read(
        &self,
        id: &SagaId,
    ) -> Result<Option<Arc<crate::saga::state::Saga>>, EngineError> {
        match load(&self.shared, id).await {
            Loaded::Found { saga, .. } => Ok(Some(saga)),
            Loaded::Absent => Ok(None),
            Loaded::Unreadable(reason) => {
                if self.shared.stuck.quarantine(id, &reason, self.shared.clock.now()) {
                    tracing::error!(saga = %id, reason, "a saga cannot be read and is quarantined");
                }
                Err(EngineError::DataLoss(reason))
            }
            Loaded::Failed(error) => Err(EngineError::from(error)),
        }
    }
}

fn keys_of(id: &SagaId, entry: &Entry, request: &StartRequest) -> Result<Vec<LockKey>, EngineError> {
    lock_keys(&entry.compiled.definition, id, request.input.value(), &request.labels)
        .map_err(|error| EngineError::Invalid(vec![Violation::new("input_json", error.to_string())]))
}

fn check_input(entry: &Entry, request: &StartRequest, bytes_max: usize) -> Result<(), EngineError> {
    let invalid =
        |description: String| Err(EngineError::Invalid(vec![Violation::new("input_json", description)]));
    if !request.input.value().is_object() {
        return invalid("must be a JSON object".to_owned());
    }
    let bytes = request.input.text().len();
    if bytes > bytes_max {
        return invalid(format!("has {bytes} bytes, over the limit of {bytes_max}"));
    }
    let Some(check) = &entry.compiled.input_check else { return Ok(()) };
    let violations: Vec<Violation> = check
        .check(request.input.value())
        .into_iter()
        .map(|violation| {
            let field = match violation.field.as_str() {
                "" => "input_json".to_owned(),
                path if path.starts_with('[') => format!("input_json{path}"),
                path => format!("input_json.{path}"),
            };
            Violation::new(field, violation.problem)
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(EngineError::Invalid(violations)) }
}
