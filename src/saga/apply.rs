//! Records facts: the fold that makes a saga out of its journal.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::definition::Definition;
use super::event::{CallInput, Event, Fact, Source, Started};
use super::ids::{InstanceRef, StepIx, Timestamp};
use super::input::Act;
use super::json::Json;
use super::lineup::Lineup;
use super::room::{fact_bytes, started_bytes};
use super::row::Row;
use super::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Saga, Stage, StepState, Tries};
use super::tally::Tally;
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
    let steps: Row<StepState> = steps.collect();
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
        lineup: Lineup::of(&definition, &steps, false),
        steps,
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
            saga.lineup = Lineup::of(&saga.definition, &saga.steps, true);
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
            saga.change_step(at.step, |state| *state = StepState::Skipped);
        }
        Event::Unblocked { at, phase } => unblock(saga, *at, *phase, now),
        Event::Blocked { at, phase, reason } => {
            change(saga, *at, |instance| block(instance, *phase, reason, now));
        }
        step_event => {
            let at = about(step_event).expect("all other facts are about one instance");
            saga.uncertain |= matches!(
                step_event,
                Event::CompensationWaived { .. } | Event::LateReply { uncertain: true, .. }
            );
            let saga_input = saga.input.clone();
            change(saga, at, |instance| apply_to_instance(instance, step_event, &saga_input, now));
        }
    }
}

fn end(saga: &mut Saga, stage: Stage, now: Timestamp) {
    saga.stage = stage;
    saga.ended_at = Some(now);
}

/// Turning back settles what only waited for its next attempt: it stays unknown.
fn give_up_retries(saga: &mut Saga, now: Timestamp) {
    for at in saga.instances_where(|tally| tally.retries.count > 0) {
        change(saga, at, |instance| {
            if let Action::Backoff { last, .. } = &instance.action {
                instance.action = match last {
                    Doubt::Unknown(cause) => {
                        let cause = cause.clone();
                        instance.doubtful = true;
                        Action::Unknown { cause }
                    }
                    Doubt::Refused(refusal) => Action::Refused { refusal: refusal.clone() },
                };
                instance.tries.ended_at = Some(now);
            }
        });
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
        None => saga.instances_where(Tally::has_waiting),
    };
    for at in chosen {
        change(saga, at, |instance| hasten_one(instance, now));
    }
}

fn hasten_one(instance: &mut Instance, now: Timestamp) {
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

fn expand(saga: &mut Saga, step: StepIx, items: &Json) {
    let count = items.value().as_array().map_or(0, Vec::len);
    let instances = Row::repeat(Instance::fresh(), count);
    saga.change_step(step, |state| *state = StepState::Many(items.clone(), instances));
}

/// Changes the instance at `at`. A `for_each` step whose list could not be evaluated has one
/// instance to say so.
fn change(saga: &mut Saga, at: InstanceRef, change: impl FnOnce(&mut Instance)) {
    let changed = saga.change_step(at.step, |state| {
        if matches!(state, StepState::Unexpanded) {
            *state = StepState::One(Instance::fresh());
        }
        state.change(at.slot(), change)
    });
    changed.flatten().expect("facts are about instances that exist: decide makes no others, replay checks");
}

fn block(instance: &mut Instance, phase: Phase, reason: &str, since: Timestamp) {
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
    let is_whole = saga.step(at).for_each.is_some() && at.item.is_none();
    let action = saga.instance(at).map(|instance| &instance.action);
    let was_never_called = matches!(action, Some(Action::Blocked { last: None, .. }));
    if phase != Phase::Compensation && is_whole && was_never_called {
        // Its list could not be evaluated; it is tried again.
        saga.change_step(at.step, |state| *state = StepState::Unexpanded);
    } else {
        change(saga, at, |instance| unblock_one(instance, phase, now));
    }
}

fn unblock_one(instance: &mut Instance, phase: Phase, now: Timestamp) {
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
                instance.action = match last.clone() {
                    Some(last) => Action::Backoff { next_at: now, last },
                    None => Action::Pending,
                };
            }
        }
    }
}

