//! Going forward: which steps start now, and when the saga is committed and completed.

use std::sync::Arc;

use serde_json::Value;

use crate::saga::definition::Trigger;
use crate::saga::event::{CallInput, Event, Source};
use crate::saga::ids::{InstanceRef, StepIx};
use crate::saga::json::Json;
use crate::saga::ready;
use crate::saga::state::{Action, Stage, StepState};
use crate::saga::tally::Tally;
use crate::saga::words::{Phase, Refusal, StepKind};

use super::draft::{Draft, expression_refusal, full_refusal};
use super::probe;
use super::reply::{pending_is_over, unknown_for_good};

/// Longest list a `for_each` may run over.
pub(super) const FAN_OUT_MAX_ITEMS: usize = 10_000;

/// Starts every step that may start, commits when nothing stands against it, completes at the end.
pub(super) fn go_forward(draft: &mut Draft<'_>) {
    start_steps(draft);
    if draft.saga.stage == Stage::Forward
        && draft.saga.lineup.all_done(StepKind::Compensatable)
        && draft.saga.lineup.all_done(StepKind::Pivot)
    {
        let output = draft.output();
        draft.record(Event::SagaCommitted { output });
        draft.emit(&Trigger::Committed);
        start_steps(draft);
    }
    if draft.saga.stage == Stage::Committed && draft.saga.lineup.all_done(StepKind::Retriable) {
        draft.record(Event::SagaCompleted);
        draft.emit(&Trigger::Completed);
    }
}

/// One pass in dependency order suffices: a step that is done at once (skipped, an empty list)
/// stands before everything that waits for it. Kind by kind, since the pivot waits for every
/// compensatable step and side work for the pivot, whatever `after` says. A step that fails on the
/// way turns the saga back, and then no kind may run any more.
fn start_steps(draft: &mut Draft<'_>) {
    for kind in ready::KINDS {
        let mut from = 0;
        while let Some(ix) = ready::next_forward(&draft.saga, kind, &mut from, draft.ctx.now) {
            start_step(draft, ix);
        }
    }
}

fn start_step(draft: &mut Draft<'_>, ix: StepIx) {
    let whole = InstanceRef { step: ix, item: None };
    let is_untouched = match &draft.saga.steps[ix.at()] {
        StepState::Unexpanded => true,
        StepState::One(instance) => instance.action == Action::Pending,
        StepState::Skipped | StepState::Many(..) => false,
    };
    if is_untouched {
        match condition(draft, whole) {
            Ok(true) => {}
            Ok(false) => return draft.record(Event::StepSkipped { at: whole, source: Source::Engine }),
            Err(refusal) => return fail_without_a_call(draft, whole, &refusal),
        }
    }
    if matches!(draft.saga.steps[ix.at()], StepState::Unexpanded) {
        let items = items(draft, whole).and_then(|items| match draft.no_room_for_items(&items) {
            Some(why) => Err(full_refusal(why)),
            None => Ok(items),
        });
        match items {
            Ok(items) => {
                draft.record(Event::StepExpanded { step: ix, items });
                announce_success(draft, ix);
            }
            Err(refusal) => return fail_without_a_call(draft, whole, &refusal),
        }
    }
    start_instances(draft, ix);
}

/// Follows up what is pending, then starts due instances, the earlier items first, never more
/// under way than the step's cap. In this order, since a look can free a place.
fn start_instances(draft: &mut Draft<'_>, ix: StepIx) {
    while start_due_instances(draft, ix) {}
}

/// One pass; whether a retry that could not be made has left its place to another instance.
fn start_due_instances(draft: &mut Draft<'_>, ix: StepIx) -> bool {
    let (now, mut from) = (draft.ctx.now, 0);
    let is_due = |tally: &Tally| tally.looks.first <= now || tally.repeats.first <= now;
    while let Some(at) = draft.next_instance(ix, &mut from, is_due) {
        look_again(draft, at);
    }
    let whole = InstanceRef { step: ix, item: None };
    if !draft.can_call(whole, Phase::Action) {
        return false;
    }
    let cap = draft.saga.steps[ix.at()].cap(draft.saga.definition.step(ix));
    let tally = draft.saga.tally(ix);
    let (mut room, mut free_calls) = (tally.room(cap), tally.free_calls(cap));
    let (mut from, mut left_its_place) = (0, false);
    while matches!(draft.saga.stage, Stage::Forward | Stage::Committed) {
        let may_start =
            |tally: &Tally| (tally.pending > 0 && room > 0) || (tally.retries.first <= now && free_calls > 0);
        let Some(at) = draft.next_instance(ix, &mut from, may_start) else { return left_its_place };
        let is_first = matches!(draft.instance(at).map(|i| &i.action), Some(Action::Pending));
        let started = u32::from(start_attempt(draft, at));
        if started == 0 && !draft.can_call(whole, Phase::Action) {
            return false;
        }
        free_calls -= started;
        room -= if is_first { started } else { 0 };
        left_its_place |= !is_first && draft.instance(at).is_some_and(|i| !i.is_under_way_forward());
    }
    false
}

