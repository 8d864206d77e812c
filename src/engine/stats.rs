//! Exact figures of the running engine.

use std::sync::atomic::Ordering;

use super::Engine;
use super::error::EngineError;
use super::request::EngineStats;

impl Engine {
    /// Figures as of this moment.
    ///
    /// # Errors
    /// `Unavailable` when the store does not give its counters.
    pub async fn stats(&self) -> Result<EngineStats, EngineError> {
        self.until_recovered().await;
        let shared = &self.shared;
        // Behind this the store knows all of its sagas.
        let counters = shared.store.counters().await?;
        let (stuck, quarantined) = shared.stuck.counts();
        // In this order: a saga that is stored after the look makes its calls after this moment.
        let now = shared.clock.now();
        let store = shared.store.stats();
        Ok(EngineStats {
            counters,
            calls_in_flight: shared.meter.calls_in_flight.get(),
            mail_depths: shared.shards.iter().map(|door| door.mailbox.depth() as u64).collect(),
            mail_capacity: shared.settings.mailbox_max as u64,
            stuck,
            parked: shared.shards.iter().map(|door| door.parked.load(Ordering::Relaxed)).sum(),
            quarantined,
            resident: shared.shards.iter().map(|door| door.published.len() as u64).sum(),
            recovered: self.has_recovered(),
            mended: shared.meter.mended.get(),
            conflicts: shared.meter.conflicts.get(),
            commits_failed: shared.meter.commits_failed.get(),
            idle_wakes: shared.meter.idle_wakes.get(),
            evicted: shared.meter.evicted.get(),
            last_minute: shared.metrics.last_minute(now),
            oldest_open_started_at: store.oldest_open.unwrap_or(now),
            store,
            uptime: shared.started.elapsed(),
        })
    }
}
