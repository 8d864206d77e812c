//! The core as it is, or with one mistake in it.
//!
//! A mistake is made from outside: the core is shown another saga, input or definition, or its
//! facts or duties are changed on the way out. The suites must notice every one of them.

use std::time::Duration;

use super::definitions::Blueprint;
use crate::saga::apply::apply;
use crate::saga::decide::{Decision, decide};
use crate::saga::duties::{Duties, duties};
use crate::saga::event::{CallInput, Event, Fact};
use crate::saga::input::{Context, Input, Reach, Rejection, Reply};
use crate::saga::json::Json;
use crate::saga::lineup::Lineup;
use crate::saga::state::{Action, Instance, Saga, Stage, StepState};
use crate::saga::words::{Failure, Outcome, Phase, Refusal, StepKind};

/// A mistake somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    UndoesInForwardOrder,
    TakesTimeoutForFailure,
    SkipsUnknownWhenUndoing,
    LateReplyLiftsAnotherBlock,
    UnknownPivotCompensates,
    RetriesWithNewInput,
    UndoesBeforeDependents,
    CommitsBeforePivot,
    SideWorkBeforeCommit,
    ForgetsCallsAfterCrash,
    TrustsRefusalAfterUnknown,
    CancelOvertakesCalls,
    DownTimeCounts,
    ForgetsWakeUp,
    DropsBlocks,
    KeepsOldEpoch,
    PauseIsIgnored,
    OldRefusalSettles,
    WaivesWithoutMark,
    CallsBeforeIntent,
}

impl Mutant {
    pub const ALL: [Mutant; 20] = [
        Mutant::UndoesInForwardOrder,
        Mutant::TakesTimeoutForFailure,
        Mutant::SkipsUnknownWhenUndoing,
        Mutant::LateReplyLiftsAnotherBlock,
        Mutant::UnknownPivotCompensates,
        Mutant::RetriesWithNewInput,
        Mutant::UndoesBeforeDependents,
        Mutant::CommitsBeforePivot,
        Mutant::SideWorkBeforeCommit,
        Mutant::ForgetsCallsAfterCrash,
        Mutant::TrustsRefusalAfterUnknown,
        Mutant::CancelOvertakesCalls,
        Mutant::DownTimeCounts,
        Mutant::ForgetsWakeUp,
        Mutant::DropsBlocks,
        Mutant::KeepsOldEpoch,
        Mutant::PauseIsIgnored,
        Mutant::OldRefusalSettles,
        Mutant::WaivesWithoutMark,
        Mutant::CallsBeforeIntent,
    ];
}

/// What the world drives: the real core, or one with a mistake.
#[derive(Debug, Clone, Copy, Default)]
pub struct Core {
    pub mutant: Option<Mutant>,
}

impl Core {
    pub fn decide(
        self,
        blueprint: &Blueprint,
        saga: &Saga,
        input: &Input,
        ctx: &Context<'_>,
    ) -> Result<Decision, Rejection> {
        let Some(mutant) = self.mutant else { return decide(saga, input, ctx) };
        let mut shown = saga.clone();
        show(mutant, blueprint, &mut shown, input);
        shown.lineup = Lineup::of(&shown.definition, &shown.steps, shown.stage == Stage::Backward);
        let input = misheard(mutant, saga, input);
        let epoch = if mutant == Mutant::KeepsOldEpoch { 1 } else { ctx.epoch };
        let decision = decide(&shown, &input, &Context { epoch, ..*ctx })?;
        let mut facts = decision.facts;
        distort(mutant, saga, &input, &mut facts);
        let mut next = saga.clone();
        for fact in &mut facts {
            fact.seq = next.seq + 1;
            apply(&mut next, fact);
        }
        if mutant == Mutant::WaivesWithoutMark {
            next.uncertain = saga.uncertain;
        }
        Ok(Decision { facts, next, refused: decision.refused })
    }

    pub fn duties(self, saga: &Saga, reach: &dyn Reach, epoch: u64) -> Duties {
        let mut owed = duties(saga, reach);
        match self.mutant {
            Some(Mutant::ForgetsWakeUp) => owed.waits.wake_at = None,
            Some(Mutant::RetriesWithNewInput) => {
                let again = owed.calls.iter_mut().filter(|call| call.attempt > 1);
                again.for_each(|call| call.input = Json::trusted(format!("{}", call.attempt)));
            }
            Some(Mutant::ForgetsCallsAfterCrash) => owed.calls.retain(|call| call.epoch == epoch),
            Some(Mutant::CallsBeforeIntent) => {
                owed.calls.iter_mut().for_each(|call| call.attempt += 1);
            }
            _ => {}
        }
        owed
    }
}

