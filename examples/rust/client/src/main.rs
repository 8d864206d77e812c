//! Places an order and sees it through, whatever the network does meanwhile.
//!
//! ```console
//! $ place-order ORDER_ID ITEM_ID AMOUNT
//! ```
//!
//! `SAGAD_ADDR` is the daemon's URL. Exit codes: 0 placed, 3 turned away, 5 not known yet, 1 anything else.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use sagad::saga_service_client::SagaServiceClient;
use sagad::{Saga, SagaStatus, StartSagaRequest, WaitFor};

/// The messages and services of sagad, made by `build.rs`.
#[allow(clippy::pedantic)]
mod sagad {
    tonic::include_proto!("sagad.v1");
}

/// How long the daemon holds one question before it answers with the saga as it stands.
const WAIT: Duration = Duration::from_secs(5);
/// How long we wait for that answer before we take it as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long a buyer waits in front of the screen.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a piece costs, in points.
const PRICE: i64 = 10;

enum Outcome {
    /// It holds. Side work, such as clearing the cart, goes on by itself.
    Placed(Saga),
    /// Nothing of it remains; why is in the saga's `failure`.
    TurnedAway(Saga),
    /// Neither yet. Asking again later with the same id is safe.
    NotKnownYet,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [order_id, item_id, amount] = args.as_slice() else {
        bail!("usage: place-order ORDER_ID ITEM_ID AMOUNT");
    };
    let (item_id, amount): (i64, i64) = (item_id.parse()?, amount.parse()?);
    let url = env::var("SAGAD_ADDR").unwrap_or_else(|_| "http://127.0.0.1:7420".to_owned());
    let daemon =
        Endpoint::from_shared(url)?.connect_timeout(ANSWER_TIMEOUT).timeout(ANSWER_TIMEOUT).connect_lazy();

    Ok(match place(SagaServiceClient::new(daemon), order_id, item_id, amount).await? {
        Outcome::Placed(saga) => {
            println!("{order_id} is placed: {}", saga.output_json);
            ExitCode::SUCCESS
        }
        Outcome::TurnedAway(saga) => {
            let failure = saga.failure.unwrap_or_default();
            println!("{order_id} is turned away: {}: {}", failure.code, failure.message);
            ExitCode::from(3)
        }
        Outcome::NotKnownYet => {
            println!("{order_id} is still under way: ask again with the same id");
            ExitCode::from(5)
        }
    })
}

/// Starts the order saga under our own id and asks again, with the same request, until it is known
/// how the order ended. The daemon knows the id: a repeated start never makes a second order.
async fn place(
    mut sagas: SagaServiceClient<Channel>,
    order_id: &str,
    item_id: i64,
    amount: i64,
) -> anyhow::Result<Outcome> {
    let request = StartSagaRequest {
        saga_id: order_id.to_owned(),
        definition: "order".to_owned(),
        input_json: json!({
            "user_id": 7,
            "items": [{ "item_id": item_id, "amount": amount }],
            "total": amount * PRICE,
        })
        .to_string(),
        wait: prost_types::Duration::try_from(WAIT).ok(),
        wait_for: WaitFor::Committed.into(),
        ..Default::default()
    };
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match sagas.start_saga(request.clone()).await {
            Ok(response) => {
                let saga = response.into_inner().saga.context("the daemon's answer is empty")?;
                if saga.committed {
                    return Ok(Outcome::Placed(saga));
                }
                match saga.status() {
                    SagaStatus::Compensated => return Ok(Outcome::TurnedAway(saga)),
                    SagaStatus::Abandoned => bail!("an operator gave {order_id} up"),
                    _ => {} // under way: the daemon has held the question for as long as we said
                }
            }
            // Nobody there, too busy, or the answer was lost: the order may be placed or not.
            Err(status) if may_be_asked_again(status.code()) => {
                eprintln!("no answer yet, asking again: {}", status.message());
            }
            // A definite no: another order has this id, the input does not fit, ...
            Err(status) => bail!("{order_id}: {:?}: {}", status.code(), status.message()),
        }
        sleep(ASK_AGAIN_AFTER).await;
    }
    Ok(Outcome::NotKnownYet)
}

/// Whether a status leaves open what happened, or says to come back later. A connection that breaks
/// shows as any of them.
fn may_be_asked_again(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown
    )
}
