//! An operator's acts that are refused, and what that leaves unchanged.

use anyhow::Result;
use sagad::proto::{ExplainRequest, ListStuckRequest, RepairAct, RepairRequest, ResolveOutcome, SagaStatus};
use tonic::Code;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, step, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const MIXED: &str = "steps:
  - { name: done, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: waits, action: { call: shop.wait, retry: { initial: 1h, max: 1h, elapsed: 0 } }, compensation: { call: shop.undo } }
  - { name: later, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: pay, kind: pivot, action: { call: shop.do } }
  - { name: mail, kind: retriable, action: { call: shop.do } }";

/// A saga whose second step waits an hour for its second attempt.
async fn waiting() -> Result<(Play<'static>, String)> {
    let play = Play::on(DAEMON.daemon(), MIXED, |call| match (call.action.as_str(), call.attempt) {
        ("wait", 1) => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.until(&id, |saga| step(saga, "waits").next_attempt_at.is_some()).await?;
    Ok((play, id))
}

fn resolve(play: &Play<'_>, id: &str, step: &str, outcome: ResolveOutcome) -> RepairRequest {
    RepairRequest { outcome: outcome.into(), ..play.act(id, RepairAct::Resolve, step) }
}

#[tokio::test]
async fn acts_that_do_not_fit_the_step_are_refused_and_change_nothing() -> Result<()> {
    let (play, id) = waiting().await?;
    let before = play.get(&id).await?;
    let illegal = [
        play.act(&id, RepairAct::RetryNow, "done"),
        play.act(&id, RepairAct::RetryNow, "later"),
        play.act(&id, RepairAct::Skip, "done"),
        play.act(&id, RepairAct::Skip, "waits"),
        play.act(&id, RepairAct::Skip, "later"),
        play.act(&id, RepairAct::Skip, "pay"),
        resolve(&play, &id, "done", ResolveOutcome::Done),
        resolve(&play, &id, "done", ResolveOutcome::Failed),
        resolve(&play, &id, "done", ResolveOutcome::Compensated),
        resolve(&play, &id, "later", ResolveOutcome::Done),
        resolve(&play, &id, "waits", ResolveOutcome::Compensated),
        play.act(&id, RepairAct::Resume, ""),
    ];
    for act in illegal {
        for dry_run in [true, false] {
            let status = play.repair(RepairRequest { dry_run, ..act.clone() }).await.expect_err("illegal");
            assert_eq!(status.code(), Code::FailedPrecondition, "{act:?}: {status:?}");
            assert!(!status.message().is_empty());
        }
    }
    assert_eq!(play.get(&id).await?, before);
    Ok(())
}

#[tokio::test]
async fn requests_that_make_no_sense_are_invalid_and_say_where() -> Result<()> {
    let (play, id) = waiting().await?;
    let before = play.get(&id).await?;
    let wrong = [
        ("step", play.act(&id, RepairAct::RetryNow, "no-such-step")),
        ("step", play.act(&id, RepairAct::Skip, "")),
        ("step", play.act(&id, RepairAct::Skip, "done/0")),
        ("step", resolve(&play, &id, "", ResolveOutcome::Done)),
        ("outcome", resolve(&play, &id, "waits", ResolveOutcome::Unspecified)),
        ("act", play.act(&id, RepairAct::Unspecified, "waits")),
        ("act", RepairRequest { act: 99, ..play.act(&id, RepairAct::Skip, "waits") }),
        ("reason", RepairRequest { reason: String::new(), ..play.act(&id, RepairAct::Pause, "") }),
        ("reason", RepairRequest { reason: " \t".to_owned(), ..play.act(&id, RepairAct::RetryNow, "waits") }),
        ("saga_id", play.act("", RepairAct::Pause, "")),
        ("saga_id", play.act("a b", RepairAct::Pause, "")),
        (
            "output_json",
            RepairRequest {
                output_json: "{".to_owned(),
                ..resolve(&play, &id, "waits", ResolveOutcome::Done)
            },
        ),
    ];
    for (field, request) in wrong {
        let status = play.repair(request.clone()).await.expect_err("invalid");
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}: {status:?}");
        assert_eq!(violations(&status), [field], "{request:?}: {status:?}");
    }
    assert_eq!(play.get(&id).await?, before);
    Ok(())
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() -> Result<()> {
    let (play, _) = waiting().await?;
    let status = play.repair(play.act("never-started", RepairAct::Pause, "")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let explain = ExplainRequest { saga_id: "never-started".to_owned() };
    let status = play.daemon.operations().explain(explain).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    Ok(())
}

#[tokio::test]
async fn an_ended_saga_takes_no_act_at_all() -> Result<()> {
    let (play, id) = waiting().await?;
    play.repair(play.act(&id, RepairAct::RetryNow, "waits")).await?;
    let ended = play.ended(&id).await?;
    assert_eq!(ended.status(), SagaStatus::Completed);
    let mut acts: Vec<RepairRequest> =
        [RepairAct::Pause, RepairAct::Resume, RepairAct::Cancel, RepairAct::Abandon]
            .map(|act| play.act(&id, act, ""))
            .to_vec();
    acts.push(play.act(&id, RepairAct::RetryNow, "mail"));
    acts.push(play.act(&id, RepairAct::Skip, "mail"));
    acts.push(resolve(&play, &id, "mail", ResolveOutcome::Done));
    for act in acts {
        let status = play.repair(act.clone()).await.expect_err("it has ended");
        assert_eq!(status.code(), Code::FailedPrecondition, "{act:?}");
    }
    assert_eq!(play.get(&id).await?, ended);
    Ok(())
}

#[tokio::test]
async fn a_call_in_flight_is_not_started_twice() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";
    let play = Play::on(DAEMON.daemon(), body, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "only").await;
    let status = play.repair(play.act(&id, RepairAct::RetryNow, "only")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    gate.open();
    assert_eq!(step(&play.ended(&id).await?, "only").attempts, 1);
    Ok(())
}

#[tokio::test]
async fn a_healthy_saga_is_explained_without_a_command() -> Result<()> {
    let (play, id) = waiting().await?;
    let explained = play.explain(&id).await?;
    assert!(!explained.summary.is_empty());
    assert_eq!(explained.suggested_command, "");
    let next = explained.next.iter().find(|next| next.step == "waits").expect("its next attempt");
    assert!(next.phase == "action" && next.at.is_some() && !next.what.is_empty());
    play.repair(play.act(&id, RepairAct::RetryNow, "waits")).await?;
    play.ended(&id).await?;
    let explained = play.explain(&id).await?;
    assert!(
        explained.next.is_empty() && explained.suggested_command.is_empty() && !explained.summary.is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn a_list_of_what_is_stuck_has_exact_pages() -> Result<()> {
    let body = "steps:
  - { name: mail, kind: retriable, for_each: \"${input.n}\", action: { call: shop.do, input: { x: \"${1 / item}\" } } }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let id = play.start("a", r#"{"n":[0,0,0,0,0]}"#).await?;
    play.until(&id, |saga| saga.blocked.len() == 5).await?;
    let (mut found, mut token, mut totals) = (Vec::new(), String::new(), Vec::new());
    loop {
        let request = ListStuckRequest { page_size: 2, page_token: token };
        let page = DAEMON.daemon().operations().list_stuck(request).await?.into_inner();
        assert!(page.items.len() <= 2);
        totals.push(page.total);
        found.extend(page.items.into_iter().map(|item| (item.saga_id, item.step)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let mine: Vec<String> =
        found.iter().filter(|(saga, _)| *saga == id).map(|(_, step)| step.clone()).collect();
    let mut sorted = mine.clone();
    sorted.sort();
    assert_eq!(sorted, ["mail/0", "mail/1", "mail/2", "mail/3", "mail/4"]);
    assert!(totals.iter().all(|total| *total >= 5));
    for page_size in [1001, u32::MAX] {
        let request = ListStuckRequest { page_size, page_token: String::new() };
        let status = DAEMON.daemon().operations().list_stuck(request).await.unwrap_err();
        assert_eq!(
            (status.code(), violations(&status)),
            (Code::InvalidArgument, vec!["page_size".to_owned()])
        );
    }
    let request = ListStuckRequest { page_size: 1, page_token: "garbage".to_owned() };
    let status = DAEMON.daemon().operations().list_stuck(request).await.unwrap_err();
    assert_eq!((status.code(), violations(&status)), (Code::InvalidArgument, vec!["page_token".to_owned()]));
    Ok(())
}
