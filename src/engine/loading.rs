//! Sagas on their way back into memory, and what waits for them.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::batch::{Batch, Work, Working};
use super::error::EngineError;
use super::load::Loaded;
use super::settings::STORE_RETRY;
use super::shard::{Shard, refuse};
use crate::saga::ids::SagaId;
use crate::saga::input::Input;
use crate::saga::state::Stage;

/// A saga that is being read.
#[derive(Default)]
pub(super) struct Loading {
    /// This process made all its calls since it was last read, so none of them is lost: what is
    /// owed and not in flight was never sent.
    pub(super) known: bool,
    /// The sequence a failed commit would have led to. When the store has it after all, the
    /// commit's content needs no repeating.
    pub(super) landed_at: Option<u64>,
    /// Inputs of that commit, to be decided again if it is not stored.
    pub(super) redo: Vec<Input>,
    /// Work that came meanwhile.
    pub(super) held: Vec<Work>,
    /// A place among the sagas recovered at once.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// How often the store did not answer.
    pub(super) failures: u32,
}

impl Loading {
    /// Answers the requests that wait; the inputs stay.
    pub(super) fn refuse_waiting(&mut self, refusal: &EngineError) {
        let (requests, inputs) =
            std::mem::take(&mut self.held).into_iter().partition(|work| matches!(work, Work::Request(_)));
        self.held = inputs;
        for work in requests {
            refuse(work, refusal.clone());
        }
    }

    /// Answers the requests that wait and forgets the rest.
    pub(super) fn refuse_requests(mut self, refusal: &EngineError) {
        self.refuse_waiting(refusal);
    }

    /// Whether somebody still needs the saga in memory.
    fn is_needed(&self) -> bool {
        self.known || self.permit.is_some() || !self.redo.is_empty() || !self.held.is_empty()
    }
}

impl Shard {
    /// Takes up what was read, and decides what waited for it.
    pub(super) fn adopt(&mut self, id: SagaId, result: Loaded, batch: &mut Batch) {
        let Some(loading) = self.loading.remove(&id) else { return };
        match result {
            Loaded::Found { saga, stored_wake } => {
                let working = Working::cold(saga, stored_wake);
                self.adopt_found(id, working, loading, batch);
            }
            Loaded::Absent => self.adopt_absent(&id, loading, batch),
            Loaded::Unreadable(reason) => self.adopt_unreadable(&id, &reason, loading, batch),
            Loaded::Failed(error) => self.load_failed(id, &EngineError::from(error), loading),
        }
    }

    fn adopt_found(&mut self, id: SagaId, mut working: Working, loading: Loading, batch: &mut Batch) {
        let Some(saga) = working.base() else { return };
        let landed = loading.landed_at.is_some_and(|seq| saga.seq >= seq);
        if !saga.uses_locks() {
            self.shared.release_locks(&id);
        }
        let granted = matches!(saga.stage, Stage::AwaitingLocks { .. }) && self.shared.locks.holds(&id);
        let mut todo = Vec::new();
        if !saga.is_terminal() {
            todo.push(if loading.known || landed { Input::Wake } else { Input::Recovered });
        }
        if granted {
            todo.push(Input::LocksGranted);
        }
        if !landed {
            todo.extend(loading.redo.into_iter().filter(|input| !matches!(input, Input::Recovered)));
        }
        working.permit = loading.permit;
        for work in todo.into_iter().map(Work::Input).chain(loading.held) {
            working.decide(work, &self.shared, batch.now);
        }
        batch.working.insert(id, working);
    }

    fn adopt_absent(&mut self, id: &SagaId, loading: Loading, batch: &mut Batch) {
        // A start whose commit failed is not stored: its place in the queues is free again.
        self.shared.release_locks(id);
        if self.residents.contains_key(id) {
            let reason = format!("saga {id}: the store has lost it while it ran");
            self.adopt_unreadable(id, &reason, loading, batch);
            return;
        }
        for work in loading.held {
            self.take_work_without_saga(id, work, batch);
        }
    }

    fn adopt_unreadable(&mut self, id: &SagaId, reason: &str, loading: Loading, batch: &Batch) {
        self.set_aside(id, reason, batch.now);
        loading.refuse_requests(&EngineError::DataLoss(reason.to_owned()));
    }

    /// Quarantines a saga: nothing of it runs, the others go on.
    pub(super) fn set_aside(&mut self, id: &SagaId, reason: &str, now: crate::saga::ids::Timestamp) {
        if self.shared.stuck.quarantine(id, reason, now) {
            tracing::error!(saga = %id, reason, "a saga cannot be read and is quarantined; the others go on");
        }
        self.residents.remove(id);
        self.timers.clear(id);
        self.parked.clear(id);
        self.door().published.remove(id);
    }

    fn load_failed(&mut self, id: SagaId, error: &EngineError, mut loading: Loading) {
        loading.refuse_waiting(error);
        loading.failures += 1;
        if loading.is_needed() {
            let delay = pause_after(loading.failures);
            tracing::warn!(saga = %id, %error, retry_in = ?delay, "a saga could not be read from the store");
            self.begin_load(id, loading, delay);
        }
    }
}

/// The pause after the store failed so many times in a row.
pub(super) fn pause_after(failures: u32) -> Duration {
    let (shortest, longest) = STORE_RETRY;
    shortest.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(longest)
}
