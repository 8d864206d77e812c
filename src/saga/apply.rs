//! Records facts: the fold that makes a saga out of its journal.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::definition::Definition;
use super::event::{CallInput, Event, Fact, Source, Started};
use super::ids::{InstanceRef, StepIx, Timestamp};
use super::input::Act;
use super::json::Json;
use super::room::{fact_bytes, started_bytes};
use super::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Saga, Stage, StepState, Tries};
use super::words::Phase;

/// Why a journal does not make a saga.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// There is no first fact, or it is not the start.
    #[error("the journal does not begin with the saga's start")]
    NoStart,
    /// A fact is missing or stands twice.
    #[error("fact {expected} is missing: the journal goes on with {found}")]
    Gap { expected: u64, found: u64 },
    /// The definition at hand is not the one the saga was started on.
    #[error("the saga runs {wanted}, the definition at hand is {found}")]
    OtherDefinition { wanted: String, found: String },
    /// A fact speaks of a step or an instance that the saga does not have.
    #[error("fact {seq} ({event}) speaks of a step that the saga does not have")]
    NoSuchStep { seq: u64, event: &'static str },
}

/// Makes a saga out of its whole journal.
pub fn replay(facts: &[Fact], definition: Arc<Definition>) -> Result<Saga, ReplayError> {
    let (first, rest) = facts.split_first().ok_or(ReplayError::NoStart)?;
    let Event::SagaStarted(started) = &first.event else { return Err(ReplayError::NoStart) };
    if started.digest != definition.digest || started.version != definition.version {
        return Err(ReplayError::OtherDefinition {
            wanted: format!("{} version {} ({})", started.definition, started.version, started.digest),
            found: format!("{} version {} ({})", definition.name, definition.version, definition.digest),
        });
    }
    if first.seq != 1 {
        return Err(ReplayError::Gap { expected: 1, found: first.seq });
    }
    let mut saga = begin(started, first.at, definition);
    for fact in rest {
        if fact.seq != saga.seq + 1 {
            return Err(ReplayError::Gap { expected: saga.seq + 1, found: fact.seq });
        }
        if !is_about_a_known_step(&saga, &fact.event) {
            return Err(ReplayError::NoSuchStep { seq: fact.seq, event: fact.event.type_name() });
        }
        apply(&mut saga, fact);
    }
    Ok(saga)
}

/// The saga right after its first fact.
#[must_use]
pub fn begin(started: &Started, at: Timestamp, definition: Arc<Definition>) -> Saga {
    let steps = definition.steps.iter().map(|step| match step.for_each {
        Some(_) => StepState::Unexpanded,
        None => StepState::One(Instance::fresh()),
    });
    let has_locks = !started.locks.is_empty();
    Saga {
        id: started.id.clone(),
        version_asked: started.version_asked,
        input: started.input.clone(),
        labels: Arc::clone(&started.labels),
        locks: Arc::from(started.locks.as_slice()),
        seq: 1,
        journal_bytes: started_bytes(started),
        created_at: at,
        updated_at: at,
        ended_at: None,
        stage: if has_locks {
            Stage::AwaitingLocks { until: at + definition.lock_wait }
        } else {
            Stage::Forward
        },
        committed: false,
        paused: None,
        uncertain: false,
        deadline: if has_locks { None } else { definition.deadline.map(|span| at + span) },
        failure: None,
        output: None,
        steps: steps.collect(),
        definition,
    }
}

