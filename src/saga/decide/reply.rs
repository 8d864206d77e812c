//! The end of an action's call, by its reply or later by its token.

use std::time::Duration;

use crate::saga::event::{Event, Source};
use crate::saga::ids::InstanceRef;
use crate::saga::input::{Completion, Rejection, Reply};
use crate::saga::json::Json;
use crate::saga::keys::idempotency_key;
use crate::saga::retry::next_delay;
use crate::saga::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Stage};
use crate::saga::words::{Outcome, Phase, Refusal, StepKind, codes};

use super::draft::Draft;
use super::{forward, probe, undo};

/// The shortest time between two looks at what is pending, whatever the participant or the
/// definition says.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(10);

/// What a reply can still do to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing settled it yet.
    Open,
    /// It is unknown for good and its compensation is not begun: a success is still worth knowing.
    UnknownForGood,
    /// It cannot change any more.
    Settled,
}

fn standing(draft: &Draft<'_>, instance: &Instance) -> Standing {
    if draft.saga.is_terminal() {
        return Standing::Settled;
    }
    match &instance.action {
        Action::Running | Action::Backoff { .. } | Action::Awaiting { .. } | Action::Probing { .. } => {
            Standing::Open
        }
        Action::Blocked { last: Some(_), .. } => Standing::Open,
        Action::Unknown { .. } if instance.compensation == Compensation::Idle => Standing::UnknownForGood,
        Action::Unknown { .. }
        | Action::Blocked { last: None, .. }
        | Action::Pending
        | Action::Succeeded { .. }
        | Action::Refused { .. }
        | Action::Skipped => Standing::Settled,
    }
}

/// A reply to an action's call.
pub(super) fn action_replied(draft: &mut Draft<'_>, reply: &Reply) {
    let Some(instance) = draft.instance(reply.at) else { return };
    let is_latest = reply.attempt == instance.tries.attempt;
    let is_running = instance.action == Action::Running;
    let stands = standing(draft, instance);
    let too_large = unkept_output(draft, reply).filter(|_| stands != Standing::Settled);
    match (stands, too_large.as_ref().unwrap_or(&reply.outcome)) {
        (Standing::Open | Standing::UnknownForGood, Outcome::Done(output)) => {
            succeeded(draft, reply.at, reply.attempt, output.clone(), Source::Reply);
        }
        (Standing::Open, Outcome::Refused(refusal)) if is_latest => {
            refused(draft, reply.at, refusal, Source::Reply);
        }
        (Standing::Open, Outcome::Unknown(cause)) if is_latest && is_running => {
            unknown(draft, reply.at, cause);
        }
        (Standing::Open, Outcome::Unsent(cause)) if is_latest && is_running => {
            unsent(draft, reply.at, cause);
        }
        (Standing::Open, Outcome::Unsupported) if is_latest && is_running => {
            unknown(draft, reply.at, "the participant does not serve this call");
        }
        (Standing::Open, Outcome::Pending(check_after)) if is_latest && is_running => {
            pending(draft, reply.at, *check_after);
        }
        (Standing::Settled, Outcome::Done(_)) => late_success(draft, reply.at, reply.attempt),
        // A refusal or a doubt that is not about the latest attempt, or comes when all is settled.
        _ => {}
    }
}

/// A success whose output there is no room for counts as no definite answer, like one whose output
/// is too large in itself: what depends on the step could not run without it.
pub(super) fn unkept_output(draft: &Draft<'_>, reply: &Reply) -> Option<Outcome> {
    let Outcome::Done(output) = &reply.outcome else { return None };
    draft.no_room_for_output(reply.at, output).map(Outcome::Unknown)
}

/// A participant finishes a pending call by its token.
pub(super) fn completed(
    draft: &mut Draft<'_>,
    at: InstanceRef,
    phase: Phase,
    outcome: &Completion,
) -> Result<(), Rejection> {
    if phase == Phase::Compensation {
        return undo::compensation_completed(draft, at, outcome);
    }
    let Some(instance) = draft.instance(at) else {
        return Err(Rejection::Precondition("the step does not exist".to_owned()));
    };
    let attempt = instance.tries.attempt;
    let stands = standing(draft, instance);
    match (outcome, &instance.action) {
        (Completion::Done(output), Action::Succeeded { output: stored }) if output == stored => Ok(()),
        (Completion::Refused(refusal), Action::Refused { refusal: stored }) if refusal == stored => Ok(()),
        (Completion::Done(output), _) if stands != Standing::Settled => {
            if let Some(why) = draft.no_room_for_output(at, output) {
                return Err(Rejection::Precondition(format!("{why}; complete the step with a smaller one")));
            }
            succeeded(draft, at, attempt, output.clone(), Source::Token);
            Ok(())
        }
        (Completion::Refused(refusal), _) if stands == Standing::Open => {
            refused(draft, at, refusal, Source::Token);
            Ok(())
        }
        (Completion::Done(_), _) => {
            draft.refused = Some(settled_otherwise(draft, at));
            late_success(draft, at, attempt);
            Ok(())
        }
        (Completion::Refused(_), _) => Err(settled_otherwise(draft, at)),
    }
}

