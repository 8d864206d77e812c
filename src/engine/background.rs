//! What the engine does by itself, beside its shards: recovery, far wake-ups, looks for parked
//! participants, the sweeper's rounds, and retention.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::loading::pause_after;
use super::mail::Mail;
use super::participants;
use super::settings::{RECOVERIES_AT_ONCE, RECOVERY_PAGE};
use super::shared::Shared;
use crate::saga::ids::{SagaId, Timestamp};
use crate::saga::input::Input;
use crate::tasks::Death;

/// How often ended sagas past their time are deleted, at most and at least; between these, they are
/// kept a quarter of their time too long.
const RETENTION_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Ended sagas deleted at once.
const RETENTION_PAGE: usize = 1_000;
/// Far wake-ups that are asked for at once, at least and at most.
const DUE_PAGE: (usize, usize) = (256, 65_536);

/// Held-back calls whose time has come are not looked for more often than this.
const TURN_MIN: Duration = Duration::from_millis(5);
/// How long nothing happens by itself when nothing is held back; whatever comes to be is told.
const NO_TURN: Duration = Duration::from_mins(5);

/// Starts all of it.
pub(super) fn start(shared: &Arc<Shared>) {
    spawn(shared, "recovery", Death::Logged, recover);
    spawn(shared, "far wake-ups", Death::Fatal, wake_what_is_due);
    spawn(shared, "parked looks", Death::Fatal, look_at_parked);
    spawn(shared, "sweeper", Death::Fatal, sweep);
    spawn(shared, "participants that are back", Death::Fatal, hear_of_participants);
    spawn(shared, "expired registrations", Death::Fatal, participants::drop_expired);
    if !shared.settings.retain.is_zero() {
        spawn(shared, "retention", Death::Logged, forget_what_is_old);
    }
}

/// Starts one task that ends when the daemon stops.
fn spawn<F>(shared: &Arc<Shared>, name: &'static str, death: Death, work: fn(Arc<Shared>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = shared.tasks.stopping();
    let work = work(Arc::clone(shared));
    shared.tasks.spawn(name, death, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}

/// Has the shards take up the open sagas that have something to do, a bounded number at once. Those
/// that rest until later stay where they are: [`wake_what_is_due`] brings them back.
async fn recover(shared: Arc<Shared>) {
    let ramp = Arc::new(Semaphore::new(RECOVERIES_AT_ONCE));
    let mut cursor = None;
    let mut failures = 0;
    let mut found: u64 = 0;
    let horizon = near(&shared);
    loop {
        let page = match shared.store.open_sagas(cursor.clone(), RECOVERY_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "recovery cannot read the open sagas; it tries again");
                tokio::time::sleep(pause_after(failures)).await;
                continue;
            }
        };
        failures = 0;
        cursor = page.next;
        for (id, rests_until) in page.sagas {
            if rests_until.is_some_and(|wake| wake > horizon) {
                // So do all behind it.
                cursor = None;
                break;
            }
            found += 1;
            if shared.published(&id).is_some() {
                continue;
            }
            let permit = Arc::clone(&ramp).acquire_owned().await.expect("the ramp is never closed");
            shared.shard_of(&id).mailbox.post(Mail::Recover { id, permit });
        }
        if cursor.is_none() {
            break;
        }
    }
    let all = u32::try_from(RECOVERIES_AT_ONCE).expect("the number of places is small");
    let _all_taken_up = ramp.acquire_many(all).await;
    shared.recovered.send_replace(true);
    tracing::info!(taken_up = found, "recovery has looked at every open saga that does not rest");
}

/// Wake-ups up to here are near. A little ahead, so that the shards' own timers are exact.
fn near(shared: &Shared) -> Timestamp {
    shared.clock.now() + 2 * shared.settings.due_every
}

/// Far wake-ups are in the store alone: those that have come near bring their sagas back.
async fn wake_what_is_due(shared: Arc<Shared>) {
    let mut limit = DUE_PAGE.0;
    loop {
        let mut again = false;
        match shared.store.due(near(&shared), limit).await {
            Ok(due) => {
                let absent: Vec<SagaId> =
                    due.iter().filter(|id| shared.published(id).is_none()).cloned().collect();
                // Full of sagas that are back already: look behind them.
                again = due.len() >= limit && limit < DUE_PAGE.1;
                limit = if again { limit * 2 } else { DUE_PAGE.0 };
                for id in absent {
                    shared.feed(id, Input::Wake);
                }
            }
            Err(error) => tracing::warn!(%error, "the store did not say which far wake-ups are due"),
        }
        if !again {
            tokio::time::sleep(shared.settings.due_every).await;
        }
    }
}

/// Parked sagas look at once when some participant may be back, or lets further calls through.
async fn hear_of_participants(shared: Arc<Shared>) {
    let mut changes = shared.registry.changes();
    loop {
        changes.borrow_and_update();
        tell_all(&shared, || Mail::LookAtParked);
        let until_turn = shared.registry.next_turn().map(|at| at.since(shared.clock.now()).max(TURN_MIN));
        tokio::select! {
            told = changes.changed() => if told.is_err() { return },
            () = tokio::time::sleep(until_turn.unwrap_or(NO_TURN)) => shared.registry.pass_time(),
        }
    }
}

/// Beside being told, parked sagas look by themselves.
async fn look_at_parked(shared: Arc<Shared>) {
    let every = shared.settings.parked_look_every;
    loop {
        let next = shared.clock.now() + every;
        shared.next_parked_look.store(next.0, Ordering::Relaxed);
        tokio::time::sleep(every).await;
        tell_all(&shared, || Mail::LookAtParked);
    }
}

async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.settings.sweep_every).await;
        tell_all(&shared, || Mail::Sweep);
    }
}

/// Posts mail to every shard.
pub(super) fn tell_all(shared: &Shared, mail: impl Fn() -> Mail) {
    for door in &shared.shards {
        door.mailbox.post(mail());
    }
}

async fn forget_what_is_old(shared: Arc<Shared>) {
    let (most_often, least_often) = RETENTION_EVERY;
    let every = (shared.settings.retain / 4).clamp(most_often, least_often);
    loop {
        let ended_before = shared.clock.now() - shared.settings.retain;
        match shared.store.delete_ended(ended_before, RETENTION_PAGE).await {
            Ok(deleted) if deleted >= RETENTION_PAGE => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "ended sagas past their time could not be deleted"),
        }
        tokio::time::sleep(every).await;
    }
}
