//! JSON in, JSON out: values of CEL that borrow from the documents they come from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use cel::objects::Key;
use serde_json::{Map, Number, Value};

use super::{LIST_MAX_ITEMS, too_long};

/// The parts of a variable that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// All of it.
    Whole,
    /// Only these keys.
    Keys(BTreeMap<String, Want>),
}

impl Want {
    /// Adds the path `keys` to what is wanted.
    pub(super) fn add(&mut self, keys: &[&str]) {
        match (self, keys) {
            (Want::Whole, _) => {}
            (want, []) => *want = Want::Whole,
            (Want::Keys(wanted), [first, rest @ ..]) => {
                wanted.entry((*first).to_owned()).or_insert_with(Want::nothing).add(rest);
            }
        }
    }

    pub(super) fn nothing() -> Self {
        Want::Keys(BTreeMap::new())
    }
}

/// The wanted part of `value` for CEL; texts are borrowed.
pub(super) fn bind_wanted<'v>(value: &'v Value, want: &Want) -> Result<Box<dyn Val + 'v>, String> {
    match (want, value) {
        (Want::Keys(wanted), Value::Object(fields)) => {
            let mut bound = HashMap::with_capacity(wanted.len());
            for (key, want) in wanted {
                if let Some((key, value)) = fields.get_key_value(key) {
                    bound.insert(map_key(key), bind_wanted(value, want)?);
                }
            }
            Ok(Box::new(CelMap::from(bound)))
        }
        (Want::Whole | Want::Keys(_), value) => bind(value),
    }
}

/// A whole document for CEL. Integers become `int` wherever they fit, so that they can be
/// reckoned with literals; `uint` is for what is beyond.
pub(super) fn bind(value: &Value) -> Result<Box<dyn Val + '_>, String> {
    Ok(match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => bind_number(number),
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(list) => {
            check_length(list.len())?;
            Box::new(CelList::from(list.iter().map(bind).collect::<Result<Vec<_>, _>>()?))
        }
        Value::Object(fields) => {
            check_length(fields.len())?;
            let bound = fields.iter().map(|(key, value)| Ok((map_key(key), bind(value)?)));
            Box::new(CelMap::from(bound.collect::<Result<HashMap<_, _>, String>>()?))
        }
    })
}

fn check_length(items: usize) -> Result<(), String> {
    if items > LIST_MAX_ITEMS { Err(too_long(items)) } else { Ok(()) }
}

pub(super) fn map_key(key: &str) -> CelMapKey<'_> {
    CelMapKey::String(CelString::from(key))
}

fn bind_number(number: &Number) -> Box<dyn Val + 'static> {
    if let Some(int) = number.as_i64() {
        Box::new(CelInt::from(int))
    } else if let Some(uint) = number.as_u64() {
        Box::new(CelUInt::from(uint))
    } else {
        Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
    }
}

/// A value of CEL as JSON: integers exact, doubles stay doubles, times and durations as text.
pub(super) fn to_json(value: cel::Value) -> Result<Value, String> {
    use cel::Value as Cel;
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(flag) => Value::Bool(flag),
        Cel::Int(int) => Value::from(int),
        Cel::UInt(uint) => Value::from(uint),
        Cel::Float(double) => Value::Number(finite(double)?),
        Cel::String(text) => Value::String(Arc::unwrap_or_clone(text)),
        Cel::Timestamp(at) => Value::from(at.to_rfc3339()),
        Cel::Duration(span) => Value::from(duration_text(span.num_seconds(), span.subsec_nanos())),
        Cel::List(list) => {
            check_length(list.len())?;
            Value::Array(Arc::unwrap_or_clone(list).into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        Cel::Map(map) => Value::Object(map_to_json(Arc::unwrap_or_clone(map.map))?),
        Cel::Bytes(_) => return Err("bytes have no JSON form; string(…) makes text of them".to_owned()),
        Cel::Function(..) | Cel::Opaque(_) | Cel::Struct(_) => {
            return Err("the value has no JSON form".to_owned());
        }
    })
}

fn finite(double: f64) -> Result<Number, String> {
    Number::from_f64(double).ok_or_else(|| format!("{double} has no JSON form"))
}

fn map_to_json(map: HashMap<Key, cel::Value>) -> Result<Map<String, Value>, String> {
    check_length(map.len())?;
    let mut sorted = BTreeMap::new();
    for (key, value) in map {
        let key = match key {
            Key::String(text) => Arc::unwrap_or_clone(text),
            Key::Int(int) => int.to_string(),
            Key::Uint(uint) => uint.to_string(),
            Key::Bool(flag) => flag.to_string(),
        };
        if let Some(twice) = sorted.insert(key, to_json(value)?) {
            return Err(format!("two keys of a map have the same text (one is for {twice})"));
        }
    }
    Ok(sorted.into_iter().collect())
}

/// Seconds with an `s`, as JSON writes a protobuf `Duration`.
fn duration_text(secs: i64, nanos: i32) -> String {
    let sign = if secs < 0 || nanos < 0 { "-" } else { "" };
    let fraction = format!("{:09}", nanos.unsigned_abs());
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{}s", secs.unsigned_abs()),
        digits => format!("{sign}{}.{digits}s", secs.unsigned_abs()),
    }
}
