//! Calls over real sockets: to services that behave, and to ones that do not.

mod garbage;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::participant::handlers::ClaimedAction;
use crate::saga::ids::{ActionName, DefinitionName, InstanceRef, ParticipantName, SagaId, StepIx};
use crate::saga::input::CallDuty;
use crate::saga::json::Json;

const NOON: Timestamp = Timestamp(1_700_000_000_000);

/// A call of `stock.deduct` with this input.
pub(in crate::participant) fn outgoing(phase: Phase, input: &str) -> Outgoing {
    let follows_up = phase != Phase::Action;
    let action_key = "action-key-1".to_owned();
    Outgoing {
        saga_id: SagaId::parse("shop/order:1").unwrap(),
        definition: DefinitionName::parse("order").unwrap(),
        labels: Arc::new(BTreeMap::new()),
        duty: CallDuty {
            at: InstanceRef { step: StepIx(0), item: Some(2) },
            phase,
            attempt: 3,
            epoch: 7,
            participant: ParticipantName::parse("stock").unwrap(),
            action: ActionName::parse("deduct").unwrap(),
            is_named: true,
            step: "deduct-stock/2".to_owned(),
            input: Json::trusted(input.to_owned()),
            action_input: follows_up.then(|| Json::trusted(r#"{"a":1}"#.to_owned())),
            action_output: None,
            timeout: Duration::from_mins(1),
        },
        key: if follows_up { "undo-key-1".to_owned() } else { action_key.clone() },
        action_key,
        token: "tag.action.deduct-stock/2.shop/order:1".to_owned(),
    }
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
