//! A store that keeps everything in memory: for tests, and for trying things out.
//!
//! It behaves like a store on disk seen from outside, and can do what a disk does only rarely:
//! fail at a chosen commit, before or after the content was stored, or stop in the middle of one.
//! [`MemoryStore::crash`] is a power cut: the next owner finds what was committed and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::checks::{
    SAGA_BYTES_MAX, check_batch, check_sequence, check_size, outbox_records, recount, wanted,
};
use super::codec::fact::encode_facts;
use super::open_set::{OpenSet, Wake};
use super::order::{Window, place_key};
use super::packed::PackedId;
use super::{
    Counters, Fence, ListQuery, LockTicket, LockWrite, OpenCursor, OpenPage, Receipt, SagaWrite, Store,
    StoreError, StoreIdentity, StoreStats, StoredDefinition, StoredPause, StoredRegistration, StoredSaga,
    Summary,
};
use crate::saga::event::Fact;
use crate::saga::ids::{DefinitionName, ParticipantName, SagaId, Timestamp, Version};

/// A way for the next commit to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// Fails, and nothing is stored.
    LostBefore,
    /// Fails, although everything is stored: the caller cannot know.
    FailsAfterStored,
    /// The sync fails: nothing is stored, and nothing works from then on.
    SyncFails,
}

/// Where a held commit stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldPoint {
    /// Nothing is stored yet.
    BeforeStored,
    /// Everything is stored, and the caller does not know yet.
    AfterStored,
}

/// A commit that stands still until it is released or the store crashes.
#[derive(Debug, Clone)]
pub struct Hold(Arc<HoldState>);

#[derive(Debug)]
struct HoldState {
    point: HoldPoint,
    reached: Semaphore,
    released: Semaphore,
}

impl Hold {
    /// Waits until the commit has come to its point.
    pub async fn reached(&self) {
        pass(&self.0.reached).await;
    }

    /// Lets it go on.
    pub fn release(&self) {
        self.0.released.add_permits(1);
    }
}

async fn pass(gate: &Semaphore) {
    gate.acquire().await.expect("the gates are never closed").forget();
}

/// A store in memory. Clones are the same handle.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    identity: StoreIdentity,
    kept: Arc<Mutex<Kept>>,
    handle: Arc<Handle>,
}

/// What outlives a crash.
#[derive(Debug, Default)]
struct Kept {
    epoch: u64,
    saga_bytes_max: usize,
    sagas: BTreeMap<SagaId, Saga>,
    places: BTreeMap<Vec<u8>, SagaId>,
    open: OpenSet,
    counters: Counters,
    tickets: BTreeMap<u64, LockTicket>,
    definitions: BTreeMap<(DefinitionName, Version), StoredDefinition>,
    registrations: BTreeMap<String, StoredRegistration>,
    pauses: BTreeMap<ParticipantName, StoredPause>,
    outbox_records: usize,
}

#[derive(Debug)]
struct Saga {
    facts: Vec<Fact>,
    summary: Summary,
    bytes: usize,
    /// `None` once it has ended.
    far_wake: Option<Timestamp>,
}

impl Kept {
    fn oldest_open(&self) -> Option<Timestamp> {
        let by_age = self.places.values().filter_map(|id| self.sagas.get(id));
        by_age.map(|saga| &saga.summary).find(|saga| !saga.status.is_terminal()).map(|saga| saga.created_at)
    }
}

impl Saga {
    fn wake(&self) -> Wake {
        Wake::of(self.far_wake, self.summary.rests)
    }
}

