//! What is committed is kept, whole and by itself.

use super::write::{end, id, start, start_of, step, then, ticket};
use super::{Bench, commit, try_commit, write};
use crate::saga::event::Event;
use crate::saga::ids::{ParticipantName, SagaId, Timestamp};
use crate::saga::json::Json;
use crate::saga::words::SagaStatus;
use crate::store::checks::SAGA_BYTES_MAX;
use crate::store::codec::samples;
use crate::store::{FAR_WAKE, Fence, LockWrite, SagaWrite, StoreError, StoredPause, StoredRegistration};

/// What the store must give back for these writes of one saga.
async fn assert_holds(bench: &impl Bench, writes: &[&SagaWrite]) {
    let last = writes[writes.len() - 1];
    let stored = bench.store().load(&last.id).await.unwrap().expect("the saga is stored");
    let facts: Vec<_> = writes.iter().flat_map(|write| write.facts.clone()).collect();
    assert_eq!(stored.facts, facts);
    assert_eq!(stored.ended, last.summary.status.is_terminal());
    assert_eq!(stored.far_wake, last.far_wake.filter(|_| !stored.ended));
}

pub(crate) async fn a_started_saga_is_loaded_whole<B: Bench>() {
    let bench = B::create().await;
    let first = start("a", 1);
    let second = step(&first);
    commit(&bench, std::slice::from_ref(&first)).await;
    commit(&bench, std::slice::from_ref(&second)).await;
    assert_holds(&bench, &[&first, &second]).await;
}

