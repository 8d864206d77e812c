//! What filters are asked about: rows of the store, sagas in view, and counters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::saga::duties::waits;
use crate::saga::filter::{Candidate, LiveStep};
use crate::saga::ids::{DefinitionName, Timestamp, Version};
use crate::saga::input::Reach;
use crate::saga::ready;
use crate::saga::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Saga};
use crate::saga::words::{Failure, Refusal, SagaStatus, codes};
use crate::store::Summary;

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// A row of the store. It knows nothing of steps: filters that need them look at the saga.
pub(super) struct SummaryRow<'a>(pub(super) &'a Summary);

impl Candidate for SummaryRow<'_> {
    fn status(&self) -> SagaStatus {
        self.0.status
    }
    fn definition(&self) -> &str {
        self.0.definition.as_str()
    }
    fn version(&self) -> u32 {
        self.0.version.0
    }
    fn saga_id(&self) -> &str {
        self.0.id.as_str()
    }
    fn created_at(&self) -> Timestamp {
        self.0.created_at
    }
    fn updated_at(&self) -> Timestamp {
        self.0.updated_at
    }
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.0.labels
    }
    fn failure(&self) -> Option<&Failure> {
        self.0.failure.as_ref()
    }
    fn paused(&self) -> bool {
        self.0.paused
    }
    fn uncertain(&self) -> bool {
        self.0.uncertain
    }
    fn live_steps(&self) -> Cow<'_, [LiveStep]> {
        Cow::Borrowed(&[])
    }
}

/// A saga with all its steps.
pub(super) struct SagaInView<'a> {
    pub(super) saga: &'a Saga,
    pub(super) reach: &'a dyn Reach,
}

impl Candidate for SagaInView<'_> {
    fn status(&self) -> SagaStatus {
        self.saga.status()
    }
    fn definition(&self) -> &str {
        self.saga.definition.name.as_str()
    }
    fn version(&self) -> u32 {
        self.saga.definition.version.0
    }
    fn saga_id(&self) -> &str {
        self.saga.id.as_str()
    }
    fn created_at(&self) -> Timestamp {
        self.saga.created_at
    }
    fn updated_at(&self) -> Timestamp {
        self.saga.updated_at
    }
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.saga.labels
    }
    fn failure(&self) -> Option<&Failure> {
        self.saga.failure.as_ref()
    }
    fn paused(&self) -> bool {
        self.saga.paused.is_some()
    }
    fn uncertain(&self) -> bool {
        self.saga.uncertain
    }
    fn live_steps(&self) -> Cow<'_, [LiveStep]> {
        Cow::Owned(live_steps(self.saga, self.reach))
    }
}

/// All sagas that one counter counts, as far as counters tell them apart.
pub(super) struct CountedSagas<'a> {
    pub(super) definition: &'a DefinitionName,
    pub(super) version: Version,
    pub(super) status: SagaStatus,
}

impl Candidate for CountedSagas<'_> {
    fn status(&self) -> SagaStatus {
        self.status
    }
    fn definition(&self) -> &str {
        self.definition.as_str()
    }
    fn version(&self) -> u32 {
        self.version.0
    }
    fn saga_id(&self) -> &'static str {
        ""
    }
    fn created_at(&self) -> Timestamp {
        Timestamp(0)
    }
    fn updated_at(&self) -> Timestamp {
        Timestamp(0)
    }
    fn labels(&self) -> &BTreeMap<String, String> {
        &NO_LABELS
    }
    fn failure(&self) -> Option<&Failure> {
        None
    }
    fn paused(&self) -> bool {
        false
    }
    fn uncertain(&self) -> bool {
        false
    }
    fn live_steps(&self) -> Cow<'_, [LiveStep]> {
        Cow::Borrowed(&[])
    }
}

/// Every call of the saga that is running, waiting, failed, unknown or blocked.
fn live_steps(saga: &Saga, reach: &dyn Reach) -> Vec<LiveStep> {
    let parked = waits(saga, reach).parked;
    let saga_is_open = !saga.is_terminal();
    let mut live = Vec::new();
    for (at, instance) in saga.each_instance() {
        let step = saga.step(at);
        let waits = matches!(instance.action, Action::Pending)
            && parked.iter().any(|absent| (&absent.participant, &absent.action) == step.action.handler())
            && ready::may_run(saga, at.step);
        if waits || action_is_live(&instance.action) {
            let participant = step.action.participant.to_string();
            let error = saga_is_open.then(|| action_error(&instance.action)).flatten();
            live.push(LiveStep { instance: saga.name_of(at), participant, error });
        }
        if let Some(call) = &step.compensation
            && undo_is_live(instance)
        {
            let error = saga_is_open.then(|| undo_error(&instance.compensation)).flatten();
            let (instance, participant) = (saga.name_of(at), call.participant.to_string());
            live.push(LiveStep { instance, participant, error });
        }
    }
    live
}

fn action_is_live(action: &Action) -> bool {
    match action {
        Action::Running
        | Action::Backoff { .. }
        | Action::Awaiting { .. }
        | Action::Probing { .. }
        | Action::Refused { .. }
        | Action::Unknown { .. }
        | Action::Blocked { .. } => true,
        Action::Pending | Action::Succeeded { .. } | Action::Skipped => false,
    }
}

/// What the last attempt of an action that is not settled left behind.
fn action_error(action: &Action) -> Option<Refusal> {
    match action {
        Action::Backoff { last, .. } | Action::Probing { why: ProbeWhy::BeforeBlock(last) } => {
            Some(error_of(last))
        }
        Action::Refused { refusal } | Action::Blocked { last: Some(Doubt::Refused(refusal)), .. } => {
            Some(refusal.clone())
        }
        Action::Blocked { reason, .. } => Some(unknown(reason)),
        Action::Unknown { cause } => Some(unknown(cause)),
        Action::Pending
        | Action::Running
        | Action::Awaiting { .. }
        | Action::Probing { why: ProbeWhy::Pending }
        | Action::Succeeded { .. }
        | Action::Skipped => None,
    }
}

fn undo_error(compensation: &Compensation) -> Option<Refusal> {
    match compensation {
        Compensation::Backoff { last, .. } => Some(error_of(last)),
        Compensation::Blocked { last: Some(Doubt::Refused(refusal)), .. } => Some(refusal.clone()),
        Compensation::Blocked { reason, .. } => Some(unknown(reason)),
        Compensation::Idle
        | Compensation::Running
        | Compensation::Awaiting { .. }
        | Compensation::Done
        | Compensation::Waived => None,
    }
}

fn error_of(doubt: &Doubt) -> Refusal {
    match doubt {
        Doubt::Unknown(cause) => unknown(cause),
        Doubt::Refused(refusal) => refusal.clone(),
    }
}

fn unknown(cause: &str) -> Refusal {
    Refusal { code: codes::UNKNOWN.to_owned(), message: cause.to_owned() }
}

fn undo_is_live(instance: &Instance) -> bool {
    match instance.compensation {
        Compensation::Running
        | Compensation::Backoff { .. }
        | Compensation::Awaiting { .. }
        | Compensation::Blocked { .. } => true,
        Compensation::Idle | Compensation::Done | Compensation::Waived => false,
    }
}
