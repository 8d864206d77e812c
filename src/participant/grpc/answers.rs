//! Status → outcome, in one table.
//!
//! | status | outcome |
//! |---|---|
//! | one of `done_on` | done, without an output |
//! | one of `refused_on`; left out: `INVALID_ARGUMENT`, `NOT_FOUND`, `FAILED_PRECONDITION`, `OUT_OF_RANGE` | refused |
//! | `UNIMPLEMENTED`, to a probe | there is no probe |
//! | any other | unknown |
//!
//! A probe asks whether an effect exists. That its question was malformed says nothing about the
//! effect, so of the default list only `NOT_FOUND` and `FAILED_PRECONDITION` are a "no" to it.

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::participant::handlers::{ClaimedAction, FieldProblem};
use crate::participant::outcome::{CODE_MAX_CHARS, MESSAGE_MAX_CHARS, cut};
use crate::participant::wire::ServiceStatus;
use crate::proto::code_name;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase, Refusal};

/// The type of the detail whose reason is a refusal's code.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
/// Numbers of status codes: 0 to this.
const CODE_MAX: i32 = 16;

const REFUSED: Codes =
    Codes::of(&[Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::OutOfRange]);
const REFUSED_BY_PROBE: Codes = Codes::of(&[Code::NotFound, Code::FailedPrecondition]);
/// What proxies and libraries say as well when they do not know what became of a call.
const NEVER_CERTAIN: Codes =
    Codes::of(&[Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable, Code::Unknown, Code::Internal]);

/// A set of status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Codes(u32);

impl Codes {
    const NONE: Self = Self(0);

    const fn of(codes: &[Code]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < codes.len() {
            bits |= 1 << (codes[at] as u32);
            at += 1;
        }
        Self(bits)
    }

    fn has(self, code: Code) -> bool {
        self.0 & Codes::of(&[code]).0 != 0
    }

    fn with(self, code: Code) -> Self {
        Self(self.0 | Codes::of(&[code]).0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What an action's statuses mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answers {
    /// Empty: the protocol's own list.
    refused: Codes,
    done: Codes,
}

impl Answers {
    /// Reads what a claim says.
    pub(super) fn read(action: &ClaimedAction, problems: &mut Vec<FieldProblem>) -> Self {
        let refused = codes("refused_on", &action.refused_on, problems);
        let done = codes("done_on", &action.done_on, problems);
        let both = (0..=CODE_MAX).map(Code::from_i32).find(|code| refused.has(*code) && done.has(*code));
        if let Some(code) = both {
            let problem = format!("{} stands in refused_on too: it can mean one thing only", code_name(code));
            problems.push(FieldProblem::new("done_on", problem));
        }
        Self { refused, done }
    }

    /// The table, for a status that is not OK.
    pub(super) fn outcome(&self, phase: Phase, status: &ServiceStatus) -> Outcome {
        let defaults = match phase {
            Phase::Action | Phase::Compensation => REFUSED,
            Phase::Probe => REFUSED_BY_PROBE,
        };
        let refused = if self.refused.is_empty() { defaults } else { self.refused };
        if self.done.has(status.code) {
            Outcome::Done(Json::null())
        } else if refused.has(status.code) {
            Outcome::Refused(refusal(status))
        } else if phase == Phase::Probe && status.code == Code::Unimplemented {
            Outcome::Unsupported
        } else {
            Outcome::Unknown(cut(&told(status), MESSAGE_MAX_CHARS))
        }
    }
}

/// A status that a service gave, in words.
pub(super) fn told(status: &ServiceStatus) -> String {
    match status.message.trim() {
        "" => code_name(status.code).to_owned(),
        message => format!("{}: {message}", code_name(status.code)),
    }
}

/// A status of the transport, in words.
pub(super) fn in_words(status: &Status) -> String {
    crate::participant::outcome::cause(status)
}

fn refusal(status: &ServiceStatus) -> Refusal {
    let name = code_name(status.code);
    let code = reason(&status.details).unwrap_or_else(|| name.to_owned());
    let message = match status.message.trim() {
        "" => format!("refused with {name}"),
        message => message.to_owned(),
    };
    Refusal { code: cut(&code, CODE_MAX_CHARS), message: cut(&message, MESSAGE_MAX_CHARS) }
}

/// The reason of a `google.rpc.ErrorInfo` among the details, such as `OUT_OF_STOCK`.
fn reason(details: &[u8]) -> Option<String> {
    let details = pb::Status::decode(details).ok()?.details;
    let info = details.into_iter().find(|detail| detail.type_url == ERROR_INFO)?;
    let reason = pb::ErrorInfo::decode(&*info.value).ok()?.reason;
    (!reason.trim().is_empty()).then_some(reason)
}

fn codes(field: &str, answers: &[String], problems: &mut Vec<FieldProblem>) -> Codes {
    let mut codes = Codes::NONE;
    for answer in answers {
        match code(field, answer) {
            Ok(code) => codes = codes.with(code),
            Err(problem) => problems.push(FieldProblem::new(field, problem)),
        }
    }
    codes
}

fn code(field: &str, answer: &str) -> Result<Code, String> {
    let all = || (0..=CODE_MAX).map(Code::from_i32);
    let named = all().find(|code| code_name(*code) == answer || (*code as i32).to_string() == answer);
    let code = named.ok_or_else(|| {
        let meant = crate::saga::suggest::nearest(&answer.to_uppercase(), all().map(code_name));
        let meant = meant.map_or(String::new(), |name| format!("; did you mean {name}?"));
        format!("{answer:?} is no gRPC status: write its name, such as NOT_FOUND, or its number{meant}")
    })?;
    if code == Code::Ok {
        return Err(if field == "done_on" {
            "OK counts as done already".to_owned()
        } else {
            "OK is the answer of a call that was carried out: it cannot be a refusal".to_owned()
        });
    }
    if NEVER_CERTAIN.has(code) {
        return Err(format!(
            "{} is also what a proxy or a library says when nobody knows what became of the call: it has to stay \
             unknown; let the service answer with a status of its own, such as FAILED_PRECONDITION or ABORTED",
            code_name(code)
        ));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn answers(refused_on: &[&str], done_on: &[&str]) -> Result<Answers, Vec<FieldProblem>> {
        let owned = |list: &[&str]| list.iter().map(|&answer| answer.to_owned()).collect();
        let action = ClaimedAction {
            refused_on: owned(refused_on),
            done_on: owned(done_on),
            ..ClaimedAction::default()
        };
        let mut problems = Vec::new();
        let answers = Answers::read(&action, &mut problems);
        if problems.is_empty() { Ok(answers) } else { Err(problems) }
    }

    fn status(code: Code) -> ServiceStatus {
        ServiceStatus { code, message: "as told".to_owned(), details: Vec::new() }
    }

    fn codes_that(answers: &Answers, phase: Phase, wanted: fn(&Outcome) -> bool) -> Vec<&'static str> {
        let all = (1..=CODE_MAX).map(Code::from_i32);
        all.filter(|code| wanted(&answers.outcome(phase, &status(*code)))).map(code_name).collect()
    }

    fn is_refused(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Refused(_))
    }

    fn is_done(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Done(json) if *json == Json::null())
    }

