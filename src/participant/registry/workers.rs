//! Registrations that last as long as a worker's stream. They are never stored.

use std::sync::{Arc, OnceLock};

use super::{Place, Registry, RegistryError, Shared};
use crate::metrics::Metrics;
use crate::participant::client::Client;
use crate::participant::handlers::{Endpoint, Handlers};
use crate::participant::worker::{self, Habits, Link, Seat};
use crate::proto::WorkerWelcome;
use crate::saga::ids::ParticipantName;
use crate::tasks::Tasks;

/// A worker's registration.
pub(in crate::participant) struct Attached {
    shared: Arc<Shared>,
    id: Arc<str>,
    participant: ParticipantName,
    endpoint: Endpoint,
}

impl Registry {
    /// Registers a worker. Steps come to it at once, and wait in its link until it is served.
    ///
    /// # Errors
    /// It contradicts what is registered, or a limit is reached.
    pub async fn attach(
        &self,
        handlers: Handlers,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Seat, RegistryError> {
        self.attach_with(handlers, Habits::default(), tasks, metrics).await
    }

    /// The same, with other times.
    pub(in crate::participant) async fn attach_with(
        &self,
        mut handlers: Handlers,
        habits: Habits,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Seat, RegistryError> {
        // A change that is being stored meanwhile has been admitted already.
        let _turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let now = self.shared.clock.now();
        let place = {
            let mut state = self.shared.state.lock();
            if let Some(roster) = state.rosters.get(&handlers.participant) {
                let first = handlers.endpoint.clone();
                let mut nth = 1;
                while roster.knows(&handlers.endpoint) {
                    nth += 1;
                    handlers.endpoint = first.numbered(nth);
                }
            }
            state.admit(&handlers, now)?
        };
        let Place::Own(id) = place else {
            let endpoint = &handlers.endpoint;
            return Err(RegistryError::Precondition(format!("{endpoint} stands in the configuration")));
        };
        let link = Link::new(
            &handlers.endpoint,
            WorkerWelcome {
                registration_id: id.to_string(),
                silence_max: habits.silence_max().try_into().ok(),
            },
            tasks.stopping(),
        );
        let attached = Attached {
            shared: Arc::clone(&self.shared),
            id: Arc::clone(&id),
            participant: handlers.participant.clone(),
            endpoint: handlers.endpoint.clone(),
        };
        let client = OnceLock::from(Client::Worker(worker::Client::over(Arc::clone(&link))));
        self.shared.put(id, handlers, None, Some(Arc::new(client)));
        Ok(Seat::new(attached, link, habits, tasks, metrics))
    }
}

impl Attached {
    /// Whose worker it is.
    pub(in crate::participant) fn participant(&self) -> &ParticipantName {
        &self.participant
    }

    /// The worker's name in lists.
    pub(in crate::participant) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// No new call goes to it. Once is enough.
    pub(in crate::participant) fn detach(&self) {
        self.shared.take_out(&self.id);
    }

    /// Whether a call has it still, of those that it got before it was detached.
    pub(in crate::participant) fn has_calls(&self) -> bool {
        let state = self.shared.state.lock();
        state.rosters.get(&self.participant).is_some_and(|roster| roster.is_draining(&self.endpoint))
    }

    /// Takes so many calls at a time from now on.
    pub(in crate::participant) fn set_max_in_flight(&self, most: u32) {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        // Detached: there will be none.
        let Ok(lane) = state.live_lane(&self.id, now) else { return };
        lane.handlers.max_in_flight = most;
        let Some(roster) = state.rosters.get_mut(&self.participant) else { return };
        let reachable_again = roster.hand_over(now);
        drop(state);
        if reachable_again {
            self.shared.changed();
        }
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
