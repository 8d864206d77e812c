//! The flow of data: which expression may read what.

use super::located::{At, Place, Tree};
use super::problem::Findings;
use super::raw::RawStep;
use super::steps::{Names, kind_of};
use crate::saga::expr::{CompileError, Expr, Reads, Template, check_key};
use crate::saga::ids::StepIx;
use crate::saga::plan::Plan;
use crate::saga::words::StepKind;

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    Locks,
    ForEach(StepIx),
    When(StepIx),
    Action(StepIx),
    Compensation(StepIx),
    Probe(StepIx),
    Output,
    Events,
}

/// What one text reads, and where it stands.
struct Use {
    site: Site,
    place: Place,
    reads: Reads,
}

/// The expressions of a file, compiled at once and checked when the plan is known.
#[derive(Default)]
pub(super) struct Flow {
    uses: Vec<Use>,
}

impl Flow {
    /// Compiles a structure; all that is wrong in it is noted.
    pub(super) fn tree(&mut self, site: Site, tree: &At<Tree>, findings: &mut Findings) -> Option<Template> {
        match &tree.value {
            Tree::Null | Tree::Bool(_) | Tree::Number(_) => Some(Template::fixed(tree.value.to_json())),
            Tree::Text(text) => self.compile(site, text, tree.place, findings),
            Tree::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.tree(site, item, findings)).collect();
                items.into_iter().collect::<Option<_>>().map(Template::list)
            }
            Tree::Map(fields) => {
                let mut filled = Vec::with_capacity(fields.len());
                for (key, value) in fields {
                    if let Err(error) = check_key(key.as_str()) {
                        note(&error, key.place, findings);
                    }
                    filled.push(self.tree(site, value, findings).map(|value| (key.value.clone(), value)));
                }
                filled.into_iter().collect::<Option<_>>().map(Template::map)
            }
        }
    }

    /// Compiles one text.
    pub(super) fn text(
        &mut self,
        site: Site,
        text: &At<String>,
        findings: &mut Findings,
    ) -> Option<Template> {
        self.compile(site, text.as_str(), text.place, findings)
    }

    /// Compiles one whole `${…}`.
    pub(super) fn whole(&mut self, site: Site, text: &At<String>, findings: &mut Findings) -> Option<Expr> {
        let whole = self.text(site, text, findings)?.into_whole();
        if whole.is_none() {
            findings.problem_with_help(
                text.place,
                format!("`{}` is not an expression", text.as_str()),
                "write one whole ${…}",
            );
        }
        whole
    }

    fn compile(&mut self, site: Site, text: &str, place: Place, findings: &mut Findings) -> Option<Template> {
        let template = Template::text(text).map_err(|error| note(&error, place, findings)).ok()?;
        let uses =
            template.expressions().into_iter().map(|expr| Use { site, place, reads: expr.reads().clone() });
        self.uses.extend(uses);
        Some(template)
    }

    /// Checks every reference against the plan.
    pub(super) fn check(
        &self,
        steps: &At<Vec<At<RawStep>>>,
        names: &Names,
        plan: &Plan,
        findings: &mut Findings,
    ) {
        let mut known: Option<(StepIx, Vec<StepIx>)> = None;
        for used in &self.uses {
            check_variables(used, steps, findings);
            for name in &used.reads.steps {
                let Some(read) = names.find(name, used.place, findings) else { continue };
                match reader(used.site) {
                    Reader::Nobody => {
                        findings.problem(
                            used.place,
                            format!("locks are taken before any step, `{name}` included"),
                        );
                    }
                    Reader::Saga => check_end(used, read, steps, names, findings),
                    Reader::Step(ix) => {
                        // The texts of one step stand together: its ancestors are looked up once.
                        if known.as_ref().is_none_or(|(of, _)| *of != ix) {
                            known = Some((ix, plan.ancestors(ix)));
                        }
                        let ancestors = known.as_ref().map(|(_, list)| list.as_slice()).unwrap_or_default();
                        check_step(used, ix, read, ancestors, names, findings);
                    }
                }
            }
        }
    }
}

fn note(error: &CompileError, place: Place, findings: &mut Findings) {
    findings.note(place, format!("in `{}`: {}", error.expression, error.problem), error.help.clone());
}

enum Reader {
    Nobody,
    Saga,
    Step(StepIx),
}

fn reader(site: Site) -> Reader {
    match site {
        Site::Locks => Reader::Nobody,
        Site::Output | Site::Events => Reader::Saga,
        Site::ForEach(ix) | Site::When(ix) | Site::Action(ix) | Site::Compensation(ix) | Site::Probe(ix) => {
            Reader::Step(ix)
        }
    }
}

fn check_variables(used: &Use, steps: &At<Vec<At<RawStep>>>, findings: &mut Findings) {
    let in_instance = match used.site {
        Site::Action(ix) | Site::Compensation(ix) | Site::Probe(ix) => {
            steps.value[ix.at()].value.for_each.is_some()
        }
        Site::Locks | Site::ForEach(_) | Site::When(_) | Site::Output | Site::Events => false,
    };
    for (reads, name) in [(used.reads.item, "item"), (used.reads.index, "index")] {
        if reads && !in_instance {
            findings.problem_with_help(
                used.place,
                format!("there is no `{name}` here"),
                "it is there in the calls of a step with `for_each`",
            );
        }
    }
    match used.site {
        Site::Compensation(_) | Site::Events => {}
        Site::Locks | Site::ForEach(_) | Site::When(_) | Site::Action(_) | Site::Probe(_) | Site::Output => {
            if used.reads.failure {
                findings.warning(used.place, "`failure` is always null here: nothing has failed yet");
            }
        }
    }
}

/// `output` and `events` may read what is done at the commit.
fn check_end(used: &Use, read: StepIx, steps: &At<Vec<At<RawStep>>>, names: &Names, findings: &mut Findings) {
    match kind_of(&steps.value[read.at()].value) {
        StepKind::Compensatable | StepKind::Pivot => {}
        StepKind::Retriable => findings.problem(
            used.place,
            format!(
                "`{}` is retriable: output and events cannot read it, for they may come first",
                names.of(read)
            ),
        ),
    }
}

fn check_step(
    used: &Use,
    ix: StepIx,
    read: StepIx,
    ancestors: &[StepIx],
    names: &Names,
    findings: &mut Findings,
) {
    let name = names.of(read);
    match used.site {
        Site::Compensation(_) if read == ix => findings.warning(
            used.place,
            &format!(
                "the compensation reads the output of its own step `{name}`, which is null when the outcome is \
                 unknown; let the participant find the effect by the action's key"
            ),
        ),
        _ if read == ix => {
            findings.problem(used.place, format!("`{name}` reads its own output, which is not there yet"));
        }
        _ if ancestors.binary_search(&read).is_err() => findings.problem_with_help(
            used.place,
            format!("`{}` reads `{name}` and does not depend on it", names.of(ix)),
            format!("add `{name}` to its `after`"),
        ),
        _ => {}
    }
}