/// Records one fact. Facts are about steps that exist: `decide` makes no others and `replay`
/// checks.
pub fn apply(saga: &mut Saga, fact: &Fact) {
    let now = fact.at;
    saga.seq = fact.seq;
    saga.journal_bytes = saga.journal_bytes.saturating_add(fact_bytes(&fact.event));
    saga.updated_at = now;
    match &fact.event {
        Event::SagaStarted(_)
        | Event::CancelRequested { .. }
        | Event::DeadlinePassed
        | Event::ExpressionFailed { .. }
        | Event::EventEmitted { .. } => {}
        Event::LockWaiting { until } => saga.stage = Stage::AwaitingLocks { until: *until },
        Event::LockGranted => {
            saga.stage = Stage::Forward;
            saga.deadline = saga.definition.deadline.map(|span| now + span);
        }
        Event::SagaCommitted { output } => {
            saga.stage = Stage::Committed;
            saga.committed = true;
            saga.output = Some(output.clone());
        }
        Event::SagaCompensating { failure } => {
            saga.stage = Stage::Backward;
            saga.failure = Some(failure.clone());
            give_up_retries(saga, now);
        }
        Event::SagaCompleted => end(saga, Stage::Completed, now),
        Event::SagaCompensated => end(saga, Stage::Compensated, now),
        Event::SagaAbandoned { .. } => {
            saga.uncertain = true;
            end(saga, Stage::Abandoned, now);
        }
        Event::OperatorAct { act, .. } => apply_act(saga, act, now),
        Event::StepExpanded { step, items } => expand(saga, *step, items),
        Event::StepSkipped { at, .. } if saga.instance(*at).is_none() => {
            saga.steps[at.step.at()] = StepState::Skipped;
        }
        Event::Unblocked { at, phase } => unblock(saga, *at, *phase, now),
        Event::Blocked { at, phase, reason } => block(saga, *at, *phase, reason, now),
        step_event => apply_to_step(saga, step_event, now),
    }
}

fn end(saga: &mut Saga, stage: Stage, now: Timestamp) {
    saga.stage = stage;
    saga.ended_at = Some(now);
}

/// Turning back settles what only waited for its next attempt: it stays unknown.
fn give_up_retries(saga: &mut Saga, now: Timestamp) {
    for instance in saga.steps.iter_mut().flat_map(StepState::instances_mut) {
        if let Action::Backoff { last, .. } = &instance.action {
            instance.action = match last {
                Doubt::Unknown(cause) => Action::Unknown { cause: cause.clone() },
                Doubt::Refused(refusal) => Action::Refused { refusal: refusal.clone() },
            };
            instance.tries.ended_at = Some(now);
        }
    }
}

fn apply_act(saga: &mut Saga, act: &Act, now: Timestamp) {
    match act {
        Act::Pause => saga.paused = Some(now),
        Act::Resume => resume(saga, now),
        Act::RetryNow { step } => hasten(saga, step.as_deref(), now),
        Act::Resolve { .. } => saga.uncertain = true,
        Act::Skip { .. } | Act::Cancel | Act::Abandon { .. } => {}
    }
}

/// Moves the deadline by the pause, or by the part of it in which the deadline was running: it
/// begins with the locks, and they can come in the middle of a pause.
fn resume(saga: &mut Saga, now: Timestamp) {
    let Some(since) = saga.paused.take() else { return };
    let limit = saga.definition.deadline.unwrap_or_default();
    saga.deadline = saga.deadline.map(|deadline| deadline + now.since(since.max(deadline - limit)));
}

/// Makes what waits due at once, with a fresh budget.
fn hasten(saga: &mut Saga, step: Option<&str>, now: Timestamp) {
    let chosen: Vec<InstanceRef> = match step {
        Some(name) => saga.instance_named(name).into_iter().collect(),
        None => saga.each_instance().map(|(at, _)| at).collect(),
    };
    for at in chosen {
        let Some(instance) = instance_mut(saga, at) else { continue };
        match &mut instance.action {
            Action::Backoff { next_at: due, .. } => {
                *due = now;
                instance.tries.renew_budget();
            }
            Action::Awaiting { check_at } => *check_at = now,
            _ => {}
        }
        match &mut instance.compensation {
            Compensation::Backoff { next_at: due, .. } => {
                *due = now;
                instance.undo_tries.renew_budget();
            }
            Compensation::Awaiting { check_at } => *check_at = now,
            _ => {}
        }
    }
}

