//! Stored messages back into facts. What is missing or unknown is an error.

use std::sync::Arc;
use std::time::Duration;

use super::CodecError;
use super::forms::{
    ActForm, BlockForm, CallInputForm, CallInputKind, EventForm, FactForm, FailureForm, InstanceForm,
    OperatorActForm, RefusalForm, ResolutionForm, StartedForm, StepNameForm,
};
use crate::saga::event::{CallInput, Event, Fact, Source, Started};
use crate::saga::ids::{DefinitionName, Digest, InstanceRef, LockKey, SagaId, StepIx, Timestamp, Version};
use crate::saga::input::{Act, Resolution};
use crate::saga::json::Json;
use crate::saga::words::{Failure, Phase, Refusal};

impl TryFrom<FactForm> for Fact {
    type Error = CodecError;

    fn try_from(form: FactForm) -> Result<Self, CodecError> {
        let event = form.event.ok_or(CodecError::Unknown { what: "a fact's event" })?;
        Ok(Self { seq: form.seq, at: Timestamp(form.at), event: event.try_into()? })
    }
}

impl TryFrom<EventForm> for Event {
    type Error = CodecError;

    #[expect(clippy::too_many_lines, reason = "one arm for each event, each of them plain")]
    fn try_from(form: EventForm) -> Result<Self, CodecError> {
        Ok(match form {
            EventForm::SagaStarted(started) => Self::SagaStarted(Box::new(started.try_into()?)),
            EventForm::LockWaiting(until) => Self::LockWaiting { until: Timestamp(until) },
            EventForm::LockGranted(_) => Self::LockGranted,
            EventForm::StepExpanded(f) => {
                Self::StepExpanded { step: StepIx(f.step), items: Json::trusted(f.items) }
            }
            EventForm::StepStarted(f) => Self::StepStarted {
                at: instance(f.at)?,
                attempt: f.attempt,
                epoch: f.epoch,
                input: f.input.map(CallInput::try_from).transpose()?,
            },
            EventForm::StepSucceeded(f) => Self::StepSucceeded {
                at: instance(f.at)?,
                attempt: f.attempt,
                output: Json::trusted(f.output),
                source: source(f.source)?,
            },
            EventForm::StepFailed(f) => Self::StepFailed {
                at: instance(f.at)?,
                attempt: f.attempt,
                refusal: refusal(f.refusal)?,
                elapsed: Duration::from_nanos(f.elapsed_nanos),
                retry_at: f.retry_at.map(Timestamp),
                source: source(f.source)?,
            },
            EventForm::StepUnknown(f) => Self::StepUnknown {
                at: instance(f.at)?,
                attempt: f.attempt,
                cause: f.cause,
                elapsed: Duration::from_nanos(f.elapsed_nanos),
                retry_at: f.retry_at.map(Timestamp),
                unsent: f.unsent,
            },
            EventForm::StepPending(f) => Self::StepPending {
                at: instance(f.at)?,
                attempt: f.attempt,
                check_at: Timestamp(f.check_at),
                until: Timestamp(f.until),
            },
            EventForm::StepProbed(f) => Self::StepProbed {
                at: instance(f.at)?,
                probe: f.probe,
                epoch: f.epoch,
                input: f.input.map(CallInput::try_from).transpose()?,
            },
            EventForm::ProbeUnsupported(at) => Self::ProbeUnsupported { at: at.into() },
            EventForm::StepSkipped(f) => Self::StepSkipped { at: instance(f.at)?, source: source(f.source)? },
            EventForm::SagaCommitted(output) => Self::SagaCommitted { output: Json::trusted(output) },
            EventForm::CancelRequested(f) => Self::CancelRequested { actor: f.actor, reason: f.reason },
            EventForm::DeadlinePassed(_) => Self::DeadlinePassed,
            EventForm::SagaCompensating(f) => Self::SagaCompensating { failure: f.into() },
            EventForm::CompensationStarted(f) => Self::CompensationStarted {
                at: instance(f.at)?,
                attempt: f.attempt,
                epoch: f.epoch,
                input: f.input.map(CallInput::try_from).transpose()?,
            },
            EventForm::CompensationDone(f) => Self::CompensationDone {
                at: instance(f.at)?,
                attempt: f.attempt,
                output: Json::trusted(f.output),
                source: source(f.source)?,
            },
            EventForm::CompensationRefused(f) => Self::CompensationRefused {
                at: instance(f.at)?,
                attempt: f.attempt,
                refusal: refusal(f.refusal)?,
            },
            EventForm::CompensationUnknown(f) => Self::CompensationUnknown {
                at: instance(f.at)?,
                attempt: f.attempt,
                cause: f.cause,
                elapsed: Duration::from_nanos(f.elapsed_nanos),
                retry_at: f.retry_at.map(Timestamp),
                unsent: f.unsent,
            },
            EventForm::CompensationPending(f) => Self::CompensationPending {
                at: instance(f.at)?,
                attempt: f.attempt,
                check_at: Timestamp(f.check_at),
                until: Timestamp(f.until),
            },
            EventForm::CompensationWaived(at) => Self::CompensationWaived { at: at.into() },
            EventForm::Blocked(BlockForm { at, phase: number, reason }) => {
                Self::Blocked { at: instance(at)?, phase: phase(number)?, reason }
            }
            EventForm::Unblocked(f) => Self::Unblocked { at: instance(f.at)?, phase: phase(f.phase)? },
            EventForm::OperatorAct(OperatorActForm { actor, reason, act }) => {
                let act = act.ok_or(CodecError::Unknown { what: "an operator's act" })?;
                Self::OperatorAct { act: act.try_into()?, actor, reason }
            }
            EventForm::LateReply(f) => Self::LateReply {
                at: instance(f.at)?,
                phase: phase(f.phase)?,
                attempt: f.attempt,
                summary: f.summary,
                uncertain: f.uncertain,
            },
            EventForm::ExpressionFailed(f) => Self::ExpressionFailed { place: f.place, message: f.message },
            EventForm::EventEmitted(f) => {
                Self::EventEmitted { topic: f.topic, key: f.key, data: Json::trusted(f.data) }
            }
            EventForm::SagaCompleted(_) => Self::SagaCompleted,
            EventForm::SagaCompensated(_) => Self::SagaCompensated,
            EventForm::SagaAbandoned(f) => Self::SagaAbandoned { steps: f.names },
        })
    }
}

