//! Large sagas: lists of many items, chains of many steps, large inputs, and what they do to others.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sagad::clock::Stopwatch;
use sagad::proto;
use sagad::proto::saga_service_client::SagaServiceClient;
use tonic::transport::Channel;

use crate::bars::Bar;
use crate::findings::Findings;
use crate::parts::drive;
use crate::rig::{Participants, Rig};
use crate::sagas::{Kind, ORDER3};
use crate::usage::{resident_mib, written};

const PART: &str = "wide";
const FAN_OUTS: [usize; 5] = [250, 500, 1_000, 2_000, 4_000];
const CHAINS: [usize; 3] = [250, 500, 1_000];
/// Each size is run so often; the quickest counts.
const RUNS: usize = 3;
/// Most for the slope of log time over log size.
const SLOPE_MAX: f64 = 1.2;
/// Bytes of the large input.
const LARGE_BYTES: usize = 1024 * 1024;
/// What an input has beside its padding, amply.
const LARGE_ROOM: usize = 256;
/// Callers beside a wide saga, and its items.
const CALLERS: usize = 16;
const ITEMS: usize = 1_000;
/// Most times the others' p99 without it.
const OTHERS_MAX: f64 = 2.0;
/// Time for the store to write what it writes later.
const WRITE_PAUSE: Duration = Duration::from_millis(1_500);
/// How long the client waits for a large saga.
const WAIT: prost_types::Duration = prost_types::Duration { seconds: 280, nanos: 0 };

