//! The way back: what may be undone, in which order, and when the saga is undone.

use super::forward::numbers;
use super::{Rule, Step, Violation, dependents, is_left_to_undo, is_under_way};
use crate::saga::event::{Event, Source};
use crate::saga::ids::InstanceRef;
use crate::saga::state::{Action, Compensation, Stage};
use crate::saga::words::{Phase, StepKind};

pub(super) fn check(step: &Step<'_>) -> Result<(), Violation> {
    match step.event() {
        Event::SagaCompensating { .. } | Event::CancelRequested { .. } | Event::DeadlinePassed => {
            let pivot = step.here.pivot().map(|at| step.instance(at));
            let may_have_happened = pivot.is_some_and(|pivot| {
                pivot.tries.attempt > 0 && (pivot.doubtful || !matches!(pivot.action, Action::Refused { .. }))
            });
            step.must(!may_have_happened, Rule::P1, "the pivot may have succeeded")
        }
        Event::CompensationStarted { at, attempt, epoch, input } => {
            started(step, *at)?;
            in_order(step, *at)?;
            numbers(step, &step.instance(*at).undo_tries, *attempt, *epoch, input.as_ref())
        }
        Event::CompensationDone { at, attempt, source, .. } => {
            let instance = step.instance(*at);
            let is_known = *attempt >= 1 && *attempt <= instance.undo_tries.attempt;
            step.must(is_known || *source == Source::Operator, Rule::C1, "an attempt never made")?;
            let was_idle = instance.compensation == Compensation::Idle && *source == Source::Operator;
            step.must(was_idle || is_open(&instance.compensation), Rule::F1, "settled already")
        }
        Event::CompensationRefused { at, attempt, .. } => {
            latest(step, *at, *attempt)?;
            is_followed_by_a_block(step, *at)
        }
        Event::CompensationUnknown { at, attempt, retry_at, .. } => {
            latest(step, *at, *attempt)?;
            if retry_at.is_none() { is_followed_by_a_block(step, *at) } else { Ok(()) }
        }
        Event::CompensationPending { at, attempt, .. } => latest(step, *at, *attempt),
        Event::SagaCompensated => {
            for (at, instance) in step.here.each_instance() {
                let name = step.here.name_of(at);
                let is_left = is_left_to_undo(step.here, at, instance);
                step.must(!is_left, Rule::C2, format!("{name} is not undone"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Only what ran or may have run, not while its call is in flight, never a pivot or side work.
fn started(step: &Step<'_>, at: InstanceRef) -> Result<(), Violation> {
    let (saga, definition, instance) = (step.here, step.here.step(at), step.instance(at));
    step.must(definition.kind == StepKind::Compensatable, Rule::P2, "its kind is never compensated")?;
    step.must(definition.compensation.is_some(), Rule::C1, "it has no compensation")?;
    step.must(saga.stage == Stage::Backward, Rule::C1, "the saga does not go backward")?;
    step.must(saga.paused.is_none(), Rule::A1, "the saga is paused")?;
    step.must(!is_under_way(&instance), Rule::C1, "its action's call is in flight")?;
    step.must(is_left_to_undo(saga, at, &instance), Rule::C1, "there is nothing to undo")?;
    let waits = matches!(
        instance.compensation,
        Compensation::Idle | Compensation::Backoff { .. } | Compensation::Awaiting { .. }
    );
    step.must(waits, Rule::C1, "its compensation does not wait for an attempt")?;
    let is_running = |c: &Compensation| matches!(c, Compensation::Running | Compensation::Awaiting { .. });
    let others = saga.steps[at.step.at()].each(at.step);
    let in_flight = others.filter(|(other, i)| *other != at && is_running(&i.compensation)).count();
    let cap = definition.concurrency as usize;
    step.must(at.item.is_none() || in_flight < cap, Rule::C1, "more compensations in flight than the cap")
}

/// Everything that depends on it, directly or not, is undone or has nothing to undo.
fn in_order(step: &Step<'_>, at: InstanceRef) -> Result<(), Violation> {
    for dependent in dependents(step.here, at.step) {
        for (other, instance) in step.here.steps[dependent.at()].each(dependent) {
            let is_settled = !is_left_to_undo(step.here, other, instance);
            let name = step.here.name_of(other);
            step.must(is_settled, Rule::O1, format!("{name} depends on it and is not settled"))?;
        }
    }
    Ok(())
}

fn is_open(compensation: &Compensation) -> bool {
    match compensation {
        Compensation::Running | Compensation::Backoff { .. } | Compensation::Awaiting { .. } => true,
        Compensation::Idle | Compensation::Done | Compensation::Blocked { .. } | Compensation::Waived => {
            false
        }
    }
}

fn latest(step: &Step<'_>, at: InstanceRef, attempt: u32) -> Result<(), Violation> {
    let instance = step.instance(at);
    step.must(attempt == instance.undo_tries.attempt, Rule::D2, "not the latest attempt")?;
    step.must(is_open(&instance.compensation), Rule::F1, "settled already")
}

/// A compensation that will not be tried again by itself is put before an operator.
fn is_followed_by_a_block(step: &Step<'_>, at: InstanceRef) -> Result<(), Violation> {
    let is_blocked = matches!(
        step.next_event(),
        Some(Event::Blocked { at: blocked, phase: Phase::Compensation, .. }) if *blocked == at
    );
    step.must(is_blocked, Rule::L1, "nobody was told that it needs an operator")
}