pub(crate) async fn a_saga_that_never_was_is_none<B: Bench>() {
    let bench = B::create().await;
    assert!(bench.store().load(&id("nobody")).await.unwrap().is_none());
    assert!(bench.store().facts(&id("nobody"), 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_batch_is_stored_together<B: Bench>() {
    let bench = B::create().await;
    let batch: Vec<_> = (0..20).map(|n| start(&format!("s{n}"), n)).collect();
    commit(&bench, &batch).await;
    for write in &batch {
        assert_holds(&bench, &[write]).await;
    }
    assert_eq!(bench.store().stats().commits, 1);
    assert_eq!(bench.store().stats().open_sagas, 20);
}

pub(crate) async fn a_wrong_sequence_is_left_out_and_named<B: Bench>() {
    let bench = B::create().await;
    let (a, b) = (start("a", 1), start("b", 2));
    commit(&bench, &[a.clone(), b.clone()]).await;
    let ahead = step(&step(&a));
    let fine = step(&b);
    let receipt = try_commit(&bench, vec![ahead, fine.clone()]).await.unwrap();
    assert_eq!(receipt.conflicts, vec![id("a")]);
    assert_holds(&bench, &[&a]).await;
    assert_holds(&bench, &[&b, &fine]).await;
}

pub(crate) async fn a_second_start_is_a_conflict<B: Bench>() {
    let bench = B::create().await;
    let first = start("a", 1);
    commit(&bench, std::slice::from_ref(&first)).await;
    let receipt = try_commit(&bench, vec![start("a", 9)]).await.unwrap();
    assert_eq!(receipt.conflicts, vec![id("a")]);
    let receipt = try_commit(&bench, vec![start("b", 9), start("b", 9)]).await.unwrap();
    assert_eq!(receipt.conflicts, vec![id("b")]);
    assert_holds(&bench, &[&first]).await;
}

pub(crate) async fn a_start_over_an_ended_saga_is_a_conflict<B: Bench>() {
    let bench = B::create().await;
    let first = start("a", 1);
    let last = end(&first);
    commit(&bench, std::slice::from_ref(&first)).await;
    commit(&bench, std::slice::from_ref(&last)).await;
    let bench = bench.reopen().await;
    let receipt = try_commit(&bench, vec![start("a", 9)]).await.unwrap();
    assert_eq!(receipt.conflicts, vec![id("a")]);
    assert_holds(&bench, &[&first, &last]).await;
}

pub(crate) async fn a_conflict_leaves_locks_and_counters_alone<B: Bench>() {
    let bench = B::create().await;
    commit(&bench, &[start("a", 1)]).await;
    let counters = bench.store().counters().await.unwrap();
    let again = SagaWrite { lock: LockWrite::Take(ticket(1, "a", "k")), ..start("a", 1) };
    try_commit(&bench, vec![again]).await.unwrap();
    assert_eq!(bench.store().counters().await.unwrap(), counters);
    assert!(bench.store().lock_tickets().await.unwrap().is_empty());
}

pub(crate) async fn a_batch_out_of_order_stores_nothing<B: Bench>() {
    let bench = B::create().await;
    let mut gap = start("b", 1);
    gap.facts[0].seq = 2;
    let error = try_commit(&bench, vec![start("a", 1), gap]).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { operation: "commit", .. }));
    assert!(bench.store().load(&id("a")).await.unwrap().is_none());
}

pub(crate) async fn an_older_fence_commits_nothing<B: Bench>() {
    let bench = B::create().await.reopen().await;
    let epoch = bench.store().identity().epoch;
    let error = bench.store().commit(Fence { epoch: epoch - 1 }, vec![start("a", 1)]).await.unwrap_err();
    let StoreError::Deposed { ours, current } = error else { panic!("{error}") };
    assert_eq!((ours, current), (epoch - 1, epoch));
    assert!(bench.store().load(&id("a")).await.unwrap().is_none());
}

pub(crate) async fn many_commits_at_once_all_land<B: Bench>() {
    let bench = B::create().await;
    let starts: Vec<_> = (0..64).map(|n| start(&format!("s{n}"), n)).collect();
    let all = starts.iter().map(|start| async {
        commit(&bench, std::slice::from_ref(start)).await;
        commit(&bench, &[step(start)]).await;
        commit(&bench, &[end(&step(start))]).await;
    });
    futures::future::join_all(all).await;
    for start in &starts {
        assert_holds(&bench, &[start, &step(start), &end(&step(start))]).await;
    }
}

pub(crate) async fn facts_come_in_pages<B: Bench>() {
    let bench = B::create().await;
    let mut writes = vec![start("a", 1)];
    for _ in 0..4 {
        let last = &writes[writes.len() - 1];
        writes.push(then(last, SagaStatus::Running, vec![Event::LockGranted, Event::DeadlinePassed]));
    }
    commit(&bench, &writes).await;
    let seqs = async |after, limit| {
        let facts = bench.store().facts(&id("a"), after, limit).await.unwrap();
        facts.iter().map(|fact| fact.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 4).await, [1, 2, 3, 4]);
    assert_eq!(seqs(4, 4).await, [5, 6, 7, 8]);
    assert_eq!(seqs(8, 4).await, [9]);
    assert!(seqs(9, 4).await.is_empty());
    assert!(seqs(u64::MAX, 4).await.is_empty());
}

fn large_text(bytes: usize) -> String {
    let digits: String = (0..bytes).map(|n| char::from(b'a' + (n % 23).to_le_bytes()[0])).collect();
    format!("{{\"blob\":\"{digits}\"}}")
}

pub(crate) async fn a_large_input_survives<B: Bench>() {
    let bench = B::create().await;
    let first = start_of("order", "big", 1, &large_text(1024 * 1024));
    let last = end(&first);
    commit(&bench, std::slice::from_ref(&first)).await;
    commit(&bench, std::slice::from_ref(&last)).await;
    assert_holds(&bench, &[&first, &last]).await;
    let bench = bench.reopen().await;
    assert_holds(&bench, &[&first, &last]).await;
    assert_eq!(bench.store().facts(&id("big"), 0, 1).await.unwrap(), first.facts);
}

pub(crate) async fn a_saga_over_the_limit_is_refused<B: Bench>() {
    let bench = B::create().await;
    let data = Json::trusted(large_text(SAGA_BYTES_MAX / 2));
    let emit = || Event::EventEmitted { topic: "t".into(), key: "k".into(), data: data.clone() };
    let first = start("a", 1);
    let second = then(&first, SagaStatus::Running, vec![emit(), emit()]);
    commit(&bench, std::slice::from_ref(&first)).await;
    let error = try_commit(&bench, vec![second]).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { limit: SAGA_BYTES_MAX, .. }));
    assert_holds(&bench, &[&first]).await;
}

pub(crate) async fn a_saga_at_the_limit_can_still_be_ended<B: Bench>() {
    let bench = B::create().await;
    assert_eq!(bench.store().saga_bytes_max(), SAGA_BYTES_MAX);
    let emit = |bytes: usize| {
        let data = Json::trusted(large_text(bytes));
        Event::EventEmitted { topic: "t".into(), key: "k".into(), data }
    };
    let first = start("a", 1);
    let full = then(&first, SagaStatus::Blocked, vec![emit(SAGA_BYTES_MAX - 4_096)]);
    commit(&bench, std::slice::from_ref(&first)).await;
    commit(&bench, std::slice::from_ref(&full)).await;
    let further = then(&full, SagaStatus::Blocked, vec![emit(8_192)]);
    let error = try_commit(&bench, vec![further]).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }));

    let end = |bytes| {
        then(&full, SagaStatus::Abandoned, vec![emit(bytes), Event::SagaAbandoned { steps: Vec::new() }])
    };
    let huge = try_commit(&bench, vec![end(SAGA_BYTES_MAX)]).await.unwrap_err();
    assert!(matches!(huge, StoreError::TooLarge { .. }), "even an end has its limit");
    let ended = end(8_192);
    commit(&bench, std::slice::from_ref(&ended)).await;
    assert_holds(&bench, &[&first, &full, &ended]).await;
    let bench = bench.reopen().await;
    assert_holds(&bench, &[&first, &full, &ended]).await;
}

