//! What must hold of every saga after every step, whatever reached it and in whatever order.
//!
//! These checks read the journal and the state with their own eyes: they share no predicate with
//! `decide`, so that a mistake there is not repeated here. Tests run them after every step; an
//! operator can run them over a stored journal.
//!
//! ```text
//!  check_answer    an input and what followed from it      U1
//!  check_step      before, facts, after                    everything visible in one step
//!  check_journal   a whole journal and its definition      the same over a life, and V1
//! ```

mod backward;
mod counts;
mod forward;
mod memory;
mod operator;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::apply::{about, apply, begin};
use super::definition::Definition;
use super::duties::something_comes_next;
use super::event::{Event, Fact, Source};
use super::ids::{InstanceRef, StepIx};
use super::input::{Completion, Everyone, Input};
use super::state::{Action, Compensation, Instance, Saga, Stage};
use super::words::{Outcome, StepKind};

/// The rules that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A step is called only when all it depends on is done and the saga goes forward.
    D1,
    /// A call's input never changes; attempts and epochs only grow.
    D2,
    /// Only what ran or may have run is compensated, and not while its call is in flight.
    C1,
    /// An undone saga has nothing left to undo.
    C2,
    /// Compensations keep the reverse of the order of the steps.
    O1,
    /// Behind a pivot that may have succeeded nothing is compensated.
    P1,
    /// Pivot and retriable steps are never compensated.
    P2,
    /// No answer is not a refusal, and the doubt is remembered.
    U1,
    /// What has ended or is settled does not change.
    F1,
    /// A saga never turns forward again.
    F2,
    /// A block is lifted only by what cleared it.
    B1,
    /// A completed saga did everything that was not skipped.
    T1,
    /// Something always comes next.
    L1,
    /// The journal has no gaps.
    J1,
    /// The state is the fold of the journal.
    J2,
    /// What is counted along the way is what a walk over the whole saga counts.
    J3,
    /// What an operator asserted leaves the saga uncertain; a pause holds back every new call.
    A1,
    /// A saga runs the version it was started on.
    V1,
}

/// A rule that was broken, where, and how.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule:?} is broken at fact {seq}: {detail}")]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// The number of the fact that broke it, or of the last one.
    pub seq: u64,
    /// What is wrong, for people.
    pub detail: String,
}

/// Checks one decision: that `facts` are allowed one after the other from `before`, and that
/// `after` is what they make of it.
///
/// # Errors
/// The first [`Violation`].
pub fn check_step(before: &Saga, facts: &[Fact], after: &Saga) -> Result<(), Violation> {
    let mut here = before.clone();
    for place in 0..facts.len() {
        check_fact(&mut here, facts, place)?;
    }
    if *after != here {
        return Err(broken(Rule::J2, after.seq, "the state is not the fold of its facts"));
    }
    counts::check_calls(before, facts, after)?;
    check_rest(after)
}

/// Checks a whole journal from its first fact.
///
/// # Errors
/// The first [`Violation`].
pub fn check_journal(facts: &[Fact], definition: &Arc<Definition>) -> Result<(), Violation> {
    let Some(Fact { seq: 1, at, event: Event::SagaStarted(started) }) = facts.first() else {
        return Err(broken(Rule::J1, 0, "the journal does not begin with the saga's start"));
    };
    if started.digest != definition.digest || started.version != definition.version {
        return Err(broken(Rule::V1, 1, "the definition at hand is not the one it was started on"));
    }
    let mut here = begin(started, *at, Arc::clone(definition));
    for place in 1..facts.len() {
        check_fact(&mut here, facts, place)?;
    }
    check_rest(&here)
}

/// Checks that no refusal was made out of anything but one.
///
/// # Errors
/// [`Rule::U1`], when a fact says "refused" and the input did not.
pub fn check_answer(input: &Input, facts: &[Fact]) -> Result<(), Violation> {
    let may_refuse = match input {
        Input::Reply(reply) => matches!(reply.outcome, Outcome::Refused(_)),
        Input::Complete { outcome, .. } => matches!(outcome, Completion::Refused(_)),
        Input::Act { .. } => true,
        Input::Recovered | Input::Wake | Input::LocksGranted | Input::Cancel { .. } => false,
    };
    for Fact { seq, event, .. } in facts {
        let says_refused = match event {
            Event::StepFailed { source, .. } => *source != Source::Engine,
            Event::CompensationRefused { .. } => true,
            _ => false,
        };
        if says_refused && !may_refuse {
            return Err(broken(Rule::U1, *seq, "a refusal that nobody gave"));
        }
        if let (Input::Reply(reply), Event::StepFailed { attempt, source: Source::Reply, .. }) =
            (input, event)
            && reply.attempt != *attempt
        {
            return Err(broken(Rule::U1, *seq, "a refusal of another attempt"));
        }
        let was_lost = matches!(input, Input::Recovered);
        if let Event::StepUnknown { elapsed, .. } | Event::CompensationUnknown { elapsed, .. } = event
            && was_lost
            && !elapsed.is_zero()
        {
            return Err(broken(Rule::U1, *seq, "time in which the daemon was down counts as spent"));
        }
    }
    Ok(())
}

