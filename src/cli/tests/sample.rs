//! Answers of a daemon that the tests draw.

use std::collections::BTreeMap;

use prost_types::{Duration, Timestamp};

use crate::proto::{
    Block, BreakerState, CompensationStatus, Definition, DefinitionCount, DefinitionStep, Direction,
    ExplainResponse, Failure, GetStatsResponse, HandlerAction, Latency, NextMove, Participant,
    ParticipantHealth, ParticipantPause, PlannedCall, Protocol, QueueDepth, Registration, RepairResponse,
    Saga, SagaEvent, SagaStatus, StatusCount, Step, StepKind, StepStatus, StoreStats, StuckItem,
};

/// When the samples began: 2026-01-01T00:00:00Z.
pub const BEGAN_SECONDS: i64 = 1_767_225_600;

#[expect(clippy::unnecessary_wraps, reason = "a field of a message is always an option")]
fn at(millis: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(millis % 1_000).unwrap() * 1_000_000;
    Some(Timestamp { seconds: BEGAN_SECONDS + millis / 1_000, nanos })
}

#[expect(clippy::unnecessary_wraps, reason = "a field of a message is always an option")]
fn millis(count: i32) -> Option<Duration> {
    Some(Duration { seconds: i64::from(count / 1_000), nanos: count % 1_000 * 1_000_000 })
}

fn point_short() -> Failure {
    Failure {
        step: "use-point".to_owned(),
        code: "POINT_SHORT".to_owned(),
        message: "30 points short".to_owned(),
    }
}

