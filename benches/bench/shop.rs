//! The participants: a process of their own that answers nearly every call at once.
//!
//! They keep nothing and check nothing: what is measured is the engine. A saga whose id ends in
//! [`REFUSED`] is refused at `point.use`; `depot.take` takes [`TAKE_TIME`]; `depot.hold` is still at
//! work for [`HOLD_TIME`], unless it is probed or called again.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use sagad::demo::worker::Worker;
use sagad::proto;
use sagad::proto::participant_service_server::{ParticipantService, ParticipantServiceServer};
use tonic::{Request, Response, Status};

use crate::rig::{IN_FLIGHT, PARTICIPANTS};

/// How the id of a saga ends whose points are refused.
pub const REFUSED: &str = "-refused";
/// How long `depot.take` takes.
pub const TAKE_TIME: Duration = Duration::from_millis(20);
/// When to ask again after `depot.hold`.
pub const HOLD_TIME: Duration = Duration::from_hours(1);

/// Serves until the parent is gone.
pub async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    sagad::demo::processes::end_with_parent().context("watch standard input")?;
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(ParticipantServiceServer::new(Shop))
        .serve(listen)
        .await
        .context("serve the participants")
}

/// Works for the daemon at `url`, one stream a participant, until the parent is gone.
pub async fn work(url: &str) -> anyhow::Result<()> {
    sagad::demo::processes::end_with_parent().context("watch standard input")?;
    let workers = PARTICIPANTS.iter().map(|(participant, actions)| {
        let worker = Worker {
            daemon: url.to_owned(),
            participant: (*participant).to_owned(),
            name: "bench".to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            max_in_flight: IN_FLIGHT,
            heartbeats: true,
        };
        sagad::demo::worker::run(worker, Shop, std::future::pending())
    });
    futures::future::try_join_all(workers).await.context("work")?;
    Ok(())
}

struct Shop;

#[tonic::async_trait]
impl ParticipantService for Shop {
    async fn execute(
        &self,
        request: Request<proto::ExecuteRequest>,
    ) -> Result<Response<proto::ExecuteResponse>, Status> {
        use proto::execute_response::Outcome;
        let request = request.into_inner();
        if request.action == "take" {
            tokio::time::sleep(TAKE_TIME).await;
        }
        let outcome = if request.action == "use" && request.saga_id.ends_with(REFUSED) {
            Outcome::Refused(proto::Refused {
                code: "NOT_ENOUGH_POINTS".to_owned(),
                message: "the account does not hold that many points".to_owned(),
            })
        } else if request.action == "hold" && request.attempt == 1 {
            Outcome::Pending(proto::Pending { check_after: HOLD_TIME.try_into().ok() })
        } else if request.action == "create" {
            Outcome::Done(proto::Done { output_json: format!("{{\"order_id\":\"{}\"}}", request.saga_id) })
        } else {
            Outcome::Done(proto::Done { output_json: "{}".to_owned() })
        };
        Ok(Response::new(proto::ExecuteResponse { outcome: Some(outcome) }))
    }

    async fn compensate(
        &self,
        _: Request<proto::CompensateRequest>,
    ) -> Result<Response<proto::CompensateResponse>, Status> {
        let done = proto::Done { output_json: "{}".to_owned() };
        let outcome = Some(proto::compensate_response::Outcome::Done(done));
        Ok(Response::new(proto::CompensateResponse { outcome }))
    }

    async fn probe(
        &self,
        request: Request<proto::ProbeRequest>,
    ) -> Result<Response<proto::ProbeResponse>, Status> {
        if request.into_inner().action != "hold" {
            return Err(Status::unimplemented("nothing is remembered here"));
        }
        let done = proto::Done { output_json: "{}".to_owned() };
        let outcome = Some(proto::probe_response::Outcome::Done(done));
        Ok(Response::new(proto::ProbeResponse { outcome }))
    }
}
