//! The daemon's counts and figures, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::page::Page;
use super::table::{Cell, lay_out};
use super::{text, words};
use crate::proto;

/// The figures, for programs. Spans are in seconds.
#[derive(Debug, Serialize)]
pub struct StatsView<'a> {
    version: &'a str,
    uptime_seconds: Option<f64>,
    by_status: Vec<StatusView>,
    by_definition: Vec<DefinitionCountView<'a>>,
    started_per_second: f64,
    ended_per_second: f64,
    latencies: Vec<LatencyView<'a>>,
    queues: Vec<QueueView<'a>>,
    in_flight_calls: u64,
    store: Option<StoreView>,
    outbox_records: u64,
    stuck: u64,
    oldest_open_started_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct StatusView {
    status: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct DefinitionCountView<'a> {
    definition: &'a str,
    version: u32,
    status: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct LatencyView<'a> {
    name: &'a str,
    p50_seconds: Option<f64>,
    p95_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    samples: u64,
}

#[derive(Debug, Serialize)]
struct QueueView<'a> {
    name: &'a str,
    depth: u64,
    capacity: u64,
}

#[derive(Debug, Serialize)]
struct StoreView {
    commits: u64,
    commit_batch_size: f64,
    fsync_p50_seconds: Option<f64>,
    fsync_p99_seconds: Option<f64>,
    bytes_on_disk: u64,
}

/// The figures, for programs.
#[must_use]
pub fn view(stats: &proto::GetStatsResponse) -> StatsView<'_> {
    StatsView {
        version: &stats.version,
        uptime_seconds: seconds(stats.uptime.as_ref()),
        by_status: stats.by_status.iter().map(status_view).collect(),
        by_definition: stats.by_definition.iter().map(definition_view).collect(),
        started_per_second: stats.started_per_second,
        ended_per_second: stats.ended_per_second,
        latencies: stats.latencies.iter().map(latency_view).collect(),
        queues: stats.queues.iter().map(queue_view).collect(),
        in_flight_calls: stats.in_flight_calls,
        store: stats.store.as_ref().map(store_view),
        outbox_records: stats.outbox_records,
        stuck: stats.stuck,
        oldest_open_started_at: text::rfc3339(stats.oldest_open_started_at.as_ref()),
    }
}

fn status_view(count: &proto::StatusCount) -> StatusView {
    StatusView { status: words::saga_status(count.status()), count: count.count }
}

fn definition_view(count: &proto::DefinitionCount) -> DefinitionCountView<'_> {
    DefinitionCountView {
        definition: &count.definition,
        version: count.version,
        status: words::saga_status(count.status()),
        count: count.count,
    }
}

fn latency_view(latency: &proto::Latency) -> LatencyView<'_> {
    LatencyView {
        name: &latency.name,
        p50_seconds: seconds(latency.p50.as_ref()),
        p95_seconds: seconds(latency.p95.as_ref()),
        p99_seconds: seconds(latency.p99.as_ref()),
        samples: latency.samples,
    }
}

fn queue_view(queue: &proto::QueueDepth) -> QueueView<'_> {
    QueueView { name: &queue.name, depth: queue.depth, capacity: queue.capacity }
}

fn store_view(store: &proto::StoreStats) -> StoreView {
    StoreView {
        commits: store.commits,
        commit_batch_size: store.commit_batch_size,
        fsync_p50_seconds: seconds(store.fsync_p50.as_ref()),
        fsync_p99_seconds: seconds(store.fsync_p99.as_ref()),
        bytes_on_disk: store.bytes_on_disk,
    }
}

fn duration(span: Option<&prost_types::Duration>) -> Option<Duration> {
    span.and_then(|span| Duration::try_from(*span).ok())
}

fn seconds(span: Option<&prost_types::Duration>) -> Option<f64> {
    duration(span).map(|span| span.as_secs_f64())
}

/// The figures, for people.
#[must_use]
pub fn figures(stats: &proto::GetStatsResponse, page: &Page) -> String {
    let up = duration(stats.uptime.as_ref()).map_or_else(|| text::NONE.to_owned(), text::span);
    let mut told = format!(
        "sagad {}, up {up}\n{:.1} started/s, {:.1} ended/s, {} in flight, {} stuck, {} unpublished\n",
        text::or_none(&stats.version),
        stats.started_per_second,
        stats.ended_per_second,
        text::counted(stats.in_flight_calls, "call"),
        stats.stuck,
        text::counted(stats.outbox_records, "outbox record"),
    );
    if let Some(at) = text::rfc3339(stats.oldest_open_started_at.as_ref()) {
        let _ = writeln!(told, "no open saga started before {at}");
    }
    let rows = stats.by_status.iter().map(|count| {
        let tone = words::saga_tone(count.status());
        vec![Cell::toned(words::saga_status(count.status()), tone), Cell::number(count.count)]
    });
    section(&mut told, page, &["STATUS", "SAGAS"], rows.collect());
    let rows = stats.by_definition.iter().map(|count| {
        vec![
            Cell::of(format!("{} v{}", count.definition, count.version)),
            Cell::of(words::saga_status(count.status())),
            Cell::number(count.count),
        ]
    });
    section(&mut told, page, &["DEFINITION", "STATUS", "SAGAS"], rows.collect());
    let rows = stats.latencies.iter().map(|latency| {
        let percentile = |span: Option<&prost_types::Duration>| {
            Cell::of(duration(span).map_or_else(|| text::NONE.to_owned(), milliseconds))
        };
        vec![
            Cell::of(&latency.name),
            percentile(latency.p50.as_ref()),
            percentile(latency.p95.as_ref()),
            percentile(latency.p99.as_ref()),
            Cell::number(latency.samples),
        ]
    });
    section(&mut told, page, &["LATENCY", "P50", "P95", "P99", "SAMPLES"], rows.collect());
    let rows = stats.queues.iter().map(|queue| {
        let capacity = if queue.capacity == 0 { Cell::of("") } else { Cell::number(queue.capacity) };
        vec![Cell::of(&queue.name), Cell::number(queue.depth), capacity]
    });
    section(&mut told, page, &["QUEUE", "DEPTH", "CAPACITY"], rows.collect());
    if let Some(store) = &stats.store {
        let fsync = |span: Option<&prost_types::Duration>| {
            duration(span).map_or_else(|| text::NONE.to_owned(), milliseconds)
        };
        let _ = writeln!(
            told,
            "\nstore: {} of {:.1} changes, fsync p50 {} p99 {}, {} MiB on disk",
            text::counted(store.commits, "commit"),
            store.commit_batch_size,
            fsync(store.fsync_p50.as_ref()),
            fsync(store.fsync_p99.as_ref()),
            store.bytes_on_disk / (1024 * 1024),
        );
    }
    told
}

fn section(told: &mut String, page: &Page, heads: &[&str], rows: Vec<Vec<Cell>>) {
    if !rows.is_empty() {
        let _ = write!(told, "\n{}", lay_out(page, heads, rows));
    }
}

/// Latencies read best in one unit.
fn milliseconds(span: Duration) -> String {
    format!("{:.1}ms", span.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{drawn, narrow_page, sample};

    #[test]
    fn figures_on_eighty_columns() {
        insta::assert_snapshot!(drawn(&figures(&sample::stats(), &narrow_page())));
    }
}