fn deducted(item: u32, compensation: CompensationStatus) -> Step {
    Step {
        name: format!("deduct-stock/{item}"),
        kind: StepKind::Compensatable.into(),
        status: StepStatus::Succeeded.into(),
        attempts: 1,
        input_json: format!(r#"{{"item_id":900719925474099{item},"amount":2}}"#),
        output_json: r#"{"left":98}"#.to_owned(),
        compensation: compensation.into(),
        compensation_attempts: 1,
        started_at: at(4),
        ended_at: at(31),
        ..Step::default()
    }
}

/// Turned back by a refusal; one compensation waits for an operator.
pub fn blocked_saga() -> Saga {
    let stuck = Step {
        compensation_attempts: 8,
        failure: Some(Failure {
            step: "deduct-stock/1".to_owned(),
            code: "UNKNOWN".to_owned(),
            message: "connection refused".to_owned(),
        }),
        ..deducted(1, CompensationStatus::Blocked)
    };
    let refused = Step {
        name: "use-point".to_owned(),
        kind: StepKind::Compensatable.into(),
        status: StepStatus::Failed.into(),
        attempts: 2,
        input_json: r#"{"user_id":7,"amount":130}"#.to_owned(),
        failure: Some(point_short()),
        compensation: CompensationStatus::NotNeeded.into(),
        started_at: at(33),
        ended_at: at(160),
        ..Step::default()
    };
    let never = Step {
        name: "clear-cart".to_owned(),
        kind: StepKind::Retriable.into(),
        status: StepStatus::Pending.into(),
        compensation: CompensationStatus::NotNeeded.into(),
        ..Step::default()
    };
    Saga {
        saga_id: "order-18".to_owned(),
        definition: "order".to_owned(),
        version: 3,
        digest: "5f".repeat(32),
        status: SagaStatus::Blocked.into(),
        direction: Direction::Backward.into(),
        input_json: r#"{"user_id":9007199254740993,"items":[{"item_id":1,"amount":2}],"total":130.5}"#
            .to_owned(),
        labels: BTreeMap::from([("region".to_owned(), "kr".to_owned())]),
        steps: vec![deducted(0, CompensationStatus::Done), stuck, refused, never],
        failure: Some(point_short()),
        blocked: vec![Block {
            step: "deduct-stock/1".to_owned(),
            phase: "compensation".to_owned(),
            reason: "8 attempts without an answer: connection refused".to_owned(),
            since: at(120_000),
        }],
        created_at: at(0),
        updated_at: at(120_000),
        seq: 27,
        ..Saga::default()
    }
}

/// Went all the way.
pub fn completed_saga() -> Saga {
    Saga {
        saga_id: "order-16".to_owned(),
        definition: "order".to_owned(),
        version: 3,
        status: SagaStatus::Completed.into(),
        direction: Direction::Forward.into(),
        committed: true,
        output_json: r#"{"order_id":9007199254740993}"#.to_owned(),
        created_at: at(0),
        updated_at: at(1_250),
        ended_at: at(1_250),
        seq: 14,
        ..Saga::default()
    }
}

/// Was undone.
pub fn compensated_saga() -> Saga {
    Saga {
        saga_id: "order-17".to_owned(),
        status: SagaStatus::Compensated.into(),
        direction: Direction::Backward.into(),
        failure: Some(point_short()),
        ended_at: at(200_000),
        updated_at: at(200_000),
        blocked: Vec::new(),
        steps: Vec::new(),
        ..blocked_saga()
    }
}

/// The history of a saga that turned back, with an operator's help.
pub fn history() -> Vec<SagaEvent> {
    let rows: [(i64, &str, &str, u32, &str, &str); 11] = [
        (0, "saga_started", "", 0, "", r#"{"version":3}"#),
        (4, "step_started", "deduct-stock/0", 1, "", r#"{"epoch":1}"#),
        (31, "step_succeeded", "deduct-stock/0", 1, "", r#"{"output":{"left":98}}"#),
        (33, "step_started", "use-point", 1, "", ""),
        (160, "step_failed", "use-point", 1, "30 points short", r#"{"code":"POINT_SHORT"}"#),
        (160, "saga_compensating", "", 0, "POINT_SHORT: 30 points short", ""),
        (162, "compensation_started", "deduct-stock/0", 1, "", ""),
        (
            2_162,
            "compensation_unknown",
            "deduct-stock/0",
            1,
            "no answer within 2 s",
            r#"{"retry_at":"2026-01-01T00:00:02.300Z"}"#,
        ),
        (
            72_000,
            "operator_act",
            "deduct-stock/0",
            0,
            "the stock service is back after its disk was replaced",
            r#"{"act":"retry_now"}"#,
        ),
        (72_010, "compensation_done", "deduct-stock/0", 2, "", ""),
        (72_010, "saga_compensated", "", 0, "", ""),
    ];
    let event =
        |(seq, (millis, kind, step, attempt, reason, detail)): (u64, (i64, &str, &str, u32, &str, &str))| {
            SagaEvent {
                seq,
                saga_id: "order-17".to_owned(),
                at: at(millis),
                r#type: kind.to_owned(),
                step: step.to_owned(),
                attempt,
                actor: if kind == "operator_act" { "mina".to_owned() } else { String::new() },
                reason: reason.to_owned(),
                detail_json: detail.to_owned(),
            }
        };
    (1..).zip(rows).map(event).collect()
}

/// Why the blocked saga stands.
pub fn explanation() -> ExplainResponse {
    ExplainResponse {
        summary: vec![
            "order-18 is BLOCKED, going backward.".to_owned(),
            "The compensation of deduct-stock/1 waits for an operator: connection refused.".to_owned(),
        ],
        next: vec![
            NextMove {
                what: "attempt 2 of point.charge".to_owned(),
                step: "use-point".to_owned(),
                phase: "compensation".to_owned(),
                at: at(612_000),
            },
            NextMove { what: "the saga is compensated".to_owned(), ..NextMove::default() },
        ],
        suggested_command: "sagactl retry order-18 deduct-stock/1 --reason '…'".to_owned(),
        saga: Some(blocked_saga()),
    }
}

/// Two calls that wait.
pub fn stuck_items() -> Vec<StuckItem> {
    let item = |saga: &str, since: i64| StuckItem {
        saga_id: saga.to_owned(),
        definition: "order".to_owned(),
        status: SagaStatus::Blocked.into(),
        step: "deduct-stock/1".to_owned(),
        phase: "compensation".to_owned(),
        reason: "8 attempts without an answer: connection refused".to_owned(),
        since: at(since),
        suggested_command: format!("sagactl retry {saga} deduct-stock/1 --reason '…'"),
    };
    vec![item("order-12", 0), item("order-18", 120_000)]
}

/// What retrying would lead to.
pub fn repair_plan() -> RepairResponse {
    let call = PlannedCall {
        step: "deduct-stock/1".to_owned(),
        phase: "compensation".to_owned(),
        participant: "stock".to_owned(),
        action: "restore".to_owned(),
        note: String::new(),
    };
    RepairResponse { plan: vec![call], saga: Some(Saga { blocked: Vec::new(), ..compensating() }) }
}

fn compensating() -> Saga {
    Saga { status: SagaStatus::Compensating.into(), ..blocked_saga() }
}

/// An order with all three kinds of steps.
pub fn definition() -> Definition {
    let step =
        |name: &str, kind: StepKind, after: &[&str], action: &str, compensation: &str| DefinitionStep {
            name: name.to_owned(),
            kind: kind.into(),
            after: after.iter().map(ToString::to_string).collect(),
            action: action.to_owned(),
            compensation: compensation.to_owned(),
            ..DefinitionStep::default()
        };
    let mut steps = vec![
        step("deduct-stock", StepKind::Compensatable, &[], "stock.deduct", "stock.restore"),
        step("use-point", StepKind::Compensatable, &[], "point.use", "point.charge"),
        step("charge-card", StepKind::Pivot, &["deduct-stock", "use-point"], "card.charge", ""),
        step("clear-cart", StepKind::Retriable, &["charge-card"], "cart.clear", ""),
    ];
    steps[0].for_each = "${input.items}".to_owned();
    steps[2].probe = "card.look".to_owned();
    steps[3].when = r#"${input.channel == "web"}"#.to_owned();
    Definition {
        name: "order".to_owned(),
        version: 3,
        digest: "5f".repeat(32),
        source: "saga: order\n".to_owned(),
        active: true,
        created_at: at(0),
        steps,
        description: "Places an order.".to_owned(),
    }
}

/// One that is well, one that nobody offers any more.
pub fn participants() -> Vec<Participant> {
    let action = |name: &str| HandlerAction { name: name.to_owned(), ..HandlerAction::default() };
    let registration = |id: &str, port: u16| Registration {
        registration_id: id.to_owned(),
        endpoint: format!("http://127.0.0.1:{port}"),
        max_in_flight: 64,
        in_flight: 3,
        expires_at: at(630_000),
        calls: 120,
        breaker: BreakerState::Closed.into(),
        calls_recent: 20,
        ..Registration::default()
    };
    let failing = Registration {
        in_flight: 0,
        breaker: BreakerState::Open.into(),
        next_trial_at: at(630_000),
        calls_recent: 40,
        unknown_recent: 31,
        last_error: "connect to http://127.0.0.1:9003: connection refused".to_owned(),
        ..registration("r-3", 9_003)
    };
    let from_config = Registration { from_config: true, expires_at: None, ..registration("r-2", 9_002) };
    vec![
        Participant {
            name: "stock".to_owned(),
            protocol: Protocol::Sagad.into(),
            health: ParticipantHealth::Healthy.into(),
            in_flight: 6,
            breaker: BreakerState::Closed.into(),
            actions: vec![action("deduct"), action("restore")],
            registrations: vec![registration("r-1", 9_001), from_config],
            pause: None,
        },
        Participant {
            name: "card".to_owned(),
            protocol: Protocol::Sagad.into(),
            health: ParticipantHealth::Down.into(),
            breaker: BreakerState::Open.into(),
            actions: vec![action("charge")],
            registrations: vec![failing],
            ..Participant::default()
        },
        Participant {
            name: "point".to_owned(),
            health: ParticipantHealth::Absent.into(),
            breaker: BreakerState::Closed.into(),
            pause: Some(ParticipantPause {
                reason: "the ledger is being moved".to_owned(),
                actor: "mia".to_owned(),
                since: at(0),
            }),
            ..Participant::default()
        },
    ]
}

/// The figures of a busy minute.
pub fn stats() -> GetStatsResponse {
    let status = |status: SagaStatus, count| StatusCount { status: status.into(), count };
    GetStatsResponse {
        by_status: vec![status(SagaStatus::Running, 12), status(SagaStatus::Blocked, 1)],
        by_definition: vec![DefinitionCount {
            definition: "order".to_owned(),
            version: 3,
            status: SagaStatus::Running.into(),
            count: 12,
        }],
        started_per_second: 210.25,
        ended_per_second: 208.0,
        latencies: vec![Latency {
            name: "start".to_owned(),
            p50: millis(3),
            p95: millis(9),
            p99: None,
            samples: 12_600,
        }],
        queues: vec![QueueDepth { name: "shard 0".to_owned(), depth: 4, capacity: 1_024 }],
        in_flight_calls: 31,
        store: Some(StoreStats {
            commits: 90_210,
            commit_batch_size: 7.5,
            fsync_p50: millis(2),
            fsync_p99: millis(11),
            bytes_on_disk: 734_003_200,
        }),
        outbox_records: 1,
        stuck: 1,
        uptime: Some(Duration { seconds: 7_261, nanos: 0 }),
        version: "0.1.0".to_owned(),
        oldest_open_started_at: at(-7_200_000),
    }
}
