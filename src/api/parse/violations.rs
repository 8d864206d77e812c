//! Collects what is wrong with a request, and the checks that several requests share.

use std::fmt::Display;
use std::time::Duration;

use crate::api::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PAGE_TOKEN_MAX_BYTES};
use crate::engine::error::{EngineError, Violation};
use crate::saga::ids::{DefinitionName, InvalidName, SagaId};
use crate::saga::json::Json;

/// The violations found so far. Every check notes what is wrong and gives `None` for it.
#[derive(Debug, Default)]
pub(super) struct Violations(Vec<Violation>);

impl Violations {
    /// Notes a violation.
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl Display) {
        self.0.push(Violation::new(field, description.to_string()));
    }

    /// Notes a violation of a field that has none yet.
    pub(super) fn add_unless_named(&mut self, field: String, description: impl Display) {
        if self.0.iter().all(|violation| violation.field != field) {
            self.add(field, description);
        }
    }

    /// The valid request, or all that is wrong with it. `valid` is `None` only where a check gave
    /// `None`, and then there is a violation.
    pub(super) fn finish<T>(self, valid: impl FnOnce() -> Option<T>) -> Result<T, EngineError> {
        match valid() {
            Some(valid) if self.0.is_empty() => Ok(valid),
            _ => Err(EngineError::Invalid(self.0)),
        }
    }

    /// Keeps the value of a check, or notes what it says.
    pub(super) fn keep<T>(&mut self, field: &str, checked: Result<T, impl Display>) -> Option<T> {
        checked.map_err(|problem| self.add(field, problem)).ok()
    }

    /// A name with a form of its own; empty is a violation.
    pub(super) fn name<T>(
        &mut self,
        field: &str,
        text: &str,
        parse: fn(&str) -> Result<T, InvalidName>,
    ) -> Option<T> {
        if text.is_empty() {
            self.add(field, "is required");
            return None;
        }
        match parse(text) {
            Ok(name) => Some(name),
            Err(invalid) => {
                self.add(field, format!("{:?} is not valid: it must be {}", invalid.given, invalid.rule));
                None
            }
        }
    }

    /// A saga's id; required.
    pub(super) fn saga_id(&mut self, text: &str) -> Option<SagaId> {
        self.name("saga_id", text, SagaId::parse)
    }

    /// A definition's name; required.
    pub(super) fn definition(&mut self, field: &str, text: &str) -> Option<DefinitionName> {
        self.name(field, text, DefinitionName::parse)
    }

    /// A span of time from 0 to `max`; not set is zero.
    pub(super) fn span(
        &mut self,
        field: &str,
        span: Option<prost_types::Duration>,
        max: Duration,
    ) -> Option<Duration> {
        let Some(span) = span else { return Some(Duration::ZERO) };
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(span.seconds), u32::try_from(span.nanos)) else {
            self.add(field, "must not be negative");
            return None;
        };
        if nanos > 999_999_999 {
            self.add(field, "is not a valid duration: nanos must be below 1,000,000,000");
            return None;
        }
        let span = Duration::new(seconds, nanos);
        if span > max {
            self.add(field, format!("must be at most {}", humantime::format_duration(max)));
            return None;
        }
        Some(span)
    }

    /// An enum's number that this daemon knows.
    pub(super) fn known<E: TryFrom<i32>>(&mut self, field: &str, number: i32) -> Option<E> {
        E::try_from(number)
            .map_err(|_| self.add(field, format!("{number} is not a value this daemon knows")))
            .ok()
    }

    /// A page's size; 0 is the default.
    pub(super) fn page_size(&mut self, size: u32) -> Option<usize> {
        if size > PAGE_SIZE_MAX {
            self.add("page_size", format!("{size} is over the limit of {PAGE_SIZE_MAX}"));
            return None;
        }
        Some(if size == 0 { PAGE_SIZE_DEFAULT } else { size } as usize)
    }

    /// A page token of possible length; its content is checked by who made it.
    pub(super) fn page_token(&mut self, token: String) -> Option<String> {
        self.text("page_token", token, PAGE_TOKEN_MAX_BYTES)
    }

    /// A text of at most `max` bytes.
    pub(super) fn text(&mut self, field: &str, text: String, max: usize) -> Option<String> {
        if text.len() > max {
            self.add(field, format!("is {} bytes long, over the limit of {max}", text.len()));
            return None;
        }
        Some(text)
    }

    /// A text that must be there, of at most `max` bytes.
    pub(super) fn required(&mut self, field: &str, text: String, max: usize) -> Option<String> {
        if text.trim().is_empty() {
            self.add(field, "is required");
            return None;
        }
        self.text(field, text, max)
    }

    /// A JSON document of at most `max` bytes; empty is `null`.
    pub(super) fn json(&mut self, field: &str, text: &str, max: usize) -> Option<Json> {
        if text.len() > max {
            self.add(field, format!("is {} bytes long, over the limit of {max}", text.len()));
            return None;
        }
        let parsed = Json::parse(text);
        self.keep(field, parsed)
    }
}

#[cfg(test)]
pub(super) fn fields_of<T: std::fmt::Debug>(answer: Result<T, EngineError>) -> Vec<String> {
    match answer.expect_err("a request with violations") {
        EngineError::Invalid(violations) => violations.into_iter().map(|v| v.field).collect(),
        other => panic!("another error: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(seconds: i64, nanos: i32) -> Option<Duration> {
        Violations::default().span(
            "wait",
            Some(prost_types::Duration { seconds, nanos }),
            Duration::from_hours(1),
        )
    }

    #[test]
    fn a_duration_is_neither_negative_nor_malformed_nor_absurd() {
        assert_eq!(span(3_600, 0), Some(Duration::from_hours(1)));
        assert_eq!(span(0, 1), Some(Duration::from_nanos(1)));
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (3_600, 1), (i64::MAX, 0), (i64::MIN, i32::MIN)]
        {
            assert_eq!(span(seconds, nanos), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn a_page_has_a_hundred_entries_unless_asked_and_a_thousand_at_most() {
        let mut bad = Violations::default();
        assert_eq!(bad.page_size(0), Some(100));
        assert_eq!(bad.page_size(1), Some(1));
        assert_eq!(bad.page_size(1_000), Some(1_000));
        assert_eq!(bad.page_size(1_001), None);
    }
}
