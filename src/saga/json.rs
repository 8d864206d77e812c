//! JSON documents that keep their exact text, and the strict reader for what comes from outside.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use thiserror::Error;

/// Deepest nesting of a document from outside.
pub const JSON_DEPTH_MAX: usize = 64;

/// A valid JSON document: its text, and its value read on first need.
#[derive(Clone)]
pub struct Json(Arc<Document>);

struct Document {
    text: Box<str>,
    value: OnceLock<Value>,
}

/// Why a text is not an acceptable document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct JsonError {
    /// What is wrong, with line and column where known.
    pub reason: String,
}

impl Json {
    /// The document `null`.
    #[must_use]
    pub fn null() -> Self {
        Self::from_value(&Value::Null)
    }

    /// Reads a document from outside: no duplicate keys, no depth over [`JSON_DEPTH_MAX`], no
    /// integer outside 64 bits. An empty text is `null`.
    ///
    /// # Errors
    /// [`JsonError`] says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        if text.is_empty() {
            return Ok(Self::null());
        }
        let value = super::json_strict::parse(text)?;
        let document = Document { text: text.into(), value: OnceLock::new() };
        let _ = document.value.set(value);
        Ok(Self(Arc::new(document)))
    }

    /// A document of our own making.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        Self::trusted(value.to_string())
    }

    /// A text that was checked before, such as one read back from the store.
    #[must_use]
    pub fn trusted(text: String) -> Self {
        Self(Arc::new(Document { text: text.into_boxed_str(), value: OnceLock::new() }))
    }

    /// The exact text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The value. A text that cannot be read (it was checked when it came in) counts as `null`.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.0.value.get_or_init(|| serde_json::from_str(&self.0.text).unwrap_or(Value::Null))
    }
}

impl PartialEq for Json {
    /// Documents are equal as JSON values: key order and white space do not count.
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text() || self.value() == other.value()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
