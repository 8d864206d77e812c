//! The check of a saga's input against the definition's `input_schema`.

use std::fmt;

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value;

/// Violations reported of one input; more help nobody.
pub const VIOLATIONS_MAX: usize = 32;
/// Longest message of a violation, in characters; a message quotes the input.
const PROBLEM_MAX_CHARS: usize = 300;

/// A compiled `input_schema`.
pub struct InputCheck(Validator);

/// One way an input breaks the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path inside the input, such as `items[0].amount`; empty for the input itself.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl InputCheck {
    /// Compiles a JSON Schema. References outside the schema are refused, and patterns are matched
    /// in linear time.
    ///
    /// # Errors
    /// What is wrong with the schema, for people.
    pub(super) fn compile(schema: &Value) -> Result<Self, String> {
        let limits = jsonschema::options()
            .with_retriever(NothingElsewhere)
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        limits.map(Self).map_err(|error| {
            let at = error.instance_path().to_string();
            if at.is_empty() { cut(&error.to_string()) } else { cut(&format!("{at}: {error}")) }
        })
    }

    /// Checks an input; empty when it fits.
    #[must_use]
    pub fn check(&self, input: &Value) -> Vec<Violation> {
        if self.0.is_valid(input) {
            return Vec::new();
        }
        self.0
            .iter_errors(input)
            .take(VIOLATIONS_MAX)
            .map(|error| Violation {
                field: field_path(&error.instance_path().to_string()),
                problem: cut(&error.to_string()),
            })
            .collect()
    }
}

impl fmt::Debug for InputCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputCheck")
    }
}

/// `/items/0/amount` as `items[0].amount`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.extend(["[", &part, "]"]);
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(PROBLEM_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A definition is complete in itself: nothing is fetched.
struct NothingElsewhere;

impl Retrieve for NothingElsewhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is outside this definition; put it under $defs").into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn violations_name_the_field_inside_the_input() {
        let check = InputCheck::compile(&json!({
            "type": "object",
            "required": ["user_id"],
            "properties": {
                "items": { "type": "array", "items": { "properties": { "amount": { "minimum": 1 } } } },
            },
        }))
        .unwrap();
        assert_eq!(check.check(&json!({ "user_id": 9_007_199_254_740_993_i64 })), []);
        let found = check.check(&json!({ "items": [{ "amount": 1 }, { "amount": 0 }] }));
        let fields: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["", "items[1].amount"]);
        assert!(found[0].problem.contains("user_id"));
    }

    #[test]
    fn a_schema_that_points_elsewhere_or_is_none_is_refused() {
        for schema in [
            json!({ "$ref": "https://example.com/schema.json" }),
            json!({ "$ref": "file:///etc/passwd" }),
            json!({ "type": "strnig" }),
            json!({ "pattern": "(" }),
            json!(7),
        ] {
            assert!(InputCheck::compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn many_violations_are_cut_off() {
        let check = InputCheck::compile(&json!({ "items": { "type": "string" } })).unwrap();
        assert_eq!(check.check(&json!(vec![1; 1_000])).len(), VIOLATIONS_MAX);
    }
}
