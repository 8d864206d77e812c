//! Too much at once: refused with the time to come back, and gone when the load is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{ListStuckRequest, SagaStatus, WaitFor, WaitSagaRequest, WatchSagaRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Gate};
use crate::support::play::{PATIENCE, Play};

const ONE: &str = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

/// A daemon with these limits.
fn narrow(folder: &std::path::Path, limits: &str) -> Result<Daemon> {
    let config = folder.join("sagad.toml");
    std::fs::write(&config, format!("[limits]\n{limits}\n"))?;
    Launch::on(&folder.join("data")).arg("--config").arg(config.display().to_string()).start()
}

fn overloaded(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| delay > Duration::ZERO), "no time to come back: {status:?}");
}

#[tokio::test]
async fn watches_beyond_the_limit_are_refused_until_one_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = narrow(folder.path(), "watches_max = 2")?;
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(&daemon, ONE, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    let watch = || async {
        let request = WatchSagaRequest { saga_id: id.clone(), after_seq: 0, follow: true };
        let mut stream = daemon.sagas().watch_saga(request).await?.into_inner();
        stream.message().await?;
        Ok::<_, Status>(stream)
    };
    let (first, second) = (watch().await?, watch().await?);
    overloaded(&watch().await.map(drop).unwrap_err());
    drop(first);
    let again = async {
        while let Err(status) = watch().await {
            overloaded(&status);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.context("a place is never given back")?;
    gate.open();
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    drop(second);
    Ok(())
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_nothing_is_stored_of_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = narrow(folder.path(), "requests_max = 4")?;
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(&daemon, ONE, move |_| held.then(Answer::done())).await?;
    let id = play.start("a", "{}").await?;
    let waits = (0..30).map(|_| {
        let request = WaitSagaRequest {
            saga_id: id.clone(),
            wait_for: WaitFor::Ended.into(),
            timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        };
        let mut sagas = daemon.sagas();
        async move { sagas.wait_saga(request).await }
    });
    let answers = futures::future::join_all(waits).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!served.is_empty() && !refused.is_empty(), "{} served, {} refused", served.len(), refused.len());
    for answer in refused {
        overloaded(&answer.unwrap_err());
    }
    gate.open();
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn an_input_over_the_configured_limit_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = narrow(folder.path(), "input_max_bytes = 2048")?;
    let play = Play::on(&daemon, ONE, |_| Answer::done()).await?;
    let of = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    assert_eq!(play.run("fits", &of(2048)).await?.status(), SagaStatus::Completed);
    let status = play.send(play.request("over", &of(2049))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_saga_that_would_outgrow_its_journal_comes_to_rest_and_harms_nobody() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = narrow(folder.path(), "input_max_bytes = 65536\nsaga_max_bytes = 262144")?;
    let body = "steps:
  - { name: each, for_each: \"${input.items}\", action: { call: shop.big, input: {} }, compensation: { call: shop.undo, input: {} } }";
    let big = format!("\"{}\"", "x".repeat(60_000));
    let play = Play::on(&daemon, body, move |call| match call.action.as_str() {
        "big" => Answer::Done(big.clone()),
        _ => Answer::done(),
    })
    .await?;
    // Ten outputs of 60 kB do not fit a journal of 256 KiB.
    let items: Vec<u32> = (0..10).collect();
    let id = play.start("a", &format!("{{\"items\":{items:?}}}")).await?;
    let other = Play::on(&daemon, ONE, |_| Answer::done()).await?;
    assert_eq!(other.run("a", "{}").await?.status(), SagaStatus::Completed);
    let set_aside = async {
        loop {
            let stuck = daemon.operations().list_stuck(ListStuckRequest::default()).await?.into_inner();
            if let Some(item) = stuck.items.into_iter().find(|item| item.saga_id == id) {
                return anyhow::Ok(item);
            }
            other.wait(&other.id("a"), WaitFor::Ended, Duration::from_millis(20)).await?;
        }
    };
    let item = tokio::time::timeout(PATIENCE, set_aside).await.context("nobody hears of it")??;
    assert!(item.reason.contains("262144") && !item.suggested_command.is_empty(), "{item:?}");
    assert_eq!(other.run("b", "{}").await?.status(), SagaStatus::Completed);
    Ok(())
}
