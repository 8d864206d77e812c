//! The stored messages. Tags are never reused and fields never change their meaning; a new one may
//! be added when its absence means what it meant before.
//!
//! Times are milliseconds since the Unix epoch, spans are nanoseconds, JSON documents travel as
//! their exact text. Words (statuses, phases, sources) are numbered from 1; 0 is never written.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// The facts of one commit for one saga.
#[derive(Clone, PartialEq, Message)]
pub struct FactsForm {
    #[prost(message, repeated, tag = "1")]
    pub facts: Vec<FactForm>,
}

/// One fact.
#[derive(Clone, PartialEq, Message)]
pub struct FactForm {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(sint64, tag = "2")]
    pub at: i64,
    #[prost(
        oneof = "EventForm",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, \
                33, 34, 35, 36, 37, 38, 39, 40"
    )]
    pub event: Option<EventForm>,
}

/// What happened: one arm for each event.
#[derive(Clone, PartialEq, Oneof)]
pub enum EventForm {
    #[prost(message, tag = "10")]
    SagaStarted(StartedForm),
    #[prost(sint64, tag = "11")]
    LockWaiting(i64),
    #[prost(message, tag = "12")]
    LockGranted(NothingForm),
    #[prost(message, tag = "13")]
    StepExpanded(ExpandedForm),
    #[prost(message, tag = "14")]
    StepStarted(CallStartedForm),
    #[prost(message, tag = "15")]
    StepSucceeded(CallDoneForm),
    #[prost(message, tag = "16")]
    StepFailed(StepFailedForm),
    #[prost(message, tag = "17")]
    StepUnknown(CallUnknownForm),
    #[prost(message, tag = "18")]
    StepPending(CallPendingForm),
    #[prost(message, tag = "19")]
    StepProbed(ProbedForm),
    #[prost(message, tag = "20")]
    ProbeUnsupported(InstanceForm),
    #[prost(message, tag = "21")]
    StepSkipped(SkippedForm),
    #[prost(string, tag = "22")]
    SagaCommitted(String),
    #[prost(message, tag = "23")]
    CancelRequested(CancelForm),
    #[prost(message, tag = "24")]
    DeadlinePassed(NothingForm),
    #[prost(message, tag = "25")]
    SagaCompensating(FailureForm),
    #[prost(message, tag = "26")]
    CompensationStarted(CallStartedForm),
    #[prost(message, tag = "27")]
    CompensationDone(CallDoneForm),
    #[prost(message, tag = "28")]
    CompensationRefused(CompensationRefusedForm),
    #[prost(message, tag = "29")]
    CompensationUnknown(CallUnknownForm),
    #[prost(message, tag = "30")]
    CompensationPending(CallPendingForm),
    #[prost(message, tag = "31")]
    CompensationWaived(InstanceForm),
    #[prost(message, tag = "32")]
    Blocked(BlockForm),
    #[prost(message, tag = "33")]
    Unblocked(BlockForm),
    #[prost(message, tag = "34")]
    OperatorAct(OperatorActForm),
    #[prost(message, tag = "35")]
    LateReply(LateReplyForm),
    #[prost(message, tag = "36")]
    ExpressionFailed(ExpressionFailedForm),
    #[prost(message, tag = "37")]
    EventEmitted(EmittedForm),
    #[prost(message, tag = "38")]
    SagaCompleted(NothingForm),
    #[prost(message, tag = "39")]
    SagaCompensated(NothingForm),
    #[prost(message, tag = "40")]
    SagaAbandoned(NamesForm),
}

/// An event without content.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct NothingForm {}

/// A list of names.
#[derive(Clone, PartialEq, Message)]
pub struct NamesForm {
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
}

/// A step instance.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct InstanceForm {
    #[prost(uint32, tag = "1")]
    pub step: u32,
    #[prost(uint32, optional, tag = "2")]
    pub item: Option<u32>,
}

/// What a saga was started with.
#[derive(Clone, PartialEq, Message)]
pub struct StartedForm {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub definition: String,
    #[prost(uint32, tag = "3")]
    pub version: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub version_asked: u32,
    #[prost(string, tag = "6")]
    pub input: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub labels: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "8")]
    pub locks: Vec<String>,
}

/// An evaluated `for_each` list.
#[derive(Clone, PartialEq, Message)]
pub struct ExpandedForm {
    #[prost(uint32, tag = "1")]
    pub step: u32,
    #[prost(string, tag = "2")]
    pub items: String,
}

/// A call's input.
#[derive(Clone, PartialEq, Message)]
pub struct CallInputForm {
    #[prost(oneof = "CallInputKind", tags = "1, 2, 3")]
    pub kind: Option<CallInputKind>,
}

/// A call's input: itself, or what it equals.
#[derive(Clone, PartialEq, Oneof)]
pub enum CallInputKind {
    #[prost(string, tag = "1")]
    Inline(String),
    #[prost(message, tag = "2")]
    Saga(NothingForm),
    #[prost(message, tag = "3")]
    Action(NothingForm),
}

