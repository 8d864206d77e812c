//! The steps of a saga: one row an instance, in the definition's order.

use super::{definition::kind, timestamp};
use crate::proto;
use crate::saga::definition::Step;
use crate::saga::ids::{StepIx, Timestamp};
use crate::saga::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Saga, StepState};
use crate::saga::words::{CompensationStatus, Refusal, StepStatus, codes, instance_name};

/// Every instance of every step. A `for_each` step has no row before its list is known; a step
/// that was skipped as a whole has one row with its plain name.
pub(super) fn steps(saga: &Saga) -> Vec<proto::Step> {
    let mut rows = Vec::new();
    for ((ix, step), state) in saga.definition.each_step().zip(&saga.steps) {
        match state {
            StepState::Unexpanded => {}
            StepState::Skipped => rows.push(skipped(step)),
            StepState::One(_) | StepState::Many(..) => rows.extend(instances(saga, ix, step, state)),
        }
    }
    rows
}

fn skipped(step: &Step) -> proto::Step {
    proto::Step {
        name: step.name.to_string(),
        kind: kind(step.kind).into(),
        status: proto::StepStatus::Skipped.into(),
        compensation: proto::CompensationStatus::NotNeeded.into(),
        ..Default::default()
    }
}

fn instances<'a>(
    saga: &'a Saga,
    ix: StepIx,
    step: &'a Step,
    state: &'a StepState,
) -> impl Iterator<Item = proto::Step> + 'a {
    let direction = saga.direction();
    let moves_by_itself = !saga.is_terminal() && saga.paused.is_none();
    state.each(ix).map(move |(at, instance)| {
        let name = instance_name(&step.name, at.item);
        proto::Step {
            kind: kind(step.kind).into(),
            status: step_status(instance.status()).into(),
            attempts: instance.tries.attempt,
            input_json: instance.tries.input.as_ref().map(|json| json.text().to_owned()).unwrap_or_default(),
            output_json: instance.output().map(|json| json.text().to_owned()).unwrap_or_default(),
            failure: last_failure(instance).map(|(code, message)| proto::Failure {
                step: name.clone(),
                code,
                message,
            }),
            compensation: compensation_status(instance.compensation_status(step, direction)).into(),
            compensation_attempts: instance.undo_tries.attempt,
            started_at: instance.tries.started_at.map(timestamp),
            ended_at: instance.tries.ended_at.map(timestamp),
            next_attempt_at: next_attempt_at(instance).filter(|_| moves_by_itself).map(timestamp),
            name,
        }
    })
}

fn step_status(status: StepStatus) -> proto::StepStatus {
    match status {
        StepStatus::Pending => proto::StepStatus::Pending,
        StepStatus::Running => proto::StepStatus::Running,
        StepStatus::Succeeded => proto::StepStatus::Succeeded,
        StepStatus::Failed => proto::StepStatus::Failed,
        StepStatus::Unknown => proto::StepStatus::Unknown,
        StepStatus::Skipped => proto::StepStatus::Skipped,
    }
}

fn compensation_status(status: CompensationStatus) -> proto::CompensationStatus {
    match status {
        CompensationStatus::NotNeeded => proto::CompensationStatus::NotNeeded,
        CompensationStatus::Pending => proto::CompensationStatus::Pending,
        CompensationStatus::Running => proto::CompensationStatus::Running,
        CompensationStatus::Done => proto::CompensationStatus::Done,
        CompensationStatus::Blocked => proto::CompensationStatus::Blocked,
        CompensationStatus::Waived => proto::CompensationStatus::Waived,
    }
}

/// Code and message of what last went wrong, of the compensation before the action: it ran later.
fn last_failure(instance: &Instance) -> Option<(String, String)> {
    match &instance.compensation {
        Compensation::Backoff { last, .. } | Compensation::Blocked { last: Some(last), .. } => {
            Some(doubted(last))
        }
        // Nothing was called: only an expression that fails blocks it before its first call.
        Compensation::Blocked { reason, last: None, .. } => {
            Some((codes::EXPRESSION.to_owned(), said(reason)))
        }
        Compensation::Idle
        | Compensation::Running
        | Compensation::Awaiting { .. }
        | Compensation::Done
        | Compensation::Waived => action_failure(instance),
    }
}

fn doubted(last: &Doubt) -> (String, String) {
    match last {
        Doubt::Unknown(cause) => unknown(cause),
        Doubt::Refused(refusal) => refused(refusal),
    }
}

fn action_failure(instance: &Instance) -> Option<(String, String)> {
    match &instance.action {
        Action::Backoff { last, .. }
        | Action::Probing { why: ProbeWhy::BeforeBlock(last) }
        | Action::Blocked { last: Some(last), .. } => Some(doubted(last)),
        Action::Refused { refusal } => Some(refused(refusal)),
        Action::Unknown { cause } => Some(unknown(cause)),
        // Nothing was called: only an expression that fails blocks a step before its first call.
        Action::Blocked { reason, last: None, .. } => Some((codes::EXPRESSION.to_owned(), said(reason))),
        Action::Pending
        | Action::Running
        | Action::Awaiting { .. }
        | Action::Probing { why: ProbeWhy::Pending }
        | Action::Succeeded { .. }
        | Action::Skipped => None,
    }
}

fn unknown(cause: &str) -> (String, String) {
    (codes::UNKNOWN.to_owned(), said(cause))
}

fn refused(refusal: &Refusal) -> (String, String) {
    (refusal.code.clone(), said(&refusal.message))
}

/// A failure's message is never empty.
fn said(message: &str) -> String {
    if message.is_empty() { "no reason was given".to_owned() } else { message.to_owned() }
}

fn next_attempt_at(instance: &Instance) -> Option<Timestamp> {
    match &instance.compensation {
        Compensation::Backoff { next_at: at, .. } | Compensation::Awaiting { check_at: at } => Some(*at),
        Compensation::Idle => match &instance.action {
            Action::Backoff { next_at: at, .. } | Action::Awaiting { check_at: at } => Some(*at),
            Action::Pending
            | Action::Running
            | Action::Probing { .. }
            | Action::Succeeded { .. }
            | Action::Refused { .. }
            | Action::Unknown { .. }
            | Action::Skipped
            | Action::Blocked { .. } => None,
        },
        Compensation::Running | Compensation::Done | Compensation::Blocked { .. } | Compensation::Waived => {
            None
        }
    }
}
