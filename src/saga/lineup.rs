//! Which steps there is something to do about: the steps in the order of the plan, with what of
//! each matters to the others.
//!
//! Derived from the definition and the steps. [`Saga::change_step`] keeps it, and nothing else
//! does; the invariants compare it with what a walk over the whole saga gives.
//!
//! [`Saga::change_step`]: super::state::Saga::change_step

use super::definition::Definition;
use super::handlers::Callees;
use super::ids::{StepIx, Timestamp};
use super::row::{Row, Sum, Summed};
use super::state::StepState;
use super::tally::{NEVER, Tally};
use super::words::StepKind;

/// A time that is over.
pub const AT_ONCE: Timestamp = Timestamp(i64::MIN);

/// The steps of a saga in the order of its plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Lineup {
    row: Row<Standing>,
    /// Whether what holds back compensations is counted too: only once the saga has turned back,
    /// since on the way forward every call would move the counts of all steps before it.
    backward: bool,
}

/// What of a step matters to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    kind: StepKind,
    is_done: bool,
    /// Nothing of the step itself holds back what it depends on.
    is_settled: bool,
    /// Steps it waits for that are not done.
    missing: u32,
    /// Steps that wait for it and are not clear; 0 on the way forward.
    held: u32,
    /// When something is to be done about its actions, once nothing is missing.
    forward: Timestamp,
    /// Whom that calls.
    callees: Callees,
    /// When something is to be done about its compensations, once nothing holds them back.
    backward: Timestamp,
    /// Whom that calls.
    undoers: Callees,
}

/// What several steps come to.
#[derive(Debug, Clone, PartialEq)]
struct Outlook {
    /// Steps of each kind that are not done.
    undone: [u32; KINDS],
    /// Steps that are not clear: they or what depends on them are not settled.
    unclear: u32,
    /// The first time at which something is to be done about a step of each kind.
    forward: [Timestamp; KINDS],
    /// Whom that, and what is to be done later, calls.
    callees: [Callees; KINDS],
    /// The same on the way back.
    backward: Timestamp,
    undoers: Callees,
}

const KINDS: usize = 3;

fn place_of(kind: StepKind) -> usize {
    match kind {
        StepKind::Compensatable => 0,
        StepKind::Pivot => 1,
        StepKind::Retriable => 2,
    }
}

impl Lineup {
    /// The lineup of `steps`, found by looking at all of them.
    #[must_use]
    pub fn of(definition: &Definition, steps: &Row<StepState>, backward: bool) -> Self {
        let plan = &definition.plan;
        let state = |ix: StepIx| &steps[ix.at()];
        let mut standings: Vec<Standing> = Vec::with_capacity(steps.len());
        for &ix in plan.order() {
            let missing = plan.after(ix).iter().filter(|before| !state(**before).is_done()).count();
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let tally = steps.sum_of(ix.at()).copied().unwrap_or_default();
            standings.push(Standing { missing, ..Standing::of(definition, ix, state(ix), &tally) });
        }
        if backward {
            for &ix in plan.order().iter().rev() {
                let held = plan.before(ix).iter().filter(|next| !standings[plan.rank(**next)].is_clear());
                let held = u32::try_from(held.count()).unwrap_or(u32::MAX);
                standings[plan.rank(ix)].held = held;
            }
        }
        Self { row: standings.into_iter().collect(), backward }
    }

    /// Takes note of what became of `step`.
    pub fn note(&mut self, definition: &Definition, step: StepIx, steps: &Row<StepState>) {
        let (state, tally) = (&steps[step.at()], steps.sum_of(step.at()).copied().unwrap_or_default());
        let plan = &definition.plan;
        let rank = plan.rank(step);
        let before = self.row[rank];
        let (missing, held) = (before.missing, before.held);
        let after = Standing { missing, held, ..Standing::of(definition, step, state, &tally) };
        if before == after {
            return;
        }
        self.row.change(rank, |standing| *standing = after);
        if before.is_done != after.is_done {
            for &dependent in plan.before(step) {
                self.row.change(plan.rank(dependent), |next| adjust(&mut next.missing, !after.is_done));
            }
        }
        if self.backward && before.is_clear() != after.is_clear() {
            self.pass_on(definition, step, after.is_clear());
        }
    }

    /// Tells what `step` depends on that it is clear now, or is not any more, and so on.
    fn pass_on(&mut self, definition: &Definition, step: StepIx, is_clear: bool) {
        let plan = &definition.plan;
        let mut turned = vec![(step, is_clear)];
        while let Some((step, is_clear)) = turned.pop() {
            for &dependency in plan.after(step) {
                let rank = plan.rank(dependency);
                let was_clear = self.row[rank].is_clear();
                self.row.change(rank, |standing| adjust(&mut standing.held, !is_clear));
                let now_clear = self.row[rank].is_clear();
                if was_clear != now_clear {
                    turned.push((dependency, now_clear));
                }
            }
        }
    }

