//! A saga's id as it is kept by the million: a UUID as its sixteen bytes, any other as its text. It
//! sorts like the text.

use std::cmp::Ordering;

use crate::saga::ids::SagaId;

/// How a UUID is written: 36 characters, lower case, with hyphens behind these places.
const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// An id, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackedId {
    /// One of the form that the daemon makes itself.
    Uuid([u8; 16]),
    /// Any other.
    Text(SagaId),
}

impl PackedId {
    pub fn of(id: &SagaId) -> Self {
        uuid_of(id.as_str().as_bytes()).map_or_else(|| Self::Text(id.clone()), Self::Uuid)
    }

    /// Reads an id's text; `None` when it has not the form of one.
    pub fn read(text: &[u8]) -> Option<Self> {
        if let Some(uuid) = uuid_of(text) {
            return Some(Self::Uuid(uuid));
        }
        SagaId::parse(std::str::from_utf8(text).ok()?).ok().map(Self::Text)
    }

    pub fn unpack(&self) -> SagaId {
        match self {
            Self::Uuid(uuid) => SagaId::parse(written(uuid, &mut [0; TEXT_BYTES])).expect("a UUID is an id"),
            Self::Text(id) => id.clone(),
        }
    }
}

impl Ord for PackedId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Digits come before letters, and the hyphens stand in the same places.
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Text(b)) => written(a, &mut [0; TEXT_BYTES]).cmp(b.as_str()),
            (Self::Text(a), Self::Uuid(b)) => a.as_str().cmp(written(b, &mut [0; TEXT_BYTES])),
        }
    }
}

impl PartialOrd for PackedId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn written<'a>(uuid: &[u8; 16], room: &'a mut [u8; TEXT_BYTES]) -> &'a str {
    uuid::Uuid::from_bytes(*uuid).hyphenated().encode_lower(room)
}

/// The bytes of a UUID that is written in the one way that [`written`] gives back.
fn uuid_of(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != TEXT_BYTES || HYPHENS.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut uuid = [0; 16];
    let mut digits = (0..TEXT_BYTES).filter(|at| !HYPHENS.contains(at)).map(|at| digit(text[at]));
    for byte in &mut uuid {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(uuid)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> SagaId {
        SagaId::parse(text).unwrap()
    }

    #[test]
    fn only_the_usual_way_of_writing_a_uuid_is_packed() {
        let uuid = "019338f4-5a00-7c3e-9012-00000000abcd";
        assert!(matches!(PackedId::of(&id(uuid)), PackedId::Uuid(_)));
        let upper = uuid.to_uppercase();
        let simple = uuid.replace('-', "");
        let moved = "019338f45-a00-7c3e-9012-00000000abcd";
        let letter = uuid.replace('f', "g");
        for other in [upper.as_str(), &simple, moved, &letter, "order-1", "a"] {
            assert!(matches!(PackedId::of(&id(other)), PackedId::Text(_)), "{other}");
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<PackedId>(), 24);
    }

    #[test]
    fn what_is_no_id_is_none() {
        assert_eq!(PackedId::read(b""), None);
        assert_eq!(PackedId::read(b"a b"), None);
        assert_eq!(PackedId::read(&[0xff]), None);
    }

    fn ids() -> impl Strategy<Value = SagaId> {
        prop_oneof![
            any::<u128>().prop_map(|bits| uuid::Uuid::from_u128(bits).to_string()),
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{11}[0-9a-gA-F]?",
            "[0-9a-c./:-]{1,40}",
        ]
        .prop_map(|text| id(&text))
    }

    proptest! {
        #[test]
        fn every_id_comes_back_and_sorts_like_its_text(a in ids(), b in ids()) {
            let (packed_a, packed_b) = (PackedId::of(&a), PackedId::of(&b));
            prop_assert_eq!(packed_a.unpack(), a.clone());
            prop_assert_eq!(PackedId::read(a.as_str().as_bytes()), Some(packed_a.clone()));
            prop_assert_eq!(packed_a.cmp(&packed_b), a.cmp(&b));
        }
    }
}
