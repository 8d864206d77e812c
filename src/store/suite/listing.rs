//! Lists and counters show what is stored.

use super::write::{definition, end, id, start, start_of, step, then};
use super::{Bench, commit};
use crate::saga::event::Event;
use crate::saga::ids::{SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::ListQuery;

fn first(limit: usize) -> ListQuery {
    ListQuery { limit, ..ListQuery::default() }
}

async fn ids(bench: &impl Bench, query: ListQuery) -> Vec<SagaId> {
    bench.store().list(query).await.unwrap().into_iter().map(|row| row.id).collect()
}

/// Nine sagas created at three times; every third has ended, and one was undone.
async fn nine<B: Bench>() -> B {
    let bench = B::create().await;
    let starts: Vec<_> = (0..9).map(|n| start(&format!("s{n}"), 1_000 * (n % 3))).collect();
    commit(&bench, &starts).await;
    let ends = [0, 4, 8].map(|n: usize| end(&starts[n]));
    commit(&bench, &ends).await;
    let undone = then(&starts[5], SagaStatus::Compensated, vec![Event::SagaCompensated]);
    commit(&bench, &[undone]).await;
    bench
}

const ORDER: [&str; 9] = ["s0", "s3", "s6", "s1", "s4", "s7", "s2", "s5", "s8"];

pub(crate) async fn lists_are_ordered_by_creation_and_id<B: Bench>() {
    let bench = nine::<B>().await;
    let expected = ORDER.map(id);
    assert_eq!(ids(&bench, first(100)).await, expected);
    let newest = ListQuery { newest_first: true, ..first(100) };
    let reversed: Vec<_> = expected.iter().rev().cloned().collect();
    assert_eq!(ids(&bench, newest.clone()).await, reversed);
    let bench = bench.reopen().await;
    assert_eq!(ids(&bench, newest).await, reversed);
}

pub(crate) async fn pages_follow_each_other_without_gaps<B: Bench>() {
    let bench = nine::<B>().await;
    for newest_first in [false, true] {
        for limit in [1, 2, 4, 9, 10] {
            let mut seen: Vec<SagaId> = Vec::new();
            let mut after = None;
            loop {
                let query = ListQuery { newest_first, after: after.clone(), ..first(limit) };
                let page = bench.store().list(query).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some((last.created_at, last.id.clone()));
                seen.extend(page.into_iter().map(|row| row.id));
            }
            if newest_first {
                seen.reverse();
            }
            assert_eq!(seen, ORDER.map(id), "pages of {limit}");
        }
    }
}

pub(crate) async fn lists_are_cut_by_time<B: Bench>() {
    let bench = nine::<B>().await;
    let query = |from, before| ListQuery {
        created_from: Some(Timestamp(from)),
        created_before: Some(Timestamp(before)),
        ..first(100)
    };
    assert_eq!(ids(&bench, query(1_000, 2_000)).await, ["s1", "s4", "s7"].map(id));
    assert_eq!(ids(&bench, query(1, 2_001)).await, ORDER[3..].iter().map(|s| id(s)).collect::<Vec<_>>());
    assert!(ids(&bench, query(2_000, 2_000)).await.is_empty());
}

pub(crate) async fn lists_are_filtered<B: Bench>() {
    let bench = nine::<B>().await;
    commit(&bench, &[start_of("refund", "r", 1_500, "{}")]).await;
    let only = |statuses: &[SagaStatus]| ListQuery { statuses: statuses.to_vec(), ..first(100) };
    assert_eq!(ids(&bench, only(&[SagaStatus::Compensated])).await, ["s5"].map(id));
    assert_eq!(
        ids(&bench, only(&[SagaStatus::Compensated, SagaStatus::Completed])).await,
        ["s0", "s4", "s5", "s8"].map(id)
    );
    assert_eq!(
        ids(&bench, ListQuery { newest_first: true, limit: 3, ..only(&[SagaStatus::Running]) }).await,
        ["s2", "r", "s7"].map(id)
    );
    let mixed = [SagaStatus::Running, SagaStatus::Completed];
    assert_eq!(
        ids(&bench, ListQuery { limit: 5, ..only(&mixed) }).await,
        ["s0", "s3", "s6", "s1", "s4"].map(id)
    );
    let refunds = ListQuery { definition: Some(definition("refund")), ..first(100) };
    assert_eq!(ids(&bench, refunds).await, ["r"].map(id));
    assert!(ids(&bench, only(&[SagaStatus::Abandoned])).await.is_empty());
}

pub(crate) async fn the_row_shows_the_last_fact<B: Bench>() {
    let bench = B::create().await;
    let started = start("a", 1);
    let stepped = step(&started);
    let mut paused = step(&stepped);
    paused.summary.paused = true;
    for write in [&started, &stepped, &paused] {
        commit(&bench, std::slice::from_ref(write)).await;
        assert_eq!(bench.store().list(first(9)).await.unwrap(), vec![write.summary.clone()]);
    }
    let again = step(&paused);
    commit(&bench, std::slice::from_ref(&again)).await;
    let bench = bench.reopen().await;
    assert_eq!(bench.store().list(first(9)).await.unwrap(), vec![again.summary.clone()]);
    let ended = end(&again);
    commit(&bench, std::slice::from_ref(&ended)).await;
    assert_eq!(bench.store().list(first(9)).await.unwrap(), vec![ended.summary]);
}

pub(crate) async fn a_list_during_endings_shows_each_saga_once<B: Bench>() {
    let bench = B::create().await;
    let starts: Vec<_> = (0..40).map(|n| start(&format!("s{n:02}"), n)).collect();
    commit(&bench, &starts).await;
    let all: Vec<_> = starts.iter().map(|start| start.id.clone()).collect();
    let ending = async {
        for start in &starts {
            commit(&bench, &[end(start)]).await;
        }
    };
    let listing = async {
        for _ in 0..60 {
            assert_eq!(ids(&bench, first(100)).await, all);
        }
    };
    futures::join!(ending, listing);
    assert_eq!(ids(&bench, first(100)).await, all);
}

pub(crate) async fn counters_follow_the_statuses<B: Bench>() {
    let bench = nine::<B>().await;
    commit(&bench, &[start_of("refund", "r", 1_500, "{}")]).await;
    let bench = bench.reopen().await;
    let counters = bench.store().counters().await.unwrap();
    let order = |status| counters.get(&(definition("order"), Version(1), status)).copied();
    assert_eq!(order(SagaStatus::Running), Some(5));
    assert_eq!(order(SagaStatus::Completed), Some(3));
    assert_eq!(order(SagaStatus::Compensated), Some(1));
    assert_eq!(order(SagaStatus::Blocked), None);
    assert_eq!(counters.get(&(definition("refund"), Version(1), SagaStatus::Running)), Some(&1));
    assert_eq!(counters.len(), 4);
}
