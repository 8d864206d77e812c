//! Commits to the store on disk, each with a real sync.

use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use divan::counter::ItemsCount;
use sagad::store::sled::{SledOptions, SledStore};
use sagad::store::{Fence, SagaWrite, Store};

use crate::records::life;

/// A commit of this many transitions at once: alone, and as they gather under load.
#[divan::bench(args = [1, 16, 256], sample_count = 50)]
fn commit(bencher: Bencher<'_, '_>, writes: u64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk of the build");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = SledStore::open(SledOptions::new(dir.path())).expect("an empty store");
    let fence = Fence { epoch: store.identity().epoch };
    let next = AtomicU64::new(0);
    let starts = || -> Vec<SagaWrite> {
        let from = next.fetch_add(writes, Ordering::Relaxed);
        (from..from + writes).map(|number| life(0, number).swap_remove(0)).collect()
    };
    bencher.counter(ItemsCount::new(writes)).with_inputs(starts).bench_local_values(|starts| {
        let receipt = runtime.block_on(store.commit(fence, starts)).expect("a commit");
        assert!(receipt.conflicts.is_empty());
    });
    runtime.block_on(store.close()).expect("a good end");
}
