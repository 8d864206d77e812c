//! Sudden ends under load: SIGKILL, and power cuts that leave only what was synced.
//!
//! The oracle is kept outside the daemon: the clients' list of acknowledged starts and ends, and
//! a participant's ledger of every call it saw. Whatever the daemon was told to keep must be there
//! afterwards, and every call must have had its intent stored before it left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use sagad::proto::{
    GetSagaRequest, ListStuckRequest, RegisterDefinitionRequest, Saga, SagaStatus, StartSagaRequest, WaitFor,
    WaitSagaRequest,
};
use tokio::sync::Notify;
use tonic::Code;

use crate::powercut::{Disk, build_shim};
use crate::support::chance::Chance;
use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Call, Ledger, Participant};

/// Clients that start sagas at once.
const CLIENTS: usize = 8;
/// Rounds in a plain test run; the long form takes its number from the environment.
const ROUNDS_DEFAULT: u64 = 20;

const DEFINITION: &str = r#"
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
struct World {
    ledger: Arc<Ledger>,
    shop: Participant,
    acknowledged: Mutex<BTreeSet<String>>,
    ended: Mutex<BTreeMap<String, i32>>,
    acks: AtomicU64,
    acked: Notify,
}

impl World {
    async fn new() -> Result<Arc<Self>> {
        let ledger = Arc::new(Ledger::default());
        let answers = Arc::clone(&ledger);
        let shop = Participant::scripted(move |call| answers.answer(call, is_refused(call))).await?;
        Ok(Arc::new(Self {
            ledger,
            shop,
            acknowledged: Mutex::default(),
            ended: Mutex::default(),
            acks: AtomicU64::new(0),
            acked: Notify::new(),
        }))
    }

