//! The stable forms behind `-o json` and `-o yaml`: the wire's fields by their names, documents
//! embedded as values, enum values without their prefix, times in RFC 3339, spans in seconds.
//! Fields are only ever added; one that is not set is `null` and never left out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{document, text, words};
use crate::proto;

/// One saga.
#[derive(Debug, Serialize)]
pub struct SagaView<'a> {
    saga_id: &'a str,
    definition: &'a str,
    version: u32,
    digest: &'a str,
    status: &'static str,
    direction: &'static str,
    committed: bool,
    paused: bool,
    uncertain: bool,
    input: Value,
    output: Value,
    labels: &'a BTreeMap<String, String>,
    steps: Vec<Step<'a>>,
    failure: Option<Failure<'a>>,
    blocked: Vec<Block<'a>>,
    waiting_on: &'a str,
    next_wake_at: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    ended_at: Option<String>,
    seq: u64,
}

#[derive(Debug, Serialize)]
struct Step<'a> {
    name: &'a str,
    kind: &'static str,
    status: &'static str,
    attempts: u32,
    input: Value,
    output: Value,
    failure: Option<Failure<'a>>,
    compensation: &'static str,
    compensation_attempts: u32,
    started_at: Option<String>,
    ended_at: Option<String>,
    next_attempt_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    step: &'a str,
    code: &'a str,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct Block<'a> {
    step: &'a str,
    phase: &'a str,
    reason: &'a str,
    since: Option<String>,
}

/// One saga.
#[must_use]
pub fn saga(saga: &proto::Saga) -> SagaView<'_> {
    SagaView {
        saga_id: &saga.saga_id,
        definition: &saga.definition,
        version: saga.version,
        digest: &saga.digest,
        status: words::saga_status(saga.status()),
        direction: words::direction(saga.direction()),
        committed: saga.committed,
        paused: saga.paused,
        uncertain: saga.uncertain,
        input: document::embedded(&saga.input_json),
        output: document::embedded(&saga.output_json),
        labels: &saga.labels,
        steps: saga.steps.iter().map(step).collect(),
        failure: saga.failure.as_ref().map(failure),
        blocked: saga.blocked.iter().map(block).collect(),
        waiting_on: &saga.waiting_on,
        next_wake_at: text::rfc3339(saga.next_wake_at.as_ref()),
        created_at: text::rfc3339(saga.created_at.as_ref()),
        updated_at: text::rfc3339(saga.updated_at.as_ref()),
        ended_at: text::rfc3339(saga.ended_at.as_ref()),
        seq: saga.seq,
    }
}

fn step(step: &proto::Step) -> Step<'_> {
    Step {
        name: &step.name,
        kind: words::step_kind(step.kind()),
        status: words::step_status(step.status()),
        attempts: step.attempts,
        input: document::embedded(&step.input_json),
        output: document::embedded(&step.output_json),
        failure: step.failure.as_ref().map(failure),
        compensation: words::compensation_status(step.compensation()),
        compensation_attempts: step.compensation_attempts,
        started_at: text::rfc3339(step.started_at.as_ref()),
        ended_at: text::rfc3339(step.ended_at.as_ref()),
        next_attempt_at: text::rfc3339(step.next_attempt_at.as_ref()),
    }
}

fn failure(failure: &proto::Failure) -> Failure<'_> {
    Failure { step: &failure.step, code: &failure.code, message: &failure.message }
}

fn block(block: &proto::Block) -> Block<'_> {
    Block {
        step: &block.step,
        phase: &block.phase,
        reason: &block.reason,
        since: text::rfc3339(block.since.as_ref()),
    }
}

/// A saga that was started, and whether an earlier request had done so.
#[derive(Debug, Serialize)]
pub struct Started<'a> {
    #[serde(flatten)]
    saga: SagaView<'a>,
    existed: bool,
}

/// A saga that was started.
#[must_use]
pub fn started(saga: &proto::Saga, existed: bool) -> Started<'_> {
    Started { saga: self::saga(saga), existed }
}

/// Several sagas.
#[derive(Debug, Serialize)]
pub struct Sagas<'a> {
    sagas: Vec<SagaView<'a>>,
    total: Option<u64>,
}

/// Several sagas, and how many match in all where that is known.
#[must_use]
pub fn sagas(sagas: &[proto::Saga], total: Option<u64>) -> Sagas<'_> {
    Sagas { sagas: sagas.iter().map(saga).collect(), total }
}

