//! Calls over real connections, to participants that behave in every way they can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::clock::ManualClock;
use crate::participant::breaker::{FAILS_ALONE, FAILS_IN_A_ROW, OPEN_FIRST};
use crate::participant::handlers::Handlers;
use crate::participant::handlers::tests::claim;
use crate::participant::listing::Health;
use crate::proto::participant_service_server::{ParticipantService, ParticipantServiceServer};
use crate::proto::{self, compensate_response, execute_response, probe_response};
use crate::saga::ids::{ActionName, DefinitionName, InstanceRef, SagaId, StepIx, Timestamp};
use crate::saga::input::CallDuty;
use crate::saga::json::Json;
use crate::saga::words::{Phase, codes};
use crate::tasks::{Death, Tasks};

const NOON: Timestamp = Timestamp(1_700_000_000_000);
/// Long enough never to pass in a test that does not wait for it.
const PATIENT: Duration = Duration::from_mins(1);

/// How a fake participant behaves.
#[derive(Debug, Clone)]
enum Manner {
    Done(String),
    Refused,
    Pending,
    Superseded,
    Nothing,
    Status(Code),
    /// Answers when it is let through.
    Gated,
    Never,
}

#[derive(Debug, Clone, Copy)]
enum Reply {
    Done,
    Refused,
    Pending,
    Superseded,
    Nothing,
}

/// A participant that does as it is told and remembers what it was asked.
struct FakeParticipant {
    manner: Mutex<Manner>,
    gate: Semaphore,
    inside: AtomicU32,
    peak: AtomicU32,
    arrived: watch::Sender<u32>,
    executed: Mutex<Vec<Request<proto::ExecuteRequest>>>,
    compensated: Mutex<Vec<proto::CompensateRequest>>,
}

impl FakeParticipant {
    fn new(manner: Manner) -> Self {
        Self {
            manner: Mutex::new(manner),
            gate: Semaphore::new(0),
            inside: AtomicU32::default(),
            peak: AtomicU32::default(),
            arrived: watch::channel(0).0,
            executed: Mutex::default(),
            compensated: Mutex::default(),
        }
    }

    async fn serve(&self) -> Result<(Reply, String), Status> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(inside, Ordering::SeqCst);
        self.arrived.send_modify(|calls| *calls += 1);
        let manner = self.manner.lock().clone();
        let reply = match manner {
            Manner::Done(output) => Ok((Reply::Done, output)),
            Manner::Refused => Ok((Reply::Refused, String::new())),
            Manner::Pending => Ok((Reply::Pending, String::new())),
            Manner::Superseded => Ok((Reply::Superseded, String::new())),
            Manner::Nothing => Ok((Reply::Nothing, String::new())),
            Manner::Status(code) => Err(Status::new(code, "as told")),
            Manner::Gated => {
                self.gate.acquire().await.expect("the gate is never closed").forget();
                Ok((Reply::Done, String::new()))
            }
            Manner::Never => std::future::pending().await,
        };
        self.inside.fetch_sub(1, Ordering::SeqCst);
        reply
    }
}

macro_rules! respond {
    ($reply:expr, $response:ident, $module:ident) => {{
        let (reply, output_json) = $reply;
        let refused = proto::Refused { code: "OUT_OF_STOCK".to_owned(), message: "none left".to_owned() };
        let check_after = Some(prost_types::Duration { seconds: 3, nanos: 0 });
        let outcome = match reply {
            Reply::Done => Some($module::Outcome::Done(proto::Done { output_json })),
            Reply::Refused => Some($module::Outcome::Refused(refused)),
            Reply::Pending => Some($module::Outcome::Pending(proto::Pending { check_after })),
            Reply::Superseded => Some($module::Outcome::Superseded(proto::Superseded {})),
            Reply::Nothing => None,
        };
        Ok(Response::new(proto::$response { outcome }))
    }};
}

