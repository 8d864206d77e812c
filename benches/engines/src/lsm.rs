//! Rows in an LSM tree.

use std::fmt;
use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{IVec, Result, Row};

/// Threads that write tables and merge them.
const WORKERS: usize = 1;
/// Rows in memory before they are written as a table, in bytes.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// One database with one tree.
pub struct Lsm {
    database: Database,
    rows: Keyspace,
}

impl Lsm {
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self> {
        let database = Database::builder(path.join("lsm"))
            .cache_size(cache_bytes)
            .worker_threads(WORKERS)
            .manual_journal_persist(true)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows = database.keyspace("rows", options)?;
        Ok(Self { database, rows })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>> {
        Ok(self.rows.get(key)?.map(IVec))
    }

    pub fn apply(&self, changes: Vec<(IVec, Option<IVec>)>) -> Result<()> {
        let mut batch = self.database.batch();
        for (IVec(key), value) in changes {
            match value {
                Some(IVec(value)) => batch.insert(&self.rows, key, value),
                None => batch.remove(&self.rows, key),
            }
        }
        Ok(batch.commit()?)
    }

    pub fn sync(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    pub fn range(
        &self,
        keys: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = Row> + Send + use<> {
        self.rows.range::<Vec<u8>, _>(keys).map(|row| {
            let (key, value) = row.into_inner()?;
            Ok((IVec(key), IVec(value)))
        })
    }
}

impl fmt::Debug for Lsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lsm")
    }
}
