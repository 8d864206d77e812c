//! Sagas for people: one in full, many in a table, why one stands where it stands.

use std::fmt::Write as _;

use super::page::Page;
use super::table::{Cell, lay_out};
use super::text::{self, Tone, paint};
use super::words;
use crate::proto;

/// Longest document shown on a line of its own; `-o json` has it whole.
const DOCUMENT_MAX_CHARS: usize = 400;
/// Longest outcome shown in a step's row.
const OUTCOME_MAX_CHARS: usize = 120;

/// One saga in full.
#[must_use]
pub fn whole(saga: &proto::Saga, page: &Page) -> String {
    let mut told = String::new();
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(told, "{}  {value}", paint(&format!("{name:<10}"), Tone::Strong));
    };
    fact("saga", &text::printable(&saga.saga_id));
    fact("definition", &format!("{} v{}", text::printable(&saga.definition), saga.version));
    fact("status", &standing(saga));
    if let Some(failure) = &saga.failure {
        fact("failure", &paint(&failure_in_words(failure), Tone::Bad));
    }
    fact("started", &moment(saga.created_at.as_ref(), page));
    if saga.ended_at.is_some() {
        fact("ended", &ended(saga, page));
    }
    if !saga.waiting_on.is_empty() {
        fact("waiting on", &text::printable(&saga.waiting_on));
    }
    if saga.next_wake_at.is_some() {
        fact("next look", &text::until(saga.next_wake_at.as_ref(), page.now));
    }
    if !saga.labels.is_empty() {
        fact("labels", &text::printable(&labels(saga)));
    }
    fact("input", &document(&saga.input_json));
    if !saga.output_json.is_empty() {
        fact("output", &document(&saga.output_json));
    }
    if !saga.steps.is_empty() {
        let _ = write!(told, "\n{}", steps(saga, page));
    }
    for block in &saga.blocked {
        let _ = writeln!(
            told,
            "\n{} {} of {} has waited for an operator for {}: {}",
            paint("blocked", Tone::Bad),
            text::printable(&block.phase),
            text::printable(&block.step),
            text::age(block.since.as_ref(), page.now),
            text::printable(&block.reason)
        );
    }
    told
}

/// One saga on one line: its id, where it stands and, where it failed, why.
#[must_use]
pub fn line(saga: &proto::Saga) -> String {
    let mut told = format!("{}  {}", text::printable(&saga.saga_id), standing(saga));
    if let Some(failure) = &saga.failure {
        let _ = write!(told, "  {}", failure_in_words(failure));
    }
    told.push('\n');
    told
}

fn document(json: &str) -> String {
    text::cut(&text::or_none(json), DOCUMENT_MAX_CHARS)
}

/// The status with what stands beside it.
fn standing(saga: &proto::Saga) -> String {
    let mut told = paint(words::saga_status(saga.status()), words::saga_tone(saga.status()));
    if saga.status() == proto::SagaStatus::Blocked {
        let direction = words::direction(saga.direction()).to_lowercase();
        let _ = write!(told, " going {direction}");
    }
    for note in notes(saga) {
        let _ = write!(told, ", {}", paint(note, Tone::Wary));
    }
    told
}

fn notes(saga: &proto::Saga) -> Vec<&'static str> {
    let blocked_after_commit = saga.committed && saga.status() == proto::SagaStatus::Blocked;
    [(blocked_after_commit, "committed"), (saga.paused, "paused"), (saga.uncertain, "uncertain")]
        .into_iter()
        .filter_map(|(holds, note)| holds.then_some(note))
        .collect()
}

fn failure_in_words(failure: &proto::Failure) -> String {
    let of = if failure.step.is_empty() { String::new() } else { format!(" ({})", failure.step) };
    text::printable(&format!("{}: {}{of}", failure.code, failure.message))
}

