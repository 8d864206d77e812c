//! An operator's acts that help: what follows, what is marked, what is written down.

use anyhow::{Context as _, Result};
use sagad::proto::{
    CompensationStatus, ListStuckRequest, RepairAct, RepairRequest, ResolveOutcome, SagaStatus, StepStatus,
};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, blocks, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// The undo of `took` is refused until the gate that comes with it opens.
const STUCK: &str = "steps:
  - { name: root, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: took, action: { call: shop.do }, compensation: { call: shop.stuck } }
  - { name: bad, action: { call: shop.no }, compensation: none }";

async fn stuck(end: &str) -> Result<(Play<'static>, String)> {
    let play = Play::on(DAEMON.daemon(), STUCK, |call| match (call.action.as_str(), call.attempt) {
        ("no", _) => Answer::Refused("NO", "no"),
        ("stuck", 1) => Answer::Refused("CLOSED", "the account is closed"),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start(end, "{}").await?;
    play.blocked(&id).await?;
    Ok((play, id))
}

#[tokio::test]
async fn a_blocked_compensation_tried_again_is_done_and_the_rest_follows() -> Result<()> {
    let (play, id) = stuck("a").await?;
    let answer = play.repair(play.act(&id, RepairAct::RetryNow, "took")).await?;
    assert_eq!(
        answer.plan.first().map(|call| (call.step.as_str(), call.phase.as_str())),
        Some(("took", "compensation"))
    );
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Compensated, false));
    assert_eq!(step(&saga, "took").compensation_attempts, 2);
    let undos: Vec<_> = play.shop.calls_of(&id).into_iter().filter(|call| call.action == "stuck").collect();
    assert_eq!((&undos[0].key, &undos[0].input), (&undos[1].key, &undos[1].input));
    assert!(undos[1].attempt > undos[0].attempt);
    Ok(())
}

#[tokio::test]
async fn retry_now_without_a_step_means_every_blocked_one() -> Result<()> {
    let (play, id) = stuck("a").await?;
    play.repair(play.act(&id, RepairAct::RetryNow, "")).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn retry_now_cuts_a_backoff_short() -> Result<()> {
    let body = "steps:
  - { name: only, action: { call: shop.do, retry: { initial: 1h, max: 1h, elapsed: 0 } }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.attempt {
        1 => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| step(saga, "only").next_attempt_at.is_some()).await?;
    play.repair(play.act(&id, RepairAct::RetryNow, "only")).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), step(&saga, "only").attempts), (SagaStatus::Completed, 2));
    Ok(())
}

#[tokio::test]
async fn a_waived_compensation_marks_the_saga_uncertain() -> Result<()> {
    let (play, id) = stuck("a").await?;
    play.repair(play.act(&id, RepairAct::Skip, "took")).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Compensated, true));
    assert_eq!(step(&saga, "took").compensation(), CompensationStatus::Waived);
    assert_eq!(step(&saga, "root").compensation(), CompensationStatus::Done);
    Ok(())
}

#[tokio::test]
async fn a_compensation_resolved_by_word_is_done_and_uncertain() -> Result<()> {
    let (play, id) = stuck("a").await?;
    let outcome = ResolveOutcome::Compensated.into();
    play.repair(RepairRequest { outcome, ..play.act(&id, RepairAct::Resolve, "took") }).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain), (SagaStatus::Compensated, true));
    assert_eq!(step(&saga, "took").compensation(), CompensationStatus::Done);
    assert_eq!(step(&saga, "took").compensation_attempts, 1);
    Ok(())
}

