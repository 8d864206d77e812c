//! Files of an edition (2023 and later), written as the proto3 file that means the same on the wire.
//!
//! An edition says of each field what "proto2" and "proto3" say of a whole file: by features, which are
//! inherited from the file to its messages to their fields. Only three of them matter to whoever writes
//! and reads messages: presence, packing, and whether a message stands between brackets.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FieldOptions, FileDescriptorProto};

const EXPLICIT: i32 = 1;
const LEGACY_REQUIRED: i32 = 3;
const EXPANDED: i32 = 2;
const DELIMITED: i32 = 2;

/// What of a `google.protobuf.FeatureSet` matters here; 0 is not said.
#[derive(Clone, Copy, PartialEq, Message)]
struct Features {
    #[prost(int32, tag = "1")]
    presence: i32,
    #[prost(int32, tag = "3")]
    repeated: i32,
    #[prost(int32, tag = "5")]
    encoding: i32,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "12")]
    syntax: String,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<OfMessage>,
    #[prost(message, repeated, tag = "7")]
    extensions: Vec<OfField>,
    #[prost(message, optional, tag = "8")]
    options: Option<FileFeatures>,
}

#[derive(Clone, PartialEq, Message)]
struct OfMessage {
    #[prost(message, repeated, tag = "2")]
    fields: Vec<OfField>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<OfMessage>,
    #[prost(message, repeated, tag = "6")]
    extensions: Vec<OfField>,
    #[prost(message, optional, tag = "7")]
    options: Option<MessageFeatures>,
}

#[derive(Clone, PartialEq, Message)]
struct OfField {
    #[prost(message, optional, tag = "8")]
    options: Option<FieldFeatures>,
}

/// The same feature set stands at a number of its own in each kind of options.
#[derive(Clone, PartialEq, Message)]
struct FileFeatures {
    #[prost(message, optional, tag = "50")]
    features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
struct MessageFeatures {
    #[prost(message, optional, tag = "12")]
    features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldFeatures {
    #[prost(message, optional, tag = "21")]
    features: Option<Features>,
}

impl Features {
    /// What holds unless a file says otherwise.
    const DEFAULT: Self = Self { presence: EXPLICIT, repeated: 1, encoding: 1 };

    fn with(self, own: Option<Self>) -> Self {
        let Some(own) = own else { return self };
        let or = |own: i32, inherited: i32| if own == 0 { inherited } else { own };
        Self {
            presence: or(own.presence, self.presence),
            repeated: or(own.repeated, self.repeated),
            encoding: or(own.encoding, self.encoding),
        }
    }
}

/// Reads a file; one of an edition is rewritten.
///
/// # Errors
/// The bytes are no file descriptor.
pub(super) fn decode(bytes: &[u8]) -> Result<FileDescriptorProto, prost::DecodeError> {
    let mut file = FileDescriptorProto::decode(bytes)?;
    if file.syntax() == "editions" {
        rewrite(&mut file, &File::decode(bytes)?);
    }
    Ok(file)
}

fn rewrite(file: &mut FileDescriptorProto, said: &File) {
    file.syntax = Some(if starts_all_enums_with_zero(file) { "proto3" } else { "proto2" }.to_owned());
    let features = Features::DEFAULT.with(said.options.as_ref().and_then(|options| options.features));
    for (message, said) in file.message_type.iter_mut().zip(&said.messages) {
        rewrite_message(message, said, features);
    }
    rewrite_fields(&mut file.extension, &said.extensions, features);
}

fn rewrite_message(message: &mut DescriptorProto, said: &OfMessage, inherited: Features) {
    let features = inherited.with(said.options.as_ref().and_then(|options| options.features));
    let is_map_entry = message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
    if !is_map_entry {
        rewrite_fields(&mut message.field, &said.fields, features);
        rewrite_fields(&mut message.extension, &said.extensions, features);
    }
    for (nested, said) in message.nested_type.iter_mut().zip(&said.nested) {
        rewrite_message(nested, said, features);
    }
}

fn rewrite_fields(fields: &mut [FieldDescriptorProto], said: &[OfField], inherited: Features) {
    for (field, said) in fields.iter_mut().zip(said) {
        let features = inherited.with(said.options.as_ref().and_then(|options| options.features));
        match field.label() {
            Label::Repeated => {
                let options = field.options.get_or_insert_with(FieldOptions::default);
                options.packed.get_or_insert(features.repeated != EXPANDED);
            }
            Label::Optional | Label::Required if features.presence == LEGACY_REQUIRED => {
                field.set_label(Label::Required);
                field.proto3_optional = Some(true);
            }
            Label::Optional | Label::Required => {
                field.proto3_optional = (features.presence == EXPLICIT).then_some(true);
            }
        }
        if field.r#type() == Type::Message && features.encoding == DELIMITED && !is_map(field) {
            field.set_type(Type::Group);
        }
    }
}

/// Entries of maps are never between brackets. Whether a list is a map is told by its entry's name, as
/// every compiler makes it.
fn is_map(field: &FieldDescriptorProto) -> bool {
    field.label() == Label::Repeated && field.type_name().ends_with("Entry")
}

/// What proto3 asks of an enum, and an edition does not of a closed one.
fn starts_all_enums_with_zero(file: &FileDescriptorProto) -> bool {
    fn all(message: &DescriptorProto) -> bool {
        message.enum_type.iter().all(starts_with_zero) && message.nested_type.iter().all(all)
    }
    fn starts_with_zero(one: &prost_types::EnumDescriptorProto) -> bool {
        one.value.first().is_none_or(|value| value.number() == 0)
    }
    file.enum_type.iter().all(starts_with_zero) && file.message_type.iter().all(all)
}

#[cfg(test)]
pub(super) mod tests {
    use prost_types::DescriptorProto;

