//! Answer → outcome, in one table for the three calls.
//!
//! Only an explicit `refused` is a refusal. Every error status, an answer without an outcome and
//! an output that cannot be used are unknown, and no text of an answer is searched for words.

use std::time::Duration;

use tonic::{Code, Status};

use crate::proto::{self, compensate_response, execute_response, probe_response};
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase, Refusal, codes};

/// Longest output of a call, in bytes.
pub const OUTPUT_MAX_BYTES: usize = 1024 * 1024;
/// What is kept of a refusal's code, in characters.
pub const CODE_MAX_CHARS: usize = 128;
/// What is kept of a participant's message, in characters.
pub const MESSAGE_MAX_CHARS: usize = 1_024;

/// The code of a refusal that came without one.
const CODE_DEFAULT: &str = "REFUSED";

/// The three answers' common form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Done(proto::Done),
    Refused(proto::Refused),
    Pending(proto::Pending),
    Superseded,
    /// No outcome was set.
    Nothing,
}

/// Why there is none of the four answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoOutcome {
    /// The participant said a status instead, with this message.
    Status(Code, String),
    /// It said nothing that can be used.
    Broken(String),
}

/// The table.
pub(super) fn outcome(phase: Phase, answer: Result<Answer, NoOutcome>) -> Outcome {
    match (answer, phase) {
        (Ok(Answer::Done(done)), _) => output(&done.output_json),
        (Ok(Answer::Refused(refused)), _) => Outcome::Refused(refusal(&refused)),
        (Ok(Answer::Pending(pending)), _) => Outcome::Pending(check_after(pending)),
        (Ok(Answer::Superseded), Phase::Action) => Outcome::Refused(Refusal {
            code: codes::SUPERSEDED.to_owned(),
            message: "the participant saw this step's compensation first".to_owned(),
        }),
        (Ok(Answer::Superseded), Phase::Compensation | Phase::Probe) => {
            Outcome::Unknown(format!("the answer \"superseded\" has no meaning for a {}", phase.as_str()))
        }
        (Ok(Answer::Nothing), _) => Outcome::Unknown("the answer has no outcome".to_owned()),
        (Err(NoOutcome::Status(Code::Unimplemented, _)), Phase::Probe) => Outcome::Unsupported,
        (Err(NoOutcome::Status(code, message)), _) => Outcome::Unknown(cause(&Status::new(code, message))),
        (Err(NoOutcome::Broken(cause)), _) => Outcome::Unknown(cut(&cause, MESSAGE_MAX_CHARS)),
    }
}

/// The call was sent and its time passed.
pub(super) fn no_answer_within(timeout: Duration) -> Outcome {
    Outcome::Unknown(format!("no answer within {}", humantime::format_duration(timeout)))
}

/// A text of JSON as the output of a call that was carried out.
pub(super) fn output(text: &str) -> Outcome {
    if text.len() > OUTPUT_MAX_BYTES {
        let bytes = text.len();
        return Outcome::Unknown(format!(
            "the output has {bytes} bytes, over the limit of {OUTPUT_MAX_BYTES}"
        ));
    }
    match Json::parse(text) {
        Ok(json) => Outcome::Done(json),
        Err(error) => Outcome::Unknown(format!("the output is not acceptable JSON: {error}")),
    }
}

fn refusal(refused: &proto::Refused) -> Refusal {
    let code = if refused.code.trim().is_empty() { CODE_DEFAULT } else { &refused.code };
    let message =
        if refused.message.trim().is_empty() { "refused without a message" } else { &refused.message };
    Refusal { code: cut(code, CODE_MAX_CHARS), message: cut(message, MESSAGE_MAX_CHARS) }
}

fn check_after(pending: proto::Pending) -> Option<Duration> {
    let after = Duration::try_from(pending.check_after?).ok()?;
    (!after.is_zero()).then_some(after)
}

pub(super) fn cause(status: &Status) -> String {
    let name = proto::code_name(status.code());
    let text = match status.message().trim() {
        "" => name.to_owned(),
        message => format!("{name}: {message}"),
    };
    cut(&with_sources(text, status), MESSAGE_MAX_CHARS)
}

