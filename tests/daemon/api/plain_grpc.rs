//! Sagas over gRPC services that never heard of the daemon.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use sagad::proto::{
    CompensationStatus, HandlerAction, ListParticipantsRequest, Protocol, RegisterDefinitionRequest,
    RegisterHandlersRequest, SagaStatus, StepStatus,
};
use serde_json::json;
use tonic::{Code, Status};

use crate::support::daemon::{Daemon, Launch};
use crate::support::play::{Play, failure_code, span, step, unique, violations};
use crate::support::sample_service::{Reflects, Sample, Says, Seen, compile};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

/// The service of another team.
const GREENHOUSE: [(&str, &str); 1] = [(
    "greenhouse.proto",
    r#"
syntax = "proto3";
package greenhouse.v2;
import "google/protobuf/empty.proto";
service Plants {
  rpc Take(TakeRequest) returns (TakeReply);
  rpc GiveBack(TakeRequest) returns (google.protobuf.Empty);
  rpc Water(TakeRequest) returns (TakeReply);
}
message TakeRequest { int64 plant_id = 1; uint32 pots = 2; }
message TakeReply { int64 receipt = 1; repeated string names = 2; int32 left = 3; }
"#,
)];

fn actions(names: &[(&str, &str)]) -> Vec<HandlerAction> {
    let action = |(name, method): &(&str, &str)| HandlerAction {
        name: (*name).to_owned(),
        target: format!("greenhouse.v2.Plants/{method}"),
        ..HandlerAction::default()
    };
    names.iter().map(action).collect()
}

fn registration(name: &str, sample: &Sample) -> RegisterHandlersRequest {
    RegisterHandlersRequest {
        participant: name.to_owned(),
        endpoint: sample.endpoint(),
        protocol: Protocol::Grpc.into(),
        actions: actions(&[("take", "Take"), ("give-back", "GiveBack"), ("water", "Water")]),
        ttl: Some(span(Duration::from_hours(1))),
        ..RegisterHandlersRequest::default()
    }
}

/// A play whose definition calls the plain service as `plants`.
async fn play<'d>(daemon: &'d Daemon, plants: &str, body: &str) -> Result<Play<'d>> {
    let play = Play::unregistered(daemon, |_| crate::support::participant::Answer::done()).await?;
    let source = play.source(body).replace("call: plants.", &format!("call: {plants}."));
    let request = RegisterDefinitionRequest { source, validate_only: false };
    daemon.definitions().register_definition(request).await?;
    Ok(play)
}

const TWO_STEPS: &str = r#"
defaults: { retry: { initial: 5ms, max: 20ms, attempts: 5 } }
steps:
  - name: take
    action: { call: plants.take, input: { plant_id: "${input.plant}", pots: 2 } }
    compensation: { call: plants.give-back, retry: { initial: 5ms, max: 20ms } }
  - name: water
    action: { call: plants.water, input: { plant_id: "${steps['take'].receipt}" } }
    compensation: none
output: { receipt: "${steps['take'].receipt}", left: "${steps['take'].left}" }
"#;

fn receipt(_: &Seen) -> Says {
    Says::Json(json!({ "receipt": "9007199254740993", "names": ["fern"] }))
}

