//! What the engine counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that is counted up and read.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(super) fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// One less.
    pub(super) fn less_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The engine's counts since its start.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Calls to participants in flight now.
    pub(super) calls_in_flight: Count,
    /// Commits that failed.
    pub(super) commits_failed: Count,
    /// Sagas a commit left out because their stored sequence was another.
    pub(super) conflicts: Count,
    /// Sagas the sweeper found with nothing to come and set going again.
    pub(super) mended: Count,
    /// Wake-ups that came and changed nothing.
    pub(super) idle_wakes: Count,
    /// Sagas taken out of memory while open.
    pub(super) evicted: Count,
}
