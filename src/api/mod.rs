//! The public surface: gRPC services over the engine handle, and the HTTP port beside them.
//!
//! ```text
//!  socket ─► net ─► gate ─► service ─► parse ─► engine ─► convert ─► client
//!           caps   deadline             all field            domain
//!                  shedding             violations           to wire
//! ```
//!
//! Nothing here decides anything about a saga: requests become valid domain types or are refused
//! with every violation at once ([`parse`]), answers become messages ([`convert`]), and the
//! engine's errors become statuses in one place ([`status`]).

pub mod callback;
pub mod convert;
mod definition_service;
mod gate;
pub mod http;
pub mod limits;
mod methods;
mod net;
mod operations_service;
pub mod parse;
mod readiness;
mod registry_service;
mod saga_service;
mod server;
pub mod status;

pub use gate::{RpcEnd, RpcObserver};
pub use limits::Limits;
pub use readiness::Readiness;
pub use server::{Api, ServeError, serve};

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::engine::Engine;
use crate::engine::error::EngineError;

/// What every service works with.
#[derive(Clone)]
struct Context {
    engine: Engine,
    limits: Limits,
    /// Fires when the daemon begins to shut down: who waits is answered then.
    draining: CancellationToken,
}

impl Context {
    /// Runs engine work that must answer within the usual time, inside an RPC that may wait longer.
    async fn promptly<T>(&self, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, Status> {
        match tokio::time::timeout(self.limits.request_timeout, work).await {
            Ok(answer) => answer.map_err(status::from_engine),
            Err(_) => Err(status::timed_out(self.limits.request_timeout)),
        }
    }

    /// Runs engine work that waits for a saga; `None` when the daemon shuts down first.
    async fn until_draining<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Option<T>, Status> {
        tokio::select! {
            answer = work => answer.map(Some).map_err(status::from_engine),
            () = self.draining.cancelled() => Ok(None),
        }
    }
}
