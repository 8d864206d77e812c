//! One endpoint as its protocol has it: the connections there, and what of an action's target matters.

use std::sync::Arc;

use super::Outgoing;
use super::handlers::{ClaimedAction, Endpoint, FieldProblem, Protocol};
use super::{grpc, http, sagad, worker};
use crate::saga::ids::Timestamp;
use crate::saga::words::Outcome;
use crate::tasks::Tasks;

/// Where an action leads at an endpoint, as its protocol reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// The request says which action is meant.
    Sagad,
    /// A method.
    Grpc(grpc::Route),
    /// A request line, and the answers that are counted in another way.
    Http(http::Route),
    /// The step says which action is meant.
    Worker,
}

impl Route {
    /// Reads what a claim says of an action; `given` are the types that came with it.
    ///
    /// # Errors
    /// Every field of the action that is wrong, by its own name: `target`, `refused_on`, `done_on`.
    pub(super) fn read(
        protocol: Protocol,
        action: &ClaimedAction,
        given: Option<&Arc<grpc::DescriptorSet>>,
    ) -> Result<Self, Vec<FieldProblem>> {
        match protocol {
            Protocol::Grpc => grpc::Route::read(action, given).map(Route::Grpc),
            Protocol::Http => http::Route::read(action).map(Route::Http),
            Protocol::Sagad => Ok(Route::Sagad),
            // That it is not registered is said once, of the protocol.
            Protocol::Worker => Err(Vec::new()),
        }
    }
}

/// The connections to one endpoint; made when they are first needed, and again when they break.
#[derive(Debug)]
pub(super) enum Client {
    Sagad(sagad::Client),
    Grpc(grpc::Client),
    Http(http::Client),
    Worker(worker::Client),
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(protocol: Protocol, endpoint: &Endpoint, tasks: &Tasks) -> Self {
        match protocol {
            Protocol::Sagad => Client::Sagad(sagad::Client::new(endpoint, tasks)),
            Protocol::Grpc => Client::Grpc(grpc::Client::new(endpoint, tasks)),
            Protocol::Http => Client::Http(http::Client::new(endpoint, tasks)),
            // A stream is there before its endpoint is.
            Protocol::Worker => Client::Worker(worker::Client::gone(endpoint)),
        }
    }

    /// Its service has registered again: it may be another version now.
    pub(super) fn registered_again(&self) {
        match self {
            Client::Sagad(_) | Client::Http(_) | Client::Worker(_) => {}
            Client::Grpc(client) => client.forget_types(),
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
            (Client::Grpc(client), Route::Grpc(route)) => client.call(&outgoing, route).await,
            (Client::Http(client), Route::Http(route)) => client.call(outgoing, route, now).await,
            (Client::Worker(client), Route::Worker) => client.call(outgoing, now).await,
            // A participant has one protocol: what was registered for another is not routed here.
            (Client::Sagad(_) | Client::Grpc(_) | Client::Http(_) | Client::Worker(_), _) => {
                Outcome::Unknown(
                    "not sent: the registration was replaced by one of another protocol".to_owned(),
                )
            }
        }
    }
}
