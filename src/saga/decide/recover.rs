//! What an owner records that finds calls in the journal which it does not have in flight.

use std::time::Duration;

use crate::saga::event::Event;
use crate::saga::ids::InstanceRef;
use crate::saga::state::{Action, Compensation, Instance, ProbeWhy, Stage};
use crate::saga::tally::Tally;

use super::draft::Draft;
use super::probe::{call_once_more, leave_unknown, start_probe};

const LOST: &str = "the daemon stopped while the call was in flight";

/// Calls that were in flight ended without a definite answer, through no fault of their own: they
/// cost none of the budget's time and are made again at once. Each counts as one of the budget's
/// attempts, and is followed by at least one more even if it was the last.
pub(super) fn recovered(draft: &mut Draft<'_>) {
    if draft.saga.is_terminal() {
        return;
    }
    for at in in_flight(draft, |i| matches!(i.action, Action::Running)) {
        let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
        let retry_at = (draft.saga.stage != Stage::Backward).then_some(draft.ctx.now);
        let (cause, elapsed, unsent) = (LOST.to_owned(), Duration::ZERO, false);
        draft.record(Event::StepUnknown { at, attempt, cause, elapsed, retry_at, unsent });
    }
    for at in in_flight(draft, |i| matches!(i.action, Action::Probing { .. })) {
        ask_again(draft, at);
    }
    for at in in_flight(draft, |i| matches!(i.compensation, Compensation::Running)) {
        let attempt = draft.instance(at).map_or(0, |i| i.undo_tries.attempt);
        let (cause, elapsed, unsent) = (LOST.to_owned(), Duration::ZERO, false);
        let retry_at = Some(draft.ctx.now);
        draft.record(Event::CompensationUnknown { at, attempt, cause, elapsed, retry_at, unsent });
    }
}

fn in_flight(draft: &Draft<'_>, wanted: impl Fn(&Instance) -> bool) -> Vec<InstanceRef> {
    let mut found = draft.saga.instances_where(Tally::has_calls);
    found.retain(|&at| draft.instance(at).is_some_and(&wanted));
    found
}

/// A question lost with the daemon is asked again. Where that is not possible now, the step is
/// called once more before it is put to an operator.
fn ask_again(draft: &mut Draft<'_>, at: InstanceRef) {
    let Some(Action::Probing { why }) = draft.instance(at).map(|i| i.action.clone()) else { return };
    if start_probe(draft, at) {
        return;
    }
    let attempt = draft.instance(at).map_or(0, |i| i.tries.attempt);
    match why {
        ProbeWhy::BeforeBlock(_) => call_once_more(draft, at, LOST),
        ProbeWhy::Pending if draft.saga.stage == Stage::Backward => leave_unknown(draft, at, LOST),
        ProbeWhy::Pending => super::reply::wait_for_it(draft, at, attempt, Duration::ZERO),
    }
}
