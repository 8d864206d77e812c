//! `order3` over workers' streams, held against what lies below: one unary call for the start, three
//! steps over a stream, four commits.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use sagad::clock::Stopwatch;
use sagad::proto::worker_step::Call;
use sagad::proto::{OpenWorkerRequest, OpenWorkerResponse, WorkerStep, WorkerWelcome};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::bars::{Bar, CALLS, CALLS_MADE, COMMITS, OF_BOUND_MIN, PROCESSOR_US};
use crate::findings::Findings;
use crate::limits::{Limits, example_call, probe};
use crate::parts::closed_on;
use crate::rig::{PARTICIPANTS, Participants, Rig, Setup, Workers};
use crate::sagas::{Kind, ORDER3};
use crate::usage::cpu;

const PART: &str = "worker";
/// Steps in flight in the probe.
const STEPS: usize = 64;
/// How long the probe's worker may take to come.
const COMES_WITHIN: Duration = Duration::from_mins(1);
/// The pause between two looks at whether it has.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Measures it at each of these loads, between two looks at the machine.
pub async fn worker(
    dir: &Path,
    shop: &mut Participants,
    loads: &[usize],
    span: Duration,
) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let before = Below::measure(dir, shop, span / 2).await?;
    for &callers in loads {
        let setup = Setup { workers: true, ..Setup::default() };
        let mut rig = Rig::start_as(&dir.join("daemon"), shop, setup, ORDER3).await?;
        let workers = Workers::start(dir, rig.url())?;
        rig.have_come(PARTICIPANTS.len()).await?;
        let pid = workers.pid()?;
        found.rows.push(closed_on(rig, "order3, workers", Kind::ORDER3, pid, callers, span).await?);
        workers.end().await?;
    }
    let behind = Below::measure(dir, shop, span / 2).await?;
    let below = before.between(behind);

    let bound = below.bound_per_second();
    found.read(PART, "steps/s over a stream, 64 in flight", below.steps.per_second, "steps/s");
    found.read(PART, "cost of a step over a stream", below.steps.cost_us(), "µs of 2 cores");
    found.read(PART, "CPU of a step: sent and heard", below.steps.server_cpu_us, "µs");
    found.read(PART, "CPU of a step: taken and answered", below.steps.worker_cpu_us, "µs");
    found.read(
        PART,
        "cost of a unary call",
        PROCESSOR_US / below.limits.wire.calls_per_second,
        "µs of 2 cores",
    );
    found.read(PART, "CPU of a commit", below.limits.commits.cpu_us, "µs");
    found.read(PART, "bound", bound, "sagas/s");
    for row in &found.rows {
        let what = format!("{PART}: part of the bound, C={}", row.callers);
        found.bars.push(Bar::at_least(what, row.per_second / bound, OF_BOUND_MIN));
    }
    Ok(found)
}

/// What lies below the engine.
#[derive(Debug, Clone, Copy)]
struct Below {
    limits: Limits,
    steps: Steps,
}

/// Steps over one stream without an engine: the same library, processes and messages.
#[derive(Debug, Clone, Copy)]
struct Steps {
    per_second: f64,
    /// Processor time of a step, in microseconds.
    server_cpu_us: f64,
    worker_cpu_us: f64,
}

impl Steps {
    /// A step and its outcome in wall time of both cores, like a unary call.
    fn cost_us(&self) -> f64 {
        PROCESSOR_US / self.per_second
    }
}

impl Below {
    async fn measure(dir: &Path, shop: &mut Participants, span: Duration) -> anyhow::Result<Self> {
        Ok(Self { limits: probe(dir, shop, span).await?, steps: steps(dir, span).await? })
    }

    fn between(self, later: Self) -> Self {
        let mean = |a: f64, b: f64| f64::midpoint(a, b);
        let (s, ls) = (self.steps, later.steps);
        let steps = Steps {
            per_second: mean(s.per_second, ls.per_second),
            server_cpu_us: mean(s.server_cpu_us, ls.server_cpu_us),
            worker_cpu_us: mean(s.worker_cpu_us, ls.worker_cpu_us),
        };
        Self { limits: self.limits.between(later.limits), steps }
    }

