//! Fills a store without a daemon: what the core decides, in the commits that the engine would make
//! of it, as fast as the store goes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use sagad::clock::{Clock as _, Stopwatch, SystemClock};
use sagad::definition::compile;
use sagad::saga::decide::{Decision, NewSaga, decide, start};
use sagad::saga::definition::Definition;
use sagad::saga::duties::{duties, rests};
use sagad::saga::ids::{InstanceRef, SagaId, StepIx, Timestamp, Version};
use sagad::saga::input::{Context, Everyone, Input, Reply};
use sagad::saga::json::Json;
use sagad::saga::room::JournalLimit;
use sagad::saga::state::Saga;
use sagad::saga::words::{Outcome, Phase};
use sagad::store::codec::{fact::encode_facts, summary::encode_summary};
use sagad::store::sled::{SledOptions, SledStore};
use sagad::store::{FAR_WAKE, Fence, LockWrite, SagaWrite, Store, StoredDefinition, Summary};

use crate::records::{Common, life_of};
use crate::shop::HOLD_TIME;

/// Sagas in one commit.
const BATCH_SAGAS: u64 = 256;
/// Commits that wait for the writer at once.
const BATCHES_AT_ONCE: usize = 8;
/// Ended sagas that may wait for their way to the history.
const UNMOVED_MAX: u64 = 20_000;
/// The pause between two looks at whether they are fewer.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Progress is told so often.
const TELL_EVERY: u64 = 250_000;

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    pub took: Duration,
    /// Bytes of the records themselves: all facts, and the summary as it was first and last.
    pub logical_bytes: u64,
}

/// Where the first step of an open saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answered "pending" just now, and is asked again in [`HOLD_TIME`].
    Pending,
    /// It answered "pending" so long ago that it is to be asked now.
    Due,
    /// Its call was in flight.
    InFlight,
}

/// A store that is being filled.
pub struct Fill {
    store: SledStore,
    fence: Fence,
    definition: Arc<Definition>,
    now: Timestamp,
}

impl Fill {
    /// Makes the store in `dir`, for sagas of the definition `source`; it knows `others` too.
    pub async fn begin(dir: &Path, source: &str, others: &[&str]) -> anyhow::Result<Self> {
        let store = SledStore::open(SledOptions::new(dir)).context("make a store to be filled")?;
        let fence = Fence { epoch: store.identity().epoch };
        let now = SystemClock::start().now();
        let definition = compiled(source)?;
        let others = others.iter().map(|source| compiled(source)).collect::<anyhow::Result<Vec<_>>>()?;
        for known in others.iter().chain([&definition]) {
            let stored = StoredDefinition {
                name: known.name.clone(),
                version: known.version,
                digest: known.digest,
                source: Arc::clone(&known.source),
                active: true,
                created_at: now,
            };
            store.put_definition(stored).await?;
        }
        Ok(Self { store, fence, definition, now })
    }

    /// Adds sagas that are open.
    pub async fn open(&self, run: u64, count: u64, standing: Standing) -> anyhow::Result<Filled> {
        self.fill(count, |number| self.open_saga(run, number, standing)).await
    }

    /// Adds sagas that have ended, and waits until they are in the history.
    pub async fn ended(&self, count: u64) -> anyhow::Result<Filled> {
        // The last one ended just now.
        let begin = self.now - Duration::from_millis(count / 4);
        let common = Common { run: 0, digest: self.definition.digest, begin };
        let watch = Stopwatch::start();
        let filled = self.fill(count, |number| Ok(life_of(common, number))).await?;
        self.until_moved(0).await;
        Ok(Filled { took: watch.elapsed(), ..filled })
    }

    /// Lets go of the store.
    pub async fn close(self) -> anyhow::Result<()> {
        self.store.close().await.context("close the filled store")
    }

    async fn fill(
        &self,
        count: u64,
        life: impl Fn(u64) -> anyhow::Result<Vec<SagaWrite>>,
    ) -> anyhow::Result<Filled> {
        let watch = Stopwatch::start();
        let life = &life;
        let batches = (0..count.div_ceil(BATCH_SAGAS)).map(|batch| async move {
            let (from, to) = (batch * BATCH_SAGAS, ((batch + 1) * BATCH_SAGAS).min(count));
            self.until_moved(UNMOVED_MAX).await;
            let mut writes = Vec::new();
            for number in from..to {
                writes.extend(life(number)?);
            }
            let bytes = logical_bytes(&writes);
            let receipt = self.store.commit(self.fence, writes).await.context("fill the store")?;
            anyhow::ensure!(receipt.conflicts.is_empty(), "a write of the fill did not fit");
            tell(from, to, &watch);
            anyhow::Ok(bytes)
        });
        let mut written = futures::stream::iter(batches).buffer_unordered(BATCHES_AT_ONCE);
        let mut logical_bytes = 0;
        while let Some(bytes) = written.next().await {
            logical_bytes += bytes?;
        }
        Ok(Filled { took: watch.elapsed(), logical_bytes })
    }