pub(crate) async fn ids_that_begin_alike_do_not_mix<B: Bench>() {
    let bench = B::create().await;
    let ids = ["a", "a/b", "a-", "ab", "a:", "a/b/c", &"a".repeat(200), &"a".repeat(199)];
    let starts: Vec<_> = ids.iter().map(|id| start(id, 5)).collect();
    commit(&bench, &starts).await;
    let ended = end(&starts[0]);
    commit(&bench, std::slice::from_ref(&ended)).await;
    let bench = bench.reopen().await;
    assert_holds(&bench, &[&starts[0], &ended]).await;
    for start in &starts[1..] {
        assert_holds(&bench, &[start]).await;
    }
    assert_eq!(bench.store().delete_ended(Timestamp(i64::MAX), 10).await.unwrap(), 1);
    assert!(bench.store().load(&id("a")).await.unwrap().is_none());
    for start in &starts[1..] {
        assert_holds(&bench, &[start]).await;
    }
}

pub(crate) async fn a_late_write_keeps_an_ended_saga_ended<B: Bench>() {
    let bench = B::create().await;
    let first = start("a", 1);
    let ended = end(&first);
    commit(&bench, &[first.clone(), ended.clone()]).await;
    let bench = bench.reopen().await;
    let mut late = then(&ended, SagaStatus::Completed, vec![Event::DeadlinePassed]);
    late.summary.uncertain = true;
    commit(&bench, std::slice::from_ref(&late)).await;
    assert_holds(&bench, &[&first, &ended, &late]).await;
    let counters = bench.store().counters().await.unwrap();
    assert_eq!(counters.values().sum::<u64>(), 1);
    assert_eq!(bench.store().stats().open_sagas, 0);
    let bench = bench.reopen().await;
    assert_holds(&bench, &[&first, &ended, &late]).await;
    assert_eq!(bench.store().list(all()).await.unwrap(), vec![late.summary.clone()]);
    let later = step(&late);
    commit(&bench, std::slice::from_ref(&later)).await;
    assert_holds(&bench, &[&first, &ended, &late, &later]).await;
}

fn all() -> crate::store::ListQuery {
    crate::store::ListQuery { limit: 100, ..Default::default() }
}

pub(crate) async fn reopening_keeps_everything<B: Bench>() {
    let bench = B::create().await;
    let (a, b) = (start("a", 1), start("b", 2));
    let b = SagaWrite { lock: LockWrite::Take(ticket(4, "b", "k")), ..b };
    let c = SagaWrite { far_wake: Some(Timestamp(900_000)), ..start("c", 3) };
    let ended = end(&a);
    let stepped = step(&b);
    let batch = [a.clone(), b.clone(), c.clone(), ended.clone(), stepped.clone()];
    commit(&bench, &batch).await;
    let identity = bench.store().identity().clone();
    let (list, counters) =
        (bench.store().list(all()).await.unwrap(), bench.store().counters().await.unwrap());
    let bench = bench.reopen().await.reopen().await;
    assert_holds(&bench, &[&a, &ended]).await;
    assert_holds(&bench, &[&b, &stepped]).await;
    assert_holds(&bench, &[&c]).await;
    let store = bench.store();
    assert_eq!(store.list(all()).await.unwrap(), list);
    assert_eq!(store.counters().await.unwrap(), counters);
    assert_eq!(store.lock_tickets().await.unwrap(), vec![ticket(4, "b", "k")]);
    assert_eq!(store.due(Timestamp(900_000), 9).await.unwrap(), vec![id("c")]);
    assert_eq!(store.identity().id, identity.id);
    assert_eq!(store.identity().token_secret, identity.token_secret);
    assert_eq!((store.stats().open_sagas, store.stats().oldest_open), (2, Some(b.summary.created_at)));
    commit(&bench, &[end(&stepped), end(&c)]).await;
    assert_eq!(bench.store().stats().oldest_open, None);
}

pub(crate) async fn reopening_raises_the_epoch<B: Bench>() {
    let mut bench = B::create().await;
    for epoch in 1..4 {
        assert_eq!(bench.store().identity().epoch, epoch);
        bench = bench.reopen().await;
    }
}

