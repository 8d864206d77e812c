//! What operators read: explanations, plans, what is stuck, figures.

use std::collections::BTreeMap;

use super::{duration, saga::saga, status, timestamp};
use crate::engine::request::{EngineStats, SagaView, StuckItem};
use crate::metrics::Quantiles;
use crate::proto;
use crate::saga::view::{Explanation, NextMove, PlannedCall};
use crate::saga::words::{Phase, SagaStatus};

/// Why a saga stands where it stands.
#[must_use]
pub fn explanation(explanation: Explanation, view: &SagaView) -> proto::ExplainResponse {
    proto::ExplainResponse {
        summary: explanation.lines,
        next: explanation.next.into_iter().map(next_move).collect(),
        suggested_command: explanation.suggested_command.unwrap_or_default(),
        saga: Some(saga(view)),
    }
}

fn next_move(next: NextMove) -> proto::NextMove {
    proto::NextMove { what: next.what, step: next.step, phase: phase(next.phase), at: next.at.map(timestamp) }
}

fn phase(phase: Option<Phase>) -> String {
    phase.map(Phase::as_str).unwrap_or_default().to_owned()
}

/// A call that an act leads to.
#[must_use]
pub fn planned_call(call: PlannedCall) -> proto::PlannedCall {
    proto::PlannedCall {
        step: call.step,
        phase: call.phase.as_str().to_owned(),
        participant: call.participant,
        action: call.action,
        note: call.note,
    }
}

/// Something that waits for an operator.
#[must_use]
pub fn stuck_item(item: StuckItem) -> proto::StuckItem {
    proto::StuckItem {
        saga_id: item.saga_id.to_string(),
        definition: item.definition.to_string(),
        status: status(item.status).into(),
        step: item.step,
        phase: phase(item.phase),
        reason: item.reason,
        since: Some(timestamp(item.since)),
        suggested_command: item.suggested_command,
    }
}

/// The engine's figures as of now.
#[must_use]
pub fn stats(stats: EngineStats) -> proto::GetStatsResponse {
    let mut by_status: BTreeMap<SagaStatus, u64> = SagaStatus::ALL.map(|status| (status, 0)).into();
    for ((_, _, status), count) in &stats.counters {
        *by_status.entry(*status).or_default() += count;
    }
    let by_definition = stats.counters.into_iter().filter(|(_, count)| *count > 0).map(
        |((definition, version, of), count)| proto::DefinitionCount {
            definition: definition.to_string(),
            version: version.0,
            status: status(of).into(),
            count,
        },
    );
    let queues = (0u32..).zip(stats.mail_depths).map(|(shard, depth)| proto::QueueDepth {
        name: format!("shard-{shard}"),
        depth,
        capacity: stats.mail_capacity,
    });
    let store = stats.store;
    let minute = stats.last_minute;
    proto::GetStatsResponse {
        by_status: by_status
            .into_iter()
            .map(|(of, count)| proto::StatusCount { status: status(of).into(), count })
            .collect(),
        by_definition: by_definition.collect(),
        started_per_second: minute.started_per_second,
        ended_per_second: minute.ended_per_second,
        latencies: vec![
            latency("start", minute.start),
            latency("committed", minute.committed),
            latency("ended", minute.ended),
            latency("call", minute.call),
        ],
        queues: queues.collect(),
        in_flight_calls: stats.calls_in_flight,
        store: Some(proto::StoreStats {
            commits: store.commits,
            commit_batch_size: minute.commit_batch_size,
            fsync_p50: minute.fsync.p50.map(duration),
            fsync_p99: minute.fsync.p99.map(duration),
            bytes_on_disk: store.disk_bytes,
        }),
        outbox_records: store.outbox_records,
        stuck: stats.stuck,
        uptime: Some(duration(stats.uptime)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        oldest_open_started_at: Some(timestamp(stats.oldest_open_started_at)),
    }
}

fn latency(name: &str, took: Quantiles) -> proto::Latency {
    proto::Latency {
        name: name.to_owned(),
        p50: took.p50.map(duration),
        p95: took.p95.map(duration),
        p99: took.p99.map(duration),
        samples: took.samples,
    }
}
