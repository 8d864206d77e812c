//! The point of no return.

use anyhow::Result;
use sagad::proto::{
    CompensationStatus, Direction, RepairAct, RepairRequest, ResolveOutcome, SagaStatus, StepKind, StepStatus,
};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, blocks, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const PAY: &str = "steps:
  - { name: reserve, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: pay, kind: pivot, action: { call: shop.pay, timeout: 5s, retry: { initial: 1ms, max: 5ms, attempts: 3 } } }
  - { name: mail, kind: retriable, action: { call: shop.mail } }";

async fn paying(body: &str, answer: impl Fn(u32) -> Answer + Send + Sync + 'static) -> Result<Play<'static>> {
    Play::on(DAEMON.daemon(), body, move |call| match (call.action.as_str(), call.phase) {
        (_, "probe") => Answer::Status(Code::Unimplemented),
        ("pay", _) => answer(call.attempt),
        _ => Answer::done(),
    })
    .await
}

#[tokio::test]
async fn a_pivot_that_succeeds_commits_the_saga() -> Result<()> {
    let play = paying(PAY, |_| Answer::done()).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), step(&saga, "pay").kind()), (SagaStatus::Completed, StepKind::Pivot));
    let words = play.words(&saga.saga_id).await?;
    let at = |word: &str| words.iter().position(|w| w == word).expect(word);
    assert!(
        at("step_succeeded pay") < at("saga_committed") && at("saga_committed") < at("step_started mail")
    );
    Ok(())
}

#[tokio::test]
async fn a_refused_pivot_undoes_what_ran_before() -> Result<()> {
    let play = paying(PAY, |_| Answer::Refused("DECLINED", "no money")).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "DECLINED"));
    assert_eq!(play.called(&saga.saga_id), ["action reserve", "action pay", "compensation reserve"]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_pivot_blocks_and_undoes_nothing() -> Result<()> {
    let play = paying(PAY, |_| Answer::Status(Code::Unavailable)).await?;
    let id = play.start("a", "{}").await?;
    let saga = play.blocked(&id).await?;
    assert_eq!((blocks(&saga), saga.direction()), (vec!["action pay".to_owned()], Direction::Forward));
    assert_eq!((step(&saga, "pay").attempts, saga.committed), (3, false));
    assert_eq!(step(&saga, "reserve").compensation(), CompensationStatus::NotNeeded);
    assert!(!play.called(&id).iter().any(|call| call.starts_with("compensation")));
    assert_eq!(play.cancel(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    Ok(())
}

#[tokio::test]
async fn a_blocked_pivot_resolved_as_done_goes_forward_with_the_given_output() -> Result<()> {
    let body = format!("{PAY}\noutput: {{ receipt: \"${{steps.pay.receipt}}\" }}");
    let play = paying(&body, |_| Answer::Status(Code::Unavailable)).await?;
    let id = play.start("a", "{}").await?;
    play.blocked(&id).await?;
    let resolve = RepairRequest {
        outcome: ResolveOutcome::Done.into(),
        output_json: r#"{"receipt":9007199254740993}"#.to_owned(),
        ..play.act(&id, RepairAct::Resolve, "pay")
    };
    play.repair(resolve).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Completed, true));
    assert_eq!(saga.output_json, r#"{"receipt":9007199254740993}"#);
    assert_eq!(step(&saga, "pay").status(), StepStatus::Succeeded);
    assert!(saga.blocked.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_blocked_pivot_resolved_as_failed_turns_back() -> Result<()> {
    let play = paying(PAY, |_| Answer::Status(Code::Unavailable)).await?;
    let id = play.start("a", "{}").await?;
    play.blocked(&id).await?;
    let outcome = ResolveOutcome::Failed.into();
    play.repair(RepairRequest { outcome, ..play.act(&id, RepairAct::Resolve, "pay") }).await?;
    let saga = play.ended(&id).await?;
    assert_eq!(
        (saga.status(), failure_code(&saga), saga.uncertain),
        (SagaStatus::Compensated, "OPERATOR", true)
    );
    assert_eq!(play.called(&id).last().map(String::as_str), Some("compensation reserve"));
    assert_eq!(
        step(&saga, "pay").compensation(),
        CompensationStatus::NotNeeded,
        "a pivot is never compensated"
    );
    Ok(())
}

#[tokio::test]
async fn a_blocked_pivot_is_tried_again_when_told() -> Result<()> {
    let play =
        paying(PAY, |attempt| if attempt < 4 { Answer::Status(Code::Unavailable) } else { Answer::done() });
    let play = play.await?;
    let id = play.start("a", "{}").await?;
    play.blocked(&id).await?;
    play.repair(play.act(&id, RepairAct::RetryNow, "pay")).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Completed, false), "nothing was asserted");
    let keys: Vec<String> = play
        .shop
        .calls_of(&id)
        .into_iter()
        .filter(|c| c.phase == "action" && c.step == "pay")
        .map(|c| c.key)
        .collect();
    assert!(keys.len() == 4 && keys.iter().all(|key| *key == keys[0]));
    Ok(())
}

/// The first attempt is lost, the second refused, and probes are answered by `probe`.
async fn refused_after_unknown(probe: Answer) -> Result<(Play<'static>, String)> {
    let play =
        Play::on(DAEMON.daemon(), PAY, move |call| match (call.step.as_str(), call.phase, call.attempt) {
            ("pay", "probe", _) => probe.clone(),
            ("pay", _, 1) => Answer::Status(Code::DeadlineExceeded),
            ("pay", ..) => Answer::Refused("DECLINED", "no money, or no longer"),
            _ => Answer::done(),
        })
        .await?;
    let id = play.start("a", "{}").await?;
    Ok((play, id))
}

#[tokio::test]
async fn a_pivot_refused_after_an_unknown_attempt_blocks_when_no_probe_can_say_for_certain() -> Result<()> {
    let (play, id) = refused_after_unknown(Answer::Status(Code::Unimplemented)).await?;
    let saga = play.blocked(&id).await?;
    assert_eq!((blocks(&saga), saga.direction()), (vec!["action pay".to_owned()], Direction::Forward));
    assert!(saga.blocked[0].reason.contains("DECLINED"), "{:?}", saga.blocked);
    assert!(!play.called(&id).iter().any(|call| call.starts_with("compensation")));
    Ok(())
}

#[tokio::test]
async fn a_pivot_refused_after_an_unknown_attempt_turns_back_when_its_probe_refuses_too() -> Result<()> {
    let (play, id) = refused_after_unknown(Answer::Refused("NO_EFFECT", "it never happened")).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Compensated, false));
    assert_eq!(play.called(&id).last().map(String::as_str), Some("compensation reserve"));
    Ok(())
}

