//! Services that speak HTTP with JSON bodies.

use anyhow::Result;
use sagad::proto::{CompensationStatus, SagaStatus, StepStatus};
use tonic::Code;

use crate::support::daemon::Launch;
use crate::support::http_service::{Asked, HttpService, Told};
use crate::support::participant::Answer;
use crate::support::play::{Play, blocks, failure_code, step, unique, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// Two steps at a shop.
const ORDER: &str = "defaults: { retry: { initial: 1ms, max: 5ms, attempts: 8 } }
steps:
  - name: deduct
    action: { call: shop.deduct, input: { item: \"${input.item}\", amount: \"${input.amount}\" } }
    compensation: { call: shop.restore }
  - name: order
    pending: { interval: 1h }
    action: { call: shop.order, input: { user: \"${input.user}\", number: \"${steps.deduct.number}\" } }
    compensation: { call: shop.cancel }";

const TARGETS: [(&str, &str); 4] = [
    ("deduct", "POST /items/{item}/deduct"),
    ("restore", "POST /items/{item}/restore"),
    ("order", "PUT /orders/{user.id}"),
    ("cancel", "DELETE /orders/{user.id}"),
];

const INPUT: &str = r#"{"item":"a b","amount":9007199254740993,"user":{"id":7}}"#;

/// The order at a service that answers by `script`.
async fn play(
    script: impl Fn(&Asked) -> Told + Send + Sync + 'static,
) -> Result<(Play<'static>, HttpService)> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let service = HttpService::scripted(script).await?;
    service.register(play.daemon, &play.participant, &TARGETS).await?;
    play.define(ORDER).await?;
    Ok((play, service))
}

fn done() -> Told {
    Told::json(200, r#"{"number": 9007199254740993}"#)
}

fn lines(service: &HttpService) -> Vec<String> {
    service.asked().into_iter().map(|asked| asked.line).collect()
}

#[tokio::test]
async fn a_saga_runs_over_an_existing_service() -> Result<()> {
    let (play, service) = play(|_| done()).await?;
    let saga = play.run("a", INPUT).await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    assert_eq!(step(&saga, "deduct").output_json, r#"{"number": 9007199254740993}"#);
    assert_eq!(lines(&service), ["POST /items/a%20b/deduct", "PUT /orders/7"]);
    let asked = service.asked();
    assert_eq!(asked[0].body, step(&saga, "deduct").input_json, "byte for byte");
    assert_eq!((asked[0].header("sagad-saga-id"), asked[0].header("sagad-step")), (&*saga.saga_id, "deduct"));
    Ok(())
}

#[tokio::test]
async fn a_refusal_with_its_own_words_turns_the_saga_back() -> Result<()> {
    let (play, service) = play(|asked| match asked.line.as_str() {
        "PUT /orders/7" => Told::json(422, r#"{"code":"CLOSED","message":"we are closed"}"#),
        _ => done(),
    })
    .await?;
    let saga = play.run("a", INPUT).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "CLOSED"));
    assert_eq!(saga.failure.as_ref().map(|failure| failure.message.as_str()), Some("we are closed"));
    assert_eq!(step(&saga, "order").compensation(), CompensationStatus::NotNeeded);
    let asked = service.asked();
    assert_eq!(asked[2].line, "POST /items/a%20b/restore");
    assert_eq!(asked[2].header("sagad-action-idempotency-key"), asked[0].header("idempotency-key"));
    assert_ne!(asked[2].header("idempotency-key"), asked[0].header("idempotency-key"));
    assert_eq!(asked[2].header("sagad-phase"), "compensation");
    Ok(())
}

#[tokio::test]
async fn every_attempt_carries_the_same_key_and_body() -> Result<()> {
    let statuses = [409, 500, 503, 429, 302, 401];
    let (play, service) = play(move |asked| {
        let attempt: usize = asked.header("sagad-attempt").parse().unwrap_or(0);
        match statuses.get(attempt - 1) {
            Some(status) if asked.line.ends_with("/deduct") => Told::json(*status, ""),
            _ => done(),
        }
    })
    .await?;
    let saga = play.run("a", INPUT).await?;
    assert_eq!((saga.status(), step(&saga, "deduct").attempts), (SagaStatus::Completed, 7));
    let asked = service.asked();
    let deducts: Vec<_> = asked.iter().filter(|asked| asked.line.ends_with("/deduct")).collect();
    assert_eq!(deducts.len(), 7);
    for one in &deducts {
        assert_eq!(one.header("idempotency-key"), deducts[0].header("idempotency-key"));
        assert_eq!(one.body, deducts[0].body);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_accepted_is_asked_for_again_when_the_service_says() -> Result<()> {
    let (play, service) = play(|asked| match (asked.line.as_str(), asked.header("sagad-attempt")) {
        ("PUT /orders/7", "1") => Told::json(202, "").with("retry-after", "1"),
        _ => done(),
    })
    .await?;
    let saga = play.run("a", INPUT).await?;
    assert_eq!(saga.status(), SagaStatus::Completed, "and not after an hour");
    let asked = service.asked();
    assert_eq!(lines(&service)[1..], ["PUT /orders/7", "PUT /orders/7"]);
    assert_eq!(asked[1].header("idempotency-key"), asked[2].header("idempotency-key"));
    Ok(())
}

#[tokio::test]
async fn what_is_accepted_is_looked_at_by_the_definitions_probe() -> Result<()> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let service = HttpService::scripted(|asked| match asked.line.as_str() {
        "POST /orders" => Told::json(202, "").with("retry-after", "1"),
        "GET /orders?number=7" => Told::json(200, r#"{"state":"placed"}"#),
        _ => Told::json(404, ""),
    })
    .await?;
    let targets =
        [("place", "POST /orders"), ("look", "GET /orders?number={number}"), ("undo", "DELETE /orders")];
    service.register(play.daemon, &play.participant, &targets).await?;
    play.define(
        "steps:
  - name: order
    pending: { interval: 1h }
    probe: { call: shop.look }
    action: { call: shop.place }
    compensation: { call: shop.undo }",
    )
    .await?;
    let saga = play.run("a", r#"{"number":7}"#).await?;
    assert_eq!(step(&saga, "order").output_json, r#"{"state":"placed"}"#);
    let asked = service.asked();
    assert_eq!(lines(&service), ["POST /orders", "GET /orders?number=7"]);
    assert_eq!((asked[1].header("sagad-phase"), asked[1].header("idempotency-key")), ("probe", ""));
    assert_eq!(asked[1].header("sagad-action-idempotency-key"), asked[0].header("idempotency-key"));
    Ok(())
}

/// A saga whose order is accepted and then never heard of; its id and where to call back.
async fn accepted(play: &Play<'_>, service: &HttpService) -> Result<(String, String)> {
    let id = play.start("a", INPUT).await?;
    let asked = service.seen(|asked| asked.line == "PUT /orders/7").await;
    play.until(&id, |saga| step(saga, "order").next_attempt_at.is_some()).await?;
    Ok((id, asked.header("sagad-callback-path").to_owned()))
}

fn accepting(asked: &Asked) -> Told {
    if asked.line == "PUT /orders/7" { Told::json(202, "") } else { done() }
}

#[tokio::test]
async fn what_is_accepted_is_finished_by_a_callback() -> Result<()> {
    let (play, service) = play(accepting).await?;
    let (id, path) = accepted(&play, &service).await?;
    let body = r#"{"done":{"order":9007199254740993}}"#;
    assert_eq!(play.daemon.post(&path, body).await?, (204, String::new()));
    let saga = play.ended(&id).await?;
    assert_eq!(
        (saga.status(), &*step(&saga, "order").output_json),
        (SagaStatus::Completed, r#"{"order":9007199254740993}"#)
    );
    assert_eq!(play.daemon.post(&path, body).await?.0, 204, "the same again is fine");
    let (status, told) = play.daemon.post(&path, r#"{"done":null}"#).await?;
    assert_eq!(status, 409, "{told}");
    assert!(told.contains("settled otherwise"), "{told}");
    Ok(())
}

#[tokio::test]
async fn what_is_accepted_is_refused_by_a_callback() -> Result<()> {
    let (play, service) = play(accepting).await?;
    let (id, path) = accepted(&play, &service).await?;
    let slashes_as_they_are = path.replace("%2F", "/");
    let body = r#"{"refused":{"code":"EMPTY","message":"none left"}}"#;
    assert_eq!(play.daemon.post(&slashes_as_they_are, body).await?.0, 204);
    let saga = play.ended(&id).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "EMPTY"));
    Ok(())
}

#[tokio::test]
async fn a_callback_that_is_wrong_changes_nothing() -> Result<()> {
    let (play, service) = play(accepting).await?;
    let (id, path) = accepted(&play, &service).await?;
    let huge = format!("{{\"done\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let cases = [
        (format!("{path}x"), r#"{"done":{}}"#, 404),
        ("/v1/steps/no-such-token".to_owned(), r#"{"done":{}}"#, 404),
        ("/v1/steps/".to_owned(), r#"{"done":{}}"#, 404),
        (path.clone(), "", 400),
        (path.clone(), r#"{"pending":{}}"#, 400),
        (path.clone(), "{", 400),
        (path.clone(), &huge, 413),
    ];
    for (path, body, expected) in cases {
        let (status, told) = play.daemon.post(&path, body).await?;
        assert_eq!(status, expected, "{path} {told}");
    }
    assert_eq!(play.daemon.page(&path).await?.0, 405);
    assert_eq!(step(&play.get(&id).await?, "order").status(), StepStatus::Running);
    Ok(())
}

#[tokio::test]
async fn an_input_without_the_paths_field_is_refused_and_nothing_is_sent() -> Result<()> {
    let (play, service) = play(|_| done()).await?;
    let saga = play.run("a", r#"{"item":"a","amount":1,"user":{"name":"x"}}"#).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "INPUT_MISMATCH"));
    assert_eq!(lines(&service), ["POST /items/a/deduct", "POST /items/a/restore"]);
    let id = play.start("b", r#"{"item":null,"amount":1,"user":{"id":1}}"#).await?;
    assert_eq!(failure_code(&play.ended(&id).await?), "INPUT_MISMATCH");
    Ok(())
}

#[tokio::test]
async fn a_refused_compensation_blocks() -> Result<()> {
    let (play, _service) = play(|asked| match asked.line.as_str() {
        "POST /items/a%20b/deduct" => done(),
        _ => Told::json(404, r#"{"title":"no such thing"}"#),
    })
    .await?;
    let id = play.start("a", INPUT).await?;
    assert_eq!(blocks(&play.blocked(&id).await?), ["compensation deduct"]);
    Ok(())
}

#[tokio::test]
async fn a_file_registers_a_service_and_says_which_answers_count_as_done() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let service = HttpService::scripted(|asked| match asked.line.as_str() {
        "POST /deduct" => done(),
        _ => Told::json(404, r#"{"title":"no such thing"}"#),
    })
    .await?;
    let config = folder.path().join("sagad.toml");
    let text = format!(
        "[[participants]]\nname = \"shop\"\nprotocol = \"http\"\nendpoint = \"http://{}\"\nactions = [\n  \
         {{ name = \"deduct\", target = \"POST /deduct\" }},\n  \
         {{ name = \"order\", target = \"POST /order\" }},\n  \
         {{ name = \"cancel\", target = \"DELETE /order\" }},\n  \
         {{ name = \"restore\", target = \"POST /restore\", done_on = [\"404\"] }},\n]\n",
        service.address
    );
    std::fs::write(&config, text)?;
    let launch = Launch::on(&folder.path().join("data")).arg("--config").arg(config.display().to_string());
    let daemon = launch.start()?;
    let mut play = Play::unregistered(&daemon, |_| Answer::done()).await?;
    "shop".clone_into(&mut play.participant);
    play.define(ORDER).await?;
    let saga = play.run("a", INPUT).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "HTTP_404"));
    Ok(())
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_told_what_is_wrong() -> Result<()> {
    let service = HttpService::scripted(|_| done()).await?;
    for target in ["", "deduct", "POST deduct", "FETCH /deduct", "POST /{item", "POST /deduct HTTP/3"] {
        let status =
            service.register(DAEMON.daemon(), &unique("bad"), &[("deduct", target)]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{target}");
        assert_eq!(violations(&status), ["actions[0].target"], "{target}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_unknown_and_undone() -> Result<()> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let service = HttpService::scripted(|asked| match asked.line.as_str() {
        "POST /deduct" => Told::json(200, "{\"never\": "),
        _ => Told::json(204, ""),
    })
    .await?;
    service
        .register(play.daemon, &play.participant, &[("deduct", "POST /deduct"), ("restore", "POST /restore")])
        .await?;
    play.define(
        "defaults: { retry: { initial: 1ms, attempts: 3 } }
steps: [{ name: deduct, action: { call: shop.deduct }, compensation: { call: shop.restore } }]",
    )
    .await?;
    let saga = play.run("a", "{}").await?;
    assert_eq!(
        (saga.status(), step(&saga, "deduct").status()),
        (SagaStatus::Compensated, StepStatus::Unknown)
    );
    assert_eq!(lines(&service), ["POST /deduct", "POST /deduct", "POST /deduct", "POST /restore"]);
    Ok(())
}
