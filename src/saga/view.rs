//! What people see of a saga beyond its state: what it waits for, what comes next, what to do.

use super::ids::{LockKey, ParticipantName, Timestamp};
use super::words::Phase;

/// What a saga waits for that is neither a call nor a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// A participant without a live handler.
    Participant(ParticipantName),
    /// A lock that another saga holds.
    Lock(LockKey),
}

/// A call that would follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedCall {
    /// The step instance's name.
    pub step: String,
    /// Which of its calls.
    pub phase: Phase,
    /// Who would be called.
    pub participant: String,
    /// What would be asked.
    pub action: String,
    /// When and why, for people.
    pub note: String,
}

/// Why a saga stands where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Sentences for people.
    pub lines: Vec<String>,
    /// What comes next by itself.
    pub next: Vec<NextMove>,
    /// What an operator would type; `None` when nothing needs one.
    pub suggested_command: Option<String>,
}

/// Something that comes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextMove {
    /// What it is, for people.
    pub what: String,
    /// The step instance's name; empty for the saga as a whole.
    pub step: String,
    /// Which of its calls, if any.
    pub phase: Option<Phase>,
    /// When; `None` for "when it happens" (an answer, a participant coming back).
    pub at: Option<Timestamp>,
}
