//! A store that answers before its open sagas are called up and its history is open.

use std::future::Future;
use std::path::Path;

use futures::poll;

use super::tests::{OnDisk, options};
use super::*;
use crate::store::codec::frame::part_key;
use crate::store::suite::write::{end, id, start, step, ticket};
use crate::store::suite::{self, Bench, commit, try_commit};
use crate::store::{LockWrite, SagaWrite};

/// A store whose every saga is called up in the background.
struct Behind(OnDisk);

fn behind(dir: &Path) -> SledOptions {
    SledOptions { roll_ahead_rows: 0, history_ahead_bytes: 0, ..options(dir) }
}

impl Bench for Behind {
    async fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self(OnDisk { store: SledStore::open(behind(dir.path())).unwrap(), dir })
    }

    async fn reopen(self) -> Self {
        let Self(OnDisk { store, dir }) = self;
        drop(store);
        let store = SledStore::open(behind(dir.path())).unwrap();
        // Figures are complete behind this.
        store.counters().await.unwrap();
        Self(OnDisk { store, dir })
    }

    fn store(&self) -> &dyn Store {
        &self.0.store
    }
}

suite::store_suite!(Behind);

const OLD: &str = "019338f4-5a00-7c3e-9012-00000000abcd";
const NEW: &str = "019338f4-5a00-7c3e-9012-00000000abce";

/// A closed store of three open sagas, one of which holds a lock, and an ended one.
async fn closed() -> (tempfile::TempDir, Vec<SagaWrite>) {
    let bench = Behind::create().await;
    let mut sagas = vec![start("a", 1), start(OLD, 2), start("z", 3)];
    sagas[0].lock = LockWrite::Take(ticket(7, "a", "k"));
    commit(&bench, &sagas).await;
    commit(&bench, &[start("ended", 4)]).await;
    commit(&bench, &[end(&start("ended", 4))]).await;
    bench.store().close().await.unwrap();
    (bench.0.dir, sagas)
}

/// Opens it, and keeps it from reading its sagas for as long as the lock is held.
fn open_held(dir: &Path, hold: &Arc<tokio::sync::Mutex<()>>) -> SledStore {
    SledStore::open(SledOptions { hold_roll: Some(Arc::clone(hold)), ..behind(dir) }).unwrap()
}

async fn waits<T>(asked: &mut (impl Future<Output = T> + Unpin)) -> bool {
    // Whoever is answered at once is answered by the second look.
    poll!(&mut *asked).is_pending() && {
        tokio::task::yield_now().await;
        poll!(asked).is_pending()
    }
}

#[tokio::test]
async fn new_sagas_are_taken_before_the_others_are_known() {
    let (dir, old) = closed().await;
    let gate = Arc::new(tokio::sync::Mutex::new(()));
    let shut = gate.lock().await;
    let bench = Behind(OnDisk { store: open_held(dir.path(), &gate), dir });
    let store = &bench.0.store;
    let first = start(NEW, 9);
    commit(&bench, std::slice::from_ref(&first)).await;
    commit(&bench, &[step(&first)]).await;
    assert_eq!(store.load(&id(NEW)).await.unwrap().unwrap().facts.len(), 2);
    assert_eq!(store.lock_tickets().await.unwrap().len(), 1, "locks are known at once");

    let everything = || ListQuery { limit: 9, ..ListQuery::default() };
    let (mut load, mut counters) = (store.load(&old[1].id), store.counters());
    let (mut open, mut list) = (store.open_sagas(None, 9), store.list(everything()));
    let mut written = Box::pin(try_commit(&bench, vec![step(&old[2])]));
    let all_wait = waits(&mut load).await
        && waits(&mut counters).await
        && waits(&mut open).await
        && waits(&mut list).await
        && waits(&mut written).await;
    assert!(all_wait, "what concerns the others waits for them");
    drop(shut);
    assert_eq!(load.await.unwrap().unwrap().facts, old[1].facts);
    assert_eq!(counters.await.unwrap().values().sum::<u64>(), 5);
    assert_eq!(open.await.unwrap().sagas.len(), 4);
    assert_eq!(list.await.unwrap().len(), 5);
    assert_eq!(written.await.unwrap().conflicts, []);
    assert_eq!((store.stats().open_sagas, store.stats().oldest_open), (4, Some(Timestamp(1))));

    let bench = bench.reopen().await;
    assert_eq!(bench.store().load(&id("z")).await.unwrap().unwrap().facts.len(), 2);
    bench.store().close().await.unwrap();
    assert_eq!(verify(bench.0.dir.path()).unwrap().problems, []);
}

#[tokio::test]
async fn damage_that_is_found_later_ends_the_store() {
    let (dir, old) = closed().await;
    let part = part::Part::open(dir.path(), OPEN_DIR, 1 << 20).unwrap();
    part.db().unwrap().remove(part_key(&keys::saga(&old[1].id, 1), 0)).unwrap().unwrap();
    part.close();
    let (tell, heard) = std::sync::mpsc::channel();
    let on_failure = Some(FailureObserver::new(move |error| tell.send(error.to_string()).unwrap()));
    let store = SledStore::open(SledOptions { on_failure, ..behind(dir.path()) }).unwrap();
    for error in [store.load(&old[0].id).await.unwrap_err(), store.counters().await.unwrap_err()] {
        assert!(error.to_string().contains("saga rows, and"), "{error}");
    }
    assert!(heard.try_recv().unwrap().contains("were written"));
    let bench = Behind(OnDisk { store, dir });
    assert!(try_commit(&bench, vec![start(NEW, 9)]).await.is_err());
}

