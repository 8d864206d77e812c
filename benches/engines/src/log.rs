//! Rows in memory, and a log of the batches.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::ops::Bound;

use parking_lot::{Mutex, RwLock};

use crate::{Db, Error, IVec, Result, Row};

/// Rows that are read while the map is held.
const ROWS_AT_ONCE: usize = 256;
/// The length of a value that says that there is none.
const REMOVED: u32 = u32::MAX;

#[derive(Debug)]
pub struct Log {
    file: Mutex<File>,
    rows: RwLock<BTreeMap<IVec, IVec>>,
}

impl Log {
    /// Reads the log up to its end, or up to the batch that was being written when the power went.
    pub fn open(file: File) -> Result<Self> {
        let mut rows = BTreeMap::new();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let mut log = BufReader::new(File::open(path)?);
        let mut whole = 0;
        while let Some(batch) = read_batch(&mut log)? {
            whole += 8 + batch.len() as u64;
            for (key, value) in changes(&batch) {
                match value {
                    Some(value) => _ = rows.insert(key.into(), value.into()),
                    None => _ = rows.remove(key),
                }
            }
        }
        file.set_len(whole)?;
        Ok(Self { file: Mutex::new(file), rows: RwLock::new(rows) })
    }

    pub fn get(&self, key: &[u8]) -> Option<IVec> {
        self.rows.read().get(key).cloned()
    }

    pub fn apply(&self, batch: Vec<(IVec, Option<IVec>)>) -> Result<()> {
        let mut bytes = vec![0; 8];
        for (key, value) in &batch {
            let length = |part: &[u8]| u32::try_from(part.len()).expect("rows are small").to_le_bytes();
            bytes.extend(length(key));
            bytes.extend(value.as_ref().map_or(REMOVED.to_le_bytes(), |value| length(value)));
            bytes.extend(&**key);
            bytes.extend(value.iter().flat_map(|value| value.iter()));
        }
        let body =
            u32::try_from(bytes.len() - 8).map_err(|_| Error::Engine("the batch is too large".into()))?;
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[..4].copy_from_slice(&body.to_le_bytes());
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        let mut file = self.file.lock();
        file.write_all(&bytes)?;
        let mut rows = self.rows.write();
        for (key, value) in batch {
            match value {
                Some(value) => _ = rows.insert(key, value),
                None => _ = rows.remove(&key),
            }
        }
        Ok(())
    }

    fn page(&self, lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> Vec<(IVec, IVec)> {
        let (lower, upper) = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        let rows = self.rows.read();
        let page = rows.range::<[u8], _>((lower, upper)).take(ROWS_AT_ONCE);
        page.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn last(&self, lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> Option<(IVec, IVec)> {
        let (lower, upper) = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        let rows = self.rows.read();
        rows.range::<[u8], _>((lower, upper)).next_back().map(|(key, value)| (key.clone(), value.clone()))
    }
}

/// The next whole batch.
fn read_batch(log: &mut impl std::io::Read) -> Result<Option<Vec<u8>>> {
    let mut head = [0; 8];
    if log.read_exact(&mut head).is_err() {
        return Ok(None);
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let mut batch = Vec::new();
    log.take(word(0).into()).read_to_end(&mut batch)?;
    Ok((batch.len() as u64 == u64::from(word(0)) && crc32fast::hash(&batch) == word(4)).then_some(batch))
}

fn changes(mut batch: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let (key_length, rest) = batch.split_first_chunk::<4>()?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at(u32::from_le_bytes(*key_length) as usize);
        let value_length = u32::from_le_bytes(*value_length);
        let kept = if value_length == REMOVED { 0 } else { value_length as usize };
        let (value, rest) = rest.split_at(kept);
        batch = rest;
        Some((key, (value_length != REMOVED).then_some(value)))
    })
}

/// Rows between two keys, read a page at a time.
pub struct Rows {
    db: Db,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    page: std::vec::IntoIter<(IVec, IVec)>,
}

impl Rows {
    pub fn new(db: Db, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> Self {
        Self { db, lower, upper, page: Vec::new().into_iter() }
    }

    fn is_over(&self) -> bool {
        match (&self.lower, &self.upper) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (Bound::Included(l) | Bound::Excluded(l), Bound::Included(u) | Bound::Excluded(u)) => l >= u,
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.page.len() == 0 && !self.is_over() {
            self.page = self.db.log().page(&self.lower, &self.upper).into_iter();
        }
        let (key, value) = self.page.next()?;
        self.lower = Bound::Excluded(key.to_vec());
        Some(Ok((key, value)))
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Row> {
        // What is left of a page lies between the bounds too.
        self.page = Vec::new().into_iter();
        if self.is_over() {
            return None;
        }
        let (key, value) = self.db.log().last(&self.lower, &self.upper)?;
        self.upper = Bound::Excluded(key.to_vec());
        Some(Ok((key, value)))
    }
}
