//! The steps, each read on its own.

use std::collections::HashMap;

use super::calls::{Defaults, Persistence, read_call, read_pending, read_probe};
use super::flow::{Flow, Site};
use super::located::{At, Place};
use super::problem::Findings;
use super::raw::{RawCompensation, RawKind, RawStep};
use crate::saga::definition::{CONCURRENCY_DEFAULT, Call, Step};
use crate::saga::ids::{StepIx, StepName};
use crate::saga::suggest::did_you_mean;
use crate::saga::words::StepKind;

/// Most steps of one definition.
pub const STEPS_MAX: usize = 2_000;
/// Highest `concurrency`.
const CONCURRENCY_MAX: u32 = 1_000;

/// The steps' names and their places in the file.
pub(super) struct Names<'a> {
    by_name: HashMap<&'a str, StepIx>,
    in_order: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn read(steps: &'a At<Vec<At<RawStep>>>, findings: &mut Findings) -> Self {
        if steps.value.is_empty() {
            findings.problem(steps.place, "a saga has at least one step");
        }
        if steps.value.len() > STEPS_MAX {
            findings.problem(steps.place, format!("there are more than {STEPS_MAX} steps"));
        }
        let mut names = Names { by_name: HashMap::new(), in_order: Vec::new() };
        for (ix, step) in each(steps) {
            let name = &step.name;
            if let Some(first) = names.by_name.get(name.as_str()) {
                let line = steps.value[first.at()].value.name.place.line;
                findings.problem(
                    name.place,
                    format!("the step `{}` is already there, in line {line}", name.as_str()),
                );
            } else {
                names.by_name.insert(name.as_str(), ix);
            }
            names.in_order.push(name.as_str());
        }
        names
    }

    /// The step called `name`; a problem at `place` when there is none.
    pub(super) fn find(&self, name: &str, place: Place, findings: &mut Findings) -> Option<StepIx> {
        let found = self.get(name);
        if found.is_none() {
            let help = did_you_mean(name, self.in_order.iter().copied());
            findings.note(place, format!("there is no step `{name}`"), help);
        }
        found
    }

    pub(super) fn get(&self, name: &str) -> Option<StepIx> {
        self.by_name.get(name).copied()
    }

    pub(super) fn of(&self, ix: StepIx) -> &'a str {
        self.in_order[ix.at()]
    }
}

/// All raw steps with their places.
pub(super) fn each(steps: &At<Vec<At<RawStep>>>) -> impl Iterator<Item = (StepIx, &RawStep)> {
    (0u32..).map(StepIx).zip(steps.value.iter().map(|step| &step.value))
}

/// The step's kind; compensatable where the file does not say.
pub(super) fn kind_of(step: &RawStep) -> StepKind {
    match step.kind.as_ref().map(|kind| kind.value) {
        None | Some(RawKind::Compensatable) => StepKind::Compensatable,
        Some(RawKind::Pivot) => StepKind::Pivot,
        Some(RawKind::Retriable) => StepKind::Retriable,
    }
}

/// Reads all steps; `None` for one that has no name or no call. What else could not be read is left
/// out of its step, and noted.
pub(super) fn read_steps(
    steps: &At<Vec<At<RawStep>>>,
    defaults: &Defaults,
    flow: &mut Flow,
    findings: &mut Findings,
) -> Vec<Option<Step>> {
    each(steps).map(|(ix, step)| read_step(ix, step, defaults, flow, findings)).collect()
}

fn read_step(
    ix: StepIx,
    raw: &RawStep,
    defaults: &Defaults,
    flow: &mut Flow,
    findings: &mut Findings,
) -> Option<Step> {
    let kind = kind_of(raw);
    let name = StepName::parse(raw.name.as_str())
        .map_err(|error| findings.problem(raw.name.place, error.to_string()))
        .ok();
    let for_each = raw.for_each.as_ref().and_then(|source| flow.whole(Site::ForEach(ix), source, findings));
    let when = raw.when.as_ref().and_then(|source| flow.whole(Site::When(ix), source, findings));
    let persistence = match kind {
        StepKind::Compensatable => Persistence::Forward,
        StepKind::Pivot | StepKind::Retriable => Persistence::Persistent,
    };
    let concurrency = concurrency(raw, findings);
    let action = read_call(Site::Action(ix), &raw.action.value, persistence, defaults, flow, findings);
    let compensation = compensation(ix, kind, raw, defaults, flow, findings);
    let probe = raw.probe.as_ref().and_then(|probe| read_probe(Site::Probe(ix), probe, flow, findings));
    let pending = read_pending(raw.pending.as_ref(), findings);
    Some(Step {
        name: name?,
        kind,
        for_each,
        concurrency,
        when,
        action: action?,
        compensate_on_refusal: compensate_on_refusal(raw, compensation.as_ref(), findings),
        compensation,
        probe,
        pending,
    })
}

fn concurrency(raw: &RawStep, findings: &mut Findings) -> u32 {
    let Some(cap) = &raw.concurrency else { return CONCURRENCY_DEFAULT };
    if !(1..=CONCURRENCY_MAX).contains(&cap.value) {
        findings.problem(cap.place, format!("`concurrency` is a number from 1 to {CONCURRENCY_MAX}"));
    }
    if raw.for_each.is_none() {
        findings.warning(cap.place, "`concurrency` without `for_each` has no meaning");
    }
    cap.value
}

fn compensation(
    ix: StepIx,
    kind: StepKind,
    raw: &RawStep,
    defaults: &Defaults,
    flow: &mut Flow,
    findings: &mut Findings,
) -> Option<Call> {
    match (kind, &raw.compensation) {
        (StepKind::Compensatable, None) => {
            findings.problem_with_help(
                raw.name.place,
                format!("the step `{}` has no compensation", raw.name.as_str()),
                "name the call that undoes it, or write `compensation: none` if nothing needs undoing",
            );
            None
        }
        (StepKind::Pivot | StepKind::Retriable, Some(compensation)) => {
            let kind = if kind == StepKind::Pivot { "pivot" } else { "retriable step" };
            findings.problem(compensation.place, format!("a {kind} is never compensated"));
            None
        }
        (StepKind::Pivot | StepKind::Retriable, None) => None,
        (StepKind::Compensatable, Some(compensation)) => match &compensation.value {
            RawCompensation::None => None,
            RawCompensation::Call(call) => {
                read_call(Site::Compensation(ix), call, Persistence::Persistent, defaults, flow, findings)
            }
        },
    }
}

fn compensate_on_refusal(raw: &RawStep, compensation: Option<&Call>, findings: &mut Findings) -> bool {
    let Some(asked) = &raw.compensate_on_refusal else { return false };
    let names_a_call = matches!(raw.compensation.as_ref().map(|c| &c.value), Some(RawCompensation::Call(_)))
        || compensation.is_some();
    if asked.value && !names_a_call {
        findings.warning(asked.place, "`compensate_on_refusal` without a compensation has no meaning");
    }
    asked.value
}
