//! `POST /v1/steps/{token}`: how a service that speaks no gRPC finishes a step that it had answered
//! with 202.
//!
//! The body is `{"done": OUTPUT}` or `{"refused": {"code": …, "message": …}}`. Whoever has the token may
//! finish the step, as with `CompleteStep`; what is wrong is told as a problem (RFC 9457).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest as _, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::limits::Limits;
use super::parse;
use crate::engine::Engine;
use crate::engine::error::{EngineError, Violation};
use crate::proto::complete_step_request::Outcome;
use crate::proto::{CompleteStepRequest, Done, Refused};
use crate::saga::json::Json;

/// What a body may have beside an output of the largest size, in bytes.
const AROUND_BYTES: usize = 16 * 1024;
/// When to come back after the store did not answer or while the daemon starts or stops, in seconds.
const RETRY_LATER_SECS: u64 = 1;

/// The engine behind the page, once it is up.
#[derive(Clone)]
pub struct Callback {
    /// Set when work is welcome.
    pub engine: Arc<OnceLock<Engine>>,
    /// The bounds.
    pub limits: Limits,
}

/// The page.
pub fn router(callback: Callback) -> axum::Router {
    let body_max = callback.limits.input_json_max_bytes.saturating_add(AROUND_BYTES);
    axum::Router::new()
        // The rest of the path: a token has slashes, which some callers leave as they are.
        .route("/v1/steps/{*token}", post(finish).fallback(another_method))
        .layer(DefaultBodyLimit::max(body_max))
        .with_state(callback)
}

async fn another_method() -> Response {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "a step is finished by POST", Map::new());
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    answer
}

async fn finish(State(callback): State<Callback>, Path(token): Path<String>, request: Request) -> Response {
    // The body is read within the limit too: a slow one holds a connection of this port.
    let finished = finish_by(&callback, token, request);
    tokio::time::timeout(callback.limits.request_timeout, finished).await.unwrap_or_else(|_passed| {
        let detail = "no answer in time: whether the step is finished is not known; repeating it is safe";
        later(StatusCode::SERVICE_UNAVAILABLE, detail, RETRY_LATER_SECS)
    })
}

async fn finish_by(callback: &Callback, token: String, request: Request) -> Response {
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(rejected) => return problem(rejected.status(), &rejected.body_text(), Map::new()),
    };
    let Some(engine) = callback.engine.get() else {
        return later(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting", RETRY_LATER_SECS);
    };
    let asked = read(token, &body).and_then(|asked| parse::complete_step(asked, &callback.limits));
    let finished = match asked {
        Ok((token, outcome)) => engine.complete(&token, outcome).await,
        Err(error) => Err(error),
    };
    match finished {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => told(error),
    }
}

/// The same as a gRPC client would send it.
fn read(token: String, body: &[u8]) -> Result<CompleteStepRequest, EngineError> {
    const FORM: &str = r#"write {"done": OUTPUT} or {"refused": {"code": "…", "message": "…"}}"#;
    let wrong = |problem: String| EngineError::Invalid(vec![Violation::new("body", problem)]);
    let text = std::str::from_utf8(body).map_err(|_| wrong(format!("is not UTF-8; {FORM}")))?;
    let document =
        Json::parse(text).map_err(|error| wrong(format!("is not acceptable JSON: {error}; {FORM}")))?;
    let fields = document.value().as_object().filter(|fields| fields.len() == 1);
    let only = fields.and_then(|fields| fields.iter().next());
    let outcome = match only.map(|(name, value)| (name.as_str(), value)) {
        Some(("done", output)) => Outcome::Done(Done { output_json: output.to_string() }),
        Some(("refused", Value::Object(refused))) => {
            let text = |name: &str| match refused.get(name) {
                None | Some(Value::Null) => Ok(String::new()),
                Some(Value::String(text)) => Ok(text.clone()),
                Some(_) => Err(EngineError::Invalid(vec![Violation::new(
                    format!("refused.{name}"),
                    "must be a text",
                )])),
            };
            Outcome::Refused(Refused { code: text("code")?, message: text("message")? })
        }
        _ => return Err(wrong(format!("must have one field, done or refused; {FORM}"))),
    };
    Ok(CompleteStepRequest { token, outcome: Some(outcome) })
}

