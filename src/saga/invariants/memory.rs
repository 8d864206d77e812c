//! What a saga never forgets or takes back, from one fact to the next.

use super::{Rule, Step, Violation};
use crate::saga::event::{Event, Source};
use crate::saga::input::Act;
use crate::saga::state::{Action, Compensation, Instance, Saga, Stage, Tries};

pub(super) fn check(step: &Step<'_>, next: &Saga) -> Result<(), Violation> {
    let here = step.here;
    step.must(next.definition.digest == here.definition.digest, Rule::V1, "another definition")?;
    step.must(next.definition.version == here.definition.version, Rule::V1, "another version")?;
    step.must(!here.committed || next.committed, Rule::F2, "a commit was taken back")?;
    step.must(!here.uncertain || next.uncertain, Rule::A1, "an uncertain saga became certain")?;
    step.must(here.failure.is_none() || here.failure == next.failure, Rule::F1, "the first cause changed")?;
    step.must(may_follow(here.stage, next.stage), Rule::F2, "a saga does not go this way")?;
    if here.is_terminal() {
        step.must(here.stage == next.stage && here.output == next.output, Rule::F1, "it has ended")?;
        step.must(here.ended_at == next.ended_at, Rule::F1, "it ended once")?;
    }
    for (at, before) in here.each_instance() {
        let Some(after) = next.instance(at) else {
            step.must(before.tries.attempt == 0, Rule::F1, "an attempted instance vanished")?;
            continue;
        };
        instance(step, before, after)?;
    }
    let leaves_a_mark = match step.event() {
        Event::OperatorAct { act: Act::Resolve { .. }, .. }
        | Event::CompensationWaived { .. }
        | Event::SagaAbandoned { .. } => true,
        Event::LateReply { uncertain, .. } => *uncertain,
        _ => false,
    };
    step.must(!leaves_a_mark || next.uncertain, Rule::A1, "an assertion without proof left no mark")
}

fn may_follow(here: Stage, next: Stage) -> bool {
    use Stage::{Abandoned, AwaitingLocks, Backward, Committed, Compensated, Completed, Forward};
    match (here, next) {
        (AwaitingLocks { .. }, AwaitingLocks { .. } | Forward | Backward | Abandoned)
        | (Forward, Forward | Committed | Backward | Abandoned)
        | (Committed, Committed | Completed | Abandoned)
        | (Backward, Backward | Compensated | Abandoned) => true,
        _ => here == next,
    }
}

fn instance(step: &Step<'_>, before: &Instance, after: &Instance) -> Result<(), Violation> {
    tries(step, &before.tries, &after.tries)?;
    tries(step, &before.undo_tries, &after.undo_tries)?;
    step.must(after.probes >= before.probes, Rule::D2, "probes are counted one by one")?;
    step.must(after.probe_epoch >= before.probe_epoch, Rule::D2, "a probe's epoch was taken back")?;
    let probe_input_holds = before.probe_input.is_none() || before.probe_input == after.probe_input;
    step.must(probe_input_holds, Rule::D2, "a probe's input changed")?;
    let is_cleared_up = matches!(
        step.event(),
        Event::StepFailed { retry_at: None, source: Source::Probe | Source::Operator, .. }
    );
    step.must(!before.doubtful || after.doubtful || is_cleared_up, Rule::U1, "a doubt was forgotten")?;
    let is_unknown = |i: &Instance| matches!(i.action, Action::Unknown { .. });
    step.must(!is_unknown(after) || after.doubtful, Rule::U1, "an unknown step is in doubt")?;
    let is_settled = |action: &Action| matches!(action, Action::Succeeded { .. } | Action::Skipped);
    step.must(!is_settled(&before.action) || before.action == after.action, Rule::F1, "settled already")?;
    if let Action::Refused { .. } = &before.action {
        step.must(before.action == after.action, Rule::F1, "a refused step is settled")?;
    }
    if let Compensation::Done | Compensation::Waived = before.compensation {
        step.must(before.compensation == after.compensation, Rule::F1, "settled already")?;
    }
    blocks(step, before, after)
}

/// Blocks go by [`Event::Unblocked`] alone.
fn blocks(step: &Step<'_>, before: &Instance, after: &Instance) -> Result<(), Violation> {
    let is_lifted = matches!(step.event(), Event::Unblocked { .. });
    let action = |i: &Instance| matches!(i.action, Action::Blocked { .. });
    let undo = |i: &Instance| matches!(i.compensation, Compensation::Blocked { .. });
    step.must(is_lifted || !action(before) || action(after), Rule::B1, "a block went without a word")?;
    step.must(is_lifted || !undo(before) || undo(after), Rule::B1, "a block went without a word")
}

fn tries(step: &Step<'_>, before: &Tries, after: &Tries) -> Result<(), Violation> {
    step.must(after.attempt >= before.attempt, Rule::D2, "an attempt was taken back")?;
    step.must(after.epoch >= before.epoch, Rule::D2, "an epoch was taken back")?;
    let text = |tries: &Tries| tries.input.as_ref().map(|input| input.text().to_owned());
    let holds = before.input.is_none() || text(before) == text(after);
    step.must(holds, Rule::D2, "a call's input changed")
}
