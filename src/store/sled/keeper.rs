//! The housekeeping thread: calls up the sagas of a large store, opens the history, moves ended sagas
//! there, deletes old ones, renews the marker and watches the disk. It alone writes the history.
//!
//! A move is: copy the saga's rows into the history, in as many batches as they need, with its indexes in
//! the last; sync there, and only then have the writer take them out of the open database. It may stop
//! anywhere and be done again. The writer hands over the rows of what ends; they are read back only after a start and when they are too many. There is no
//! hurry: the longer ended sagas wait for each other, the less a sync costs each. A deletion is: the
//! writer notes durably whom it concerns and adjusts the counters, the rows go, the writer forgets
//! the note; what was noted when the daemon died is deleted at the next start.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::census::open_count;
use super::disk::{is_low, lay_ballast, with_ballast};
use super::error::panic_text;
use super::fresh::is_above;
use super::history::{
    add_indexes, check_history, count_rows, delete_saga, known_in, last_summary, oldest, rows_of,
};
use super::keys::{self, Family};
use super::live::{Entry, Live};
use super::marker::Marker;
use super::open::called_up;
use super::part::{Changes, Part};
use super::records::Tail;
use super::roll::{Meanwhile, Written};
use super::shared::{Ended, Retention, Shared, Work};
use super::writer::{Moved, Request};
use super::{HISTORY_DIR, SledOptions, is_small_history};
use crate::clock::Stopwatch;
use crate::saga::ids::{SagaId, Timestamp};
use crate::store::StoreError;
use crate::store::codec::frame;
use crate::store::packed::PackedId;

/// So many ended sagas wake the keeper at once; fewer wait a little for company.
pub const MOVE_URGENT_SAGAS: usize = 1_024;
/// Sagas that are condemned at once.
const CONDEMNED_MAX: usize = 64;
/// How long an ended saga may wait for others to be moved with.
const MOVE_DELAY: Duration = Duration::from_secs(1);
/// How long a large history that nobody wants yet is left alone, so that open sagas go on first.
const HISTORY_DELAY: Duration = Duration::from_secs(1);
/// The marker is renewed, and the disk looked at, no more often.
const MARKER_INTERVAL: Duration = Duration::from_secs(1);

/// What the start found out for the keeper.
#[derive(Debug, Default)]
pub struct Findings {
    /// Ended sagas whose whole journal lies in the open database.
    pub ended: Vec<SagaId>,
    /// Ended sagas by the counters.
    pub ended_count: u64,
    /// Sagas whose deletion was decided.
    pub deleting: HashSet<SagaId>,
    /// Whether the counters cannot be compared, because sagas are damaged.
    pub unsure: bool,
    /// The marker as it was left at the start.
    pub marker: Option<Marker>,
}

/// A store that takes new sagas while it calls up the others.
struct Serving<'a> {
    shared: &'a Shared,
    /// The newest id at the start.
    newest: Option<Uuid>,
}

impl Meanwhile for Serving<'_> {
    fn is_over(&self) -> bool {
        self.shared.usable().is_err()
    }

    fn has_begun(&self, id: &PackedId) -> bool {
        // It is noted before its first row is written.
        is_above(self.newest, id) && !self.shared.fresh.read().surely_new(&id.unpack())
    }
}

impl Findings {
    /// What is known before any saga is read.
    pub fn of(written: &Written, deleting: &HashSet<SagaId>) -> Self {
        Self { ended_count: written.ended, deleting: deleting.clone(), ..Self::default() }
    }

    /// Notes what the sagas say.
    pub fn note(&mut self, called: &Live) {
        self.ended = called.ended_whole();
        self.unsure = called.has_damage();
    }
}

/// The keeper's own.
pub struct Keeper {
    pub shared: Arc<Shared>,
    pub requests: mpsc::Sender<Request>,
    pub options: SledOptions,
    pub findings: Findings,
    /// What the sagas are held against, if they are not called up yet.
    pub uncalled: Option<Written>,
    pub tail: Tail,
    /// Whether rows of moved sagas may still lie in the open database.
    pub unsettled: bool,
}

/// Whether nothing may be acknowledged after this error.
fn is_fatal(error: &StoreError) -> bool {
    matches!(error, StoreError::SyncFailed { .. })
}

/// Whether there is something to do that does not wait.
fn is_urgent(work: &Work) -> bool {
    work.stop || !work.retention.is_empty() || work.ended.len() >= MOVE_URGENT_SAGAS
}

