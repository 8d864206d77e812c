//! Sagas that grow too large undo themselves or ask an operator, and can always be ended.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{
    ListStuckRequest, RepairAct, RepairRequest, ResolveOutcome, Saga, SagaStatus, StuckItem, WaitFor,
};
use tokio::process::Command;
use tonic::Code;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Call};
use crate::support::play::{PATIENCE, Play, blocks, failure_code, step};

/// The steps called `big`, `n` of them: the output is nearly as large as one may be, and a retry is
/// over at once.
fn big_steps(n: usize, undo_input: bool) -> String {
    let step = |n: usize| {
        let input =
            if undo_input { format!(", input: {{ was: \"${{steps.s{n}.blob}}\" }}") } else { String::new() };
        format!(
            "  - {{ name: s{n}, action: {{ call: shop.big }}, compensation: {{ call: shop.undo{input} }} }}\n"
        )
    };
    let steps: String = (0..n).map(step).collect();
    format!("defaults: {{ retry: {{ attempts: 2, initial: 1ms }} }}\nsteps:\n{steps}")
}

fn big(bytes: usize) -> Answer {
    Answer::Done(format!("{{\"blob\":\"{}\"}}", "x".repeat(bytes)))
}

/// What `big` is asked for gets a megabyte, everything else is done.
fn megabytes(call: &Call) -> Answer {
    if call.action == "big" { big(1_000_000) } else { Answer::done() }
}

/// The steps that were called and those that were undone, each once.
fn called_and_undone(play: &Play<'_>, id: &str) -> (Vec<String>, Vec<String>) {
    let steps_of = |phase: &str| {
        let calls = play.shop.calls_of(id).into_iter().filter(|call| call.phase == phase);
        let mut steps: Vec<String> = calls.map(|call| call.step).collect();
        steps.sort();
        steps.dedup();
        steps
    };
    (steps_of("action"), steps_of("compensation"))
}

/// What waits for an operator of this saga, once something does.
async fn stuck(daemon: &Daemon, play: &Play<'_>, id: &str) -> Result<StuckItem> {
    let looking = async {
        loop {
            let list = daemon.operations().list_stuck(ListStuckRequest::default()).await?.into_inner();
            if let Some(item) = list.items.into_iter().find(|item| item.saga_id == id) {
                return anyhow::Ok(item);
            }
            play.wait(id, WaitFor::Ended, Duration::from_millis(20)).await?;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.context("nobody hears of it")?
}

async fn sagactl(daemon: &Daemon, words: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagactl"));
    command.args(words).env("SAGAD_ADDR", format!("http://{}", daemon.grpc)).env("NO_COLOR", "1");
    let output = command.env("COLUMNS", "200").stdin(Stdio::null()).output().await?;
    let told = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&told).into_owned()))
}

fn abandon(play: &Play<'_>, id: &str, steps: Vec<String>) -> RepairRequest {
    RepairRequest { abandon_steps: steps, ..play.act(id, RepairAct::Abandon, "") }
}

fn is_undone(play: &Play<'_>, saga: &Saga, ran: usize) {
    assert_eq!((saga.status(), failure_code(saga)), (SagaStatus::Compensated, "UNKNOWN"));
    let why = &saga.failure.as_ref().expect("it failed").message;
    assert!(why.contains("no room for an output") && why.contains("of 16777216 bytes are used"), "{why}");
    let (called, undone) = called_and_undone(play, &saga.saga_id);
    assert_eq!((called.len(), &called), (ran, &undone), "what ran is undone, and nothing else");
}

#[tokio::test]
async fn outputs_that_pass_the_limit_turn_the_saga_back_and_every_effect_is_undone() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play::on(&daemon, &big_steps(20, false), megabytes).await?;
    is_undone(&play, &play.run("a", "{}").await?, 13);
    // Undoing that says what is undone takes as much room again, and that room is there.
    let play = Play::on(&daemon, &big_steps(20, true), megabytes).await?;
    is_undone(&play, &play.run("a", "{}").await?, 7);
    let list = daemon.operations().list_stuck(ListStuckRequest::default()).await?.into_inner();
    assert_eq!(list.items, []);
    Ok(())
}

#[tokio::test]
async fn instances_that_pass_the_limit_are_all_undone() -> Result<()> {
    let body = "defaults: { retry: { attempts: 2, initial: 1ms } }
steps:
  - { name: each, for_each: \"${input.items}\", concurrency: 4, action: { call: shop.big }, compensation: { call: shop.undo } }";
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play::on(&daemon, body, megabytes).await?;
    let items: Vec<u32> = (0..30).collect();
    let saga = play.run("a", &format!("{{\"items\":{items:?}}}")).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "UNKNOWN"));
    let (called, undone) = called_and_undone(&play, &saga.saga_id);
    assert!(called.len() > 12 && called.len() < 30, "{called:?}");
    assert_eq!(called, undone);
    Ok(())
}

