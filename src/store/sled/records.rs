//! The records that only this store has.

use prost::Message;
use uuid::Uuid;

use super::keys::{FAMILIES, FAMILIES_AT_FIRST, Family};
use super::wal::Mark;
use crate::saga::event::Fact;
use crate::saga::ids::Timestamp;
use crate::store::codec::fact::decode_facts;
use crate::store::codec::summary::{Standing, decode_standing, decode_summary};
use crate::store::codec::{CodecError, decode};
use crate::store::{StoreIdentity, Summary};

/// The content of the sentinel.
pub const SENTINEL: &[u8] = b"sagad store 2";
/// The content of the sentinel of a database with a write-ahead log. Whoever knows none must not open it:
/// they would take what is folded for all there is.
pub const SENTINEL_LOGGED: &[u8] = b"sagad store 3";

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
    /// Outbox records of the sagas in both databases.
    pub outbox_records: u64,
    /// Rows of each family in this database; meta rows are not counted.
    pub rows: RowCounts,
    /// In the open database: the sum of the checksums of all rows of sagas. They are written over,
    /// and a row that fell back to what it was before keeps the count.
    pub sum: u32,
    /// In the open database: the newest id of those that tell their time; see `fresh.rs`.
    pub newest: Option<Uuid>,
}

#[derive(Clone, PartialEq, Message)]
struct TailForm {
    #[prost(uint64, tag = "1")]
    commit: u64,
    #[prost(uint64, tag = "2")]
    history_commit: u64,
    #[prost(uint64, tag = "3")]
    outbox_records: u64,
    #[prost(uint64, repeated, tag = "4")]
    rows: Vec<u64>,
    #[prost(fixed32, tag = "5")]
    sum: u32,
    #[prost(bytes = "vec", optional, tag = "6")]
    newest: Option<Vec<u8>>,
}

impl Tail {
    pub fn encode(&self) -> Vec<u8> {
        TailForm {
            commit: self.commit,
            history_commit: self.history_commit,
            outbox_records: self.outbox_records,
            rows: self.rows.0.to_vec(),
            sum: self.sum,
            newest: self.newest.map(|id| id.as_bytes().to_vec()),
        }
        .encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let form: TailForm = decode("the tail", bytes)?;
        // Whoever wrote fewer of them knew fewer families, and wrote no row of the others.
        let mut rows = [0; FAMILIES];
        if !(FAMILIES_AT_FIRST..=FAMILIES).contains(&form.rows.len()) {
            return Err(CodecError::Unknown { what: "the row counts" });
        }
        rows[..form.rows.len()].copy_from_slice(&form.rows);
        let newest = form.newest.map(|id| Uuid::from_slice(&id)).transpose();
        Ok(Self {
            commit: form.commit,
            history_commit: form.history_commit,
            outbox_records: form.outbox_records,
            rows: RowCounts(rows),
            sum: form.sum,
            newest: newest.map_err(|_| CodecError::Unknown { what: "the newest id" })?,
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
        id: Uuid::from_slice(&form.id).map_err(|_| unknown.clone())?,
        token_secret: form.token_secret.try_into().map_err(|_| unknown)?,
        epoch: form.epoch,
    })
}

#[derive(Clone, PartialEq, Message)]
struct MarkForm {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(uint64, tag = "2")]
    commit: u64,
}

pub fn encode_mark(mark: Mark) -> Vec<u8> {
    MarkForm { generation: mark.generation, commit: mark.commit }.encode_to_vec()
}

pub fn decode_mark(bytes: &[u8]) -> Result<Mark, CodecError> {
    let form: MarkForm = decode("how far the log is folded", bytes)?;
    Ok(Mark { generation: form.generation, commit: form.commit })
}

/// A part of a saga's journal, with the whole saga as it was at the last fact of it.
///
/// A short saga is one record, written anew with each commit and copied as it is to the history; a
/// long one has several, and the last of them says where the saga stands.
///
/// ```text
/// content = journal bytes (u64) | outbox records (u32) | far wake-up (i64, the least for none)
///         | summary's length (u32) | summary | facts of one or more commits (FactsForm)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Bytes of the facts in all of the saga's records up to this one.
    pub bytes: u64,
    /// Outbox records in them.
    pub outbox: u32,
    pub far_wake: Option<Timestamp>,
    /// The encoded summary.
    pub summary: &'a [u8],
    /// The encoded facts.
    pub facts: &'a [u8],
}

