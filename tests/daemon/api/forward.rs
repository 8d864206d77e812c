//! Going forward: order, branches, conditions, retries within their budgets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{CompensationStatus, SagaStatus, StepKind, StepStatus};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, failure_code, nanos, statuses, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// `name: after` lines for steps without compensation, each calling the action of its own name.
fn graph(steps: &[(&str, &str)]) -> String {
    let line = |(name, after): &(&str, &str)| {
        format!(
            "  - {{ name: {name}, after: [{after}], action: {{ call: shop.{name} }}, compensation: none }}\n"
        )
    };
    format!("steps:\n{}", steps.iter().map(line).collect::<String>())
}

#[tokio::test]
async fn steps_run_one_after_the_other_in_file_order() -> Result<()> {
    let body = "steps:
  - { name: one, action: { call: shop.one }, compensation: none }
  - { name: two, action: { call: shop.two }, compensation: none }
  - { name: three, action: { call: shop.three }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(play.called(&saga.saga_id), ["action one", "action two", "action three"]);
    assert_eq!(statuses(&saga), [StepStatus::Succeeded; 3]);
    assert!(saga.steps.iter().all(|step| step.kind() == StepKind::Compensatable && step.attempts == 1));
    assert!(saga.steps.iter().all(|step| step.started_at.is_some() && step.ended_at.is_some()));
    assert_eq!(
        play.words(&saga.saga_id).await?,
        [
            "saga_started",
            "step_started one",
            "step_succeeded one",
            "step_started two",
            "step_succeeded two",
            "step_started three",
            "step_succeeded three",
            "saga_committed",
            "saga_completed"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_join_waits_for_all_its_branches() -> Result<()> {
    let gate = Gate::closed();
    let slow = gate.clone();
    let body = graph(&[("root", ""), ("left", "root"), ("right", "root"), ("join", "left, right")]);
    let play = Play::on(DAEMON.daemon(), &body, move |call| match call.step.as_str() {
        "left" => slow.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "left").await;
    let saga = play.until(&id, |saga| step(saga, "right").status() == StepStatus::Succeeded).await?;
    assert_eq!(step(&saga, "join").status(), StepStatus::Pending);
    assert_eq!(step(&saga, "join").attempts, 0);
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!(ended.status(), SagaStatus::Completed);
    assert_eq!(play.called(&id).last().map(String::as_str), Some("action join"));
    Ok(())
}

#[tokio::test]
async fn branches_without_dependencies_run_at_once() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let body = graph(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]);
    let play = Play::on(DAEMON.daemon(), &body, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    for name in ["a", "b", "c", "d"] {
        play.shop.seen(|call| call.step == name).await;
    }
    gate.open();
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_step_whose_condition_is_false_is_skipped_and_what_follows_runs() -> Result<()> {
    let body = "steps:
  - { name: first, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: maybe, when: \"${input.wanted}\", action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: last, action: { call: shop.do, input: { it: \"${steps.maybe}\", part: \"${steps.maybe.x}\" } }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::with(r#"{"x":1}"#)).await?;
    let skipped = play.run("no", r#"{"wanted":false}"#).await?;
    assert_eq!(skipped.status(), SagaStatus::Completed);
    assert_eq!(statuses(&skipped), [StepStatus::Succeeded, StepStatus::Skipped, StepStatus::Succeeded]);
    assert_eq!(step(&skipped, "maybe").compensation(), CompensationStatus::NotNeeded);
    assert_eq!(play.called(&skipped.saga_id), ["action first", "action last"]);
    let input: serde_json::Value = serde_json::from_str(&step(&skipped, "last").input_json)?;
    assert_eq!(input, serde_json::json!({"it": null, "part": null}));
    let ran = play.run("yes", r#"{"wanted":true}"#).await?;
    assert_eq!(statuses(&ran), [StepStatus::Succeeded; 3]);
    assert_eq!(step(&ran, "last").input_json, r#"{"it":{"x":1},"part":1}"#);
    Ok(())
}

#[tokio::test]
async fn a_saga_whose_every_step_is_skipped_still_commits() -> Result<()> {
    let body = "steps:
  - { name: one, when: \"${false}\", action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: two, kind: retriable, when: \"${false}\", action: { call: shop.do } }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), saga.committed), (SagaStatus::Completed, true));
    assert_eq!(play.called(&saga.saga_id), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_skipped_step_is_not_compensated() -> Result<()> {
    let body = "steps:
  - { name: maybe, when: \"${false}\", action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: sure, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: last, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.action.as_str() {
        "no" => Answer::Refused("NO", "no"),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(play.called(&saga.saga_id), ["action sure", "action last", "compensation sure"]);
    Ok(())
}

#[tokio::test]
async fn a_condition_that_is_no_truth_value_fails_the_step_with_nothing_called() -> Result<()> {
    let body = "steps:
  - { name: first, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: maybe, when: \"${input.n}\", action: { call: shop.do }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let saga = play.run("a", r#"{"n":1}"#).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "EXPRESSION"));
    assert_eq!(step(&saga, "maybe").status(), StepStatus::Failed);
    assert_eq!(play.called(&saga.saga_id), ["action first", "compensation first"]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_outcome_is_tried_again_until_it_is_known() -> Result<()> {
    let body = "defaults: { retry: { initial: 1ms, max: 5ms, attempts: 10 } }
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.attempt {
        n @ 1..=4 => {
            Answer::Status([Code::Unavailable, Code::Internal, Code::Aborted, Code::NotFound][n as usize - 1])
        }
        _ => Answer::with(r#"{"at":5}"#),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 5));
    assert_eq!(step(&saga, "only").output_json, r#"{"at":5}"#);
    let attempts: Vec<u32> = play.shop.calls_of(&saga.saga_id).iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    Ok(())
}

#[tokio::test]
async fn attempts_count_the_first_one() -> Result<()> {
    let body = "steps:
  - { name: only, action: { call: shop.do, retry: { initial: 1ms, attempts: 1 } }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.phase {
        "action" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(play.called(&saga.saga_id), ["action only", "compensation only"]);
    assert_eq!(step(&saga, "only").status(), StepStatus::Unknown);
    Ok(())
}

#[tokio::test]
async fn the_elapsed_budget_ends_retries_that_attempts_would_allow() -> Result<()> {
    let body = "steps:
  - name: only
    action: { call: shop.do, retry: { initial: 20ms, factor: 1, max: 20ms, jitter: 0, attempts: 0, elapsed: 300ms } }
    compensation: { call: shop.undo }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.phase {
        "action" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    let attempts = step(&saga, "only").attempts;
    assert!((2..=20).contains(&attempts), "{attempts} attempts in 300 ms, 20 ms apart");
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "UNKNOWN"));
    Ok(())
}

#[tokio::test]
async fn the_forward_budget_does_not_hold_for_compensations() -> Result<()> {
    let body = "defaults: { retry: { initial: 1ms, max: 2ms, attempts: 2, elapsed: 10s } }
steps:
  - { name: first, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: second, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("no", _) => Answer::Refused("NO", "no"),
        ("undo", 1..=7) => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!((saga.status(), step(&saga, "first").compensation_attempts), (SagaStatus::Compensated, 8));
    Ok(())
}

#[tokio::test]
async fn between_two_attempts_the_next_one_has_its_time() -> Result<()> {
    let body = "steps:
  - { name: only, action: { call: shop.do, retry: { initial: 1h, max: 1h, elapsed: 0 } }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.phase {
        "action" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let saga = play.until(&id, |saga| step(saga, "only").next_attempt_at.is_some()).await?;
    let only = step(&saga, "only");
    let due = only.next_attempt_at.context("a time")?.seconds - saga.created_at.context("a time")?.seconds;
    // Jitter takes off or adds a fifth.
    assert!((2_880..=4_330).contains(&due), "due after {due} s");
    assert!(saga.next_wake_at.is_some_and(|at| Some(nanos(at)) <= only.next_attempt_at.map(nanos)));
    assert_eq!((saga.status(), only.status()), (SagaStatus::Running, StepStatus::Unknown));
    assert!(only.failure.as_ref().is_some_and(|failure| failure.code == "UNKNOWN"), "{only:?}");
    play.cancel(&id).await?;
    let ended = play.ended(&id).await?;
    assert_eq!(step(&ended, "only").compensation(), CompensationStatus::Done, "it may have run");
    Ok(())
}

#[tokio::test]
async fn side_work_does_not_hold_the_answer_up() -> Result<()> {
    let body = "steps:
  - { name: order, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: mail, kind: retriable, action: { call: shop.mail, retry: { initial: 1ms, max: 5ms } } }
output: { n: \"${steps.order.n}\" }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("mail", 1..=30) => Answer::Status(Code::Unavailable),
        ("mail", 31..=40) => Answer::Refused("NOT_YET", "refused is retried too"),
        _ => Answer::with(r#"{"n":7}"#),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    let committed = play.committed(&id).await?;
    assert!(committed.committed);
    assert_eq!(committed.output_json, r#"{"n":7}"#);
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), step(&ended, "mail").attempts), (SagaStatus::Completed, 41));
    Ok(())
}

#[tokio::test]
async fn retriable_steps_wait_for_the_commit_whatever_they_depend_on() -> Result<()> {
    let gate = Gate::closed();
    let slow = gate.clone();
    let body = "steps:
  - { name: mail, kind: retriable, after: [], action: { call: shop.mail } }
  - { name: order, after: [], action: { call: shop.do }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "do" => slow.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "order").await;
    assert_eq!(
        play.wait(&id, sagad::proto::WaitFor::Ended, Duration::from_millis(100)).await?.steps[0].attempts,
        0
    );
    gate.open();
    play.ended(&id).await?;
    assert_eq!(play.called(&id), ["action order", "action mail"]);
    Ok(())
}
