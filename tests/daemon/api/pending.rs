//! Answers of "still at work", probes, and steps that are finished through the API.

use std::time::Duration;

use anyhow::Result;
use sagad::proto::complete_step_request::Outcome;
use sagad::proto::{CompensationStatus, CompleteStepRequest, Done, Pending, Refused, SagaStatus, StepStatus};
use tonic::{Code, Status};

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const SLOW: &str = "steps:
  - { name: first, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: work, pending: { interval: 1h, max: 2h }, action: { call: shop.work }, compensation: { call: shop.undo } }";

/// `shop.work` stays pending; probes say so too.
async fn working() -> Result<Play<'static>> {
    Play::on(DAEMON.daemon(), SLOW, |call| match (call.action.as_str(), call.phase) {
        ("work", _) => Answer::Pending(None),
        _ => Answer::done(),
    })
    .await
}

fn done(json: &str) -> Outcome {
    Outcome::Done(Done { output_json: json.to_owned() })
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused(Refused { code: code.to_owned(), message: "no".to_owned() })
}

async fn complete(play: &Play<'_>, token: &str, outcome: Option<Outcome>) -> Result<(), Status> {
    let request = CompleteStepRequest { token: token.to_owned(), outcome };
    play.daemon.registry().complete_step(request).await.map(drop)
}

/// Starts a saga and waits until its work is pending: its id and the work's token.
async fn pending(play: &Play<'_>, end: &str) -> Result<(String, String)> {
    let id = play.start(end, "{}").await?;
    let call = play.shop.seen(|call| call.saga == id && call.step == "work").await;
    play.until(&id, |saga| step(saga, "work").next_attempt_at.is_some()).await?;
    Ok((id, call.token))
}

