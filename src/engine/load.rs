//! Reading a saga back: its journal, its pinned definition, and the fold of the two.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::catalog::Catalog;
use super::mail::Mail;
use super::shared::Shared;
use crate::saga::apply::replay;
use crate::saga::event::{Event, Fact};
use crate::saga::ids::{SagaId, Timestamp};
use crate::saga::state::Saga;
use crate::store::StoreError;
use crate::tasks::Death;

/// What came of reading a saga.
pub(super) enum Loaded {
    /// Here it is.
    Found {
        saga: Arc<Saga>,
        /// The far wake-up that the store has of it.
        stored_wake: Option<Timestamp>,
    },
    /// There is no such saga.
    Absent,
    /// It is there but does not read back; it is never read as anything else.
    Unreadable(String),
    /// The store did not answer; it may later.
    Failed(StoreError),
}

/// Reads one saga.
pub(super) async fn load(shared: &Shared, id: &SagaId) -> Loaded {
    match shared.store.load(id).await {
        Ok(None) => Loaded::Absent,
        Ok(Some(stored)) => match fold(&shared.catalog, id, &stored.facts) {
            Ok(saga) => Loaded::Found { saga: Arc::new(saga), stored_wake: stored.far_wake },
            Err(reason) => Loaded::Unreadable(reason),
        },
        Err(error @ StoreError::Damaged { .. }) => Loaded::Unreadable(error.to_string()),
        Err(error) => Loaded::Failed(error),
    }
}

/// Reads a saga for its shard after `delay` and posts what came of it. Always posts, unless
/// the daemon stops.
pub(super) fn load_for_shard(shared: &Arc<Shared>, id: SagaId, delay: Duration) {
    let shared = Arc::clone(shared);
    shared.clone().tasks.spawn("load", Death::Logged, async move {
        let stop = shared.tasks.stopping();
        if !delay.is_zero() && stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return;
        }
        let permit = shared.loads.acquire().await;
        let reading = std::panic::AssertUnwindSafe(load(&shared, &id)).catch_unwind();
        let result = reading
            .await
            .unwrap_or_else(|_| Loaded::Unreadable(format!("saga {id}: reading its journal panicked")));
        drop(permit);
        shared.shard_of(&id).mailbox.post(Mail::Loaded { id, result });
    });
}

/// The state a journal leads to, on the version its first fact names.
fn fold(catalog: &Catalog, id: &SagaId, facts: &[Fact]) -> Result<Saga, String> {
    let Some(Event::SagaStarted(started)) = facts.first().map(|fact| &fact.event) else {
        return Err(format!("saga {id}: its journal does not begin with its start"));
    };
    let definition = catalog
        .pinned(&started.definition, started.version, started.digest)
        .map_err(|missing| format!("saga {id}: {missing}"))?;
    replay(facts, definition).map_err(|error| format!("saga {id}: its journal does not fold: {error}"))
}
