//! Sagas that grow too large: they turn back by themselves, and whatever they have grown to, an
//! operator can end them.

use std::time::Duration;

use super::world::{World, done, saga_id};
use crate::engine::error::EngineError;
use crate::engine::request::{RepairRequest, StuckItem};
use crate::saga::input::Act;
use crate::saga::words::SagaStatus;

/// Outputs of this size come to the default limit with the seventeenth.
const OUTPUT_BYTES: usize = 1_000_000;

fn large() -> String {
    format!("\"{}\"", "x".repeat(OUTPUT_BYTES))
}

/// Twenty steps with large outputs under one lock.
async fn define(world: &World, last: &str) {
    let steps: Vec<String> = (0..20)
        .map(|n| {
            format!(
                "  - {{ name: s{n}, action: {{ call: big.s{n} }}, compensation: {{ call: big.undo }} }}\n"
            )
        })
        .collect();
    let source = format!(
        "saga: big\nlocks: [\"item/1\"]\nlock_wait: 100h\ndefaults: {{ retry: {{ attempts: 2, initial: 100ms, jitter: 0 }} }}\n\
         steps:\n{}{last}",
        steps.concat()
    );
    world.engine.register_definition(&source, false).await.unwrap();
}

/// The first item of what waits for an operator.
async fn stuck(world: &World) -> StuckItem {
    loop {
        let (items, ..) = world.engine.list_stuck(10, "").await.unwrap();
        match items.into_iter().next() {
            Some(item) => return item,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn act(id: &str, act: Act) -> RepairRequest {
    RepairRequest { id: saga_id(id), act, actor: "ann".into(), reason: "because".into(), dry_run: false }
}

fn abandon(id: &str, steps: &[&str]) -> RepairRequest {
    act(id, Act::Abandon { steps: steps.iter().map(|&step| step.to_owned()).collect() })
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_grows_too_large_undoes_itself_and_the_others_go_on() {
    let world = World::new().await;
    define(&world, "").await;
    for n in 0..20 {
        (0..2).for_each(|_| world.participants.answer(&format!("big.s{n}"), done(&large())));
    }
    world.start("big", "large").await.unwrap();
    for n in 0..20 {
        world.start("order", &format!("small-{n}")).await.unwrap();
    }
    let saga = world.ended("large").await.saga;
    let failure = saga.failure.as_ref().unwrap();
    assert_eq!((saga.status(), failure.code.as_str()), (SagaStatus::Compensated, "UNKNOWN"));
    assert!(failure.message.contains("no room for an output"), "{}", failure.message);
    let calls = world.participants.calls();
    let actions = calls.iter().filter(|call| call.starts_with("big.s") && call.ends_with(" 1")).count();
    let undos = calls.iter().filter(|call| call.starts_with("big.undo")).count();
    assert_eq!((actions, undos), (13, 13), "what ran is undone, the one without room for its output too");
    for n in 0..20 {
        assert_eq!(world.ended(&format!("small-{n}")).await.saga.status(), SagaStatus::Completed);
    }
    assert_eq!(world.engine.list_stuck(10, "").await.unwrap().2, 0);
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_has_outgrown_its_store_is_listed_explained_and_can_be_ended() {
    let mut world = World::new().await;
    define(&world, "").await;
    for n in 0..2 {
        world.participants.answer(&format!("big.s{n}"), done(&large()));
    }
    let _held = world.participants.hold("big.s2");
    world.start("big", "large").await.unwrap();
    world.participants.called(3).await;
    world.start("big", "next").await.unwrap();
    // A daemon that keeps less of a saga than is stored of this one; twice, as after any restart.
    world.store.set_saga_bytes_max(100_000);
    let mut seen: Vec<StuckItem> = Vec::new();
    for _ in 0..2 {
        world = world.crash().await;
        world.recovered().await;
        seen.push(stuck(&world).await);
    }
    let item = &seen[1];
    assert!(item.saga_id == saga_id("large") && item.reason.contains("over the limit of 100000"), "{item:?}");
    assert!(item.suggested_command.starts_with("sagactl abandon large"), "{item:?}");
    assert_eq!(
        (item.since, item.definition.as_str()),
        (seen[0].since, "big"),
        "its age is that of its state"
    );
    assert_eq!(world.engine.stats().await.unwrap().quarantined, 0, "it can be read");
    assert_eq!(world.status("large").await, SagaStatus::Running);
    let (explanation, _) = world.engine.explain(&saga_id("large")).await.unwrap();
    assert!(explanation.lines.iter().any(|line| line.contains("too large to go on")), "{explanation:?}");
    assert_eq!(explanation.suggested_command.as_ref(), Some(&item.suggested_command));

    let paused = world.engine.repair(act("large", Act::Pause)).await;
    assert!(matches!(paused, Err(EngineError::Precondition(_))), "{paused:?}");
    let unnamed = world.engine.repair(abandon("large", &["s0"])).await;
    assert!(matches!(&unnamed, Err(EngineError::Precondition(why)) if why.contains("s0, s1, s2")));
    let calls = world.participants.calls().len();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.participants.calls().len(), calls, "nothing of it runs");
    assert_eq!(world.engine.stats().await.unwrap().mended, 0, "and the sweeper knows");

    world.engine.repair(abandon("large", &["s0", "s1", "s2"])).await.unwrap();
    assert_eq!(world.status("large").await, SagaStatus::Abandoned);
    assert_eq!(world.ended("next").await.saga.status(), SagaStatus::Completed, "its lock is free");
    assert_eq!(world.engine.list_stuck(10, "").await.unwrap().2, 0);
}

#[tokio::test(start_paused = true)]
async fn side_work_without_room_waits_for_an_operator_before_and_after_a_crash() {
    let mut world = World::new().await;
    let side = "  - { name: side, kind: retriable, action: { call: big.side, retry: { attempts: 2, initial: 100ms } } }\n";
    define(&world, side).await;
    // Twelve large outputs fit, and a thirteenth does not.
    for n in 0..12 {
        world.participants.answer(&format!("big.s{n}"), done(&large()));
    }
    for _ in 0..4 {
        world.participants.answer("big.side", done(&large()));
    }
    world.start("big", "large").await.unwrap();
    let item = stuck(&world).await;
    assert_eq!((item.step.as_str(), item.status), ("side", SagaStatus::Blocked), "{item:?}");
    assert!(item.suggested_command.starts_with("sagactl skip large side"), "{item:?}");
    world = world.crash().await;
    world.recovered().await;
    assert_eq!(stuck(&world).await.reason, item.reason);
    let (explanation, _) = world.engine.explain(&saga_id("large")).await.unwrap();
    assert!(explanation.lines.iter().any(|line| line.starts_with("Too large: ")), "{explanation:?}");
    world.engine.repair(act("large", Act::RetryNow { step: None })).await.unwrap();
    assert_eq!(stuck(&world).await.step, "side", "trying again changes nothing");
    world.engine.repair(act("large", Act::Pause)).await.unwrap();
    world.engine.repair(act("large", Act::Resume)).await.unwrap();
    world.engine.repair(act("large", Act::Skip { step: "side".to_owned() })).await.unwrap();
    assert_eq!(world.ended("large").await.saga.status(), SagaStatus::Completed);
}