#[tokio::test]
async fn a_pivot_without_room_waits_for_an_operator_who_can_end_the_saga() -> Result<()> {
    let pivot =
        "  - { name: pay, kind: pivot, action: { call: shop.big, retry: { attempts: 2, initial: 1ms } } }\n";
    let body = format!("locks: [\"${{input.key}}\"]\nlock_wait: 1h\n{}{pivot}", big_steps(12, false));
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play::on(&daemon, &body, |call: &Call| match (call.phase, call.saga.ends_with("/a")) {
        ("probe", _) => Answer::Status(Code::Unimplemented),
        (_, true) => megabytes(call),
        (_, false) => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{\"key\":\"k\"}").await?;
    let saga = play.blocked(&id).await?;
    assert_eq!(blocks(&saga), ["action pay"]);
    let next = play.start("b", "{\"key\":\"k\"}").await?;

    // The next daemon finds what this one left.
    let Play { shop, participant, name, .. } = play;
    daemon.kill()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play { daemon: &daemon, shop, participant, name };
    let item = stuck(&daemon, &play, &id).await?;
    assert_eq!((item.step.as_str(), item.status()), ("pay", SagaStatus::Blocked), "{item:?}");
    assert!(item.reason.contains("no room for an output of 1000011 bytes"), "{item:?}");
    assert!(item.suggested_command.contains("resolve") && item.since.is_some(), "{item:?}");
    let (code, why) = sagactl(&daemon, &["why", &id]).await?;
    assert!(code == Some(0) && why.contains("Too large: ") && why.contains("--as FINDING"), "{why}");

    // Small acts are possible, an answer as large as before is not.
    for act in [RepairAct::Pause, RepairAct::Resume, RepairAct::RetryNow] {
        play.repair(play.act(&id, act, "")).await?;
    }
    play.until(&id, |saga| step(saga, "pay").attempts >= 4 && saga.status() == SagaStatus::Blocked).await?;
    let Answer::Done(output_json) = big(1_000_000) else { unreachable!("it is done") };
    let done = RepairRequest {
        outcome: ResolveOutcome::Done.into(),
        output_json,
        ..play.act(&id, RepairAct::Resolve, "pay")
    };
    let refused = play.repair(done).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");

    let unnamed = play.repair(abandon(&play, &id, Vec::new())).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::FailedPrecondition, "{unnamed:?}");
    let steps = (0..12).map(|n| format!("s{n}")).chain(["pay".to_owned()]).collect();
    play.repair(abandon(&play, &id, steps)).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Abandoned);
    play.register_shop(&body).await?;
    assert_eq!(play.ended(&next).await?.status(), SagaStatus::Completed, "the lock is free");
    Ok(())
}

/// A daemon that keeps so many bytes of a saga.
fn keeping(folder: &Path, bytes: usize) -> Result<Daemon> {
    let config = folder.join("sagad.toml");
    std::fs::write(&config, format!("[limits]\ninput_max_bytes = 65536\nsaga_max_bytes = {bytes}\n"))?;
    Launch::on(&folder.join("data")).arg("--config").arg(config.display().to_string()).start()
}

#[tokio::test]
async fn a_saga_larger_than_its_daemon_keeps_can_be_read_explained_and_ended() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = keeping(folder.path(), 1_000_000)?;
    let play = Play::on(&daemon, &big_steps(4, false), |call: &Call| match call.step.as_str() {
        "s3" => Answer::Hang,
        _ => big(60_000),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "s3").await;
    let Play { shop, participant, name, .. } = play;
    daemon.kill()?;
    let daemon = keeping(folder.path(), 100_000)?;
    let play = Play { daemon: &daemon, shop, participant, name };
    let item = stuck(&daemon, &play, &id).await?;
    assert!(item.reason.contains("over the limit of 100000"), "{item:?}");
    assert_eq!((item.status(), item.definition.as_str()), (SagaStatus::Running, play.name.as_str()));
    assert_eq!(play.get(&id).await?.status(), SagaStatus::Running);
    let (code, why) = sagactl(&daemon, &["why", &id]).await?;
    assert!(code == Some(0) && why.contains(&format!("sagactl abandon {id}")), "{why}");
    let paused = play.repair(play.act(&id, RepairAct::Pause, "")).await.unwrap_err();
    assert_eq!(paused.code(), Code::FailedPrecondition, "{paused:?}");
    let words = ["abandon", &id, "--yes", "--reason", "too large", "--step", "s0", "--step", "s1"];
    let words = [&words[..], &["--step", "s2", "--step", "s3"]].concat();
    let (code, told) = sagactl(&daemon, &words).await?;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(play.get(&id).await?.status(), SagaStatus::Abandoned);
    let list = daemon.operations().list_stuck(ListStuckRequest::default()).await?.into_inner();
    assert_eq!(list.items, []);
    Ok(())
}