    #[test]
    fn four_statuses_are_a_refusal_and_all_others_say_nothing_certain() {
        let answers = answers(&[], &[]).unwrap();
        for phase in [Phase::Action, Phase::Compensation] {
            let refused = codes_that(&answers, phase, is_refused);
            assert_eq!(refused, ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"]);
            assert!(codes_that(&answers, phase, is_done).is_empty());
        }
        let unknown = answers.outcome(Phase::Action, &status(Code::PermissionDenied));
        assert_eq!(unknown, Outcome::Unknown("PERMISSION_DENIED: as told".to_owned()));
    }

    #[test]
    fn a_list_replaces_the_protocols_own_and_takes_names_and_numbers() {
        let answers = answers(&["ALREADY_EXISTS", "10"], &["NOT_FOUND"]).unwrap();
        assert_eq!(codes_that(&answers, Phase::Action, is_refused), ["ALREADY_EXISTS", "ABORTED"]);
        assert_eq!(codes_that(&answers, Phase::Action, is_done), ["NOT_FOUND"]);
    }

    #[test]
    fn done_wins_over_the_protocols_own_list() {
        let answers = answers(&[], &["NOT_FOUND"]).unwrap();
        assert_eq!(codes_that(&answers, Phase::Compensation, is_done), ["NOT_FOUND"]);
        assert!(!codes_that(&answers, Phase::Compensation, is_refused).contains(&"NOT_FOUND"));
    }

    #[test]
    fn a_malformed_question_says_nothing_about_the_effect_that_a_probe_asks_for() {
        let default = answers(&[], &[]).unwrap();
        assert_eq!(codes_that(&default, Phase::Probe, is_refused), ["NOT_FOUND", "FAILED_PRECONDITION"]);
        assert_eq!(default.outcome(Phase::Probe, &status(Code::Unimplemented)), Outcome::Unsupported);
        let own = answers(&["OUT_OF_RANGE"], &[]).unwrap();
        assert_eq!(codes_that(&own, Phase::Probe, is_refused), ["OUT_OF_RANGE"]);
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_told_why() {
        let cases: [(&[&str], &[&str], &str, &str); 9] = [
            (&["NOT_FUOND"], &[], "refused_on", "did you mean NOT_FOUND?"),
            (&["not_found"], &[], "refused_on", "did you mean NOT_FOUND?"),
            (&["17"], &[], "refused_on", "is no gRPC status"),
            (&["OK"], &[], "refused_on", "cannot be a refusal"),
            (&[], &["OK"], "done_on", "done already"),
            (&["UNAVAILABLE"], &[], "refused_on", "has to stay unknown"),
            (&["4"], &[], "refused_on", "DEADLINE_EXCEEDED is also what a proxy"),
            (&[], &["INTERNAL"], "done_on", "has to stay unknown"),
            (&["NOT_FOUND"], &["5"], "done_on", "stands in refused_on too"),
        ];
        for (refused_on, done_on, field, expected) in cases {
            let problems = answers(refused_on, done_on).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].field, field);
            assert!(problems[0].problem.contains(expected), "{:?}", problems[0]);
        }
    }

    #[test]
    fn a_refusal_is_called_as_the_service_calls_it() {
        let rich = Status::with_error_details(
            Code::FailedPrecondition,
            "2 left",
            ErrorDetails::with_error_info("OUT_OF_STOCK", "shop", std::collections::HashMap::new()),
        );
        let told = ServiceStatus {
            code: rich.code(),
            message: rich.message().to_owned(),
            details: rich.details().to_vec(),
        };
        assert_eq!(refusal(&told), Refusal { code: "OUT_OF_STOCK".into(), message: "2 left".into() });
        let plain = ServiceStatus { details: b"garbage".to_vec(), ..told };
        assert_eq!(refusal(&plain).code, "FAILED_PRECONDITION");
        let silent = ServiceStatus { message: " ".to_owned(), ..plain };
        assert_eq!(refusal(&silent).message, "refused with FAILED_PRECONDITION");
    }
}
