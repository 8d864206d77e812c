//! What the engine takes for stable is stable.
//!
//! sled notes in its files up to where they are on the disk, trusts that note when it opens them, and writes
//! over what it has moved to a place below it. It makes the note behind `sync_file_range`, which starts
//! the writing and waits for it, but has no device flush behind it and makes no file's length or extents
//! durable. So a power cut could leave a note that promises more than is there, and a database that does
//! not open. Linked in here, the same name is `fdatasync`.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd as _, RawFd};
use std::sync::OnceLock;

/// The first sync of the engine's own that failed, in this process.
static FAILED: OnceLock<String> = OnceLock::new();

/// Why a sync of the engine's own failed, if one did. Nothing written since the last good one may be taken
/// for stored, whatever a later sync says.
pub fn check() -> io::Result<()> {
    FAILED.get().map_or(Ok(()), |cause| Err(io::Error::other(cause.as_str())))
}

/// In place of the C library's function of this name, for whoever in this program calls it: always 0.
///
/// A failure is not told here, where sled would wait for ever, but by [`check`], which every sync of the
/// store asks.
#[expect(unsafe_code, reason = "a function of the C library can be replaced in no other way")]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(file: RawFd, _offset: i64, _bytes: i64, _flags: u32) -> i32 {
    // SAFETY: the caller has the file open for as long as this lasts, and it is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    if let Err(error) = file.sync_data() {
        FAILED.get_or_init(|| error.to_string());
    }
    0
}
