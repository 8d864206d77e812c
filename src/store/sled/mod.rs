//! The store of a single daemon, on sled 0.34.
//!
//! ```text
//! <dir>/lock       held by the process that has the store open
//! <dir>/marker     what the databases must at least contain, see `marker.rs`
//! <dir>/wal-0, -1  the write-ahead log of the open database, see `wal.rs`
//! <dir>/open/      open sagas, locks, definitions, registrations, pauses, counters
//! <dir>/history/   ended sagas
//! <dir>/ballast    room to be had when the disk is full, see `disk.rs`
//!
//!  commit() ──encode──► requests ──► writer: check, one batch to the log, one fsync, show, answer
//!                                      │ ended                     │ the log is full
//!                                      ▼                           ▼
//!      keeper: copy to history, fsync, then have the      folder: bring what is left of its batches
//!              writer delete the rows here with its               into the open database
//!              next batch
//! ```
//!
//! Two databases, so that a start costs what is open and not what is past: the history is opened
//! in the background. One thread decides what is written to each of them, so there is no conflict to
//! resolve and one fsync serves all that wait.
//!
//! The engine's flush is no fsync, its pages may be lost or exchanged without an error, and it
//! panics on some damage. So what is folded or moved is followed by a real fsync; every row carries a checksum
//! over key and content; every batch writes how many rows there are; the marker knows from outside
//! how far the store had come; and no panic of the engine gets out. See `part.rs` and `records.rs`.
//!
//! A saga is one row as long as it is short: its facts and its summary, written over with each
//! commit, copied to the history as it is, and deleted. See [`records::Record`].

mod census;
mod compact;
mod disk;
mod error;
mod folder;
mod fresh;
mod front;
mod history;
mod honest;
mod keeper;
mod keys;
mod known;
mod live;
mod marker;
mod open;
mod part;
mod prepare;
mod read;
mod records;
mod roll;
mod scan;
mod shared;
mod verify;
mod wal;
mod warm;
mod writer;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod move_tests;
#[cfg(test)]
mod roll_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wal_tests;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

pub use compact::{CompactProgress, compact};
pub use error::OpenError;
pub use verify::{Problem, VerifyReport, verify};

use super::checks::{SAGA_BYTES_MAX, check_batch, check_size};
use super::codec::CodecError;
use super::codec::records::{
    decode_definition, decode_pause, decode_registration, decode_ticket, encode_definition, encode_pause,
    encode_registration,
};
use super::{
    Counters, Fence, ListQuery, LockTicket, OpenCursor, OpenPage, Receipt, SagaWrite, Store, StoreError,
    StoreIdentity, StoreStats, StoredDefinition, StoredPause, StoredRegistration, StoredSaga, Summary,
};
use crate::saga::event::Fact;
use crate::saga::ids::{ParticipantName, SagaId, Timestamp};
use crate::saga::words::SagaStatus;
use crate::tasks;
use census::open_count;
use error::panic_text;
use fresh::Fresh;
use keeper::Keeper;
use keys::Family;
use live::Kinds;
use marker::Marker;
use prepare::Prepared;
use records::Tail;
use shared::{Figures, Queue, Retention, Shared};
use warm::Warm;
use writer::{REQUESTS_MAX, Request, Writer};

const OPEN_DIR: &str = "open";
const HISTORY_DIR: &str = "history";

/// Where the store lies and what it may use.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Its directory; made when it is not there.
    pub dir: PathBuf,
    /// Page cache of the open database. The engine's real use goes somewhat beyond it.
    pub cache_bytes: u64,
    /// Page cache of the history.
    pub history_cache_bytes: u64,
    /// Below this much free space [`StoreStats::disk_low`] is set, until half as much again is free.
    pub disk_low_bytes: u64,
    /// Size of the ballast that is given up when a full disk keeps the store from opening; 0 for
    /// none.
    pub ballast_bytes: u64,
    /// Bytes of the write-ahead log at which what it holds is folded into the open database. It has two
    /// files, and each may grow to twice as much.
    pub wal_bytes: u64,
    /// Largest journal of a saga.
    pub saga_bytes_max: usize,
    /// With so many rows of open sagas, and fewer, all are read before the store is opened, so that
    /// damage is refused at the start; more are read in the background, and meanwhile what concerns
    /// them waits. New sagas need not.
    pub roll_ahead_rows: u64,
    /// A history of so many bytes, and fewer, is opened and its rows are counted before the store is opened,
    /// for the same reason. A larger one is opened when it is wanted, or a moment later, and not counted.
    pub history_ahead_bytes: u64,
    /// Keeps those from being read for as long as it is locked.
    #[cfg(test)]
    pub(crate) hold_roll: Option<Arc<tokio::sync::Mutex<()>>>,
    /// Hears how long each sync to stable storage took.
    pub on_sync: Option<SyncObserver>,
    /// Hears that the store has failed: nothing is acknowledged any more.
    pub on_failure: Option<FailureObserver>,
}

