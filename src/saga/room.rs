//! How much a saga's journal may hold, and what the last of it is kept for.
//!
//! ```text
//!  0                                        3/4                     15/16      the limit
//!  ├─ inputs, outputs, attempts, lists ──────┼─ undoing, probes ───────┼─ acts, ─┤ an end goes
//!  │  (less what undoing is sure to need)    │                         │  notes  │ beyond it
//! ```
//!
//! A saga that comes to the first mark makes no further attempt forward: it turns back, or asks an
//! operator where turning back is not possible. So there is always room left to undo and to end it.
//! Sizes are counted from facts, never too small, and so are the same after every replay.

use super::event::{CallInput, Event, Started};
use super::ids::InstanceRef;
use super::input::{Act, Resolution};
use super::state::{Compensation, Saga};

/// At least what a stored fact takes beside its texts, its share of a commit's own head included.
pub const FACT_BYTES: usize = 128;
/// At least what a stored text takes beside its bytes.
const TEXT_BYTES: usize = 12;
/// What is kept for each instance that may have to be undone: an intent and its end, or a block.
const UNDO_BYTES: usize = 2 * FACT_BYTES;
/// The part of the limit that only undoing, acts and ends may use.
const KEPT_PART: usize = 4;
/// The part of the limit that only acts and ends may use.
const KEPT_PART_FOR_ACTS: usize = 16;

/// The most that a saga's journal may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimit(usize);

impl JournalLimit {
    /// No limit; for tests and for plans.
    pub const NONE: Self = Self(usize::MAX);

    /// A limit of `bytes`.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    /// The limit itself.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }

    /// How far the way forward may fill the journal.
    const fn forward(self) -> usize {
        self.0 - self.0 / KEPT_PART
    }

    /// How far undoing may fill it.
    const fn undoing(self) -> usize {
        self.0 - self.0 / KEPT_PART_FOR_ACTS
    }

    /// Whether `bytes` more fit on the way forward, with what undoing is sure to need left over.
    #[must_use]
    pub fn fits_forward(self, saga: &Saga, bytes: usize) -> bool {
        fits(self.forward(), saga, None, bytes)
    }

    /// Whether `bytes` more fit on the way back, with what the undoing of all instances but `of` is
    /// sure to need left over.
    #[must_use]
    pub fn fits_backward(self, saga: &Saga, of: Option<InstanceRef>, bytes: usize) -> bool {
        fits(self.undoing(), saga, of, bytes)
    }

    /// Whether there is room for another attempt of an action, its output included unless that is
    /// exceptionally large.
    #[must_use]
    pub fn is_roomy(self, saga: &Saga) -> bool {
        self.fits_forward(saga, attempt_bytes(None).max(self.0 / KEPT_PART_FOR_ACTS))
    }
}

fn fits(mark: usize, saga: &Saga, of: Option<InstanceRef>, bytes: usize) -> bool {
    let wanted = saga.journal_bytes.saturating_add(bytes);
    // What is kept for an instance is at most twice what its own facts take: most sagas are so far
    // from the mark that nothing has to be added up.
    wanted.saturating_add(2 * saga.journal_bytes) <= mark
        || wanted.saturating_add(kept_for_undoing(saga, of)) <= mark
}

/// What undoing is sure to need: two facts an instance, and the output once more where the
/// compensation has an input of its own, which is mostly made of it.
fn kept_for_undoing(saga: &Saga, besides: Option<InstanceRef>) -> usize {
    if saga.committed {
        return 0;
    }
    let is_owed = |at: InstanceRef, instance: &super::state::Instance| {
        instance.compensation == Compensation::Idle
            && instance.owes_compensation(saga.step(at))
            && besides != Some(at)
    };
    let of_one = |at: InstanceRef, instance: &super::state::Instance| {
        let output = instance.output().map_or(0, |output| output.text().len());
        UNDO_BYTES + if has_own_undo_input(saga, at) { output } else { 0 }
    };
    saga.each_instance().filter(|&(at, i)| is_owed(at, i)).map(|(at, i)| of_one(at, i)).sum()
}

fn has_own_undo_input(saga: &Saga, at: InstanceRef) -> bool {
    saga.compensation_call(at).is_some_and(|call| call.input.is_some())
}

