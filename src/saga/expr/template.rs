//! JSON structures whose texts hold `${…}`.

use serde_json::{Map, Value};

use super::{CompileError, EvalError, Expr, Scope, cut};

/// A JSON structure with `${…}` in its texts.
///
/// A text that is one whole `${…}` keeps the type of its value. Inside other text a value is
/// turned to text: a text as it is, a number exactly, anything else as JSON. `$${` writes `${`.
#[derive(Debug)]
pub struct Template(Node);

#[derive(Debug)]
enum Node {
    /// Nothing to fill in.
    Fixed(Value),
    /// One whole `${…}`.
    Whole(Expr),
    /// Text with `${…}` in it.
    Text(Vec<Part>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

#[derive(Debug)]
enum Part {
    Fixed(String),
    Filled(Expr),
}

impl Template {
    /// Compiles a structure.
    ///
    /// # Errors
    /// The first text whose expression does not compile, or a key with `${…}`.
    pub fn compile(value: &Value) -> Result<Self, CompileError> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(Self::fixed(value.clone())),
            Value::String(text) => Self::text(text),
            Value::Array(list) => Ok(Self::list(list.iter().map(Self::compile).collect::<Result<_, _>>()?)),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| Ok((check_key(key)?.to_owned(), Self::compile(value)?)))
                .collect::<Result<_, _>>()
                .map(Self::map),
        }
    }

    /// A value without expressions.
    #[must_use]
    pub fn fixed(value: Value) -> Self {
        Self(Node::Fixed(value))
    }

    /// Compiles one text.
    ///
    /// # Errors
    /// A `${` without its `}`, or an expression that does not compile.
    pub fn text(text: &str) -> Result<Self, CompileError> {
        let mut parts = Vec::new();
        for piece in split(text)? {
            parts.push(match piece {
                Piece::Fixed(text) => Part::Fixed(text),
                Piece::Source(source) => Part::Filled(Expr::compile(source.trim())?),
            });
        }
        Ok(Self(match parts.len() {
            0 => Node::Fixed(Value::String(String::new())),
            1 => match parts.remove(0) {
                Part::Fixed(text) => Node::Fixed(Value::String(text)),
                Part::Filled(expr) => Node::Whole(expr),
            },
            _ => Node::Text(parts),
        }))
    }

    /// A list of templates.
    #[must_use]
    pub fn list(items: Vec<Template>) -> Self {
        Self(Node::List(items.into_iter().map(|item| item.0).collect()))
    }

    /// A map of templates; of equal keys the last counts.
    #[must_use]
    pub fn map(fields: Vec<(String, Template)>) -> Self {
        Self(Node::Map(fields.into_iter().map(|(key, value)| (key, value.0)).collect()))
    }

    /// The expression, if the template is one whole `${…}`.
    #[must_use]
    pub fn into_whole(self) -> Option<Expr> {
        match self.0 {
            Node::Whole(expr) => Some(expr),
            Node::Fixed(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => None,
        }
    }

    /// All expressions in it.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expr> {
        let mut found = Vec::new();
        let mut open = vec![&self.0];
        while let Some(node) = open.pop() {
            match node {
                Node::Fixed(_) => {}
                Node::Whole(expr) => found.push(expr),
                Node::Text(parts) => found.extend(parts.iter().filter_map(|part| match part {
                    Part::Fixed(_) => None,
                    Part::Filled(expr) => Some(expr),
                })),
                Node::List(items) => open.extend(items.iter().rev()),
                Node::Map(fields) => open.extend(fields.iter().rev().map(|(_, node)| node)),
            }
        }
        found
    }

    /// Its value with every `${…}` filled in.
    ///
    /// # Errors
    /// [`EvalError`] of the first expression that fails.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        self.0.fill(scope, Absent::IsNull)
    }

    /// The same, but null inside text is an error: for texts that must name something.
    pub(super) fn evaluate_naming(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        self.0.fill(scope, Absent::IsError)
    }
}

