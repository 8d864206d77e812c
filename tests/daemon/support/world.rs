//! What the world outside the daemon knows for certain, and whether the daemon's books agree.
//!
//! Clients keep a list of what was acknowledged and what was not, and a participant a ledger of
//! every call it saw. Whatever ends the daemon, the two hold it to its word afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use sagad::proto::saga_service_client::SagaServiceClient;
use sagad::proto::{
    GetSagaRequest, ListStuckRequest, RegisterDefinitionRequest, Saga, SagaStatus, StartSagaRequest, WaitFor,
    WaitSagaRequest,
};
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::Channel;

use super::daemon::Daemon;
use super::participant::{Call, Ledger, Participant};

/// Clients that start sagas at once.
const CLIENTS: usize = 8;

/// The definition whose sagas are run: two steps that can be undone, one more that is refused to one
/// saga in seven, and side work.
pub const DEFINITION: &str = r#"
saga: crash-order
defaults:
  timeout: 5s
  retry: { initial: 5ms, factor: 2, max: 50ms, jitter: 0.2, attempts: 20, elapsed: 1m }
steps:
  - name: deduct-stock
    action: { call: shop.deduct }
    compensation: { call: shop.restore, retry: { max: 50ms } }
  - name: use-point
    action: { call: shop.use }
    compensation: { call: shop.charge, retry: { max: 50ms } }
  - name: create-order
    action: { call: shop.create }
    compensation: { call: shop.cancel, retry: { max: 50ms } }
  - name: clear-cart
    kind: retriable
    action: { call: shop.clear, retry: { max: 50ms } }
events:
  - { on: committed, topic: order-created, key: "${saga.id}", data: { saga: "${saga.id}" } }
output: { key: "${steps['create-order'].key}" }
"#;

/// What the world outside the daemon knows for certain.
pub struct World {
    ledger: Arc<Ledger>,
    /// The participant of every step.
    pub shop: Participant,
    acknowledged: Mutex<BTreeSet<String>>,
    unanswered: Mutex<Vec<Unanswered>>,
    ended: Mutex<BTreeMap<String, i32>>,
    acks: AtomicU64,
    acked: Notify,
}

/// A start that was not acknowledged, so that nobody knows whether there is such a saga.
#[derive(Debug, Clone)]
pub struct Unanswered {
    /// What was asked.
    pub request: StartSagaRequest,
    /// What came instead of an acknowledgement.
    pub status: Status,
}

impl World {
    /// One with a participant that keeps a ledger.
    pub async fn new() -> Result<Arc<Self>> {
        let ledger = Arc::new(Ledger::default());
        let answers = Arc::clone(&ledger);
        let shop = Participant::scripted(move |call| answers.answer(call, is_refused(call))).await?;
        Ok(Arc::new(Self {
            ledger,
            shop,
            acknowledged: Mutex::default(),
            unanswered: Mutex::default(),
            ended: Mutex::default(),
            acks: AtomicU64::new(0),
            acked: Notify::new(),
        }))
    }

    /// Makes the definition and the participant known to a daemon.
    pub async fn prepare(&self, daemon: &Daemon) -> Result<()> {
        let request = RegisterDefinitionRequest { source: DEFINITION.to_owned(), validate_only: false };
        daemon.definitions().register_definition(request).await?;
        let actions = ["deduct", "restore", "use", "charge", "create", "cancel", "clear"];
        self.shop.register(daemon, "shop", &actions).await?;
        Ok(())
    }

    /// Starts one saga and keeps in mind what came of it; whether it was acknowledged.
    pub async fn start(&self, sagas: &mut SagaServiceClient<Channel>, request: StartSagaRequest) -> bool {
        let id = request.saga_id.clone();
        match sagas.start_saga(request.clone()).await {
            Ok(_) => {
                self.acknowledged.lock().insert(id);
                self.acks.fetch_add(1, Ordering::SeqCst);
                self.acked.notify_waiters();
                true
            }
            Err(status) => {
                self.unanswered.lock().push(Unanswered { request, status });
                false
            }
        }
    }

    /// The starts that were not acknowledged.
    pub fn unanswered(&self) -> Vec<Unanswered> {
        self.unanswered.lock().clone()
    }

