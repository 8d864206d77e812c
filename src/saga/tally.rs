//! What the instances of a step, or of a whole saga, come to.
//!
//! Made of the instances alone, and what decisions ask for in place of looking at each of them.

use super::definition::Step;
use super::ids::Timestamp;
use super::row::{Sum, Summed};
use super::state::{Action, Compensation, Instance, StepState};

/// A time that never comes.
pub const NEVER: Timestamp = Timestamp(i64::MAX);
/// The last time that does.
pub const SOME_TIME: Timestamp = Timestamp(i64::MAX - 1);

/// What some instances come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// How many there are.
    pub instances: u32,
    /// Whose action lets its dependents run.
    pub done: u32,
    /// Whose effect happened.
    pub succeeded: u32,
    /// Of which something waits for an operator.
    pub blocked: u32,
    /// Whose action was not attempted.
    pub pending: u32,
    /// Whose action or probe is in flight.
    pub running: u32,
    /// Between attempts.
    pub retries: Due,
    /// Pending, and looked at by a probe if there is one.
    pub looks: Due,
    /// Pending, and looked at by calling the action again.
    pub repeats: Due,
    /// The first end of a wait for what is pending.
    pub pending_until: Timestamp,
    /// The same of their compensations.
    pub undo: UndoTally,
}

/// What the compensations of some instances come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoTally {
    /// Not begun; the action is still in flight.
    pub held: u32,
    /// Not begun; the effect happened or may have.
    pub ran: u32,
    /// Not begun; the action was definitely refused.
    pub refused: u32,
    /// A call is in flight.
    pub running: u32,
    /// Wait for an operator.
    pub blocked: u32,
    /// Between attempts.
    pub retries: Due,
    /// Pending.
    pub looks: Due,
    /// The first end of a wait for what is pending.
    pub pending_until: Timestamp,
}

/// How many wait for a time, and the first of these times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// How many.
    pub count: u32,
    /// [`NEVER`] for none.
    pub first: Timestamp,
}

impl Due {
    const NONE: Due = Due { count: 0, first: NEVER };

    fn one(at: Timestamp) -> Self {
        Self { count: 1, first: at }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            instances: 0,
            done: 0,
            succeeded: 0,
            blocked: 0,
            pending: 0,
            running: 0,
            retries: Due::NONE,
            looks: Due::NONE,
            repeats: Due::NONE,
            pending_until: NEVER,
            undo: UndoTally {
                held: 0,
                ran: 0,
                refused: 0,
                running: 0,
                blocked: 0,
                retries: Due::NONE,
                looks: Due::NONE,
                pending_until: NEVER,
            },
        }
    }
}

impl Sum for Tally {
    fn add(&mut self, other: &Self) {
        self.instances += other.instances;
        self.done += other.done;
        self.succeeded += other.succeeded;
        self.blocked += other.blocked;
        self.pending += other.pending;
        self.running += other.running;
        self.retries.add(&other.retries);
        self.looks.add(&other.looks);
        self.repeats.add(&other.repeats);
        self.pending_until = self.pending_until.min(other.pending_until);
        self.undo.add(&other.undo);
    }
}

impl UndoTally {
    fn add(&mut self, other: &Self) {
        self.held += other.held;
        self.ran += other.ran;
        self.refused += other.refused;
        self.running += other.running;
        self.blocked += other.blocked;
        self.retries.add(&other.retries);
        self.looks.add(&other.looks);
        self.pending_until = self.pending_until.min(other.pending_until);
    }

    /// Compensations in flight, pending ones among them.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.running + self.looks.count
    }

    /// How many more of them may be in flight.
    #[must_use]
    pub fn free_calls(&self, cap: u32) -> u32 {
        cap.saturating_sub(self.in_flight())
    }

    /// How many more of them may be under way.
    #[must_use]
    pub fn room(&self, cap: u32) -> u32 {
        cap.saturating_sub(self.in_flight() + self.retries.count)
    }

    /// Compensations of `step` that are owed and not begun.
    #[must_use]
    pub fn owed(&self, step: &Step) -> u32 {
        match step.compensation {
            Some(_) if step.compensate_on_refusal => self.ran + self.refused,
            Some(_) => self.ran,
            None => 0,
        }
    }
}

impl Tally {
    /// Actions in flight, pending and probed ones among them.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.running + self.looks.count + self.repeats.count
    }

    /// How many more actions may be in flight. Instances that an operator sent to try again may be
    /// more than that; they take turns.
    #[must_use]
    pub fn free_calls(&self, cap: u32) -> u32 {
        cap.saturating_sub(self.in_flight())
    }

    /// How many more actions may be under way.
    #[must_use]
    pub fn room(&self, cap: u32) -> u32 {
        cap.saturating_sub(self.in_flight() + self.retries.count)
    }

    /// Whether one of them has a call that should be in flight.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.running > 0 || self.undo.running > 0
    }

    /// Whether one of them waits for its next attempt or look, either way.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        let waiting = [self.retries, self.looks, self.repeats, self.undo.retries, self.undo.looks];
        waiting.iter().any(|due| due.count > 0)
    }

    /// Whether nothing of these instances of `step` holds back what the step depends on.
    #[must_use]
    pub fn is_settled_backward(&self, step: &Step) -> bool {
        let undo = &self.undo;
        undo.held + undo.owed(step) + undo.in_flight() + undo.retries.count + undo.blocked == 0
    }
}

impl Summed for Instance {
    type Sum = Tally;

    fn sum(&self) -> Tally {
        let mut sum = Tally { instances: 1, ..Tally::default() };
        match &self.action {
            Action::Pending => sum.pending = 1,
            Action::Running | Action::Probing { .. } => sum.running = 1,
            Action::Backoff { next_at, .. } => sum.retries = Due::one(*next_at),
            Action::Awaiting { check_at } => {
                let looks = if self.probe_unsupported { &mut sum.repeats } else { &mut sum.looks };
                *looks = Due::one(*check_at);
                sum.pending_until = self.tries.pending_until.unwrap_or(NEVER);
            }
            Action::Succeeded { .. } => (sum.done, sum.succeeded) = (1, 1),
            Action::Skipped => sum.done = 1,
            Action::Blocked { .. } => sum.blocked = 1,
            Action::Refused { .. } | Action::Unknown { .. } => {}
        }
        let undo = &mut sum.undo;
        match &self.compensation {
            Compensation::Idle if self.is_in_flight() => undo.held = 1,
            Compensation::Idle if self.has_or_may_have_effect() => undo.ran = 1,
            Compensation::Idle => {
                let was_refused = matches!(self.action, Action::Refused { .. }) && self.tries.attempt > 0;
                undo.refused = u32::from(was_refused);
            }
            Compensation::Running => undo.running = 1,
            Compensation::Backoff { next_at, .. } => undo.retries = Due::one(*next_at),
            Compensation::Awaiting { check_at } => {
                undo.looks = Due::one(*check_at);
                undo.pending_until = self.undo_tries.pending_until.unwrap_or(NEVER);
            }
            Compensation::Blocked { .. } => (undo.blocked, sum.blocked) = (1, 1),
            Compensation::Done | Compensation::Waived => {}
        }
        sum
    }
}

impl Summed for StepState {
    type Sum = Tally;

    fn sum(&self) -> Tally {
        match self {
            StepState::Unexpanded | StepState::Skipped => Tally::default(),
            StepState::One(instance) => instance.sum(),
            StepState::Many(_, instances) => *instances.sum(),
        }
    }
}