/// The answer to whoever completes what is complete.
pub(super) fn settled_otherwise(draft: &Draft<'_>, at: InstanceRef) -> Rejection {
    Rejection::Precondition(format!(
        "step {} of saga {} is settled otherwise already",
        draft.saga.name_of(at),
        draft.saga.id
    ))
}

/// The effect happened.
pub(super) fn succeeded(draft: &mut Draft<'_>, at: InstanceRef, attempt: u32, output: Json, source: Source) {
    draft.lift_block(at, Phase::Action);
    draft.record(Event::StepSucceeded { at, attempt, output, source });
    forward::announce_success(draft, at.step);
}

/// A success that comes when it cannot count any more. It is kept once, and when nothing will undo
/// it the saga is no longer certain.
fn late_success(draft: &mut Draft<'_>, at: InstanceRef, attempt: u32) {
    let Some(instance) = draft.instance(at) else { return };
    if instance.late_success || matches!(instance.action, Action::Succeeded { .. }) {
        return;
    }
    let will_be_undone = match instance.compensation {
        Compensation::Idle => {
            draft.saga.stage == Stage::Backward && instance.owes_compensation(draft.saga.step(at))
        }
        Compensation::Running | Compensation::Backoff { .. } | Compensation::Awaiting { .. } => {
            !draft.saga.is_terminal()
        }
        Compensation::Done | Compensation::Blocked { .. } | Compensation::Waived => false,
    };
    if !will_be_undone {
        let summary = "the action succeeded when it could no longer count".to_owned();
        draft.record(Event::LateReply { at, phase: Phase::Action, attempt, summary, uncertain: true });
    }
}

/// A refusal by the participant, of the latest attempt.
fn refused(draft: &mut Draft<'_>, at: InstanceRef, refusal: &Refusal, source: Source) {
    let Some(instance) = draft.instance(at) else { return };
    let attempt = instance.tries.attempt;
    let is_awaited = matches!(
        instance.action,
        Action::Running | Action::Awaiting { .. } | Action::Probing { why: ProbeWhy::Pending }
    );
    let is_doubtful = instance.doubtful;
    match draft.saga.step(at).kind {
        StepKind::Compensatable => refused_for_good(draft, at, attempt, refusal, source),
        StepKind::Pivot if !is_doubtful => refused_for_good(draft, at, attempt, refusal, source),
        // A refusal that settles nothing counts once, for the call that is awaited: it lifts no
        // block, and its repetition costs no budget;
        StepKind::Pivot | StepKind::Retriable if !is_awaited => {}
        // and a pivot has to be asked for certain.
        StepKind::Pivot => {
            let (elapsed, retry_at) = (elapsed(draft, at), Some(draft.ctx.now));
            draft.record(Event::StepFailed {
                at,
                attempt,
                refusal: refusal.clone(),
                elapsed,
                retry_at,
                source,
            });
            probe_or_block(draft, at, &Doubt::Refused(refusal.clone()));
        }
        StepKind::Retriable => {
            let elapsed = elapsed(draft, at);
            let delay = delay_after(draft, at, elapsed);
            let retry_at = Some(draft.ctx.now + delay.unwrap_or(Duration::ZERO));
            draft.record(Event::StepFailed {
                at,
                attempt,
                refusal: refusal.clone(),
                elapsed,
                retry_at,
                source,
            });
            if delay.is_none() {
                draft.block(at, Phase::Action, format!("refused: {}: {}", refusal.code, refusal.message));
            }
        }
    }
}

/// A refusal that settles the step; a saga on its way forward turns back.
pub(super) fn refused_for_good(
    draft: &mut Draft<'_>,
    at: InstanceRef,
    attempt: u32,
    refusal: &Refusal,
    source: Source,
) {
    if draft.saga.step(at).kind == StepKind::Retriable {
        return refused(draft, at, refusal, source);
    }
    draft.lift_block(at, Phase::Action);
    let elapsed = elapsed(draft, at);
    draft.record(Event::StepFailed {
        at,
        attempt,
        refusal: refusal.clone(),
        elapsed,
        retry_at: None,
        source,
    });
    draft.turn_back_for(at, refusal);
}

