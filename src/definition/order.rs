//! Who waits for whom, and which kinds of steps may.

use super::located::{At, Place};
use super::problem::Findings;
use super::raw::RawStep;
use super::steps::{Names, each, kind_of};
use crate::saga::ids::StepIx;
use crate::saga::plan::Plan;
use crate::saga::words::StepKind;

/// The plan, unless `after` names what is not there or runs in a circle.
pub(super) fn plan(steps: &At<Vec<At<RawStep>>>, names: &Names, findings: &mut Findings) -> Option<Plan> {
    let mut after = Vec::with_capacity(steps.value.len());
    let mut all_found = true;
    for (ix, step) in each(steps) {
        let Some(listed) = &step.after else {
            after.push(ix.0.checked_sub(1).map(StepIx).into_iter().collect());
            continue;
        };
        let mut waits_for: Vec<StepIx> = Vec::with_capacity(listed.len());
        for name in listed {
            match names.find(name.as_str(), name.place, findings) {
                Some(found) if waits_for.contains(&found) => {
                    findings.problem(name.place, format!("`{}` stands here twice", name.as_str()));
                }
                Some(found) => waits_for.push(found),
                None => all_found = false,
            }
        }
        after.push(waits_for);
    }
    if !all_found {
        return None;
    }
    Plan::new(after).map_err(|cycle| note_cycle(steps, &cycle, findings)).ok()
}

fn note_cycle(steps: &At<Vec<At<RawStep>>>, cycle: &[StepIx], findings: &mut Findings) {
    let name = |ix: &StepIx| steps.value[ix.at()].value.name.as_str();
    let first = cycle.iter().min().copied().unwrap_or(StepIx(0));
    let start = cycle.iter().position(|ix| *ix == first).unwrap_or(0);
    let mut around: Vec<&str> = cycle[start..].iter().chain(&cycle[..start]).map(name).collect();
    around.push(name(&first));
    findings.problem(
        after_place(&steps.value[first.at()].value),
        format!("the steps wait for one another in a circle: {}", around.join(" → ")),
    );
}

/// The rules of the kinds: one pivot, nothing compensatable behind it, nothing that must be
/// committed behind what starts only after the commit.
pub(super) fn check_kinds(steps: &At<Vec<At<RawStep>>>, plan: &Plan, findings: &mut Findings) {
    let kind = |ix: StepIx| kind_of(&steps.value[ix.at()].value);
    let name = |ix: StepIx| steps.value[ix.at()].value.name.as_str();
    let mut pivot: Option<StepIx> = None;
    for (ix, step) in each(steps) {
        let place = after_place(step);
        match (kind(ix), pivot) {
            (StepKind::Pivot, Some(first)) => findings.problem(
                step.kind.as_ref().map_or(step.name.place, |kind| kind.place),
                format!("a saga has at most one pivot, and `{}` is one already", name(first)),
            ),
            (StepKind::Pivot, None) => pivot = Some(ix),
            (StepKind::Compensatable | StepKind::Retriable, _) => {}
        }
        if let (StepKind::Pivot, Some(for_each)) = (kind(ix), &step.for_each) {
            findings.problem_with_help(
                for_each.place,
                format!("`{}` is the pivot: one call decides, so it cannot run `for_each` item", name(ix)),
                "make the step compensatable, and name one step behind it the pivot",
            );
        }
        for &before in plan.after(ix) {
            match (kind(ix), kind(before)) {
                (StepKind::Compensatable, StepKind::Pivot) => findings.problem_with_help(
                    place,
                    format!(
                        "`{}` is compensatable and waits for the pivot `{}`, behind which nothing is undone",
                        name(ix),
                        name(before)
                    ),
                    "make it `kind: retriable`, or give it an `after` without the pivot",
                ),
                (StepKind::Compensatable | StepKind::Pivot, StepKind::Retriable) => findings
                    .problem_with_help(
                        place,
                        format!(
                            "`{}` waits for the retriable step `{}`, which starts only after the commit",
                            name(ix),
                            name(before)
                        ),
                        "give it an `after` without retriable steps",
                    ),
                (StepKind::Compensatable | StepKind::Pivot | StepKind::Retriable, _) => {}
            }
        }
    }
}

/// Where the file says what a step waits for, or its name.
fn after_place(step: &RawStep) -> Place {
    step.after.as_ref().and_then(|after| after.first()).map_or(step.name.place, |first| first.place)
}
