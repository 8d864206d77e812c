//! Where sagas are kept: one small trait, and the stores behind it. Knows no saga rules.
//!
//! A commit is one atomic batch of many sagas with one real fsync. Nothing leaves the process
//! before its fact is stored.
//!
//! - [`codec`]: facts, summaries and the other records as bytes, framed and checksummed.
//! - [`memory`]: keeps everything in memory; for tests, with crashes and failures on demand.
//! - [`sled`]: the store of a single daemon, on disk.
//! - `suite`: the tests that every store must pass.

mod checks;
pub mod codec;
pub mod memory;
mod open_set;
mod order;
mod packed;
pub mod sled;
#[cfg(test)]
mod suite;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use thiserror::Error;

use crate::saga::event::Fact;
use crate::saga::ids::{DefinitionName, Digest, LockKey, ParticipantName, SagaId, Timestamp, Version};
use crate::saga::words::{Failure, SagaStatus};

/// What every store can do. All methods may be called from many tasks at once.
///
/// Open sagas and ended ones are kept apart: a start costs what is open, not what is past. Reads
/// look at both. A write for an ended saga is allowed (a late reply) and keeps it ended.
pub trait Store: Send + Sync + 'static {
    /// Who this store is; fixed when it was created, but for the epoch.
    fn identity(&self) -> &StoreIdentity;

    /// The most bytes of a saga's journal. Only a write that ends the saga may go beyond it:
    /// whatever a saga has grown to, it can be ended.
    fn saga_bytes_max(&self) -> usize;

    /// Commits the writes as one atomic batch and returns once it is on stable storage. Sagas
    /// whose stored sequence is not the expected one are left out and named in the receipt; all
    /// others are committed. A fence older than the store's epoch commits nothing.
    fn commit(&self, fence: Fence, batch: Vec<SagaWrite>) -> BoxFuture<'_, Result<Receipt, StoreError>>;

    /// The whole journal of a saga, open or ended; `None` when there is no such saga.
    fn load(&self, id: &SagaId) -> BoxFuture<'_, Result<Option<StoredSaga>, StoreError>>;

    /// Facts with a sequence over `after`, at most `limit`, in order.
    fn facts(&self, id: &SagaId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Fact>, StoreError>>;

    /// Open sagas for recovery, a page at a time: first those that do not rest (see
    /// [`Summary::rests`]), then the others by wake-up time. `cursor` is `None` for the first page
    /// and the page's `next` for the others.
    fn open_sagas(
        &self,
        cursor: Option<OpenCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<OpenPage, StoreError>>;

    /// Open sagas whose stored wake-up is at or before `now`, at most `limit`.
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<SagaId>, StoreError>>;

    /// Summaries in (`created_at`, `saga_id`) order, a page at a time.
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Vec<Summary>, StoreError>>;

    /// Exact numbers of sagas by definition, version and status; read from counters, never counted.
    /// Waits until the store knows every open saga.
    fn counters(&self) -> BoxFuture<'_, Result<Counters, StoreError>>;

    /// Stores a definition version durably (or replaces its `active` flag).
    fn put_definition(&self, definition: StoredDefinition) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All definition versions.
    fn definitions(&self) -> BoxFuture<'_, Result<Vec<StoredDefinition>, StoreError>>;

    /// Stores a registration durably, in place of one with the same id.
    fn put_registration(&self, registration: StoredRegistration) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets a registration.
    fn delete_registration(&self, registration_id: &str) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All stored registrations.
    fn registrations(&self) -> BoxFuture<'_, Result<Vec<StoredRegistration>, StoreError>>;

    /// Stores durably that a participant is paused, in place of what was stored of it.
    fn put_pause(&self, pause: StoredPause) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets that a participant is paused.
    fn delete_pause(&self, participant: &ParticipantName) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All paused participants.
    fn pauses(&self) -> BoxFuture<'_, Result<Vec<StoredPause>, StoreError>>;

    /// All lock tickets, by ticket number.
    fn lock_tickets(&self) -> BoxFuture<'_, Result<Vec<LockTicket>, StoreError>>;

    /// Deletes ended sagas that ended before `ended_before`, at most `limit`; the number deleted.
    fn delete_ended(&self, ended_before: Timestamp, limit: usize)
    -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Figures for operators. Just after a start those of the open sagas may be incomplete, until
    /// [`Store::counters`] has answered once.
    fn stats(&self) -> StoreStats;

    /// Makes everything durable, writes the marker and lets go of the files.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Who a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Made once, when the store was created.
    pub id: uuid::Uuid,
    /// Signs step tokens; made once.
    pub token_secret: [u8; 32],
    /// Raised durably each time the store is opened; the first is 1.
    pub epoch: u64,
}

/// The right to write: the epoch under which the owner opened the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The owner's epoch.
    pub epoch: u64,
}

/// What one commit says about one saga.
#[derive(Debug, Clone)]
pub struct SagaWrite {
    /// Which saga.
    pub id: SagaId,
    /// The sequence the saga must have in the store; 0 for a new one.
    pub expected_seq: u64,
    /// New facts, at least one, their sequences following `expected_seq` without gaps.
    pub facts: Vec<Fact>,
    /// The saga as lists show it after these facts.
    pub summary: Summary,
    /// The status before these facts; `None` for a new saga. Counters and indexes follow it.
    pub status_before: Option<SagaStatus>,
    /// When it must be looked at again, if that is far (see [`FAR_WAKE`]); `None` otherwise.
    pub far_wake: Option<Timestamp>,
    /// What happens to its lock ticket.
    pub lock: LockWrite,
}

/// Wake-ups nearer than this are not stored: they come from loading what is open.
pub const FAR_WAKE: std::time::Duration = std::time::Duration::from_mins(1);

