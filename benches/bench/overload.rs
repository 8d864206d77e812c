//! More starts than can be run: what still ends, how the rest is refused, and what it costs.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::proto::saga_service_client::SagaServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::bars::Bar;
use crate::findings::Findings;
use crate::parts::{count, drive};
use crate::rig::{Participants, Rig, Setup};
use crate::sagas::{Kind, ORDER3, check, request};
use crate::usage::{cpu, resident_mib};

const PART: &str = "overload";
/// Calls that the depot takes at once: with 20 ms for each, 400 sagas a second.
const DEPOT_IN_FLIGHT: u32 = 8;
/// Starts a second.
const RATE: f64 = 4_000.0;
/// Sagas in flight while the peak is measured: capped by the depot, and by the processor.
const PEAK_CALLERS: usize = 64;
const FREE_CALLERS: usize = 256;
/// The pause between two handfuls of starts.
const TICK: Duration = Duration::from_millis(5);
/// Least part of the peak that must still end.
const GOODPUT_MIN: f64 = 0.8;
/// Most time until a refusal, for 99 of 100.
const REFUSED_MS_MAX: f64 = 50.0;
/// Most times its memory at half of the time that a daemon may have at its end.
const GROWTH_MAX: f64 = 1.25;

/// What became of a flood of starts.
#[derive(Default)]
struct Flood {
    sent: u64,
    /// Times of answers that were what they should be, in milliseconds.
    good_ms: Vec<f64>,
    /// Times of refusals with the time to come back, in milliseconds.
    refused_ms: Vec<f64>,
    /// Other errors, and what the first one was.
    failed: u64,
    first_failure: Option<String>,
    /// Sagas that the daemon ended a second, in the latter three quarters.
    ended_per_second: f64,
    /// The daemon's processor time for each start that was sent, in microseconds.
    cpu_us: f64,
    half_mib: f64,
    end_mib: f64,
}

/// What became of one start; times in milliseconds.
pub enum Answer {
    Good(f64),
    Refused(f64),
    Failed(String),
}

/// All of it, each flood for `span`.
pub async fn overload(dir: &Path, shop: &Participants, span: Duration) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let capped = Setup { depot_in_flight: DEPOT_IN_FLIGHT, ..Setup::default() };
    let source = ORDER3.replace("stock.deduct", "depot.take").replace("stock.restore", "depot.restore");

    let rig = Rig::start_as(dir, shop, capped, &source).await?;
    let peak = drive(&rig, Kind::ORDER3, PEAK_CALLERS, span / 2, || Ok(())).await?.per_second;
    found.read(PART, "capped: peak at C=64", peak, "sagas/s");
    let before = resident_mib(rig.pid()?)?;
    let waiting = flood(&rig, Kind::ORDER3, RATE, span).await?;
    rig.end().await?;
    waiting.tell(&mut found, "4,000/s that wait", before);
    waiting.judge(&mut found, "clients wait", peak, Some(GROWTH_MAX));

    let rig = Rig::start_as(dir, shop, capped, &source).await?;
    let before = resident_mib(rig.pid()?)?;
    let kind = Kind { waits: false, ..Kind::ORDER3 };
    let acknowledged = flood(&rig, kind, RATE, span).await?;
    rig.end().await?;
    acknowledged.tell(&mut found, "4,000/s acknowledged", before);
    acknowledged.judge(&mut found, "starts alone", peak, None);

    let rig = Rig::start(dir, shop, ORDER3).await?;
    let free = drive(&rig, Kind::ORDER3, FREE_CALLERS, span / 2, || Ok(())).await?.per_second;
    found.read(PART, "no cap: peak at C=256", free, "sagas/s");
    let before = resident_mib(rig.pid()?)?;
    let twice = flood(&rig, Kind::ORDER3, 2.0 * free, span).await?;
    rig.end().await?;
    twice.tell(&mut found, "twice the peak", before);
    Ok(found)
}

