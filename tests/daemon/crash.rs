//! Sudden ends under load: SIGKILL, and power cuts that leave only what was synced.
//!
//! The oracle is kept outside the daemon: the clients' list of acknowledged starts and ends, and
//! a participant's ledger of every call it saw. Whatever the daemon was told to keep must be there
//! afterwards, and every call must have had its intent stored before it left.

use anyhow::{Context as _, Result, ensure};
use sagad::proto::{GetSagaRequest, RegisterDefinitionRequest, StartSagaRequest};
use tonic::Code;

use crate::powercut::{Disk, build_shim};
use crate::support::chance::Chance;
use crate::support::daemon::Launch;
use crate::support::participant::Participant;
use crate::support::world::{DEFINITION, World};

/// Rounds in a plain test run; the long form takes its number from the environment.
const ROUNDS_DEFAULT: u64 = 20;
/// Writes of the engine that may not be synced yet when the power goes.
const WRITES_AT_ONCE: usize = 16;

fn number_from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() -> Result<()> {
    let (rounds, seed) = (number_from_env("SAGAD_KILLS", ROUNDS_DEFAULT), number_from_env("SAGAD_SEED", 1));
    let mut chance = Chance::seeded(seed);
    let (data, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let world = World::new().await?;
    world.prepare(&Launch::on(data.path()).start()?).await?;
    for round in 0..rounds {
        let launch = Launch::on(data.path());
        let launch = if round % 2 == 0 { launch } else { launch.folding_often(folder.path())? };
        let daemon = launch.start().with_context(|| format!("round {round}, seed {seed}"))?;
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
    world.prepare(&Launch::on(&data).start()?).await?;
    let mut syncs = 0;
    for round in 0..rounds {
        let (log, left) = (base.path().join("log"), base.path().join(format!("disk-{round}")));
        let mut disk = Disk::holding(&data)?;
        let launch = Launch::on(&data)
            .env("LD_PRELOAD", shim.display().to_string())
            .env("POWERCUT_DIR", data.display().to_string())
            .env("POWERCUT_LOG", log.display().to_string())
            .env("POWERCUT_AT", (20 + chance.below(3_000)).to_string());
        let launch = if round % 2 == 0 { launch } else { launch.folding_often(base.path())? };
        // A cut may come before the daemon serves.
        if let Ok(mut daemon) = launch.try_start()? {
            world.load(&daemon, round).await;
            daemon.wait()?;
        }
        disk.replay(&log)?;
        syncs += disk.syncs;
        // The engine notes what it takes for stable: that must be so for each write by itself.
        let (written, synced) = disk.database;
        ensure!(
            synced + WRITES_AT_ONCE >= written,
            "{written} writes to databases and {synced} syncs of them, round {round}, seed {seed}"
        );
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
