//! The records that only this store has.

use prost::Message;

use super::keys::{FAMILIES, Family};
use crate::saga::event::Fact;
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::StoreIdentity;
use crate::store::codec::fact::{decode_facts, encode_facts};
use crate::store::codec::summary::{status_number, status_of};
use crate::store::codec::{CodecError, decode};

/// The content of the sentinel.
pub const SENTINEL: &[u8] = b"sagad store 1";

/// How many rows each family has; they must be found again when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts([u64; FAMILIES]);

impl RowCounts {
    pub fn of(&self, family: Family) -> u64 {
        self.0[family as usize]
    }

    pub fn add(&mut self, family: Family, rows: usize) {
        self.0[family as usize] += rows as u64;
    }

    pub fn take(&mut self, family: Family, rows: usize) {
        self.0[family as usize] = self.0[family as usize].saturating_sub(rows as u64);
    }
}

/// The numbers that each batch writes: a database that lost a row or a batch contradicts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    /// Batches written to this database so far.
    pub commit: u64,
    /// In the open database: the history's commit that the last deletion here relies on.
    pub history_commit: u64,
    /// The number of the next outbox record.
    pub next_outbox: u64,
    /// Outbox records in both databases.
    pub outbox_records: u64,
    /// Rows of each family in this database; meta rows are not counted.
    pub rows: RowCounts,
}

#[derive(Clone, PartialEq, Message)]
struct TailForm {
    #[prost(uint64, tag = "1")]
    commit: u64,
    #[prost(uint64, tag = "2")]
    history_commit: u64,
    #[prost(uint64, tag = "3")]
    next_outbox: u64,
    #[prost(uint64, tag = "4")]
    outbox_records: u64,
    #[prost(uint64, repeated, tag = "5")]
    rows: Vec<u64>,
}

