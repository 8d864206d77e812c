//! What is known of the sagas in the open database without reading it: some 150 bytes for each that
//! is found at the start, and up to twice as much for those that come and go.
//!
//! Only the writer changes it, and only once the batch is on stable storage: what a reader finds
//! here is durable, and facts beyond it are not shown to anyone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use super::roll::Roll;
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::open_set::{OpenSet, Wake};
use crate::store::order::{Window, split_place, time_of};
use crate::store::packed::PackedId;
use crate::store::{Counters, ListQuery};

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
    pub wake: Wake,
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

impl Entry {
    /// Of a saga of which nothing lies in the open database yet, and whose next fact is `first_seq`.
    pub fn unwritten(created_at: Timestamp, kind: Arc<Kind>, status: SagaStatus, first_seq: u64) -> Self {
        Self {
            created_at,
            wake: Wake::default(),
            kind,
            first_seq,
            record_seq: first_seq,
            seq: first_seq.saturating_sub(1),
            bytes: 0,
            outbox: 0,
            sum: 0,
            record_sum: 0,
            parts: 0,
            status,
        }
    }
}

/// An entry as it is kept. Nearly all sagas are one record that begins with the first fact, and
/// have small numbers.
#[derive(Debug)]
pub enum Packed {
    Short(Short),
    Whole(Box<Entry>),
}

/// The entry of a saga that is one record.
#[derive(Debug)]
pub struct Short {
    created_at: Timestamp,
    far_wake: i64,
    kind: Arc<Kind>,
    seq: u32,
    bytes: u32,
    sum: u32,
    outbox: u16,
    parts: u16,
    rests: bool,
    status: SagaStatus,
}

/// Stands for no far wake-up, as it does in a record.
const NO_WAKE: i64 = i64::MIN;

/// By what a saga is found.
#[derive(Debug, PartialEq, Eq)]
struct Marks {
    created_at: Timestamp,
    status: SagaStatus,
    wake: Wake,
}

impl Packed {
    pub fn of(entry: Entry) -> Self {
        Short::of(&entry).map_or_else(|| Self::Whole(Box::new(entry)), Self::Short)
    }

    fn unpack(&self) -> Entry {
        match self {
            Self::Whole(entry) => Entry::clone(entry),
            Self::Short(short) => Entry {
                created_at: short.created_at,
                wake: short.wake(),
                kind: Arc::clone(&short.kind),
                first_seq: 1,
                record_seq: 1,
                seq: short.seq.into(),
                bytes: short.bytes.into(),
                outbox: short.outbox.into(),
                sum: short.sum,
                record_sum: short.sum,
                parts: short.parts,
                status: short.status,
            },
        }
    }

    fn marks(&self) -> Marks {
        let (created_at, status, wake) = match self {
            Self::Whole(entry) => (entry.created_at, entry.status, entry.wake),
            Self::Short(short) => (short.created_at, short.status, short.wake()),
        };
        Marks { created_at, status, wake }
    }

    fn kind(&self) -> &Kind {
        match self {
            Self::Whole(entry) => &entry.kind,
            Self::Short(short) => &short.kind,
        }
    }

    fn seq(&self) -> u64 {
        match self {
            Self::Whole(entry) => entry.seq,
            Self::Short(short) => short.seq.into(),
        }
    }

    fn first_seq(&self) -> u64 {
        match self {
            Self::Whole(entry) => entry.first_seq,
            Self::Short(_) => 1,
        }
    }
}

impl Short {
    /// `None` for an entry that is not as short.
    fn of(entry: &Entry) -> Option<Self> {
        let one_record = entry.first_seq == 1 && entry.record_seq == 1 && entry.record_sum == entry.sum;
        let short = Self {
            created_at: entry.created_at,
            far_wake: entry.wake.far.map_or(NO_WAKE, |wake| wake.0),
            kind: Arc::clone(&entry.kind),
            seq: entry.seq.try_into().ok()?,
            bytes: entry.bytes.try_into().ok()?,
            sum: entry.sum,
            outbox: entry.outbox.try_into().ok()?,
            parts: entry.parts,
            rests: entry.wake.rests,
            status: entry.status,
        };
        one_record.then_some(short)
    }

    fn wake(&self) -> Wake {
        Wake::of((self.far_wake != NO_WAKE).then_some(Timestamp(self.far_wake)), self.rests)
    }
}

