//! Expressions and templates: the data that flows between steps.
//!
//! PLACEHOLDER SIGNATURES: the bodies are being written.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::words::Failure;

/// What an expression may read.
pub struct Scope<'a> {
    /// `saga.id`
    pub saga_id: &'a str,
    /// `saga.labels`
    pub labels: &'a BTreeMap<String, String>,
    /// `input`
    pub input: &'a Value,
    /// `steps[NAME]`: the step's output; a list in item order for a `for_each` step; null where
    /// not succeeded. Called only for steps the expression names.
    pub steps: &'a dyn Fn(&str) -> Value,
    /// `item` and `index`, in an instance of a `for_each` step.
    pub item: Option<(&'a Value, u64)>,
    /// `failure`, null without one.
    pub failure: Option<&'a Failure>,
}

/// Why an evaluation gave no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{expression}: {problem}")]
pub struct EvalError {
    /// The expression's source.
    pub expression: String,
    /// What went wrong.
    pub problem: String,
}

/// One compiled CEL expression.
#[derive(Debug)]
pub struct Expr {}

impl Expr {
    /// The CEL source.
    #[must_use]
    #[expect(clippy::unnecessary_literal_bound, reason = "the signature only, until it is written")]
    pub fn source(&self) -> &str {
        ""
    }

    /// Its value.
    ///
    /// # Errors
    /// [`EvalError`] when evaluation fails for another reason than a missing key.
    pub fn evaluate(&self, _scope: &Scope<'_>) -> Result<Value, EvalError> {
        Ok(Value::Null)
    }
}

/// A JSON structure with `${…}` in its texts.
#[derive(Debug)]
pub struct Template {}

impl Template {
    /// Its value with every `${…}` filled in.
    ///
    /// # Errors
    /// [`EvalError`] of the first expression that fails.
    pub fn evaluate(&self, _scope: &Scope<'_>) -> Result<Value, EvalError> {
        Ok(Value::Null)
    }
}