impl Tail {
    pub fn encode(&self) -> Vec<u8> {
        TailForm {
            commit: self.commit,
            history_commit: self.history_commit,
            next_outbox: self.next_outbox,
            outbox_records: self.outbox_records,
            rows: self.rows.0.to_vec(),
        }
        .encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let form: TailForm = decode("the tail", bytes)?;
        let rows = form.rows.try_into().map_err(|_| CodecError::Unknown { what: "the row counts" })?;
        Ok(Self {
            commit: form.commit,
            history_commit: form.history_commit,
            next_outbox: form.next_outbox,
            outbox_records: form.outbox_records,
            rows: RowCounts(rows),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct IdentityForm {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    token_secret: Vec<u8>,
    #[prost(uint64, tag = "3")]
    epoch: u64,
}

pub fn encode_identity(identity: &StoreIdentity) -> Vec<u8> {
    IdentityForm {
        id: identity.id.as_bytes().to_vec(),
        token_secret: identity.token_secret.to_vec(),
        epoch: identity.epoch,
    }
    .encode_to_vec()
}

pub fn decode_identity(bytes: &[u8]) -> Result<StoreIdentity, CodecError> {
    let form: IdentityForm = decode("the identity", bytes)?;
    let unknown = CodecError::Unknown { what: "the identity" };
    Ok(StoreIdentity {
        id: uuid::Uuid::from_slice(&form.id).map_err(|_| unknown.clone())?,
        token_secret: form.token_secret.try_into().map_err(|_| unknown)?,
        epoch: form.epoch,
    })
}

/// The facts of one commit, with what a start wants to know without decoding them.
///
/// ```text
/// content = last sequence (u64) | its time (i64) | FactsForm
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct JournalHead {
    pub last_seq: u64,
    pub last_at: Timestamp,
}

const JOURNAL_HEAD_BYTES: usize = 16;

pub fn encode_journal(facts: &[Fact]) -> Vec<u8> {
    let (seq, at) = facts.last().map_or((0, 0), |fact| (fact.seq, fact.at.0));
    let encoded = encode_facts(facts);
    let mut content = Vec::with_capacity(JOURNAL_HEAD_BYTES + encoded.len());
    content.extend_from_slice(&seq.to_be_bytes());
    content.extend_from_slice(&at.to_be_bytes());
    content.extend_from_slice(&encoded);
    content
}

pub fn journal_head(content: &[u8]) -> Result<JournalHead, CodecError> {
    let short = CodecError::Short { bytes: content.len() };
    let (seq, rest) = content.split_first_chunk::<8>().ok_or(short.clone())?;
    let at = rest.first_chunk::<8>().ok_or(short)?;
    Ok(JournalHead { last_seq: u64::from_be_bytes(*seq), last_at: Timestamp(i64::from_be_bytes(*at)) })
}

/// The facts of a journal record; their numbers must be those that key and head say.
pub fn decode_journal(first_seq: u64, content: &[u8]) -> Result<Vec<Fact>, CodecError> {
    let head = journal_head(content)?;
    let facts = decode_facts(content.get(JOURNAL_HEAD_BYTES..).unwrap_or_default())?;
    let in_order = (first_seq..).zip(&facts).all(|(seq, fact)| fact.seq == seq);
    if in_order && facts.last().is_some_and(|fact| fact.seq == head.last_seq) {
        Ok(facts)
    } else {
        Err(CodecError::Unknown { what: "the sequence of a journal record" })
    }
}

#[derive(Clone, PartialEq, Message)]
struct OutboxForm {
    #[prost(string, tag = "1")]
    saga: String,
    #[prost(uint64, tag = "2")]
    seq: u64,
}

/// The content of an outbox record: where its event stands.
pub fn encode_outbox(saga: &SagaId, seq: u64) -> Vec<u8> {
    OutboxForm { saga: saga.to_string(), seq }.encode_to_vec()
}

pub fn decode_outbox(bytes: &[u8]) -> Result<(SagaId, u64), CodecError> {
    let form: OutboxForm = decode("an outbox record", bytes)?;
    let saga = SagaId::parse(&form.saga).map_err(|cause| CodecError::message("a saga id", &cause))?;
    Ok((saga, form.seq))
}

/// What the history knows of a saga without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub created_at: Timestamp,
    pub ended_at: Timestamp,
    pub status: SagaStatus,
    pub definition: DefinitionName,
    pub version: Version,
    pub seq: u64,
    /// Bytes of its journal.
    pub bytes: u64,
    /// Rows of its summary.
    pub place_parts: u16,
    /// Numbers of its outbox records.
    pub outbox: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct HeadForm {
    #[prost(sint64, tag = "1")]
    created_at: i64,
    #[prost(sint64, tag = "2")]
    ended_at: i64,
    #[prost(uint32, tag = "3")]
    status: u32,
    #[prost(string, tag = "4")]
    definition: String,
    #[prost(uint32, tag = "5")]
    version: u32,
    #[prost(uint64, tag = "6")]
    seq: u64,
    #[prost(uint64, tag = "7")]
    bytes: u64,
    #[prost(uint32, tag = "8")]
    place_parts: u32,
    #[prost(uint64, repeated, tag = "9")]
    outbox: Vec<u64>,
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        HeadForm {
            created_at: self.created_at.0,
            ended_at: self.ended_at.0,
            status: u32::from(status_number(self.status)),
            definition: self.definition.to_string(),
            version: self.version.0,
            seq: self.seq,
            bytes: self.bytes,
            place_parts: u32::from(self.place_parts),
            outbox: self.outbox.clone(),
        }
        .encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let form: HeadForm = decode("a head", bytes)?;
        let name = DefinitionName::parse(&form.definition);
        Ok(Self {
            created_at: Timestamp(form.created_at),
            ended_at: Timestamp(form.ended_at),
            status: u8::try_from(form.status)
                .ok()
                .and_then(status_of)
                .ok_or(CodecError::Unknown { what: "a status" })?,
            definition: name.map_err(|cause| CodecError::message("a definition", &cause))?,
            version: Version(form.version),
            seq: form.seq,
            bytes: form.bytes,
            place_parts: u16::try_from(form.place_parts)
                .map_err(|_| CodecError::Unknown { what: "a number of rows" })?,
            outbox: form.outbox,
        })
    }
}
