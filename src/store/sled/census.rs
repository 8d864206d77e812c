//! What the open database holds beside its sagas, as it is found out when a store is opened. The
//! sagas themselves are called up by `roll.rs`.

use std::collections::{HashMap, HashSet};

use super::keys::{self, Family};
use super::live::Live;
use super::part::Part;
use super::records::{RowCounts, Tail};
use super::roll::Written;
use super::scan::{Found, records};
use crate::saga::ids::SagaId;
use crate::store::codec::{CodecError, records as forms};
use crate::store::{Counters, StoreError};

/// What the open database holds beside its sagas.
#[derive(Debug, Default)]
pub struct Census {
    /// Its counters and numbers; no sagas yet.
    pub live: Live,
    pub tail: Tail,
    /// Rows of each record that can be replaced or deleted by its key.
    pub parts: HashMap<Vec<u8>, u16>,
    /// Sagas whose deletion from the history was decided.
    pub deleting: HashSet<SagaId>,
    /// Rows found.
    rows: RowCounts,
}

impl Census {
    /// Reads all of the open database but its sagas.
    pub fn take(part: &Part) -> Result<Self, StoreError> {
        let mut census = Self { tail: part.tail()?, ..Self::default() };
        let db = part.db()?;
        let (sagas, behind) = (Family::Saga.prefix(), Family::Known.prefix());
        records(part, db.range(..sagas), |found| census.add(part, &found))?;
        records(part, db.range(behind..), |found| census.add(part, &found))?;
        census.live.outbox_records = census.tail.outbox_records;
        census.live.commit = census.tail.commit;
        census.live.history_commit = census.tail.history_commit;
        Ok(census)
    }

    fn add(&mut self, part: &Part, found: &Found<'_>) -> Result<(), StoreError> {
        if found.family != Family::Meta {
            self.rows.add(found.family, found.rows);
        }
        let malformed = || part.damaged(found.key, &CodecError::Key { family: found.family.name() });
        let wrong = |cause: &CodecError| part.damaged(found.key, cause);
        let content = found.content.as_ref().map_err(wrong)?;
        match found.family {
            Family::Meta => {}
            Family::Counter => {
                let key = keys::parse_counter(found.key).ok_or_else(malformed)?;
                let number = content.first_chunk().filter(|number| number.len() == content.len());
                self.live.counters.insert(key, u64::from_be_bytes(*number.ok_or_else(malformed)?));
                self.remember_parts(found.key, found.rows);
            }
            Family::Definition => {
                forms::decode_definition(content).map_err(|cause| wrong(&cause))?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Registration => {
                forms::decode_registration(content).map_err(|cause| wrong(&cause))?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Pause => {
                forms::decode_pause(content).map_err(|cause| wrong(&cause))?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Ticket => {
                forms::decode_ticket(content).map_err(|cause| wrong(&cause))?;
                self.remember_parts(found.key, found.rows);
            }
            Family::Deleting => {
                self.deleting.insert(keys::parse_id(found.key).ok_or_else(malformed)?);
            }
            Family::Saga | Family::Known | Family::Place | Family::Ended => return Err(malformed()),
        }
        Ok(())
    }

    fn remember_parts(&mut self, key: &[u8], rows: usize) {
        self.parts.insert(key.to_vec(), u16::try_from(rows).unwrap_or(u16::MAX));
    }

    /// What contradicts the numbers that were written with the last batch, if anything does.
    pub fn contradiction(&self) -> Option<String> {
        let others = Family::ALL.into_iter().filter(|family| *family != Family::Saga);
        others.map(|family| (family, self.rows.of(family))).find_map(|(family, found)| {
            let written = self.tail.rows.of(family);
            (found != written).then(|| not_as_written(family, found, written))
        })
    }

    /// What its sagas are held against.
    pub fn written(&self) -> Written {
        let counters = &self.live.counters;
        Written { tail: self.tail.clone(), open: open_count(counters), ended: ended_count(counters) }
    }
}

/// Says that there are more or fewer rows than there should be.
pub fn not_as_written(family: Family, found: u64, written: u64) -> String {
    format!("it holds {found} {} rows, and {written} were written", family.name())
}

/// The sum of the counters of open sagas.
pub fn open_count(counters: &Counters) -> u64 {
    let open = counters.iter().filter(|((_, _, status), _)| !status.is_terminal());
    open.map(|(_, count)| count).sum()
}

/// The sum of the counters of ended sagas.
fn ended_count(counters: &Counters) -> u64 {
    counters.values().sum::<u64>() - open_count(counters)
}