#[tokio::test]
async fn a_dry_run_shows_what_would_follow_and_changes_nothing() -> Result<()> {
    let (play, id) = stuck("a").await?;
    let (before, history) = (play.get(&id).await?, play.history(&id).await?);
    let mut abandon = play.act(&id, RepairAct::Abandon, "");
    abandon.abandon_steps = vec!["took".to_owned(), "root".to_owned()];
    let acts = [
        play.act(&id, RepairAct::RetryNow, "took"),
        play.act(&id, RepairAct::Skip, "took"),
        RepairRequest {
            outcome: ResolveOutcome::Compensated.into(),
            ..play.act(&id, RepairAct::Resolve, "took")
        },
        play.act(&id, RepairAct::Pause, ""),
        abandon,
    ];
    for act in acts {
        let dry = RepairRequest { dry_run: true, reason: String::new(), ..act.clone() };
        let answer = play.repair(dry).await.with_context(|| format!("{act:?}"))?;
        let after = answer.saga.context("a saga")?;
        assert_ne!(
            (after.status(), after.paused, &after.blocked),
            (before.status(), before.paused, &before.blocked),
            "{act:?}"
        );
        assert_eq!(play.get(&id).await?, before, "{act:?}");
    }
    assert_eq!(play.history(&id).await?, history);
    let skip = RepairRequest { dry_run: true, ..play.act(&id, RepairAct::Skip, "took") };
    let follows = play.repair(skip).await?.plan;
    let calls: Vec<_> =
        follows.iter().map(|c| (c.phase.as_str(), c.step.as_str(), c.action.as_str())).collect();
    assert_eq!(calls, [("compensation", "root", "undo")]);
    assert_eq!(follows[0].participant, play.participant);
    Ok(())
}

#[tokio::test]
async fn every_act_is_written_down_with_who_and_why() -> Result<()> {
    let (play, id) = stuck("a").await?;
    play.repair(play.act(&id, RepairAct::Pause, "")).await?;
    play.repair(play.act(&id, RepairAct::Resume, "")).await?;
    let nameless = RepairRequest { actor: String::new(), ..play.act(&id, RepairAct::RetryNow, "took") };
    play.repair(nameless).await?;
    play.ended(&id).await?;
    let history = play.history(&id).await?;
    let acts: Vec<_> = history.iter().filter(|event| event.r#type == "operator_act").collect();
    assert_eq!(acts.len(), 3);
    assert!(acts.iter().all(|act| act.reason == "looked it up"));
    assert_eq!((acts[0].actor.as_str(), acts[1].actor.as_str()), ("mina", "mina"));
    assert!(
        acts[2].actor.contains("127.0.0.1"),
        "left out, it is where the request came from: {:?}",
        acts[2].actor
    );
    Ok(())
}

#[tokio::test]
async fn abandoning_wants_the_uncompensated_steps_typed_back() -> Result<()> {
    let (play, id) = stuck("a").await?;
    let before = play.get(&id).await?;
    for wrong in [vec![], vec!["took"], vec!["took", "root", "bad"], vec!["took", "rot"]] {
        let mut request = play.act(&id, RepairAct::Abandon, "");
        request.abandon_steps = wrong.iter().map(|s| (*s).to_owned()).collect();
        let refused = play.repair(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{wrong:?}");
        assert!(refused.message().contains("root") && refused.message().contains("took"), "{refused:?}");
    }
    assert_eq!(play.get(&id).await?, before);
    let mut request = play.act(&id, RepairAct::Abandon, "");
    request.abandon_steps = vec!["root".to_owned(), "took".to_owned()];
    play.repair(request).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.uncertain, saga.blocked.len()), (SagaStatus::Abandoned, true, 0));
    let words = play.words(&id).await?;
    assert_eq!(words.last().map(String::as_str), Some("saga_abandoned"));
    let again = play.repair(play.act(&id, RepairAct::RetryNow, "took")).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert_eq!(play.cancel(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    Ok(())
}

#[tokio::test]
async fn pausing_lets_calls_in_flight_finish_and_starts_none() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let body = "steps:
  - { name: one, action: { call: shop.slow }, compensation: { call: shop.undo } }
  - { name: two, action: { call: shop.do }, compensation: { call: shop.undo } }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "slow" => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "one").await;
    play.repair(play.act(&id, RepairAct::Pause, "")).await?;
    gate.open();
    let saga = play.until(&id, |saga| step(saga, "one").status() == StepStatus::Succeeded).await?;
    assert!(saga.paused && step(&saga, "two").attempts == 0);
    assert!(play.explain(&id).await?.suggested_command.contains("resume"));
    play.repair(play.act(&id, RepairAct::Resume, "")).await?;
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), saga.paused, saga.uncertain), (SagaStatus::Completed, false, false));
    Ok(())
}