impl TryFrom<StartedForm> for Started {
    type Error = CodecError;

    fn try_from(form: StartedForm) -> Result<Self, CodecError> {
        let locks = form.locks.iter().map(|key| LockKey::parse(key).map_err(invalid));
        Ok(Self {
            id: SagaId::parse(&form.id).map_err(invalid)?,
            definition: DefinitionName::parse(&form.definition).map_err(invalid)?,
            version: Version(form.version),
            digest: digest(&form.digest)?,
            version_asked: form.version_asked,
            input: Json::trusted(form.input),
            locks: locks.collect::<Result<_, _>>()?,
            labels: Arc::new(form.labels),
        })
    }
}

impl TryFrom<CallInputForm> for CallInput {
    type Error = CodecError;

    fn try_from(form: CallInputForm) -> Result<Self, CodecError> {
        Ok(match form.kind.ok_or(CodecError::Unknown { what: "a call's input" })? {
            CallInputKind::Inline(text) => Self::Inline(Json::trusted(text)),
            CallInputKind::Saga(_) => Self::Saga,
            CallInputKind::Action(_) => Self::Action,
        })
    }
}

impl From<InstanceForm> for InstanceRef {
    fn from(form: InstanceForm) -> Self {
        Self { step: StepIx(form.step), item: form.item }
    }
}

impl From<FailureForm> for Failure {
    fn from(form: FailureForm) -> Self {
        Self { step: form.step, code: form.code, message: form.message }
    }
}

impl TryFrom<ActForm> for Act {
    type Error = CodecError;

    fn try_from(form: ActForm) -> Result<Self, CodecError> {
        Ok(match form {
            ActForm::RetryNow(StepNameForm { step }) => Self::RetryNow { step },
            ActForm::Skip(StepNameForm { step }) => {
                Self::Skip { step: step.ok_or(CodecError::Unknown { what: "the step to skip" })? }
            }
            ActForm::Resolve(f) => Self::Resolve {
                step: f.step,
                resolution: match f.resolution.ok_or(CodecError::Unknown { what: "a resolution" })? {
                    ResolutionForm::Done(text) => Resolution::Done(Json::trusted(text)),
                    ResolutionForm::Failed(_) => Resolution::Failed,
                    ResolutionForm::Compensated(_) => Resolution::Compensated,
                },
            },
            ActForm::Pause(_) => Self::Pause,
            ActForm::Resume(_) => Self::Resume,
            ActForm::Cancel(_) => Self::Cancel,
            ActForm::Abandon(f) => Self::Abandon { steps: f.names },
        })
    }
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, CodecError> {
    bytes.try_into().map(Digest).map_err(|_| CodecError::Unknown { what: "a digest of 32 bytes" })
}

#[expect(clippy::needless_pass_by_value, reason = "a function to map errors with")]
pub(super) fn invalid(error: crate::saga::ids::InvalidName) -> CodecError {
    CodecError::message("a name", &error)
}

fn instance(form: Option<InstanceForm>) -> Result<InstanceRef, CodecError> {
    form.map(InstanceRef::from).ok_or(CodecError::Unknown { what: "a step instance" })
}

fn refusal(form: Option<RefusalForm>) -> Result<Refusal, CodecError> {
    let RefusalForm { code, message } = form.ok_or(CodecError::Unknown { what: "a refusal" })?;
    Ok(Refusal { code, message })
}

fn source(number: u32) -> Result<Source, CodecError> {
    Ok(match number {
        1 => Source::Reply,
        2 => Source::Probe,
        3 => Source::Token,
        4 => Source::Operator,
        5 => Source::Engine,
        _ => return Err(CodecError::Unknown { what: "a source" }),
    })
}

fn phase(number: u32) -> Result<Phase, CodecError> {
    Ok(match number {
        1 => Phase::Action,
        2 => Phase::Compensation,
        3 => Phase::Probe,
        _ => return Err(CodecError::Unknown { what: "a phase" }),
    })
}
