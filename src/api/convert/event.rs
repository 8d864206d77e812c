//! One fact of a saga's history.

use super::detail::Detail;
use super::timestamp;
use crate::proto;
use crate::saga::definition::Definition;
use crate::saga::event::{CallInput, Event, Fact, Source, Started};
use crate::saga::ids::{InstanceRef, SagaId, Timestamp};
use crate::saga::input::{Act, Resolution};
use crate::saga::words::{Failure, Refusal, instance_name};

/// What an event says beside its type, before it becomes a message.
#[derive(Default)]
struct Told {
    step: String,
    attempt: u32,
    actor: String,
    reason: String,
    detail: Detail,
}

/// A fact of the saga `id`, which runs `definition`.
#[must_use]
pub fn event(id: &SagaId, definition: &Definition, fact: &Fact) -> proto::SagaEvent {
    let told = tell(definition, &fact.event);
    proto::SagaEvent {
        seq: fact.seq,
        saga_id: id.to_string(),
        at: Some(timestamp(fact.at)),
        r#type: fact.event.type_name().to_owned(),
        step: told.step,
        attempt: told.attempt,
        actor: told.actor,
        reason: told.reason,
        detail_json: told.detail.finish(),
    }
}

fn tell(definition: &Definition, event: &Event) -> Told {
    let of = |at: &InstanceRef, attempt: u32| Told {
        step: instance_name(&definition.step(at.step).name, at.item),
        attempt,
        ..Told::default()
    };
    match event {
        Event::SagaStarted(started) => Told { detail: start(started), ..Told::default() },
        Event::LockWaiting { until } => with(Told::default(), |d| d.time("until", *until)),
        Event::StepExpanded { step, items } => {
            let told = Told { step: definition.step(*step).name.to_string(), ..Told::default() };
            with(told, |d| d.json("items", items))
        }
        Event::StepStarted { at, attempt, epoch, input }
        | Event::CompensationStarted { at, attempt, epoch, input } => {
            with(of(at, *attempt), |d| call_input(d.number("epoch", *epoch), input.as_ref()))
        }
        Event::StepSucceeded { at, attempt, output, source }
        | Event::CompensationDone { at, attempt, output, source } => {
            with(of(at, *attempt), |d| d.json("output", output).text("source", source_word(*source)))
        }
        Event::StepFailed { at, attempt, refusal, elapsed, retry_at, source } => {
            let told = Told { reason: refusal.message.clone(), ..of(at, *attempt) };
            with(told, |d| {
                refused(d, refusal)
                    .millis("elapsed_ms", *elapsed)
                    .some_time("retry_at", *retry_at)
                    .text("source", source_word(*source))
            })
        }
        Event::StepUnknown { at, attempt, cause, elapsed, retry_at, unsent }
        | Event::CompensationUnknown { at, attempt, cause, elapsed, retry_at, unsent } => {
            let told = Told { reason: cause.clone(), ..of(at, *attempt) };
            with(told, |d| {
                let told = d.millis("elapsed_ms", *elapsed).some_time("retry_at", *retry_at);
                if *unsent { told.flag("unsent", true) } else { told }
            })
        }
        Event::StepPending { at, attempt, check_at, until }
        | Event::CompensationPending { at, attempt, check_at, until } => {
            with(of(at, *attempt), |d| pending(d, *check_at, *until))
        }
        Event::StepProbed { at, probe, epoch, input } => with(of(at, 0), |d| {
            let numbers = d.number("probe", u64::from(*probe)).number("epoch", *epoch);
            call_input(numbers, input.as_ref())
        }),
        Event::StepSkipped { at, source } => with(of(at, 0), |d| d.text("source", source_word(*source))),
        Event::CompensationRefused { at, attempt, refusal } => {
            let told = Told { reason: refusal.message.clone(), ..of(at, *attempt) };
            with(told, |d| refused(d, refusal))
        }
        Event::Blocked { at, phase, reason } => {
            let told = Told { reason: reason.clone(), ..of(at, 0) };
            with(told, |d| d.text("phase", phase.as_str()))
        }
        Event::Unblocked { at, phase } => with(of(at, 0), |d| d.text("phase", phase.as_str())),
        Event::LateReply { at, phase, attempt, summary, uncertain } => {
            let told = Told { reason: summary.clone(), ..of(at, *attempt) };
            with(told, |d| d.text("phase", phase.as_str()).flag("uncertain", *uncertain))
        }
        Event::ProbeUnsupported { at } | Event::CompensationWaived { at } => of(at, 0),
        Event::LockGranted
        | Event::SagaCommitted { .. }
        | Event::CancelRequested { .. }
        | Event::DeadlinePassed
        | Event::SagaCompensating { .. }
        | Event::OperatorAct { .. }
        | Event::ExpressionFailed { .. }
        | Event::EventEmitted { .. }
        | Event::SagaCompleted
        | Event::SagaCompensated
        | Event::SagaAbandoned { .. } => tell_of_the_saga(event),
    }
}