/// What null inside text means.
#[derive(Clone, Copy)]
enum Absent {
    IsNull,
    IsError,
}

impl Node {
    fn fill(&self, scope: &Scope<'_>, absent: Absent) -> Result<Value, EvalError> {
        Ok(match self {
            Node::Fixed(value) => value.clone(),
            Node::Whole(expr) => expr.evaluate(scope)?,
            Node::Text(parts) => Value::String(fill_text(parts, scope, absent)?),
            Node::List(items) => {
                Value::Array(items.iter().map(|item| item.fill(scope, absent)).collect::<Result<_, _>>()?)
            }
            Node::Map(fields) => {
                let filled = fields.iter().map(|(key, node)| Ok((key.clone(), node.fill(scope, absent)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, EvalError>>()?)
            }
        })
    }
}

fn fill_text(parts: &[Part], scope: &Scope<'_>, absent: Absent) -> Result<String, EvalError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Fixed(fixed) => text.push_str(fixed),
            Part::Filled(expr) => match (expr.evaluate(scope)?, absent) {
                (Value::String(value), _) => text.push_str(&value),
                (Value::Null, Absent::IsError) => {
                    return Err(EvalError {
                        expression: expr.source().to_owned(),
                        problem: "is null, and is part of a text that must name something".to_owned(),
                    });
                }
                (value, _) => text.push_str(&value.to_string()),
            },
        }
    }
    Ok(text)
}

/// Refuses `${…}` in a key, which would silently stay as it is.
///
/// # Errors
/// [`CompileError`] with what to write instead.
pub fn check_key(key: &str) -> Result<&str, CompileError> {
    if key.contains("${") {
        return Err(CompileError {
            expression: cut(key),
            problem: "a key cannot hold an expression".to_owned(),
            help: Some("make the whole map with one expression: ${{input.key: input.value}}".to_owned()),
        });
    }
    Ok(key)
}

enum Piece<'a> {
    Fixed(String),
    Source(&'a str),
}

/// Cuts a text at its `${…}`.
fn split(text: &str) -> Result<Vec<Piece<'_>>, CompileError> {
    let mut pieces = Vec::new();
    let mut fixed = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        fixed.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            fixed.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some(end) = closing_brace(after) else {
                return Err(CompileError {
                    expression: cut(rest),
                    problem: "`${` has no closing `}`".to_owned(),
                    help: Some("write $${ for a literal ${".to_owned()),
                });
            };
            if !fixed.is_empty() {
                pieces.push(Piece::Fixed(std::mem::take(&mut fixed)));
            }
            pieces.push(Piece::Source(&after[..end]));
            rest = &after[end + 1..];
        } else {
            fixed.push('$');
            rest = &rest[1..];
        }
    }
    fixed.push_str(rest);
    if !fixed.is_empty() {
        pieces.push(Piece::Fixed(fixed));
    }
    Ok(pieces)
}

/// The place of the `}` that ends an expression: braces inside it pair up, and those in its texts
/// and comments do not count.
fn closing_brace(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            b'\'' | b'"' => {
                at = end_of_text(bytes, at)?;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n')?;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The place behind the text literal that starts at `start`.
fn end_of_text(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let end: &[u8] = if triple { &[quote; 3] } else { &[quote; 1] };
    let raw = is_raw(&bytes[..start]);
    let mut at = start + end.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(end) {
            return Some(at + end.len());
        }
        at += if bytes[at] == b'\\' && !raw { 2 } else { 1 };
    }
    None
}

/// Whether the quote behind `before` starts a raw text: `r'…'`, `br"…"`.
fn is_raw(before: &[u8]) -> bool {
    let word = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let prefix = &before[before.len() - word..];
    prefix.len() <= 2
        && prefix.iter().any(|byte| byte.eq_ignore_ascii_case(&b'r'))
        && prefix.iter().all(|byte| b"rRbB".contains(byte))
}
