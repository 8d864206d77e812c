//! Participants, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::page::Page;
use super::table::{Cell, lay_out};
use super::text::{self, Tone};
use super::words;
use crate::proto::{self, BreakerState};

/// One participant, for programs.
#[derive(Debug, Serialize)]
pub struct ParticipantView<'a> {
    name: &'a str,
    protocol: &'static str,
    health: &'static str,
    in_flight: u32,
    breaker: &'static str,
    pause: Option<PauseView<'a>>,
    actions: Vec<&'a str>,
    registrations: Vec<RegistrationView<'a>>,
}

#[derive(Debug, Serialize)]
struct PauseView<'a> {
    reason: &'a str,
    actor: &'a str,
    since: Option<String>,
}

#[derive(Debug, Serialize)]
struct RegistrationView<'a> {
    registration_id: &'a str,
    endpoint: &'a str,
    max_in_flight: u32,
    in_flight: u32,
    breaker: &'static str,
    next_trial_at: Option<String>,
    expires_at: Option<String>,
    from_config: bool,
    last_error: &'a str,
    calls: u64,
    unknown_outcomes: u64,
    calls_recent: u64,
    unknown_recent: u64,
    openings: u64,
}

/// One participant, for programs.
#[must_use]
pub fn participant_view(participant: &proto::Participant) -> ParticipantView<'_> {
    let registrations = participant.registrations.iter().map(|one| RegistrationView {
        registration_id: &one.registration_id,
        endpoint: &one.endpoint,
        max_in_flight: one.max_in_flight,
        in_flight: one.in_flight,
        breaker: words::breaker(one.breaker()),
        next_trial_at: text::rfc3339(one.next_trial_at.as_ref()),
        expires_at: text::rfc3339(one.expires_at.as_ref()),
        from_config: one.from_config,
        last_error: &one.last_error,
        calls: one.calls,
        unknown_outcomes: one.unknown_outcomes,
        calls_recent: one.calls_recent,
        unknown_recent: one.unknown_recent,
        openings: one.openings,
    });
    ParticipantView {
        name: &participant.name,
        protocol: words::protocol(participant.protocol()),
        health: words::health(participant.health()),
        in_flight: participant.in_flight,
        breaker: words::breaker(participant.breaker()),
        pause: participant.pause.as_ref().map(|pause| PauseView {
            reason: &pause.reason,
            actor: &pause.actor,
            since: text::rfc3339(pause.since.as_ref()),
        }),
        actions: participant.actions.iter().map(|action| action.name.as_str()).collect(),
        registrations: registrations.collect(),
    }
}

/// Participants, a row a registration, and below them what is wrong with whom.
#[must_use]
pub fn participants(participants: &[proto::Participant], page: &Page) -> String {
    if participants.is_empty() {
        return "no participants\n".to_owned();
    }
    let mut rows = Vec::new();
    for participant in participants {
        let health =
            || Cell::toned(words::health(participant.health()), words::health_tone(participant.health()));
        let name = || Cell::of(&participant.name);
        if participant.registrations.is_empty() {
            let calls = calls_let_through(participant, None);
            rows.push(vec![name(), health(), calls, Cell::of(""), Cell::of(""), Cell::of(""), Cell::of("")]);
        }
        for one in &participant.registrations {
            let expires = if participant.protocol() == proto::Protocol::Worker {
                "with its stream".to_owned()
            } else if one.from_config || one.expires_at.is_none() {
                "never".to_owned()
            } else {
                text::until(one.expires_at.as_ref(), page.now)
            };
            rows.push(vec![
                name(),
                health(),
                calls_let_through(participant, Some(one)),
                Cell::of(format!("{}/{}", one.in_flight, one.max_in_flight)),
                Cell::of(error_rate(one)),
                Cell::of(expires),
                Cell::of(&one.endpoint),
            ]);
        }
    }
    let heads = ["PARTICIPANT", "HEALTH", "BREAKER", "IN FLIGHT", "ERR", "EXPIRES", "ENDPOINT"];
    let mut told = lay_out(page, &heads, rows);
    for participant in participants {
        notes(&mut told, participant, page);
    }
    told
}

/// A pause is stronger than any breaker.
fn calls_let_through(participant: &proto::Participant, one: Option<&proto::Registration>) -> Cell {
    if participant.pause.is_some() {
        return Cell::toned("PAUSED", Tone::Wary);
    }
    let breaker = one.map_or(participant.breaker(), proto::Registration::breaker);
    let tone = match breaker {
        BreakerState::Open => Tone::Bad,
        BreakerState::HalfOpen => Tone::Wary,
        BreakerState::Closed | BreakerState::Unspecified => Tone::Plain,
    };
    Cell::toned(words::breaker(breaker), tone)
}

/// The share of the last minute's calls without a definite answer.
fn error_rate(one: &proto::Registration) -> String {
    match (one.unknown_recent, one.calls_recent) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0%".to_owned(),
        (unknown, calls) => format!("{}%", (100 * unknown).div_ceil(calls)),
    }
}

/// What the table has no room for: what is offered, why it is paused, when it is tried again, what went
/// wrong last.
fn notes(told: &mut String, participant: &proto::Participant, page: &Page) {
    let name = text::printable(&participant.name);
    if !participant.actions.is_empty() {
        let actions: Vec<_> =
            participant.actions.iter().map(|action| text::printable(&action.name)).collect();
        let _ = writeln!(told, "{name} offers {}", actions.join(" "));
    }
    if let Some(pause) = &participant.pause {
        let (actor, reason) = (text::printable(&pause.actor), text::printable(&pause.reason));
        let since = text::age(pause.since.as_ref(), page.now);
        let _ = writeln!(told, "{name} was paused {since} ago by {actor}: {reason}");
    }
    for one in &participant.registrations {
        let endpoint = text::printable(&one.endpoint);
        if one.breaker() == BreakerState::Open {
            let next = text::until(one.next_trial_at.as_ref(), page.now);
            let _ = writeln!(told, "{name} at {endpoint} is called again {next}");
        }
        if !one.last_error.is_empty() {
            let _ =
                writeln!(told, "{name} at {endpoint} failed last with: {}", text::printable(&one.last_error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{drawn, narrow_page, sample};

    #[test]
    fn participants_with_and_without_registrations_on_eighty_columns() {
        insta::assert_snapshot!(drawn(&participants(&sample::participants(), &narrow_page())));
    }
}
