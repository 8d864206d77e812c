//! Who holds which lock key, and who waits: FIFO, all keys or none, no deadlock possible.
//!
//! A ticket stands in the queues of all its keys from the moment it is taken, and tickets only
//! grow, so every queue has the same order. A ticket holds its keys when it is first in each of
//! its queues; being first in one of them reserves that key. The lowest ticket of all is first
//! everywhere, so something can always move.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ids::{LockKey, SagaId};

/// The queues of all lock keys of one daemon.
#[derive(Debug, Default)]
pub struct LockTable {
    queues: HashMap<LockKey, BTreeSet<u64>>,
    tickets: BTreeMap<u64, Ticket>,
    by_saga: HashMap<SagaId, u64>,
}

#[derive(Debug)]
struct Ticket {
    saga: SagaId,
    keys: Vec<LockKey>,
}

impl LockTable {
    /// Puts `saga` into the queues of `keys` under `ticket`; whether it holds them all at once.
    pub fn enqueue(&mut self, ticket: u64, saga: SagaId, keys: &[LockKey]) -> bool {
        for key in keys {
            self.queues.entry(key.clone()).or_default().insert(ticket);
        }
        self.by_saga.insert(saga.clone(), ticket);
        self.tickets.insert(ticket, Ticket { saga, keys: keys.to_vec() });
        self.holds(ticket)
    }

    /// Takes `ticket` out of all its queues; the sagas that hold all their keys because of it.
    pub fn release(&mut self, ticket: u64) -> Vec<SagaId> {
        let held = self.holds(ticket);
        let Some(Ticket { saga, keys }) = self.tickets.remove(&ticket) else { return Vec::new() };
        if self.by_saga.get(&saga) == Some(&ticket) {
            self.by_saga.remove(&saga);
        }
        let mut candidates = BTreeSet::new();
        for key in &keys {
            let Some(queue) = self.queues.get_mut(key) else { continue };
            let was_first = queue.first() == Some(&ticket);
            queue.remove(&ticket);
            match queue.first() {
                None => drop(self.queues.remove(key)),
                Some(&next) if was_first || held => drop(candidates.insert(next)),
                Some(_) => {}
            }
        }
        let granted = candidates.into_iter().filter(|&next| self.holds(next));
        granted.filter_map(|next| self.tickets.get(&next)).map(|next| next.saga.clone()).collect()
    }

    /// Whether `ticket` holds all its keys.
    #[must_use]
    pub fn holds(&self, ticket: u64) -> bool {
        self.tickets.contains_key(&ticket) && self.blocked_on(ticket).is_none()
    }

    /// The first key (in sorted order) that another saga holds or reserves before `ticket`.
    #[must_use]
    pub fn blocked_on(&self, ticket: u64) -> Option<&LockKey> {
        let is_first = |key: &LockKey| self.queues.get(key).and_then(BTreeSet::first) == Some(&ticket);
        self.tickets.get(&ticket)?.keys.iter().find(|key| !is_first(key))
    }

    /// The ticket of `saga`, if it holds or waits for locks.
    #[must_use]
    pub fn ticket_of(&self, saga: &SagaId) -> Option<u64> {
        self.by_saga.get(saga).copied()
    }

    /// Tickets that hold or wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether nobody holds or waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn saga(n: u64) -> SagaId {
        SagaId::parse(&format!("saga-{n}")).unwrap()
    }

    fn keys(list: &[u8]) -> Vec<LockKey> {
        let sorted: BTreeSet<u8> = list.iter().copied().collect();
        sorted.iter().map(|k| LockKey::parse(&format!("key/{k}")).unwrap()).collect()
    }

    #[test]
    fn a_waiter_takes_all_its_keys_or_none_and_newcomers_do_not_overtake() {
        let mut table = LockTable::default();
        assert!(table.enqueue(1, saga(1), &keys(&[1])));
        assert!(!table.enqueue(2, saga(2), &keys(&[1, 2])));
        assert!(!table.enqueue(3, saga(3), &keys(&[2])), "saga 2 has reserved key 2");
        assert_eq!(table.blocked_on(2), Some(&keys(&[1])[0]));
        assert_eq!(table.release(1), [saga(2)]);
        assert_eq!(table.release(2), [saga(3)]);
        assert!(table.release(3).is_empty() && table.is_empty());
    }

    #[test]
    fn a_waiter_that_gives_up_lets_those_behind_it_through() {
        let mut table = LockTable::default();
        table.enqueue(1, saga(1), &keys(&[1]));
        table.enqueue(2, saga(2), &keys(&[1, 2]));
        table.enqueue(3, saga(3), &keys(&[2]));
        assert_eq!(table.release(2), [saga(3)]);
        assert!(table.holds(1) && table.holds(3));
    }

    proptest! {
        #[test]
        fn no_key_has_two_holders_and_everyone_gets_a_turn(
            wants in prop::collection::vec(prop::collection::vec(0u8..6, 1..4), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut table = LockTable::default();
            let mut holders = BTreeSet::new();
            let by_name: HashMap<SagaId, u64> = (0..wants.len() as u64).map(|n| (saga(n), n)).collect();
            for (ticket, list) in (0u64..).zip(&wants) {
                if table.enqueue(ticket, saga(ticket), &keys(list)) {
                    holders.insert(ticket);
                }
            }
            for pick in order {
                let mut held = BTreeSet::new();
                for holder in &holders {
                    for key in keys(&wants[usize::try_from(*holder).unwrap()]) {
                        prop_assert!(held.insert(key), "two sagas hold the same key");
                    }
                }
                if table.is_empty() {
                    break;
                }
                prop_assert!(!holders.is_empty(), "nobody can move");
                let leaving = *pick.get(&holders.iter().copied().collect::<Vec<_>>());
                holders.remove(&leaving);
                for granted in table.release(leaving) {
                    prop_assert!(holders.insert(by_name[&granted]), "granted twice");
                }
            }
            prop_assert!(table.is_empty());
        }
    }
}
