//! Does whatever a saga's state allows now: time limits, then the way it goes.

use crate::saga::event::Event;
use crate::saga::state::Stage;
use crate::saga::words::{Failure, codes};

use super::draft::Draft;
use super::{backward, forward};

/// Goes on as far as it can without an answer from outside.
pub(super) fn advance(draft: &mut Draft<'_>) {
    pass_time_limits(draft);
    if draft.saga.paused.is_none() {
        if matches!(draft.saga.stage, Stage::Forward | Stage::Committed) {
            forward::go_forward(draft);
        }
        if draft.saga.stage == Stage::Backward {
            backward::go_backward(draft);
        }
    } else if draft.saga.stage == Stage::Backward
        && !draft.saga.each_instance().any(|(_, i)| i.tries.attempt > 0)
    {
        // Nothing was ever called, so nothing has to be: a pause does not hold up the end.
        backward::go_backward(draft);
    }
}

fn pass_time_limits(draft: &mut Draft<'_>) {
    let now = draft.ctx.now;
    match draft.saga.stage {
        Stage::AwaitingLocks { until } if now >= until => {
            let waited = format!("{:?}", draft.saga.definition.lock_wait);
            draft.turn_back(Failure {
                step: String::new(),
                code: codes::LOCK_TIMEOUT.to_owned(),
                message: format!("the locks were not free within {waited}; nothing was called"),
            });
        }
        Stage::Forward if draft.saga.paused.is_none() => {
            let is_over = draft.saga.deadline.is_some_and(|deadline| now >= deadline);
            if is_over && draft.pivot_intended().is_none() {
                draft.record(Event::DeadlinePassed);
                draft.turn_back(Failure {
                    step: String::new(),
                    code: codes::DEADLINE.to_owned(),
                    message: "the saga was not committed before its deadline".to_owned(),
                });
            }
        }
        _ => {}
    }
}
