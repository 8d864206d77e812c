//! Calls over real sockets: to services that behave, and to ones that do not.

mod garbage;
mod service;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::participant::dispatch;
use crate::participant::handlers::ClaimedAction;
use crate::saga::ids::SagaId;
use crate::saga::json::Json;

const NOON: Timestamp = Timestamp(1_700_000_000_000);

/// A call of `stock.deduct` with this input.
pub(in crate::participant) fn outgoing(phase: Phase, input: &str) -> Outgoing {
    let mut outgoing = dispatch::tests::outgoing(phase, Duration::from_mins(1));
    outgoing.saga_id = SagaId::parse("shop/order:1").unwrap();
    outgoing.duty.input = Json::trusted(input.to_owned());
    outgoing.key = if phase == Phase::Action { outgoing.action_key.clone() } else { "undo-key-1".to_owned() };
    outgoing.token = "tag.action.deduct-stock/2.shop/order:1".to_owned();
    outgoing
}

fn route(target: &str) -> Route {
    Route::read(&ClaimedAction { target: target.to_owned(), ..ClaimedAction::default() }).unwrap()
}

/// A client of one endpoint; its tasks end with it.
struct Caller {
    client: Client,
    tasks: Tasks,
}

impl Caller {
    fn of(address: std::net::SocketAddr) -> Self {
        let tasks = Tasks::new();
        let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
        Self { client: Client::new(&endpoint, &tasks), tasks }
    }

    async fn call(&self, target: &str, input: &str) -> Outcome {
        self.client.call(outgoing(Phase::Action, input), &route(target), NOON).await
    }

    async fn unknown(&self, target: &str) -> String {
        match self.call(target, "{}").await {
            Outcome::Unknown(cause) => cause,
            other => panic!("a certain outcome: {other:?}"),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
