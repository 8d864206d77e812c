//! The shop's customers: place orders, see them through, and keep at it with the same id when the
//! daemon does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::clock::Stopwatch;
use crate::proto;
use crate::proto::saga_service_client::SagaServiceClient;

/// Connections that all customers share.
const CHANNELS: usize = 8;
/// The first pause after a request that was not answered for certain; doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);
/// How long one wait lasts before it is asked for again.
const WAIT_SLICE: Duration = Duration::from_secs(5);
/// How long a customer keeps at it.
const PATIENCE: Duration = Duration::from_secs(40);

/// The definition the customers start.
pub const DEFINITION: &str = "order";

/// One order: one item, one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The saga's id, chosen by the customer: asking again with it is safe.
    pub saga_id: String,
    /// Who orders.
    pub user_id: i64,
    /// What is ordered.
    pub item_id: i64,
    /// How many.
    pub amount: i64,
    /// What it costs, in points.
    pub total: i64,
}

/// What a customer knows of an order that was acknowledged.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The order.
    pub order: Order,
    /// From the first request to the acknowledgement.
    pub accepted_after: Duration,
    /// From the first request to the commit, or to the end of an order that was turned away.
    pub settled_after: Duration,
    /// Whether it was committed, and not turned away.
    pub committed: bool,
    /// Requests that had to be repeated.
    pub repeats: usize,
}

/// All customers.
#[derive(Debug)]
pub struct Customers {
    channels: Vec<SagaServiceClient<Channel>>,
    next: AtomicUsize,
}

impl Customers {
    /// Customers of the daemon at `url`. Connects on first need.
    pub fn of(url: &str) -> anyhow::Result<Self> {
        let channel = || Ok(SagaServiceClient::new(endpoint(url)?.connect_lazy()));
        let channels = (0..CHANNELS).map(|_| channel()).collect::<anyhow::Result<_>>()?;
        Ok(Self { channels, next: AtomicUsize::new(0) })
    }

    fn client(&self) -> SagaServiceClient<Channel> {
        self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()].clone()
    }

    /// Places an order and waits until it is committed or has ended.
    pub async fn place(&self, order: Order) -> anyhow::Result<Receipt> {
        let watch = Stopwatch::start();
        let request = proto::StartSagaRequest {
            saga_id: order.saga_id.clone(),
            definition: DEFINITION.to_owned(),
            input_json: json!({
                "user_id": order.user_id,
                "items": [{ "item_id": order.item_id, "amount": order.amount }],
                "total": order.total,
            })
            .to_string(),
            ..Default::default()
        };
        let (_, repeats) = insist(watch, || {
            let (mut client, request) = (self.client(), request.clone());
            async move { client.start_saga(request).await }
        })
        .await
        .with_context(|| format!("place order {}", order.saga_id))?;
        let accepted_after = watch.elapsed();
        let (saga, more) = self.wait(&order.saga_id, proto::WaitFor::Committed).await?;
        let settled_after = watch.elapsed();
        Ok(Receipt {
            order,
            accepted_after,
            settled_after,
            committed: saga.committed,
            repeats: repeats + more,
        })
    }

    /// Waits until a saga is as far as asked; also says how often the question was repeated.
    pub async fn wait(
        &self,
        saga_id: &str,
        wait_for: proto::WaitFor,
    ) -> anyhow::Result<(proto::Saga, usize)> {
        let watch = Stopwatch::start();
        let request = proto::WaitSagaRequest {
            saga_id: saga_id.to_owned(),
            wait_for: wait_for.into(),
            timeout: prost_types::Duration::try_from(WAIT_SLICE).ok(),
        };
        let mut repeats = 0;
        loop {
            let (answer, more) = insist(watch, || {
                let (mut client, request) = (self.client(), request.clone());
                async move { client.wait_saga(request).await }
            })
            .await
            .with_context(|| format!("wait for order {saga_id}"))?;
            repeats += more;
            let saga = answer.saga.with_context(|| format!("the answer about order {saga_id} is empty"))?;
            let far_enough = has_ended(&saga) || (saga.committed && wait_for == proto::WaitFor::Committed);
            if far_enough {
                return Ok((saga, repeats));
            }
            anyhow::ensure!(
                watch.elapsed() < PATIENCE,
                "order {saga_id} is still {} after {PATIENCE:?}: `sagactl why {saga_id}` would say why",
                saga.status().as_str_name()
            );
        }
    }

    /// The whole history of a saga so far.
    pub async fn history(&self, saga_id: &str) -> anyhow::Result<Vec<proto::SagaEvent>> {
        let request = proto::WatchSagaRequest { saga_id: saga_id.to_owned(), ..Default::default() };
        let mut stream = self.client().watch_saga(request).await.context("watch a saga")?.into_inner();
        let mut events = Vec::new();
        while let Some(answer) = stream.message().await.context("read a saga's history")? {
            events.extend(answer.event);
        }
        Ok(events)
    }

    /// The exact number of sagas the daemon has, and how many distinct ones it lists page by page.
    pub async fn listed(&self) -> anyhow::Result<(u64, u64)> {
        let mut seen = std::collections::BTreeSet::new();
        let mut request = proto::ListSagasRequest { page_size: 200, ..Default::default() };
        loop {
            let page = self.client().list_sagas(request.clone()).await.context("list sagas")?.into_inner();
            seen.extend(page.sagas.into_iter().map(|saga| saga.saga_id));
            if page.next_page_token.is_empty() {
                return Ok((page.total, seen.len() as u64));
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// How to reach the daemon.
pub fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("{url:?} is not a URL"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(2)).tcp_nodelay(true))
}

/// Whether a saga has come to its end.
pub fn has_ended(saga: &proto::Saga) -> bool {
    use proto::SagaStatus;
    matches!(saga.status(), SagaStatus::Completed | SagaStatus::Compensated | SagaStatus::Abandoned)
}

/// Asks until there is a certain answer: the daemon knows a repeated request by its saga's id.
async fn insist<T, F>(watch: Stopwatch, mut ask: impl FnMut() -> F) -> anyhow::Result<(T, usize)>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut pause = PAUSE_FIRST;
    let mut repeats = 0;
    loop {
        let status = match tokio::time::timeout(WAIT_SLICE * 2, ask()).await {
            Ok(Ok(answer)) => return Ok((answer.into_inner(), repeats)),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer"),
        };
        if !may_be_repeated(status.code()) || watch.elapsed() > PATIENCE {
            return Err(anyhow::Error::new(status).context(format!("after {repeats} repeated requests")));
        }
        repeats += 1;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}

/// Whether a status leaves open what happened (or says "later"). A connection that breaks under a
/// request shows as any of the first four.
fn may_be_repeated(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::ResourceExhausted
    )
}
