//! What the write-ahead log holds and the database does not, in memory, in front of the database.
//!
//! ```text
//!  apply ──► log: one write, one sync ──► current ──(the file is full)──► sealed ──folder──► database
//!                                            └──────── readers look here first ──────┘
//! ```
//!
//! A row that comes and goes within one generation never touches the database.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::iter::Fuse;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ::sled::IVec;
use parking_lot::{Condvar, Mutex, RwLock};

use super::scan::Stored;
use super::wal::{Mark, Wal};

/// A generation goes on to so many times its size while the one before is still being folded.
const OVERFULL: u64 = 2;

/// What a batch does to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is written, and the database has none under this key.
    New(Vec<u8>),
    /// It is written, whether it is there or not.
    Put(Vec<u8>),
    /// It is gone.
    Remove,
}

impl Change {
    /// The row's value behind it.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Change::New(value) | Change::Put(value) => Some(value),
            Change::Remove => None,
        }
    }
}

/// A row as the batches of one generation leave it.
#[derive(Debug, Clone)]
enum Held {
    /// It is there, and was not when the generation began.
    New(IVec),
    Put(IVec),
    Gone,
}

impl Held {
    fn value(&self) -> Option<&IVec> {
        match self {
            Held::New(value) | Held::Put(value) => Some(value),
            Held::Gone => None,
        }
    }
}

/// The rows of a generation, by key.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<IVec, Held>);

impl Rows {
    /// Each row, `None` for one that is gone.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, held)| (key.as_ref(), held.value().map(AsRef::as_ref)))
    }
}

#[derive(Debug, Default)]
struct Generations {
    current: Rows,
    sealed: Option<Arc<Rows>>,
}

impl Generations {
    fn note(&mut self, changes: Vec<(Vec<u8>, Change)>) {
        for (key, change) in changes {
            let key = IVec::from(key);
            let before = self.current.0.get(&key);
            let was_new = matches!(before, Some(Held::New(_)));
            let is_sealed = || {
                let sealed = self.sealed.as_ref().and_then(|rows| rows.0.get(&key));
                sealed.is_some_and(|held| held.value().is_some())
            };
            match change {
                Change::Remove if was_new => drop(self.current.0.remove(&key)),
                Change::Remove => drop(self.current.0.insert(key, Held::Gone)),
                Change::New(value) if was_new || (before.is_none() && !is_sealed()) => {
                    self.current.0.insert(key, Held::New(value.into()));
                }
                Change::Put(value) if was_new => drop(self.current.0.insert(key, Held::New(value.into()))),
                Change::New(value) | Change::Put(value) => {
                    self.current.0.insert(key, Held::Put(value.into()));
                }
            }
        }
    }
}

/// What the log holds of a row.
#[derive(Debug)]
pub enum Pending {
    /// This is its value.
    Row(IVec),
    /// It is gone.
    Gone,
    /// Nothing: it is as the database has it.
    Nothing,
}

/// Which generation is sealed.
#[derive(Debug, Default)]
struct Turn {
    sealed: Option<Mark>,
    /// Nobody folds any more.
    is_over: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Front {
    log: Mutex<Wal>,
    /// Bytes of the log at which a generation is sealed.
    seal_bytes: u64,
    pending: RwLock<Generations>,
    turn: Mutex<Turn>,
    turned: Condvar,
}

impl Front {
    /// Nothing is pending.
    pub fn new(log: Wal, seal_bytes: u64) -> Self {
        Self {
            log: Mutex::new(log),
            seal_bytes,
            pending: RwLock::default(),
            turn: Mutex::default(),
            turned: Condvar::new(),
        }
    }

    /// Logs a batch, and shows it once it is on stable storage; the time the sync took.
    pub fn apply(&self, commit: u64, changes: Vec<(Vec<u8>, Change)>) -> std::io::Result<Duration> {
        let mut log = self.log.lock();
        let rows = changes.iter().map(|(key, change)| (key.as_slice(), change.value()));
        let took = log.append(commit, rows)?;
        self.pending.write().note(changes);
        if log.bytes() >= self.seal_bytes {
            self.seal(&mut log, commit);
        }
        Ok(took)
    }

    /// Seals the generation, which ends with this commit, unless the one before is still being folded and
    /// there is room for more.
    fn seal(&self, log: &mut Wal, commit: u64) {
        let mut turn = self.turn.lock();
        while turn.sealed.is_some() {
            if turn.is_over || log.bytes() < OVERFULL * self.seal_bytes {
                return;
            }
            self.turned.wait(&mut turn);
        }
        let mut pending = self.pending.write();
        pending.sealed = Some(Arc::new(std::mem::take(&mut pending.current)));
        turn.sealed = Some(Mark { generation: log.generation(), commit });
        log.turn();
        self.turned.notify_all();
    }

    /// Seals what there is, if anything, after the last batch.
    pub fn seal_rest(&self, commit: u64) {
        let mut log = self.log.lock();
        if log.bytes() > 0 {
            self.seal(&mut log, commit);
        }
    }

