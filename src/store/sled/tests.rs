//! The suite, and what only this store does.

use std::fs;
use std::path::Path;

use super::*;
use crate::store::suite::write::{end, id, start, start_of, step};
use crate::store::suite::{self, Bench, commit};

/// A store in a directory that goes with it.
pub(super) struct OnDisk {
    pub store: SledStore,
    pub dir: tempfile::TempDir,
}

pub(super) fn options(dir: &Path) -> SledOptions {
    SledOptions {
        cache_bytes: 8 << 20,
        history_cache_bytes: 8 << 20,
        ballast_bytes: 0,
        // What a test writes is folded now and then.
        wal_bytes: 8 << 10,
        ..SledOptions::new(dir)
    }
}

impl Bench for OnDisk {
    async fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: SledStore::open(options(dir.path())).unwrap(), dir }
    }

    async fn reopen(self) -> Self {
        let Self { store, dir } = self;
        drop(store);
        Self { store: SledStore::open(options(dir.path())).unwrap(), dir }
    }

    fn store(&self) -> &dyn Store {
        &self.store
    }
}

suite::store_suite!(OnDisk);

pub(super) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_second_owner_is_told_so() {
    let bench = OnDisk::create().await;
    let error = SledStore::open(options(bench.dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_when_the_process_dies() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    commit(&bench, std::slice::from_ref(&first)).await;
    commit(&bench, &[end(&start("b", 1))].map(|write| start(write.id.as_str(), 2))).await;
    // The files as a killed process leaves them.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), copy.path());
    let next = SledStore::open(options(copy.path())).unwrap();
    assert_eq!(next.load(&id("a")).await.unwrap().unwrap().facts, first.facts);
    assert!(next.load(&id("b")).await.unwrap().is_some());
}

#[tokio::test]
async fn large_values_do_not_become_files_of_their_own() {
    let bench = OnDisk::create().await;
    let text = format!("\"{}\"", "x".repeat(1_500_000));
    let starts: Vec<_> = (0..4).map(|n| start_of("order", &format!("s{n}"), n, &text)).collect();
    commit(&bench, &starts).await;
    commit(&bench, &starts.iter().map(end).collect::<Vec<_>>()).await;
    let bench = bench.reopen().await;
    bench.store.delete_ended(Timestamp(i64::MAX), 2).await.unwrap();
    for part in [OPEN_DIR, HISTORY_DIR] {
        let blobs = bench.dir.path().join(part).join("blobs");
        assert_eq!(fs::read_dir(blobs).unwrap().count(), 0, "{part}");
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    commit(&bench, std::slice::from_ref(&first)).await;
    bench.store.shared.open.fail_next_sync();
    for text in ["b", "c"] {
        let error = suite::try_commit(&bench, vec![start(text, 1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::SyncFailed { .. }), "{error}");
    }
    let store = bench.store();
    assert!(matches!(store.load(&id("a")).await, Err(StoreError::SyncFailed { .. })));
    assert!(matches!(store.delete_ended(Timestamp(0), 1).await, Err(StoreError::SyncFailed { .. })));
    assert!(matches!(store.close().await, Err(StoreError::SyncFailed { .. })));
    // The next owner finds what was acknowledged; "b" it may find or not, "c" was never written.
    let bench = bench.reopen().await;
    assert_eq!(bench.store.load(&id("a")).await.unwrap().unwrap().facts, first.facts);
    assert!(bench.store.load(&id("c")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_failure_is_heard_of_once_and_before_anybody_is_refused() {
    for fails_in_history in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (tell, heard) = std::sync::mpsc::channel();
        let on_failure = FailureObserver::new(move |error| tell.send(error.to_string()).unwrap());
        let on_failure = Some(on_failure);
        let store = SledStore::open(SledOptions { on_failure, ..options(dir.path()) }).unwrap();
        let bench = OnDisk { store, dir };
        let first = start("a", 1);
        commit(&bench, &[first.clone(), end(&first)]).await;
        let shared = &bench.store.shared;
        let part = if fails_in_history { shared.history().unwrap() } else { &shared.open };
        part.fail_next_sync();
        let error = if fails_in_history {
            bench.store.delete_ended(Timestamp(0), 1).await.unwrap_err()
        } else {
            suite::try_commit(&bench, vec![start("b", 1)]).await.unwrap_err()
        };
        let cause = error.to_string();
        let place = if fails_in_history { part.dir().display().to_string() } else { "/wal-".to_owned() };
        assert!(cause.contains(&place) && cause.contains("fdatasync"), "{cause}");
        assert_eq!(heard.try_recv().unwrap(), cause);
        suite::try_commit(&bench, vec![start("c", 1)]).await.unwrap_err();
        assert!(heard.try_recv().is_err(), "it is told once");
    }
}

#[tokio::test]
async fn a_failed_sync_of_the_history_stops_everything_too() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    commit(&bench, &[first.clone(), end(&first)]).await;
    bench.store.shared.history().unwrap().fail_next_sync();
    let error = bench.store.delete_ended(Timestamp(0), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::SyncFailed { .. }), "{error}");
    let bench = bench.reopen().await;
    assert_eq!(bench.store.delete_ended(Timestamp(i64::MAX), 1).await.unwrap(), 1);
}

#[tokio::test]
async fn ended_sagas_leave_the_open_database() {
    let bench = OnDisk::create().await;
    let starts: Vec<_> = (0..10).map(|n| start(&format!("s{n}"), n)).collect();
    commit(&bench, &starts).await;
    commit(&bench, &starts[..9].iter().map(end).collect::<Vec<_>>()).await;
    // A deletion first moves what has ended.
    assert_eq!(bench.store.delete_ended(Timestamp(0), 9).await.unwrap(), 0);
    assert_eq!(bench.store.shared.live.read().ended(), Vec::<SagaId>::new());
    let rows = bench.store.shared.open.prefixed(&Family::Saga.prefix()).unwrap().count();
    assert_eq!(rows, 1, "only the open saga is left");
    let dir = bench.dir.path().to_owned();
    bench.store.close().await.unwrap();
    let report = verify(&dir).unwrap();
    assert_eq!(report.problems, Vec::new());
    assert_eq!((report.open_sagas, report.ended_sagas), (1, 9));
}

#[tokio::test]
async fn a_short_saga_is_one_row_until_it_is_in_the_history() {
    let bench = OnDisk::create().await;
    let rows = |part: &part::Part| part.prefixed(&Family::Saga.prefix()).unwrap().count();
    let mut last = start("a", 1);
    commit(&bench, std::slice::from_ref(&last)).await;
    for _ in 0..5 {
        last = step(&last);
        commit(&bench, std::slice::from_ref(&last)).await;
        assert_eq!(rows(&bench.store.shared.open), 1);
    }
    commit(&bench, &[end(&last)]).await;
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    assert_eq!((rows(&bench.store.shared.open), rows(bench.store.shared.history().unwrap())), (0, 1));
    assert_eq!(bench.store.load(&id("a")).await.unwrap().unwrap().facts.len(), 7);
}

#[tokio::test]
async fn a_long_saga_is_several_records_of_which_the_last_holds() {
    let mut bench = OnDisk::create().await;
    let mut last = start_of("order", "a", 1, &format!("\"{}\"", "x".repeat(3_000)));
    commit(&bench, std::slice::from_ref(&last)).await;
    for _ in 0..3 {
        last = step(&last);
        last.summary.paused = !last.summary.paused;
        commit(&bench, std::slice::from_ref(&last)).await;
        // What the last owner wrote is not written over by the next.
        bench = bench.reopen().await;
    }
    let rows = bench.store.shared.open.prefixed(&Family::Saga.prefix()).unwrap().count();
    assert_eq!(rows, 4);
    let all = ListQuery { limit: 9, ..ListQuery::default() };
    assert_eq!(bench.store.list(all.clone()).await.unwrap(), vec![last.summary.clone()]);
    let ended = end(&last);
    commit(&bench, std::slice::from_ref(&ended)).await;
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.store.list(all).await.unwrap(), vec![ended.summary]);
    assert_eq!(bench.store.load(&id("a")).await.unwrap().unwrap().facts.len(), 5);
}

#[tokio::test]
async fn a_move_that_was_cut_off_is_done_again() {
    let bench = OnDisk::create().await;
    let starts: Vec<_> = (0..5).map(|n| start(&format!("s{n}"), n)).collect();
    commit(&bench, &starts).await;
    commit(&bench, &starts.iter().map(end).collect::<Vec<_>>()).await;
    let before = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), before.path());
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    bench.store.close().await.unwrap();
    // The history is synced, the deletion in the open database is not.
    fs::remove_dir_all(before.path().join(HISTORY_DIR)).unwrap();
    copy_dir(&bench.dir.path().join(HISTORY_DIR), &before.path().join(HISTORY_DIR));
    let next = SledStore::open(options(before.path())).unwrap();
    assert_eq!(next.list(ListQuery { limit: 99, ..ListQuery::default() }).await.unwrap().len(), 5);
    assert_eq!(next.delete_ended(Timestamp(i64::MAX), 3).await.unwrap(), 3);
    next.close().await.unwrap();
    let report = verify(before.path()).unwrap();
    assert_eq!(report.problems, Vec::new());
    assert_eq!(report.ended_sagas, 2);
}

#[tokio::test]
async fn compaction_keeps_everything_and_takes_less_space() {
    let bench = OnDisk::create().await;
    let text = format!("\"{}\"", "x".repeat(100_000));
    let starts: Vec<_> = (0..20).map(|n| start_of("order", &format!("s{n:02}"), n, &text)).collect();
    commit(&bench, &starts).await;
    let ends: Vec<_> = starts.iter().map(|start| end(&step(start))).collect();
    commit(&bench, &starts.iter().map(step).collect::<Vec<_>>()).await;
    commit(&bench, &ends[..19]).await;
    assert_eq!(bench.store.delete_ended(Timestamp(i64::MAX), 10).await.unwrap(), 10);
    let all = ListQuery { limit: 99, ..ListQuery::default() };
    let list = bench.store.list(all.clone()).await.unwrap();
    let dir = bench.dir.path().to_owned();
    bench.store.close().await.unwrap();
    let mut seen = Vec::new();
    compact(&dir, |progress| seen.extend(progress.bytes_after.map(|after| (progress.database, after))))
        .unwrap();
    assert_eq!(seen.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [OPEN_DIR, HISTORY_DIR]);
    assert_eq!(verify(&dir).unwrap().problems, Vec::new());
    let next = SledStore::open(options(&dir)).unwrap();
    assert_eq!(next.list(all).await.unwrap(), list);
    assert_eq!(next.load(&id("s19")).await.unwrap().unwrap().facts.len(), 2);
    assert_eq!(list.iter().filter(|row| row.status == SagaStatus::Completed).count(), 9);
}

#[tokio::test]
async fn an_interrupted_compaction_is_tidied_up() {
    let bench = OnDisk::create().await;
    commit(&bench, &[start("a", 1)]).await;
    let dir = bench.dir.path().to_owned();
    bench.store.close().await.unwrap();
    fs::create_dir(dir.join("open.new")).unwrap();
    drop(SledStore::open(options(&dir)).unwrap());
    assert!(!dir.join("open.new").exists());
    fs::rename(dir.join(OPEN_DIR), dir.join("open.new")).unwrap();
    fs::create_dir(dir.join("open.old")).unwrap();
    let store = SledStore::open(options(&dir)).unwrap();
    assert!(store.load(&id("a")).await.unwrap().is_some());
    assert!(!dir.join("open.old").exists());
}
