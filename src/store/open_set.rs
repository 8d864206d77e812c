//! The open sagas by when they must be looked at.

use std::collections::BTreeSet;

use super::order::{id_key, split_id, split_place, time_key};
use super::{OpenCursor, OpenPage};
use crate::saga::ids::{SagaId, Timestamp};

const NEAR: u8 = 0;
const FAR: u8 = 1;

/// Which sagas are open, and the far wake-up of those that have one.
#[derive(Debug, Default)]
pub struct OpenSet {
    near: BTreeSet<SagaId>,
    far: BTreeSet<(Timestamp, SagaId)>,
}

impl OpenSet {
    /// The saga, which is not in here, is open, with this far wake-up.
    pub fn put(&mut self, id: &SagaId, far_wake: Option<Timestamp>) {
        match far_wake {
            None => self.near.insert(id.clone()),
            Some(wake) => self.far.insert((wake, id.clone())),
        };
    }

    /// The saga is not open with this far wake-up any more.
    pub fn remove(&mut self, id: &SagaId, far_wake: Option<Timestamp>) {
        match far_wake {
            None => self.near.remove(id),
            Some(wake) => self.far.remove(&(wake, id.clone())),
        };
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// Those to be looked at by `now`, the most overdue first.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<SagaId> {
        self.far.iter().take_while(|(wake, _)| *wake <= now).take(limit).map(|(_, id)| id.clone()).collect()
    }

    /// The page behind `cursor`: those without a far wake-up by id, then the others by wake-up. A
    /// cursor that this type did not make starts from the beginning.
    pub fn page(&self, cursor: Option<&OpenCursor>, limit: usize) -> OpenPage {
        use std::ops::Bound::{Excluded, Unbounded};
        let limit = limit.max(1);
        let mut sagas: Vec<(SagaId, Option<Timestamp>)> = Vec::new();
        let place = cursor.and_then(|cursor| cursor.0.split_first());
        let far_after = place.filter(|(kind, _)| **kind == FAR).and_then(|(_, key)| split_place(key));
        if far_after.is_none() {
            let after = place.and_then(|(_, key)| split_id(key)).map(|(id, _)| id);
            let lower = after.as_ref().map_or(Unbounded, Excluded);
            let near = self.near.range((lower, Unbounded)).take(limit + 1);
            sagas.extend(near.map(|id| (id.clone(), None)));
        }
        if sagas.len() <= limit {
            let after = far_after.map(|(wake, id, _)| (wake, id));
            let lower = after.as_ref().map_or(Unbounded, Excluded);
            let far = self.far.range((lower, Unbounded)).take(limit + 1 - sagas.len());
            sagas.extend(far.map(|(wake, id)| (id.clone(), Some(*wake))));
        }
        let more = sagas.len() > limit;
        sagas.truncate(limit);
        let next = if more { sagas.last().map(|(id, wake)| cursor_behind(id, *wake)) } else { None };
        OpenPage { sagas, next }
    }
}

fn cursor_behind(id: &SagaId, wake: Option<Timestamp>) -> OpenCursor {
    let mut key = vec![if wake.is_some() { FAR } else { NEAR }];
    if let Some(wake) = wake {
        key.extend_from_slice(&time_key(wake));
    }
    key.extend_from_slice(&id_key(id));
    OpenCursor(key)
}