/// Another saga than the one there is.
fn show(mutant: Mutant, blueprint: &Blueprint, shown: &mut Saga, input: &Input) {
    let goes_back = shown.stage == Stage::Backward;
    match mutant {
        Mutant::UndoesInForwardOrder if goes_back => {
            shown.definition = Blueprint { is_reversed: true, ..blueprint.clone() }.build();
        }
        Mutant::UndoesBeforeDependents if goes_back => {
            let mut loose = blueprint.clone();
            loose.steps.iter_mut().for_each(|step| step.after.clear());
            shown.definition = loose.build();
        }
        Mutant::SkipsUnknownWhenUndoing if goes_back => each(shown, |instance| {
            if matches!(instance.action, Action::Unknown { .. }) {
                (instance.action, instance.doubtful) = (refused(), false);
            }
        }),
        Mutant::TrustsRefusalAfterUnknown => each(shown, |instance| instance.doubtful = false),
        Mutant::CancelOvertakesCalls if goes_back => each(shown, |instance| {
            if instance.action == Action::Running {
                instance.action = Action::Unknown { cause: "overtaken".to_owned() };
            }
        }),
        Mutant::CommitsBeforePivot if shown.stage == Stage::Forward => {
            if let Some(pivot) = shown.pivot() {
                shown.change_step(pivot.step, |state| *state = StepState::Skipped);
            }
        }
        Mutant::SideWorkBeforeCommit if shown.stage == Stage::Forward && *input == Input::Wake => {
            shown.stage = Stage::Committed;
        }
        Mutant::PauseIsIgnored => shown.paused = None,
        _ => {}
    }
}

/// Another input than the one that came.
fn misheard(mutant: Mutant, saga: &Saga, input: &Input) -> Input {
    match (mutant, input) {
        (Mutant::ForgetsCallsAfterCrash, Input::Recovered) => Input::Wake,
        (
            Mutant::TakesTimeoutForFailure,
            Input::Reply(reply @ Reply { outcome: Outcome::Unknown(_), .. }),
        ) => {
            let outcome = Outcome::Refused(Refusal { code: "TIMEOUT".to_owned(), message: "-".to_owned() });
            Input::Reply(Reply { outcome, ..reply.clone() })
        }
        (Mutant::OldRefusalSettles, Input::Reply(reply @ Reply { outcome: Outcome::Refused(_), .. })) => {
            let latest = saga.instance(reply.at).map_or(0, |instance| match reply.phase {
                Phase::Action => instance.tries.attempt,
                Phase::Compensation => instance.undo_tries.attempt,
                Phase::Probe => instance.probes,
            });
            Input::Reply(Reply { attempt: latest, ..reply.clone() })
        }
        _ => input.clone(),
    }
}

/// Other facts than those decided.
fn distort(mutant: Mutant, saga: &Saga, input: &Input, facts: &mut Vec<Fact>) {
    match mutant {
        Mutant::DropsBlocks => facts.retain(|fact| !matches!(fact.event, Event::Blocked { .. })),
        Mutant::DownTimeCounts if *input == Input::Recovered => {
            for fact in facts {
                if let Event::StepUnknown { elapsed, .. } = &mut fact.event {
                    *elapsed = Duration::from_secs(5);
                }
            }
        }
        Mutant::UnknownPivotCompensates => {
            let is_pivot = |event: &Event| match event {
                Event::StepUnknown { at, .. } => saga.step(*at).kind == StepKind::Pivot,
                _ => false,
            };
            if let Some(place) = facts.iter().position(|fact| is_pivot(&fact.event)) {
                facts.truncate(place + 1);
                let failure = Failure { step: String::new(), code: "X".to_owned(), message: "-".to_owned() };
                let event = Event::SagaCompensating { failure };
                facts.push(Fact { seq: 0, at: facts[place].at, event });
            }
        }
        Mutant::LateReplyLiftsAnotherBlock if matches!(input, Input::Reply(_)) => {
            let blocked = saga.each_instance().find(|(_, i)| matches!(i.action, Action::Blocked { .. }));
            if let (Some((at, _)), Some(first)) = (blocked, facts.first())
                && !facts.iter().any(|fact| matches!(fact.event, Event::Unblocked { .. }))
            {
                let event = Event::Unblocked { at, phase: Phase::Action };
                facts.insert(0, Fact { seq: 0, at: first.at, event });
            }
        }
        Mutant::RetriesWithNewInput => {
            for fact in facts {
                if let Event::StepStarted { attempt: 2.., input, .. } = &mut fact.event {
                    *input = Some(CallInput::Inline(Json::null()));
                }
            }
        }
        _ => {}
    }
}

fn each(saga: &mut Saga, change: impl Fn(&mut Instance)) {
    for at in saga.instances_where(|_| true) {
        saga.change_step(at.step, |state| state.change(at.slot(), &change));
    }
}

fn refused() -> Action {
    Action::Refused { refusal: Refusal { code: "X".to_owned(), message: "-".to_owned() } }
}
