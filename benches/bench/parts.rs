//! What is measured of the whole engine: each part on a daemon and a store of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::proto;
use sagad::proto::saga_service_client::SagaServiceClient;
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::closed::{Times, measure};
use crate::rig::{Participants, Rig};
use crate::sagas::{Kind, ORDER3, check, request};
use crate::usage::{cpu, resident_mib};

const ORDER: &str = include_str!("../../sagas/order.yaml");
/// Starts of the burst, and how many callers make them.
const BURST_STARTS: usize = 20_000;
const BURST_CALLERS: usize = 256;
/// Every so many of the refused variant's sagas is refused.
const REFUSED_EACH: u64 = 10;
/// The pause between two looks at whether the burst has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    pub part: String,
    /// Sagas in flight.
    pub callers: usize,
    /// Sagas measured.
    pub sagas: usize,
    pub per_second: f64,
    /// Times of single sagas as their client sees them, in microseconds.
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Processor time for each saga, in microseconds.
    pub daemon_cpu_us: f64,
    pub client_cpu_us: f64,
    pub participants_cpu_us: f64,
    /// Memory of the daemon at the end.
    pub daemon_mib: f64,
    /// Syncs of the open sagas' database for each saga.
    pub syncs: f64,
}

/// Used so far: the three processes' processor time and the daemon's syncs.
struct Used {
    daemon: Duration,
    client: Duration,
    participants: Duration,
}

impl Used {
    fn now(rig: &Rig, participants_pid: u32) -> anyhow::Result<Self> {
        Ok(Self {
            daemon: cpu(rig.pid()?)?,
            client: cpu(std::process::id())?,
            participants: cpu(participants_pid)?,
        })
    }
}

/// Three calls, all of which succeed.
pub async fn order3(
    dir: &Path,
    shop: &Participants,
    callers: usize,
    span: Duration,
) -> anyhow::Result<Figures> {
    let kind = Kind::ORDER3;
    closed("order3", ORDER3, kind, dir, shop, callers, span).await
}

/// The same, but the points of one saga in ten are refused and its goods go back.
pub async fn refused(
    dir: &Path,
    shop: &Participants,
    callers: usize,
    span: Duration,
) -> anyhow::Result<Figures> {
    let kind = Kind { definition: "order3", refused_each: Some(REFUSED_EACH), waits: true };
    closed("order3, 10 % refused", ORDER3, kind, dir, shop, callers, span).await
}

/// Starts that are acknowledged and go no further: the first participant is not there.
pub async fn starts(
    dir: &Path,
    shop: &Participants,
    callers: usize,
    span: Duration,
) -> anyhow::Result<Figures> {
    let kind = Kind { definition: "order3", refused_each: None, waits: false };
    let source = ORDER3.replace("stock.", "absent.");
    closed("starts only", &source, kind, dir, shop, callers, span).await
}

/// The order saga of the repository: locks, a step for each item, side work, events.
pub async fn order(
    dir: &Path,
    shop: &Participants,
    callers: usize,
    span: Duration,
) -> anyhow::Result<Figures> {
    let kind = Kind { definition: "order", refused_each: None, waits: true };
    closed("order.yaml", ORDER, kind, dir, shop, callers, span).await
}

async fn closed(
    part: &str,
    source: &str,
    kind: Kind,
    dir: &Path,
    shop: &Participants,
    callers: usize,
    span: Duration,
) -> anyhow::Result<Figures> {
    let rig = Rig::start(dir, shop, source).await?;
    closed_on(rig, part, kind, shop.pid()?, callers, span).await
}

/// A closed loop on a daemon that is there, and ends with it.
pub async fn closed_on(
    rig: Rig,
    part: &str,
    kind: Kind,
    participants_pid: u32,
    callers: usize,
    span: Duration,
) -> anyhow::Result<Figures> {
    let mut used = Vec::new();
    let read = || {
        used.push(Used::now(&rig, participants_pid)?);
        Ok(())
    };
    let before = rig.stats().await?;
    let whole = Stopwatch::start();
    let times = drive(&rig, kind, callers, span, read).await?;
    let whole = whole.elapsed();
    let after = rig.stats().await?;
    let [begin, end] = &used[..] else { anyhow::bail!("the span was not measured") };
    let resident = resident_mib(rig.pid()?)?;
    rig.end().await?;
    let syncs_per_second = batches_between(&before, &after) / whole.as_secs_f64();
    let row = Row { part, callers, begin, end, resident };
    Ok(row.figures(times, syncs_per_second))
}