/// An exact number.
#[derive(Debug, Serialize)]
pub struct Count {
    /// How many.
    pub total: u64,
}

/// One event.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    seq: u64,
    saga_id: &'a str,
    at: Option<String>,
    r#type: &'a str,
    step: &'a str,
    attempt: u32,
    actor: &'a str,
    reason: &'a str,
    detail: Value,
}

/// One event.
#[must_use]
pub fn event(event: &proto::SagaEvent) -> Event<'_> {
    Event {
        seq: event.seq,
        saga_id: &event.saga_id,
        at: text::rfc3339(event.at.as_ref()),
        r#type: &event.r#type,
        step: &event.step,
        attempt: event.attempt,
        actor: &event.actor,
        reason: &event.reason,
        detail: document::embedded(&event.detail_json),
    }
}

/// Why a saga stands where it stands.
#[derive(Debug, Serialize)]
pub struct Explained<'a> {
    summary: &'a [String],
    next: Vec<Next<'a>>,
    suggested_command: &'a str,
    saga: Option<SagaView<'a>>,
}

#[derive(Debug, Serialize)]
struct Next<'a> {
    what: &'a str,
    step: &'a str,
    phase: &'a str,
    at: Option<String>,
}

/// Why a saga stands where it stands.
#[must_use]
pub fn explained(told: &proto::ExplainResponse) -> Explained<'_> {
    let next = told.next.iter().map(|next| Next {
        what: &next.what,
        step: &next.step,
        phase: &next.phase,
        at: text::rfc3339(next.at.as_ref()),
    });
    Explained {
        summary: &told.summary,
        next: next.collect(),
        suggested_command: &told.suggested_command,
        saga: told.saga.as_ref().map(saga),
    }
}

/// What waits for an operator.
#[derive(Debug, Serialize)]
pub struct Stuck<'a> {
    items: Vec<StuckItem<'a>>,
    total: u64,
}

#[derive(Debug, Serialize)]
struct StuckItem<'a> {
    saga_id: &'a str,
    definition: &'a str,
    status: &'static str,
    step: &'a str,
    phase: &'a str,
    reason: &'a str,
    since: Option<String>,
    suggested_command: &'a str,
}

/// What waits for an operator.
#[must_use]
pub fn stuck(items: &[proto::StuckItem], total: u64) -> Stuck<'_> {
    let items = items.iter().map(|item| StuckItem {
        saga_id: &item.saga_id,
        definition: &item.definition,
        status: words::saga_status(item.status()),
        step: &item.step,
        phase: &item.phase,
        reason: &item.reason,
        since: text::rfc3339(item.since.as_ref()),
        suggested_command: &item.suggested_command,
    });
    Stuck { items: items.collect(), total }
}

/// What an act leads to.
#[derive(Debug, Serialize)]
pub struct Repaired<'a> {
    dry_run: bool,
    plan: Vec<PlannedCall<'a>>,
    saga: Option<SagaView<'a>>,
}

#[derive(Debug, Serialize)]
struct PlannedCall<'a> {
    step: &'a str,
    phase: &'a str,
    participant: &'a str,
    action: &'a str,
    note: &'a str,
}

/// What an act leads to, or would.
#[must_use]
pub fn repaired(answer: &proto::RepairResponse, dry_run: bool) -> Repaired<'_> {
    let plan = answer.plan.iter().map(|call| PlannedCall {
        step: &call.step,
        phase: &call.phase,
        participant: &call.participant,
        action: &call.action,
        note: &call.note,
    });
    Repaired { dry_run, plan: plan.collect(), saga: answer.saga.as_ref().map(saga) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::sample;

    #[test]
    fn a_saga_as_json_keeps_its_documents_and_integers() {
        insta::assert_snapshot!(document::json(&saga(&sample::blocked_saga())));
    }

    #[test]
    fn a_saga_as_yaml_says_the_same_as_its_json() {
        let sample = sample::blocked_saga();
        let yaml = document::yaml(&saga(&sample));
        insta::assert_snapshot!(yaml);
        let back: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(back, serde_json::to_value(saga(&sample)).unwrap());
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let events = sample::history();
        let lines: String = events.iter().map(|one| document::json_line(&event(one))).collect();
        assert_eq!(lines.lines().count(), events.len());
        insta::assert_snapshot!(lines.lines().next().unwrap());
    }
}
