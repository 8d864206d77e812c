//! A definition version as its users see it.

use super::timestamp;
use crate::engine::request::DefinitionView;
use crate::proto;
use crate::saga::definition::{Definition, Step};
use crate::saga::expr::Expr;
use crate::saga::ids::{ActionName, ParticipantName, StepIx};
use crate::saga::words::StepKind;

/// A definition with its source and its steps.
#[must_use]
pub fn definition(view: &DefinitionView) -> proto::Definition {
    let definition = &*view.definition;
    proto::Definition {
        source: definition.source.to_string(),
        steps: definition.each_step().map(|(ix, step)| definition_step(definition, ix, step)).collect(),
        ..definition_row(view)
    }
}

/// A definition as lists show it: without source and steps.
#[must_use]
pub fn definition_row(view: &DefinitionView) -> proto::Definition {
    let definition = &*view.definition;
    proto::Definition {
        name: definition.name.to_string(),
        version: definition.version.0,
        digest: definition.digest.to_string(),
        source: String::new(),
        active: view.active,
        created_at: view.created_at.map(timestamp),
        steps: Vec::new(),
        description: definition.description.clone(),
    }
}

fn definition_step(definition: &Definition, ix: StepIx, step: &Step) -> proto::DefinitionStep {
    let after = definition.plan.after(ix);
    let expression = |expr: &Option<Expr>| expr.as_ref().map(|e| e.source().to_owned()).unwrap_or_default();
    proto::DefinitionStep {
        name: step.name.to_string(),
        kind: kind(step.kind).into(),
        after: after.iter().map(|&before| definition.step(before).name.to_string()).collect(),
        action: call(&step.action.participant, &step.action.action),
        compensation: step.compensation.as_ref().map(|c| call(&c.participant, &c.action)).unwrap_or_default(),
        probe: step.probe.as_ref().map(|p| call(&p.participant, &p.action)).unwrap_or_default(),
        for_each: expression(&step.for_each),
        when: expression(&step.when),
    }
}

pub(super) fn kind(kind: StepKind) -> proto::StepKind {
    match kind {
        StepKind::Compensatable => proto::StepKind::Compensatable,
        StepKind::Pivot => proto::StepKind::Pivot,
        StepKind::Retriable => proto::StepKind::Retriable,
    }
}

fn call(participant: &ParticipantName, action: &ActionName) -> String {
    format!("{participant}.{action}")
}
