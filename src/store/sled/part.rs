//! One of the store's two databases, with the defences that every use of the engine needs: a real
//! fsync behind each batch, no panic that gets out, no torn snapshot taken for a whole one.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::RwLock;
use rustix::fs::{Advice, fadvise};

use super::error::{OpenError, panic_text};
use super::honest;
use super::keys::Family;
use super::marker::sync_dir;
use super::records::{RowCounts, SENTINEL, Tail};
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

/// One database.
#[derive(Debug)]
pub struct Part {
    dir: PathBuf,
    db: RwLock<Option<::sled::Db>>,
    sync_handle: File,
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

    /// The database, unless it was closed.
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

    /// Bytes of its data file.
    pub fn disk_bytes(&self) -> u64 {
        self.sync_handle.metadata().map_or(0, |meta| meta.len())
    }

    /// Writes a batch and returns once it is on stable storage, with the time the sync took. After
    /// an error nothing is known of what is stored, and the database must not be written again.
    pub fn apply(&self, changes: Changes) -> Result<Duration, StoreError> {
        self.write(changes)?;
        self.sync()
    }

    /// Writes a batch, which is one: all of it will be stored, or nothing, and nothing that is
    /// written behind it without it. It is on stable storage behind the next [`Part::sync`].
    pub fn write(&self, changes: Changes) -> Result<(), StoreError> {
        let db = self.db()?;
        self.guarded("writing a batch", || db.apply_batch(changes.batch))
    }

    /// Returns once everything written is on stable storage, with the time the sync took.
    pub fn sync(&self) -> Result<Duration, StoreError> {
        let db = self.db()?;
        self.guarded("writing a batch", || db.flush().map(drop))?;
        // The engine's flush syncs too (see `honest.rs`), and cannot say that it failed; this one can.
        let watch = Stopwatch::start();
        if let Err(error) = self.sync_file() {
            self.forget_cached();
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
        StoreError::SyncFailed { cause: format!("{}: {operation}: {cause}", self.dir.display()) }
    }

    fn sync_file(&self) -> std::io::Result<()> {
        #[cfg(test)]
        if self.sync_fails.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(std::io::Error::other("an injected failure"));
        }
        honest::check()?;
        self.sync_handle.sync_data()
    }

    /// After a failed sync the kernel may take pages for clean that never reached the device, and show
    /// them to the next process, which would take them for stored. Without them it reads the device.
    fn forget_cached(&self) {
        if let Err(error) = fadvise(&self.sync_handle, 0, None, Advice::DontNeed) {
            tracing::warn!(%error, file = %self.data_file().display(), "cached pages could not be dropped");
        }
    }

    /// Lets the next sync fail, once: nobody may try it again and believe it.
    #[cfg(test)]
    pub fn fail_next_sync(&self) {
        self.sync_fails.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// One record, and how many rows it has.
    pub fn record(&self, record_key: &[u8]) -> Result<Option<(Vec<u8>, u16)>, StoreError> {
        let db = self.db()?;
        let mut joiner = Joiner::default();
        for part in 0..=u16::MAX {
            let key = frame::part_key(record_key, part);
            let Some(value) = db.get(&key).map_err(|error| self.read_error(&error))? else {
                return joiner.finish().map(|()| None).map_err(|cause| self.damaged(&key, &cause));
            };
            if let Some(content) = joiner.push(&key, &value).map_err(|cause| self.damaged(&key, &cause))? {
                return Ok(Some((content, part + 1)));
            }
        }
        Ok(None)
    }

    /// The sentinel must be there.
    pub fn check_sentinel(&self) -> Result<(), StoreError> {
        let key = super::keys::sentinel();
        match self.record(&key)? {
            Some((content, _)) if content == SENTINEL => Ok(()),
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

/// A batch in the making, and what it does to the row counts.
#[derive(Debug, Default)]
pub struct Changes {
    batch: ::sled::Batch,
    touched: bool,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.touched
    }

    /// Puts rows that are new.
    pub fn insert(&mut self, counts: &mut RowCounts, family: Family, rows: Vec<Row>) {
        counts.add(family, rows.len());
        self.overwrite(rows);
    }

    /// Puts a record in place of one with `old_parts` rows.
    pub fn replace(
        &mut self,
        counts: &mut RowCounts,
        family: Family,
        record_key: &[u8],
        rows: Vec<Row>,
        old_parts: u16,
    ) {
        let new_parts = u16::try_from(rows.len()).unwrap_or(u16::MAX);
        counts.add(family, rows.len());
        counts.take(family, usize::from(old_parts.min(new_parts)));
        for part in new_parts..old_parts {
            self.remove(counts, family, frame::part_key(record_key, part));
        }
        self.overwrite(rows);
    }

    /// Puts rows whether they are there or not; for rows that are not counted.
    pub fn overwrite(&mut self, rows: Vec<Row>) {
        self.touched = true;
        for (key, value) in rows {
            self.batch.insert(key, value);
        }
    }

    /// Takes a row away that is there.
    pub fn remove(&mut self, counts: &mut RowCounts, family: Family, key: Vec<u8>) {
        self.touched = true;
        counts.take(family, 1);
        self.batch.remove(key);
    }

    /// Takes a whole record away.
    pub fn remove_record(&mut self, counts: &mut RowCounts, family: Family, record_key: &[u8], parts: u16) {
        for part in 0..parts {
            self.remove(counts, family, frame::part_key(record_key, part));
        }
    }
}
