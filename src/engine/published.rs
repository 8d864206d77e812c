//! The sagas of one shard as everybody may see them: each as its last commit left it.
//!
//! The shard alone writes here, after a commit. Readers, waiters and watchers share one watch
//! channel a saga, which says where it stands and when that changes. Whoever waits for an outcome is
//! woken by outcomes only: most sagas have a client that waits for nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::saga::ids::SagaId;
use crate::saga::state::Saga;

/// Follows one saga: its last published state, and a signal when it has committed or ended; with every
/// change behind [`Published::tell_each_change`].
pub(super) type Live = watch::Receiver<Arc<Saga>>;

/// Follows a saga that will not change any more.
pub(super) fn detached(saga: &Arc<Saga>) -> Live {
    watch::channel(Arc::clone(saga)).1
}

/// The published sagas of one shard.
#[derive(Debug, Default)]
pub(super) struct Published {
    sagas: Mutex<HashMap<SagaId, Shown>>,
}

/// A saga as it is shown.
#[derive(Debug)]
struct Shown {
    saga: watch::Sender<Arc<Saga>>,
    /// Whether those who follow it want to hear of each change.
    tells_each_change: bool,
}

impl Shown {
    fn show(&self, next: Arc<Saga>) {
        self.saga.send_if_modified(|saga| {
            let is_told = self.tells_each_change || next.committed != saga.committed || next.is_terminal();
            *saga = next;
            is_told
        });
    }
}

impl Published {
    /// The saga as it stands, when it is in memory.
    pub(super) fn get(&self, id: &SagaId) -> Option<Arc<Saga>> {
        self.sagas.lock().get(id).map(|shown| Arc::clone(&shown.saga.borrow()))
    }

    /// Follows the saga, when it is in memory. It stays there while somebody follows it.
    pub(super) fn follow(&self, id: &SagaId) -> Option<Live> {
        self.sagas.lock().get(id).map(|shown| shown.saga.subscribe())
    }

    /// From now on those who follow the saga hear of each change.
    pub(super) fn tell_each_change(&self, id: &SagaId) {
        if let Some(shown) = self.sagas.lock().get_mut(id) {
            shown.tells_each_change = true;
        }
    }

    /// Shows the saga's new state and follows it.
    pub(super) fn publish(&self, saga: Arc<Saga>) -> Live {
        let mut sagas = self.sagas.lock();
        if let Some(shown) = sagas.get(&saga.id) {
            let live = shown.saga.subscribe();
            shown.show(saga);
            return live;
        }
        let id = saga.id.clone();
        let (sender, live) = watch::channel(saga);
        sagas.insert(id, Shown { saga: sender, tells_each_change: false });
        live
    }

    /// Takes the saga out of memory. Whoever follows it still sees its last state.
    pub(super) fn remove(&self, id: &SagaId) {
        self.sagas.lock().remove(id);
    }

    /// Takes the saga out of memory unless somebody follows it; whether it is out.
    pub(super) fn remove_unless_followed(&self, id: &SagaId) -> bool {
        let mut sagas = self.sagas.lock();
        let followed = sagas.get(id).is_some_and(|shown| shown.saga.receiver_count() > 0);
        if !followed {
            sagas.remove(id);
        }
        !followed
    }

    /// How many sagas are in memory.
    pub(super) fn len(&self) -> usize {
        self.sagas.lock().len()
    }
}
