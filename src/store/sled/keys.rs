//! The keys of both databases: a family byte, then the family's own layout, then the part number
//! that every record's rows have (see [`crate::store::codec::frame`]). Numbers are big-endian; `id`
//! is a saga id with a zero byte behind it.
//!
//! | family | key | content | where |
//! |---|---|---|---|
//! | meta | a word | sentinel, identity, tail | both |
//! | counter | definition, 0, version, status | a number | open |
//! | definition | name, 0, version | the definition | open |
//! | registration | its id, 0 | the registration | open |
//! | ticket | its number | the lock ticket | open |
//! | wake | time, id | nothing | open |
//! | deleting | id | nothing | open: what is being deleted from the history |
//! | journal | id, first sequence | the facts of one commit | both, same bytes |
//! | outbox | its number | saga and sequence | both, same bytes |
//! | place | (history: status,) created at, id | the summary | both |
//! | head | id | what a late write or a deletion needs to know | history |
//! | ended | ended at, id | nothing | history |

use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::codec::frame::PART_BYTES;
use crate::store::codec::summary::{status_number, status_of};
use crate::store::order::{id_key, place_key, split_id, split_place};

/// The families, numbered by their key byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    Meta = 0,
    Counter = 1,
    Definition = 2,
    Registration = 3,
    Ticket = 4,
    Wake = 5,
    Deleting = 6,
    Journal = 7,
    Outbox = 8,
    Place = 9,
    Head = 10,
    Ended = 11,
}

/// How many families there are.
pub const FAMILIES: usize = 12;

impl Family {
    pub const ALL: [Family; FAMILIES] = [
        Family::Meta,
        Family::Counter,
        Family::Definition,
        Family::Registration,
        Family::Ticket,
        Family::Wake,
        Family::Deleting,
        Family::Journal,
        Family::Outbox,
        Family::Place,
        Family::Head,
        Family::Ended,
    ];

    /// The family of a key; `None` when no version ever wrote such a key.
    pub fn of(key: &[u8]) -> Option<Self> {
        Self::ALL.get(usize::from(*key.first()?)).copied()
    }

    /// The key that begins all of the family's.
    pub fn prefix(self) -> [u8; 1] {
        [self as u8]
    }

    /// Its word, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Family::Meta => "meta",
            Family::Counter => "counter",
            Family::Definition => "definition",
            Family::Registration => "registration",
            Family::Ticket => "lock ticket",
            Family::Wake => "wake-up",
            Family::Deleting => "deletion",
            Family::Journal => "journal",
            Family::Outbox => "outbox",
            Family::Place => "summary",
            Family::Head => "head",
            Family::Ended => "end index",
        }
    }
}

fn key(family: Family, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.iter().map(|part| part.len()).sum::<usize>() + PART_BYTES);
    key.push(family as u8);
    for part in rest {
        key.extend_from_slice(part);
    }
    key
}

/// Proves that the tree was read at all.
pub fn sentinel() -> Vec<u8> {
    key(Family::Meta, &[b"sentinel"])
}

/// Who the store is.
pub fn identity() -> Vec<u8> {
    key(Family::Meta, &[b"identity"])
}

/// The numbers written with every batch.
pub fn tail() -> Vec<u8> {
    key(Family::Meta, &[b"tail"])
}

pub fn counter((definition, version, status): &(DefinitionName, Version, SagaStatus)) -> Vec<u8> {
    let name = definition.as_str().as_bytes();
    key(Family::Counter, &[name, &[0], &version.0.to_be_bytes(), &[status_number(*status)]])
}

/// Reads a counter's record key.
pub fn parse_counter(key: &[u8]) -> Option<(DefinitionName, Version, SagaStatus)> {
    let key = key.get(1..)?;
    let end = key.iter().position(|&byte| byte == 0)?;
    let name = DefinitionName::parse(std::str::from_utf8(&key[..end]).ok()?).ok()?;
    let (version, rest) = key[end + 1..].split_first_chunk::<4>()?;
    let status = status_of(*rest.first()?)?;
    Some((name, Version(u32::from_be_bytes(*version)), status))
}

pub fn definition(name: &DefinitionName, version: Version) -> Vec<u8> {
    key(Family::Definition, &[name.as_str().as_bytes(), &[0], &version.0.to_be_bytes()])
}

