//! Facts and summaries for tests: one of each kind, and any of them at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::saga::event::{CallInput, Event, Fact, Source, Started};
use crate::saga::ids::{DefinitionName, Digest, InstanceRef, LockKey, SagaId, StepIx, Timestamp, Version};
use crate::saga::input::{Act, Resolution};
use crate::saga::json::Json;
use crate::saga::words::{Failure, Phase, Refusal, SagaStatus};
use crate::store::{StoredDefinition, Summary};

pub fn saga_id(text: &str) -> SagaId {
    SagaId::parse(text).unwrap()
}

pub fn definition_name(text: &str) -> DefinitionName {
    DefinitionName::parse(text).unwrap()
}

pub fn definition(name: &str, version: u32) -> StoredDefinition {
    StoredDefinition {
        name: definition_name(name),
        version: Version(version),
        digest: Digest([version.to_le_bytes()[0]; 32]),
        source: Arc::from(format!("name: {name}\n")),
        active: true,
        created_at: Timestamp(1_700_000_000_000),
    }
}

pub fn summary() -> Summary {
    Summary {
        id: saga_id("order:1/a.b_c-d"),
        definition: definition_name("order"),
        version: Version(2),
        digest: Digest([9; 32]),
        status: SagaStatus::Compensating,
        backward: true,
        committed: false,
        paused: true,
        uncertain: true,
        created_at: Timestamp(1_700_000_000_000),
        updated_at: Timestamp(1_700_000_000_500),
        ended_at: Some(Timestamp(1_700_000_000_900)),
        labels: Arc::new(BTreeMap::from([("shop".to_owned(), "köln".to_owned())])),
        failure: Some(Failure {
            step: "deduct-stock/0".into(),
            code: "OUT_OF_STOCK".into(),
            message: "none left".into(),
        }),
        seq: 12,
        rests: false,
    }
}

/// One fact of every kind, as the golden file holds them. Only ever added to, with a new file.
pub fn one_fact_of_each() -> Vec<Fact> {
    let at = InstanceRef { step: StepIx(3), item: Some(1) };
    let plain = InstanceRef { step: StepIx(0), item: None };
    let time = Timestamp(1_700_000_000_123);
    let elapsed = Duration::from_micros(1_234_567);
    let refusal = || Refusal { code: "OUT_OF_STOCK".into(), message: "none left".into() };
    let json = |text: &str| Json::trusted(text.into());
    let who = || ("ops@example.com".to_owned(), "ticket 42".to_owned());
    let act = |act: Act| Event::OperatorAct { act, actor: who().0, reason: who().1 };
    let events = vec![
        Event::SagaStarted(Box::new(Started {
            id: saga_id("order:1/a.b_c-d"),
            definition: definition_name("order"),
            version: Version(2),
            digest: Digest([9; 32]),
            version_asked: 0,
            input: json("{\"n\":9007199254740993}"),
            labels: Arc::new(BTreeMap::from([("shop".to_owned(), "köln".to_owned())])),
            locks: vec![LockKey::parse("stock:1").unwrap()],
        })),
        Event::LockWaiting { until: time },
        Event::LockGranted,
        Event::StepExpanded { step: StepIx(3), items: json("[1,2]") },
        Event::StepStarted { at, attempt: 1, epoch: 4, input: Some(CallInput::Inline(json("{\"a\":1}"))) },
        Event::StepStarted { at: plain, attempt: 1, epoch: 4, input: Some(CallInput::Saga) },
        Event::StepSucceeded { at, attempt: 1, output: json("null"), source: Source::Reply },
        Event::StepFailed {
            at,
            attempt: 2,
            refusal: refusal(),
            elapsed,
            retry_at: Some(time),
            source: Source::Probe,
        },
        Event::StepUnknown {
            at,
            attempt: 2,
            cause: "timeout".into(),
            elapsed,
            retry_at: None,
            unsent: false,
        },
        Event::StepPending { at, attempt: 2, check_at: time, until: time },
        Event::StepProbed { at, probe: 1, epoch: 0, input: None },
        Event::ProbeUnsupported { at },
        Event::StepSkipped { at, source: Source::Engine },
        Event::SagaCommitted { output: json("{}") },
        Event::CancelRequested { actor: who().0, reason: who().1 },
        Event::DeadlinePassed,
        Event::SagaCompensating {
            failure: Failure { step: String::new(), code: "DEADLINE".into(), message: "too late".into() },
        },
        Event::CompensationStarted { at, attempt: 1, epoch: 5, input: Some(CallInput::Action) },
        Event::CompensationDone { at, attempt: 1, output: json("true"), source: Source::Token },
        Event::CompensationRefused { at, attempt: 1, refusal: refusal() },
        Event::CompensationUnknown {
            at,
            attempt: 1,
            cause: "reset".into(),
            elapsed,
            retry_at: Some(time),
            unsent: false,
        },
        Event::CompensationPending { at, attempt: 1, check_at: time, until: time },
        Event::CompensationWaived { at },
        Event::Blocked { at, phase: Phase::Compensation, reason: "refused".into() },
        Event::Unblocked { at, phase: Phase::Probe },
        act(Act::RetryNow { step: None }),
        act(Act::RetryNow { step: Some("pay".into()) }),
        act(Act::Skip { step: "mail".into() }),
        act(Act::Resolve { step: "pay".into(), resolution: Resolution::Done(json("{\"ok\":true}")) }),
        act(Act::Resolve { step: "pay".into(), resolution: Resolution::Failed }),
        act(Act::Resolve { step: "pay".into(), resolution: Resolution::Compensated }),
        act(Act::Pause),
        act(Act::Resume),
        act(Act::Cancel),
        act(Act::Abandon { steps: vec!["pay".into(), "ship/0".into()] }),
        Event::LateReply { at, phase: Phase::Action, attempt: 1, summary: "done".into(), uncertain: true },
        Event::ExpressionFailed { place: "output".into(), message: "no such key".into() },
        Event::EventEmitted { topic: "orders".into(), key: "1".into(), data: json("{\"id\":1}") },
        Event::SagaCompleted,
        Event::SagaCompensated,
        Event::SagaAbandoned { steps: vec!["pay".into()] },
    ];
    (1..).zip(events).map(|(seq, event)| Fact { seq, at: time, event }).collect()
}

