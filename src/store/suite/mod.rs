//! The tests that every store must pass. A store's own tests give a [`Bench`] and name it to
//! [`store_suite`].

pub mod keeping;
pub mod listing;
pub mod write;

use super::{Fence, Receipt, SagaWrite, Store, StoreError};

/// A store to be tested, and how to open it again.
pub(crate) trait Bench: Sized {
    /// A new, empty store.
    async fn create() -> Self;
    /// The same store, opened by its next owner.
    async fn reopen(self) -> Self;
    /// The store.
    fn store(&self) -> &dyn Store;
}

/// Commits under the store's own epoch.
pub(crate) async fn try_commit(bench: &impl Bench, batch: Vec<SagaWrite>) -> Result<Receipt, StoreError> {
    let store = bench.store();
    store.commit(Fence { epoch: store.identity().epoch }, batch).await
}

/// Commits a batch that must be taken whole.
pub(crate) async fn commit(bench: &impl Bench, batch: &[SagaWrite]) {
    let receipt = try_commit(bench, batch.to_vec()).await.unwrap();
    assert_eq!(receipt.conflicts, Vec::new());
}

/// Makes a test of each case for the given bench.
macro_rules! store_suite {
    ($bench:ty) => {
        suite::store_suite!($bench, keeping:
            a_started_saga_is_loaded_whole,
            a_saga_that_never_was_is_none,
            a_batch_is_stored_together,
            a_wrong_sequence_is_left_out_and_named,
            a_second_start_is_a_conflict,
            a_start_over_an_ended_saga_is_a_conflict,
            a_conflict_leaves_locks_and_counters_alone,
            a_batch_out_of_order_stores_nothing,
            an_older_fence_commits_nothing,
            many_commits_at_once_all_land,
            facts_come_in_pages,
            a_large_input_survives,
            a_saga_over_the_limit_is_refused,
            a_saga_at_the_limit_can_still_be_ended,
            ids_that_begin_alike_do_not_mix,
            a_late_write_keeps_an_ended_saga_ended,
            reopening_keeps_everything,
            reopening_raises_the_epoch,
            lock_tickets_are_taken_and_given_back,
            far_wake_ups_come_due_in_order,
            open_sagas_come_in_pages,
            definitions_are_kept,
            registrations_are_kept,
            pauses_are_kept,
            old_ended_sagas_are_deleted,
            an_id_can_be_used_again_when_its_saga_was_deleted,
            outbox_records_are_counted,
            a_closed_store_says_so,
        );
        suite::store_suite!($bench, listing:
            lists_are_ordered_by_creation_and_id,
            pages_follow_each_other_without_gaps,
            lists_are_cut_by_time,
            lists_are_filtered,
            the_row_shows_the_last_fact,
            a_list_during_endings_shows_each_saga_once,
            counters_follow_the_statuses,
        );
    };
    ($bench:ty, $module:ident: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                suite::$module::$case::<$bench>().await;
            }
        )*
    };
}
pub(crate) use store_suite;
