//! What a state owes: the calls that should be in flight, the next wake-up, who is waited for.

use super::definition::Probe;
use super::handlers::Callees;
use super::ids::{ActionName, InstanceRef, ParticipantName, StepIx, Timestamp};
use super::input::{CallDuty, Reach};
use super::json::Json;
use super::lineup::AT_ONCE;
use super::ready;
use super::state::{Action, Compensation, Instance, Saga, Stage};
use super::tally::{NEVER, SOME_TIME, Tally};
use super::words::Phase;

/// Everything a saga is owed by whoever drives it. Derived from state alone, so that it is the
/// same after a commit and after a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duties {
    /// Calls whose intent is stored and whose end is not. All others are to be dropped.
    pub calls: Vec<CallDuty>,
    /// What else may move it.
    pub waits: Waits,
}

/// What a saga waits for that is not a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// When it must be woken if nothing else happens.
    pub wake_at: Option<Timestamp>,
    /// Who it would call if they could be reached.
    pub parked: Vec<Absent>,
}

/// A handler that a call waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Absent {
    /// Who is to be called.
    pub participant: ParticipantName,
    /// What is to be asked of it.
    pub action: ActionName,
}

/// What `saga` owes now. Who knows which instances changed asks for [`calls_of`] those alone, and
/// for [`waits`].
#[must_use]
pub fn duties(saga: &Saga, reach: &dyn Reach) -> Duties {
    Duties { calls: owed_calls(saga), waits: waits(saga, reach) }
}

/// All calls that should be in flight, in file and item order.
#[must_use]
pub fn owed_calls(saga: &Saga) -> Vec<CallDuty> {
    let running = saga.instances_where(Tally::has_calls);
    running.into_iter().flat_map(|at| calls_of(saga, at)).collect()
}

/// The calls of one instance that should be in flight. They change only with the facts that are
/// about the instance, and with the saga's end.
pub fn calls_of(saga: &Saga, at: InstanceRef) -> impl Iterator<Item = CallDuty> {
    let instance = saga.instance(at).filter(|_| !saga.is_terminal());
    let calls = instance.map(|i| [action_call(saga, at, i), compensation_call(saga, at, i)]);
    calls.into_iter().flatten().flatten()
}

/// What `saga` waits for beside the calls in flight.
#[must_use]
pub fn waits(saga: &Saga, reach: &dyn Reach) -> Waits {
    let mut waits = Waits::default();
    if let Stage::AwaitingLocks { until } = saga.stage {
        waits.wake_by(until);
    }
    if saga.paused.is_none() {
        if saga.stage == Stage::Forward && !pivot_was_called(saga) {
            waits.wake_at = earliest(waits.wake_at, saga.deadline);
        }
        match saga.stage {
            Stage::Forward | Stage::Committed => waits.wait_forward(saga, reach),
            Stage::Backward => waits.wait_backward(saga, reach),
            Stage::AwaitingLocks { .. } | Stage::Completed | Stage::Compensated | Stage::Abandoned => {}
        }
    }
    waits
}

/// Whether something will move the saga: a call, a time, a lock, a participant that may come back,
/// or a person who was told.
#[must_use]
pub fn something_comes_next(saga: &Saga, reach: &dyn Reach) -> bool {
    let owed = duties(saga, reach);
    saga.is_terminal()
        || !owed.calls.is_empty()
        || owed.waits.wake_at.is_some()
        || !owed.waits.parked.is_empty()
        || saga.paused.is_some()
        || saga.is_blocked()
        || matches!(saga.stage, Stage::AwaitingLocks { .. })
}

