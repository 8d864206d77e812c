//! Operators and blocks: what lifts a block, and what an assertion leaves behind.

use super::{Rule, Step, Violation};
use crate::saga::event::{Event, Source};
use crate::saga::ids::InstanceRef;
use crate::saga::input::Act;
use crate::saga::state::{Action, Compensation};
use crate::saga::words::{Phase, StepKind};

pub(super) fn check(step: &Step<'_>) -> Result<(), Violation> {
    match step.event() {
        Event::Unblocked { at, phase } => {
            let instance = step.instance(*at);
            let is_blocked = match phase {
                Phase::Compensation => matches!(instance.compensation, Compensation::Blocked { .. }),
                Phase::Action | Phase::Probe => matches!(instance.action, Action::Blocked { .. }),
            };
            step.must(is_blocked, Rule::B1, "there is no block")?;
            let is_cleared = is_what_cleared_it(step.next_event(), *at, *phase) || is_asked_for(step, *at);
            step.must(is_cleared, Rule::B1, "nothing cleared it")
        }
        Event::StepSkipped { at, source: Source::Operator } => {
            let kind = step.here.step(*at).kind;
            step.must(kind == StepKind::Retriable, Rule::A1, "only retriable steps can be skipped")?;
            step.must(is_asked_for(step, *at), Rule::A1, "nobody asked for it")
        }
        Event::CompensationWaived { at } => {
            step.must(is_asked_for(step, *at), Rule::A1, "nobody asked for it")
        }
        Event::StepSucceeded { at, source: Source::Operator, .. }
        | Event::StepFailed { at, source: Source::Operator, .. }
        | Event::CompensationDone { at, source: Source::Operator, .. } => {
            step.must(is_asked_for(step, *at), Rule::A1, "nobody said so")?;
            step.must(step.here.uncertain, Rule::A1, "an assertion without proof left no mark")
        }
        _ => Ok(()),
    }
}

fn is_what_cleared_it(next: Option<&Event>, at: InstanceRef, phase: Phase) -> bool {
    match next {
        Some(Event::StepSucceeded { at: other, .. } | Event::StepFailed { at: other, .. }) => {
            *other == at && phase != Phase::Compensation
        }
        Some(Event::CompensationDone { at: other, .. }) => *other == at && phase == Phase::Compensation,
        _ => false,
    }
}

/// Whether the same decision holds an operator's act on this instance, or on all of them.
fn is_asked_for(step: &Step<'_>, at: InstanceRef) -> bool {
    let here = &step.facts[step.place];
    let earlier = step.facts[..step.place].iter().rev().take_while(|fact| fact.at == here.at);
    earlier.into_iter().any(|fact| match &fact.event {
        Event::OperatorAct { act, .. } => match act {
            Act::RetryNow { step: None } => true,
            Act::RetryNow { step: Some(name) }
            | Act::Skip { step: name }
            | Act::Resolve { step: name, .. } => *name == step.here.name_of(at),
            Act::Pause | Act::Resume | Act::Cancel | Act::Abandon { .. } => false,
        },
        _ => false,
    })
}
