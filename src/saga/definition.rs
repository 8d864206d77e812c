//! A checked saga definition: what a YAML file becomes once nothing in it can be wrong any more.
//!
//! Values of these types are made by the `definition` room, which checks names, references,
//! cycles and kinds; the core relies on that and never checks again.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::expr::{Expr, Template};
use super::handlers::Handlers;
use super::ids::{ActionName, DefinitionName, Digest, ParticipantName, StepIx, StepName, Version};
use super::plan::Plan;
use super::words::StepKind;

/// Instances of a `for_each` step in flight at once, when the definition names no cap.
pub const CONCURRENCY_DEFAULT: u32 = 16;

/// A definition pinned by every saga that runs it.
#[derive(Debug)]
pub struct Definition {
    /// Its name.
    pub name: DefinitionName,
    /// Its version, assigned at registration.
    pub version: Version,
    /// SHA-256 of [`Definition::source`].
    pub digest: Digest,
    /// For people.
    pub description: String,
    /// The YAML text as registered.
    pub source: Arc<str>,
    /// From the moment the locks are held until the saga must be committed.
    pub deadline: Option<Duration>,
    /// One template a lock entry; each gives one key or a list of keys.
    pub locks: Vec<Template>,
    /// Longest wait for the locks.
    pub lock_wait: Duration,
    /// The steps in file order.
    pub steps: Vec<Step>,
    /// Who waits for whom.
    pub plan: Plan,
    /// Outbox records to write.
    pub events: Vec<EventRule>,
    /// The saga's output, evaluated at its commit.
    pub output: Option<Template>,
    /// What follows from its steps; found when first asked for.
    pub places: OnceLock<Places>,
}

/// Where the steps of a definition are, and whom they call.
#[derive(Debug)]
pub struct Places {
    named: HashMap<String, StepIx>,
    handlers: Handlers,
    pivot: Option<StepIx>,
}

impl Definition {
    /// The step at `ix`.
    #[must_use]
    pub fn step(&self, ix: StepIx) -> &Step {
        &self.steps[ix.at()]
    }

    /// All steps with their places.
    pub fn each_step(&self) -> impl Iterator<Item = (StepIx, &Step)> {
        (0u32..).map(StepIx).zip(&self.steps)
    }

    /// The place of the step called `name`.
    #[must_use]
    pub fn step_named(&self, name: &str) -> Option<StepIx> {
        self.places().named.get(name).copied()
    }

    /// The place of the pivot, if there is one.
    #[must_use]
    pub fn pivot(&self) -> Option<StepIx> {
        self.places().pivot
    }

    /// Whom its steps call.
    #[must_use]
    pub fn handlers(&self) -> &Handlers {
        &self.places().handlers
    }

    fn places(&self) -> &Places {
        self.places.get_or_init(|| Places {
            named: self.each_step().map(|(ix, step)| (step.name.to_string(), ix)).collect(),
            handlers: Handlers::of(&self.steps),
            pivot: self.each_step().find(|(_, step)| step.kind == StepKind::Pivot).map(|(ix, _)| ix),
        })
    }
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Unique in the definition.
    pub name: StepName,
    /// What may follow it and what its failure means.
    pub kind: StepKind,
    /// The list that makes one instance an item.
    pub for_each: Option<Expr>,
    /// Instances in flight at once; compensations keep the same cap.
    pub concurrency: u32,
    /// The step runs only when this is true.
    pub when: Option<Expr>,
    /// What it does.
    pub action: Call,
    /// What undoes it; `None` for a pivot, a retriable step, and `compensation: none`.
    pub compensation: Option<Call>,
    /// Whether a refused attempt is compensated too.
    pub compensate_on_refusal: bool,
    /// A call that says whether the action's effect exists.
    pub probe: Option<Probe>,
    /// How a "pending" answer is followed up.
    pub pending: PendingPolicy,
}

/// A call to a participant.
#[derive(Debug)]
pub struct Call {
    /// Who is called.
    pub participant: ParticipantName,
    /// What is asked of it.
    pub action: ActionName,
    /// The input; `None` for the saga's input (in an action) or the action's stored input (in a
    /// compensation).
    pub input: Option<Template>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When and how often it is tried again.
    pub retry: RetryPolicy,
}

impl Call {
    /// Who is called, and for what.
    #[must_use]
    pub fn handler(&self) -> (&ParticipantName, &ActionName) {
        (&self.participant, &self.action)
    }
}

/// A probe named in the definition.
#[derive(Debug)]
pub struct Probe {
    /// Who is called.
    pub participant: ParticipantName,
    /// What is asked of it.
    pub action: ActionName,
    /// The input; `None` for the action's stored input.
    pub input: Option<Template>,
}

impl Probe {
    /// Who is called, and for what.
    #[must_use]
    pub fn handler(&self) -> (&ParticipantName, &ActionName) {
        (&self.participant, &self.action)
    }
}

/// Backoff and budget of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The first delay.
    pub initial: Duration,
    /// What each delay is multiplied by for the next; at least 1.
    pub factor: f64,
    /// The longest delay.
    pub max: Duration,
    /// The share of a delay that is spread, 0 to 1.
    pub jitter: f64,
    /// Attempts in all, the first counted; 0 for no limit.
    pub attempts: u32,
    /// Time spent in attempts and between them; zero for no limit.
    pub elapsed: Duration,
}

/// How a "pending" answer is followed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingPolicy {
    /// Time to the next look, unless the participant names one.
    pub interval: Duration,
    /// How long it may stay pending; after that it is unknown.
    pub max: Duration,
}

impl Default for PendingPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), max: Duration::from_hours(24) }
    }
}

/// One entry of `events:`.
#[derive(Debug)]
pub struct EventRule {
    /// When it is written.
    pub on: Trigger,
    /// Where it is published.
    pub topic: String,
    /// The ordering key.
    pub key: Option<Template>,
    /// The payload.
    pub data: Option<Template>,
}

/// What an event waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// The saga was accepted.
    Started,
    /// The saga is committed.
    Committed,
    /// The saga is completed.
    Completed,
    /// The saga turned back.
    Compensating,
    /// The saga is undone.
    Compensated,
    /// Something of it waits for an operator.
    Blocked,
    /// An operator abandoned it.
    Abandoned,
    /// Every instance of the step succeeded.
    Step(StepIx),
}
