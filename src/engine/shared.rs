//! What every part of the engine may see.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::catalog::Catalog;
use super::error::EngineError;
use super::locks::Locks;
use super::mail::{Mail, Mailbox};
use super::meter::Meter;
use super::published::Published;
use super::settings::{EngineSettings, RETRY_AFTER};
use super::stuck::Stuck;
use crate::clock::{SharedClock, Stopwatch};
use crate::metrics::Metrics;
use crate::participant::Dispatch;
use crate::participant::registry::Registry;
use crate::saga::ids::{SagaId, Timestamp};
use crate::saga::input::Input;
use crate::saga::room::JournalLimit;
use crate::saga::state::Saga;
use crate::store::{Fence, Store};
use crate::tasks::Tasks;

/// One engine's common ground.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) dispatch: Arc<dyn Dispatch>,
    pub(super) registry: Registry,
    pub(super) clock: SharedClock,
    pub(super) tasks: Tasks,
    pub(super) settings: EngineSettings,
    pub(super) fence: Fence,
    /// How much of a saga the store keeps.
    pub(super) journal_limit: JournalLimit,
    pub(super) token_secret: [u8; 32],
    pub(super) catalog: Catalog,
    /// One registration at a time, so that versions are given out in order.
    pub(super) registering: tokio::sync::Mutex<()>,
    pub(super) locks: Locks,
    pub(super) shards: Vec<Door>,
    pub(super) stuck: Stuck,
    pub(super) meter: Meter,
    pub(super) metrics: Metrics,
    pub(super) loads: Semaphore,
    pub(super) waits: Arc<Semaphore>,
    pub(super) watches: Arc<Semaphore>,
    pub(super) started: Stopwatch,
    pub(super) recovered: watch::Sender<bool>,
    /// When parked sagas look for their participant next, in milliseconds since the epoch.
    pub(super) next_parked_look: AtomicI64,
}

/// What others see of a shard.
pub(super) struct Door {
    pub(super) mailbox: Mailbox,
    pub(super) published: Published,
    /// Sagas that wait for a participant.
    pub(super) parked: AtomicU64,
    /// How long the request that was taken last had waited, in milliseconds.
    pub(super) mail_waited_ms: AtomicU64,
}

impl Door {
    /// How long requests wait in the mail box, as of the last that was taken. Zero when none is left.
    pub(super) fn mail_waited(&self) -> Duration {
        Duration::from_millis(self.mail_waited_ms.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// The shard that owns `id`.
    pub(super) fn shard_of(&self, id: &SagaId) -> &Door {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let count = self.shards.len() as u64;
        let shard = usize::try_from(hasher.finish() % count).expect("the remainder is below a length");
        &self.shards[shard]
    }

    /// Posts an input to a saga.
    pub(super) fn feed(&self, id: SagaId, input: Input) {
        self.shard_of(&id).mailbox.post(Mail::Feed { id, input });
    }

    /// The published state of a saga in memory.
    pub(super) fn published(&self, id: &SagaId) -> Option<Arc<Saga>> {
        self.shard_of(id).published.get(id)
    }

    /// Says no once the daemon is shutting down.
    pub(super) fn check_taking(&self) -> Result<(), EngineError> {
        if self.tasks.is_stopping() { Err(EngineError::Stopping) } else { Ok(()) }
    }

    /// When parked sagas look for their participant next.
    pub(super) fn next_parked_look(&self) -> Timestamp {
        Timestamp(self.next_parked_look.load(Ordering::Relaxed))
    }

    /// Releases the saga's lock ticket, if it has one, and tells those whose turn it is.
    pub(super) fn release_locks(&self, id: &SagaId) {
        for next in self.locks.release(id) {
            self.feed(next, Input::LocksGranted);
        }
    }
}

/// Takes one of a bounded number of places, or says that there is none.
pub(super) fn place_in(room: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, EngineError> {
    Arc::clone(room).try_acquire_owned().map_err(|_| EngineError::Overloaded {
        reason: format!("too many {what} are open"),
        retry_after: RETRY_AFTER,
    })
}
