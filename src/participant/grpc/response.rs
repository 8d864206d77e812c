//! Response → JSON, by the JSON mapping of proto3, with three choices where it leaves some:
//!
//! - Whole numbers of 64 bits are JSON numbers, exact like all numbers here, so that expressions can
//!   count with them.
//! - A field without presence is always there, with its zero if need be: `${steps.count.total}` is 0 and
//!   not null. A field with presence (a message, `optional`, one of a `oneof`, proto2) is there when set.
//! - An `Any` of a type that nobody can tell is kept as `{"@type": …, "value": base64}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use serde_json::{Map, Value as Tree};

use super::request::type_name;
use crate::participant::outcome::OUTPUT_MAX_BYTES;
use crate::saga::json::JSON_DEPTH_MAX;

const EXACT: SerializeOptions = SerializeOptions::new().stringify_64_bit_integers(false);
/// Whole numbers up to here are exact as floats.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

const ANY: &str = "google.protobuf.Any";
/// Messages whose JSON is not an object with their fields.
const OF_THEIR_OWN: [&str; 16] = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.Empty",
    "google.protobuf.DoubleValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
    FLOAT_VALUE,
    STRUCT,
    LIST_VALUE,
    VALUE,
];
const FLOAT_VALUE: &str = "google.protobuf.FloatValue";
const STRUCT: &str = "google.protobuf.Struct";
const LIST_VALUE: &str = "google.protobuf.ListValue";
const VALUE: &str = "google.protobuf.Value";

/// Reads a response.
///
/// # Errors
/// It is no such message.
pub(super) fn read(message: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, String> {
    DynamicMessage::decode(message.clone(), bytes)
        .map_err(|error| format!("the response is no {}: {error}", message.full_name()))
}

/// Writes it as JSON, as far as an output may go: two bytes of a response can become an object with all
/// fields of its type.
///
/// # Errors
/// It has a value that JSON cannot say, is nested too deep or has too long a text.
pub(super) fn json(response: &DynamicMessage) -> Result<Tree, String> {
    tree(response, 0, &mut Room(OUTPUT_MAX_BYTES))
        .map_err(|problem| format!("the response cannot be written as JSON: {problem}"))
}

/// How many bytes of JSON may still be written. What is taken off is never more than what the text
/// has in the end (escapes do not count), so nothing is given up that fits.
struct Room(usize);

impl Room {
    /// What stands around a value in a list: a comma or the first bracket.
    const ITEM: usize = 1;
    /// What stands around a value in an object beside its name: that, two quotes and a colon.
    const MEMBER: usize = Self::ITEM + 3;
    /// What is left of the brackets: the one that closes.
    const CLOSE: usize = 1;

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| format!("its text is over the limit of {OUTPUT_MAX_BYTES} bytes"))?;
        Ok(())
    }

    /// A member's name, with the punctuation around it.
    fn take_name(&mut self, name: &str) -> Result<(), String> {
        self.take(Self::MEMBER + name.len())
    }

    /// A value that is written already.
    fn hold(&mut self, written: Tree) -> Result<Tree, String> {
        self.take(match &written {
            Tree::String(text) => text.len() + 2,
            other => other.to_string().len(),
        })?;
        Ok(written)
    }
}

/// The types of all `Any`s in it that its pool does not have.
pub(super) fn unknown_anys(response: &DynamicMessage) -> Vec<String> {
    let mut found = Vec::new();
    find_anys(response, 0, &mut found);
    found
}

fn find_anys(message: &DynamicMessage, depth: usize, found: &mut Vec<String>) {
    // Deeper ones are not written either. An `Any` in an `Any` is decoded at each level.
    if depth > JSON_DEPTH_MAX {
        return;
    }
    let descriptor = message.descriptor();
    if descriptor.full_name() == ANY {
        let (url, bytes) = any_parts(message);
        let name = type_name(&url);
        match descriptor.parent_pool().get_message_by_name(name) {
            Some(inner) => {
                if let Ok(inner) = DynamicMessage::decode(inner, &*bytes) {
                    find_anys(&inner, depth + 1, found);
                }
            }
            None if !name.is_empty() => found.push(name.to_owned()),
            None => {}
        }
        return;
    }
    for (_, value) in message.fields() {
        match value {
            Value::Message(inner) => find_anys(inner, depth + 1, found),
            Value::List(list) => {
                list.iter()
                    .filter_map(Value::as_message)
                    .for_each(|inner| find_anys(inner, depth + 1, found));
            }
            Value::Map(map) => {
                map.values()
                    .filter_map(Value::as_message)
                    .for_each(|inner| find_anys(inner, depth + 1, found));
            }
            _ => {}
        }
    }
}

