//! A saga's write, encoded by the caller, so that the one writer need not.

use super::keys;
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::checks::outbox_records;
use crate::store::codec::fact::encode_facts;
use crate::store::codec::frame::{self, Row};
use crate::store::codec::records::encode_ticket;
use crate::store::codec::summary::encode_summary;
use crate::store::open_set::Wake;
use crate::store::{LockWrite, SagaWrite};

/// A write, encoded.
#[derive(Debug)]
pub struct Prepared {
    pub id: SagaId,
    pub expected_seq: u64,
    pub last_seq: u64,
    pub created_at: Timestamp,
    pub status: SagaStatus,
    pub definition: DefinitionName,
    pub version: Version,
    pub wake: Wake,
    pub lock: PreparedLock,
    /// Its facts; empty when there are none.
    pub facts: Vec<u8>,
    pub summary: Vec<u8>,
    /// Outbox records among the facts.
    pub outbox: u32,
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
        Self {
            expected_seq,
            last_seq: expected_seq + facts.len() as u64,
            created_at: summary.created_at,
            status: summary.status,
            wake: Wake::of(far_wake.filter(|_| !summary.status.is_terminal()), summary.rests),
            lock: match lock {
                LockWrite::Keep => PreparedLock::Keep,
                LockWrite::Release(number) => PreparedLock::Release(number),
                LockWrite::Take(ticket) => PreparedLock::Take {
                    number: ticket.ticket,
                    rows: frame::seal(&keys::ticket(ticket.ticket), &encode_ticket(&ticket)),
                },
            },
            facts: encode_facts(&facts),
            summary: encode_summary(&summary),
            outbox: u32::try_from(outbox_records(&facts)).unwrap_or(u32::MAX),
            definition: summary.definition,
            version: summary.version,
            id,
        }
    }

    /// About how much it adds to a batch.
    pub fn bytes(&self) -> usize {
        self.facts.len() + self.summary.len()
    }
}
