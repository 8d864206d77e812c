//! Reading a whole database: what opening a store and verifying it have in common.

use std::collections::{HashMap, HashSet};

use super::keeper::Findings;
use super::keys::{self, Family};
use super::live::{Entry, Kinds, Live};
use super::marker::Marker;
use super::part::Part;
use super::records::{Record, RowCounts, Tail};
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::codec::frame::{Joiner, PART_BYTES, stored_checksum};
use crate::store::codec::{CodecError, records as forms};
use crate::store::{Counters, StoreError};

/// A record as it lies in a database.
pub struct Found<'a> {
    pub family: Family,
    /// Its key without the part number.
    pub key: &'a [u8],
    /// Rows seen of it.
    pub rows: usize,
    /// The sum of the checksums that they carry.
    pub sum: u32,
    /// Its content, or why it has none.
    pub content: Result<Vec<u8>, CodecError>,
}

struct Current {
    key: Vec<u8>,
    joiner: Joiner,
    rows: usize,
    sum: u32,
    result: Option<Result<Vec<u8>, CodecError>>,
}

impl Current {
    fn new(key: &[u8]) -> Self {
        Self { key: key.to_vec(), joiner: Joiner::default(), rows: 0, sum: 0, result: None }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(stored_checksum(value));
        match &self.result {
            Some(Err(_)) => {}
            // A row behind a complete record is one too many.
            Some(Ok(_)) => {
                let rows = u16::try_from(self.rows).unwrap_or(u16::MAX);
                self.result = Some(Err(CodecError::Rows { missing: 0, rows }));
            }
            None => self.result = self.joiner.push(key, value).transpose(),
        }
    }