fn tree(message: &DynamicMessage, depth: usize, room: &mut Room) -> Result<Tree, String> {
    if depth > JSON_DEPTH_MAX {
        return Err(format!("it is nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        ANY => any(message, depth, room),
        FLOAT_VALUE => {
            let number = message.get_field_by_number(1).and_then(|number| number.as_f32());
            value(&Value::F32(number.unwrap_or_default()), &Kind::Float, depth, room)
        }
        name if OF_THEIR_OWN.contains(&name) => {
            let written = message.serialize_with_options(serde_json::value::Serializer, &EXACT);
            let written = written.map_err(|error| error.to_string())?;
            let is_tree = [STRUCT, LIST_VALUE, VALUE].contains(&name);
            room.hold(if is_tree { whole_again(written) } else { written })
        }
        _ => Ok(Tree::Object(object(message, depth, room)?)),
    }
}

fn object(message: &DynamicMessage, depth: usize, room: &mut Room) -> Result<Map<String, Tree>, String> {
    room.take(Room::CLOSE)?;
    let mut members = Map::new();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        room.take_name(field.json_name())?;
        let written = value(&message.get_field(&field), &field.kind(), depth + 1, room)?;
        members.insert(field.json_name().to_owned(), written);
    }
    for (extension, set) in message.extensions() {
        room.take_name(extension.json_name())?;
        let written = value(set, &extension.kind(), depth + 1, room)?;
        members.insert(extension.json_name().to_owned(), written);
    }
    Ok(members)
}

fn value(value: &Value, kind: &Kind, depth: usize, room: &mut Room) -> Result<Tree, String> {
    let scalar = match value {
        Value::Bool(value) => Tree::from(*value),
        Value::I32(value) => Tree::from(*value),
        Value::I64(value) => Tree::from(*value),
        Value::U32(value) => Tree::from(*value),
        Value::U64(value) => Tree::from(*value),
        // By its shortest digits: 0.1 stays 0.1.
        Value::F32(value) if value.is_finite() => value.to_string().parse::<f64>().map_or(Tree::Null, float),
        Value::F32(value) => float(f64::from(*value)),
        Value::F64(value) => float(*value),
        Value::String(value) => Tree::from(value.as_str()),
        Value::Bytes(value) => Tree::from(STANDARD.encode(value)),
        Value::EnumNumber(number) => named(*number, kind),
        Value::Message(message) => return tree(message, depth, room),
        Value::List(list) => {
            room.take(Room::CLOSE)?;
            let items = list.iter().map(|item| {
                room.take(Room::ITEM)?;
                self::value(item, kind, depth + 1, room)
            });
            return Ok(Tree::Array(items.collect::<Result<_, String>>()?));
        }
        Value::Map(map) => {
            let Kind::Message(entry) = kind else { return Err("a map is not made of entries".to_owned()) };
            let kind = entry.map_entry_value_field().kind();
            room.take(Room::CLOSE)?;
            let entries = map.iter().map(|(key, item)| {
                let key = key_text(key);
                room.take_name(&key)?;
                Ok((key, self::value(item, &kind, depth + 1, room)?))
            });
            return Ok(Tree::Object(entries.collect::<Result<_, String>>()?));
        }
    };
    room.hold(scalar)
}

fn float(value: f64) -> Tree {
    match serde_json::Number::from_f64(value) {
        Some(number) => Tree::Number(number),
        None if value.is_nan() => Tree::from("NaN"),
        None if value > 0.0 => Tree::from("Infinity"),
        None => Tree::from("-Infinity"),
    }
}

/// An enum's value by its name; one that this version of the type does not have by its number.
fn named(number: i32, kind: &Kind) -> Tree {
    match kind {
        Kind::Enum(one) if one.full_name() == "google.protobuf.NullValue" => Tree::Null,
        Kind::Enum(one) => one.get_value(number).map_or(Tree::from(number), |value| Tree::from(value.name())),
        _ => Tree::from(number),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn any(message: &DynamicMessage, depth: usize, room: &mut Room) -> Result<Tree, String> {
    let (url, bytes) = any_parts(message);
    if url.is_empty() && bytes.is_empty() {
        return room.hold(Tree::Object(Map::new()));
    }
    let mut members = Map::new();
    let known = message.descriptor().parent_pool().get_message_by_name(type_name(&url));
    room.take_name("@type")?;
    let url = room.hold(Tree::from(url))?;
    match known.and_then(|inner| DynamicMessage::decode(inner, &*bytes).ok()) {
        Some(inner) if !is_of_its_own(&inner) => members = object(&inner, depth + 1, room)?,
        inner => {
            room.take(Room::CLOSE)?;
            room.take_name("value")?;
            let written = match inner {
                Some(inner) => tree(&inner, depth + 1, room)?,
                None => room.hold(Tree::from(STANDARD.encode(&bytes)))?,
            };
            members.insert("value".to_owned(), written);
        }
    }
    members.insert("@type".to_owned(), url);
    Ok(Tree::Object(members))
}

fn is_of_its_own(message: &DynamicMessage) -> bool {
    let descriptor = message.descriptor();
    descriptor.full_name() == ANY || OF_THEIR_OWN.contains(&descriptor.full_name())
}

/// The type's URL and the encoded message.
fn any_parts(message: &DynamicMessage) -> (String, Vec<u8>) {
    let url = message.get_field_by_number(1).and_then(|url| url.as_str().map(str::to_owned));
    let bytes = message.get_field_by_number(2).and_then(|bytes| bytes.as_bytes().map(|bytes| bytes.to_vec()));
    (url.unwrap_or_default(), bytes.unwrap_or_default())
}

/// All numbers of a `Struct` are floats; those that went in whole come out whole.
fn whole_again(tree: Tree) -> Tree {
    match tree {
        Tree::Number(number) => match number.as_f64() {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and within the range, as was just checked"
            )]
            Some(float) if float.fract() == 0.0 && float.abs() <= WHOLE_MAX => Tree::from(float as i64),
            _ => Tree::Number(number),
        },
        Tree::Array(items) => Tree::Array(items.into_iter().map(whole_again).collect()),
        Tree::Object(members) => {
            Tree::Object(members.into_iter().map(|(name, value)| (name, whole_again(value))).collect())
        }
        other => other,
    }
}
