//! The log by itself, and in front of a database: whatever is applied reads back at once, and again
//! from the files as a killed process leaves them, wherever the folding was.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::Path;

use super::front::Front;
use super::part::{Changes, Part};
use super::records::RowCounts;
use super::tests::copy_dir;
use super::wal::{Mark, Rows, Wal};
use super::*;
use uuid::Uuid;

const STORE: Uuid = Uuid::from_u128(7);

fn rows_of(texts: &[(&str, Option<&str>)]) -> Rows {
    let bytes = |text: &str| text.as_bytes().to_vec();
    texts.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect()
}

fn append(log: &mut Wal, commit: u64, rows: &Rows) {
    log.append(commit, rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))).unwrap();
}

/// What the files hold behind `folded`.
fn read(dir: &Path, folded: Mark) -> Result<(Rows, Mark), String> {
    Wal::open(dir, STORE, folded, 0).map(|(_, rows, mark)| (rows, mark)).map_err(|error| error.to_string())
}

fn mark(generation: u64, commit: u64) -> Mark {
    Mark { generation, commit }
}

/// A log with commits 1 and 2 in generation 1, and 3 and 4 in generation 2.
fn two_generations() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Wal::create(dir.path()).unwrap();
    let (mut log, rows, end) = Wal::open(dir.path(), STORE, mark(0, 0), 0).unwrap();
    assert_eq!((rows, end), (Rows::new(), mark(0, 0)));
    append(&mut log, 1, &rows_of(&[("a", Some("1")), ("b", Some("1"))]));
    append(&mut log, 2, &rows_of(&[("b", None), ("c", Some(""))]));
    log.turn();
    append(&mut log, 3, &rows_of(&[("a", Some("3"))]));
    append(&mut log, 4, &rows_of(&[("d", Some("4"))]));
    dir
}

fn change(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(dir.join(name)).unwrap();
    change(&mut bytes);
    fs::write(dir.join(name), bytes).unwrap();
}

/// Where the second record of a file begins.
fn second(bytes: &[u8]) -> usize {
    (8..bytes.len()).step_by(8).find(|at| bytes[*at..].starts_with(b"swal")).unwrap()
}

#[test]
fn what_is_not_folded_reads_back_in_order() {
    let dir = two_generations();
    let all = rows_of(&[("a", Some("3")), ("b", None), ("c", Some("")), ("d", Some("4"))]);
    assert_eq!(read(dir.path(), mark(0, 0)).unwrap(), (all, mark(2, 4)));
    let rest = rows_of(&[("a", Some("3")), ("d", Some("4"))]);
    assert_eq!(read(dir.path(), mark(1, 2)).unwrap(), (rest, mark(2, 4)));
    assert_eq!(read(dir.path(), mark(2, 4)).unwrap(), (Rows::new(), mark(2, 4)));
}

#[test]
fn a_generation_is_written_over_the_one_before_the_last() {
    let dir = two_generations();
    let (mut log, ..) = Wal::open(dir.path(), STORE, mark(2, 4), 4).unwrap();
    append(&mut log, 5, &rows_of(&[("e", Some("5"))]));
    let bytes = fs::read(dir.path().join("wal-1")).unwrap();
    assert!(bytes[second(&bytes)..].starts_with(b"swal"), "the first generation's second record is left");
    let next = rows_of(&[("e", Some("5"))]);
    assert_eq!(read(dir.path(), mark(2, 4)).unwrap(), (next, mark(3, 5)));
}

