//! A daemon that answers by rote on a port of its own and keeps what it was asked.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use sagad::proto;
use sagad::proto::definition_service_server::{DefinitionService, DefinitionServiceServer};
use sagad::proto::operations_service_server::{OperationsService, OperationsServiceServer};
use sagad::proto::registry_service_server::{RegistryService, RegistryServiceServer};
use sagad::proto::saga_service_server::{SagaService, SagaServiceServer};
use sagad::tasks::{Death, Tasks};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// 2026-01-01T00:00:00Z.
const BEGAN: prost_types::Timestamp = prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 };

/// How it answers.
#[derive(Debug, Clone)]
pub struct Script {
    /// How its saga stands.
    pub status: proto::SagaStatus,
    /// After how many looks it stands otherwise, and how.
    pub settles: Option<(usize, proto::SagaStatus)>,
    /// How many sagas it lists.
    pub sagas: u32,
    /// Whether it finds every start wrong.
    pub refuses_starts: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { status: proto::SagaStatus::Running, settles: None, sagas: 0, refuses_starts: false }
    }
}

#[derive(Debug, Default)]
struct Asked {
    starts: Vec<proto::StartSagaRequest>,
    waits: Vec<proto::WaitSagaRequest>,
    lists: Vec<proto::ListSagasRequest>,
    repairs: Vec<proto::RepairRequest>,
    definitions: Vec<proto::RegisterDefinitionRequest>,
    registrations: Vec<proto::RegisterHandlersRequest>,
}

#[derive(Debug, Clone)]
struct Services {
    script: Script,
    asked: Arc<Mutex<Asked>>,
}

