//! What is known of a saga: the fold of its journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::definition::{Call, Definition, Step};
use super::event::Event;
use super::ids::{InstanceRef, LockKey, ParticipantName, SagaId, StepIx, Timestamp};
use super::json::Json;
use super::lineup::Lineup;
use super::row::Row;
use super::tally::Tally;
use super::words::{Block, Direction, Failure, Phase, Refusal, SagaStatus, instance_name};

/// One saga.
#[derive(Debug, Clone)]
pub struct Saga {
    /// Its identity.
    pub id: SagaId,
    /// The version pinned at start.
    pub definition: Arc<Definition>,
    /// The version the client asked for; 0 for the newest.
    pub version_asked: u32,
    /// The client's input.
    pub input: Json,
    /// The client's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its lock keys, sorted.
    pub locks: Arc<[LockKey]>,
    /// The number of its last fact.
    pub seq: u64,
    /// What its journal takes in the store; never less than it does. See [`room`](super::room).
    pub journal_bytes: usize,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its last fact was decided.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How far it is.
    pub stage: Stage,
    /// Whether its commit was reached; stays true.
    pub committed: bool,
    /// Since when an operator holds it.
    pub paused: Option<Timestamp>,
    /// Whether something about it was asserted without proof.
    pub uncertain: bool,
    /// When it must be committed; moves by the length of a pause.
    pub deadline: Option<Timestamp>,
    /// The first cause of its failure.
    pub failure: Option<Failure>,
    /// Its output, from the commit on.
    pub output: Option<Json>,
    /// Its steps, in the definition's order.
    pub steps: Row<StepState>,
    /// Which of them there is something to do about; follows from the steps.
    pub lineup: Lineup,
}

/// How far a saga is. Blocks and pauses are beside this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Queued for its locks.
    AwaitingLocks {
        /// Gives up then.
        until: Timestamp,
    },
    /// Towards the commit.
    Forward,
    /// Only retriable steps are left.
    Committed,
    /// Undoing.
    Backward,
    /// Ended: done.
    Completed,
    /// Ended: undone.
    Compensated,
    /// Ended by an operator.
    Abandoned,
}

/// One step of a saga.
#[expect(clippy::large_enum_variant, reason = "nearly every step is `One`")]
#[derive(Debug, Clone, PartialEq)]
pub enum StepState {
    /// A `for_each` step whose list was not evaluated yet.
    Unexpanded,
    /// Its condition was false, or an operator skipped it before it was expanded.
    Skipped,
    /// A step without `for_each`.
    One(Instance),
    /// A `for_each` step: the list, and one instance an item.
    Many(Json, Row<Instance>),
}

/// One step instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Where its action stands.
    pub action: Action,
    /// Where its compensation stands.
    pub compensation: Compensation,
    /// The action's calls so far.
    pub tries: Tries,
    /// The compensation's calls so far.
    pub undo_tries: Tries,
    /// Some attempt ended without a definite answer, so a later refusal proves nothing.
    pub doubtful: bool,
    /// Success was reported when it was too late to count; recorded once.
    pub late_success: bool,
    /// The participant has no probe.
    pub probe_unsupported: bool,
    /// Probes so far.
    pub probes: u32,
    /// The epoch of the last probe; 0 in journals that did not keep it.
    pub probe_epoch: u64,
    /// The probe's own input, stored with its first use.
    pub probe_input: Option<Json>,
}

/// What is counted over the calls of one phase.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tries {
    /// The number of the last attempt; only grows.
    pub attempt: u32,
    /// The epoch of the last attempt.
    pub epoch: u64,
    /// Attempts that count against the budget.
    pub spent_attempts: u32,
    /// Time that counts against the budget: in attempts, and in the delays between them.
    pub spent: Duration,
    /// The input, stored with the first attempt.
    pub input: Option<Json>,
    /// When the first attempt was started.
    pub started_at: Option<Timestamp>,
    /// When the last attempt was started.
    pub attempt_at: Option<Timestamp>,
    /// When it was settled.
    pub ended_at: Option<Timestamp>,
    /// How long it may stay pending; set by the first pending answer.
    pub pending_until: Option<Timestamp>,
    /// Whether the last attempt was a look at a pending call, which costs no budget.
    pub is_a_check: bool,
}

/// Where an action stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Not attempted.
    Pending,
    /// A call is in flight.
    Running,
    /// Between attempts.
    Backoff {
        /// The next attempt is due then.
        next_at: Timestamp,
        /// Why the last one did not settle it.
        last: Doubt,
    },
    /// The participant answered "pending".
    Awaiting {
        /// The next look is due then.
        check_at: Timestamp,
    },
    /// A probe is in flight.
    Probing {
        /// What the probe must clear up.
        why: ProbeWhy,
    },
    /// The effect happened.
    Succeeded {
        /// What the participant answered.
        output: Json,
    },
    /// Definitely refused.
    Refused {
        /// By whom and why.
        refusal: Refusal,
    },
    /// No definite answer, and no further attempt.
    Unknown {
        /// Why.
        cause: String,
    },
    /// Left out.
    Skipped,
    /// Waits for an operator.
    Blocked {
        /// Why.
        reason: String,
        /// Since when.
        since: Timestamp,
        /// What the last attempt left behind; `None` when nothing was ever called.
        last: Option<Doubt>,
    },
}