impl Keeper {
    /// Works until it is told to stop.
    pub fn run(mut self) {
        self.keep_house();
        self.shared.queue.end();
    }

    /// Finds out what the store holds, as far as that was left; whether it can be kept.
    fn open_up(&mut self) -> bool {
        let is_late = self.uncalled.is_some();
        let called = catch_unwind(AssertUnwindSafe(|| self.call_up_sagas()));
        let called = called.unwrap_or_else(|panic| Err(self.shared.open.contradicted(panic_text(&*panic))));
        let is_called = called.is_ok();
        self.shared.sagas_known.send_replace(is_called);
        let opened = called.and_then(|()| {
            self.await_wish();
            let opened = catch_unwind(AssertUnwindSafe(|| self.open_history()));
            opened.unwrap_or_else(|panic| Err(self.history_error(panic_text(&*panic))))
        });
        if let Err(error) = &opened {
            if !is_called || (is_late && is_small_history(&self.options)) {
                self.fail_late(error);
            } else {
                tracing::error!(%error, "the history is refused; ended sagas cannot be read");
            }
        }
        // Whoever waits in vain learns why: what has failed is set first. Nobody else sets the history.
        drop(self.shared.history.set(opened));
        self.shared.sagas_known.send_replace(true);
        self.shared.history_known.send_replace(true);
        is_called
    }

    /// Waits until the history is wanted.
    fn await_wish(&self) {
        if is_small_history(&self.options) {
            return;
        }
        let (queue, waiting) = (&self.shared.queue, Stopwatch::start());
        let mut work = queue.work.lock();
        while !work.history_wanted && !is_urgent(&work) && waiting.elapsed() < HISTORY_DELAY {
            queue.wake.wait_for(&mut work, HISTORY_DELAY.saturating_sub(waiting.elapsed()));
        }
    }

    fn keep_house(&mut self) {
        self.look_at_disk();
        if !self.open_up() {
            return;
        }
        let mut marked = Stopwatch::start();
        loop {
            let Some(mut work) = self.next_work() else { break };
            let done = catch_unwind(AssertUnwindSafe(|| self.do_work(&mut work)));
            let done = done.unwrap_or_else(|panic| {
                Err(StoreError::SyncFailed { cause: format!("the keeper panicked: {}", panic_text(&*panic)) })
            });
            // Whoever waits for `work` learns why it is dropped: the failure is set first.
            match done {
                Ok(()) => {}
                Err(error) if is_fatal(&error) => {
                    self.shared.fail(&error);
                    break;
                }
                Err(error) => tracing::error!(%error, "housekeeping of the store failed"),
            }
            if marked.elapsed() >= MARKER_INTERVAL {
                marked = Stopwatch::start();
                self.look_at_disk();
                self.renew_marker();
            }
        }
    }

    /// Calls up the sagas of the open database, if that was left to the background.
    fn call_up_sagas(&mut self) -> Result<(), StoreError> {
        let Some(written) = self.uncalled.take() else { return Ok(()) };
        let shared = &self.shared;
        let took = Stopwatch::start();
        #[cfg(test)]
        let _held = self.options.hold_roll.as_ref().map(|hold| hold.blocking_lock());
        let newest = written.tail.newest;
        let called = called_up(&shared.open, &written, &Serving { shared, newest })?;
        self.findings.note(&called);
        shared.live.write().take_up(called);
        tracing::info!(open = written.open, took = ?took.elapsed(), "the open sagas are called up");
        Ok(())
    }

    /// Ends a store that would not have been opened had this been found in time; the next start reads
    /// everything before it serves.
    fn fail_late(&self, error: &StoreError) {
        if self.shared.usable().is_err() {
            return;
        }
        if let Some(last) = &self.findings.marker {
            let suspect = Marker { suspect: true, ..last.clone() };
            if let Err(error) = suspect.write(&self.shared.dir) {
                tracing::warn!(%error, "the marker could not be renewed");
            }
        }
        self.shared.fail(error);
    }

    fn history_error(&self, cause: String) -> StoreError {
        let what = self.shared.dir.join(HISTORY_DIR).display().to_string();
        StoreError::Damaged { what, cause }
    }

