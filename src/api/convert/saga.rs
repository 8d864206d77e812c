//! A saga as its clients see it.

use super::{failure, status, step, timestamp};
use crate::engine::request::SagaView;
use crate::proto;
use crate::saga::state::Saga;
use crate::saga::view::WaitingOn;
use crate::saga::words::{Block, Direction};

/// A saga with its steps.
#[must_use]
pub fn saga(view: &SagaView) -> proto::Saga {
    proto::Saga { steps: step::steps(&view.saga), ..saga_row(view) }
}

/// A saga as lists show it: without its steps.
#[must_use]
pub fn saga_row(view: &SagaView) -> proto::Saga {
    let saga = &*view.saga;
    let definition = &*saga.definition;
    proto::Saga {
        saga_id: saga.id.to_string(),
        definition: definition.name.to_string(),
        version: definition.version.0,
        digest: definition.digest.to_string(),
        status: status(saga.status()).into(),
        direction: direction(saga.direction()).into(),
        committed: saga.committed,
        paused: saga.paused.is_some(),
        uncertain: saga.uncertain,
        input_json: saga.input.text().to_owned(),
        output_json: output(saga),
        labels: (*saga.labels).clone(),
        steps: Vec::new(),
        failure: saga.failure.as_ref().map(failure),
        blocked: blocks(saga),
        waiting_on: view.waiting_on.as_ref().map(waiting_on).unwrap_or_default(),
        next_wake_at: view.next_wake_at.map(timestamp),
        created_at: Some(timestamp(saga.created_at)),
        updated_at: Some(timestamp(saga.updated_at)),
        ended_at: saga.ended_at.map(timestamp),
        seq: saga.seq,
    }
}

/// A definition without `output` commits with `null`, which is not an output.
fn output(saga: &Saga) -> String {
    match (&saga.definition.output, &saga.output) {
        (Some(_), Some(output)) => output.text().to_owned(),
        (None, _) | (_, None) => String::new(),
    }
}

fn direction(direction: Direction) -> proto::Direction {
    match direction {
        Direction::Forward => proto::Direction::Forward,
        Direction::Backward => proto::Direction::Backward,
    }
}

fn waiting_on(what: &WaitingOn) -> String {
    match what {
        WaitingOn::Participant(name) => format!("participant {name}"),
        WaitingOn::Lock(key) => format!("lock {key}"),
    }
}

/// What waits for an operator, oldest first.
fn blocks(saga: &Saga) -> Vec<proto::Block> {
    let mut blocks = saga.blocks();
    blocks.sort_by_key(|block| block.since);
    blocks.into_iter().map(block).collect()
}

fn block(block: Block) -> proto::Block {
    proto::Block {
        step: block.step,
        phase: block.phase.as_str().to_owned(),
        reason: block.reason,
        since: Some(timestamp(block.since)),
    }
}
