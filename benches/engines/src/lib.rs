//! The part of sled's interface that the store uses, over other engines. Which one the environment
//! variable `BENCH_ENGINE` says:
//!
//! - `fjall`: an LSM tree with a journal; its journal's fsync is what makes a batch durable.
//! - `log`: every batch is appended to one file, and the rows lie in an ordered map in memory. No
//!   engine that keeps rows on disk does less, so it shows what there is to gain at most. It never
//!   gives disk space back: for measuring alone.

mod log;
mod lsm;

use std::fmt;
use std::io;
use std::ops::{Bound, Deref, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes wrong.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read or written.
    Io(io::Error),
    /// The engine says so.
    Engine(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            Error::Engine(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        Error::Engine(error.to_string())
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// A key or a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IVec(fjall::Slice);

impl Deref for IVec {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for IVec {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for IVec {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for IVec {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for IVec {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl PartialEq<Vec<u8>> for IVec {
    fn eq(&self, other: &Vec<u8>) -> bool {
        **self == **other
    }
}

impl PartialEq<[u8]> for IVec {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

/// Rows to put, and keys to remove.
#[derive(Debug, Default)]
pub struct Batch(Vec<(IVec, Option<IVec>)>);

impl Batch {
    pub fn insert(&mut self, key: impl Into<IVec>, value: impl Into<IVec>) {
        self.0.push((key.into(), Some(value.into())));
    }

    pub fn remove(&mut self, key: impl Into<IVec>) {
        self.0.push((key.into(), None));
    }
}

/// How to open a database.
#[derive(Debug, Clone, Default)]
pub struct Config {
    path: PathBuf,
    cache_bytes: u64,
}

impl Config {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        path.as_ref().clone_into(&mut self.path);
        self
    }

    #[must_use]
    pub fn cache_capacity(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    #[must_use]
    pub fn flush_every_ms(self, _: Option<u64>) -> Self {
        self
    }

    /// Opens the database, or makes it. There are always a file `db`, which the store syncs behind
    /// [`Db::flush`], and a file `conf`.
    pub fn open(&self) -> Result<Db> {
        std::fs::create_dir_all(&self.path)?;
        let data = std::fs::File::options().append(true).create(true).open(self.path.join("db"))?;
        std::fs::write(self.path.join("conf"), "")?;
        let name = std::env::var("BENCH_ENGINE").unwrap_or_default();
        let engine = match name.as_str() {
            "fjall" => Engine::Lsm(lsm::Lsm::open(&self.path, self.cache_bytes)?),
            "log" => Engine::Log(log::Log::open(data)?),
            other => panic!("BENCH_ENGINE is {other:?}: choose `fjall` or `log`"),
        };
        Ok(Db(Arc::new(engine)))
    }
}

#[derive(Debug)]
enum Engine {
    Lsm(lsm::Lsm),
    Log(log::Log),
}

/// A database. Clones are the same.
#[derive(Debug, Clone)]
pub struct Db(Arc<Engine>);

impl Db {
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>> {
        match &*self.0 {
            Engine::Lsm(lsm) => lsm.get(key.as_ref()),
            Engine::Log(log) => Ok(log.get(key.as_ref())),
        }
    }

    pub fn apply_batch(&self, batch: Batch) -> Result<()> {
        match &*self.0 {
            Engine::Lsm(lsm) => lsm.apply(batch.0),
            Engine::Log(log) => log.apply(batch.0),
        }
    }

    /// Makes what was written durable, or leaves that to a sync of the file `db`.
    pub fn flush(&self) -> Result<usize> {
        match &*self.0 {
            Engine::Lsm(lsm) => lsm.sync().map(|()| 0),
            Engine::Log(_) => Ok(0),
        }
    }

    pub fn range<K: AsRef<[u8]>>(&self, keys: impl RangeBounds<K>) -> Iter {
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        self.between(own(keys.start_bound()), own(keys.end_bound()))
    }

    pub fn iter(&self) -> Iter {
        self.between(Bound::Unbounded, Bound::Unbounded)
    }

    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        let from = prefix.as_ref().to_vec();
        let mut to = from.clone();
        while to.pop_if(|last| *last == u8::MAX).is_some() {}
        let upper = match to.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(to)
            }
            None => Bound::Unbounded,
        };
        self.between(Bound::Included(from), upper)
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn between(&self, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> Iter {
        Iter(match &*self.0 {
            Engine::Lsm(lsm) => Box::new(lsm.range((lower, upper))),
            Engine::Log(_) => Box::new(log::Rows::new(self.clone(), lower, upper)),
        })
    }

    fn log(&self) -> &log::Log {
        let Engine::Log(log) = &*self.0 else { unreachable!("only a log's rows are read in pages") };
        log
    }
}

type Row = Result<(IVec, IVec)>;

/// Rows in the order of their keys.
pub struct Iter(Box<dyn DoubleEndedIterator<Item = Row> + Send>);

impl Iter {
    pub fn keys(self) -> impl DoubleEndedIterator<Item = Result<IVec>> + Send {
        self.0.map(|row| row.map(|(key, _)| key))
    }
}

impl Iterator for Iter {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.0.next()
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Row> {
        self.0.next_back()
    }
}
