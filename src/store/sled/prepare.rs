//! A saga's write as rows: made by the caller, so that the one writer need not encode.

use super::keys;
use super::live::Entry;
use super::records::encode_journal;
use super::scan::lasting_hash;
use crate::saga::event::Event;
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::codec::frame::{self, Row};
use crate::store::codec::records::encode_ticket;
use crate::store::codec::summary::encode_summary;
use crate::store::{LockWrite, SagaWrite};

/// A write, encoded.
#[derive(Debug)]
pub struct Prepared {
    pub id: SagaId,
    pub expected_seq: u64,
    pub last_seq: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub status: SagaStatus,
    pub far_wake: Option<Timestamp>,
    pub lock: PreparedLock,
    /// Empty when there are no facts.
    pub journal: Vec<Row>,
    pub journal_bytes: u64,
    pub place: Vec<Row>,
    /// See [`Entry::lasting`].
    pub lasting: u64,
    /// The sequences of its outbox events.
    pub emitted: Vec<u64>,
    definition: DefinitionName,
    version: Version,
}

/// A lock change, encoded.
#[derive(Debug)]
pub enum PreparedLock {
    Keep,
    Take { number: u64, rows: Vec<Row> },
    Release(u64),
}

impl Prepared {
    pub fn new(write: SagaWrite) -> Self {
        let SagaWrite { id, expected_seq, facts, summary, far_wake, lock, .. } = write;
        let (mut journal, mut journal_bytes) = (Vec::new(), 0);
        if !facts.is_empty() {
            let content = encode_journal(&facts);
            journal_bytes = content.len() as u64;
            journal = frame::seal(&keys::journal(&id, expected_seq + 1), &content);
        }
        let emitted = facts.iter().filter(|fact| matches!(fact.event, Event::EventEmitted { .. }));
        let encoded = encode_summary(&summary);
        Self {
            expected_seq,
            last_seq: expected_seq + facts.len() as u64,
            created_at: summary.created_at,
            updated_at: facts.last().map_or(summary.updated_at, |fact| fact.at),
            status: summary.status,
            far_wake: far_wake.filter(|_| !summary.status.is_terminal()),
            lock: match lock {
                LockWrite::Keep => PreparedLock::Keep,
                LockWrite::Release(number) => PreparedLock::Release(number),
                LockWrite::Take(ticket) => PreparedLock::Take {
                    number: ticket.ticket,
                    rows: frame::seal(&keys::ticket(ticket.ticket), &encode_ticket(&ticket)),
                },
            },
            journal,
            journal_bytes,
            place: frame::seal(&keys::open_place(summary.created_at, &id), &encoded),
            lasting: lasting_hash(&encoded),
            emitted: emitted.map(|fact| fact.seq).collect(),
            definition: summary.definition,
            version: summary.version,
            id,
        }
    }

    /// The entry of a new saga, before this write.
    pub fn first_entry(&self) -> Entry {
        Entry {
            first_seq: 1,
            seq: 0,
            created_at: self.created_at,
            updated_at: self.updated_at,
            status: self.status,
            definition: self.definition.clone(),
            version: self.version,
            bytes: 0,
            lasting: 0,
            place_parts: 0,
            far_wake: None,
            outbox: Vec::new(),
            damage: None,
        }
    }

    /// About how much it adds to a batch.
    pub fn bytes(&self) -> usize {
        self.journal.iter().chain(&self.place).map(|(key, value)| key.len() + value.len()).sum()
    }
}