fn expand(saga: &mut Saga, step: StepIx, items: &Json) {
    let count = items.value().as_array().map_or(0, Vec::len);
    saga.steps[step.at()] = StepState::Many(items.clone(), vec![Instance::fresh(); count]);
}

fn instance_mut(saga: &mut Saga, at: InstanceRef) -> Option<&mut Instance> {
    saga.steps.get_mut(at.step.at())?.instances_mut().get_mut(at.slot())
}

/// The instance at `at`. A `for_each` step whose list could not be evaluated has one instance to
/// say so.
fn instance_or_new(saga: &mut Saga, at: InstanceRef) -> &mut Instance {
    let state = &mut saga.steps[at.step.at()];
    if matches!(state, StepState::Unexpanded) {
        *state = StepState::One(Instance::fresh());
    }
    let instance = state.instances_mut().get_mut(at.slot());
    instance.expect("facts are about instances that exist: decide makes no others, replay checks")
}

fn block(saga: &mut Saga, at: InstanceRef, phase: Phase, reason: &str, since: Timestamp) {
    let instance = instance_or_new(saga, at);
    let reason = reason.to_owned();
    match phase {
        Phase::Compensation => {
            let last = match &instance.compensation {
                Compensation::Backoff { last, .. } => Some(last.clone()),
                Compensation::Running | Compensation::Awaiting { .. } => Some(Doubt::Unknown(reason.clone())),
                Compensation::Blocked { last, .. } => last.clone(),
                Compensation::Idle | Compensation::Done | Compensation::Waived => None,
            };
            instance.compensation = Compensation::Blocked { reason, since, last };
        }
        Phase::Action | Phase::Probe => {
            let last = match &instance.action {
                Action::Backoff { last, .. } | Action::Probing { why: ProbeWhy::BeforeBlock(last) } => {
                    Some(last.clone())
                }
                Action::Unknown { cause } => Some(Doubt::Unknown(cause.clone())),
                Action::Running | Action::Awaiting { .. } | Action::Probing { why: ProbeWhy::Pending } => {
                    Some(Doubt::Unknown(reason.clone()))
                }
                Action::Refused { refusal } => Some(Doubt::Refused(refusal.clone())),
                Action::Blocked { last, .. } => last.clone(),
                Action::Pending | Action::Succeeded { .. } | Action::Skipped => None,
            };
            instance.action = Action::Blocked { reason, since, last };
        }
    }
}

/// Puts what was blocked back in line, due at once and with a fresh budget.
fn unblock(saga: &mut Saga, at: InstanceRef, phase: Phase, now: Timestamp) {
    let is_for_each = saga.step(at).for_each.is_some();
    let instance = instance_or_new(saga, at);
    match phase {
        Phase::Compensation => {
            instance.undo_tries.renew_budget();
            if let Compensation::Blocked { last, .. } = &instance.compensation {
                instance.compensation = match last.clone() {
                    Some(last) => Compensation::Backoff { next_at: now, last },
                    None => Compensation::Idle,
                };
            }
        }
        Phase::Action | Phase::Probe => {
            instance.tries.renew_budget();
            if let Action::Blocked { last, .. } = &instance.action {
                match last.clone() {
                    Some(last) => instance.action = Action::Backoff { next_at: now, last },
                    None if is_for_each && at.item.is_none() => {
                        saga.steps[at.step.at()] = StepState::Unexpanded;
                    }
                    None => instance.action = Action::Pending,
                }
            }
        }
    }
}

