//! The row that lists read.
//!
//! ```text
//! content = seq (u64, big-endian) | updated_at (i64, big-endian) | SummaryForm
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;

use super::fact_read::{digest, invalid};
use super::forms::FailureForm;
use super::{CodecError, decode};
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::{Failure, SagaStatus};
use crate::store::Summary;

const HEAD_BYTES: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct SummaryForm {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    definition: String,
    #[prost(uint32, tag = "3")]
    version: u32,
    #[prost(bytes = "vec", tag = "4")]
    digest: Vec<u8>,
    #[prost(uint32, tag = "5")]
    status: u32,
    #[prost(bool, tag = "6")]
    backward: bool,
    #[prost(bool, tag = "7")]
    committed: bool,
    #[prost(bool, tag = "8")]
    paused: bool,
    #[prost(bool, tag = "9")]
    uncertain: bool,
    #[prost(sint64, tag = "10")]
    created_at: i64,
    #[prost(sint64, optional, tag = "11")]
    ended_at: Option<i64>,
    #[prost(btree_map = "string, string", tag = "12")]
    labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "13")]
    failure: Option<FailureForm>,
    #[prost(bool, tag = "14")]
    rests: bool,
}

/// A summary as bytes.
#[must_use]
pub fn encode_summary(summary: &Summary) -> Vec<u8> {
    let form = SummaryForm {
        id: summary.id.to_string(),
        definition: summary.definition.to_string(),
        version: summary.version.0,
        digest: summary.digest.0.to_vec(),
        status: u32::from(status_number(summary.status)),
        backward: summary.backward,
        committed: summary.committed,
        paused: summary.paused,
        uncertain: summary.uncertain,
        created_at: summary.created_at.0,
        ended_at: summary.ended_at.map(|at| at.0),
        labels: summary.labels.as_ref().clone(),
        failure: summary.failure.as_ref().map(FailureForm::from),
        rests: summary.rests,
    };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + form.encoded_len());
    bytes.extend_from_slice(&summary.seq.to_be_bytes());
    bytes.extend_from_slice(&summary.updated_at.0.to_be_bytes());
    form.encode(&mut bytes).expect("a Vec grows as needed");
    bytes
}

/// Reads back what [`encode_summary`] wrote.
pub fn decode_summary(bytes: &[u8]) -> Result<Summary, CodecError> {
    let short = CodecError::Short { bytes: bytes.len() };
    let (seq, rest) = bytes.split_first_chunk::<8>().ok_or(short.clone())?;
    let (updated_at, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
    let form: SummaryForm = decode("a summary", rest)?;
    Ok(Summary {
        id: SagaId::parse(&form.id).map_err(invalid)?,
        definition: DefinitionName::parse(&form.definition).map_err(invalid)?,
        version: Version(form.version),
        digest: digest(&form.digest)?,
        status: known_status(form.status)?,
        backward: form.backward,
        committed: form.committed,
        paused: form.paused,
        uncertain: form.uncertain,
        created_at: Timestamp(form.created_at),
        updated_at: Timestamp(i64::from_be_bytes(*updated_at)),
        ended_at: form.ended_at.map(Timestamp),
        labels: Arc::new(form.labels),
        failure: form.failure.map(Failure::from),
        seq: u64::from_be_bytes(*seq),
        rests: form.rests,
    })
}

/// What is read of a summary when only its saga's place is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The name of its definition; nobody has looked at it yet.
    pub definition: String,
    pub version: Version,
    pub status: SagaStatus,
    pub created_at: Timestamp,
    pub seq: u64,
    pub rests: bool,
}

/// The part of [`SummaryForm`] that [`Standing`] needs; the rest is passed over.
#[derive(Clone, PartialEq, Message)]
struct StandingForm {
    #[prost(string, tag = "2")]
    definition: String,
    #[prost(uint32, tag = "3")]
    version: u32,
    #[prost(uint32, tag = "5")]
    status: u32,
    #[prost(sint64, tag = "10")]
    created_at: i64,
    #[prost(bool, tag = "14")]
    rests: bool,
}

/// Reads a part of what [`encode_summary`] wrote, for a tenth of the time.
pub fn decode_standing(bytes: &[u8]) -> Result<Standing, CodecError> {
    let short = CodecError::Short { bytes: bytes.len() };
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(short.clone())?;
    let seq = head.first_chunk().ok_or(short)?;
    let form: StandingForm = decode("a summary", rest)?;
    Ok(Standing {
        definition: form.definition,
        version: Version(form.version),
        status: known_status(form.status)?,
        created_at: Timestamp(form.created_at),
        seq: u64::from_be_bytes(*seq),
        rests: form.rests,
    })
}

fn known_status(number: u32) -> Result<SagaStatus, CodecError> {
    u8::try_from(number).ok().and_then(status_of).ok_or(CodecError::Unknown { what: "a status" })
}

/// The number a status is stored as.
#[must_use]
pub fn status_number(status: SagaStatus) -> u8 {
    match status {
        SagaStatus::Running => 1,
        SagaStatus::Committed => 2,
        SagaStatus::Completed => 3,
        SagaStatus::Compensating => 4,
        SagaStatus::Compensated => 5,
        SagaStatus::Blocked => 6,
        SagaStatus::Abandoned => 7,
    }
}

/// The status stored as `number`, if this version knows it.
#[must_use]
pub fn status_of(number: u8) -> Option<SagaStatus> {
    SagaStatus::ALL.into_iter().find(|&status| status_number(status) == number)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use proptest::prelude::*;

    const GOLDEN_V1: &[u8] = include_bytes!("golden/summary-v1.bin");

    #[test]
    fn the_first_versions_summary_is_still_read() {
        assert_eq!(decode_summary(GOLDEN_V1).unwrap(), samples::summary());
    }

    #[test]
    fn an_unknown_status_is_an_error() {
        assert_eq!(status_of(0), None);
        assert_eq!(status_of(8), None);
    }

    proptest! {
        #[test]
        fn every_summary_reads_back_as_it_was_written(summary in samples::summaries()) {
            prop_assert_eq!(decode_summary(&encode_summary(&summary)).unwrap(), summary);
        }

        #[test]
        fn what_is_read_of_a_part_is_what_the_whole_says(summary in samples::summaries()) {
            let standing = decode_standing(&encode_summary(&summary)).unwrap();
            prop_assert_eq!(standing.definition, summary.definition.as_str());
            prop_assert_eq!(
                (standing.version, standing.status, standing.created_at, standing.seq, standing.rests),
                (summary.version, summary.status, summary.created_at, summary.seq, summary.rests)
            );
        }
    }
}
