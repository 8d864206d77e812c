//! Sagas from their start to their end.

use std::time::Duration;

use futures::StreamExt as _;

use super::world::{Behaviour, LONG, World, done, refused, saga_id, unknown};
use crate::engine::error::EngineError;
use crate::engine::request::WaitFor;
use crate::saga::ids::Timestamp;
use crate::saga::input::Completion;
use crate::saga::json::Json;
use crate::saga::view::WaitingOn;
use crate::saga::words::SagaStatus;
use crate::store::Store as _;
use crate::store::memory::{Hold, HoldPoint};

#[tokio::test(start_paused = true)]
async fn a_saga_runs_its_steps_in_order_and_completes() {
    let world = World::new().await;
    let answer = world.start("order", "a").await.unwrap();
    assert!(!answer.existed);
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    assert_eq!(world.participants.calls(), ["stock.deduct 1", "point.use 1", "ship.send 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_step_sends_the_saga_back_and_is_not_undone_itself() {
    let world = World::new().await;
    world.participants.answer("point.use", refused("NO_POINTS"));
    world.start("order", "a").await.unwrap();
    let saga = world.ended("a").await.saga;
    assert_eq!(saga.status(), SagaStatus::Compensated);
    assert_eq!(saga.failure.as_ref().unwrap().code, "NO_POINTS");
    assert_eq!(world.participants.calls(), ["stock.deduct 1", "point.use 1", "stock.restore 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_step_is_tried_again_with_the_same_key_and_then_undone_too() {
    let world = World::new().await;
    for _ in 0..3 {
        world.participants.answer("point.use", unknown());
    }
    world.start("order", "a").await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Compensated);
    let calls = world.participants.outgoing();
    let tried: Vec<_> = calls.iter().filter(|call| call.duty.action.as_str() == "use").collect();
    assert_eq!(tried.iter().map(|call| call.duty.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(tried.iter().all(|call| call.key == tried[0].key));
    assert_eq!(world.participants.calls()[4..], ["point.charge 1", "stock.restore 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_own_code_panics_is_unknown_and_tried_again() {
    let world = World::new().await;
    world.participants.plan("stock.deduct", Behaviour::Panic);
    world.start("order", "a").await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    assert_eq!(world.participants.calls()[..2], ["stock.deduct 1", "stock.deduct 2"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_start_again_is_the_same_saga_even_when_it_has_ended() {
    let world = World::new().await;
    world.start("order", "a").await.unwrap();
    world.ended("a").await;
    let mut again = World::request("order", "a");
    again.input = Json::parse(r#"{ "item" : 1 }"#).unwrap();
    let answer = world.engine.start(again).await.unwrap();
    assert!(answer.existed && answer.saga.saga.is_terminal());
    assert_eq!(world.participants.calls().len(), 3, "nothing is called twice");
}

#[tokio::test(start_paused = true)]
async fn the_same_id_with_another_request_is_refused_before_anything_else() {
    let world = World::new().await;
    world.start("order", "a").await.unwrap();
    let mut other = World::request("order", "a");
    other.input = Json::parse(r#"{"item":2}"#).unwrap();
    assert!(matches!(world.engine.start(other).await, Err(EngineError::AlreadyExists(_))));
    let unknown_definition = World::request("nobody-knows-it", "a");
    assert!(matches!(world.engine.start(unknown_definition).await, Err(EngineError::AlreadyExists(_))));
}

#[tokio::test(start_paused = true)]
async fn two_equal_starts_at_once_make_one_saga() {
    let world = World::new().await;
    let (one, two) = tokio::join!(world.start("order", "a"), world.start("order", "a"));
    let existed = [one.unwrap().existed, two.unwrap().existed];
    assert_eq!(existed.iter().filter(|existed| **existed).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_an_id_gets_one() {
    let world = World::new().await;
    let first = world.start("order", "").await.unwrap().saga.saga.id.clone();
    let second = world.start("order", "").await.unwrap().saga.saga.id.clone();
    assert_ne!(first, second);
    assert_eq!(uuid::Uuid::parse_str(first.as_str()).unwrap().get_version_num(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_client_is_answered_at_the_commit_while_side_work_goes_on() {
    let world = World::new().await;
    let _ship = world.participants.hold("ship.send");
    let mut request = World::request("order", "a");
    (request.wait, request.wait_for) = (LONG, WaitFor::Committed);
    let answer = world.engine.start(request).await.unwrap();
    assert_eq!(answer.saga.saga.status(), SagaStatus::Committed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_passes_answers_with_the_saga_as_it_stands() {
    let world = World::new().await;
    let _stock = world.participants.hold("stock.deduct");
    let mut request = World::request("order", "a");
    request.wait = Duration::from_millis(10);
    assert_eq!(world.engine.start(request).await.unwrap().saga.saga.status(), SagaStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_is_refused_with_the_reason() {
    let world = World::new().await;
    let not_found = world.start("nobody-knows-it", "").await;
    assert!(matches!(not_found, Err(EngineError::NotFound { what: "definition", .. })));
    let mut list = World::request("order", "");
    list.input = Json::parse("[1]").unwrap();
    let Err(EngineError::Invalid(violations)) = world.engine.start(list).await else {
        panic!("a list is no input");
    };
    assert_eq!(violations[0].field, "input_json");
    let name = World::request("order", "").definition;
    world.engine.retire_definition(&name, 1).await.unwrap();
    assert!(matches!(world.start("order", "").await, Err(EngineError::Precondition(_))));
    world.store.set_disk_low(true);
    assert!(matches!(world.start("slow", "").await, Err(EngineError::Overloaded { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_goes_on_when_its_participant_is_there() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    world.start("order", "a").await.unwrap();
    let view = world.engine.get(&saga_id("a")).await.unwrap();
    assert!(matches!(view.waiting_on, Some(WaitingOn::Participant(name)) if name.as_str() == "stock"));
    assert!(view.next_wake_at.is_some(), "the time of the next look is named");
    assert!(world.participants.calls().is_empty());
    world.participants.set_absent("stock", false);
    world.engine.participants_changed();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    assert_eq!(world.participants.calls()[0], "stock.deduct 1", "parking costs no attempt");
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_looks_by_itself_when_nobody_tells_it() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    world.start("order", "a").await.unwrap();
    world.participants.set_absent("stock", false);
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn sagas_that_want_one_lock_run_one_after_the_other_in_order() {
    let world = World::new().await;
    let first = world.participants.hold("stock.deduct");
    for id in ["a", "b", "c"] {
        world.start("locked", id).await.unwrap();
    }
    let waits = world.engine.get(&saga_id("b")).await.unwrap();
    assert!(matches!(waits.waiting_on, Some(WaitingOn::Lock(key)) if key.as_str() == "item/1"));
    assert_eq!(world.participants.calls().len(), 1);
    first.send(done("null")).unwrap();
    world.ended("c").await;
    let order: Vec<_> = world.participants.outgoing().iter().map(|call| call.saga_id.to_string()).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert!(world.store.lock_tickets().await.unwrap().is_empty(), "no lock leaks");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_not_to_be_had_in_time_ends_the_saga_with_nothing_called() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    world.start("locked", "a").await.unwrap();
    world.start("locked", "b").await.unwrap();
    let saga = world.ended("b").await.saga;
    assert_eq!(saga.failure.as_ref().unwrap().code, "LOCK_TIMEOUT");
    assert!(world.participants.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_open_saga_that_waits_for_something_far_leaves_memory_and_comes_back() {
    let world = World::new().await;
    world.participants.answer("stock.deduct", crate::saga::words::Outcome::Pending(None));
    world.start("slow", "a").await.unwrap();
    world.participants.called(1).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let stats = world.engine.stats().await.unwrap();
    assert_eq!((stats.resident, stats.evicted), (0, 1));
    assert_eq!(world.status("a").await, SagaStatus::Running);
    tokio::time::sleep(Duration::from_hours(3)).await;
    assert_eq!(world.status("a").await, SagaStatus::Completed);
    let stats = world.engine.stats().await.unwrap();
    assert_eq!((stats.mended, stats.idle_wakes), (0, 0));
    let looked = world.participants.outgoing()[1].duty.phase;
    assert_eq!(looked, crate::saga::words::Phase::Probe);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_while_the_saga_is_out_of_memory() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    let started: Timestamp = world.start("slow", "a").await.unwrap().saga.saga.created_at;
    let saga = world.ended("a").await.saga;
    assert_eq!(saga.failure.as_ref().unwrap().code, "DEADLINE");
    assert_eq!(saga.ended_at.unwrap().since(started), Duration::from_hours(10));
}

#[tokio::test(start_paused = true)]
async fn a_far_wake_up_that_no_commit_stored_keeps_the_saga_in_memory() {
    let world = World::new().await;
    let source = "
saga: patient
steps:
  - name: stock
    action: { call: stock.deduct, retry: { initial: 2h, max: 2h, attempts: 3, elapsed: 0s } }
    compensation: { call: stock.restore }
";
    world.engine.register_definition(source, false).await.unwrap();
    let stock = world.participants.hold("stock.deduct");
    world.start("patient", "a").await.unwrap();
    world.participants.called(1).await;
    // The commit behind the reply finds nobody to call: the saga is parked, and no time is stored.
    world.participants.set_absent("stock", true);
    let mut seen = world.engine.watch(&saga_id("a"), 2, true).await.unwrap();
    stock.send(unknown()).unwrap();
    seen.next().await.unwrap().unwrap();
    world.participants.set_absent("stock", false);
    world.engine.participants_changed();
    drop(seen);
    tokio::time::sleep(Duration::from_hours(3)).await;
    assert_eq!(world.status("a").await, SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_parked_sagas_is_right_after_a_restart_and_when_all_have_gone_on() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    world.start("order", "a").await.unwrap();
    let world = world.crash().await;
    world.recovered().await;
    assert_eq!(world.engine.stats().await.unwrap().parked, 1, "nothing is committed, it waits all the same");
    world.participants.set_absent("stock", false);
    world.engine.participants_changed();
    world.ended("a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.engine.stats().await.unwrap().parked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_that_waits_is_answered_under_overload_too() {
    let world = World::new().await;
    world.start("order", "a").await.unwrap();
    world.ended("a").await;
    let mut again = World::request("order", "a");
    again.wait = LONG;
    // The shards stand still in a commit while their boxes fill up.
    let next = world.store.commits() + 1;
    let holds = [next, next + 1].map(|number| world.store.hold_commit(number, HoldPoint::BeforeStored));
    let start_many = |count: usize, name: &'static str| {
        let world = &world;
        futures::future::join_all(
            (0..count)
                .map(move |n| async move { world.start("order", &format!("{name}-{n}")).await.is_ok() }),
        )
    };
    let first = start_many(20, "first");
    let repeated = async {
        for hold in &holds {
            hold.reached().await;
        }
        let flood = start_many(3_000, "flood");
        tokio::pin!(flood);
        assert!(futures::poll!(&mut flood).is_pending());
        let refused = world.start("order", "one-more").await;
        let answer = world.engine.start(again).await;
        holds.iter().for_each(Hold::release);
        flood.await;
        (refused, answer)
    };
    let (_, (refused, answer)) = tokio::join!(first, repeated);
    assert!(matches!(refused, Err(EngineError::Overloaded { .. })));
    let answer = answer.unwrap();
    assert!(answer.existed && answer.saga.saga.is_terminal());
}

#[tokio::test(start_paused = true)]
async fn a_success_told_after_the_end_is_refused_and_kept_all_the_same() {
    let world = World::new().await;
    (0..3).for_each(|_| world.participants.answer("point.use", unknown()));
    world.start("order", "a").await.unwrap();
    let ended = world.ended("a").await.saga;
    assert_eq!((ended.status(), ended.uncertain), (SagaStatus::Compensated, false));
    let token = world.participants.outgoing()[1].token.clone();
    let world = world.crash().await;
    for _ in 0..2 {
        let told = world.engine.complete(&token, Completion::Done(Json::null())).await;
        assert!(matches!(told, Err(EngineError::Precondition(_))), "{told:?}");
        let kept = world.engine.get(&saga_id("a")).await.unwrap().saga;
        assert_eq!((kept.status(), kept.uncertain), (SagaStatus::Compensated, true));
        assert_eq!((kept.seq, kept.ended_at), (ended.seq + 1, ended.ended_at), "once");
    }
}