/// The intent of an action or a compensation.
#[derive(Clone, PartialEq, Message)]
pub struct CallStartedForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    #[prost(message, optional, tag = "4")]
    pub input: Option<CallInputForm>,
}

/// The good end of an action or a compensation.
#[derive(Clone, PartialEq, Message)]
pub struct CallDoneForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    #[prost(string, tag = "3")]
    pub output: String,
    #[prost(uint32, tag = "4")]
    pub source: u32,
}

/// A refused action.
#[derive(Clone, PartialEq, Message)]
pub struct StepFailedForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    #[prost(message, optional, tag = "3")]
    pub refusal: Option<RefusalForm>,
    #[prost(uint64, tag = "4")]
    pub elapsed_nanos: u64,
    #[prost(sint64, optional, tag = "5")]
    pub retry_at: Option<i64>,
    #[prost(uint32, tag = "6")]
    pub source: u32,
}

/// A refused compensation.
#[derive(Clone, PartialEq, Message)]
pub struct CompensationRefusedForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    #[prost(message, optional, tag = "3")]
    pub refusal: Option<RefusalForm>,
}

/// A call without a definite answer.
#[derive(Clone, PartialEq, Message)]
pub struct CallUnknownForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    #[prost(string, tag = "3")]
    pub cause: String,
    #[prost(uint64, tag = "4")]
    pub elapsed_nanos: u64,
    #[prost(sint64, optional, tag = "5")]
    pub retry_at: Option<i64>,
    #[prost(bool, tag = "6")]
    pub unsent: bool,
}

/// A call whose participant still works.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct CallPendingForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    #[prost(sint64, tag = "3")]
    pub check_at: i64,
    #[prost(sint64, tag = "4")]
    pub until: i64,
}

/// The intent of a probe.
#[derive(Clone, PartialEq, Message)]
pub struct ProbedForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub probe: u32,
    #[prost(message, optional, tag = "3")]
    pub input: Option<CallInputForm>,
    /// Not in the journals of the first version: 0 there.
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
}

/// A skipped step.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SkippedForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub source: u32,
}

/// Somebody's cancel.
#[derive(Clone, PartialEq, Message)]
pub struct CancelForm {
    #[prost(string, tag = "1")]
    pub actor: String,
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// A refusal's words.
#[derive(Clone, PartialEq, Message)]
pub struct RefusalForm {
    #[prost(string, tag = "1")]
    pub code: String,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The first cause of a saga's failure.
#[derive(Clone, PartialEq, Message)]
pub struct FailureForm {
    #[prost(string, tag = "1")]
    pub step: String,
    #[prost(string, tag = "2")]
    pub code: String,
    #[prost(string, tag = "3")]
    pub message: String,
}

/// A block put up or lifted (then without a reason).
#[derive(Clone, PartialEq, Message)]
pub struct BlockForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub phase: u32,
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// An operator's act.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorActForm {
    #[prost(string, tag = "1")]
    pub actor: String,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(oneof = "ActForm", tags = "10, 11, 12, 13, 14, 15, 16")]
    pub act: Option<ActForm>,
}

/// Which act.
#[derive(Clone, PartialEq, Oneof)]
pub enum ActForm {
    #[prost(message, tag = "10")]
    RetryNow(StepNameForm),
    #[prost(message, tag = "11")]
    Skip(StepNameForm),
    #[prost(message, tag = "12")]
    Resolve(ResolveForm),
    #[prost(message, tag = "13")]
    Pause(NothingForm),
    #[prost(message, tag = "14")]
    Resume(NothingForm),
    #[prost(message, tag = "15")]
    Cancel(NothingForm),
    #[prost(message, tag = "16")]
    Abandon(NamesForm),
}

/// The step an act is about, if about one.
#[derive(Clone, PartialEq, Message)]
pub struct StepNameForm {
    #[prost(string, optional, tag = "1")]
    pub step: Option<String>,
}

/// How an operator says a call ended.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveForm {
    #[prost(string, tag = "1")]
    pub step: String,
    #[prost(oneof = "ResolutionForm", tags = "2, 3, 4")]
    pub resolution: Option<ResolutionForm>,
}

/// Which end.
#[derive(Clone, PartialEq, Oneof)]
pub enum ResolutionForm {
    #[prost(string, tag = "2")]
    Done(String),
    #[prost(message, tag = "3")]
    Failed(NothingForm),
    #[prost(message, tag = "4")]
    Compensated(NothingForm),
}

/// A reply that came too late.
#[derive(Clone, PartialEq, Message)]
pub struct LateReplyForm {
    #[prost(message, optional, tag = "1")]
    pub at: Option<InstanceForm>,
    #[prost(uint32, tag = "2")]
    pub phase: u32,
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
    #[prost(string, tag = "4")]
    pub summary: String,
    #[prost(bool, tag = "5")]
    pub uncertain: bool,
}

/// A failed expression.
#[derive(Clone, PartialEq, Message)]
pub struct ExpressionFailedForm {
    #[prost(string, tag = "1")]
    pub place: String,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// An outbox record.
#[derive(Clone, PartialEq, Message)]
pub struct EmittedForm {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(string, tag = "3")]
    pub data: String,
}