#[tokio::test]
async fn a_saga_runs_over_a_service_that_knows_nothing_of_it() -> Result<()> {
    let daemon = DAEMON.daemon();
    let sample = Sample::start(&compile(&GREENHOUSE), Reflects::V1, receipt).await;
    let plants = unique("plants");
    daemon.registry().register_handlers(registration(&plants, &sample)).await?;
    let play = play(daemon, &plants, TWO_STEPS).await?;
    let saga = play.run("a", r#"{"plant": 9007199254740995}"#).await?;
    assert_eq!(saga.status(), SagaStatus::Completed);
    assert_eq!(saga.output_json, r#"{"left":0,"receipt":9007199254740993}"#);
    let output: serde_json::Value = serde_json::from_str(&step(&saga, "take").output_json)?;
    assert_eq!(output, json!({"receipt": 9_007_199_254_740_993_i64, "names": ["fern"], "left": 0}));
    let seen = sample.seen();
    assert_eq!(seen[0].request, json!({"plantId": "9007199254740995", "pots": 2}));
    assert_eq!(seen[1].request, json!({"plantId": "9007199254740993"}));
    assert_eq!(sample.questions(), 2, "asked for its types at the registration, and once for all calls");
    Ok(())
}

#[tokio::test]
async fn a_refusal_undoes_what_ran_and_keys_stay_the_same_over_retries() -> Result<()> {
    let daemon = DAEMON.daemon();
    let sample = Sample::start(&compile(&GREENHOUSE), Reflects::V1Alpha, |seen| match seen.method.as_str() {
        "Water" => Says::Status(Status::failed_precondition("the can is empty")),
        _ if seen.metadata["sagad-attempt"] == "1" => Says::Status(Status::unavailable("not now")),
        "GiveBack" => Says::Json(json!({})),
        _ => receipt(seen),
    })
    .await;
    let plants = unique("plants");
    daemon.registry().register_handlers(registration(&plants, &sample)).await?;
    let play = play(daemon, &plants, TWO_STEPS).await?;
    let saga = play.run("a", r#"{"plant": 7}"#).await?;
    assert_eq!(saga.status(), SagaStatus::Compensated);
    assert_eq!(failure_code(&saga), "FAILED_PRECONDITION");
    assert_eq!(step(&saga, "water").status(), StepStatus::Failed);
    assert_eq!(step(&saga, "take").compensation(), CompensationStatus::Done);

    let calls = sample.seen();
    let of = |method: &str| calls.iter().filter(|seen| seen.method == method).collect::<Vec<_>>();
    for method in ["Take", "GiveBack"] {
        let keys: BTreeSet<_> =
            of(method).iter().map(|seen| &seen.metadata["sagad-idempotency-key"]).collect();
        assert_eq!(keys.len(), 1, "{method}");
        let attempts: Vec<_> = of(method).iter().map(|seen| seen.metadata["sagad-attempt"].clone()).collect();
        assert_eq!(attempts, ["1", "2"], "{method}");
    }
    let (take, back) = (of("Take")[0], of("GiveBack")[0]);
    assert_eq!(back.metadata["sagad-action-idempotency-key"], take.metadata["sagad-idempotency-key"]);
    assert_eq!(back.metadata["sagad-phase"], "compensation");
    assert_eq!(back.request, take.request, "a compensation without an input gets the action's");
    assert_eq!(back.metadata["traceparent"][..36], take.metadata["traceparent"][..36]);
    Ok(())
}

#[tokio::test]
async fn a_service_that_hangs_or_babbles_may_have_had_its_effect_so_it_is_undone() -> Result<()> {
    let daemon = DAEMON.daemon();
    let sample = Sample::start(&compile(&GREENHOUSE), Reflects::V1, |seen| match seen.method.as_str() {
        "GiveBack" => Says::Json(json!({})),
        _ if seen.metadata["sagad-attempt"] == "1" => Says::Nothing,
        _ => Says::Bytes(b"\xff\xff".to_vec()),
    })
    .await;
    let plants = unique("plants");
    daemon.registry().register_handlers(registration(&plants, &sample)).await?;
    let body =
        TWO_STEPS.replace("attempts: 5", "attempts: 2").replace("defaults: {", "defaults: { timeout: 200ms,");
    let play = play(daemon, &plants, &body).await?;
    let saga = play.run("a", r#"{"plant": 7}"#).await?;
    assert_eq!(saga.status(), SagaStatus::Compensated);
    assert_eq!((failure_code(&saga), step(&saga, "take").status()), ("UNKNOWN", StepStatus::Unknown));
    assert!(saga.failure.unwrap_or_default().message.contains("the response is no greenhouse.v2.TakeReply"));
    assert_eq!(sample.seen().last().map(|seen| seen.method.clone()), Some("GiveBack".to_owned()));
    Ok(())
}

#[tokio::test]
async fn an_input_that_is_no_request_fails_the_step_and_blocks_a_compensation() -> Result<()> {
    let daemon = DAEMON.daemon();
    let sample = Sample::start(&compile(&GREENHOUSE), Reflects::V1, receipt).await;
    let plants = unique("plants");
    daemon.registry().register_handlers(registration(&plants, &sample)).await?;
    let body = "
steps:
  - name: take
    action: { call: plants.take, input: { plant_id: 1 } }
    compensation: { call: plants.give-back, input: { plant: 1 } }
  - name: water
    action: { call: plants.water, input: { plant: 1 } }
    compensation: none
";
    let play = play(daemon, &plants, body).await?;
    let id = play.start("a", "{}").await?;
    let saga = play.blocked(&id).await?;
    assert_eq!(failure_code(&saga), "INPUT_MISMATCH");
    assert!(saga.blocked[0].reason.contains("unrecognized field name 'plant'"), "{:?}", saga.blocked);
    assert_eq!(sample.seen().len(), 1, "only what fits was sent");
    Ok(())
}

#[tokio::test]
async fn a_registration_that_names_what_is_not_there_is_told_what_is() -> Result<()> {
    let daemon = DAEMON.daemon();
    let sample = Sample::start(&compile(&GREENHOUSE), Reflects::V1, receipt).await;
    let mut request = registration(&unique("plants"), &sample);
    request.actions[1].target = "greenhouse.v2.Plants/GiveBak".to_owned();
    let status = daemon.registry().register_handlers(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(violations(&status), ["actions[1].target"]);
    assert!(status.message().contains("did you mean GiveBack?"), "{}", status.message());
    let listed = ListParticipantsRequest { participant: request.participant.clone() };
    assert!(daemon.registry().list_participants(listed).await?.into_inner().participants.is_empty());

    request.endpoint = "http://127.0.0.1:1".to_owned();
    let status = daemon.registry().register_handlers(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("descriptor set"), "{}", status.message());
    Ok(())
}

#[tokio::test]
async fn a_given_descriptor_set_stands_in_for_reflection_and_survives_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let set = compile(&GREENHOUSE);
    let sample = Sample::start(&set, Reflects::No, receipt).await;
    let launch = Launch::on(&folder.path().join("data"));
    let daemon = launch.start()?;
    let request = RegisterHandlersRequest { descriptor_set: set, ..registration("plants", &sample) };
    daemon.registry().register_handlers(request).await?;
    daemon.kill()?;
    let daemon = launch.start()?;
    let play = play(&daemon, "plants", TWO_STEPS).await?;
    assert_eq!(play.run("a", r#"{"plant": 1}"#).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_service_of_the_configuration_may_start_after_the_daemon() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let set = compile(&GREENHOUSE);
    let (with, without) = (folder.path().join("set.binpb"), folder.path().join("sagad.toml"));
    std::fs::write(&with, &set)?;
    let sample = Sample::start(&set, Reflects::V1, receipt).await;
    let (address, endpoint) = (sample.address, sample.endpoint());
    sample.stop().await;
    let entry = |name: &str, more: &str| {
        format!(
            "[[participants]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\nprotocol = \"grpc\"\n{more}\n\
             actions = [{{ name = \"take\", target = \"greenhouse.v2.Plants/Take\" }}]\n"
        )
    };
    let given = format!("descriptor_set = {:?}", with.display().to_string());
    std::fs::write(&without, format!("{}{}", entry("early", ""), entry("given", &given)))?;
    let daemon =
        Launch::on(&folder.path().join("data")).arg("--config").arg(without.display().to_string()).start()?;
    let sample = Sample::start_at(address, &set, Reflects::V1, receipt).await;
    for name in ["early", "given"] {
        let body = "defaults: { retry: { initial: 5ms, max: 20ms } }\nsteps:\n  \
                    - { name: take, action: { call: plants.take, input: { plant_id: 1 } }, compensation: none }";
        let play = play(&daemon, name, body).await?;
        assert_eq!(play.run("a", "{}").await?.status(), SagaStatus::Completed, "{name}");
    }
    assert_eq!(sample.seen().len(), 2);
    Ok(())
}
