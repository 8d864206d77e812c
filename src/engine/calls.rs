//! The calls a shard has in flight.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{AbortHandle, Abortable};

use super::shared::Shared;
use crate::participant::Outgoing;
use crate::saga::input::{CallDuty, Input, Reply};
use crate::saga::keys::{idempotency_key, token};
use crate::saga::state::Saga;
use crate::saga::words::{Outcome, Phase};
use crate::tasks::Death;

/// One call in flight; dropping it abandons the call.
#[derive(Debug)]
pub(super) struct InFlight(AbortHandle);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a call for as long as it lives.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.meter.calls_in_flight.one();
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.meter.calls_in_flight.less_one();
    }
}

/// Sends a call whose intent is stored. Its reply comes to the saga's shard as mail, whatever
/// happens: a panic on the way is an unknown outcome.
pub(super) fn send(shared: &Arc<Shared>, saga: &Saga, duty: CallDuty) -> InFlight {
    let outgoing = outgoing(shared, saga, duty);
    let counted = Counted::new(shared);
    let (abort, registration) = AbortHandle::new_pair();
    shared.tasks.spawn("call", Death::Logged, async move {
        let shared = &counted.0;
        let id = outgoing.saga_id.clone();
        let (at, phase, attempt) = (outgoing.duty.at, outgoing.duty.phase, outgoing.duty.attempt);
        let call = std::panic::AssertUnwindSafe(async { shared.dispatch.call(outgoing).await });
        let Ok(ended) = Abortable::new(call.catch_unwind(), registration).await else { return };
        let outcome = ended.unwrap_or_else(|_| Outcome::Unknown("the call's own code panicked".to_owned()));
        shared.feed(id, Input::Reply(Reply { at, phase, attempt, outcome }));
    });
    InFlight(abort)
}

fn outgoing(shared: &Shared, saga: &Saga, duty: CallDuty) -> Outgoing {
    // A probe asks about the action, and so does whoever completes it later.
    let completes = match duty.phase {
        Phase::Action | Phase::Probe => Phase::Action,
        Phase::Compensation => Phase::Compensation,
    };
    let key = idempotency_key(&saga.id, &duty.step, duty.phase);
    Outgoing {
        action_key: match duty.phase {
            Phase::Action => key.clone(),
            Phase::Compensation | Phase::Probe => idempotency_key(&saga.id, &duty.step, Phase::Action),
        },
        key,
        token: token(&shared.token_secret, &saga.id, &duty.step, completes),
        saga_id: saga.id.clone(),
        definition: saga.definition.name.clone(),
        labels: Arc::clone(&saga.labels),
        duty,
    }
}
