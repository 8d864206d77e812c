//! Sagas of which nothing happens for a long time, when the daemon is started again.

use std::time::Duration;

use super::world::{LOCKED, World, refused, saga_id};
use crate::engine::request::{ListRequest, WaitFor};
use crate::saga::input::Completion;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase, SagaStatus};

/// Two branches side by side, and what fails behind them.
const SPLIT: &str = "
saga: split
steps:
  - name: mail
    after: []
    action: { call: mail.send }
    compensation: { call: mail.recall }
  - name: cart
    after: []
    action: { call: cart.fill }
    compensation: { call: cart.clear }
    pending: { interval: 2h, max: 20h }
  - name: order
    after: [mail, cart]
    action: { call: order.create }
    compensation: none
";

/// A world in which one saga's only call was answered with pending.
async fn one_rests() -> World {
    let world = World::new().await;
    world.participants.answer("stock.deduct", Outcome::Pending(None));
    world.start("slow", "a").await.unwrap();
    world.participants.called(1).await;
    while world.engine.get(&saga_id("a")).await.unwrap().saga.seq < 3 {
        tokio::task::yield_now().await;
    }
    world
}

async fn start_again(world: World) -> World {
    let world = world.crash().await;
    world.recovered().await;
    world
}

async fn resident(world: &World) -> u64 {
    world.engine.stats().await.unwrap().resident
}

#[tokio::test(start_paused = true)]
async fn what_rests_is_not_read_at_a_start_and_is_woken_in_time() {
    let world = start_again(one_rests().await).await;
    assert_eq!(resident(&world).await, 0);
    tokio::time::sleep(Duration::from_mins(119)).await;
    assert_eq!((resident(&world).await, world.participants.calls().len()), (0, 1));
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.participants.called(2).await;
    assert_eq!(world.participants.outgoing()[1].duty.phase, Phase::Probe);
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    let stats = world.engine.stats().await.unwrap();
    assert_eq!((stats.mended, stats.idle_wakes, stats.conflicts), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_rested_too_long_is_woken_by_the_start() {
    let world = one_rests().await;
    world.tasks.stop();
    tokio::time::sleep(Duration::from_hours(5)).await;
    let world = start_again(world).await;
    world.participants.called(2).await;
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn what_rests_is_listed_and_counted_without_being_taken_up() {
    let world = start_again(one_rests().await).await;
    let request = ListRequest {
        filter: "status = RUNNING".to_owned(),
        page_size: 10,
        page_token: String::new(),
        oldest_first: true,
        with_total: true,
    };
    let list = world.engine.list(request).await.unwrap();
    assert_eq!((list.sagas[0].saga.id.as_str(), list.total), ("a", Some(1)));
    assert!(list.sagas[0].next_wake_at.is_some());
    let stats = world.engine.stats().await.unwrap();
    assert_eq!(stats.counters.values().sum::<u64>(), 1);
    assert_eq!((stats.resident, stats.stuck, stats.parked), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_rests_can_be_cancelled_completed_and_waited_for() {
    let world = one_rests().await;
    let token = world.participants.outgoing()[0].token.clone();
    let world = start_again(world).await;
    let view = world.engine.cancel(&saga_id("a"), "kim".into(), "too slow".into()).await.unwrap();
    assert_eq!(view.saga.status(), SagaStatus::Compensating);
    world.engine.complete(&token, Completion::Done(Json::null())).await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Compensated);

    let world = start_again(one_rests().await).await;
    let id = saga_id("a");
    let waiting = world.engine.wait(&id, WaitFor::Ended, Duration::from_hours(3));
    assert_eq!(waiting.await.unwrap().saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_is_made_again_however_far_the_deadline_is() {
    let world = World::new().await;
    let _never = world.participants.hold("stock.deduct");
    world.start("slow", "a").await.unwrap();
    world.participants.called(1).await;
    let world = start_again(world).await;
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    assert_eq!(world.participants.calls(), ["stock.deduct 1", "stock.deduct 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_participant_that_came_back_while_the_daemon_was_down_is_called_at_once() {
    let world = World::new().await;
    world.participants.set_absent("stock", true);
    let started = world.start("slow", "a").await.unwrap().saga.saga.created_at;
    world.participants.set_absent("stock", false);
    let world = start_again(world).await;
    let saga = world.ended("a").await.saga;
    assert_eq!(saga.status(), SagaStatus::Completed);
    assert!(saga.updated_at.since(started) < Duration::from_mins(1), "the deadline is ten hours away");
}

#[tokio::test(start_paused = true)]
async fn a_block_is_listed_although_the_saga_also_waits_for_something_far() {
    let world = World::new().await;
    world.engine.register_definition(SPLIT, false).await.unwrap();
    world.participants.answer("order.create", refused("NO"));
    world.participants.answer("mail.recall", refused("SENT"));
    world.participants.answer("cart.clear", Outcome::Pending(None));
    world.start("split", "a").await.unwrap();
    world.participants.called(5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let listed = async |world: &World| world.engine.list_stuck(10, "").await.unwrap().2;
    assert_eq!(listed(&world).await, 1);
    let world = start_again(world).await;
    assert_eq!((listed(&world).await, resident(&world).await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_rests_holds_its_lock_and_hands_it_on() {
    let slow = LOCKED.replace("saga: locked", "saga: held") + "    pending: { interval: 30m, max: 20h }\n";
    let world = World::new().await;
    world.engine.register_definition(&slow, false).await.unwrap();
    world.participants.answer("stock.deduct", Outcome::Pending(None));
    world.start("held", "a").await.unwrap();
    world.participants.called(1).await;
    world.start("locked", "b").await.unwrap();
    let token = world.participants.outgoing()[0].token.clone();
    while world.engine.get(&saga_id("a")).await.unwrap().next_wake_at.is_none() {
        tokio::task::yield_now().await;
    }
    let world = start_again(world).await;
    assert_eq!(resident(&world).await, 1, "only the one that waits for the lock");
    let waiting_on = world.engine.get(&saga_id("b")).await.unwrap().waiting_on;
    assert!(waiting_on.is_some(), "the lock is held by a saga that nobody has read");
    world.engine.complete(&token, Completion::Done(Json::parse("{}").unwrap())).await.unwrap();
    for id in ["a", "b"] {
        assert_eq!(world.ended(id).await.saga.status(), SagaStatus::Completed, "{id}");
    }
}