const RECORD_HEAD_BYTES: usize = 8 + 4 + 8 + 4;
const NO_WAKE: i64 = i64::MIN;

impl<'a> Record<'a> {
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(RECORD_HEAD_BYTES + self.summary.len() + self.facts.len());
        let summary_bytes = u32::try_from(self.summary.len()).expect("a summary is far below 4 GiB");
        content.extend_from_slice(&self.bytes.to_be_bytes());
        content.extend_from_slice(&self.outbox.to_be_bytes());
        content.extend_from_slice(&self.far_wake.map_or(NO_WAKE, |wake| wake.0).to_be_bytes());
        content.extend_from_slice(&summary_bytes.to_be_bytes());
        content.extend_from_slice(self.summary);
        content.extend_from_slice(self.facts);
        content
    }

    pub fn parse(content: &'a [u8]) -> Result<Self, CodecError> {
        let short = || CodecError::Short { bytes: content.len() };
        let (bytes, rest) = content.split_first_chunk().ok_or_else(short)?;
        let (outbox, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (far_wake, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (summary_bytes, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let summary_bytes = usize::try_from(u32::from_be_bytes(*summary_bytes)).map_err(|_| short())?;
        let (summary, facts) = rest.split_at_checked(summary_bytes).ok_or_else(short)?;
        let far_wake = i64::from_be_bytes(*far_wake);
        Ok(Self {
            bytes: u64::from_be_bytes(*bytes),
            outbox: u32::from_be_bytes(*outbox),
            far_wake: (far_wake != NO_WAKE).then_some(Timestamp(far_wake)),
            summary,
            facts,
        })
    }

    pub fn summary(&self) -> Result<Summary, CodecError> {
        decode_summary(self.summary)
    }

    /// The part of its summary that says where the saga stands.
    pub fn standing(&self) -> Result<Standing, CodecError> {
        decode_standing(self.summary)
    }

    /// Its facts; their numbers must be those that key and summary say.
    pub fn facts(&self, first_seq: u64) -> Result<Vec<Fact>, CodecError> {
        let facts = decode_facts(self.facts)?;
        let in_order = (first_seq..).zip(&facts).all(|(seq, fact)| fact.seq == seq);
        if in_order && facts.last().map(|fact| fact.seq) == Some(self.summary()?.seq) {
            Ok(facts)
        } else {
            Err(CodecError::Unknown { what: "the sequence of a saga's record" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::fact::encode_facts;
    use crate::store::codec::samples;
    use crate::store::codec::summary::encode_summary;

    #[test]
    fn the_facts_of_commits_are_joined_as_bytes() {
        let facts = samples::one_fact_of_each();
        let (first, second) = facts.split_at(2);
        let joined = [encode_facts(first), encode_facts(second)].concat();
        assert_eq!(decode_facts(&joined).unwrap(), facts);
    }

    #[test]
    fn a_record_reads_back_and_a_shorter_one_does_not() {
        let (summary, facts) = (encode_summary(&samples::summary()), b"facts".to_vec());
        for far_wake in [None, Some(Timestamp(7))] {
            let record = Record { bytes: 9, outbox: 2, far_wake, summary: &summary, facts: &facts };
            let content = record.encode();
            assert_eq!(Record::parse(&content).unwrap(), record);
            assert_eq!(record.summary().unwrap(), samples::summary());
            for length in 0..RECORD_HEAD_BYTES + summary.len() {
                assert!(Record::parse(&content[..length]).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn a_tail_reads_back() {
        let mut rows = RowCounts::default();
        rows.add(Family::Saga, 3);
        let tail = Tail {
            commit: 1,
            history_commit: 2,
            outbox_records: 3,
            rows,
            sum: u32::MAX,
            newest: Some(Uuid::from_u128(5)),
        };
        assert_eq!(Tail::decode(&tail.encode()).unwrap(), tail);
    }
    #[test]
    fn a_tail_of_a_version_that_knew_fewer_families_reads_as_none_of_the_others() {
        let mut rows = RowCounts::default();
        rows.add(Family::Ended, 3);
        let tail = Tail { commit: 1, rows, ..Tail::default() };
        let mut form = TailForm::decode(tail.encode().as_slice()).unwrap();
        form.rows.truncate(FAMILIES_AT_FIRST);
        assert_eq!(Tail::decode(&form.encode_to_vec()).unwrap(), tail);
        form.rows.pop();
        assert!(Tail::decode(&form.encode_to_vec()).is_err(), "no version wrote so few");
    }
}
