//! The stock service of the order saga.
//!
//! ```text
//! main          the gRPC service: a request in, an outcome out
//! registration  tells the daemon where it is
//! barrier       one call, one effect
//! stock         the shop's own part
//! ```
//!
//! `SAGAD_ADDR` is the daemon's URL, `LISTEN` where to listen, `DATABASE` the SQLite file.

mod barrier;
mod registration;
mod stock;

use std::env;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use barrier::{Answer, Call};
use sagad::participant_service_server::{ParticipantService, ParticipantServiceServer};
use sagad::{
    CompensateRequest, CompensateResponse, Done, ExecuteRequest, ExecuteResponse, ProbeRequest,
    ProbeResponse, Refused, Superseded, compensate_response, execute_response,
};
use stock::Pieces;

/// The messages and services of sagad, made by `build.rs`.
#[allow(clippy::pedantic)]
mod sagad {
    tonic::include_proto!("sagad.v1");
}

/// Less than the two seconds for which the order saga waits for an answer.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let daemon = setting("SAGAD_ADDR", "http://127.0.0.1:7420");
    let listen = setting("LISTEN", "127.0.0.1:9001");
    let database = setting("DATABASE", "stock.db");

    let db = Connection::open(&database).with_context(|| format!("open {database}"))?;
    db.busy_timeout(DATABASE_TIMEOUT)?;
    db.execute_batch(barrier::SCHEMA)?;
    db.execute_batch(stock::SCHEMA)?;
    let service = StockService { db: Arc::new(Mutex::new(db)) };

    let listener = TcpListener::bind(&listen).await.with_context(|| format!("listen on {listen}"))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let daemon = Endpoint::from_shared(daemon)?
        .connect_timeout(REGISTRY_TIMEOUT)
        .timeout(REGISTRY_TIMEOUT)
        .connect_lazy();
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    // The server goes on until the registration has ended, and then finishes the calls it has.
    Server::builder()
        .add_service(ParticipantServiceServer::new(service))
        .serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            registration::keep(daemon, &endpoint, stop),
        )
        .await?;
    Ok(())
}

struct StockService {
    /// One writer at a time is all that SQLite has.
    db: Arc<Mutex<Connection>>,
}

#[tonic::async_trait]
impl ParticipantService for StockService {
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        use execute_response::Outcome;
        let request = request.into_inner();
        let call = Call::Act(request.idempotency_key);
        let outcome = match self.answer(call, request.action, request.input_json).await? {
            Answer::Done(output_json) => Outcome::Done(Done { output_json }),
            Answer::Refused { code, message } => Outcome::Refused(Refused { code, message }),
            Answer::Superseded => Outcome::Superseded(Superseded {}),
        };
        Ok(Response::new(ExecuteResponse { outcome: Some(outcome) }))
    }

    async fn compensate(
        &self,
        request: Request<CompensateRequest>,
    ) -> Result<Response<CompensateResponse>, Status> {
        use compensate_response::Outcome;
        let request = request.into_inner();
        let call = Call::Undo(request.action_idempotency_key);
        let outcome = match self.answer(call, request.action, request.input_json).await? {
            Answer::Done(output_json) => Outcome::Done(Done { output_json }),
            Answer::Refused { code, message } => Outcome::Refused(Refused { code, message }),
            Answer::Superseded => Outcome::Superseded(Superseded {}),
        };
        Ok(Response::new(CompensateResponse { outcome: Some(outcome) }))
    }

    /// Only asked about pivots and pending steps; `deduct` is neither.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Err(Status::unimplemented("there is no probe here"))
    }
}

impl StockService {
    /// An error is an unknown outcome: the daemon asks again, with the same key.
    async fn answer(&self, call: Call, action: String, input_json: String) -> Result<Answer, Status> {
        let db = Arc::clone(&self.db);
        let answering = tokio::task::spawn_blocking(move || {
            let mut db = db.lock().expect("no call panics while it holds the database");
            barrier::once(&mut db, &call, |tx| {
                let pieces = match Pieces::parse(&input_json) {
                    Ok(pieces) => pieces,
                    // The input is the same on every attempt, so this is a definite no.
                    Err(message) => return Ok(Answer::Refused { code: "BAD_INPUT".to_owned(), message }),
                };
                match (&call, action.as_str()) {
                    (Call::Act(_), "deduct") => stock::deduct(tx, &pieces),
                    (Call::Undo(_), "restore") => stock::restore(tx, &pieces),
                    _ => Ok(Answer::Refused {
                        code: "UNKNOWN_ACTION".to_owned(),
                        message: format!("there is no {action} here"),
                    }),
                }
            })
        });
        let answer = answering.await.map_err(|error| Status::internal(error.to_string()))?;
        answer.map_err(|error| Status::unavailable(format!("the database: {error}")))
    }
}
