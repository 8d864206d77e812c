//! Answer → outcome: what a status means, and what is read of a body.
//!
//! Only the status, `Retry-After` and the fields of a JSON body are looked at. No text is searched for
//! words.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};

use super::problem::Problem;
use super::route::{REFUSED, Route};
use crate::participant::outcome::{self, CODE_MAX_CHARS, MESSAGE_MAX_CHARS, cut};
use crate::saga::ids::Timestamp;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase, Refusal};

/// The longest time until the next look that a service may ask for.
const CHECK_AFTER_MAX: Duration = Duration::from_hours(24 * 365);

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a status means to an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Done, and the body is the output.
    Done,
    /// Done because the registration says so, whatever the body is.
    DoneAnyway,
    Pending,
    Refused,
    Unknown,
}

/// The table.
pub(super) fn outcome(route: &Route, phase: Phase, reply: &Reply, now: Timestamp) -> Outcome {
    match meaning(route, phase, reply.status) {
        Meaning::Done => output(reply),
        Meaning::DoneAnyway => match output(reply) {
            done @ Outcome::Done(_) => done,
            _ => Outcome::Done(Json::null()),
        },
        Meaning::Pending => Outcome::Pending(check_after(&reply.headers, now)),
        Meaning::Refused => Outcome::Refused(refusal(reply)),
        Meaning::Unknown => Outcome::Unknown(cause(reply)),
    }
}

fn meaning(route: &Route, phase: Phase, status: StatusCode) -> Meaning {
    if route.done_on.contains(&status) {
        Meaning::DoneAnyway
    } else if route.refused_on.contains(&status) {
        Meaning::Refused
    } else if status == StatusCode::ACCEPTED {
        Meaning::Pending
    } else if status.is_success() {
        Meaning::Done
    } else if route.refused_on.is_empty() && phase != Phase::Probe && REFUSED.contains(&status) {
        // Not of a probe: "not found" to a question does not say that the effect cannot come yet. A
        // service that promises it says so by `refused_on`.
        Meaning::Refused
    } else {
        Meaning::Unknown
    }
}

fn output(reply: &Reply) -> Outcome {
    let Ok(text) = std::str::from_utf8(&reply.body) else {
        return undecodable(reply, "it is not UTF-8");
    };
    if text.trim().is_empty() {
        return Outcome::Done(Json::null());
    }
    match outcome::output(text) {
        Outcome::Unknown(cause) => undecodable(reply, &cause),
        done => done,
    }
}

fn undecodable(reply: &Reply, why: &str) -> Outcome {
    let status = reply.status.as_u16();
    let packed = match header(reply, &CONTENT_ENCODING) {
        Some(encoding) => format!(" (it has Content-Encoding {encoding}, which was not asked for)"),
        None => String::new(),
    };
    let cause = format!(
        "HTTP {status} with a body that cannot be read: {why}{packed}; if the body does not matter, name \
         {status} in done_on"
    );
    Outcome::Unknown(cut(&cause, MESSAGE_MAX_CHARS))
}

fn refusal(reply: &Reply) -> Refusal {
    let problem = Problem::read(&reply.body);
    let code = problem.code.unwrap_or_else(|| format!("HTTP_{}", reply.status.as_u16()));
    let message = problem.message.unwrap_or_else(|| named(reply.status));
    Refusal { code: cut(&code, CODE_MAX_CHARS), message: cut(&message, MESSAGE_MAX_CHARS) }
}

fn cause(reply: &Reply) -> String {
    let mut text = format!("HTTP {}", named(reply.status));
    if reply.status.is_redirection() {
        text.push_str("; redirects are not followed");
        if let Some(location) = header(reply, &LOCATION) {
            text = format!("{text}, this one leads to {location}");
        }
    }
    if let Some(message) = Problem::read(&reply.body).message {
        text = format!("{text}: {message}");
    }
    cut(&text, MESSAGE_MAX_CHARS)
}

/// The status with its usual phrase: what a server writes there itself means nothing.
fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn header<'r>(reply: &'r Reply, name: &HeaderName) -> Option<&'r str> {
    reply.headers.get(name).and_then(|value| value.to_str().ok())
}