#[tokio::test]
async fn after_such_damage_the_next_start_reads_everything_first() {
    let (dir, old) = closed().await;
    let part = part::Part::open(dir.path(), OPEN_DIR, 1 << 20).unwrap();
    let key = part_key(&keys::saga(&old[1].id, 1), 0);
    let row = part.db().unwrap().remove(&key).unwrap().unwrap();
    part.close();
    let store = SledStore::open(behind(dir.path())).unwrap();
    store.counters().await.unwrap_err();
    drop(store);
    for _ in 0..2 {
        let refused = SledStore::open(behind(dir.path())).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    }
    let part = part::Part::open(dir.path(), OPEN_DIR, 1 << 20).unwrap();
    part.db().unwrap().insert(key, row).unwrap();
    part.close();
    let store = SledStore::open(behind(dir.path())).unwrap();
    assert_eq!(store.stats().open_sagas, 3, "read before it opened");
}

#[tokio::test]
async fn a_row_that_nobody_wrote_is_noticed_though_its_id_is_newer_than_all() {
    for is_behind in [false, true] {
        let (dir, old) = closed().await;
        let part = part::Part::open(dir.path(), OPEN_DIR, 1 << 20).unwrap();
        let db = part.db().unwrap();
        let row = db.get(part_key(&keys::saga(&old[1].id, 1), 0)).unwrap().unwrap();
        db.insert(part_key(&keys::saga(&id(NEW), 1), 0), row).unwrap();
        drop(db);
        part.close();
        let cause = if is_behind {
            let store = SledStore::open(behind(dir.path())).unwrap();
            store.counters().await.unwrap_err().to_string()
        } else {
            SledStore::open(options(dir.path())).unwrap_err().to_string()
        };
        assert!(cause.contains("saga rows, and"), "{cause}");
    }
}

#[tokio::test]
async fn a_damaged_history_ends_the_store_too() {
    let (dir, _) = closed().await;
    let part = part::Part::open(dir.path(), HISTORY_DIR, 1 << 20).unwrap();
    part.db().unwrap().remove(part_key(&keys::sentinel(), 0)).unwrap().unwrap();
    part.close();
    let (tell, heard) = std::sync::mpsc::channel();
    let on_failure = Some(FailureObserver::new(move |error| tell.send(error.to_string()).unwrap()));
    let behind = || SledOptions { roll_ahead_rows: 0, ..options(dir.path()) };
    let store = SledStore::open(SledOptions { on_failure, ..behind() }).unwrap();
    let error = store.load(&id("never")).await.unwrap_err();
    assert!(error.to_string().contains("the sentinel is not there"), "{error}");
    assert_eq!(heard.recv().unwrap(), error.to_string());
    drop(store);
    assert!(SledStore::open(behind()).is_err());
}

#[tokio::test]
async fn a_store_can_be_closed_before_its_sagas_are_known() {
    let (dir, old) = closed().await;
    let gate = Arc::new(tokio::sync::Mutex::new(()));
    let shut = gate.lock().await;
    let bench = Behind(OnDisk { store: open_held(dir.path(), &gate), dir });
    commit(&bench, &[start(NEW, 9)]).await;
    let mut asked = bench.store().load(&old[0].id);
    assert!(waits(&mut asked).await);
    let mut closing = bench.store().close();
    assert!(waits(&mut closing).await, "its thread reads");
    drop(shut);
    closing.await.unwrap();
    assert!(matches!(asked.await, Err(StoreError::Closed)));
    let bench = bench.reopen().await;
    assert_eq!(bench.store().stats().open_sagas, 4);
}

#[tokio::test]
async fn a_large_history_that_is_refused_keeps_nobody_else_waiting() {
    let bench = Behind::create().await;
    commit(&bench, &[start("ended", 4)]).await;
    commit(&bench, &[end(&start("ended", 4))]).await;
    // Behind this it is moved.
    bench.store().delete_ended(Timestamp(0), 1).await.unwrap();
    bench.store().close().await.unwrap();
    let dir = bench.0.dir;
    let history = part::Part::open(dir.path(), HISTORY_DIR, 1 << 20).unwrap();
    history.db().unwrap().remove(part_key(&keys::sentinel(), 0)).unwrap().unwrap();
    history.close();
    let bench = Behind(OnDisk { store: SledStore::open(behind(dir.path())).unwrap(), dir });
    commit(&bench, &[start(NEW, 9)]).await;
    assert_eq!(bench.store().load(&id(NEW)).await.unwrap().unwrap().facts.len(), 1);
    let error = bench.store().load(&id("ended")).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("the sentinel is not there"), "{error}");
    commit(&bench, &[step(&start(NEW, 9))]).await;
}
