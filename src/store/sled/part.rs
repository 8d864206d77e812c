//! One of the store's two databases, with the defences that every use of the engine needs: a real
//! fsync, no panic that gets out, no torn snapshot taken for a whole one. The open database has a
//! write-ahead log in front of it once it is served, see `wal.rs` and `front.rs`.

use std::fs::{self, File};
use std::ops::{Bound, RangeBounds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::RwLock;

use super::disk::forget_cached;
use super::error::{OpenError, panic_text};
use super::front::{Change, Front, Merged, Pending};
use super::honest;
use super::keys::Family;
use super::marker::sync_dir;
use super::records::{RowCounts, SENTINEL, SENTINEL_LOGGED, Tail, decode_mark, encode_mark};
use super::wal::Mark;
use crate::clock::Stopwatch;
use crate::store::StoreError;
use crate::store::codec::frame::{self, Joiner, Row};

/// The file that holds the data of a database.
pub const DATA_FILE: &str = "db";
/// How long a lock may linger that another process has just let go of.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// The background flusher also collects garbage: it stays on.
const FLUSH_EVERY_MS: u64 = 500;
/// Bytes of rows after which a batch for the engine takes nothing further, and so many rows. It lets nobody
/// write, in either database, while it takes a batch in; and see [`Part::write`].
pub const BATCH_BYTES_MAX: usize = 128 * 1024;
const BATCH_ROWS_MAX: usize = 512;

/// One database.
#[derive(Debug)]
pub struct Part {
    dir: PathBuf,
    db: RwLock<Option<::sled::Db>>,
    sync_handle: File,
    /// The log, and what it holds and the database does not.
    front: Option<Front>,
    #[cfg(test)]
    sync_fails: std::sync::atomic::AtomicBool,
}

impl Part {
    /// Opens the database `name` under the store's directory, or makes it.
    pub fn open(store_dir: &Path, name: &str, cache_bytes: u64) -> Result<Self, OpenError> {
        let dir = store_dir.join(name);
        let data = dir.join(DATA_FILE);
        remove_torn_snapshots(&dir).map_err(|e| OpenError::io(&dir, "removing torn snapshots", &e))?;
        let config =
            ::sled::Config::new().path(&dir).cache_capacity(cache_bytes).flush_every_ms(Some(FLUSH_EVERY_MS));
        let waiting = Stopwatch::start();
        let db = loop {
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
            match opened {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if error.to_string().contains("could not acquire lock") => {
                    if waiting.elapsed() > LOCK_WAIT {
                        return Err(OpenError::Locked { dir: store_dir.to_owned() });
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Ok(Err(::sled::Error::Io(error))) => {
                    return Err(OpenError::io(&data, "opening the database", &error));
                }
                Ok(Err(error)) => return Err(OpenError::damaged(store_dir, &data, error.to_string())),
                Err(panic) => return Err(OpenError::damaged(store_dir, &data, panic_text(&*panic))),
            }
        };
        let sync_handle = File::options()
            .read(true)
            .write(true)
            .open(&data)
            .map_err(|error| OpenError::io(&data, "opening the database file", &error))?;
        Ok(Self {
            dir,
            db: RwLock::new(Some(db)),
            sync_handle,
            front: None,
            #[cfg(test)]
            sync_fails: false.into(),
        })
    }

    /// Makes the files and directory entries of a new database durable.
    pub fn settle(&self) -> Result<(), OpenError> {
        let all = || -> std::io::Result<()> {
            File::open(self.dir.join("conf"))?.sync_all()?;
            self.sync_handle.sync_all()?;
            sync_dir(&self.dir)?;
            self.dir.parent().map_or(Ok(()), sync_dir)
        };
        all().map_err(|error| OpenError::io(&self.dir, "syncing the new database", &error))
    }

    /// From now on batches go to the log.
    pub fn log_to(&mut self, front: Front) {
        self.front = Some(front);
    }

    /// The database itself, unless it was closed; rows that are pending in the log are not in it.
    pub fn db(&self) -> Result<::sled::Db, StoreError> {
        self.db.read().clone().ok_or(StoreError::Closed)
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its data file.
    pub fn data_file(&self) -> PathBuf {
        self.dir.join(DATA_FILE)
    }

    /// Bytes of its data file and its log.
    pub fn disk_bytes(&self) -> u64 {
        let data = self.sync_handle.metadata().map_or(0, |meta| meta.len());
        data + self.front.as_ref().map_or(0, Front::disk_bytes)
    }

    /// Writes a batch, the commit of this number, and returns once it is on stable storage, with the
    /// time the sync took. After an error nothing is known of what is stored, and nothing may be written again.
    pub fn apply(&self, commit: u64, changes: Changes) -> Result<Duration, StoreError> {
        let Some(front) = &self.front else { return self.store(&changes) };
        #[cfg(test)]
        if self.sync_fails.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(log_failed(front, &"an injected failure"));
        }
        front.apply(commit, changes.rows).map_err(|error| log_failed(front, &error))
    }

    /// Writes a batch past the log, and returns once it is on stable storage.
    pub fn store(&self, changes: &Changes) -> Result<Duration, StoreError> {
        self.write(changes)?;
        self.sync()
    }

    /// Writes a batch past the log, which is one: all of it will be stored, or nothing, and nothing that
    /// is written behind it without it. It is on stable storage behind the next [`Part::sync`].
    ///
    /// It waits until the engine has written it. sled lets the one who extends the file wait for a
    /// truncation that is queued for the threads of its pool, with a lock held that each of them needs to
    /// finish a write; as many writes on their way as it has threads, seven, and nobody moves again. A write
    /// is half a megabyte: a batch of [`BATCH_BYTES_MAX`] is at most a few of them.
    pub fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        self.write_rows(changes.rows.iter().map(|(key, change)| (key.as_slice(), change.value())))
    }

    fn write_rows<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut batch = ::sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.guarded("writing a batch", || {
            db.apply_batch(batch)?;
            db.flush().map(drop)
        })
    }

    /// Brings rows of the log into the database, durably, and notes up to where it is folded then. It may
    /// stop anywhere and be done again.
    pub fn fold<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        mark: Mark,
    ) -> Result<(), StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (key, value) in rows {
            bytes += key.len() + value.map_or(0, <[u8]>::len);
            batch.push((key, value));
            if bytes >= BATCH_BYTES_MAX || batch.len() >= BATCH_ROWS_MAX {
                self.write_rows(batch.drain(..))?;
                bytes = 0;
            }
        }
        self.write_rows(batch.into_iter())?;
        self.sync()?;
        let mut changes = Changes::default();
        changes.overwrite(frame::seal(&super::keys::folded(), &encode_mark(mark)));
        self.store(&changes).map(drop)
    }

    /// Folds what is sealed, whenever something is, until the end.
    pub fn fold_sealed(&self) -> Result<(), StoreError> {
        let Some(front) = &self.front else { return Ok(()) };
        while let Some((rows, mark)) = front.next_sealed() {
            self.fold(rows.iter(), mark)?;
            front.let_go();
        }
        Ok(())
    }

    /// Has [`Part::fold_sealed`] come to its end behind what is sealed.
    pub fn end_folding(&self) {
        if let Some(front) = &self.front {
            front.end();
        }
    }

    /// Folds all that is pending; nothing is written meanwhile, and nobody else folds.
    pub fn fold_rest(&self, commit: u64) -> Result<(), StoreError> {
        let Some(front) = &self.front else { return Ok(()) };
        front.seal_rest(commit);
        front.end();
        self.fold_sealed()
    }

    /// Returns once everything written is on stable storage, with the time the sync took.
    pub fn sync(&self) -> Result<Duration, StoreError> {
        let db = self.db()?;
        self.guarded("writing a batch", || db.flush().map(drop))?;
        // The engine's flush syncs too (see `honest.rs`), and cannot say that it failed; this one can.
        let watch = Stopwatch::start();
        if let Err(error) = self.sync_file() {
            forget_cached(&self.sync_handle, &self.data_file());
            return Err(self.failed("fdatasync", &error));
        }
        Ok(watch.elapsed())
    }

    fn guarded(&self, operation: &str, write: impl FnOnce() -> ::sled::Result<()>) -> Result<(), StoreError> {
        match catch_unwind(AssertUnwindSafe(write)) {
            Ok(written) => written.map_err(|error| self.failed(operation, &error)),
            Err(panic) => Err(self.failed(operation, &panic_text(&*panic))),
        }
    }

    fn failed(&self, operation: &str, cause: &impl std::fmt::Display) -> StoreError {
        failed(&self.dir, operation, cause)
    }

    fn sync_file(&self) -> std::io::Result<()> {
        #[cfg(test)]
        if self.sync_fails.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(std::io::Error::other("an injected failure"));
        }
        honest::check()?;
        self.sync_handle.sync_data()
    }

    /// The log, which there is.
    #[cfg(test)]
    pub fn front(&self) -> &Front {
        self.front.as_ref().expect("a database with a log")
    }

    /// Lets the next sync fail, once: nobody may try it again and believe it.
    #[cfg(test)]
    pub fn fail_next_sync(&self) {
        self.sync_fails.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// One row.
    pub fn get(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        match self.front.as_ref().map(|front| front.get(key)) {
            Some(Pending::Row(value)) => Ok(Some(value)),
            Some(Pending::Gone) => Ok(None),
            Some(Pending::Nothing) | None => self.db()?.get(key).map_err(|error| self.read_error(&error)),
        }
    }

    /// The rows between two keys, in order.
    pub fn range(&self, keys: impl RangeBounds<Vec<u8>>) -> Result<Merged, StoreError> {
        let (lower, upper) = (keys.start_bound(), keys.end_bound());
        let (from, to) = (lower.map(Vec::as_slice), upper.map(Vec::as_slice));
        let pending = self.front.as_ref().map(|front| front.range(from, to)).unwrap_or_default();
        Ok(Merged::new(self.db()?.range::<&[u8], _>((from, to)), pending))
    }

    /// The rows whose keys begin so, in order.
    pub fn prefixed(&self, prefix: &[u8]) -> Result<Merged, StoreError> {
        let mut behind = prefix.to_vec();
        while behind.pop_if(|last| *last == u8::MAX).is_some() {}
        let upper = match behind.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(behind)
            }
            None => Bound::Unbounded,
        };
        self.range((Bound::Included(prefix.to_vec()), upper))
    }

    /// One record, and how many rows it has.
    pub fn record(&self, record_key: &[u8]) -> Result<Option<(Vec<u8>, u16)>, StoreError> {
        let mut joiner = Joiner::default();
        for part in 0..=u16::MAX {
            let key = frame::part_key(record_key, part);
            let Some(value) = self.get(&key)? else {
                return joiner.finish().map(|()| None).map_err(|cause| self.damaged(&key, &cause));
            };
            if let Some(content) = joiner.push(&key, &value).map_err(|cause| self.damaged(&key, &cause))? {
                return Ok(Some((content, part + 1)));
            }
        }
        Ok(None)
    }

    /// The sentinel must be there; whether it says that there is a log.
    pub fn check_sentinel(&self) -> Result<bool, StoreError> {
        let key = super::keys::sentinel();
        match self.record(&key)? {
            Some((content, _)) if content == SENTINEL => Ok(false),
            Some((content, _)) if content == SENTINEL_LOGGED => Ok(true),
            _ => Err(self.damaged(&key, &"the sentinel is not there: the database is empty or another one")),
        }
    }

    /// The tail must be there.
    pub fn tail(&self) -> Result<Tail, StoreError> {
        let key = super::keys::tail();
        let Some((content, _)) = self.record(&key)? else {
            return Err(self.damaged(&key, &"the tail is not there"));
        };
        Tail::decode(&content).map_err(|cause| self.damaged(&key, &cause))
    }

    /// Up to where its log is folded.
    pub fn folded(&self) -> Result<Mark, StoreError> {
        let key = super::keys::folded();
        let Some((content, _)) = self.record(&key)? else {
            return Err(self.damaged(&key, &"it does not say up to where its log is folded"));
        };
        decode_mark(&content).map_err(|cause| self.damaged(&key, &cause))
    }

    /// The error for a failed read.
    pub fn read_error(&self, error: &::sled::Error) -> StoreError {
        match error {
            ::sled::Error::Io(cause) => StoreError::Io {
                operation: "reading",
                cause: format!("{}: {cause}", self.data_file().display()),
            },
            other => {
                StoreError::Damaged { what: self.data_file().display().to_string(), cause: other.to_string() }
            }
        }
    }

    /// The error for a row that does not read back.
    pub fn damaged(&self, key: &[u8], cause: &impl ToString) -> StoreError {
        let family = Family::of(key).map_or("unknown", Family::name);
        StoreError::Damaged {
            what: format!("a {family} record in {}", self.data_file().display()),
            cause: cause.to_string(),
        }
    }

    /// The error for a database that is not what its own numbers say.
    pub fn contradicted(&self, cause: String) -> StoreError {
        StoreError::Damaged { what: self.data_file().display().to_string(), cause }
    }

    /// Lets go of the files; waits for the engine's own threads.
    pub fn close(&self) {
        let db = self.db.write().take();
        drop(db);
    }
}

