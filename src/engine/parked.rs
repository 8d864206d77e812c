//! Which sagas of a shard wait for which handler of a participant, in the order in which they came.
//!
//! They are woken in that order, and no more of them than the participant lets through: one that is
//! barely back is not run over by all who waited for it.

use std::collections::{BTreeMap, HashMap};

use crate::participant::Dispatch;
use crate::saga::duties::Absent;
use crate::saga::ids::SagaId;

/// The parked sagas of one shard. An entry outlives the saga's stay in memory.
#[derive(Debug, Default)]
pub(super) struct Parked {
    by_handler: HashMap<Absent, BTreeMap<Place, SagaId>>,
    of: HashMap<SagaId, Vec<(Absent, Place)>>,
    next: Place,
    /// The handlers whose sagas are being woken: from which place on, and up to which.
    looks: HashMap<Absent, (Place, Place)>,
}

/// A place in the order; given once.
type Place = u64;

impl Parked {
    /// Sets whom the saga waits for, in place of what was known. Its place behind a handler that it
    /// waits for already stays the same.
    pub(super) fn set(&mut self, id: &SagaId, absent: Vec<Absent>) {
        let known = self.of.get(id).map(Vec::as_slice).unwrap_or_default();
        if known.iter().map(|(handler, _)| handler).eq(&absent) {
            return;
        }
        let known = self.of.remove(id).unwrap_or_default();
        let mut places = Vec::with_capacity(absent.len());
        for handler in absent {
            let kept = known.iter().find(|(old, _)| *old == handler).map(|(_, place)| *place);
            let place = kept.unwrap_or_else(|| {
                self.next += 1;
                self.next
            });
            self.by_handler.entry(handler.clone()).or_default().insert(place, id.clone());
            places.push((handler, place));
        }
        for (handler, place) in known {
            if places.iter().all(|(kept, _)| *kept != handler) {
                self.leave(&handler, place);
            }
        }
        if !places.is_empty() {
            self.of.insert(id.clone(), places);
        }
    }

    /// Forgets the saga.
    pub(super) fn clear(&mut self, id: &SagaId) {
        for (handler, place) in self.of.remove(id).unwrap_or_default() {
            self.leave(&handler, place);
        }
    }

    fn leave(&mut self, handler: &Absent, place: Place) {
        if let Some(sagas) = self.by_handler.get_mut(handler) {
            sagas.remove(&place);
            if sagas.is_empty() {
                self.by_handler.remove(handler);
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

    /// Begins to look whose handlers can be called: once at each who waits now.
    pub(super) fn look(&mut self) {
        self.looks = self.by_handler.keys().map(|handler| (handler.clone(), (0, self.next))).collect();
    }

    /// Whether there may be sagas left to wake.
    pub(super) fn is_looking(&self) -> bool {
        !self.looks.is_empty()
    }

    /// The next sagas to wake, at most `limit`, and of each handler no more than may be called.
    pub(super) fn next_to_wake(&mut self, dispatch: &dyn Dispatch, limit: usize) -> Vec<SagaId> {
        let mut woken = Vec::new();
        let by_handler = &self.by_handler;
        self.looks.retain(|handler, (from, until)| {
            let Some(sagas) = by_handler.get(handler).filter(|_| from <= until) else { return false };
            let left = limit - woken.len();
            if left == 0 {
                return true;
            }
            let places = dispatch.places(&handler.participant, &handler.action).min(left);
            let next = sagas.range(*from..=*until).take(places);
            let before = woken.len();
            for (place, id) in next {
                woken.push(id.clone());
                *from = *place + 1;
            }
            // Nobody is left, or nobody else is let through: then a change is told.
            woken.len() > before
        });
        woken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::BoxFuture;

    use super::*;
    use crate::participant::{Backlog, Outgoing};
    use crate::saga::ids::{ActionName, ParticipantName};
    use crate::saga::input::Reach;
    use crate::saga::words::Outcome;

    /// Lets so many calls through.
    struct Places(AtomicUsize);

    impl Reach for Places {
        fn can_call(&self, participant: &ParticipantName, action: &ActionName) -> bool {
            self.places(participant, action) > 0
        }

        fn places(&self, _: &ParticipantName, _: &ActionName) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Dispatch for Places {
        fn call(&self, _: Outgoing) -> BoxFuture<'static, Outcome> {
            Box::pin(async { Outcome::Unsent(format!("{:?}", Duration::ZERO)) })
        }

        fn first_behind<'p>(&self, _: &'p [ParticipantName]) -> Option<(&'p ParticipantName, Backlog)> {
            None
        }
    }

    fn id(number: usize) -> SagaId {
        SagaId::parse(&format!("saga-{number}")).unwrap()
    }

    fn handler(action: &str) -> Absent {
        Absent {
            participant: ParticipantName::parse("stock").unwrap(),
            action: ActionName::parse(action).unwrap(),
        }
    }

    /// Ten sagas that came one after the other, not in the order of their names.
    fn ten() -> Parked {
        let mut parked = Parked::default();
        (0..10).rev().for_each(|number| parked.set(&id(number), vec![handler("deduct")]));
        parked
    }

    fn names(woken: &[SagaId]) -> Vec<String> {
        woken.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_saga_is_listed_until_it_waits_for_nobody() {
        let mut parked = Parked::default();
        parked.set(&id(1), vec![handler("deduct"), handler("restore")]);
        parked.set(&id(1), vec![handler("restore")]);
        parked.look();
        assert_eq!(parked.next_to_wake(&Places(AtomicUsize::new(9)), 9).len(), 1);
        parked.set(&id(1), Vec::new());
        parked.look();
        assert!(!parked.is_looking() && !parked.contains(&id(1)) && parked.len() == 0);
    }

    #[test]
    fn who_came_first_is_woken_first_and_no_more_than_are_let_through() {
        let mut parked = ten();
        let places = Places(AtomicUsize::new(1));
        parked.look();
        assert_eq!(names(&parked.next_to_wake(&places, 100)), ["saga-9"]);
        // It did not take the place, so the next one is asked.
        assert_eq!(names(&parked.next_to_wake(&places, 100)), ["saga-8"]);
        places.0.store(0, Ordering::SeqCst);
        assert!(parked.next_to_wake(&places, 100).is_empty());
        assert!(!parked.is_looking(), "it waits to be told");
    }

    #[test]
    fn who_is_woken_in_vain_keeps_its_place() {
        let mut parked = ten();
        let places = Places(AtomicUsize::new(2));
        parked.look();
        assert_eq!(names(&parked.next_to_wake(&places, 100)), ["saga-9", "saga-8"]);
        parked.set(&id(9), vec![handler("deduct")]);
        parked.clear(&id(8));
        parked.look();
        assert_eq!(names(&parked.next_to_wake(&places, 100)), ["saga-9", "saga-7"]);
    }

    #[test]
    fn each_is_looked_at_once_however_many_are_let_through() {
        let mut parked = ten();
        let everyone = Places(AtomicUsize::new(usize::MAX));
        parked.look();
        let mut rounds = Vec::new();
        while parked.is_looking() {
            rounds.push(parked.next_to_wake(&everyone, 4).len());
        }
        assert_eq!(rounds, [4, 4, 2, 0]);
    }
}
