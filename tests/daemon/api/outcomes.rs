//! What a participant's answer means: done, refused, unknown, and nothing else.

use std::time::Duration;

use anyhow::Result;
use sagad::proto::{
    CompensationStatus, HandlerAction, Protocol, RegisterHandlersRequest, SagaStatus, StepStatus,
};
use tonic::Code;

use crate::support::participant::{Answer, Call};
use crate::support::play::{Play, failure_code, step, unique};
use crate::support::shared::Shared;
use crate::support::wire::Babbler;

static DAEMON: Shared = Shared::new();

/// Two attempts, then the outcome of the first step stays unknown.
const TWICE: &str = "defaults: { timeout: 2s, retry: { initial: 1ms, max: 1ms, attempts: 2, elapsed: 30s } }
steps:
  - { name: only, action: { call: shop.do }, compensation: { call: shop.undo, retry: { initial: 1ms, max: 5ms } } }";

/// A saga whose only action is always answered like this.
async fn always(answer: Answer) -> Result<(Play<'static>, sagad::proto::Saga)> {
    let play = Play::on(DAEMON.daemon(), TWICE, move |call| match call.phase {
        "action" => answer.clone(),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    Ok((play, saga))
}

/// The action was attempted twice, is unknown and was undone.
fn unknown_and_undone(saga: &sagad::proto::Saga, why: &str) {
    assert_eq!(saga.status(), SagaStatus::Compensated, "{why}: {saga:#?}");
    let only = step(saga, "only");
    assert_eq!((only.status(), only.attempts), (StepStatus::Unknown, 2), "{why}");
    assert_eq!(only.compensation(), CompensationStatus::Done, "{why}");
    let failure = saga.failure.as_ref().expect("a cause");
    assert_eq!((failure.step.as_str(), failure.code.as_str()), ("only", "UNKNOWN"), "{why}");
    assert!(!failure.message.is_empty(), "{why}");
    assert!(only.output_json.is_empty(), "{why}");
}

#[tokio::test]
async fn every_error_status_is_unknown_and_never_a_refusal() -> Result<()> {
    let codes = (1..=16).map(Code::from_i32);
    let runs = codes.map(|code| async move { (code, always(Answer::Status(code)).await) });
    for (code, run) in futures::future::join_all(runs).await {
        unknown_and_undone(&run?.1, &format!("{code:?}"));
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_without_an_outcome_is_unknown() -> Result<()> {
    let (_play, saga) = always(Answer::Nothing).await?;
    unknown_and_undone(&saga, "nothing set");
    Ok(())
}

#[tokio::test]
async fn an_output_that_is_not_acceptable_json_is_unknown() -> Result<()> {
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let huge = format!("\"{}\"", "x".repeat(1024 * 1024));
    let outputs =
        ["{", "nothing", "{\"a\":1,\"a\":2}", "{\"n\":18446744073709551616}", "{} {}", &deep, &huge, "NaN"];
    let runs = outputs.map(|output| async move { (output, always(Answer::with(output)).await) });
    for (output, run) in futures::future::join_all(runs).await {
        unknown_and_undone(&run?.1, output.get(..40).unwrap_or(output));
    }
    Ok(())
}

#[tokio::test]
async fn a_reply_larger_than_any_message_may_be_is_unknown() -> Result<()> {
    let (play, saga) = always(Answer::Done(format!("\"{}\"", "x".repeat(20 * 1024 * 1024)))).await?;
    unknown_and_undone(&saga, "20 MiB");
    assert_eq!(play.get(&saga.saga_id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_message_are_unknown_in_either_direction() -> Result<()> {
    // Not a message; a text that is not UTF-8; an outcome of another wire type.
    for message in [&b"\xff\xff\xff\xff\xff"[..], b"\x0a\x04\x0a\x02\xc3\x28", b"\x08\x01"] {
        let babbler = Babbler::saying(message).await?;
        let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
        let named = |name: &str| HandlerAction { name: name.to_owned(), ..HandlerAction::default() };
        let request = RegisterHandlersRequest {
            participant: play.participant.clone(),
            endpoint: format!("http://{}", babbler.address),
            protocol: Protocol::Sagad.into(),
            actions: vec![named("do"), named("undo")],
            ..RegisterHandlersRequest::default()
        };
        play.daemon.registry().register_handlers(request).await?;
        play.define(
            "defaults: { retry: { initial: 1ms, max: 1ms, attempts: 2 } }
steps:
  - { name: only, action: { call: shop.do }, compensation: { call: shop.undo, retry: { initial: 1ms, attempts: 3 } } }",
        )
        .await?;
        let id = play.start("a", "{}").await?;
        let saga = play.blocked(&id).await?;
        let only = step(&saga, "only");
        assert_eq!((only.status(), only.attempts, only.compensation_attempts), (StepStatus::Unknown, 2, 3));
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_unknown_not_failed() -> Result<()> {
    let body = TWICE.replace("timeout: 2s", "timeout: 100ms");
    let play = Play::on(DAEMON.daemon(), &body, |call| match call.phase {
        "action" => Answer::Hang,
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    unknown_and_undone(&saga, "a timeout");
    assert!(play.shop.calls_of(&saga.saga_id).iter().all(|call| call.has_deadline));
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_final_and_its_words_are_kept() -> Result<()> {
    let (play, saga) = always(Answer::Refused("OUT_OF_STOCK", "timeout: 0 left, 500 UNAVAILABLE")).await?;
    assert_eq!(saga.status(), SagaStatus::Compensated);
    let only = step(&saga, "only");
    assert_eq!((only.status(), only.attempts), (StepStatus::Failed, 1));
    assert_eq!(only.compensation(), CompensationStatus::NotNeeded);
    let failure = saga.failure.as_ref().expect("a cause");
    assert_eq!(
        (failure.step.as_str(), failure.code.as_str(), failure.message.as_str()),
        ("only", "OUT_OF_STOCK", "timeout: 0 left, 500 UNAVAILABLE")
    );
    assert_eq!(play.called(&saga.saga_id), ["action only"]);
    Ok(())
}

#[tokio::test]
async fn a_refusal_without_words_still_says_something() -> Result<()> {
    let (_play, saga) = always(Answer::Refused("", "")).await?;
    let failure = saga.failure.as_ref().expect("a cause");
    assert!(!failure.code.is_empty() && !failure.message.is_empty(), "{failure:?}");
    Ok(())
}

#[tokio::test]
async fn superseded_counts_as_refused() -> Result<()> {
    let (play, saga) = always(Answer::Superseded).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "SUPERSEDED"));
    assert_eq!(play.called(&saga.saga_id), ["action only"]);
    Ok(())
}

#[tokio::test]
async fn superseded_to_a_compensation_is_unknown_and_asked_again() -> Result<()> {
    let body = "steps:
  - { name: first, action: { call: shop.do }, compensation: { call: shop.undo, retry: { initial: 1ms } } }
  - { name: second, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("no", _) => Answer::Refused("NO", "no"),
        ("undo", 1) => Answer::Superseded,
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(step(&saga, "first").compensation_attempts, 2);
    assert_eq!(saga.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn an_empty_output_is_null() -> Result<()> {
    let body = "steps:
  - { name: first, action: { call: shop.do }, compensation: none }
  - { name: second, action: { call: shop.do, input: { it: \"${steps.first}\", deeper: \"${steps.first.a.b}\" } }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::with("")).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(step(&saga, "first").output_json, "null");
    let calls = play.shop.calls_of(&saga.saga_id);
    let input: serde_json::Value = serde_json::from_str(&calls[1].input)?;
    assert_eq!(input, serde_json::json!({"it": null, "deeper": null}));
    Ok(())
}

#[tokio::test]
async fn outputs_may_be_any_json_value() -> Result<()> {
    for output in ["7", "\"text\"", "[1,2]", "true", "null", "{\"a\":9007199254740993}"] {
        let (_play, saga) = always(Answer::with(output)).await?;
        assert_eq!(
            (saga.status(), step(&saga, "only").output_json.as_str()),
            (SagaStatus::Completed, output)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_call_carries_all_that_the_participant_needs() -> Result<()> {
    let body = "steps:
  - name: first
    action: { call: shop.do, input: { n: \"${input.n}\" } }
    compensation: { call: shop.undo, input: { back: \"${input.n}\" }, retry: { initial: 1ms } }
  - { name: second, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("no", _) => Answer::Refused("NO", "no"),
        (_, 1) => Answer::Status(Code::Unavailable),
        ("do", _) => Answer::with(r#"{"order":7}"#),
        _ => Answer::done(),
    })
    .await?;
    let mut request = play.request("a", r#"{"n":1}"#);
    request.labels.insert("region".to_owned(), "kr".to_owned());
    let id = play.send(request).await?.saga.expect("a saga").saga_id;
    play.ended(&id).await?;
    let calls = play.shop.calls_of(&id);
    let of = |action: &str| -> Vec<&Call> { calls.iter().filter(|call| call.action == action).collect() };
    let (actions, undos) = (of("do"), of("undo"));
    assert_eq!((actions.len(), undos.len()), (2, 2));
    assert_eq!((actions[0].attempt, actions[1].attempt), (1, 2));
    for pair in [&actions, &undos] {
        assert_eq!(
            (&pair[0].key, &pair[0].input, &pair[0].token),
            (&pair[1].key, &pair[1].input, &pair[1].token)
        );
        assert!(pair[0].key.len() <= 64 && pair[0].key.is_ascii() && !pair[0].token.is_empty());
    }
    assert_ne!((&actions[0].key, &actions[0].token), (&undos[0].key, &undos[0].token));
    assert_eq!(actions[0].input, r#"{"n":1}"#);
    let undo = undos[0];
    assert_eq!((undo.input.as_str(), undo.step.as_str()), (r#"{"back":1}"#, "first"));
    assert_eq!((&undo.action_key, undo.action_input.as_str()), (&actions[0].key, r#"{"n":1}"#));
    assert_eq!(undo.action_output, r#"{"order":7}"#);
    assert!(calls.iter().all(|call| call.labels.get("region").is_some_and(|value| value == "kr")));
    assert!(calls.iter().all(|call| call.has_deadline && call.epoch >= 1));
    Ok(())
}

#[tokio::test]
async fn keys_differ_between_sagas_steps_and_phases() -> Result<()> {
    let body = "steps:
  - { name: a, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: a-b, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: last, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "no" => Answer::Refused("NO", "no"),
        _ => Answer::done(),
    })
    .await?;
    for id in ["x", "x/a", "x/a/b"] {
        play.run(id, "{}").await?;
    }
    let mut keys: Vec<String> = play.shop.calls().iter().map(|call| call.key.clone()).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!((count, keys.len()), (15, 15));
    Ok(())
}

#[tokio::test]
async fn an_effect_whose_answer_was_lost_is_found_by_its_key() -> Result<()> {
    let (play, saga) = always(Answer::Status(Code::Unavailable)).await?;
    let calls = play.shop.calls_of(&saga.saga_id);
    let undo = calls.iter().find(|call| call.phase == "compensation").expect("a compensation");
    assert_eq!((&undo.action_key, undo.action_output.as_str()), (&calls[0].key, ""));
    Ok(())
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_makes_the_outcome_unknown_or_parks() -> Result<()> {
    let body = "deadline: 700ms
defaults: { timeout: 200ms, retry: { initial: 1ms, max: 20ms, attempts: 0, elapsed: 0 } }
steps:
  - { name: only, action: { call: shop.do }, compensation: none }";
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let request = RegisterHandlersRequest {
        participant: play.participant.clone(),
        endpoint: "http://127.0.0.1:1".to_owned(),
        protocol: Protocol::Sagad.into(),
        actions: vec![HandlerAction { name: "do".to_owned(), ..HandlerAction::default() }],
        ..RegisterHandlersRequest::default()
    };
    play.daemon.registry().register_handlers(request).await?;
    play.define(body).await?;
    let id = play.start(&unique("a"), "{}").await?;
    let saga = play.wait(&id, sagad::proto::WaitFor::Ended, Duration::from_secs(20)).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "DEADLINE"));
    assert!(step(&saga, "only").status() != StepStatus::Failed, "no answer is never a refusal");
    Ok(())
}
