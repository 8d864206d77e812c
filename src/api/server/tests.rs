//! The port over real sockets, with a service that does what the test tells it.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use proto::saga_service_client::SagaServiceClient;
use proto::saga_service_server::SagaService;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus as Health;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_types::StatusExt as _;

use super::super::gate::RpcEnd;
use super::*;
use crate::tasks::{Death, Tasks};

/// Answers at once, never, after a word from the test, or with a bug, by the saga's id.
#[derive(Clone, Default)]
struct Scripted {
    entered: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[tonic::async_trait]
impl SagaService for Scripted {
    async fn start_saga(
        &self,
        _: Request<proto::StartSagaRequest>,
    ) -> Result<Response<proto::StartSagaResponse>, Status> {
        Ok(Response::new(proto::StartSagaResponse::default()))
    }

    async fn get_saga(
        &self,
        request: Request<proto::GetSagaRequest>,
    ) -> Result<Response<proto::GetSagaResponse>, Status> {
        match request.get_ref().saga_id.as_str() {
            "never" => {
                self.entered.notify_one();
                pending().await
            }
            "bug" => panic!("a bug, as the test asked"),
            "missing" => Err(Status::not_found("no such saga")),
            _ => Ok(Response::new(proto::GetSagaResponse::default())),
        }
    }

    async fn wait_saga(
        &self,
        _: Request<proto::WaitSagaRequest>,
    ) -> Result<Response<proto::WaitSagaResponse>, Status> {
        self.entered.notify_one();
        self.go_on.notified().await;
        Ok(Response::new(proto::WaitSagaResponse::default()))
    }

    type WatchSagaStream = BoxStream<'static, Result<proto::WatchSagaResponse, Status>>;

    async fn watch_saga(
        &self,
        _: Request<proto::WatchSagaRequest>,
    ) -> Result<Response<Self::WatchSagaStream>, Status> {
        let first = futures::stream::iter([Ok(proto::WatchSagaResponse::default())]);
        Ok(Response::new(first.chain(futures::stream::pending()).boxed()))
    }

    async fn list_sagas(
        &self,
        _: Request<proto::ListSagasRequest>,
    ) -> Result<Response<proto::ListSagasResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn cancel_saga(
        &self,
        _: Request<proto::CancelSagaRequest>,
    ) -> Result<Response<proto::CancelSagaResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }
}

struct Running {
    address: SocketAddr,
    script: Scripted,
    readiness: watch::Sender<Readiness>,
    ends: Arc<Mutex<Vec<RpcEnd>>>,
    ended: Arc<Notify>,
    stop: oneshot::Sender<()>,
    tasks: Tasks,
}

async fn running(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = Scripted::default();
    let (readiness, seen) = watch::channel(Readiness::Starting("the test".to_owned()));
    let ends: Arc<Mutex<Vec<RpcEnd>>> = Arc::default();
    let ended = Arc::new(Notify::new());
    let (record, bell) = (ends.clone(), ended.clone());
    let service = SagaServiceServer::new(script.clone())
        .max_decoding_message_size(limits.message_max_bytes())
        .accept_compressed(Gzip);
    let port = Port {
        limits,
        observe: Arc::new(move |end| {
            record.lock().push(end);
            bell.notify_one();
        }),
        readiness: seen,
        draining: CancellationToken::new(),
    };
    let (stop, stopped) = oneshot::channel();
    let tasks = Tasks::new();
    tasks.spawn("port", Death::Logged, async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        port.serve(Routes::new(service), listener, shutdown).await.unwrap();
    });
    Running { address, script, readiness, ends, ended, stop, tasks }
}

impl Running {
    async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.address);
        Channel::from_shared(address).unwrap().connect().await.unwrap()
    }

    async fn client(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel().await)
    }

    /// Waits until an RPC of `method` ended, and takes its code.
    async fn end_of(&self, method: &str) -> Code {
        loop {
            let found = self.ends.lock().iter().find(|end| end.method.ends_with(method)).copied();
            if let Some(end) = found {
                return end.code;
            }
            self.ended.notified().await;
        }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.tasks.ended().await;
    }
}

fn get(id: &str) -> proto::GetSagaRequest {
    proto::GetSagaRequest { saga_id: id.to_owned() }
}

