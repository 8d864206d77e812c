//! Every form that the JSON mapping of proto3 knows, in and out.

use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use serde_json::json;

use super::super::{request, response};
use super::service::compile;
use crate::participant::outcome::OUTPUT_MAX_BYTES;
use crate::saga::json::Json;

const FORMS: &str = r#"
syntax = "proto3";
package forms;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Color { COLOR_UNSPECIFIED = 0; RED = 1; }

message Inner { int64 item_id = 1; Inner inner = 2; }

message All {
  int32 i32 = 1; sint32 s32 = 2; uint32 u32 = 3; fixed32 f32 = 4; sfixed32 sf32 = 5;
  int64 i64 = 6; sint64 s64 = 7; uint64 u64 = 8; fixed64 f64 = 9; sfixed64 sf64 = 10;
  float single = 11; double twice = 12; bool yes = 13; string text = 14; bytes raw = 15;
  Color color = 16; Inner inner = 17; repeated int64 list = 18; map<string, Inner> by_name = 19;
  map<int64, string> by_number = 20; map<bool, Color> by_truth = 21;
  oneof choice { string left = 22; int64 right = 23; Inner middle = 24; }
  optional int32 perhaps = 25;
  google.protobuf.Timestamp at = 26; google.protobuf.Duration span = 27;
  google.protobuf.FieldMask mask = 28; google.protobuf.Struct tree = 29;
  google.protobuf.Value anything = 30; google.protobuf.ListValue things = 31;
  google.protobuf.Int64Value big = 32; google.protobuf.StringValue word = 33;
  google.protobuf.FloatValue small = 34; google.protobuf.BoolValue flag = 35;
  google.protobuf.BytesValue blob = 36; google.protobuf.UInt64Value most = 37;
  google.protobuf.Any any = 38; google.protobuf.Empty nothing = 39;
  google.protobuf.NullValue nil = 40; string other_name = 41 [json_name = "renamed"];
}
"#;

const OLD: &str = r#"
syntax = "proto2";
package old;
message Order {
  required string id = 1;
  optional int32 count = 2 [default = 7];
  repeated group Line = 3 { required int64 item_id = 1; }
  extensions 100 to 199;
}
extend Order { optional string note = 100; }
"#;

fn message(text: &str, name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(&*compile(&[("sample.proto", text)])).unwrap();
    pool.get_message_by_name(name).unwrap()
}

fn all() -> MessageDescriptor {
    message(FORMS, "forms.All")
}

fn encode(message: &MessageDescriptor, text: &str) -> Result<Vec<u8>, String> {
    request::message(message, &Json::parse(text).unwrap()).map(|request| request.encode_to_vec())
}

fn decode(message: &MessageDescriptor, bytes: &[u8]) -> Result<serde_json::Value, String> {
    response::json(&response::read(message, bytes)?)
}

