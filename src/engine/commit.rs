//! Committing a batch, and what follows from each way it can end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, Work, Working};
use super::calls;
use super::error::EngineError;
use super::loading::Loading;
use super::published::detached;
use super::settings::STORE_RETRY;
use super::shard::{Resident, Shard, answer, refuse};
use super::shared::Shared;
use crate::clock::Stopwatch;
use crate::saga::duties::{Waits, calls_of, owed_calls, waits};
use crate::saga::event::{Event, Fact};
use crate::saga::ids::{InstanceRef, SagaId, Timestamp};
use crate::saga::input::{CallDuty, CallId, Input};
use crate::saga::state::Saga;
use crate::store::{SagaWrite, StoreError};

/// A wake-up that changed nothing is not repeated sooner than this.
const IDLE_WAKE_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a saga is read again that the store has in another state than expected.
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

impl Shard {
    /// Commits the batch as one; answers and calls only behind it.
    pub(super) async fn commit(&mut self, batch: Batch) {
        let now = batch.now;
        let mut changed = Vec::new();
        let mut writes: Vec<SagaWrite> = Vec::new();
        for (id, mut working) in batch.working {
            if let Some(write) = working.write(&self.shared, now) {
                writes.push(write);
                changed.push((id, working));
            } else if working.panicked {
                let reason =
                    format!("saga {id}: the engine failed while it decided; please report its history");
                self.give_up(&id, working, &EngineError::DataLoss(reason), now);
            } else {
                self.unchanged(&id, working, now);
            }
        }
        if changed.is_empty() {
            return;
        }
        let late = writes.iter().flat_map(|write| &write.facts).filter(|fact| is_late(fact)).count();
        let count = writes.len();
        let watch = Stopwatch::start();
        let wakes: Vec<_> = writes.iter().map(|write| write.far_wake).collect();
        match self.shared.store.commit(self.shared.fence, writes).await {
            Ok(receipt) => {
                self.store_pause = STORE_RETRY.0;
                self.shared.metrics.committed(count, watch.elapsed(), now);
                (0..late).for_each(|_| self.shared.metrics.late_reply());
                for ((id, working), stored_wake) in changed.into_iter().zip(wakes) {
                    if receipt.conflicts.contains(&id) {
                        self.conflicted(id, working);
                    } else {
                        self.committed(&id, working, stored_wake, now);
                    }
                }
            }
            Err(StoreError::TooLarge { saga, bytes, limit }) => {
                for (id, working) in changed {
                    if id == saga {
                        self.outgrew(&id, working, bytes, limit);
                    } else {
                        self.conflicted(id, working);
                    }
                }
            }
            Err(error) => self.commit_failed(changed, &error),
        }
    }

    /// Behind a commit: the new state is shown, clients are answered, what is owed is settled.
    fn committed(
        &mut self,
        id: &SagaId,
        mut working: Working,
        stored_wake: Option<Timestamp>,
        now: Timestamp,
    ) {
        let done = std::mem::take(&mut working.done);
        let before = working.base().cloned();
        let (permit, waits) = (working.permit.take(), std::mem::take(&mut working.waits));
        // What was just read has nothing in flight yet, whatever was decided on it.
        let calls = if working.cold { Calls::All } else { Calls::Of(std::mem::take(&mut working.touched)) };
        let saga = Arc::new(working.into_next().expect("only changed sagas are committed"));
        let live = self.door().published.publish(Arc::clone(&saga));
        self.shared.stuck.note(&saga, self.shared.journal_limit);
        if !saga.uses_locks() {
            self.shared.release_locks(id);
        }
        self.measure(&saga, before.as_deref(), now);
        for (work, verdict) in done {
            answer(work, verdict, &saga, &live);
        }
        drop(live);
        if saga.is_terminal() {
            self.forget(id);
        } else {
            let resident = self.residents.entry(id.clone()).or_insert_with(|| Resident::new(&saga));
            resident.saga = saga;
            resident.stored_wake = stored_wake;
            resident.busy_at = now;
            // What stood still because it had outgrown the store has nothing in flight either.
            let calls = if std::mem::take(&mut resident.outgrown) { Calls::All } else { calls };
            self.settle(id, &calls, waits, now, false);
        }
        drop(permit);
    }

