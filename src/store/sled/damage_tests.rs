//! Damaged files: the store is refused, or names the saga that it cannot read, or has lost
//! nothing. It is never silently shorter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::tests::{OnDisk, copy_dir, options};
use super::*;
use crate::store::suite::write::{end, start, start_of, step};
use crate::store::suite::{Bench, commit};

/// A closed store, and all that it has acknowledged.
struct Whole {
    dir: tempfile::TempDir,
    sagas: BTreeMap<SagaId, Vec<Fact>>,
    list: Vec<Summary>,
    counters: Counters,
}

fn everything() -> ListQuery {
    ListQuery { limit: 1_000, ..ListQuery::default() }
}

/// The files as a clean end leaves them, or as a killed process does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
}

async fn whole() -> Whole {
    whole_after(End::Closed).await
}

async fn whole_after(end_of_it: End) -> Whole {
    let bench = OnDisk::create().await;
    let text = |n: i64| format!("{{\"n\":{n},\"text\":\"{}\"}}", "lorem ipsum ".repeat(100));
    let starts: Vec<_> = (0..40).map(|n| start_of("order", &format!("saga/{n}"), n, &text(n))).collect();
    commit(&bench, &starts).await;
    let mut steps: Vec<_> = starts.iter().map(step).collect();
    // Nobody would look at them for a long time.
    for step in &mut steps[30..] {
        step.far_wake = Some(Timestamp(i64::MAX));
        step.summary.rests = true;
    }
    for step in &steps {
        commit(&bench, std::slice::from_ref(step)).await;
    }
    commit(&bench, &steps[..20].iter().map(end).collect::<Vec<_>>()).await;
    // Moves what has ended to the history.
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    commit(&bench, &[end(&steps[20])]).await;
    let list = bench.store.list(everything()).await.unwrap();
    let counters = bench.store.counters().await.unwrap();
    let mut sagas = BTreeMap::new();
    for row in &list {
        let stored = bench.store.load(&row.id).await.unwrap().unwrap();
        sagas.insert(row.id.clone(), stored.facts);
    }
    let killed = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), killed.path());
    let marker = Marker::read(bench.dir.path()).unwrap().unwrap();
    let commit = bench.store.shared.live.read().commit;
    bench.store.close().await.unwrap();
    if end_of_it == End::Closed {
        return Whole { dir: bench.dir, sagas, list, counters };
    }
    // As the keeper would have left it within a second.
    Marker { commit, ..marker }.write(killed.path()).unwrap();
    Whole { dir: killed, sagas, list, counters }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Not opened; the text of the refusal.
    Refused(String),
    /// Opened; so many sagas are named as damaged.
    Opened(usize),
}

impl Whole {
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        copy
    }

    /// Opens a damaged copy and compares all that it still gives with what was acknowledged.
    async fn judge(&self, dir: &Path, what: &str) -> Verdict {
        let store = match SledStore::open(options(dir)) {
            Ok(store) => store,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let mut damaged = 0;
        for (id, facts) in &self.sagas {
            match store.load(id).await {
                Ok(Some(stored)) => assert_eq!(stored.facts, *facts, "{what}: {id} has changed"),
                Ok(None) => panic!("{what}: {id} is silently lost"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {text}");
                    damaged += 1;
                }
            }
        }
        match store.list(everything()).await {
            Ok(list) => assert_eq!(list, self.list, "{what}: the list has changed"),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}"),
        }
        assert_eq!(store.counters().await.unwrap(), self.counters, "{what}: the counters have changed");
        Verdict::Opened(damaged)
    }
}

/// Numbers that look random and are the same each time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.retain(|path| fs::metadata(path).unwrap().len() > 0);
    found.sort();
    found
}

#[tokio::test]
async fn an_undamaged_copy_is_whole() {
    let whole = whole().await;
    let copy = whole.copy();
    assert_eq!(whole.judge(copy.path(), "a copy").await, Verdict::Opened(0));
}

#[tokio::test]
async fn flipped_bits_are_refused_or_named() {
    flip_bits(whole().await, 0x5a6a_d001).await;
}

#[tokio::test]
async fn flipped_bits_behind_a_kill_are_refused_or_named() {
    flip_bits(whole_after(End::Killed).await, 0xd1ed).await;
}

