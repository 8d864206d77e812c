//! Values on the command line: documents, labels, spans of time.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use super::trouble::Trouble;
use crate::proto::WaitFor;

/// How far a saga is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Awaited {
    /// Until it holds: only side work is left
    Committed,
    /// Until it has ended, side work included
    Ended,
}

impl From<Awaited> for WaitFor {
    fn from(awaited: Awaited) -> Self {
        match awaited {
            Awaited::Committed => WaitFor::Committed,
            Awaited::Ended => WaitFor::Ended,
        }
    }
}

/// Where a JSON document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// It stands in the command line.
    Inline(String),
    /// `@file`.
    File(PathBuf),
    /// `-`.
    StandardInput,
}

impl FromStr for Document {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('@') {
            Some("") => Err("`@` wants the name of a file behind it".to_owned()),
            Some(path) => Ok(Document::File(PathBuf::from(path))),
            None if text == "-" => Ok(Document::StandardInput),
            None => Ok(Document::Inline(text.to_owned())),
        }
    }
}

impl Document {
    /// Its text, unread: the daemon is the one judge of documents.
    ///
    /// # Errors
    /// [`Trouble::Local`] when the file or the standard input cannot be read.
    pub fn text(self) -> Result<String, Trouble> {
        match self {
            Document::Inline(text) => Ok(text),
            Document::File(path) => read(&path),
            Document::StandardInput => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|source| Trouble::Local {
                    what: "read the standard input".to_owned(),
                    source,
                })?;
                Ok(text)
            }
        }
    }
}

/// The text of a file.
///
/// # Errors
/// [`Trouble::Local`] names the file.
pub fn read(path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path)
        .map_err(|source| Trouble::Local { what: format!("read {}", path.display()), source })
}

/// `name=value`.
///
/// # Errors
/// A text without `=`, or without a name before it.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("a label is written NAME=VALUE".to_owned()),
    }
}

/// `30s`, `1m 30s`, `0`.
///
/// # Errors
/// A text that is no span of time.
pub fn span(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as `30s` or `5m`"))
}

/// A span as the wire carries it.
#[must_use]
pub fn on_the_wire(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_inline_or_names_where_it_is() {
        assert_eq!("{}".parse(), Ok(Document::Inline("{}".to_owned())));
        assert_eq!("@a.json".parse(), Ok(Document::File("a.json".into())));
        assert_eq!("-".parse(), Ok(Document::StandardInput));
        assert!("@".parse::<Document>().is_err());
    }

    #[test]
    fn a_label_may_have_an_empty_value_but_not_an_empty_name() {
        assert_eq!(label("region=kr"), Ok(("region".to_owned(), "kr".to_owned())));
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("empty="), Ok(("empty".to_owned(), String::new())));
        assert!(label("=x").is_err());
        assert!(label("x").is_err());
    }

    #[test]
    fn a_span_needs_a_unit_unless_it_is_zero() {
        assert_eq!(span("0"), Ok(Duration::ZERO));
        assert_eq!(span("1m30s"), Ok(Duration::from_secs(90)));
        assert!(span("30").is_err());
    }
}
