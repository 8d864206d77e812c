//! One commit in the making: the working copies of the sagas it is about.
//!
//! Each mail of a batch is decided on its saga's working copy, so that several mails for one saga
//! follow each other within a single commit. Nothing here is visible before that commit.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::error::{EngineError, Violation};
use super::mail::{Ask, Request, SameRequest, StartOrder};
use super::shared::Shared;
use super::summary::{far_wake, summary_of};
use crate::saga::apply::about;
use crate::saga::decide::{Decision, NewSaga, decide, start};
use crate::saga::duties::{Waits, rests, waits};
use crate::saga::event::Fact;
use crate::saga::ids::{InstanceRef, SagaId, Timestamp};
use crate::saga::input::{Context, Input, Rejection};
use crate::saga::state::Saga;
use crate::saga::words::Phase;
use crate::store::{LockTicket, LockWrite, SagaWrite, Summary};

/// One thing to decide for one saga.
pub(super) enum Work {
    /// A client waits for what comes of it.
    Request(Request),
    /// Nobody waits.
    Input(Input),
}

/// What came of a request, told to the client behind the commit.
pub(super) enum Verdict {
    /// It was carried out.
    Done,
    /// It had been carried out before.
    Existed,
    /// It was refused, judged by the working copy.
    Refused(EngineError),
}

/// The working copies of one batch.
pub(super) struct Batch {
    pub(super) now: Timestamp,
    pub(super) working: HashMap<SagaId, Working>,
}

/// One saga's working copy.
#[derive(Default)]
pub(super) struct Working {
    /// The saga as the store has it; `None` for one that does not exist yet.
    base: Option<Arc<Saga>>,
    /// The saga after [`Working::facts`].
    next: Option<Saga>,
    /// What this batch adds.
    pub(super) facts: Vec<Fact>,
    /// What was decided, in order.
    pub(super) done: Vec<(Work, Verdict)>,
    /// The lock ticket drawn by a start of this batch.
    ticket: Option<LockTicket>,
    /// Just read from the store: not published, nothing of it in flight.
    pub(super) cold: bool,
    /// The far wake-up that the store has of a saga just read.
    pub(super) stored_wake: Option<Timestamp>,
    /// A place among the sagas that are recovered at once.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// The instances whose calls may be others behind the commit.
    pub(super) touched: BTreeSet<InstanceRef>,
    /// What the saga waits for behind the commit.
    pub(super) waits: Waits,
    /// The rules panicked: nothing that was decided here may be kept.
    pub(super) panicked: bool,
}

impl Batch {
    /// An empty one, decided at `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, working: HashMap::new() }
    }
}

impl Working {
    /// A working copy of a saga in memory.
    pub(super) fn on(base: Arc<Saga>) -> Self {
        Self { base: Some(base), ..Self::default() }
    }

    /// A working copy of a saga just read.
    pub(super) fn cold(base: Arc<Saga>, stored_wake: Option<Timestamp>) -> Self {
        Self { base: Some(base), cold: true, stored_wake, ..Self::default() }
    }

    /// The saga as decided so far; `None` while it does not exist.
    pub(super) fn current(&self) -> Option<&Saga> {
        self.next.as_ref().or(self.base.as_deref())
    }

    /// The saga as the store has it.
    pub(super) fn base(&self) -> Option<&Arc<Saga>> {
        self.base.as_ref()
    }

    /// The state behind the commit.
    pub(super) fn into_next(self) -> Option<Saga> {
        self.next
    }

    /// Decides one piece of work and keeps it for its answer. A panic on the way is a mistake in
    /// the rules about this one saga: it is set aside, and the others go on.
    pub(super) fn decide(&mut self, work: Work, shared: &Shared, now: Timestamp) {
        let verdict = self.guarded(|working| match &work {
            Work::Request(request) => working.decide_request(&request.id, &request.ask, shared, now),
            Work::Input(input) => working.decide_input(input, shared, now),
        });
        self.done.push((work, verdict.unwrap_or(Verdict::Done)));
    }

