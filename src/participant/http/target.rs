//! The path of a target: literal text, and fields that are filled from a call's input.

use http::uri::PathAndQuery;
use serde_json::Value;

/// Longest path with its fields filled, in bytes. Servers take some 8 KiB for the whole request line.
const FILLED_MAX_BYTES: usize = 7 * 1024;

/// `/path/{with}/{fields}?and=a&query={too}`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { name: String, place: Place },
}

/// Where a field stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Path,
    Query,
}

impl Target {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("the path begins with `/`; the host stands in the endpoint".to_owned());
        }
        let mut parts = Vec::new();
        let mut place = Place::Path;
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, from) = rest.split_at(open);
            let field = from.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let Some((name, behind)) = field else {
                return Err("every `{` has its `}` behind it, and none is inside another".to_owned());
            };
            if name.split('.').any(|step| step.is_empty() || step.contains(['{', '/', '?', ' '])) {
                return Err(format!(
                    "`{{{name}}}` is no field; write {{id}} for a field of the input, {{user.id}} for one below it"
                ));
            }
            if literal.contains('?') {
                place = Place::Query;
            }
            parts.push(Part::Text(literal.to_owned()));
            parts.push(Part::Field { name: name.to_owned(), place });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        let target = Self(parts);
        let sample = target.with(|_, _| Ok("x".to_owned()))?;
        if !is_written_as_in_a_url(&sample) || sample.parse::<PathAndQuery>().is_err() {
            return Err(
                "the path has characters that a URL cannot have; write them percent-encoded".to_owned()
            );
        }
        if has_dots(&sample) {
            return Err(
                "the path has `.` or `..` between slashes, which servers resolve in ways of their own"
                    .to_owned(),
            );
        }
        Ok(target)
    }

    /// The path with its fields filled.
    ///
    /// # Errors
    /// The field that cannot be filled, and why.
    pub(super) fn fill(&self, input: &Value) -> Result<String, String> {
        let filled = self.with(|name, place| {
            let text = scalar(input, name)?;
            if text.is_empty() && place == Place::Path {
                return Err(format!("the input's field `{name}` is empty"));
            }
            Ok(encoded(&text))
        })?;
        if has_dots(&filled) {
            return Err("a field makes a part of the path `.` or `..`".to_owned());
        }
        if filled.len() > FILLED_MAX_BYTES {
            return Err(format!("the path is longer than {FILLED_MAX_BYTES} bytes with its fields filled"));
        }
        Ok(filled)
    }

    fn with(&self, mut value: impl FnMut(&str, Place) -> Result<String, String>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field { name, place } => text.push_str(&value(name, *place)?),
            }
        }
        Ok(text)
    }
}

/// The text of the input's field `name`, a dotted path through objects.
fn scalar(input: &Value, name: &str) -> Result<String, String> {
    let value = name.split('.').try_fold(input, |value, step| value.get(step));
    match value {
        None => Err(format!("the input has no field `{name}`")),
        Some(Value::Null) => Err(format!("the input's field `{name}` is null")),
        Some(Value::Array(_) | Value::Object(_)) => {
            Err(format!("the input's field `{name}` is a list or an object, and has no place in a path"))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(scalar @ (Value::Bool(_) | Value::Number(_))) => Ok(scalar.to_string()),
    }
}

fn has_dots(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    // Servers decode before they resolve.
    let decoded = path.replace("%2e", ".").replace("%2E", ".");
    decoded.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether `target` has only characters that stand for themselves in a path or a query (RFC 3986, 3.3
/// and 3.4), and others percent-encoded.
fn is_written_as_in_a_url(target: &str) -> bool {
    let bytes = target.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => is_digit(at + 1) && is_digit(at + 2),
        _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(byte),
    })
}

/// `text` as one segment of a path or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let halves = [byte >> 4, byte & 0xf].map(|half| char::from(DIGITS[usize::from(half)]));
            out.extend(['%', halves[0], halves[1]]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(target: &str, input: &Value) -> Result<String, String> {
        Target::parse(target).unwrap().fill(input)
    }

    #[test]
    fn fields_are_filled_from_the_input_each_as_one_segment() {
        let input = json!({
            "id": "a/b ?#%é", "n": 9_007_199_254_740_993_i64, "f": 1.5, "yes": true,
            "user": { "id": "u-1", "deep": { "er": 7 } }, "empty": "",
        });
        let cases = [
            ("/orders", "/orders"),
            ("/items/{id}", "/items/a%2Fb%20%3F%23%25%C3%A9"),
            ("/items/{n}/x", "/items/9007199254740993/x"),
            ("/{yes}/{f}", "/true/1.5"),
            ("/users/{user.id}/{user.deep.er}", "/users/u-1/7"),
            ("/items/{n}/lock?amount={f}&by={empty}", "/items/9007199254740993/lock?amount=1.5&by="),
            ("/v{n}:cancel", "/v9007199254740993:cancel"),
        ];
        for (target, expected) in cases {
            assert_eq!(fill(target, &input).unwrap(), expected, "{target}");
        }
    }

    #[test]
    fn a_field_that_cannot_stand_in_a_path_is_named() {
        let input = json!({ "null": null, "list": [1], "map": {}, "empty": "", "up": "..", "here": "." });
        for field in ["missing", "null", "list", "map", "map.x", "list.0", "empty"] {
            let problem = fill(&format!("/a/{{{field}}}/b"), &input).unwrap_err();
            assert!(problem.contains(&format!("`{field}`")), "{problem}");
        }
        for dots in ["/a/{up}/b", "/a/{here}", "/%2e{here}"] {
            assert!(fill(dots, &input).unwrap_err().contains("`..`"));
        }
        let long = json!({ "id": "x".repeat(FILLED_MAX_BYTES) });
        assert!(fill("/{id}", &long).unwrap_err().contains("longer than"));
    }

    #[test]
    fn a_target_that_cannot_be_is_told_what_is_wrong() {
        let cases = [
            ("orders", "begins with `/`"),
            ("http://shop/orders", "begins with `/`"),
            ("", "begins with `/`"),
            ("/a/{id", "has its `}`"),
            ("/a/id}", "has its `}`"),
            ("/a/{i{d}}", "is no field"),
            ("/a/{}", "is no field"),
            ("/a/{b..c}", "is no field"),
            ("/a/{b/c}", "is no field"),
            ("/a#b", "percent-encoded"),
            ("/a b", "percent-encoded"),
            ("/a/../b", "`..`"),
            ("/a/%2E%2e/b", "`..`"),
            ("/%zz", "percent-encoded"),
            ("/a%", "percent-encoded"),
            ("/ä", "percent-encoded"),
            ("/a\\b", "percent-encoded"),
        ];
        for (text, expected) in cases {
            let problem = Target::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text:?} said {problem:?}");
        }
    }
}
