//! Cancelling, and deadlines: neither overtakes a call in flight.

use anyhow::Result;
use sagad::proto::{CancelSagaRequest, CompensationStatus, SagaStatus, StepStatus};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const TWO: &str = "steps:
  - { name: one, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: two, action: { call: shop.slow }, compensation: { call: shop.undo } }
  - { name: three, action: { call: shop.do }, compensation: { call: shop.undo } }";

/// `shop.slow` is answered like this once the gate is open.
async fn slow(body: &str, answer: Answer) -> Result<(Play<'static>, Gate)> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "slow" => held.then(answer.clone()),
        _ => Answer::done(),
    })
    .await?;
    Ok((play, gate))
}

#[tokio::test]
async fn a_cancel_waits_for_the_call_in_flight_and_undoes_its_effect() -> Result<()> {
    let (play, gate) = slow(TWO, Answer::done()).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "two").await;
    let saga = play.cancel(&id).await?;
    assert_ne!(saga.status(), SagaStatus::Compensated);
    assert_eq!(play.called(&id), ["action one", "action two"], "nothing is undone behind its back");
    let cause = saga.failure.as_ref().expect("the wish is recorded at once");
    assert_eq!((cause.code.as_str(), cause.step.as_str()), ("CANCELLED", ""));
    assert!(cause.message.contains("a test wants it"), "{cause:?}");
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!(ended.status(), SagaStatus::Compensated);
    assert_eq!(play.called(&id), ["action one", "action two", "compensation two", "compensation one"]);
    assert_eq!(step(&ended, "three").status(), StepStatus::Pending);
    let words = play.words(&id).await?;
    assert!(words.contains(&"cancel_requested".to_owned()), "{words:?}");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_call_that_is_refused_is_not_undone() -> Result<()> {
    let (play, gate) = slow(TWO, Answer::Refused("NO", "no")).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "two").await;
    play.cancel(&id).await?;
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!((failure_code(&ended), step(&ended, "two").status()), ("CANCELLED", StepStatus::Failed));
    assert_eq!(play.called(&id), ["action one", "action two", "compensation one"]);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_call_without_an_answer_is_undone_after_its_timeout_and_not_repeated() -> Result<()> {
    let body = format!("defaults: {{ timeout: 200ms }}\n{TWO}");
    let (play, _gate) = slow(&body, Answer::done()).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "two").await;
    play.cancel(&id).await?;
    let ended = play.ended(&id).await?;
    let two = step(&ended, "two");
    assert_eq!((two.status(), two.attempts), (StepStatus::Unknown, 1));
    assert_eq!(two.compensation(), CompensationStatus::Done);
    Ok(())
}

#[tokio::test]
async fn cancelling_again_changes_nothing() -> Result<()> {
    let (play, gate) = slow(TWO, Answer::done()).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "two").await;
    let first = play.cancel(&id).await?;
    assert_eq!(play.cancel(&id).await?, first, "while it is cancelled");
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!(play.cancel(&id).await?, ended, "when it is undone");
    Ok(())
}

#[tokio::test]
async fn a_saga_undone_for_another_reason_takes_a_cancel_and_keeps_its_cause() -> Result<()> {
    let (play, gate) = slow(TWO, Answer::Refused("NO", "no")).await?;
    gate.open();
    let ended = play.run("a", "{}").await?;
    let after = play.cancel(&ended.saga_id).await?;
    assert_eq!(after, ended);
    assert_eq!(failure_code(&after), "NO");
    Ok(())
}

#[tokio::test]
async fn a_completed_saga_cannot_be_cancelled() -> Result<()> {
    let (play, gate) = slow(TWO, Answer::done()).await?;
    gate.open();
    let ended = play.run("a", "{}").await?;
    let refused = play.cancel(&ended.saga_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(play.get(&ended.saga_id).await?, ended);
    Ok(())
}

#[tokio::test]
async fn a_committed_saga_cannot_be_cancelled_while_its_side_work_runs() -> Result<()> {
    let body = "steps:
  - { name: order, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: mail, kind: retriable, action: { call: shop.slow } }";
    let (play, gate) = slow(body, Answer::done()).await?;
    let id = play.start("a", "{}").await?;
    assert!(play.committed(&id).await?.committed);
    assert_eq!(play.cancel(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    gate.open();
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn cancelling_nothing_is_not_found() -> Result<()> {
    let nobody = |id: &str| CancelSagaRequest { saga_id: id.to_owned(), reason: String::new() };
    let mut sagas = DAEMON.daemon().sagas();
    assert_eq!(sagas.cancel_saga(nobody("never-started")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(sagas.cancel_saga(nobody("")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(sagas.cancel_saga(nobody("a b")).await.unwrap_err().code(), Code::InvalidArgument);
    Ok(())
}

#[tokio::test]
async fn a_cancel_between_retries_undoes_what_may_have_run() -> Result<()> {
    let body = "defaults: { retry: { initial: 1h, max: 1h, elapsed: 0 } }
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.phase {
        "action" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| step(saga, "only").next_attempt_at.is_some()).await?;
    play.cancel(&id).await?;
    let ended = play.ended(&id).await?;
    assert_eq!(step(&ended, "only").status(), StepStatus::Unknown);
    assert_eq!(play.called(&id), ["action only", "compensation only"]);
    Ok(())
}

#[tokio::test]
async fn a_passed_deadline_undoes_the_saga_and_is_its_cause() -> Result<()> {
    let body = format!("deadline: 300ms\ndefaults: {{ timeout: 1s }}\n{TWO}");
    let (play, _gate) = slow(&body, Answer::done()).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "DEADLINE"));
    assert_eq!(saga.failure.as_ref().expect("a cause").step, "");
    assert_eq!(step(&saga, "two").compensation(), CompensationStatus::Done);
    assert_eq!(step(&saga, "three").attempts, 0);
    assert!(play.words(&saga.saga_id).await?.contains(&"deadline_passed".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_deadline_does_not_touch_a_saga_that_has_committed() -> Result<()> {
    let body = "deadline: 300ms
steps:
  - { name: order, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: mail, kind: retriable, action: { call: shop.mail, retry: { initial: 20ms, factor: 1, max: 20ms, jitter: 0 } } }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("mail", 1..=30) => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), step(&saga, "mail").attempts), (SagaStatus::Completed, 31));
    assert!(saga.failure.is_none());
    Ok(())
}

#[tokio::test]
async fn a_cancel_after_the_deadline_keeps_the_first_cause() -> Result<()> {
    let body = format!("deadline: 100ms\n{TWO}");
    let (play, gate) = slow(&body, Answer::done()).await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| saga.failure.is_some()).await?;
    play.cancel(&id).await?;
    gate.open();
    assert_eq!(failure_code(&play.ended(&id).await?), "DEADLINE");
    Ok(())
}
