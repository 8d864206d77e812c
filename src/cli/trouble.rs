//! What can go wrong with a command, said so that the reader knows what to do next.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::exit::Exit;
use super::render::text;

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The command line is in order for the parser but makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens at the address. Nothing was asked of the daemon.
    #[error("no daemon at {addr}; start one with `sagad serve` or `sagad dev`")]
    Unreachable {
        /// Where it was looked for.
        addr: String,
        /// What the connection said.
        source: tonic::transport::Error,
    },
    /// The daemon answered with an error.
    #[error("{}", explain(.asked, .status))]
    Refused {
        /// What was asked, to be read after "cannot".
        asked: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The daemon took the call and did not answer.
    #[error(
        "cannot {asked}: no answer within {}; whether it took effect is not known, look before repeating it",
        humantime::format_duration(*.after)
    )]
    NoAnswer {
        /// What was asked, to be read after "cannot".
        asked: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// An answer that breaks the agreement between the daemon and this program.
    #[error("the daemon's answer has no {0}: its version does not fit this sagactl")]
    Incomplete(&'static str),
    /// A definition file breaks the rules; its problems are drawn in its source.
    #[error("the definition is not good\n{0}")]
    Unfit(String),
    /// A file or a stream of this machine.
    #[error("cannot {what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The person who was asked said no.
    #[error("nothing was changed")]
    Declined,
    /// Whoever read our output has gone; there is nobody left to tell.
    #[error("the reader of the output has gone")]
    OutputClosed,
}

impl Trouble {
    /// How the process ends because of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Trouble::Usage(_) => Exit::Usage,
            Trouble::OutputClosed => Exit::Done,
            Trouble::Unreachable { .. }
            | Trouble::Refused { .. }
            | Trouble::NoAnswer { .. }
            | Trouble::Incomplete(_)
            | Trouble::Unfit(_)
            | Trouble::Local { .. }
            | Trouble::Declined => Exit::Failed,
        }
    }

    /// A failure to write our own output.
    #[must_use]
    pub fn writing(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Trouble::OutputClosed;
        }
        Trouble::Local { what: "write the output".to_owned(), source }
    }

    /// A refusal of the daemon.
    #[must_use]
    pub fn refused(asked: impl Into<String>, status: Status) -> Self {
        Trouble::Refused { asked: asked.into(), status: Box::new(status) }
    }
}

/// The daemon's status in full: what was wrong, each violation on a line of its own, what to do.
fn explain(asked: &str, status: &Status) -> String {
    let details = status.get_error_details();
    let mut told = format!("cannot {asked}: {}", said(status));
    if let Some(bad) = details.bad_request() {
        // A message that names them already says it all.
        for violation in bad.field_violations.iter().filter(|v| !status.message().contains(&v.description)) {
            line(&mut told, &violation.field, &violation.description);
        }
    }
    if let Some(precondition) = details.precondition_failure() {
        for violation in precondition.violations.iter().filter(|v| !status.message().contains(&v.description))
        {
            line(&mut told, &violation.subject, &violation.description);
        }
    }
    if let Some(quota) = details.quota_failure() {
        for violation in &quota.violations {
            line(&mut told, &violation.subject, &violation.description);
        }
    }
    let delay = details.retry_info().and_then(|retry| retry.retry_delay);
    if let Some(advice) = advice(asked, status.code(), delay) {
        let _ = write!(told, "\n  {advice}");
    }
    told
}

/// The message, or the code's own meaning where there is none.
fn said(status: &Status) -> String {
    let message = text::printable_lines(status.message());
    if message.is_empty() { status.code().description().to_owned() } else { message }
}

fn line(told: &mut String, subject: &str, description: &str) {
    let (subject, description) = (text::printable(subject), text::printable_lines(description));
    let separator = if subject.is_empty() { "" } else { ": " };
    let _ = write!(told, "\n  {subject}{separator}{description}");
}

/// What to do about it; `None` where the message and its violations say it all.
fn advice(asked: &str, code: Code, delay: Option<Duration>) -> Option<String> {
    let words = match code {
        Code::NotFound => {
            "`sagactl list`, `sagactl def list` and `sagactl participant list` show what there is"
        }
        Code::AlreadyExists => {
            "the id belongs to another request and nothing was changed; choose another --id"
        }
        Code::FailedPrecondition if !asked.starts_with("register participant") => {
            "`sagactl why ID` says where a saga stands and what fits it"
        }
        Code::ResourceExhausted => {
            return Some(match delay {
                Some(delay) => format!("try again in {}", humantime::format_duration(delay)),
                None => "try again in a moment".to_owned(),
            });
        }
        Code::Unavailable => {
            "whether it took effect is not known; repeating it with the same id is safe once the daemon is well"
        }
        Code::Unimplemented => {
            "this daemon does not serve it; compare `sagad --version` and `sagactl --version`"
        }
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Cancelled | Code::DeadlineExceeded => {
            "whether it took effect is not known; the daemon's log says more"
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Aborted
        | Code::OutOfRange => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn a_refusal_lists_every_violation_of_the_request() {
        let mut details = ErrorDetails::new();
        details.set_bad_request(vec![
            FieldViolation::new("saga_id", "has a blank"),
            FieldViolation::new("input_json", "the key \"a\" stands twice, line 1, column 9"),
        ]);
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
        insta::assert_snapshot!(Trouble::refused("start the saga", status), @r#"
        cannot start the saga: the request is not valid
          saga_id: has a blank
          input_json: the key "a" stands twice, line 1, column 9
        "#);
    }

    #[test]
    fn an_overloaded_daemon_says_when_to_come_back() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1_500)));
        let status = Status::with_error_details(Code::ResourceExhausted, "too many starts", details);
        insta::assert_snapshot!(Trouble::refused("start the saga", status), @r"
        cannot start the saga: too many starts
          try again in 1s 500ms
        ");
    }

    #[test]
    fn only_a_wrong_command_line_is_a_usage_error() {
        assert_eq!(Trouble::Usage("x".to_owned()).exit(), Exit::Usage);
        assert_eq!(Trouble::refused("x", Status::invalid_argument("y")).exit(), Exit::Failed);
        assert_eq!(Trouble::Declined.exit(), Exit::Failed);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Trouble::writing(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit(), Exit::Done);
    }

    #[test]
    fn a_reply_cannot_command_the_terminal() {
        let told = Trouble::refused("read it", Status::internal("a\u{1b}[2Jb")).to_string();
        assert!(!told.contains('\u{1b}'), "{told:?}");
    }
}
