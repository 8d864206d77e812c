//! What is known of a store that was just opened, and waiting for the rest without holding a thread.
//!
//! A large store answers before all of it is read: the keeper calls up the open sagas meanwhile, and opens
//! the history when it is wanted, or a moment later. An id that is surely new needs neither.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::watch;

use super::read;
use super::shared::Shared;
use crate::saga::ids::SagaId;
use crate::store::{SagaWrite, StoreError};

/// Waits until it is true. Its sender lives as long as the store.
async fn become_true(known: &watch::Sender<bool>) {
    drop(known.subscribe().wait_for(|known| *known).await);
}

impl Shared {
    /// Waits until all open sagas are known, or the store has failed.
    pub async fn until_sagas_known(&self) -> Result<(), StoreError> {
        if !*self.sagas_known.borrow() {
            become_true(&self.sagas_known).await;
        }
        self.usable()
    }

    /// Waits until the history is open or refused; then all open sagas are known too.
    pub async fn until_history_known(&self) {
        if self.history.get().is_none() {
            self.want_history();
            become_true(&self.history_known).await;
        }
    }

    /// Waits for the history unless nothing of the saga lies there.
    pub async fn until_known(&self, id: &SagaId) {
        let is_here = match self.live.read().get(id) {
            Some(entry) => entry.first_seq == 1,
            None => self.fresh.read().surely_new(id),
        };
        if !is_here {
            self.until_history_known().await;
        }
    }

    /// Writes for sagas that are neither open nor new may concern the history, which must be open
    /// for them.
    pub async fn until_writable(&self, batch: &[SagaWrite]) -> Result<(), StoreError> {
        let any_unknown = {
            let (live, fresh) = (self.live.read(), self.fresh.read());
            batch.iter().any(|write| !live.contains(&write.id) && !fresh.surely_new(&write.id))
        };
        if any_unknown {
            self.until_history_known().await;
            self.history()?;
        }
        Ok(())
    }

    /// Whether a saga is nowhere, answered at once when its id is new or the history is open.
    pub fn is_nowhere(&self, id: &SagaId) -> bool {
        let unknown = || !self.live.read().contains(id);
        if !unknown() {
            return false;
        }
        if self.fresh.read().surely_new(id) {
            return true;
        }
        let Some(Ok(history)) = self.history.get() else { return false };
        let past = || catch_unwind(AssertUnwindSafe(|| read::past(history, id)));
        matches!(past(), Ok(Ok(None))) && unknown()
    }
}
