//! What a saga stands at when its daemon is killed is what it stands at afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::complete_step_request::Outcome;
use sagad::proto::{
    CompleteStepRequest, Done, ListSagasRequest, RepairAct, RetireDefinitionRequest, SagaStatus,
    StartSagaRequest, StepStatus, WaitFor,
};
use tonic::Code;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Call, Gate, Participant};
use crate::support::play::{Play, failure_code, step};

/// Sagas that wait for an hour.
const RESTING: usize = 20;
/// The pause between two looks at the daemon's figures.
const LOOK: Duration = Duration::from_millis(200);
/// How long the figures may take to come right.
const PATIENCE: Duration = Duration::from_secs(30);

/// A definition and its participant, whose daemon can be taken from under them.
struct Stage {
    data: tempfile::TempDir,
    daemon: Option<Daemon>,
    shop: Option<Participant>,
    participant: String,
    name: String,
}

impl Stage {
    async fn set(body: &str, script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let daemon = Launch::on(data.path()).start()?;
        let Play { shop, participant, name, .. } = Play::on(&daemon, body, script).await?;
        Ok(Self { data, daemon: Some(daemon), shop: Some(shop), participant, name })
    }

    /// Acts on the running daemon; the participant comes back with the play.
    async fn act<T>(&mut self, act: impl AsyncFnOnce(&Play<'_>) -> Result<T>) -> Result<T> {
        let daemon = self.daemon.as_ref().expect("it runs");
        let shop = self.shop.take().expect("nobody else acts");
        let play = Play { daemon, shop, participant: self.participant.clone(), name: self.name.clone() };
        let acted = act(&play).await;
        self.shop = Some(play.shop);
        acted
    }

    fn kill_and_start_again(&mut self) -> Result<()> {
        self.daemon.take().expect("it runs").kill()?;
        self.daemon = Some(Launch::on(self.data.path()).start()?);
        Ok(())
    }
}

#[tokio::test]
async fn everything_that_is_shown_is_the_same_as_before() -> Result<()> {
    let body = "defaults: { retry: { initial: 1h, max: 1h, elapsed: 0 } }
steps:
  - { name: first, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: second, action: { call: shop.second }, compensation: { call: shop.stuck } }
  - { name: third, action: { call: shop.third }, compensation: none }";
    let mut stage = Stage::set(body, |call| match (call.saga.rsplit('/').next(), call.action.as_str()) {
        (Some("retrying"), "second") => Answer::Status(Code::Unavailable),
        (Some("pending"), "second") => Answer::Pending(Some(Duration::from_hours(1))),
        (Some("blocked" | "refused"), "third") => Answer::Refused("NO", "no"),
        (Some("blocked"), "stuck") => Answer::Refused("CLOSED", "closed"),
        _ => Answer::with(r#"{"n":9007199254740993}"#),
    })
    .await?;
    let before = stage
        .act(async |play| {
            for end in ["done", "refused"] {
                play.run(end, r#"{"n":18446744073709551615}"#).await?;
            }
            let retrying = play.start("retrying", "{}").await?;
            play.until(&retrying, |saga| step(saga, "second").next_attempt_at.is_some()).await?;
            play.repair(play.act(&retrying, RepairAct::Pause, "")).await?;
            let pending = play.start("pending", "{}").await?;
            play.until(&pending, |saga| step(saga, "second").next_attempt_at.is_some()).await?;
            let blocked = play.start("blocked", "{}").await?;
            play.blocked(&blocked).await?;
            seen(play).await
        })
        .await?;
    stage.kill_and_start_again()?;
    let after = stage.act(async |play| seen(play).await).await?;
    assert_eq!(after, before);
    Ok(())
}

type Seen = Vec<(sagad::proto::Saga, Vec<sagad::proto::SagaEvent>)>;

async fn seen(play: &Play<'_>) -> Result<Seen> {
    let mut seen = Vec::new();
    for end in ["done", "refused", "retrying", "pending", "blocked"] {
        let id = play.id(end);
        // When the daemon looks next is its own affair.
        let saga = sagad::proto::Saga { next_wake_at: None, ..play.get(&id).await? };
        seen.push((saga, play.history(&id).await?));
    }
    Ok(seen)
}

#[tokio::test]
async fn a_token_given_before_a_restart_is_good_after_it() -> Result<()> {
    let body =
        "steps: [{ name: work, pending: { interval: 1h }, action: { call: shop.do }, compensation: none }]";
    let mut stage = Stage::set(body, |_| Answer::Pending(None)).await?;
    let token = stage
        .act(async |play| {
            let id = play.start("a", "{}").await?;
            play.until(&id, |saga| step(saga, "work").next_attempt_at.is_some()).await?;
            Ok(play.shop.calls_of(&id)[0].token.clone())
        })
        .await?;
    stage.kill_and_start_again()?;
    stage
        .act(async |play| {
            let outcome = Some(Outcome::Done(Done { output_json: "7".to_owned() }));
            play.daemon.registry().complete_step(CompleteStepRequest { token, outcome }).await?;
            let saga = play.ended(&play.id("a")).await?;
            assert_eq!(
                (saga.status(), step(&saga, "work").output_json.as_str()),
                (SagaStatus::Completed, "7")
            );
            Ok(())
        })
        .await
}

#[tokio::test]
async fn what_rests_for_long_is_left_in_the_store_and_is_listed_as_ever() -> Result<()> {
    let body =
        "steps: [{ name: work, pending: { interval: 1h }, action: { call: shop.do }, compensation: none }]";
    let gate = Gate::closed();
    let held = gate.clone();
    let mut stage = Stage::set(body, move |call| {
        if call.saga.ends_with("busy") { held.then(Answer::done()) } else { Answer::Pending(None) }
    })
    .await?;
    stage
        .act(async |play| {
            for n in 0..RESTING {
                let id = play.start(&format!("resting-{n}"), "{}").await?;
                play.until(&id, |saga| step(saga, "work").next_attempt_at.is_some()).await?;
            }
            play.start("busy", "{}").await
        })
        .await?;
    stage.kill_and_start_again()?;
    stage
        .act(async |play| {
            let busy = play.id("busy");
            let one_is_in_memory = async {
                while !play.daemon.page("/metrics").await?.1.contains("\nsagad_sagas_resident 1\n") {
                    play.wait(&busy, WaitFor::Ended, LOOK).await?;
                }
                anyhow::Ok(())
            };
            let seen = tokio::time::timeout(PATIENCE, one_is_in_memory).await;
            seen.context("those that rest were taken into memory")??;
            let all = ListSagasRequest {
                filter: format!("definition = {:?}", play.name),
                ..ListSagasRequest::default()
            };
            let listed = play.daemon.sagas().list_sagas(all).await?.into_inner().sagas;
            assert_eq!(listed.len(), RESTING + 1);
            gate.open();
            assert_eq!(play.ended(&busy).await?.status(), SagaStatus::Completed);
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_daemon_is_down_counts() -> Result<()> {
    let body = "deadline: 1s
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";
    let mut stage = Stage::set(body, |call| match call.phase {
        "action" => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    stage.act(async |play| play.start("a", "{}").await).await?;
    stage.kill_and_start_again()?;
    stage
        .act(async |play| {
            let saga = play.ended(&play.id("a")).await?;
            assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "DEADLINE"));
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_cancel_is_remembered_and_the_call_that_was_in_flight_is_undone() -> Result<()> {
    let body = "defaults: { timeout: 10s }
steps: [{ name: only, action: { call: shop.do }, compensation: { call: shop.undo } }]";
    let gate = Gate::closed();
    let held = gate.clone();
    let mut stage = Stage::set(body, move |call| match call.phase {
        "action" => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    stage
        .act(async |play| {
            let id = play.start("a", "{}").await?;
            play.shop.seen(|call| call.saga == id).await;
            play.cancel(&id).await?;
            Ok(())
        })
        .await?;
    stage.kill_and_start_again()?;
    gate.open();
    stage
        .act(async |play| {
            let saga = play.ended(&play.id("a")).await?;
            assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "CANCELLED"));
            assert!(play.called(&saga.saga_id).contains(&"compensation only".to_owned()));
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_pivot_in_flight_at_a_crash_is_asked_again_and_never_undone() -> Result<()> {
    let body = "steps:
  - { name: take, action: { call: shop.take }, compensation: { call: shop.back } }
  - { name: pay, kind: pivot, action: { call: shop.pay, retry: { attempts: 1 } } }";
    let gate = Gate::closed();
    let held = gate.clone();
    let mut stage = Stage::set(body, move |call| match (call.action.as_str(), call.phase) {
        ("pay", "probe") => Answer::Status(Code::Unimplemented),
        ("pay", _) => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    stage
        .act(async |play| {
            play.start("a", "{}").await?;
            play.shop.seen(|call| call.action == "pay").await;
            Ok(())
        })
        .await?;
    stage.kill_and_start_again()?;
    gate.open();
    stage
        .act(async |play| {
            let saga = play.ended(&play.id("a")).await?;
            assert_eq!(
                (saga.status(), step(&saga, "pay").status()),
                (SagaStatus::Completed, StepStatus::Succeeded)
            );
            let pays: Vec<Call> = play.shop.calls().into_iter().filter(|call| call.action == "pay").collect();
            assert!(pays.len() >= 2, "a step in flight at a crash gets at least one more attempt");
            assert!(pays.iter().all(|call| call.action_key == pays[0].action_key));
            assert!(play.shop.calls().iter().all(|call| call.action != "back"));
            Ok(())
        })
        .await
}

#[tokio::test]
async fn retries_go_on_where_they_were_and_attempts_only_grow() -> Result<()> {
    let body = "steps:
  - { name: only, kind: retriable, action: { call: shop.do, retry: { initial: 5ms, max: 20ms } } }";
    let gate = Gate::closed();
    let mut stage = Stage::set(body, {
        let open = gate.clone();
        move |_| if open.is_open() { Answer::done() } else { Answer::Status(Code::Unavailable) }
    })
    .await?;
    for _ in 0..3 {
        stage
            .act(async |play| {
                let id = play.start("a", "{}").await?;
                let seen = play.shop.calls().len();
                play.until(&id, |_| play.shop.calls().len() > seen + 3).await?;
                Ok(())
            })
            .await?;
        stage.kill_and_start_again()?;
    }
    gate.open();
    stage
        .act(async |play| {
            let saga = play.ended(&play.id("a")).await?;
            let calls = play.shop.calls();
            assert!(calls.is_sorted_by(|a, b| a.attempt < b.attempt && a.epoch <= b.epoch), "{calls:#?}");
            assert!(calls.iter().all(|call| call.key == calls[0].key && call.input == calls[0].input));
            assert_eq!(step(&saga, "only").attempts, calls.last().expect("calls").attempt);
            Ok(())
        })
        .await
}

#[tokio::test]
async fn an_acknowledged_start_is_there_after_a_kill_at_once() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";
    let mut stage = Stage::set(body, |_| Answer::done()).await?;
    for round in 0..5 {
        let id = stage.act(async |play| play.start(&format!("r{round}"), "{}").await).await?;
        stage.kill_and_start_again()?;
        let saga =
            stage.act(async |play| play.wait(&id, WaitFor::Ended, Duration::from_secs(30)).await).await?;
        assert_eq!(saga.status(), SagaStatus::Completed, "round {round}");
        let again =
            stage.act(async |play| Ok(play.send(play.request(&format!("r{round}"), "{}")).await?.existed));
        assert!(again.await?, "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn a_definition_of_the_folder_that_was_retired_stays_retired_after_a_restart() -> Result<()> {
    let base = tempfile::tempdir()?;
    let (data, sagas) = (base.path().join("data"), base.path().join("sagas"));
    std::fs::create_dir(&sagas)?;
    let source =
        "saga: folded\nsteps:\n  - { name: only, action: { call: nobody.does }, compensation: none }\n";
    std::fs::write(sagas.join("folded.yaml"), source)?;
    let launch = Launch::on(&data).arg("--sagas").arg(sagas.display().to_string());
    let daemon = launch.start()?;
    let retire = RetireDefinitionRequest { name: "folded".to_owned(), version: 1 };
    daemon.definitions().retire_definition(retire).await?;
    daemon.kill()?;
    let daemon = launch.start()?;
    let start = StartSagaRequest { definition: "folded".to_owned(), ..StartSagaRequest::default() };
    let refused = daemon.sagas().start_saga(start).await.expect_err("a retired version takes no starts");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    Ok(())
}
