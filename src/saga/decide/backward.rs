//! Going backward: which compensations start now, and when everything is undone.

use std::sync::Arc;

use crate::saga::definition::Trigger;
use crate::saga::event::{CallInput, Event};
use crate::saga::ids::{InstanceRef, StepIx};
use crate::saga::ready;
use crate::saga::state::{Action, Compensation};
use crate::saga::words::Phase;

use super::draft::Draft;
use super::probe;
use super::undo;

/// Starts every compensation whose dependents are settled; ends the saga when all are.
pub(super) fn go_backward(draft: &mut Draft<'_>) {
    settle_what_is_pending(draft);
    let definition = Arc::clone(&draft.saga.definition);
    let mut is_clear = vec![false; definition.steps.len()];
    for &ix in definition.plan.order().iter().rev() {
        if ready::may_be_undone(&draft.saga, &is_clear, ix) {
            start_compensations(draft, ix);
            is_clear[ix.at()] = ready::is_settled(&draft.saga, ix);
        }
    }
    if is_clear.iter().all(|&clear| clear) {
        draft.record(Event::SagaCompensated);
        draft.emit(&Trigger::Compensated);
    }
}

/// A pending step is asked once more, and if that does not settle it, it is unknown.
fn settle_what_is_pending(draft: &mut Draft<'_>) {
    for at in draft.instances_where(|i| matches!(i.action, Action::Awaiting { .. })) {
        let has_probe = draft.instance(at).is_some_and(|i| !i.probe_unsupported);
        if !(has_probe && probe::start_probe(draft, at)) {
            probe::leave_unknown(draft, at, "the saga turned back while the participant was still working");
        }
    }
}

/// Follows up what is pending of one step, then starts its due compensations, in parallel under
/// the step's cap.
fn start_compensations(draft: &mut Draft<'_>, ix: StepIx) {
    while start_due_compensations(draft, ix) {}
}

/// One pass; whether a retry that could not be made has left its place to another instance.
fn start_due_compensations(draft: &mut Draft<'_>, ix: StepIx) -> bool {
    let definition = Arc::clone(&draft.saga.definition);
    let step = definition.step(ix);
    let all: Vec<InstanceRef> = draft.saga.steps[ix.at()].each(ix).map(|(at, _)| at).collect();
    let now = draft.ctx.now;
    for &at in &all {
        let Some(instance) = draft.instance(at) else { continue };
        if matches!(instance.compensation, Compensation::Awaiting { check_at } if check_at <= now) {
            if instance.undo_tries.pending_until.is_some_and(|until| now >= until) {
                undo::pending_is_over(draft, at);
            } else {
                start_compensation(draft, at);
            }
        }
    }
    let mut room = ready::room_backward(&draft.saga, ix);
    let mut free_calls = ready::free_calls_backward(&draft.saga, ix);
    let mut left_its_place = false;
    for at in all {
        let Some(instance) = draft.instance(at) else { continue };
        match &instance.compensation {
            Compensation::Idle
                if room > 0 && instance.owes_compensation(step) && !instance.is_in_flight() =>
            {
                let started = usize::from(start_compensation(draft, at));
                (room, free_calls) = (room - started, free_calls - started);
            }
            Compensation::Backoff { next_at: due, .. } if *due <= now && free_calls > 0 => {
                free_calls -= usize::from(start_compensation(draft, at));
                left_its_place |= draft.instance(at).is_some_and(|i| !i.is_under_way_backward());
            }
            _ => {}
        }
    }
    left_its_place
}

/// Records the intent of a compensation, unless its participant cannot be called now.
fn start_compensation(draft: &mut Draft<'_>, at: InstanceRef) -> bool {
    if !draft.can_call(at, Phase::Compensation) {
        return false;
    }
    let definition = Arc::clone(&draft.saga.definition);
    let Some(instance) = draft.instance(at) else { return false };
    let attempt = instance.undo_tries.attempt + 1;
    let input = if instance.undo_tries.input.is_some() {
        None
    } else {
        let template = definition.step(at.step).compensation.as_ref().and_then(|call| call.input.as_ref());
        match draft.call_input(template, CallInput::Action, at) {
            Ok(input) => Some(input),
            Err(refusal) => {
                draft.block(at, Phase::Compensation, format!("{}: {}", refusal.code, refusal.message));
                return false;
            }
        }
    };
    if let Some(why) = draft.no_room_backward(at, input.as_ref()) {
        draft.block(at, Phase::Compensation, why);
        return false;
    }
    draft.record(Event::CompensationStarted { at, attempt, epoch: draft.ctx.epoch, input });
    true
}