async fn flip_bits(whole: Whole, seed: u64) {
    assert_eq!(whole.judge(whole.copy().path(), "a copy").await, Verdict::Opened(0));
    let mut seeded = Seeded(seed);
    let mut noticed = 0;
    for round in 0..32 {
        let copy = whole.copy();
        let files = files(copy.path());
        let path = &files[round % files.len()];
        let mut bytes = fs::read(path).unwrap();
        // Most of a data file is still empty; what was written is what matters.
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let at = written[seeded.below(written.len())];
        bytes[at] ^= 1 << seeded.below(8);
        fs::write(path, bytes).unwrap();
        let what = format!("round {round}: byte {at} of {}", path.display());
        noticed += usize::from(whole.judge(copy.path(), &what).await != Verdict::Opened(0));
    }
    assert!(noticed > 8, "only {noticed} flips were noticed: are the right files flipped?");
}

#[tokio::test]
async fn truncated_files_are_refused_or_named() {
    let whole = whole().await;
    let mut seeded = Seeded(0x7a11);
    for round in 0..24 {
        let copy = whole.copy();
        let files = files(copy.path());
        let path = &files[round % files.len()];
        let length = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        let cut = seeded.below(length);
        file.set_len(cut as u64).unwrap();
        whole.judge(copy.path(), &format!("round {round}: {} cut at {cut}", path.display())).await;
    }
}

async fn refusal(whole: &Whole, change: impl FnOnce(&Path)) -> String {
    let copy = whole.copy();
    change(copy.path());
    match whole.judge(copy.path(), "a changed copy").await {
        Verdict::Refused(text) => text.replace(&copy.path().display().to_string(), "DIR"),
        verdict @ Verdict::Opened(_) => panic!("{verdict:?}"),
    }
}

#[tokio::test]
async fn missing_files_are_refused_by_name() {
    let whole = whole().await;
    let marker = refusal(&whole, |dir| fs::remove_file(dir.join("marker")).unwrap()).await;
    assert!(marker.starts_with("DIR/marker: refused: the marker is not there"), "{marker}");
    assert!(marker.contains("sagad store verify --data DIR"), "{marker}");
    for name in [OPEN_DIR, HISTORY_DIR] {
        let gone = refusal(&whole, |dir| fs::remove_dir_all(dir.join(name)).unwrap()).await;
        assert!(gone.starts_with(&format!("DIR/{name}/db: refused: the database is not there")), "{gone}");
        let empty = refusal(&whole, |dir| {
            let part = dir.join(name);
            fs::remove_dir_all(&part).unwrap();
            fs::create_dir(&part).unwrap();
            fs::write(part.join("db"), []).unwrap();
        });
        assert!(empty.await.contains("the sentinel is not there"));
    }
}

#[tokio::test]
async fn an_older_copy_of_either_database_is_refused() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    commit(&bench, &[first.clone(), start("b", 2)]).await;
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    let dir = bench.dir.path().to_owned();
    bench.store.close().await.unwrap();
    let older = tempfile::tempdir().unwrap();
    copy_dir(&dir, older.path());
    let bench = bench.reopen().await;
    commit(&bench, &[end(&first)]).await;
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    // The log goes back by two generations; each reopening is one.
    let bench = bench.reopen().await.reopen().await;
    bench.store.close().await.unwrap();
    for name in [OPEN_DIR, HISTORY_DIR] {
        let mixed = tempfile::tempdir().unwrap();
        copy_dir(&dir, mixed.path());
        fs::remove_dir_all(mixed.path().join(name)).unwrap();
        copy_dir(&older.path().join(name), &mixed.path().join(name));
        let error = SledStore::open(options(mixed.path())).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("older copy"), "{error}");
    }
}

