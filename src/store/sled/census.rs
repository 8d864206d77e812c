//! What the open database holds, as it is found out when a store is opened.

use std::collections::{HashMap, HashSet};

use super::keeper::Findings;
use super::keys::{self, Family};
use super::live::{Kinds, Live};
use super::marker::Marker;
use super::part::Part;
use super::records::{RowCounts, Tail};
use super::roll::{Roll, call_roll};
use super::scan::{Found, records};
use crate::saga::ids::SagaId;
use crate::store::codec::{CodecError, records as forms};
use crate::store::{Counters, StoreError};

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
}

impl Census {
    /// Reads the open database. Damage of one saga's records is noted with that saga; damage of
    /// anything else is an error.
    pub fn take(part: &Part) -> Result<Self, StoreError> {
        let mut census = Self { tail: part.tail()?, ..Self::default() };
        let db = part.db()?;
        let (sagas, behind) = (Family::Saga.prefix(), Family::Known.prefix());
        records(part, db.range(..sagas), |found| census.add(part, &found))?;
        census.take_up(call_roll(part, sagas..behind)?);
        records(part, db.range(behind..), |found| census.add(part, &found))?;
        census.live.outbox_records = census.tail.outbox_records;
        census.live.commit = census.tail.commit;
        census.live.history_commit = census.tail.history_commit;
        Ok(census)
    }

    fn take_up(&mut self, roll: Roll) {
        let Roll { sagas, damaged, kinds, rows, sum } = roll;
        self.live.take_up(sagas);
        for (id, cause) in &damaged {
            self.live.note_damage(id, cause);
        }
        self.rows.add(Family::Saga, rows);
        (self.damaged, self.kinds, self.sum) = (damaged, kinds, sum);
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
