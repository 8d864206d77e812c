//! The one place where an error becomes a gRPC status, with details that programs can read.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::engine::error::{EngineError, Violation};

/// When to come back after the store did not answer or while the daemon restarts.
const RETRY_LATER: Duration = Duration::from_secs(1);
/// Longest message of a status, in bytes. Status and details travel in headers, of which clients
/// take as little as 8 KiB.
const MESSAGE_MAX_BYTES: usize = 512;
/// Most bytes of violations in the details.
const VIOLATIONS_MAX_BYTES: usize = 3_072;

/// The status of an engine's error.
#[must_use]
pub fn from_engine(error: EngineError) -> Status {
    let message = cut(&error.to_string(), MESSAGE_MAX_BYTES);
    match error {
        EngineError::NotFound { what, name } => Status::with_error_details(
            Code::NotFound,
            message.as_str(),
            ErrorDetails::with_resource_info(what, cut(&name, MESSAGE_MAX_BYTES), "", message.as_str()),
        ),
        EngineError::AlreadyExists(id) => Status::with_error_details(
            Code::AlreadyExists,
            message.as_str(),
            ErrorDetails::with_resource_info("saga", id, "", message.as_str()),
        ),
        EngineError::Invalid(violations) => Status::with_error_details(
            Code::InvalidArgument,
            message.as_str(),
            ErrorDetails::with_bad_request(field_violations(violations)),
        ),
        EngineError::Precondition(_) => Status::with_error_details(
            Code::FailedPrecondition,
            message.as_str(),
            ErrorDetails::with_precondition_failure_violation("STATE", "", message.as_str()),
        ),
        EngineError::Overloaded { retry_after, .. } => {
            with_retry(Code::ResourceExhausted, &message, retry_after)
        }
        EngineError::Unavailable(_) | EngineError::Stopping => {
            with_retry(Code::Unavailable, &message, RETRY_LATER)
        }
        EngineError::DataLoss(_) => Status::data_loss(message),
    }
}

/// The status of an RPC that took longer than it may.
pub(super) fn timed_out(limit: Duration) -> Status {
    let limit = humantime::format_duration(limit);
    Status::deadline_exceeded(format!(
        "no answer within {limit}: whether it was done is not known; repeating it with the same id is safe"
    ))
}

/// The status of a request whose message never reached its service.
pub(super) fn bad_message(problem: &str) -> Status {
    from_engine(EngineError::Invalid(vec![Violation::new("message", problem)]))
}

/// The status of an RPC over a cap of the surface: nothing was done.
pub(super) fn shed(reason: &str) -> Status {
    from_engine(EngineError::Overloaded { reason: reason.to_owned(), retry_after: RETRY_LATER })
}

fn with_retry(code: Code, message: &str, after: Duration) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(after)))
}

/// As many violations as fit, and how many were left out.
fn field_violations(violations: Vec<Violation>) -> Vec<FieldViolation> {
    let total = violations.len();
    let mut room = VIOLATIONS_MAX_BYTES;
    let mut kept = Vec::new();
    for violation in violations {
        let field = cut(&violation.field, MESSAGE_MAX_BYTES);
        let description = cut(&violation.description, MESSAGE_MAX_BYTES);
        let Some(left) = room.checked_sub(field.len() + description.len()) else { break };
        room = left;
        kept.push(FieldViolation::new(field, description));
    }
    if kept.len() < total {
        let left_out = total - kept.len();
        kept.push(FieldViolation::new("", format!("{left_out} more violations are not listed")));
    }
    kept
}

/// `text`, cut at a character's border to at most `max` bytes.
fn cut(text: &str, max: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max - ELLIPSIS.len_utf8());
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_code() {
        let second = Duration::from_secs(1);
        let cases = [
            (EngineError::NotFound { what: "saga", name: "a".into() }, Code::NotFound, None),
            (EngineError::AlreadyExists("a".into()), Code::AlreadyExists, None),
            (EngineError::Invalid(vec![]), Code::InvalidArgument, None),
            (EngineError::Precondition("ended".into()), Code::FailedPrecondition, None),
            (
                EngineError::Overloaded { reason: "full".into(), retry_after: second * 3 },
                Code::ResourceExhausted,
                Some(second * 3),
            ),
            (EngineError::Unavailable("disk".into()), Code::Unavailable, Some(second)),
            (EngineError::DataLoss("saga x".into()), Code::DataLoss, None),
            (EngineError::Stopping, Code::Unavailable, Some(second)),
        ];
        for (error, code, retry_after) in cases {
            let text = error.to_string();
            let status = from_engine(error);
            assert_eq!(status.code(), code, "{text}");
            assert_eq!(status.message(), text);
            let retry = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
            assert_eq!(retry, retry_after, "{text}");
        }
    }

    #[test]
    fn every_violation_is_in_the_details_in_its_order() {
        let status = from_engine(EngineError::Invalid(vec![
            Violation::new("source:3:7", "unknown step"),
            Violation::new("source:9:1", "a pivot already stands at line 4"),
        ]));
        let details = status.get_error_details();
        let fields: Vec<&str> =
            details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["source:3:7", "source:9:1"]);
    }

    #[test]
    fn a_refusal_for_the_state_of_things_says_so_in_the_details() {
        let status = from_engine(EngineError::Precondition("the saga has ended".into()));
        let details = status.get_error_details();
        assert_eq!(details.precondition_failure().unwrap().violations[0].description, "the saga has ended");
    }

    #[test]
    fn a_status_fits_into_the_headers_of_every_client() {
        let many = (0..500).map(|n| Violation::new(format!("source:{n}:1"), "말".repeat(400))).collect();
        let status = from_engine(EngineError::Invalid(many));
        assert!(status.message().len() <= MESSAGE_MAX_BYTES);
        assert!(status.details().len() < 5_000, "{}", status.details().len());
        let details = status.get_error_details();
        let last = details.bad_request().unwrap().field_violations.last().unwrap().clone();
        assert!(last.description.ends_with("more violations are not listed"), "{}", last.description);
    }
}
