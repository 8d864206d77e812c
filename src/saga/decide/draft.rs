//! A saga being decided: facts so far, and the saga as it is with them.

use std::sync::Arc;

use serde_json::Value;

use crate::saga::apply::{apply, begin};
use crate::saga::definition::{Definition, EventRule, Probe, Trigger};
use crate::saga::event::{CallInput, Event, Fact, Started};
use crate::saga::expr::{EvalError, Scope, Template};
use crate::saga::ids::{InstanceRef, StepIx};
use crate::saga::input::{Context, Rejection};
use crate::saga::json::Json;
use crate::saga::room;
use crate::saga::state::{Action, Instance, Saga, Stage, StepState};
use crate::saga::tally::Tally;
use crate::saga::words::{Failure, Phase, Refusal, codes};

use super::{CALL_JSON_MAX_BYTES, Decision};

/// A text up to this size is kept even when the journal is full: less room than its absence takes.
const SMALL_BYTES: usize = 64;

/// A saga with facts that are decided and not yet stored.
pub(super) struct Draft<'a> {
    pub saga: Saga,
    pub ctx: &'a Context<'a>,
    pub refused: Option<Rejection>,
    facts: Vec<Fact>,
}

impl<'a> Draft<'a> {
    pub fn of(saga: &Saga, ctx: &'a Context<'a>) -> Self {
        Self { saga: saga.clone(), ctx, refused: None, facts: Vec::new() }
    }

    pub fn begin(started: Started, definition: Arc<Definition>, ctx: &'a Context<'a>) -> Self {
        let saga = begin(&started, ctx.now, definition);
        let first = Fact { seq: 1, at: ctx.now, event: Event::SagaStarted(Box::new(started)) };
        Self { saga, ctx, refused: None, facts: vec![first] }
    }

    pub fn finish(self) -> Decision {
        Decision { facts: self.facts, next: self.saga, refused: self.refused }
    }

    /// Adds a fact and applies it.
    pub fn record(&mut self, event: Event) {
        let fact = Fact { seq: self.saga.seq + 1, at: self.ctx.now, event };
        apply(&mut self.saga, &fact);
        self.facts.push(fact);
    }

    /// Where it stands, to come back to.
    pub fn mark(&self) -> (Saga, usize) {
        (self.saga.clone(), self.facts.len())
    }

    /// Forgets what was recorded since `mark`.
    pub fn rewind(&mut self, (saga, facts): (Saga, usize)) {
        self.saga = saga;
        self.facts.truncate(facts);
    }

    /// The instance at `at`.
    pub fn instance(&self, at: InstanceRef) -> Option<&Instance> {
        self.saga.instance(at)
    }

    /// The pivot's instance, once a call of it may have left and it was not definitely refused.
    pub fn pivot_intended(&self) -> Option<InstanceRef> {
        self.saga.pivot().filter(|&at| {
            self.instance(at).is_some_and(|pivot| {
                pivot.tries.attempt > 0 && !matches!(pivot.action, Action::Refused { .. } | Action::Skipped)
            })
        })
    }

    /// Records that the saga turns back, with its first cause.
    pub fn turn_back(&mut self, failure: Failure) {
        if matches!(self.saga.stage, Stage::Forward | Stage::AwaitingLocks { .. }) {
            self.record(Event::SagaCompensating { failure });
            self.emit(&Trigger::Compensating);
        }
    }

    /// Turns back because of a step.
    pub fn turn_back_for(&mut self, at: InstanceRef, refusal: &Refusal) {
        let failure = Failure {
            step: self.saga.name_of(at),
            code: refusal.code.clone(),
            message: refusal.message.clone(),
        };
        self.turn_back(failure);
    }

    /// Records a block.
    pub fn block(&mut self, at: InstanceRef, phase: Phase, reason: String) {
        self.record(Event::Blocked { at, phase, reason });
        self.emit(&Trigger::Blocked);
    }

    /// Records that a block is lifted, if there is one.
    pub fn lift_block(&mut self, at: InstanceRef, phase: Phase) {
        use crate::saga::state::Compensation;
        let is_blocked = self.instance(at).is_some_and(|instance| match phase {
            Phase::Compensation => matches!(instance.compensation, Compensation::Blocked { .. }),
            Phase::Action | Phase::Probe => matches!(instance.action, Action::Blocked { .. }),
        });
        if is_blocked {
            self.record(Event::Unblocked { at, phase });
        }
    }