/// A closed loop of `callers` clients on a daemon that knows the definition; `at` is called when the
/// measured span begins and when it has ended.
pub async fn drive(
    rig: &Rig,
    kind: Kind,
    callers: usize,
    span: Duration,
    at: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Times> {
    let clients = Arc::new(rig.clients());
    let run = move |caller: usize, number: u64| {
        let mut client = clients[caller % clients.len()].clone();
        async move {
            let answer = client.start_saga(request(kind, number)).await.context("start a saga")?;
            check(kind, number, &answer.into_inner())
        }
    };
    measure(callers, warm_up(span), span, at, run).await
}

fn batches_between(before: &proto::GetStatsResponse, after: &proto::GetStatsResponse) -> f64 {
    let commits = |stats: &proto::GetStatsResponse| stats.store.as_ref().map_or(0, |store| store.commits);
    commits(after).saturating_sub(commits(before)) as f64
}

fn warm_up(span: Duration) -> Duration {
    span.min(Duration::from_secs(4)) / 4
}

/// What a row is made from, beside the times.
struct Row<'a> {
    part: &'a str,
    callers: usize,
    begin: &'a Used,
    end: &'a Used,
    resident: f64,
}

impl Row<'_> {
    fn figures(&self, times: Times, syncs_per_second: f64) -> Figures {
        let of_each = |used: Duration| used.as_secs_f64() * 1e6 / times.count as f64;
        Figures {
            part: self.part.to_owned(),
            callers: self.callers,
            sagas: times.count,
            per_second: times.per_second,
            mean_us: times.mean,
            p50_us: times.p50,
            p99_us: times.p99,
            p999_us: times.p999,
            daemon_cpu_us: of_each(self.end.daemon.saturating_sub(self.begin.daemon)),
            client_cpu_us: of_each(self.end.client.saturating_sub(self.begin.client)),
            participants_cpu_us: of_each(self.end.participants.saturating_sub(self.begin.participants)),
            daemon_mib: self.resident,
            syncs: syncs_per_second / times.per_second,
        }
    }
}

/// Twenty thousand starts at once, from callers that wait when they are told to: the time until the
/// last saga has ended.
pub async fn burst(dir: &Path, shop: &Participants) -> anyhow::Result<Figures> {
    let kind = Kind { definition: "order3", refused_each: None, waits: false };
    let rig = Rig::start(dir, shop, ORDER3).await?;
    let clients = rig.clients();
    let before = rig.stats().await?;
    let begin = Used::now(&rig, shop.pid()?)?;
    let watch = Stopwatch::start();
    let mut callers = JoinSet::new();
    for caller in 0..BURST_CALLERS {
        let client = clients[caller % clients.len()].clone();
        callers.spawn(start_every(client, kind, caller));
    }
    let mut all = Vec::with_capacity(BURST_STARTS);
    while let Some(ended) = callers.join_next().await {
        all.extend(ended.context("a caller panicked")??);
    }
    while count(&rig, "COMPLETED").await? < BURST_STARTS as u64 {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let took = watch.elapsed();
    let end = Used::now(&rig, shop.pid()?)?;
    let after = rig.stats().await?;
    let resident = resident_mib(rig.pid()?)?;
    rig.end().await?;
    let row = Row { part: "burst of 20,000", callers: BURST_CALLERS, begin: &begin, end: &end, resident };
    let syncs_per_second = batches_between(&before, &after) / took.as_secs_f64();
    Ok(row.figures(Times::of(all, took)?, syncs_per_second))
}

/// One caller's share of the burst; the times until each start was acknowledged, in microseconds.
async fn start_every(
    mut client: SagaServiceClient<Channel>,
    kind: Kind,
    caller: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for number in (caller..BURST_STARTS).step_by(BURST_CALLERS) {
        let request = request(kind, number as u64);
        let watch = Stopwatch::start();
        loop {
            let Err(status) = client.start_saga(request.clone()).await else { break };
            let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
            match (status.code(), told) {
                (tonic::Code::ResourceExhausted, Some(pause)) => tokio::time::sleep(pause).await,
                _ => return Err(status).context("start a saga of the burst"),
            }
        }
        times.push(watch.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Sagas of this status, as the counters know it.
pub async fn count(rig: &Rig, status: &str) -> anyhow::Result<u64> {
    let request = proto::ListSagasRequest {
        filter: format!("status = {status}"),
        page_size: 1,
        ..proto::ListSagasRequest::default()
    };
    let page = rig.clients()[0].list_sagas(request).await.context("count sagas")?;
    Ok(page.into_inner().total)
}