#[tokio::test]
async fn reflection_shows_every_service_also_the_one_participants_implement() {
    let port = running(Limits::default()).await;
    let mut client = ServerReflectionClient::new(port.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(futures::stream::iter([ask])).await.unwrap().into_inner();
    let Some(Ok(ServerReflectionResponse {
        message_response: Some(MessageResponse::ListServicesResponse(list)),
        ..
    })) = answers.next().await
    else {
        panic!("no list of services")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for expected in [
        "sagad.v1.SagaService",
        "sagad.v1.DefinitionService",
        "sagad.v1.RegistryService",
        "sagad.v1.OperationsService",
        "sagad.v1.ParticipantService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }
    drop((answers, client));
    port.stop().await;
}

#[tokio::test]
async fn health_follows_the_daemon_from_its_start_to_its_end() {
    let port = running(Limits::default()).await;
    let mut client = HealthClient::new(port.channel().await);
    let ask = tonic_health::pb::HealthCheckRequest { service: "sagad.v1.SagaService".to_owned() };
    let mut seen = client.watch(ask).await.unwrap().into_inner();
    assert_eq!(seen.message().await.unwrap().unwrap().status(), Health::NotServing);
    port.readiness.send(Readiness::Serving).unwrap();
    assert_eq!(seen.message().await.unwrap().unwrap().status(), Health::Serving);
    port.readiness.send(Readiness::Draining).unwrap();
    assert_eq!(seen.message().await.unwrap().unwrap().status(), Health::NotServing);
    port.stop().await;
    assert_eq!(seen.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_message_over_the_limit_is_an_invalid_argument() {
    let port = running(Limits::default()).await;
    let mut client = port.client().await;
    let long = "x".repeat(Limits::default().message_max_bytes());
    let request = proto::StartSagaRequest { input_json: long, ..Default::default() };
    let status = client.start_saga(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    // Packed it is a few kilobytes: what counts is what it unpacks to.
    let mut packing = port.client().await.send_compressed(Gzip);
    let status = packing.start_saga(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    port.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_an_invalid_argument() {
    let port = running(Limits::default()).await;
    // The id's field, holding a byte that is no UTF-8.
    let garbled = [0u8, 0, 0, 0, 3, 0x0a, 1, 0xff];
    let request = http::Request::post(format!("http://{}/sagad.v1.SagaService/GetSaga", port.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(garbled.to_vec())))
        .unwrap();
    let mut channel = port.channel().await;
    let answer = tower::ServiceExt::ready(&mut channel).await.unwrap();
    let answer = tower::Service::call(answer, request).await.unwrap();
    assert_eq!(answer.headers().get("grpc-status").unwrap(), "3");
    port.stop().await;
}

#[tokio::test]
async fn a_call_over_the_cap_is_refused_at_once_and_told_when_to_come_back() {
    let port = running(Limits { calls_max: 1, ..Limits::default() }).await;
    let (mut first, mut second) = (port.client().await, port.client().await);
    {
        let never = first.get_saga(get("never"));
        tokio::pin!(never);
        tokio::select! {
            _ = &mut never => panic!("the call was to stay in flight"),
            () = port.script.entered.notified() => {}
        }
        let refused = second.get_saga(get("a")).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.get_error_details().retry_info().is_some());
        // Waits have a cap of their own.
        second.start_saga(proto::StartSagaRequest::default()).await.unwrap();
        port.ends.lock().clear();
    }
    assert_eq!(port.end_of("GetSaga").await, Code::Cancelled, "the client left");
    second.get_saga(get("a")).await.unwrap();
    port.stop().await;
}

#[tokio::test]
async fn the_time_limit_cuts_calls_and_lets_waits_be() {
    let limits = Limits { request_timeout: Duration::from_millis(20), ..Limits::default() };
    let port = running(limits).await;
    let (mut waiter, mut caller) = (port.client().await, port.client().await);
    let waiting = waiter.wait_saga(proto::WaitSagaRequest::default());
    let calling = async {
        port.script.entered.notified().await;
        let cut = caller.get_saga(get("never")).await.unwrap_err();
        assert_eq!(cut.code(), Code::DeadlineExceeded, "{cut:?}");
        port.script.go_on.notify_one();
    };
    let (answer, ()) = tokio::join!(waiting, calling);
    answer.unwrap();
    port.stop().await;
}

#[tokio::test]
async fn a_bug_in_one_request_leaves_the_connection_to_the_others() {
    let port = running(Limits::default()).await;
    let mut client = port.client().await;
    let mut other = client.clone();
    let mut events = other.watch_saga(proto::WatchSagaRequest::default()).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    assert_eq!(client.get_saga(get("bug")).await.unwrap_err().code(), Code::Internal);
    client.get_saga(get("a")).await.unwrap();
    port.stop().await;
    assert_eq!(
        events.message().await.unwrap_err().code(),
        Code::Unavailable,
        "the stream lived until the shutdown"
    );
}

#[tokio::test]
async fn every_end_is_reported_with_the_code_the_client_saw() {
    let port = running(Limits::default()).await;
    let mut client = port.client().await;
    client.get_saga(get("a")).await.unwrap();
    assert_eq!(port.end_of("GetSaga").await, Code::Ok);
    port.ends.lock().clear();
    client.get_saga(get("missing")).await.unwrap_err();
    assert_eq!(port.end_of("GetSaga").await, Code::NotFound);
    let mut stranger = proto::definition_service_client::DefinitionServiceClient::new(port.channel().await);
    let absent = stranger.list_definitions(proto::ListDefinitionsRequest::default()).await.unwrap_err();
    assert_eq!(absent.code(), Code::Unimplemented);
    assert_eq!(port.end_of("ListDefinitions").await, Code::Unimplemented);
    port.stop().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let limits = Limits { drain_max: Duration::from_millis(20), ..Limits::default() };
    let port = running(limits).await;
    let mut client = port.client().await;
    let script = port.script.clone();
    let never = client.get_saga(get("never"));
    tokio::pin!(never);
    tokio::select! {
        _ = &mut never => panic!("the call was to stay in flight"),
        () = script.entered.notified() => {}
    }
    port.stop().await;
}

#[tokio::test]
async fn a_connection_over_the_cap_is_closed_and_its_seat_is_free_again_later() {
    let port = running(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = port.client().await;
    first.get_saga(get("a")).await.unwrap();
    let mut second = TcpStream::connect(port.address).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(second.read_to_end(&mut rest).await.unwrap_or(0), 0);
    drop(first);
    // The seat is given back when the daemon has noticed; a refused try shows as a closed socket.
    let mut third = loop {
        let address = format!("http://{}", port.address);
        if let Ok(channel) = Channel::from_shared(address).unwrap().connect().await {
            let mut client = SagaServiceClient::new(channel);
            if client.get_saga(get("a")).await.is_ok() {
                break client;
            }
        }
    };
    third.get_saga(get("a")).await.unwrap();
    drop(third);
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_never_speaks_is_shown_out() {
    let port = running(Limits { quiet_max: Duration::from_millis(20), ..Limits::default() }).await;
    let mut silent = TcpStream::connect(port.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    port.stop().await;
}