pub(crate) async fn lock_tickets_are_taken_and_given_back<B: Bench>() {
    let bench = B::create().await;
    let (a, b) = (start("a", 1), start("b", 2));
    let a = SagaWrite { lock: LockWrite::Take(ticket(2, "a", "k")), ..a };
    let b = SagaWrite { lock: LockWrite::Take(ticket(1, "b", "k")), ..b };
    commit(&bench, &[a.clone(), b]).await;
    let tickets = bench.store().lock_tickets().await.unwrap();
    assert_eq!(tickets, vec![ticket(1, "b", "k"), ticket(2, "a", "k")]);
    commit(&bench, &[SagaWrite { lock: LockWrite::Release(2), ..end(&a) }]).await;
    assert_eq!(bench.store().lock_tickets().await.unwrap(), vec![ticket(1, "b", "k")]);
    let bench = bench.reopen().await;
    assert_eq!(bench.store().lock_tickets().await.unwrap(), vec![ticket(1, "b", "k")]);
}

fn far(write: SagaWrite, wake: i64) -> SagaWrite {
    SagaWrite { far_wake: Some(Timestamp(wake)), ..write }
}

fn resting(write: SagaWrite, wake: i64) -> SagaWrite {
    let mut write = far(write, wake);
    write.summary.rests = true;
    write
}

pub(crate) async fn far_wake_ups_come_due_in_order<B: Bench>() {
    let bench = B::create().await;
    let base = i64::try_from(FAR_WAKE.as_millis()).unwrap();
    let a = far(start("a", 1), base + 30);
    let b = far(start("b", 1), base + 10);
    let c = far(start("c", 1), base + 20);
    commit(&bench, &[a.clone(), b.clone(), c.clone(), start("d", 1)]).await;
    let due = async |bench: &B, now, limit| bench.store().due(Timestamp(now), limit).await.unwrap();
    assert_eq!(due(&bench, base, 9).await, Vec::<SagaId>::new());
    assert_eq!(due(&bench, base + 20, 9).await, [id("b"), id("c")]);
    assert_eq!(due(&bench, i64::MAX, 1).await, [id("b")]);
    // Moved, taken away by a nearer one, and ended.
    commit(&bench, &[far(step(&a), base + 5), step(&b), end(&c)]).await;
    assert_eq!(due(&bench, i64::MAX, 9).await, [id("a")]);
    let bench = bench.reopen().await;
    assert_eq!(due(&bench, base + 5, 9).await, [id("a")]);
}

pub(crate) async fn open_sagas_come_in_pages<B: Bench>() {
    let bench = B::create().await;
    let mut batch: Vec<_> = (0..4).map(|n| start(&format!("near{n}"), n)).collect();
    // Something else may happen to it before its wake-up comes.
    batch.push(far(start("near4", 4), 400_000));
    batch.extend((0..5).map(|n| resting(start(&format!("far{n}"), n), 500_000 - n)));
    let ended = start("ended", 1);
    batch.push(ended.clone());
    batch.push(end(&ended));
    commit(&bench, &batch).await;
    let bench = bench.reopen().await;
    for limit in [1, 3, 5, 10, 11] {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = bench.store().open_sagas(cursor, limit).await.unwrap();
            assert!(page.sagas.len() <= limit);
            seen.extend(page.sagas);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let near = (0..5).map(|n| (id(&format!("near{n}")), None));
        let far = (0..5).rev().map(|n| (id(&format!("far{n}")), Some(Timestamp(500_000 - n))));
        assert_eq!(seen, near.chain(far).collect::<Vec<_>>(), "pages of {limit}");
    }
}

pub(crate) async fn definitions_are_kept<B: Bench>() {
    let bench = B::create().await;
    let mut first = samples::definition("order", 1);
    first.source = std::sync::Arc::from("x".repeat(100_000));
    let second = samples::definition("order", 2);
    bench.store().put_definition(first.clone()).await.unwrap();
    bench.store().put_definition(second.clone()).await.unwrap();
    first.active = false;
    first.source = std::sync::Arc::from("short");
    bench.store().put_definition(first.clone()).await.unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.store().definitions().await.unwrap(), vec![first, second]);
}

pub(crate) async fn registrations_are_kept<B: Bench>() {
    let bench = B::create().await;
    let registration =
        |id: &str, size| StoredRegistration { registration_id: id.into(), body: vec![7; size] };
    for (id, size) in [("a", 20_000), ("ab", 10), ("a", 5)] {
        bench.store().put_registration(registration(id, size)).await.unwrap();
    }
    let bench = bench.reopen().await;
    let kept = bench.store().registrations().await.unwrap();
    assert_eq!(kept, vec![registration("a", 5), registration("ab", 10)]);
    bench.store().delete_registration("a").await.unwrap();
    bench.store().delete_registration("nobody").await.unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.store().registrations().await.unwrap(), vec![registration("ab", 10)]);
}

