//! Calls straight to a stock service, as the daemon would make them.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use sagad::proto::participant_service_client::ParticipantServiceClient;
use sagad::proto::{CompensateRequest, Done, ExecuteRequest, Refused, compensate_response, execute_response};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

/// A connection to the service. Survives the service's restart.
pub struct Calls(ParticipantServiceClient<Channel>);

impl Calls {
    pub fn to(url: &str) -> Result<Self> {
        Ok(Self(ParticipantServiceClient::new(Endpoint::from_shared(url.to_owned())?.connect_lazy())))
    }

    /// Takes pieces; answers `done LEFT`, `refused CODE` or `superseded`.
    pub async fn deduct(&mut self, key: &str, item_id: i64, amount: i64) -> Result<String> {
        use execute_response::Outcome;
        let response = self.0.execute(deduction(key, item_id, amount)).await.context("Execute")?.into_inner();
        match response.outcome.context("an answer without an outcome")? {
            Outcome::Done(Done { output_json }) => {
                let output: Value = serde_json::from_str(&output_json).context(output_json)?;
                Ok(format!("done {}", output["left"]))
            }
            Outcome::Refused(Refused { code, .. }) => Ok(format!("refused {code}")),
            Outcome::Pending(_) => Ok("pending".to_owned()),
            Outcome::Superseded(_) => Ok("superseded".to_owned()),
        }
    }

    /// The same call so many times at once.
    pub async fn deduct_at_once(
        &self,
        key: &str,
        item_id: i64,
        amount: i64,
        times: usize,
    ) -> Result<Vec<String>> {
        try_join_all((0..times).map(|_| {
            let mut calls = Self(self.0.clone());
            async move { calls.deduct(key, item_id, amount).await }
        }))
        .await
    }

    /// Undoes the action of this key; answers `done` or `refused CODE`.
    pub async fn restore(&mut self, key: &str, item_id: i64, amount: i64) -> Result<String> {
        use compensate_response::Outcome;
        let action = deduction(key, item_id, amount);
        let request = CompensateRequest {
            saga_id: action.saga_id,
            definition: action.definition,
            step: action.step,
            action: "restore".to_owned(),
            idempotency_key: format!("undo-{key}"),
            attempt: 1,
            input_json: action.input_json.clone(),
            action_idempotency_key: action.idempotency_key,
            action_input_json: action.input_json,
            ..Default::default()
        };
        let response = self.0.compensate(request).await.context("Compensate")?.into_inner();
        Ok(match response.outcome.context("an answer without an outcome")? {
            Outcome::Done(_) => "done".to_owned(),
            Outcome::Refused(Refused { code, .. }) => format!("refused {code}"),
            Outcome::Pending(_) => "pending".to_owned(),
            Outcome::Superseded(_) => "superseded".to_owned(),
        })
    }
}

fn deduction(key: &str, item_id: i64, amount: i64) -> ExecuteRequest {
    ExecuteRequest {
        saga_id: format!("saga-{key}"),
        definition: "order".to_owned(),
        step: "deduct-stock/0".to_owned(),
        action: "deduct".to_owned(),
        idempotency_key: key.to_owned(),
        attempt: 1,
        input_json: json!({ "item_id": item_id, "amount": amount }).to_string(),
        ..Default::default()
    }
}
