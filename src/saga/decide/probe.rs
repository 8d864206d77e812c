//! Asking a participant whether an effect exists.

use std::sync::Arc;
use std::time::Duration;

use crate::saga::event::{CallInput, Event, Source};
use crate::saga::ids::InstanceRef;
use crate::saga::input::Reply;
use crate::saga::state::{Action, Doubt, ProbeWhy, Stage};
use crate::saga::words::{Outcome, Phase};

use super::draft::Draft;
use super::reply::{look_in, refused_for_good, succeeded, unkept_output, wait_for_it};

/// Records a probe's intent, unless it cannot be asked now.
pub(super) fn start_probe(draft: &mut Draft<'_>, at: InstanceRef) -> bool {
    if draft.saga.paused.is_some() || !draft.can_call(at, Phase::Probe) {
        return false;
    }
    let definition = Arc::clone(&draft.saga.definition);
    let Some(instance) = draft.instance(at) else { return false };
    let probe = instance.probes + 1;
    let template = definition.step(at.step).probe.as_ref().and_then(|probe| probe.input.as_ref());
    let input = match (template, &instance.probe_input) {
        (None, _) | (Some(_), Some(_)) => None,
        // A probe whose own input cannot be made is asked with the action's.
        (Some(template), None) => {
            let own = draft.call_input(Some(template), CallInput::Action, at).ok();
            own.filter(|input| draft.no_room_backward(at, Some(input)).is_none())
        }
    };
    if draft.no_room_backward(at, input.as_ref()).is_some() {
        return false;
    }
    draft.record(Event::StepProbed { at, probe, epoch: draft.ctx.epoch, input });
    true
}

/// Leaves a step unknown without a further attempt.
pub(super) fn leave_unknown(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
    let cause = cause.to_owned();
    let (elapsed, retry_at, unsent) = (Duration::ZERO, None, false);
    draft.record(Event::StepUnknown { at, attempt, cause, elapsed, retry_at, unsent });
}

/// The last question before a block was not asked, through no fault of the participant's: the step is
/// called once more before it is put to an operator.
pub(super) fn call_once_more(draft: &mut Draft<'_>, at: InstanceRef, cause: &str) {
    let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
    let (cause, elapsed, unsent) = (cause.to_owned(), Duration::ZERO, false);
    let retry_at = Some(draft.ctx.now);
    draft.record(Event::StepUnknown { at, attempt, cause, elapsed, retry_at, unsent });
}

/// A probe's answer. An answer to a question nobody asks any more changes nothing.
pub(super) fn probe_replied(draft: &mut Draft<'_>, reply: &Reply) {
    let Some(instance) = draft.instance(reply.at) else { return };
    let Action::Probing { why } = &instance.action else { return };
    if instance.probes != reply.attempt || draft.saga.is_terminal() {
        return;
    }
    let why = why.clone();
    let attempt = instance.tries.attempt;
    let too_large = unkept_output(draft, reply);
    match too_large.as_ref().unwrap_or(&reply.outcome) {
        Outcome::Done(output) => succeeded(draft, reply.at, attempt, output.clone(), Source::Probe),
        Outcome::Refused(refusal) => refused_for_good(draft, reply.at, attempt, refusal, Source::Probe),
        Outcome::Pending(check_after) if draft.saga.stage != Stage::Backward => match why {
            // It was the last question: asking on and on would keep it from the operator.
            ProbeWhy::BeforeBlock(doubt)
                if is_past_its_wait(draft, reply.at) || draft.no_room_forward(None).is_some() =>
            {
                block_in_doubt(draft, reply.at, &doubt);
            }
            ProbeWhy::BeforeBlock(_) | ProbeWhy::Pending => {
                let look_in = look_in(draft, reply.at, *check_after);
                wait_for_it(draft, reply.at, attempt, look_in);
            }
        },
        Outcome::Unsupported => {
            draft.record(Event::ProbeUnsupported { at: reply.at });
            without_a_probe(draft, reply.at, &why);
        }
        Outcome::Pending(_) => leave_unknown(draft, reply.at, "the participant is still working"),
        Outcome::Unsent(cause) if matches!(why, ProbeWhy::BeforeBlock(_)) => {
            call_once_more(draft, reply.at, cause);
        }
        // A question that was not asked has no answer either.
        Outcome::Unknown(cause) | Outcome::Unsent(cause) => match why {
            ProbeWhy::BeforeBlock(doubt) => block_in_doubt(draft, reply.at, &doubt),
            ProbeWhy::Pending if draft.saga.stage == Stage::Backward => leave_unknown(draft, reply.at, cause),
            ProbeWhy::Pending => {
                let look_in = look_in(draft, reply.at, None);
                wait_for_it(draft, reply.at, attempt, look_in);
            }
        },
    }
}

/// Whether a pending step has been waited for as long as it may be.
fn is_past_its_wait(draft: &Draft<'_>, at: InstanceRef) -> bool {
    let until = draft.instance(at).and_then(|i| i.tries.pending_until);
    until.is_some_and(|until| draft.ctx.now >= until)
}

/// There is no probe: a pending step is looked at by calling its action again, at once.
fn without_a_probe(draft: &mut Draft<'_>, at: InstanceRef, why: &ProbeWhy) {
    match why {
        ProbeWhy::BeforeBlock(doubt) => block_in_doubt(draft, at, doubt),
        ProbeWhy::Pending if draft.saga.stage == Stage::Backward => {
            leave_unknown(draft, at, "the saga turned back while the participant was still working");
        }
        ProbeWhy::Pending => {
            let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
            wait_for_it(draft, at, attempt, Duration::ZERO);
        }
    }
}

/// Nothing more can be found out: an operator decides.
pub(super) fn block_in_doubt(draft: &mut Draft<'_>, at: InstanceRef, doubt: &Doubt) {
    let reason = match doubt {
        Doubt::Unknown(cause) => format!("no definite answer: {cause}"),
        Doubt::Refused(refusal) => {
            format!(
                "refused ({}: {}) after an attempt without a definite answer",
                refusal.code, refusal.message
            )
        }
    };
    draft.block(at, Phase::Action, reason);
}
