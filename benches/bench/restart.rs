//! What a start costs, what is idle, and what is left of sagas that have ended.

use std::path::Path;
use std::time::Duration;

use crate::bars::Bar;
use crate::crash::{Recovery, ensure_settled, kill_under_load, recover};
use crate::findings::Findings;
use crate::parts::drive;
use crate::rig::{Participants, Rig, Setup};
use crate::sagas::{Kind, ORDER3};
use crate::usage::resident_mib;

const PART: &str = "restart";
/// Sagas in flight when the daemon is killed.
const CALLERS: usize = 64;
/// How often it is killed; the worst counts.
const KILLS: usize = 3;
/// Most time until the next saga has ended.
pub const FIRST_ENDED_MAX: Duration = Duration::from_secs(1);
/// Most time until everything that was interrupted has settled.
pub const SETTLED_MAX: Duration = Duration::from_secs(3);
/// Most memory of a daemon that has nothing to do yet, in MiB.
const IDLE_MIB_MAX: f64 = 25.0;
/// The page cache fills with whatever is written: kept small, so that it does not hide a leak.
const SMALL_CACHE: &str = "[store]\ncache_mib = 8\n";
/// Time for what ended sagas leave behind to be given back.
const GIVE_BACK: Duration = Duration::from_secs(3);

/// All of it; the load runs for about `span`.
pub async fn restart(dir: &Path, shop: &Participants, span: Duration) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let rig = Rig::start(dir, shop, ORDER3).await?;
    let idle_mib = resident_mib(rig.pid()?)?;
    found.bars.push(Bar::at_most("restart: idle, MiB", idle_mib, IDLE_MIB_MAX));
    let worst = killed(rig, span).await?;
    found.read(PART, "C=64 killed: answers after", worst.answered.as_secs_f64() * 1e3, "ms");
    found.read(PART, "C=64 killed: CPU until it answered", worst.answered_cpu.as_secs_f64() * 1e3, "ms");
    found.read(PART, "C=64 killed: CPU until settled", worst.settled_cpu.as_secs_f64() * 1e3, "ms");
    found.bars.push(Bar::at_most(
        "restart: C=64 killed, next saga ended after, s",
        worst.first_ended.as_secs_f64(),
        FIRST_ENDED_MAX.as_secs_f64(),
    ));
    found.bars.push(Bar::at_most(
        "restart: C=64 killed, all settled after, s",
        worst.settled.as_secs_f64(),
        SETTLED_MAX.as_secs_f64(),
    ));
    leave(&mut found, dir, shop, span).await?;
    Ok(found)
}

async fn killed(mut rig: Rig, span: Duration) -> anyhow::Result<Recovery> {
    let mut worst = Recovery::default();
    for _ in 0..KILLS {
        let (home, interrupted) = kill_under_load(rig, CALLERS, span / 3).await?;
        let (again, recovery) = recover(home, 0).await?;
        ensure_settled(&again, &interrupted).await?;
        worst = worst.worse(recovery);
        rig = again;
    }
    rig.end().await?;
    Ok(worst)
}

/// Memory before and behind sagas that have ended.
async fn leave(found: &mut Findings, dir: &Path, shop: &Participants, span: Duration) -> anyhow::Result<()> {
    let setup = Setup { settings: SMALL_CACHE, ..Setup::default() };
    let rig = Rig::start_as(dir, shop, setup, ORDER3).await?;
    let pid = rig.pid()?;
    found.read(PART, "8 MiB of cache: before any saga", resident_mib(pid)?, "MiB");
    let first = drive(&rig, Kind::ORDER3, CALLERS, span, || Ok(())).await?;
    let between = resident_mib(pid)?;
    found.read(PART, format!("behind {} ended", first.count), between, "MiB");
    let second = drive(&rig, Kind::ORDER3, CALLERS, span, || Ok(())).await?;
    let behind = resident_mib(pid)?;
    found.read(PART, format!("behind {} more", second.count), behind, "MiB");
    tokio::time::sleep(GIVE_BACK).await;
    found.read(PART, "after a pause", resident_mib(pid)?, "MiB");
    let each = (behind - between) * 1024.0 * 1024.0 / second.count as f64;
    found.read(PART, "growth for each of the latter", each, "bytes");
    rig.end().await
}
