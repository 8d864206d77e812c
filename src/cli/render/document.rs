//! JSON and YAML for programs. Integers stay exact, the order of fields is fixed.

use serde::Serialize;
use serde_json::Value;

/// The value of a `…_json` field: `null` where it is empty. A text that is no JSON, which the
/// daemon never sends, is handed on as a string rather than lost.
#[must_use]
pub fn embedded(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// An indented JSON document with its line end.
#[must_use]
pub fn json(view: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(view).expect("views hold strings, numbers and maps with text keys only");
    text.push('\n');
    text
}

/// A JSON document on one line, for streams.
#[must_use]
pub fn json_line(view: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string(view).expect("views hold strings, numbers and maps with text keys only");
    text.push('\n');
    text
}

/// A YAML document.
#[must_use]
pub fn yaml(view: &impl Serialize) -> String {
    let mut text =
        serde_saphyr::to_string(view).expect("views hold strings, numbers and maps with text keys only");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_beyond_double_precision_stay_exact() {
        let value =
            embedded(r#"{"a": 9007199254740993, "b": 18446744073709551615, "c": -9223372036854775808}"#);
        assert_eq!(
            json_line(&value),
            "{\"a\":9007199254740993,\"b\":18446744073709551615,\"c\":-9223372036854775808}\n"
        );
        let yaml = yaml(&value);
        for exact in ["9007199254740993", "18446744073709551615", "-9223372036854775808"] {
            assert!(yaml.contains(exact), "{yaml}");
        }
    }

    #[test]
    fn what_yaml_would_misread_comes_back_as_it_was() {
        let value = json!({
            "country": "no", "on": "yes", "empty": "", "number": "0123", "sexagesimal": "12:30:00",
            "lines": "one\ntwo\n", "dash": "- a", "colon": "a: b", "hash": "# x", "null": "null",
            "tilde": "~", "korean": "재고 부족", "quote": "\"'", "control": "\u{1b}[2J", "blank": " a ",
            "list": [], "map": {}, "nothing": null, "deep": [[1, [2.5]], {"a": [true]}],
        });
        assert!(!yaml(&value).contains('\u{1b}'), "a document cannot command the terminal");
        let back: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(back, value, "{}", yaml(&value));
    }

    #[test]
    fn an_absent_document_is_null() {
        assert_eq!(embedded(""), Value::Null);
        assert_eq!(embedded("null"), Value::Null);
    }
}