#[test]
fn a_file_gives_back_what_it_has_beyond_its_room_when_it_is_written_anew() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    Wal::create(dir.path()).unwrap();
    let (mut log, ..) = Wal::open(dir.path(), STORE, mark(0, 0), 0).unwrap();
    log.reserve(2 * MIB);
    let length = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert_eq!((length("wal-0"), length("wal-1")), (2 * MIB, 2 * MIB));
    let large = "x".repeat(5 << 20);
    append(&mut log, 1, &rows_of(&[("a", Some(&large))]));
    log.turn();
    append(&mut log, 2, &rows_of(&[("b", Some(&large))]));
    assert_eq!((length("wal-0"), length("wal-1")), (6 * MIB, 6 * MIB));
    // The first generation is folded by now.
    log.turn();
    assert_eq!((length("wal-0"), length("wal-1")), (6 * MIB, 2 * MIB));
    let rest = rows_of(&[("b", Some(&large))]);
    assert_eq!(read(dir.path(), mark(1, 1)).unwrap(), (rest, mark(2, 2)), "before anything is written");
    append(&mut log, 3, &rows_of(&[("b", None)]));
    assert_eq!(read(dir.path(), mark(2, 2)).unwrap(), (rows_of(&[("b", None)]), mark(3, 3)));
    // The next process goes on in the other file.
    let (mut log, ..) = Wal::open(dir.path(), STORE, mark(3, 3), 3).unwrap();
    log.reserve(2 * MIB);
    assert_eq!((length("wal-0"), length("wal-1")), (2 * MIB, 2 * MIB));
    assert_eq!(read(dir.path(), mark(3, 3)).unwrap(), (Rows::new(), mark(3, 3)));
}

#[test]
fn a_last_record_that_is_not_whole_was_never_acknowledged() {
    let dir = two_generations();
    let whole = fs::read(dir.path().join("wal-0")).unwrap();
    let at = second(&whole);
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in at..=end {
        change(dir.path(), "wal-0", |bytes| bytes[cut..].fill(0));
        let (rows, end) = read(dir.path(), mark(1, 2)).unwrap();
        assert_eq!((rows, end), (rows_of(&[("a", Some("3"))]), mark(2, 3)), "cut at {cut}");
        // The file may end there, too.
        change(dir.path(), "wal-0", |bytes| bytes.truncate(cut));
        assert_eq!(read(dir.path(), mark(1, 2)).unwrap().1, mark(2, 3), "truncated at {cut}");
        fs::write(dir.path().join("wal-0"), &whole).unwrap();
    }
    change(dir.path(), "wal-0", |bytes| bytes.fill(0));
    assert_eq!(read(dir.path(), mark(1, 2)).unwrap(), (Rows::new(), mark(1, 2)));
}

#[test]
fn a_flipped_bit_before_the_last_record_is_refused() {
    let dir = two_generations();
    let whole = fs::read(dir.path().join("wal-0")).unwrap();
    let checked = second(&whole) * 8;
    let mut refused = 0;
    for bit in 0..checked {
        change(dir.path(), "wal-0", |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        match read(dir.path(), mark(1, 2)) {
            Err(error) => {
                assert!(error.contains("wal-0: refused: ") && error.contains("commit 4 at byte"), "{error}");
                refused += 1;
            }
            // The zeros behind a record are nothing.
            Ok((rows, end)) => assert_eq!((rows.len(), end), (2, mark(2, 4)), "bit {bit}"),
        }
        fs::write(dir.path().join("wal-0"), &whole).unwrap();
    }
    assert!(refused > checked - 64, "{refused} of {checked} were noticed");
}

#[test]
fn a_generation_that_is_not_there_is_noticed() {
    let dir = two_generations();
    // The first of the two lost its end, and then all of it.
    for from in [second(&fs::read(dir.path().join("wal-1")).unwrap()), 0] {
        change(dir.path(), "wal-1", |bytes| bytes[from..].fill(0));
        let error = read(dir.path(), mark(0, 0)).unwrap_err();
        assert!(error.contains("wal-0: refused: it begins with commit 3 of generation 2"), "{error}");
    }
    let error = Wal::open(dir.path(), STORE, mark(1, 2), 5).map(drop).unwrap_err().to_string();
    assert!(error.contains("wal-0: refused: it ends at commit 4, and commit 5 was on stable"), "{error}");
    let error = Wal::create(dir.path()).unwrap_err().to_string();
    assert!(error.contains("wal-0: refused: it is there, and no database that knows it"), "{error}");
    let error = read(dir.path(), mark(3, 9)).unwrap_err();
    assert!(error.contains("wal-1: refused: it ends at generation 2, and 3 was folded"), "{error}");
    let error = Wal::open(dir.path(), Uuid::from_u128(8), mark(2, 4), 0).map(drop).unwrap_err();
    assert!(error.to_string().contains("belongs to the store"), "{error}");
}

/// Numbers that look random and are the same each time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Some rows come, change and go, each as its batch says of it.
fn batch(seeded: &mut Seeded, model: &mut Model) -> Changes {
    let (mut changes, mut counts) = (Changes::default(), RowCounts::default());
    for _ in 0..=seeded.below(6) {
        let key = vec![Family::Saga as u8, u8::try_from(seeded.below(12)).unwrap()];
        let value = vec![b'v'; usize::try_from(seeded.below(60)).unwrap()];
        let is_there = model.contains_key(&key);
        if is_there && seeded.below(2) == 0 {
            changes.remove(&mut counts, Family::Saga, key.clone());
            model.remove(&key);
            continue;
        }
        if is_there || seeded.below(4) == 0 {
            changes.overwrite(vec![(key.clone(), value.clone())]);
        } else {
            changes.insert(&mut counts, Family::Saga, vec![(key.clone(), value.clone())]);
        }
        model.insert(key, value);
    }
    changes
}

/// The same rows, past the log.
fn some_of<'a>(rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Changes {
    let mut changes = Changes::default();
    for (key, value) in rows {
        match value {
            Some(value) => changes.overwrite(vec![(key.to_vec(), value.to_vec())]),
            None => changes.remove(&mut RowCounts::default(), Family::Saga, key.to_vec()),
        }
    }
    changes
}