    /// The history is filled behind the commits; what is not there yet is held in memory.
    async fn until_moved(&self, left: u64) {
        while self.store.stats().unmoved_sagas > left {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    fn open_saga(&self, run: u64, number: u64, standing: Standing) -> anyhow::Result<Vec<SagaWrite>> {
        let age = if standing == Standing::Due { 2 * HOLD_TIME } else { Duration::ZERO };
        let ctx = Context {
            now: self.now - age,
            epoch: self.fence.epoch,
            reach: &Everyone,
            journal_limit: JournalLimit::NONE,
        };
        let id = format!("019338f4-5a00-7c3e-90{run:02x}-{number:012x}");
        let items =
            format!(r#"[{{"item_id":{},"amount":1}},{{"item_id":{},"amount":2}}]"#, number, number + 1);
        let new = NewSaga {
            id: SagaId::parse(&id).context("a good id")?,
            definition: Arc::clone(&self.definition),
            version_asked: 0,
            input: Json::trusted(format!(r#"{{"user_id":{number},"items":{items},"total":10}}"#)),
            labels: Arc::default(),
            locks: Vec::new(),
            locks_held: true,
        };
        let first = start(new, &ctx);
        let mut writes = vec![write_of(None, &first)];
        if standing != Standing::InFlight {
            let reply = Reply {
                at: InstanceRef { step: StepIx(0), item: None },
                phase: Phase::Action,
                attempt: 1,
                outcome: Outcome::Pending(Some(HOLD_TIME)),
            };
            let next = decide(&first.next, &Input::Reply(reply), &ctx)?;
            writes.push(write_of(Some(&first.next), &next));
        }
        Ok(writes)
    }
}

fn compiled(source: &str) -> anyhow::Result<Arc<Definition>> {
    match compile(source, None, Version(1)) {
        Ok(compiled) => Ok(compiled.definition),
        Err(problems) => anyhow::bail!("a definition of the bench has problems: {problems:?}"),
    }
}

/// The commit that the engine would make of a decision.
fn write_of(before: Option<&Saga>, decision: &Decision) -> SagaWrite {
    let saga = &decision.next;
    let waits = duties(saga, &Everyone).waits;
    let far_wake = waits.wake_at.filter(|&wake| wake > saga.updated_at + FAR_WAKE);
    SagaWrite {
        id: saga.id.clone(),
        expected_seq: before.map_or(0, |saga| saga.seq),
        facts: decision.facts.clone(),
        summary: Summary {
            id: saga.id.clone(),
            definition: saga.definition.name.clone(),
            version: saga.definition.version,
            digest: saga.definition.digest,
            status: saga.status(),
            backward: false,
            committed: saga.committed,
            paused: false,
            uncertain: saga.uncertain,
            created_at: saga.created_at,
            updated_at: saga.updated_at,
            ended_at: saga.ended_at,
            labels: Arc::clone(&saga.labels),
            failure: None,
            seq: saga.seq,
            rests: far_wake.is_some() && rests(saga, &waits),
        },
        status_before: before.map(Saga::status),
        far_wake,
        lock: LockWrite::Keep,
    }
}

/// What the records are themselves, without keys, frames, indexes and copies.
pub fn logical_bytes(writes: &[SagaWrite]) -> u64 {
    let of = |write: &SagaWrite| {
        let told = write.expected_seq == 0 || write.summary.status.is_terminal();
        let summary = if told { encode_summary(&write.summary).len() } else { 0 };
        (encode_facts(&write.facts).len() + summary) as u64
    };
    writes.iter().map(of).sum()
}

#[expect(clippy::print_stderr, reason = "a program talks to its terminal")]
fn tell(from: u64, to: u64, watch: &Stopwatch) {
    if from / TELL_EVERY != to / TELL_EVERY {
        eprintln!("  {to} after {:.0} s", watch.elapsed().as_secs_f64());
    }
}