fn apply_to_step(saga: &mut Saga, event: &Event, now: Timestamp) {
    let saga_input = saga.input.clone();
    match event {
        Event::StepStarted { at, attempt, epoch, input } => {
            let instance = instance_or_new(saga, *at);
            let is_a_check = matches!(instance.action, Action::Awaiting { .. });
            let input = input.as_ref().map(|input| resolve(input, &saga_input, None));
            instance.tries.start(*attempt, *epoch, input, now, is_a_check);
            instance.action = Action::Running;
        }
        Event::StepSucceeded { at, output, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.action = Action::Succeeded { output: output.clone() };
            instance.tries.ended_at = Some(now);
        }
        Event::StepFailed { at, refusal, elapsed, retry_at, source, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.tries.spend(*elapsed, *retry_at, now);
            instance.action = match retry_at {
                Some(next_at) => Action::Backoff { next_at: *next_at, last: Doubt::Refused(refusal.clone()) },
                None => Action::Refused { refusal: refusal.clone() },
            };
            if retry_at.is_none() {
                instance.tries.ended_at = Some(now);
                instance.doubtful &= !matches!(source, Source::Probe | Source::Operator);
            }
        }
        Event::StepUnknown { at, cause, elapsed, retry_at, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.doubtful = true;
            instance.tries.spend(*elapsed, *retry_at, now);
            instance.action = match retry_at {
                Some(next_at) => Action::Backoff { next_at: *next_at, last: Doubt::Unknown(cause.clone()) },
                None => Action::Unknown { cause: cause.clone() },
            };
            if retry_at.is_none() {
                instance.tries.ended_at = Some(now);
            }
        }
        Event::StepPending { at, check_at, until, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.tries.pending_until.get_or_insert(*until);
            instance.action = Action::Awaiting { check_at: *check_at };
        }
        Event::StepProbed { at, probe, epoch, input } => {
            let instance = instance_or_new(saga, *at);
            instance.probes = *probe;
            instance.probe_epoch = *epoch;
            if let Some(input) = input {
                let action_input = instance.tries.input.clone();
                instance.probe_input = Some(resolve(input, &saga_input, action_input));
            }
            instance.action = Action::Probing { why: why_probed(&instance.action) };
        }
        Event::ProbeUnsupported { at } => instance_or_new(saga, *at).probe_unsupported = true,
        Event::StepSkipped { at, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.action = Action::Skipped;
            instance.tries.ended_at = Some(now);
        }
        Event::LateReply { at, uncertain, .. } => {
            instance_or_new(saga, *at).late_success |= *uncertain;
            saga.uncertain |= *uncertain;
        }
        compensation_event => apply_to_compensation(saga, compensation_event, now),
    }
}

fn why_probed(before: &Action) -> ProbeWhy {
    match before {
        Action::Backoff { last, .. } => ProbeWhy::BeforeBlock(last.clone()),
        Action::Unknown { cause } => ProbeWhy::BeforeBlock(Doubt::Unknown(cause.clone())),
        Action::Probing { why } => why.clone(),
        _ => ProbeWhy::Pending,
    }
}

fn apply_to_compensation(saga: &mut Saga, event: &Event, now: Timestamp) {
    let saga_input = saga.input.clone();
    match event {
        Event::CompensationStarted { at, attempt, epoch, input } => {
            let instance = instance_or_new(saga, *at);
            let is_a_check = matches!(instance.compensation, Compensation::Awaiting { .. });
            let action_input = instance.tries.input.clone();
            let input = input.as_ref().map(|input| resolve(input, &saga_input, action_input));
            instance.undo_tries.start(*attempt, *epoch, input, now, is_a_check);
            instance.compensation = Compensation::Running;
        }
        Event::CompensationDone { at, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.compensation = Compensation::Done;
            instance.undo_tries.ended_at = Some(now);
        }
        Event::CompensationRefused { at, refusal, .. } => {
            let last = Doubt::Refused(refusal.clone());
            instance_or_new(saga, *at).compensation = Compensation::Backoff { next_at: now, last };
        }
        Event::CompensationUnknown { at, cause, elapsed, retry_at, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.undo_tries.spend(*elapsed, *retry_at, now);
            let next_at = retry_at.unwrap_or(now);
            let last = Doubt::Unknown(cause.clone());
            instance.compensation = Compensation::Backoff { next_at, last };
        }
        Event::CompensationPending { at, check_at, until, .. } => {
            let instance = instance_or_new(saga, *at);
            instance.undo_tries.pending_until.get_or_insert(*until);
            instance.compensation = Compensation::Awaiting { check_at: *check_at };
        }
        Event::CompensationWaived { at } => {
            instance_or_new(saga, *at).compensation = Compensation::Waived;
            saga.uncertain = true;
        }
        other => unreachable!("{} is not about a compensation", other.type_name()),
    }
}

