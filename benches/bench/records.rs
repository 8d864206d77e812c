//! The records of one `order3` saga as the engine writes them, for the store without the engine.

use std::sync::Arc;
use std::time::Duration;

use sagad::saga::event::{CallInput, Event, Fact, Source, Started};
use sagad::saga::ids::{DefinitionName, Digest, InstanceRef, SagaId, StepIx, Timestamp, Version};
use sagad::saga::json::Json;
use sagad::saga::words::SagaStatus;
use sagad::store::{LockWrite, SagaWrite, Summary};

/// Commits in the life of a saga with three steps.
pub const TRANSITIONS: u32 = 4;
/// When they happen where it does not matter: the store does not look at the clock.
const BEGIN: Timestamp = Timestamp(1_800_000_000_000);

/// What sagas have in common.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// Tells the ids of one run from those of another.
    pub run: u64,
    pub digest: Digest,
    /// When the first one was started.
    pub begin: Timestamp,
}

/// The commits of one saga of the run `run`, first to last, of a definition that nobody looks up.
pub fn life(run: u64, number: u64) -> Vec<SagaWrite> {
    life_of(Common { run, digest: Digest([7; 32]), begin: BEGIN }, number)
}

/// The commits of one saga, first to last.
pub fn life_of(common: Common, number: u64) -> Vec<SagaWrite> {
    let Common { run, digest, begin } = common;
    let id = SagaId::parse(&format!("019338f4-5a00-7c3e-9f{run:02x}-{number:012x}")).expect("a good id");
    let definition = DefinitionName::parse("order3").expect("a good name");
    let created_at = begin + Duration::from_millis(number / 4);
    let items =
        format!(r#"[{{"item_id":{},"amount":1}},{{"item_id":{},"amount":2}}]"#, 2 * number, 2 * number + 1);
    let started = Started {
        id: id.clone(),
        definition: definition.clone(),
        version: Version(1),
        digest,
        version_asked: 0,
        input: Json::trusted(format!(r#"{{"user_id":{number},"items":{items},"total":10}}"#)),
        labels: Arc::default(),
        locks: Vec::new(),
    };
    let inputs = [
        format!(r#"{{"items":{items}}}"#),
        format!(r#"{{"amount":10,"user_id":{number}}}"#),
        format!(r#"{{"items":{items},"user_id":{number}}}"#),
    ];
    let output = format!(r#"{{"order_id":"{id}"}}"#);
    let begins = |step: u32, input: &String| Event::StepStarted {
        at: InstanceRef { step: StepIx(step), item: None },
        attempt: 1,
        epoch: 1,
        input: Some(CallInput::Inline(Json::trusted(input.clone()))),
    };
    let succeeds = |step: u32, output: &str| Event::StepSucceeded {
        at: InstanceRef { step: StepIx(step), item: None },
        attempt: 1,
        output: Json::trusted(output.to_owned()),
        source: Source::Reply,
    };
    let commits = [
        vec![Event::SagaStarted(Box::new(started)), begins(0, &inputs[0])],
        vec![succeeds(0, "{}"), begins(1, &inputs[1])],
        vec![succeeds(1, "{}"), begins(2, &inputs[2])],
        vec![
            succeeds(2, &output),
            Event::SagaCommitted { output: Json::trusted(output.clone()) },
            Event::SagaCompleted,
        ],
    ];
    let mut seq = 0;
    let mut writes = Vec::with_capacity(commits.len());
    for (nth, events) in (1..).zip(commits) {
        let ends = nth == TRANSITIONS;
        let at = created_at;
        let expected_seq = seq;
        let facts = events.into_iter().map(|event| {
            seq += 1;
            Fact { seq, at, event }
        });
        let facts: Vec<Fact> = facts.collect();
        let summary = Summary {
            id: id.clone(),
            definition: definition.clone(),
            version: Version(1),
            digest,
            status: if ends { SagaStatus::Completed } else { SagaStatus::Running },
            backward: false,
            committed: ends,
            paused: false,
            uncertain: false,
            created_at,
            updated_at: at,
            ended_at: ends.then_some(at),
            labels: Arc::default(),
            failure: None,
            seq,
            rests: false,
        };
        writes.push(SagaWrite {
            id: id.clone(),
            expected_seq,
            facts,
            summary,
            status_before: (expected_seq > 0).then_some(SagaStatus::Running),
            far_wake: None,
            lock: LockWrite::Keep,
        });
    }
    writes
}
