//! One endpoint as its protocol has it: the connections there, and what of an action's target matters.

use super::Outgoing;
use super::handlers::{ClaimedAction, Endpoint, FieldProblem, Protocol};
use super::{sagad, worker};
use crate::saga::ids::Timestamp;
use crate::saga::words::Outcome;
use crate::tasks::Tasks;

/// Where an action leads at an endpoint, as its protocol reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// The request says which action is meant.
    Sagad,
    /// So it does to a worker.
    Worker,
}

impl Route {
    /// Reads what a claim says of an action.
    ///
    /// # Errors
    /// Every field of the action that is wrong, by its own name: `target`, `refused_on`, `done_on`.
    pub(super) fn read(protocol: Protocol, action: &ClaimedAction) -> Result<Self, Vec<FieldProblem>> {
        let _ = action;
        match protocol {
            // The others are refused for what they are.
            Protocol::Sagad | Protocol::Grpc | Protocol::Http => Ok(Route::Sagad),
            // That it is not registered is said once, of the protocol.
            Protocol::Worker => Err(Vec::new()),
        }
    }
}

/// The connections to one endpoint; made when they are first needed, and again when they break.
#[derive(Debug)]
pub(super) enum Client {
    Sagad(sagad::Client),
    Worker(worker::Client),
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(protocol: Protocol, endpoint: &Endpoint, tasks: &Tasks) -> Self {
        match protocol {
            Protocol::Sagad | Protocol::Grpc | Protocol::Http => {
                Client::Sagad(sagad::Client::new(endpoint, tasks))
            }
            // A stream is there before its endpoint is.
            Protocol::Worker => Client::Worker(worker::Client::gone(endpoint)),
        }
    }

    /// Whether calls end in time by themselves, because an answer may be given more time on the way.
    pub(super) fn keeps_time(&self) -> bool {
        matches!(self, Client::Worker(_))
    }

    /// Makes one call and says what is known after it, however long it takes: the caller has the clock,
    /// unless the client [keeps time](Self::keeps_time). Dropping the future abandons the call.
    pub(super) async fn call(&self, outgoing: Outgoing, route: &Route, now: Timestamp) -> Outcome {
        match (self, route) {
            (Client::Sagad(client), Route::Sagad) => client.call(outgoing, now).await,
            (Client::Worker(client), Route::Worker) => client.call(outgoing, now).await,
            (Client::Sagad(_) | Client::Worker(_), _) => {
                Outcome::Unknown("not sent: the action is registered for another protocol".to_owned())
            }
        }
    }
}