    fn measure(&self, saga: &Saga, before: Option<&Saga>, now: Timestamp) {
        let metrics = &self.shared.metrics;
        let age = now.since(saga.created_at);
        if saga.committed && before.is_none_or(|before| !before.committed) {
            metrics.saga_committed(age, now);
        }
        if saga.is_terminal() && before.is_none_or(|before| !before.is_terminal()) {
            metrics.saga_ended(saga.definition.name.as_str(), saga.status().as_str(), age, now);
        }
    }

    /// Nothing was decided: there is nothing to store, and the answers need not wait.
    fn unchanged(&mut self, id: &SagaId, mut working: Working, now: Timestamp) {
        let done = std::mem::take(&mut working.done);
        let Some(saga) = working.base().cloned() else {
            debug_assert!(done.is_empty(), "a start always changes something");
            return;
        };
        let woken = done.iter().any(|(work, _)| matches!(work, Work::Input(_)));
        let live = if !working.cold {
            self.door().published.follow(id).unwrap_or_else(|| detached(&saga))
        } else if saga.is_terminal() {
            // Its end may be news to those who follow it: a commit that failed was stored after all.
            self.shared.stuck.note(&saga, self.shared.journal_limit);
            let live = self.door().published.publish(Arc::clone(&saga));
            self.forget(id);
            live
        } else {
            self.shared.stuck.note(&saga, self.shared.journal_limit);
            let resident = self.residents.entry(id.clone()).or_insert_with(|| Resident::new(&saga));
            resident.saga = Arc::clone(&saga);
            resident.stored_wake = working.stored_wake;
            resident.outgrown = false;
            self.door().published.publish(Arc::clone(&saga))
        };
        for (work, verdict) in done {
            answer(work, verdict, &saga, &live);
        }
        drop(live);
        if (woken || working.cold) && self.residents.contains_key(id) {
            let waits = waits(&saga, self.shared.dispatch.as_ref());
            self.settle(id, &Calls::All, waits, now, true);
        }
    }

    /// The store had another state of the saga: it is read and the work decided again on that.
    fn conflicted(&mut self, id: SagaId, mut working: Working) {
        self.shared.meter.conflicts.one();
        let known = self.residents.contains_key(&id);
        let held = std::mem::take(&mut working.done)
            .into_iter()
            .map(|(work, _)| work)
            .filter(|work| !matches!(work, Work::Input(Input::Recovered)))
            .collect();
        let loading = Loading { known, held, permit: working.permit.take(), ..Loading::default() };
        self.begin_load(id, loading, CONFLICT_PAUSE);
    }

