//! What can be read off one step instance, and off the instances of one step.

use super::definition::Step;
use super::ids::{InstanceRef, StepIx};
use super::json::Json;
use super::row::Summed;
use super::state::{Action, Compensation, Doubt, Instance, StepState, Tries};
use super::tally::Tally;
use super::words::{CompensationStatus, Direction, StepStatus};

impl Instance {
    /// An instance nobody attempted.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            action: Action::Pending,
            compensation: Compensation::Idle,
            tries: Tries::default(),
            undo_tries: Tries::default(),
            doubtful: false,
            late_success: false,
            probe_unsupported: false,
            probes: 0,
            probe_epoch: 0,
            probe_input: None,
        }
    }

    /// The action's status as users see it.
    #[must_use]
    pub fn status(&self) -> StepStatus {
        match &self.action {
            Action::Pending | Action::Blocked { last: None, .. } => StepStatus::Pending,
            Action::Running | Action::Awaiting { .. } | Action::Probing { .. } => StepStatus::Running,
            Action::Backoff { last, .. } | Action::Blocked { last: Some(last), .. } => match last {
                Doubt::Unknown(_) => StepStatus::Unknown,
                Doubt::Refused(_) => StepStatus::Failed,
            },
            Action::Succeeded { .. } => StepStatus::Succeeded,
            Action::Refused { .. } => StepStatus::Failed,
            Action::Unknown { .. } => StepStatus::Unknown,
            Action::Skipped => StepStatus::Skipped,
        }
    }

    /// The output, once the effect happened.
    #[must_use]
    pub fn output(&self) -> Option<&Json> {
        match &self.action {
            Action::Succeeded { output } => Some(output),
            _ => None,
        }
    }

    /// Whether the action lets its dependents run.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.action, Action::Succeeded { .. } | Action::Skipped)
    }

    /// Whether a call of the action may still change something: in flight, pending or probed.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        matches!(self.action, Action::Running | Action::Awaiting { .. } | Action::Probing { .. })
    }

    /// Whether the action takes one of its step's places: in flight, or between attempts.
    #[must_use]
    pub fn is_under_way_forward(&self) -> bool {
        self.is_in_flight() || matches!(self.action, Action::Backoff { .. })
    }

    /// Whether the compensation does.
    #[must_use]
    pub fn is_under_way_backward(&self) -> bool {
        matches!(
            self.compensation,
            Compensation::Running | Compensation::Backoff { .. } | Compensation::Awaiting { .. }
        )
    }

    /// Whether the action's effect happened or may have happened.
    #[must_use]
    pub fn has_or_may_have_effect(&self) -> bool {
        match &self.action {
            Action::Pending | Action::Skipped | Action::Blocked { last: None, .. } => false,
            Action::Refused { .. } => self.doubtful,
            Action::Running
            | Action::Backoff { .. }
            | Action::Awaiting { .. }
            | Action::Probing { .. }
            | Action::Succeeded { .. }
            | Action::Unknown { .. }
            | Action::Blocked { last: Some(_), .. } => true,
        }
    }

    /// Whether undoing it is owed once the saga goes backward.
    #[must_use]
    pub fn owes_compensation(&self, step: &Step) -> bool {
        step.compensation.is_some()
            && (self.has_or_may_have_effect()
                || (step.compensate_on_refusal
                    && self.tries.attempt > 0
                    && matches!(self.action, Action::Refused { .. })))
    }

    /// The compensation's status as users see it.
    #[must_use]
    pub fn compensation_status(&self, step: &Step, direction: Direction) -> CompensationStatus {
        match &self.compensation {
            Compensation::Idle => match direction {
                Direction::Backward if self.owes_compensation(step) => CompensationStatus::Pending,
                Direction::Backward | Direction::Forward => CompensationStatus::NotNeeded,
            },
            Compensation::Running | Compensation::Backoff { .. } | Compensation::Awaiting { .. } => {
                CompensationStatus::Running
            }
            Compensation::Done => CompensationStatus::Done,
            Compensation::Blocked { .. } => CompensationStatus::Blocked,
            Compensation::Waived => CompensationStatus::Waived,
        }
    }

    /// Whether nothing about it can hold back the compensation of what it depends on.
    #[must_use]
    pub fn is_settled_backward(&self, step: &Step) -> bool {
        match &self.compensation {
            Compensation::Done | Compensation::Waived => true,
            Compensation::Idle => !self.is_in_flight() && !self.owes_compensation(step),
            Compensation::Running
            | Compensation::Backoff { .. }
            | Compensation::Awaiting { .. }
            | Compensation::Blocked { .. } => false,
        }
    }
}

impl StepState {
    /// The instance in `slot`, if the step has it by now.
    #[must_use]
    pub fn instance(&self, slot: usize) -> Option<&Instance> {
        match self {
            StepState::Unexpanded | StepState::Skipped => None,
            StepState::One(instance) => (slot == 0).then_some(instance),
            StepState::Many(_, instances) => instances.get(slot),
        }
    }

    /// Changes the instance in `slot`; `None` when the step does not have it.
    pub(super) fn change<R>(&mut self, slot: usize, change: impl FnOnce(&mut Instance) -> R) -> Option<R> {
        match self {
            StepState::Unexpanded | StepState::Skipped => None,
            StepState::One(instance) => (slot == 0).then(|| change(instance)),
            StepState::Many(_, instances) => instances.change(slot, change),
        }
    }

    /// The first slot from `from` on with an instance that comes to something `wanted`.
    pub fn next_slot(&self, from: usize, wanted: impl Fn(&Tally) -> bool) -> Option<usize> {
        match self {
            StepState::Unexpanded | StepState::Skipped => None,
            StepState::One(instance) => (from == 0 && wanted(&instance.sum())).then_some(0),
            StepState::Many(_, instances) => instances.next(from, wanted),
        }
    }

    /// How the instance in `slot` is referred to.
    #[must_use]
    pub fn refer(&self, step: StepIx, slot: usize) -> InstanceRef {
        let item = matches!(self, StepState::Many(..)).then(|| u32::try_from(slot).unwrap_or(u32::MAX));
        InstanceRef { step, item }
    }

    /// Whether the step as a whole lets its dependents run.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            StepState::Unexpanded => false,
            StepState::Skipped => true,
            StepState::One(instance) => instance.is_done(),
            StepState::Many(_, instances) => instances.sum().done == instances.sum().instances,
        }
    }

    /// The step's instances with their references; none while it is unexpanded or skipped as a
    /// whole.
    pub fn each(&self, step: StepIx) -> impl Iterator<Item = (InstanceRef, &Instance)> {
        (0..).map_while(move |slot| Some((self.refer(step, slot), self.instance(slot)?)))
    }

    /// How many instances of the step may be under way at once.
    #[must_use]
    pub fn cap(&self, step: &Step) -> u32 {
        match self {
            StepState::Many(..) => step.concurrency,
            StepState::One(_) | StepState::Unexpanded | StepState::Skipped => 1,
        }
    }
}