/// What an error says, with the reasons ("Connection refused") that it hides in its sources.
pub(super) fn with_sources(mut text: String, error: &(dyn std::error::Error + 'static)) -> String {
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

pub(super) fn cut(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).collect()
}

/// The three responses carry the same four answers in types of their own.
macro_rules! answer_from {
    ($($response:ident in $module:ident),*) => {$(
        impl From<proto::$response> for Answer {
            fn from(response: proto::$response) -> Self {
                match response.outcome {
                    Some($module::Outcome::Done(done)) => Answer::Done(done),
                    Some($module::Outcome::Refused(refused)) => Answer::Refused(refused),
                    Some($module::Outcome::Pending(pending)) => Answer::Pending(pending),
                    Some($module::Outcome::Superseded(proto::Superseded {})) => Answer::Superseded,
                    None => Answer::Nothing,
                }
            }
        }
    )*};
}

answer_from!(
    ExecuteResponse in execute_response,
    CompensateResponse in compensate_response,
    ProbeResponse in probe_response
);

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 3] = [Phase::Action, Phase::Compensation, Phase::Probe];

    fn done(text: &str) -> Answer {
        Answer::Done(proto::Done { output_json: text.to_owned() })
    }

    fn refused(code: &str, message: &str) -> Answer {
        Answer::Refused(proto::Refused { code: code.to_owned(), message: message.to_owned() })
    }

    fn pending(check_after: Option<(i64, i32)>) -> Answer {
        let check_after = check_after.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
        Answer::Pending(proto::Pending { check_after })
    }

    fn no(code: &str, message: &str) -> Outcome {
        Outcome::Refused(Refusal { code: code.to_owned(), message: message.to_owned() })
    }

    #[test]
    fn a_clear_answer_means_the_same_to_every_call() {
        let cases = [
            (
                done(r#"{"id":9007199254740993}"#),
                Outcome::Done(Json::parse(r#"{"id":9007199254740993}"#).unwrap()),
            ),
            (done(""), Outcome::Done(Json::null())),
            (refused("OUT_OF_STOCK", "none left"), no("OUT_OF_STOCK", "none left")),
            (refused("", "none left"), no("REFUSED", "none left")),
            (refused("NO", " "), no("NO", "refused without a message")),
            (pending(None), Outcome::Pending(None)),
            (pending(Some((0, 0))), Outcome::Pending(None)),
            (pending(Some((-3, 0))), Outcome::Pending(None)),
            (pending(Some((2, 500_000_000))), Outcome::Pending(Some(Duration::from_millis(2_500)))),
        ];
        for phase in PHASES {
            for (answer, expected) in &cases {
                assert_eq!(&outcome(phase, Ok(answer.clone())), expected, "{phase:?} {answer:?}");
            }
        }
    }

    #[test]
    fn an_answer_that_says_nothing_certain_is_unknown_to_every_call() {
        let huge = format!("\"{}\"", "x".repeat(OUTPUT_MAX_BYTES));
        let cases = [
            (Answer::Nothing, "no outcome"),
            (done("{"), "not acceptable JSON"),
            (done(&huge), "over the limit of 1048576"),
        ];
        for phase in PHASES {
            for (answer, expected) in &cases {
                let Outcome::Unknown(cause) = outcome(phase, Ok(answer.clone())) else {
                    panic!("{phase:?}: a certain outcome from an uncertain answer")
                };
                assert!(cause.contains(expected), "{cause}");
            }
        }
    }

    #[test]
    fn superseded_refuses_an_action_and_leaves_the_others_unknown() {
        let Outcome::Refused(refusal) = outcome(Phase::Action, Ok(Answer::Superseded)) else {
            panic!("not a refusal")
        };
        assert_eq!(refusal.code, codes::SUPERSEDED);
        assert!(!refusal.message.is_empty());
        for phase in [Phase::Compensation, Phase::Probe] {
            assert!(matches!(outcome(phase, Ok(Answer::Superseded)), Outcome::Unknown(_)));
        }
    }

    #[test]
    fn every_error_status_is_unknown_but_a_probe_that_is_not_there() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            for phase in PHASES {
                // The words of a message never count.
                let status = NoOutcome::Status(code, "refused: already done".to_owned());
                let expected = if phase == Phase::Probe && code == Code::Unimplemented {
                    Outcome::Unsupported
                } else {
                    Outcome::Unknown(format!("{}: refused: already done", proto::code_name(code)))
                };
                assert_eq!(outcome(phase, Err(status)), expected);
            }
        }
    }

    #[test]
    fn what_a_participant_writes_is_cut_to_a_bounded_length() {
        let long = "é".repeat(5_000);
        let Outcome::Refused(refusal) = outcome(Phase::Action, Ok(refused(&long, &long))) else {
            panic!("not a refusal")
        };
        assert_eq!(refusal.code.chars().count(), CODE_MAX_CHARS);
        assert_eq!(refusal.message.chars().count(), MESSAGE_MAX_CHARS);
        let Outcome::Unknown(cause) =
            outcome(Phase::Action, Err(NoOutcome::Status(Code::Internal, long.clone())))
        else {
            panic!("not unknown")
        };
        assert_eq!(cause.chars().count(), MESSAGE_MAX_CHARS);
        let Outcome::Unknown(cause) = outcome(Phase::Action, Err(NoOutcome::Broken(long))) else {
            panic!("not unknown")
        };
        assert_eq!(cause.chars().count(), MESSAGE_MAX_CHARS);
    }

    #[test]
    fn a_passed_timeout_names_its_length() {
        let Outcome::Unknown(cause) = no_answer_within(Duration::from_secs(1)) else { panic!("not unknown") };
        assert_eq!(cause, "no answer within 1s");
    }
}
