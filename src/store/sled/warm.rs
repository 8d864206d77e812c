//! The facts of the records that were written last, so that the next commit of a saga can write its
//! record anew without reading it. One that is not here begins another record instead: nothing is
//! ever read for a write.

use std::collections::HashMap;

use crate::saga::ids::SagaId;

/// Bytes kept at most, about: the batch that goes beyond is the last before all are let go.
const WARM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an entry takes beside its facts.
const ENTRY_BYTES: usize = 128;

/// Facts by saga, encoded.
#[derive(Debug, Default)]
pub struct Warm {
    facts: HashMap<SagaId, Vec<u8>>,
    bytes: usize,
}

impl Warm {
    /// Lets go of everything when it is too much. Only between batches: what a batch has written
    /// must be found by the rest of it.
    pub fn cool(&mut self) {
        if self.bytes > WARM_BYTES_MAX {
            *self = Self::default();
        }
    }

    /// Keeps the facts of a saga's last record.
    pub fn keep(&mut self, id: &SagaId, facts: Vec<u8>) {
        self.forget(id);
        self.bytes += ENTRY_BYTES + facts.len();
        self.facts.insert(id.clone(), facts);
    }

    /// Hands over the facts of a saga's last record, if they are here.
    pub fn take(&mut self, id: &SagaId) -> Option<Vec<u8>> {
        let facts = self.facts.remove(id)?;
        self.bytes -= ENTRY_BYTES + facts.len();
        Some(facts)
    }

    /// The saga is not written any more.
    pub fn forget(&mut self, id: &SagaId) {
        drop(self.take(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_let_go_between_batches() {
        let mut warm = Warm::default();
        let id = |n: usize| SagaId::parse(&n.to_string()).unwrap();
        let many = WARM_BYTES_MAX / (ENTRY_BYTES + 1_000) + 1;
        (0..many).for_each(|n| warm.keep(&id(n), vec![1; 1_000]));
        assert_eq!(warm.take(&id(0)), Some(vec![1; 1_000]));
        warm.keep(&id(0), vec![2; 1_000]);
        warm.cool();
        assert_eq!(warm.take(&id(0)), None);
        warm.keep(&id(1), vec![3]);
        warm.cool();
        assert_eq!(warm.take(&id(1)), Some(vec![3]));
        assert_eq!(warm.bytes, 0);
    }
}
