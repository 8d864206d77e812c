//! What the machine and the parts below the engine can do, measured in the same run: a sync, a
//! call, a commit. An engine that cost nothing would be bound by these alone.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::proto;
use sagad::store::sled::{SledOptions, SledStore};
use sagad::store::{Fence, Store};
use serde::Serialize;

use crate::closed::measure;
use crate::records::{TRANSITIONS, life};
use crate::rig::Participants;
use crate::usage::cpu;

/// Callers of the probes under load.
const CALLERS: usize = 64;
/// Bytes that each measured sync makes durable.
const SYNC_BYTES: usize = 4096;

/// A call without an engine, over the same library, processes and messages.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Wire {
    /// One at a time: the median, in microseconds.
    pub alone_p50_us: f64,
    /// With 64 in flight.
    pub calls_per_second: f64,
    /// Processor time of the caller for each, in microseconds.
    pub client_cpu_us: f64,
    /// Processor time of the one called.
    pub server_cpu_us: f64,
}

/// Commits without an engine: the same records, through the same store.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Commits {
    /// One at a time: the median, in microseconds.
    pub alone_p50_us: f64,
    /// With 64 waiting.
    pub per_second: f64,
    /// Processor time of a saga's transition from one durable state to the next, in microseconds;
    /// what the store does later for an ended saga is in it.
    pub cpu_us: f64,
}

/// All of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// The median of a sync to stable storage, in microseconds.
    pub sync_p50_us: f64,
    pub wire: Wire,
    pub commits: Commits,
}

/// Measures for about `span` each.
pub async fn probe(dir: &Path, participants: &mut Participants, span: Duration) -> anyhow::Result<Limits> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let sync_p50_us = syncs(dir, span / 4)?;
    let wire = wire(participants, span).await?;
    let commits = commits(&dir.join("probe-store"), span).await?;
    Ok(Limits { sync_p50_us, wire, commits })
}

impl Limits {
    /// The mean of two looks at the same machine, one before and one behind what is held against it.
    pub fn between(self, later: Self) -> Self {
        let mean = |a: f64, b: f64| f64::midpoint(a, b);
        let (w, c) = (&self.wire, &self.commits);
        let (lw, lc) = (&later.wire, &later.commits);
        Self {
            sync_p50_us: mean(self.sync_p50_us, later.sync_p50_us),
            wire: Wire {
                alone_p50_us: mean(w.alone_p50_us, lw.alone_p50_us),
                calls_per_second: mean(w.calls_per_second, lw.calls_per_second),
                client_cpu_us: mean(w.client_cpu_us, lw.client_cpu_us),
                server_cpu_us: mean(w.server_cpu_us, lw.server_cpu_us),
            },
            commits: Commits {
                alone_p50_us: mean(c.alone_p50_us, lc.alone_p50_us),
                per_second: mean(c.per_second, lc.per_second),
                cpu_us: mean(c.cpu_us, lc.cpu_us),
            },
        }
    }
}

fn syncs(dir: &Path, span: Duration) -> anyhow::Result<f64> {
    let path = dir.join("probe-sync");
    let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let mut times = Vec::new();
    let running = Stopwatch::start();
    while running.elapsed() < span {
        let watch = Stopwatch::start();
        file.write_all(&[0x5a; SYNC_BYTES]).and_then(|()| file.sync_data()).context("sync a file")?;
        times.push(watch.elapsed().as_secs_f64() * 1e6);
    }
    drop(file);
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

async fn wire(participants: &mut Participants, span: Duration) -> anyhow::Result<Wire> {
    let clients = Arc::new(participants.clients().await?);
    let pids = [std::process::id(), participants.pid()?];
    let call = move |caller: usize, number: u64| {
        let clients = Arc::clone(&clients);
        async move {
            let mut client = clients[caller % clients.len()].clone();
            client.execute(example_call(number)).await.context("call the participants")?;
            Ok(())
        }
    };
    let alone = measure(1, span / 8, span / 2, || Ok(()), call.clone()).await?;
    let mut used = Vec::new();
    let read = || {
        used.push((cpu(pids[0])?, cpu(pids[1])?));
        Ok(())
    };
    let busy = measure(CALLERS, span / 8, span, read, call).await?;
    let of_each = |used: Duration| used.as_secs_f64() * 1e6 / busy.count as f64;
    Ok(Wire {
        alone_p50_us: alone.p50,
        calls_per_second: busy.per_second,
        client_cpu_us: of_each(used[1].0.saturating_sub(used[0].0)),
        server_cpu_us: of_each(used[1].1.saturating_sub(used[0].1)),
    })
}

/// A call as the engine makes it for the first step.
pub fn example_call(number: u64) -> proto::ExecuteRequest {
    proto::ExecuteRequest {
        saga_id: format!("019338f4-5a00-7c3e-9f10-{number:012x}"),
        definition: "order3".to_owned(),
        step: "deduct-stock".to_owned(),
        action: "deduct".to_owned(),
        idempotency_key: format!("{number:040x}"),
        attempt: 1,
        epoch: 1,
        input_json: format!(
            r#"{{"items":[{{"item_id":{},"amount":1}},{{"item_id":{},"amount":2}}]}}"#,
            2 * number,
            2 * number + 1
        ),
        labels: std::collections::BTreeMap::new(),
        token: format!("{number:032x}.action.deduct-stock.019338f4-5a00-7c3e-9f10-{number:012x}"),
        deadline: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
    }
}

async fn commits(dir: &Path, span: Duration) -> anyhow::Result<Commits> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    let store = Arc::new(SledStore::open(SledOptions::new(dir)).context("open a store for the probe")?);
    let fence = Fence { epoch: store.identity().epoch };
    // Runs are numbered apart, so that no two share an id.
    let commit_life = |run: u64| {
        let store = Arc::clone(&store);
        move |_: usize, number: u64| {
            let store = Arc::clone(&store);
            async move {
                for write in life(run, number) {
                    let receipt = store.commit(fence, vec![write]).await?;
                    anyhow::ensure!(receipt.conflicts.is_empty(), "the probe's own write did not fit");
                }
                Ok(())
            }
        }
    };
    let alone = measure(1, span / 8, span / 2, || Ok(()), commit_life(0)).await?;
    let pid = std::process::id();
    let (mut used, mut written) = (Vec::new(), Vec::new());
    let read = || {
        used.push(cpu(pid)?);
        written.push(store.stats().writes);
        Ok(())
    };
    measure(CALLERS, span / 8, span, read, commit_life(1)).await?;
    store.close().await.context("close the probe's store")?;
    drop(store);
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    let transitions = (written[1] - written[0]) as f64;
    Ok(Commits {
        alone_p50_us: alone.p50 / f64::from(TRANSITIONS),
        per_second: transitions / span.as_secs_f64(),
        cpu_us: used[1].saturating_sub(used[0]).as_secs_f64() * 1e6 / transitions,
    })
}
