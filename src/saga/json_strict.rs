//! The strict reader of JSON from outside.
//!
//! `serde_json` does the reading. What it lets pass is caught here: a key that comes twice (the
//! two ends of a call may pick different ones), nesting that could exhaust a stack further on,
//! and integers beyond 64 bits, which it would round.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::json::{JSON_DEPTH_MAX, JsonError};

/// The smallest magnitude an integer beyond 64 bits can have as a double.
const WIDE_FROM: f64 = 9_223_372_036_854_775_808.0;

/// Reads `text`.
///
/// # Errors
/// What is wrong, with line and column (counted from 1, columns in bytes).
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let wide = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0, wide: &wide }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| JsonError { reason: error.to_string() })?;
    // Rare: only then is the text looked at again, to tell `1e30` from thirty digits.
    match wide.get().then(|| wide_integer(text)).flatten() {
        Some(at) => Err(JsonError { reason: format!("integer outside 64 bits at {}", place(text, at)) }),
        None => Ok(value),
    }
}

/// Reads one value that stands `depth` lists and maps deep.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    wide: &'a Cell<bool>,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {JSON_DEPTH_MAX}")));
        }
        Ok(Self { depth: self.depth + 1, wide: self.wide })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(Value::from(int))
    }

    fn visit_u64<E>(self, uint: u64) -> Result<Value, E> {
        Ok(Value::from(uint))
    }

    fn visit_f64<E: serde::de::Error>(self, double: f64) -> Result<Value, E> {
        if double.abs() >= WIDE_FROM {
            self.wide.set(true);
        }
        Number::from_f64(double).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let item = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(item)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let field = self.deeper()?;
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            let value = entries.next_value_seed(field)?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// The place of the first integer that fits neither `i64` nor `u64`, in valid JSON.
fn wide_integer(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_text(bytes, at),
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|b| b"+-.eE0123456789".contains(b)).count();
                let number = &text[at..at + length];
                let is_integer = !number.bytes().any(|b| b".eE".contains(&b));
                if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(at);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// The place behind the text that starts at `start`.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = at - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
    format!("line {line} column {column}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn reason(text: &str) -> String {
        parse(text).expect_err(text).reason
    }

    #[test]
    fn integers_are_exact_over_all_of_64_bits() {
        for text in ["9007199254740993", "-9223372036854775808", "18446744073709551615", "0", "-1"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            parse(r#"{"a":[9007199254740993]}"#).unwrap(),
            json!({ "a": [9_007_199_254_740_993_i64] })
        );
    }

    #[test]
    fn integers_outside_64_bits_are_refused_with_their_place() {
        assert!(reason("18446744073709551616").contains("line 1 column 1"));
        assert!(reason("-9223372036854775809").contains("64 bits"));
        let text = "{\"x\": \"99999999999999999999\\\"\",\n \"y\": 99999999999999999999}";
        assert_eq!(reason(text), "integer outside 64 bits at line 2 column 7");
    }

    #[test]
    fn large_numbers_with_an_exponent_are_no_integers() {
        assert_eq!(parse("1e30").unwrap(), json!(1e30));
        assert_eq!(
            parse("[1E+30, 123456789012345678901.5]").unwrap(),
            json!([1e30, 123_456_789_012_345_680_000.0])
        );
        assert_eq!(parse("1.0").unwrap().to_string(), "1.0");
        assert!(reason("1e400").contains("out of range"));
        assert!(reason("-1e400").contains("out of range"));
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_with_its_place() {
        assert_eq!(reason("{\"a\": 1,\n  \"a\": 2}"), "duplicate key \"a\" at line 2 column 5");
        assert!(reason(r#"[{"b":{"a":1,"\u0061":2}}]"#).contains("duplicate key \"a\""));
        assert!(parse(r#"[{"a":1},{"a":2}]"#).is_ok());
    }

    #[test]
    fn sixty_four_levels_are_read_and_no_more_whatever_the_length() {
        let lists = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let maps = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(parse(&lists(64)).is_ok());
        assert!(parse(&maps(64)).is_ok());
        for n in [65, 127, 128, 10_000, 100_000] {
            assert!(reason(&lists(n)).contains("nested deeper than 64"));
            assert!(reason(&maps(n)).contains("nested deeper than 64"));
            assert!(reason(&"[".repeat(n)).contains("nested deeper than 64"));
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for text in
            ["", " ", "{", "nul", "[1,]", "{\"a\":1,}", "1 2", "'a'", "NaN", "\"\\ud800\"", "01", "\"\n\""]
        {
            assert!(reason(text).contains("line"), "{text}: {}", reason(text));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_json_reads(text in "[\\[\\]{}\":,0-9a-c.eE \\\\-]{0,40}") {
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
