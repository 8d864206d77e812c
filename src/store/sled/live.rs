//! What is known of the sagas in the open database without reading it: about 300 bytes for each.
//!
//! Only the writer changes it, and only once the batch is on stable storage: what a reader finds
//! here is durable, and rows beyond it are not shown to anyone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::order::{Window, place_key, split_place};
use crate::store::{Counters, ListQuery, open_set::OpenSet};

/// One saga in the open database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The first fact that lies here; over 1 when a late write came for a saga in the history.
    pub first_seq: u64,
    /// The last fact.
    pub seq: u64,
    pub created_at: Timestamp,
    /// When the last fact was decided.
    pub updated_at: Timestamp,
    pub status: SagaStatus,
    pub definition: DefinitionName,
    pub version: Version,
    /// Bytes of its whole journal.
    pub bytes: u64,
    /// The hash of the stored summary without what changes with every fact.
    pub lasting: u64,
    /// Rows of its stored summary.
    pub place_parts: u16,
    pub far_wake: Option<Timestamp>,
    /// Numbers of its outbox records here.
    pub outbox: Vec<u64>,
    /// Why it cannot be read.
    pub damage: Option<Arc<str>>,
}

/// All of them, and the numbers that go with them.
#[derive(Debug, Default)]
pub struct Live {
    sagas: HashMap<SagaId, Entry>,
    places: BTreeMap<SagaStatus, BTreeSet<Vec<u8>>>,
    pub open: OpenSet,
    pub counters: Counters,
    pub outbox_records: u64,
    /// The last commit on stable storage.
    pub commit: u64,
    /// The history's commit that it relies on.
    pub history_commit: u64,
}

impl Live {
    pub fn get(&self, id: &SagaId) -> Option<&Entry> {
        self.sagas.get(id)
    }

    pub fn put(&mut self, id: &SagaId, entry: Entry) {
        self.remove(id);
        self.places.entry(entry.status).or_default().insert(place_key(entry.created_at, id));
        if !entry.status.is_terminal() {
            self.open.put(id, entry.far_wake);
        }
        self.sagas.insert(id.clone(), entry);
    }

    pub fn remove(&mut self, id: &SagaId) {
        let Some(entry) = self.sagas.remove(id) else { return };
        if let Some(places) = self.places.get_mut(&entry.status) {
            places.remove(&place_key(entry.created_at, id));
        }
        self.open.remove(id);
    }

    /// The sagas in the window with a wanted status and definition, in the order asked for.
    pub fn list(&self, query: &ListQuery, window: &Window) -> Vec<Listed> {
        let statuses = self
            .places
            .iter()
            .filter(|(status, _)| query.statuses.is_empty() || query.statuses.contains(status));
        let mut found: Vec<&[u8]> = Vec::new();
        for (_, places) in statuses {
            let range = (window.lower.as_ref().map(Vec::as_slice), window.upper.as_ref().map(Vec::as_slice));
            let range = places.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>(range).map(Vec::as_slice);
            let wanted = range.filter(|place| self.has_definition(place, query));
            if query.newest_first {
                found.extend(wanted.rev().take(query.limit));
            } else {
                found.extend(wanted.take(query.limit));
            }
        }
        found.sort_unstable();
        if query.newest_first {
            found.reverse();
        }
        found.truncate(query.limit);
        let listed = |place: &[u8]| {
            let (_, id, _) = split_place(place)?;
            let entry = self.sagas.get(&id)?;
            Some(Listed { created_at: entry.created_at, seq: entry.seq, updated_at: entry.updated_at, id })
        };
        found.into_iter().filter_map(listed).collect()
    }

    fn has_definition(&self, place: &[u8], query: &ListQuery) -> bool {
        let Some(wanted) = &query.definition else { return true };
        let entry = split_place(place).and_then(|(_, id, _)| self.sagas.get(&id));
        entry.is_some_and(|entry| entry.definition == *wanted)
    }

    /// How many have ended and wait to be moved to the history.
    pub fn unmoved(&self) -> usize {
        self.sagas.len() - self.open.len()
    }

    /// The sagas that have ended and wait to be moved to the history.
    pub fn ended(&self) -> Vec<SagaId> {
        let ended = self.sagas.iter().filter(|(_, entry)| entry.status.is_terminal());
        ended.map(|(id, _)| id.clone()).collect()
    }
}

/// One row of a list of open sagas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: SagaId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub seq: u64,
}