impl Flood {
    fn tell(&self, found: &mut Findings, what: &str, before_mib: f64) {
        let mut read =
            |name: &str, value: f64, unit| found.read(PART, format!("{what}: {name}"), value, unit);
        read("starts sent", self.sent as f64, "");
        read("ended", self.ended_per_second, "sagas/s");
        read("answered well", self.good_ms.len() as f64, "");
        read("p99 of these", part_of(&self.good_ms, 990), "ms");
        read("refused", self.refused_ms.len() as f64, "");
        read("p99 of these", part_of(&self.refused_ms, 990), "ms");
        read("failed otherwise", self.failed as f64, "");
        read("the daemon's CPU for each start sent", self.cpu_us, "µs");
        read("resident before", before_mib, "MiB");
        read("resident at half", self.half_mib, "MiB");
        read("resident at the end", self.end_mib, "MiB");
        if let Some(failure) = &self.first_failure {
            found.read(PART, format!("{what}: first failure: {failure}"), 1.0, "");
        }
    }

    fn judge(&self, found: &mut Findings, what: &str, peak: f64, growth_max: Option<f64>) {
        let bars = &mut found.bars;
        let goodput = self.ended_per_second / peak;
        bars.push(Bar::at_least(format!("overload, {what}: goodput / peak"), goodput, GOODPUT_MIN));
        let failed = self.failed as f64;
        bars.push(Bar::at_most(format!("overload, {what}: failed otherwise"), failed, 0.0));
        if !self.refused_ms.is_empty() {
            let p99 = part_of(&self.refused_ms, 990);
            bars.push(Bar::at_most(format!("overload, {what}: p99 of refusals, ms"), p99, REFUSED_MS_MAX));
        }
        if let Some(most) = growth_max {
            let growth = self.end_mib / self.half_mib;
            bars.push(Bar::at_most(format!("overload, {what}: memory, end / half"), growth, most));
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Good(ms) => self.good_ms.push(ms),
            Answer::Refused(ms) => self.refused_ms.push(ms),
            Answer::Failed(why) => {
                self.failed += 1;
                self.first_failure.get_or_insert(why);
            }
        }
    }
}

/// Starts `rate` sagas a second for `span`, whether or not earlier ones were answered.
async fn flood(rig: &Rig, kind: Kind, rate: f64, span: Duration) -> anyhow::Result<Flood> {
    let clients = rig.clients();
    let pid = rig.pid()?;
    let mut flood = Flood::default();
    let mut running = JoinSet::new();
    let mut ended_at_quarter = None;
    let (between, mut due) = (Duration::from_secs_f64(1.0 / rate), Duration::ZERO);
    let used = cpu(pid)?;
    let watch = Stopwatch::start();
    while watch.elapsed() < span {
        while due <= watch.elapsed() {
            let client = clients[usize::try_from(flood.sent)? % clients.len()].clone();
            running.spawn(one_start(client, kind, flood.sent));
            flood.sent += 1;
            due += between;
        }
        tokio::time::sleep(TICK).await;
        while let Some(answer) = running.try_join_next() {
            flood.take(answer.context("a start panicked")?);
        }
        if watch.elapsed() > span / 4 && ended_at_quarter.is_none() {
            ended_at_quarter = Some((count(rig, "COMPLETED").await?, watch.elapsed()));
        }
        if flood.half_mib == 0.0 && watch.elapsed() > span / 2 {
            flood.half_mib = resident_mib(pid)?;
        }
    }
    let (before, from) = ended_at_quarter.context("the flood was too short")?;
    let ended = count(rig, "COMPLETED").await? - before;
    flood.ended_per_second = ended as f64 / watch.elapsed().saturating_sub(from).as_secs_f64();
    flood.cpu_us = cpu(pid)?.saturating_sub(used).as_secs_f64() * 1e6 / flood.sent.max(1) as f64;
    flood.end_mib = resident_mib(pid)?;
    Ok(flood)
}

/// Starts one saga, and says what became of it.
pub async fn one_start(mut client: SagaServiceClient<Channel>, kind: Kind, number: u64) -> Answer {
    let watch = Stopwatch::start();
    let answer = client.start_saga(request(kind, number)).await;
    let ms = watch.elapsed().as_secs_f64() * 1e3;
    match answer {
        Ok(answer) => match check(kind, number, &answer.into_inner()) {
            Ok(()) => Answer::Good(ms),
            Err(wrong) => Answer::Failed(wrong.to_string()),
        },
        Err(status) => {
            let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
            match (status.code(), told) {
                (tonic::Code::ResourceExhausted, Some(_)) => Answer::Refused(ms),
                _ => Answer::Failed(status.to_string()),
            }
        }
    }
}

/// So many thousandths of the times are not longer than this.
pub fn part_of(times: &[f64], thousandths: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * thousandths / 1_000).copied().unwrap_or(0.0)
}
