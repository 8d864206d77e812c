//! `RegistryService`: for participant services.

use tonic::{Request, Response, Status, Streaming};

use super::limits::HELLO_MAX;
use super::status::from_engine;
use super::{Context, convert, parse};
use crate::engine::participants::Outbound;
use crate::proto;
use crate::proto::registry_service_server::RegistryService;

/// The service.
pub(super) struct RegistryApi {
    context: Context,
}

impl RegistryApi {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl RegistryService for RegistryApi {
    async fn register_handlers(
        &self,
        request: Request<proto::RegisterHandlersRequest>,
    ) -> Result<Response<proto::RegisterHandlersResponse>, Status> {
        let handlers = parse::register_handlers(request.into_inner()).map_err(from_engine)?;
        let registered = self.context.engine.register_handlers(handlers).await.map_err(from_engine)?;
        Ok(Response::new(proto::RegisterHandlersResponse {
            registration_id: registered.registration_id,
            expires_at: Some(convert::timestamp(registered.expires_at)),
        }))
    }

    async fn renew_registration(
        &self,
        request: Request<proto::RenewRegistrationRequest>,
    ) -> Result<Response<proto::RenewRegistrationResponse>, Status> {
        let id = parse::registration_id(request.into_inner().registration_id).map_err(from_engine)?;
        let expires_at = self.context.engine.renew_registration(&id).map_err(from_engine)?;
        Ok(Response::new(proto::RenewRegistrationResponse { expires_at: expires_at.map(convert::timestamp) }))
    }

    async fn deregister_handlers(
        &self,
        request: Request<proto::DeregisterHandlersRequest>,
    ) -> Result<Response<proto::DeregisterHandlersResponse>, Status> {
        let id = parse::registration_id(request.into_inner().registration_id).map_err(from_engine)?;
        self.context.engine.deregister_handlers(&id).await.map_err(from_engine)?;
        Ok(Response::new(proto::DeregisterHandlersResponse {}))
    }

    async fn list_participants(
        &self,
        request: Request<proto::ListParticipantsRequest>,
    ) -> Result<Response<proto::ListParticipantsResponse>, Status> {
        let only = parse::only_participant(&request.get_ref().participant).map_err(from_engine)?;
        let participants = self.context.engine.list_participants(only.as_ref());
        Ok(Response::new(proto::ListParticipantsResponse {
            participants: participants.into_iter().map(convert::participant).collect(),
        }))
    }

    async fn complete_step(
        &self,
        request: Request<proto::CompleteStepRequest>,
    ) -> Result<Response<proto::CompleteStepResponse>, Status> {
        let (token, outcome) =
            parse::complete_step(request.into_inner(), &self.context.limits).map_err(from_engine)?;
        self.context.engine.complete(&token, outcome).await.map_err(from_engine)?;
        Ok(Response::new(proto::CompleteStepResponse {}))
    }

    type OpenWorkerStream = Outbound;

    async fn open_worker(
        &self,
        request: Request<Streaming<proto::OpenWorkerRequest>>,
    ) -> Result<Response<Self::OpenWorkerStream>, Status> {
        let mut inbound = request.into_inner();
        let hello = tokio::time::timeout(HELLO_MAX, inbound.message()).await;
        let no_hello = |_passed| Status::deadline_exceeded(format!("no hello within {HELLO_MAX:?}"));
        let first = hello.map_err(no_hello)??;
        let handlers = parse::worker_hello(first.unwrap_or_default()).map_err(from_engine)?;
        let seat = self.context.engine.seat_worker(handlers).await.map_err(from_engine)?;
        Ok(Response::new(seat.serve(inbound)))
    }
}
