//! What an operator may do, and what it leads to.

use crate::saga::definition::Trigger;
use crate::saga::event::{Event, Source};
use crate::saga::ids::{InstanceRef, StepIx};
use crate::saga::input::{Act, Rejection, Resolution};
use crate::saga::json::Json;
use crate::saga::state::{Action, Compensation, Doubt, StepState};
use crate::saga::words::{Phase, Refusal, StepKind, codes};

use super::draft::Draft;
use super::{cancel, reply};

/// Carries out an act, or says why it is not possible. Nothing is recorded then.
pub(super) fn act(draft: &mut Draft<'_>, act: &Act, actor: &str, reason: &str) -> Result<(), Rejection> {
    if let Some(name) = step_of(act) {
        check_name(draft, name)?;
    }
    if draft.saga.is_terminal() {
        return Err(no(format!("saga {} has ended ({})", draft.saga.id, draft.saga.status().as_str())));
    }
    let note = |draft: &mut Draft<'_>| {
        draft.record(Event::OperatorAct {
            act: act.clone(),
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        });
    };
    match act {
        Act::RetryNow { step } => retry_now(draft, step.as_deref(), note),
        Act::Skip { step } => skip(draft, step, note),
        Act::Resolve { step, resolution } => resolve(draft, step, resolution, note),
        Act::Pause if draft.saga.paused.is_some() => Err(no("the saga is paused already".to_owned())),
        Act::Resume if draft.saga.paused.is_none() => Err(no("the saga is not paused".to_owned())),
        Act::Pause | Act::Resume => {
            note(draft);
            Ok(())
        }
        Act::Cancel => {
            let before = draft.mark();
            note(draft);
            let cancelled = cancel(draft, actor, reason);
            if cancelled.is_err() {
                draft.rewind(before);
            }
            cancelled
        }
        Act::Abandon { steps } => abandon(draft, steps, note),
    }
}

fn no(why: String) -> Rejection {
    Rejection::Precondition(why)
}

fn step_of(act: &Act) -> Option<&str> {
    match act {
        Act::RetryNow { step } => step.as_deref(),
        Act::Skip { step } | Act::Resolve { step, .. } => Some(step),
        Act::Pause | Act::Resume | Act::Cancel | Act::Abandon { .. } => None,
    }
}

/// A name must be an instance's, or that of a `for_each` step without instances.
fn check_name(draft: &Draft<'_>, name: &str) -> Result<(), Rejection> {
    if draft.saga.instance_named(name).is_some() || whole_step(draft, name).is_some() {
        return Ok(());
    }
    let known: Vec<String> =
        draft.saga.each_instance().map(|(at, _)| draft.saga.name_of(at)).take(20).collect();
    Err(Rejection::Invalid {
        field: "step",
        problem: format!("{name:?} is not a step of saga {}; its steps: {}", draft.saga.id, known.join(", ")),
    })
}

fn whole_step(draft: &Draft<'_>, name: &str) -> Option<StepIx> {
    let step = draft.saga.definition.step_named(name)?;
    matches!(draft.saga.steps[step.at()], StepState::Unexpanded | StepState::Skipped).then_some(step)
}