/// Why an attempt did not settle its step.
#[derive(Debug, Clone, PartialEq)]
pub enum Doubt {
    /// No definite answer.
    Unknown(String),
    /// A refusal that does not settle it.
    Refused(Refusal),
}

/// What a probe is for.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeWhy {
    /// A pending step's regular look.
    Pending,
    /// The pivot would wait for an operator otherwise: its budget is spent, or it was refused
    /// after an attempt without a definite answer.
    BeforeBlock(Doubt),
}

/// Where a compensation stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Compensation {
    /// Not started; whether it is owed follows from the action.
    Idle,
    /// A call is in flight.
    Running,
    /// Between attempts.
    Backoff {
        /// The next attempt is due then.
        next_at: Timestamp,
        /// What the last one left behind.
        last: Doubt,
    },
    /// The participant answered "pending".
    Awaiting {
        /// The next look is due then.
        check_at: Timestamp,
    },
    /// Undone.
    Done,
    /// Waits for an operator.
    Blocked {
        /// Why.
        reason: String,
        /// Since when.
        since: Timestamp,
        /// What the last attempt left behind; `None` when nothing was ever called.
        last: Option<Doubt>,
    },
    /// An operator let it be.
    Waived,
}

impl PartialEq for Saga {
    /// Two sagas are equal when everything known of them is; their definitions count by version
    /// and digest, and what follows from their steps does not count.
    fn eq(&self, other: &Self) -> bool {
        let Saga {
            id,
            definition,
            version_asked,
            input,
            labels,
            locks,
            seq,
            journal_bytes,
            created_at,
            updated_at,
            ended_at,
            stage,
            committed,
            paused,
            uncertain,
            deadline,
            failure,
            output,
            steps,
            lineup: _,
        } = self;
        let runs = |d: &Definition| (d.name.clone(), d.version, d.digest);
        runs(definition) == runs(&other.definition)
            && (id, version_asked) == (&other.id, &other.version_asked)
            && (seq, journal_bytes) == (&other.seq, &other.journal_bytes)
            && (input, labels, locks) == (&other.input, &other.labels, &other.locks)
            && (created_at, updated_at, ended_at) == (&other.created_at, &other.updated_at, &other.ended_at)
            && (stage, committed, paused) == (&other.stage, &other.committed, &other.paused)
            && (uncertain, deadline, failure) == (&other.uncertain, &other.deadline, &other.failure)
            && (output, steps) == (&other.output, &other.steps)
    }
}

impl Saga {
    /// Every instance of every step, in file and item order.
    pub fn each_instance(&self) -> impl Iterator<Item = (InstanceRef, &Instance)> {
        (0u32..).map(StepIx).zip(&self.steps).flat_map(|(ix, state)| state.each(ix))
    }

