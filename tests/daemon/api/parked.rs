//! Sagas whose participant is not there: parked, without using up anything.

use anyhow::Result;
use sagad::proto::{DeregisterHandlersRequest, RepairAct, SagaStatus, StepStatus};

use crate::support::participant::Answer;
use crate::support::play::{Play, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const ONE: &str = "defaults: { retry: { initial: 1ms, attempts: 1, elapsed: 100ms } }
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";

/// A definition whose participant has not registered.
async fn absent(body: &str) -> Result<Play<'static>> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    play.define(body).await?;
    Ok(play)
}

#[tokio::test]
async fn a_saga_waits_for_its_participant_and_runs_once_it_is_there() -> Result<()> {
    let play = absent(ONE).await?;
    let id = play.start("a", "{}").await?;
    let parked = play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    assert_eq!(parked.waiting_on, format!("participant {}", play.participant));
    assert_eq!((parked.status(), step(&parked, "only").attempts), (SagaStatus::Running, 0));
    assert!(parked.blocked.is_empty());
    let explained = play.explain(&id).await?;
    assert!(explained.summary.iter().any(|line| line.contains(&play.participant)), "{:?}", explained.summary);
    play.register_shop(ONE).await?;
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), step(&ended, "only").attempts), (SagaStatus::Completed, 1));
    assert_eq!(ended.waiting_on, "");
    Ok(())
}

#[tokio::test]
async fn a_participant_without_the_action_is_as_good_as_none() -> Result<()> {
    let play = absent(ONE).await?;
    play.shop.register(play.daemon, &play.participant, &["something-else"]).await?;
    let id = play.start("a", "{}").await?;
    let parked = play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    assert_eq!(parked.waiting_on, format!("participant {}", play.participant));
    play.register_shop(ONE).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn the_deadline_ends_a_parked_saga_with_nothing_called() -> Result<()> {
    let play = absent(&format!("deadline: 200ms\n{ONE}")).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "DEADLINE"));
    assert_eq!(step(&saga, "only").status(), StepStatus::Pending);
    Ok(())
}

#[tokio::test]
async fn a_cancel_ends_a_parked_saga_at_once() -> Result<()> {
    let play = absent(ONE).await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    play.cancel(&id).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "CANCELLED"));
    Ok(())
}

#[tokio::test]
async fn a_compensation_waits_for_its_participant_too() -> Result<()> {
    let body = "steps:
  - { name: took, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::unregistered(DAEMON.daemon(), |call| match call.action.as_str() {
        "no" => Answer::Refused("NO", "no"),
        _ => Answer::done(),
    })
    .await?;
    play.shop.register(play.daemon, &play.participant, &["do", "no"]).await?;
    play.define(body).await?;
    let id = play.start("a", "{}").await?;
    let parked = play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    assert_eq!((parked.status(), step(&parked, "took").compensation_attempts), (SagaStatus::Compensating, 0));
    play.register_shop(body).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn a_participant_that_leaves_parks_what_comes_after() -> Result<()> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let registration_id = play.register_shop(ONE).await?;
    play.define(ONE).await?;
    assert_eq!(play.run("before", "{}").await?.status(), SagaStatus::Completed);
    let leave = DeregisterHandlersRequest { registration_id };
    play.daemon.registry().deregister_handlers(leave).await?;
    let id = play.start("after", "{}").await?;
    play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    assert!(play.shop.calls_of(&id).is_empty());
    play.register_shop(ONE).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_paused_saga_starts_nothing_until_it_is_resumed() -> Result<()> {
    let play = absent(&format!("deadline: 500ms\n{ONE}")).await?;
    let id = play.start("a", "{}").await?;
    play.repair(play.act(&id, RepairAct::Pause, "")).await?;
    play.register_shop(ONE).await?;
    let paused = play.wait(&id, sagad::proto::WaitFor::Ended, std::time::Duration::from_millis(800)).await?;
    assert!(paused.paused && paused.failure.is_none(), "the deadline stands still: {paused:#?}");
    assert_eq!((paused.status(), step(&paused, "only").attempts), (SagaStatus::Running, 0));
    let resumed = play.repair(play.act(&id, RepairAct::Resume, "")).await?.saga.expect("a saga");
    assert!(!resumed.paused);
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_parked_saga_delays_nobody_else() -> Result<()> {
    let parked = absent(ONE).await?;
    let ids = (0..50).map(|n| n.to_string());
    for n in ids {
        parked.start(&n, "{}").await?;
    }
    let other = Play::on(DAEMON.daemon(), ONE, |_| Answer::done()).await?;
    assert_eq!(other.run("a", "{}").await?.status(), SagaStatus::Completed);
    parked.register_shop(ONE).await?;
    for n in 0..50 {
        assert_eq!(parked.ended(&parked.id(&n.to_string())).await?.status(), SagaStatus::Completed);
    }
    Ok(())
}
