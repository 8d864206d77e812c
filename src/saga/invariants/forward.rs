//! The way forward: who may be called, what an answer may settle, when the saga is committed.

use super::{Rule, Step, Violation};
use crate::saga::event::{CallInput, Event, Source};
use crate::saga::ids::{InstanceRef, StepIx};
use crate::saga::state::{Action, Compensation, Instance, Saga, Stage, Tries};
use crate::saga::words::StepKind;

pub(super) fn check(step: &Step<'_>) -> Result<(), Violation> {
    match step.event() {
        Event::StepStarted { at, attempt, epoch, input } => {
            started(step, *at)?;
            numbers(step, &step.instance(*at).tries, *attempt, *epoch, input.as_ref())
        }
        Event::StepExpanded { step: ix, .. } => {
            let is_untouched = step.here.steps[ix.at()] == crate::saga::state::StepState::Unexpanded;
            step.must(is_untouched, Rule::D1, "its list was evaluated before")?;
            may_run(step, *ix)
        }
        Event::StepSkipped { at, source: Source::Engine } => may_run(step, at.step),
        Event::StepProbed { at, probe, epoch, .. } => probed(step, *at, *probe, *epoch),
        Event::StepSucceeded { at, attempt, source, .. } => {
            let instance = step.instance(*at);
            let is_known = *attempt >= 1 && *attempt <= instance.tries.attempt;
            step.must(is_known || *source == Source::Operator, Rule::D1, "an attempt never made")?;
            let may_settle = is_unsettled(&instance.action) || is_unknown_and_untouched(&instance);
            let by_hand = *source == Source::Operator && instance.action == Action::Pending;
            step.must(may_settle || by_hand, Rule::F1, "the step is settled already")
        }
        Event::StepFailed { at, attempt, retry_at, source, .. } => {
            failed(step, *at, *attempt, retry_at.is_none(), *source)
        }
        Event::StepUnknown { at, attempt, retry_at, .. } => {
            let instance = step.instance(*at);
            step.must(is_unsettled(&instance.action), Rule::F1, "the step is settled already")?;
            step.must(*attempt == instance.tries.attempt, Rule::D2, "not the latest attempt")?;
            let goes_back = step.here.stage == Stage::Backward;
            step.must(!goes_back || retry_at.is_none(), Rule::F2, "another attempt on the way back")
        }
        Event::StepPending { at, attempt, .. } => {
            let instance = step.instance(*at);
            step.must(is_unsettled(&instance.action), Rule::F1, "the step is settled already")?;
            step.must(*attempt == instance.tries.attempt, Rule::D2, "not the latest attempt")
        }
        Event::SagaCommitted { .. } => {
            let is_ready = |kind| steps_of(step.here, kind).all(|ix| is_done(step.here, ix));
            step.must(is_ready(StepKind::Compensatable), Rule::D1, "a compensatable step is not done")?;
            step.must(is_ready(StepKind::Pivot), Rule::D1, "the pivot is not done")
        }
        Event::SagaCompleted => {
            let all_done = step.here.definition.each_step().all(|(ix, _)| is_done(step.here, ix));
            step.must(all_done, Rule::T1, "a step is neither done nor skipped")
        }
        _ => Ok(()),
    }
}

fn started(step: &Step<'_>, at: InstanceRef) -> Result<(), Violation> {
    let instance = step.instance(at);
    may_run(step, at.step)?;
    let waits = matches!(instance.action, Action::Pending | Action::Backoff { .. } | Action::Awaiting { .. });
    step.must(waits, Rule::D1, "the instance does not wait for an attempt")?;
    let others = step.here.steps[at.step.at()].each(at.step);
    let in_flight = others.filter(|(other, i)| *other != at && super::is_under_way(i)).count();
    let cap = step.here.step(at).concurrency as usize;
    step.must(at.item.is_none() || in_flight < cap, Rule::D1, "more instances in flight than the cap")
}

/// Attempts grow by one, epochs do not fall, and the input is stored exactly once.
pub(super) fn numbers(
    step: &Step<'_>,
    tries: &Tries,
    attempt: u32,
    epoch: u64,
    input: Option<&CallInput>,
) -> Result<(), Violation> {
    let last = tries.attempt;
    step.must(attempt == last + 1, Rule::D2, format!("attempt {attempt} follows attempt {last}"))?;
    step.must(epoch >= tries.epoch, Rule::D2, format!("epoch {epoch} follows epoch {}", tries.epoch))?;
    let is_first = tries.input.is_none();
    step.must(is_first == input.is_some(), Rule::D2, "a call's input is stored with its first intent, once")
}

