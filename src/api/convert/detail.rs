//! Writes the JSON object of an event's details around documents that keep their exact text.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::saga::ids::Timestamp;
use crate::saga::json::Json;

/// A JSON object under construction.
#[derive(Debug, Default)]
pub(super) struct Detail(String);

impl Detail {
    /// Adds a document as it is.
    pub(super) fn json(self, key: &str, document: &Json) -> Self {
        self.raw(key, document.text())
    }

    /// Adds a text.
    pub(super) fn text(self, key: &str, text: impl Display) -> Self {
        let quoted = serde_json::Value::String(text.to_string()).to_string();
        self.raw(key, &quoted)
    }

    /// Adds a text unless it is empty.
    pub(super) fn some_text(self, key: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.text(key, text) }
    }

    /// Adds a number.
    pub(super) fn number(self, key: &str, number: u64) -> Self {
        self.raw(key, &number.to_string())
    }

    /// Adds true or false.
    pub(super) fn flag(self, key: &str, flag: bool) -> Self {
        self.raw(key, if flag { "true" } else { "false" })
    }

    /// Adds a value of our own making.
    pub(super) fn value(self, key: &str, value: &serde_json::Value) -> Self {
        self.raw(key, &value.to_string())
    }

    /// Adds a point in time in RFC 3339.
    pub(super) fn time(self, key: &str, at: Timestamp) -> Self {
        let millis = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
        self.text(key, humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + millis))
    }

    /// Adds a point in time, if there is one.
    pub(super) fn some_time(self, key: &str, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.time(key, at),
            None => self,
        }
    }

    /// Adds a span in milliseconds.
    pub(super) fn millis(self, key: &str, span: Duration) -> Self {
        self.number(key, u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    /// The object's text; empty when nothing was added.
    pub(super) fn finish(mut self) -> String {
        if !self.0.is_empty() {
            self.0.push('}');
        }
        self.0
    }

    fn raw(mut self, key: &str, value: &str) -> Self {
        let before = if self.0.is_empty() { '{' } else { ',' };
        write!(self.0, "{before}\"{key}\":{value}").expect("writing to a string cannot fail");
        self
    }
}
