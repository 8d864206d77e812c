//! Facts into their stored messages.

use std::time::Duration;

use super::forms::{
    ActForm, BlockForm, CallDoneForm, CallInputForm, CallInputKind, CallPendingForm, CallStartedForm,
    CallUnknownForm, CancelForm, CompensationRefusedForm, EmittedForm, EventForm, ExpandedForm,
    ExpressionFailedForm, FactForm, FailureForm, InstanceForm, LateReplyForm, NamesForm, NothingForm,
    OperatorActForm, ProbedForm, RefusalForm, ResolutionForm, ResolveForm, SkippedForm, StartedForm,
    StepFailedForm, StepNameForm,
};
use crate::saga::event::{CallInput, Event, Fact, Source, Started};
use crate::saga::ids::{InstanceRef, Timestamp};
use crate::saga::input::{Act, Resolution};
use crate::saga::json::Json;
use crate::saga::words::{Failure, Phase, Refusal};

impl From<&Fact> for FactForm {
    fn from(fact: &Fact) -> Self {
        Self { seq: fact.seq, at: fact.at.0, event: Some(EventForm::from(&fact.event)) }
    }
}

impl From<&Event> for EventForm {
    #[expect(clippy::too_many_lines, reason = "one arm for each event, each of them plain")]
    fn from(event: &Event) -> Self {
        match event {
            Event::SagaStarted(started) => Self::SagaStarted(started_form(started)),
            Event::LockWaiting { until } => Self::LockWaiting(until.0),
            Event::LockGranted => Self::LockGranted(NothingForm {}),
            Event::StepExpanded { step, items } => {
                Self::StepExpanded(ExpandedForm { step: step.0, items: text(items) })
            }
            Event::StepStarted { at, attempt, epoch, input } => {
                Self::StepStarted(call_started(*at, *attempt, *epoch, input.as_ref()))
            }
            Event::StepSucceeded { at, attempt, output, source } => {
                Self::StepSucceeded(call_done(*at, *attempt, output, *source))
            }
            Event::StepFailed { at, attempt, refusal, elapsed, retry_at, source } => {
                Self::StepFailed(StepFailedForm {
                    at: instance(*at),
                    attempt: *attempt,
                    refusal: Some(refusal.into()),
                    elapsed_nanos: nanos(*elapsed),
                    retry_at: retry_at.map(|at| at.0),
                    source: source_number(*source),
                })
            }
            Event::StepUnknown { at, attempt, cause, elapsed, retry_at, unsent } => {
                let form = call_unknown(*at, *attempt, cause, *elapsed, *retry_at);
                Self::StepUnknown(CallUnknownForm { unsent: *unsent, ..form })
            }
            Event::StepPending { at, attempt, check_at, until } => {
                Self::StepPending(call_pending(*at, *attempt, *check_at, *until))
            }
            Event::StepProbed { at, probe, epoch, input } => Self::StepProbed(ProbedForm {
                at: instance(*at),
                probe: *probe,
                input: input.as_ref().map(CallInputForm::from),
                epoch: *epoch,
            }),
            Event::ProbeUnsupported { at } => Self::ProbeUnsupported((*at).into()),
            Event::StepSkipped { at, source } => {
                Self::StepSkipped(SkippedForm { at: instance(*at), source: source_number(*source) })
            }
            Event::SagaCommitted { output } => Self::SagaCommitted(text(output)),
            Event::CancelRequested { actor, reason } => {
                Self::CancelRequested(CancelForm { actor: actor.clone(), reason: reason.clone() })
            }
            Event::DeadlinePassed => Self::DeadlinePassed(NothingForm {}),
            Event::SagaCompensating { failure } => Self::SagaCompensating(failure.into()),
            Event::CompensationStarted { at, attempt, epoch, input } => {
                Self::CompensationStarted(call_started(*at, *attempt, *epoch, input.as_ref()))
            }
            Event::CompensationDone { at, attempt, output, source } => {
                Self::CompensationDone(call_done(*at, *attempt, output, *source))
            }
            Event::CompensationRefused { at, attempt, refusal } => {
                Self::CompensationRefused(CompensationRefusedForm {
                    at: instance(*at),
                    attempt: *attempt,
                    refusal: Some(refusal.into()),
                })
            }
            Event::CompensationUnknown { at, attempt, cause, elapsed, retry_at, unsent } => {
                let form = call_unknown(*at, *attempt, cause, *elapsed, *retry_at);
                Self::CompensationUnknown(CallUnknownForm { unsent: *unsent, ..form })
            }
            Event::CompensationPending { at, attempt, check_at, until } => {
                Self::CompensationPending(call_pending(*at, *attempt, *check_at, *until))
            }
            Event::CompensationWaived { at } => Self::CompensationWaived((*at).into()),
            Event::Blocked { at, phase, reason } => Self::Blocked(BlockForm {
                at: instance(*at),
                phase: phase_number(*phase),
                reason: reason.clone(),
            }),
            Event::Unblocked { at, phase } => Self::Unblocked(BlockForm {
                at: instance(*at),
                phase: phase_number(*phase),
                reason: String::new(),
            }),
            Event::OperatorAct { act, actor, reason } => Self::OperatorAct(OperatorActForm {
                actor: actor.clone(),
                reason: reason.clone(),
                act: Some(act.into()),
            }),
            Event::LateReply { at, phase, attempt, summary, uncertain } => Self::LateReply(LateReplyForm {
                at: instance(*at),
                phase: phase_number(*phase),
                attempt: *attempt,
                summary: summary.clone(),
                uncertain: *uncertain,
            }),
            Event::ExpressionFailed { place, message } => Self::ExpressionFailed(ExpressionFailedForm {
                place: place.clone(),
                message: message.clone(),
            }),
            Event::EventEmitted { topic, key, data } => {
                Self::EventEmitted(EmittedForm { topic: topic.clone(), key: key.clone(), data: text(data) })
            }
            Event::SagaCompleted => Self::SagaCompleted(NothingForm {}),
            Event::SagaCompensated => Self::SagaCompensated(NothingForm {}),
            Event::SagaAbandoned { steps } => Self::SagaAbandoned(NamesForm { names: steps.clone() }),
        }
    }
}

