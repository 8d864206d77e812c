//! The order of lists, as byte strings that sort like it.
//!
//! ```text
//! time  = created_at (i64 with its sign bit flipped, big-endian)
//! place = time | saga id | 0
//! ```
//!
//! The id's terminator keeps ids that are prefixes of others apart; no id contains a zero byte.

use std::ops::Bound;

use super::ListQuery;
use crate::saga::ids::{SagaId, Timestamp};

/// Bytes that sort like the time.
pub fn time_key(time: Timestamp) -> [u8; 8] {
    (time.0.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// The time that [`time_key`] was made of.
pub fn time_of(key: [u8; 8]) -> Timestamp {
    Timestamp((u64::from_be_bytes(key) ^ (1 << 63)).cast_signed())
}

/// A saga id with its terminator.
pub fn id_key(id: &SagaId) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.as_str().len() + 1);
    key.extend_from_slice(id.as_str().as_bytes());
    key.push(0);
    key
}

/// Splits a key that begins with an id into the id and the rest.
pub fn split_id(key: &[u8]) -> Option<(SagaId, &[u8])> {
    let end = key.iter().position(|&byte| byte == 0)?;
    let id = SagaId::parse(std::str::from_utf8(&key[..end]).ok()?).ok()?;
    Some((id, &key[end + 1..]))
}

/// Bytes that sort like (`time`, `id`).
pub fn place_key(time: Timestamp, id: &SagaId) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + id.as_str().len() + 1);
    key.extend_from_slice(&time_key(time));
    key.extend_from_slice(id.as_str().as_bytes());
    key.push(0);
    key
}

/// Splits a key that begins with a place into its parts and the rest.
pub fn split_place(key: &[u8]) -> Option<(Timestamp, SagaId, &[u8])> {
    let (time, rest) = key.split_first_chunk::<8>()?;
    let (id, rest) = split_id(rest)?;
    Some((time_of(*time), id, rest))
}

/// The places that a query wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// From here on.
    pub lower: Bound<Vec<u8>>,
    /// Up to here.
    pub upper: Bound<Vec<u8>>,
}

impl Window {
    /// The window of a query; `None` when nothing can be in it.
    pub fn of(query: &ListQuery) -> Option<Self> {
        let mut lower =
            query.created_from.map_or(Bound::Unbounded, |from| Bound::Included(time_key(from).to_vec()));
        let mut upper =
            query.created_before.map_or(Bound::Unbounded, |to| Bound::Excluded(time_key(to).to_vec()));
        if let Some((time, id)) = &query.after {
            let place = place_key(*time, id);
            let (side, inside) = if query.newest_first {
                let inside = bytes(&upper).is_none_or(|edge| place.as_slice() < edge);
                (&mut upper, inside)
            } else {
                let inside = bytes(&lower).is_none_or(|edge| place.as_slice() >= edge);
                (&mut lower, inside)
            };
            if inside {
                *side = Bound::Excluded(place);
            }
        }
        let empty = matches!((bytes(&lower), bytes(&upper)), (Some(from), Some(to)) if from >= to);
        (!empty).then_some(Self { lower, upper })
    }

    /// Whether the place is inside.
    #[cfg(test)]
    pub fn contains(&self, place: &[u8]) -> bool {
        let after_lower = match &self.lower {
            Bound::Included(edge) => place >= edge.as_slice(),
            Bound::Excluded(edge) => place > edge.as_slice(),
            Bound::Unbounded => true,
        };
        let before_upper = match &self.upper {
            Bound::Included(edge) => place <= edge.as_slice(),
            Bound::Excluded(edge) => place < edge.as_slice(),
            Bound::Unbounded => true,
        };
        after_lower && before_upper
    }
}

fn bytes(bound: &Bound<Vec<u8>>) -> Option<&[u8]> {
    match bound {
        Bound::Included(edge) | Bound::Excluded(edge) => Some(edge),
        Bound::Unbounded => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SagaId {
        SagaId::parse(text).unwrap()
    }

    #[test]
    fn places_sort_like_time_and_then_id() {
        let sorted = [
            (i64::MIN, "z"),
            (-1, "a"),
            (0, "a"),
            (0, "a-"),
            (0, "a/b"),
            (0, "ab"),
            (1, "Z"),
            (i64::MAX, "a"),
        ];
        let keys: Vec<_> = sorted.iter().map(|&(time, text)| place_key(Timestamp(time), &id(text))).collect();
        assert!(keys.is_sorted());
        for (key, (time, text)) in keys.iter().zip(sorted) {
            assert_eq!(split_place(key), Some((Timestamp(time), id(text), &[][..])));
        }
    }

    #[test]
    fn a_cursor_cuts_the_side_that_was_read() {
        let after = Some((Timestamp(5), id("m")));
        let up = Window::of(&ListQuery { after: after.clone(), ..ListQuery::default() }).unwrap();
        let down = Window::of(&ListQuery { after, newest_first: true, ..ListQuery::default() }).unwrap();
        let place = |time, text| place_key(Timestamp(time), &id(text));
        assert!(up.contains(&place(5, "n")) && !up.contains(&place(5, "m")) && !up.contains(&place(4, "z")));
        assert!(down.contains(&place(5, "l")) && !down.contains(&place(5, "m")));
    }

    #[test]
    fn a_cursor_outside_of_the_times_asked_for_changes_nothing() {
        let query = ListQuery {
            after: Some((Timestamp(1), id("m"))),
            created_from: Some(Timestamp(5)),
            ..ListQuery::default()
        };
        let window = Window::of(&query).unwrap();
        assert!(window.contains(&place_key(Timestamp(5), &id("a"))));
        assert!(!window.contains(&place_key(Timestamp(4), &id("a"))));
    }

    #[test]
    fn an_empty_window_is_none() {
        let query = ListQuery {
            created_from: Some(Timestamp(5)),
            created_before: Some(Timestamp(5)),
            ..ListQuery::default()
        };
        assert_eq!(Window::of(&query), None);
    }
}
