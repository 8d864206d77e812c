//! Moves of ended sagas to the history that stop on their way.

use std::path::Path;
use std::sync::Arc;

use super::history::is_known;
use super::keys::Family;
use super::open::open_folded;
use super::part::{BATCH_BYTES_MAX, Changes, Part};
use super::tests::{OnDisk, copy_dir, options};
use super::*;
use crate::store::codec::frame::{self, Row};
use crate::store::suite::write::{end, start, start_of};
use crate::store::suite::{Bench, commit};

const LARGE: &str = "019338f4-5a00-7c3e-9012-00000000abce";
const CACHE_BYTES: u64 = 8 << 20;

/// The files of a killed daemon whose only ended saga, a large one, was not moved yet; its facts, and its rows
/// in the open database.
async fn unmoved() -> (tempfile::TempDir, Vec<Fact>, Vec<Row>) {
    let bench = OnDisk::create().await;
    commit(&bench, &[start("a", 1)]).await;
    let dir = bench.dir;
    bench.store.close().await.unwrap();
    let gate = Arc::new(tokio::sync::Mutex::new(()));
    let held = gate.lock().await;
    let behind =
        SledOptions { roll_ahead_rows: 0, hold_roll: Some(Arc::clone(&gate)), ..options(dir.path()) };
    let bench = OnDisk { store: SledStore::open(behind).unwrap(), dir };
    let text = format!("\"{}\"", "x".repeat(3 * BATCH_BYTES_MAX));
    let first = start_of("order", LARGE, 2, &text);
    let last = end(&first);
    let facts = [&first.facts[..], &last.facts].concat();
    commit(&bench, &[first]).await;
    commit(&bench, &[last]).await;
    let killed = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), killed.path());
    drop(held);
    bench.store.close().await.unwrap();
    let marker = Marker::read(killed.path()).unwrap().unwrap();
    let (open, _log) = open_folded(killed.path(), CACHE_BYTES, &marker).unwrap();
    let rows = open.prefixed(&keys::saga_of(&SagaId::parse(LARGE).unwrap())).unwrap();
    let rows = rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
    open.close();
    (killed, facts, rows)
}

/// Writes rows as a move does that comes no further.
fn half_move(dir: &Path, rows: &[Row]) {
    let history = Part::open(dir, HISTORY_DIR, CACHE_BYTES).unwrap();
    let mut tail = history.tail().unwrap();
    let mut changes = Changes::default();
    changes.insert(&mut tail.rows, Family::Saga, rows.to_vec());
    tail.commit += 1;
    changes.overwrite(frame::seal(&keys::tail(), &tail.encode()));
    history.store(&changes).unwrap();
    history.close();
}

fn problems_of(dir: &Path) -> Vec<String> {
    verify(dir).unwrap().problems.into_iter().map(|problem| problem.what).collect()
}

#[tokio::test]
async fn a_move_that_stopped_between_two_batches_is_done_again() {
    let (killed, facts, rows) = unmoved().await;
    let id = SagaId::parse(LARGE).unwrap();
    for moved in [1, rows.len() / 2, rows.len()] {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(killed.path(), dir.path());
        half_move(dir.path(), &rows[..moved]);
        assert_eq!(problems_of(dir.path()), Vec::<String>::new(), "{moved} rows");

        let bench = OnDisk { store: SledStore::open(options(dir.path())).unwrap(), dir };
        assert_eq!(bench.store.load(&id).await.unwrap().unwrap().facts, facts, "{moved} rows");
        // Behind this all that has ended is moved.
        assert_eq!(bench.store.delete_ended(Timestamp(0), 1).await.unwrap(), 0);
        let history = bench.store.shared.history().unwrap();
        assert!(is_known(history, &id).unwrap());
        assert_eq!(history.tail().unwrap().rows.of(Family::Saga), rows.len() as u64);
        assert_eq!(bench.store.load(&id).await.unwrap().unwrap().facts, facts, "{moved} rows");
        let dir = bench.dir;
        bench.store.close().await.unwrap();
        assert_eq!(problems_of(dir.path()), Vec::<String>::new(), "{moved} rows, and the rest");

        let bench = OnDisk { store: SledStore::open(options(dir.path())).unwrap(), dir };
        assert_eq!(bench.store.delete_ended(Timestamp(i64::MAX), 9).await.unwrap(), 1);
        assert!(bench.store.load(&id).await.unwrap().is_none());
        let dir = bench.dir;
        bench.store.close().await.unwrap();
        assert_eq!(problems_of(dir.path()), Vec::<String>::new(), "{moved} rows, deleted");
    }
}

#[tokio::test]
async fn a_large_saga_is_moved_in_several_batches() {
    let (killed, facts, rows) = unmoved().await;
    let id = SagaId::parse(LARGE).unwrap();
    let store = SledStore::open(options(killed.path())).unwrap();
    store.delete_ended(Timestamp(0), 1).await.unwrap();
    let tail = store.shared.history().unwrap().tail().unwrap();
    assert_eq!(tail.rows.of(Family::Saga), rows.len() as u64);
    assert!(tail.commit >= 3, "{} batches", tail.commit);
    assert_eq!(store.load(&id).await.unwrap().unwrap().facts, facts);
}