    /// The instances that come to something `wanted`, in file and item order; only they are looked
    /// at.
    #[must_use]
    pub fn instances_where(&self, wanted: impl Fn(&Tally) -> bool) -> Vec<InstanceRef> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(place) = self.steps.next(from, &wanted) {
            let (step, state) = (StepIx(u32::try_from(place).unwrap_or(u32::MAX)), &self.steps[place]);
            let mut slot = 0;
            while let Some(next) = state.next_slot(slot, &wanted) {
                found.push(state.refer(step, next));
                slot = next + 1;
            }
            from = place + 1;
        }
        found
    }

    /// What the instances of `step` come to.
    #[must_use]
    pub fn tally(&self, step: StepIx) -> Tally {
        self.steps.sum_of(step.at()).copied().unwrap_or_default()
    }

    /// Changes one step, and all that is counted over the steps.
    pub(super) fn change_step<R>(
        &mut self,
        step: StepIx,
        change: impl FnOnce(&mut StepState) -> R,
    ) -> Option<R> {
        let given = self.steps.change(step.at(), change)?;
        self.lineup.note(&self.definition, step, &self.steps);
        Some(given)
    }

    /// The instance at `at`, if it exists.
    #[must_use]
    pub fn instance(&self, at: InstanceRef) -> Option<&Instance> {
        self.steps.get(at.step.at())?.instance(at.slot())
    }

    /// The definition of the step behind `at`.
    #[must_use]
    pub fn step(&self, at: InstanceRef) -> &Step {
        self.definition.step(at.step)
    }

    /// The compensation of the step behind `at`.
    #[must_use]
    pub fn compensation_call(&self, at: InstanceRef) -> Option<&Call> {
        self.step(at).compensation.as_ref()
    }

    /// Whom a fact says to call.
    #[must_use]
    pub fn callee(&self, event: &Event) -> Option<&ParticipantName> {
        match event {
            Event::StepStarted { at, .. } => Some(&self.step(*at).action.participant),
            Event::StepProbed { at, .. } => {
                let step = self.step(*at);
                Some(step.probe.as_ref().map_or(&step.action.participant, |probe| &probe.participant))
            }
            Event::CompensationStarted { at, .. } => {
                self.compensation_call(*at).map(|call| &call.participant)
            }
            _ => None,
        }
    }

    /// The name of the instance at `at`.
    #[must_use]
    pub fn name_of(&self, at: InstanceRef) -> String {
        instance_name(&self.step(at).name, at.item)
    }

    /// The instance called `name` (`deduct-stock/0`, `use-point`), if it exists by now.
    #[must_use]
    pub fn instance_named(&self, name: &str) -> Option<InstanceRef> {
        let (step, item) = match name.split_once('/') {
            Some((step, item)) => (step, Some(item.parse::<u32>().ok()?)),
            None => (name, None),
        };
        let step = self.definition.step_named(step)?;
        let at = InstanceRef { step, item };
        let many = matches!(self.steps[step.at()], StepState::Many(..));
        (many == item.is_some() && self.instance(at).is_some()).then_some(at)
    }

    /// The pivot's instance, if the definition has a pivot.
    #[must_use]
    pub fn pivot(&self) -> Option<InstanceRef> {
        self.definition.pivot().map(|step| InstanceRef { step, item: None })
    }

    /// What `steps[name]` is in an expression: the output; a list in item order for a `for_each`
    /// step; null where not succeeded.
    #[must_use]
    pub fn output_of(&self, name: &str) -> Value {
        let output = |i: &Instance| i.output().map_or(Value::Null, |json| json.value().clone());
        match self.definition.step_named(name).map(|step| &self.steps[step.at()]) {
            Some(StepState::One(instance)) => output(instance),
            Some(StepState::Many(_, instances)) => Value::Array(instances.iter().map(output).collect()),
            Some(StepState::Unexpanded | StepState::Skipped) | None => Value::Null,
        }
    }

    /// What `steps[name][index]` is in an expression, where the step has such an instance.
    #[must_use]
    pub fn output_at(&self, name: &str, index: u64) -> Option<Value> {
        let StepState::Many(_, instances) = &self.steps[self.definition.step_named(name)?.at()] else {
            return None;
        };
        let instance = instances.get(usize::try_from(index).ok()?)?;
        Some(instance.output().map_or(Value::Null, |json| json.value().clone()))
    }

    /// The names of the instances whose effect happened or may have happened, or that are owed a
    /// compensation for another reason, and that are not undone.
    #[must_use]
    pub fn uncompensated(&self) -> Vec<String> {
        let is_open = |at: InstanceRef, i: &Instance| {
            (i.has_or_may_have_effect() || i.owes_compensation(self.step(at)))
                && !matches!(i.compensation, Compensation::Done | Compensation::Waived)
        };
        self.each_instance().filter(|&(at, i)| is_open(at, i)).map(|(at, _)| self.name_of(at)).collect()
    }

    /// Everything that waits for an operator, in file and item order.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        if self.is_terminal() {
            return blocks;
        }
        for at in self.instances_where(|tally| tally.blocked > 0) {
            let Some(instance) = self.instance(at) else { continue };
            if let Action::Blocked { reason, since, .. } = &instance.action {
                let (step, reason) = (self.name_of(at), reason.clone());
                blocks.push(Block { step, phase: Phase::Action, reason, since: *since });
            }
            if let Compensation::Blocked { reason, since, .. } = &instance.compensation {
                let (step, reason) = (self.name_of(at), reason.clone());
                blocks.push(Block { step, phase: Phase::Compensation, reason, since: *since });
            }
        }
        blocks
    }

    /// Which way it goes.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self.stage {
            Stage::AwaitingLocks { .. } | Stage::Forward | Stage::Committed | Stage::Completed => {
                Direction::Forward
            }
            Stage::Backward | Stage::Compensated => Direction::Backward,
            Stage::Abandoned if self.failure.is_some() && !self.committed => Direction::Backward,
            Stage::Abandoned => Direction::Forward,
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.stage, Stage::Completed | Stage::Compensated | Stage::Abandoned)
    }

    /// Whether something waits for an operator.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.is_terminal() && self.steps.sum().blocked > 0
    }

    /// Where it stands, as users see it.
    #[must_use]
    pub fn status(&self) -> SagaStatus {
        match self.stage {
            Stage::Completed => SagaStatus::Completed,
            Stage::Compensated => SagaStatus::Compensated,
            Stage::Abandoned => SagaStatus::Abandoned,
            _ if self.is_blocked() => SagaStatus::Blocked,
            Stage::AwaitingLocks { .. } | Stage::Forward => SagaStatus::Running,
            Stage::Committed => SagaStatus::Committed,
            Stage::Backward => SagaStatus::Compensating,
        }
    }

    /// Whether it holds or waits for locks.
    #[must_use]
    pub fn uses_locks(&self) -> bool {
        !self.locks.is_empty() && !self.committed && !self.is_terminal()
    }
}
