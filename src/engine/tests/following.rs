//! Watching sagas.

use std::time::Duration;

use futures::StreamExt as _;

use super::world::{LONG, World, done, saga_id};
use crate::engine::error::EngineError;
use crate::engine::request::FactStream;

async fn seqs(stream: FactStream) -> Vec<u64> {
    stream.map(|fact| fact.unwrap().seq).collect().await
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_the_history_then_what_happens_and_ends_with_the_saga() {
    let world = World::new().await;
    let stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    let watch = world.engine.watch(&saga_id("a"), 0, true).await.unwrap();
    let all = tokio::join!(seqs(watch), async {
        world.participants.called(1).await;
        stock.send(done("null")).unwrap();
    });
    let last = world.ended("a").await.saga.seq;
    assert_eq!(all.0, (1..=last).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_does_not_follow_ends_behind_what_is_stored() {
    let world = World::new().await;
    let _stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    let seq = world.engine.get(&saga_id("a")).await.unwrap().saga.seq;
    let watch = world.engine.watch(&saga_id("a"), 1, false).await.unwrap();
    assert_eq!(seqs(watch).await, (2..=seq).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_ended_saga_can_be_watched_from_anywhere() {
    let world = World::new().await;
    world.start("order", "a").await.unwrap();
    let last = world.ended("a").await.saga.seq;
    for after in [0, 1, last - 1, last, last + 5] {
        let watch = world.engine.watch(&saga_id("a"), after, true).await.unwrap();
        assert_eq!(seqs(watch).await, (after + 1..=last).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_cannot_be_watched() {
    let world = World::new().await;
    for follow in [true, false] {
        let refused = world.engine.watch(&saga_id("nobody"), 0, follow).await;
        assert!(matches!(refused, Err(EngineError::NotFound { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_watchers_of_many_sagas_miss_nothing() {
    const SAGAS: usize = 200;
    let world = World::new().await;
    let mut watches = Vec::new();
    for n in 0..SAGAS {
        let id = format!("saga-{n}");
        world.start("order", &id).await.unwrap();
        watches.push((id.clone(), world.engine.watch(&saga_id(&id), 0, true).await.unwrap()));
    }
    let read = watches.into_iter().map(|(id, mut watch)| async move {
        let mut expected = 1;
        while let Some(fact) = watch.next().await {
            assert_eq!(fact.unwrap().seq, expected);
            expected += 1;
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        (id, expected - 1)
    });
    for (id, last) in futures::future::join_all(read).await {
        assert_eq!(world.ended(&id).await.saga.seq, last);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_an_error_when_the_daemon_stops() {
    let world = World::new().await;
    let _stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    let mut watch = world.engine.watch(&saga_id("a"), 0, true).await.unwrap();
    world.tasks.stop();
    let last = async {
        let mut last = None;
        while let Some(fact) = watch.next().await {
            last = Some(fact);
        }
        last
    };
    let last = tokio::time::timeout(LONG, last).await.unwrap();
    assert!(matches!(last, Some(Err(EngineError::Stopping))));
}

#[tokio::test(start_paused = true)]
async fn a_watch_hears_of_each_change_and_a_wait_of_outcomes_only() {
    let world = World::new().await;
    let (stock, point) = (world.participants.hold("stock.deduct"), world.participants.hold("point.use"));
    world.start("order", "a").await.unwrap();
    let mut waiting = world.engine.follow(&saga_id("a")).await.unwrap();
    stock.send(done("null")).unwrap();
    world.participants.called(2).await;
    let so_far = waiting.borrow().seq;
    assert!(!waiting.has_changed().unwrap(), "a step is no outcome");

    let mut watch = world.engine.watch(&saga_id("a"), so_far, true).await.unwrap();
    let order = world.participants.hold("order.create");
    let (heard, ()) = tokio::join!(tokio::time::timeout(LONG, watch.next()), async {
        point.send(done("null")).unwrap();
    });
    let heard = heard.expect("a watch hears of a step").unwrap();
    assert_eq!(heard.unwrap().seq, so_far + 1);
    order.send(done("null")).unwrap();
    let ended = waiting.wait_for(|saga| saga.is_terminal());
    tokio::time::timeout(LONG, ended).await.expect("a wait hears of the end").unwrap();
}
