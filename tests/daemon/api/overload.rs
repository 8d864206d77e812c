//! Too much at once: refused with the time to come back, and gone when the load is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{SagaStatus, WaitFor, WaitSagaRequest, WatchSagaRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Gate};
use crate::support::play::{PATIENCE, Play};
use crate::support::worker::{Bare, hello};

/// More calls in line than a participant may have before starts that need it are refused.
const FLOOD: usize = 1_100;
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
    // Who only watches does not keep workers away.
    let _worker = Bare::open(&daemon, hello("elsewhere", &["do"], 1)).await?;
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
async fn starts_are_refused_while_a_participant_is_behind_and_all_that_was_accepted_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = Launch::on(&folder.path().join("data")).start()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let slow = Play::unregistered(&daemon, move |_| held.then(Answer::done())).await?;
    slow.shop.register_narrow(&daemon, &slow.participant, &["do"], 1).await?;
    // Longer than the flood takes: whatever is called holds its place until it is let go.
    slow.define(&ONE.replace("shop.do", "shop.do, timeout: 5m")).await?;
    let quick = Play::on(&daemon, ONE, |_| Answer::done()).await?;

    // On a slow machine the line is a backlog before all have come.
    let client = daemon.sagas();
    let flood = (0..FLOOD).map(|n| {
        let (mut client, request) = (client.clone(), slow.request(&n.to_string(), "{}"));
        async move { client.start_saga(request).await.map(tonic::Response::into_inner) }
    });
    let answers = futures::future::join_all(flood).await;
    let (taken, mut refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let mut accepted: Vec<String> =
        taken.into_iter().filter_map(|answer| Some(answer.ok()?.saga?.saga_id)).collect();
    // On a fast one it is long first, and turns out to be slow.
    let until_refused = async {
        while refused.is_empty() {
            match slow.send(slow.request(&format!("late-{}", accepted.len()), "{}")).await {
                Ok(answer) => accepted.extend(answer.saga.map(|saga| saga.saga_id)),
                Err(status) => refused.push(Err(status)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, until_refused).await.context("nothing is ever refused")?;
    for status in refused.into_iter().filter_map(Result::err) {
        overloaded(&status);
        assert!(status.message().contains(&slow.participant), "{status:?}");
    }

    let first = accepted[0].rsplit('/').next().unwrap_or_default();
    let again = slow.send(slow.request(first, "{}")).await?;
    assert!(again.existed, "a repeated start needs no room");
    assert_eq!(quick.run("a", "{}").await?.status(), SagaStatus::Completed, "it calls somebody else");
    assert_eq!(slow.shop.calls().len(), 1, "one at a time");

    gate.open();
    for id in &accepted {
        assert_eq!(slow.ended(id).await?.status(), SagaStatus::Completed);
    }
    assert_eq!(slow.run("after", "{}").await?.status(), SagaStatus::Completed);
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
