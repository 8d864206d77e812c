//! The sweeper: something always comes next for every open saga, and this looks that it is so.

use super::batch::{Batch, Work};
use super::shard::Shard;
use crate::saga::duties::duties;
use crate::saga::ids::{SagaId, Timestamp};
use crate::saga::input::Input;
use crate::saga::state::Stage;
use crate::store::FAR_WAKE;

impl Shard {
    /// Checks one saga in memory: mends it if nothing would come next, or lets it leave memory
    /// if what comes next is far away.
    pub(super) fn sweep_one(&mut self, id: &SagaId, batch: &mut Batch) {
        if self.loading.contains_key(id) || batch.working.contains_key(id) {
            return;
        }
        let Some(resident) = self.residents.get(id) else { return };
        if resident.outgrown {
            return; // An operator was told.
        }
        let saga = &resident.saga;
        if matches!(saga.stage, Stage::AwaitingLocks { .. }) && self.shared.locks.holds(id) {
            self.report(id, "its locks were granted and it was not told");
            self.take_work(id.clone(), Work::Input(Input::LocksGranted), batch);
            return;
        }
        let owed = duties(saga, self.shared.dispatch.as_ref());
        let missing = owed.calls.iter().any(|duty| !resident.calls.contains_key(&duty.id()));
        let waits = !resident.calls.is_empty()
            || self.timers.of(id).is_some()
            || self.parked.contains(id)
            || matches!(saga.stage, Stage::AwaitingLocks { .. })
            || saga.paused.is_some()
            || saga.is_blocked();
        if missing || !waits {
            self.report(id, if missing { "a call it owes is not in flight" } else { "nothing comes next" });
            self.take_work(id.clone(), Work::Input(Input::Wake), batch);
        } else if resident.calls.is_empty() {
            self.evict_if_idle(id, owed.waits.wake_at, batch.now);
        }
    }

    fn report(&self, id: &SagaId, finding: &str) {
        self.shared.meter.mended.one();
        self.shared.metrics.sweeper_found("standing_still");
        tracing::error!(saga = %id, finding, "the sweeper found a saga standing still and set it going");
    }

    /// An open saga without anything near leaves memory; its wake-up is in the store.
    fn evict_if_idle(&mut self, id: &SagaId, wake_at: Option<Timestamp>, now: Timestamp) {
        let Some(resident) = self.residents.get(id) else { return };
        let far = wake_at.is_none_or(|wake| wake > now + FAR_WAKE && resident.stored_wake == Some(wake));
        let idle = now.since(resident.busy_at) >= self.shared.settings.evict_after;
        if far && idle && self.door().published.remove_unless_followed(id) {
            self.residents.remove(id);
            self.timers.clear(id);
            self.shared.meter.evicted.one();
        }
    }
}
