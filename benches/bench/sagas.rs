//! The sagas that clients start, and what must come of them.

use anyhow::Context as _;
use sagad::proto;

use crate::shop::REFUSED;

/// The order saga at its plainest.
pub const ORDER3: &str = include_str!("../order3.yaml");
/// How long the client waits for a saga.
pub const WAIT: prost_types::Duration = prost_types::Duration { seconds: 60, nanos: 0 };

/// What a saga is like and how long its client waits.
#[derive(Clone, Copy)]
pub struct Kind {
    pub definition: &'static str,
    /// A saga in so many is refused.
    pub refused_each: Option<u64>,
    /// Whether the client waits for the end, or only until the start is durable.
    pub waits: bool,
}

impl Kind {
    /// `order3`, whose client waits for the end.
    pub const ORDER3: Self = Self { definition: "order3", refused_each: None, waits: true };
}

/// The request for a saga of its own goods and its own user: nothing two of them could wait for.
pub fn request(kind: Kind, number: u64) -> proto::StartSagaRequest {
    let refused = kind.refused_each.is_some_and(|each| number.is_multiple_of(each));
    let mut saga_id = uuid::Uuid::now_v7().to_string();
    if refused {
        saga_id.push_str(REFUSED);
    }
    let (user, first, second) = (number + 1, 2 * number + 1, 2 * number + 2);
    proto::StartSagaRequest {
        saga_id,
        definition: kind.definition.to_owned(),
        version: 0,
        input_json: format!(
            r#"{{"user_id":{user},"items":[{{"item_id":{first},"amount":1}},{{"item_id":{second},"amount":2}}],"total":10}}"#
        ),
        labels: std::collections::BTreeMap::new(),
        wait: kind.waits.then_some(WAIT),
        wait_for: proto::WaitFor::Ended.into(),
    }
}

/// A saga that ended otherwise than it should is no measurement.
pub fn check(kind: Kind, number: u64, answer: &proto::StartSagaResponse) -> anyhow::Result<()> {
    let saga = answer.saga.as_ref().context("an answer without a saga")?;
    anyhow::ensure!(!answer.existed, "saga {} was there before", saga.saga_id);
    if !kind.waits {
        return Ok(());
    }
    let refused = kind.refused_each.is_some_and(|each| number.is_multiple_of(each));
    let expected = if refused { proto::SagaStatus::Compensated } else { proto::SagaStatus::Completed };
    let found = saga.status();
    anyhow::ensure!(found == expected, "saga {} ended {found:?} instead of {expected:?}", saga.saga_id);
    let told = saga.output_json.contains(&saga.saga_id);
    anyhow::ensure!(refused || told, "saga {} does not tell its order: {}", saga.saga_id, saga.output_json);
    Ok(())
}