fn remove_torn_snapshots(dir: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn failed(place: &Path, operation: &str, cause: &impl std::fmt::Display) -> StoreError {
    StoreError::SyncFailed { cause: format!("{}: {operation}: {cause}", place.display()) }
}

fn log_failed(front: &Front, cause: &impl std::fmt::Display) -> StoreError {
    failed(&front.after_failure(), "logging a batch with fdatasync", cause)
}

/// A batch in the making, and what it does to the row counts.
#[derive(Debug, Default)]
pub struct Changes {
    rows: Vec<(Vec<u8>, Change)>,
    /// Of keys and values.
    bytes: usize,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether one batch should take nothing further.
    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.rows.len() >= BATCH_ROWS_MAX
    }

    fn push(&mut self, key: Vec<u8>, change: Change) {
        self.bytes += key.len() + change.value().map_or(0, <[u8]>::len);
        self.rows.push((key, change));
    }

    /// Puts rows that are new.
    pub fn insert(&mut self, counts: &mut RowCounts, family: Family, rows: Vec<Row>) {
        counts.add(family, rows.len());
        for (key, value) in rows {
            self.push(key, Change::New(value));
        }
    }

    /// Puts a record in place of one with `old_parts` rows.
    pub fn replace(
        &mut self,
        counts: &mut RowCounts,
        family: Family,
        record_key: &[u8],
        mut rows: Vec<Row>,
        old_parts: u16,
    ) {
        let new_parts = u16::try_from(rows.len()).unwrap_or(u16::MAX);
        for part in new_parts..old_parts {
            self.remove(counts, family, frame::part_key(record_key, part));
        }
        let new = rows.split_off(usize::from(old_parts.min(new_parts)));
        self.overwrite(rows);
        self.insert(counts, family, new);
    }

    /// Puts rows whether they are there or not; for rows that are not counted.
    pub fn overwrite(&mut self, rows: Vec<Row>) {
        for (key, value) in rows {
            self.push(key, Change::Put(value));
        }
    }

    /// Takes a row away that is there.
    pub fn remove(&mut self, counts: &mut RowCounts, family: Family, key: Vec<u8>) {
        counts.take(family, 1);
        self.push(key, Change::Remove);
    }

    /// Takes a whole record away.
    pub fn remove_record(&mut self, counts: &mut RowCounts, family: Family, record_key: &[u8], parts: u16) {
        for part in 0..parts {
            self.remove(counts, family, frame::part_key(record_key, part));
        }
    }
}
