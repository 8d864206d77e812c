//! Staying registered at a daemon that forgets.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response};

use super::*;
use crate::proto::registry_service_server::{RegistryService, RegistryServiceServer};

/// Reports every request; knows each registration for one renewal only.
struct Forgetful {
    seen: mpsc::UnboundedSender<String>,
    renewed: Arc<parking_lot::Mutex<Vec<String>>>,
    made: std::sync::atomic::AtomicU32,
}

#[tonic::async_trait]
impl RegistryService for Forgetful {
    async fn register_handlers(
        &self,
        request: Request<proto::RegisterHandlersRequest>,
    ) -> Result<Response<proto::RegisterHandlersResponse>, Status> {
        let r = request.into_inner();
        let actions: Vec<String> = r.actions.into_iter().map(|action| action.name).collect();
        let _ =
            self.seen.send(format!("register {} at {}: {}", r.participant, r.endpoint, actions.join(" ")));
        let made = 1 + self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let registration_id = format!("r{made}");
        Ok(Response::new(proto::RegisterHandlersResponse { registration_id, expires_at: None }))
    }

    async fn renew_registration(
        &self,
        request: Request<proto::RenewRegistrationRequest>,
    ) -> Result<Response<proto::RenewRegistrationResponse>, Status> {
        let id = request.into_inner().registration_id;
        let _ = self.seen.send(format!("renew {id}"));
        let mut renewed = self.renewed.lock();
        if renewed.contains(&id) {
            return Err(Status::not_found("ran out"));
        }
        renewed.push(id);
        Ok(Response::new(proto::RenewRegistrationResponse { expires_at: None }))
    }

    async fn deregister_handlers(
        &self,
        _: Request<proto::DeregisterHandlersRequest>,
    ) -> Result<Response<proto::DeregisterHandlersResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_participants(
        &self,
        _: Request<proto::ListParticipantsRequest>,
    ) -> Result<Response<proto::ListParticipantsResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn complete_step(
        &self,
        _: Request<proto::CompleteStepRequest>,
    ) -> Result<Response<proto::CompleteStepResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type OpenWorkerStream = tokio_stream::Empty<Result<proto::OpenWorkerResponse, Status>>;

    async fn open_worker(
        &self,
        _: Request<tonic::Streaming<proto::OpenWorkerRequest>>,
    ) -> Result<Response<Self::OpenWorkerStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

#[tokio::test]
async fn a_service_that_was_forgotten_registers_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registration = Registration {
        daemon: format!("http://{}", listener.local_addr().unwrap()),
        participant: "stock".to_owned(),
        endpoint: "http://127.0.0.1:9".to_owned(),
        actions: vec!["deduct".to_owned(), "restore".to_owned()],
        max_in_flight: 64,
        ttl: Duration::from_millis(3),
    };
    let (seen, mut requests) = mpsc::unbounded_channel();
    let service = Forgetful { seen, renewed: Arc::default(), made: 0.into() };
    let served = Server::builder()
        .add_service(RegistryServiceServer::new(service))
        .serve_with_incoming(TcpIncoming::from(listener));
    let told = async {
        let mut first = Vec::new();
        while first.len() < 5 {
            first.push(requests.recv().await.unwrap());
        }
        first
    };
    let registered = "register stock at http://127.0.0.1:9: deduct restore";
    tokio::select! {
        () = keep(registration).unwrap() => unreachable!("staying registered has no end"),
        ended = served => panic!("the fake daemon ended: {ended:?}"),
        first = told => assert_eq!(first, [registered, "renew r1", "renew r1", registered, "renew r2"]),
    }
}
