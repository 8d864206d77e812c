//! Cancels, completions and operators' acts.

use super::world::{World, done, refused, saga_id};
use crate::engine::error::EngineError;
use crate::engine::request::RepairRequest;
use crate::saga::input::{Act, Completion};
use crate::saga::json::Json;
use crate::saga::words::{Outcome, SagaStatus};

fn repair(id: &str, act: Act, dry_run: bool) -> RepairRequest {
    let (actor, reason) = ("kim".to_owned(), "tried by hand".to_owned());
    RepairRequest { id: saga_id(id), act, actor, reason, dry_run }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_waits_for_the_call_in_flight_and_undoes_it() {
    let world = World::new().await;
    let stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    world.participants.called(1).await;
    let view = world.engine.cancel(&saga_id("a"), "kim".into(), "changed my mind".into()).await.unwrap();
    assert_eq!(view.saga.status(), SagaStatus::Compensating);
    assert_eq!(world.participants.calls(), ["stock.deduct 1"], "nothing overtakes the call in flight");
    stock.send(done("null")).unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Compensated);
    assert_eq!(world.participants.calls(), ["stock.deduct 1", "stock.restore 1"]);
    assert!(world.engine.cancel(&saga_id("a"), String::new(), String::new()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_completed_saga_cannot_be_cancelled_and_an_unknown_one_is_not_found() {
    let world = World::new().await;
    world.start("order", "a").await.unwrap();
    world.ended("a").await;
    let refused = world.engine.cancel(&saga_id("a"), String::new(), String::new()).await;
    assert!(matches!(refused, Err(EngineError::Precondition(_))));
    let unknown = world.engine.cancel(&saga_id("b"), String::new(), String::new()).await;
    assert!(matches!(unknown, Err(EngineError::NotFound { what: "saga", .. })));
}

#[tokio::test(start_paused = true)]
async fn a_pending_step_is_finished_by_its_token() {
    let world = World::new().await;
    world.participants.answer("stock.deduct", Outcome::Pending(None));
    world.start("order", "a").await.unwrap();
    world.participants.called(1).await;
    let token = world.participants.outgoing()[0].token.clone();
    let done = || Completion::Done(Json::parse("{}").unwrap());
    world.engine.complete(&token, done()).await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
    assert_eq!(world.participants.calls(), ["stock.deduct 1", "point.use 1", "ship.send 1"]);
    world.engine.complete(&token, done()).await.expect("the same outcome again is fine");
    let forged = world.engine.complete("forged", done()).await;
    assert!(matches!(forged, Err(EngineError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_compensation_is_listed_and_goes_on_when_an_operator_retries_it() {
    let world = World::new().await;
    world.participants.answer("point.use", refused("NO"));
    world.participants.answer("stock.restore", refused("CLOSED"));
    world.start("order", "a").await.unwrap();
    world.participants.called(3).await;
    let stuck = loop {
        let (items, _, total) = world.engine.list_stuck(10, "").await.unwrap();
        assert_eq!(items.len() as u64, total);
        if let Some(item) = items.into_iter().next() {
            break item;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((stuck.step.as_str(), stuck.status), ("stock", SagaStatus::Blocked));
    assert!(stuck.suggested_command.starts_with("sagactl retry a"));
    let (explanation, _) = world.engine.explain(&saga_id("a")).await.unwrap();
    assert!(explanation.lines.iter().any(|line| line.contains("Blocked")), "{explanation:?}");

    let act = || Act::RetryNow { step: Some("stock".to_owned()) };
    let dry = world.engine.repair(repair("a", act(), true)).await.unwrap();
    assert_eq!(dry.plan[0].action, "restore");
    assert_eq!(world.status("a").await, SagaStatus::Blocked, "a dry run changes nothing");
    world.engine.repair(repair("a", act(), false)).await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Compensated);
    assert_eq!(world.engine.list_stuck(10, "").await.unwrap().2, 0);
}

#[tokio::test(start_paused = true)]
async fn an_act_without_a_reason_or_on_an_unknown_step_is_invalid() {
    let world = World::new().await;
    let _stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    let mut request = repair("a", Act::Pause, false);
    request.reason.clear();
    assert!(matches!(world.engine.repair(request).await, Err(EngineError::Invalid(_))));
    let unknown = repair("a", Act::Skip { step: "nothing".to_owned() }, false);
    assert!(matches!(world.engine.repair(unknown).await, Err(EngineError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn a_paused_saga_starts_nothing_until_it_is_resumed() {
    let world = World::new().await;
    let stock = world.participants.hold("stock.deduct");
    world.start("order", "a").await.unwrap();
    world.engine.repair(repair("a", Act::Pause, false)).await.unwrap();
    stock.send(done("null")).unwrap();
    tokio::time::sleep(std::time::Duration::from_hours(1)).await;
    assert_eq!(world.participants.calls(), ["stock.deduct 1"]);
    let stats = world.engine.stats().await.unwrap();
    assert_eq!(stats.mended, 0, "the sweeper knows that a paused saga stands still");
    world.engine.repair(repair("a", Act::Resume, false)).await.unwrap();
    assert_eq!(world.ended("a").await.saga.status(), SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_owed_any_more_is_abandoned() {
    let world = World::new().await;
    world.participants.answer("stock.deduct", Outcome::Pending(None));
    let _probe = world.participants.hold("stock.deduct");
    let _point = world.participants.hold("point.use");
    world.start("order", "a").await.unwrap();
    world.participants.called(2).await;
    let token = world.participants.outgoing()[0].token.clone();
    world.engine.complete(&token, Completion::Done(Json::null())).await.unwrap();
    world.participants.called(3).await;
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(world.engine.stats().await.unwrap().calls_in_flight, 1, "the probe's answer is not awaited");
}
