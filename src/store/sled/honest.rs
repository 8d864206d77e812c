//! What the engine takes for stable is stable.
//!
//! sled notes in its files up to where they are on the disk, trusts that note when it opens them, and writes
//! over what it has moved to a place below it. It makes the note behind `sync_file_range`, which starts
//! the writing and waits for it, but has no device flush behind it and makes no file's length or extents
//! durable. So a power cut could leave a note that promises more than is there, and a database that does
//! not open. Linked in here, the same name is `fdatasync`.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd as _, RawFd};

/// In place of the C library's function of this name, for whoever in this program calls it: always 0.
///
/// A failure is not told here, where sled would wait for ever: the kernel tells it to each open file once,
/// and the store's own sync behind every batch (`part.rs`) is of another one.
#[expect(unsafe_code, reason = "a function of the C library can be replaced in no other way")]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(file: RawFd, _offset: i64, _bytes: i64, _flags: u32) -> i32 {
    // SAFETY: the caller has the file open for as long as this lasts, and it is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    if let Err(error) = file.sync_data() {
        tracing::error!(%error, "a sync of the store's engine failed");
    }
    0
}
