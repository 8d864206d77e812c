//! Which sagas of a shard wait for which participant.

use std::collections::{BTreeSet, HashMap};

use crate::saga::ids::{ParticipantName, SagaId};
use crate::saga::input::Reach;

/// The parked sagas of one shard. An entry outlives the saga's stay in memory.
#[derive(Debug, Default)]
pub(super) struct Parked {
    by_participant: HashMap<ParticipantName, BTreeSet<SagaId>>,
    of: HashMap<SagaId, Vec<ParticipantName>>,
}

impl Parked {
    /// Sets whom the saga waits for, in place of what was known.
    pub(super) fn set(&mut self, id: &SagaId, participants: Vec<ParticipantName>) {
        if self.of.get(id).map(Vec::as_slice).unwrap_or_default() == participants {
            return;
        }
        self.clear(id);
        for participant in &participants {
            self.by_participant.entry(participant.clone()).or_default().insert(id.clone());
        }
        if !participants.is_empty() {
            self.of.insert(id.clone(), participants);
        }
    }

    /// Forgets the saga.
    pub(super) fn clear(&mut self, id: &SagaId) {
        for participant in self.of.remove(id).unwrap_or_default() {
            if let Some(sagas) = self.by_participant.get_mut(&participant) {
                sagas.remove(id);
                if sagas.is_empty() {
                    self.by_participant.remove(&participant);
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

    /// The sagas whose participant can be called now.
    pub(super) fn callable(&self, reach: &dyn Reach) -> BTreeSet<SagaId> {
        self.by_participant
            .iter()
            .filter(|(participant, _)| reach.can_call(participant))
            .flat_map(|(_, sagas)| sagas.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::input::Everyone;

    #[test]
    fn a_saga_is_listed_until_it_waits_for_nobody() {
        let mut parked = Parked::default();
        let id = SagaId::parse("a").unwrap();
        let stock = ParticipantName::parse("stock").unwrap();
        parked.set(&id, vec![stock]);
        assert_eq!(parked.callable(&Everyone).len(), 1);
        parked.set(&id, Vec::new());
        assert!(parked.callable(&Everyone).is_empty());
        assert!(!parked.contains(&id));
    }
}