/// What belongs to one owner.
#[derive(Debug, Default)]
struct Handle {
    closed: AtomicBool,
    sync_failed: AtomicBool,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    commits: u64,
    writes: u64,
    faults: VecDeque<CommitFault>,
    holds: BTreeMap<u64, Arc<HoldState>>,
    disk_low: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store, with 16 MiB for a saga.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(SAGA_BYTES_MAX)
    }

    /// An empty store that keeps at most so many bytes of a saga's journal.
    #[must_use]
    pub fn bounded(saga_bytes_max: usize) -> Self {
        let id = uuid::Uuid::new_v4();
        let mut token_secret = [0; 32];
        token_secret[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        token_secret[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        let kept = Arc::new(Mutex::new(Kept { epoch: 1, saga_bytes_max, ..Kept::default() }));
        let identity = StoreIdentity { id, token_secret, epoch: 1 };
        Self { identity, kept, handle: Arc::default() }
    }

    /// A power cut and a new owner: the new store holds what was committed, and this one is
    /// deposed. Commits in flight end with an error or stand still for ever.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut kept = self.kept.lock();
        kept.epoch += 1;
        let identity = StoreIdentity { epoch: kept.epoch, ..self.identity.clone() };
        Self { identity, kept: Arc::clone(&self.kept), handle: Arc::default() }
    }

    /// Lets the next commit without a fault of its own fail in this way.
    pub fn fail_next_commit(&self, fault: CommitFault) {
        self.handle.script.lock().faults.push_back(fault);
    }

    /// Lets this handle's commit number `number` (the first is 1) stand still at `point`.
    pub fn hold_commit(&self, number: u64, point: HoldPoint) -> Hold {
        let state = Arc::new(HoldState { point, reached: Semaphore::new(0), released: Semaphore::new(0) });
        self.handle.script.lock().holds.insert(number, Arc::clone(&state));
        Hold(state)
    }

    /// Commits asked for on this handle so far, failed ones too.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.handle.script.lock().commits
    }

    /// Sets the most bytes of a saga's journal, as a daemon that is configured anew does.
    pub fn set_saga_bytes_max(&self, bytes: usize) {
        self.kept.lock().saga_bytes_max = bytes;
    }

    /// Sets what [`StoreStats::disk_low`] says.
    pub fn set_disk_low(&self, low: bool) {
        self.handle.script.lock().disk_low = low;
    }

    fn usable(&self) -> Result<(), StoreError> {
        if self.handle.sync_failed.load(Ordering::SeqCst) {
            return Err(sync_failed());
        }
        if self.handle.closed.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn read<T>(&self, look: impl FnOnce(&Kept) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.usable()?;
        look(&self.kept.lock())
    }

    fn write<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> Result<T, StoreError> {
        self.usable()?;
        let mut kept = self.kept.lock();
        let (ours, current) = (self.identity.epoch, kept.epoch);
        if ours < current { Err(StoreError::Deposed { ours, current }) } else { Ok(change(&mut kept)) }
    }

    async fn do_commit(&self, fence: Fence, batch: Vec<SagaWrite>) -> Result<Receipt, StoreError> {
        self.usable()?;
        check_batch(&batch)?;
        let (fault, hold) = {
            let mut script = self.handle.script.lock();
            script.commits += 1;
            script.writes += batch.len() as u64;
            let number = script.commits;
            (script.faults.pop_front(), script.holds.remove(&number))
        };
        stand_still(hold.as_deref(), HoldPoint::BeforeStored).await;
        match fault {
            Some(CommitFault::LostBefore) => return Err(injected("before it was stored")),
            Some(CommitFault::SyncFails) => {
                self.handle.sync_failed.store(true, Ordering::SeqCst);
                return Err(sync_failed());
            }
            Some(CommitFault::FailsAfterStored) | None => {}
        }
        self.usable()?;
        let receipt = self.kept.lock().commit(fence, batch)?;
        stand_still(hold.as_deref(), HoldPoint::AfterStored).await;
        match fault {
            Some(CommitFault::FailsAfterStored) => Err(injected("after it was stored")),
            _ => Ok(receipt),
        }
    }
}

async fn stand_still(hold: Option<&HoldState>, here: HoldPoint) {
    if let Some(hold) = hold.filter(|hold| hold.point == here) {
        hold.reached.add_permits(1);
        pass(&hold.released).await;
    }
}

fn injected(when: &str) -> StoreError {
    StoreError::Io { operation: "commit", cause: format!("an injected failure {when}") }
}

fn sync_failed() -> StoreError {
    StoreError::SyncFailed { cause: "an injected failure".to_owned() }
}

impl Kept {
    fn commit(&mut self, fence: Fence, batch: Vec<SagaWrite>) -> Result<Receipt, StoreError> {
        if fence.epoch < self.epoch {
            return Err(StoreError::Deposed { ours: fence.epoch, current: self.epoch });
        }
        let sizes: Vec<usize> = batch.iter().map(|write| encode_facts(&write.facts).len()).collect();
        for (write, size) in batch.iter().zip(&sizes) {
            let before = self.sagas.get(&write.id).map_or(0, |saga| saga.bytes);
            check_size(&write.id, write.summary.status, (before, *size), self.saga_bytes_max)?;
        }
        let mut receipt = Receipt::default();
        for (write, size) in batch.into_iter().zip(sizes) {
            let seq = self.sagas.get(&write.id).map_or(0, |saga| saga.facts.len() as u64);
            if seq == write.expected_seq {
                self.apply(write, size);
            } else {
                receipt.conflicts.push(write.id);
            }
        }
        Ok(receipt)
    }