    use super::*;

    fn features(presence: i32, repeated: i32, encoding: i32) -> OfField {
        let features = Some(Features { presence, repeated, encoding });
        OfField { options: Some(FieldFeatures { features }) }
    }

    fn field(name: &str, number: i32, label: Label, kind: Type) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name: (kind == Type::Message).then(|| ".shop.Item".to_owned()),
            ..FieldDescriptorProto::default()
        }
    }

    /// A file of edition 2023 as a compiler writes it: a message `shop.Item` with fields of all sorts.
    pub(in crate::participant::grpc) fn edition_2023() -> Vec<u8> {
        let file = FileDescriptorProto {
            name: Some("shop.proto".to_owned()),
            package: Some("shop".to_owned()),
            syntax: Some("editions".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("Item".to_owned()),
                field: vec![
                    field("explicit", 1, Label::Optional, Type::Int32),
                    field("implicit", 2, Label::Optional, Type::Int32),
                    field("required", 3, Label::Optional, Type::Int32),
                    field("packed", 4, Label::Repeated, Type::Int32),
                    field("expanded", 5, Label::Repeated, Type::Int32),
                    field("bracketed", 6, Label::Optional, Type::Message),
                ],
                ..DescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let said = File {
            messages: vec![OfMessage {
                fields: vec![
                    OfField::default(),
                    features(2, 0, 0),
                    features(LEGACY_REQUIRED, 0, 0),
                    OfField::default(),
                    features(0, EXPANDED, 0),
                    features(0, 0, DELIMITED),
                ],
                ..OfMessage::default()
            }],
            ..File::default()
        };
        // Both are parts of one message on the wire; what repeats is written once, field by field.
        let mut bytes = FileDescriptorProto { message_type: Vec::new(), ..file.clone() }.encode_to_vec();
        let mut message = file.message_type[0].clone();
        let fields = std::mem::take(&mut message.field);
        let mut inner = message.encode_to_vec();
        for (field, said) in fields.iter().zip(&said.messages[0].fields) {
            let mut one = field.encode_to_vec();
            one.extend(said.encode_to_vec());
            prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, &mut inner);
            prost::encoding::encode_varint(one.len() as u64, &mut inner);
            inner.extend(one);
        }
        prost::encoding::encode_key(4, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
        bytes
    }

    #[test]
    fn a_file_of_an_edition_means_the_same_afterwards() {
        let file = decode(&edition_2023()).unwrap();
        assert_eq!(file.syntax(), "proto3");
        let by_name = |name: &str| file.message_type[0].field.iter().find(|f| f.name() == name).unwrap();
        assert!(by_name("explicit").proto3_optional());
        assert!(!by_name("implicit").proto3_optional());
        assert_eq!(by_name("required").label(), Label::Required);
        assert!(by_name("packed").options.as_ref().unwrap().packed());
        assert!(!by_name("expanded").options.as_ref().unwrap().packed());
        assert_eq!(by_name("bracketed").r#type(), Type::Group);
        prost_reflect::DescriptorPool::new().add_file_descriptor_proto(file).unwrap();
    }

    #[test]
    fn an_enum_that_does_not_start_with_zero_is_left_possible() {
        let mut file = decode(&edition_2023()).unwrap();
        let value = prost_types::EnumValueDescriptorProto {
            name: Some("ONE".to_owned()),
            number: Some(1),
            options: None,
        };
        file.enum_type.push(prost_types::EnumDescriptorProto {
            name: Some("Odd".to_owned()),
            value: vec![value],
            ..prost_types::EnumDescriptorProto::default()
        });
        rewrite(&mut file, &File::default());
        assert_eq!(file.syntax(), "proto2");
        prost_reflect::DescriptorPool::new().add_file_descriptor_proto(file).unwrap();
    }
}
