//! Which facts follow from an input. Changes nothing and performs nothing.
//!
//! ```text
//!  start ─────────────┐
//!  reply ── action    │
//!        ── undo      ├──► Draft: record a fact, apply it, go on ──► advance ──► Decision
//!        ── probe     │                                             forward │ backward
//!  operator, cancel ──┘
//! ```
//!
//! Each input first records what it says; then [`advance`] does whatever the saga's new state
//! allows: the same few lines for every input, and for a saga that was just recovered.

mod advance;
mod backward;
mod draft;
mod forward;
mod operator;
mod probe;
mod recover;
mod reply;
mod undo;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definition::{Definition, Trigger};
use super::event::{Event, Fact, Started};
use super::ids::{LockKey, SagaId};
use super::input::{Context, Input, Rejection};
use super::json::Json;
use super::state::Saga;
use super::words::{Failure, Phase, codes};
use draft::Draft;

/// Largest input or output of a call, in bytes of JSON text.
pub const CALL_JSON_MAX_BYTES: usize = 1024 * 1024;

/// What follows from an input.
#[derive(Debug, Clone)]
pub struct Decision {
    /// New facts, in order. Empty: nothing changed.
    pub facts: Vec<Fact>,
    /// The saga with these facts applied.
    pub next: Saga,
    /// The caller is told no, although there may be facts to keep (a success that came too late).
    pub refused: Option<Rejection>,
}

/// A saga to be.
#[derive(Debug, Clone)]
pub struct NewSaga {
    /// Its identity.
    pub id: SagaId,
    /// The version it will run.
    pub definition: Arc<Definition>,
    /// The version the client asked for; 0 for the newest.
    pub version_asked: u32,
    /// The client's input, already checked.
    pub input: Json,
    /// The client's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its lock keys, sorted, without repeats.
    pub locks: Vec<LockKey>,
    /// Whether it holds all of them already.
    pub locks_held: bool,
}

/// Starts a saga: its first facts, up to the intents of its first steps.
#[must_use]
pub fn start(new: NewSaga, ctx: &Context<'_>) -> Decision {
    let started = Started {
        id: new.id,
        definition: new.definition.name.clone(),
        version: new.definition.version,
        digest: new.definition.digest,
        version_asked: new.version_asked,
        input: new.input,
        labels: new.labels,
        locks: new.locks,
    };
    let mut draft = Draft::begin(started, new.definition, ctx);
    draft.emit(&Trigger::Started);
    if !draft.saga.locks.is_empty() {
        if new.locks_held {
            draft.record(Event::LockGranted);
        } else {
            let until = ctx.now + draft.saga.definition.lock_wait;
            draft.record(Event::LockWaiting { until });
        }
    }
    advance::advance(&mut draft);
    draft.finish()
}

/// Decides one input.
///
/// # Errors
/// A [`Rejection`] when the input changes nothing and its sender is to be told.
pub fn decide(saga: &Saga, input: &Input, ctx: &Context<'_>) -> Result<Decision, Rejection> {
    let mut draft = Draft::of(saga, ctx);
    match input {
        Input::Wake => {}
        Input::Recovered => recover::recovered(&mut draft),
        Input::LocksGranted => {
            if matches!(draft.saga.stage, super::state::Stage::AwaitingLocks { .. }) {
                draft.record(Event::LockGranted);
            }
        }
        Input::Reply(reply) => match reply.phase {
            Phase::Action => reply::action_replied(&mut draft, reply),
            Phase::Compensation => undo::compensation_replied(&mut draft, reply),
            Phase::Probe => probe::probe_replied(&mut draft, reply),
        },
        Input::Complete { at, phase, outcome } => reply::completed(&mut draft, *at, *phase, outcome)?,
        Input::Cancel { actor, reason } => cancel(&mut draft, actor, reason)?,
        Input::Act { act, actor, reason } => operator::act(&mut draft, act, actor, reason)?,
    }
    advance::advance(&mut draft);
    Ok(draft.finish())
}

/// Records a cancel at once. What is in flight is awaited; nothing new is started forward.
fn cancel(draft: &mut Draft<'_>, actor: &str, reason: &str) -> Result<(), Rejection> {
    use super::state::Stage;
    match draft.saga.stage {
        Stage::Backward | Stage::Compensated => return Ok(()),
        Stage::Committed | Stage::Completed => {
            return Err(Rejection::Precondition(
                "the saga is committed: it only goes forward from here".to_owned(),
            ));
        }
        Stage::Abandoned => return Err(Rejection::Precondition("the saga was abandoned".to_owned())),
        Stage::AwaitingLocks { .. } | Stage::Forward => {}
    }
    if let Some(pivot) = draft.pivot_intended() {
        return Err(Rejection::Precondition(format!(
            "the pivot step {} was already called: the saga can no longer be cancelled",
            draft.saga.name_of(pivot)
        )));
    }
    draft.record(Event::CancelRequested { actor: actor.to_owned(), reason: reason.to_owned() });
    let message = if reason.is_empty() { "cancelled".to_owned() } else { reason.to_owned() };
    draft.turn_back(Failure { step: String::new(), code: codes::CANCELLED.to_owned(), message });
    Ok(())
}