/// What comes back of `text` when the service answers what it was asked, only what is set.
fn echo(message: &MessageDescriptor, text: &str) -> serde_json::Value {
    let bytes = encode(message, text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let mut tree = decode(message, &bytes).unwrap();
    let empty = decode(message, &[]).unwrap();
    let members = tree.as_object_mut().unwrap();
    members.retain(|name, value| empty.get(name) != Some(value));
    tree
}

#[test]
fn every_form_comes_back_as_it_is_meant() {
    let cases = [
        (
            r#"{"i32":-1,"s32":-2,"u32":4294967295,"f32":3,"sf32":-4}"#,
            json!({"i32":-1,"s32":-2,"u32":4_294_967_295_u32,"f32":3,"sf32":-4}),
        ),
        (
            r#"{"i64":9007199254740993,"s64":"-9007199254740993"}"#,
            json!({"i64":9_007_199_254_740_993_i64,"s64":-9_007_199_254_740_993_i64}),
        ),
        (
            r#"{"u64":18446744073709551615,"f64":"18446744073709551615"}"#,
            json!({"u64":u64::MAX,"f64":u64::MAX}),
        ),
        (r#"{"sf64":-9223372036854775808}"#, json!({"sf64":i64::MIN})),
        (r#"{"i32":"12","u32":1e3,"i64":2.0}"#, json!({"i32":12,"u32":1000,"i64":2})),
        (r#"{"single":0.1,"twice":0.1}"#, json!({"single":0.1,"twice":0.1})),
        (r#"{"single":"NaN","twice":"-Infinity"}"#, json!({"single":"NaN","twice":"-Infinity"})),
        (r#"{"twice":"1.5","single":3}"#, json!({"twice":1.5,"single":3.0})),
        (r#"{"yes":true,"text":"주문"}"#, json!({"yes":true,"text":"주문"})),
        (r#"{"raw":"+/8="}"#, json!({"raw":"+/8="})),
        (r#"{"raw":"-_8"}"#, json!({"raw":"+/8="})),
        (r#"{"color":"RED"}"#, json!({"color":"RED"})),
        (r#"{"color":1}"#, json!({"color":"RED"})),
        (r#"{"color":7}"#, json!({"color":7})),
        (
            r#"{"inner":{"itemId":5,"inner":{"item_id":"6"}}}"#,
            json!({"inner":{"itemId":5,"inner":{"itemId":6}}}),
        ),
        (r#"{"list":[1,"2"]}"#, json!({"list":[1,2]})),
        (r#"{"byName":{"b":{"itemId":1},"a":{}}}"#, json!({"byName":{"a":{"itemId":0},"b":{"itemId":1}}})),
        (
            r#"{"byNumber":{"9007199254740993":"x"},"byTruth":{"true":"RED"}}"#,
            json!({"byNumber":{"9007199254740993":"x"},"byTruth":{"true":"RED"}}),
        ),
        (r#"{"left":""}"#, json!({"left":""})),
        (r#"{"right":0,"left":null}"#, json!({"right":0})),
        (r#"{"middle":{}}"#, json!({"middle":{"itemId":0}})),
        (r#"{"perhaps":0}"#, json!({"perhaps":0})),
        (r#"{"at":"2026-11-23T14:00:00.123456789Z"}"#, json!({"at":"2026-11-23T14:00:00.123456789Z"})),
        (r#"{"at":"2026-11-23T15:00:00+01:00"}"#, json!({"at":"2026-11-23T14:00:00Z"})),
        (r#"{"span":"1.5s"}"#, json!({"span":"1.500s"})),
        (r#"{"mask":"itemId,inner.itemId"}"#, json!({"mask":"itemId,inner.itemId"})),
        (
            r#"{"tree":{"n":1,"x":1.5,"l":[null,true,{"a":"b"}]}}"#,
            json!({"tree":{"n":1,"x":1.5,"l":[null,true,{"a":"b"}]}}),
        ),
        (r#"{"anything":null}"#, json!({"anything":null})),
        (r#"{"anything":[1],"things":[2,"x"]}"#, json!({"anything":[1],"things":[2,"x"]})),
        (
            r#"{"big":"9007199254740993","most":18446744073709551615}"#,
            json!({"big":9_007_199_254_740_993_i64,"most":u64::MAX}),
        ),
        (
            r#"{"word":"","flag":false,"small":0.1,"blob":"AA=="}"#,
            json!({"word":"","flag":false,"small":0.1,"blob":"AA=="}),
        ),
        (r#"{"nothing":{}}"#, json!({"nothing":{}})),
        (r#"{"renamed":"x"}"#, json!({"renamed":"x"})),
        (r#"{"other_name":"x"}"#, json!({"renamed":"x"})),
        (
            r#"{"any":{"@type":"type.googleapis.com/forms.Inner","itemId":3}}"#,
            json!({"any":{"@type":"type.googleapis.com/forms.Inner","itemId":3}}),
        ),
        (
            r#"{"any":{"itemId":3,"@type":"type.googleapis.com/forms.Inner"}}"#,
            json!({"any":{"@type":"type.googleapis.com/forms.Inner","itemId":3}}),
        ),
        (
            r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}"#,
            json!({"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}),
        ),
    ];
    let all = all();
    for (given, expected) in cases {
        assert_eq!(echo(&all, given), expected, "{given}");
    }
}

#[test]
fn null_is_the_same_as_nothing_in_every_field_but_the_two_that_mean_it() {
    let all = all();
    let nulls: serde_json::Map<_, _> =
        all.fields().map(|field| (field.json_name().to_owned(), json!(null))).collect();
    let text = serde_json::Value::Object(nulls).to_string();
    assert_eq!(echo(&all, &text), json!({"anything": null}));
    assert!(encode(&all, "null").unwrap().is_empty());
}

#[test]
fn a_request_is_what_any_other_client_would_send() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Same {
        #[prost(int64, tag = "6")]
        i64: i64,
        #[prost(string, tag = "14")]
        text: String,
        #[prost(message, optional, tag = "26")]
        at: Option<prost_types::Timestamp>,
        #[prost(int64, repeated, tag = "18")]
        list: Vec<i64>,
    }
    let bytes =
        encode(&all(), r#"{"i64":-1,"text":"x","at":"1970-01-01T00:00:01.5Z","list":[1,2]}"#).unwrap();
    let at = Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
    let expected = Same { i64: -1, text: "x".to_owned(), at, list: vec![1, 2] };
    assert_eq!(Same::decode(&*bytes).unwrap(), expected);
}

#[test]
fn what_does_not_fit_is_told_with_the_fields_there_are() {
    let all = all();
    let cases = [
        (r#"{"i46":1}"#, "unrecognized field name 'i46'"),
        (r#"{"i32":2147483648}"#, "out of range"),
        (r#"{"i32":1.5}"#, "expected integer"),
        (r#"{"i32":true}"#, "invalid type: boolean"),
        (r#"{"text":1}"#, "expected a string"),
        (r#"{"yes":"true"}"#, "expected a boolean"),
        (r#"{"color":"BLUE"}"#, "unrecognized enum value 'BLUE'"),
        (r#"{"raw":"!"}"#, "invalid base64"),
        (r#"{"at":"yesterday"}"#, "timestamp"),
        (r#"{"left":"a","right":1}"#, "oneof 'choice'"),
        (r#"{"list":1}"#, "expected a list"),
        (r#"{"inner":[]}"#, "expected a map"),
        (r#"{"any":{"@type":"type.googleapis.com/forms.Lost"}}"#, "'forms.Lost' not found"),
        ("[1]", "expected a map"),
    ];
    for (given, expected) in cases {
        let problem = encode(&all, given).unwrap_err();
        assert!(problem.contains(expected), "{given}: {problem}");
        assert!(
            problem.contains("the input is no forms.All") && problem.contains("its fields: i32, s32"),
            "{problem}"
        );
    }
}

#[test]
fn a_field_without_presence_is_there_with_its_zero_and_one_with_presence_is_not() {
    let empty = decode(&all(), &[]).unwrap();
    for (name, zero) in [
        ("i64", json!(0)),
        ("text", json!("")),
        ("yes", json!(false)),
        ("color", json!("COLOR_UNSPECIFIED")),
        ("list", json!([])),
        ("byName", json!({})),
        ("raw", json!("")),
        ("twice", json!(0.0)),
    ] {
        assert_eq!(empty[name], zero, "{name}");
    }
    for name in ["inner", "perhaps", "left", "right", "at", "big", "any", "tree"] {
        assert!(empty.get(name).is_none(), "{name}");
    }
}

#[test]
fn an_any_of_an_unknown_type_is_kept_as_its_bytes() {
    let lost = prost_types::Any { type_url: "type.googleapis.com/other.Lost".to_owned(), value: vec![8, 1] };
    let mut bytes = Vec::new();
    prost::encoding::message::encode(38, &lost, &mut bytes);
    let tree = decode(&all(), &bytes).unwrap();
    assert_eq!(tree["any"], json!({"@type": "type.googleapis.com/other.Lost", "value": "CAE="}));
    assert_eq!(response::unknown_anys(&response::read(&all(), &bytes).unwrap()), ["other.Lost"]);
}

#[test]
fn a_service_of_proto2_has_required_fields_groups_defaults_and_extensions() {
    let order = message(OLD, "old.Order");
    let given = r#"{"id":"o-1","line":[{"itemId":5}],"[old.note]":"quick"}"#;
    let bytes = encode(&order, given).unwrap();
    let tree = decode(&order, &bytes).unwrap();
    assert_eq!(tree, json!({"id":"o-1","line":[{"itemId":5}],"[old.note]":"quick"}));
    assert!(encode(&order, "{}").unwrap_err().contains("required field id is missing"));
    let below = encode(&order, r#"{"id":"o-1","line":[{}]}"#).unwrap_err();
    assert!(below.contains("required field line.item_id is missing"), "{below}");
}

#[test]
fn bytes_that_are_no_message_are_no_output() {
    let problem = decode(&all(), b"\xff\xff\xff").unwrap_err();
    assert!(problem.contains("the response is no forms.All"), "{problem}");
}

#[test]
fn a_response_is_read_to_a_bounded_depth() {
    let nested = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            let mut outer = Vec::new();
            prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, &mut outer);
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(bytes);
            bytes = outer;
        }
        bytes
    };
    let inner = message(FORMS, "forms.Inner");
    assert!(decode(&inner, &nested(60)).is_ok());
    for levels in [80, 200, 10_000] {
        assert!(decode(&inner, &nested(levels)).is_err());
    }
}

#[test]
fn a_response_is_written_up_to_the_limit_of_an_output_and_no_further() {
    const NOTE: &str = r#"syntax = "proto3"; package note; message Note { string text = 1; }"#;
    let note = message(NOTE, "note.Note");
    // Its first field is a string too.
    let with = |length: usize| prost_types::Any { type_url: "x".repeat(length), value: Vec::new() };
    let most = OUTPUT_MAX_BYTES - r#"{"text":""}"#.len();
    let written = decode(&note, &with(most).encode_to_vec()).unwrap();
    assert_eq!(written.to_string().len(), OUTPUT_MAX_BYTES);
    let problem = decode(&note, &with(most + 1).encode_to_vec()).unwrap_err();
    assert!(problem.contains("over the limit of 1048576"), "{problem}");
}

#[test]
fn a_short_response_that_becomes_a_long_text_is_given_up_on_the_way() {
    const CART: &str = r#"
syntax = "proto3";
package cart;
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
message Item { string a_name_that_goes_on_and_on = 1; repeated int64 numbers = 2; }
message Cart {
  repeated Item items = 1; map<int32, Item> by_number = 2; repeated google.protobuf.Timestamp times = 3;
  repeated google.protobuf.Any any = 4; repeated bool flags = 5;
}
"#;
    let cart = message(CART, "cart.Cart");
    let item = prost_types::Any { type_url: "x/cart.Item".to_owned(), value: Vec::new() };
    let any = [b"\x22".to_vec(), item.encode_length_delimited_to_vec()].concat();
    let entry = |n: u64| {
        let mut key = Vec::new();
        prost::encoding::encode_varint(n, &mut key);
        [b"\x12\x06\x08", &*key, b"\x12\0"].concat()
    };
    // Keys of three bytes.
    let entries = (20_000..50_000).flat_map(entry).collect();
    let flags = [b"\x2a\x80\x80\x20".to_vec(), vec![0; 512 * 1024]].concat();
    let cases = [
        ("items", b"\x0a\0".repeat(100_000)),
        ("by number", entries),
        ("times", b"\x1a\0".repeat(100_000)),
        ("any", any.repeat(20_000)),
        ("flags", flags),
    ];
    for (name, bytes) in cases {
        assert!(bytes.len() < OUTPUT_MAX_BYTES, "{name} fits on its way here");
        let problem = decode(&cart, &bytes).map(|tree| tree.to_string().len()).unwrap_err();
        assert!(problem.contains("over the limit of 1048576"), "{name}: {problem}");
    }
}

#[test]
fn the_types_that_an_input_names_are_found_wherever_they_stand() {
    let input = Json::parse(r#"{"a":[{"@type":"x/one.A","b":{"@type":"y/two.B"}}],"@type":3}"#).unwrap();
    let mut found = request::any_types(&input);
    found.sort();
    assert_eq!(found, ["one.A", "two.B"]);
    assert!(request::any_types(&Json::parse(r#"{"type":"x"}"#).unwrap()).is_empty());
}

#[test]
fn an_any_in_an_any_and_so_on_ends_somewhere() {
    let mut any = prost_types::Any::default();
    for _ in 0..2_000 {
        let type_url = "type.googleapis.com/google.protobuf.Any".to_owned();
        any = prost_types::Any { type_url, value: any.encode_to_vec() };
    }
    let mut bytes = Vec::new();
    prost::encoding::message::encode(38, &any, &mut bytes);
    assert!(decode(&all(), &bytes).unwrap_err().contains("nested deeper than 64"));
    assert!(response::unknown_anys(&response::read(&all(), &bytes).unwrap()).is_empty());
}