#[tonic::async_trait]
impl ParticipantService for FakeParticipant {
    async fn execute(
        &self,
        request: Request<proto::ExecuteRequest>,
    ) -> Result<Response<proto::ExecuteResponse>, Status> {
        self.executed.lock().push(request);
        respond!(self.serve().await?, ExecuteResponse, execute_response)
    }

    async fn compensate(
        &self,
        request: Request<proto::CompensateRequest>,
    ) -> Result<Response<proto::CompensateResponse>, Status> {
        self.compensated.lock().push(request.into_inner());
        respond!(self.serve().await?, CompensateResponse, compensate_response)
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Result<Response<proto::ProbeResponse>, Status> {
        respond!(self.serve().await?, ProbeResponse, probe_response)
    }
}

/// Everything a test needs; its servers end with it.
struct Town {
    clock: Arc<ManualClock>,
    participants: Participants,
    tasks: Tasks,
}

impl Drop for Town {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Town {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        let shared: SharedClock = clock.clone();
        let registry = Registry::new(Arc::clone(&shared));
        let tasks = Tasks::new();
        let participants = Participants::new(registry, shared, Metrics::new(NOON), tasks.clone());
        Self { clock, participants, tasks }
    }

    /// Serves on a port of its own and registers it as `stock`.
    async fn open(&self, routes: Routes, max_in_flight: u32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = self.tasks.stopping();
        self.tasks.spawn("fake participant", Death::Logged, async move {
            let server =
                Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                ended = server => ended.expect("the fake participant serves"),
                () = stop.cancelled() => {}
            }
        });
        self.register(&endpoint, max_in_flight).await;
    }

    async fn open_fake(&self, manner: Manner, max_in_flight: u32) -> Arc<FakeParticipant> {
        let fake = Arc::new(FakeParticipant::new(manner));
        let service = ParticipantServiceServer::from_arc(Arc::clone(&fake));
        self.open(Routes::new(service), max_in_flight).await;
        fake
    }

    async fn register(&self, endpoint: &str, max_in_flight: u32) {
        let mut claim = claim("stock", endpoint, &["deduct", "restore"]);
        claim.max_in_flight = max_in_flight;
        let handlers = Handlers::check(&claim).unwrap();
        let prepared = self.participants.registry().prepare(handlers).await.unwrap();
        let _registered = prepared.activate();
    }

    async fn call(&self, phase: Phase) -> Outcome {
        self.participants.call(outgoing(phase, PATIENT)).await
    }

    async fn unknown(&self) -> String {
        match self.call(Phase::Action).await {
            Outcome::Unknown(cause) => cause,
            other => panic!("a certain outcome: {other:?}"),
        }
    }
}

