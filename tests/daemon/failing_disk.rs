//! A disk that fails under the daemon: a sync that is refused, a disk that is full.
//!
//! Nothing may be acknowledged any more, nothing may be called because of what could not be
//! stored, and the daemon ends by itself and says why. What was not acknowledged may or may not be
//! stored; asking again with the same id settles it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use sagad::proto::saga_service_client::SagaServiceClient;
use sagad::proto::{GetSagaRequest, RegisterDefinitionRequest, StartSagaRequest, WaitFor};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::powercut::{Disk, build_shim};
use crate::support::chance::Chance;
use crate::support::daemon::{Daemon, Launch};
use crate::support::wire;
use crate::support::world::{World, order};

/// Starts that are in flight when the disk fails.
const IN_FLIGHT: usize = 8;
/// Where the second daemon on a store logs: each writes a generation of its own at least.
const LOG: &str = "wal-0";
const OPEN_DATABASE: &str = "open/db";
const HISTORY_DATABASE: &str = "history/db";

/// A store on a disk that can be made to fail.
struct FailingDisk {
    base: TempDir,
    data: PathBuf,
    shim: PathBuf,
    /// What the platter holds before the daemon on the failing disk runs.
    before: Disk,
}

impl FailingDisk {
    /// With a store that knows the definition and the participant.
    async fn new(world: &World) -> Result<Self> {
        let base = tempfile::tempdir()?;
        let (data, shim) = (base.path().join("data"), build_shim(base.path())?);
        world.prepare(&Launch::on(&data).start()?).await?;
        let before = Disk::holding(&data)?;
        Ok(Self { base, data, shim, before })
    }

    fn log(&self) -> PathBuf {
        self.base.path().join("log")
    }

    fn daemon(&self) -> Result<Daemon> {
        self.launch().start()
    }

    fn launch(&self) -> Launch {
        Launch::on(&self.data)
            .env("LD_PRELOAD", self.shim.display().to_string())
            .env("POWERCUT_DIR", self.data.display().to_string())
            .env("POWERCUT_LOG", self.log().display().to_string())
            .env("POWERCUT_AT", "0")
            .env("POWERCUT_FAIL", self.base.path().join("fail").display().to_string())
    }

    /// From now on `act`s on the file `name` of the store fail.
    fn fail(&self, act: &str, name: &str) -> Result<()> {
        let aside = self.base.path().join("fail.new");
        fs::write(&aside, format!("{act} {name}"))?;
        Ok(fs::rename(aside, self.base.path().join("fail"))?)
    }

    /// A store with what is on the platter now; without what a failed sync, if one was to fail, was to bring
    /// there.
    fn after_a_power_cut(mut self, sync_failed: bool) -> Result<(TempDir, PathBuf)> {
        let left = self.base.path().join("left");
        self.before.replay(&self.base.path().join("log"))?;
        ensure!(self.before.failed_syncs > 0 || !sync_failed, "the shim saw no sync fail: it was not loaded");
        self.before.cut_power(&self.data, &left, &mut Chance::seeded(1))?;
        Ok((self.base, left))
    }
}

/// Whether the status says that the store failed and that the start may or may not be stored.
fn says_unknown(status: &Status) -> bool {
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    status.code() == Code::Unavailable
        && retry.is_some_and(|delay| !delay.is_zero())
        && status.message().contains("did not answer for certain")
        && status.message().contains("repeating with the same id is safe")
}

/// Whether a start that was not acknowledged heard one of the things it may hear: that the store
/// failed, that the daemon ends, or nothing, because the connection broke.
fn is_unknown(status: &Status) -> bool {
    let is_broken = std::error::Error::source(status).is_some();
    let says_end = status.code() == Code::Unavailable && status.message().contains("shutting down");
    is_broken || says_unknown(status) || says_end
}

/// The daemon ends by itself, unlike one that is killed, and says why and what to do.
fn ends_by_itself(mut daemon: Daemon, because: &[&str]) -> Result<()> {
    let status = daemon.ended()?;
    let said = daemon.errors()?;
    ensure!(status.code() == Some(1), "the daemon ended with {status}: {said}");
    let last = said.lines().rfind(|line| line.starts_with("sagad: "));
    let last = last.with_context(|| format!("no last word in {said}"))?;
    println!("{last}");
    for words in because.iter().chain(&["start it again"]) {
        ensure!(last.contains(words), "{words:?} is missing in {last:?}");
    }
    Ok(())
}