/// `Retry-After`, in seconds or as a date.
fn check_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        Timestamp(i64::try_from(since_epoch.as_millis()).ok()?).since(now)
    };
    (!after.is_zero()).then(|| after.min(CHECK_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::participant::dispatch::outcome_word;
    use crate::participant::handlers::ClaimedAction;

    const NOON: Timestamp = Timestamp(1_700_000_000_000);

    fn route(refused_on: &[&str], done_on: &[&str]) -> Route {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let action = ClaimedAction {
            name: "deduct".to_owned(),
            target: "POST /deduct".to_owned(),
            refused_on: owned(refused_on),
            done_on: owned(done_on),
        };
        Route::read(&action).unwrap()
    }

    fn reply(status: u16, body: &str) -> Reply {
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn of(status: u16, body: &str) -> Outcome {
        outcome(&route(&[], &[]), Phase::Action, &reply(status, body), NOON)
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in 100..600 {
            let expected = match status {
                202 => "pending",
                200..=299 => "done",
                400 | 404 | 410 | 412 | 422 => "refused",
                _ => "unknown",
            };
            for phase in [Phase::Action, Phase::Compensation] {
                let found = outcome(&route(&[], &[]), phase, &reply(status, ""), NOON);
                assert_eq!(outcome_word(&found), expected, "{status} {phase:?}");
            }
            let asked = outcome(&route(&[], &[]), Phase::Probe, &reply(status, ""), NOON);
            let expected = if expected == "refused" { "unknown" } else { expected };
            assert_eq!(outcome_word(&asked), expected, "{status} to a probe");
        }
    }

    #[test]
    fn a_registration_counts_answers_in_its_own_way() {
        let own = route(&["409", "404"], &["410", "202", "303"]);
        let cases = [(409, "refused"), (404, "refused"), (400, "unknown"), (422, "unknown"), (410, "done")];
        for (status, expected) in cases.into_iter().chain([(202, "done"), (303, "done"), (200, "done")]) {
            assert_eq!(
                outcome_word(&outcome(&own, Phase::Action, &reply(status, ""), NOON)),
                expected,
                "{status}"
            );
        }
        assert_eq!(outcome_word(&outcome(&own, Phase::Probe, &reply(404, ""), NOON)), "refused");
    }

    #[test]
    fn the_output_is_the_body_as_it_came() {
        let body = r#"{ "id": 9007199254740993 }"#;
        let Outcome::Done(output) = of(200, body) else { panic!("not done") };
        assert_eq!(output.text(), body);
        for empty in ["", " \r\n"] {
            assert_eq!(of(204, empty), Outcome::Done(Json::null()));
        }
    }

    #[test]
    fn a_body_that_cannot_be_read_is_unknown_unless_it_does_not_matter() {
        for body in ["OK", "{", "{\"a\":1,\"a\":2}", "<html></html>", "99999999999999999999"] {
            let Outcome::Unknown(cause) = of(200, body) else { panic!("certain of {body}") };
            assert!(cause.contains("name 200 in done_on"), "{cause}");
            let careless = route(&[], &["200"]);
            let found = outcome(&careless, Phase::Action, &reply(200, body), NOON);
            assert_eq!(found, Outcome::Done(Json::null()));
        }
        let mut packed = reply(200, "\u{1f}");
        packed.headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        let Outcome::Unknown(cause) = outcome(&route(&[], &[]), Phase::Action, &packed, NOON) else {
            panic!("certain of what is packed")
        };
        assert!(cause.contains("gzip"), "{cause}");
    }

    #[test]
    fn a_refusal_says_what_the_body_says_and_else_the_status() {
        let cases = [
            ("", "HTTP_422", "422 Unprocessable Entity"),
            ("sorry, out of stock", "HTTP_422", "422 Unprocessable Entity"),
            (r#"{"code":"OUT_OF_STOCK","message":"none left"}"#, "OUT_OF_STOCK", "none left"),
        ];
        for (body, code, message) in cases {
            let Outcome::Refused(refusal) = of(422, body) else { panic!("not refused") };
            assert_eq!((refusal.code.as_str(), refusal.message.as_str()), (code, message));
        }
    }

    #[test]
    fn the_time_of_the_next_look_is_a_number_or_a_date() {
        let cases = [
            ("3", Some(Duration::from_secs(3))),
            ("0", None),
            ("soon", None),
            ("-1", None),
            ("Tue, 14 Nov 2023 22:13:25 GMT", Some(Duration::from_secs(5))),
            ("Tue, 14 Nov 2023 22:13:15 GMT", None),
            ("18446744073709551615", Some(CHECK_AFTER_MAX)),
        ];
        for (text, expected) in cases {
            let mut pending = reply(202, "");
            pending.headers.insert(RETRY_AFTER, text.parse().unwrap());
            let found = outcome(&route(&[], &[]), Phase::Action, &pending, NOON);
            assert_eq!(found, Outcome::Pending(expected), "{text}");
        }
        assert_eq!(of(202, ""), Outcome::Pending(None));
    }

    #[test]
    fn the_cause_of_an_unknown_outcome_names_status_message_and_location() {
        let mut moved = reply(307, "");
        moved.headers.insert(LOCATION, "https://elsewhere/".parse().unwrap());
        let cases = [
            (reply(503, r#"{"title":"down for repair"}"#), "HTTP 503 Service Unavailable: down for repair"),
            (reply(409, ""), "HTTP 409 Conflict"),
            (
                moved,
                "HTTP 307 Temporary Redirect; redirects are not followed, this one leads to https://elsewhere/",
            ),
        ];
        for (reply, expected) in cases {
            let found = outcome(&route(&[], &[]), Phase::Action, &reply, NOON);
            assert_eq!(found, Outcome::Unknown(expected.to_owned()));
        }
    }
}
