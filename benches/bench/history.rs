//! What a long past costs: a start, and sagas that have nothing to do with it.

use std::path::Path;
use std::time::Duration;

use crate::bars::Bar;
use crate::crash::recover;
use crate::fill::{Fill, logical_bytes};
use crate::findings::Findings;
use crate::parts::drive;
use crate::records::{TRANSITIONS, life};
use crate::rig::{Home, Participants, Rig, Setup};
use crate::sagas::{Kind, ORDER3};
use crate::usage::{databases, resident_mib, written};

const PART: &str = "history";
/// Sagas in flight.
const CALLERS: usize = 64;
/// Both stores take turns, so that the machine's moods reach both.
const TURNS: u32 = 3;
/// Starts of each; the quickest counts.
const STARTS: u32 = 3;
/// Least part of an empty store's throughput.
const THROUGHPUT_MIN: f64 = 0.9;
/// Most times an empty store's start.
const START_MAX: f64 = 1.5;
/// Time for what ended to reach the history, before the disk is looked at.
const MOVE_PAUSE: Duration = Duration::from_secs(2);

/// Fills a store with `ended` sagas and holds it against an empty one.
pub async fn history(
    dir: &Path,
    shop: &Participants,
    ended: u64,
    span: Duration,
) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let full = Home::fresh(&dir.join("full"), shop, Setup::default())?;
    let me = std::process::id();
    let wrote = written(me)?;
    let past = Fill::begin(&full.store(), ORDER3, &[]).await?;
    let filled = past.ended(ended).await?;
    past.close().await?;
    let each = |bytes: u64| bytes as f64 / ended as f64;
    found.read(
        PART,
        format!("{ended} ended: filled at"),
        ended as f64 / filled.took.as_secs_f64(),
        "sagas/s",
    );
    found.read(PART, "the records themselves, each", each(filled.logical_bytes), "bytes");
    found.read(PART, "on disk for each", each(databases(&full.store())?), "bytes");
    let amplified = (written(me)? - wrote) as f64 / filled.logical_bytes as f64;
    found.read(PART, "filled: bytes written / records", amplified, "times");

    // The addresses of the second are looked for while the first one has its own.
    let full = full.start().await?;
    let empty = Rig::start(&dir.join("empty"), shop, ORDER3).await?;
    let first = full.answered_after.as_secs_f64() * 1e3;
    found.read(PART, "full: answers after a good end", first, "ms");
    let (empty, full) = throughput(&mut found, empty, full, span / TURNS).await?;
    starts(&mut found, empty, full).await?;
    std::fs::remove_dir_all(dir)?;
    Ok(found)
}

async fn throughput(
    found: &mut Findings,
    empty: Rig,
    full: Rig,
    span: Duration,
) -> anyhow::Result<(Rig, Rig)> {
    let (mut with, mut without) = (0.0, 0.0);
    let (mut count, wrote) = (0, written(empty.pid()?)?);
    for _ in 0..TURNS {
        let times = drive(&empty, Kind::ORDER3, CALLERS, span, || Ok(())).await?;
        without += times.per_second / f64::from(TURNS);
        count += times.count;
        with += drive(&full, Kind::ORDER3, CALLERS, span, || Ok(())).await?.per_second / f64::from(TURNS);
    }
    tokio::time::sleep(MOVE_PAUSE).await;
    found.read(PART, "empty: C=64", without, "sagas/s");
    found.read(PART, "full: C=64", with, "sagas/s");
    found.bars.push(Bar::at_least("history: throughput, full / empty", with / without, THROUGHPUT_MIN));
    // What was warmed up with counts in the one and not in the other; it is a small part.
    let writes = written(empty.pid()?)? - wrote;
    let records = logical_bytes(&life(0, 1)) as f64 * count as f64;
    found.read(PART, "empty: bytes written / records at C=64", writes as f64 / records, "times");
    let of_each = writes as f64 / (count as f64 * f64::from(TRANSITIONS));
    found.read(PART, "empty: bytes written for a transition", of_each, "bytes");
    found.read(PART, "full: resident", resident_mib(full.pid()?)?, "MiB");
    Ok((empty, full))
}

async fn starts(found: &mut Findings, empty: Rig, full: Rig) -> anyhow::Result<()> {
    let without = quickest(empty).await?;
    let with = quickest(full).await?;
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    found.read(PART, "empty: killed, answers after", ms(without.0), "ms");
    found.read(PART, "full: killed, answers after", ms(with.0), "ms");
    found.read(PART, "empty: killed, the next saga has ended after", ms(without.1), "ms");
    found.read(PART, "full: killed, the next saga has ended after", ms(with.1), "ms");
    found.read(PART, "empty: CPU until then", ms(without.2), "ms");
    found.read(PART, "full: CPU until then", ms(with.2), "ms");
    let answers = ms(with.0) / ms(without.0);
    found.bars.push(Bar::at_most("history: answers, full / empty", answers, START_MAX));
    let ends = ms(with.1) / ms(without.1);
    found.bars.push(Bar::at_most("history: next saga ended, full / empty", ends, START_MAX));
    Ok(())
}

/// Kills and starts it a few times and takes it away; the shortest times until it answered, and
/// until a saga had ended, and the least processor time for that.
async fn quickest(mut rig: Rig) -> anyhow::Result<(Duration, Duration, Duration)> {
    let mut least = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..STARTS {
        let (again, recovery) = recover(rig.kill().await?, 0).await?;
        let (answered, cpu) = (recovery.answered, recovery.settled_cpu);
        least = (least.0.min(answered), least.1.min(recovery.first_ended), least.2.min(cpu));
        rig = again;
    }
    rig.end().await?;
    Ok(least)
}