/// What `/readyz` says; `None` when nobody listens any more.
async fn readyz(http: &str) -> Option<String> {
    let mut stream = TcpStream::connect(http).await.ok()?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    (!answer.is_empty()).then_some(answer)
}

/// Runs a few sagas to their ends, so that there is something to lose.
async fn run_some(world: &World, sagas: &mut SagaServiceClient<Channel>) -> Result<()> {
    for n in 0..IN_FLIGHT {
        let wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
        let whole =
            StartSagaRequest { wait, wait_for: WaitFor::Ended.into(), ..order(&format!("before-{n}")) };
        ensure!(world.start(sagas, whole).await, "{:?}", world.unanswered());
    }
    Ok(())
}

/// Starts several sagas at once over one connection.
async fn start_at_once(world: &Arc<World>, sagas: &SagaServiceClient<Channel>) {
    let starts = (0..IN_FLIGHT).map(|n| {
        let (world, mut sagas) = (Arc::clone(world), sagas.clone());
        tokio::spawn(async move { world.start(&mut sagas, order(&format!("after-{n}"))).await })
    });
    for start in starts.collect::<Vec<_>>() {
        assert!(!start.await.expect("a start does not panic"), "a start was acknowledged on a failed disk");
    }
}

/// A daemon on a sound disk finds whatever is stored there; every start that was not acknowledged
/// is made again, and everything ends as if nothing had happened.
async fn goes_on(world: &World, data: &Path) -> Result<()> {
    let calls_before = world.shop.calls();
    let daemon = Launch::on(data).start()?;
    let mut sagas = daemon.sagas();
    let unanswered = world.unanswered();
    let mut stored = 0;
    for start in &unanswered {
        ensure!(is_unknown(&start.status), "a start was answered with {:?}", start.status);
        let id = start.request.saga_id.clone();
        match sagas.get_saga(GetSagaRequest { saga_id: id.clone() }).await {
            Ok(_) => stored += 1,
            Err(status) => {
                ensure!(status.code() == Code::NotFound, "{status:?}");
                let called = calls_before.iter().find(|call| call.saga == id);
                ensure!(called.is_none(), "called for a start that is not stored: {called:?}");
            }
        }
    }
    for start in &unanswered {
        ensure!(world.start(&mut sagas, start.request.clone()).await, "{:?}", world.unanswered().last());
    }
    let summary = world.verify(&daemon).await?;
    println!("{} starts not acknowledged, {stored} of them stored; {summary}", unanswered.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_sync_fails_is_answered_as_unknown() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    let channel = daemon.channel();
    let mut sagas = SagaServiceClient::new(channel.clone());
    run_some(&world, &mut sagas).await?;
    let mut health = HealthClient::new(channel.clone());
    let mut health = health.watch(HealthCheckRequest::default()).await?.into_inner();
    let first = health.message().await?.context("the state of things")?;
    ensure!(first.status() == ServingStatus::Serving, "{first:?}");
    // What is in flight keeps the daemon draining for as long as the test looks at it. It is on the
    // connection of the start below, and so there before it.
    let in_flight = wire::begin_start(channel).await?;

    disk.fail("sync", LOG)?;
    ensure!(!world.start(&mut sagas, order("unknown")).await, "a start was acknowledged on a failed disk");
    let ready = readyz(&daemon.http).await;
    let answered = world.unanswered();
    println!("{:?}", answered[0].status);
    ensure!(says_unknown(&answered[0].status), "{:?}", answered[0].status);
    println!("/readyz: {ready:?}");
    let ready = ready.context("/readyz is answered until the daemon has drained")?;
    ensure!(ready.starts_with("HTTP/1.1 503") && ready.contains("failed: store:"), "{ready}");
    // Whoever watches is told that work is not welcome, or their stream ends.
    if let Ok(Some(last)) = health.message().await {
        println!("health: {:?}", last.status());
        ensure!(last.status() == ServingStatus::NotServing, "{last:?}");
    }
    drop(in_flight);
    ends_by_itself(daemon, &["sync", "wal-0", "Input/output error"])?;
    goes_on(&world, &disk.data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_for_the_engine_alone_is_not_forgotten() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    disk.fail("flush", HISTORY_DATABASE)?;
    run_some(&world, &mut daemon.sagas()).await?;
    ends_by_itself(daemon, &["sync", "history", "Input/output error"])?;
    goes_on(&world, &disk.data).await
}

/// The log is folded while nobody waits for it; what it holds is not lost when that fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_folded_ends_the_daemon_and_loses_nothing() -> Result<()> {
    for (act, cause) in [("sync", "Input/output error"), ("write", "No space left on device")] {
        let world = World::new().await?;
        let disk = FailingDisk::new(&world).await?;
        let daemon = disk.launch().folding_often(disk.base.path())?.start()?;
        let failing = async {
            world.acknowledged_more(50).await;
            disk.fail(act, OPEN_DATABASE)
        };
        let ((), failed) = tokio::join!(world.load(&daemon, 0), failing);
        failed?;
        ends_by_itself(daemon, &["open", cause])?;
        let (_base, left) = disk.after_a_power_cut(act == "sync")?;
        goes_on(&world, &left).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_starts_in_flight_at_a_failed_sync_hear_that_they_are_unknown() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    let mut sagas = daemon.sagas();
    run_some(&world, &mut sagas).await?;
    disk.fail("sync", LOG)?;
    start_at_once(&world, &sagas).await;
    let heard = world.unanswered();
    ensure!(heard.iter().any(|start| says_unknown(&start.status)), "{heard:?}");
    ends_by_itself(daemon, &["sync", "wal-0", "Input/output error"])?;
    goes_on(&world, &disk.data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_sync_fails_under_load_and_the_power_goes() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    let failing = async {
        world.acknowledged_more(50).await;
        disk.fail("sync", LOG)
    };
    let ((), failed) = tokio::join!(world.load(&daemon, 0), failing);
    failed?;
    ends_by_itself(daemon, &["sync", "wal-0", "Input/output error"])?;
    let (_base, left) = disk.after_a_power_cut(true)?;
    goes_on(&world, &left).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_of_the_history_ends_the_daemon_though_nobody_asks() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    disk.fail("sync", HISTORY_DATABASE)?;
    run_some(&world, &mut daemon.sagas()).await?;
    ends_by_itself(daemon, &["sync", "history", "Input/output error"])?;
    let (_base, left) = disk.after_a_power_cut(true)?;
    goes_on(&world, &left).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_cannot_be_stored_is_not_acknowledged_and_ends_the_daemon() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    run_some(&world, &mut daemon.sagas()).await?;
    disk.fail("sync", LOG)?;
    let source =
        "saga: other\nsteps:\n  - name: only\n    action: { call: shop.use }\n    compensation: none\n";
    let request = RegisterDefinitionRequest { source: source.to_owned(), validate_only: false };
    let refused = daemon.definitions().register_definition(request).await;
    let refused = refused.err().context("a definition was acknowledged on a failed disk")?;
    ensure!(says_unknown(&refused), "{refused:?}");
    ends_by_itself(daemon, &["sync", "wal-0", "Input/output error"])?;
    goes_on(&world, &disk.data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_daemon_and_loses_nothing() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    let sagas = daemon.sagas();
    run_some(&world, &mut sagas.clone()).await?;
    disk.fail("write", LOG)?;
    start_at_once(&world, &sagas).await;
    let heard = world.unanswered();
    ensure!(heard.iter().any(|start| says_unknown(&start.status)), "{heard:?}");
    ends_by_itself(daemon, &["wal-0", "No space left on device"])?;
    goes_on(&world, &disk.data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_disk_fills_up_under_load() -> Result<()> {
    let world = World::new().await?;
    let disk = FailingDisk::new(&world).await?;
    let daemon = disk.daemon()?;
    let filling = async {
        world.acknowledged_more(50).await;
        disk.fail("write", LOG)
    };
    let ((), filled) = tokio::join!(world.load(&daemon, 0), filling);
    filled?;
    ends_by_itself(daemon, &["wal-0", "No space left on device"])?;
    goes_on(&world, &disk.data).await
}
