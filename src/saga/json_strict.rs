//! The strict reader of JSON from outside.
use super::json::JsonError;
use serde_json::Value;
/// Reads `text`.
///
/// # Errors
/// What is wrong and where.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    serde_json::from_str(text).map_err(|e| JsonError { reason: e.to_string() })
}