/// What an action's attempt with this input needs, undoing it included.
#[must_use]
pub fn attempt_bytes(input: Option<&CallInput>) -> usize {
    undo_attempt_bytes(input) + UNDO_BYTES
}

/// What another call needs: its intent and its end.
#[must_use]
pub fn undo_attempt_bytes(input: Option<&CallInput>) -> usize {
    2 * FACT_BYTES + input.map_or(0, input_bytes)
}

/// What keeping an output of `bytes` needs, undoing what it is the output of included.
#[must_use]
pub fn output_bytes(saga: &Saga, at: InstanceRef, bytes: usize) -> usize {
    FACT_BYTES + if has_own_undo_input(saga, at) { 2 * bytes } else { bytes }
}

fn input_bytes(input: &CallInput) -> usize {
    match input {
        CallInput::Inline(json) => text_bytes(json.text()),
        CallInput::Saga | CallInput::Action => 0,
    }
}

fn text_bytes(text: &str) -> usize {
    TEXT_BYTES + text.len()
}

fn names_bytes(names: &[String]) -> usize {
    names.iter().map(|name| text_bytes(name)).sum()
}

/// What a fact with this event takes when it is stored; never less.
#[must_use]
pub fn fact_bytes(event: &Event) -> usize {
    let texts = match event {
        Event::SagaStarted(started) => return started_bytes(started),
        Event::StepExpanded { items: json, .. }
        | Event::StepSucceeded { output: json, .. }
        | Event::SagaCommitted { output: json }
        | Event::CompensationDone { output: json, .. } => text_bytes(json.text()),
        Event::StepStarted { input, .. }
        | Event::StepProbed { input, .. }
        | Event::CompensationStarted { input, .. } => input.as_ref().map_or(0, input_bytes),
        Event::StepFailed { refusal, .. } | Event::CompensationRefused { refusal, .. } => {
            text_bytes(&refusal.code) + text_bytes(&refusal.message)
        }
        Event::StepUnknown { cause: text, .. }
        | Event::CompensationUnknown { cause: text, .. }
        | Event::Blocked { reason: text, .. }
        | Event::LateReply { summary: text, .. } => text_bytes(text),
        Event::CancelRequested { actor, reason } => text_bytes(actor) + text_bytes(reason),
        Event::SagaCompensating { failure } => {
            text_bytes(&failure.step) + text_bytes(&failure.code) + text_bytes(&failure.message)
        }
        Event::OperatorAct { act, actor, reason } => text_bytes(actor) + text_bytes(reason) + act_bytes(act),
        Event::ExpressionFailed { place, message } => text_bytes(place) + text_bytes(message),
        Event::EventEmitted { topic, key, data } => {
            text_bytes(topic) + text_bytes(key) + text_bytes(data.text())
        }
        Event::SagaAbandoned { steps } => names_bytes(steps),
        Event::LockWaiting { .. }
        | Event::LockGranted
        | Event::StepPending { .. }
        | Event::ProbeUnsupported { .. }
        | Event::StepSkipped { .. }
        | Event::DeadlinePassed
        | Event::CompensationPending { .. }
        | Event::CompensationWaived { .. }
        | Event::Unblocked { .. }
        | Event::SagaCompleted
        | Event::SagaCompensated => 0,
    };
    FACT_BYTES + texts
}

/// What a saga's first fact takes.
#[must_use]
pub fn started_bytes(started: &Started) -> usize {
    let labels = started.labels.iter();
    let labels: usize = labels.map(|(name, value)| text_bytes(name) + 2 * TEXT_BYTES + value.len()).sum();
    let locks: usize = started.locks.iter().map(|key| text_bytes(key.as_str())).sum();
    let names = text_bytes(started.id.as_str()) + text_bytes(started.definition.as_str());
    FACT_BYTES + names + text_bytes(started.input.text()) + labels + locks
}

fn act_bytes(act: &Act) -> usize {
    match act {
        Act::RetryNow { step } => step.as_deref().map_or(0, text_bytes),
        Act::Skip { step } => text_bytes(step),
        Act::Resolve { step, resolution } => {
            let output = match resolution {
                Resolution::Done(output) => text_bytes(output.text()),
                Resolution::Failed | Resolution::Compensated => 0,
            };
            text_bytes(step) + output
        }
        Act::Pause | Act::Resume | Act::Cancel => 0,
        Act::Abandon { steps } => names_bytes(steps),
    }
}