fn labels(saga: &proto::Saga) -> String {
    saga.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn moment(at: Option<&prost_types::Timestamp>, page: &Page) -> String {
    match text::rfc3339(at) {
        Some(time) => format!("{} ago ({time})", text::age(at, page.now)),
        None => text::NONE.to_owned(),
    }
}

fn ended(saga: &proto::Saga, page: &Page) -> String {
    let (started, ended) = (text::instant(saga.created_at.as_ref()), text::instant(saga.ended_at.as_ref()));
    let took = started.zip(ended).map(|(started, ended)| text::span(ended.since(started)));
    let took = took.map_or_else(String::new, |took| format!(", took {took}"));
    format!("{}{took}", moment(saga.ended_at.as_ref(), page))
}

fn steps(saga: &proto::Saga, page: &Page) -> String {
    let rows = saga.steps.iter().map(|step| {
        let action = times(words::step_status(step.status()), step.attempts);
        let compensation = times(words::compensation_status(step.compensation()), step.compensation_attempts);
        let outcome = match &step.failure {
            Some(failure) => format!("{}: {}", failure.code, failure.message),
            None => step.output_json.clone(),
        };
        vec![
            Cell::of(&step.name),
            Cell::of(words::step_kind(step.kind()).to_lowercase()),
            Cell::toned(action, words::step_tone(step.status())),
            Cell::toned(compensation, words::compensation_tone(step.compensation())),
            Cell::of(text::until(step.next_attempt_at.as_ref(), page.now)),
            Cell::of(text::cut(&outcome, OUTCOME_MAX_CHARS)),
        ]
    });
    lay_out(page, &["STEP", "KIND", "ACTION", "COMPENSATION", "NEXT", "OUTCOME"], rows.collect())
}

/// A status with the number of attempts it took: `SUCCEEDED ×1`.
fn times(status: &str, attempts: u32) -> String {
    if attempts == 0 { status.to_owned() } else { format!("{status} ×{attempts}") }
}

/// Many sagas, a row each.
#[must_use]
pub fn many(sagas: &[proto::Saga], page: &Page) -> String {
    if sagas.is_empty() {
        return "no sagas\n".to_owned();
    }
    let rows = sagas.iter().map(|saga| {
        let mut note = notes(saga).join(" ");
        if let Some(failure) = &saga.failure {
            let separator = if note.is_empty() { "" } else { " " };
            let _ = write!(note, "{separator}{}", failure_in_words(failure));
        }
        vec![
            Cell::of(&saga.saga_id),
            Cell::of(format!("{} v{}", saga.definition, saga.version)),
            Cell::toned(words::saga_status(saga.status()), words::saga_tone(saga.status())),
            Cell::of(text::age(saga.created_at.as_ref(), page.now)),
            Cell::of(text::age(saga.updated_at.as_ref(), page.now)),
            Cell::of(&saga.waiting_on),
            Cell::of(note),
        ]
    });
    lay_out(page, &["SAGA", "DEFINITION", "STATUS", "AGE", "IDLE", "WAITING ON", "NOTE"], rows.collect())
}

/// Only the ids, a line each.
#[must_use]
pub fn ids(sagas: &[proto::Saga]) -> String {
    text::a_line_each(sagas.iter().map(|saga| &saga.saga_id))
}

/// Why a saga stands where it stands, what comes next, and the command to run.
#[must_use]
pub fn explained(told: &proto::ExplainResponse, page: &Page) -> String {
    let mut text = String::new();
    for line in &told.summary {
        let _ = writeln!(text, "{}", text::printable(line));
    }
    if !told.next.is_empty() {
        let rows = told.next.iter().map(|next| {
            let when = match next.at.as_ref() {
                Some(at) => text::until(Some(at), page.now),
                None => "then".to_owned(),
            };
            vec![Cell::of(when), Cell::of(&next.what), Cell::of(&next.step), Cell::of(&next.phase)]
        });
        let _ = write!(text, "\n{}", lay_out(page, &["NEXT", "WHAT", "STEP", "PHASE"], rows.collect()));
    }
    if !told.suggested_command.is_empty() {
        let command = paint(&text::printable(&told.suggested_command), Tone::Strong);
        let _ = writeln!(text, "\nrun: {command}");
    }
    text
}

/// What waits for an operator, longest first.
#[must_use]
pub fn stuck(items: &[proto::StuckItem], total: u64, page: &Page) -> String {
    if items.is_empty() {
        return "nothing waits for an operator\n".to_owned();
    }
    let rows = items.iter().map(|item| {
        vec![
            Cell::of(&item.saga_id),
            Cell::of(&item.definition),
            Cell::of(&item.step),
            Cell::of(&item.phase),
            Cell::toned(text::age(item.since.as_ref(), page.now), Tone::Bad),
            Cell::of(&item.reason),
        ]
    });
    let mut told = lay_out(page, &["SAGA", "DEFINITION", "STEP", "PHASE", "SINCE", "REASON"], rows.collect());
    let _ =
        writeln!(told, "\n{} in all; the command that would most likely help:", text::counted(total, "call"));
    for item in items {
        let _ = writeln!(told, "  {}", text::printable(&item.suggested_command));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{drawn, narrow_page, sample};

    #[test]
    fn a_blocked_saga_on_eighty_columns() {
        insta::assert_snapshot!(drawn(&whole(&sample::blocked_saga(), &narrow_page())));
    }

    #[test]
    fn a_list_on_eighty_columns() {
        let sagas = [sample::blocked_saga(), sample::completed_saga(), sample::compensated_saga()];
        let told = drawn(&many(&sagas, &narrow_page()));
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
        insta::assert_snapshot!(told);
    }

    #[test]
    fn a_list_into_a_pipe_is_never_wrapped() {
        let page = Page { width: None, ..narrow_page() };
        let told = drawn(&many(&[sample::blocked_saga(), sample::completed_saga()], &page));
        assert_eq!(told.lines().count(), 3, "{told}");
    }

    #[test]
    fn the_standing_of_a_saga_on_one_line() {
        insta::assert_snapshot!(drawn(&line(&sample::compensated_saga())), @"order-17  COMPENSATED  POINT_SHORT: 30 points short (use-point)");
        insta::assert_snapshot!(drawn(&line(&sample::completed_saga())), @"order-16  COMPLETED");
    }

    #[test]
    fn an_explanation_names_the_next_move_and_the_command() {
        insta::assert_snapshot!(drawn(&explained(&sample::explanation(), &narrow_page())));
    }

    #[test]
    fn what_is_stuck_comes_with_the_commands_that_help() {
        insta::assert_snapshot!(drawn(&stuck(&sample::stuck_items(), 2, &narrow_page())));
    }
}
