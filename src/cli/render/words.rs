//! The words for enum values, without the prefix they carry on the wire, and how each is meant.

use super::text::Tone;
use crate::proto::{
    BreakerState, CompensationStatus, Direction, ParticipantHealth, Protocol, SagaStatus, StepKind,
    StepStatus,
};

fn word(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// `RUNNING`, as the filter language writes it.
#[must_use]
pub fn saga_status(status: SagaStatus) -> &'static str {
    word(status.as_str_name(), "SAGA_STATUS_")
}

/// `FORWARD` or `BACKWARD`.
#[must_use]
pub fn direction(direction: Direction) -> &'static str {
    word(direction.as_str_name(), "DIRECTION_")
}

/// `SUCCEEDED` and so on.
#[must_use]
pub fn step_status(status: StepStatus) -> &'static str {
    word(status.as_str_name(), "STEP_STATUS_")
}

/// `NOT_NEEDED` and so on.
#[must_use]
pub fn compensation_status(status: CompensationStatus) -> &'static str {
    word(status.as_str_name(), "COMPENSATION_STATUS_")
}

/// `COMPENSATABLE`, `PIVOT` or `RETRIABLE`.
#[must_use]
pub fn step_kind(kind: StepKind) -> &'static str {
    word(kind.as_str_name(), "STEP_KIND_")
}

/// `SAGAD` and so on.
#[must_use]
pub fn protocol(protocol: Protocol) -> &'static str {
    word(protocol.as_str_name(), "PROTOCOL_")
}

/// `HEALTHY` and so on.
#[must_use]
pub fn health(health: ParticipantHealth) -> &'static str {
    word(health.as_str_name(), "PARTICIPANT_HEALTH_")
}

/// `CLOSED`, `OPEN` or `HALF_OPEN`.
#[must_use]
pub fn breaker(breaker: BreakerState) -> &'static str {
    word(breaker.as_str_name(), "BREAKER_STATE_")
}

/// How a saga's status is meant.
#[must_use]
pub fn saga_tone(status: SagaStatus) -> Tone {
    match status {
        SagaStatus::Committed | SagaStatus::Completed => Tone::Good,
        SagaStatus::Blocked | SagaStatus::Abandoned => Tone::Bad,
        SagaStatus::Compensating | SagaStatus::Compensated => Tone::Wary,
        SagaStatus::Unspecified | SagaStatus::Running => Tone::Plain,
    }
}

/// How a step's status is meant.
#[must_use]
pub fn step_tone(status: StepStatus) -> Tone {
    match status {
        StepStatus::Succeeded => Tone::Good,
        StepStatus::Failed => Tone::Bad,
        StepStatus::Unknown => Tone::Wary,
        StepStatus::Pending | StepStatus::Skipped => Tone::Faint,
        StepStatus::Unspecified | StepStatus::Running => Tone::Plain,
    }
}

/// How a compensation's status is meant.
#[must_use]
pub fn compensation_tone(status: CompensationStatus) -> Tone {
    match status {
        CompensationStatus::Done => Tone::Good,
        CompensationStatus::Blocked => Tone::Bad,
        CompensationStatus::Waived => Tone::Wary,
        CompensationStatus::NotNeeded => Tone::Faint,
        CompensationStatus::Unspecified | CompensationStatus::Pending | CompensationStatus::Running => {
            Tone::Plain
        }
    }
}

/// How a participant's health is meant.
#[must_use]
pub fn health_tone(health: ParticipantHealth) -> Tone {
    match health {
        ParticipantHealth::Healthy => Tone::Good,
        ParticipantHealth::Degraded => Tone::Wary,
        ParticipantHealth::Down | ParticipantHealth::Absent => Tone::Bad,
        ParticipantHealth::Unspecified => Tone::Plain,
    }
}
