//! Going backward: what is undone, in which order, with what.

use anyhow::Result;
use sagad::proto::{CompensationStatus, Direction, SagaStatus, StepStatus};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, blocks, failure_code, statuses, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// Everything is done but `shop.no`, which is refused.
fn but_no(call: &crate::support::participant::Call) -> Answer {
    if call.action == "no" { Answer::Refused("NO", "no") } else { Answer::done() }
}

#[tokio::test]
async fn what_ran_is_undone_last_first() -> Result<()> {
    let body = "steps:
  - { name: one, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: two, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: three, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: four, action: { call: shop.no }, compensation: { call: shop.undo } }
  - { name: five, action: { call: shop.do }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, but_no).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), saga.direction()), (SagaStatus::Compensated, Direction::Backward));
    let undone = &play.called(&saga.saga_id)[4..];
    assert_eq!(undone, ["compensation three", "compensation two", "compensation one"]);
    let done = StepStatus::Succeeded;
    assert_eq!(statuses(&saga), [done, done, done, StepStatus::Failed, StepStatus::Pending]);
    assert_eq!(step(&saga, "five").attempts, 0);
    assert!(!saga.committed && !saga.uncertain && saga.output_json.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_graph_is_undone_in_reverse_order_of_dependence() -> Result<()> {
    let body = "steps:
  - { name: root, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: left, after: [root], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: right, after: [root], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: leaf, after: [right], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: join, after: [left, leaf], action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, but_no).await?;
    let saga = play.run("a", "{}").await?;
    let calls = play.called(&saga.saga_id);
    let at =
        |step: &str| calls.iter().position(|call| *call == format!("compensation {step}")).expect("undone");
    assert!(at("leaf") < at("right") && at("right") < at("root") && at("left") < at("root"), "{calls:?}");
    Ok(())
}

#[tokio::test]
async fn independent_branches_are_undone_at_once() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let body = "steps:
  - { name: a, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: b, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: c, after: [a, b], action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.phase {
        "compensation" => held.then(Answer::done()),
        _ => but_no(call),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.phase == "compensation" && call.step == "a").await;
    play.shop.seen(|call| call.phase == "compensation" && call.step == "b").await;
    gate.open();
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn a_branch_in_flight_is_awaited_while_others_are_undone() -> Result<()> {
    let gate = Gate::closed();
    let slow = gate.clone();
    let body = "steps:
  - { name: first, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: slow, after: [], action: { call: shop.slow }, compensation: { call: shop.undo } }
  - { name: bad, after: [first], action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "slow" => slow.then(Answer::done()),
        _ => but_no(call),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let meanwhile = play.until(&id, |s| step(s, "first").compensation() == CompensationStatus::Done).await?;
    assert_eq!(meanwhile.status(), SagaStatus::Compensating);
    assert_eq!(step(&meanwhile, "slow").status(), StepStatus::Running);
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!(step(&ended, "slow").compensation(), CompensationStatus::Done);
    assert_eq!(step(&ended, "slow").status(), StepStatus::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_refusal_after_an_unknown_attempt_is_compensated() -> Result<()> {
    let body = "defaults: { retry: { initial: 1ms } }
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.phase, call.attempt) {
        ("action", 1) => Answer::Status(Code::DeadlineExceeded),
        ("action", _) => Answer::Refused("OUT_OF_STOCK", "the first attempt took the last one"),
        ("probe", _) => Answer::Status(Code::Unimplemented),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "OUT_OF_STOCK"));
    assert_eq!(step(&saga, "only").compensation(), CompensationStatus::Done, "{saga:#?}");
    Ok(())
}

#[tokio::test]
async fn compensate_on_refusal_undoes_a_refused_step_too() -> Result<()> {
    let body = "steps:
  - { name: only, compensate_on_refusal: true, action: { call: shop.no }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, but_no).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(play.called(&saga.saga_id), ["action only", "compensation only"]);
    assert_eq!(step(&saga, "only").compensation(), CompensationStatus::Done);
    Ok(())
}

#[tokio::test]
async fn a_step_with_compensation_none_stays_and_the_saga_is_compensated() -> Result<()> {
    let body = "steps:
  - { name: looked, action: { call: shop.look }, compensation: none }
  - { name: took, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, but_no).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(saga.status(), SagaStatus::Compensated);
    assert_eq!(step(&saga, "looked").compensation(), CompensationStatus::NotNeeded);
    assert_eq!(
        play.called(&saga.saga_id),
        ["action looked", "action took", "action bad", "compensation took"]
    );
    Ok(())
}

#[tokio::test]
async fn a_compensation_without_input_gets_the_actions_own() -> Result<()> {
    let body = "steps:
  - { name: took, action: { call: shop.do, input: { n: \"${input.n}\" } }, compensation: { call: shop.undo } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, but_no).await?;
    let saga = play.run("a", r#"{"n":9007199254740993}"#).await?;
    let calls = play.shop.calls_of(&saga.saga_id);
    assert_eq!(calls[2].input, calls[0].input);
    assert_eq!(calls[2].input, r#"{"n":9007199254740993}"#);
    Ok(())
}

#[tokio::test]
async fn a_compensation_may_read_what_its_step_gave() -> Result<()> {
    let body = "defaults: { retry: { initial: 1ms, attempts: 1 } }
steps:
  - { name: took, action: { call: shop.do }, compensation: { call: shop.undo, input: { id: \"${steps.took.id}\" } } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play =
        Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.saga.ends_with("lost")) {
            ("do", true) => Answer::Status(Code::Unavailable),
            ("do", false) => Answer::with(r#"{"id":7}"#),
            _ => but_no(call),
        })
        .await?;
    let known = play.run("known", "{}").await?;
    assert_eq!(play.shop.calls_of(&known.saga_id)[2].input, r#"{"id":7}"#);
    let lost = play.run("lost", "{}").await?;
    let undo = play.shop.calls_of(&lost.saga_id).into_iter().find(|call| call.phase == "compensation");
    assert_eq!(undo.expect("it is undone").input, r#"{"id":null}"#, "the output is null when nobody knows");
    Ok(())
}

#[tokio::test]
async fn a_refused_compensation_blocks_at_once_and_holds_back_only_what_must_wait() -> Result<()> {
    let body = "steps:
  - { name: root, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: stuck, after: [root], action: { call: shop.do }, compensation: { call: shop.stuck } }
  - { name: free, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: bad, after: [stuck, free], action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "stuck" => Answer::Refused("CLOSED", "the account is closed"),
        _ => but_no(call),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let saga = play.until(&id, |s| {
        s.status() == SagaStatus::Blocked && step(s, "free").compensation() == CompensationStatus::Done
    });
    let saga = saga.await?;
    assert_eq!(blocks(&saga), ["compensation stuck"]);
    assert!(saga.blocked[0].reason.contains("the account is closed") && saga.blocked[0].since.is_some());
    assert_eq!(saga.direction(), Direction::Backward);
    let stuck = step(&saga, "stuck");
    assert_eq!((stuck.compensation(), stuck.compensation_attempts), (CompensationStatus::Blocked, 1));
    let cause = stuck.failure.as_ref().expect("its own cause");
    assert_eq!((cause.code.as_str(), cause.message.as_str()), ("CLOSED", "the account is closed"));
    assert_eq!(step(&saga, "root").compensation(), CompensationStatus::Pending, "it must wait for `stuck`");
    Ok(())
}

#[tokio::test]
async fn a_compensation_out_of_attempts_blocks() -> Result<()> {
    let body = "steps:
  - { name: took, action: { call: shop.do }, compensation: { call: shop.undo, retry: { initial: 1ms, attempts: 3 } } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "undo" => Answer::Status(Code::Unavailable),
        _ => but_no(call),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let saga = play.blocked(&id).await?;
    assert_eq!(
        (blocks(&saga), step(&saga, "took").compensation_attempts),
        (vec!["compensation took".to_owned()], 3)
    );
    assert_eq!(play.shop.calls_of(&id).len(), 5, "no automatic retry follows");
    Ok(())
}

#[tokio::test]
async fn a_compensation_input_that_cannot_be_evaluated_blocks_with_nothing_called() -> Result<()> {
    let body = "steps:
  - { name: took, action: { call: shop.do }, compensation: { call: shop.undo, input: { n: \"${1 / input.n}\" } } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, but_no).await?;
    let id = play.start("a", r#"{"n":0}"#).await?;
    let saga = play.blocked(&id).await?;
    assert_eq!(blocks(&saga), ["compensation took"]);
    assert_eq!(play.called(&id), ["action took", "action bad"]);
    Ok(())
}

#[tokio::test]
async fn the_first_cause_is_kept_when_more_goes_wrong() -> Result<()> {
    let gate = Gate::closed();
    let late = gate.clone();
    let body = "steps:
  - { name: first, after: [], action: { call: shop.no }, compensation: { call: shop.undo } }
  - { name: second, after: [], action: { call: shop.late }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "late" => late.then(Answer::Refused("LATER", "the second cause")),
        _ => but_no(call),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| saga.failure.is_some()).await?;
    gate.open();
    let saga = play.ended(&id).await?;
    let failure = saga.failure.as_ref().expect("a cause");
    assert_eq!((failure.step.as_str(), failure.code.as_str()), ("first", "NO"));
    assert_eq!(step(&saga, "second").failure.as_ref().expect("its own").code, "LATER");
    Ok(())
}