/// All of them, and the numbers that go with them.
#[derive(Debug, Default)]
pub struct Live {
    sagas: BTreeMap<PackedId, Packed>,
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
type Place = (Timestamp, Option<PackedId>);

impl Live {
    /// All sagas of a roll at once: quicker than one by one, and smaller.
    pub fn of(roll: Roll) -> Self {
        let Roll { sagas, damaged, .. } = roll;
        let mut places: BTreeMap<SagaStatus, Vec<Place>> = BTreeMap::new();
        for (id, packed) in &sagas {
            let Marks { created_at, status, .. } = packed.marks();
            places.entry(status).or_default().push((created_at, Some(id.clone())));
        }
        let places =
            places.into_iter().map(|(status, places)| (status, places.into_iter().collect())).collect();
        let open = sagas.iter().map(|(id, packed)| (id, packed.marks()));
        let open = open.filter(|(_, marks)| !marks.status.is_terminal());
        let open = OpenSet::of(open.map(|(id, marks)| (id.clone(), marks.wake)));
        let damaged = damaged.into_iter().map(|(id, cause)| (id, Arc::from(cause))).collect();
        Self { sagas: sagas.into_iter().collect(), places, open, damaged, ..Self::default() }
    }

    /// Takes up the sagas of the roll. None of them has been written since; whatever is here is newer.
    pub fn take_up(&mut self, called: Live) {
        let Live { sagas, places, open, damaged, .. } = called;
        let newer = std::mem::replace(&mut self.sagas, sagas);
        (self.places, self.open, self.damaged) = (places, open, damaged);
        for (id, packed) in newer {
            self.put(&id.unpack(), packed.unpack());
        }
    }

    pub fn get(&self, id: &SagaId) -> Option<Entry> {
        self.sagas.get(&PackedId::of(id)).map(Packed::unpack)
    }

    /// Whether it is among them.
    pub fn contains(&self, id: &SagaId) -> bool {
        self.sagas.contains_key(&PackedId::of(id))
    }

    pub fn put(&mut self, id: &SagaId, entry: Entry) {
        let (id, packed) = (PackedId::of(id), Packed::of(entry));
        let marks = packed.marks();
        match self.sagas.insert(id.clone(), packed) {
            Some(before) if before.marks() == marks => return,
            Some(before) => self.unmark(id.clone(), &before.marks()),
            None => {}
        }
        if !marks.status.is_terminal() {
            self.open.put(id.clone(), marks.wake);
        }
        self.places.entry(marks.status).or_default().insert((marks.created_at, Some(id)));
    }

    /// Forgets a saga.
    pub fn remove(&mut self, id: &SagaId) {
        let id = PackedId::of(id);
        if let Some(before) = self.sagas.remove(&id) {
            self.unmark(id, &before.marks());
        }
    }

    fn unmark(&mut self, id: PackedId, marks: &Marks) {
        if !marks.status.is_terminal() {
            self.open.remove(id.clone(), marks.wake);
        }
        if let Some(places) = self.places.get_mut(&marks.status) {
            places.remove(&(marks.created_at, Some(id)));
        }
    }

    /// Whether there are sagas that cannot be read.
    pub fn has_damage(&self) -> bool {
        !self.damaged.is_empty()
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
            let id = id.as_ref()?;
            Some((id.unpack(), self.sagas.get(id)?.seq()))
        };
        found.into_iter().filter_map(listed).collect()
    }

    fn has_definition(&self, place: &Place, query: &ListQuery) -> bool {
        let Some(wanted) = &query.definition else { return true };
        let packed = place.1.as_ref().and_then(|id| self.sagas.get(id));
        packed.is_some_and(|packed| packed.kind().definition == *wanted)
    }

    /// When the oldest open saga was accepted.
    pub fn oldest_open(&self) -> Option<Timestamp> {
        let open = self.places.iter().filter(|(status, _)| !status.is_terminal());
        open.filter_map(|(_, places)| places.first()).map(|(created_at, _)| *created_at).min()
    }

    /// How many have ended and wait to be moved to the history.
    pub fn unmoved(&self) -> usize {
        self.sagas.len() - self.open.len()
    }

    /// The sagas that have ended and wait to be moved to the history.
    pub fn ended(&self) -> Vec<SagaId> {
        self.ended_where(|_| true)
    }

    /// Those of them whose whole journal lies here.
    pub fn ended_whole(&self) -> Vec<SagaId> {
        self.ended_where(|packed| packed.first_seq() == 1)
    }

    fn ended_where(&self, wanted: impl Fn(&Packed) -> bool) -> Vec<SagaId> {
        let ended = self.places.iter().filter(|(status, _)| status.is_terminal());
        let ids = ended.flat_map(|(_, places)| places).filter_map(|(_, id)| id.as_ref());
        ids.filter(|id| self.sagas.get(*id).is_some_and(&wanted)).map(PackedId::unpack).collect()
    }
}

