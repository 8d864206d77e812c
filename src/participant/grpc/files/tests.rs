//! Files as servers give them.

use prost_types::FileDescriptorSet;

use super::*;
use crate::participant::grpc::tests::service::compile;
use prost::Message as _;

const TWO: [(&str, &str); 2] = [
    (
        "shop/stock.proto",
        r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "common/money.proto";
message Stock { common.Money price = 1; google.protobuf.Timestamp at = 2; Color color = 3; enum Color { NONE = 0; } }
service Stocks { rpc Get(Stock) returns (Stock); }
"#,
    ),
    ("common/money.proto", "syntax = \"proto3\"; package common; message Money { int64 units = 1; }"),
];

fn protos() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(&*compile(&TWO)).unwrap().file
}

fn named(name: &str) -> FileDescriptorProto {
    protos().into_iter().find(|file| file.name() == name).unwrap()
}

fn with(files: &[FileDescriptorProto]) -> Files {
    let mut all = Files::default();
    for file in files {
        all.add(&file.encode_to_vec()).unwrap();
    }
    all
}

#[test]
fn what_is_missing_is_named_by_import_and_by_type() {
    let files = with(&[named("shop/stock.proto")]);
    let missing = files.missing();
    assert_eq!(Vec::from_iter(missing.imports), ["common/money.proto", "google/protobuf/timestamp.proto"]);
    assert_eq!(Vec::from_iter(missing.types), ["common.Money", "google.protobuf.Timestamp"]);
    assert!(files.pool().unwrap_err().contains("is not to be had"));
}

#[test]
fn the_files_of_every_compiler_need_not_be_sent() {
    let mut files = with(&[named("shop/stock.proto"), named("common/money.proto")]);
    assert!(files.add_well_known("google/protobuf/timestamp.proto"));
    assert!(!files.add_well_known("google/type/money.proto"));
    assert_eq!(files.missing(), Missing::default());
    assert!(files.pool().unwrap().get_service_by_name("shop.Stocks").is_some());
}

#[test]
fn a_file_under_another_path_than_the_import_is_found_by_its_types() {
    let mut money = named("common/money.proto");
    money.name = Some("money.proto".to_owned());
    let mut files = with(&[named("shop/stock.proto"), money]);
    files.add_well_known("google/protobuf/timestamp.proto");
    assert!(files.missing().types.is_empty());
    assert!(files.pool().is_ok());
}

#[test]
fn the_same_file_twice_or_under_two_names_is_one() {
    let mut twin = named("common/money.proto");
    twin.name = Some("vendor/common/money.proto".to_owned());
    let files = with(&[named("common/money.proto"), named("common/money.proto"), twin]);
    assert_eq!(files.by_name.len(), 1);
    assert!(files.pool().is_ok());
}

#[test]
fn names_may_be_relative() {
    let mut stock = named("shop/stock.proto");
    stock.service[0].method[0].input_type = Some("Stock".to_owned());
    stock.message_type[0].field[2].type_name = Some("Color".to_owned());
    let mut files = with(&[stock, named("common/money.proto")]);
    files.add_well_known("google/protobuf/timestamp.proto");
    let pool = files.pool().unwrap();
    assert!(pool.get_message_by_name("shop.Stock").unwrap().get_field_by_name("color").is_some());
}

#[test]
fn an_import_that_nothing_uses_is_not_missed() {
    let mut money = named("common/money.proto");
    money.dependency.push("gogoproto/gogo.proto".to_owned());
    assert!(with(&[money]).pool().is_ok());
}

#[test]
fn an_extension_of_what_is_not_there_is_left_out() {
    let mut money = named("common/money.proto");
    money.extension.push(FieldDescriptorProto {
        name: Some("quick".to_owned()),
        number: Some(5_000),
        extendee: Some(".lost.Options".to_owned()),
        r#type: Some(prost_types::field_descriptor_proto::Type::Bool.into()),
        label: Some(prost_types::field_descriptor_proto::Label::Optional.into()),
        ..FieldDescriptorProto::default()
    });
    assert!(with(&[money]).pool().is_ok());
}

#[test]
fn files_are_bounded_in_bytes() {
    let mut files = Files { bytes: FILES_MAX_BYTES, ..Files::default() };
    let problem = files.add(&named("common/money.proto").encode_to_vec()).unwrap_err();
    assert!(problem.contains("more than 16777216 bytes"), "{problem}");
    assert!(Files::default().add(b"\xff\xff").unwrap_err().contains("cannot be read"));
}

#[test]
fn files_that_no_compiler_writes_are_refused_and_panic_nowhere() {
    let mut unknown = named("common/money.proto");
    unknown.syntax = Some("proto9".to_owned());
    assert!(with(&[unknown]).pool().unwrap_err().contains("\"proto9\""));
    let mut empty = named("common/money.proto");
    empty.syntax = Some(String::new());
    assert!(with(&[empty]).pool().unwrap().get_message_by_name("common.Money").is_some());
    let mut entry = named("common/money.proto");
    let options = prost_types::MessageOptions { map_entry: Some(true), ..Default::default() };
    entry.message_type[0].nested_type =
        vec![DescriptorProto { name: Some("Odd".to_owned()), options: Some(options), ..Default::default() }];
    assert!(with(&[entry]).pool().unwrap_err().contains("Odd is the entry of a map"));
}