/// A change of a saga's lock ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockWrite {
    /// Nothing changes.
    Keep,
    /// The ticket is taken.
    Take(LockTicket),
    /// The ticket with this number is given back.
    Release(u64),
}

/// A saga's place in the queues of its lock keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockTicket {
    /// Grows; the order of all queues.
    pub ticket: u64,
    /// Whose.
    pub saga: SagaId,
    /// On which keys, sorted.
    pub keys: Vec<LockKey>,
}

/// What became of a commit.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// Sagas left out because their stored sequence was another.
    pub conflicts: Vec<SagaId>,
}

/// The row that lists, indexes and filters read without loading a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which saga.
    pub id: SagaId,
    /// Its definition.
    pub definition: DefinitionName,
    /// The version it runs.
    pub version: Version,
    /// The digest of that version.
    pub digest: Digest,
    /// Where it stands.
    pub status: SagaStatus,
    /// Whether it goes backward.
    pub backward: bool,
    /// Whether its commit was reached.
    pub committed: bool,
    /// Whether an operator holds it.
    pub paused: bool,
    /// Whether something about it was asserted without proof.
    pub uncertain: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its last fact was decided.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The client's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The first cause of its failure.
    pub failure: Option<Failure>,
    /// The number of its last fact.
    pub seq: u64,
    /// Whether nothing of it happens before its far wake-up unless somebody asks for it: a start of
    /// the daemon leaves it where it is. Means nothing without a far wake-up.
    pub rests: bool,
}

/// A saga as stored.
#[derive(Debug, Clone)]
pub struct StoredSaga {
    /// Its whole journal.
    pub facts: Vec<Fact>,
    /// Whether it has ended.
    pub ended: bool,
    /// The far wake-up that its last commit stored; `None` for one that has ended.
    pub far_wake: Option<Timestamp>,
}

/// Where a scan of open sagas goes on; opaque to everyone but the store that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCursor(pub Vec<u8>);

/// A page of open sagas.
#[derive(Debug, Clone, Default)]
pub struct OpenPage {
    /// The sagas, those that rest with their wake-up.
    pub sagas: Vec<(SagaId, Option<Timestamp>)>,
    /// Where the next page starts; `None` behind the last.
    pub next: Option<OpenCursor>,
}

/// Which summaries are wanted.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Newest first, else oldest first.
    pub newest_first: bool,
    /// Only behind this (`created_at`, `saga_id`) in the order asked for.
    pub after: Option<(Timestamp, SagaId)>,
    /// Only created at or after.
    pub created_from: Option<Timestamp>,
    /// Only created before.
    pub created_before: Option<Timestamp>,
    /// Only these statuses; empty for all.
    pub statuses: Vec<SagaStatus>,
    /// Only this definition.
    pub definition: Option<DefinitionName>,
    /// At most so many rows.
    pub limit: usize,
}

/// Exact numbers of sagas.
pub type Counters = BTreeMap<(DefinitionName, Version, SagaStatus), u64>;

/// A definition version as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDefinition {
    /// Its name.
    pub name: DefinitionName,
    /// Its version.
    pub version: Version,
    /// The digest of its source.
    pub digest: Digest,
    /// The YAML text.
    pub source: Arc<str>,
    /// Whether new sagas may start on it.
    pub active: bool,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A participant's registration as stored; its content is the participant room's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRegistration {
    /// Its identity.
    pub registration_id: String,
    /// The registration, encoded by the participant room.
    pub body: Vec<u8>,
}

/// A participant that an operator has paused, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPause {
    /// Who is not to be called.
    pub participant: ParticipantName,
    /// Why, for people.
    pub reason: String,
    /// Who said so, for people.
    pub actor: String,
    /// Since when.
    pub since: Timestamp,
}

/// Figures of a store.
#[derive(Debug, Clone, Default)]
pub struct StoreStats {
    /// The store's kind: `sled`, `memory`.
    pub kind: &'static str,
    /// Atomic batches written since the start.
    pub commits: u64,
    /// Saga writes in them.
    pub writes: u64,
    /// Fsyncs since the start.
    pub fsyncs: u64,
    /// Microseconds spent in fsync since the start.
    pub fsync_micros: u64,
    /// Microseconds of the slowest fsync so far.
    pub fsync_micros_max: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Outbox records kept.
    pub outbox_records: u64,
    /// Sagas in the open part.
    pub open_sagas: u64,
    /// When the oldest of them was accepted (1970 if it cannot be read); `None` when there is none.
    pub oldest_open: Option<Timestamp>,
    /// Ended sagas that still lie among the open ones, on their way to the history.
    pub unmoved_sagas: u64,
    /// Whether starts should be refused because the disk is nearly full.
    pub disk_low: bool,
}

/// Why a store could not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// Reading or writing failed. After a failed commit its content may or may not be stored.
    #[error("store: {operation} failed: {cause}")]
    Io { operation: &'static str, cause: String },
    /// A sync to stable storage failed: nothing may be acknowledged any more; the daemon exits.
    #[error("store: a sync to stable storage failed: {cause}")]
    SyncFailed { cause: String },
    /// Something stored does not read back as it was written.
    #[error("store: {what} is damaged: {cause}")]
    Damaged { what: String, cause: String },
    /// Another owner has opened the store since.
    #[error("store: this process was deposed (its epoch {ours}, the store's {current})")]
    Deposed { ours: u64, current: u64 },
    /// The saga's journal would be larger than the store keeps. Nothing of the batch is stored; only
    /// a write that ends the saga may still go through.
    #[error("store: saga {saga} would grow to {bytes} bytes, over the limit of {limit}")]
    TooLarge { saga: SagaId, bytes: usize, limit: usize },
    /// The store was closed.
    #[error("store: closed")]
    Closed,
}
