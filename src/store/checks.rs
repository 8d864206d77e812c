//! What every store checks and counts in the same way.

use super::{Counters, ListQuery, SagaWrite, StoreError, Summary};
use crate::saga::event::{Event, Fact};
use crate::saga::ids::{DefinitionName, SagaId, Version};
use crate::saga::words::SagaStatus;

/// Most bytes of one saga's journal.
pub const SAGA_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Refuses a batch that contradicts itself: nothing of it is committed.
pub fn check_batch(batch: &[SagaWrite]) -> Result<(), StoreError> {
    batch.iter().try_for_each(|write| {
        let expected = (write.expected_seq + 1..).zip(&write.facts).all(|(seq, fact)| fact.seq == seq);
        if expected && !write.facts.is_empty() && write.summary.id == write.id {
            return Ok(());
        }
        let cause = format!(
            "the write for saga {} behind sequence {} is not in order; this is a bug of the caller",
            write.id, write.expected_seq
        );
        Err(StoreError::Io { operation: "commit", cause })
    })
}

/// Refuses a write that adds more to a saga's journal than `limit` leaves. A write that ends the
/// saga may always be made, as long as it is no larger than a whole saga: an end must be possible
/// whatever the journal has grown to.
pub fn check_size(
    saga: &SagaId,
    status: SagaStatus,
    (before, added): (usize, usize),
    limit: usize,
) -> Result<(), StoreError> {
    let fits = if status.is_terminal() {
        added <= limit.max(SAGA_BYTES_MAX)
    } else {
        before.saturating_add(added) <= limit
    };
    if fits {
        return Ok(());
    }
    Err(StoreError::TooLarge { saga: saga.clone(), bytes: before.saturating_add(added), limit })
}

/// Whether a journal's facts are numbered from 1 without a gap.
pub fn check_sequence(id: &SagaId, facts: &[Fact]) -> Result<(), StoreError> {
    match (1..).zip(facts).find(|(seq, fact)| fact.seq != *seq) {
        None => Ok(()),
        Some((seq, fact)) => {
            Err(damaged_saga(id, format!("fact {} stands where fact {seq} should be", fact.seq)))
        }
    }
}

/// The error for a saga whose records do not read back.
pub fn damaged_saga(id: &SagaId, cause: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: format!("saga {id}"), cause: cause.into() }
}

/// How many outbox records the facts hold.
pub fn outbox_records(facts: &[Fact]) -> usize {
    facts.iter().filter(|fact| matches!(fact.event, Event::EventEmitted { .. })).count()
}

/// Whether the query wants this row; its window is checked elsewhere.
pub fn wanted(query: &ListQuery, summary: &Summary) -> bool {
    (query.statuses.is_empty() || query.statuses.contains(&summary.status))
        && query.definition.as_ref().is_none_or(|definition| *definition == summary.definition)
}

/// Takes a saga out of the count of one status and puts it into that of another.
pub fn recount(
    counters: &mut Counters,
    definition: &DefinitionName,
    version: Version,
    before: Option<SagaStatus>,
    after: Option<SagaStatus>,
) {
    if before == after {
        return;
    }
    if let Some(status) = before {
        let key = (definition.clone(), version, status);
        match counters.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counters.remove(&key);
            }
        }
    }
    if let Some(status) = after {
        *counters.entry((definition.clone(), version, status)).or_insert(0) += 1;
    }
}