    /// Writes the outbox records that wait for `trigger`.
    pub fn emit(&mut self, trigger: &Trigger) {
        let definition = Arc::clone(&self.saga.definition);
        for rule in definition.events.iter().filter(|rule| rule.on == *trigger) {
            self.emit_one(rule);
        }
    }

    fn emit_one(&mut self, rule: &EventRule) {
        let mut key = match self.value_or_null(rule.key.as_ref(), &rule.topic, "key") {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        if !self.has_room_to_keep(key.len(), || format!("events: {}: key", rule.topic)) {
            key.clear();
        }
        let data = Json::from_value(&self.value_or_null(rule.data.as_ref(), &rule.topic, "data"));
        let data = self.kept(data, || format!("events: {}: data", rule.topic));
        self.record(Event::EventEmitted { topic: rule.topic.clone(), key, data });
    }

    fn value_or_null(&mut self, template: Option<&Template>, topic: &str, part: &str) -> Value {
        let Some(template) = template else { return Value::Null };
        self.evaluate(template, None).unwrap_or_else(|error| {
            self.record(Event::ExpressionFailed {
                place: format!("events: {topic}: {part}"),
                message: error.to_string(),
            });
            Value::Null
        })
    }

    /// The saga's output; a failure is recorded and counts as null.
    pub fn output(&mut self) -> Json {
        let definition = Arc::clone(&self.saga.definition);
        let Some(template) = definition.output.as_ref() else { return Json::null() };
        let value = self.evaluate(template, None).unwrap_or_else(|error| {
            self.record(Event::ExpressionFailed { place: "output".to_owned(), message: error.to_string() });
            Value::Null
        });
        self.kept(Json::from_value(&value), || "output".to_owned())
    }

    /// A document for the journal; null, with a note, when there is no room for it.
    pub fn kept(&mut self, json: Json, place: impl FnOnce() -> String) -> Json {
        if self.has_room_to_keep(json.text().len(), place) { json } else { Json::null() }
    }

    /// Whether a text that the saga can do without fits the journal; noted when it does not.
    fn has_room_to_keep(&mut self, bytes: usize, place: impl FnOnce() -> String) -> bool {
        let fits = match self.saga.stage {
            _ if bytes <= SMALL_BYTES => true,
            Stage::AwaitingLocks { .. } | Stage::Forward | Stage::Committed => {
                self.ctx.journal_limit.fits_forward(&self.saga, bytes)
            }
            Stage::Backward | Stage::Completed | Stage::Compensated | Stage::Abandoned => {
                self.ctx.journal_limit.fits_backward(&self.saga, None, bytes)
            }
        };
        if !fits {
            let message = self.no_room(&format!("{bytes} bytes"));
            self.record(Event::ExpressionFailed { place: place(), message });
        }
        fits
    }

    /// Why the attempt of an action with this input cannot be made; `None` when it can.
    pub fn no_room_forward(&self, input: Option<&CallInput>) -> Option<String> {
        let fits = self.ctx.journal_limit.fits_forward(&self.saga, room::attempt_bytes(input));
        (!fits).then(|| self.no_room("another attempt"))
    }

    /// Why a call that undoes or probes `at` cannot be made; `None` when it can.
    pub fn no_room_backward(&self, at: InstanceRef, input: Option<&CallInput>) -> Option<String> {
        let bytes = room::undo_attempt_bytes(input);
        let fits = self.ctx.journal_limit.fits_backward(&self.saga, Some(at), bytes);
        (!fits).then(|| self.no_room("another attempt"))
    }

    /// Why an action's output cannot be kept; `None` when it can.
    pub fn no_room_for_output(&self, at: InstanceRef, output: &Json) -> Option<String> {
        let bytes = output.text().len();
        let needed = room::output_bytes(&self.saga, at, bytes);
        let fits = bytes <= SMALL_BYTES || self.ctx.journal_limit.fits_forward(&self.saga, needed);
        (!fits).then(|| self.no_room(&format!("an output of {bytes} bytes")))
    }

    /// Why a list cannot be kept; `None` when it can.
    pub fn no_room_for_items(&self, items: &Json) -> Option<String> {
        let bytes = items.text().len();
        let fits = self.ctx.journal_limit.fits_forward(&self.saga, room::FACT_BYTES + bytes);
        (!fits).then(|| self.no_room(&format!("a list of {bytes} bytes")))
    }

    fn no_room(&self, what: &str) -> String {
        let (used, limit) = (self.saga.journal_bytes, self.ctx.journal_limit.bytes());
        format!(
            "the saga has no room for {what}: {used} of {limit} bytes are used, the rest is kept for its way out"
        )
    }

    /// The value of a template, for the saga as a whole or for one instance.
    pub fn evaluate(&self, template: &Template, at: Option<InstanceRef>) -> Result<Value, EvalError> {
        self.with_scope(at, |scope| template.evaluate(scope))
    }

    /// Gives `use_scope` what an expression may read.
    pub fn with_scope<T>(&self, at: Option<InstanceRef>, use_scope: impl FnOnce(&Scope<'_>) -> T) -> T {
        let saga = &self.saga;
        let steps = |name: &str| saga.output_of(name);
        let output_at = |name: &str, index| saga.output_at(name, index);
        let item = at.and_then(|at| {
            let index = at.item?;
            let StepState::Many(items, _) = saga.steps.get(at.step.at())? else { return None };
            Some((items.value().get(index as usize)?, u64::from(index)))
        });
        use_scope(&Scope {
            saga_id: saga.id.as_str(),
            labels: &saga.labels,
            input: saga.input.value(),
            steps: &steps,
            output_at: &output_at,
            item,
            failure: saga.failure.as_ref(),
        })
    }

    /// The input of a call from its template, or what it is when the template is left out.
    pub fn call_input(
        &self,
        template: Option<&Template>,
        otherwise: CallInput,
        at: InstanceRef,
    ) -> Result<CallInput, Refusal> {
        let Some(template) = template else { return Ok(otherwise) };
        let value =
            self.evaluate(template, Some(at)).map_err(|error| expression_refusal(&error.to_string()))?;
        let json = Json::from_value(&value);
        if json.text().len() > CALL_JSON_MAX_BYTES {
            return Err(expression_refusal(&format!(
                "the input came to {} bytes, over the limit of {CALL_JSON_MAX_BYTES}",
                json.text().len()
            )));
        }
        Ok(CallInput::Inline(json))
    }

    /// Whether one more call for `phase` of the step behind `at` can be sent now.
    pub fn can_call(&self, at: InstanceRef, phase: Phase) -> bool {
        let step = self.saga.step(at);
        let (participant, action) = match phase {
            Phase::Action => step.action.handler(),
            Phase::Compensation => match &step.compensation {
                Some(call) => call.handler(),
                None => return false,
            },
            Phase::Probe => step.probe.as_ref().map_or(step.action.handler(), Probe::handler),
        };
        match self.ctx.reach.places(participant, action) {
            0 => false,
            usize::MAX => true,
            places => {
                let decided =
                    self.facts.iter().filter(|fact| self.saga.callee(&fact.event) == Some(participant));
                places > decided.count()
            }
        }
    }

    /// The next instance of `step` from the slot `from` on that comes to something `wanted`. Moves
    /// `from` behind it.
    pub fn next_instance(
        &self,
        step: StepIx,
        from: &mut usize,
        wanted: impl Fn(&Tally) -> bool,
    ) -> Option<InstanceRef> {
        let state = &self.saga.steps[step.at()];
        let slot = state.next_slot(*from, wanted)?;
        *from = slot + 1;
        Some(state.refer(step, slot))
    }
}

/// The refusal that stands for a saga that is too large to go on.
pub(super) fn full_refusal(message: String) -> Refusal {
    Refusal { code: codes::SAGA_TOO_LARGE.to_owned(), message }
}

/// The refusal that stands for an expression that gave no value.
pub(super) fn expression_refusal(message: &str) -> Refusal {
    Refusal { code: codes::EXPRESSION.to_owned(), message: message.to_owned() }
}
