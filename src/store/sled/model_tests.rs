//! Both stores are put through the same random lives and must tell the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::OnDisk;
use super::*;
use crate::saga::event::Event;
use crate::saga::json::Json;
use crate::store::memory::MemoryStore;
use crate::store::suite::write::{id, start_of, then, ticket};
use crate::store::suite::{Bench, try_commit};
use crate::store::{FAR_WAKE, LockWrite};

const IDS: [&str; 8] = ["a", "a/b", "ab", "a:", "b", "b.1", "b.10", "c"];
const STATUSES: [SagaStatus; 5] = [
    SagaStatus::Running,
    SagaStatus::Committed,
    SagaStatus::Blocked,
    SagaStatus::Completed,
    SagaStatus::Compensated,
];

#[derive(Debug, Clone)]
enum Op {
    /// Starts a saga, or goes on with it; several of them are one batch.
    Write(Vec<OneWrite>),
    DeleteEnded {
        before: i64,
        limit: usize,
    },
    Reopen,
}

#[derive(Debug, Clone)]
struct OneWrite {
    saga: usize,
    status: usize,
    events: usize,
    bytes: usize,
    paused: bool,
    rests: bool,
    wake: Option<i64>,
    lock: bool,
    stale: bool,
}

fn one_write() -> impl Strategy<Value = OneWrite> {
    let shape = (
        0..IDS.len(),
        0..STATUSES.len(),
        1..4_usize,
        prop_oneof![4 => 0..200_usize, 1 => 5_000..30_000_usize],
    );
    let extra = (any::<[bool; 2]>(), prop::option::of(0..50_i64), any::<bool>(), prop::bool::weighted(0.1));
    (shape, extra).prop_map(|((saga, status, events, bytes), ([paused, rests], wake, lock, stale))| {
        OneWrite { saga, status, events, bytes, paused, rests, wake, lock, stale }
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => prop::collection::vec(one_write(), 1..4).prop_map(Op::Write),
        2 => (0..60_000_i64, 0..4_usize).prop_map(|(before, limit)| Op::DeleteEnded { before, limit }),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..40)
}

/// The last write of each saga, from which the next follows.
type Lasts = BTreeMap<&'static str, SagaWrite>;

fn next_write(lasts: &Lasts, one: &OneWrite, number: u64) -> SagaWrite {
    let name = IDS[one.saga];
    let text = format!("\"{}\"", "x".repeat(one.bytes));
    let Some(last) = lasts.get(name) else {
        let mut first = start_of(
            ["order", "refund"][one.saga % 2],
            name,
            i64::try_from(one.saga % 3).unwrap() * 1_000,
            &text,
        );
        if one.lock {
            first.lock = LockWrite::Take(ticket(number, name, "k"));
        }
        return first;
    };
    let ended = last.summary.status.is_terminal();
    let status = if ended { last.summary.status } else { STATUSES[one.status] };
    let emit =
        || Event::EventEmitted { topic: "t".into(), key: "k".into(), data: Json::trusted(text.clone()) };
    let events = (0..one.events).map(|n| if n == 1 { emit() } else { Event::LockGranted }).collect();
    let mut write = then(last, status, events);
    write.summary.paused = one.paused;
    write.summary.rests = one.rests;
    let far = i64::try_from(FAR_WAKE.as_millis()).unwrap();
    write.far_wake = one.wake.map(|wake| Timestamp(far + wake));
    if one.stale {
        write.expected_seq += 1;
        write.facts.iter_mut().for_each(|fact| fact.seq += 1);
    }
    write
}

async fn assert_same(disk: &OnDisk, memory: &MemoryStore, step: &str) {
    let (disk, memory) = (disk.store(), memory.store());
    for name in IDS {
        let found = disk.load(&id(name)).await.unwrap();
        let expected = memory.load(&id(name)).await.unwrap();
        let plain = |saga: Option<StoredSaga>| saga.map(|saga| (saga.facts, saga.ended));
        assert_eq!(plain(found), plain(expected), "{step}: {name}");
        let (found, expected) = (disk.facts(&id(name), 2, 3).await, memory.facts(&id(name), 2, 3).await);
        assert_eq!(found.unwrap(), expected.unwrap(), "{step}: facts of {name}");
    }
    let all = ListQuery { limit: 100, ..ListQuery::default() };
    let ended = ListQuery { statuses: STATUSES[2..4].to_vec(), newest_first: true, limit: 3, ..all.clone() };
    let refunds = ListQuery { definition: Some(id_definition()), limit: 2, ..all.clone() };
    let after = ListQuery { after: Some((Timestamp(1_000), id("ab"))), ..all.clone() };
    for query in [all, ended, refunds, after] {
        let (found, expected) = (disk.list(query.clone()).await, memory.list(query.clone()).await);
        assert_eq!(found.unwrap(), expected.unwrap(), "{step}: {query:?}");
    }
    assert_eq!(disk.counters().await.unwrap(), memory.counters().await.unwrap(), "{step}");
    assert_eq!(disk.lock_tickets().await.unwrap(), memory.lock_tickets().await.unwrap(), "{step}");
    let due =
        (disk.due(Timestamp(i64::MAX), 9).await.unwrap(), memory.due(Timestamp(i64::MAX), 9).await.unwrap());
    assert_eq!(due.0, due.1, "{step}");
    let pages = (disk.open_sagas(None, 99).await.unwrap(), memory.open_sagas(None, 99).await.unwrap());
    assert_eq!(pages.0.sagas, pages.1.sagas, "{step}");
    let figures = |stats: StoreStats| (stats.outbox_records, stats.open_sagas, stats.oldest_open);
    assert_eq!(figures(disk.stats()), figures(memory.stats()), "{step}");
}

fn id_definition() -> crate::saga::ids::DefinitionName {
    crate::store::suite::write::definition("refund")
}

async fn live(ops: Vec<Op>) {
    let (mut disk, mut memory) = (OnDisk::create().await, MemoryStore::new());
    let mut lasts = Lasts::new();
    let mut tickets = 0;
    for (number, op) in ops.into_iter().enumerate() {
        let step = format!("step {number}: {op:?}");
        match op {
            Op::Write(ones) => {
                let mut batch: Vec<SagaWrite> = Vec::new();
                for one in &ones {
                    tickets += 1;
                    let write = next_write(&lasts, one, tickets);
                    if !one.stale || write.expected_seq == 0 {
                        lasts.insert(IDS[one.saga], write.clone());
                    }
                    batch.push(write);
                }
                let found = try_commit(&disk, batch.clone()).await.unwrap();
                let expected = try_commit(&memory, batch).await.unwrap();
                assert_eq!(found.conflicts, expected.conflicts, "{step}");
            }
            Op::DeleteEnded { before, limit } => {
                let found = disk.store().delete_ended(Timestamp(before), limit).await.unwrap();
                let expected = memory.delete_ended(Timestamp(before), limit).await.unwrap();
                assert_eq!(found, expected, "{step}");
                for name in IDS {
                    if memory.load(&id(name)).await.unwrap().is_none() {
                        lasts.remove(name);
                    }
                }
            }
            Op::Reopen => (disk, memory) = (disk.reopen().await, memory.crash()),
        }
        assert_same(&disk, &memory, &step).await;
    }
    let dir = disk.dir.path().to_owned();
    disk.store.close().await.unwrap();
    assert_eq!(verify(&dir).unwrap().problems, Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_on_disk_tells_the_same_as_the_one_in_memory(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(ops));
    }
}
