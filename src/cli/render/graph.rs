//! A definition as a picture, in the languages of Mermaid and Graphviz.
//!
//! Arrows point from a step to those that wait for it. A compensatable step is a box that names
//! what undoes it, the pivot is a hexagon, a retriable step is rounded.

use std::fmt::Write as _;

use crate::proto;
use crate::proto::StepKind;

/// The languages a graph is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// For Markdown files and the browser.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// The steps of `definition` as a graph.
#[must_use]
pub fn graph(definition: &proto::Definition, language: Language) -> String {
    match language {
        Language::Mermaid => mermaid(definition),
        Language::Dot => dot(definition),
    }
}

/// What is written into a step's shape, line by line.
fn lines(step: &proto::DefinitionStep) -> Vec<String> {
    let mut lines = vec![step.name.clone(), step.action.clone()];
    if !step.compensation.is_empty() {
        lines.push(format!("undo: {}", step.compensation));
    }
    if !step.probe.is_empty() {
        lines.push(format!("probe: {}", step.probe));
    }
    if !step.for_each.is_empty() {
        lines.push(format!("for each {}", step.for_each));
    }
    if !step.when.is_empty() {
        lines.push(format!("when {}", step.when));
    }
    lines
}

/// Each arrow as the places of its two steps.
fn arrows(steps: &[proto::DefinitionStep]) -> impl Iterator<Item = (usize, usize)> {
    let place = |name: &str| steps.iter().position(|step| step.name == name);
    steps.iter().enumerate().flat_map(move |(to, step)| {
        step.after.iter().filter_map(move |before| place(before).map(|from| (from, to)))
    })
}

fn mermaid(definition: &proto::Definition) -> String {
    let mut text = format!("---\ntitle: {} v{}\n---\nflowchart TD\n", definition.name, definition.version);
    for (at, step) in definition.steps.iter().enumerate() {
        let (open, close) = match step.kind() {
            StepKind::Pivot => ("{{", "}}"),
            StepKind::Retriable => ("([", "])"),
            StepKind::Compensatable | StepKind::Unspecified => ("[", "]"),
        };
        let label = lines(step).iter().map(|line| mermaid_escaped(line)).collect::<Vec<_>>().join("<br/>");
        let _ = writeln!(text, "  s{at}{open}\"{label}\"{close}");
    }
    for (from, to) in arrows(&definition.steps) {
        let _ = writeln!(text, "  s{from} --> s{to}");
    }
    text
}

/// Mermaid writes special characters as `#code;`.
fn mermaid_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | ';' => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn dot(definition: &proto::Definition) -> String {
    let mut text = format!(
        "digraph \"{} v{}\" {{\n  node [fontname=\"sans-serif\"];\n",
        dot_escaped(&definition.name),
        definition.version
    );
    for (at, step) in definition.steps.iter().enumerate() {
        let shape = match step.kind() {
            StepKind::Pivot => "shape=hexagon",
            StepKind::Retriable => "shape=box, style=rounded",
            StepKind::Compensatable | StepKind::Unspecified => "shape=box",
        };
        let label = lines(step).iter().map(|line| dot_escaped(line)).collect::<Vec<_>>().join("\\n");
        let _ = writeln!(text, "  s{at} [label=\"{label}\", {shape}];");
    }
    for (from, to) in arrows(&definition.steps) {
        let _ = writeln!(text, "  s{from} -> s{to};");
    }
    text.push_str("}\n");
    text
}

fn dot_escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::sample;

    #[test]
    fn an_order_as_mermaid() {
        insta::assert_snapshot!(graph(&sample::definition(), Language::Mermaid));
    }

    #[test]
    fn an_order_as_dot() {
        insta::assert_snapshot!(graph(&sample::definition(), Language::Dot));
    }

    #[test]
    fn quotes_in_an_expression_stay_inside_their_label() {
        assert_eq!(mermaid_escaped(r#"a == "b""#), "a == #34;b#34;");
        assert_eq!(dot_escaped(r#"a == "b\n""#), r#"a == \"b\\n\""#);
    }
}