/// A call to `stock.deduct`.
pub(in crate::participant) fn outgoing(phase: Phase, timeout: Duration) -> Outgoing {
    let follows_up = phase != Phase::Action;
    Outgoing {
        saga_id: SagaId::parse("order-1").unwrap(),
        definition: DefinitionName::parse("order").unwrap(),
        labels: Arc::new(BTreeMap::from([("city".to_owned(), "Seoul".to_owned())])),
        duty: CallDuty {
            at: InstanceRef { step: StepIx(0), item: Some(2) },
            phase,
            attempt: 3,
            epoch: 7,
            participant: ParticipantName::parse("stock").unwrap(),
            action: ActionName::parse("deduct").unwrap(),
            is_named: true,
            step: "deduct-stock/2".to_owned(),
            input: Json::trusted(r#"{"n": 9007199254740993}"#.to_owned()),
            action_input: follows_up.then(|| Json::trusted(r#"{"a":1}"#.to_owned())),
            action_output: None,
            timeout,
        },
        key: "key-1".to_owned(),
        action_key: "action-key-1".to_owned(),
        token: "token-1".to_owned(),
    }
}

#[tokio::test]
async fn details_of_a_status_that_are_nonsense_do_not_bring_the_call_down() {
    let page = async || {
        let answer = http::Response::builder().header("content-type", "application/grpc");
        let answer = answer.header("grpc-status", "13").header("grpc-status-details-bin", "not base64!");
        answer.body(axum::body::Body::empty()).unwrap()
    };
    let town = Town::new();
    town.open(axum::Router::new().fallback(page).into(), 1).await;
    assert_eq!(town.unknown().await, "INTERNAL");
}

#[tokio::test]
async fn an_answer_arrives_as_the_outcome_it_means() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Nothing, 0).await;
    for phase in [Phase::Action, Phase::Compensation, Phase::Probe] {
        *fake.manner.lock() = Manner::Done(r#"{"ok":true}"#.to_owned());
        assert_eq!(town.call(phase).await, Outcome::Done(Json::trusted(r#"{"ok":true}"#.to_owned())));
        *fake.manner.lock() = Manner::Refused;
        assert!(matches!(town.call(phase).await, Outcome::Refused(r) if r.code == "OUT_OF_STOCK"));
        *fake.manner.lock() = Manner::Pending;
        assert_eq!(town.call(phase).await, Outcome::Pending(Some(Duration::from_secs(3))));
        *fake.manner.lock() = Manner::Nothing;
        assert!(matches!(town.call(phase).await, Outcome::Unknown(_)));
        *fake.manner.lock() = Manner::Status(Code::FailedPrecondition);
        let expected = Outcome::Unknown("FAILED_PRECONDITION: as told".to_owned());
        assert_eq!(town.call(phase).await, expected);
    }
    *fake.manner.lock() = Manner::Superseded;
    assert!(matches!(town.call(Phase::Action).await, Outcome::Refused(r) if r.code == codes::SUPERSEDED));
    assert!(matches!(town.call(Phase::Compensation).await, Outcome::Unknown(_)));
    *fake.manner.lock() = Manner::Status(Code::Unimplemented);
    assert_eq!(town.call(Phase::Probe).await, Outcome::Unsupported);
    assert!(matches!(town.call(Phase::Action).await, Outcome::Unknown(_)));
}

#[tokio::test]
async fn an_action_carries_its_input_byte_for_byte_and_all_its_numbers() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Pending, 0).await;
    town.call(Phase::Action).await;
    let request = fake.executed.lock().pop().unwrap();
    assert!(request.metadata().contains_key("grpc-timeout"));
    let expected = proto::ExecuteRequest {
        saga_id: "order-1".to_owned(),
        definition: "order".to_owned(),
        step: "deduct-stock/2".to_owned(),
        action: "deduct".to_owned(),
        idempotency_key: "key-1".to_owned(),
        attempt: 3,
        epoch: 7,
        input_json: r#"{"n": 9007199254740993}"#.to_owned(),
        labels: BTreeMap::from([("city".to_owned(), "Seoul".to_owned())]),
        token: "token-1".to_owned(),
        deadline: Some(prost_types::Timestamp { seconds: 1_700_000_060, nanos: 0 }),
    };
    assert_eq!(request.into_inner(), expected);
}

#[tokio::test]
async fn a_compensation_carries_the_actions_key_and_input_and_no_output_that_never_came() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Done(String::new()), 0).await;
    assert_eq!(town.call(Phase::Compensation).await, Outcome::Done(Json::null()));
    let request = fake.compensated.lock().pop().unwrap();
    assert_eq!(request.action_idempotency_key, "action-key-1");
    assert_eq!(request.action_input_json, r#"{"a":1}"#);
    assert_eq!(request.action_output_json, "");
}

#[tokio::test]
async fn bytes_that_do_not_decode_are_unknown() {
    let town = Town::new();
    // A frame of three bytes that are no protobuf message.
    let garbage = || async {
        let headers = [("content-type", "application/grpc"), ("grpc-status", "0")];
        (headers, b"\0\0\0\0\x03\x07\x07\x07".to_vec())
    };
    town.open(axum::Router::new().fallback(garbage).into(), 0).await;
    let cause = town.unknown().await;
    assert!(cause.starts_with("the answer cannot be read: "), "{cause}");
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_unknown() {
    let town = Town::new();
    let bad_gateway = || async { (http::StatusCode::BAD_GATEWAY, "refused") };
    town.open(axum::Router::new().fallback(bad_gateway).into(), 0).await;
    assert_eq!(town.unknown().await, "the answer is HTTP 502 Bad Gateway, not gRPC");
}

#[tokio::test]
async fn a_huge_answer_is_unknown() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Done(format!("\"{}\"", "x".repeat(1024 * 1024))), 0).await;
    assert!(town.unknown().await.contains("over the limit"));
    *fake.manner.lock() = Manner::Done(format!("\"{}\"", "x".repeat(3 * 1024 * 1024)));
    let cause = town.unknown().await;
    assert!(cause.contains("a message of 3145740 bytes, over the limit of 1114112"), "{cause}");
}

#[tokio::test]
async fn a_connection_that_swallows_a_call_is_not_used_again() {
    /// More connections than a client keeps to one endpoint.
    const SWALLOWED: usize = 4;
    let town = Town::new();
    let fake = Arc::new(FakeParticipant::new(Manner::Done(String::new())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = ParticipantServiceServer::from_arc(Arc::clone(&fake));
    let stop = town.tasks.stopping();
    town.tasks.spawn("fake participant behind a broken net", Death::Logged, async move {
        let mut swallowed = Vec::new();
        while swallowed.len() < SWALLOWED {
            swallowed.push(listener.accept().await.expect("a connection"));
        }
        let rest = Server::builder().add_service(service);
        tokio::select! {
            ended = rest.serve_with_incoming(TcpListenerStream::new(listener)) => ended.expect("it serves"),
            () = stop.cancelled() => {}
        }
    });
    town.register(&endpoint, 0).await;
    for _ in 0..SWALLOWED {
        let outcome = town.participants.call(outgoing(Phase::Action, Duration::from_millis(50))).await;
        assert_eq!(outcome, Outcome::Unknown("no answer within 50ms".to_owned()));
    }
    assert_eq!(town.call(Phase::Action).await, Outcome::Done(Json::null()));
}

#[tokio::test]
async fn a_call_without_an_answer_is_unknown_after_its_own_timeout() {
    let town = Town::new();
    town.open_fake(Manner::Never, 0).await;
    let outcome = town.participants.call(outgoing(Phase::Action, Duration::from_millis(50))).await;
    assert_eq!(outcome, Outcome::Unknown("no answer within 50ms".to_owned()));
    let listed = town.participants.registry().list(None);
    assert_eq!(listed[0].health, Health::Degraded);
    assert_eq!(listed[0].in_flight, 0);
    assert_eq!(listed[0].registrations[0].last_error, "no answer within 50ms");
    assert_eq!((listed[0].registrations[0].calls, listed[0].registrations[0].unknown_outcomes), (1, 1));
}

#[tokio::test]
async fn a_server_that_is_gone_is_unknown_until_it_is_back() {
    let town = Town::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    town.register(&format!("http://{address}"), 0).await;
    for last in 1..=FAILS_IN_A_ROW {
        if last == FAILS_IN_A_ROW {
            town.clock.advance(FAILS_ALONE);
        }
        assert!(town.unknown().await.starts_with("UNAVAILABLE"));
    }
    assert_eq!(town.participants.registry().list(None)[0].health, Health::Down);
    let turned_back = Outcome::Unsent("not sent: participant stock failed the latest calls".to_owned());
    assert_eq!(town.call(Phase::Action).await, turned_back);

    town.clock.advance(OPEN_FIRST);
    let listener = TcpListener::bind(address).await.unwrap();
    let fake = ParticipantServiceServer::new(FakeParticipant::new(Manner::Refused));
    let stop = town.tasks.stopping();
    town.tasks.spawn("fake participant", Death::Logged, async move {
        let server =
            Server::builder().add_service(fake).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::select! {
            ended = server => ended.expect("the fake participant serves"),
            () = stop.cancelled() => {}
        }
    });
    assert!(matches!(town.call(Phase::Action).await, Outcome::Refused(_)));
    assert_eq!(town.participants.registry().list(None)[0].health, Health::Degraded);
}

#[tokio::test]
async fn a_connection_cut_after_sending_is_unknown() {
    let town = Town::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    town.register(&format!("http://{}", listener.local_addr().unwrap()), 0).await;
    let cutting = async {
        let (socket, _) = listener.accept().await.unwrap();
        socket.readable().await.unwrap();
        drop(socket);
    };
    let (cause, ()) = tokio::join!(town.unknown(), cutting);
    assert!(!cause.is_empty());
}

#[tokio::test]
async fn two_endpoints_share_the_load() {
    let town = Town::new();
    let shops = [town.open_fake(Manner::Gated, 0).await, town.open_fake(Manner::Gated, 0).await];
    let calls = join_all((0..8).map(|_| town.call(Phase::Action)));
    let watching = async {
        for shop in &shops {
            shop.arrived.subscribe().wait_for(|calls| *calls == 4).await.unwrap();
            shop.gate.add_permits(4);
        }
    };
    let (outcomes, ()) = tokio::join!(calls, watching);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
}

#[tokio::test]
async fn no_more_calls_are_in_flight_than_the_endpoint_takes() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Gated, 3).await;
    let calls = join_all((0..20).map(|_| town.call(Phase::Action)));
    let watching = async {
        for so_far in 3..=20 {
            fake.arrived.subscribe().wait_for(|calls| *calls >= so_far).await.unwrap();
            assert_eq!(town.participants.registry().list(None)[0].in_flight, 3);
            fake.gate.add_permits(1);
        }
        fake.gate.add_permits(2);
    };
    let (outcomes, ()) = tokio::join!(calls, watching);
    assert_eq!(outcomes.len(), 20);
    assert_eq!(fake.peak.load(Ordering::SeqCst), 3);
    assert_eq!(town.participants.registry().list(None)[0].registrations[0].calls, 20);
}

#[tokio::test]
async fn an_abandoned_call_gives_its_place_back() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Never, 1).await;
    let mut arrived = fake.arrived.subscribe();
    tokio::select! {
        outcome = town.call(Phase::Action) => panic!("it never answers: {outcome:?}"),
        seen = arrived.wait_for(|calls| *calls == 1) => assert!(seen.is_ok()),
    }
    assert_eq!(town.participants.registry().list(None)[0].in_flight, 0);
    *fake.manner.lock() = Manner::Refused;
    assert!(matches!(town.call(Phase::Action).await, Outcome::Refused(_)));
}

#[tokio::test]
async fn nobody_is_called_after_the_registration_ran_out() {
    let town = Town::new();
    let fake = town.open_fake(Manner::Refused, 0).await;
    town.call(Phase::Action).await;
    town.clock.advance(Duration::from_secs(30));
    let stock = ParticipantName::parse("stock").unwrap();
    let deduct = ActionName::parse("deduct").unwrap();
    assert!(!town.participants.can_call(&stock, &deduct));
    let unsent = Outcome::Unsent("not sent: participant stock has no live registration".to_owned());
    assert_eq!(town.call(Phase::Action).await, unsent);
    assert_eq!(*fake.arrived.borrow(), 1);
}

#[tokio::test]
async fn an_action_that_nobody_offers_is_named() {
    let town = Town::new();
    town.open_fake(Manner::Refused, 0).await;
    let mut call = outgoing(Phase::Action, PATIENT);
    call.duty.action = ActionName::parse("count").unwrap();
    let outcome = town.participants.call(call).await;
    assert_eq!(outcome, Outcome::Unsent("not sent: participant stock has no action count".to_owned()));
}