    fn apply(&mut self, write: SagaWrite, size: usize) {
        let SagaWrite { id, facts, summary, far_wake, lock, .. } = write;
        let before = self.sagas.get(&id).map(|saga| saga.summary.status);
        recount(&mut self.counters, &summary.definition, summary.version, before, Some(summary.status));
        self.outbox_records += outbox_records(&facts);
        let far_wake = far_wake.filter(|_| !summary.status.is_terminal());
        if let Some(saga) = self.sagas.get(&id).filter(|saga| !saga.summary.status.is_terminal()) {
            self.open.remove(PackedId::of(&id), saga.wake());
        }
        if !summary.status.is_terminal() {
            self.open.put(PackedId::of(&id), Wake::of(far_wake, summary.rests));
        }
        match lock {
            LockWrite::Keep => {}
            LockWrite::Take(ticket) => {
                self.tickets.insert(ticket.ticket, ticket);
            }
            LockWrite::Release(ticket) => {
                self.tickets.remove(&ticket);
            }
        }
        self.places.insert(place_key(summary.created_at, &id), id.clone());
        match self.sagas.get_mut(&id) {
            Some(saga) => {
                saga.facts.extend(facts);
                saga.summary = summary;
                saga.bytes += size;
                saga.far_wake = far_wake;
            }
            None => {
                self.sagas.insert(id, Saga { facts, summary, bytes: size, far_wake });
            }
        }
    }

    fn list(&self, query: &ListQuery) -> Vec<Summary> {
        let Some(window) = Window::of(query) else { return Vec::new() };
        let places = self.places.range((window.lower, window.upper)).map(|(_, id)| id);
        let rows = |id: &SagaId| self.sagas.get(id).map(|saga| saga.summary.clone());
        let wanted = |summary: &Summary| wanted(query, summary);
        if query.newest_first {
            places.rev().filter_map(rows).filter(wanted).take(query.limit).collect()
        } else {
            places.filter_map(rows).filter(wanted).take(query.limit).collect()
        }
    }

    fn delete_ended(&mut self, ended_before: Timestamp, limit: usize) -> usize {
        let ended = |saga: &Saga| saga.summary.ended_at.filter(|_| saga.summary.status.is_terminal());
        let mut old: Vec<(Timestamp, SagaId)> = self
            .sagas
            .iter()
            .filter_map(|(id, saga)| ended(saga).map(|at| (at, id.clone())))
            .filter(|(at, _)| *at < ended_before)
            .collect();
        old.sort();
        old.truncate(limit);
        for (_, id) in &old {
            if let Some(Saga { facts, summary, .. }) = self.sagas.remove(id) {
                self.places.remove(&place_key(summary.created_at, id));
                self.outbox_records -= outbox_records(&facts);
                recount(&mut self.counters, &summary.definition, summary.version, Some(summary.status), None);
            }
        }
        old.len()
    }
}

/// Answers at once.
fn answer<'a, T: Send + 'a>(result: Result<T, StoreError>) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(std::future::ready(result))
}

impl Store for MemoryStore {
    fn identity(&self) -> &StoreIdentity {
        &self.identity
    }

    fn saga_bytes_max(&self) -> usize {
        self.kept.lock().saga_bytes_max
    }

