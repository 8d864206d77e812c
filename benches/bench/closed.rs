//! A closed loop: so many callers, each with one request in flight, for a span of time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use tokio::task::JoinSet;

/// Times of requests.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Requests that were answered.
    pub count: usize,
    /// Answered within a second.
    pub per_second: f64,
    /// In microseconds, like those below.
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// A load that can be stopped and waited for.
struct Loop {
    measuring: AtomicBool,
    stopped: AtomicBool,
    next: AtomicU64,
}

/// Runs `request(caller, number)` from `callers` callers: first for `warm` unmeasured, then for
/// `span`. `at` is called when the measured span begins and when it has ended.
pub async fn measure<F, R>(
    callers: usize,
    warm: Duration,
    span: Duration,
    mut at: impl FnMut() -> anyhow::Result<()>,
    request: F,
) -> anyhow::Result<Times>
where
    F: Fn(usize, u64) -> R + Clone + Send + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let shared = Arc::new(Loop {
        measuring: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        next: AtomicU64::new(0),
    });
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let (shared, request) = (Arc::clone(&shared), request.clone());
        running.spawn(async move { repeat(&shared, caller, request).await });
    }
    tokio::time::sleep(warm).await;
    at()?;
    let watch = Stopwatch::start();
    shared.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(span).await;
    shared.measuring.store(false, Ordering::Relaxed);
    let took = watch.elapsed();
    at()?;
    shared.stopped.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    while let Some(ended) = running.join_next().await {
        all.extend(ended.context("a caller panicked")??);
    }
    Times::of(all, took)
}

/// One caller; the times of its requests that ended in the measured span, in microseconds.
async fn repeat<F, R>(shared: &Loop, caller: usize, request: F) -> anyhow::Result<Vec<f64>>
where
    F: Fn(usize, u64) -> R,
    R: Future<Output = anyhow::Result<()>>,
{
    let mut times = Vec::new();
    while !shared.stopped.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let watch = Stopwatch::start();
        request(caller, number).await?;
        if shared.measuring.load(Ordering::Relaxed) {
            times.push(watch.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(times)
}

impl Times {
    /// What single times (in microseconds) add up to over a span.
    pub fn of(mut all: Vec<f64>, took: Duration) -> anyhow::Result<Self> {
        anyhow::ensure!(!all.is_empty(), "nothing was answered within {took:?}");
        all.sort_unstable_by(f64::total_cmp);
        let last = all.len() - 1;
        let at = |part: usize| all[last * part / 1_000];
        Ok(Self {
            count: all.len(),
            per_second: all.len() as f64 / took.as_secs_f64(),
            mean: all.iter().sum::<f64>() / all.len() as f64,
            p50: at(500),
            p99: at(990),
            p999: at(999),
        })
    }
}
