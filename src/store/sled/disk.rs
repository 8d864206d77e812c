//! Room on the disk. The engine cannot even open its databases on a full disk, so a file of no use
//! is kept beside them, to be given up when they would not open otherwise. Starts are refused long
//! before that (see [`StoreStats::disk_low`](crate::store::StoreStats::disk_low)); what is open
//! then has room to end.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};

use super::error::OpenError;

const BALLAST_FILE: &str = "ballast";
/// A disk that was low is no longer when so much of the low mark is free.
const AGAIN_PERCENT: u64 = 150;

/// Whether less than `low_bytes` are free; once low, until half as much again is free. `None` when
/// the disk does not say.
pub fn is_low(dir: &Path, low_bytes: u64, was_low: bool) -> Option<bool> {
    let disk = statvfs(dir).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let mark = if was_low { low_bytes.saturating_mul(AGAIN_PERCENT) / 100 } else { low_bytes };
    Some(free < mark)
}

/// After a failed sync the kernel may take pages for clean that never reached the device, and show
/// them to the next process, which would take them for stored. Without them it reads the device.
pub fn forget_cached(file: &File, path: &Path) {
    if let Err(error) = fadvise(file, 0, None, Advice::DontNeed) {
        tracing::warn!(%error, file = %path.display(), "cached pages could not be dropped");
    }
}

/// Lays the ballast in when it is not there; without it everything works but the way back from a
/// full disk.
pub fn lay_ballast(dir: &Path, bytes: u64) {
    let path = dir.join(BALLAST_FILE);
    if bytes == 0 || path.exists() {
        return;
    }
    let laid = File::create(&path).and_then(|file| {
        fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)?;
        file.sync_all()
    });
    if let Err(error) = laid {
        tracing::warn!(%error, "no ballast could be laid in against a full disk");
        // A part of it would be taken for the whole.
        drop(fs::remove_file(&path));
    }
}

/// Opens something; when the disk says no and there is ballast, gives that up and tries once more.
pub fn with_ballast<T>(dir: &Path, open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    match open() {
        Err(OpenError::Io { cause, .. }) if fs::remove_file(dir.join(BALLAST_FILE)).is_ok() => {
            tracing::warn!(cause, "the store did not open; its ballast was given up to make room");
            open()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn ballast_is_given_up_once_for_a_store_that_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        lay_ballast(dir.path(), 64 * 1024);
        assert_eq!(fs::metadata(dir.path().join(BALLAST_FILE)).unwrap().len(), 64 * 1024);
        let tries = Cell::new(0);
        let full = || OpenError::io(dir.path(), "opening", &"no space left");
        let opened = with_ballast(dir.path(), || {
            tries.set(tries.get() + 1);
            if dir.path().join(BALLAST_FILE).exists() { Err(full()) } else { Ok(()) }
        });
        assert!(opened.is_ok());
        assert_eq!(tries.get(), 2);
        assert!(with_ballast(dir.path(), || Err::<(), _>(full())).is_err());
    }

    #[test]
    fn a_disk_is_low_below_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(is_low(dir.path(), 0, false), Some(false));
        assert_eq!(is_low(dir.path(), u64::MAX, true), Some(true));
    }
}
