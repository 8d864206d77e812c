//! A service of the shop over a real socket.

use std::path::Path;

use proto::participant_service_client::ParticipantServiceClient;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use super::super::ledger::Ledger;
use super::*;

struct Open {
    client: ParticipantServiceClient<Channel>,
    served: JoinHandle<anyhow::Result<()>>,
    until: DropGuard,
}

impl Open {
    async fn with_stock(dir: &Path, stock: i64) -> Self {
        let options = ShopOptions {
            name: "stock".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            ledger_dir: dir.to_owned(),
            durability: Durability::Synced,
            daemon: None,
            ttl: Duration::from_secs(30),
            balances: [("7".to_owned(), stock)].into(),
            default_balance: 0,
            faults: Faults::default(),
        };
        let shop = Shop::open(options).await.unwrap();
        let client = ParticipantServiceClient::connect(format!("http://{}", shop.addr())).await.unwrap();
        let closing = CancellationToken::new();
        let stopped = closing.clone().cancelled_owned();
        let served = spawn(async move { shop.serve(stopped).await });
        Self { client, served, until: closing.drop_guard() }
    }

    async fn close(self) {
        drop((self.until, self.client));
        self.served.await.unwrap().unwrap();
    }

    async fn deduct(&self, saga: &str) -> proto::execute_response::Outcome {
        let request = proto::ExecuteRequest {
            saga_id: saga.to_owned(),
            step: "deduct-stock/0".to_owned(),
            action: "deduct".to_owned(),
            idempotency_key: format!("{saga}-action"),
            attempt: 1,
            epoch: 3,
            input_json: r#"{"item_id": 7, "amount": 1}"#.to_owned(),
            ..Default::default()
        };
        self.client.clone().execute(request).await.unwrap().into_inner().outcome.unwrap()
    }

    async fn restore(&self, saga: &str) -> proto::compensate_response::Outcome {
        let request = proto::CompensateRequest {
            saga_id: saga.to_owned(),
            step: "deduct-stock/0".to_owned(),
            action: "restore".to_owned(),
            idempotency_key: format!("{saga}-compensation"),
            action_idempotency_key: format!("{saga}-action"),
            attempt: 1,
            epoch: 3,
            ..Default::default()
        };
        self.client.clone().compensate(request).await.unwrap().into_inner().outcome.unwrap()
    }

    async fn probe(&self, saga: &str) -> proto::probe_response::Outcome {
        let request = proto::ProbeRequest {
            saga_id: saga.to_owned(),
            action_idempotency_key: format!("{saga}-action"),
            ..Default::default()
        };
        self.client.clone().probe(request).await.unwrap().into_inner().outcome.unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "the test awaits it in `close`")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

#[tokio::test]
async fn five_hundred_buyers_at_once_get_exactly_what_there_is() {
    use proto::execute_response::Outcome;
    let dir = tempfile::tempdir().unwrap();
    let shop = Open::with_stock(dir.path(), 100).await;

    let sagas: Vec<String> = (0..500).map(|n| format!("order-{n}")).collect();
    let outcomes = futures::future::join_all(sagas.iter().map(|saga| shop.deduct(saga))).await;
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Done(_))).count();
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Refused(no) if no.code == "OUT_OF_STOCK"))
        .count();
    shop.close().await;

    assert_eq!((done, refused), (100, 400));
    let ledger = Ledger::read(dir.path(), "stock").unwrap();
    assert_eq!((ledger.book.balance("7"), ledger.entries.len()), (0, 500));
}

#[tokio::test]
async fn a_service_that_went_away_comes_back_with_the_same_answers() {
    use proto::{compensate_response, execute_response, probe_response};
    let dir = tempfile::tempdir().unwrap();
    let shop = Open::with_stock(dir.path(), 5).await;
    let bought = shop.deduct("bought").await;
    shop.deduct("returned").await;
    shop.restore("returned").await;
    shop.restore("too-early").await;
    shop.close().await;

    let shop = Open::with_stock(dir.path(), 1_000).await;
    assert_eq!(shop.deduct("bought").await, bought);
    assert!(matches!(shop.deduct("too-early").await, execute_response::Outcome::Superseded(_)));
    assert!(matches!(shop.restore("returned").await, compensate_response::Outcome::Done(_)));
    assert!(matches!(shop.probe("bought").await, probe_response::Outcome::Done(_)));
    assert!(matches!(shop.probe("returned").await, probe_response::Outcome::Refused(_)));
    assert!(matches!(shop.probe("never").await, probe_response::Outcome::Refused(_)));
    assert!(matches!(shop.deduct("never").await, execute_response::Outcome::Superseded(_)));
    shop.close().await;

    assert_eq!(Ledger::read(dir.path(), "stock").unwrap().book.balance("7"), 4);
}

#[tokio::test]
async fn the_ledger_says_who_called() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Open::with_stock(dir.path(), 5).await;
    shop.restore("order-1").await;
    shop.close().await;

    let ledger = Ledger::read(dir.path(), "stock").unwrap();
    let expected = Caller {
        saga: "order-1".to_owned(),
        step: "deduct-stock/0".to_owned(),
        phase: Phase::Compensation,
        action: "restore".to_owned(),
        key: "order-1-compensation".to_owned(),
        action_key: "order-1-action".to_owned(),
        attempt: 1,
        epoch: 3,
    };
    assert_eq!(ledger.entries[0].caller, expected);
}