    /// Runs the rules; `None` once they have panicked.
    fn guarded<T>(&mut self, rules: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.panicked {
            return None;
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rules(self)));
        self.panicked = ended.is_err();
        ended.ok()
    }

    fn decide_request(&mut self, id: &SagaId, ask: &Ask, shared: &Shared, now: Timestamp) -> Verdict {
        if let Ask::Start(order) = ask {
            return self.decide_start(id, order, shared, now);
        }
        let Some(saga) = self.current() else {
            return Verdict::Refused(no_saga(id));
        };
        match input_of(ask, saga) {
            Ok(None) => Verdict::Done,
            Ok(Some(input)) => self.decide_input(&input, shared, now),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn decide_start(&mut self, id: &SagaId, order: &StartOrder, shared: &Shared, now: Timestamp) -> Verdict {
        if let Some(existing) = self.current() {
            return if SameRequest::of(existing) == order.same {
                Verdict::Existed
            } else {
                Verdict::Refused(EngineError::AlreadyExists(id.to_string()))
            };
        }
        let (ticket, locks_held) = if order.locks.is_empty() {
            (None, true)
        } else {
            let (ticket, held) = shared.locks.enqueue(id, &order.locks);
            (Some(ticket), held)
        };
        self.ticket = ticket;
        let new = NewSaga {
            id: id.clone(),
            definition: Arc::clone(&order.definition),
            version_asked: order.same.version_asked,
            input: order.same.input.clone(),
            labels: Arc::clone(&order.same.labels),
            locks: order.locks.clone(),
            locks_held,
        };
        let decision = start(new, &context(shared, now));
        announce_calls(shared, &decision);
        self.absorb(decision)
    }

    fn decide_input(&mut self, input: &Input, shared: &Shared, now: Timestamp) -> Verdict {
        let Some(saga) = self.next.as_ref().or(self.base.as_deref()) else { return Verdict::Done };
        if let Input::Reply(reply) = input {
            self.touched.insert(reply.at);
        }
        match decide(saga, input, &context(shared, now)) {
            Ok(decision) => {
                announce_calls(shared, &decision);
                self.absorb(decision)
            }
            Err(rejection) => Verdict::Refused(refusal_of(rejection)),
        }
    }

    /// Takes over what was decided. A decision may keep facts and tell the sender no at once.
    fn absorb(&mut self, decision: Decision) -> Verdict {
        if !decision.facts.is_empty() {
            self.touched.extend(decision.facts.iter().filter_map(|fact| about(&fact.event)));
            self.facts.extend(decision.facts);
            self.next = Some(decision.next);
        }
        decision.refused.map_or(Verdict::Done, |rejection| Verdict::Refused(refusal_of(rejection)))
    }

    /// What the store is to write of it; takes the facts. `None` when nothing changed.
    pub(super) fn write(&mut self, shared: &Shared, now: Timestamp) -> Option<SagaWrite> {
        self.guarded(|working| working.write_unguarded(shared, now)).flatten()
    }

    fn write_unguarded(&mut self, shared: &Shared, now: Timestamp) -> Option<SagaWrite> {
        let next = self.next.as_ref()?;
        self.waits = waits(next, shared.dispatch.as_ref());
        let far_wake = far_wake(self.waits.wake_at, now);
        let rests = far_wake.is_some() && rests(next, &self.waits);
        Some(SagaWrite {
            id: next.id.clone(),
            expected_seq: self.base.as_ref().map_or(0, |base| base.seq),
            facts: std::mem::take(&mut self.facts),
            summary: Summary { rests, ..summary_of(next) },
            status_before: self.base.as_ref().map(|base| base.status()),
            far_wake,
            lock: self.lock_write(next, shared),
        })
    }

    fn lock_write(&self, next: &Saga, shared: &Shared) -> LockWrite {
        match (&self.ticket, next.uses_locks()) {
            (Some(ticket), true) => LockWrite::Take(ticket.clone()),
            // Drawn and not needed any more within one commit: the store never hears of it.
            (Some(_), false) | (None, true) => LockWrite::Keep,
            (None, false) => shared.locks.ticket_of(&next.id).map_or(LockWrite::Keep, LockWrite::Release),
        }
    }
}

/// Says what is about to be called, while some participant lets only a few calls through: whoever is
/// decided next is told how many are left.
fn announce_calls(shared: &Shared, decision: &Decision) {
    if !shared.dispatch.is_holding_back() {
        return;
    }
    for fact in &decision.facts {
        if let Some(participant) = decision.next.callee(&fact.event) {
            shared.dispatch.expect_call(participant);
        }
    }
}

/// What the core is told of the world.
pub(super) fn context(shared: &Shared, now: Timestamp) -> Context<'_> {
    let (epoch, journal_limit) = (shared.fence.epoch, shared.journal_limit);
    Context { now, epoch, reach: shared.dispatch.as_ref(), journal_limit }
}

/// The refusal of a request about a saga that does not exist.
pub(super) fn no_saga(id: &SagaId) -> EngineError {
    EngineError::NotFound { what: "saga", name: id.to_string() }
}

/// What a client hears when the rules say no.
pub(super) fn refusal_of(rejection: Rejection) -> EngineError {
    match rejection {
        Rejection::Precondition(reason) => EngineError::Precondition(reason),
        Rejection::Invalid { field, problem } => EngineError::Invalid(vec![Violation::new(field, problem)]),
    }
}

/// The input that a request means to the core; `None` when it asks for nothing to be decided.
fn input_of(ask: &Ask, saga: &Saga) -> Result<Option<Input>, EngineError> {
    match ask {
        Ask::Start(_) | Ask::Follow => Ok(None),
        Ask::Cancel { actor, reason } => {
            Ok(Some(Input::Cancel { actor: actor.clone(), reason: reason.clone() }))
        }
        Ask::Act { act, actor, reason } => {
            Ok(Some(Input::Act { act: act.clone(), actor: actor.clone(), reason: reason.clone() }))
        }
        Ask::Complete { step, phase, outcome } => {
            let at = saga.instance_named(step).ok_or_else(unknown_token)?;
            let phase = if *phase == Phase::Probe { Phase::Action } else { *phase };
            Ok(Some(Input::Complete { at, phase, outcome: outcome.clone() }))
        }
    }
}

/// The refusal of a token that names no step. The token itself is a secret and not repeated.
pub(super) fn unknown_token() -> EngineError {
    EngineError::NotFound { what: "step for the token", name: "(not shown)".to_owned() }
}