    fn open_history(&mut self) -> Result<Part, StoreError> {
        let (dir, cache_bytes) = (&self.shared.dir, self.options.history_cache_bytes);
        let part = with_ballast(dir, || Part::open(dir, HISTORY_DIR, cache_bytes))
            .map_err(|error| self.history_error(error.to_string()))?;
        let marked = self.findings.marker.as_ref().map_or(0, |marker| marker.history_commit);
        let relied_on = self.shared.live.read().history_commit.max(marked);
        self.tail = check_history(&part, &self.shared.identity, relied_on, &self.findings)?;
        if is_small_history(&self.options) {
            count_rows(&part, &self.tail)?;
        }
        let ended = self.shared.live.read().ended();
        self.shared.queue.ended(ended.into_iter().map(Ended::unread), 1);
        Ok(part)
    }

    /// Waits for something to do; `None` at the end.
    fn next_work(&self) -> Option<Work> {
        let queue = &self.shared.queue;
        let mut work = queue.work.lock();
        if !is_urgent(&work) {
            let wait = if work.ended.is_empty() { MARKER_INTERVAL } else { MOVE_DELAY };
            queue.wake.wait_for(&mut work, wait);
        }
        if work.stop { None } else { Some(std::mem::take(&mut *work)) }
    }

    fn do_work(&mut self, work: &mut Work) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let history = match shared.history() {
            Ok(history) => history,
            Err(error) => {
                for retention in work.retention.drain(..) {
                    drop(retention.reply.send(Err(error.clone())));
                }
                return Ok(());
            }
        };
        let condemned: Vec<SagaId> = self.findings.deleting.drain().collect();
        if !condemned.is_empty() {
            self.delete(history, condemned)?;
        }
        // Of two mentions of a saga the later one holds.
        let ended: BTreeMap<SagaId, Ended> =
            work.ended.drain(..).map(|saga| (saga.id.clone(), saga)).collect();
        if !ended.is_empty() {
            self.move_all(history, ended)?;
        } else if self.unsettled {
            self.settle()?;
        }
        if !work.retention.is_empty() {
            self.settle()?;
        }
        while let Some(Retention { ended_before, limit, reply }) = work.retention.pop_front() {
            let deleted = self.delete_oldest(history, ended_before, limit);
            let fatal = deleted.as_ref().err().filter(|error| is_fatal(error)).cloned();
            if let Some(error) = &fatal {
                self.shared.fail(error);
            }
            // A caller that has gone away needs no answer.
            drop(reply.send(deleted));
            fatal.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    fn delete_oldest(
        &mut self,
        history: &Part,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let mut deleted = 0;
        while deleted < limit {
            let most = CONDEMNED_MAX.min(limit - deleted);
            let candidates = oldest(history, ended_before, most)?;
            let condemned = self.ask(|reply| Request::Condemn { sagas: candidates, reply })?;
            if condemned.is_empty() {
                break;
            }
            deleted += condemned.len();
            self.delete(history, condemned)?;
        }
        Ok(deleted)
    }

    /// Moves ended sagas: some batches, one sync behind the last of them.
    fn move_all(&mut self, history: &Part, ended: BTreeMap<SagaId, Ended>) -> Result<(), StoreError> {
        let mut sagas: Vec<Moved> = Vec::with_capacity(ended.len());
        let mut changes = Changes::default();
        for (id, saga) in ended {
            let live = self.shared.live.read();
            let entry = live.get(&id).filter(|_| live.damage(&id).is_none());
            drop(live);
            let Some(entry) = entry.filter(|entry| entry.status.is_terminal()) else { continue };
            match self.move_one(history, saga, &entry, &mut changes) {
                Ok(moved) => sagas.push(moved),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => tracing::error!(saga = %id, %error, "an ended saga stays where it is"),
            }
        }
        if !changes.is_empty() {
            self.write_history(history, changes)?;
        }
        if sagas.is_empty() {
            return Ok(());
        }
        self.sync_history(history)?;
        self.unsettled = true;
        let moved = Request::Moved { sagas, history_commit: self.tail.commit };
        self.requests.blocking_send(moved).map_err(|_| self.shared.unanswered())
    }

    /// Writes the rows of one saga, all but what is left in `changes`.
    fn move_one(
        &mut self,
        history: &Part,
        saga: Ended,
        entry: &Entry,
        changes: &mut Changes,
    ) -> Result<Moved, StoreError> {
        let Ended { id, seq, rows } = saga;
        let at_hand = rows.filter(|_| seq == entry.seq);
        let is_first = at_hand.is_some();
        let rows = at_hand.map_or_else(|| rows_of(&self.shared.open, &id, entry), Ok)?;
        let before = if is_first { None } else { known_in(history, &id)? };
        let summary = last_summary(&id, &rows)?;
        let keys = rows.iter().map(|row| row.0.clone()).collect();
        for row in rows {
            // A move that came to a stop may have left some of them.
            let stored = if is_first { None } else { history.get(&row.0)? };
            match stored {
                Some(stored) if *stored == row.1 => {}
                Some(_) => changes.overwrite(vec![row]),
                None => changes.insert(&mut self.tail.rows, Family::Saga, vec![row]),
            }
            // A saga that is found there already must not be found half changed.
            if changes.is_full() && before.is_none() {
                self.write_history(history, std::mem::take(changes))?;
            }
        }
        add_indexes(&summary, before.as_ref(), changes, &mut self.tail.rows);
        Ok(Moved { id, seq: summary.seq, rows: keys })
    }

    /// Has the rows of all moved sagas taken out of the open database.
    fn settle(&mut self) -> Result<(), StoreError> {
        self.unsettled = false;
        self.ask(|reply| Request::Settle { reply })
    }

    /// Deletes condemned sagas from the history and has them forgotten. One that cannot be read
    /// stays condemned.
    fn delete(&mut self, history: &Part, mut sagas: Vec<SagaId>) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        let mut written = Ok(());
        sagas.retain(|id| {
            let deleted = delete_saga(history, id, &mut changes, &mut self.tail.rows);
            if let Err(error) = &deleted {
                tracing::error!(saga = %id, %error, "an ended saga could not be deleted");
            }
            if changes.is_full() && written.is_ok() {
                written = self.write_history(history, std::mem::take(&mut changes));
            }
            deleted.is_ok()
        });
        written?;
        if !changes.is_empty() {
            self.write_history(history, changes)?;
        }
        if !sagas.is_empty() {
            self.sync_history(history)?;
        }
        let history_commit = self.tail.commit;
        self.ask(|reply| Request::Deleted { sagas, history_commit, reply })
    }

