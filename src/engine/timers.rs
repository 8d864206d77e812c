//! When which saga of a shard is looked at next.

use std::collections::{BTreeSet, HashMap};

use crate::saga::ids::{SagaId, Timestamp};

/// One wake-up a saga, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Timestamp, SagaId)>,
    of: HashMap<SagaId, Timestamp>,
}

impl Timers {
    /// Sets the saga's wake-up in place of the one it had.
    pub(super) fn set(&mut self, id: &SagaId, wake_at: Option<Timestamp>) {
        if self.of.get(id).copied() == wake_at {
            return;
        }
        self.clear(id);
        if let Some(at) = wake_at {
            self.of.insert(id.clone(), at);
            self.queue.insert((at, id.clone()));
        }
    }

    /// Forgets the saga's wake-up.
    pub(super) fn clear(&mut self, id: &SagaId) {
        if let Some(at) = self.of.remove(id) {
            self.queue.remove(&(at, id.clone()));
        }
    }

    /// The saga's wake-up.
    pub(super) fn of(&self, id: &SagaId) -> Option<Timestamp> {
        self.of.get(id).copied()
    }

    /// The time of the first one.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes out those at or before `now`, at most `limit`.
    pub(super) fn due(&mut self, now: Timestamp, limit: usize) -> Vec<SagaId> {
        let mut due = Vec::new();
        while due.len() < limit && self.queue.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, id)) = self.queue.pop_first() {
                self.of.remove(&id);
                due.push(id);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SagaId {
        SagaId::parse(text).unwrap()
    }

    #[test]
    fn a_saga_has_one_wake_up_and_the_last_one_set_counts() {
        let mut timers = Timers::default();
        timers.set(&id("a"), Some(Timestamp(5)));
        timers.set(&id("a"), Some(Timestamp(9)));
        timers.set(&id("b"), Some(Timestamp(7)));
        assert_eq!(timers.next(), Some(Timestamp(7)));
        assert_eq!(timers.due(Timestamp(8), 10), vec![id("b")]);
        assert_eq!(timers.due(Timestamp(9), 10), vec![id("a")]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn no_more_come_due_at_once_than_asked_for() {
        let mut timers = Timers::default();
        for name in ["a", "b", "c"] {
            timers.set(&id(name), Some(Timestamp(1)));
        }
        assert_eq!(timers.due(Timestamp(1), 2).len(), 2);
        assert_eq!(timers.due(Timestamp(1), 2).len(), 1);
    }
}