    /// Whether the batch is stored is unknown. Nothing of it is shown, clients are told so, and
    /// its sagas are read again; what happened inside (replies above all) is then decided again.
    fn commit_failed(&mut self, changed: Vec<(SagaId, Working)>, error: &StoreError) {
        self.shared.meter.commits_failed.one();
        tracing::error!(%error, sagas = changed.len(), "a commit failed; its sagas are read again");
        match error {
            StoreError::SyncFailed { .. } | StoreError::Deposed { .. } => {
                self.shared.tasks.fail(&error.to_string());
            }
            StoreError::Io { .. }
            | StoreError::Damaged { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Closed => {}
        }
        let refusal = EngineError::Unavailable(error.to_string());
        for (id, mut working) in changed {
            let known = working.base().is_none() || self.residents.contains_key(&id);
            let mut redo = Vec::new();
            for (work, _) in std::mem::take(&mut working.done) {
                match work {
                    Work::Input(input) => redo.push(input),
                    request @ Work::Request(_) => refuse(request, refusal.clone()),
                }
            }
            let permit = working.permit.take();
            let landed_at = working.current().map(|saga| saga.seq);
            let loading = Loading { known, landed_at, redo, permit, ..Loading::default() };
            self.begin_load(id, loading, self.store_pause);
        }
        self.store_pause = self.store_pause.saturating_mul(2).min(STORE_RETRY.1);
    }

    /// What was decided is more than the store keeps of one saga, and none of it is stored. The saga
    /// can be read and ended as before; until then nothing of it runs.
    ///
    /// The rules stop long before this. It is what remains for journals written without them.
    fn outgrew(&mut self, id: &SagaId, mut working: Working, bytes: usize, limit: usize) {
        let reason = format!(
            "saga {id} is too large to go on: it would grow to {bytes} bytes, over the limit of {limit}; \
             nothing of it runs any more, and it can only be abandoned"
        );
        for (work, _) in std::mem::take(&mut working.done) {
            refuse(work, EngineError::Precondition(reason.clone()));
        }
        let Some(saga) = working.base().cloned() else {
            self.shared.release_locks(id);
            return;
        };
        tracing::error!(saga = %id, reason, "a saga has outgrown the store; the others go on");
        let resident = self.residents.entry(id.clone()).or_insert_with(|| Resident::new(&saga));
        resident.outgrown = true;
        resident.calls.clear();
        self.timers.clear(id);
        self.parked.clear(id);
        self.shared.stuck.outgrown(&saga, &reason, self.shared.journal_limit);
        self.door().published.publish(saga);
    }

    /// The saga cannot go on: its clients are told, and it waits for an operator.
    fn give_up(&mut self, id: &SagaId, mut working: Working, error: &EngineError, now: Timestamp) {
        for (work, _) in std::mem::take(&mut working.done) {
            refuse(work, error.clone());
        }
        if working.base().is_some() {
            self.set_aside(id, &error.to_string(), now);
        } else {
            self.shared.release_locks(id);
        }
    }

    /// An ended saga leaves memory; whoever follows it has seen its end.
    fn forget(&mut self, id: &SagaId) {
        self.residents.remove(id);
        self.timers.clear(id);
        self.parked.clear(id);
        self.door().published.remove(id);
    }

    /// Brings what is in flight in line with what is owed: starts what is missing, abandons what
    /// is not owed any more, sets the next wake-up. `idle`: the last look changed nothing.
    fn settle(&mut self, id: &SagaId, calls: &Calls, waits: Waits, now: Timestamp, idle: bool) {
        let Some(resident) = self.residents.get_mut(id) else { return };
        match calls {
            Calls::All => resident.settle_all(&self.shared),
            Calls::Of(touched) => touched.iter().for_each(|&at| resident.settle_one(&self.shared, at)),
        }
        let repeated = idle && waits.wake_at.is_some_and(|wake| wake <= now);
        if repeated {
            self.shared.meter.idle_wakes.one();
        }
        self.timers.set(id, if repeated { Some(now + IDLE_WAKE_PAUSE) } else { waits.wake_at });
        self.parked.set(id, waits.parked);
    }
}

/// Which calls are brought in line.
enum Calls {
    /// All of the saga.
    All,
    /// Those of the instances that the commit was about: no others can have changed.
    Of(BTreeSet<InstanceRef>),
}

impl Resident {
    /// A saga that comes into memory.
    pub(super) fn new(saga: &Arc<Saga>) -> Self {
        Self {
            saga: Arc::clone(saga),
            calls: BTreeMap::new(),
            stored_wake: None,
            busy_at: saga.updated_at,
            outgrown: false,
        }
    }

    fn settle_all(&mut self, shared: &Arc<Shared>) {
        let owed = owed_calls(&self.saga);
        let known: BTreeSet<CallId> = owed.iter().map(CallDuty::id).collect();
        self.calls.retain(|call, _| known.contains(call));
        for duty in owed {
            self.send_once(shared, duty);
        }
    }

    fn settle_one(&mut self, shared: &Arc<Shared>, at: InstanceRef) {
        let owed: Vec<CallDuty> = calls_of(&self.saga, at).collect();
        let gone: Vec<CallId> = self
            .calls
            .range(CallId::all_of(at))
            .map(|(call, _)| *call)
            .filter(|call| owed.iter().all(|duty| duty.id() != *call))
            .collect();
        for call in gone {
            self.calls.remove(&call);
        }
        for duty in owed {
            self.send_once(shared, duty);
        }
    }

    fn send_once(&mut self, shared: &Arc<Shared>, duty: CallDuty) {
        let saga = &self.saga;
        self.calls.entry(duty.id()).or_insert_with(|| calls::send(shared, saga, duty));
    }
}

fn is_late(fact: &Fact) -> bool {
    matches!(fact.event, Event::LateReply { .. })
}
