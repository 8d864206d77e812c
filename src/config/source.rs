//! Where the fields of a configuration file stand, so that a message can point at them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigProblem;

/// A file's name and text; empty for the defaults.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    file: Option<PathBuf>,
    text: String,
    /// Fields whose value does not come from the file.
    forgotten: BTreeSet<&'static str>,
}

impl Source {
    pub(super) fn new(text: &str, file: &Path) -> Self {
        Self { file: Some(file.to_owned()), text: text.to_owned(), forgotten: BTreeSet::new() }
    }

    /// The field's value now comes from elsewhere.
    pub(super) fn forget(&mut self, field: &'static str) {
        self.forgotten.insert(field);
    }

    /// A problem with a field. It points at the field, else at what encloses it; a field that is
    /// not in the file (its default or a flag is wrong) has no place.
    pub(super) fn problem(&self, field: &str, problem: String, remedy: &str) -> ConfigProblem {
        let span = if self.forgotten.contains(field) { None } else { self.find(field) };
        ConfigProblem {
            file: self.file.clone().filter(|_| span.is_some()),
            place: span.map(|span| self.line_and_column(span.start)),
            field: field.to_owned(),
            problem,
            remedy: remedy.to_owned(),
        }
    }

    /// The problem behind an error of the TOML reader.
    pub(super) fn unreadable(&self, error: &toml::de::Error) -> ConfigProblem {
        let field = error.span().and_then(|span| self.field_around(span)).unwrap_or_default();
        let remedy = remedy(&field, error.message());
        ConfigProblem {
            file: self.file.clone(),
            place: error.span().map(|span| self.line_and_column(span.start)),
            field,
            problem: error.message().trim().replace('\n', " "),
            remedy: remedy.to_owned(),
        }
    }

    fn find(&self, field: &str) -> Option<Range<usize>> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut fields = Vec::new();
        collect(table.get_ref(), "", &mut fields);
        // A field's value stands behind its name.
        if let Some((_, span)) = fields.iter().rev().find(|(path, _)| path == field) {
            return Some(span.clone());
        }
        // An entry of a list speaks for what is missing in it; a table may be all defaults.
        let encloses = |path: &str| path.ends_with(']') && field.starts_with(path);
        let enclosing = fields.into_iter().filter(|(path, _)| encloses(path));
        enclosing.max_by_key(|(path, _)| path.len()).map(|(_, span)| span)
    }

    /// The innermost field whose value or name encloses the span.
    fn field_around(&self, span: Range<usize>) -> Option<String> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let mut fields = Vec::new();
        collect(table.get_ref(), "", &mut fields);
        let around = |found: &Range<usize>| found.start <= span.start && span.end <= found.end;
        let fitting = fields.into_iter().filter(|(_, found)| around(found));
        fitting.max_by_key(|(path, _)| path.len()).map(|(path, _)| path)
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// What would be right, by field; the reader's own message says what is wrong.
fn remedy(field: &str, message: &str) -> &'static str {
    if message.contains("unknown field") {
        return "take it out or correct its name";
    }
    if message.contains("missing field") {
        return "add it";
    }
    match field {
        "server.grpc_addr" | "server.http_addr" => "write it as \"127.0.0.1:7420\"",
        "store.retain" | "limits.request_timeout" => "write it as \"30d\", \"5m\" or \"90s\"",
        "store.kind" => "write \"sled\" or \"memory\"",
        "log.format" => "write \"text\" or \"json\"",
        _ => "correct it; `sagad check-config FILE` checks without starting",
    }
}

/// All fields with the spans of their names and of their values.
fn collect(table: &DeTable<'_>, prefix: &str, fields: &mut Vec<(String, Range<usize>)>) {
    for (key, value) in table {
        let path =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        fields.push((path.clone(), key.span()));
        collect_value(value, &path, fields);
    }
}

fn collect_value(value: &Spanned<DeValue<'_>>, path: &str, fields: &mut Vec<(String, Range<usize>)>) {
    fields.push((path.to_owned(), value.span()));
    match value.get_ref() {
        DeValue::Table(table) => collect(table, path, fields),
        DeValue::Array(list) => {
            for (ix, item) in list.iter().enumerate() {
                collect_value(item, &format!("{path}[{ix}]"), fields);
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}
