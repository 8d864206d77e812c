//! The open sagas by when they must be looked at.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use super::order::{id_key, split_id, split_place, time_key};
use super::packed::PackedId;
use super::{OpenCursor, OpenPage};
use crate::saga::ids::{SagaId, Timestamp};

const AWAKE: u8 = 0;
const RESTING: u8 = 1;

/// When an open saga must be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wake {
    /// Its far wake-up, if it has one.
    pub far: Option<Timestamp>,
    /// Whether it need not be looked at before that.
    pub rests: bool,
}

impl Wake {
    /// Only what has a wake-up can rest until then.
    pub fn of(far: Option<Timestamp>, rests: bool) -> Self {
        Self { far, rests: rests && far.is_some() }
    }
}

/// Which sagas are open, and the far wake-up of those that have one.
#[derive(Debug, Default)]
pub struct OpenSet {
    /// Those that do not rest.
    awake: BTreeSet<PackedId>,
    far: BTreeSet<(Timestamp, PackedId)>,
    resting: usize,
}

impl OpenSet {
    /// All of them at once: quicker than one by one, and smaller.
    pub fn of(sagas: impl Iterator<Item = (PackedId, Wake)>) -> Self {
        let (mut awake, mut far, mut resting) = (Vec::new(), Vec::new(), 0);
        for (id, wake) in sagas {
            if let Some(at) = wake.far {
                far.push((at, id.clone()));
            }
            if wake.rests {
                resting += 1;
            } else {
                awake.push(id);
            }
        }
        Self { awake: BTreeSet::from_iter(awake), far: BTreeSet::from_iter(far), resting }
    }

    /// The saga, which is not in here, is open.
    pub fn put(&mut self, id: PackedId, wake: Wake) {
        if let Some(at) = wake.far {
            self.far.insert((at, id.clone()));
        }
        if wake.rests {
            self.resting += 1;
        } else {
            self.awake.insert(id);
        }
    }

    /// The saga, which was put in here with this wake-up, is not open any more.
    pub fn remove(&mut self, id: PackedId, wake: Wake) {
        if wake.rests {
            self.resting -= 1;
        } else {
            self.awake.remove(&id);
        }
        if let Some(at) = wake.far {
            self.far.remove(&(at, id));
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.awake.len() + self.resting
    }

    /// Those to be looked at by `now`, the most overdue first.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<SagaId> {
        self.far.iter().take_while(|(wake, _)| *wake <= now).take(limit).map(|(_, id)| id.unpack()).collect()
    }

    /// The page behind `cursor`: those that do not rest by id, then the others by wake-up. A cursor
    /// that this type did not make starts from the beginning.
    pub fn page(&self, cursor: Option<&OpenCursor>, limit: usize) -> OpenPage {
        let limit = limit.max(1);
        let mut sagas: Vec<(SagaId, Option<Timestamp>)> = Vec::new();
        let place = cursor.and_then(|cursor| cursor.0.split_first());
        let resting_after = place.filter(|(kind, _)| **kind == RESTING).and_then(|(_, key)| split_place(key));
        if resting_after.is_none() {
            let after = place.and_then(|(_, key)| split_id(key)).map(|(id, _)| PackedId::of(&id));
            let lower = after.as_ref().map_or(Unbounded, Excluded);
            let awake = self.awake.range((lower, Unbounded)).take(limit + 1);
            sagas.extend(awake.map(|id| (id.unpack(), None)));
        }
        if sagas.len() <= limit {
            let after = resting_after.map(|(wake, id, _)| (wake, PackedId::of(&id)));
            let lower = after.as_ref().map_or(Unbounded, Excluded);
            let far = self.far.range((lower, Unbounded)).filter(|(_, id)| !self.awake.contains(id));
            let resting = far.take(limit + 1 - sagas.len());
            sagas.extend(resting.map(|(wake, id)| (id.unpack(), Some(*wake))));
        }
        let more = sagas.len() > limit;
        sagas.truncate(limit);
        let next = if more { sagas.last().map(|(id, wake)| cursor_behind(id, *wake)) } else { None };
        OpenPage { sagas, next }
    }
}

fn cursor_behind(id: &SagaId, wake: Option<Timestamp>) -> OpenCursor {
    let mut key = vec![if wake.is_some() { RESTING } else { AWAKE }];
    if let Some(wake) = wake {
        key.extend_from_slice(&time_key(wake));
    }
    key.extend_from_slice(&id_key(id));
    OpenCursor(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(text: &str) -> PackedId {
        PackedId::of(&SagaId::parse(text).unwrap())
    }

    fn all() -> Vec<(PackedId, Wake)> {
        let wake = |at| Some(Timestamp(at));
        vec![
            (packed("awake"), Wake::of(None, true)),
            (packed("called"), Wake::of(wake(5), false)),
            (packed("late"), Wake::of(wake(9), true)),
            (packed("soon"), Wake::of(wake(2), true)),
        ]
    }

    fn texts(page: &OpenPage) -> Vec<String> {
        page.sagas.iter().map(|(id, wake)| format!("{id} {:?}", wake.map(|at| at.0))).collect()
    }

    #[test]
    fn what_rests_comes_behind_the_others_and_by_its_wake_up() {
        let open = OpenSet::of(all().into_iter());
        let page = open.page(None, 9);
        assert_eq!(texts(&page), ["awake None", "called None", "soon Some(2)", "late Some(9)"]);
        assert_eq!(open.len(), 4);
    }

    #[test]
    fn a_far_wake_up_comes_due_whether_its_saga_rests_or_not() {
        let open = OpenSet::of(all().into_iter());
        let due: Vec<_> = open.due(Timestamp(5), 9).iter().map(ToString::to_string).collect();
        assert_eq!(due, ["soon", "called"]);
    }

    #[test]
    fn one_by_one_comes_to_the_same_as_all_at_once() {
        let (at_once, mut one_by_one) = (OpenSet::of(all().into_iter()), OpenSet::default());
        for (id, wake) in all().into_iter().rev() {
            one_by_one.put(id, wake);
        }
        assert_eq!(texts(&one_by_one.page(None, 9)), texts(&at_once.page(None, 9)));
        for (id, wake) in all() {
            one_by_one.remove(id, wake);
        }
        assert_eq!(one_by_one.len(), 0);
        assert_eq!(one_by_one.due(Timestamp(i64::MAX), 9), Vec::<SagaId>::new());
    }
}