    /// Starts sagas from several clients until the daemon is gone.
    async fn load(self: &Arc<Self>, daemon: &Daemon, round: u64) {
        let is_gone = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|client| {
            let (world, mut sagas) = (Arc::clone(self), daemon.sagas());
            let is_gone = Arc::clone(&is_gone);
            tokio::spawn(async move {
                for n in 0u64.. {
                    let id = format!("r{round}-c{client}-{n}");
                    let request = StartSagaRequest {
                        saga_id: id.clone(),
                        definition: "crash-order".to_owned(),
                        input_json: format!("{{\"n\":{n}}}"),
                        ..Default::default()
                    };
                    if is_gone.load(Ordering::SeqCst) || sagas.start_saga(request).await.is_err() {
                        break;
                    }
                    world.acknowledged.lock().insert(id.clone());
                    world.acks.fetch_add(1, Ordering::SeqCst);
                    world.acked.notify_waiters();
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
    async fn acknowledged_more(&self, count: u64) {
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
    async fn verify(&self, daemon: &Daemon) -> Result<String> {
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
        for entry in self.ledger.entries() {
            ensure!(entry.effects <= 1 && entry.undos <= entry.effects, "doubled: {entry:?}");
            ensure!(entry.repeats.is_empty(), "attempts and epochs only grow: {entry:?}");
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

async fn prepare(daemon: &Daemon, world: &World) -> Result<()> {
    let request = RegisterDefinitionRequest { source: DEFINITION.to_owned(), validate_only: false };
    daemon.definitions().register_definition(request).await?;
    world
        .shop
        .register(daemon, "shop", &["deduct", "restore", "use", "charge", "create", "cancel", "clear"])
        .await?;
    Ok(())
}

fn number_from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() -> Result<()> {
    let (rounds, seed) = (number_from_env("SAGAD_KILLS", ROUNDS_DEFAULT), number_from_env("SAGAD_SEED", 1));
    let mut chance = Chance::seeded(seed);
    let data = tempfile::tempdir()?;
    let world = World::new().await?;
    prepare(&Launch::on(data.path()).start()?, &world).await?;
    for round in 0..rounds {
        let daemon =
            Launch::on(data.path()).start().with_context(|| format!("round {round}, seed {seed}"))?;
        let load = async { world.load(&daemon, round).await };
        let kill = async {
            world.acknowledged_more(1 + chance.below(200)).await;
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(daemon.pid().cast_signed()).context("a pid")?,
                rustix::process::Signal::KILL,
            )?;
            anyhow::Ok(())
        };
        let ((), killed) = tokio::join!(load, kill);
        killed?;
        daemon.kill()?;
    }
    let daemon = Launch::on(data.path()).start()?;
    let summary = world.verify(&daemon).await.with_context(|| format!("seed {seed}"))?;
    println!("{rounds} kills, seed {seed}: {summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_power_is_cut() -> Result<()> {
    let (rounds, seed) =
        (number_from_env("SAGAD_POWER_CUTS", ROUNDS_DEFAULT), number_from_env("SAGAD_SEED", 1));
    let mut chance = Chance::seeded(seed);
    let base = tempfile::tempdir()?;
    let shim = build_shim(base.path())?;
    let mut data = base.path().join("disk");
    let world = World::new().await?;
    prepare(&Launch::on(&data).start()?, &world).await?;
    let mut syncs = 0;
    for round in 0..rounds {
        let (log, left) = (base.path().join("log"), base.path().join(format!("disk-{round}")));
        let mut disk = Disk::holding(&data)?;
        let launch = Launch::on(&data)
            .env("LD_PRELOAD", shim.display().to_string())
            .env("POWERCUT_DIR", data.display().to_string())
            .env("POWERCUT_LOG", log.display().to_string())
            .env("POWERCUT_AT", (20 + chance.below(3_000)).to_string());
        // A cut may come before the daemon serves.
        if let Ok(mut daemon) = launch.try_start()? {
            world.load(&daemon, round).await;
            daemon.wait()?;
        }
        disk.replay(&log)?;
        syncs += disk.syncs;
        disk.cut_power(&data, &left, &mut chance)?;
        std::fs::remove_file(&log)?;
        std::fs::remove_dir_all(&data)?;
        data = left;
        // Whatever a power cut leaves must be a store that opens.
        let opened = Launch::on(&data).start();
        opened.with_context(|| format!("after power cut {round}, seed {seed}"))?.kill()?;
    }
    ensure!(syncs > 0, "the shim saw no sync: it was not loaded");
    let daemon = Launch::on(&data).start()?;
    let summary = world.verify(&daemon).await.with_context(|| format!("seed {seed}"))?;
    println!("{rounds} power cuts, {syncs} syncs, seed {seed}: {summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_told_to_stop_exits_in_good_order_with_calls_in_flight() -> Result<()> {
    let data = tempfile::tempdir()?;
    let shop = Participant::scripted(|_| crate::support::participant::Answer::Hang).await?;
    let mut daemon = Launch::on(data.path()).start()?;
    let request = RegisterDefinitionRequest { source: DEFINITION.to_owned(), validate_only: false };
    daemon.definitions().register_definition(request).await?;
    shop.register(&daemon, "shop", &["deduct"]).await?;
    let request = StartSagaRequest {
        saga_id: "left-in-flight".to_owned(),
        definition: "crash-order".to_owned(),
        ..Default::default()
    };
    daemon.sagas().start_saga(request).await?;
    shop.seen(|call| call.saga == "left-in-flight").await;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.pid().cast_signed()).context("a pid")?,
        rustix::process::Signal::TERM,
    )?;
    let status = daemon.wait()?;
    ensure!(status.success(), "SIGTERM: {status}");
    let daemon = Launch::on(data.path()).start()?;
    let again = shop.seen(|call| call.attempt == 2).await;
    let first = shop.seen(|call| call.attempt == 1).await;
    ensure!(again.key == first.key && again.epoch > first.epoch, "{first:?} {again:?}");
    let missing = daemon.sagas().get_saga(GetSagaRequest { saga_id: "never".to_owned() }).await;
    ensure!(missing.is_err_and(|status| status.code() == Code::NotFound));
    Ok(())
}
