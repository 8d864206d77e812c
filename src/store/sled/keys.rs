//! The keys of both databases: a family byte, then the family's own layout, then the part number
//! that every record's rows have (see [`crate::store::codec::frame`]). Numbers are big-endian; `id`
//! is a saga id with a zero byte behind it.
//!
//! | family | key | content | where |
//! |---|---|---|---|
//! | meta | a word | sentinel, identity, tail; in the open database how far the log is folded | both |
//! | counter | definition, 0, version, status | a number | open |
//! | definition | name, 0, version | the definition | open |
//! | registration | its id, 0 | the registration | open |
//! | pause | the participant's name, 0 | who paused it, and why | open |
//! | ticket | its number | the lock ticket | open |
//! | deleting | id | nothing | open: what is being deleted from the history |
//! | saga | id, first sequence | a record of its journal | both, same bytes |
//! | known | id | nothing | history: it must hold this saga |
//! | place | status, created at, id | its definition's name | history |
//! | ended | ended at, id | nothing | history |

use crate::saga::ids::{DefinitionName, ParticipantName, SagaId, Timestamp, Version};
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
    Deleting = 5,
    Saga = 6,
    Known = 7,
    Place = 8,
    Ended = 9,
    Pause = 10,
}

/// How many families there are. Each is numbered for ever, and others are only added behind them.
pub const FAMILIES: usize = 11;
/// How many there were at first.
pub const FAMILIES_AT_FIRST: usize = 10;

impl Family {
    pub const ALL: [Family; FAMILIES] = [
        Family::Meta,
        Family::Counter,
        Family::Definition,
        Family::Registration,
        Family::Ticket,
        Family::Deleting,
        Family::Saga,
        Family::Known,
        Family::Place,
        Family::Ended,
        Family::Pause,
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
            Family::Deleting => "deletion",
            Family::Saga => "saga",
            Family::Known => "id index",
            Family::Place => "list index",
            Family::Ended => "end index",
            Family::Pause => "pause",
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

/// Up to where the log is folded into the open database.
pub fn folded() -> Vec<u8> {
    key(Family::Meta, &[b"folded"])
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

pub fn pause(participant: &ParticipantName) -> Vec<u8> {
    key(Family::Pause, &[participant.as_str().as_bytes(), &[0]])
}

pub fn ticket(number: u64) -> Vec<u8> {
    key(Family::Ticket, &[&number.to_be_bytes()])
}

pub fn deleting(id: &SagaId) -> Vec<u8> {
    key(Family::Deleting, &[&id_key(id)])
}

/// The record of a saga that begins with this fact.
pub fn saga(id: &SagaId, first_seq: u64) -> Vec<u8> {
    key(Family::Saga, &[&id_key(id), &first_seq.to_be_bytes()])
}

/// What begins the keys of all records of one saga.
pub fn saga_of(id: &SagaId) -> Vec<u8> {
    key(Family::Saga, &[&id_key(id)])
}

/// The saga and first sequence of a record's key, with or without its part number.
pub fn parse_saga(key: &[u8]) -> Option<(SagaId, u64)> {
    let (id, rest) = split_id(key.get(1..)?)?;
    Some((id, u64::from_be_bytes(*rest.first_chunk::<8>()?)))
}

/// The text of the saga's id in a record's key, and the record's first sequence.
pub fn split_saga(key: &[u8]) -> Option<(&[u8], u64)> {
    let key = key.get(1..)?;
    let (id, rest) = key.split_at_checked(key.iter().position(|&byte| byte == 0)?)?;
    Some((id, u64::from_be_bytes(*rest.get(1..)?.first_chunk()?)))
}

pub fn known(id: &SagaId) -> Vec<u8> {
    key(Family::Known, &[&id_key(id)])
}

/// The saga of an id index' or a deletion's key.
pub fn parse_id(key: &[u8]) -> Option<SagaId> {
    split_id(key.get(1..)?).map(|(id, _)| id)
}

pub fn place(status: SagaStatus, created_at: Timestamp, id: &SagaId) -> Vec<u8> {
    key(Family::Place, &[&[status_number(status)], &place_key(created_at, id)])
}

/// What begins the places of one status.
pub fn places(status: SagaStatus) -> [u8; 2] {
    [Family::Place as u8, status_number(status)]
}

/// Time and saga of a place's key.
pub fn parse_place(key: &[u8]) -> Option<(Timestamp, SagaId)> {
    split_place(key.get(2..)?).map(|(time, id, _)| (time, id))
}

pub fn ended(at: Timestamp, id: &SagaId) -> Vec<u8> {
    key(Family::Ended, &[&place_key(at, id)])
}

/// Time and saga of an end index' key.
pub fn parse_ended(key: &[u8]) -> Option<(Timestamp, SagaId)> {
    split_place(key.get(1..)?).map(|(time, id, _)| (time, id))
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
        assert_eq!(parse_saga(&saga(&id, 7)), Some((id.clone(), 7)));
        assert_eq!(split_saga(&saga(&id, 7)), Some((id.as_str().as_bytes(), 7)));
        assert_eq!(parse_ended(&ended(Timestamp(-3), &id)), Some((Timestamp(-3), id.clone())));
        let place = place(SagaStatus::Abandoned, Timestamp(5), &id);
        assert_eq!(parse_place(&place), Some((Timestamp(5), id.clone())));
        assert_eq!(parse_id(&known(&id)), Some(id));
        let counted = (DefinitionName::parse("order").unwrap(), Version(258), SagaStatus::Blocked);
        assert_eq!(parse_counter(&counter(&counted)), Some(counted));
    }

    #[test]
    fn the_key_of_one_saga_does_not_begin_that_of_another() {
        let short = SagaId::parse("a").unwrap();
        let long = SagaId::parse("a/b").unwrap();
        assert!(!saga(&long, 1).starts_with(&saga_of(&short)));
    }
}
