//! Expressions and templates: the data that flows between steps.
//!
//! An expression is CEL: it has no side effects and always ends. What it may cost is bounded
//! twice: its text when it is compiled (size, depth, loops in loops), and the data it walks when
//! it is evaluated (lengths of lists, and their product where one loop runs inside another).

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::words::Failure;

mod bind;
mod compile;
mod cost;
mod locks;
mod path;
mod run;
mod template;

pub use locks::lock_keys;
pub use template::{Template, check_key};

use compile::Program;
use path::{OwnOutput, Path};

/// Longest source of one expression, in bytes.
pub const EXPRESSION_MAX_BYTES: usize = 4 * 1024;
/// Deepest syntax tree.
pub const EXPRESSION_DEPTH_MAX: u32 = 64;
/// Loops (`map`, `filter`, `all`, `exists`, `exists_one`) inside one another.
pub const LOOPS_NESTED_MAX: usize = 2;
/// Longest list (or map) that an expression reads or gives.
pub const LIST_MAX_ITEMS: usize = 10_000;
/// Most work of one evaluation with loops, in values visited; about a tenth of a second.
pub const WORK_MAX: u64 = 1_000_000;

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
    /// `steps[NAME][INDEX]` of a `for_each` step; `None` where there is no such entry.
    pub output_at: &'a dyn Fn(&str, u64) -> Option<Value>,
    /// `item` and `index`, in an instance of a `for_each` step.
    pub item: Option<(&'a Value, u64)>,
    /// `failure`, null without one.
    pub failure: Option<&'a Failure>,
}

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{expression}: {problem}")]
pub struct CompileError {
    /// The expression's source, cut to a readable length.
    pub expression: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

/// Why an evaluation gave no value. The same data gives the same error: a retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{expression}: {problem}")]
pub struct EvalError {
    /// The expression's source.
    pub expression: String,
    /// What went wrong.
    pub problem: String,
}

/// The variables an expression names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// `input`
    pub input: bool,
    /// `item`
    pub item: bool,
    /// `index`
    pub index: bool,
    /// `failure`
    pub failure: bool,
    /// `saga`
    pub saga: bool,
    /// The steps behind `steps`, sorted.
    pub steps: Vec<String>,
}

/// One compiled CEL expression.
#[derive(Debug)]
pub struct Expr {
    source: String,
    reads: Reads,
    body: Body,
}

/// How an expression is evaluated.
#[derive(Debug)]
enum Body {
    /// A plain path such as `input.user.id`: walked over the JSON itself.
    Path(Path),
    /// The entry of a list of outputs that belongs to the instance at hand.
    Own(OwnOutput, Box<Program>),
    /// Anything else.
    Program(Box<Program>),
}

impl Expr {
    /// Compiles CEL source (without `${` and `}`).
    ///
    /// # Errors
    /// [`CompileError`] says what is wrong, with the place in the source where known.
    pub fn compile(source: &str) -> Result<Self, CompileError> {
        compile::compile(source)
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables it names.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Its value. A missing key, or a selection below null, makes the whole value null.
    ///
    /// # Errors
    /// [`EvalError`] when evaluation fails for another reason than a missing key.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        let value = match &self.body {
            Body::Path(path) => path.value(scope),
            Body::Own(own, program) => own.value(scope).map_or_else(|| program.run(scope), Ok),
            Body::Program(program) => program.run(scope),
        };
        value
            .and_then(within_limits)
            .map_err(|problem| EvalError { expression: self.source.clone(), problem: cut(&problem) })
    }
}

fn within_limits(value: Value) -> Result<Value, String> {
    match &value {
        Value::Array(list) if list.len() > LIST_MAX_ITEMS => Err(too_long(list.len())),
        _ => Ok(value),
    }
}

fn too_long(items: usize) -> String {
    format!("a list or map has {items} entries; expressions take at most {LIST_MAX_ITEMS}")
}

/// Cuts a message that may quote data to a length that fits a journal and a terminal.
fn cut(text: &str) -> String {
    const READABLE_CHARS: usize = 300;
    match text.char_indices().nth(READABLE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