    fn write_history(&mut self, history: &Part, mut changes: Changes) -> Result<(), StoreError> {
        self.tail.commit += 1;
        changes.overwrite(frame::seal(&keys::tail(), &self.tail.encode()));
        history.write(&changes)
    }

    fn sync_history(&self, history: &Part) -> Result<(), StoreError> {
        let took = history.sync()?;
        self.shared.figures.synced(took);
        Ok(())
    }

    /// Asks the writer and waits for it.
    fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let gone = || self.shared.unanswered();
        let (reply, answer) = oneshot::channel();
        self.requests.blocking_send(request(reply)).map_err(|_| gone())?;
        answer.blocking_recv().map_err(|_| gone())?
    }

    fn renew_marker(&mut self) {
        let marker = self.marker();
        if self.findings.marker.as_ref() == Some(&marker) || self.shared.failed.get().is_some() {
            return;
        }
        match marker.write(&self.shared.dir) {
            Ok(()) => self.findings.marker = Some(marker),
            // The last marker still holds; it only says less.
            Err(error) => tracing::warn!(%error, "the marker could not be renewed"),
        }
    }

    fn marker(&self) -> Marker {
        let live = self.shared.live.read();
        let last = self.findings.marker.as_ref().map_or(0, |marker| marker.history_commit);
        Marker {
            id: self.shared.identity.id,
            epoch: self.shared.identity.epoch,
            commit: live.commit,
            history_commit: self.tail.commit.max(last),
            open_sagas: open_count(&live.counters),
            creating: false,
            suspect: false,
        }
    }

    fn look_at_disk(&self) {
        let history = self.shared.history.get().and_then(|history| history.as_ref().ok());
        let bytes = self.shared.open.disk_bytes() + history.map_or(0, Part::disk_bytes);
        let figures = &self.shared.figures;
        figures.disk_bytes.store(bytes, Ordering::Relaxed);
        let was_low = figures.disk_low.load(Ordering::Relaxed);
        let Some(low) = is_low(&self.shared.dir, self.options.disk_low_bytes, was_low) else { return };
        figures.disk_low.store(low, Ordering::Relaxed);
        if !low {
            lay_ballast(&self.shared.dir, self.options.ballast_bytes);
        }
    }
}
