//! Which steps may run now, and which may be undone now: the order of things, in one place for
//! `decide`, which starts them, and for `duties`, which knows what is waited for.

use super::ids::StepIx;
use super::state::{Compensation, Instance, Saga, Stage, StepState};
use super::words::StepKind;

/// Whether every step of `kind` lets the saga go on.
#[must_use]
pub fn all_done(saga: &Saga, kind: StepKind) -> bool {
    let mut steps = saga.definition.each_step().filter(|(_, step)| step.kind == kind);
    steps.all(|(ix, _)| saga.steps[ix.at()].is_done())
}

/// Whether the action of `step` may be called, as far as the other steps go.
///
/// The pivot waits for every compensatable step and retriable steps wait for the commit, whatever
/// `after` says.
#[must_use]
pub fn may_run(saga: &Saga, step: StepIx) -> bool {
    let stage_allows = match saga.definition.step(step).kind {
        StepKind::Compensatable => saga.stage == Stage::Forward,
        StepKind::Pivot => saga.stage == Stage::Forward && all_done(saga, StepKind::Compensatable),
        StepKind::Retriable => saga.stage == Stage::Committed,
    };
    stage_allows && saga.definition.plan.after(step).iter().all(|before| saga.steps[before.at()].is_done())
}

/// For each step, whether it and everything that depends on it is settled on the way back.
#[must_use]
pub fn clear_steps(saga: &Saga) -> Vec<bool> {
    let mut clear = vec![false; saga.steps.len()];
    for &ix in saga.definition.plan.order().iter().rev() {
        clear[ix.at()] = may_be_undone(saga, &clear, ix) && is_settled(saga, ix);
    }
    clear
}

/// Whether everything that depends on `step` is clear.
#[must_use]
pub fn may_be_undone(saga: &Saga, clear: &[bool], step: StepIx) -> bool {
    saga.definition.plan.before(step).iter().all(|dependent| clear[dependent.at()])
}

/// Whether nothing of `step` itself holds back what it depends on.
#[must_use]
pub fn is_settled(saga: &Saga, step: StepIx) -> bool {
    let definition = saga.definition.step(step);
    saga.steps[step.at()].instances().iter().all(|instance| instance.is_settled_backward(definition))
}

/// How many more calls of `step` may be in flight forward. Instances that an operator sent to try
/// again may be more than that; they take turns.
#[must_use]
pub fn free_calls_forward(saga: &Saga, step: StepIx) -> usize {
    room(saga, step, Instance::is_in_flight)
}

/// How many more calls of `step` may be in flight backward.
#[must_use]
pub fn free_calls_backward(saga: &Saga, step: StepIx) -> usize {
    room(saga, step, |i| matches!(i.compensation, Compensation::Running | Compensation::Awaiting { .. }))
}

/// How many more instances of `step` may be under way forward.
#[must_use]
pub fn room_forward(saga: &Saga, step: StepIx) -> usize {
    room(saga, step, Instance::is_under_way_forward)
}

/// How many more instances of `step` may be under way backward.
#[must_use]
pub fn room_backward(saga: &Saga, step: StepIx) -> usize {
    room(saga, step, Instance::is_under_way_backward)
}

fn room(saga: &Saga, step: StepIx, is_under_way: impl Fn(&Instance) -> bool) -> usize {
    let cap = match saga.steps[step.at()] {
        StepState::Many(..) => saga.definition.step(step).concurrency as usize,
        StepState::One(_) | StepState::Unexpanded | StepState::Skipped => 1,
    };
    let under_way = saga.steps[step.at()].instances().iter().filter(|i| is_under_way(i)).count();
    cap.saturating_sub(under_way)
}
