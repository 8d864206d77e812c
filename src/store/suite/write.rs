//! Writes to test with.

use std::sync::Arc;

use crate::saga::event::{Event, Fact, Started};
use crate::saga::ids::{DefinitionName, Digest, LockKey, SagaId, Timestamp, Version};
use crate::saga::json::Json;
use crate::saga::words::SagaStatus;
use crate::store::{LockTicket, LockWrite, SagaWrite, Summary};

pub(crate) fn id(text: &str) -> SagaId {
    SagaId::parse(text).unwrap()
}

pub(crate) fn definition(text: &str) -> DefinitionName {
    DefinitionName::parse(text).unwrap()
}

/// The start of a saga of the definition `order`, version 1.
pub(crate) fn start(text: &str, created_at: i64) -> SagaWrite {
    start_of("order", text, created_at, "{}")
}

pub(crate) fn start_of(name: &str, text: &str, created_at: i64, input: &str) -> SagaWrite {
    let started = Started {
        id: id(text),
        definition: definition(name),
        version: Version(1),
        digest: Digest([1; 32]),
        version_asked: 0,
        input: Json::trusted(input.to_owned()),
        labels: Arc::default(),
        locks: Vec::new(),
    };
    let at = Timestamp(created_at);
    SagaWrite {
        id: id(text),
        expected_seq: 0,
        facts: vec![Fact { seq: 1, at, event: Event::SagaStarted(Box::new(started)) }],
        summary: Summary {
            id: id(text),
            definition: definition(name),
            version: Version(1),
            digest: Digest([1; 32]),
            status: SagaStatus::Running,
            backward: false,
            committed: false,
            paused: false,
            uncertain: false,
            created_at: at,
            updated_at: at,
            ended_at: None,
            labels: Arc::default(),
            failure: None,
            seq: 1,
            rests: false,
        },
        status_before: None,
        far_wake: None,
        lock: LockWrite::Keep,
    }
}

/// The write behind `last`: these events, a second later, and this status.
pub(crate) fn then(last: &SagaWrite, status: SagaStatus, events: Vec<Event>) -> SagaWrite {
    let at = Timestamp(last.summary.updated_at.0 + 1_000);
    let expected_seq = last.summary.seq;
    let facts: Vec<Fact> =
        (expected_seq + 1..).zip(events).map(|(seq, event)| Fact { seq, at, event }).collect();
    let ended_at = last.summary.ended_at.or(status.is_terminal().then_some(at));
    let seq = expected_seq + facts.len() as u64;
    SagaWrite {
        id: last.id.clone(),
        expected_seq,
        facts,
        summary: Summary { status, updated_at: at, ended_at, seq, ..last.summary.clone() },
        status_before: Some(last.summary.status),
        far_wake: None,
        lock: LockWrite::Keep,
    }
}

/// A step on the way that lists do not show.
pub(crate) fn step(last: &SagaWrite) -> SagaWrite {
    then(last, last.summary.status, vec![Event::LockGranted])
}

/// The end.
pub(crate) fn end(last: &SagaWrite) -> SagaWrite {
    then(last, SagaStatus::Completed, vec![Event::SagaCompleted])
}

pub(crate) fn ticket(number: u64, saga: &str, key: &str) -> LockTicket {
    LockTicket { ticket: number, saga: id(saga), keys: vec![LockKey::parse(key).unwrap()] }
}
