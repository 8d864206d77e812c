//! The one writer. It takes what waits, makes one batch of it, syncs once, shows the result, and
//! only then answers. While it syncs, the next batch gathers.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use super::error::panic_text;
use super::keeper::MOVE_URGENT_SAGAS;
use super::keys::{self, Family};
use super::live::{Entry, Kind, Kinds};
use super::part::Changes;
use super::prepare::{Prepared, PreparedLock};
use super::read::{Past, past};
use super::records::{Record, Tail};
use super::shared::{Ended, Shared};
use super::warm::Warm;
use crate::saga::ids::{DefinitionName, SagaId, Version};
use crate::saga::words::SagaStatus;
use crate::store::checks::recount;
use crate::store::codec::frame::{self, Row, stored_checksum};
use crate::store::{Counters, Fence, Receipt, StoreError, Summary};

/// Requests that may wait for the writer.
pub const REQUESTS_MAX: usize = 1_024;
/// Requests in one batch.
const GROUP_REQUESTS_MAX: usize = 256;
/// Bytes after which a batch takes nothing further.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A record with so many bytes of facts is left as it is, and the next commit begins another.
const RECORD_FULL_BYTES: usize = 2 * 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be asked of the writer.
#[derive(Debug)]
pub enum Request {
    /// Facts of sagas.
    Commit { fence: Fence, writes: Vec<Prepared>, reply: Reply<Receipt> },
    /// A definition or a registration, under its key.
    Put { family: Family, key: Vec<u8>, content: Vec<u8>, reply: Reply<()> },
    /// The record under this key is not wanted any more.
    Delete { family: Family, key: Vec<u8>, reply: Reply<()> },
    /// These sagas are safe in the history since its commit `history_commit`. Their rows here go
    /// with the next batch that is written for something else.
    Moved { sagas: Vec<Moved>, history_commit: u64 },
    /// Answered when the rows of all moved sagas are gone.
    Settle { reply: Reply<()> },
    /// These sagas are to be deleted from the history; answers those that may be.
    Condemn { sagas: Vec<Condemned>, reply: Reply<Vec<SagaId>> },
    /// These sagas are deleted from the history.
    Deleted { sagas: Vec<SagaId>, history_commit: u64, reply: Reply<()> },
    /// The end.
    Close,
}

/// A saga that was copied to the history.
#[derive(Debug)]
pub struct Moved {
    pub id: SagaId,
    /// The last fact that was copied.
    pub seq: u64,
    /// The keys of its rows in the open database.
    pub rows: Vec<Vec<u8>>,
}

/// A saga that is to be deleted.
#[derive(Debug)]
pub struct Condemned {
    pub summary: Summary,
    /// Outbox records in its journal.
    pub outbox: u32,
}

impl Request {
    /// About how much it adds to a batch.
    fn bytes(&self) -> usize {
        match self {
            Request::Commit { writes, .. } => writes.iter().map(Prepared::bytes).sum(),
            Request::Put { content, .. } => content.len(),
            Request::Delete { .. }
            | Request::Moved { .. }
            | Request::Settle { .. }
            | Request::Condemn { .. }
            | Request::Deleted { .. }
            | Request::Close => 0,
        }
    }
}

/// An answer that waits for the sync.
enum Answer {
    Commit(Reply<Receipt>, Receipt),
    Done(Reply<()>),
    Condemned(Reply<Vec<SagaId>>, Vec<SagaId>),
}

/// What the batch in the making will have changed.
#[derive(Default)]
struct Stage {
    changes: Changes,
    /// Entries as they will be; `None` for those that were moved to the history.
    entries: HashMap<SagaId, Option<Entry>>,
    counted: BTreeSet<(DefinitionName, Version, SagaStatus)>,
    ended: Vec<Ended>,
    writes: u64,
    answers: Vec<Answer>,
}

/// The writer's own, ahead of what is shown by the batch in the making. A batch that fails ends
/// the writer, so nothing of this is ever taken back.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub requests: mpsc::Receiver<Request>,
    pub tail: Tail,
    pub counters: Counters,
    /// Rows of each record that can be replaced or deleted by its key.
    pub parts: HashMap<Vec<u8>, u16>,
    /// Sagas on their way out of the history: they take no writes.
    pub deleting: HashSet<SagaId>,
    pub kinds: Kinds,
    pub warm: Warm,
    /// Sagas in the history whose rows here are not gone yet.
    pub moved: Vec<Moved>,
}

