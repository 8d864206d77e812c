//! The words of the field: kinds, statuses, outcomes, failures.

use std::time::Duration;

use super::ids::{StepName, Timestamp};
use super::json::Json;

/// What may follow a step, and what its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Can be undone: it has a compensation, or says in so many words that it needs none.
    Compensatable,
    /// The point of no return: once it is known to have succeeded the saga only goes forward.
    Pivot,
    /// Side work after the saga is committed; never fails the saga.
    Retriable,
}

/// Where a saga stands, as its users see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SagaStatus {
    /// Going forward, also while it waits for its locks.
    Running,
    /// Every compensatable step and the pivot are done; side work remains.
    Committed,
    /// Everything is done.
    Completed,
    /// Undoing what ran or may have run.
    Compensating,
    /// Everything is undone.
    Compensated,
    /// Something waits for an operator.
    Blocked,
    /// Ended by an operator as it stood.
    Abandoned,
}

impl SagaStatus {
    /// All values, in the order people read them.
    pub const ALL: [SagaStatus; 7] = [
        SagaStatus::Running,
        SagaStatus::Committed,
        SagaStatus::Completed,
        SagaStatus::Compensating,
        SagaStatus::Compensated,
        SagaStatus::Blocked,
        SagaStatus::Abandoned,
    ];

    /// Whether a saga with this status has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            SagaStatus::Completed | SagaStatus::Compensated | SagaStatus::Abandoned => true,
            SagaStatus::Running | SagaStatus::Committed | SagaStatus::Compensating | SagaStatus::Blocked => {
                false
            }
        }
    }

    /// The word for it, as the filter language and the tables write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SagaStatus::Running => "RUNNING",
            SagaStatus::Committed => "COMMITTED",
            SagaStatus::Completed => "COMPLETED",
            SagaStatus::Compensating => "COMPENSATING",
            SagaStatus::Compensated => "COMPENSATED",
            SagaStatus::Blocked => "BLOCKED",
            SagaStatus::Abandoned => "ABANDONED",
        }
    }
}

/// Which way a saga goes; kept while it is blocked or paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards its commit and its end.
    Forward,
    /// Undoing.
    Backward,
}

/// Where one step instance's action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Not attempted.
    Pending,
    /// In flight, or answered "pending" by its participant.
    Running,
    /// Its effect happened.
    Succeeded,
    /// Definitely refused.
    Failed,
    /// No definite answer.
    Unknown,
    /// Its condition was false, or an operator skipped it.
    Skipped,
}

/// Where one step instance's compensation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompensationStatus {
    /// Nothing to undo (so far).
    NotNeeded,
    /// Owed and not started.
    Pending,
    /// In flight, between retries, or answered "pending".
    Running,
    /// Undone.
    Done,
    /// Waits for an operator.
    Blocked,
    /// An operator let it be.
    Waived,
}

/// Which call of a step is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The step's action.
    Action,
    /// Its compensation.
    Compensation,
    /// The question whether the action's effect exists.
    Probe,
}

impl Phase {
    /// The word that travels with a call.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Action => "action",
            Phase::Compensation => "compensation",
            Phase::Probe => "probe",
        }
    }
}

/// A participant's own reason for a refusal, or the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The participant's own code, or one of [`codes`].
    pub code: String,
    /// For people; never empty.
    pub message: String,
}

/// Failure codes the engine itself gives.
pub mod codes {
    /// The step's budget was spent without a definite answer.
    pub const UNKNOWN: &str = "UNKNOWN";
    /// The participant had already seen the compensation.
    pub const SUPERSEDED: &str = "SUPERSEDED";
    /// The saga's deadline passed.
    pub const DEADLINE: &str = "DEADLINE";
    /// A client or an operator cancelled the saga.
    pub const CANCELLED: &str = "CANCELLED";
    /// The locks were not to be had within the wait limit.
    pub const LOCK_TIMEOUT: &str = "LOCK_TIMEOUT";
    /// An expression could not be evaluated.
    pub const EXPRESSION: &str = "EXPRESSION";
    /// The saga has grown too large to go on.
    pub const SAGA_TOO_LARGE: &str = "SAGA_TOO_LARGE";
    /// The input cannot be written as the request of the called method or path; nothing was sent.
    pub const INPUT_MISMATCH: &str = "INPUT_MISMATCH";
    /// An operator said so.
    pub const OPERATOR: &str = "OPERATOR";
}

/// The first cause of a saga's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The step instance's name (`deduct-stock/0`); empty for a saga-wide cause.
    pub step: String,
    /// The participant's own code, or one of [`codes`].
    pub code: String,
    /// For people; never empty.
    pub message: String,
}

/// What is known after a call: exactly four cases, for a probe that there is none to ask, and for a
/// call that was never made that it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The effect happened. For a probe: it exists.
    Done(Json),
    /// A definite no. For a probe: the effect does not exist and a later arrival will be refused.
    Refused(Refusal),
    /// Still working; `None` leaves the time of the next look to the step's own interval.
    Pending(Option<Duration>),
    /// No definite answer, and why, for people.
    Unknown(String),
    /// The call surely never left the daemon, and why, for people. It costs no budget.
    Unsent(String),
    /// Only for a probe: the participant has none.
    Unsupported,
}

/// One entry of the list of what waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The step instance's name.
    pub step: String,
    /// `Action` or `Compensation`.
    pub phase: Phase,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// The name of a step instance: `deduct-stock`, or `deduct-stock/0` for an item.
#[must_use]
pub fn instance_name(step: &StepName, item: Option<u32>) -> String {
    match item {
        Some(item) => format!("{step}/{item}"),
        None => step.to_string(),
    }
}
