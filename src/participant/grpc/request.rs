//! JSON → request, by the JSON mapping of proto3.
//!
//! Numbers never pass through a float on the way to a whole number: the message is read straight from
//! the document's text.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

use super::types::listed;
use crate::saga::json::Json;

/// Largest request, in bytes.
pub(super) const REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The member that names the type of a `google.protobuf.Any`.
const TYPE: &str = "@type";

/// The request for `input`; no input at all is the empty message.
///
/// # Errors
/// Why there is no such request: a field that the message does not have, a value of another type, a
/// required field that is missing; that it is too large.
pub(super) fn message(of: &MessageDescriptor, input: &Json) -> Result<DynamicMessage, String> {
    let request = read(of, input)
        .map_err(|problem| format!("the input is no {}: {problem}; {}", of.full_name(), fields(of)))?;
    if let Some(field) = missing_required(&request) {
        return Err(format!("the input is no {}: the required field {field} is missing", of.full_name()));
    }
    let length = request.encoded_len();
    if length > REQUEST_MAX_BYTES {
        return Err(format!("the request has {length} bytes, over the limit of {REQUEST_MAX_BYTES}"));
    }
    Ok(request)
}

fn read(message: &MessageDescriptor, input: &Json) -> Result<DynamicMessage, String> {
    if input.value().is_null() {
        return Ok(DynamicMessage::new(message.clone()));
    }
    let mut text = serde_json::Deserializer::from_str(input.text());
    let request =
        DynamicMessage::deserialize(message.clone(), &mut text).map_err(|error| error.to_string())?;
    text.end().map_err(|error| error.to_string())?;
    Ok(request)
}

fn fields(message: &MessageDescriptor) -> String {
    let names: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    format!("its fields: {}", listed(names))
}

/// The first required field (proto2) that is not set, by its path.
fn missing_required(message: &DynamicMessage) -> Option<String> {
    let unset = message.descriptor().fields().find(|field| field.is_required() && !message.has_field(field));
    if let Some(field) = unset {
        return Some(field.name().to_owned());
    }
    let below = |field: &FieldDescriptor, value: &Value| {
        match value {
            Value::Message(inner) => missing_required(inner),
            Value::List(list) => list.iter().filter_map(Value::as_message).find_map(missing_required),
            Value::Map(map) => map.values().filter_map(Value::as_message).find_map(missing_required),
            _ => None,
        }
        .map(|path| format!("{}.{path}", field.name()))
    };
    message
        .fields()
        .filter(|(field, _)| matches!(field.kind(), Kind::Message(_)))
        .find_map(|(field, value)| below(&field, value))
}

/// The types named by `@type` anywhere in the input.
pub(super) fn any_types(input: &Json) -> Vec<String> {
    // Most inputs have none, and need not be walked.
    if !input.text().contains(TYPE) {
        return Vec::new();
    }
    let (mut found, mut open) = (Vec::new(), vec![input.value()]);
    while let Some(value) = open.pop() {
        match value {
            serde_json::Value::Object(members) => {
                if let Some(serde_json::Value::String(url)) = members.get(TYPE) {
                    found.push(type_name(url).to_owned());
                }
                open.extend(members.values());
            }
            serde_json::Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

/// The full name behind the last slash of a type's URL.
pub(super) fn type_name(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}
