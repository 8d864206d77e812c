//! The folding thread: brings into the open database what its log has sealed. It waits for nobody, so a
//! writer whose log has overflown may wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::panic_text;
use super::part::Part;
use super::shared::Shared;
use crate::store::StoreError;

/// Works until the folding is ended.
pub fn run(shared: &Shared) {
    fold(shared, Part::fold_sealed);
}

/// Folds what the others have left, when they have ended.
pub fn finish(shared: &Shared) {
    if shared.failed.get().is_none() {
        let last = shared.live.read().commit;
        fold(shared, |open| open.fold_rest(last));
    }
}

fn fold(shared: &Shared, fold: impl FnOnce(&Part) -> Result<(), StoreError>) {
    let folded = catch_unwind(AssertUnwindSafe(|| fold(&shared.open)));
    let folded = folded.unwrap_or_else(|panic| {
        Err(StoreError::SyncFailed { cause: format!("the folder panicked: {}", panic_text(&*panic)) })
    });
    if let Err(error) = folded {
        shared.fail(&error);
        // Nobody needs to wait for it any more.
        shared.open.end_folding();
    }
}
