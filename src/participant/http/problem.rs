//! What a JSON body says of itself when something went wrong: the forms in use, by their fields.

use serde_json::Value;

/// The type of a problem (RFC 9457) that is nothing but its status.
const NO_TYPE: &str = "about:blank";

/// A code for programs and a message for people, where the body has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

impl Problem {
    /// Reads a body: `code` and `message`, the same below `error`, or `type`, `title` and `detail`. A
    /// body of another form says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let inner = &body["error"];
        let problem_type = text(&body["type"]).filter(|name| name != NO_TYPE);
        Self {
            code: text(&body["code"])
                .or_else(|| text(&inner["code"]))
                .or_else(|| text(inner))
                .or(problem_type),
            message: text(&body["message"])
                .or_else(|| text(&inner["message"]))
                .or_else(|| text(&body["error_description"]))
                .or_else(|| text(&body["detail"]))
                .or_else(|| text(&body["title"])),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_in_use_are_read_by_their_fields() {
        let cases = [
            (r#"{"code":"EMPTY","message":"none left"}"#, Some("EMPTY"), Some("none left")),
            (r#"{"code":1001,"title":"none left"}"#, Some("1001"), Some("none left")),
            (r#"{"error":{"code":"EMPTY","message":"none left"}}"#, Some("EMPTY"), Some("none left")),
            (
                r#"{"error":"invalid_grant","error_description":"too old"}"#,
                Some("invalid_grant"),
                Some("too old"),
            ),
            (
                r#"{"type":"https://shop/empty","title":"Out of stock","detail":"item 7 is out","status":422}"#,
                Some("https://shop/empty"),
                Some("item 7 is out"),
            ),
            (r#"{"type":"about:blank","title":"Not Found"}"#, None, Some("Not Found")),
            (r#"{"code":" ","message":""}"#, None, None),
            (r#"["refused"]"#, None, None),
            ("refused", None, None),
            ("", None, None),
        ];
        for (body, code, message) in cases {
            let found = Problem::read(body.as_bytes());
            assert_eq!((found.code.as_deref(), found.message.as_deref()), (code, message), "{body}");
        }
    }
}