fn resolve(input: &CallInput, saga_input: &Json, action_input: Option<Json>) -> Json {
    match input {
        CallInput::Inline(json) => json.clone(),
        CallInput::Saga => saga_input.clone(),
        CallInput::Action => action_input.unwrap_or_else(Json::null),
    }
}

impl Tries {
    /// A look at a pending call is an attempt that costs no budget.
    fn start(&mut self, attempt: u32, epoch: u64, input: Option<Json>, now: Timestamp, is_a_check: bool) {
        self.attempt = attempt;
        self.epoch = epoch;
        self.spent_attempts += u32::from(!is_a_check);
        self.started_at.get_or_insert(now);
        self.attempt_at = Some(now);
        self.ended_at = None;
        if input.is_some() {
            self.input = input;
        }
    }

    /// Adds an attempt's time, and the delay that was set behind it. Delays count as they were
    /// set, so time in which the saga was paused, parked or not in memory costs nothing.
    fn spend(&mut self, elapsed: Duration, retry_at: Option<Timestamp>, now: Timestamp) {
        self.spent += elapsed + retry_at.map_or(Duration::ZERO, |at| at.since(now));
    }

    fn renew_budget(&mut self) {
        self.spent_attempts = 0;
        self.spent = Duration::ZERO;
        self.pending_until = None;
    }
}

/// Whether the steps and instances that `event` speaks of exist.
fn is_about_a_known_step(saga: &Saga, event: &Event) -> bool {
    let Some(at) = about(event) else {
        return match event {
            Event::StepExpanded { step, .. } => step.at() < saga.steps.len(),
            Event::SagaStarted(_) => false,
            _ => true,
        };
    };
    match saga.steps.get(at.step.at()) {
        None | Some(StepState::Skipped) => false,
        Some(StepState::Unexpanded) => at.item.is_none(),
        Some(_) => saga.instance(at).is_some(),
    }
}

/// The step instance that an event is about.
#[must_use]
pub fn about(event: &Event) -> Option<InstanceRef> {
    match event {
        Event::StepStarted { at, .. }
        | Event::StepSucceeded { at, .. }
        | Event::StepFailed { at, .. }
        | Event::StepUnknown { at, .. }
        | Event::StepPending { at, .. }
        | Event::StepProbed { at, .. }
        | Event::ProbeUnsupported { at }
        | Event::StepSkipped { at, .. }
        | Event::CompensationStarted { at, .. }
        | Event::CompensationDone { at, .. }
        | Event::CompensationRefused { at, .. }
        | Event::CompensationUnknown { at, .. }
        | Event::CompensationPending { at, .. }
        | Event::CompensationWaived { at }
        | Event::Blocked { at, .. }
        | Event::Unblocked { at, .. }
        | Event::LateReply { at, .. } => Some(*at),
        Event::SagaStarted(_)
        | Event::LockWaiting { .. }
        | Event::LockGranted
        | Event::StepExpanded { .. }
        | Event::SagaCommitted { .. }
        | Event::CancelRequested { .. }
        | Event::DeadlinePassed
        | Event::SagaCompensating { .. }
        | Event::OperatorAct { .. }
        | Event::ExpressionFailed { .. }
        | Event::EventEmitted { .. }
        | Event::SagaCompleted
        | Event::SagaCompensated
        | Event::SagaAbandoned { .. } => None,
    }
}
