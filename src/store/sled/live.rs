//! What is known of the sagas in the open database without reading it: some 250 bytes for each.
//!
//! Only the writer changes it, and only once the batch is on stable storage: what a reader finds
//! here is durable, and facts beyond it are not shown to anyone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::order::{Window, split_place, time_of};
use crate::store::{Counters, ListQuery, open_set::OpenSet};

/// A version of a definition, kept once for all of its sagas.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub definition: DefinitionName,
    pub version: Version,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Kinds(HashSet<Arc<Kind>>);

impl Kinds {
    /// The one there is of this version.
    pub fn of(&mut self, definition: &DefinitionName, version: Version) -> Arc<Kind> {
        let kind = Kind { definition: definition.clone(), version };
        if let Some(known) = self.0.get(&kind) {
            return Arc::clone(known);
        }
        let kind = Arc::new(kind);
        self.0.insert(Arc::clone(&kind));
        kind
    }
}

/// One saga in the open database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub created_at: Timestamp,
    pub far_wake: Option<Timestamp>,
    pub kind: Arc<Kind>,
    /// The first fact that lies here; over 1 when a late write came for a saga in the history.
    pub first_seq: u64,
    /// The first fact of its last record.
    pub record_seq: u64,
    /// The last fact.
    pub seq: u64,
    /// Bytes of its whole journal.
    pub bytes: u64,
    /// Outbox records in its whole journal.
    pub outbox: u32,
    /// The sum of the checksums of its rows here.
    pub sum: u32,
    /// The same of its last record alone.
    pub record_sum: u32,
    /// Rows of its last record; 0 when nothing of it lies here yet.
    pub parts: u16,
    pub status: SagaStatus,
}

/// All of them, and the numbers that go with them.
#[derive(Debug, Default)]
pub struct Live {
    sagas: BTreeMap<SagaId, Entry>,
    /// By status, creation and id; an id is always there.
    places: BTreeMap<SagaStatus, BTreeSet<Place>>,
    /// Why some of them cannot be read.
    damaged: BTreeMap<SagaId, Arc<str>>,
    pub open: OpenSet,
    pub counters: Counters,
    pub outbox_records: u64,
    /// The last commit on stable storage.
    pub commit: u64,
    /// The history's commit that it relies on.
    pub history_commit: u64,
}

/// A place in the order of lists. Without an id it stands in front of all of the same time.
type Place = (Timestamp, Option<SagaId>);

impl Live {
    pub fn get(&self, id: &SagaId) -> Option<&Entry> {
        self.sagas.get(id)
    }

    pub fn put(&mut self, id: &SagaId, entry: Entry) {
        // The same text for all that names it.
        let id = self.remove(id).unwrap_or_else(|| id.clone());
        self.places.entry(entry.status).or_default().insert((entry.created_at, Some(id.clone())));
        if !entry.status.is_terminal() {
            self.open.put(&id, entry.far_wake);
        }
        self.sagas.insert(id, entry);
    }

    /// Forgets a saga; its id as it was kept.
    pub fn remove(&mut self, id: &SagaId) -> Option<SagaId> {
        let (id, entry) = self.sagas.remove_entry(id)?;
        let place = (entry.created_at, Some(id));
        if let Some(places) = self.places.get_mut(&entry.status) {
            places.remove(&place);
        }
        let id = place.1?;
        if !entry.status.is_terminal() {
            self.open.remove(&id, entry.far_wake);
        }
        Some(id)
    }

    /// Notes that a saga cannot be read.
    pub fn note_damage(&mut self, id: &SagaId, cause: &str) {
        self.damaged.insert(id.clone(), Arc::from(cause));
    }

    /// Why a saga cannot be read, if so.
    pub fn damage(&self, id: &SagaId) -> Option<Arc<str>> {
        self.damaged.get(id).cloned()
    }

    /// The sagas in the window with a wanted status and definition, in the order asked for; each
    /// with its last fact.
    pub fn list(&self, query: &ListQuery, window: &Window) -> Vec<(SagaId, u64)> {
        let statuses = self
            .places
            .iter()
            .filter(|(status, _)| query.statuses.is_empty() || query.statuses.contains(status));
        let mut found: Vec<&Place> = Vec::new();
        for (_, places) in statuses {
            let range = places.range((edge(&window.lower), edge(&window.upper)));
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
        let listed = |(_, id): &Place| {
            let (id, entry) = self.sagas.get_key_value(id.as_ref()?)?;
            Some((id.clone(), entry.seq))
        };
        found.into_iter().filter_map(listed).collect()
    }

    fn has_definition(&self, place: &Place, query: &ListQuery) -> bool {
        let Some(wanted) = &query.definition else { return true };
        let entry = place.1.as_ref().and_then(|id| self.sagas.get(id));
        entry.is_some_and(|entry| entry.kind.definition == *wanted)
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

    /// Those of them whose whole journal lies here.
    pub fn ended_whole(&self) -> Vec<SagaId> {
        let whole = |id: &SagaId| self.get(id).is_some_and(|entry| entry.first_seq == 1);
        self.ended().into_iter().filter(whole).collect()
    }
}

/// The edge of a window: a place, or only its time.
fn edge(bound: &Bound<Vec<u8>>) -> Bound<Place> {
    bound.as_ref().map(|bytes| match split_place(bytes) {
        Some((time, id, _)) => (time, Some(id)),
        None => (bytes.first_chunk().map_or(Timestamp(i64::MIN), |time| time_of(*time)), None),
    })
}
