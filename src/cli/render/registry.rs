//! Definitions and registrations, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::page::Page;
use super::table::{Cell, lay_out};
use super::text::{self, Tone, paint};
use super::words;
use crate::proto;

/// One version of a definition, for programs.
#[derive(Debug, Serialize)]
pub struct DefinitionView<'a> {
    name: &'a str,
    version: u32,
    digest: &'a str,
    description: &'a str,
    active: bool,
    created_at: Option<String>,
    steps: Vec<DefinitionStepView<'a>>,
    source: &'a str,
}

#[derive(Debug, Serialize)]
struct DefinitionStepView<'a> {
    name: &'a str,
    kind: &'static str,
    after: &'a [String],
    action: &'a str,
    compensation: &'a str,
    probe: &'a str,
    for_each: &'a str,
    when: &'a str,
}

/// One version of a definition, for programs.
#[must_use]
pub fn definition_view(definition: &proto::Definition) -> DefinitionView<'_> {
    let steps = definition.steps.iter().map(|step| DefinitionStepView {
        name: &step.name,
        kind: words::step_kind(step.kind()),
        after: &step.after,
        action: &step.action,
        compensation: &step.compensation,
        probe: &step.probe,
        for_each: &step.for_each,
        when: &step.when,
    });
    DefinitionView {
        name: &definition.name,
        version: definition.version,
        digest: &definition.digest,
        description: &definition.description,
        active: definition.active,
        created_at: text::rfc3339(definition.created_at.as_ref()),
        steps: steps.collect(),
        source: &definition.source,
    }
}

/// Definitions, a row a version.
#[must_use]
pub fn definitions(definitions: &[proto::Definition], page: &Page) -> String {
    if definitions.is_empty() {
        return "no definitions\n".to_owned();
    }
    let rows = definitions.iter().map(|definition| {
        let standing = if definition.active {
            Cell::toned("active", Tone::Good)
        } else {
            Cell::toned("retired", Tone::Faint)
        };
        vec![
            Cell::of(&definition.name),
            Cell::number(definition.version),
            standing,
            Cell::of(text::age(definition.created_at.as_ref(), page.now)),
            Cell::of(definition.digest.get(..12).unwrap_or(&definition.digest)),
            Cell::of(&definition.description),
        ]
    });
    lay_out(page, &["DEFINITION", "VERSION", "STATE", "AGE", "DIGEST", "DESCRIPTION"], rows.collect())
}

/// One version of a definition with its steps.
#[must_use]
pub fn definition(definition: &proto::Definition, page: &Page) -> String {
    let state = if definition.active { "active" } else { "retired" };
    let mut told = format!(
        "{} v{}, {state}, registered {} ago\ndigest {}\n",
        paint(&text::printable(&definition.name), Tone::Strong),
        definition.version,
        text::age(definition.created_at.as_ref(), page.now),
        definition.digest
    );
    if !definition.description.is_empty() {
        let _ = writeln!(told, "{}", text::printable(&definition.description));
    }
    let rows = definition.steps.iter().map(|step| {
        let mut only = Vec::new();
        if !step.for_each.is_empty() {
            only.push(format!("for each {}", step.for_each));
        }
        if !step.when.is_empty() {
            only.push(format!("when {}", step.when));
        }
        vec![
            Cell::of(&step.name),
            Cell::of(words::step_kind(step.kind()).to_lowercase()),
            Cell::of(step.after.join(", ")),
            Cell::of(&step.action),
            Cell::of(&step.compensation),
            Cell::of(only.join("; ")),
        ]
    });
    let heads = ["STEP", "KIND", "AFTER", "ACTION", "COMPENSATION", "ONLY"];
    let _ = write!(told, "\n{}", lay_out(page, &heads, rows.collect()));
    told
}

/// A registration that was made, for programs.
#[derive(Debug, Serialize)]
pub struct RegisteredView<'a> {
    registration_id: &'a str,
    expires_at: Option<String>,
}

/// A registration that was made, for programs.
#[must_use]
pub fn registered_view(answer: &proto::RegisterHandlersResponse) -> RegisteredView<'_> {
    RegisteredView {
        registration_id: &answer.registration_id,
        expires_at: text::rfc3339(answer.expires_at.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::document;
    use crate::cli::tests::{drawn, narrow_page, sample};

    #[test]
    fn a_definition_with_its_steps_on_eighty_columns() {
        insta::assert_snapshot!(drawn(&definition(&sample::definition(), &narrow_page())));
    }

    #[test]
    fn a_definition_as_json() {
        insta::assert_snapshot!(document::json(&definition_view(&sample::definition())));
    }
}
