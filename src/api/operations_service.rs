//! `OperationsService`: for operators.

use tonic::{Request, Response, Status};

use super::saga_service::peer;
use super::status::from_engine;
use super::{Context, convert, parse};
use crate::proto;
use crate::proto::operations_service_server::OperationsService;

/// The service.
pub(super) struct OperationsApi {
    context: Context,
}

impl OperationsApi {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl OperationsService for OperationsApi {
    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let id = parse::saga_id(&request.get_ref().saga_id).map_err(from_engine)?;
        let (explanation, view) = self.context.engine.explain(&id).await.map_err(from_engine)?;
        Ok(Response::new(convert::explanation(explanation, &view)))
    }

    async fn list_stuck(
        &self,
        request: Request<proto::ListStuckRequest>,
    ) -> Result<Response<proto::ListStuckResponse>, Status> {
        let (page_size, page_token) = parse::list_stuck(request.into_inner()).map_err(from_engine)?;
        let (items, next_page_token, total) =
            self.context.engine.list_stuck(page_size, &page_token).await.map_err(from_engine)?;
        Ok(Response::new(proto::ListStuckResponse {
            items: items.into_iter().map(convert::stuck_item).collect(),
            next_page_token,
            total,
        }))
    }

    async fn repair(
        &self,
        request: Request<proto::RepairRequest>,
    ) -> Result<Response<proto::RepairResponse>, Status> {
        let actor = peer(&request);
        let repair =
            parse::repair(request.into_inner(), &actor, &self.context.limits).map_err(from_engine)?;
        let answer = self.context.engine.repair(repair).await.map_err(from_engine)?;
        Ok(Response::new(proto::RepairResponse {
            plan: answer.plan.into_iter().map(convert::planned_call).collect(),
            saga: Some(convert::saga(&answer.saga)),
        }))
    }

    async fn pause_participant(
        &self,
        request: Request<proto::PauseParticipantRequest>,
    ) -> Result<Response<proto::PauseParticipantResponse>, Status> {
        let peer = peer(&request);
        let proto::PauseParticipantRequest { participant, reason, actor } = request.into_inner();
        let (participant, reason, actor) =
            parse::participant_act(&participant, reason, actor, &peer).map_err(from_engine)?;
        let engine = &self.context.engine;
        let paused = engine.pause_participant(participant, actor, reason).await.map_err(from_engine)?;
        let participant = Some(convert::participant(paused));
        Ok(Response::new(proto::PauseParticipantResponse { participant }))
    }

    async fn resume_participant(
        &self,
        request: Request<proto::ResumeParticipantRequest>,
    ) -> Result<Response<proto::ResumeParticipantResponse>, Status> {
        let peer = peer(&request);
        let proto::ResumeParticipantRequest { participant, reason, actor } = request.into_inner();
        let (participant, reason, actor) =
            parse::participant_act(&participant, reason, actor, &peer).map_err(from_engine)?;
        let engine = &self.context.engine;
        let resumed = engine.resume_participant(participant, &actor, &reason).await.map_err(from_engine)?;
        let participant = Some(convert::participant(resumed));
        Ok(Response::new(proto::ResumeParticipantResponse { participant }))
    }

    async fn get_stats(
        &self,
        _: Request<proto::GetStatsRequest>,
    ) -> Result<Response<proto::GetStatsResponse>, Status> {
        let stats = self.context.engine.stats().await.map_err(from_engine)?;
        Ok(Response::new(convert::stats(stats)))
    }
}
