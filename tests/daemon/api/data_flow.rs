//! Expressions: what they see, what becomes of values that are missing.

use anyhow::Result;
use sagad::proto::SagaStatus;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::participant::Answer;
use crate::support::play::{Play, blocks, failure_code, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// Runs one step whose input is `template` (YAML) and gives what it was called with.
async fn given(template: &str, input: &str) -> Result<Value> {
    let body = format!(
        "steps:\n  - name: only\n    action: {{ call: shop.do, input: {template} }}\n    compensation: none"
    );
    let play = Play::on(DAEMON.daemon(), &body, |_| Answer::done()).await?;
    let saga = play.run("a", input).await?;
    assert_eq!(saga.status(), SagaStatus::Completed, "{template}: {saga:#?}");
    Ok(serde_json::from_str(&play.shop.calls_of(&saga.saga_id)[0].input)?)
}

#[tokio::test]
async fn a_whole_expression_keeps_its_type_and_one_in_text_becomes_text() -> Result<()> {
    let input = r#"{"n":7,"s":"x","b":true,"l":[1,"a"],"z":null,"f":1.5}"#;
    let template = r#"{ n: "${input.n}", b: "${input.b}", l: "${input.l}", z: "${input.z}", f: "${input.f}", mixed: "<${input.n}|${input.s}|${input.b}>", pair: "${input.n}${input.n}", literal: "$${input.n}", plain: 7, deep: [{ x: "${input.s}" }] }"#;
    let expected = json!({
        "n": 7, "b": true, "l": [1, "a"], "z": null, "f": 1.5, "mixed": "<7|x|true>", "pair": "77",
        "literal": "${input.n}", "plain": 7, "deep": [{"x": "x"}]
    });
    assert_eq!(given(template, input).await?, expected);
    Ok(())
}

#[tokio::test]
async fn expressions_calculate_exactly_at_the_edges() -> Result<()> {
    let template = r#"{ less: "${input.big - 1}", same: "${input.big == 9007199254740993}", min: "${input.min}", umax: "${input.umax}", sum: "${input.l.map(x, x * 2)}", text: "${string(input.big)}", max: "${input.l.exists(x, x > 2)}" }"#;
    let input =
        r#"{"big":9007199254740993,"min":-9223372036854775808,"umax":18446744073709551615,"l":[1,2,3]}"#;
    let expected = json!({
        "less": 9_007_199_254_740_992_u64, "same": true, "min": i64::MIN, "umax": u64::MAX, "sum": [2, 4, 6],
        "text": "9007199254740993", "max": true
    });
    assert_eq!(given(template, input).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_missing_key_makes_the_whole_expression_null() -> Result<()> {
    let template = r#"{ a: "${input.nobody}", b: "${input.a.b.c}", c: "${input.nobody + 1}", d: "${has(input.nobody)}", e: "${has(input.a) ? 'yes' : 'no'}", f: "x${input.nobody}y" }"#;
    let found = given(template, r#"{"a":{"b":{}}}"#).await?;
    assert_eq!(found["a"], Value::Null);
    assert_eq!((&found["b"], &found["c"]), (&Value::Null, &Value::Null));
    assert_eq!((&found["d"], &found["e"]), (&json!(false), &json!("yes")));
    Ok(())
}

#[tokio::test]
async fn sagas_know_their_id_and_labels() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do, input: { id: \"${saga.id}\", region: \"${saga.labels.region}\", none: \"${saga.labels.none}\" } }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let mut request = play.request("a", "{}");
    request.labels.insert("region".to_owned(), "kr".to_owned());
    let id = play.send(request).await?.saga.expect("a saga").saga_id;
    play.ended(&id).await?;
    let input: Value = serde_json::from_str(&play.shop.calls_of(&id)[0].input)?;
    assert_eq!(input, json!({"id": id, "region": "kr", "none": null}));
    Ok(())
}

#[tokio::test]
async fn an_action_without_input_gets_the_sagas_own() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let saga = play.run("a", r#"{"b":1,"a":[9007199254740993]}"#).await?;
    assert_eq!(play.shop.calls_of(&saga.saga_id)[0].input, saga.input_json);
    assert_eq!(step(&saga, "only").input_json, saga.input_json);
    Ok(())
}

#[tokio::test]
async fn an_action_whose_expression_fails_is_refused_with_nothing_called() -> Result<()> {
    for (n, (expression, input)) in [
        ("1 / input.n", r#"{"n":0}"#),
        ("input.n + 1", r#"{"n":9223372036854775807}"#),
        ("input.n + 1", r#"{"n":"text"}"#),
        ("int(input.n)", r#"{"n":"seven"}"#),
        ("input.n[5]", r#"{"n":[]}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(
            "steps:
  - {{ name: first, action: {{ call: shop.do }}, compensation: {{ call: shop.undo }} }}
  - {{ name: bad, action: {{ call: shop.do, input: {{ x: \"${{{expression}}}\" }} }}, compensation: {{ call: shop.undo }} }}"
        );
        let play = Play::on(DAEMON.daemon(), &body, |_| Answer::done()).await?;
        let saga = play.run(&n.to_string(), input).await?;
        assert_eq!(
            (saga.status(), failure_code(&saga)),
            (SagaStatus::Compensated, "EXPRESSION"),
            "{expression}"
        );
        assert_eq!(play.called(&saga.saga_id), ["action first", "compensation first"], "{expression}");
        assert!(step(&saga, "bad").failure.as_ref().is_some_and(|f| !f.message.is_empty()));
    }
    Ok(())
}

#[tokio::test]
async fn a_retriable_step_whose_expression_fails_blocks() -> Result<()> {
    let body = "steps:
  - { name: order, action: { call: shop.do }, compensation: none }
  - { name: mail, kind: retriable, action: { call: shop.mail, input: { x: \"${1 / input.n}\" } } }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let id = play.start("a", r#"{"n":0}"#).await?;
    let saga = play.blocked(&id).await?;
    assert_eq!((blocks(&saga), saga.committed), (vec!["action mail".to_owned()], true));
    assert_eq!(play.called(&id), ["action order"]);
    Ok(())
}

#[tokio::test]
async fn an_output_that_cannot_be_evaluated_is_null_and_the_history_says_so() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]
output: { bad: \"${1 / input.n}\", good: \"${input.n}\" }";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let saga = play.run("a", r#"{"n":0}"#).await?;
    assert_eq!(saga.status(), SagaStatus::Completed, "it holds all the same");
    let output: Value = serde_json::from_str(&saga.output_json)?;
    assert!(output.is_null() || output["bad"].is_null(), "{output}");
    let history = play.history(&saga.saga_id).await?;
    assert!(history.iter().any(|event| event.r#type.contains("expression")), "{history:#?}");
    Ok(())
}

#[tokio::test]
async fn the_input_of_a_call_is_evaluated_once_and_sent_again_byte_for_byte() -> Result<()> {
    let body = "defaults: { retry: { initial: 1ms } }
steps: [{ name: only, action: { call: shop.do, input: { z: 1, a: \"${input.f}\", m: \"${input.s}\" } }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |call| match call.attempt {
        1..=3 => Answer::Status(Code::Unavailable),
        _ => Answer::done(),
    })
    .await?;
    let saga = play.run("a", r#"{"f":0.1,"s":"\u00e9"}"#).await?;
    let calls = play.shop.calls_of(&saga.saga_id);
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|call| call.input == calls[0].input));
    assert_eq!(step(&saga, "only").input_json, calls[0].input);
    Ok(())
}

#[tokio::test]
async fn outputs_of_other_branches_are_joined() -> Result<()> {
    let body = "steps:
  - { name: left, after: [], action: { call: shop.do, input: { n: 1 } }, compensation: none }
  - { name: right, after: [], action: { call: shop.do, input: { n: 2 } }, compensation: none }
  - { name: join, after: [left, right], action: { call: shop.do, input: { n: \"${steps.left.n + steps['right'].n}\" } }, compensation: none }
output: \"${steps.join.n}\"";
    let play = Play::on(DAEMON.daemon(), body, |call| Answer::Done(call.input.clone())).await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(saga.output_json, "3");
    Ok(())
}
