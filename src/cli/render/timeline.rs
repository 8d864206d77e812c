//! The history of a saga, a line an event.
//!
//! ```text
//!  +0.000s  saga_started
//!  +0.004s  step_started          deduct-stock/0  #1
//!  +0.031s  step_failed           use-point       #1  POINT_SHORT: 30 points short
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::page::Page;
use super::text::{self, Tone, paint};
use super::{document, words};
use crate::proto::{SagaEvent, SagaStatus};
use crate::saga::ids::Timestamp;

/// Width of the column for the time since the start, sign and unit included.
const OFFSET_COLUMNS: usize = 9;
/// Width of the column for what happened: the longest word.
const EVENT_COLUMNS: usize = 20;
/// Width of the column for the step where the steps to come are not known yet.
const STEP_COLUMNS: usize = 16;
/// Longest value of one further fact; the rest of it is in `-o json`.
const VALUE_MAX_CHARS: usize = 120;

/// How the lines of one history are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    origin: Option<Timestamp>,
    step_columns: usize,
    width: Option<u16>,
}

impl Layout {
    /// For events that come one by one; `origin` is when the saga was started.
    #[must_use]
    pub fn live(origin: Option<Timestamp>, page: &Page) -> Self {
        Self { origin, step_columns: STEP_COLUMNS, width: page.width }
    }

    /// One event with its line end.
    #[must_use]
    pub fn line(&self, event: &SagaEvent) -> String {
        let offset = match (self.origin, text::instant(event.at.as_ref())) {
            (Some(origin), Some(at)) => seconds(at.since(origin)),
            _ => text::NONE.to_owned(),
        };
        let attempt = if event.attempt == 0 { String::new() } else { format!("#{}", event.attempt) };
        let place =
            format!("{:<steps$}  {attempt:<4}", text::printable(&event.step), steps = self.step_columns);
        let mut line = format!(
            "{}  {}  {place}",
            paint(&format!("{offset:>OFFSET_COLUMNS$}"), Tone::Faint),
            paint(&format!("{:<EVENT_COLUMNS$}", text::printable(&event.r#type)), tone(&event.r#type)),
        );
        let detail = detail(event);
        if !detail.is_empty() {
            let before = OFFSET_COLUMNS + 2 + EVENT_COLUMNS.max(event.r#type.chars().count()) + 2;
            let left =
                self.width.map(|width| usize::from(width).saturating_sub(before + place.chars().count() + 2));
            let _ =
                write!(line, "  {}", left.map_or_else(|| detail.clone(), |left| text::cut(&detail, left)));
        }
        let mut line = line.trim_end().to_owned();
        line.push('\n');
        line
    }
}

/// A whole history.
#[must_use]
pub fn all(events: &[SagaEvent], page: &Page) -> String {
    let step_columns = events.iter().map(|event| event.step.chars().count()).max().unwrap_or(0);
    let origin = events.first().and_then(|first| text::instant(first.at.as_ref()));
    let layout = Layout { origin, step_columns, width: page.width };
    events.iter().map(|event| layout.line(event)).collect()
}

/// The time since the start: `+0.004s`, `+1m12s`.
fn seconds(since: Duration) -> String {
    if since < Duration::from_mins(1) {
        format!("+{}.{:03}s", since.as_secs(), since.subsec_millis())
    } else {
        format!("+{}", text::span(since))
    }
}

/// Why, by whom, and the further facts as `name=value`.
fn detail(event: &SagaEvent) -> String {
    let mut parts = Vec::new();
    if !event.reason.is_empty() {
        parts.push(text::printable(&event.reason));
    }
    if !event.actor.is_empty() {
        parts.push(format!("by {}", text::printable(&event.actor)));
    }
    match document::embedded(&event.detail_json) {
        Value::Null => {}
        Value::Object(facts) => {
            parts.extend(
                facts.iter().map(|(name, value)| format!("{}={}", text::printable(name), short(value))),
            );
        }
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            parts.push(short(&other));
        }
    }
    parts.join("  ")
}

fn short(value: &Value) -> String {
    let told = match value {
        Value::String(text) if !text.contains(' ') && !text.is_empty() => text.clone(),
        other => other.to_string(),
    };
    text::cut(&text::printable(&told), VALUE_MAX_CHARS)
}

/// How an event is meant. Types are words of an open list: one that is not known is plain.
fn tone(event: &str) -> Tone {
    match event {
        "step_succeeded" | "compensation_done" | "unblocked" | "lock_granted" => Tone::Good,
        "step_failed" | "blocked" | "compensation_refused" | "expression_failed" => Tone::Bad,
        "saga_committed" => words::saga_tone(SagaStatus::Committed),
        "saga_completed" => words::saga_tone(SagaStatus::Completed),
        "saga_compensating" => words::saga_tone(SagaStatus::Compensating),
        "saga_compensated" => words::saga_tone(SagaStatus::Compensated),
        "saga_abandoned" => words::saga_tone(SagaStatus::Abandoned),
        "step_unknown"
        | "compensation_unknown"
        | "compensation_waived"
        | "cancel_requested"
        | "deadline_passed"
        | "late_reply"
        | "operator_act" => Tone::Wary,
        "lock_waiting" | "step_pending" | "compensation_pending" | "step_skipped" => Tone::Faint,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{drawn, narrow_page, sample};

    #[test]
    fn a_history_that_turned_back() {
        let page = Page { width: None, ..narrow_page() };
        insta::assert_snapshot!(drawn(&all(&sample::history(), &page)));
    }

    #[test]
    fn on_a_terminal_no_line_is_longer_than_it_is_wide() {
        let told = drawn(&all(&sample::history(), &narrow_page()));
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    }

    #[test]
    fn an_event_of_a_newer_daemon_is_shown_as_it_is() {
        let event = SagaEvent { r#type: "saga_moved".to_owned(), seq: 1, ..SagaEvent::default() };
        assert_eq!(drawn(&all(&[event], &narrow_page())), "        -  saga_moved\n");
    }

    #[test]
    fn no_events_make_no_lines() {
        assert_eq!(all(&[], &narrow_page()), "");
    }
}
