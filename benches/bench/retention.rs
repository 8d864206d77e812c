//! A steady load whose ended sagas are kept for a short time: what the files grow by, and whether
//! deleting stalls anybody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use tokio::task::JoinSet;

use crate::bars::Bar;
use crate::findings::Findings;
use crate::overload::part_of;
use crate::parts::count;
use crate::rig::{Participants, Rig, Setup};
use crate::sagas::{Kind, ORDER3, check, request};
use crate::usage::databases;

const PART: &str = "retention";
/// How long ended sagas are kept; the daemon looks four times as often.
const RETAIN: Duration = Duration::from_secs(10);
const SETTINGS: &str = "[store]\nretain = \"10s\"\n";
/// The time between two starts: 200 a second.
const BETWEEN: Duration = Duration::from_millis(5);
/// The pause between two handfuls of starts.
const TICK: Duration = Duration::from_millis(5);
/// Periods after which the files have what they need, and periods that they are watched for then.
const FULL_AFTER: u32 = 2;
const WATCHED: u32 = 2;
/// Most times their size that the files may have then.
const GROWTH_MAX: f64 = 1.2;
/// Most time for a saga, for 999 of 1,000.
const STALL_MS_MAX: f64 = 100.0;

/// All of it: some forty seconds.
pub async fn retention(dir: &Path, shop: &Participants) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let setup = Setup { settings: SETTINGS, ..Setup::default() };
    let rig = Rig::start_as(dir, shop, setup, ORDER3).await?;
    let clients = Arc::new(rig.clients());
    let mut running = JoinSet::new();
    let (mut sent, mut due, mut times) = (0, Duration::ZERO, Vec::new());
    let mut full = None;
    let watch = Stopwatch::start();
    while watch.elapsed() < RETAIN * (FULL_AFTER + WATCHED) {
        while due <= watch.elapsed() {
            let (number, mut client) = (sent, clients[usize::try_from(sent)? % clients.len()].clone());
            sent += 1;
            due += BETWEEN;
            running.spawn(async move {
                let watch = Stopwatch::start();
                let answer =
                    client.start_saga(request(Kind::ORDER3, number)).await.context("start a saga")?;
                check(Kind::ORDER3, number, &answer.into_inner())?;
                anyhow::Ok(watch.elapsed().as_secs_f64() * 1e3)
            });
        }
        tokio::time::sleep(TICK).await;
        while let Some(ms) = running.try_join_next() {
            times.push(ms.context("a start panicked")??);
        }
        if full.is_none() && watch.elapsed() >= RETAIN * FULL_AFTER {
            full = Some(databases(&rig.store())?);
        }
    }
    let full = full.context("the load was too short")? as f64;
    let end = databases(&rig.store())? as f64;
    let kept = count(&rig, "COMPLETED").await? as f64;
    rig.end().await?;
    found.read(PART, "sagas ended", times.len() as f64, "");
    found.read(PART, "of these kept at the end", kept, "");
    found.read(PART, "files after two periods", full / 1024.0 / 1024.0, "MiB");
    found.read(PART, "files after four", end / 1024.0 / 1024.0, "MiB");
    found.read(PART, "p50 of a saga", part_of(&times, 500), "ms");
    found.bars.push(Bar::at_most("retention: files, after four periods / two", end / full, GROWTH_MAX));
    let stall = part_of(&times, 999);
    found.bars.push(Bar::at_most("retention: p99.9 of a saga, ms", stall, STALL_MS_MAX));
    Ok(found)
}
