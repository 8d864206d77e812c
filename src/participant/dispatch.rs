//! One call, front to end: whose turn it is, which endpoint, how long, and what is known after it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::outcome::no_answer_within;
use super::registry::{Registry, Slot};
use super::roster::{NoGrant, Verdict};
use super::{Backlog, Dispatch, Outgoing};
use crate::clock::{SharedClock, Stopwatch};
use crate::metrics::Metrics;
use crate::saga::ids::{ActionName, ParticipantName, SagaId};
use crate::saga::input::{Obstacle, Reach};
use crate::saga::words::{Outcome, codes};
use crate::tasks::Tasks;

/// Calls the participants that the registry knows. Clones are the same.
#[derive(Clone)]
pub struct Participants {
    registry: Registry,
    clock: SharedClock,
    metrics: Metrics,
    tasks: Tasks,
}

impl Participants {
    /// Calls whom `registry` knows, over connections that are `tasks`.
    #[must_use]
    pub fn new(registry: Registry, clock: SharedClock, metrics: Metrics, tasks: Tasks) -> Self {
        Self { registry, clock, metrics, tasks }
    }

    /// Whom it can call.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    async fn send(&self, slot: Slot, outgoing: Outgoing) -> Outcome {
        let timeout = outgoing.duty.timeout;
        let participant = outgoing.duty.participant.clone();
        let saga = number_of(&outgoing.saga_id);
        let outcome = {
            let _in_flight = self.metrics.call_started();
            // The time starts here: the wait for the slot is over.
            let watch = Stopwatch::start();
            let client = slot.client(&self.tasks);
            let answering = client.call(outgoing, slot.route(), self.clock.now());
            let outcome = if client.keeps_time() {
                answering.await
            } else {
                let answered = tokio::time::timeout(timeout, answering).await;
                answered.unwrap_or_else(|_passed| no_answer_within(timeout))
            };
            let word = outcome_word(&outcome);
            self.metrics.call_ended(participant.as_str(), word, watch.elapsed(), self.clock.now());
            outcome
        };
        if let Some(verdict) = verdict(&outcome) {
            slot.finish(saga, verdict);
        }
        outcome
    }
}

impl Reach for Participants {
    fn can_call(&self, participant: &ParticipantName, action: &ActionName) -> bool {
        self.registry.can_call(participant, action)
    }

    fn places(&self, participant: &ParticipantName, action: &ActionName) -> usize {
        self.registry.places(participant, action)
    }

    fn obstacle(&self, participant: &ParticipantName, action: &ActionName) -> Obstacle {
        self.registry.obstacle(participant, action)
    }
}

impl Dispatch for Participants {
    fn call(&self, outgoing: Outgoing) -> BoxFuture<'static, Outcome> {
        let participants = self.clone();
        async move {
            let duty = &outgoing.duty;
            match participants.registry.slot(&duty.participant, &duty.action).await {
                Ok(slot) => participants.send(slot, outgoing).await,
                Err(why) => Outcome::Unsent(not_sent(why, &outgoing)),
            }
        }
        .boxed()
    }

    fn first_behind<'p>(
        &self,
        participants: &'p [ParticipantName],
    ) -> Option<(&'p ParticipantName, Backlog)> {
        self.registry.first_behind(participants)
    }

    fn is_holding_back(&self) -> bool {
        self.registry.is_holding_back()
    }

    fn expect_call(&self, participant: &ParticipantName) {
        self.registry.expect_call(participant);
    }
}

/// Tells sagas apart in little room; two that share a number count as one.
fn number_of(id: &SagaId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn not_sent(why: NoGrant, outgoing: &Outgoing) -> String {
    let participant = &outgoing.duty.participant;
    match why {
        NoGrant::Absent => format!("not sent: participant {participant} has no live registration"),
        NoGrant::NoAction => {
            format!("not sent: participant {participant} has no action {}", outgoing.duty.action)
        }
        NoGrant::Crowded => format!("not sent: too many calls wait for participant {participant}"),
        NoGrant::Failing => format!("not sent: participant {participant} failed the latest calls"),
        NoGrant::Paused => format!("not sent: an operator has paused participant {participant}"),
    }
}

/// What the call says about the endpoint; nothing when the daemon may have ended it by itself.
fn verdict(outcome: &Outcome) -> Option<Verdict> {
    match outcome {
        Outcome::Unknown(cause) => Some(Verdict::Unknown(cause.clone())),
        Outcome::Refused(refusal) if refusal.code == codes::INPUT_MISMATCH => None,
        Outcome::Unsent(_) | Outcome::Unsupported => None,
        Outcome::Done(_) | Outcome::Refused(_) | Outcome::Pending(_) => Some(Verdict::Answered),
    }
}

/// An outcome in one word.
pub(super) fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Refused(_) => "refused",
        Outcome::Pending(_) => "pending",
        Outcome::Unknown(_) => "unknown",
        Outcome::Unsent(_) => "unsent",
        Outcome::Unsupported => "unsupported",
    }
}

#[cfg(test)]
pub(super) mod tests;
