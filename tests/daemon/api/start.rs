//! Starting: ids, versions, repeats, and every way a start is turned away.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sagad::proto::{RetireDefinitionRequest, SagaStatus, StartSagaRequest, WaitFor};
use tonic::{Code, Status};

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, history, ms, unique, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const ONE_STEP: &str = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

async fn play() -> Result<Play<'static>> {
    Play::on(DAEMON.daemon(), ONE_STEP, |_| Answer::done()).await
}

fn invalid(refused: Result<impl std::fmt::Debug, Status>, field: &str) {
    let status = refused.expect_err("an invalid request is refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(violations(&status), [field], "{status:?}");
}

#[tokio::test]
async fn a_start_is_answered_with_the_saga_it_made() -> Result<()> {
    let play = play().await?;
    let labels = BTreeMap::from([("region".to_owned(), "kr".to_owned())]);
    let request = StartSagaRequest { labels: labels.clone(), ..play.request("a", r#"{ "n": 1 }"#) };
    let answer = play.send(request).await?;
    let saga = answer.saga.context("a saga")?;
    assert!(!answer.existed);
    assert_eq!(
        (saga.saga_id.as_str(), saga.definition.as_str()),
        (play.id("a").as_str(), play.name.as_str())
    );
    assert_eq!((saga.version, saga.digest.len()), (1, 64));
    assert_eq!(saga.labels, labels);
    assert!(saga.seq >= 1 && saga.created_at.is_some() && saga.updated_at.is_some());
    let ended = play.ended(&saga.saga_id).await?;
    assert_eq!(ended.status(), SagaStatus::Completed);
    assert!(ended.committed && ended.ended_at.is_some() && ended.next_wake_at.is_none());
    assert!(!ended.uncertain && !ended.paused && ended.failure.is_none());
    Ok(())
}

#[tokio::test]
async fn without_an_id_each_start_makes_a_new_saga_with_a_time_ordered_id() -> Result<()> {
    let play = play().await?;
    let request = StartSagaRequest { saga_id: String::new(), ..play.request("", "{}") };
    let first = play.send(request.clone()).await?.saga.context("a saga")?.saga_id;
    let second = play.send(request).await?.saga.context("a saga")?.saga_id;
    assert!(first < second, "{first} {second}");
    for id in [first, second] {
        assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id} is no UUIDv7");
    }
    Ok(())
}

#[tokio::test]
async fn the_longest_and_the_oddest_allowed_ids_are_taken() -> Result<()> {
    let play = play().await?;
    for id in
        [unique("A.b_c:d/e-F"), format!("{}{}", unique("x"), "y".repeat(190)), unique(".."), unique("//")]
    {
        let id: String = id.chars().take(200).collect();
        let request = StartSagaRequest { saga_id: id.clone(), ..play.request("", "{}") };
        play.send(request).await?;
        assert_eq!(play.ended(&id).await?.saga_id, id);
    }
    Ok(())
}

#[tokio::test]
async fn an_id_outside_its_form_is_named_as_the_violation() -> Result<()> {
    let play = play().await?;
    for id in ["a b", "é", "a\n", "a%20b", &"x".repeat(201), "a\\b", "\u{0}"] {
        let request = StartSagaRequest { saga_id: id.to_owned(), ..play.request("", "{}") };
        invalid(play.send(request).await, "saga_id");
    }
    Ok(())
}

#[tokio::test]
async fn every_violation_of_a_start_is_told_at_once() -> Result<()> {
    let request = StartSagaRequest {
        saga_id: "a b".to_owned(),
        definition: String::new(),
        input_json: "[".to_owned(),
        wait: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        wait_for: 99,
        ..StartSagaRequest::default()
    };
    let status = DAEMON.daemon().sagas().start_saga(request).await.expect_err("it is wrong throughout");
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut found = violations(&status);
    found.sort();
    assert_eq!(found, ["definition", "input_json", "saga_id", "wait", "wait_for"]);
    Ok(())
}

#[tokio::test]
async fn a_definition_or_version_never_registered_is_not_found() -> Result<()> {
    let play = play().await?;
    let mut request = play.request("a", "{}");
    request.version = 2;
    assert_eq!(play.send(request.clone()).await.unwrap_err().code(), Code::NotFound);
    request.version = 0;
    request.definition = unique("nobody-registered-this");
    assert_eq!(play.send(request).await.unwrap_err().code(), Code::NotFound);
    let id = play.id("a");
    assert!(play.get(&id).await.is_err(), "a refused start leaves nothing behind");
    Ok(())
}

#[tokio::test]
async fn a_retired_version_takes_no_new_starts() -> Result<()> {
    let play = play().await?;
    let retire = RetireDefinitionRequest { name: play.name.clone(), version: 1 };
    play.daemon.definitions().retire_definition(retire).await?;
    for version in [0, 1] {
        let request = StartSagaRequest { version, ..play.request("a", "{}") };
        let status = play.send(request).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "version {version}");
        assert!(status.message().contains("retire") || status.message().contains("active"), "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn version_zero_is_the_highest_active_one() -> Result<()> {
    let play = play().await?;
    play.define(
        "description: second\nsteps: [{ name: only, action: { call: shop.do }, compensation: none }]",
    )
    .await?;
    let third = play
        .define("description: third\nsteps: [{ name: only, action: { call: shop.do }, compensation: none }]");
    assert_eq!(third.await?.version, 3);
    let retire = RetireDefinitionRequest { name: play.name.clone(), version: 3 };
    play.daemon.definitions().retire_definition(retire).await?;
    let saga = play.send(play.request("newest", "{}")).await?.saga.context("a saga")?;
    assert_eq!(saga.version, 2);
    let old = StartSagaRequest { version: 1, ..play.request("old", "{}") };
    assert_eq!(play.send(old).await?.saga.context("a saga")?.version, 1);
    Ok(())
}

#[tokio::test]
async fn the_same_request_again_answers_with_the_saga_that_exists() -> Result<()> {
    let play = play().await?;
    let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let request = StartSagaRequest {
        labels,
        ..play.request("a", r#"{"big":9007199254740993,"list":[1,{"x":null,"y":"é"}]}"#)
    };
    play.send(request.clone()).await?;
    let ended = play.ended(&play.id("a")).await?;
    for same in [
        r#"{"list":[1,{"y":"é","x":null}],"big":9007199254740993}"#,
        "\n{ \"list\" : [ 1 , { \"y\" : \"\\u00e9\" , \"x\" : null } ] , \"big\" : 9007199254740993 }\t",
    ] {
        let again = StartSagaRequest {
            input_json: same.to_owned(),
            wait: Some(ms(50)),
            wait_for: WaitFor::Ended.into(),
            ..request.clone()
        };
        let answer = play.send(again).await?;
        assert!(answer.existed, "{same}");
        assert_eq!(answer.saga.context("a saga")?, ended);
    }
    assert_eq!(play.shop.calls_of(&play.id("a")).len(), 1, "the step ran once");
    Ok(())
}

#[tokio::test]
async fn another_request_under_the_same_id_is_refused_and_changes_nothing() -> Result<()> {
    let play = play().await?;
    let request = play.request("a", r#"{"n":9007199254740993}"#);
    play.send(request.clone()).await?;
    let before = play.ended(&play.id("a")).await?;
    let other = Play::on(DAEMON.daemon(), ONE_STEP, |_| Answer::done()).await?;
    let others = [
        StartSagaRequest { input_json: r#"{"n":9007199254740992}"#.to_owned(), ..request.clone() },
        StartSagaRequest { input_json: r#"{"n":9007199254740993.0}"#.to_owned(), ..request.clone() },
        StartSagaRequest { input_json: r#"{"n":"9007199254740993"}"#.to_owned(), ..request.clone() },
        StartSagaRequest { input_json: r#"{"n":9007199254740993,"m":null}"#.to_owned(), ..request.clone() },
        StartSagaRequest { input_json: String::new(), ..request.clone() },
        StartSagaRequest { labels: BTreeMap::from([("a".to_owned(), String::new())]), ..request.clone() },
        StartSagaRequest { version: 1, ..request.clone() },
        StartSagaRequest { definition: other.name.clone(), ..request.clone() },
        StartSagaRequest { definition: unique("never-registered"), ..request.clone() },
    ];
    for (n, other) in others.into_iter().enumerate() {
        let status = play.send(other).await.expect_err("another request");
        assert_eq!(status.code(), Code::AlreadyExists, "case {n}: {status:?}");
    }
    assert_eq!(play.get(&play.id("a")).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_repeat_is_known_also_after_its_definition_was_retired() -> Result<()> {
    let play = play().await?;
    play.run("a", "{}").await?;
    let retire = RetireDefinitionRequest { name: play.name.clone(), version: 1 };
    play.daemon.definitions().retire_definition(retire).await?;
    assert!(play.send(play.request("a", "")).await?.existed);
    let other = play.send(play.request("a", r#"{"n":1}"#)).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    Ok(())
}

#[tokio::test]
async fn a_repeat_is_known_also_after_a_newer_version_was_registered() -> Result<()> {
    let play = play().await?;
    play.run("a", "{}").await?;
    play.define("description: newer\nsteps: [{ name: only, action: { call: shop.do }, compensation: none }]")
        .await?;
    let answer = play.send(play.request("a", "{}")).await?;
    assert!(answer.existed);
    assert_eq!(answer.saga.context("a saga")?.version, 1);
    Ok(())
}

#[tokio::test]
async fn twenty_clients_racing_with_one_request_make_one_saga() -> Result<()> {
    let play = play().await?;
    let requests = (0..20).map(|_| play.send(play.request("raced", r#"{"n":1}"#)));
    let answers = futures::future::join_all(requests).await;
    let made = answers.into_iter().map(|a| a.map(|a| !a.existed)).collect::<Result<Vec<bool>, Status>>()?;
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    play.ended(&play.id("raced")).await?;
    assert_eq!(play.shop.calls_of(&play.id("raced")).len(), 1);
    let starts = play.words(&play.id("raced")).await?.iter().filter(|w| *w == "saga_started").count();
    assert_eq!(starts, 1);
    Ok(())
}

#[tokio::test]
async fn twenty_clients_racing_with_different_requests_leave_one_winner() -> Result<()> {
    let play = play().await?;
    let requests = (0..20).map(|n| play.send(play.request("raced", &format!("{{\"n\":{n}}}"))));
    let answers = futures::future::join_all(requests).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for refused in lost {
        assert_eq!(refused.unwrap_err().code(), Code::AlreadyExists);
    }
    let winner = won.into_iter().next().context("a winner")??.saga.context("a saga")?;
    assert_eq!(play.ended(&play.id("raced")).await?.input_json, winner.input_json);
    Ok(())
}

#[tokio::test]
async fn a_start_may_wait_for_the_commit() -> Result<()> {
    let gate = Gate::closed();
    let side = gate.clone();
    let body = "steps:
  - { name: first, action: { call: shop.do }, compensation: none }
  - { name: side, kind: retriable, action: { call: shop.side } }";
    let play = Play::on(DAEMON.daemon(), body, move |call| match call.action.as_str() {
        "side" => side.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let request = StartSagaRequest { wait, ..play.request("a", "{}") };
    let saga = play.send(request.clone()).await?.saga.context("a saga")?;
    assert_eq!((saga.status(), saga.committed), (SagaStatus::Committed, true));
    let repeat = StartSagaRequest { wait: Some(ms(30)), wait_for: WaitFor::Ended.into(), ..request.clone() };
    let still = play.send(repeat.clone()).await?.saga.context("a saga")?;
    assert_eq!(still.status(), SagaStatus::Committed, "a passed wait answers with the saga as it stands");
    gate.open();
    let ended = play.send(StartSagaRequest { wait, ..repeat }).await?.saga.context("a saga")?;
    assert_eq!(ended.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_start_whose_wait_passes_is_answered_with_the_saga_as_it_stands() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), ONE_STEP, move |_| held.then(Answer::done())).await?;
    let request = StartSagaRequest { wait: Some(ms(50)), ..play.request("a", "{}") };
    let saga = play.send(request).await?.saga.context("a saga")?;
    assert_eq!(saga.status(), SagaStatus::Running);
    gate.open();
    assert_eq!(play.ended(&saga.saga_id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn an_input_that_breaks_the_schema_is_refused_with_its_paths() -> Result<()> {
    let body = "input_schema:
  type: object
  required: [user]
  properties: { user: { type: integer }, items: { type: array, items: { required: [id] } } }
steps: [{ name: only, action: { call: shop.do }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let refused = play.send(play.request("a", r#"{"user":"mina","items":[{"id":1},{}]}"#)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut fields = violations(&refused);
    fields.sort();
    assert_eq!(fields, ["input_json.items[1]", "input_json.user"], "{refused:?}");
    assert!(history(play.daemon, &play.id("a"), 0).await.is_err(), "nothing was stored");
    play.run("a", r#"{"user":1,"items":[{"id":1}]}"#).await?;
    Ok(())
}

#[tokio::test]
async fn too_many_or_too_long_labels_are_refused() -> Result<()> {
    let play = play().await?;
    let too_long = BTreeMap::from([("a".to_owned(), "x".repeat(100_000))]);
    let too_many = (0..5_000).map(|n| (n.to_string(), String::new())).collect();
    let nameless = BTreeMap::from([(String::new(), "x".to_owned())]);
    for labels in [too_long, too_many, nameless] {
        let status = play.send(StartSagaRequest { labels, ..play.request("a", "{}") }).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(violations(&status).iter().all(|field| field.starts_with("labels")), "{status:?}");
    }
    Ok(())
}