/// Hears how long a sync to stable storage took.
#[derive(Clone)]
pub struct SyncObserver(Arc<dyn Fn(Duration) + Send + Sync>);

impl SyncObserver {
    /// Calls `hear` from the threads of the store; it must not block.
    #[must_use]
    pub fn new(hear: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl std::fmt::Debug for SyncObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SyncObserver")
    }
}

/// Hears that the store has failed, whoever was writing then. The process must end: only a new start
/// finds out what is stored.
#[derive(Clone)]
pub struct FailureObserver(Arc<dyn Fn(&StoreError) + Send + Sync>);

impl FailureObserver {
    /// Calls `hear` once, from a thread of the store, before any caller is told; it must not block.
    #[must_use]
    pub fn new(hear: impl Fn(&StoreError) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl std::fmt::Debug for FailureObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailureObserver")
    }
}

impl SledOptions {
    /// The defaults: 96 MiB and 32 MiB of cache, 512 MiB of free space, 64 MiB of ballast,
    /// 16 MiB of log, 16 MiB for a saga, 100,000 rows read before it opens.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            dir: dir.into(),
            cache_bytes: 96 * MIB,
            history_cache_bytes: 32 * MIB,
            disk_low_bytes: 512 * MIB,
            ballast_bytes: 64 * MIB,
            wal_bytes: 16 * MIB,
            saga_bytes_max: SAGA_BYTES_MAX,
            roll_ahead_rows: 100_000,
            history_ahead_bytes: 64 * 1024 * 1024,
            #[cfg(test)]
            hold_roll: None,
            on_sync: None,
            on_failure: None,
        }
    }
}

/// An opened store. Dropping it closes it, and waits for its threads.
#[derive(Debug)]
pub struct SledStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    running: Arc<Mutex<Option<Running>>>,
    saga_bytes_max: usize,
}

/// What must be ended when the store is closed.
#[derive(Debug)]
struct Running {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    folder: JoinHandle<()>,
    lock: File,
}

impl SledStore {
    /// Opens the store in its directory and raises its epoch; makes it when there is none.
    ///
    /// Blocks for as long as reading the open sagas takes, unless they are many.
    ///
    /// # Errors
    /// [`OpenError`] names the file, the cause and what to do.
    pub fn open(options: SledOptions) -> Result<Self, OpenError> {
        let opened = open::open(&options)?;
        let census = opened.census;
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let counters = census.live.counters.clone();
        let shared = Arc::new(Shared {
            dir: options.dir.clone(),
            identity: opened.identity,
            open: opened.part,
            history: OnceLock::new(),
            history_known: watch::Sender::new(false),
            sagas_known: watch::Sender::new(opened.uncalled.is_none()),
            live: RwLock::new(census.live),
            fresh: RwLock::new(Fresh::above(census.tail.newest)),
            failed: OnceLock::new(),
            on_failure: options.on_failure.clone(),
            closed: false.into(),
            figures: Figures { on_sync: options.on_sync.clone(), ..Figures::default() },
            queue: Queue::default(),
            shown: Mutex::default(),
            shown_wake: parking_lot::Condvar::new(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            requests: inbox,
            tail: census.tail,
            counters,
            parts: census.parts,
            deleting: census.deleting,
            kinds: Kinds::default(),
            warm: Warm::default(),
            moved: Vec::new(),
        };
        let (dir, saga_bytes_max) = (options.dir.clone(), options.saga_bytes_max);
        let waits_for_history = opened.uncalled.is_none() && is_small_history(&options);
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            requests: requests.clone(),
            options,
            findings: opened.findings,
            uncalled: opened.uncalled,
            tail: Tail::default(),
            unsettled: false,
        };
        let spawn_error = |error| OpenError::io(&dir, "starting the store's threads", &error);
        let folding = Arc::clone(&shared);
        let folder = tasks::thread("store-folder", move || folder::run(&folding)).map_err(&spawn_error)?;
        let writer = tasks::thread("store-writer", || writer.run()).map_err(&spawn_error)?;
        let keeper = tasks::thread("store-keeper", || keeper.run()).map_err(spawn_error)?;
        let running = Arc::new(Mutex::new(Some(Running { writer, keeper, folder, lock: opened.lock })));
        let store = Self { shared, requests, running, saga_bytes_max };
        if waits_for_history {
            let file = store.shared.dir.join(HISTORY_DIR).join(part::DATA_FILE);
            let history = store.shared.history().map(drop);
            history.map_err(|error| OpenError::damaged(&store.shared.dir, &file, error.to_string()))?;
        }
        Ok(store)
    }

    /// Reads on a thread where reading may block; a panic of the engine becomes an error.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.usable()?;
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || {
            catch_unwind(AssertUnwindSafe(|| look(&shared))).unwrap_or_else(|panic| {
                let what = shared.dir.display().to_string();
                Err(StoreError::Damaged { what, cause: panic_text(&*panic) })
            })
        });
        match read.await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Io { operation: "reading", cause: error.to_string() }),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        self.shared.usable()?;
        let gone = || self.shared.unanswered();
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn check_size(&self, write: &Prepared) -> Result<(), StoreError> {
        let before = self.shared.live.read().get(&write.id).map_or(0, |entry| entry.bytes);
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        check_size(&write.id, write.status, (before, write.facts.len()), self.saga_bytes_max)
    }

    async fn do_commit(&self, fence: Fence, batch: Vec<SagaWrite>) -> Result<Receipt, StoreError> {
        self.shared.usable()?;
        check_batch(&batch)?;
        self.shared.until_writable(&batch).await?;
        let mut writes = Vec::with_capacity(batch.len());
        for write in batch {
            let write = Prepared::new(write);
            self.check_size(&write)?;
            writes.push(write);
        }
        self.ask(|reply| Request::Commit { fence, writes, reply }).await
    }

    async fn all_records<T: Send + 'static>(
        &self,
        family: Family,
        decode: fn(&[u8]) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, StoreError> {
        self.read(move |shared| {
            let mut all = Vec::new();
            let rows = shared.open.prefixed(&family.prefix())?;
            scan::records(&shared.open, rows, |found| {
                let damaged = |cause: CodecError| shared.open.damaged(found.key, &cause);
                all.push(found.content.and_then(|content| decode(&content)).map_err(damaged)?);
                Ok(())
            })?;
            Ok(all)
        })
        .await
    }
}

