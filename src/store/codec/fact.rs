//! Facts as stored: a [`FactsForm`](super::forms::FactsForm) holding those of one commit.

use prost::Message as _;

use super::forms::{FactForm, FactsForm};
use super::{CodecError, decode};
use crate::saga::event::Fact;

/// The facts of one commit as bytes.
#[must_use]
pub fn encode_facts(facts: &[Fact]) -> Vec<u8> {
    FactsForm { facts: facts.iter().map(FactForm::from).collect() }.encode_to_vec()
}

/// Reads back what [`encode_facts`] wrote; every event must be one that this version knows.
pub fn decode_facts(bytes: &[u8]) -> Result<Vec<Fact>, CodecError> {
    decode::<FactsForm>("a list of facts", bytes)?.facts.into_iter().map(Fact::try_from).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::saga::event::Event;
    use crate::saga::room::fact_bytes;
    use proptest::prelude::*;

    /// Written by the first version. It is never written anew: new versions must read it.
    const GOLDEN_V1: &[u8] = include_bytes!("golden/facts-v1.bin");

    #[test]
    fn the_first_versions_journal_is_still_read() {
        let facts = decode_facts(GOLDEN_V1).unwrap();
        assert_eq!(facts, samples::one_fact_of_each());
    }

    #[test]
    fn the_golden_bytes_are_what_is_written_today() {
        assert_eq!(encode_facts(&samples::one_fact_of_each()), GOLDEN_V1);
    }

    /// What the second version writes more. Never written anew either.
    const GOLDEN_V2: &[u8] = include_bytes!("golden/facts-v2.bin");

    #[test]
    fn the_second_versions_journal_is_still_read_and_written() {
        let facts = samples::facts_of_the_second_version();
        assert_eq!(decode_facts(GOLDEN_V2).unwrap(), facts);
        assert_eq!(encode_facts(&facts), GOLDEN_V2);
    }

    #[test]
    fn an_unknown_event_is_an_error_and_not_an_empty_fact() {
        // Field 999 of the fact: an event of some later version.
        let fact = [&[0x08, 1, 0x10, 2][..], &[0xba, 0x3e, 0]].concat();
        let mut bytes = vec![0x0a, u8::try_from(fact.len()).unwrap()];
        bytes.extend(fact);
        assert_eq!(decode_facts(&bytes), Err(CodecError::Unknown { what: "a fact's event" }));
    }

    #[test]
    fn json_text_is_kept_to_the_letter() {
        let text = "{ \"n\": 9007199254740993 ,\"x\":1.10}";
        let fact = Fact {
            seq: 1,
            at: crate::saga::ids::Timestamp(-5),
            event: Event::SagaCommitted { output: crate::saga::json::Json::trusted(text.into()) },
        };
        let read = decode_facts(&encode_facts(&[fact])).unwrap();
        let Event::SagaCommitted { output } = &read[0].event else { panic!("another event") };
        assert_eq!(output.text(), text);
    }

    proptest! {
        #[test]
        fn every_fact_reads_back_as_it_was_written(facts in prop::collection::vec(samples::facts(), 0..6)) {
            prop_assert_eq!(decode_facts(&encode_facts(&facts)).unwrap(), facts);
        }

        #[test]
        fn no_fact_takes_more_than_the_rules_count_for_it(fact in samples::facts()) {
            // A store may put a head of its own before the facts of a commit.
            let stored = 16 + encode_facts(std::slice::from_ref(&fact)).len();
            let counted = fact_bytes(&fact.event);
            prop_assert!(stored <= counted, "{} takes {stored}, counted {counted}", fact.event.type_name());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_facts(&bytes);
        }
    }
}
