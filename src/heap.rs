//! How the C library's allocator treats large pieces, which decides what an idle daemon keeps.
//!
//! The storage engine opens with many large pieces that it wants zeroed and hardly touches. Mapped one
//! by one they cost what is touched of them; taken from the heap, as the allocator does it once a large
//! piece was given back, they are written all over and stay. Under load it is the other way round: to
//! map and unmap pieces by the thousand costs more than to keep them.

#[cfg(target_env = "gnu")]
mod gnu {
    use libc::{M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

    /// Pieces from this size on are mapped while a store is opened.
    const MAPPED_FROM_BYTES: c_int = 128 * 1024;
    /// Pieces below this size are kept afterwards: the engine's are half as large.
    const KEPT_BELOW_BYTES: c_int = 1024 * 1024;

    #[expect(unsafe_code, reason = "the C library has no other way in")]
    fn set(option: c_int, value: c_int) {
        // SAFETY: any thread may set these at any time, and they are hints: pieces that are out stay valid.
        if unsafe { mallopt(option, value) } != 1 {
            tracing::debug!(option, value, "the allocator does not know this setting");
        }
    }

    pub(super) fn map_large_pieces() {
        set(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    }

    pub(super) fn keep_large_pieces() {
        set(M_MMAP_THRESHOLD, KEPT_BELOW_BYTES);
        set(M_TRIM_THRESHOLD, 2 * KEPT_BELOW_BYTES);
    }
}

/// Has large pieces mapped, each by itself: while a store is opened.
pub fn map_large_pieces() {
    #[cfg(target_env = "gnu")]
    gnu::map_large_pieces();
}

/// Has large pieces kept and used again: from then on.
pub fn keep_large_pieces() {
    #[cfg(target_env = "gnu")]
    gnu::keep_large_pieces();
}
