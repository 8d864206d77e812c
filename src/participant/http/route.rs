//! Where an action leads at a service: its request line, and which answers count in another way.

use http::{Method, StatusCode, Version};

use super::target::Target;
use crate::participant::handlers::{ClaimedAction, FieldProblem};

/// The form of a target.
const FORM: &str = "write it as `POST /stock/{item_id}/deduct`, for HTTP/2 as `POST /stock/deduct HTTP/2`";

/// The statuses that count as refused unless `refused_on` names others.
pub(super) const REFUSED: [StatusCode; 5] = [
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::GONE,
    StatusCode::PRECONDITION_FAILED,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// An action's target, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::participant) struct Route {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) version: Version,
    /// Empty: [`REFUSED`].
    pub(super) refused_on: Vec<StatusCode>,
    pub(super) done_on: Vec<StatusCode>,
}

impl Route {
    /// Reads what a claim says of an action.
    ///
    /// # Errors
    /// Every field that is wrong, by its own name.
    pub(in crate::participant) fn read(action: &ClaimedAction) -> Result<Self, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let line = request_line(&action.target)
            .map_err(|problem| problems.push(FieldProblem::new("target", format!("{problem}; {FORM}"))));
        let refused_on = statuses("refused_on", &action.refused_on, never_a_refusal, &mut problems);
        let done_on = statuses("done_on", &action.done_on, never_a_success, &mut problems);
        if let Some(both) = refused_on.iter().find(|status| done_on.contains(status)) {
            let problem = format!("{} stands in refused_on too", both.as_u16());
            problems.push(FieldProblem::new("done_on", problem));
        }
        match line {
            Ok((method, target, version)) if problems.is_empty() => {
                Ok(Self { method, target, version, refused_on, done_on })
            }
            _ => Err(problems),
        }
    }

    /// Whether requests carry the input as their body.
    pub(super) fn has_body(&self) -> bool {
        self.method != Method::GET && self.method != Method::DELETE
    }
}

fn request_line(text: &str) -> Result<(Method, Target, Version), String> {
    if text.is_empty() {
        return Err("is required with PROTOCOL_HTTP".to_owned());
    }
    let mut words = text.split(' ');
    let (Some(method), Some(path), version, None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("is a method and a path with one space between them".to_owned());
    };
    let method = match method {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        other => return Err(format!("the method {other:?} is not GET, POST, PUT, PATCH or DELETE")),
    };
    let target = Target::parse(path)?;
    let version = match version {
        None | Some("HTTP/1.1") => Version::HTTP_11,
        Some("HTTP/2") => Version::HTTP_2,
        Some(other) => return Err(format!("{other:?} behind the path is neither HTTP/1.1 nor HTTP/2")),
    };
    Ok((method, target, version))
}

fn statuses(
    field: &str,
    given: &[String],
    never: fn(StatusCode) -> Option<&'static str>,
    problems: &mut Vec<FieldProblem>,
) -> Vec<StatusCode> {
    let mut read = Vec::new();
    for text in given {
        let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status = is_number.then(|| StatusCode::from_bytes(text.as_bytes()).ok()).flatten();
        match status.filter(|status| status.as_u16() < 600) {
            None => {
                let problem = format!("{text:?} is no HTTP status; write numbers such as 404");
                problems.push(FieldProblem::new(field, problem));
            }
            Some(status) => match never(status) {
                None => read.push(status),
                Some(why) => {
                    let problem = format!("{} {why}", status.as_u16());
                    problems.push(FieldProblem::new(field, problem));
                }
            },
        }
    }
    read
}

/// Why no service can mean "it has not happened and will not" by a status, if none can.
fn never_a_refusal(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        100..=199 => Some("is never the last answer to a request"),
        200..=299 => Some("says that it was done; answer with a 4xx status what is refused"),
        300..=399 => Some("sends the caller elsewhere and decides nothing"),
        408 | 425 | 429 => Some("asks to come again later, so it cannot be a refusal; it is retried"),
        500..=599 => Some(
            "does not say whether anything happened, so it cannot be a refusal; it is retried with the same key",
        ),
        _ => None,
    }
}

/// Why no service can mean "it is done" by a status, if none can.
fn never_a_success(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        100..=199 => Some("is never the last answer to a request"),
        408 | 425 | 429 => Some("asks to come again later, so nothing is done yet; it is retried"),
        500..=599 => {
            Some("does not say whether anything happened, so it is not done; it is retried with the same key")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(target: &str, refused_on: &[&str], done_on: &[&str]) -> ClaimedAction {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ClaimedAction {
            name: "deduct".to_owned(),
            target: target.to_owned(),
            refused_on: owned(refused_on),
            done_on: owned(done_on),
        }
    }

    #[test]
    fn a_target_is_a_method_a_path_and_perhaps_a_version() {
        let route = Route::read(&action("POST /a/{id}", &["409", "422"], &["404"])).unwrap();
        assert_eq!((&route.method, route.version), (&Method::POST, Version::HTTP_11));
        assert_eq!(route.refused_on, [StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY]);
        assert_eq!(route.done_on, [StatusCode::NOT_FOUND]);
        assert_eq!(Route::read(&action("PUT /a HTTP/2", &[], &[])).unwrap().version, Version::HTTP_2);
        for (method, has_body) in
            [("GET", false), ("POST", true), ("PUT", true), ("PATCH", true), ("DELETE", false)]
        {
            let route = Route::read(&action(&format!("{method} /a"), &[], &[])).unwrap();
            assert_eq!(route.has_body(), has_body, "{method}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a str, &'a str);
        let cases: [Case<'_>; 16] = [
            ("", &[], &[], "target", "is required"),
            ("/a", &[], &[], "target", "a method and a path"),
            ("POST", &[], &[], "target", "a method and a path"),
            ("POST  /a", &[], &[], "target", "begins with `/`"),
            ("post /a", &[], &[], "target", "\"post\" is not GET"),
            ("HEAD /a", &[], &[], "target", "\"HEAD\" is not GET"),
            ("POST a", &[], &[], "target", "begins with `/`"),
            ("POST /a HTTP/3", &[], &[], "target", "neither HTTP/1.1 nor HTTP/2"),
            ("POST /a", &["NOT_FOUND"], &[], "refused_on", "no HTTP status"),
            ("POST /a", &["99"], &[], "refused_on", "no HTTP status"),
            ("POST /a", &["600"], &[], "refused_on", "no HTTP status"),
            ("POST /a", &["503"], &[], "refused_on", "does not say whether anything happened"),
            ("POST /a", &["429"], &[], "refused_on", "come again later"),
            ("POST /a", &["200"], &[], "refused_on", "says that it was done"),
            ("POST /a", &[], &["500"], "done_on", "does not say whether anything happened"),
            ("POST /a", &["404"], &["404"], "done_on", "stands in refused_on too"),
        ];
        for (target, refused_on, done_on, field, expected) in cases {
            let problems = Route::read(&action(target, refused_on, done_on)).unwrap_err();
            assert_eq!(problems.len(), 1, "{target} {problems:?}");
            assert_eq!(problems[0].field, field, "{target}");
            assert!(problems[0].problem.contains(expected), "{:?}", problems[0]);
        }
    }
}