fn started_form(started: &Started) -> StartedForm {
    StartedForm {
        id: started.id.to_string(),
        definition: started.definition.to_string(),
        version: started.version.0,
        digest: started.digest.0.to_vec(),
        version_asked: started.version_asked,
        input: text(&started.input),
        labels: started.labels.as_ref().clone(),
        locks: started.locks.iter().map(ToString::to_string).collect(),
    }
}

fn call_started(at: InstanceRef, attempt: u32, epoch: u64, input: Option<&CallInput>) -> CallStartedForm {
    CallStartedForm { at: instance(at), attempt, epoch, input: input.map(CallInputForm::from) }
}

fn call_done(at: InstanceRef, attempt: u32, output: &Json, source: Source) -> CallDoneForm {
    CallDoneForm { at: instance(at), attempt, output: text(output), source: source_number(source) }
}

fn call_unknown(
    at: InstanceRef,
    attempt: u32,
    cause: &str,
    elapsed: Duration,
    retry_at: Option<Timestamp>,
) -> CallUnknownForm {
    CallUnknownForm {
        at: instance(at),
        attempt,
        cause: cause.to_owned(),
        elapsed_nanos: nanos(elapsed),
        retry_at: retry_at.map(|at| at.0),
        unsent: false,
    }
}

fn call_pending(at: InstanceRef, attempt: u32, check_at: Timestamp, until: Timestamp) -> CallPendingForm {
    CallPendingForm { at: instance(at), attempt, check_at: check_at.0, until: until.0 }
}

impl From<InstanceRef> for InstanceForm {
    fn from(at: InstanceRef) -> Self {
        Self { step: at.step.0, item: at.item }
    }
}

impl From<&CallInput> for CallInputForm {
    fn from(input: &CallInput) -> Self {
        Self {
            kind: Some(match input {
                CallInput::Inline(document) => CallInputKind::Inline(text(document)),
                CallInput::Saga => CallInputKind::Saga(NothingForm {}),
                CallInput::Action => CallInputKind::Action(NothingForm {}),
            }),
        }
    }
}

impl From<&Refusal> for RefusalForm {
    fn from(refusal: &Refusal) -> Self {
        Self { code: refusal.code.clone(), message: refusal.message.clone() }
    }
}

impl From<&Failure> for FailureForm {
    fn from(failure: &Failure) -> Self {
        Self { step: failure.step.clone(), code: failure.code.clone(), message: failure.message.clone() }
    }
}

impl From<&Act> for ActForm {
    fn from(act: &Act) -> Self {
        match act {
            Act::RetryNow { step } => Self::RetryNow(StepNameForm { step: step.clone() }),
            Act::Skip { step } => Self::Skip(StepNameForm { step: Some(step.clone()) }),
            Act::Resolve { step, resolution } => Self::Resolve(ResolveForm {
                step: step.clone(),
                resolution: Some(match resolution {
                    Resolution::Done(output) => ResolutionForm::Done(text(output)),
                    Resolution::Failed => ResolutionForm::Failed(NothingForm {}),
                    Resolution::Compensated => ResolutionForm::Compensated(NothingForm {}),
                }),
            }),
            Act::Pause => Self::Pause(NothingForm {}),
            Act::Resume => Self::Resume(NothingForm {}),
            Act::Cancel => Self::Cancel(NothingForm {}),
            Act::Abandon { steps } => Self::Abandon(NamesForm { names: steps.clone() }),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "protobuf message fields are optional")]
fn instance(at: InstanceRef) -> Option<InstanceForm> {
    Some(at.into())
}

fn text(document: &Json) -> String {
    document.text().to_owned()
}

/// Nanoseconds; a span over 584 years counts as 584 years.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn source_number(source: Source) -> u32 {
    match source {
        Source::Reply => 1,
        Source::Probe => 2,
        Source::Token => 3,
        Source::Operator => 4,
        Source::Engine => 5,
    }
}

fn phase_number(phase: Phase) -> u32 {
    match phase {
        Phase::Action => 1,
        Phase::Compensation => 2,
        Phase::Probe => 3,
    }
}