/// Checks the fact at `place` against the saga as it was before it, then applies it.
fn check_fact(here: &mut Saga, facts: &[Fact], place: usize) -> Result<(), Violation> {
    let fact = &facts[place];
    let step = Step { here, facts, place };
    if fact.seq != here.seq + 1 {
        return step.breaks(Rule::J1, format!("fact {} follows fact {}", fact.seq, here.seq));
    }
    step.check_order_of_stages()?;
    forward::check(&step)?;
    backward::check(&step)?;
    operator::check(&step)?;
    let mut next = here.clone();
    apply(&mut next, fact);
    memory::check(&step, &next)?;
    counts::check(&next)?;
    *here = next;
    Ok(())
}

/// What must hold whenever a saga rests.
fn check_rest(saga: &Saga) -> Result<(), Violation> {
    counts::check(saga)?;
    if !something_comes_next(saga, &Everyone) {
        return Err(broken(Rule::L1, saga.seq, "nothing will ever move this saga"));
    }
    for (at, instance) in saga.each_instance() {
        let is_pivot_left_alone = matches!(instance.action, Action::Unknown { .. })
            && saga.step(at).kind != StepKind::Compensatable
            && !saga.is_terminal();
        if is_pivot_left_alone {
            let name = saga.name_of(at);
            return Err(broken(Rule::L1, saga.seq, format!("{name} is unknown and nobody was told")));
        }
    }
    Ok(())
}

fn broken(rule: Rule, seq: u64, detail: impl fmt::Display) -> Violation {
    Violation { rule, seq, detail: detail.to_string() }
}

/// One fact among those of its decision or journal, and the saga right before it.
struct Step<'a> {
    here: &'a Saga,
    facts: &'a [Fact],
    place: usize,
}

impl<'a> Step<'a> {
    fn event(&self) -> &'a Event {
        &self.facts[self.place].event
    }

    fn next_event(&self) -> Option<&'a Event> {
        self.facts.get(self.place + 1).map(|fact| &fact.event)
    }

    fn breaks<T>(&self, rule: Rule, detail: impl fmt::Display) -> Result<T, Violation> {
        let fact = &self.facts[self.place];
        let whose = about(&fact.event).map(|at| format!(" {}", self.here.name_of(at))).unwrap_or_default();
        Err(broken(rule, fact.seq, format!("{}{whose}: {detail}", fact.event.type_name())))
    }

    fn must(&self, holds: bool, rule: Rule, detail: impl fmt::Display) -> Result<(), Violation> {
        if holds { Ok(()) } else { self.breaks(rule, detail) }
    }

    /// The instance the fact is about. A step whose list was not evaluated has none yet.
    fn instance(&self, at: InstanceRef) -> Instance {
        self.here.instance(at).cloned().unwrap_or_else(Instance::fresh)
    }

    /// Which stage may follow which, and that an ended saga hears nothing but late replies.
    fn check_order_of_stages(&self) -> Result<(), Violation> {
        let stage = self.here.stage;
        if self.here.is_terminal() {
            let is_harmless = matches!(
                self.event(),
                Event::LateReply { .. } | Event::EventEmitted { .. } | Event::ExpressionFailed { .. }
            );
            return self.must(is_harmless, Rule::F1, "the saga has ended");
        }
        match self.event() {
            Event::SagaStarted(_) => self.breaks(Rule::V1, "a saga starts once"),
            Event::LockWaiting { .. } | Event::LockGranted => self.must(
                matches!(stage, Stage::AwaitingLocks { .. }),
                Rule::D1,
                "the saga does not wait for locks",
            ),
            Event::SagaCommitted { .. } => {
                self.must(stage == Stage::Forward, Rule::F2, "only a saga on its way forward commits")
            }
            Event::SagaCompleted => {
                self.must(stage == Stage::Committed, Rule::F2, "only a committed saga completes")
            }
            Event::SagaCompensating { .. } | Event::CancelRequested { .. } | Event::DeadlinePassed => self
                .must(
                    matches!(stage, Stage::Forward | Stage::AwaitingLocks { .. }),
                    Rule::F2,
                    "only a saga on its way to the commit can turn back",
                ),
            Event::SagaCompensated => {
                self.must(stage == Stage::Backward, Rule::F2, "only a saga that turned back is undone")
            }
            _ => Ok(()),
        }
    }
}

/// All steps that wait for `step`, directly or not.
fn dependents(saga: &Saga, step: StepIx) -> Vec<StepIx> {
    let mut found: Vec<StepIx> = saga.definition.plan.before(step).to_vec();
    let mut next = 0;
    while next < found.len() {
        for &further in saga.definition.plan.before(found[next]) {
            if !found.contains(&further) {
                found.push(further);
            }
        }
        next += 1;
    }
    found
}

/// Whether a call of the instance's action is under way.
fn is_under_way(instance: &Instance) -> bool {
    matches!(instance.action, Action::Running | Action::Awaiting { .. } | Action::Probing { .. })
}

/// Whether the instance has something to undo and it is not undone.
fn is_left_to_undo(saga: &Saga, at: InstanceRef, instance: &Instance) -> bool {
    let step = saga.step(at);
    let is_undone = matches!(instance.compensation, Compensation::Done | Compensation::Waived);
    let ran_or_may_have = match &instance.action {
        Action::Pending | Action::Skipped | Action::Blocked { last: None, .. } => false,
        Action::Refused { .. } => {
            instance.doubtful || (step.compensate_on_refusal && instance.tries.attempt > 0)
        }
        _ => true,
    };
    is_under_way(instance) || (step.compensation.is_some() && ran_or_may_have && !is_undone)
}