const FAN_OUT: &str = "saga: fanout
steps:
  - name: deduct-stock
    for_each: ${input.items}
    concurrency: 64
    action:
      call: stock.deduct
      input: { item_id: \"${item.item_id}\", amount: \"${item.amount}\" }
    compensation:
      call: stock.restore
      input: { item_id: \"${item.item_id}\", amount: \"${item.amount}\" }
";

/// All of it, with sizes up to `most`.
pub async fn wide(dir: &Path, shop: &Participants, most: usize, span: Duration) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let rig = Rig::start(dir, shop, FAN_OUT).await?;
    rig.register(ORDER3).await?;
    let mut points = Vec::new();
    for size in FAN_OUTS.into_iter().filter(|size| *size <= most) {
        let input = items(size);
        points.push(sized(&mut found, &rig, "fan-out", "fanout", &input, size).await?);
    }
    slope(&mut found, "fan-out", &points);
    let mut points = Vec::new();
    for size in CHAINS.into_iter().filter(|size| *size <= most) {
        let name = format!("chain{size}");
        rig.register(&chain(&name, size)).await?;
        points.push(sized(&mut found, &rig, "chain", &name, &items(1), size).await?);
    }
    slope(&mut found, "chain", &points);
    large_input(&mut found, &rig).await?;
    others(&mut found, &rig, span).await?;
    found.read(PART, "resident at the end", resident_mib(rig.pid()?)?, "MiB");
    rig.end().await?;
    Ok(found)
}

/// Runs one size; it and the quickest time.
async fn sized(
    found: &mut Findings,
    rig: &Rig,
    what: &str,
    definition: &str,
    input: &str,
    size: usize,
) -> anyhow::Result<(f64, f64)> {
    let mut client = rig.clients()[0].clone();
    let before = settled_bytes(rig).await?;
    let mut least = f64::MAX;
    for _ in 0..RUNS {
        least = least.min(run(&mut client, definition, input).await?.as_secs_f64());
    }
    let bytes = (settled_bytes(rig).await? - before) / RUNS as f64;
    let each = least * 1e6 / size as f64;
    found.read(PART, format!("{what} of {size}: an item"), each, "µs");
    found.read(PART, format!("{what} of {size}: written for an item"), bytes / size as f64, "bytes");
    Ok((size as f64, least))
}

/// Bytes the daemon has written, once it has written what it writes later.
async fn settled_bytes(rig: &Rig) -> anyhow::Result<f64> {
    tokio::time::sleep(WRITE_PAUSE).await;
    Ok(written(rig.pid()?)? as f64)
}

async fn run(
    client: &mut SagaServiceClient<Channel>,
    definition: &str,
    input: &str,
) -> anyhow::Result<Duration> {
    let request = proto::StartSagaRequest {
        saga_id: uuid::Uuid::now_v7().to_string(),
        definition: definition.to_owned(),
        input_json: input.to_owned(),
        wait: Some(WAIT),
        wait_for: proto::WaitFor::Ended.into(),
        ..proto::StartSagaRequest::default()
    };
    let watch = Stopwatch::start();
    let answer = client.start_saga(request).await.context("start a large saga")?.into_inner();
    let took = watch.elapsed();
    let status = answer.saga.context("an answer without a saga")?.status();
    anyhow::ensure!(status == proto::SagaStatus::Completed, "{definition} ended as {status:?}");
    Ok(took)
}

/// The slope of the line through the logarithms, by least squares.
fn slope(found: &mut Findings, what: &str, points: &[(f64, f64)]) {
    if points.len() < 2 {
        return;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(n, time)| (n.ln(), time.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (up, along) = logs.iter().fold((0.0, 0.0), |(up, along), point| {
        (up + (point.0 - x) * (point.1 - y), along + (point.0 - x) * (point.0 - x))
    });
    found.bars.push(Bar::at_most(format!("wide: slope of a {what}"), up / along, SLOPE_MAX));
}

/// A saga whose input is as large as one may be, but for a little.
async fn large_input(found: &mut Findings, rig: &Rig) -> anyhow::Result<()> {
    let mut client = rig.clients()[0].clone();
    let padding = "x".repeat(LARGE_BYTES - LARGE_ROOM);
    let input =
        format!(r#"{{"user_id":1,"items":[{{"item_id":1,"amount":1}}],"total":10,"note":"{padding}"}}"#);
    let before = settled_bytes(rig).await?;
    let took = run(&mut client, "order3", &input).await?;
    let bytes = settled_bytes(rig).await? - before;
    found.read(PART, "input of 1 MiB: order3", took.as_secs_f64() * 1e3, "ms");
    found.read(PART, "input of 1 MiB: written / input", bytes / LARGE_BYTES as f64, "times");
    Ok(())
}

/// The tail of small sagas with and without a wide one beside them.
async fn others(found: &mut Findings, rig: &Rig, span: Duration) -> anyhow::Result<()> {
    let alone = drive(rig, Kind::ORDER3, CALLERS, span, || Ok(())).await?;
    let mut client = rig.clients().pop().context("no client")?;
    let input = items(ITEMS);
    let beside = async {
        loop {
            if let Err(error) = run(&mut client, "fanout", &input).await {
                break error;
            }
        }
    };
    let with = tokio::select! {
        times = drive(rig, Kind::ORDER3, CALLERS, span, || Ok(())) => times?,
        error = beside => return Err(error),
    };
    found.read(PART, "order3 at C=16: p99", alone.p99 / 1e3, "ms");
    found.read(PART, "order3 at C=16 beside 1,000 items: p99", with.p99 / 1e3, "ms");
    found.read(PART, "order3 at C=16", alone.per_second, "sagas/s");
    found.read(PART, "order3 at C=16 beside 1,000 items", with.per_second, "sagas/s");
    let times = with.p99 / alone.p99;
    found.bars.push(Bar::at_most("wide: others' p99, beside 1,000 items / alone", times, OTHERS_MAX));
    Ok(())
}

fn items(count: usize) -> String {
    let items: Vec<String> = (1..=count).map(|n| format!(r#"{{"item_id":{n},"amount":1}}"#)).collect();
    format!(r#"{{"user_id":1,"items":[{}],"total":10}}"#, items.join(","))
}

/// A definition of so many steps, one behind the other.
fn chain(name: &str, steps: usize) -> String {
    let mut source = format!("saga: {name}\nsteps:\n");
    for step in 0..steps {
        let _infallible = writeln!(
            source,
            "  - name: s{step}\n    action: {{ call: stock.deduct, input: {{ items: \"${{input.items}}\" }} }}\n    \
             compensation: {{ call: stock.restore }}"
        );
    }
    source
}