/// The saga goes forward, is not paused, and everything the step waits for is done.
fn may_run(step: &Step<'_>, ix: StepIx) -> Result<(), Violation> {
    let saga = step.here;
    step.must(saga.paused.is_none(), Rule::A1, "the saga is paused")?;
    match saga.definition.step(ix).kind {
        StepKind::Compensatable => {
            step.must(saga.stage == Stage::Forward, Rule::D1, "the saga does not go forward")?;
        }
        StepKind::Pivot => {
            step.must(saga.stage == Stage::Forward, Rule::D1, "the saga does not go forward")?;
            let is_clear = steps_of(saga, StepKind::Compensatable).all(|ix| is_done(saga, ix));
            step.must(is_clear, Rule::D1, "a compensatable step is not done")?;
        }
        StepKind::Retriable => {
            step.must(saga.stage == Stage::Committed, Rule::D1, "the saga is not committed")?;
        }
    }
    let waits_for = saga.definition.plan.after(ix).iter();
    let is_ready = waits_for.into_iter().all(|&before| is_done(saga, before));
    step.must(is_ready, Rule::D1, "a step it depends on is not done")
}

fn probed(step: &Step<'_>, at: InstanceRef, probe: u32, epoch: u64) -> Result<(), Violation> {
    let instance = step.instance(at);
    step.must(step.here.paused.is_none(), Rule::A1, "the saga is paused")?;
    step.must(probe == instance.probes + 1, Rule::D2, "probes are counted one by one")?;
    let last = instance.probe_epoch.max(instance.tries.epoch);
    step.must(epoch >= last, Rule::D2, format!("epoch {epoch} follows epoch {last}"))?;
    step.must(instance.tries.attempt > 0, Rule::D1, "a step nobody attempted")?;
    let is_in_doubt = match &instance.action {
        Action::Awaiting { .. } | Action::Probing { .. } => true,
        Action::Backoff { .. } | Action::Unknown { .. } => step.here.step(at).kind == StepKind::Pivot,
        _ => false,
    };
    step.must(is_in_doubt, Rule::D1, "there is nothing to find out")
}

fn failed(
    step: &Step<'_>,
    at: InstanceRef,
    attempt: u32,
    settles: bool,
    source: Source,
) -> Result<(), Violation> {
    let instance = step.instance(at);
    let kind = step.here.step(at).kind;
    step.must(attempt == instance.tries.attempt, Rule::D2, "a refusal of an earlier attempt")?;
    let may_settle = match source {
        Source::Engine => instance.action == Action::Pending,
        Source::Operator => is_unsettled(&instance.action) || is_unknown_and_untouched(&instance),
        Source::Reply | Source::Probe | Source::Token => is_unsettled(&instance.action),
    };
    step.must(may_settle, Rule::F1, "the step is settled already")?;
    step.must(!settles || kind != StepKind::Retriable, Rule::D1, "a retriable step never fails")?;
    let is_certain = !instance.doubtful || matches!(source, Source::Probe | Source::Operator);
    step.must(!settles || kind != StepKind::Pivot || is_certain, Rule::U1, "the pivot may have succeeded")
}

fn is_unsettled(action: &Action) -> bool {
    match action {
        Action::Running
        | Action::Backoff { .. }
        | Action::Awaiting { .. }
        | Action::Probing { .. }
        | Action::Blocked { .. } => true,
        Action::Pending
        | Action::Succeeded { .. }
        | Action::Refused { .. }
        | Action::Unknown { .. }
        | Action::Skipped => false,
    }
}

fn is_unknown_and_untouched(instance: &Instance) -> bool {
    matches!(instance.action, Action::Unknown { .. }) && instance.compensation == Compensation::Idle
}

fn steps_of(saga: &Saga, kind: StepKind) -> impl Iterator<Item = StepIx> {
    saga.definition.each_step().filter(move |(_, step)| step.kind == kind).map(|(ix, _)| ix)
}

/// Whether every instance of the step succeeded or was skipped.
fn is_done(saga: &Saga, ix: StepIx) -> bool {
    let state = &saga.steps[ix.at()];
    let is_done = |i: &Instance| matches!(i.action, Action::Succeeded { .. } | Action::Skipped);
    *state != crate::saga::state::StepState::Unexpanded && state.each(ix).all(|(_, i)| is_done(i))
}
