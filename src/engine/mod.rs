//! Drives sagas: mail in, decide, one commit for many, apply, settle what is owed.
//!
//! ```text
//!  Engine (handle) ──► mail ──► shard ──► batch ──► store.commit
//!     │  starts, follow, operate          ▲            │
//!     │  list, definitions, stats         │            ▼
//!     └──► published ◄── one watch a saga ┴── commit: publish, answer, settle ──► calls, timers
//!                                             background: recovery, sweeper, far wake-ups
//! ```
//!
//! The rules are in [`crate::saga`]; nothing here decides what a saga does. Nothing leaves the
//! process before its fact is stored: answers and calls come behind the commit.

mod background;
mod batch;
mod calls;
mod candidate;
mod catalog;
mod commit;
mod definitions;
pub mod error;
mod follow;
mod launch;
mod list;
mod load;
mod loading;
mod locks;
mod mail;
mod meter;
mod operate;
mod parked;
pub mod participants;
mod published;
pub mod request;
pub mod settings;
mod shard;
mod shared;
mod starts;
mod stats;
mod stuck;
mod summary;
mod sweep;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::Arc;

pub use launch::{LaunchError, Parts};

use crate::saga::ids::SagaId;
use error::EngineError;
use mail::{Accepted, Ask, Mail};
use shared::Shared;

/// The running engine. Clones share it; it is the only way in.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Closes once every shard has ended.
    ended: tokio::sync::watch::Receiver<()>,
}

impl Engine {
    /// Some participant may be reachable that was not: sagas that wait for it look at once.
    pub fn participants_changed(&self) {
        background::tell_all(&self.shared, || Mail::LookAtParked);
    }

    /// Whether recovery has looked at every open saga that does not rest.
    #[must_use]
    pub fn has_recovered(&self) -> bool {
        *self.shared.recovered.borrow()
    }

    async fn ask(&self, id: &SagaId, ask: Ask) -> Result<Accepted, EngineError> {
        let now = self.shared.clock.now();
        self.shared.shard_of(id).mailbox.ask(id.clone(), ask, now).await
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("epoch", &self.shared.fence.epoch).finish_non_exhaustive()
    }
}
