//! A start with many open sagas that wait for something far away.

use std::path::Path;
use std::time::Duration;

use crate::bars::Bar;
use crate::crash::{Recovery, ensure_settled, kill_under_load, recover};
use crate::fill::{Fill, Standing};
use crate::findings::Findings;
use crate::restart::SETTLED_MAX;
use crate::rig::{Home, Participants, Rig, Setup};
use crate::sagas::ORDER3;
use crate::usage::{resident_mib, resident_most_mib};

const PART: &str = "open";
/// The definition whose first step answers "pending".
const HELD: &str = "held3";
/// Sagas whose call was in flight, and as many whose wake-up has passed, at the first start.
const TO_SETTLE: u64 = 300;
/// Sagas in flight when the daemon is killed, and for how long they ran.
const CALLERS: usize = 256;
const LOAD: Duration = Duration::from_secs(3);
/// Most time until it answers.
const ANSWERS_MAX: Duration = Duration::from_secs(1);
/// Most memory, at any moment, in MiB.
const RESIDENT_MIB_MAX: f64 = 512.0;
/// Sagas that wait for something far away leave memory after this and a little.
const EVICTED_AFTER: Duration = Duration::from_secs(40);

/// Fills a store with `open` sagas and starts on it: once in peace, once behind a kill.
pub async fn open(dir: &Path, shop: &Participants, open: u64) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let home = Home::fresh(dir, shop, Setup::default())?;
    let fill = Fill::begin(&home.store(), &held3(), &[ORDER3]).await?;
    let filled = fill.open(0, open, Standing::Pending).await?;
    fill.open(1, TO_SETTLE, Standing::Due).await?;
    fill.open(2, TO_SETTLE, Standing::InFlight).await?;
    fill.close().await?;
    found.read(PART, format!("{open} open: filled at"), open as f64 / filled.took.as_secs_f64(), "sagas/s");

    let (rig, first) = recover(home, open).await?;
    judge(&mut found, "first start", &rig, first)?;
    let (home, interrupted) = kill_under_load(rig, CALLERS, LOAD).await?;
    let (rig, second) = recover(home, open).await?;
    judge(&mut found, "killed at C=256", &rig, second)?;
    ensure_settled(&rig, &interrupted).await?;
    tokio::time::sleep(EVICTED_AFTER).await;
    let pid = rig.pid()?;
    found.read(PART, "resident 40 s later", resident_mib(pid)?, "MiB");
    let most = resident_most_mib(pid)?;
    found.bars.push(Bar::at_most("open: most memory, MiB", most, RESIDENT_MIB_MAX));
    rig.end().await?;
    Ok(found)
}

/// `order3` with a first step that answers "pending".
pub fn held3() -> String {
    ORDER3.replace("saga: order3", &format!("saga: {HELD}")).replace("stock.deduct", "depot.hold")
}

fn judge(found: &mut Findings, when: &str, rig: &Rig, recovery: Recovery) -> anyhow::Result<()> {
    let pid = rig.pid()?;
    found.read(PART, format!("{when}: resident when settled"), resident_mib(pid)?, "MiB");
    let first_ended = recovery.first_ended.as_secs_f64();
    found.read(PART, format!("{when}: a new saga has ended after"), first_ended, "s");
    let cpu = |of: Duration| of.as_secs_f64();
    found.read(PART, format!("{when}: CPU until it answered"), cpu(recovery.answered_cpu), "s");
    found.read(PART, format!("{when}: CPU until all had settled"), cpu(recovery.settled_cpu), "s");
    let bar = |what: &str, took: Duration, most: Duration| {
        Bar::at_most(format!("open: {when}, {what} after, s"), took.as_secs_f64(), most.as_secs_f64())
    };
    found.bars.push(bar("answers", recovery.answered, ANSWERS_MAX));
    found.bars.push(bar("all settled", recovery.settled, SETTLED_MAX));
    Ok(())
}