/// The same rows taken away, past the log.
fn without<'a>(rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Changes {
    some_of(rows.map(|(key, _)| (key, None)))
}

fn rows(part: &Part, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> Model {
    let row =
        |row: ::sled::Result<scan::Stored>| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap();
    let up: Vec<_> = part.range((lower.clone(), upper.clone())).unwrap().map(row).collect();
    let mut down: Vec<_> = part.range((lower.clone(), upper.clone())).unwrap().rev().map(row).collect();
    down.reverse();
    assert_eq!(up, down, "the same rows from either end");
    let (mut both, mut from_below, mut from_above) =
        (part.range((lower, upper)).unwrap(), Vec::new(), Vec::new());
    while let Some(low) = both.next() {
        from_below.push(row(low));
        from_above.extend(both.next_back().map(row));
    }
    from_below.extend(from_above.into_iter().rev());
    assert_eq!(up, from_below, "the same rows from both ends");
    up.into_iter().collect()
}

fn sagas(part: &Part) -> Model {
    rows(
        part,
        Bound::Included(Family::Saga.prefix().to_vec()),
        Bound::Excluded(Family::Known.prefix().to_vec()),
    )
}

#[test]
fn rows_read_back_wherever_the_folding_is_and_whenever_the_process_dies() {
    let store = tempfile::tempdir().unwrap();
    let dir = store.path();
    SledStore::open(tests::options(dir)).map(drop).unwrap();
    let marker = Marker::read(dir).unwrap().unwrap();
    let (mut part, log) = open::open_folded(dir, 1 << 20, &marker).unwrap();
    let mut commit = part.folded().unwrap().commit;
    // It may become twice as large while the one before it is folded.
    part.log_to(Front::new(log, 6_000));
    let (mut seeded, mut model) = (Seeded(11), Model::new());
    let (mut folds, mut deaths, mut since_sealed) = (0, 0, 0);
    for round in 0..1_500 {
        commit += 1;
        let changes = batch(&mut seeded, &mut model);
        part.apply(commit, changes).unwrap();
        if seeded.below(20) == 0 {
            let (lower, upper) = (seeded.below(12), seeded.below(12));
            let key = |n: u64| vec![Family::Saga as u8, u8::try_from(n).unwrap()];
            let found = rows(&part, Bound::Excluded(key(lower)), Bound::Included(key(upper)));
            let between = |key_of: &[u8]| key_of > key(lower).as_slice() && key_of <= key(upper).as_slice();
            let wanted: Model = model.clone().into_iter().filter(|(key, _)| between(key)).collect();
            assert_eq!(found, wanted, "round {round}");
            assert_eq!(part.get(&key(lower)).unwrap().map(|v| v.to_vec()), model.get(&key(lower)).cloned());
        }
        assert_eq!(sagas(&part), model, "round {round}");
        if let Some((rows, mark)) = part.front().sealed() {
            since_sealed += 1;
            // Some of it, as a process leaves it that dies while it folds; then all.
            let some = usize::try_from(seeded.below(13)).unwrap();
            part.write(&some_of(rows.iter().take(some))).unwrap();
            if seeded.below(8) == 0 || since_sealed > 8 {
                part.fold(rows.iter(), mark).unwrap();
                part.front().let_go();
                (folds, since_sealed) = (folds + 1, 0);
            }
        }
        if seeded.below(60) == 0 {
            deaths += 1;
            let killed = tempfile::tempdir().unwrap();
            copy_dir(dir, killed.path());
            let (next, _) = open::open_folded(killed.path(), 1 << 20, &marker).unwrap();
            assert_eq!(sagas(&next), model, "round {round}: after a kill");
            let folded = next.folded().unwrap();
            assert_eq!(folded.commit, commit);
        }
    }
    assert!(folds > 10 && deaths > 10, "{folds} folds, {deaths} deaths");
    part.fold_rest(commit).unwrap();
    assert_eq!(sagas(&part), model);
    assert_eq!(part.db().unwrap().scan_prefix(Family::Saga.prefix()).count(), model.len());
}

#[test]
fn rows_that_are_folded_while_they_are_read_come_out_once_and_in_order() {
    let store = tempfile::tempdir().unwrap();
    let dir = store.path();
    SledStore::open(tests::options(dir)).map(drop).unwrap();
    let marker = Marker::read(dir).unwrap().unwrap();
    let (mut part, log) = open::open_folded(dir, 1 << 20, &marker).unwrap();
    let commit = part.folded().unwrap().commit + 1;
    part.log_to(Front::new(log, 1));
    let key = |n: u8| vec![Family::Saga as u8, n];
    let (mut changes, mut counts) = (Changes::default(), RowCounts::default());
    changes.insert(&mut counts, Family::Saga, (0..20).map(|n| (key(n), vec![n])).collect());
    part.apply(commit, changes).unwrap();
    let (rows, mark) = part.front().sealed().unwrap();
    for fold_at in [0, 1, 7, 19] {
        let (mut up, mut down) = (part.prefixed(&Family::Saga.prefix()).unwrap(), Vec::new());
        let mut read = Vec::new();
        for n in 0..20 {
            if n == fold_at {
                part.write(&some_of(rows.iter().take(10))).unwrap();
            }
            read.push(up.next().unwrap().unwrap().0.to_vec());
        }
        assert!(up.next().is_none() && up.next().is_none(), "folded at {fold_at}");
        assert_eq!(read, (0..20).map(key).collect::<Vec<_>>(), "folded at {fold_at}");
        // From the other end, on a database without them again.
        part.write(&without(rows.iter().take(10))).unwrap();
        let mut from_above = part.prefixed(&Family::Saga.prefix()).unwrap().rev();
        for n in 0..20 {
            if n == fold_at {
                part.write(&some_of(rows.iter().skip(10))).unwrap();
            }
            down.push(from_above.next().unwrap().unwrap().0.to_vec());
        }
        assert!(from_above.next().is_none() && from_above.next().is_none(), "folded at {fold_at}");
        down.reverse();
        assert_eq!(down, read, "folded at {fold_at}");
        part.write(&without(rows.iter())).unwrap();
    }
    part.fold(rows.iter(), mark).unwrap();
    part.front().let_go();
    assert_eq!(part.prefixed(&Family::Saga.prefix()).unwrap().count(), 20);
}
