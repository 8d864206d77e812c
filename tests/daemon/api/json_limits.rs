//! Documents at their limits: exact numbers, depth, size, bytes that are no text.

use anyhow::{Context as _, Result};
use sagad::proto::{SagaStatus, StartSagaRequest};
use tonic::Code;

use crate::support::participant::Answer;
use crate::support::play::{Play, step, violations};
use crate::support::shared::Shared;
use crate::support::wire::{self, RawStart};

static DAEMON: Shared = Shared::new();

const MIB: usize = 1024 * 1024;

const ECHO: &str = "steps:
  - name: only
    action: { call: shop.echo, input: { whole: \"${input}\", one: \"${input.n}\", text: \"n=${input.n}\" } }
    compensation: none
output: { all: \"${steps['only']}\" }";

/// Answers with what it was given.
async fn echo() -> Result<Play<'static>> {
    Play::on(DAEMON.daemon(), ECHO, |call| Answer::Done(call.input.clone())).await
}

async fn refused_input(play: &Play<'_>, input: &str) -> Result<()> {
    let status = play.send(play.request("bad", input)).await.expect_err(input.get(..60).unwrap_or(input));
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(violations(&status).iter().all(|field| field.starts_with("input_json")), "{status:?}");
    assert!(!violations(&status).is_empty(), "{status:?}");
    Ok(())
}

/// An object that is `levels` deep.
fn nested(levels: usize) -> String {
    format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
}

#[tokio::test]
async fn integers_of_64_bits_pass_through_unchanged() -> Result<()> {
    let play = echo().await?;
    for (n, number) in ["9007199254740993", "18446744073709551615", "-9223372036854775808", "0", "-1"]
        .into_iter()
        .enumerate()
    {
        let saga = play.run(&n.to_string(), &format!("{{\"n\":{number}}}")).await?;
        assert_eq!(saga.status(), SagaStatus::Completed, "{saga:#?}");
        assert_eq!(saga.input_json, format!("{{\"n\":{number}}}"));
        let call = format!("{{\"one\":{number},\"text\":\"n={number}\",\"whole\":{{\"n\":{number}}}}}");
        let same = |text: &str| -> Result<()> {
            let (found, expected): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(text)?, serde_json::from_str(&call)?);
            assert_eq!(found, expected, "{text}");
            Ok(())
        };
        same(&play.shop.calls_of(&saga.saga_id)[0].input)?;
        same(&step(&saga, "only").input_json)?;
        same(&step(&saga, "only").output_json)?;
        assert!(saga.output_json.contains(&format!("\"one\":{number}")), "{}", saga.output_json);
    }
    Ok(())
}

#[tokio::test]
async fn integers_beyond_64_bits_are_refused() -> Result<()> {
    let play = echo().await?;
    for number in ["18446744073709551616", "-9223372036854775809", "1000000000000000000000000000"] {
        refused_input(&play, &format!("{{\"n\":{number}}}")).await?;
        refused_input(&play, &format!("{{\"a\":[{{\"n\":{number}}}]}}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn fractions_and_exponents_are_kept_as_numbers() -> Result<()> {
    let play = echo().await?;
    let saga = play.run("a", r#"{"n":0.1,"m":1e3,"k":-2.5e-7}"#).await?;
    let input: serde_json::Value = serde_json::from_str(&play.shop.calls_of(&saga.saga_id)[0].input)?;
    assert_eq!(input["whole"], serde_json::json!({"n": 0.1, "m": 1e3, "k": -2.5e-7}));
    assert_eq!(input["text"], "n=0.1");
    Ok(())
}

#[tokio::test]
async fn what_is_not_one_json_object_is_refused() -> Result<()> {
    let play = echo().await?;
    for input in [
        "[]",
        "null",
        "1",
        "\"x\"",
        "true",
        "{",
        "{}{}",
        "{} x",
        "{'a':1}",
        "{\"a\":1,}",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\u{1}\"}",
        "\u{feff}{}",
        " ",
        "{\"a\":1e999}",
    ] {
        refused_input(&play, input).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_duplicate_key_is_refused_at_any_depth() -> Result<()> {
    let play = echo().await?;
    for input in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#, r#"{"a":1,"\u0061":2}"#] {
        refused_input(&play, input).await?;
    }
    Ok(())
}

#[tokio::test]
async fn sixty_four_levels_are_taken_and_sixty_five_are_not() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |call| Answer::Done(call.input.clone())).await?;
    let saga = play.run("deep", &nested(64)).await?;
    assert_eq!((saga.status(), saga.input_json.as_str()), (SagaStatus::Completed, nested(64).as_str()));
    refused_input(&play, &nested(65)).await?;
    refused_input(&play, &nested(100_000)).await?;
    Ok(())
}

#[tokio::test]
async fn an_empty_input_is_an_empty_object() -> Result<()> {
    let play = echo().await?;
    let saga = play.run("a", "").await?;
    assert_eq!(saga.input_json, "{}");
    assert!(play.send(play.request("a", " { } ")).await?.existed);
    Ok(())
}

#[tokio::test]
async fn an_input_of_one_mebibyte_is_taken_and_one_byte_more_is_not() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do, input: {} }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let of = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    assert_eq!(of(MIB).len(), MIB);
    let saga = play.run("full", &of(MIB)).await?;
    assert_eq!((saga.status(), saga.input_json.len()), (SagaStatus::Completed, MIB));
    refused_input(&play, &of(MIB + 1)).await
}

#[tokio::test]
async fn a_request_far_over_every_limit_is_refused_and_harms_nobody() -> Result<()> {
    let play = echo().await?;
    let huge = StartSagaRequest { input_json: "x".repeat(40 * MIB), ..play.request("huge", "") };
    let status = play.send(huge).await.unwrap_err();
    let expected = [Code::ResourceExhausted, Code::OutOfRange, Code::InvalidArgument];
    assert!(expected.contains(&status.code()), "{status:?}");
    assert_eq!(play.run("next", r#"{"n":1}"#).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_and_harm_nobody() -> Result<()> {
    let play = echo().await?;
    let channel = play.daemon.channel();
    let good = RawStart {
        saga_id: play.id("raw").into_bytes(),
        definition: play.name.clone(),
        input_json: br#"{"n":1}"#.to_vec(),
    };
    let bad = RawStart { input_json: b"{\"n\":\"\xff\xfe\"}".to_vec(), ..good.clone() };
    let status = wire::start(channel.clone(), bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad = RawStart { saga_id: b"\xc3\x28".to_vec(), ..good.clone() };
    let status = wire::start(channel.clone(), bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let saga = wire::start(channel, good).await?.saga.context("a saga")?;
    assert_eq!(play.ended(&saga.saga_id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn text_of_every_plane_passes_through_unchanged() -> Result<()> {
    let play = echo().await?;
    let input = serde_json::json!({"n": "퀵 ☕ 𝄞 \u{10FFFF} \u{0} \" \\ \n ${input.n} $${x}"}).to_string();
    let saga = play.run("a", &input).await?;
    let seen: serde_json::Value = serde_json::from_str(&play.shop.calls_of(&saga.saga_id)[0].input)?;
    let sent: serde_json::Value = serde_json::from_str(&input)?;
    assert_eq!((&seen["whole"], &seen["one"]), (&sent, &sent["n"]), "data is never read as a template");
    Ok(())
}