    fn hand_over(self, each: &mut impl FnMut(Found<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let unfinished = || Err(self.joiner.finish().err().unwrap_or(CodecError::Short { bytes: 0 }));
        let family = Family::of(&self.key).ok_or_else(|| StoreError::Damaged {
            what: "a key".to_owned(),
            cause: "it is of no family that any version writes".to_owned(),
        })?;
        let content = self.result.unwrap_or_else(unfinished);
        each(Found { family, key: &self.key, rows: self.rows, sum: self.sum, content })
    }
}

/// Hands over every record of the rows, whole or with the reason why not.
pub fn records(
    part: &Part,
    rows: ::sled::Iter,
    mut each: impl FnMut(Found<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut current: Option<Current> = None;
    for row in rows {
        let (key, value) = row.map_err(|error| part.read_error(&error))?;
        let record_key = &key[..key.len().saturating_sub(PART_BYTES)];
        if let Some(last) = current.take_if(|current| current.key != record_key) {
            last.hand_over(&mut each)?;
        }
        current.get_or_insert_with(|| Current::new(record_key)).push(&key, &value);
    }
    current.map_or(Ok(()), |last| last.hand_over(&mut each))
}

/// What the open database holds.
#[derive(Debug, Default)]
pub struct Census {
    pub live: Live,
    pub kinds: Kinds,
    pub tail: Tail,
    /// Rows of each record that can be replaced or deleted by its key.
    pub parts: HashMap<Vec<u8>, u16>,
    /// Sagas whose deletion from the history was decided.
    pub deleting: HashSet<SagaId>,
    /// Rows found.
    pub rows: RowCounts,
    /// The sum of the checksums of the rows of sagas.
    pub sum: u32,
    /// Sagas that cannot be read, and why.
    pub damaged: Vec<(SagaId, String)>,
    /// The saga whose records are being read.
    saga: Option<Reading>,
}

/// What the records of one saga add up to.
#[derive(Debug)]
struct Reading {
    id: SagaId,
    first_seq: u64,
    sum: u32,
    /// The saga as of its last record; `None` until one could be read.
    entry: Option<Entry>,
    damage: Option<String>,
}

impl Census {
    /// Reads the open database. Damage of one saga's records is noted with that saga; damage of
    /// anything else is an error.
    pub fn take(part: &Part) -> Result<Self, StoreError> {
        let mut census = Self { tail: part.tail()?, ..Self::default() };
        records(part, part.db()?.iter(), |found| census.add(part, found))?;
        census.finish_saga();
        census.live.outbox_records = census.tail.outbox_records;
        census.live.commit = census.tail.commit;
        census.live.history_commit = census.tail.history_commit;
        Ok(census)
    }

    fn add(&mut self, part: &Part, found: Found<'_>) -> Result<(), StoreError> {
        if found.family != Family::Meta {
            self.rows.add(found.family, found.rows);
        }
        let malformed = || part.damaged(found.key, &CodecError::Key { family: found.family.name() });
        if found.family == Family::Saga {
            let (id, first_seq) = keys::parse_saga(found.key).ok_or_else(malformed)?;
            self.add_record(id, first_seq, &found);
            return Ok(());
        }
        let content = found.content.map_err(|cause| part.damaged(found.key, &cause))?;
        let wrong = |cause: CodecError| part.damaged(found.key, &cause);
        match found.family {
            Family::Meta | Family::Saga => {}
            Family::Counter => {
                let key = keys::parse_counter(found.key).ok_or_else(malformed)?;
                let number = content.try_into().map_err(|_| malformed())?;
                self.live.counters.insert(key, u64::from_be_bytes(number));
                self.remember_parts(found.key, found.rows);
            }
            Family::Definition => {
                forms::decode_definition(&content).map_err(wrong)?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Registration => {
                forms::decode_registration(&content).map_err(wrong)?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Ticket => {
                forms::decode_ticket(&content).map_err(wrong)?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Deleting => {
                self.deleting.insert(keys::parse_id(found.key).ok_or_else(malformed)?);
            }
            Family::Known | Family::Place | Family::Ended => return Err(malformed()),
        }
        Ok(())
    }

    fn remember_parts(&mut self, key: &[u8], rows: usize) {
        self.parts.insert(key.to_vec(), u16::try_from(rows).unwrap_or(u16::MAX));
    }

    /// Takes a saga's next record; they come in order.
    fn add_record(&mut self, id: SagaId, first_seq: u64, found: &Found<'_>) {
        if self.saga.as_ref().is_none_or(|saga| saga.id != id) {
            self.finish_saga();
        }
        self.sum = self.sum.wrapping_add(found.sum);
        let saga = self.saga.get_or_insert(Reading { id, first_seq, sum: 0, entry: None, damage: None });
        saga.sum = saga.sum.wrapping_add(found.sum);
        let due = saga.entry.as_ref().map_or(saga.first_seq, |entry| entry.seq + 1);
        let read = found.content.as_ref().map_err(Clone::clone).and_then(|content| {
            let record = Record::parse(content)?;
            Ok((record, record.summary()?))
        });
        let (record, summary) = match read {
            Ok(read) => read,
            Err(cause) => {
                saga.damage.get_or_insert(format!("the record from fact {first_seq}: {cause}"));
                return;
            }
        };
        if first_seq != due {
            saga.damage.get_or_insert(format!("the facts {due} up to {first_seq} are not there"));
        }
        saga.entry = Some(Entry {
            created_at: summary.created_at,
            far_wake: record.far_wake,
            kind: self.kinds.of(&summary.definition, summary.version),
            first_seq: saga.first_seq,
            record_seq: first_seq,
            seq: summary.seq,
            bytes: record.bytes,
            outbox: record.outbox,
            sum: saga.sum,
            record_sum: found.sum,
            parts: u16::try_from(found.rows).unwrap_or(u16::MAX),
            status: summary.status,
        });
    }

    fn finish_saga(&mut self) {
        let Some(Reading { id, first_seq, entry, mut damage, .. }) = self.saga.take() else { return };
        let entry = entry.unwrap_or_else(|| self.unreadable(first_seq));
        if first_seq != 1 && !entry.status.is_terminal() {
            damage.get_or_insert(format!("the facts before {first_seq} are not there"));
        }
        self.live.put(&id, entry);
        if let Some(cause) = damage {
            self.live.note_damage(&id, &cause);
            self.damaged.push((id, cause));
        }
    }

    /// Stands for a saga of which nothing can be read: it counts as running, so that somebody
    /// comes across it.
    fn unreadable(&mut self, first_seq: u64) -> Entry {
        let unnamed = DefinitionName::parse("unreadable").expect("a valid name");
        Entry {
            created_at: Timestamp(0),
            far_wake: None,
            kind: self.kinds.of(&unnamed, Version(0)),
            first_seq,
            record_seq: first_seq,
            seq: 0,
            bytes: 0,
            outbox: 0,
            sum: 0,
            record_sum: 0,
            parts: 0,
            status: SagaStatus::Running,
        }
    }

    /// What contradicts the numbers that were written with the last batch, if anything does.
    pub fn contradiction(&self) -> Option<String> {
        for family in Family::ALL {
            let (found, written) = (self.rows.of(family), self.tail.rows.of(family));
            if found != written {
                return Some(format!("it holds {found} {} rows, and {written} were written", family.name()));
            }
        }
        if self.sum != self.tail.sum && self.damaged.is_empty() {
            return Some("its sagas are not those that were written last".to_owned());
        }
        let counted = open_count(&self.live.counters);
        let found = self.live.open.len() as u64;
        let unsure = self.damaged.len() as u64;
        (counted.abs_diff(found) > unsure)
            .then(|| format!("it holds {found} open sagas, and its counters say {counted}"))
    }

    /// What the history is held against.
    pub fn findings(&self, marker: Marker) -> Findings {
        Findings {
            ended: self.live.ended_whole(),
            ended_count: ended_count(&self.live.counters),
            deleting: self.deleting.clone(),
            unsure: !self.damaged.is_empty(),
            marker: Some(marker),
        }
    }
}

/// The sum of the counters of open sagas.
fn open_count(counters: &Counters) -> u64 {
    let open = counters.iter().filter(|((_, _, status), _)| !status.is_terminal());
    open.map(|(_, count)| count).sum()
}

/// The sum of the counters of ended sagas.
fn ended_count(counters: &Counters) -> u64 {
    counters.values().sum::<u64>() - open_count(counters)
}