    /// Whether every step of `kind` lets the saga go on.
    #[must_use]
    pub fn all_done(&self, kind: StepKind) -> bool {
        self.row.sum().undone[place_of(kind)] == 0
    }

    /// Whether everything is settled on the way back.
    #[must_use]
    pub fn all_clear(&self) -> bool {
        self.row.sum().unclear == 0
    }

    /// The first step of `kind`, from the place `from` of the plan's order on, for which everything
    /// it depends on is done and something is to be done by `by`; its place.
    #[must_use]
    pub fn next_forward(&self, kind: StepKind, from: usize, by: Timestamp) -> Option<usize> {
        self.row.next(from, |outlook| outlook.forward[place_of(kind)] <= by)
    }

    /// The last step, before the place `before` of the plan's order, for which everything that
    /// depends on it is clear and something is to be done by `by`; its place.
    #[must_use]
    pub fn next_backward(&self, before: usize, by: Timestamp) -> Option<usize> {
        self.row.previous(before, |outlook| outlook.backward <= by)
    }

    /// When something is first to be done about a step of `kind` for which everything it depends on
    /// is done, and whom all that is to be done of this kind calls.
    #[must_use]
    pub fn first_forward(&self, kind: StepKind) -> (Timestamp, Callees) {
        let outlook = self.row.sum();
        (outlook.forward[place_of(kind)], outlook.callees[place_of(kind)])
    }

    /// The same on the way back.
    #[must_use]
    pub fn first_backward(&self) -> (Timestamp, Callees) {
        (self.row.sum().backward, self.row.sum().undoers)
    }

    /// Whether everything that the step at `rank` waits for is done.
    #[must_use]
    pub fn is_free(&self, rank: usize) -> bool {
        self.row[rank].missing == 0
    }

    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    /// Whether every sum in it is right.
    #[must_use]
    pub fn is_summed_up(&self) -> bool {
        self.row.is_summed_up()
    }
}

fn adjust(count: &mut u32, by_one_more: bool) {
    *count = if by_one_more { *count + 1 } else { *count - 1 };
}

impl Standing {
    /// A step by itself, whose instances come to `tally`.
    fn of(definition: &Definition, ix: StepIx, state: &StepState, tally: &Tally) -> Self {
        let (step, handlers) = (definition.step(ix), definition.handlers());
        let cap = state.cap(step);
        let begins = matches!(state, StepState::Unexpanded) || (tally.pending > 0 && tally.room(cap) > 0);
        let retry = if tally.free_calls(cap) > 0 { tally.retries.first } else { NEVER };
        let undo = &tally.undo;
        let undo_begins = undo.owed(step) > 0 && undo.room(cap) > 0;
        let undo_retry = if undo.free_calls(cap) > 0 { undo.retries.first } else { NEVER };
        Self {
            kind: step.kind,
            is_done: state.is_done(),
            is_settled: tally.is_settled_backward(step),
            missing: 0,
            held: 0,
            forward: if begins { AT_ONCE } else { retry.min(tally.looks.first).min(tally.repeats.first) },
            callees: handlers.forward(ix),
            backward: if undo_begins { AT_ONCE } else { undo_retry.min(undo.looks.first) },
            undoers: handlers.backward(ix),
        }
    }

    fn is_clear(&self) -> bool {
        self.held == 0 && self.is_settled
    }
}

impl Summed for Standing {
    type Sum = Outlook;

    fn sum(&self) -> Outlook {
        let mut outlook = Outlook::default();
        let kind = place_of(self.kind);
        outlook.undone[kind] = u32::from(!self.is_done);
        outlook.unclear = u32::from(!self.is_clear());
        if self.missing == 0 && !self.is_done && self.forward < NEVER {
            (outlook.forward[kind], outlook.callees[kind]) = (self.forward, self.callees);
        }
        if self.held == 0 && self.backward < NEVER {
            (outlook.backward, outlook.undoers) = (self.backward, self.undoers);
        }
        outlook
    }
}

impl Default for Outlook {
    fn default() -> Self {
        Self {
            undone: [0; KINDS],
            unclear: 0,
            forward: [NEVER; KINDS],
            callees: [Callees::default(); KINDS],
            backward: NEVER,
            undoers: Callees::default(),
        }
    }
}

impl Sum for Outlook {
    fn add(&mut self, other: &Self) {
        for kind in 0..KINDS {
            self.undone[kind] += other.undone[kind];
            self.forward[kind] = self.forward[kind].min(other.forward[kind]);
            self.callees[kind].add(other.callees[kind]);
        }
        self.unclear += other.unclear;
        self.backward = self.backward.min(other.backward);
        self.undoers.add(other.undoers);
    }
}