/// The edge of a window: a place, or only its time.
fn edge(bound: &Bound<Vec<u8>>) -> Bound<Place> {
    bound.as_ref().map(|bytes| match split_place(bytes) {
        Some((time, id, _)) => (time, Some(PackedId::of(&id))),
        None => (bytes.first_chunk().map_or(Timestamp(i64::MIN), |time| time_of(*time)), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: SagaStatus, wake: Wake) -> Entry {
        let definition = DefinitionName::parse("order").unwrap();
        Entry {
            created_at: Timestamp(7),
            wake,
            kind: Kinds::default().of(&definition, Version(2)),
            first_seq: 1,
            record_seq: 1,
            seq: 9,
            bytes: 700,
            outbox: 1,
            sum: u32::MAX,
            record_sum: u32::MAX,
            parts: 1,
            status,
        }
    }

    fn id(text: &str) -> SagaId {
        SagaId::parse(text).unwrap()
    }

    #[test]
    fn a_kept_entry_is_small() {
        assert_eq!((size_of::<Packed>(), size_of::<Place>()), (48, 32));
    }

    #[test]
    fn every_entry_comes_back_as_it_was_kept() {
        let plain = entry(SagaStatus::Running, Wake::of(None, false));
        let resting = Wake::of(Some(Timestamp(5)), true);
        for other in [
            Entry { wake: resting, ..plain.clone() },
            Entry { first_seq: 2, ..plain.clone() },
            Entry { record_seq: 2, ..plain.clone() },
            Entry { record_sum: 1, ..plain.clone() },
            Entry { seq: u64::from(u32::MAX) + 1, ..plain.clone() },
            Entry { bytes: u64::MAX, ..plain.clone() },
            Entry { outbox: u32::MAX, ..plain.clone() },
            plain,
        ] {
            assert_eq!(Packed::of(other.clone()).unpack(), other);
        }
    }

    #[test]
    fn what_is_put_again_is_found_where_it_is_now_and_nowhere_else() {
        let mut live = Live::default();
        let all = ListQuery { limit: 9, ..ListQuery::default() };
        let window = Window::of(&all).unwrap();
        let running = ListQuery { statuses: vec![SagaStatus::Running], ..all.clone() };
        let wake = |at| Wake::of(Some(Timestamp(at)), true);
        live.put(&id("a"), entry(SagaStatus::Running, wake(5)));
        live.put(&id("a"), entry(SagaStatus::Running, wake(8)));
        assert_eq!(live.open.due(Timestamp(7), 9), Vec::new());
        assert_eq!(live.open.due(Timestamp(8), 9), [id("a")]);
        assert_eq!(live.list(&running, &window), [(id("a"), 9)]);
        live.put(&id("a"), entry(SagaStatus::Completed, Wake::of(None, false)));
        assert_eq!((live.open.len(), live.unmoved(), live.ended()), (0, 1, vec![id("a")]));
        assert_eq!(live.list(&running, &window), []);
        assert_eq!(live.list(&all, &window), [(id("a"), 9)]);
        live.remove(&id("a"));
        assert_eq!((live.get(&id("a")), live.unmoved()), (None, 0));
    }

    #[test]
    fn all_at_once_comes_to_the_same_as_one_by_one() {
        let sagas = [
            ("a", entry(SagaStatus::Running, Wake::of(Some(Timestamp(5)), true))),
            ("b", entry(SagaStatus::Blocked, Wake::of(None, false))),
            ("c", entry(SagaStatus::Completed, Wake::of(None, false))),
        ];
        let (mut one_by_one, mut at_once) = (Live::default(), Live::default());
        for (text, entry) in &sagas {
            one_by_one.put(&id(text), entry.clone());
        }
        // One of them came while the others were read.
        let (later, entry) = sagas[1].clone();
        at_once.put(&id(later), entry);
        let called = [sagas[0].clone(), sagas[2].clone()];
        let called = called.into_iter().map(|(text, entry)| (PackedId::of(&id(text)), Packed::of(entry)));
        at_once.take_up(Live::of(Roll { sagas: called.collect(), ..Roll::default() }));
        let all = ListQuery { limit: 9, ..ListQuery::default() };
        let seen = |live: &Live| {
            let list = live.list(&all, &Window::of(&all).unwrap());
            (list, live.open.page(None, 9).sagas, live.open.len(), live.ended_whole())
        };
        assert_eq!(seen(&at_once), seen(&one_by_one));
    }
}