    fn commit(&self, fence: Fence, batch: Vec<SagaWrite>) -> BoxFuture<'_, Result<Receipt, StoreError>> {
        Box::pin(self.do_commit(fence, batch))
    }

    fn load(&self, id: &SagaId) -> BoxFuture<'_, Result<Option<StoredSaga>, StoreError>> {
        answer(self.read(|kept| {
            let Some(saga) = kept.sagas.get(id) else { return Ok(None) };
            check_sequence(id, &saga.facts)?;
            let ended = saga.summary.status.is_terminal();
            Ok(Some(StoredSaga { facts: saga.facts.clone(), ended, far_wake: saga.far_wake }))
        }))
    }

    fn facts(&self, id: &SagaId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Fact>, StoreError>> {
        answer(self.read(|kept| {
            let facts = kept.sagas.get(id).map_or(&[][..], |saga| &saga.facts);
            Ok(facts.iter().filter(|fact| fact.seq > after).take(limit).cloned().collect())
        }))
    }

    fn open_sagas(
        &self,
        cursor: Option<OpenCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<OpenPage, StoreError>> {
        answer(self.read(|kept| Ok(kept.open.page(cursor.as_ref(), limit))))
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<SagaId>, StoreError>> {
        answer(self.read(|kept| Ok(kept.open.due(now, limit))))
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Vec<Summary>, StoreError>> {
        answer(self.read(|kept| Ok(kept.list(&query))))
    }

    fn counters(&self) -> BoxFuture<'_, Result<Counters, StoreError>> {
        answer(self.read(|kept| Ok(kept.counters.clone())))
    }

    fn put_definition(&self, definition: StoredDefinition) -> BoxFuture<'_, Result<(), StoreError>> {
        answer(self.write(|kept| {
            kept.definitions.insert((definition.name.clone(), definition.version), definition);
        }))
    }

    fn definitions(&self) -> BoxFuture<'_, Result<Vec<StoredDefinition>, StoreError>> {
        answer(self.read(|kept| Ok(kept.definitions.values().cloned().collect())))
    }

    fn put_registration(&self, registration: StoredRegistration) -> BoxFuture<'_, Result<(), StoreError>> {
        answer(self.write(|kept| {
            kept.registrations.insert(registration.registration_id.clone(), registration);
        }))
    }

    fn delete_registration(&self, registration_id: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        answer(self.write(|kept| {
            kept.registrations.remove(registration_id);
        }))
    }

    fn registrations(&self) -> BoxFuture<'_, Result<Vec<StoredRegistration>, StoreError>> {
        answer(self.read(|kept| Ok(kept.registrations.values().cloned().collect())))
    }

    fn put_pause(&self, pause: StoredPause) -> BoxFuture<'_, Result<(), StoreError>> {
        answer(self.write(|kept| {
            kept.pauses.insert(pause.participant.clone(), pause);
        }))
    }

    fn delete_pause(&self, participant: &ParticipantName) -> BoxFuture<'_, Result<(), StoreError>> {
        answer(self.write(|kept| {
            kept.pauses.remove(participant);
        }))
    }

    fn pauses(&self) -> BoxFuture<'_, Result<Vec<StoredPause>, StoreError>> {
        answer(self.read(|kept| Ok(kept.pauses.values().cloned().collect())))
    }

    fn lock_tickets(&self) -> BoxFuture<'_, Result<Vec<LockTicket>, StoreError>> {
        answer(self.read(|kept| Ok(kept.tickets.values().cloned().collect())))
    }

    fn delete_ended(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        answer(self.write(|kept| kept.delete_ended(ended_before, limit)))
    }

    fn stats(&self) -> StoreStats {
        let script = self.handle.script.lock();
        let kept = self.kept.lock();
        StoreStats {
            kind: "memory",
            commits: script.commits,
            writes: script.writes,
            outbox_records: kept.outbox_records as u64,
            open_sagas: kept.open.len() as u64,
            oldest_open: kept.oldest_open(),
            disk_low: script.disk_low,
            ..StoreStats::default()
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.handle.closed.store(true, Ordering::SeqCst);
        answer(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{self, Bench, write};
    use super::*;

    impl Bench for MemoryStore {
        async fn create() -> Self {
            Self::new()
        }

        async fn reopen(self) -> Self {
            self.crash()
        }

        fn store(&self) -> &dyn Store {
            self
        }
    }

    suite::store_suite!(MemoryStore);

    fn fence(store: &MemoryStore) -> Fence {
        Fence { epoch: store.identity.epoch }
    }

    #[tokio::test]
    async fn a_lost_commit_stores_nothing() {
        let store = MemoryStore::new();
        store.fail_next_commit(CommitFault::LostBefore);
        let error = store.commit(fence(&store), vec![write::start("a", 1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }));
        assert!(store.load(&write::id("a")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_commit_may_fail_and_be_stored() {
        let store = MemoryStore::new();
        store.fail_next_commit(CommitFault::FailsAfterStored);
        store.commit(fence(&store), vec![write::start("a", 1)]).await.unwrap_err();
        assert!(store.load(&write::id("a")).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_works_until_the_next_owner() {
        let store = MemoryStore::new();
        store.fail_next_commit(CommitFault::SyncFails);
        store.commit(fence(&store), vec![write::start("a", 1)]).await.unwrap_err();
        let error = store.load(&write::id("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::SyncFailed { .. }));
        let next = store.crash();
        assert!(next.load(&write::id("a")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_commit_that_was_held_through_a_crash_is_lost() {
        let store = MemoryStore::new();
        let hold = store.hold_commit(1, HoldPoint::BeforeStored);
        let committing = store.commit(fence(&store), vec![write::start("a", 1)]);
        let crashing = async {
            hold.reached().await;
            let next = store.crash();
            hold.release();
            next
        };
        let (committed, next) = futures::join!(committing, crashing);
        assert!(matches!(committed, Err(StoreError::Deposed { ours: 1, current: 2 })));
        assert!(next.load(&write::id("a")).await.unwrap().is_none());
    }
}
