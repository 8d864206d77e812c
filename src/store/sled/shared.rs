//! What the handle, the writer and the keeper of one opened store share.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::fresh::Fresh;
use super::live::Live;
use super::part::Part;
use super::{FailureObserver, SyncObserver};
use crate::saga::ids::{SagaId, Timestamp};
use crate::store::codec::frame::Row;
use crate::store::{StoreError, StoreIdentity};

/// Rows of ended sagas that wait in memory to be copied; behind them they are read back.
const ENDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One opened store.
#[derive(Debug)]
pub struct Shared {
    pub dir: PathBuf,
    pub identity: StoreIdentity,
    pub open: Part,
    /// Set once by the keeper: the history, or why it is refused.
    pub history: OnceLock<Result<Part, StoreError>>,
    /// Becomes true when `history` is set, for those who wait without holding a thread. Then the
    /// open sagas are known too.
    pub history_known: watch::Sender<bool>,
    /// Becomes true when the sagas of the open database are all in `live`, or the store has failed.
    pub sagas_known: watch::Sender<bool>,
    pub live: RwLock<Live>,
    pub fresh: RwLock<Fresh>,
    /// Set once, when a write or a sync failed: nothing is acknowledged any more.
    pub failed: OnceLock<StoreError>,
    pub on_failure: Option<FailureObserver>,
    pub closed: AtomicBool,
    pub figures: Figures,
    pub queue: Queue,
    /// The last commit that was shown, for those who wait for one.
    pub shown: Mutex<u64>,
    pub shown_wake: Condvar,
}

impl Shared {
    /// Whether the store still answers.
    pub fn usable(&self) -> Result<(), StoreError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        if self.closed.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Why a request was dropped without an answer.
    pub fn unanswered(&self) -> StoreError {
        self.usable().err().unwrap_or_else(|| StoreError::Io {
            operation: "waiting for the writer",
            cause: "it ended without an answer; what was asked may or may not be stored".to_owned(),
        })
    }

    /// Stops acknowledging for good. It is heard of before anybody is refused because of it.
    pub fn fail(&self, error: &StoreError) {
        self.failed.get_or_init(|| {
            tracing::error!(%error, dir = %self.dir.display(), "the store has stopped");
            if let Some(FailureObserver(hear)) = &self.on_failure {
                hear(error);
            }
            error.clone()
        });
    }

    /// Somebody waits for the history.
    pub fn want_history(&self) {
        if self.history.get().is_none() {
            self.queue.work.lock().history_wanted = true;
            self.queue.wake.notify_one();
        }
    }

    /// The history; waits until it is open. Never called on an async thread before it is.
    pub fn history(&self) -> Result<&Part, StoreError> {
        self.want_history();
        self.history.wait().as_ref().map_err(Clone::clone)
    }
}

/// Figures for operators, kept by those who do the work.
#[derive(Debug, Default)]
pub struct Figures {
    pub commits: AtomicU64,
    pub writes: AtomicU64,
    pub fsyncs: AtomicU64,
    pub fsync_micros: AtomicU64,
    pub fsync_micros_max: AtomicU64,
    pub disk_bytes: AtomicU64,
    pub disk_low: AtomicBool,
    pub on_sync: Option<SyncObserver>,
}

impl Figures {
    pub fn synced(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.fsync_micros.fetch_add(micros, Ordering::Relaxed);
        self.fsync_micros_max.fetch_max(micros, Ordering::Relaxed);
        if let Some(SyncObserver(hear)) = &self.on_sync {
            hear(took);
        }
    }
}

/// A request to delete old sagas.
#[derive(Debug)]
pub struct Retention {
    pub ended_before: Timestamp,
    pub limit: usize,
    pub reply: oneshot::Sender<Result<usize, StoreError>>,
}

/// What the keeper has to do.
#[derive(Debug, Default)]
pub struct Queue {
    pub work: Mutex<Work>,
    pub wake: Condvar,
}

#[derive(Debug, Default)]
pub struct Work {
    /// Ended sagas to be moved; no more than the open database holds.
    pub ended: Vec<Ended>,
    /// Bytes of the rows that they brought along.
    ended_bytes: usize,
    /// Each of them has a caller that waits.
    pub retention: VecDeque<Retention>,
    /// Somebody waits for the history to be opened.
    pub history_wanted: bool,
    pub stop: bool,
    /// The keeper has ended and takes nothing any more.
    pub over: bool,
}

/// A saga that has ended and is still in the open database.
#[derive(Debug)]
pub struct Ended {
    pub id: SagaId,
    /// Its last fact.
    pub seq: u64,
    /// All of its rows, if they are at hand and none of them is in the history yet.
    pub rows: Option<Vec<Row>>,
}

impl Ended {
    /// One whose rows must be read.
    pub fn unread(id: SagaId) -> Self {
        Self { id, seq: 0, rows: None }
    }
}

impl Queue {
    /// Takes up ended sagas; wakes the keeper once there are `urgent_at`.
    pub fn ended(&self, ended: impl IntoIterator<Item = Ended>, urgent_at: usize) {
        let mut work = self.work.lock();
        for mut saga in ended {
            let bytes = |row: &Row| row.0.len() + row.1.len();
            work.ended_bytes += saga.rows.iter().flatten().map(bytes).sum::<usize>();
            if work.ended_bytes > ENDED_BYTES_MAX {
                saga.rows = None;
            }
            work.ended.push(saga);
        }
        if work.ended.len() >= urgent_at {
            self.wake.notify_one();
        }
    }

    /// Takes a deletion up; it is dropped unanswered when the keeper has ended.
    pub fn retain(&self, retention: Retention) {
        let mut work = self.work.lock();
        if !work.over {
            work.retention.push_back(retention);
            self.wake.notify_one();
        }
    }

    /// The keeper ends: whoever waits for it is let go.
    pub fn end(&self) {
        let mut work = self.work.lock();
        work.over = true;
        work.retention.clear();
    }

    pub fn stop(&self) {
        self.work.lock().stop = true;
        self.wake.notify_one();
    }
}
