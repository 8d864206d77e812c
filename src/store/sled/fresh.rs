//! Which saga ids are surely new, so that nobody needs to look for them.
//!
//! A `UUIDv7` begins with the time it was made. All ids of that form that lie in the store are either
//! at most `floor`, or were noted in `seen` since. So one above the floor that was not noted is
//! nowhere, whoever made it: not in the open database, and not in the history, which need not even
//! be open to know that. Other ids are looked for.
//!
//! The newest id is written with each batch and is the floor of the next start. When `seen` is full,
//! the newest id becomes the floor and `seen` begins anew: it never takes more than a mebibyte.

use std::hash::{DefaultHasher, Hasher as _};

use uuid::Uuid;

use crate::saga::ids::SagaId;
use crate::store::packed::PackedId;

const SEEN_BITS: u64 = 8 * 1024 * 1024;
/// Bits set for each id.
const SEEN_HASHES: u64 = 4;
/// Ids after which one in about five hundred new ones would be looked for in vain.
const SEEN_MAX: usize = 500_000;
/// How an id is written that tells its time: 36 characters, lower case.
const TEXT_BYTES: usize = 36;
const TIME_ORDERED: usize = 7;

/// What is known of the ids in the store.
#[derive(Debug)]
pub struct Fresh {
    floor: Option<Uuid>,
    newest: Option<Uuid>,
    /// A Bloom filter: it may say of an id that it was noted when it was not, never the reverse.
    seen: Box<[u64]>,
    noted: usize,
}

impl Fresh {
    /// For a store whose newest id was this one.
    pub fn above(newest: Option<Uuid>) -> Self {
        Self { floor: newest, newest, seen: vec![0; word(SEEN_BITS)].into(), noted: 0 }
    }

    /// The newest id of those that tell their time.
    pub fn newest(&self) -> Option<Uuid> {
        self.newest
    }

    /// Whether no saga with this id is in the store or on its way there. If not, there may be one.
    pub fn surely_new(&self, id: &SagaId) -> bool {
        let Some(id) = time_ordered(id) else { return false };
        let unseen = |bit: u64| self.seen[word(bit)] & mask(bit) == 0;
        Some(id) > self.floor && bits_of(id).any(unseen)
    }

    /// A saga with this id is about to be stored.
    pub fn note(&mut self, id: &SagaId) {
        let Some(id) = time_ordered(id) else { return };
        self.newest = self.newest.max(Some(id));
        if self.noted == SEEN_MAX {
            self.floor = self.newest;
            self.seen.fill(0);
            self.noted = 0;
        }
        for bit in bits_of(id) {
            self.seen[word(bit)] |= mask(bit);
        }
        self.noted += 1;
    }
}

/// Whether an id tells its time and is above this one, which was the newest at a start. If it is not
/// [surely new](Fresh::surely_new) either, it was noted since; hardly ever it was not.
pub fn is_above(newest: Option<Uuid>, id: &PackedId) -> bool {
    let PackedId::Uuid(bytes) = id else { return false };
    let id = Uuid::from_bytes(*bytes);
    id.get_version_num() == TIME_ORDERED && Some(id) > newest
}

fn time_ordered(id: &SagaId) -> Option<Uuid> {
    let text = id.as_str();
    let plain = text.len() == TEXT_BYTES && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let id = plain.then(|| Uuid::try_parse(text).ok()).flatten()?;
    (id.get_version_num() == TIME_ORDERED).then_some(id)
}

/// Which bits stand for an id.
fn bits_of(id: Uuid) -> impl Iterator<Item = u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    let hash = hasher.finish();
    let (start, step) = (hash >> 32, (hash & 0xffff_ffff) | 1);
    (0..SEEN_HASHES).map(move |nth| (start + nth * step) % SEEN_BITS)
}

fn word(bit: u64) -> usize {
    usize::try_from(bit / 64).expect("the filter is in memory")
}

fn mask(bit: u64) -> u64 {
    1 << (bit % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64, rest: u128) -> SagaId {
        let bits = (u128::from(millis) << 80) | (7 << 76) | (2 << 62) | rest;
        SagaId::parse(&Uuid::from_u128(bits).to_string()).unwrap()
    }

    #[test]
    fn a_new_id_is_new_until_it_is_noted() {
        let mut fresh = Fresh::above(None);
        assert!(fresh.surely_new(&id(5, 1)));
        fresh.note(&id(5, 1));
        assert!(!fresh.surely_new(&id(5, 1)));
        assert!(fresh.surely_new(&id(5, 2)) && fresh.surely_new(&id(4, 1)));
    }

    #[test]
    fn after_a_start_only_ids_above_the_newest_are_new() {
        let mut fresh = Fresh::above(None);
        fresh.note(&id(5, 1));
        fresh.note(&id(3, 1));
        let fresh = Fresh::above(fresh.newest());
        assert!(!fresh.surely_new(&id(5, 1)) && !fresh.surely_new(&id(3, 9)));
        assert!(fresh.surely_new(&id(5, 2)) && fresh.surely_new(&id(6, 0)));
    }

    #[test]
    fn what_was_noted_since_the_start_is_told_from_what_was_there_and_what_never_came() {
        let newest = Uuid::try_parse(id(5, 7).as_str()).ok();
        let mut fresh = Fresh::above(newest);
        fresh.note(&id(5, 8));
        fresh.note(&SagaId::parse("order-1").unwrap());
        let noted = |id: &SagaId| is_above(newest, &PackedId::of(id)) && !fresh.surely_new(id);
        assert!(noted(&id(5, 8)));
        for other in [id(4, 9), id(5, 7), id(5, 9), id(6, 0), SagaId::parse("order-1").unwrap()] {
            assert!(!noted(&other), "{other}");
        }
    }

    #[test]
    fn other_ids_are_never_surely_new() {
        let fresh = Fresh::above(None);
        let upper = id(5, 0xabc).as_str().to_uppercase();
        for text in ["order-1", "a", &upper, "0f8fad5b-d9cb-469f-a165-70867728950e"] {
            assert!(!fresh.surely_new(&SagaId::parse(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn a_full_filter_begins_anew_above_everything_noted() {
        let mut fresh = Fresh::above(None);
        let ids = SEEN_MAX as u64 + 1;
        (0..ids).for_each(|n| fresh.note(&id(n, 1)));
        assert!(!fresh.surely_new(&id(0, 1)) && !fresh.surely_new(&id(ids - 1, 1)));
        assert!(!fresh.surely_new(&id(7, 2)), "below the floor anything may lie");
        let wrong = (ids..ids + 1_000).filter(|n| !fresh.surely_new(&id(*n, 1))).count();
        assert!(wrong < 10, "{wrong} of 1,000 new ids would be looked for");
    }
}