/// Events about no step.
fn tell_of_the_saga(event: &Event) -> Told {
    let told = Told::default();
    match event {
        Event::SagaCommitted { output } => with(told, |d| d.json("output", output)),
        Event::CancelRequested { actor, reason } => {
            Told { actor: actor.clone(), reason: reason.clone(), ..told }
        }
        Event::SagaCompensating { failure: Failure { step, code, message } } => {
            let told = Told { step: step.clone(), reason: message.clone(), ..told };
            with(told, |d| d.text("code", code))
        }
        Event::OperatorAct { act, actor, reason } => {
            let told = Told { step: act_step(act), actor: actor.clone(), reason: reason.clone(), ..told };
            with(told, |d| operator_act(d, act))
        }
        Event::ExpressionFailed { place, message } => {
            with(Told { reason: message.clone(), ..told }, |d| d.text("place", place))
        }
        Event::EventEmitted { topic, key, data } => {
            with(told, |d| d.text("topic", topic).some_text("key", key).json("data", data))
        }
        Event::SagaAbandoned { steps } => with(told, |d| d.value("steps", &steps.as_slice().into())),
        Event::LockGranted
        | Event::DeadlinePassed
        | Event::SagaCompleted
        | Event::SagaCompensated
        // Told with their step.
        | Event::SagaStarted(_)
        | Event::LockWaiting { .. }
        | Event::StepExpanded { .. }
        | Event::StepStarted { .. }
        | Event::StepSucceeded { .. }
        | Event::StepFailed { .. }
        | Event::StepUnknown { .. }
        | Event::StepPending { .. }
        | Event::StepProbed { .. }
        | Event::ProbeUnsupported { .. }
        | Event::StepSkipped { .. }
        | Event::CompensationStarted { .. }
        | Event::CompensationDone { .. }
        | Event::CompensationRefused { .. }
        | Event::CompensationUnknown { .. }
        | Event::CompensationPending { .. }
        | Event::CompensationWaived { .. }
        | Event::Blocked { .. }
        | Event::Unblocked { .. }
        | Event::LateReply { .. } => told,
    }
}

fn with(told: Told, add: impl FnOnce(Detail) -> Detail) -> Told {
    Told { detail: add(told.detail), ..told }
}

fn start(started: &Started) -> Detail {
    let locks: Vec<&str> = started.locks.iter().map(crate::saga::ids::LockKey::as_str).collect();
    let labels = started.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    Detail::default()
        .text("definition", &started.definition)
        .number("version", u64::from(started.version.0))
        .number("version_asked", u64::from(started.version_asked))
        .text("digest", started.digest)
        .json("input", &started.input)
        .value("labels", &serde_json::Value::Object(labels))
        .value("locks", &locks.into())
}

/// An input that equals another document is named, not repeated.
fn call_input(detail: Detail, input: Option<&CallInput>) -> Detail {
    match input {
        Some(CallInput::Inline(document)) => detail.json("input", document),
        Some(CallInput::Saga) => detail.text("input_from", "saga"),
        Some(CallInput::Action) => detail.text("input_from", "action"),
        None => detail,
    }
}

fn refused(detail: Detail, refusal: &Refusal) -> Detail {
    detail.text("code", &refusal.code)
}

fn pending(detail: Detail, check_at: Timestamp, until: Timestamp) -> Detail {
    detail.time("check_at", check_at).time("until", until)
}

fn source_word(source: Source) -> &'static str {
    match source {
        Source::Reply => "reply",
        Source::Probe => "probe",
        Source::Token => "token",
        Source::Operator => "operator",
        Source::Engine => "engine",
    }
}

fn act_step(act: &Act) -> String {
    match act {
        Act::RetryNow { step: Some(step) } | Act::Skip { step } | Act::Resolve { step, .. } => step.clone(),
        Act::RetryNow { step: None } | Act::Pause | Act::Resume | Act::Cancel | Act::Abandon { .. } => {
            String::new()
        }
    }
}

fn operator_act(detail: Detail, act: &Act) -> Detail {
    match act {
        Act::RetryNow { .. } => detail.text("act", "retry_now"),
        Act::Skip { .. } => detail.text("act", "skip"),
        Act::Resolve { resolution, .. } => {
            let detail = detail.text("act", "resolve");
            match resolution {
                Resolution::Done(output) => detail.text("outcome", "done").json("output", output),
                Resolution::Failed => detail.text("outcome", "failed"),
                Resolution::Compensated => detail.text("outcome", "compensated"),
            }
        }
        Act::Pause => detail.text("act", "pause"),
        Act::Resume => detail.text("act", "resume"),
        Act::Cancel => detail.text("act", "cancel"),
        Act::Abandon { steps } => detail.text("act", "abandon").value("steps", &steps.as_slice().into()),
    }
}