/// What the second version's journal says more: the epoch of a probe.
pub fn facts_of_the_second_version() -> Vec<Fact> {
    let at = InstanceRef { step: StepIx(3), item: Some(1) };
    let input = || Some(CallInput::Inline(Json::trusted("{\"a\":1}".into())));
    let events = [
        Event::StepProbed { at, probe: 1, epoch: 4, input: input() },
        Event::StepProbed { at, probe: 2, epoch: u64::MAX, input: None },
    ];
    let time = Timestamp(1_700_000_000_123);
    (1..).zip(events).map(|(seq, event)| Fact { seq, at: time, event }).collect()
}

/// Any fact: one of each kind, its numbers, times and texts at random.
pub fn facts() -> impl Strategy<Value = Fact> {
    let kinds = one_fact_of_each();
    let kind = 0..kinds.len();
    (kind, any::<u64>(), any::<i64>(), any::<u32>(), any::<Option<u32>>(), any::<u64>(), ".{0,40}").prop_map(
        move |(kind, seq, at, attempt, item, nanos, text)| {
            let mut event = kinds[kind].event.clone();
            vary(&mut event, attempt, item, nanos, &text);
            Fact { seq, at: Timestamp(at), event }
        },
    )
}

fn vary(event: &mut Event, number: u32, item: Option<u32>, nanos: u64, text: &str) {
    let place = InstanceRef { step: StepIx(number), item };
    let document = Json::from_value(&serde_json::json!({ "n": nanos, "text": text }));
    match event {
        Event::SagaStarted(started) => {
            started.version_asked = number;
            started.input = document;
            started.labels = Arc::new(BTreeMap::from([(text.to_owned(), text.to_owned())]));
        }
        Event::StepStarted { at, attempt, epoch, .. }
        | Event::CompensationStarted { at, attempt, epoch, .. } => {
            (*at, *attempt, *epoch) = (place, number, nanos);
        }
        Event::StepProbed { at, probe, epoch, .. } => (*at, *probe, *epoch) = (place, number, nanos),
        Event::StepFailed { at, attempt, elapsed, refusal, .. } => {
            (*at, *attempt, *elapsed) = (place, number, Duration::from_nanos(nanos));
            text.clone_into(&mut refusal.message);
        }
        Event::StepUnknown { at, elapsed, cause, retry_at, unsent, .. }
        | Event::CompensationUnknown { at, elapsed, cause, retry_at, unsent, .. } => {
            (*at, *elapsed, *unsent) = (place, Duration::from_nanos(nanos), nanos % 2 == 1);
            text.clone_into(cause);
            *retry_at = item.map(|item| Timestamp(-i64::from(item)));
        }
        Event::StepSucceeded { at, output, .. } | Event::CompensationDone { at, output, .. } => {
            (*at, *output) = (place, document);
        }
        Event::EventEmitted { topic, data, .. } => {
            text.clone_into(topic);
            *data = document;
        }
        Event::SagaAbandoned { steps } => steps.push(text.to_owned()),
        _ => {}
    }
}

/// Any summary.
pub fn summaries() -> impl Strategy<Value = Summary> {
    let flags = any::<[bool; 5]>();
    (
        "[A-Za-z0-9._:/-]{1,200}",
        0..7_usize,
        flags,
        any::<i64>(),
        any::<Option<i64>>(),
        any::<u64>(),
        ".{0,30}",
    )
        .prop_map(
            |(id, status, [backward, committed, paused, uncertain, rests], time, ended, seq, text)| Summary {
                id: saga_id(&id),
                status: SagaStatus::ALL[status],
                backward,
                committed,
                paused,
                uncertain,
                created_at: Timestamp(time),
                updated_at: Timestamp(time.wrapping_add(1)),
                ended_at: ended.map(Timestamp),
                failure: (!text.is_empty()).then(|| Failure {
                    step: text.clone(),
                    code: text.clone(),
                    message: text.clone(),
                }),
                labels: Arc::new(BTreeMap::from([(text.clone(), text.clone())])),
                seq,
                rests,
                ..summary()
            },
        )
}
