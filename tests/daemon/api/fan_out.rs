//! One step over a list.

use std::time::Duration;

use anyhow::Result;
use sagad::proto::{CompensationStatus, SagaStatus, StepStatus, WaitFor};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, failure_code, statuses, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const EACH: &str = "steps:
  - name: take
    for_each: ${input.items}
    concurrency: 3
    action: { call: shop.take, input: { it: \"${item}\", at: \"${index}\" } }
    compensation: { call: shop.back, input: { it: \"${item}\", at: \"${index}\" } }
  - { name: last, action: { call: shop.last, input: { all: \"${steps.take}\" } }, compensation: none }";

fn items(count: usize) -> String {
    format!("{{\"items\":{:?}}}", (0..count).collect::<Vec<_>>())
}

#[tokio::test]
async fn each_item_is_an_instance_of_its_own_and_their_order_is_kept() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), EACH, |call| Answer::Done(call.input.clone())).await?;
    let saga = play.run("a", r#"{"items":["x",{"n":9007199254740993},null]}"#).await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    let names: Vec<&str> = saga.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["take/0", "take/1", "take/2", "last"]);
    assert_eq!(step(&saga, "take/1").input_json, r#"{"at":1,"it":{"n":9007199254740993}}"#);
    let all: serde_json::Value = serde_json::from_str(&step(&saga, "last").input_json)?;
    let expected = serde_json::json!({"all": [
        {"at": 0, "it": "x"}, {"at": 1, "it": {"n": 9_007_199_254_740_993_u64}}, {"at": 2, "it": null}
    ]});
    assert_eq!(all, expected);
    let calls = play.shop.calls_of(&saga.saga_id);
    let mut keys: Vec<&str> = calls.iter().map(|call| call.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4);
    Ok(())
}

#[tokio::test]
async fn an_empty_list_succeeds_at_once() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), EACH, |_| Answer::done()).await?;
    let saga = play.run("a", r#"{"items":[]}"#).await?;
    assert_eq!((saga.status(), saga.steps.len()), (SagaStatus::Completed, 1));
    assert_eq!(step(&saga, "last").input_json, r#"{"all":[]}"#);
    assert_eq!(play.called(&saga.saga_id), ["action last"]);
    Ok(())
}

#[tokio::test]
async fn what_is_no_list_fails_the_step_with_nothing_called() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), EACH, |_| Answer::done()).await?;
    for (n, input) in
        [r#"{"items":null}"#, "{}", r#"{"items":{"a":1}}"#, r#"{"items":"abc"}"#, r#"{"items":3}"#]
            .into_iter()
            .enumerate()
    {
        let saga = play.run(&n.to_string(), input).await?;
        assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "EXPRESSION"), "{input}");
        assert!(play.shop.calls_of(&saga.saga_id).is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn no_more_than_the_cap_are_in_flight_in_either_direction() -> Result<()> {
    let (forward, backward) = (Gate::closed(), Gate::closed());
    let (ahead, back) = (forward.clone(), backward.clone());
    let play = Play::on(DAEMON.daemon(), EACH, move |call| match call.action.as_str() {
        "take" => ahead.then(Answer::done()),
        "back" => back.then(Answer::done()),
        _ => Answer::Refused("NO", "no"),
    })
    .await?;
    let id = play.start("a", &items(10)).await?;
    let in_flight =
        |action: &'static str| play.shop.calls().iter().filter(|call| call.action == action).count();
    for (action, gate) in [("take", &forward), ("back", &backward)] {
        play.until(&id, |_| in_flight(action) >= 3).await?;
        play.wait(&id, WaitFor::Ended, Duration::from_millis(100)).await?;
        assert_eq!(in_flight(action), 3, "{action}");
        gate.open();
    }
    let saga = play.ended(&id).await?;
    assert_eq!(saga.status(), SagaStatus::Compensated);
    assert_eq!((in_flight("take"), in_flight("back")), (10, 10));
    Ok(())
}

#[tokio::test]
async fn after_a_refusal_no_further_instance_starts_and_those_that_ran_are_undone() -> Result<()> {
    let body = EACH.replace("concurrency: 3", "concurrency: 1");
    let play = Play::on(DAEMON.daemon(), &body, |call| match (call.phase, call.step.as_str()) {
        ("action", "take/3") => Answer::Refused("EMPTY", "none left"),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", &items(6)).await?;
    let (done, never) = (StepStatus::Succeeded, StepStatus::Pending);
    assert_eq!(statuses(&saga), [done, done, done, StepStatus::Failed, never, never, never]);
    let failure = saga.failure.as_ref().expect("a cause");
    assert_eq!((failure.step.as_str(), failure.code.as_str()), ("take/3", "EMPTY"));
    let mut undone: Vec<String> = play.called(&saga.saga_id).split_off(4);
    undone.sort();
    assert_eq!(undone, ["compensation take/0", "compensation take/1", "compensation take/2"]);
    let calls = play.shop.calls_of(&saga.saga_id);
    let undo = calls.iter().find(|c| c.phase == "compensation" && c.step == "take/2").expect("undone");
    assert_eq!(undo.input, r#"{"at":2,"it":2}"#, "item and index are bound in the compensation too");
    Ok(())
}

#[tokio::test]
async fn instances_in_flight_at_a_refusal_are_awaited_and_undone() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), EACH, move |call| match (call.phase, call.step.as_str()) {
        ("action", "take/1") => Answer::Refused("EMPTY", "none left"),
        ("action", _) => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", &items(8)).await?;
    play.until(&id, |saga| saga.failure.is_some()).await?;
    gate.open();
    let saga = play.ended(&id).await?;
    let ran = saga.steps.iter().filter(|s| s.status() == StepStatus::Succeeded).count();
    let undone = saga.steps.iter().filter(|s| s.compensation() == CompensationStatus::Done).count();
    assert_eq!((saga.status(), ran), (SagaStatus::Compensated, undone));
    assert_eq!(step(&saga, "take/7").attempts, 0);
    Ok(())
}

#[tokio::test]
async fn each_instance_has_its_own_retries() -> Result<()> {
    let body = format!("defaults: {{ retry: {{ initial: 1ms, max: 2ms, attempts: 4 }} }}\n{EACH}");
    let play = Play::on(DAEMON.daemon(), &body, |call| match (call.step.as_str(), call.attempt) {
        ("take/0", 1..=3) | ("take/2", 1) => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", &items(3)).await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    let attempts: Vec<u32> = saga.steps.iter().map(|step| step.attempts).collect();
    assert_eq!(attempts, [4, 1, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn a_false_condition_leaves_the_whole_list_out() -> Result<()> {
    let body = EACH.replace("concurrency: 3", "when: ${size(input.items) > 2}");
    let play = Play::on(DAEMON.daemon(), &body, |_| Answer::done()).await?;
    let saga = play.run("a", &items(2)).await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    assert_eq!(play.called(&saga.saga_id), ["action last"]);
    assert_eq!(step(&saga, "last").input_json, r#"{"all":null}"#);
    assert_eq!(play.run("b", &items(3)).await?.steps.len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_list_may_come_from_an_earlier_step() -> Result<()> {
    let body = "steps:
  - { name: find, action: { call: shop.find }, compensation: none }
  - name: take
    for_each: ${steps.find.rooms}
    action: { call: shop.take, input: { room: \"${item}\" } }
    compensation: { call: shop.back }
output: { taken: \"${steps.take}\", count: \"${size(steps.take)}\" }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "find" => Answer::with(r#"{"rooms":[101,102]}"#),
        _ => Answer::Done(call.input.clone()),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(saga.output_json, r#"{"count":2,"taken":[{"room":101},{"room":102}]}"#);
    Ok(())
}

#[tokio::test]
async fn a_retriable_fan_out_runs_after_the_commit() -> Result<()> {
    let body = "steps:
  - { name: order, action: { call: shop.do }, compensation: none }
  - { name: mail, kind: retriable, for_each: \"${input.items}\", action: { call: shop.mail, input: { to: \"${item}\" }, retry: { initial: 1ms } } }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("mail", 1) => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", &items(4)).await?;
    assert_eq!((saga.status(), saga.steps.len()), (SagaStatus::Completed, 5));
    assert!(saga.steps[1..].iter().all(|step| step.attempts == 2));
    Ok(())
}

/// Nobody has to wait for a long list: not its own clients, and not another saga beside it.
#[tokio::test]
async fn two_thousand_items_are_handled_in_one_saga_while_others_go_on() -> Result<()> {
    let body = "steps:
  - name: take
    for_each: ${input.items}
    concurrency: 256
    action: { call: shop.take, input: { it: \"${item}\" } }
    compensation: { call: shop.back }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let long = play.start("long", &items(2_000)).await?;
    let short = play.run("short", &items(3)).await?;
    assert_eq!(short.status(), SagaStatus::Completed);
    let saga = play.ended(&long).await?;
    assert_eq!((saga.status(), saga.steps.len()), (SagaStatus::Completed, 2_000));
    assert_eq!(play.shop.calls_of(&saga.saga_id).len(), 2_000);
    Ok(())
}

#[tokio::test]
async fn two_hundred_items_are_handled_in_one_saga() -> Result<()> {
    let body = EACH.replace("concurrency: 3", "concurrency: 64");
    let play = Play::on(DAEMON.daemon(), &body, |_| Answer::done()).await?;
    let saga = play.run("a", &items(200)).await?;
    assert_eq!((saga.status(), saga.steps.len()), (SagaStatus::Completed, 201));
    assert_eq!(play.shop.calls_of(&saga.saga_id).len(), 201);
    Ok(())
}