fn retry_now(
    draft: &mut Draft<'_>,
    step: Option<&str>,
    note: impl Fn(&mut Draft<'_>),
) -> Result<(), Rejection> {
    let mut chosen = draft.saga.instances_where(|tally| tally.has_waiting() || tally.blocked > 0);
    if let Some(name) = step {
        let named = draft.saga.instance_named(name);
        chosen.retain(|&at| Some(at) == named);
    }
    if chosen.is_empty() {
        let what = step.unwrap_or("no step of the saga");
        return Err(no(format!("{what}: neither waits for an attempt nor is blocked")));
    }
    note(draft);
    for at in chosen {
        draft.lift_block(at, Phase::Action);
        draft.lift_block(at, Phase::Compensation);
    }
    Ok(())
}

fn skip(draft: &mut Draft<'_>, name: &str, note: impl Fn(&mut Draft<'_>)) -> Result<(), Rejection> {
    if let Some(step) = whole_step(draft, name) {
        let is_open = matches!(draft.saga.steps[step.at()], StepState::Unexpanded);
        if !is_open || draft.saga.definition.step(step).kind != StepKind::Retriable {
            return Err(no(format!(
                "{name}: only a retriable step or a blocked compensation can be skipped"
            )));
        }
        note(draft);
        draft.record(Event::StepSkipped { at: InstanceRef { step, item: None }, source: Source::Operator });
        return Ok(());
    }
    let at = named(draft, name)?;
    let Some(instance) = draft.instance(at) else { return Err(no(format!("{name} does not exist"))) };
    if matches!(instance.compensation, Compensation::Blocked { .. }) {
        note(draft);
        draft.lift_block(at, Phase::Compensation);
        draft.record(Event::CompensationWaived { at });
        return Ok(());
    }
    if draft.saga.step(at).kind != StepKind::Retriable {
        return Err(no(format!("{name}: only a retriable step or a blocked compensation can be skipped")));
    }
    if instance.is_done() {
        return Err(no(format!("{name} is done already")));
    }
    note(draft);
    draft.lift_block(at, Phase::Action);
    draft.record(Event::StepSkipped { at, source: Source::Operator });
    Ok(())
}

fn resolve(
    draft: &mut Draft<'_>,
    name: &str,
    resolution: &Resolution,
    note: impl Fn(&mut Draft<'_>),
) -> Result<(), Rejection> {
    let at = named(draft, name)?;
    let Some(instance) = draft.instance(at) else { return Err(no(format!("{name} does not exist"))) };
    let attempt = instance.tries.attempt;
    let is_in_doubt = match &instance.action {
        Action::Backoff { last: Doubt::Unknown(_), .. } | Action::Blocked { .. } => true,
        Action::Unknown { .. } => instance.compensation == Compensation::Idle,
        _ => false,
    };
    match resolution {
        Resolution::Compensated => {
            if !matches!(instance.compensation, Compensation::Blocked { .. }) {
                return Err(no(format!("{name}: its compensation is not blocked")));
            }
            let attempt = instance.undo_tries.attempt;
            note(draft);
            draft.lift_block(at, Phase::Compensation);
            draft.record(Event::CompensationDone {
                at,
                attempt,
                output: Json::null(),
                source: Source::Operator,
            });
        }
        Resolution::Done(_) | Resolution::Failed if !is_in_doubt => {
            return Err(no(format!("{name}: its action is neither unknown nor blocked")));
        }
        Resolution::Done(output) => {
            if let Some(why) = draft.no_room_for_output(at, output) {
                return Err(no(format!("{why}; resolve {name} with a smaller one, or without")));
            }
            note(draft);
            reply::succeeded(draft, at, attempt, output.clone(), Source::Operator);
        }
        Resolution::Failed if draft.saga.step(at).kind == StepKind::Retriable => {
            return Err(no(format!("{name} is retriable and cannot fail: skip it instead")));
        }
        Resolution::Failed => {
            let refusal = Refusal {
                code: codes::OPERATOR.to_owned(),
                message: "an operator resolved the step as failed".to_owned(),
            };
            note(draft);
            reply::refused_for_good(draft, at, attempt, &refusal, Source::Operator);
        }
    }
    Ok(())
}

fn named(draft: &Draft<'_>, name: &str) -> Result<InstanceRef, Rejection> {
    draft.saga.instance_named(name).ok_or_else(|| no(format!("{name} has no instances")))
}

fn abandon(draft: &mut Draft<'_>, steps: &[String], note: impl Fn(&mut Draft<'_>)) -> Result<(), Rejection> {
    let open = draft.saga.uncompensated();
    let mut typed = steps.to_vec();
    typed.sort_unstable();
    typed.dedup();
    let mut expected = open.clone();
    expected.sort_unstable();
    if typed != expected {
        return Err(no(format!(
            "abandoning leaves these steps as they are; name exactly them: {}",
            if open.is_empty() { "(none)".to_owned() } else { open.join(", ") }
        )));
    }
    note(draft);
    draft.record(Event::SagaAbandoned { steps: open });
    draft.emit(&Trigger::Abandoned);
    Ok(())
}
