//! Reading a whole database: what opening a store and verifying it have in common.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use super::keys::{self, Family};
use super::live::{Entry, Live};
use super::part::Part;
use super::records::{RowCounts, Tail, decode_outbox, journal_head};
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::codec::frame::{Joiner, PART_BYTES};
use crate::store::codec::summary::{decode_summary, lasting_part};
use crate::store::codec::{CodecError, records as forms};
use crate::store::{Counters, StoreError};

/// A record as it lies in a database.
pub struct Found<'a> {
    pub family: Family,
    /// Its key without the part number.
    pub key: &'a [u8],
    /// Rows seen of it.
    pub rows: usize,
    /// Its content, or why it has none.
    pub content: Result<Vec<u8>, CodecError>,
}

struct Current {
    key: Vec<u8>,
    joiner: Joiner,
    rows: usize,
    result: Option<Result<Vec<u8>, CodecError>>,
}

impl Current {
    fn new(key: &[u8]) -> Self {
        Self { key: key.to_vec(), joiner: Joiner::default(), rows: 0, result: None }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
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
        each(Found { family, key: &self.key, rows: self.rows, content })
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

/// The hash by which a summary is known to be the stored one but for its last fact.
pub fn lasting_hash(encoded_summary: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(lasting_part(encoded_summary));
    hasher.finish()
}

/// What the open database holds.
#[derive(Debug, Default)]
pub struct Census {
    pub live: Live,
    pub tail: Tail,
    /// Rows of each record that can be replaced or deleted by its key.
    pub parts: HashMap<Vec<u8>, u16>,
    /// Sagas whose deletion from the history was decided.
    pub deleting: HashSet<SagaId>,
    /// Rows found.
    pub rows: RowCounts,
    /// Sagas that cannot be read, and why.
    pub damaged: Vec<(SagaId, String)>,
    journals: HashMap<SagaId, Journal>,
    wakes: HashMap<SagaId, Timestamp>,
}

#[derive(Debug, Default)]
struct Journal {
    first_seq: u64,
    last_seq: u64,
    last_at: i64,
    bytes: u64,
    outbox: Vec<u64>,
    damage: Option<String>,
}

impl Census {
    /// Reads the open database. Damage of one saga's records is noted with that saga; damage of
    /// anything else is an error.
    pub fn take(part: &Part) -> Result<Self, StoreError> {
        let mut census = Self { tail: part.tail()?, ..Self::default() };
        records(part, part.db()?.iter(), |found| census.add(part, found))?;
        census.finish();
        Ok(census)
    }

    fn add(&mut self, part: &Part, found: Found<'_>) -> Result<(), StoreError> {
        if found.family != Family::Meta {
            self.rows.add(found.family, found.rows);
        }
        let malformed = || part.damaged(found.key, &CodecError::Key { family: found.family.name() });
        let of_saga = match found.family {
            Family::Journal => keys::parse_journal(found.key).map(|(id, _)| id),
            Family::Place | Family::Wake => keys::parse_place(found.key).map(|(_, id)| id),
            _ => None,
        };
        if let (Some(id), Err(cause)) = (&of_saga, &found.content) {
            let cause = format!("a {} record: {cause}", found.family.name());
            self.journals.entry(id.clone()).or_default().damage.get_or_insert(cause);
            if found.family != Family::Place {
                return Ok(());
            }
        }
        if found.family == Family::Place {
            let (created_at, id) = keys::parse_place(found.key).ok_or_else(malformed)?;
            self.add_place(created_at, &id, found.rows, found.content.ok().as_deref());
            return Ok(());
        }
        let content = found.content.map_err(|cause| part.damaged(found.key, &cause))?;
        let wrong = |cause: CodecError| part.damaged(found.key, &cause);
        match found.family {
            Family::Meta | Family::Place => {}
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
            Family::Wake => {
                let (at, id) = keys::parse_place(found.key).ok_or_else(malformed)?;
                self.wakes.insert(id, at);
            }
            Family::Deleting => {
                self.deleting.insert(keys::parse_id(found.key).ok_or_else(malformed)?);
            }
            Family::Journal => {
                let (id, first_seq) = keys::parse_journal(found.key).ok_or_else(malformed)?;
                let head = journal_head(&content).map_err(wrong)?;
                self.add_journal(id, first_seq, head.last_seq, head.last_at, content.len());
            }
            Family::Outbox => {
                let number = keys::parse_number(found.key).ok_or_else(malformed)?;
                let (id, _) = decode_outbox(&content).map_err(wrong)?;
                self.journals.entry(id).or_default().outbox.push(number);
            }
            Family::Head | Family::Ended => return Err(malformed()),
        }
        Ok(())
    }

    fn remember_parts(&mut self, key: &[u8], rows: usize) {
        self.parts.insert(key.to_vec(), u16::try_from(rows).unwrap_or(u16::MAX));
    }

    fn add_journal(&mut self, id: SagaId, first_seq: u64, last_seq: u64, last_at: Timestamp, bytes: usize) {
        let journal = self.journals.entry(id).or_default();
        if journal.last_seq == 0 {
            journal.first_seq = first_seq;
        } else if journal.last_seq + 1 != first_seq {
            let cause = format!("the facts behind {} up to {first_seq} are not there", journal.last_seq);
            journal.damage.get_or_insert(cause);
        }
        journal.last_seq = last_seq;
        journal.last_at = last_at.0;
        journal.bytes += bytes as u64;
    }

    fn add_place(&mut self, created_at: Timestamp, id: &SagaId, rows: usize, content: Option<&[u8]>) {
        let journal = self.journals.remove(id).unwrap_or_default();
        let summary = content.map(decode_summary);
        let mut damage = journal.damage;
        let mut note = |cause: String| {
            damage.get_or_insert(cause);
        };
        let read = match summary {
            Some(Ok(summary)) => {
                if journal.last_seq == 0 {
                    note("its journal is not there".to_owned());
                } else if summary.seq > journal.last_seq {
                    note(format!("the facts behind {} are not there", journal.last_seq));
                } else if journal.first_seq != 1 && !summary.status.is_terminal() {
                    note(format!("the facts before {} are not there", journal.first_seq));
                }
                Some(summary)
            }
            Some(Err(cause)) => {
                note(format!("its summary: {cause}"));
                None
            }
            None => None,
        };
        if let Some(cause) = &damage {
            self.damaged.push((id.clone(), cause.clone()));
        }
        let far_wake = self.wakes.remove(id);
        let unnamed = || DefinitionName::parse("unreadable").expect("a valid name");
        let entry = Entry {
            first_seq: journal.first_seq,
            seq: journal.last_seq,
            created_at,
            updated_at: Timestamp(journal.last_at),
            status: read.as_ref().map_or(SagaStatus::Running, |row| row.status),
            definition: read.as_ref().map_or_else(unnamed, |row| row.definition.clone()),
            version: read.as_ref().map_or(Version(0), |row| row.version),
            bytes: journal.bytes,
            lasting: content.map_or(0, lasting_hash),
            place_parts: u16::try_from(rows).unwrap_or(u16::MAX),
            far_wake,
            outbox: journal.outbox,
            damage: damage.map(Arc::from),
        };
        self.live.put(id, entry);
    }

    /// Journals and wake-ups that no summary claims belong to sagas that lost theirs.
    fn finish(&mut self) {
        let lost = std::mem::take(&mut self.journals);
        let woken = std::mem::take(&mut self.wakes);
        for id in lost.into_keys().chain(woken.into_keys()) {
            self.damaged.push((id, "its summary is not there".to_owned()));
        }
        self.live.outbox_records = self.tail.outbox_records;
        self.live.commit = self.tail.commit;
        self.live.history_commit = self.tail.history_commit;
    }

    /// What contradicts the numbers that were written with the last batch, if anything does.
    pub fn contradiction(&self) -> Option<String> {
        for family in Family::ALL {
            let (found, written) = (self.rows.of(family), self.tail.rows.of(family));
            if found != written {
                return Some(format!("it holds {found} {} rows, and {written} were written", family.name()));
            }
        }
        let counted = open_count(&self.live.counters);
        let found = self.live.open.len() as u64;
        let unsure = self.damaged.len() as u64;
        (counted.abs_diff(found) > unsure)
            .then(|| format!("it holds {found} open sagas, and its counters say {counted}"))
    }
}

/// The sum of the counters of open sagas.
pub fn open_count(counters: &Counters) -> u64 {
    let open = counters.iter().filter(|((_, _, status), _)| !status.is_terminal());
    open.map(|(_, count)| count).sum()
}

/// The sum of the counters of ended sagas.
pub fn ended_count(counters: &Counters) -> u64 {
    counters.values().sum::<u64>() - open_count(counters)
}