#[tokio::test]
async fn a_paused_saga_can_be_repaired_and_goes_on_once_resumed() -> Result<()> {
    let (play, id) = stuck("warm").await?;
    play.repair(play.act(&id, RepairAct::Pause, "")).await?;
    play.repair(play.act(&id, RepairAct::Skip, "took")).await?;
    let saga = play.get(&id).await?;
    assert_eq!((saga.paused, step(&saga, "root").compensation_attempts), (true, 0));
    play.repair(play.act(&id, RepairAct::Resume, "")).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn cancel_by_an_operator_is_the_same_as_by_the_client() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), STUCK, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "root").await;
    play.repair(play.act(&id, RepairAct::Cancel, "")).await?;
    gate.open();
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "CANCELLED"));
    Ok(())
}

#[tokio::test]
async fn what_is_stuck_is_listed_with_the_command_that_helps() -> Result<()> {
    let (play, id) = stuck("a").await?;
    let request = ListStuckRequest { page_size: 1000, ..Default::default() };
    let stuck = play.daemon.operations().list_stuck(request.clone()).await?.into_inner();
    let item = stuck.items.iter().find(|item| item.saga_id == id).context("it is listed")?;
    assert_eq!(
        (item.definition.as_str(), item.step.as_str(), item.phase.as_str()),
        (play.name.as_str(), "took", "compensation")
    );
    assert_eq!(item.status(), SagaStatus::Blocked);
    assert!(item.reason.contains("the account is closed") && item.since.is_some());
    assert!(item.suggested_command.starts_with("sagactl ") && item.suggested_command.contains(&id));
    let explained = play.explain(&id).await?;
    assert_eq!(explained.suggested_command, item.suggested_command);
    assert!(
        explained.summary.iter().any(|line| line.contains("the account is closed")),
        "{:?}",
        explained.summary
    );
    assert_eq!(explained.saga.context("a saga")?, play.get(&id).await?);
    play.repair(play.act(&id, RepairAct::RetryNow, "took")).await?;
    play.ended(&id).await?;
    let stuck = play.daemon.operations().list_stuck(request).await?.into_inner();
    assert!(stuck.items.iter().all(|item| item.saga_id != id));
    Ok(())
}

#[tokio::test]
async fn two_blocks_are_lifted_one_by_one() -> Result<()> {
    let body = "steps:
  - { name: a, after: [], action: { call: shop.do }, compensation: { call: shop.stuck } }
  - { name: b, after: [], action: { call: shop.do }, compensation: { call: shop.stuck } }
  - { name: bad, after: [a, b], action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.action.as_str(), call.attempt) {
        ("no", _) => Answer::Refused("NO", "no"),
        ("stuck", 1) => Answer::Refused("CLOSED", "closed"),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("x", "{}").await?;
    play.until(&id, |saga| saga.blocked.len() == 2).await?;
    play.repair(play.act(&id, RepairAct::RetryNow, "a")).await?;
    let saga = play.until(&id, |saga| step(saga, "a").compensation() == CompensationStatus::Done).await?;
    assert_eq!((saga.status(), blocks(&saga)), (SagaStatus::Blocked, vec!["compensation b".to_owned()]));
    play.repair(play.act(&id, RepairAct::Skip, "b")).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn a_fan_out_instance_is_repaired_by_its_own_name() -> Result<()> {
    let body = "steps:
  - name: take
    for_each: ${input.items}
    action: { call: shop.take }
    compensation: { call: shop.back }
  - { name: bad, action: { call: shop.no }, compensation: none }";
    let play = Play::on(DAEMON.daemon(), body, |call| match (call.phase, call.step.as_str(), call.attempt) {
        ("action", "bad", _) => Answer::Refused("NO", "no"),
        ("compensation", "take/1", 1) => Answer::Refused("CLOSED", "closed"),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("x", r#"{"items":[1,2,3]}"#).await?;
    let saga = play.blocked(&id).await?;
    assert_eq!(blocks(&saga), ["compensation take/1"]);
    let outside = play.repair(play.act(&id, RepairAct::RetryNow, "take/3")).await.unwrap_err();
    assert_eq!(outside.code(), Code::InvalidArgument);
    play.repair(play.act(&id, RepairAct::RetryNow, "take/1")).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Compensated);
    Ok(())
}
