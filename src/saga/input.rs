//! What can reach a saga from outside, what it decides with, and why it may say no.

use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

use super::ids::{ActionName, InstanceRef, ParticipantName, Timestamp};
use super::json::Json;
use super::room::JournalLimit;
use super::words::{Outcome, Phase, Refusal};

/// What the core may know of the world when it decides.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time, read once for the whole batch.
    pub now: Timestamp,
    /// The owner's epoch; grows at every start of the daemon.
    pub epoch: u64,
    /// Who can be called at this moment.
    pub reach: &'a dyn Reach,
    /// How much a saga's journal may hold.
    pub journal_limit: JournalLimit,
}

/// Whether calls to a participant can be sent at all. A call to one that cannot be reached is
/// parked: it costs neither an attempt nor budget.
pub trait Reach: Sync {
    /// Whether calls of `action` can be sent to the participant now.
    fn can_call(&self, participant: &ParticipantName, action: &ActionName) -> bool;

    /// How many calls of `action` may be decided now: a participant that failed lets only a few through
    /// until it has answered them.
    fn places(&self, participant: &ParticipantName, action: &ActionName) -> usize {
        if self.can_call(participant, action) { usize::MAX } else { 0 }
    }

    /// What stands in the way of calls that cannot be sent, for people.
    fn obstacle(&self, participant: &ParticipantName, action: &ActionName) -> Obstacle {
        let _ = (participant, action);
        Obstacle::NoHandler
    }
}

/// Why calls cannot be sent to a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// No live registration offers the action.
    NoHandler,
    /// An operator has paused the participant.
    Paused { by: String, reason: String },
    /// Its endpoints failed the latest calls. `None`: trial calls are under way.
    Failing { next_trial: Option<Timestamp> },
    /// Too many calls wait for it already.
    LongLine,
}

/// Every participant can be called; for tests and for plans.
#[derive(Debug, Clone, Copy)]
pub struct Everyone;

impl Reach for Everyone {
    fn can_call(&self, _: &ParticipantName, _: &ActionName) -> bool {
        true
    }
}

/// One piece of mail for a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The saga was read from the store by an owner that has none of its calls in flight.
    Recovered,
    /// Time went by, or something it waited for may be there.
    Wake,
    /// All its lock keys are held.
    LocksGranted,
    /// A call ended.
    Reply(Reply),
    /// A participant finishes a step that it had answered "pending".
    Complete { at: InstanceRef, phase: Phase, outcome: Completion },
    /// A client cancels.
    Cancel { actor: String, reason: String },
    /// An operator acts.
    Act { act: Act, actor: String, reason: String },
}

/// The end of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Whose call it was.
    pub at: InstanceRef,
    /// Which of its calls.
    pub phase: Phase,
    /// Which attempt (for a probe: which probe).
    pub attempt: u32,
    /// What is known now.
    pub outcome: Outcome,
}

/// What a participant may say by a step's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// The effect happened (or is undone, in a compensation).
    Done(Json),
    /// A definite no.
    Refused(Refusal),
}

/// What an operator can do to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Try now what waits or is blocked; without a step, all of it.
    RetryNow { step: Option<String> },
    /// Leave a retriable step or a blocked compensation undone.
    Skip { step: String },
    /// Say how an unknown or blocked action, or a blocked compensation, ended.
    Resolve { step: String, resolution: Resolution },
    /// Start no new call.
    Pause,
    /// Go on.
    Resume,
    /// Undo what ran.
    Cancel,
    /// End the saga as it stands; the names of all uncompensated steps are typed back.
    Abandon { steps: Vec<String> },
}

/// How an operator says a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The action's effect happened, with this output.
    Done(Json),
    /// The action's effect did not happen.
    Failed,
    /// The action is undone.
    Compensated,
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The saga is past the point where this is possible.
    #[error("{0}")]
    Precondition(String),
    /// The request itself is wrong; the field and what is wrong with it.
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
}

/// A call that should be in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDuty {
    /// Which instance.
    pub at: InstanceRef,
    /// Which of its calls.
    pub phase: Phase,
    /// The attempt whose intent is stored (for a probe: the probe's number).
    pub attempt: u32,
    /// The epoch of that intent.
    pub epoch: u64,
    /// Who is called.
    pub participant: ParticipantName,
    /// What is asked: the action's name in the `call` of this phase.
    pub action: super::ids::ActionName,
    /// Whether the definition names this call. A probe that it does not name is put to whoever serves
    /// the action, who may know how to answer it.
    pub is_named: bool,
    /// The instance's name, such as `deduct-stock/0`.
    pub step: String,
    /// The call's input.
    pub input: Json,
    /// The action's input; for compensations and probes.
    pub action_input: Option<Json>,
    /// The action's output, where known; for compensations and probes.
    pub action_output: Option<Json>,
    /// How long this attempt may take.
    pub timeout: Duration,
}

/// The identity of a call among those of its saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// Which instance.
    pub at: InstanceRef,
    /// Which of its calls.
    pub phase: Phase,
    /// Which attempt.
    pub attempt: u32,
}

impl CallId {
    /// All calls there can be of the instance at `at`.
    #[must_use]
    pub fn all_of(at: InstanceRef) -> RangeInclusive<Self> {
        let first = CallId { at, phase: Phase::Action, attempt: 0 };
        first..=CallId { at, phase: Phase::Probe, attempt: u32::MAX }
    }
}

impl CallDuty {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> CallId {
        CallId { at: self.at, phase: self.phase, attempt: self.attempt }
    }
}