/// What a fact about one instance's action changes in it.
fn apply_to_instance(instance: &mut Instance, event: &Event, saga_input: &Json, now: Timestamp) {
    match event {
        Event::StepStarted { attempt, epoch, input, .. } => {
            let is_a_check = matches!(instance.action, Action::Awaiting { .. });
            let input = input.as_ref().map(|input| resolve(input, saga_input, None));
            instance.tries.start(*attempt, *epoch, input, now, is_a_check);
            instance.action = Action::Running;
        }
        Event::StepSucceeded { output, .. } => {
            instance.action = Action::Succeeded { output: output.clone() };
            instance.tries.ended_at = Some(now);
        }
        Event::StepFailed { refusal, elapsed, retry_at, source, .. } => {
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
        Event::StepUnknown { cause, elapsed, retry_at, unsent, .. } => {
            // A step that is left unknown counts as one that may have run, as after a crash.
            instance.doubtful |= !unsent || retry_at.is_none();
            instance.tries.give_back_if(*unsent);
            instance.tries.spend(*elapsed, *retry_at, now);
            instance.action = match retry_at {
                Some(next_at) => Action::Backoff { next_at: *next_at, last: Doubt::Unknown(cause.clone()) },
                None => Action::Unknown { cause: cause.clone() },
            };
            if retry_at.is_none() {
                instance.tries.ended_at = Some(now);
            }
        }
        Event::StepPending { check_at, until, .. } => {
            instance.tries.pending_until.get_or_insert(*until);
            instance.action = Action::Awaiting { check_at: *check_at };
        }
        Event::StepProbed { probe, epoch, input, .. } => {
            instance.probes = *probe;
            instance.probe_epoch = *epoch;
            if let Some(input) = input {
                let action_input = instance.tries.input.clone();
                instance.probe_input = Some(resolve(input, saga_input, action_input));
            }
            instance.action = Action::Probing { why: why_probed(&instance.action) };
        }
        Event::ProbeUnsupported { .. } => instance.probe_unsupported = true,
        Event::StepSkipped { .. } => {
            instance.action = Action::Skipped;
            instance.tries.ended_at = Some(now);
        }
        Event::LateReply { uncertain, .. } => {
            instance.late_success |= *uncertain;
        }
        compensation_event => apply_to_compensation(instance, compensation_event, saga_input, now),
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

/// The same for its compensation.
fn apply_to_compensation(instance: &mut Instance, event: &Event, saga_input: &Json, now: Timestamp) {
    match event {
        Event::CompensationStarted { attempt, epoch, input, .. } => {
            let is_a_check = matches!(instance.compensation, Compensation::Awaiting { .. });
            let action_input = instance.tries.input.clone();
            let input = input.as_ref().map(|input| resolve(input, saga_input, action_input));
            instance.undo_tries.start(*attempt, *epoch, input, now, is_a_check);
            instance.compensation = Compensation::Running;
        }
        Event::CompensationDone { .. } => {
            instance.compensation = Compensation::Done;
            instance.undo_tries.ended_at = Some(now);
        }
        Event::CompensationRefused { refusal, .. } => {
            let last = Doubt::Refused(refusal.clone());
            instance.compensation = Compensation::Backoff { next_at: now, last };
        }
        Event::CompensationUnknown { cause, elapsed, retry_at, unsent, .. } => {
            instance.undo_tries.give_back_if(*unsent);
            instance.undo_tries.spend(*elapsed, *retry_at, now);
            let next_at = retry_at.unwrap_or(now);
            let last = Doubt::Unknown(cause.clone());
            instance.compensation = Compensation::Backoff { next_at, last };
        }
        Event::CompensationPending { check_at, until, .. } => {
            instance.undo_tries.pending_until.get_or_insert(*until);
            instance.compensation = Compensation::Awaiting { check_at: *check_at };
        }
        Event::CompensationWaived { .. } => {
            instance.compensation = Compensation::Waived;
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
        self.is_a_check = is_a_check;
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

    /// An attempt that never left costs nothing.
    fn give_back_if(&mut self, unsent: bool) {
        self.spent_attempts = self.spent_attempts.saturating_sub(u32::from(unsent && !self.is_a_check));
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