/// Records the intent of an attempt, unless its participant cannot be called now.
fn start_attempt(draft: &mut Draft<'_>, at: InstanceRef) -> bool {
    if !draft.can_call(at, Phase::Action) {
        return false;
    }
    let definition = Arc::clone(&draft.saga.definition);
    let Some(instance) = draft.instance(at) else { return false };
    let attempt = instance.tries.attempt + 1;
    let input = if instance.tries.input.is_some() {
        None
    } else {
        let template = definition.step(at.step).action.input.as_ref();
        match draft.call_input(template, CallInput::Saga, at) {
            Ok(input) => Some(input),
            Err(refusal) => {
                fail_without_a_call(draft, at, &refusal);
                return false;
            }
        }
    };
    if let Some(why) = draft.no_room_forward(input.as_ref()) {
        cannot_go_on(draft, at, &why);
        return false;
    }
    draft.record(Event::StepStarted { at, attempt, epoch: draft.ctx.epoch, input });
    true
}

/// There is no room for a further attempt. A step that was never called has failed; one that was
/// called stays unknown.
fn cannot_go_on(draft: &mut Draft<'_>, at: InstanceRef, why: &str) {
    if draft.instance(at).is_none_or(|i| i.action == Action::Pending) {
        return fail_without_a_call(draft, at, &full_refusal(why.to_owned()));
    }
    probe::leave_unknown(draft, at, why);
    unknown_for_good(draft, at, why);
}

/// Follows up a pending answer: a probe where there is one, else the action again.
fn look_again(draft: &mut Draft<'_>, at: InstanceRef) {
    let Some(instance) = draft.instance(at) else { return };
    if instance.tries.pending_until.is_some_and(|until| draft.ctx.now >= until) {
        pending_is_over(draft, at);
    } else if let Some(why) = draft.no_room_forward(None) {
        cannot_go_on(draft, at, &why);
    } else if instance.probe_unsupported {
        start_attempt(draft, at);
    } else {
        probe::start_probe(draft, at);
    }
}

/// It cannot be called, and never was: a definite failure, or a block where failing
/// is not possible.
fn fail_without_a_call(draft: &mut Draft<'_>, at: InstanceRef, refusal: &Refusal) {
    match draft.saga.step(at).kind {
        StepKind::Retriable => {
            draft.block(at, Phase::Action, format!("{}: {}", refusal.code, refusal.message));
        }
        StepKind::Compensatable | StepKind::Pivot => {
            let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
            draft.record(Event::StepFailed {
                at,
                attempt,
                refusal: refusal.clone(),
                elapsed: std::time::Duration::ZERO,
                retry_at: None,
                source: Source::Engine,
            });
            draft.turn_back_for(at, refusal);
        }
    }
}

fn condition(draft: &Draft<'_>, at: InstanceRef) -> Result<bool, Refusal> {
    let definition = &draft.saga.definition;
    let Some(when) = &definition.step(at.step).when else { return Ok(true) };
    match draft.with_scope(None, |scope| when.evaluate(scope)) {
        Ok(Value::Bool(is_true)) => Ok(is_true),
        Ok(Value::Null) => Ok(false),
        Ok(other) => Err(expression_refusal(&format!("`when` gave {}, not true or false", kind_of(&other)))),
        Err(error) => Err(expression_refusal(&format!("`when`: {error}"))),
    }
}

fn items(draft: &Draft<'_>, at: InstanceRef) -> Result<Json, Refusal> {
    let definition = &draft.saga.definition;
    let Some(for_each) = &definition.step(at.step).for_each else {
        return Ok(Json::from_value(&Value::Array(Vec::new())));
    };
    match draft.with_scope(None, |scope| for_each.evaluate(scope)) {
        Ok(Value::Array(list)) if list.len() <= FAN_OUT_MAX_ITEMS => {
            Ok(Json::from_value(&Value::Array(list)))
        }
        Ok(Value::Array(list)) => Err(expression_refusal(&format!(
            "`for_each` gave {} items, over the limit of {FAN_OUT_MAX_ITEMS}",
            list.len()
        ))),
        Ok(other) => Err(expression_refusal(&format!("`for_each` gave {}, not a list", kind_of(&other)))),
        Err(error) => Err(expression_refusal(&format!("`for_each`: {error}"))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Writes the outbox records of a step once all its instances succeeded.
pub(super) fn announce_success(draft: &mut Draft<'_>, step: StepIx) {
    let tally = draft.saga.tally(step);
    if tally.succeeded == tally.instances {
        draft.emit(&Trigger::Step(step));
    }
}