pub fn registration(registration_id: &str) -> Vec<u8> {
    key(Family::Registration, &[registration_id.as_bytes(), &[0]])
}

pub fn ticket(number: u64) -> Vec<u8> {
    key(Family::Ticket, &[&number.to_be_bytes()])
}

pub fn wake(at: Timestamp, id: &SagaId) -> Vec<u8> {
    key(Family::Wake, &[&place_key(at, id)])
}

pub fn deleting(id: &SagaId) -> Vec<u8> {
    key(Family::Deleting, &[&id_key(id)])
}

pub fn journal(id: &SagaId, first_seq: u64) -> Vec<u8> {
    key(Family::Journal, &[&id_key(id), &first_seq.to_be_bytes()])
}

/// What begins the journal keys of one saga.
pub fn journal_of(id: &SagaId) -> Vec<u8> {
    key(Family::Journal, &[&id_key(id)])
}

/// The saga and first sequence of a journal key, with or without its part number.
pub fn parse_journal(key: &[u8]) -> Option<(SagaId, u64)> {
    let (id, rest) = split_id(key.get(1..)?)?;
    Some((id, u64::from_be_bytes(*rest.first_chunk::<8>()?)))
}

pub fn outbox(number: u64) -> Vec<u8> {
    key(Family::Outbox, &[&number.to_be_bytes()])
}

/// The number of an outbox or ticket key.
pub fn parse_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk::<8>()?))
}

/// The summary of a saga in the open database.
pub fn open_place(created_at: Timestamp, id: &SagaId) -> Vec<u8> {
    key(Family::Place, &[&place_key(created_at, id)])
}

/// Time and saga of an open summary's, a wake-up's or an end index' key.
pub fn parse_place(key: &[u8]) -> Option<(Timestamp, SagaId)> {
    split_place(key.get(1..)?).map(|(time, id, _)| (time, id))
}

/// The summary of a saga in the history.
pub fn past_place(status: SagaStatus, created_at: Timestamp, id: &SagaId) -> Vec<u8> {
    key(Family::Place, &[&[status_number(status)], &place_key(created_at, id)])
}

/// What begins the history's summaries of one status.
pub fn past_places(status: SagaStatus) -> [u8; 2] {
    [Family::Place as u8, status_number(status)]
}

/// Time and saga of a summary's key in the history.
pub fn parse_past_place(key: &[u8]) -> Option<(Timestamp, SagaId)> {
    split_place(key.get(2..)?).map(|(time, id, _)| (time, id))
}

pub fn head(id: &SagaId) -> Vec<u8> {
    key(Family::Head, &[&id_key(id)])
}

/// The saga of a head's or a deletion's key.
pub fn parse_id(key: &[u8]) -> Option<SagaId> {
    split_id(key.get(1..)?).map(|(id, _)| id)
}

pub fn ended(at: Timestamp, id: &SagaId) -> Vec<u8> {
    key(Family::Ended, &[&place_key(at, id)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_numbered_by_their_key_byte() {
        for family in Family::ALL {
            assert_eq!(Family::of(&family.prefix()), Some(family));
        }
        assert_eq!(Family::of(&[200]), None);
        assert_eq!(Family::of(&[]), None);
    }

    #[test]
    fn keys_are_read_back() {
        let id = SagaId::parse("a/b").unwrap();
        assert_eq!(parse_journal(&journal(&id, 7)), Some((id.clone(), 7)));
        assert_eq!(parse_number(&outbox(9)), Some(9));
        assert_eq!(parse_place(&open_place(Timestamp(-3), &id)), Some((Timestamp(-3), id.clone())));
        let past = past_place(SagaStatus::Abandoned, Timestamp(5), &id);
        assert_eq!(parse_past_place(&past), Some((Timestamp(5), id.clone())));
        assert_eq!(parse_id(&head(&id)), Some(id));
        let counted = (DefinitionName::parse("order").unwrap(), Version(258), SagaStatus::Blocked);
        assert_eq!(parse_counter(&counter(&counted)), Some(counted));
    }

    #[test]
    fn the_journal_of_one_saga_does_not_begin_that_of_another() {
        let short = SagaId::parse("a").unwrap();
        let long = SagaId::parse("a/b").unwrap();
        assert!(!journal(&long, 1).starts_with(&journal_of(&short)));
    }
}
