//! A call to a participant over loopback: a slot, the wire, and what the answer means.

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures::future::join_all;
use sagad::clock::{Clock as _, SystemClock};
use sagad::metrics::Metrics;
use sagad::participant::dispatch::Participants;
use sagad::participant::handlers::{Claim, ClaimedAction, Handlers, Protocol};
use sagad::participant::registry::Registry;
use sagad::participant::{Dispatch as _, Outgoing};
use sagad::proto;
use sagad::proto::participant_service_server::{ParticipantService, ParticipantServiceServer};
use sagad::saga::ids::{ActionName, DefinitionName, InstanceRef, ParticipantName, SagaId, StepIx};
use sagad::saga::input::CallDuty;
use sagad::saga::json::Json;
use sagad::saga::words::{Outcome, Phase};
use sagad::tasks::Tasks;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// So many calls at once, over the connections that the engine would use.
#[divan::bench(args = [1, 64], sample_count = 50)]
fn call(bencher: Bencher<'_, '_>, at_once: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let participants = runtime.block_on(served());
    bencher.counter(ItemsCount::new(at_once)).bench_local(|| {
        let calls = (0..at_once).map(|_| participants.call(outgoing()));
        for outcome in runtime.block_on(join_all(calls)) {
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// A participant in this process, and a way to call it.
async fn served() -> Participants {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let server = tonic::transport::Server::builder()
        .add_service(ParticipantServiceServer::new(Stock))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::runtime::Handle::current().spawn(server);
    let clock = Arc::new(SystemClock::start());
    let registry = Registry::new(clock.clone());
    let claim = Claim {
        participant: "stock".to_owned(),
        endpoint: format!("http://{address}"),
        protocol: Some(Protocol::Sagad),
        actions: vec![ClaimedAction { name: "deduct".to_owned(), ..ClaimedAction::default() }],
        max_in_flight: 4_096,
        ttl: Duration::ZERO,
        descriptor_set: Vec::new(),
    };
    let handlers = Handlers::check(&claim).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    registry.configure(handlers).expect("the first of its name");
    let metrics = Metrics::new(clock.now());
    Participants::new(registry, clock, metrics, Tasks::new())
}

fn outgoing() -> Outgoing {
    let input = Json::trusted(r#"{"items":[{"item_id":1,"amount":1}]}"#.to_owned());
    Outgoing {
        saga_id: SagaId::parse("019338f4-5a00-7c3e-9f10-000000000001").expect("a good id"),
        definition: DefinitionName::parse("order3").expect("a good name"),
        labels: Arc::default(),
        duty: CallDuty {
            at: InstanceRef { step: StepIx(0), item: None },
            phase: Phase::Action,
            attempt: 1,
            epoch: 1,
            participant: ParticipantName::parse("stock").expect("a good name"),
            action: ActionName::parse("deduct").expect("a good name"),
            is_named: true,
            step: "deduct-stock".to_owned(),
            input,
            action_input: None,
            action_output: None,
            timeout: Duration::from_secs(5),
        },
        key: "0".repeat(40),
        action_key: "0".repeat(40),
        token: "0".repeat(60),
    }
}

struct Stock;

#[tonic::async_trait]
impl ParticipantService for Stock {
    async fn execute(
        &self,
        _: Request<proto::ExecuteRequest>,
    ) -> Result<Response<proto::ExecuteResponse>, Status> {
        let done = proto::Done { output_json: "{}".to_owned() };
        let outcome = Some(proto::execute_response::Outcome::Done(done));
        Ok(Response::new(proto::ExecuteResponse { outcome }))
    }

    async fn compensate(
        &self,
        _: Request<proto::CompensateRequest>,
    ) -> Result<Response<proto::CompensateResponse>, Status> {
        Err(Status::unimplemented("nothing is undone here"))
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Result<Response<proto::ProbeResponse>, Status> {
        Err(Status::unimplemented("nothing is remembered here"))
    }
}
