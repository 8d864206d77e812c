//! Facts as people would say them.

use crate::saga::apply::about;
use crate::saga::event::{Event, Fact};
use crate::saga::ids::Timestamp;
use crate::saga::state::Saga;
use crate::saga::words::Phase;

pub(super) fn facts(saga: &Saga, facts: &[Fact]) -> String {
    if facts.is_empty() {
        return "-".to_owned();
    }
    let told: Vec<String> = facts.iter().map(|fact| tell(saga, fact)).collect();
    told.join("; ")
}

/// The status, and what else a user sees at once.
pub(super) fn status(saga: &Saga) -> String {
    let mut told = saga.status().as_str().to_owned();
    if let Some(failure) = &saga.failure {
        told = format!("{told} {}", failure.code);
    }
    for block in saga.blocks() {
        told = format!("{told}, {} of {} blocked", block.phase.as_str(), block.step);
    }
    if saga.uncertain {
        told.push_str(", uncertain");
    }
    told
}

fn tell(saga: &Saga, fact: &Fact) -> String {
    let name = about(&fact.event).map(|at| saga.name_of(at)).unwrap_or_default();
    let again = |at: &Option<Timestamp>| match at {
        Some(at) => format!(", again in {}ms", at.since(fact.at).as_millis()),
        None => String::new(),
    };
    match &fact.event {
        Event::LockWaiting { .. } => "waits for locks".to_owned(),
        Event::LockGranted => "has its locks".to_owned(),
        Event::StepExpanded { items, .. } => format!("items {}", items.text()),
        Event::StepStarted { attempt, .. } => format!("call {name} {attempt}"),
        Event::StepSucceeded { .. } => format!("{name} done"),
        Event::StepFailed { retry_at, refusal, .. } => {
            format!("{name} refused {}{}", refusal.code, again(retry_at))
        }
        Event::StepUnknown { retry_at, unsent: true, .. } => format!("{name} unsent{}", again(retry_at)),
        Event::CompensationUnknown { retry_at, unsent: true, .. } => {
            format!("undo {name} unsent{}", again(retry_at))
        }
        Event::StepUnknown { retry_at, .. } => format!("{name} unknown{}", again(retry_at)),
        Event::StepPending { check_at, .. } => {
            format!("{name} pending, look in {}ms", check_at.since(fact.at).as_millis())
        }
        Event::StepProbed { probe, .. } => format!("probe {name} {probe}"),
        Event::ProbeUnsupported { .. } => format!("{name} has no probe"),
        Event::StepSkipped { .. } => format!("{name} skipped"),
        Event::SagaCommitted { .. } => "COMMITTED".to_owned(),
        Event::CancelRequested { .. } => "cancel".to_owned(),
        Event::DeadlinePassed => "deadline".to_owned(),
        Event::SagaCompensating { failure } => format!("COMPENSATING {}", failure.code),
        Event::CompensationStarted { attempt, .. } => format!("undo {name} {attempt}"),
        Event::CompensationDone { .. } => format!("{name} undone"),
        Event::CompensationRefused { .. } => format!("undo {name} refused"),
        Event::CompensationUnknown { retry_at, .. } => format!("undo {name} unknown{}", again(retry_at)),
        Event::CompensationPending { check_at, .. } => {
            format!("undo {name} pending, look in {}ms", check_at.since(fact.at).as_millis())
        }
        Event::CompensationWaived { .. } => format!("{name} waived"),
        Event::Blocked { phase: Phase::Compensation, .. } => format!("undo {name} blocked"),
        Event::Blocked { .. } => format!("{name} blocked"),
        Event::Unblocked { phase: Phase::Compensation, .. } => format!("undo {name} unblocked"),
        Event::Unblocked { .. } => format!("{name} unblocked"),
        Event::OperatorAct { .. } => "act".to_owned(),
        Event::LateReply { uncertain: true, .. } => format!("{name} late, uncertain"),
        Event::LateReply { .. } => format!("{name} late"),
        Event::SagaCompleted => "COMPLETED".to_owned(),
        Event::SagaCompensated => "COMPENSATED".to_owned(),
        Event::SagaAbandoned { steps } => format!("ABANDONED with {}", steps.join(" ")),
        Event::SagaStarted(_) | Event::ExpressionFailed { .. } | Event::EventEmitted { .. } => {
            fact.event.type_name().to_owned()
        }
    }
}