fn told(error: EngineError) -> Response {
    let detail = error.to_string();
    match error {
        EngineError::NotFound { .. } => problem(StatusCode::NOT_FOUND, &detail, Map::new()),
        EngineError::AlreadyExists(_) | EngineError::Precondition(_) => {
            problem(StatusCode::CONFLICT, &detail, Map::new())
        }
        EngineError::Invalid(violations) => {
            let each = violations
                .iter()
                .map(|violation| json!({ "field": violation.field, "description": violation.description }));
            let more = Map::from_iter([("errors".to_owned(), each.collect())]);
            problem(StatusCode::BAD_REQUEST, &detail, more)
        }
        EngineError::Overloaded { retry_after, .. } => {
            later(StatusCode::TOO_MANY_REQUESTS, &detail, whole_seconds(retry_after))
        }
        EngineError::Unavailable(_) | EngineError::Stopping => {
            later(StatusCode::SERVICE_UNAVAILABLE, &detail, RETRY_LATER_SECS)
        }
        EngineError::DataLoss(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, &detail, Map::new()),
    }
}

fn whole_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).max(1)
}

fn later(status: StatusCode, detail: &str, seconds: u64) -> Response {
    let mut answer = problem(status, detail, Map::new());
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

fn problem(status: StatusCode, detail: &str, more: Map<String, Value>) -> Response {
    let mut fields = Map::from_iter([
        ("title".to_owned(), status.canonical_reason().unwrap_or_default().into()),
        ("status".to_owned(), status.as_u16().into()),
        ("detail".to_owned(), detail.into()),
    ]);
    fields.extend(more);
    let body = Value::Object(fields).to_string();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_done_or_refused_and_nothing_else() {
        let read = |body: &str| super::read("t".to_owned(), body.as_bytes()).map(|request| request.outcome);
        let done = |json: &str| Some(Outcome::Done(Done { output_json: json.to_owned() }));
        let refused = |code: &str, message: &str| {
            Some(Outcome::Refused(Refused { code: code.to_owned(), message: message.to_owned() }))
        };
        assert_eq!(read(r#"{"done":{"n":9007199254740993}}"#).unwrap(), done(r#"{"n":9007199254740993}"#));
        assert_eq!(read(r#"{"done":null}"#).unwrap(), done("null"));
        assert_eq!(read(r#"{"refused":{"code":"NO","message":"no"}}"#).unwrap(), refused("NO", "no"));
        assert_eq!(read(r#"{"refused":{}}"#).unwrap(), refused("", ""));
        let wrong = [
            "",
            "{}",
            "[]",
            "{",
            "done",
            r#"{"pending":{}}"#,
            r#"{"refused":"no"}"#,
            r#"{"done":1,"refused":{}}"#,
            r#"{"done":1,"done":2}"#,
            r#"{"refused":{"code":7}}"#,
        ];
        for body in wrong {
            assert!(matches!(read(body), Err(EngineError::Invalid(_))), "{body}");
        }
        assert!(super::read("t".to_owned(), b"\xff").is_err());
    }

    #[tokio::test]
    async fn another_method_is_told_which_one_there_is() {
        use tower::ServiceExt as _;

        let callback = Callback { engine: Arc::default(), limits: Limits::default() };
        let asked = axum::http::Request::get("/v1/steps/t/o").body(axum::body::Body::empty()).unwrap();
        let answer = router(callback).oneshot(asked).await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()[header::ALLOW], "POST");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn each_error_has_its_status_and_says_when_to_come_back() {
        let cases = [
            (EngineError::NotFound { what: "token", name: "t".into() }, 404, None),
            (EngineError::Precondition("settled".into()), 409, None),
            (EngineError::Invalid(vec![Violation::new("body", "is wrong")]), 400, None),
            (
                EngineError::Overloaded { reason: "full".into(), retry_after: Duration::from_millis(1_500) },
                429,
                Some("2"),
            ),
            (EngineError::Stopping, 503, Some("1")),
            (EngineError::Unavailable("disk".into()), 503, Some("1")),
            (EngineError::DataLoss("saga x".into()), 500, None),
        ];
        for (error, status, retry_after) in cases {
            let detail = error.to_string();
            let answer = told(error);
            assert_eq!(answer.status().as_u16(), status, "{detail}");
            let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header(header::RETRY_AFTER), retry_after);
            assert_eq!(header(header::CONTENT_TYPE), Some("application/problem+json"));
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&body["status"], &body["detail"]), (&json!(status), &json!(detail)));
        }
    }
}
