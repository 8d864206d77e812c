//! Stores that fail, daemons that stop: what is owed is paid all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{ENDED, LONG, World, done, refused, saga_id, unknown};
use crate::engine::error::EngineError;
use crate::saga::words::{Phase, SagaStatus};
use crate::store::Store as _;
use crate::store::memory::{CommitFault, HoldPoint};

/// Keys stay, epochs grow, and no attempt is ever sent twice.
pub(super) fn check_calls(world: &World) {
    let mut seen: BTreeMap<(String, String, Phase), (String, u32, u64)> = BTreeMap::new();
    for call in world.participants.outgoing() {
        let which = (call.saga_id.to_string(), call.duty.step.clone(), call.duty.phase);
        let now = (call.key.clone(), call.duty.attempt, call.duty.epoch);
        if let Some(before) = seen.insert(which.clone(), now.clone()) {
            assert_eq!(before.0, now.0, "the key stays: {which:?}");
            assert!(now.1 > before.1 && now.2 >= before.2, "attempts grow: {which:?} {before:?} {now:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_stops_at_any_commit_is_followed_by_one_that_ends_the_saga() {
    for backward in [false, true] {
        for point in [HoldPoint::BeforeStored, HoldPoint::AfterStored] {
            for number in 1..=7 {
                let mut world = World::new().await;
                if backward {
                    world.participants.answer("point.use", unknown());
                    world.participants.answer("point.use", refused("NO"));
                }
                let hold = world.store.hold_commit(number, point);
                let started = world.start("order", "a");
                tokio::select! {
                    () = hold.reached() => {}
                    () = async { started.await.ok(); world.ended("a").await; } => continue,
                }
                world = world.crash().await;
                world.recovered().await;
                let answer = world.start("order", "a").await.unwrap();
                let stored = number > 1 || point == HoldPoint::AfterStored;
                assert_eq!(answer.existed, stored, "commit {number}, {point:?}");
                let expected = if backward { SagaStatus::Compensated } else { SagaStatus::Completed };
                let status = world.ended("a").await.saga.status();
                // The script of the participants was used up by the first daemon, or not.
                assert!(status == expected || (backward && status == SagaStatus::Completed));
                check_calls(&world);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_is_repeated_whether_or_not_it_was_stored() {
    for fault in [CommitFault::LostBefore, CommitFault::FailsAfterStored] {
        for (failing, times) in [(2, 1), (3, 1), (4, 1), (2, 4), (4, 3)] {
            let world = World::new().await;
            let before = world.store.hold_commit(failing - 1, HoldPoint::AfterStored);
            let meanwhile = async {
                before.reached().await;
                (0..times).for_each(|_| world.store.fail_next_commit(fault));
                before.release();
            };
            tokio::join!(async { world.start("order", "a").await.unwrap() }, meanwhile);
            assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
            let failed = world.engine.stats().await.unwrap().commits_failed;
            assert!(failed >= 1, "commit {failing} failed");
            assert_eq!(
                world.participants.calls(),
                ["stock.deduct 1", "point.use 1", "ship.send 1"],
                "no reply is lost, so nothing is called again"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_commit_failed_is_unknown_and_can_be_repeated() {
    for (fault, stored) in [(CommitFault::LostBefore, false), (CommitFault::FailsAfterStored, true)] {
        let world = World::new().await;
        world.store.fail_next_commit(fault);
        assert!(matches!(world.start("locked", "a").await, Err(EngineError::Unavailable(_))));
        assert_eq!(world.start("locked", "a").await.unwrap().existed, stored);
        assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
        assert_eq!(world.participants.calls(), ["stock.deduct 1"]);
        world.start("locked", "b").await.unwrap();
        assert_eq!(world.ended("b").await.saga.status(), SagaStatus::Completed, "no lock leaks");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_the_daemon_and_nothing_is_acknowledged() {
    let world = World::new().await;
    world.store.fail_next_commit(CommitFault::SyncFails);
    assert!(matches!(world.start("order", "a").await, Err(EngineError::Unavailable(_))));
    world.tasks.fatal().cancelled().await;
    let why = world.tasks.failure().unwrap();
    assert!(why.contains("a sync to stable storage failed"), "{why}");
    assert!(world.participants.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn lock_queues_survive_a_restart_in_their_order() {
    let world = World::new().await;
    let _first = world.participants.hold("stock.deduct");
    for id in ["a", "b", "c"] {
        world.start("locked", id).await.unwrap();
    }
    let world = world.crash().await;
    world.start("locked", "d").await.unwrap();
    for id in ["a", "b", "c", "d"] {
        assert_eq!(world.ended(id).await.saga.status(), SagaStatus::Completed);
    }
    let mut order: Vec<_> =
        world.participants.outgoing().iter().map(|call| call.saga_id.to_string()).collect();
    order.dedup();
    assert_eq!(order, ["a", "b", "c", "d"]);
    assert!(world.store.lock_tickets().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_saga_on_a_definition_that_is_gone_is_quarantined_and_the_others_go_on() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    world.start("order", "lost").await.unwrap();
    world.start("slow", "well").await.unwrap();
    let mut stored = world.store.definitions().await.unwrap();
    stored.retain(|row| row.name.as_str() == "order");
    let mut changed = stored.remove(0);
    changed.source = "saga: [".into();
    world.store.put_definition(changed).await.unwrap();
    world.participants.set_absent("stock", false);
    let world = world.crash().await;
    world.recovered().await;
    assert_eq!(world.ended("well").await.saga.status(), SagaStatus::Completed);
    assert!(matches!(world.engine.get(&saga_id("lost")).await, Err(EngineError::DataLoss(_))));
    let repeated = world.start("order", "lost").await;
    assert!(matches!(repeated, Err(EngineError::DataLoss(_))), "{repeated:?}");
    let (stuck, _, total) = world.engine.list_stuck(10, "").await.unwrap();
    assert_eq!((stuck[0].saga_id.as_str(), total), ("lost", 1));
    assert_eq!(world.engine.stats().await.unwrap().quarantined, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_over_the_bound_are_refused_and_repeated_starts_are_still_answered() {
    let world = World::new().await;
    let _stock = world.participants.hold("stock.deduct");
    world.start("order", "known").await.unwrap();
    let commit = world.store.commits() + 1;
    let hold = world.store.hold_commit(commit, HoldPoint::BeforeStored);
    let held_two = world.store.hold_commit(commit + 1, HoldPoint::BeforeStored);
    let starts: Vec<_> = (0..4_000).map(|n| format!("saga-{n}")).collect();
    let mut overloaded = 0;
    let all = futures::future::join_all(starts.iter().map(|id| world.start("order", id)));
    let outside = async {
        hold.reached().await;
        held_two.reached().await;
        let again = world.start("order", "known").await.unwrap();
        hold.release();
        held_two.release();
        again.existed
    };
    let (answers, existed) = tokio::join!(all, outside);
    assert!(existed, "a repeated start needs no room");
    for (id, answer) in starts.iter().zip(answers) {
        match answer {
            Ok(_) => assert_eq!(world.ended(id).await.saga.status(), SagaStatus::Completed),
            Err(EngineError::Overloaded { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO);
                overloaded += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(overloaded > 0);
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_the_commit_in_hand_and_says_no_to_the_rest() {
    let world = World::new().await;
    let _stock = world.participants.hold("stock.deduct");
    let commit = world.store.commits() + 1;
    let hold = world.store.hold_commit(commit, HoldPoint::BeforeStored);
    let outside = async {
        hold.reached().await;
        let drained = world.engine.drain();
        tokio::pin!(drained);
        assert!(futures::poll!(&mut drained).is_pending(), "the commit in hand is awaited");
        hold.release();
        tokio::time::timeout(Duration::from_secs(5), drained).await.unwrap().unwrap();
    };
    let (answer, ()) = tokio::join!(world.start("order", "a"), outside);
    assert!(answer.is_ok(), "it is stored, so it is acknowledged");
    assert!(matches!(world.start("order", "b").await, Err(EngineError::Stopping)));
    let (stopped, engine) = (world.engine.wait(&saga_id("a"), ENDED, LONG).await, &world.engine);
    assert!(matches!(stopped, Err(EngineError::Stopping)));
    tokio::time::timeout(LONG, world.tasks.ended()).await.unwrap();
    assert_eq!(engine.stats().await.map_or(0, |stats| stats.calls_in_flight), 0);
    let world = world.crash().await;
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_lock_released_just_before_a_crash_is_granted_by_the_next_daemon() {
    let world = World::new().await;
    let first = world.participants.hold("stock.deduct");
    world.start("locked", "a").await.unwrap();
    world.start("locked", "b").await.unwrap();
    let released = world.store.hold_commit(world.store.commits() + 1, HoldPoint::AfterStored);
    first.send(done("null")).unwrap();
    released.reached().await;
    let world = world.crash().await;
    assert_eq!(world.ended("b").await.saga.status(), SagaStatus::Completed);
    assert_eq!(world.engine.stats().await.unwrap().mended, 0, "the sweeper need not help");
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_makes_the_rules_panic_is_set_aside_and_the_others_go_on() {
    let world = World::new().await;
    let source = "
saga: cursed
steps:
  - { name: stock, action: { call: stock.deduct }, compensation: none }
  - { name: cursed, action: { call: cursed.be }, compensation: none }
";
    // Registering warns of absent participants, and so would meet the curse: it is stored instead.
    let compiled = crate::definition::compile(source, None, crate::saga::ids::Version(1)).unwrap();
    let definition = compiled.definition;
    let row = crate::store::StoredDefinition {
        name: definition.name.clone(),
        version: definition.version,
        digest: definition.digest,
        source: source.into(),
        active: true,
        created_at: crate::saga::ids::Timestamp(0),
    };
    world.store.put_definition(row).await.unwrap();
    let world = world.crash().await;
    world.start("cursed", "a").await.unwrap();
    world.start("order", "b").await.unwrap();
    assert_eq!(world.ended("b").await.saga.status(), SagaStatus::Completed);
    let (stuck, _, total) = world.engine.list_stuck(10, "").await.unwrap();
    assert_eq!((stuck[0].saga_id.as_str(), total), ("a", 1));
    assert!(!world.tasks.fatal().is_cancelled(), "the shard lives");
}
