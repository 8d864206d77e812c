//! The one place where this room reads definition files itself: `def check` and
//! `def graph --file` work without a daemon.

use std::fmt::Write as _;

use serde::Serialize;

use super::render::text::{self, Tone, paint};
use super::trouble::Trouble;
use crate::definition::{self, Problem};
use crate::proto;
use crate::saga::definition::{Call, Definition, Step};
use crate::saga::expr::Expr;
use crate::saga::ids::Version;
use crate::saga::words::StepKind;

/// A file was never registered; its version is the one it would get as the first.
const UNREGISTERED: Version = Version(1);

/// What was found out about one file.
#[derive(Debug, Serialize)]
pub struct Finding {
    file: String,
    definition: Option<String>,
    problems: Vec<ProblemView>,
    warnings: Vec<String>,
    #[serde(skip)]
    drawn: String,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
}

impl Finding {
    /// Whether the file may be registered.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// The finding for people: one line, or the problems in their source.
    #[must_use]
    pub fn told(&self) -> String {
        self.drawn.clone()
    }
}

/// Checks one file.
#[must_use]
pub fn check(file: &str, source: &str) -> Finding {
    match definition::compile(source, Some(file), UNREGISTERED) {
        Ok(compiled) => {
            let name = compiled.definition.name.to_string();
            let steps = u64::try_from(compiled.definition.steps.len()).unwrap_or(u64::MAX);
            let mut drawn =
                format!("{file}: {} {name}, {}\n", paint("good:", Tone::Good), text::counted(steps, "step"));
            for warning in &compiled.warnings {
                let _ = writeln!(drawn, "  {} {}", paint("warning:", Tone::Wary), text::printable(warning));
            }
            Finding {
                file: file.to_owned(),
                definition: Some(name),
                problems: Vec::new(),
                warnings: compiled.warnings,
                drawn,
            }
        }
        Err(problems) => Finding {
            file: file.to_owned(),
            definition: None,
            drawn: definition::render(&problems, source, file),
            problems: problems.into_iter().map(problem_view).collect(),
            warnings: Vec::new(),
        },
    }
}

fn problem_view(problem: Problem) -> ProblemView {
    ProblemView { line: problem.line, column: problem.column, message: problem.message, help: problem.help }
}

/// The steps of a file in the form the daemon describes a registered definition.
///
/// # Errors
/// [`Trouble::Unfit`] with the problems drawn in their source.
pub fn outline(file: &str, source: &str) -> Result<proto::Definition, Trouble> {
    let compiled = definition::compile(source, Some(file), UNREGISTERED)
        .map_err(|problems| Trouble::Unfit(definition::render(&problems, source, file)))?;
    Ok(outlined(&compiled.definition))
}

fn outlined(definition: &Definition) -> proto::Definition {
    let steps = definition.each_step().map(|(ix, step)| {
        let after = definition.plan.after(ix).iter();
        outlined_step(step, after.map(|&before| definition.step(before).name.to_string()).collect())
    });
    proto::Definition {
        name: definition.name.to_string(),
        version: definition.version.0,
        steps: steps.collect(),
        ..proto::Definition::default()
    }
}

fn outlined_step(step: &Step, after: Vec<String>) -> proto::DefinitionStep {
    let kind = match step.kind {
        StepKind::Compensatable => proto::StepKind::Compensatable,
        StepKind::Pivot => proto::StepKind::Pivot,
        StepKind::Retriable => proto::StepKind::Retriable,
    };
    let probe = step.probe.as_ref().map(|probe| format!("{}.{}", probe.participant, probe.action));
    proto::DefinitionStep {
        name: step.name.to_string(),
        kind: kind.into(),
        after,
        action: called(&step.action),
        compensation: step.compensation.as_ref().map_or_else(String::new, called),
        probe: probe.unwrap_or_default(),
        for_each: step.for_each.as_ref().map_or_else(String::new, written),
        when: step.when.as_ref().map_or_else(String::new, written),
    }
}

fn called(call: &Call) -> String {
    format!("{}.{}", call.participant, call.action)
}

/// An expression as it stands in the file.
fn written(expression: &Expr) -> String {
    format!("${{{}}}", expression.source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;
    use crate::cli::render::graph::{Language, graph};
    use crate::cli::tests::drawn;

    const ORDER: &str = "\
saga: order
steps:
  - name: deduct-stock
    for_each: ${input.items}
    action: { call: stock.deduct, input: { item_id: \"${item.item_id}\" } }
    compensation: { call: stock.restore }
  - name: clear-cart
    kind: retriable
    when: ${size(input.items) > 0}
    action: { call: cart.clear }
";

    #[test]
    fn a_good_file_is_told_on_one_line() {
        let finding = check("order.yaml", ORDER);
        assert!(finding.is_good());
        assert_eq!(drawn(&finding.told()), "order.yaml: good: order, 2 steps\n");
    }

    #[test]
    fn a_bad_file_says_where() {
        let finding = check("order.yaml", &ORDER.replace("stock.restore", "restore"));
        assert!(!finding.is_good());
        assert_eq!(finding.problems[0].line, 6);
        assert!(finding.told().contains("order.yaml"), "{}", finding.told());
    }

    #[test]
    fn a_file_is_drawn_like_a_registered_definition() {
        insta::assert_snapshot!(graph(&outline("order.yaml", ORDER).unwrap(), Language::Mermaid));
    }

    #[test]
    fn a_bad_file_is_not_drawn() {
        let trouble = outline("order.yaml", "saga: order\n").unwrap_err();
        assert_eq!(trouble.exit(), Exit::Failed);
    }
}