#[tokio::test]
async fn an_older_open_database_is_brought_up_by_the_log_as_far_as_that_reaches() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    commit(&bench, std::slice::from_ref(&first)).await;
    let bench = bench.reopen().await;
    let older = tempfile::tempdir().unwrap();
    copy_dir(&bench.dir.path().join(OPEN_DIR), older.path());
    commit(&bench, &[step(&first), start("b", 1)]).await;
    let dir = bench.dir;
    bench.store.close().await.unwrap();
    fs::remove_dir_all(dir.path().join(OPEN_DIR)).unwrap();
    copy_dir(older.path(), &dir.path().join(OPEN_DIR));
    let store = SledStore::open(options(dir.path())).unwrap();
    assert_eq!(store.load(&first.id).await.unwrap().unwrap().facts.len(), 2);
    assert!(store.load(&SagaId::parse("b").unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn an_older_or_a_missing_log_is_refused() {
    let bench = OnDisk::create().await;
    let bench = bench.reopen().await;
    commit(&bench, &[start("a", 1)]).await;
    let older = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), older.path());
    let bench = bench.reopen().await.reopen().await;
    let dir = bench.dir;
    bench.store.close().await.unwrap();
    for names in [&["wal-0", "wal-1"][..], &["wal-0"], &["wal-1"]] {
        let mixed = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), mixed.path());
        for name in names {
            fs::remove_file(mixed.path().join(name)).unwrap();
        }
        let error = SledStore::open(options(mixed.path())).unwrap_err().to_string();
        let file = mixed.path().join(names[0]).display().to_string();
        assert!(error.starts_with(&format!("{file}: refused: it is not there")), "{error}");
        for name in names {
            fs::copy(older.path().join(name), mixed.path().join(name)).unwrap();
        }
        match SledStore::open(options(mixed.path())) {
            Err(error) => assert!(error.to_string().contains("older copy"), "{error}"),
            // One of the two holds only what is folded anyway.
            Ok(store) => {
                assert_eq!(names.len(), 1);
                assert!(store.load(&SagaId::parse("a").unwrap()).await.unwrap().is_some());
            }
        }
    }
}

