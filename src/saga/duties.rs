//! What a state owes: the calls that should be in flight, the next wake-up, who is waited for.

use super::definition::Probe;
use super::ids::{ActionName, InstanceRef, ParticipantName, Timestamp};
use super::input::{CallDuty, Reach};
use super::json::Json;
use super::ready;
use super::state::{Action, Compensation, Instance, Saga, Stage};
use super::words::Phase;

/// Everything a saga is owed by whoever drives it. Derived from state alone, so that it is the
/// same after a commit and after a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duties {
    /// Calls whose intent is stored and whose end is not. All others are to be dropped.
    pub calls: Vec<CallDuty>,
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

/// What `saga` owes now.
#[must_use]
pub fn duties(saga: &Saga, reach: &dyn Reach) -> Duties {
    let mut duties = Duties::default();
    if saga.is_terminal() {
        return duties;
    }
    for (at, instance) in saga.each_instance() {
        duties.calls.extend(action_call(saga, at, instance));
        duties.calls.extend(compensation_call(saga, at, instance));
    }
    if let Stage::AwaitingLocks { until } = saga.stage {
        duties.wake_by(until);
    }
    if saga.paused.is_none() {
        if saga.stage == Stage::Forward && !pivot_was_called(saga) {
            duties.wake_at = earliest(duties.wake_at, saga.deadline);
        }
        match saga.stage {
            Stage::Forward | Stage::Committed => duties.wait_forward(saga, reach),
            Stage::Backward => duties.wait_backward(saga, reach),
            Stage::AwaitingLocks { .. } | Stage::Completed | Stage::Compensated | Stage::Abandoned => {}
        }
    }
    duties
}

/// Whether something will move the saga: a call, a time, a lock, a participant that may come back,
/// or a person who was told.
#[must_use]
pub fn something_comes_next(saga: &Saga, reach: &dyn Reach) -> bool {
    let owed = duties(saga, reach);
    saga.is_terminal()
        || !owed.calls.is_empty()
        || owed.wake_at.is_some()
        || !owed.parked.is_empty()
        || saga.paused.is_some()
        || saga.is_blocked()
        || matches!(saga.stage, Stage::AwaitingLocks { .. })
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

fn pivot_was_called(saga: &Saga) -> bool {
    saga.pivot().and_then(|at| saga.instance(at)).is_some_and(|pivot| pivot.tries.attempt > 0)
}

impl Duties {
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
        for &ix in saga.definition.plan.order() {
            if !ready::may_run(saga, ix) || saga.steps[ix.at()].is_done() {
                continue;
            }
            let step = saga.definition.step(ix);
            let has_room = ready::room_forward(saga, ix) > 0;
            let has_free_call = ready::free_calls_forward(saga, ix) > 0;
            for (_, instance) in saga.steps[ix.at()].each(ix) {
                match &instance.action {
                    // Due at once: it was parked, and its participant may be back by now.
                    Action::Pending if has_room => {
                        self.wait_for_call(step.action.handler(), saga.updated_at, reach);
                    }
                    // Without a free call it goes on when one of those in flight ends.
                    Action::Backoff { next_at: due, .. } if has_free_call => {
                        self.wait_for_call(step.action.handler(), *due, reach);
                    }
                    Action::Awaiting { check_at } => {
                        let probe = step.probe.as_ref().filter(|_| !instance.probe_unsupported);
                        let handler = probe.map_or(step.action.handler(), Probe::handler);
                        self.wait_for_call(handler, *check_at, reach);
                        self.wake_at = earliest(self.wake_at, instance.tries.pending_until);
                    }
                    _ => {}
                }
            }
        }
    }

    fn wait_backward(&mut self, saga: &Saga, reach: &dyn Reach) {
        let clear = ready::clear_steps(saga);
        for (ix, step) in saga.definition.each_step() {
            let Some(call) = &step.compensation else { continue };
            let may_start = ready::may_be_undone(saga, &clear, ix) && ready::room_backward(saga, ix) > 0;
            let has_free_call = ready::free_calls_backward(saga, ix) > 0;
            for (_, instance) in saga.steps[ix.at()].each(ix) {
                match &instance.compensation {
                    // Due at once: it was parked, and its participant may be back by now.
                    Compensation::Idle
                        if may_start && instance.owes_compensation(step) && !instance.is_in_flight() =>
                    {
                        self.wait_for_call(call.handler(), saga.updated_at, reach);
                    }
                    Compensation::Backoff { next_at: due, .. } if has_free_call => {
                        self.wait_for_call(call.handler(), *due, reach);
                    }
                    Compensation::Awaiting { check_at } => {
                        self.wait_for_call(call.handler(), *check_at, reach);
                        self.wake_at = earliest(self.wake_at, instance.undo_tries.pending_until);
                    }
                    _ => {}
                }
            }
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
        step: saga.name_of(at),
        input: instance.undo_tries.input.clone().unwrap_or_else(Json::null),
        action_input: instance.tries.input.clone(),
        action_output: instance.output().cloned(),
        timeout: call.timeout,
    })
}