/// The daemon; it ends with its owner.
pub struct FakeDaemon {
    addr: String,
    asked: Arc<Mutex<Asked>>,
    tasks: Tasks,
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl FakeDaemon {
    /// Listens on a free port of this machine.
    pub async fn start(script: Script) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Asked::default()));
        let services = Services { script, asked: Arc::clone(&asked) };
        let tasks = Tasks::new();
        let stopping = tasks.stopping();
        let server = tonic::transport::Server::builder()
            .add_service(SagaServiceServer::new(services.clone()))
            .add_service(OperationsServiceServer::new(services.clone()))
            .add_service(DefinitionServiceServer::new(services.clone()))
            .add_service(RegistryServiceServer::new(services))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopping.cancelled_owned());
        tasks.spawn("fake daemon", Death::Logged, async {
            server.await.unwrap();
        });
        Self { addr, asked, tasks }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The only start.
    pub fn started(&self) -> proto::StartSagaRequest {
        let asked = self.asked.lock();
        assert_eq!(asked.starts.len(), 1);
        asked.starts[0].clone()
    }

    pub fn waited(&self) -> Vec<proto::WaitSagaRequest> {
        self.asked.lock().waits.clone()
    }

    pub fn listed(&self) -> Vec<proto::ListSagasRequest> {
        self.asked.lock().lists.clone()
    }

    pub fn repairs(&self) -> Vec<proto::RepairRequest> {
        self.asked.lock().repairs.clone()
    }

    pub fn registered(&self) -> Vec<proto::RegisterDefinitionRequest> {
        self.asked.lock().definitions.clone()
    }

    pub fn registrations(&self) -> Vec<proto::RegisterHandlersRequest> {
        self.asked.lock().registrations.clone()
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn saga(id: &str, status: proto::SagaStatus) -> proto::Saga {
    let committed = matches!(status, proto::SagaStatus::Committed | proto::SagaStatus::Completed);
    proto::Saga {
        saga_id: id.to_owned(),
        definition: "order".to_owned(),
        version: 2,
        status: status.into(),
        direction: proto::Direction::Forward.into(),
        committed,
        input_json: r#"{"n":9007199254740993}"#.to_owned(),
        created_at: Some(BEGAN),
        updated_at: Some(BEGAN),
        seq: 1,
        ..proto::Saga::default()
    }
}

impl Services {
    fn saga_now(&self, id: &str) -> proto::Saga {
        let looks = self.asked.lock().waits.len();
        match self.script.settles {
            Some((after, status)) if looks >= after => saga(id, status),
            Some(_) | None => saga(id, self.script.status),
        }
    }
}

#[tonic::async_trait]
impl SagaService for Services {
    async fn start_saga(
        &self,
        request: Request<proto::StartSagaRequest>,
    ) -> Answer<proto::StartSagaResponse> {
        let request = request.into_inner();
        if self.script.refuses_starts {
            let mut details = ErrorDetails::new();
            details.set_bad_request(vec![
                FieldViolation::new("input_json", "`user_id` is required"),
                FieldViolation::new("labels", "more than 64 labels"),
            ]);
            let message = "the request is not valid";
            return Err(Status::with_error_details(Code::InvalidArgument, message, details));
        }
        let saga = self.saga_now(&request.saga_id);
        self.asked.lock().starts.push(request);
        Ok(Response::new(proto::StartSagaResponse { saga: Some(saga), existed: false }))
    }

    async fn get_saga(&self, request: Request<proto::GetSagaRequest>) -> Answer<proto::GetSagaResponse> {
        let saga = self.saga_now(&request.into_inner().saga_id);
        Ok(Response::new(proto::GetSagaResponse { saga: Some(saga) }))
    }

    async fn wait_saga(&self, request: Request<proto::WaitSagaRequest>) -> Answer<proto::WaitSagaResponse> {
        let request = request.into_inner();
        let id = request.saga_id.clone();
        self.asked.lock().waits.push(request);
        Ok(Response::new(proto::WaitSagaResponse { saga: Some(self.saga_now(&id)) }))
    }

    type WatchSagaStream = Pin<Box<dyn Stream<Item = Result<proto::WatchSagaResponse, Status>> + Send>>;

    async fn watch_saga(&self, request: Request<proto::WatchSagaRequest>) -> Answer<Self::WatchSagaStream> {
        let request = request.into_inner();
        let rows = [
            (0, "saga_started", "", 0),
            (4, "step_started", "use-point", 1),
            (31, "step_succeeded", "use-point", 1),
        ];
        let events = (1..).zip(rows).map(move |(seq, (millis, kind, step, attempt))| proto::SagaEvent {
            seq,
            saga_id: request.saga_id.clone(),
            at: Some(prost_types::Timestamp { nanos: millis * 1_000_000, ..BEGAN }),
            r#type: kind.to_owned(),
            step: step.to_owned(),
            attempt,
            ..proto::SagaEvent::default()
        });
        let asked_for = events.filter(move |event| event.seq > request.after_seq);
        let messages = asked_for.map(|event| Ok(proto::WatchSagaResponse { event: Some(event) }));
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }

    async fn list_sagas(
        &self,
        request: Request<proto::ListSagasRequest>,
    ) -> Answer<proto::ListSagasResponse> {
        let request = request.into_inner();
        let from: u32 = request.page_token.parse().unwrap_or(0);
        let to = from.saturating_add(request.page_size).min(self.script.sagas);
        let answer = proto::ListSagasResponse {
            sagas: (from..to).map(|n| saga(&format!("order-{n}"), self.script.status)).collect(),
            next_page_token: if to < self.script.sagas { to.to_string() } else { String::new() },
            total: self.script.sagas.into(),
            total_known: true,
        };
        self.asked.lock().lists.push(request);
        Ok(Response::new(answer))
    }

    async fn cancel_saga(&self, _: Request<proto::CancelSagaRequest>) -> Answer<proto::CancelSagaResponse> {
        Err(Status::unimplemented("not in the script"))
    }
}

#[tonic::async_trait]
impl OperationsService for Services {
    async fn explain(&self, _: Request<proto::ExplainRequest>) -> Answer<proto::ExplainResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_stuck(&self, _: Request<proto::ListStuckRequest>) -> Answer<proto::ListStuckResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn repair(&self, request: Request<proto::RepairRequest>) -> Answer<proto::RepairResponse> {
        let request = request.into_inner();
        let nothing_named = request.act() == proto::RepairAct::Abandon && request.abandon_steps.is_empty();
        let call = proto::PlannedCall {
            step: "use-point".to_owned(),
            phase: "action".to_owned(),
            participant: "point".to_owned(),
            action: "use".to_owned(),
            note: "attempt 9".to_owned(),
        };
        let saga = self.saga_now(&request.saga_id);
        self.asked.lock().repairs.push(request);
        if nothing_named {
            return Err(Status::failed_precondition("these effects stay behind: deduct-stock/0, use-point"));
        }
        Ok(Response::new(proto::RepairResponse { plan: vec![call], saga: Some(saga) }))
    }

    async fn pause_participant(
        &self,
        request: Request<proto::PauseParticipantRequest>,
    ) -> Answer<proto::PauseParticipantResponse> {
        let proto::PauseParticipantRequest { participant: name, reason, actor } = request.into_inner();
        let pause = proto::ParticipantPause { reason, actor, since: Some(BEGAN) };
        let health = proto::ParticipantHealth::Healthy.into();
        let breaker = proto::BreakerState::Closed.into();
        let paused = proto::Participant { name, health, breaker, pause: Some(pause), ..Default::default() };
        Ok(Response::new(proto::PauseParticipantResponse { participant: Some(paused) }))
    }

    async fn resume_participant(
        &self,
        _: Request<proto::ResumeParticipantRequest>,
    ) -> Answer<proto::ResumeParticipantResponse> {
        Err(Status::not_found("participant \"stork\" is not known"))
    }

    async fn get_stats(&self, _: Request<proto::GetStatsRequest>) -> Answer<proto::GetStatsResponse> {
        Err(Status::unimplemented("not in the script"))
    }
}

#[tonic::async_trait]
impl DefinitionService for Services {
    async fn register_definition(
        &self,
        request: Request<proto::RegisterDefinitionRequest>,
    ) -> Answer<proto::RegisterDefinitionResponse> {
        let request = request.into_inner();
        let name = request.source.trim().strip_prefix("saga: ").map(str::to_owned);
        self.asked.lock().definitions.push(request);
        let name = name.ok_or_else(|| Status::invalid_argument("line 1, column 1: `saga` is missing"))?;
        let definition = proto::Definition { name, version: 1, active: true, ..proto::Definition::default() };
        Ok(Response::new(proto::RegisterDefinitionResponse {
            definition: Some(definition),
            existed: false,
            warnings: Vec::new(),
        }))
    }

    async fn get_definition(
        &self,
        request: Request<proto::GetDefinitionRequest>,
    ) -> Answer<proto::GetDefinitionResponse> {
        let name = request.into_inner().name;
        let definition = proto::Definition { name, version: 2, ..proto::Definition::default() };
        Ok(Response::new(proto::GetDefinitionResponse { definition: Some(definition) }))
    }

    async fn list_definitions(
        &self,
        _: Request<proto::ListDefinitionsRequest>,
    ) -> Answer<proto::ListDefinitionsResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn retire_definition(
        &self,
        _: Request<proto::RetireDefinitionRequest>,
    ) -> Answer<proto::RetireDefinitionResponse> {
        Err(Status::unimplemented("not in the script"))
    }
}

#[tonic::async_trait]
impl RegistryService for Services {
    async fn register_handlers(
        &self,
        request: Request<proto::RegisterHandlersRequest>,
    ) -> Answer<proto::RegisterHandlersResponse> {
        self.asked.lock().registrations.push(request.into_inner());
        let registration_id = "r-1".to_owned();
        Ok(Response::new(proto::RegisterHandlersResponse { registration_id, expires_at: Some(BEGAN) }))
    }

    async fn renew_registration(
        &self,
        _: Request<proto::RenewRegistrationRequest>,
    ) -> Answer<proto::RenewRegistrationResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn deregister_handlers(
        &self,
        _: Request<proto::DeregisterHandlersRequest>,
    ) -> Answer<proto::DeregisterHandlersResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_participants(
        &self,
        _: Request<proto::ListParticipantsRequest>,
    ) -> Answer<proto::ListParticipantsResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn complete_step(
        &self,
        _: Request<proto::CompleteStepRequest>,
    ) -> Answer<proto::CompleteStepResponse> {
        Err(Status::unimplemented("not in the script"))
    }

    type OpenWorkerStream = tokio_stream::Empty<Result<proto::OpenWorkerResponse, Status>>;

    async fn open_worker(
        &self,
        _: Request<tonic::Streaming<proto::OpenWorkerRequest>>,
    ) -> Answer<Self::OpenWorkerStream> {
        Err(Status::unimplemented("not in the script"))
    }
}
