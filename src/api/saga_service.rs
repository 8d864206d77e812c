//! `SagaService`: for clients.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::limits::LIST_ANSWER_MAX_BYTES;
use super::status::from_engine;
use super::{Context, convert, parse};
use crate::engine::error::EngineError;
use crate::engine::request::{SagaView, WaitFor};
use crate::proto;
use crate::proto::saga_service_server::SagaService;

/// The service.
pub(super) struct SagaApi {
    context: Context,
}

impl SagaApi {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }

    /// The saga of a start that is durable, once it is as far as its client wants. Whatever ends
    /// the wait early, the start stands: an error here would make a client without an id of its
    /// own start a second saga.
    async fn after_start(&self, started: SagaView, wait: Duration, wait_for: WaitFor) -> SagaView {
        if wait.is_zero() || reached(&started, wait_for) {
            return started;
        }
        let waiting = self.context.engine.wait(&started.saga.id, wait_for, wait);
        match self.context.until_draining(waiting).await {
            Ok(Some(later)) => later,
            Ok(None) | Err(_) => started,
        }
    }
}

#[tonic::async_trait]
impl SagaService for SagaApi {
    async fn start_saga(
        &self,
        request: Request<proto::StartSagaRequest>,
    ) -> Result<Response<proto::StartSagaResponse>, Status> {
        let parse::Start { request, wait, wait_for } =
            parse::start(request.into_inner(), &self.context.limits).map_err(from_engine)?;
        let answer = self.context.promptly(self.context.engine.start(request)).await?;
        let view = self.after_start(answer.saga, wait, wait_for).await;
        Ok(Response::new(proto::StartSagaResponse {
            saga: Some(convert::saga(&view)),
            existed: answer.existed,
        }))
    }

    async fn get_saga(
        &self,
        request: Request<proto::GetSagaRequest>,
    ) -> Result<Response<proto::GetSagaResponse>, Status> {
        let id = parse::saga_id(&request.get_ref().saga_id).map_err(from_engine)?;
        let view = self.context.engine.get(&id).await.map_err(from_engine)?;
        Ok(Response::new(proto::GetSagaResponse { saga: Some(convert::saga(&view)) }))
    }

    async fn wait_saga(
        &self,
        request: Request<proto::WaitSagaRequest>,
    ) -> Result<Response<proto::WaitSagaResponse>, Status> {
        let parse::Wait { id, wait_for, timeout } = parse::wait(request.get_ref()).map_err(from_engine)?;
        let waiting = self.context.engine.wait(&id, wait_for, timeout);
        let view = self.context.until_draining(waiting).await?;
        let view = view.ok_or_else(|| from_engine(EngineError::Stopping))?;
        Ok(Response::new(proto::WaitSagaResponse { saga: Some(convert::saga(&view)) }))
    }

    type WatchSagaStream = BoxStream<'static, Result<proto::WatchSagaResponse, Status>>;

    async fn watch_saga(
        &self,
        request: Request<proto::WatchSagaRequest>,
    ) -> Result<Response<Self::WatchSagaStream>, Status> {
        let request = request.into_inner();
        let id = parse::saga_id(&request.saga_id).map_err(from_engine)?;
        let engine = &self.context.engine;
        let definition = engine.get(&id).await.map_err(from_engine)?.saga.definition.clone();
        let facts = engine.watch(&id, request.after_seq, request.follow).await.map_err(from_engine)?;
        let events = facts.map(move |fact| {
            let event = convert::event(&id, &definition, &fact.map_err(from_engine)?);
            Ok(proto::WatchSagaResponse { event: Some(event) })
        });
        Ok(Response::new(events.boxed()))
    }

    async fn list_sagas(
        &self,
        request: Request<proto::ListSagasRequest>,
    ) -> Result<Response<proto::ListSagasResponse>, Status> {
        let mut list = parse::list(request.into_inner()).map_err(from_engine)?;
        loop {
            let answer = self.context.engine.list(list.clone()).await.map_err(from_engine)?;
            let sagas: Vec<proto::Saga> = answer.sagas.iter().map(convert::saga_row).collect();
            if let Some(fewer) = fewer_than(&sagas) {
                list.page_size = fewer;
                continue;
            }
            return Ok(Response::new(proto::ListSagasResponse {
                sagas,
                next_page_token: answer.next_page_token,
                total: answer.total.unwrap_or_default(),
                total_known: answer.total.is_some(),
            }));
        }
    }

    async fn cancel_saga(
        &self,
        request: Request<proto::CancelSagaRequest>,
    ) -> Result<Response<proto::CancelSagaResponse>, Status> {
        let actor = peer(&request);
        let parse::Cancel { id, reason } = parse::cancel(request.into_inner()).map_err(from_engine)?;
        let view = self.context.engine.cancel(&id, actor, reason).await.map_err(from_engine)?;
        Ok(Response::new(proto::CancelSagaResponse { saga: Some(convert::saga(&view)) }))
    }
}

/// Who asks, when the request does not say.
pub(super) fn peer<T>(request: &Request<T>) -> String {
    request.remote_addr().as_ref().map_or_else(|| "unknown peer".to_owned(), SocketAddr::to_string)
}

fn reached(view: &SagaView, wait_for: WaitFor) -> bool {
    view.saga.is_terminal()
        || match wait_for {
            WaitFor::Committed => view.saga.committed,
            WaitFor::Ended => false,
        }
}

/// How many sagas to ask for instead when these are more than a client can read at once. A page may
/// be shorter than asked; the token of the shorter one goes on behind it.
fn fewer_than(sagas: &[proto::Saga]) -> Option<usize> {
    let bytes: usize = sagas.iter().map(proto::Saga::encoded_len).sum();
    (bytes > LIST_ANSWER_MAX_BYTES && sagas.len() > 1).then_some(sagas.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::convert::test_values::{saga, view};
    use crate::saga::state::Stage;

    #[test]
    fn a_page_is_cut_until_every_client_can_read_it() {
        let of = |bytes: usize| proto::Saga { input_json: "x".repeat(bytes), ..Default::default() };
        let mut page = vec![of(LIST_ANSWER_MAX_BYTES / 5); 16];
        while let Some(fewer) = fewer_than(&page) {
            page.truncate(fewer);
        }
        assert_eq!(page.len(), 4);
        assert_eq!(fewer_than(&[of(2 * LIST_ANSWER_MAX_BYTES)]), None, "one saga is always shown");
        assert_eq!(fewer_than(&[]), None);
    }

    #[test]
    fn a_wait_is_over_at_the_commit_or_at_the_end() {
        let cases = [
            (Stage::Forward, false, false),
            (Stage::Committed, true, false),
            (Stage::Backward, false, false),
            (Stage::Completed, true, true),
            (Stage::Compensated, true, true),
            (Stage::Abandoned, true, true),
        ];
        for (stage, committed, ended) in cases {
            let value = view(saga(stage, vec![]));
            assert_eq!(reached(&value, WaitFor::Committed), committed, "{stage:?}");
            assert_eq!(reached(&value, WaitFor::Ended), ended, "{stage:?}");
        }
    }
}
