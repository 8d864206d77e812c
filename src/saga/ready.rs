//! Which steps may run now, and which may be undone now: the order of things, in one place for
//! `decide`, which starts them, and for `duties`, which knows what is waited for.

use super::ids::{StepIx, Timestamp};
use super::state::{Saga, Stage};
use super::words::StepKind;

/// The kinds of steps in the order in which they run.
pub const KINDS: [StepKind; 3] = [StepKind::Compensatable, StepKind::Pivot, StepKind::Retriable];

/// Whether actions of steps of `kind` may be called, as far as the saga goes.
///
/// The pivot waits for every compensatable step and retriable steps wait for the commit, whatever
/// `after` says.
#[must_use]
pub fn kind_may_run(saga: &Saga, kind: StepKind) -> bool {
    match kind {
        StepKind::Compensatable => saga.stage == Stage::Forward,
        StepKind::Pivot => saga.stage == Stage::Forward && saga.lineup.all_done(StepKind::Compensatable),
        StepKind::Retriable => saga.stage == Stage::Committed,
    }
}

/// Whether the action of `step` may be called, as far as the other steps go.
#[must_use]
pub fn may_run(saga: &Saga, step: StepIx) -> bool {
    let definition = &saga.definition;
    kind_may_run(saga, definition.step(step).kind) && saga.lineup.is_free(definition.plan.rank(step))
}

/// The next step of `kind` that may run and about which something is to be done by `by`, from the
/// place `from` of the plan's order on. Moves `from` behind it.
pub fn next_forward(saga: &Saga, kind: StepKind, from: &mut usize, by: Timestamp) -> Option<StepIx> {
    if !kind_may_run(saga, kind) {
        return None;
    }
    let rank = saga.lineup.next_forward(kind, *from, by)?;
    *from = rank + 1;
    Some(saga.definition.plan.order()[rank])
}

/// The next step, in the reverse of the plan's order, about whose compensations something is to be
/// done by `by`, before the place `before`. Moves `before` to it.
pub fn next_backward(saga: &Saga, before: &mut usize, by: Timestamp) -> Option<StepIx> {
    let rank = saga.lineup.next_backward(*before, by)?;
    *before = rank;
    Some(saga.definition.plan.order()[rank])
}
