//! The facts of a saga's life. A saga's journal is a list of them and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ids::{DefinitionName, Digest, InstanceRef, LockKey, SagaId, StepIx, Timestamp, Version};
use super::input::Act;
use super::json::Json;
use super::words::{Failure, Phase, Refusal};

/// One numbered fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Place in the journal: 1 for the first, without gaps.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// What can happen to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The saga was accepted. Always the first fact, and only the first.
    SagaStarted(Box<Started>),
    /// Another saga holds one of its keys; it waits in the queue until the given time.
    LockWaiting { until: Timestamp },
    /// All keys are held. The deadline counts from here; without lock keys, from the start.
    LockGranted,
    /// A `for_each` list was evaluated: a JSON list, one instance an item.
    StepExpanded { step: StepIx, items: Json },
    /// Attempt `attempt` of the action is about to be called. `input` is there the first time.
    StepStarted { at: InstanceRef, attempt: u32, epoch: u64, input: Option<CallInput> },
    /// The effect happened.
    StepSucceeded { at: InstanceRef, attempt: u32, output: Json, source: Source },
    /// A definite no. With `retry_at` it does not settle the step: a retriable step tries again,
    /// and a pivot that an earlier attempt left in doubt is probed.
    StepFailed {
        at: InstanceRef,
        attempt: u32,
        refusal: Refusal,
        elapsed: Duration,
        retry_at: Option<Timestamp>,
        source: Source,
    },
    /// No definite answer. `elapsed` is what the attempt adds to the budget; without `retry_at`
    /// no further attempt follows by itself. `unsent`: the attempt surely never left the daemon, and
    /// costs nothing.
    StepUnknown {
        at: InstanceRef,
        attempt: u32,
        cause: String,
        elapsed: Duration,
        retry_at: Option<Timestamp>,
        unsent: bool,
    },
    /// The participant is still working; the next look is due at `check_at`, the last at `until`.
    StepPending { at: InstanceRef, attempt: u32, check_at: Timestamp, until: Timestamp },
    /// The participant is about to be asked whether the effect exists.
    StepProbed { at: InstanceRef, probe: u32, epoch: u64, input: Option<CallInput> },
    /// The participant has no probe; from now on the action itself is called again.
    ProbeUnsupported { at: InstanceRef },
    /// Its condition was false (`item` is `None` and the step has no instances), or an operator
    /// skipped the instance.
    StepSkipped { at: InstanceRef, source: Source },
    /// All compensatable steps and the pivot are done. The locks are released here.
    SagaCommitted { output: Json },
    /// Somebody cancelled; nothing further is started forward.
    CancelRequested { actor: String, reason: String },
    /// The deadline passed before the commit.
    DeadlinePassed,
    /// The saga turned back; `failure` is the first cause.
    SagaCompensating { failure: Failure },
    /// Attempt `attempt` of the compensation is about to be called. `input` is there the first time.
    CompensationStarted { at: InstanceRef, attempt: u32, epoch: u64, input: Option<CallInput> },
    /// Undone.
    CompensationDone { at: InstanceRef, attempt: u32, output: Json, source: Source },
    /// The compensation was refused; it blocks.
    CompensationRefused { at: InstanceRef, attempt: u32, refusal: Refusal },
    /// No definite answer from the compensation; without `retry_at` it blocks. `unsent` as above.
    CompensationUnknown {
        at: InstanceRef,
        attempt: u32,
        cause: String,
        elapsed: Duration,
        retry_at: Option<Timestamp>,
        unsent: bool,
    },
    /// The participant still works on the compensation.
    CompensationPending { at: InstanceRef, attempt: u32, check_at: Timestamp, until: Timestamp },
    /// An operator let a blocked compensation be.
    CompensationWaived { at: InstanceRef },
    /// Waits for an operator.
    Blocked { at: InstanceRef, phase: Phase, reason: String },
    /// The block was lifted by what follows.
    Unblocked { at: InstanceRef, phase: Phase },
    /// An operator acted; the facts that follow in the same commit are what it led to.
    OperatorAct { act: Act, actor: String, reason: String },
    /// A reply that could not change anything any more. A late `done` behind a finished
    /// compensation makes the saga uncertain.
    LateReply { at: InstanceRef, phase: Phase, attempt: u32, summary: String, uncertain: bool },
    /// An expression in `output` or `events` failed and counts as null.
    ExpressionFailed { place: String, message: String },
    /// An outbox record of this commit.
    EventEmitted { topic: String, key: String, data: Json },
    /// Everything is done.
    SagaCompleted,
    /// Everything is undone. The locks are released here at the latest.
    SagaCompensated,
    /// An operator ended it; the names are the steps left as they were.
    SagaAbandoned { steps: Vec<String> },
}

/// What a saga was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its identity.
    pub id: SagaId,
    /// The definition it runs,
    pub definition: DefinitionName,
    /// in this version for ever,
    pub version: Version,
    /// which has this digest.
    pub digest: Digest,
    /// The version the client asked for; 0 for the newest active one. Part of the request that a
    /// repeated start is compared with.
    pub version_asked: u32,
    /// The client's input: an object.
    pub input: Json,
    /// The client's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The lock keys, sorted, without repeats.
    pub locks: Vec<LockKey>,
}

/// A call's input, stored once: itself, or what it equals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallInput {
    /// The document.
    Inline(Json),
    /// The saga's own input.
    Saga,
    /// The input of the same instance's action.
    Action,
}

/// Who said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The participant's reply to the call.
    Reply,
    /// The participant's answer to a probe.
    Probe,
    /// The participant, later, by the step's token.
    Token,
    /// An operator.
    Operator,
    /// The engine, by the definition: a false condition, a failed expression.
    Engine,
}

impl Event {
    /// The word for this event in a watch stream and in the history.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Event::SagaStarted(_) => "saga_started",
            Event::LockWaiting { .. } => "lock_waiting",
            Event::LockGranted => "lock_granted",
            Event::StepExpanded { .. } => "step_expanded",
            Event::StepStarted { .. } => "step_started",
            Event::StepSucceeded { .. } => "step_succeeded",
            Event::StepFailed { .. } => "step_failed",
            Event::StepUnknown { .. } => "step_unknown",
            Event::StepPending { .. } => "step_pending",
            Event::StepProbed { .. } => "step_probed",
            Event::ProbeUnsupported { .. } => "probe_unsupported",
            Event::StepSkipped { .. } => "step_skipped",
            Event::SagaCommitted { .. } => "saga_committed",
            Event::CancelRequested { .. } => "cancel_requested",
            Event::DeadlinePassed => "deadline_passed",
            Event::SagaCompensating { .. } => "saga_compensating",
            Event::CompensationStarted { .. } => "compensation_started",
            Event::CompensationDone { .. } => "compensation_done",
            Event::CompensationRefused { .. } => "compensation_refused",
            Event::CompensationUnknown { .. } => "compensation_unknown",
            Event::CompensationPending { .. } => "compensation_pending",
            Event::CompensationWaived { .. } => "compensation_waived",
            Event::Blocked { .. } => "blocked",
            Event::Unblocked { .. } => "unblocked",
            Event::OperatorAct { .. } => "operator_act",
            Event::LateReply { .. } => "late_reply",
            Event::ExpressionFailed { .. } => "expression_failed",
            Event::EventEmitted { .. } => "event_emitted",
            Event::SagaCompleted => "saga_completed",
            Event::SagaCompensated => "saga_compensated",
            Event::SagaAbandoned { .. } => "saga_abandoned",
        }
    }
}