    /// Sagas a second of an engine that costs nothing.
    fn bound_per_second(&self) -> f64 {
        let call_us = PROCESSOR_US / self.limits.wire.calls_per_second;
        let starts = (CALLS - CALLS_MADE) * call_us;
        PROCESSOR_US / (starts + CALLS_MADE * self.steps.cost_us() + COMMITS * self.limits.commits.cpu_us)
    }
}

/// Gives steps to a worker, as many again as it answers, each in a message of its own.
async fn steps(dir: &Path, span: Duration) -> anyhow::Result<Steps> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the probe's worker")?;
    let url = format!("http://{}", listener.local_addr().context("read the bound address")?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let answered = Arc::new(AtomicU64::new(0));
    let giver = Giver(Arc::clone(&answered));
    let mut serving = JoinSet::new();
    serving.spawn(tonic::transport::Server::builder().add_service(giver).serve_with_incoming(incoming));
    let workers = Workers::start(dir, &url)?;
    let waiting = Stopwatch::start();
    while answered.load(Ordering::Relaxed) == 0 {
        anyhow::ensure!(waiting.elapsed() < COMES_WITHIN, "the probe's worker does not come");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    tokio::time::sleep(span / 8).await;
    let pids = [std::process::id(), workers.pid()?];
    let used = || anyhow::Ok((cpu(pids[0])?, cpu(pids[1])?, answered.load(Ordering::Relaxed)));
    let (begin, watch) = (used()?, Stopwatch::start());
    tokio::time::sleep(span).await;
    let (end, took) = (used()?, watch.elapsed());
    workers.end().await?;
    let count = (end.2 - begin.2) as f64;
    let of_each = |used: Duration| used.as_secs_f64() * 1e6 / count;
    Ok(Steps {
        per_second: count / took.as_secs_f64(),
        server_cpu_us: of_each(end.0.saturating_sub(begin.0)),
        worker_cpu_us: of_each(end.1.saturating_sub(begin.1)),
    })
}

/// The daemon's side of a worker's stream and nothing else; counts the outcomes. Only `stock` gets steps.
#[derive(Clone)]
struct Giver(Arc<AtomicU64>);

impl NamedService for Giver {
    const NAME: &'static str = "sagad.v1.RegistryService";
}

impl Service<http::Request<tonic::body::Body>> for Giver {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Polling<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let giver = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).streaming(giver, request).await) })
    }
}

impl StreamingService<OpenWorkerRequest> for Giver {
    type Response = OpenWorkerResponse;
    type ResponseStream = BoxStream<'static, Result<OpenWorkerResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<OpenWorkerRequest>>) -> Self::Future {
        let answered = Arc::clone(&self.0);
        let mut last_id = 0;
        let said = request.into_inner().flat_map(move |message| {
            let message = message.unwrap_or_default();
            answered.fetch_add(message.outcomes.len() as u64, Ordering::Relaxed);
            let (welcome, count) = match message.hello {
                Some(hello) => {
                    let count = if hello.participant == PARTICIPANTS[0].0 { STEPS } else { 0 };
                    (Some(WorkerWelcome::default()), count)
                }
                None => (None, message.outcomes.len()),
            };
            let begin = last_id;
            last_id += count as u64;
            let welcome =
                welcome.map(|welcome| OpenWorkerResponse { welcome: Some(welcome), ..Default::default() });
            stream::iter(welcome.into_iter().chain((begin..last_id).map(one_step)).map(Ok))
        });
        Box::pin(std::future::ready(Ok(Response::new(said.boxed()))))
    }
}

fn one_step(number: u64) -> OpenWorkerResponse {
    let call = Some(Call::Execute(example_call(number)));
    let step = WorkerStep { call_id: number + 1, call };
    OpenWorkerResponse { steps: vec![step], ..OpenWorkerResponse::default() }
}