pub(crate) async fn pauses_are_kept<B: Bench>() {
    let bench = B::create().await;
    let pause = |name: &str, reason: &str| StoredPause {
        participant: ParticipantName::parse(name).unwrap(),
        reason: reason.to_owned(),
        actor: "mia".to_owned(),
        since: Timestamp(1_700_000_000_000),
    };
    for (name, reason) in [("point", "a"), ("stock", &"long ".repeat(4_000)), ("stock", "b")] {
        bench.store().put_pause(pause(name, reason)).await.unwrap();
    }
    let bench = bench.reopen().await;
    assert_eq!(bench.store().pauses().await.unwrap(), vec![pause("point", "a"), pause("stock", "b")]);
    bench.store().delete_pause(&ParticipantName::parse("point").unwrap()).await.unwrap();
    bench.store().delete_pause(&ParticipantName::parse("nobody").unwrap()).await.unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.store().pauses().await.unwrap(), vec![pause("stock", "b")]);
}

pub(crate) async fn old_ended_sagas_are_deleted<B: Bench>() {
    let bench = B::create().await;
    let starts: Vec<_> = (0..6).map(|n| start(&format!("s{n}"), n * 10_000)).collect();
    commit(&bench, &starts).await;
    // Ended at 1,000, 11,000, … 41,000; the last one stays open.
    commit(&bench, &starts[..5].iter().map(end).collect::<Vec<_>>()).await;
    let store = bench.store();
    assert_eq!(store.delete_ended(Timestamp(21_000), 1).await.unwrap(), 1);
    assert!(store.load(&id("s0")).await.unwrap().is_none(), "the oldest goes first");
    assert_eq!(store.delete_ended(Timestamp(21_000), 9).await.unwrap(), 1);
    assert_eq!(store.delete_ended(Timestamp(21_000), 9).await.unwrap(), 0);
    let bench = bench.reopen().await;
    let left: Vec<_> = bench.store().list(all()).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(left, [id("s2"), id("s3"), id("s4"), id("s5")]);
    assert_eq!(bench.store().counters().await.unwrap().values().sum::<u64>(), 4);
}

pub(crate) async fn an_id_can_be_used_again_when_its_saga_was_deleted<B: Bench>() {
    let bench = B::create().await;
    let first = start_of("order", "a", 1, &large_text(30_000));
    commit(&bench, &[first.clone(), end(&first)]).await;
    assert_eq!(bench.store().delete_ended(Timestamp(i64::MAX), 9).await.unwrap(), 1);
    let again = start("a", 77);
    commit(&bench, std::slice::from_ref(&again)).await;
    let bench = bench.reopen().await;
    assert_holds(&bench, &[&again]).await;
    assert_eq!(bench.store().list(all()).await.unwrap(), vec![again.summary]);
}

pub(crate) async fn outbox_records_are_counted<B: Bench>() {
    let bench = B::create().await;
    let emit = |n: i32| Event::EventEmitted {
        topic: "t".into(),
        key: n.to_string(),
        data: Json::trusted(n.to_string()),
    };
    let first = start("a", 1);
    let ended = then(&first, SagaStatus::Completed, vec![emit(1), emit(2), Event::SagaCompleted]);
    let other = start("b", 1);
    let emitted = then(&other, SagaStatus::Running, vec![emit(3)]);
    commit(&bench, &[first, ended, other, emitted]).await;
    assert_eq!(bench.store().stats().outbox_records, 3);
    let bench = bench.reopen().await;
    assert_eq!(bench.store().stats().outbox_records, 3);
    assert_eq!(bench.store().delete_ended(Timestamp(i64::MAX), 9).await.unwrap(), 1);
    assert_eq!(bench.store().stats().outbox_records, 1);
    let bench = bench.reopen().await;
    assert_eq!(bench.store().stats().outbox_records, 1);
}

pub(crate) async fn a_closed_store_says_so<B: Bench>() {
    let bench = B::create().await;
    commit(&bench, &[start("a", 1)]).await;
    bench.store().close().await.unwrap();
    let error = try_commit(&bench, vec![write::start("b", 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed));
    assert!(matches!(bench.store().load(&id("a")).await, Err(StoreError::Closed)));
    let bench = bench.reopen().await;
    assert_holds(&bench, &[&start("a", 1)]).await;
}