/// No definite answer: another attempt while the budget lasts and the saga goes forward.
fn unknown(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    let elapsed = elapsed(draft, at);
    let delay = match draft.saga.stage {
        Stage::Backward => None,
        _ => delay_after(draft, at, elapsed),
    };
    let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
    let retry_at = delay.map(|delay| draft.ctx.now + delay);
    let (cause_kept, unsent) = (cause.to_owned(), false);
    draft.record(Event::StepUnknown { at, attempt, cause: cause_kept, elapsed, retry_at, unsent });
    if retry_at.is_none() {
        unknown_for_good(draft, at, cause);
    }
}

/// The attempt never left the daemon: it costs nothing, and is due again at once. On the way back it
/// is not made again.
fn unsent(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    let Some(instance) = draft.instance(at) else { return };
    let attempt = instance.tries.attempt;
    if instance.tries.is_a_check && draft.saga.stage != Stage::Backward {
        return wait_for_it(draft, at, attempt, Duration::ZERO);
    }
    let retry_at = (draft.saga.stage != Stage::Backward).then_some(draft.ctx.now);
    let (cause, elapsed, unsent) = (cause.to_owned(), Duration::ZERO, true);
    draft.record(Event::StepUnknown { at, attempt, cause, elapsed, retry_at, unsent });
}

/// What follows when a step stays unknown: a compensatable one is undone, the others wait for an
/// operator, the pivot after a last question.
pub(super) fn unknown_for_good(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    match draft.saga.step(at).kind {
        StepKind::Compensatable => {
            let refusal =
                Refusal { code: codes::UNKNOWN.to_owned(), message: format!("no definite answer: {cause}") };
            draft.turn_back_for(at, &refusal);
        }
        StepKind::Pivot => probe_or_block(draft, at, &Doubt::Unknown(cause.to_owned())),
        StepKind::Retriable => draft.block(at, Phase::Action, format!("no definite answer: {cause}")),
    }
}

fn probe_or_block(draft: &mut Draft<'_>, at: InstanceRef, doubt: &Doubt) {
    let has_probe = draft.instance(at).is_some_and(|i| !i.probe_unsupported);
    if !(has_probe && probe::start_probe(draft, at)) {
        probe::block_in_doubt(draft, at, doubt);
    }
}

fn pending(draft: &mut Draft<'_>, at: InstanceRef, check_after: Option<Duration>) {
    let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
    let look_in = look_in(draft, at, check_after);
    wait_for_it(draft, at, attempt, look_in);
}

/// When to look again at what is pending: as the participant said, else as the step says. Never at
/// once: every look is a commit and grows the journal.
pub(super) fn look_in(draft: &Draft<'_>, at: InstanceRef, check_after: Option<Duration>) -> Duration {
    check_after.unwrap_or(draft.saga.step(at).pending.interval).max(LOOK_AGAIN_MIN)
}

/// Waits for a participant that is still working, not longer than the step's limit.
pub(super) fn wait_for_it(draft: &mut Draft<'_>, at: InstanceRef, attempt: u32, look_in: Duration) {
    let policy = draft.saga.step(at).pending;
    let now = draft.ctx.now;
    let known = draft.instance(at).and_then(|i| i.tries.pending_until);
    let until = known.unwrap_or(now + policy.max);
    if now >= until {
        return pending_is_over(draft, at);
    }
    let check_at = (now + look_in).min(until);
    draft.record(Event::StepPending { at, attempt, check_at, until });
}

/// It stayed pending longer than it may: unknown, and no further attempt.
pub(super) fn pending_is_over(draft: &mut Draft<'_>, at: InstanceRef) {
    let cause = format!("still pending after {:?}", draft.saga.step(at).pending.max);
    probe::leave_unknown(draft, at, &cause);
    unknown_for_good(draft, at, &cause);
}

/// The time the running attempt took.
fn elapsed(draft: &Draft<'_>, at: InstanceRef) -> Duration {
    match draft.instance(at) {
        Some(Instance { action: Action::Running, tries, .. }) => {
            tries.attempt_at.map_or(Duration::ZERO, |since| draft.ctx.now.since(since))
        }
        _ => Duration::ZERO,
    }
}

fn delay_after(draft: &Draft<'_>, at: InstanceRef, elapsed: Duration) -> Option<Duration> {
    let mut tries = draft.instance(at)?.tries.clone();
    tries.spent += elapsed;
    let key = idempotency_key(&draft.saga.id, &draft.saga.name_of(at), Phase::Action);
    next_delay(&draft.saga.step(at).action.retry, &tries, &key)
}
