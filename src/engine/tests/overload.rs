//! Starts that would only wait behind others are refused; everything else goes on.

use std::time::Duration;

use crate::engine::error::EngineError;
use crate::engine::settings::{EngineSettings, MAIL_SLOW, RETRY_AFTER_MAX};
use crate::engine::tests::world::{World, done};
use crate::participant::Backlog;
use crate::saga::words::SagaStatus;
use crate::store::memory::HoldPoint;

/// A backlog whose first call has waited for so long.
fn waiting_for(first_waits: Duration) -> Backlog {
    Backlog { calls_waiting: 1_203, first_waits }
}

#[tokio::test(start_paused = true)]
async fn a_start_is_refused_while_a_participant_of_its_definition_is_behind() {
    let world = World::new().await;
    world.participants.set_behind("ship", Some(waiting_for(Duration::from_millis(2_500))));
    let Err(EngineError::Overloaded { reason, retry_after }) = world.start("order", "a").await else {
        panic!("it would only wait");
    };
    assert_eq!(reason, "participant ship is behind: 1203 calls wait, the first for 2s 500ms");
    assert_eq!(retry_after, Duration::from_millis(2_500));
    assert!(world.participants.calls().is_empty());

    world.participants.set_behind("ship", None);
    world.start("order", "a").await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_never_told_to_stay_away_for_long() {
    let world = World::new().await;
    world.participants.set_behind("stock", Some(waiting_for(Duration::from_hours(1))));
    let refused = world.start("order", "a").await;
    assert!(
        matches!(refused, Err(EngineError::Overloaded { retry_after, .. }) if retry_after == RETRY_AFTER_MAX)
    );
}

#[tokio::test(start_paused = true)]
async fn definitions_that_do_not_call_who_is_behind_start_as_ever() {
    let world = World::new().await;
    world.participants.set_behind("point", Some(waiting_for(Duration::from_secs(3))));
    assert!(matches!(world.start("order", "a").await, Err(EngineError::Overloaded { .. })));
    world.start("locked", "b").await.unwrap();
    assert_eq!(world.ended("b").await.saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_and_a_repeated_start_is_answered_while_a_participant_is_behind() {
    let world = World::new().await;
    let stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    world.participants.set_behind("point", Some(waiting_for(Duration::from_secs(3))));
    assert!(world.start("order", "a").await.unwrap().existed);
    let mut other = World::request("order", "a");
    other.version = 1;
    assert!(matches!(world.engine.start(other).await, Err(EngineError::AlreadyExists(_))));
    stock.send(done("null")).unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    assert!(world.start("order", "a").await.unwrap().existed);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_wrong_hears_so_before_it_hears_of_a_backlog() {
    let world = World::new().await;
    world.participants.set_behind("stock", Some(waiting_for(Duration::from_secs(3))));
    let name = World::request("order", "").definition;
    world.engine.retire_definition(&name, 1).await.unwrap();
    assert!(matches!(world.start("order", "a").await, Err(EngineError::Precondition(_))));
}

#[tokio::test(start_paused = true)]
async fn starts_are_refused_while_the_shard_itself_is_behind() {
    let settings = EngineSettings { shards: 1, batch_max: 8, ..EngineSettings::default() };
    let world = World::with(settings).await;
    let commit = world.store.commits() + 1;
    let first_commit = world.store.hold_commit(commit, HoldPoint::BeforeStored);
    let second_commit = world.store.hold_commit(commit + 1, HoldPoint::BeforeStored);
    let ids: Vec<String> = (0..20).map(|n| format!("flood-{n}")).collect();
    let first = world.start("order", "first");
    let outside = async {
        first_commit.reached().await;
        let flood = futures::future::join_all(ids.iter().map(|id| world.start("order", id)));
        tokio::pin!(flood);
        assert!(futures::poll!(&mut flood).is_pending());
        tokio::time::sleep(MAIL_SLOW * 2).await;
        first_commit.release();
        second_commit.reached().await;
        let refused = world.start("order", "late").await;
        let repeated = world.start("order", "first").await;
        second_commit.release();
        (flood.await, refused, repeated)
    };
    let (first, (flood, refused, repeated)) = tokio::join!(first, outside);
    assert!(!first.unwrap().existed);
    let Err(EngineError::Overloaded { reason, retry_after }) = refused else {
        panic!("it would only wait");
    };
    assert!(reason.starts_with("the daemon is behind: 1"), "{reason}");
    assert!(retry_after > MAIL_SLOW && retry_after <= RETRY_AFTER_MAX, "{retry_after:?}");
    assert!(repeated.unwrap().existed);
    assert!(flood.iter().all(Result::is_ok));

    world.start("order", "late").await.unwrap();
    for id in ids.iter().map(String::as_str).chain(["first", "late"]) {
        assert_eq!(world.ended(id).await.saga.status(), SagaStatus::Completed);
    }
}
