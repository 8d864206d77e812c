//! Tracked tasks: each has a name and says what its death means.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What it means when a task panics or ends before it was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The daemon cannot be trusted any more and shuts down.
    Fatal,
    /// Only the task's own work is lost; it is logged.
    Logged,
}

/// The tasks of one daemon. Clones share the same set.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<Set>);

#[derive(Debug, Default)]
struct Set {
    tracker: TaskTracker,
    stop: CancellationToken,
    fatal: CancellationToken,
    /// Why `fatal` fired.
    failure: OnceLock<String>,
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Told to every task when the daemon stops.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Whether they were told.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Fires when a task died whose death is fatal, or when the daemon was declared unfit.
    #[must_use]
    pub fn fatal(&self) -> CancellationToken {
        self.0.fatal.clone()
    }

    /// Declares the daemon unfit to go on, for example after a failed fsync.
    pub fn fail(&self, why: &str) {
        if self.0.failure.set(why.to_owned()).is_ok() {
            tracing::error!(why, "the daemon cannot go on");
            self.0.fatal.cancel();
        }
    }

    /// Why the daemon cannot go on; the first cause, once [`Tasks::fatal`] has fired.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.0.failure.get().map(String::as_str)
    }

    /// Starts a task.
    pub fn spawn(&self, name: &'static str, death: Death, work: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        self.0.tracker.spawn(async move {
            let panicked = std::panic::AssertUnwindSafe(work).catch_unwind().await.is_err();
            if panicked {
                tracing::error!(task = name, "a task panicked");
            }
            if death == Death::Fatal && !tasks.is_stopping() {
                tasks.fail(&format!("its task {name:?} has ended"));
            }
        });
    }

    /// Tells all tasks to stop.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.tracker.close();
    }

    /// Waits until all tasks have ended.
    pub async fn ended(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

/// Starts a named operating-system thread. Whoever keeps the handle owns what its death means.
pub fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Does two pieces of work at once, the first on a named operating-system thread, and returns when
/// both are done. A panic of either goes on here.
pub fn at_once<A: Send, B>(
    name: &str,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> io::Result<(A, B)> {
    std::thread::scope(|scope| {
        let first = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, first)?;
        let second = second();
        let first = first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((first, second))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_is_the_one_that_is_told() {
        let tasks = Tasks::new();
        assert_eq!(tasks.failure(), None);
        tasks.spawn("watchman", Death::Fatal, std::future::ready(()));
        tasks.fatal().cancelled().await;
        tasks.fail("something later");
        assert_eq!(tasks.failure(), Some("its task \"watchman\" has ended"));
    }
}