#[tokio::test]
async fn a_pending_step_is_finished_by_its_token() -> Result<()> {
    let play = working().await?;
    let (id, token) = pending(&play, "a").await?;
    let saga = play.get(&id).await?;
    assert_eq!((step(&saga, "work").status(), step(&saga, "work").attempts), (StepStatus::Running, 1));
    complete(&play, &token, Some(done(r#"{"n":9007199254740993}"#))).await?;
    let ended = play.ended(&id).await?;
    assert_eq!(ended.status(), SagaStatus::Completed);
    assert_eq!(step(&ended, "work").output_json, r#"{"n":9007199254740993}"#);
    assert_eq!(play.shop.calls_of(&id).len(), 2, "nobody asked again");
    Ok(())
}

#[tokio::test]
async fn a_pending_step_is_refused_by_its_token() -> Result<()> {
    let play = working().await?;
    let (id, token) = pending(&play, "a").await?;
    complete(&play, &token, Some(refused("EMPTY"))).await?;
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), failure_code(&ended)), (SagaStatus::Compensated, "EMPTY"));
    assert_eq!(step(&ended, "work").compensation(), CompensationStatus::NotNeeded);
    Ok(())
}

#[tokio::test]
async fn the_same_completion_again_is_fine_and_another_one_is_not() -> Result<()> {
    let play = working().await?;
    let (id, token) = pending(&play, "a").await?;
    complete(&play, &token, Some(done(r#"{"a":1,"b":2}"#))).await?;
    let ended = play.ended(&id).await?;
    complete(&play, &token, Some(done(r#"{ "b": 2, "a": 1 }"#))).await?;
    for other in [done(r#"{"a":2}"#), done(""), refused("NO")] {
        let status = complete(&play, &token, Some(other)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
    let after = play.get(&id).await?;
    assert_eq!(after.status(), SagaStatus::Completed);
    assert_eq!(step(&after, "work"), step(&ended, "work"));
    Ok(())
}

#[tokio::test]
async fn an_unknown_token_is_not_found_and_an_empty_one_invalid() -> Result<()> {
    let play = working().await?;
    let (id, token) = pending(&play, "a").await?;
    for wrong in ["no-such-token", &format!("{token}x"), &token[..token.len() - 1]] {
        let status = complete(&play, wrong, Some(done("{}"))).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{wrong}");
    }
    assert_eq!(complete(&play, "", Some(done("{}"))).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(step(&play.get(&id).await?, "work").status(), StepStatus::Running);
    Ok(())
}

#[tokio::test]
async fn a_completion_without_a_definite_outcome_is_invalid() -> Result<()> {
    let play = working().await?;
    let (id, token) = pending(&play, "a").await?;
    let useless =
        [None, Some(Outcome::Pending(Pending::default())), Some(done("{")), Some(done("{\"a\":1,\"a\":2}"))];
    for outcome in useless {
        let status = complete(&play, &token, outcome.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{outcome:?}");
    }
    assert_eq!(step(&play.get(&id).await?, "work").status(), StepStatus::Running);
    Ok(())
}

#[tokio::test]
async fn pending_is_checked_by_a_probe_that_uses_up_no_attempt() -> Result<()> {
    let body = SLOW.replace("interval: 1h", "interval: 5ms");
    let play = Play::on(DAEMON.daemon(), &body, |call| match (call.action.as_str(), call.phase) {
        ("work", "probe") if call.attempt >= 20 => Answer::with(r#"{"ready":true}"#),
        ("work", _) => Answer::Pending(Some(Duration::from_millis(1))),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    assert_eq!(
        (step(&saga, "work").attempts, step(&saga, "work").output_json.as_str()),
        (1, r#"{"ready":true}"#)
    );
    let calls = play.shop.calls_of(&saga.saga_id);
    let probes: Vec<_> = calls.iter().filter(|call| call.phase == "probe").collect();
    assert_eq!(probes.len(), 20);
    let action = calls.iter().find(|call| call.step == "work").expect("the action");
    assert!(
        probes
            .iter()
            .all(|p| p.action_key == action.key && p.action_input == action.input && p.token == action.token)
    );
    Ok(())
}

#[tokio::test]
async fn the_participants_own_interval_wins() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), SLOW, |call| match (call.action.as_str(), call.phase) {
        ("work", "action") => Answer::Pending(Some(Duration::from_millis(1))),
        _ => Answer::done(),
    })
    .await?;
    assert_eq!(play.run("a", "{}").await?.status(), SagaStatus::Completed, "and not after an hour");
    Ok(())
}

#[tokio::test]
async fn where_there_is_no_probe_the_action_is_asked_again_with_its_key() -> Result<()> {
    let body = SLOW.replace("interval: 1h", "interval: 2ms");
    let play = Play::on(DAEMON.daemon(), &body, |call| match (call.action.as_str(), call.phase) {
        ("work", "probe") => Answer::Status(Code::Unimplemented),
        ("work", _) if call.attempt < 4 => Answer::Pending(None),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    let calls = play.shop.calls_of(&saga.saga_id);
    let works: Vec<_> = calls.iter().filter(|call| call.step == "work" && call.phase == "action").collect();
    assert_eq!(works.len(), 4);
    assert!(works.iter().all(|call| call.key == works[0].key));
    Ok(())
}

#[tokio::test]
async fn a_named_probe_is_called_instead_of_the_action() -> Result<()> {
    let body = "steps:
  - name: work
    pending: { interval: 2ms }
    probe: { call: shop.look, input: { about: \"${input.n}\" } }
    action: { call: shop.work }
    compensation: { call: shop.undo }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.phase {
        "probe" => Answer::with(r#"{"found":1}"#),
        _ => Answer::Pending(None),
    })
    .await?;
    let saga = play.run("a", r#"{"n":7}"#).await?;
    let calls = play.shop.calls_of(&saga.saga_id);
    assert_eq!(
        (calls[1].phase, calls[1].action.as_str(), calls[1].input.as_str()),
        ("probe", "look", r#"{"about":7}"#)
    );
    assert_eq!(step(&saga, "work").output_json, r#"{"found":1}"#);
    Ok(())
}

#[tokio::test]
async fn pending_beyond_its_maximum_is_unknown_and_undone() -> Result<()> {
    let body = SLOW.replace("interval: 1h, max: 2h", "interval: 10ms, max: 150ms");
    let play = Play::on(DAEMON.daemon(), &body, |call| match (call.action.as_str(), call.phase) {
        ("work", _) => Answer::Pending(None),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "UNKNOWN"));
    assert_eq!(step(&saga, "work").status(), StepStatus::Unknown);
    assert_eq!(step(&saga, "work").compensation(), CompensationStatus::Done);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_pending_step_is_probed_once_and_then_undone() -> Result<()> {
    let play = working().await?;
    let (id, token) = pending(&play, "a").await?;
    play.cancel(&id).await?;
    let ended = play.ended(&id).await?;
    assert_eq!(
        (ended.status(), step(&ended, "work").status()),
        (SagaStatus::Compensated, StepStatus::Unknown)
    );
    assert_eq!(
        play.called(&id),
        ["action first", "action work", "probe work", "compensation work", "compensation first"]
    );
    let late = complete(&play, &token, Some(done("{}"))).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    let after = play.get(&id).await?;
    assert_eq!(
        (after.status(), after.uncertain),
        (SagaStatus::Compensated, true),
        "a late success is recorded"
    );
    assert!(play.words(&id).await?.contains(&"late_reply work".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_cancelled_pending_step_whose_probe_knows_is_settled_by_it() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), SLOW, |call| match (call.action.as_str(), call.phase) {
        ("work", "probe") => Answer::Refused("NEVER", "it never happened and never will"),
        ("work", _) => Answer::Pending(None),
        _ => Answer::done(),
    })
    .await?;
    let (id, _) = pending(&play, "a").await?;
    play.cancel(&id).await?;
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), failure_code(&ended)), (SagaStatus::Compensated, "CANCELLED"));
    assert_eq!(play.called(&id), ["action first", "action work", "probe work", "compensation first"]);
    Ok(())
}

#[tokio::test]
async fn a_pending_compensation_is_finished_by_its_own_token() -> Result<()> {
    let body = "steps:
  - { name: took, pending: { interval: 1h }, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "no" => Answer::Refused("NO", "no"),
        "undo" => Answer::Pending(None),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let undo = play.shop.seen(|call| call.phase == "compensation").await;
    let action = play.shop.seen(|call| call.phase == "action").await;
    play.until(&id, |saga| step(saga, "took").next_attempt_at.is_some()).await?;
    complete(&play, &action.token, Some(done("{}"))).await?;
    assert_eq!(step(&play.get(&id).await?, "took").compensation(), CompensationStatus::Running);
    complete(&play, &undo.token, Some(done("{}"))).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn a_completion_that_overtakes_the_pending_answer_counts() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), SLOW, move |call| match (call.action.as_str(), call.phase) {
        ("work", "action") => held.then(Answer::Pending(None)),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let call = play.shop.seen(|call| call.step == "work").await;
    complete(&play, &call.token, Some(done(r#"{"early":1}"#))).await?;
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!(
        (ended.status(), step(&ended, "work").output_json.as_str()),
        (SagaStatus::Completed, r#"{"early":1}"#)
    );
    Ok(())
}

#[tokio::test]
async fn a_completion_of_a_step_that_is_compensated_by_a_timeout_is_late() -> Result<()> {
    let body = "defaults: { timeout: 100ms, retry: { initial: 1ms, attempts: 1 } }
steps: [{ name: work, action: { call: shop.work }, compensation: { call: shop.undo } }]";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.phase {
        "action" => Answer::Hang,
        _ => Answer::done(),
    })
    .await?;
    let ended = play.run("a", "{}").await?;
    assert_eq!((ended.status(), ended.uncertain), (SagaStatus::Compensated, false));
    let token = play.shop.calls_of(&ended.saga_id)[0].token.clone();
    let late = complete(&play, &token, Some(done("{}"))).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(play.get(&ended.saga_id).await?.uncertain);
    Ok(())
}