    /// Starts sagas from several clients until the daemon is gone.
    pub async fn load(self: &Arc<Self>, daemon: &Daemon, round: u64) {
        let is_gone = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|client| {
            let (world, mut sagas) = (Arc::clone(self), daemon.sagas());
            let is_gone = Arc::clone(&is_gone);
            tokio::spawn(async move {
                for n in 0u64.. {
                    let id = format!("r{round}-c{client}-{n}");
                    if is_gone.load(Ordering::SeqCst) || !world.start(&mut sagas, order(&id)).await {
                        break;
                    }
                    if n % 4 == 0 {
                        let wait = WaitSagaRequest {
                            saga_id: id.clone(),
                            wait_for: WaitFor::Ended.into(),
                            timeout: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
                        };
                        match sagas.wait_saga(wait).await.map(|r| r.into_inner().saga) {
                            Ok(Some(saga)) if is_terminal(saga.status) => {
                                world.ended.lock().insert(id, saga.status);
                            }
                            Ok(_) => {}
                            Err(_) => break,
                        }
                    }
                }
                is_gone.store(true, Ordering::SeqCst);
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("a client does not panic");
        }
    }

    /// Waits until `count` further starts were acknowledged.
    pub async fn acknowledged_more(&self, count: u64) {
        let goal = self.acks.load(Ordering::SeqCst) + count;
        loop {
            let notified = self.acked.notified();
            if self.acks.load(Ordering::SeqCst) >= goal {
                return;
            }
            notified.await;
        }
    }

    /// Holds everything known against what the daemon says now.
    pub async fn verify(&self, daemon: &Daemon) -> Result<String> {
        let acknowledged = self.acknowledged.lock().clone();
        let mut finals = BTreeMap::new();
        let mut sagas = daemon.sagas();
        for id in &acknowledged {
            let wait = WaitSagaRequest {
                saga_id: id.clone(),
                wait_for: WaitFor::Ended.into(),
                timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            };
            let saga =
                sagas.wait_saga(wait).await.with_context(|| format!("acknowledged saga {id} is lost"))?;
            let saga = saga.into_inner().saga.context("a saga in the answer")?;
            ensure!(is_terminal(saga.status), "saga {id} does not end: {saga:?}");
            finals.insert(id.clone(), saga);
        }
        for (id, status) in self.ended.lock().iter() {
            let now = finals[id].status;
            ensure!(now == *status, "saga {id} had ended with status {status} and is {now} now");
        }
        self.verify_ledger(&finals)?;
        self.verify_intents(daemon, &mut finals).await?;
        let stuck = daemon.operations().list_stuck(ListStuckRequest::default()).await?.into_inner();
        ensure!(stuck.items.is_empty(), "stuck: {:?}", stuck.items);
        Ok(format!(
            "{} acknowledged, {} calls, 0 lost, 0 doubled",
            acknowledged.len(),
            self.shop.calls().len()
        ))
    }

    fn verify_ledger(&self, finals: &BTreeMap<String, Saga>) -> Result<()> {
        let mut steps = BTreeSet::new();
        for entry in self.ledger.entries() {
            ensure!(entry.effects <= 1 && entry.undos <= entry.effects, "doubled: {entry:?}");
            ensure!(entry.repeats.is_empty(), "attempts and epochs only grow: {entry:?}");
            let is_first = steps.insert((entry.saga.clone(), entry.step.clone()));
            ensure!(is_first, "one step was called under two keys: {entry:?}");
            let Some(saga) = finals.get(&entry.saga) else { continue };
            let expected = match saga.status() {
                SagaStatus::Completed => (1, 0),
                _ => (entry.effects, entry.effects),
            };
            let found = (entry.effects, entry.undos);
            ensure!(found == expected, "{:?} ended {:?}", entry, saga.status());
        }
        Ok(())
    }

    /// Every call that was seen has its intent in the daemon's books.
    async fn verify_intents(&self, daemon: &Daemon, finals: &mut BTreeMap<String, Saga>) -> Result<()> {
        for call in self.shop.calls() {
            if !finals.contains_key(&call.saga) {
                let request = GetSagaRequest { saga_id: call.saga.clone() };
                let found = daemon.sagas().get_saga(request).await;
                let saga =
                    found.with_context(|| format!("{call:?} was sent for a saga that was never stored"))?;
                finals.insert(call.saga.clone(), saga.into_inner().saga.context("a saga in the answer")?);
            }
            let saga = &finals[&call.saga];
            let step = saga.steps.iter().find(|step| step.name == call.step);
            let step = step.with_context(|| format!("{call:?} is for a step that is not there"))?;
            let stored =
                if call.phase == "compensation" { step.compensation_attempts } else { step.attempts };
            ensure!(stored >= call.attempt, "{call:?} was sent, but only attempt {stored} was stored");
        }
        Ok(())
    }
}

/// The request that starts the saga `id`.
pub fn order(id: &str) -> StartSagaRequest {
    StartSagaRequest {
        saga_id: id.to_owned(),
        definition: "crash-order".to_owned(),
        input_json: format!("{{\"order\":\"{id}\"}}"),
        ..Default::default()
    }
}

/// One saga in seven is refused at its last compensatable step.
fn is_refused(call: &Call) -> bool {
    call.action == "create" && call.saga.bytes().map(u64::from).sum::<u64>().is_multiple_of(7)
}

fn is_terminal(status: i32) -> bool {
    matches!(
        SagaStatus::try_from(status),
        Ok(SagaStatus::Completed | SagaStatus::Compensated | SagaStatus::Abandoned)
    )
}
