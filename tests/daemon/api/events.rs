//! Outbox records: in the same commit as what they tell of.

use anyhow::{Context as _, Result};
use sagad::proto::SagaEvent;
use serde_json::{Value, json};

use crate::support::participant::Answer;
use crate::support::play::Play;
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const TOLD: &str = "steps:
  - { name: only, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: last, action: { call: shop.last }, compensation: none }
events:
  - { on: started, topic: begun, key: \"${input.user}\", data: { user: \"${input.user}\" } }
  - { on: \"step:only\", topic: did, data: \"${steps.only}\" }
  - { on: committed, topic: placed, key: \"user-${input.user}\", data: { n: \"${steps.only.n}\" } }
  - { on: completed, topic: finished }
  - { on: compensating, topic: turned, data: { why: \"${failure.message}\" } }
  - { on: compensated, topic: rejected, data: { code: \"${failure.code}\", step: \"${failure.step}\" } }";

fn emitted(history: &[SagaEvent]) -> Result<Vec<Value>> {
    let records = history.iter().filter(|event| event.r#type == "event_emitted");
    records.map(|event| serde_json::from_str(&event.detail_json).context("a detail")).collect()
}

fn topics(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["topic"].as_str().unwrap_or("?")).collect()
}

#[tokio::test]
async fn a_saga_that_succeeds_tells_so_in_order() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TOLD, |_| Answer::with(r#"{"n":9007199254740993}"#)).await?;
    let saga = play.run("a", r#"{"user":7}"#).await?;
    let records = emitted(&play.history(&saga.saga_id).await?)?;
    assert_eq!(topics(&records), ["begun", "did", "placed", "finished"], "{records:#?}");
    assert_eq!((&records[0]["key"], &records[0]["data"]), (&json!("7"), &json!({"user": 7})));
    assert_eq!(records[1]["data"], json!({"n": 9_007_199_254_740_993_u64}));
    assert_eq!(records[2]["key"], json!("user-7"));
    Ok(())
}

#[tokio::test]
async fn a_saga_that_is_undone_tells_why() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), TOLD, |call| match call.action.as_str() {
        "last" => Answer::Refused("EMPTY", "none left"),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", r#"{"user":7}"#).await?;
    let records = emitted(&play.history(&saga.saga_id).await?)?;
    assert_eq!(topics(&records), ["begun", "did", "turned", "rejected"]);
    assert_eq!(records[2]["data"], json!({"why": "none left"}));
    assert_eq!(records[3]["data"], json!({"code": "EMPTY", "step": "last"}));
    Ok(())
}

#[tokio::test]
async fn a_record_that_cannot_be_evaluated_is_null_and_stops_nobody() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]
events: [{ on: committed, topic: placed, key: \"${1 / input.n}\", data: { bad: \"${1 / input.n}\" } }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let saga = play.run("a", r#"{"n":0}"#).await?;
    let history = play.history(&saga.saga_id).await?;
    assert_eq!(topics(&emitted(&history)?), ["placed"]);
    assert!(history.iter().any(|event| event.r#type == "expression_failed"), "{history:#?}");
    Ok(())
}

#[tokio::test]
async fn blocking_is_told_too() -> Result<()> {
    let body = "steps:
  - { name: only, kind: retriable, action: { call: shop.do, input: { x: \"${1 / input.n}\" } } }
events: [{ on: blocked, topic: help, data: { id: \"${saga.id}\" } }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let id = play.start("a", r#"{"n":0}"#).await?;
    play.blocked(&id).await?;
    let records = emitted(&play.history(&id).await?)?;
    assert_eq!((topics(&records), &records[0]["data"]), (vec!["help"], &json!({"id": id})));
    Ok(())
}
