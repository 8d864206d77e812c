//! Which sagas of a shard wait for which handler of a participant.

use std::collections::{BTreeSet, HashMap};

use crate::saga::duties::Absent;
use crate::saga::ids::SagaId;
use crate::saga::input::Reach;

/// The parked sagas of one shard. An entry outlives the saga's stay in memory.
#[derive(Debug, Default)]
pub(super) struct Parked {
    by_handler: HashMap<Absent, BTreeSet<SagaId>>,
    of: HashMap<SagaId, Vec<Absent>>,
}

impl Parked {
    /// Sets whom the saga waits for, in place of what was known.
    pub(super) fn set(&mut self, id: &SagaId, absent: Vec<Absent>) {
        if self.of.get(id).map(Vec::as_slice).unwrap_or_default() == absent {
            return;
        }
        self.clear(id);
        for handler in &absent {
            self.by_handler.entry(handler.clone()).or_default().insert(id.clone());
        }
        if !absent.is_empty() {
            self.of.insert(id.clone(), absent);
        }
    }

    /// Forgets the saga.
    pub(super) fn clear(&mut self, id: &SagaId) {
        for handler in self.of.remove(id).unwrap_or_default() {
            if let Some(sagas) = self.by_handler.get_mut(&handler) {
                sagas.remove(id);
                if sagas.is_empty() {
                    self.by_handler.remove(&handler);
                }
            }
        }
    }

    /// How many sagas wait.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether the saga waits for anybody.
    pub(super) fn contains(&self, id: &SagaId) -> bool {
        self.of.contains_key(id)
    }

    /// The sagas whose handlers can be called now.
    pub(super) fn callable(&self, reach: &dyn Reach) -> BTreeSet<SagaId> {
        self.by_handler
            .iter()
            .filter(|(handler, _)| reach.can_call(&handler.participant, &handler.action))
            .flat_map(|(_, sagas)| sagas.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::ids::{ActionName, ParticipantName};
    use crate::saga::input::Everyone;

    #[test]
    fn a_saga_is_listed_until_it_waits_for_nobody() {
        let mut parked = Parked::default();
        let id = SagaId::parse("a").unwrap();
        let stock = Absent {
            participant: ParticipantName::parse("stock").unwrap(),
            action: ActionName::parse("deduct").unwrap(),
        };
        parked.set(&id, vec![stock]);
        assert_eq!(parked.callable(&Everyone).len(), 1);
        parked.set(&id, Vec::new());
        assert!(parked.callable(&Everyone).is_empty());
        assert!(!parked.contains(&id));
    }
}
