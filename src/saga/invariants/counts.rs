//! What is kept so that no decision looks at every instance must be what looking at all of them
//! would give.

use std::collections::BTreeSet;

use super::{Rule, Violation, broken};
use crate::saga::apply::about;
use crate::saga::duties::owed_calls;
use crate::saga::event::Fact;
use crate::saga::lineup::Lineup;
use crate::saga::state::{Saga, StepState};
use crate::saga::words::Direction;

/// Every sum is that of the instances below it, and the lineup is what a walk over the steps gives.
pub(super) fn check(saga: &Saga) -> Result<(), Violation> {
    let is_summed_up = |state: &StepState| match state {
        StepState::Many(_, instances) => instances.is_summed_up(),
        StepState::Unexpanded | StepState::Skipped | StepState::One(_) => true,
    };
    if !saga.steps.is_summed_up() || !saga.steps.iter().all(is_summed_up) || !saga.lineup.is_summed_up() {
        return Err(broken(Rule::J3, saga.seq, "a sum is not that of its parts"));
    }
    let walked = Lineup::of(&saga.definition, &saga.steps, saga.direction() == Direction::Backward);
    if saga.lineup != walked {
        let kept = &saga.lineup;
        return Err(broken(Rule::J3, saga.seq, format!("kept {kept:?}, a walk gives {walked:?}")));
    }
    Ok(())
}

/// The calls of an instance change only with the facts about it, and with the saga's end.
pub(super) fn check_calls(before: &Saga, facts: &[Fact], after: &Saga) -> Result<(), Violation> {
    let told: BTreeSet<_> = facts.iter().filter_map(|fact| about(&fact.event)).collect();
    let (were, are) = (owed_calls(before), owed_calls(after));
    let gone = were.iter().filter(|call| !after.is_terminal() && !are.contains(call));
    let come = are.iter().filter(|call| !were.contains(call));
    match gone.chain(come).find(|call| !told.contains(&call.at)) {
        Some(call) => {
            let detail = format!("{:?} is another call without a fact about it", call.id());
            Err(broken(Rule::J3, after.seq, detail))
        }
        None => Ok(()),
    }
}
