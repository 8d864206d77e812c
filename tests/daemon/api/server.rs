//! The daemon as a server: health, reflection, pages, what it does not serve, clients that misbehave.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{GetSagaRequest, SagaStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::daemon::Launch;
use crate::support::participant::Answer;
use crate::support::play::Play;
use crate::support::shared::Shared;
use crate::support::wire;

static DAEMON: Shared = Shared::new();

const ONE: &str = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

async fn reflect(question: MessageRequest) -> Result<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(DAEMON.daemon().channel());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    answers.message().await?.and_then(|answer| answer.message_response).context("an answer")
}

async fn still_serves() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), ONE, |_| Answer::done()).await?;
    assert_eq!(play.run("a", "{}").await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn health_is_told_for_the_server_and_each_service() -> Result<()> {
    let mut client = HealthClient::new(DAEMON.daemon().channel());
    for service in ["", "sagad.v1.SagaService", "sagad.v1.OperationsService"] {
        let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await?.into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(HealthCheckRequest { service: "no.such.Service".to_owned() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    Ok(())
}

#[tokio::test]
async fn reflection_lists_exactly_what_is_served_and_the_participants_service() -> Result<()> {
    let MessageResponse::ListServicesResponse(list) =
        reflect(MessageRequest::ListServices(String::new())).await?
    else {
        anyhow::bail!("not a list")
    };
    let found: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "sagad.v1.DefinitionService",
        "sagad.v1.OperationsService",
        "sagad.v1.ParticipantService",
        "sagad.v1.RegistryService",
        "sagad.v1.SagaService",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
    Ok(())
}

#[tokio::test]
async fn every_method_that_reflection_shows_is_served() -> Result<()> {
    use prost::Message as _;
    let found =
        reflect(MessageRequest::FileContainingSymbol("sagad.v1.OperationsService".to_owned())).await?;
    let MessageResponse::FileDescriptorResponse(files) = found else {
        anyhow::bail!("not a file: {found:?}")
    };
    let mut methods = BTreeSet::new();
    for file in &files.file_descriptor_proto {
        let file = prost_types::FileDescriptorProto::decode(file.as_slice())?;
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    assert!(methods.contains("/sagad.v1.OperationsService/Explain"), "{methods:?}");
    for method in methods.into_iter().filter(|method| !method.contains("ParticipantService")) {
        let answer = wire::call_anything(DAEMON.daemon().channel(), String::leak(method.clone())).await;
        assert!(answer.map_or_else(|status| status.code(), |_| Code::Ok) != Code::Unimplemented, "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn what_later_versions_will_serve_is_not_there() -> Result<()> {
    for path in [
        "/sagad.v1.OperationsService/RepairMany",
        "/sagad.v1.OperationsService/Backup",
        "/sagad.v1.ParticipantService/Execute",
        "/sagad.v1.SagaService/NoSuchMethod",
        "/no.such.Service/Method",
    ] {
        let status = wire::call_anything(DAEMON.daemon().channel(), path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn the_pages_tell_life_readiness_and_figures() -> Result<()> {
    still_serves().await?;
    assert_eq!(DAEMON.daemon().page("/healthz").await?.0, 200);
    assert_eq!(DAEMON.daemon().page("/readyz").await?.0, 200);
    assert_eq!(DAEMON.daemon().page("/no-such-page").await?.0, 404);
    let (code, figures) = DAEMON.daemon().page("/metrics").await?;
    assert_eq!(code, 200);
    assert!(figures.contains("# TYPE sagad_") && figures.trim_end().ends_with("# EOF"), "{figures}");
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_http_close_only_their_own_connection() -> Result<()> {
    for address in [&DAEMON.daemon().grpc, &DAEMON.daemon().http] {
        for bytes in [
            &b"\x00\xff\x00\xff garbage \r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff",
        ] {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            let mut rest = Vec::new();
            // Closed in good order or reset: both are an end.
            let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the daemon keeps a broken connection");
        }
    }
    still_serves().await
}

#[tokio::test]
async fn clients_that_connect_and_say_nothing_hold_nobody_up() -> Result<()> {
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(&DAEMON.daemon().grpc).await?);
        idle.push(TcpStream::connect(&DAEMON.daemon().http).await?);
    }
    still_serves().await?;
    assert_eq!(DAEMON.daemon().page("/healthz").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn watchers_that_never_read_hold_nobody_up() -> Result<()> {
    let body = "steps:
  - { name: each, for_each: \"${input.items}\", action: { call: shop.do, input: {} }, compensation: none }";
    let play =
        Play::on(DAEMON.daemon(), body, |_| Answer::Done(format!("\"{}\"", "x".repeat(20_000)))).await?;
    let items: Vec<u32> = (0..100).collect();
    let id = play.start("a", &format!("{{\"items\":{items:?}}}")).await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let request = sagad::proto::WatchSagaRequest { saga_id: id.clone(), after_seq: 0, follow: true };
        streams.push(play.daemon.sagas().watch_saga(request).await?.into_inner());
    }
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    still_serves().await?;
    drop(streams);
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_changes_nothing() -> Result<()> {
    let gate = crate::support::participant::Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), ONE, move |_| held.then(Answer::done())).await?;
    let request = sagad::proto::StartSagaRequest {
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..play.request("left", "{}")
    };
    let waiting = play.send(request);
    let called = play.shop.seen(|call| call.step == "only");
    tokio::select! {
        _ = waiting => anyhow::bail!("the answer came before the action's"),
        _ = called => {}
    }
    gate.open();
    assert_eq!(play.ended(&play.id("left")).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn many_clients_at_once_are_all_answered() -> Result<()> {
    let play = Play::on(DAEMON.daemon(), ONE, |_| Answer::done()).await?;
    let runs = (0..200).map(|n| {
        let play = &play;
        async move { play.run(&n.to_string(), "{}").await }
    });
    for saga in futures::future::join_all(runs).await {
        assert_eq!(saga?.status(), SagaStatus::Completed);
    }
    assert_eq!(play.shop.calls().len(), 200);
    Ok(())
}

#[tokio::test]
async fn an_address_others_can_reach_needs_a_word_of_consent() -> Result<()> {
    let data = tempfile::tempdir()?;
    let anywhere = Launch::on(data.path()).arg("--grpc-addr").arg("0.0.0.0:0");
    let Err((status, said)) = anywhere.try_start()? else { anyhow::bail!("it serves the world") };
    assert!(!status.success());
    assert!(said.contains("0.0.0.0") && said.contains("allow_insecure"), "{said}");
    let allowed =
        Launch::on(data.path()).arg("--grpc-addr").arg("0.0.0.0:0").arg("--allow-insecure").start()?;
    allowed.kill()
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let data = tempfile::tempdir()?;
    let Err((status, said)) = Launch::on(data.path()).arg("--grpc-addr").arg(&address).try_start()? else {
        anyhow::bail!("two servers on one address")
    };
    assert!(!status.success() && said.contains(&address), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_in_use_is_refused() -> Result<()> {
    let data = tempfile::tempdir()?;
    let first = Launch::on(data.path()).start()?;
    let Err((status, said)) = Launch::on(data.path()).try_start()? else {
        anyhow::bail!("two daemons, one store")
    };
    assert!(!status.success() && said.contains(&*data.path().to_string_lossy()), "{said}");
    let missing = first.sagas().get_saga(GetSagaRequest { saga_id: "x".to_owned() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "the first one goes on");
    Ok(())
}

#[tokio::test]
async fn definitions_in_a_folder_are_registered_at_the_start() -> Result<()> {
    let (data, sagas) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::write(sagas.path().join("one.yaml"), format!("saga: from-folder\n{ONE}\n"))?;
    let folder = sagas.path().display().to_string();
    let launch = Launch::on(data.path()).arg("--sagas").arg(folder);
    for _ in 0..2 {
        let daemon = launch.start()?;
        let request = sagad::proto::GetDefinitionRequest { name: "from-folder".to_owned(), version: 0 };
        let found = daemon.definitions().get_definition(request).await?.into_inner();
        assert_eq!(found.definition.context("a definition")?.version, 1);
        daemon.kill()?;
    }
    std::fs::write(sagas.path().join("two.yaml"), "saga: broken\nsteps: []\n")?;
    let Err((status, said)) = launch.try_start()? else { anyhow::bail!("a broken definition was taken") };
    assert!(!status.success() && said.contains("two.yaml"), "{said}");
    Ok(())
}
