//! Going backward: which compensations start now, and when everything is undone.

use std::sync::Arc;

use crate::saga::definition::Trigger;
use crate::saga::event::{CallInput, Event};
use crate::saga::ids::{InstanceRef, StepIx};
use crate::saga::ready;
use crate::saga::state::Compensation;
use crate::saga::tally::Tally;
use crate::saga::words::Phase;

use super::draft::Draft;
use super::probe;
use super::undo;

/// Starts every compensation whose dependents are settled; ends the saga when all are.
pub(super) fn go_backward(draft: &mut Draft<'_>) {
    settle_what_is_pending(draft);
    let mut before = draft.saga.lineup.len();
    while let Some(ix) = ready::next_backward(&draft.saga, &mut before, draft.ctx.now) {
        start_compensations(draft, ix);
    }
    if draft.saga.lineup.all_clear() {
        draft.record(Event::SagaCompensated);
        draft.emit(&Trigger::Compensated);
    }
}

/// A pending step is asked once more, and if that does not settle it, it is unknown.
fn settle_what_is_pending(draft: &mut Draft<'_>) {
    for at in draft.saga.instances_where(|tally| tally.looks.count + tally.repeats.count > 0) {
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
    let (now, mut from) = (draft.ctx.now, 0);
    while let Some(at) = draft.next_instance(ix, &mut from, |tally| tally.undo.looks.first <= now) {
        let until = draft.instance(at).and_then(|i| i.undo_tries.pending_until);
        if until.is_some_and(|until| now >= until) {
            undo::pending_is_over(draft, at);
        } else {
            start_compensation(draft, at);
        }
    }
    let whole = InstanceRef { step: ix, item: None };
    if !draft.can_call(whole, Phase::Compensation) {
        return false;
    }
    let cap = draft.saga.steps[ix.at()].cap(step);
    let undo = draft.saga.tally(ix).undo;
    let (mut room, mut free_calls) = (undo.room(cap), undo.free_calls(cap));
    let (mut from, mut left_its_place) = (0, false);
    loop {
        let may_start = |tally: &Tally| {
            (tally.undo.owed(step) > 0 && room > 0) || (tally.undo.retries.first <= now && free_calls > 0)
        };
        let Some(at) = draft.next_instance(ix, &mut from, may_start) else { return left_its_place };
        let is_first = draft.instance(at).is_some_and(|i| i.compensation == Compensation::Idle);
        let started = u32::from(start_compensation(draft, at));
        if started == 0 && !draft.can_call(whole, Phase::Compensation) {
            return false;
        }
        free_calls -= started;
        room -= if is_first { started } else { 0 };
        left_its_place |= !is_first && draft.instance(at).is_some_and(|i| !i.is_under_way_backward());
    }
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
