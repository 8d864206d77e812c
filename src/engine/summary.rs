//! The row a saga shows in lists, and what a commit writes of it.

use crate::saga::ids::Timestamp;
use crate::saga::state::Saga;
use crate::saga::words::Direction;
use crate::store::{FAR_WAKE, Summary};

/// The saga as lists show it.
pub(super) fn summary_of(saga: &Saga) -> Summary {
    Summary {
        id: saga.id.clone(),
        definition: saga.definition.name.clone(),
        version: saga.definition.version,
        digest: saga.definition.digest,
        status: saga.status(),
        backward: saga.direction() == Direction::Backward,
        committed: saga.committed,
        paused: saga.paused.is_some(),
        uncertain: saga.uncertain,
        created_at: saga.created_at,
        updated_at: saga.updated_at,
        ended_at: saga.ended_at,
        labels: saga.labels.clone(),
        failure: saga.failure.clone(),
        seq: saga.seq,
        rests: false,
    }
}

/// The wake-up that is stored with a commit at `at`: only one that is far. Nearer ones come back
/// by loading what is open.
pub(super) fn far_wake(wake_at: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    wake_at.filter(|&wake| wake > at + FAR_WAKE)
}
