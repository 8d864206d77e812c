//! The lock keys of a new saga.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{EvalError, LIST_MAX_ITEMS, Scope, Template};
use crate::saga::definition::Definition;
use crate::saga::ids::{LockKey, SagaId};

/// Evaluates the definition's lock entries: sorted, without repeats. A list gives one key an
/// entry; numbers and booleans are turned to text.
///
/// # Errors
/// [`EvalError`] when an expression fails, and when a key is null, empty, too long or a map: the
/// start must be refused, because a key nobody meant would lock the wrong thing.
pub fn lock_keys(
    definition: &Definition,
    saga_id: &SagaId,
    input: &Value,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<LockKey>, EvalError> {
    let no_steps = |_: &str| Value::Null;
    let scope = Scope {
        saga_id: saga_id.as_str(),
        labels,
        input,
        steps: &no_steps,
        output_at: &|_, _| None,
        item: None,
        failure: None,
    };
    let mut keys = BTreeSet::new();
    for template in &definition.locks {
        match template.evaluate_naming(&scope)? {
            Value::Array(list) => {
                for value in &list {
                    keys.insert(key(template, value)?);
                }
            }
            value => {
                keys.insert(key(template, &value)?);
            }
        }
        if keys.len() > LIST_MAX_ITEMS {
            return Err(refused(template, format!("there are more than {LIST_MAX_ITEMS} keys")));
        }
    }
    Ok(keys.into_iter().collect())
}

fn key(template: &Template, value: &Value) -> Result<LockKey, EvalError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null => return Err(refused(template, "the key is null".to_owned())),
        Value::Array(_) => return Err(refused(template, "a key is a list inside a list".to_owned())),
        Value::Object(_) => return Err(refused(template, "a key is a map".to_owned())),
    };
    LockKey::parse(&text).map_err(|error| refused(template, error.to_string()))
}

fn refused(template: &Template, problem: String) -> EvalError {
    let sources: Vec<&str> = template.expressions().iter().map(|expr| expr.source()).collect();
    EvalError { expression: format!("locks: {}", sources.join(", ")), problem }
}
