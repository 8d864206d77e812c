//! The end of a compensation's call.

use std::time::Duration;

use crate::saga::event::{Event, Source};
use crate::saga::ids::InstanceRef;
use crate::saga::input::{Completion, Rejection, Reply};
use crate::saga::json::Json;
use crate::saga::keys::idempotency_key;
use crate::saga::retry::next_delay;
use crate::saga::state::Compensation;
use crate::saga::words::{Outcome, Phase, Refusal};

use super::draft::Draft;
use super::reply::{look_in, settled_otherwise};

/// A reply to a compensation's call.
pub(super) fn compensation_replied(draft: &mut Draft<'_>, reply: &Reply) {
    let Some(instance) = draft.instance(reply.at) else { return };
    let is_latest = reply.attempt == instance.undo_tries.attempt;
    let is_running = instance.compensation == Compensation::Running;
    if !is_open(draft, &instance.compensation) || reply.attempt == 0 {
        return;
    }
    let is_blocked = matches!(instance.compensation, Compensation::Blocked { .. });
    match &reply.outcome {
        Outcome::Done(output) => done(draft, reply.at, reply.attempt, output.clone(), Source::Reply),
        Outcome::Refused(refusal) if is_latest && !is_blocked => refused(draft, reply.at, refusal),
        Outcome::Unknown(cause) if is_latest && is_running => unknown(draft, reply.at, cause),
        Outcome::Unsent(cause) if is_latest && is_running => unsent(draft, reply.at, cause),
        Outcome::Unsupported if is_latest && is_running => {
            unknown(draft, reply.at, "the participant does not serve this call");
        }
        Outcome::Pending(check_after) if is_latest && is_running => pending(draft, reply.at, *check_after),
        // A refusal or a doubt about an earlier attempt, or while an operator is asked already.
        Outcome::Refused(_)
        | Outcome::Unknown(_)
        | Outcome::Unsent(_)
        | Outcome::Unsupported
        | Outcome::Pending(_) => {}
    }
}

fn is_open(draft: &Draft<'_>, compensation: &Compensation) -> bool {
    !draft.saga.is_terminal()
        && match compensation {
            Compensation::Running
            | Compensation::Backoff { .. }
            | Compensation::Awaiting { .. }
            | Compensation::Blocked { .. } => true,
            Compensation::Idle | Compensation::Done | Compensation::Waived => false,
        }
}

/// A participant finishes a pending compensation by its token.
pub(super) fn compensation_completed(
    draft: &mut Draft<'_>,
    at: InstanceRef,
    outcome: &Completion,
) -> Result<(), Rejection> {
    let Some(instance) = draft.instance(at) else {
        return Err(Rejection::Precondition("the step does not exist".to_owned()));
    };
    let attempt = instance.undo_tries.attempt;
    let is_blocked = matches!(instance.compensation, Compensation::Blocked { .. });
    match outcome {
        Completion::Done(_) if instance.compensation == Compensation::Done => Ok(()),
        Completion::Done(output) if attempt > 0 && is_open(draft, &instance.compensation) => {
            done(draft, at, attempt, output.clone(), Source::Token);
            Ok(())
        }
        Completion::Refused(_) if is_blocked => Ok(()),
        Completion::Refused(refusal) if attempt > 0 && is_open(draft, &instance.compensation) => {
            refused(draft, at, refusal);
            Ok(())
        }
        Completion::Done(_) | Completion::Refused(_) => Err(settled_otherwise(draft, at)),
    }
}

fn done(draft: &mut Draft<'_>, at: InstanceRef, attempt: u32, output: Json, source: Source) {
    // Nothing reads a compensation's output, so it need not be kept for the saga to go on.
    let name = draft.saga.name_of(at);
    let output = draft.kept(output, || format!("{name}: output of the compensation"));
    draft.lift_block(at, Phase::Compensation);
    draft.record(Event::CompensationDone { at, attempt, output, source });
}

/// A refused compensation waits for an operator at once.
fn refused(draft: &mut Draft<'_>, at: InstanceRef, refusal: &Refusal) {
    let attempt = draft.instance(at).map_or(0, |i| i.undo_tries.attempt);
    draft.record(Event::CompensationRefused { at, attempt, refusal: refusal.clone() });
    draft.block(at, Phase::Compensation, format!("refused: {}: {}", refusal.code, refusal.message));
}

fn unknown(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    let Some(instance) = draft.instance(at) else { return };
    let mut tries = instance.undo_tries.clone();
    let elapsed = tries.attempt_at.map_or(Duration::ZERO, |since| draft.ctx.now.since(since));
    tries.spent += elapsed;
    let key = idempotency_key(&draft.saga.id, &draft.saga.name_of(at), Phase::Compensation);
    let policy = draft.saga.compensation_call(at).map(|call| &call.retry);
    let delay = policy.and_then(|policy| next_delay(policy, &tries, &key));
    let retry_at = delay.map(|delay| draft.ctx.now + delay);
    let (attempt, kept, unsent) = (tries.attempt, cause.to_owned(), false);
    draft.record(Event::CompensationUnknown { at, attempt, cause: kept, elapsed, retry_at, unsent });
    if retry_at.is_none() {
        draft.block(at, Phase::Compensation, format!("no definite answer: {cause}"));
    }
}

/// The attempt never left the daemon: it costs nothing, and is due again at once.
fn unsent(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    let Some(instance) = draft.instance(at) else { return };
    let (now, tries) = (draft.ctx.now, &instance.undo_tries);
    let attempt = tries.attempt;
    if let (true, Some(until)) = (tries.is_a_check, tries.pending_until) {
        if now >= until {
            return pending_is_over(draft, at);
        }
        return draft.record(Event::CompensationPending { at, attempt, check_at: now, until });
    }
    let (cause, elapsed, retry_at, unsent) = (cause.to_owned(), Duration::ZERO, Some(now), true);
    draft.record(Event::CompensationUnknown { at, attempt, cause, elapsed, retry_at, unsent });
}

fn pending(draft: &mut Draft<'_>, at: InstanceRef, check_after: Option<Duration>) {
    let policy = draft.saga.step(at).pending;
    let Some(instance) = draft.instance(at) else { return };
    let (now, attempt) = (draft.ctx.now, instance.undo_tries.attempt);
    let until = instance.undo_tries.pending_until.unwrap_or(now + policy.max);
    if now >= until {
        return pending_is_over(draft, at);
    }
    let check_at = (now + look_in(draft, at, check_after)).min(until);
    draft.record(Event::CompensationPending { at, attempt, check_at, until });
}

/// It stayed pending longer than it may: an operator decides.
pub(super) fn pending_is_over(draft: &mut Draft<'_>, at: InstanceRef) {
    let attempt = draft.instance(at).map_or(0, |i| i.undo_tries.attempt);
    let cause = format!("still pending after {:?}", draft.saga.step(at).pending.max);
    draft.record(Event::CompensationUnknown {
        at,
        attempt,
        cause: cause.clone(),
        elapsed: Duration::ZERO,
        retry_at: None,
        unsent: false,
    });
    draft.block(at, Phase::Compensation, format!("no definite answer: {cause}"));
}