/// Whether the history is opened and counted before the store answers.
fn is_small_history(options: &SledOptions) -> bool {
    let file = options.dir.join(HISTORY_DIR).join(part::DATA_FILE);
    std::fs::metadata(file).map_or(0, |meta| meta.len()) <= options.history_ahead_bytes
}

/// Ends the threads, folds the rest of the log, writes the last marker and lets go of the files.
fn shut_down(shared: &Shared, requests: &mpsc::Sender<Request>, running: Running) -> Result<(), StoreError> {
    shared.queue.stop();
    let keeper = running.keeper.join();
    // A writer that is gone needs not be told.
    drop(requests.blocking_send(Request::Close));
    let writer = running.writer.join();
    shared.open.end_folding();
    let folder = running.folder.join();
    folder::finish(shared);
    let mut marked = Ok(());
    if shared.failed.get().is_none() {
        let live = shared.live.read();
        let last = Marker::read(&shared.dir).ok().flatten();
        if let Some(last) = last {
            let now = Marker { commit: live.commit, open_sagas: open_count(&live.counters), ..last };
            marked = now.write(&shared.dir);
        }
    }
    if let Some(Ok(history)) = shared.history.get() {
        history.close();
    }
    shared.open.close();
    drop(running.lock);
    if let Some(error) = shared.failed.get() {
        return Err(error.clone());
    }
    if keeper.is_err() || writer.is_err() || folder.is_err() {
        return Err(StoreError::Io { operation: "closing", cause: "a thread of the store panicked".into() });
    }
    marked.map_err(|error| StoreError::Io { operation: "writing the last marker", cause: error.to_string() })
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let Some(running) = self.running.lock().take() else { return };
        let (shared, requests) = (Arc::clone(&self.shared), self.requests.clone());
        // On a thread of its own: the caller may be on an async one, where waiting is refused.
        let closing = tasks::thread("store-close", move || shut_down(&shared, &requests, running));
        match closing.map(JoinHandle::join) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the store was not closed cleanly"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the store could not be closed"),
        }
    }
}

impl Store for SledStore {
    fn identity(&self) -> &StoreIdentity {
        &self.shared.identity
    }

    fn saga_bytes_max(&self) -> usize {
        self.saga_bytes_max
    }