#[tokio::test]
async fn a_log_is_never_thrown_away_or_folded_before_it_is_held_against_the_marker() {
    let bench = OnDisk::create().await;
    commit(&bench, &[start("a", 1)]).await;
    commit(&bench, &[start("b", 1)]).await;
    let killed = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), killed.path());
    let marker = Marker::read(killed.path()).unwrap().unwrap();
    let commit = bench.store.shared.live.read().commit;
    Marker { commit, ..marker }.write(killed.path()).unwrap();
    let log = killed.path().join("wal-1");
    let whole = fs::read(&log).unwrap();
    let last = whole.windows(4).rposition(|bytes| bytes == b"swal").unwrap();
    let refusal = |dir: &Path| SledStore::open(options(dir)).map(drop).unwrap_err().to_string();
    // Without its last commit it is refused, and nothing is done that a whole one could not make good.
    let short = [&whole[..last], &vec![0; whole.len() - last]].concat();
    fs::write(&log, short).unwrap();
    let text = refusal(killed.path());
    assert!(text.starts_with(&format!("{}: refused: it ends at commit", log.display())), "{text}");
    assert!(verify(killed.path()).is_err());
    fs::write(&log, &whole).unwrap();
    let part = part::Part::open(killed.path(), OPEN_DIR, 1 << 20).unwrap();
    let mark = part.db().unwrap().remove(frame_key(&keys::folded())).unwrap().unwrap();
    part.close();
    let text = refusal(killed.path());
    assert!(text.contains("does not say up to where its log is folded"), "{text}");
    assert_eq!(fs::read(&log).unwrap(), whole);
    let part = part::Part::open(killed.path(), OPEN_DIR, 1 << 20).unwrap();
    part.db().unwrap().insert(frame_key(&keys::folded()), mark).unwrap();
    part.close();
    let store = SledStore::open(options(killed.path())).unwrap();
    assert!(store.load(&SagaId::parse("b").unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_without_a_log_is_given_one() {
    let whole = whole().await;
    let copy = whole.copy();
    for name in ["wal-0", "wal-1"] {
        fs::remove_file(copy.path().join(name)).unwrap();
    }
    // As a version leaves it that knows none.
    let part = part::Part::open(copy.path(), OPEN_DIR, 1 << 20).unwrap();
    part.db().unwrap().remove(frame_key(&keys::folded())).unwrap().unwrap();
    let mut changes = part::Changes::default();
    let sentinel = crate::store::codec::frame::seal(&keys::sentinel(), records::SENTINEL);
    changes.overwrite(sentinel);
    part.store(&changes).unwrap();
    part.close();
    assert_eq!(whole.judge(copy.path(), "without a log").await, Verdict::Opened(0));
    assert_eq!(whole.judge(copy.path(), "with a log").await, Verdict::Opened(0));
    assert_eq!(verify(copy.path()).unwrap().problems, Vec::new());
}

#[tokio::test]
async fn another_stores_database_is_refused() {
    let whole = whole().await;
    let other = OnDisk::create().await;
    other.store.close().await.unwrap();
    for name in [OPEN_DIR, HISTORY_DIR] {
        let text = refusal(&whole, |dir| {
            fs::remove_dir_all(dir.join(name)).unwrap();
            copy_dir(&other.dir.path().join(name), &dir.join(name));
        });
        assert!(text.await.contains("belongs to the store"));
    }
    let log = |dir: &Path| dir.join("wal-1");
    let text = refusal(&whole, |dir| {
        fs::copy(log(other.dir.path()), log(dir)).unwrap();
    })
    .await;
    assert!(text.starts_with("DIR/wal-1: refused: it belongs to the store"), "{text}");
}

#[tokio::test]
async fn a_torn_snapshot_is_not_taken_for_a_whole_one() {
    let whole = whole().await;
    let copy = whole.copy();
    let torn = copy.path().join(OPEN_DIR).join("snap.00000000000000FF.generating");
    fs::write(&torn, [1; 100]).unwrap();
    assert_eq!(whole.judge(copy.path(), "a torn snapshot").await, Verdict::Opened(0));
    assert!(!torn.exists());
}

#[tokio::test]
async fn one_damaged_saga_is_named_and_the_others_go_on() {
    let whole = whole().await;
    let copy = whole.copy();
    let id = SagaId::parse("saga/30").unwrap();
    {
        let part = part::Part::open(copy.path(), OPEN_DIR, 1 << 20).unwrap();
        let key = frame_key(&keys::saga(&id, 1));
        let db = part.db().unwrap();
        let mut value = db.get(&key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        db.insert(key, value).unwrap();
        drop(db);
        part.close();
    }
    assert_eq!(whole.judge(copy.path(), "one damaged journal").await, Verdict::Opened(1));
    let report = verify(copy.path()).unwrap();
    assert!(report.problems.iter().any(|problem| problem.saga.as_ref() == Some(&id)), "{report:?}");
    let store = SledStore::open(options(copy.path())).unwrap();
    let error = store.load(&id).await.unwrap_err();
    assert!(error.to_string().contains("saga saga/30 is damaged"), "{error}");
    let page = store.open_sagas(None, 100).await.unwrap();
    assert!(page.sagas.contains(&(id, None)), "recovery must come across it though it rested");
    assert_eq!(page.sagas.iter().filter(|(_, rests_until)| rests_until.is_some()).count(), 9);
}

fn frame_key(record_key: &[u8]) -> Vec<u8> {
    crate::store::codec::frame::part_key(record_key, 0)
}

#[tokio::test]
async fn a_lost_row_is_noticed() {
    let whole = whole().await;
    let id = SagaId::parse("saga/30").unwrap();
    let text = refusal(&whole, |dir| {
        let part = part::Part::open(dir, OPEN_DIR, 1 << 20).unwrap();
        part.db().unwrap().remove(frame_key(&keys::saga(&id, 1))).unwrap().unwrap();
        part.close();
    });
    let text = text.await;
    assert!(text.contains("were written"), "{text}");
}

#[tokio::test]
async fn a_row_that_fell_back_to_what_it_was_is_noticed() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    let key = frame_key(&keys::saga(&first.id, 1));
    commit(&bench, std::slice::from_ref(&first)).await;
    let older = bench.store.shared.open.get(&key).unwrap().unwrap();
    commit(&bench, &[step(&first)]).await;
    bench.store.close().await.unwrap();
    let part = part::Part::open(bench.dir.path(), OPEN_DIR, 1 << 20).unwrap();
    part.db().unwrap().insert(&key, older).unwrap().unwrap();
    part.close();
    let error = SledStore::open(options(bench.dir.path())).unwrap_err();
    assert!(error.to_string().contains("are not those that were written last"), "{error}");
}

#[tokio::test]
async fn a_saga_that_the_history_lost_is_damaged_and_not_unknown() {
    let bench = OnDisk::create().await;
    let first = start("a", 1);
    commit(&bench, &[first.clone(), end(&first)]).await;
    bench.store.delete_ended(Timestamp(0), 1).await.unwrap();
    let history = bench.store.shared.history().unwrap().db().unwrap();
    history.remove(frame_key(&keys::saga(&first.id, 1))).unwrap().unwrap();
    let error = bench.store.load(&first.id).await.unwrap_err();
    assert!(error.to_string().contains("saga a is damaged: its records are not there"), "{error}");
}

#[tokio::test]
async fn an_older_format_is_refused_by_its_number() {
    let whole = whole().await;
    let copy = whole.copy();
    let marker = copy.path().join("marker");
    let mut bytes = fs::read(&marker).unwrap();
    bytes[0] = 1;
    fs::write(&marker, bytes).unwrap();
    let error = SledStore::open(options(copy.path())).unwrap_err();
    assert!(matches!(error, OpenError::Format { found: 1, known: 2, .. }), "{error}");
}