impl Writer {
    /// Works until it is told to close or every handle is gone.
    pub fn run(mut self) {
        while let Some(mut group) = next_group(&mut self.requests) {
            let closing = group.iter().any(|request| matches!(request, Request::Close));
            // A request that is dropped unanswered tells its caller to ask what has become of the
            // store: so that must be known before anything is dropped.
            let mut stage = Stage::default();
            if self.shared.failed.get().is_none() {
                let staging = AssertUnwindSafe(|| self.commit_group(&mut group, &mut stage));
                match catch_unwind(staging) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.shared.fail(&error),
                    Err(panic) => self.shared.fail(&StoreError::SyncFailed {
                        cause: format!("the writer panicked: {}", panic_text(&*panic)),
                    }),
                }
            }
            drop(stage);
            if closing {
                break;
            }
        }
    }

    fn commit_group(&mut self, group: &mut VecDeque<Request>, stage: &mut Stage) -> Result<(), StoreError> {
        self.warm.cool();
        let settling = |request: &Request| matches!(request, Request::Settle { .. } | Request::Close);
        let settling = group.iter().any(settling);
        while let Some(request) = group.pop_front() {
            self.stage_request(stage, request);
        }
        if settling || !stage.changes.is_empty() {
            for moved in std::mem::take(&mut self.moved) {
                self.stage_moved(stage, moved);
            }
        }
        if !stage.changes.is_empty() {
            self.tail.commit += 1;
            self.stage_counters(stage);
            stage.changes.overwrite(frame::seal(&keys::tail(), &self.tail.encode()));
            let took = self.shared.open.apply(self.tail.commit, std::mem::take(&mut stage.changes))?;
            // The folder may have failed while the batch waited for it.
            self.shared.failed.get().map_or(Ok(()), |error| Err(error.clone()))?;
            self.shared.figures.synced(took);
            self.shared.figures.commits.fetch_add(1, Ordering::Relaxed);
            self.shared.figures.writes.fetch_add(stage.writes, Ordering::Relaxed);
        }
        self.show(stage);
        for answer in stage.answers.drain(..) {
            // A caller that has gone away needs no answer.
            match answer {
                Answer::Commit(reply, receipt) => drop(reply.send(Ok(receipt))),
                Answer::Done(reply) => drop(reply.send(Ok(()))),
                Answer::Condemned(reply, sagas) => drop(reply.send(Ok(sagas))),
            }
        }
        Ok(())
    }

    fn stage_request(&mut self, stage: &mut Stage, request: Request) {
        match request {
            Request::Commit { fence, writes, reply } => {
                let (ours, current) = (fence.epoch, self.shared.identity.epoch);
                if ours != current {
                    drop(reply.send(Err(StoreError::Deposed { ours, current })));
                    return;
                }
                let mut receipt = Receipt::default();
                for write in writes {
                    if let Err(id) = self.stage_write(stage, write) {
                        receipt.conflicts.push(id);
                    }
                }
                stage.answers.push(Answer::Commit(reply, receipt));
            }
            Request::Put { family, key, content, reply } => {
                self.put_record(stage, family, &key, frame::seal(&key, &content));
                stage.answers.push(Answer::Done(reply));
            }
            Request::Delete { family, key, reply } => {
                self.delete_record(stage, family, &key);
                stage.answers.push(Answer::Done(reply));
            }
            Request::Moved { sagas, history_commit } => {
                self.tail.history_commit = self.tail.history_commit.max(history_commit);
                self.moved.extend(sagas);
            }
            Request::Settle { reply } => stage.answers.push(Answer::Done(reply)),
            Request::Condemn { sagas, reply } => {
                let sagas = self.stage_condemned(stage, sagas);
                stage.answers.push(Answer::Condemned(reply, sagas));
            }
            Request::Deleted { sagas, history_commit, reply } => {
                self.tail.history_commit = self.tail.history_commit.max(history_commit);
                for id in sagas.iter().filter(|id| self.deleting.remove(*id)) {
                    let key = frame::part_key(&keys::deleting(id), 0);
                    stage.changes.remove(&mut self.tail.rows, Family::Deleting, key);
                }
                stage.answers.push(Answer::Done(reply));
            }
            Request::Close => {}
        }
    }

    /// The saga's entry as this batch leaves it.
    fn entry(&self, stage: &Stage, id: &SagaId) -> Option<Entry> {
        match stage.entries.get(id) {
            Some(staged) => staged.clone(),
            None => self.shared.live.read().get(id),
        }
    }

    /// A saga that is not in the open database may be in the history.
    fn entry_of_history(&mut self, id: &SagaId) -> Result<Option<Entry>, StoreError> {
        if self.shared.fresh.read().surely_new(id) {
            return Ok(None);
        }
        let past = past(self.shared.history()?, id)?;
        Ok(past.map(|Past { summary, bytes, outbox }| {
            let kind = self.kinds.of(&summary.definition, summary.version);
            let entry = Entry::unwritten(summary.created_at, kind, summary.status, summary.seq + 1);
            Entry { bytes, outbox, ..entry }
        }))
    }

    /// Takes one saga's write into the batch, or says whose write does not fit.
    fn stage_write(&mut self, stage: &mut Stage, mut write: Prepared) -> Result<(), SagaId> {
        let entry = match self.entry(stage, &write.id) {
            Some(entry) => Some(entry),
            None if self.deleting.contains(&write.id) => return Err(write.id),
            // A history that cannot be read is found out by the reload that follows a conflict.
            None => self.entry_of_history(&write.id).map_err(|_| write.id.clone())?,
        };
        let seq = entry.as_ref().map_or(0, |entry| entry.seq);
        let damaged = self.shared.live.read().damage(&write.id).is_some();
        let moved_in_time = entry.as_ref().is_some_and(|entry| entry.created_at != write.created_at);
        if seq != write.expected_seq || damaged || moved_in_time {
            return Err(write.id);
        }
        stage.writes += 1;
        let lock = std::mem::replace(&mut write.lock, PreparedLock::Keep);
        self.stage_lock(stage, lock);
        let before = entry.as_ref().map(|entry| entry.status);
        let ended_before = before.is_some_and(SagaStatus::is_terminal);
        let mut next = entry.unwrap_or_else(|| self.first_entry(&write));
        if before != Some(write.status) {
            let (Kind { definition, version }, now) = (next.kind.as_ref(), Some(write.status));
            recount(&mut self.counters, definition, *version, before, now);
            for status in before.into_iter().chain(now) {
                stage.counted.insert((definition.clone(), *version, status));
            }
        }
        next.wake = write.wake;
        next.status = write.status;
        next.bytes += write.facts.len() as u64;
        next.outbox += write.outbox;
        self.tail.outbox_records += u64::from(write.outbox);
        let rows = self.stage_record(stage, &mut next, &write, ended_before);
        if write.status.is_terminal() {
            // What ends now, whole in one record, is certainly not in the history yet.
            let whole = !ended_before && next.record_seq == 1;
            stage.ended.push(Ended { id: write.id.clone(), seq: next.seq, rows: whole.then_some(rows) });
            self.warm.forget(&write.id);
        }
        stage.entries.insert(write.id, Some(next));
        Ok(())
    }

    /// The entry of a new saga, before its first write.
    fn first_entry(&mut self, write: &Prepared) -> Entry {
        let mut fresh = self.shared.fresh.write();
        fresh.note(&write.id);
        self.tail.newest = fresh.newest();
        let kind = self.kinds.of(&write.definition, write.version);
        Entry::unwritten(write.created_at, kind, write.status, 1)
    }

    /// Writes the saga's last record anew with the facts of this write, or begins the next one;
    /// its rows.
    ///
    /// An ended saga's records stay as they are: they may be in the history already.
    fn stage_record(
        &mut self,
        stage: &mut Stage,
        entry: &mut Entry,
        write: &Prepared,
        ended_before: bool,
    ) -> Vec<Row> {
        let old = if ended_before { None } else { self.warm.take(&write.id) };
        if entry.parts > 0 && old.is_none() {
            (entry.record_seq, entry.parts, entry.record_sum) = (entry.seq + 1, 0, 0);
        }
        entry.seq = write.last_seq;
        let facts = old.map_or_else(|| write.facts.clone(), |old| [&old[..], &write.facts].concat());
        let record = Record {
            bytes: entry.bytes,
            outbox: entry.outbox,
            far_wake: entry.wake.far,
            summary: &write.summary,
            facts: &facts,
        };
        let key = keys::saga(&write.id, entry.record_seq);
        let rows = frame::seal(&key, &record.encode());
        stage.changes.replace(&mut self.tail.rows, Family::Saga, &key, rows.clone(), entry.parts);
        let sum = sum_of(&rows);
        let grown = sum.wrapping_sub(entry.record_sum);
        self.tail.sum = self.tail.sum.wrapping_add(grown);
        entry.sum = entry.sum.wrapping_add(grown);
        entry.record_sum = sum;
        entry.parts = u16::try_from(rows.len()).unwrap_or(u16::MAX);
        if facts.len() < RECORD_FULL_BYTES {
            self.warm.keep(&write.id, facts);
        }
        rows
    }

    fn stage_lock(&mut self, stage: &mut Stage, lock: PreparedLock) {
        match lock {
            PreparedLock::Keep => {}
            PreparedLock::Take { number, rows } => {
                self.put_record(stage, Family::Ticket, &keys::ticket(number), rows);
            }
            PreparedLock::Release(number) => {
                self.delete_record(stage, Family::Ticket, &keys::ticket(number));
            }
        }
    }

    fn put_record(&mut self, stage: &mut Stage, family: Family, key: &[u8], rows: Vec<Row>) {
        let parts = u16::try_from(rows.len()).unwrap_or(u16::MAX);
        let old = self.parts.insert(key.to_vec(), parts).unwrap_or(0);
        stage.changes.replace(&mut self.tail.rows, family, key, rows, old);
    }

    fn delete_record(&mut self, stage: &mut Stage, family: Family, key: &[u8]) {
        if let Some(parts) = self.parts.remove(key) {
            stage.changes.remove_record(&mut self.tail.rows, family, key, parts);
        }
    }

    fn stage_counters(&mut self, stage: &mut Stage) {
        for counted in std::mem::take(&mut stage.counted) {
            let key = keys::counter(&counted);
            match self.counters.get(&counted).copied() {
                Some(count) => {
                    let rows = frame::seal(&key, &count.to_be_bytes());
                    self.put_record(stage, Family::Counter, &key, rows);
                }
                None => self.delete_record(stage, Family::Counter, &key),
            }
        }
    }

    /// Takes a moved saga's rows away, unless it was written again since it was copied.
    fn stage_moved(&mut self, stage: &mut Stage, moved: Moved) {
        let Some(entry) = self.entry(stage, &moved.id) else { return };
        if entry.seq != moved.seq {
            stage.ended.push(Ended { id: moved.id, seq: entry.seq, rows: None });
            return;
        }
        // Readers must look into the history before the rows here are gone.
        self.shared.live.write().remove(&moved.id);
        for key in moved.rows {
            stage.changes.remove(&mut self.tail.rows, Family::Saga, key);
        }
        self.tail.sum = self.tail.sum.wrapping_sub(entry.sum);
        stage.entries.insert(moved.id, None);
    }

    fn stage_condemned(&mut self, stage: &mut Stage, sagas: Vec<Condemned>) -> Vec<SagaId> {
        let mut condemned = Vec::with_capacity(sagas.len());
        for Condemned { summary, outbox } in sagas {
            let Summary { id, definition, version, status, .. } = summary;
            if self.entry(stage, &id).is_some() || self.deleting.contains(&id) {
                continue;
            }
            recount(&mut self.counters, &definition, version, Some(status), None);
            stage.counted.insert((definition, version, status));
            self.tail.outbox_records = self.tail.outbox_records.saturating_sub(u64::from(outbox));
            let rows = frame::seal(&keys::deleting(&id), &[]);
            stage.changes.insert(&mut self.tail.rows, Family::Deleting, rows);
            self.deleting.insert(id.clone());
            condemned.push(id);
        }
        condemned
    }

    /// Shows the batch to readers, now that it is durable.
    fn show(&mut self, stage: &mut Stage) {
        let ended = std::mem::take(&mut stage.ended);
        {
            let mut live = self.shared.live.write();
            for (id, entry) in stage.entries.drain() {
                match entry {
                    Some(entry) => live.put(&id, entry),
                    None => live.remove(&id),
                }
            }
            if live.counters != self.counters {
                live.counters.clone_from(&self.counters);
            }
            live.outbox_records = self.tail.outbox_records;
            live.commit = self.tail.commit;
            live.history_commit = self.tail.history_commit;
        }
        *self.shared.shown.lock() = self.tail.commit;
        self.shared.shown_wake.notify_all();
        if !ended.is_empty() {
            self.shared.queue.ended(ended, MOVE_URGENT_SAGAS);
        }
    }
}

/// What waits, in order; `None` when every handle is gone and nothing does.
fn next_group(requests: &mut mpsc::Receiver<Request>) -> Option<VecDeque<Request>> {
    let mut group = VecDeque::from([requests.blocking_recv()?]);
    let mut bytes = group.iter().map(Request::bytes).sum::<usize>();
    while group.len() < GROUP_REQUESTS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(next) = requests.try_recv() else { break };
        bytes += next.bytes();
        group.push_back(next);
    }
    Some(group)
}

fn sum_of(rows: &[Row]) -> u32 {
    rows.iter().fold(0, |sum, (_, value)| sum.wrapping_add(stored_checksum(value)))
}
