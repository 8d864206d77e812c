//! Giving back space: the databases only grow, so a smaller one is written and put in their place.
//!
//! ```text
//! open ──copy──► open.new (synced whole) · rename open → open.old · open.new → open · delete open.old
//! ```
//!
//! A crash anywhere leaves either the old database or the new one; [`finish_swap`] tidies up.

use std::fs;
use std::path::Path;

use super::error::OpenError;
use super::marker::sync_dir;
use super::open::{check_identity, find, guarded, lock, open_folded};
use super::part::{Changes, Part};
use super::{HISTORY_DIR, OPEN_DIR};
use crate::store::StoreError;

const COPY_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// How far a compaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactProgress {
    /// The database being copied: `open` or `history`.
    pub database: &'static str,
    /// Rows copied of it so far.
    pub rows: u64,
    /// Bytes of its file before.
    pub bytes_before: u64,
    /// Bytes of its new file; there when it is done.
    pub bytes_after: Option<u64>,
}

/// Rewrites both databases of a store that nobody has open.
///
/// # Errors
/// [`OpenError`] when the store is in use, damaged, or the disk says no; it is then as it was.
pub fn compact(dir: &Path, mut progress: impl FnMut(CompactProgress)) -> Result<(), OpenError> {
    let _lock = lock(dir)?;
    finish_swap(dir)?;
    let missing = || OpenError::damaged(dir, dir, "there is no store here");
    let marker = find(dir)?.ok_or_else(missing)?;
    for name in [OPEN_DIR, HISTORY_DIR] {
        let old = if name == OPEN_DIR {
            let (old, _log) = open_folded(dir, COPY_CACHE_BYTES, &marker)?;
            guarded(&old, || check_identity(&old, &marker))?;
            old
        } else {
            Part::open(dir, name, COPY_CACHE_BYTES)?
        };
        let aside = format!("{name}.new");
        let new = Part::open(dir, &aside, COPY_CACHE_BYTES)?;
        let bytes_before = old.disk_bytes();
        let rows = guarded(&old, || {
            copy(&old, &new, |rows| {
                progress(CompactProgress { database: name, rows, bytes_before, bytes_after: None });
            })
        })?;
        new.settle()?;
        let bytes_after = Some(new.disk_bytes());
        new.close();
        old.close();
        swap(dir, name).map_err(|error| OpenError::io(&dir.join(name), "putting it in place", &error))?;
        progress(CompactProgress { database: name, rows, bytes_before, bytes_after });
    }
    Ok(())
}

fn copy(old: &Part, new: &Part, mut progress: impl FnMut(u64)) -> Result<u64, StoreError> {
    let (mut copied, mut batch) = (0, Changes::default());
    for row in old.db()?.iter() {
        let (key, value) = row.map_err(|error| old.read_error(&error))?;
        crate::store::codec::frame::open(&key, &value).map_err(|cause| old.damaged(&key, &cause))?;
        batch.overwrite(vec![(key.to_vec(), value.to_vec())]);
        copied += 1;
        if batch.is_full() {
            new.write(&std::mem::take(&mut batch))?;
            progress(copied);
        }
    }
    new.store(&batch)?;
    let found = new.db()?.len() as u64;
    if found != copied || copied == 0 {
        let what = new.data_file().display().to_string();
        let cause = format!("{copied} rows were copied, and {found} are there");
        return Err(StoreError::Damaged { what, cause });
    }
    Ok(copied)
}

fn swap(dir: &Path, name: &str) -> std::io::Result<()> {
    let (here, new, old) = places(dir, name);
    fs::rename(&here, &old)?;
    sync_dir(dir)?;
    fs::rename(&new, &here)?;
    sync_dir(dir)?;
    fs::remove_dir_all(&old)?;
    sync_dir(dir)
}

fn places(dir: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf, std::path::PathBuf) {
    (dir.join(name), dir.join(format!("{name}.new")), dir.join(format!("{name}.old")))
}

/// Tidies up after a compaction that did not come to its end.
pub fn finish_swap(dir: &Path) -> Result<(), OpenError> {
    for name in [OPEN_DIR, HISTORY_DIR] {
        let (here, new, old) = places(dir, name);
        let tidied = match (here.exists(), new.exists(), old.exists()) {
            // Between the two renames: the new one was whole before the first.
            (false, true, true) => fs::rename(&new, &here).and_then(|()| fs::remove_dir_all(&old)),
            (true, true, _) => fs::remove_dir_all(&new),
            (true, false, true) => fs::remove_dir_all(&old),
            _ => continue,
        };
        tidied
            .and_then(|()| sync_dir(dir))
            .map_err(|error| OpenError::io(&here, "ending an interrupted compaction", &error))?;
    }
    Ok(())
}
