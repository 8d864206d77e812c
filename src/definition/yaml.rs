//! From text to raw structs.

use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;

use super::located::Place;
use super::problem::Findings;
use super::raw::RawDefinition;
use crate::saga::suggest::did_you_mean;

/// Largest definition file, in bytes.
pub const SOURCE_MAX_BYTES: usize = 1024 * 1024;
/// YAML nodes that anchors may be repeated to.
const REPEATED_NODES_MAX: usize = 20_000;
const ALIASES_MAX: usize = 1_000;
/// Lists and maps inside one another; a level takes up to 40 KiB of stack in a debug build.
const DEPTH_MAX: usize = 32;

/// Reads the file's structure; what is wrong with it is noted.
pub(super) fn read(source: &str, findings: &mut Findings) -> Option<RawDefinition> {
    if source.len() > SOURCE_MAX_BYTES {
        findings.problem(
            Place::START,
            format!("the definition has {} bytes; at most {SOURCE_MAX_BYTES} are allowed", source.len()),
        );
        return None;
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPEATED_NODES_MAX },
        strict_booleans: true,
        with_snippet: false,
        reject_unsupported_tags: true,
    };
    match serde_saphyr::from_str_with_options(source, options) {
        Ok(raw) => Some(raw),
        Err(error) => {
            let place = error.location().map_or(Place::START, Place::from);
            let (message, help) = words(error.without_snippet());
            findings.note(place, message, help);
            None
        }
    }
}

/// The reader's complaint in the words of this file format.
fn words(error: &Error) -> (String, Option<String>) {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => (
            format!("there is no field `{field}` here"),
            did_you_mean(field, expected.iter().copied())
                .or_else(|| Some(format!("the fields are {}", expected.join(", ")))),
        ),
        Error::SerdeUnknownVariant { variant, expected, .. } => (
            format!("`{variant}` is not one of {}", expected.join(", ")),
            did_you_mean(variant, expected.iter().copied()),
        ),
        Error::SerdeMissingField { field, .. } => (format!("the field `{field}` is missing"), None),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => (format!("duplicate key `{key}`"), None),
            None => ("duplicate key".to_owned(), None),
        },
        Error::AliasError { error, .. } => words(error),
        Error::Budget { breach, .. } => (budget_words(breach), None),
        Error::InvalidScalar { ty: "floating point", .. } => ("a number is expected here".to_owned(), None),
        Error::InvalidScalar { ty: "u32", .. } => {
            (format!("a whole number from 0 to {} is expected here", u32::MAX), None)
        }
        Error::AliasReplayLimitExceeded { .. } => {
            (format!("its anchors repeat to more than {REPEATED_NODES_MAX} values"), None)
        }
        Error::InvalidBooleanStrict { .. } => ("`true` or `false` is expected here".to_owned(), None),
        Error::Unexpected { expected, .. } => (
            match *expected {
                "mapping start" => "a map is expected here".to_owned(),
                "sequence start" => "a list is expected here".to_owned(),
                "string scalar" => "a text is expected here".to_owned(),
                other => format!("{other} is expected here"),
            },
            None,
        ),
        other => (plain(&other.to_string()), None),
    }
}

fn budget_words(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Documents { .. } => "a file holds one definition, not several documents".to_owned(),
        BudgetBreach::Depth { .. } => format!("lists and maps are nested deeper than {DEPTH_MAX}"),
        other => format!("too much YAML for a definition ({other:?})"),
    }
}

/// Without the place, which stands in front already.
fn plain(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    match first.rfind(" at line ") {
        Some(end) => first[..end].to_owned(),
        None => first.to_owned(),
    }
}
