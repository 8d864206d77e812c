//! A steady stream of sagas whose participants are well, while another participant fails in all the ways
//! there are and has a stream of sagas of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use tokio::task::JoinSet;

use crate::bars::Bar;
use crate::faults::{Door, Fault};
use crate::findings::Findings;
use crate::overload::{Answer, one_start, part_of};
use crate::parts::count;
use crate::rig::{Participants, Rig};
use crate::sagas::{Kind, ORDER3};

const PART: &str = "isolation";
/// The definition whose first participant fails.
const FAULTY: Kind = Kind { definition: "faulty3", refused_each: None, waits: false };
/// Sagas a second whose participants are well: a modest load, so that what is measured is not a queue of
/// its own.
const HEALTHY_RATE: f64 = 200.0;
/// Sagas a second that call the participant that fails.
const FAULTY_RATE: f64 = 50.0;
/// The pause between two looks at who is due.
const TICK: Duration = Duration::from_millis(1);
/// Most times its p99 alone that the healthy sagas' may come to.
const P99_MAX: f64 = 2.0;
/// Most that half of the healthy sagas alone may take, in milliseconds. On a machine that is slower than
/// this, what is measured is a queue, and a ratio of it says nothing.
const P50_ALONE_MS_MAX: f64 = 50.0;
/// How long the failing participant's sagas may take to end once it is well again.
const RECOVERY_MAX: Duration = Duration::from_mins(1);
/// The pause between two looks at whether they have.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The streams of one span.
#[derive(Default)]
struct Streams {
    healthy_ms: Vec<f64>,
    faulty_taken: usize,
    faulty_refused: usize,
    failed: usize,
    first_failure: Option<String>,
}

/// Both streams for `span` under each fault, between two spans of the healthy one alone.
pub async fn isolation(dir: &Path, shop: &Participants, span: Duration) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let rig = Rig::start(dir, shop, ORDER3).await?;
    let door = Door::to(shop.authority())?;
    rig.register_handlers("faulty", &format!("http://{}", door.address), &["deduct", "restore"]).await?;
    let source = ORDER3.replace("saga: order3", "saga: faulty3").replace("stock.", "faulty.");
    rig.register(&source).await?;

    play(&rig, span / 4, true).await?;
    let before = play(&rig, span, false).await?;
    let mut faults = Vec::new();
    for fault in Fault::ALL {
        eprintln!("isolation: {}", fault.name());
        let settled = Stopwatch::start();
        door.set(fault);
        let during = play(&rig, span, true).await?;
        door.set(Fault::None);
        let healed = Stopwatch::start();
        while running(&rig).await? > 0 {
            anyhow::ensure!(
                healed.elapsed() < RECOVERY_MAX,
                "{}: its sagas do not end: {} are left after {:?}",
                fault.name(),
                running(&rig).await?,
                settled.elapsed()
            );
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        faults.push((fault, during, healed.elapsed()));
    }
    let behind = play(&rig, span, false).await?;
    rig.end().await?;

    let p99 = |streams: &Streams| part_of(&streams.healthy_ms, 990);
    let alone = f64::midpoint(p99(&before), p99(&behind));
    found.read(PART, "alone, before: p99", p99(&before), "ms");
    found.read(PART, "alone, behind: p99", p99(&behind), "ms");
    let p50 = part_of(&before.healthy_ms, 500).max(part_of(&behind.healthy_ms, 500));
    found.bars.push(Bar::at_most("isolation: healthy p50 alone, ms", p50, P50_ALONE_MS_MAX));
    for (fault, during, healed) in &faults {
        let name = fault.name();
        let mut read =
            |what: &str, value: f64, unit| found.read(PART, format!("{name}: {what}"), value, unit);
        read("healthy sagas", during.healthy_ms.len() as f64, "");
        read("their p50", part_of(&during.healthy_ms, 500), "ms");
        read("their p99", p99(during), "ms");
        read("starts of the others taken", during.faulty_taken as f64, "");
        read("starts of the others refused", during.faulty_refused as f64, "");
        read("all of these had ended, once it was well", healed.as_secs_f64(), "s");
        let ratio = p99(during) / alone;
        found.bars.push(Bar::at_most(format!("isolation, {name}: healthy p99 / alone"), ratio, P99_MAX));
        let failed = during.failed as f64;
        found.bars.push(Bar::at_most(format!("isolation, {name}: failed otherwise"), failed, 0.0));
        if let Some(failure) = &during.first_failure {
            found.read(PART, format!("{name}: first failure: {failure}"), 1.0, "");
        }
    }
    Ok(found)
}

/// Sagas that have not ended.
async fn running(rig: &Rig) -> anyhow::Result<u64> {
    let mut open = 0;
    for status in ["RUNNING", "COMMITTED", "COMPENSATING", "BLOCKED"] {
        open += count(rig, status).await?;
    }
    Ok(open)
}

/// Starts sagas at their rates for `span`, whether or not earlier ones were answered, and waits for the
/// answers.
async fn play(rig: &Rig, span: Duration, with_faulty: bool) -> anyhow::Result<Streams> {
    let clients = rig.clients();
    let mut running = JoinSet::new();
    let mut streams = [(Kind::ORDER3, HEALTHY_RATE, 0_u64), (FAULTY, FAULTY_RATE, 0)];
    let played = if with_faulty { 2 } else { 1 };
    let watch = Stopwatch::start();
    while watch.elapsed() < span {
        let passed = watch.elapsed().as_secs_f64();
        for (kind, rate, sent) in &mut streams[..played] {
            while (*sent as f64) < passed * *rate {
                let client = clients[usize::try_from(*sent)? % clients.len()].clone();
                let (kind, number) = (*kind, *sent);
                running.spawn(async move { (kind.waits, one_start(client, kind, number).await) });
                *sent += 1;
            }
        }
        tokio::time::sleep(TICK).await;
    }
    let mut told = Streams::default();
    while let Some(answer) = running.join_next().await {
        match answer.context("a start panicked")? {
            (true, Answer::Good(ms)) => told.healthy_ms.push(ms),
            (false, Answer::Good(_)) => told.faulty_taken += 1,
            (false, Answer::Refused(_)) => told.faulty_refused += 1,
            (true, Answer::Refused(_)) => told.fail("a healthy saga was refused".to_owned()),
            (_, Answer::Failed(why)) => told.fail(why),
        }
    }
    Ok(told)
}

impl Streams {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(why);
    }
}