    fn commit(&self, fence: Fence, batch: Vec<SagaWrite>) -> BoxFuture<'_, Result<Receipt, StoreError>> {
        Box::pin(self.do_commit(fence, batch))
    }

    fn load(&self, id: &SagaId) -> BoxFuture<'_, Result<Option<StoredSaga>, StoreError>> {
        let id = id.clone();
        Box::pin(async move {
            self.shared.usable()?;
            self.shared.until_known(&id).await;
            if self.shared.is_nowhere(&id) {
                return Ok(None);
            }
            self.read(move |shared| read::load(shared, &id)).await
        })
    }

    fn facts(&self, id: &SagaId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Fact>, StoreError>> {
        let id = id.clone();
        Box::pin(async move {
            self.shared.usable()?;
            self.shared.until_known(&id).await;
            if self.shared.is_nowhere(&id) {
                return Ok(Vec::new());
            }
            self.read(move |shared| read::facts(shared, &id, after, limit)).await
        })
    }

    fn open_sagas(
        &self,
        cursor: Option<OpenCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<OpenPage, StoreError>> {
        Box::pin(async move {
            self.shared.until_sagas_known().await?;
            Ok(self.shared.live.read().open.page(cursor.as_ref(), limit))
        })
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<SagaId>, StoreError>> {
        Box::pin(async move {
            self.shared.until_sagas_known().await?;
            Ok(self.shared.live.read().open.due(now, limit))
        })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Vec<Summary>, StoreError>> {
        Box::pin(async move {
            let ended = |status: &SagaStatus| status.is_terminal();
            if query.statuses.is_empty() || query.statuses.iter().any(ended) {
                self.shared.until_history_known().await;
            }
            self.shared.until_sagas_known().await?;
            self.read(move |shared| read::list(shared, &query)).await
        })
    }

    fn counters(&self) -> BoxFuture<'_, Result<Counters, StoreError>> {
        Box::pin(async move {
            self.shared.until_sagas_known().await?;
            Ok(self.shared.live.read().counters.clone())
        })
    }

    fn put_definition(&self, definition: StoredDefinition) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = keys::definition(&definition.name, definition.version);
        let content = encode_definition(&definition);
        Box::pin(self.ask(move |reply| Request::Put { family: Family::Definition, key, content, reply }))
    }

    fn definitions(&self) -> BoxFuture<'_, Result<Vec<StoredDefinition>, StoreError>> {
        Box::pin(self.all_records(Family::Definition, decode_definition))
    }

    fn put_registration(&self, registration: StoredRegistration) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = keys::registration(&registration.registration_id);
        let content = encode_registration(&registration);
        Box::pin(self.ask(move |reply| Request::Put { family: Family::Registration, key, content, reply }))
    }

    fn delete_registration(&self, registration_id: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = keys::registration(registration_id);
        Box::pin(self.ask(move |reply| Request::Delete { family: Family::Registration, key, reply }))
    }

    fn registrations(&self) -> BoxFuture<'_, Result<Vec<StoredRegistration>, StoreError>> {
        Box::pin(self.all_records(Family::Registration, decode_registration))
    }

    fn put_pause(&self, pause: StoredPause) -> BoxFuture<'_, Result<(), StoreError>> {
        let (key, content) = (keys::pause(&pause.participant), encode_pause(&pause));
        Box::pin(self.ask(move |reply| Request::Put { family: Family::Pause, key, content, reply }))
    }

    fn delete_pause(&self, participant: &ParticipantName) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = keys::pause(participant);
        Box::pin(self.ask(move |reply| Request::Delete { family: Family::Pause, key, reply }))
    }

    fn pauses(&self) -> BoxFuture<'_, Result<Vec<StoredPause>, StoreError>> {
        Box::pin(self.all_records(Family::Pause, decode_pause))
    }

    fn lock_tickets(&self) -> BoxFuture<'_, Result<Vec<LockTicket>, StoreError>> {
        Box::pin(self.all_records(Family::Ticket, decode_ticket))
    }

    fn delete_ended(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move {
            self.shared.usable()?;
            let (reply, answer) = oneshot::channel();
            self.shared.queue.retain(Retention { ended_before, limit, reply });
            answer.await.map_err(|_| self.shared.unanswered())?
        })
    }

    fn stats(&self) -> StoreStats {
        let figures = &self.shared.figures;
        let live = self.shared.live.read();
        StoreStats {
            kind: "sled",
            commits: figures.commits.load(Ordering::Relaxed),
            writes: figures.writes.load(Ordering::Relaxed),
            fsyncs: figures.fsyncs.load(Ordering::Relaxed),
            fsync_micros: figures.fsync_micros.load(Ordering::Relaxed),
            fsync_micros_max: figures.fsync_micros_max.load(Ordering::Relaxed),
            disk_bytes: figures.disk_bytes.load(Ordering::Relaxed),
            outbox_records: live.outbox_records,
            open_sagas: live.open.len() as u64,
            oldest_open: live.oldest_open(),
            unmoved_sagas: live.unmoved() as u64,
            disk_low: figures.disk_low.load(Ordering::Relaxed),
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.shared.closed.store(true, Ordering::SeqCst);
            let Some(running) = self.running.lock().take() else { return Ok(()) };
            let (shared, requests) = (Arc::clone(&self.shared), self.requests.clone());
            let closing = tokio::task::spawn_blocking(move || shut_down(&shared, &requests, running));
            let failed = |cause: String| StoreError::Io { operation: "closing", cause };
            closing.await.map_err(|error| failed(error.to_string()))?
        })
    }
}
