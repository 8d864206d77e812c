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
        status: u8::try_from(form.status)
            .ok()
            .and_then(status_of)
            .ok_or(CodecError::Unknown { what: "a status" })?,
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
    })
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
    }
}