#[tokio::test]
async fn a_pivot_refused_after_an_unknown_attempt_holds_when_its_probe_finds_the_effect() -> Result<()> {
    let (play, id) = refused_after_unknown(Answer::with(r#"{"receipt":7}"#)).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Completed, false));
    assert_eq!(step(&saga, "pay").output_json, r#"{"receipt":7}"#);
    Ok(())
}

#[tokio::test]
async fn a_cancel_after_the_pivots_intent_is_refused() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = paying(PAY, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "pay").await;
    let before = play.get(&id).await?;
    let refused = play.cancel(&id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        play.repair(play.act(&id, RepairAct::Cancel, "")).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(play.get(&id).await?, before);
    gate.open();
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_deadline_after_the_pivots_intent_is_ignored() -> Result<()> {
    let body = format!(
        "deadline: 300ms\n{}",
        PAY.replace("attempts: 3", "attempts: 0, factor: 1").replace("5ms", "20ms")
    );
    let body = body.replace("initial: 1ms", "initial: 20ms");
    let play = paying(
        &body,
        |attempt| if attempt < 40 { Answer::Status(Code::Unavailable) } else { Answer::done() },
    );
    let saga = play.await?.run("a", "{}").await?;
    assert_eq!((saga.status(), step(&saga, "pay").attempts), (SagaStatus::Completed, 40));
    assert!(saga.failure.is_none());
    Ok(())
}

#[tokio::test]
async fn the_pivot_waits_for_every_compensatable_step_whatever_it_depends_on() -> Result<()> {
    let gate = Gate::closed();
    let slow = gate.clone();
    let body = "steps:
  - { name: pay, kind: pivot, after: [], action: { call: shop.pay } }
  - { name: reserve, after: [], action: { call: shop.slow }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "slow" => slow.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "reserve").await;
    assert_eq!(step(&play.get(&id).await?, "pay").attempts, 0);
    gate.open();
    play.ended(&id).await?;
    assert_eq!(play.called(&id), ["action reserve", "action pay"]);
    Ok(())
}

#[tokio::test]
async fn a_pivot_whose_input_cannot_be_evaluated_is_refused_with_nothing_called() -> Result<()> {
    let body = "steps:
  - { name: reserve, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: pay, kind: pivot, action: { call: shop.pay, input: { n: \"${1 / input.n}\" } } }";
    let play = paying(body, |_| Answer::done()).await?;
    let saga = play.run("a", r#"{"n":0}"#).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "EXPRESSION"));
    assert_eq!(play.called(&saga.saga_id), ["action reserve", "compensation reserve"]);
    Ok(())
}

#[tokio::test]
async fn a_blocked_retriable_step_can_be_skipped_and_the_saga_completes() -> Result<()> {
    let body = PAY.replace("call: shop.mail }", "call: shop.mail, retry: { initial: 1ms, attempts: 2 } }");
    let play = Play::on(DAEMON.daemon(), &body, |call| match call.action.as_str() {
        "mail" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let saga = play.blocked(&id).await?;
    assert_eq!((blocks(&saga), saga.committed), (vec!["action mail".to_owned()], true));
    play.repair(play.act(&id, RepairAct::Skip, "mail")).await?;
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), step(&ended, "mail").status()), (SagaStatus::Completed, StepStatus::Skipped));
    Ok(())
}
