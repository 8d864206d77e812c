//! Domain values made by hand, for the tests of this room.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::engine::request::SagaView;
use crate::saga::definition::{Call, Definition, PendingPolicy, RetryPolicy, Step};
use crate::saga::ids::{
    ActionName, DefinitionName, Digest, ParticipantName, SagaId, StepIx, StepName, Timestamp, Version,
};
use crate::saga::json::Json;
use crate::saga::lineup::Lineup;
use crate::saga::plan::Plan;
use crate::saga::state::{Action, Instance, Saga, Stage, StepState};
use crate::saga::words::StepKind;

/// `participant.action` with an ordinary policy.
pub(in crate::api) fn call(text: &str) -> Call {
    let (participant, action) = text.split_once('.').unwrap();
    Call {
        participant: ParticipantName::parse(participant).unwrap(),
        action: ActionName::parse(action).unwrap(),
        input: None,
        timeout: Duration::from_secs(2),
        retry: RetryPolicy {
            initial: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(10),
            jitter: 0.0,
            attempts: 3,
            elapsed: Duration::ZERO,
        },
    }
}

/// A step; a compensatable one has a compensation.
pub(in crate::api) fn step(name: &str, kind: StepKind) -> Step {
    Step {
        name: StepName::parse(name).unwrap(),
        kind,
        for_each: None,
        concurrency: 1,
        when: None,
        action: call("stock.deduct"),
        compensation: (kind == StepKind::Compensatable).then(|| call("stock.restore")),
        compensate_on_refusal: false,
        probe: None,
        pending: PendingPolicy::default(),
    }
}

/// A definition called `order` in which each step waits for the one before it.
pub(in crate::api) fn definition(steps: Vec<Step>) -> Definition {
    let after =
        (0u32..).take(steps.len()).map(|ix| ix.checked_sub(1).map(StepIx).into_iter().collect()).collect();
    Definition {
        name: DefinitionName::parse("order").unwrap(),
        version: Version(3),
        digest: Digest([0xab; 32]),
        description: "Places an order.".to_owned(),
        source: Arc::from("saga: order\n"),
        deadline: None,
        locks: vec![],
        lock_wait: Duration::from_secs(30),
        plan: Plan::new(after).unwrap(),
        steps,
        events: vec![],
        output: None,
        places: OnceLock::new(),
    }
}

/// An instance whose action stands at `action`, after one attempt.
pub(in crate::api) fn instance(action: Action) -> Instance {
    let mut instance = Instance { action, ..Instance::fresh() };
    instance.tries.attempt = 1;
    instance.tries.input = Some(Json::trusted(r#"{ "amount": 9007199254740993 }"#.to_owned()));
    instance.tries.started_at = Some(Timestamp(1_500));
    instance
}

/// A saga at `stage` with one step state for each of `steps`.
pub(in crate::api) fn saga(stage: Stage, steps: Vec<(Step, StepState)>) -> Saga {
    let (steps, states): (_, Vec<StepState>) = steps.into_iter().unzip();
    let (definition, states) = (Arc::new(definition(steps)), states.into_iter().collect());
    Saga {
        id: SagaId::parse("o-1").unwrap(),
        lineup: Lineup::of(&definition, &states, stage == Stage::Backward),
        definition,
        version_asked: 0,
        input: Json::trusted(r#"{ "price": 1.10, "id": 18446744073709551615 }"#.to_owned()),
        labels: Arc::new(BTreeMap::from([("region".to_owned(), "kr".to_owned())])),
        locks: Arc::from([]),
        seq: 9,
        journal_bytes: 0,
        created_at: Timestamp(1_000),
        updated_at: Timestamp(2_001),
        ended_at: None,
        stage,
        committed: stage == Stage::Committed || stage == Stage::Completed,
        paused: None,
        uncertain: false,
        deadline: None,
        failure: None,
        output: None,
        steps: states,
    }
}

/// What the engine shows of `saga` when it waits for nothing.
pub(in crate::api) fn view(saga: Saga) -> SagaView {
    SagaView { saga: Arc::new(saga), waiting_on: None, next_wake_at: None }
}
