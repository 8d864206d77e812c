//! Plain paths: `input.user.id`, `steps['create-order'].order_id`, walked without CEL.

use serde_json::Value;

use super::Scope;
use crate::saga::words::Failure;

/// The variables of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    Input,
    Steps,
    Item,
    Index,
    Failure,
    Saga,
}

impl Root {
    pub(super) const ALL: [Root; 6] =
        [Root::Input, Root::Steps, Root::Item, Root::Index, Root::Failure, Root::Saga];

    pub(super) fn name(self) -> &'static str {
        match self {
            Root::Input => "input",
            Root::Steps => "steps",
            Root::Item => "item",
            Root::Index => "index",
            Root::Failure => "failure",
            Root::Saga => "saga",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Root::ALL.into_iter().find(|root| root.name() == name)
    }
}

/// A variable and the keys selected below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    pub(super) keys: Vec<String>,
}

impl Path {
    /// The value at the path; null behind a missing key or below null.
    pub(super) fn value(&self, scope: &Scope<'_>) -> Result<Value, String> {
        match self.root {
            Root::Input => select(scope.input, &self.keys).cloned(),
            Root::Item => match scope.item {
                Some((item, _)) => select(item, &self.keys).cloned(),
                None => Ok(Value::Null),
            },
            Root::Steps => match self.keys.split_first() {
                Some((step, [])) => Ok((scope.steps)(step)),
                Some((step, below)) => select(&(scope.steps)(step), below).cloned(),
                None => Err("`steps` needs the name of a step".to_owned()),
            },
            Root::Index => select(&index_value(scope), &self.keys).cloned(),
            Root::Failure => select(&failure_value(scope.failure), &self.keys).cloned(),
            Root::Saga => select(&saga_value(scope), &self.keys).cloned(),
        }
    }
}

/// `steps.NAME[index]` and keys below it: what the instance at hand answered, or the one in the same
/// place of another list. The list itself is not made for it: it would be made for every instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnOutput {
    pub(super) step: String,
    pub(super) keys: Vec<String>,
}

impl OwnOutput {
    /// The value; `None` where only the whole list can tell.
    pub(super) fn value(&self, scope: &Scope<'_>) -> Option<Value> {
        let (_, index) = scope.item?;
        let output = (scope.output_at)(&self.step, index)?;
        select(&output, &self.keys).ok().cloned()
    }
}

/// Follows `keys` from `value` down.
pub(super) fn select<'v>(mut value: &'v Value, keys: &[String]) -> Result<&'v Value, String> {
    const NULL: &Value = &Value::Null;
    for key in keys {
        value = match value {
            Value::Object(fields) => fields.get(key).unwrap_or(NULL),
            Value::Null => NULL,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(format!("`{key}` is selected from {}", kind(value)));
            }
        };
    }
    Ok(value)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

pub(super) fn index_value(scope: &Scope<'_>) -> Value {
    scope.item.map_or(Value::Null, |(_, index)| Value::from(index))
}

pub(super) fn failure_value(failure: Option<&Failure>) -> Value {
    failure.map_or(Value::Null, |failure| {
        serde_json::json!({ "step": failure.step, "code": failure.code, "message": failure.message })
    })
}

pub(super) fn saga_value(scope: &Scope<'_>) -> Value {
    serde_json::json!({ "id": scope.saga_id, "labels": scope.labels })
}