/// Whether nothing moves `saga` before its wake-up but what somebody asks of it: no call is in
/// flight, and neither a participant, a lock nor an operator is waited for.
#[must_use]
pub fn rests(saga: &Saga, waits: &Waits) -> bool {
    waits.wake_at.is_some()
        && waits.parked.is_empty()
        && !saga.is_terminal()
        && !saga.is_blocked()
        && !saga.steps.sum().has_calls()
        && !matches!(saga.stage, Stage::AwaitingLocks { .. })
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

fn pivot_was_called(saga: &Saga) -> bool {
    saga.pivot().and_then(|at| saga.instance(at)).is_some_and(|pivot| pivot.tries.attempt > 0)
}

impl Waits {
    fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = earliest(self.wake_at, Some(at));
    }

    /// A call is due at `due`, or as soon as its participant can be reached.
    fn wait_for_call(
        &mut self,
        (participant, action): (&ParticipantName, &ActionName),
        due: Timestamp,
        reach: &dyn Reach,
    ) {
        if reach.can_call(participant, action) {
            self.wake_by(due);
            return;
        }
        let absent = Absent { participant: participant.clone(), action: action.clone() };
        if !self.parked.contains(&absent) {
            self.parked.push(absent);
        }
    }

    fn wait_forward(&mut self, saga: &Saga, reach: &dyn Reach) {
        let running = ready::KINDS.into_iter().filter(|kind| ready::kind_may_run(saga, *kind));
        for kind in running {
            if self.wait_for_all(saga, saga.lineup.first_forward(kind), reach) {
                continue;
            }
            let mut from = 0;
            while let Some(ix) = ready::next_forward(saga, kind, &mut from, SOME_TIME) {
                self.wait_for_step(saga, ix, reach);
            }
        }
        self.wake_before_never(saga.steps.sum().pending_until);
    }

    /// Where nobody who would be called is away, the first time of all is all there is to wait for.
    fn wait_for_all(
        &mut self,
        saga: &Saga,
        (first, callees): (Timestamp, Callees),
        reach: &dyn Reach,
    ) -> bool {
        let is_here = saga.definition.handlers().can_all_be_called(callees, reach);
        if is_here {
            self.wake_before_never(if first == AT_ONCE { saga.updated_at } else { first });
        }
        is_here
    }

    fn wait_for_step(&mut self, saga: &Saga, ix: StepIx, reach: &dyn Reach) {
        let (step, tally) = (saga.definition.step(ix), saga.tally(ix));
        let cap = saga.steps[ix.at()].cap(step);
        // Due at once: it was parked, and its participant may be back by now.
        if tally.pending > 0 && tally.room(cap) > 0 {
            self.wait_for_call(step.action.handler(), saga.updated_at, reach);
        }
        // Without a free call it goes on when one of those in flight ends.
        if tally.retries.count > 0 && tally.free_calls(cap) > 0 {
            self.wait_for_call(step.action.handler(), tally.retries.first, reach);
        }
        if tally.looks.count > 0 {
            let handler = step.probe.as_ref().map_or(step.action.handler(), Probe::handler);
            self.wait_for_call(handler, tally.looks.first, reach);
        }
        if tally.repeats.count > 0 {
            self.wait_for_call(step.action.handler(), tally.repeats.first, reach);
        }
    }

    fn wait_backward(&mut self, saga: &Saga, reach: &dyn Reach) {
        self.wake_before_never(saga.steps.sum().undo.pending_until);
        if self.wait_for_all(saga, saga.lineup.first_backward(), reach) {
            return;
        }
        let mut before = saga.lineup.len();
        while let Some(ix) = ready::next_backward(saga, &mut before, SOME_TIME) {
            let (step, undo) = (saga.definition.step(ix), saga.tally(ix).undo);
            let cap = saga.steps[ix.at()].cap(step);
            let Some(call) = &step.compensation else { continue };
            // Due at once: it was parked, and its participant may be back by now.
            if undo.owed(step) > 0 && undo.room(cap) > 0 {
                self.wait_for_call(call.handler(), saga.updated_at, reach);
            }
            if undo.retries.count > 0 && undo.free_calls(cap) > 0 {
                self.wait_for_call(call.handler(), undo.retries.first, reach);
            }
            if undo.looks.count > 0 {
                self.wait_for_call(call.handler(), undo.looks.first, reach);
            }
        }
    }

    fn wake_before_never(&mut self, at: Timestamp) {
        if at < NEVER {
            self.wake_by(at);
        }
    }
}

fn action_call(saga: &Saga, at: InstanceRef, instance: &Instance) -> Option<CallDuty> {
    let step = saga.step(at);
    let input = instance.tries.input.clone().unwrap_or_else(Json::null);
    match &instance.action {
        Action::Running => Some(CallDuty {
            at,
            phase: Phase::Action,
            attempt: instance.tries.attempt,
            epoch: instance.tries.epoch,
            participant: step.action.participant.clone(),
            action: step.action.action.clone(),
            is_named: true,
            step: saga.name_of(at),
            input,
            action_input: None,
            action_output: None,
            timeout: step.action.timeout,
        }),
        Action::Probing { .. } => {
            let probe = step.probe.as_ref();
            Some(CallDuty {
                at,
                phase: Phase::Probe,
                attempt: instance.probes,
                epoch: instance.probe_epoch,
                participant: probe.map_or(&step.action.participant, |probe| &probe.participant).clone(),
                action: probe.map_or(&step.action.action, |probe| &probe.action).clone(),
                is_named: probe.is_some(),
                step: saga.name_of(at),
                input: instance.probe_input.clone().unwrap_or_else(|| input.clone()),
                action_input: Some(input),
                action_output: None,
                timeout: step.action.timeout,
            })
        }
        _ => None,
    }
}

fn compensation_call(saga: &Saga, at: InstanceRef, instance: &Instance) -> Option<CallDuty> {
    if instance.compensation != Compensation::Running {
        return None;
    }
    let call = saga.compensation_call(at)?;
    Some(CallDuty {
        at,
        phase: Phase::Compensation,
        attempt: instance.undo_tries.attempt,
        epoch: instance.undo_tries.epoch,
        participant: call.participant.clone(),
        action: call.action.clone(),
        is_named: true,
        step: saga.name_of(at),
        input: instance.undo_tries.input.clone().unwrap_or_else(Json::null),
        action_input: instance.tries.input.clone(),
        action_output: instance.output().cloned(),
        timeout: call.timeout,
    })
}