    /// Waits for a generation to be sealed; `None` at the end. It is to be folded, and then let go of.
    pub fn next_sealed(&self) -> Option<(Arc<Rows>, Mark)> {
        let mut turn = self.turn.lock();
        loop {
            if let Some(sealed) = self.sealed_now(&turn) {
                return Some(sealed);
            }
            if turn.is_over {
                return None;
            }
            self.turned.wait(&mut turn);
        }
    }

    /// The generation that is sealed now, if one is.
    #[cfg(test)]
    pub fn sealed(&self) -> Option<(Arc<Rows>, Mark)> {
        self.sealed_now(&self.turn.lock())
    }

    fn sealed_now(&self, turn: &Turn) -> Option<(Arc<Rows>, Mark)> {
        turn.sealed.zip(self.pending.read().sealed.clone()).map(|(mark, rows)| (rows, mark))
    }

    /// The sealed generation is in the database, and that is on stable storage.
    pub fn let_go(&self) {
        let mut turn = self.turn.lock();
        self.pending.write().sealed = None;
        turn.sealed = None;
        self.turned.notify_all();
    }

    /// Nobody folds any more, behind what is sealed.
    pub fn end(&self) {
        self.turn.lock().is_over = true;
        self.turned.notify_all();
    }

    /// What is pending of a row.
    pub fn get(&self, key: &[u8]) -> Pending {
        let pending = self.pending.read();
        let sealed = || pending.sealed.as_ref().and_then(|rows| rows.0.get(key));
        match pending.current.0.get(key).or_else(sealed) {
            None => Pending::Nothing,
            Some(held) => held.value().cloned().map_or(Pending::Gone, Pending::Row),
        }
    }

    /// What is pending of the rows between two keys.
    pub fn range(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> BTreeMap<IVec, Option<IVec>> {
        let mut found = BTreeMap::new();
        if is_empty(lower, upper) {
            return found;
        }
        let pending = self.pending.read();
        for rows in pending.sealed.as_deref().into_iter().chain([&pending.current]) {
            let between = rows.0.range::<[u8], _>((lower, upper));
            found.extend(between.map(|(key, held)| (key.clone(), held.value().cloned())));
        }
        found
    }

    /// Bytes of the log's files.
    pub fn disk_bytes(&self) -> u64 {
        self.log.lock().disk_bytes()
    }

    /// Where the log is written, for errors; its cached pages are dropped.
    pub fn after_failure(&self) -> std::path::PathBuf {
        let log = self.log.lock();
        log.forget_cached();
        log.path()
    }
}

/// Whether no key lies between the two; the map takes no such range.
fn is_empty(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (Bound::Included(l) | Bound::Excluded(l), Bound::Included(u) | Bound::Excluded(u)) => l >= u,
    }
}

/// Rows of the database, in order, from either end, with what is pending in front of them.
pub struct Merged {
    base: Ends<::sled::Iter>,
    pending: Ends<btree_map::IntoIter<IVec, Option<IVec>>>,
}

impl Merged {
    /// `pending` must have been taken before `base` was made: what moves meanwhile is then in one of them.
    pub fn new(base: ::sled::Iter, pending: BTreeMap<IVec, Option<IVec>>) -> Self {
        Self { base: Ends::new(base), pending: Ends::new(pending.into_iter()) }
    }

    fn next_from(&mut self, end: End) -> Option<::sled::Result<Stored>> {
        loop {
            let Some((key, _)) = self.pending.peek(end) else { return self.base.take(end) };
            let base = match self.base.peek(end) {
                Some(Ok((base, _))) => Some(base),
                Some(Err(_)) => return self.base.take(end),
                None => None,
            };
            let order = base.map(|base| if end == End::First { base.cmp(key) } else { key.cmp(base) });
            match order {
                Some(Ordering::Less) => return self.base.take(end),
                // What is pending of a row is newer.
                Some(Ordering::Equal) => drop(self.base.take(end)),
                Some(Ordering::Greater) | None => {}
            }
            if let Some((key, Some(value))) = self.pending.take(end) {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl Iterator for Merged {
    type Item = ::sled::Result<Stored>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_from(End::First)
    }
}

impl DoubleEndedIterator for Merged {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_from(End::Last)
    }
}

/// Which end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// An iterator that can be looked ahead in from both ends. Once it has come to its end it is not asked
/// again: rows that are folded meanwhile would come out behind those that follow them.
struct Ends<I: Iterator> {
    between: Fuse<I>,
    first: Option<I::Item>,
    last: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    fn new(between: I) -> Self {
        Self { between: between.fuse(), first: None, last: None }
    }

    fn peek(&mut self, end: End) -> Option<&I::Item> {
        self.look(end).as_ref()
    }

    fn take(&mut self, end: End) -> Option<I::Item> {
        self.look(end).take()
    }

    fn look(&mut self, end: End) -> &mut Option<I::Item> {
        let (near, far) = match end {
            End::First => (&mut self.first, &mut self.last),
            End::Last => (&mut self.last, &mut self.first),
        };
        if near.is_none() {
            let next = if end == End::First { self.between.next() } else { self.between.next_back() };
            *near = next.or_else(|| far.take());
        }
        near
    }
}
