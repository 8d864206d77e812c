//! The filter language as a client types it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use sagad::proto::{ListSagasRequest, RepairAct, StartSagaRequest};
use tokio::sync::OnceCell;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::daemon::Daemon;
use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, step, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();
/// The name of the definition whose sagas the tests below look for.
static CAST: OnceCell<(String, String)> = OnceCell::const_new();

const BODY: &str = "steps:
  - { name: take, action: { call: shop.take, retry: { initial: 1h, max: 1h, elapsed: 0 } }, compensation: { call: shop.back } }
  - { name: pay, kind: retriable, action: { call: shop.pay, input: { x: \"${1 / input.n}\" } } }";

/// One saga in each state: their definition's and their participant's name.
async fn cast() -> Result<&'static (String, String)> {
    CAST.get_or_try_init(|| async {
        let play = Play::on(DAEMON.daemon(), BODY, |call| {
            match (call.saga.rsplit('/').next(), call.action.as_str()) {
                (Some("retrying"), "take") => Answer::Status(Code::Unavailable),
                (Some("refused"), "take") => Answer::Refused("EMPTY", "none left: a timeout, they say"),
                (Some("flying"), "take") => Gate::closed().then(Answer::Hang),
                _ => Answer::done(),
            }
        })
        .await?;
        for (end, n, region) in [
            ("done", 1, Some("kr")),
            ("blocked", 0, Some("KR")),
            ("retrying", 1, Some("k r\"\\")),
            ("refused", 1, None),
            ("flying", 1, Some("")),
        ] {
            let mut labels = BTreeMap::from([("odd name".to_owned(), end.to_owned())]);
            labels.extend(region.map(|region| ("region".to_owned(), region.to_owned())));
            play.send(StartSagaRequest { labels, ..play.request(end, &format!("{{\"n\":{n}}}")) }).await?;
        }
        play.ended(&play.id("done")).await?;
        play.ended(&play.id("refused")).await?;
        play.blocked(&play.id("blocked")).await?;
        play.until(&play.id("retrying"), |saga| step(saga, "take").next_attempt_at.is_some()).await?;
        play.repair(play.act(&play.id("retrying"), RepairAct::Pause, "")).await?;
        let flying = play.id("flying");
        play.shop.seen(|call| call.saga == flying).await;
        let names = (play.name.clone(), play.participant.clone());
        // The participant stays for as long as the daemon.
        std::mem::forget(play);
        Ok(names)
    })
    .await
}

async fn list(daemon: &Daemon, filter: &str) -> Result<BTreeSet<String>> {
    let request =
        ListSagasRequest { filter: filter.to_owned(), with_total: true, ..ListSagasRequest::default() };
    let answer = daemon.sagas().list_sagas(request).await.with_context(|| filter.to_owned())?.into_inner();
    assert!(answer.total_known && answer.total == answer.sagas.len() as u64, "{filter}");
    Ok(answer
        .sagas
        .into_iter()
        .map(|saga| saga.saga_id.rsplit('/').next().unwrap_or_default().to_owned())
        .collect())
}

/// The filter finds exactly these of the cast.
async fn finds(filter: &str, expected: &str) -> Result<()> {
    let (name, participant) = cast().await?;
    let filter = filter.replace("PARTICIPANT", participant);
    let found = list(DAEMON.daemon(), &format!("definition = {name} AND ({filter})")).await?;
    let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
    assert_eq!(found, expected, "{filter}");
    Ok(())
}

const ALL: &str = "done blocked retrying refused flying";

#[tokio::test]
async fn by_status_and_version() -> Result<()> {
    finds("status = COMPLETED", "done").await?;
    finds("status = \"BLOCKED\"", "blocked").await?;
    finds("status = RUNNING", "retrying flying").await?;
    finds("status != RUNNING", "done blocked refused").await?;
    finds("version = 1", ALL).await?;
    finds("version > 1 OR version < 1", "").await?;
    finds("version >= 1 AND version <= 1 AND version != 2", ALL).await
}

#[tokio::test]
async fn by_label() -> Result<()> {
    finds("label.region = kr", "done").await?;
    finds("label.region = \"kr\"", "done").await?;
    finds("label.region : k", "done retrying").await?;
    finds(r#"label.region = "k r\"\\""#, "retrying").await?;
    finds("label.region = \"\"", "flying").await?;
    finds("label.region != kr", "blocked retrying refused flying").await?;
    finds("NOT label.region = kr", "blocked retrying refused flying").await?;
    finds("label.nobody = x", "").await?;
    finds("label.nobody != x", ALL).await?;
    finds("label.\"odd name\" = done", "done").await
}

#[tokio::test]
async fn by_id_and_text() -> Result<()> {
    let (name, _) = cast().await?;
    finds(&format!("saga_id = \"{name}/done\""), "done").await?;
    finds("saga_id : ed", "blocked refused").await?;
    finds("saga_id : ED", "").await?;
    finds(&format!("definition : {}", &name[..4]), ALL).await
}

#[tokio::test]
async fn by_step_participant_and_error() -> Result<()> {
    finds("step = take", "retrying flying refused").await?;
    finds("step = pay", "blocked").await?;
    finds("step : a", "retrying flying refused blocked").await?;
    finds("participant = PARTICIPANT", "retrying flying refused blocked").await?;
    finds("participant = nobody", "").await?;
    finds("error : timeout", "refused").await?;
    finds("error : \"none left\"", "refused").await?;
    finds("error : UNAVAILABLE", "retrying").await?;
    finds("status = BLOCKED AND step = pay AND error : EXPRESSION", "blocked").await?;
    finds("error : nobody-said-this", "").await
}

#[tokio::test]
async fn by_flags() -> Result<()> {
    finds("paused = true", "retrying").await?;
    finds("paused = false", "done blocked refused flying").await?;
    finds("blocked = true", "blocked").await?;
    finds("NOT blocked = true", "done retrying refused flying").await?;
    finds("uncertain = false", ALL).await?;
    finds("uncertain = true", "").await
}

#[tokio::test]
async fn by_time() -> Result<()> {
    finds("age < 1h", ALL).await?;
    finds("age > 1h", "").await?;
    finds("idle <= 30m AND age >= 0s", ALL).await?;
    finds("created > 2020-01-01T00:00:00Z", ALL).await?;
    finds("created < \"2020-01-01T00:00:00+09:00\"", "").await?;
    finds("updated > 2020-01-01T00:00:00.5Z", ALL).await
}

#[tokio::test]
async fn not_binds_tighter_than_and_and_and_tighter_than_or() -> Result<()> {
    finds("status = COMPLETED OR status = BLOCKED AND label.region = nobody", "done").await?;
    finds("(status = COMPLETED OR status = BLOCKED) AND label.region = KR", "blocked").await?;
    finds("NOT status = COMPLETED AND NOT status = BLOCKED", "retrying refused flying").await?;
    finds("NOT (status = COMPLETED OR status = BLOCKED)", "retrying refused flying").await?;
    finds("NOT NOT status = COMPLETED", "done").await?;
    finds("  ( ( status=COMPLETED ) )  ", "done").await?;
    finds("status=COMPLETED OR status=BLOCKED OR status=RUNNING", "done blocked retrying flying").await
}

#[tokio::test]
async fn a_filter_that_cannot_be_is_refused_with_its_position() -> Result<()> {
    let long = format!("saga_id = \"{}\"", "x".repeat(4_096));
    let deep = format!("{}status = RUNNING{}", "(".repeat(1_500), ")".repeat(1_500));
    for filter in [
        "status =",
        "status",
        "= RUNNING",
        "status = RUNNING AND",
        "(status = RUNNING",
        "status = RUNNING)",
        "colour = red",
        "status = NO_SUCH",
        "status = running",
        "status > RUNNING",
        "age > soon",
        "age : 1m",
        "version = x",
        "version : 1",
        "paused = maybe",
        "created > yesterday",
        "label. = x",
        "status = \"RUNNING",
        "status = RUNNING status = RUNNING",
        "and",
        "status = RUNNING and paused = true",
        "status == RUNNING",
        "age > 10",
        "version = -1",
        "version = 99999999999",
        "\u{0}",
        &long,
        &deep,
    ] {
        let request = ListSagasRequest { filter: filter.to_owned(), ..ListSagasRequest::default() };
        let shown: String = filter.chars().take(60).collect();
        let status = DAEMON.daemon().sagas().list_sagas(request).await.expect_err(&shown);
        assert_eq!(status.code(), Code::InvalidArgument, "{shown}: {status:?}");
        assert_eq!(violations(&status), ["filter"], "{shown}: {status:?}");
        let details = status.get_details_bad_request().context("details")?;
        let description = &details.field_violations[0].description;
        if filter.len() <= 4_096 {
            assert!(
                description.chars().any(|c| c.is_ascii_digit()),
                "{shown}: no position in {description:?}"
            );
        }
    }
    Ok(())
}
