//! How what we keep is turned into bytes and back: one file per family of records.
//!
//! Every stored row is a *frame* (see [`frame`]): a format byte, a checksum over the row's key and
//! content, and the content. The content of nearly every record is a protobuf message of our own,
//! declared by hand in [`forms`]: core types do not derive a wire format, and fields are only ever
//! added, so that a journal of any released version stays readable. What cannot be read (another
//! format, an unknown event, a missing part) is an error and never "nothing".

pub mod fact;
mod fact_read;
mod fact_write;
pub mod forms;
pub mod frame;
pub mod records;
pub mod summary;

#[cfg(test)]
pub mod samples;

use thiserror::Error;

/// Why bytes are not what we once wrote. Trying again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The row is shorter than any frame.
    #[error("the row has only {bytes} bytes")]
    Short { bytes: usize },
    /// The row was written by a version whose format is not known here.
    #[error("the row has format {found}, and this version reads format {known}")]
    Format { found: u8, known: u8 },
    /// The bytes changed, or they stand under another key than they were written under.
    #[error("the checksum does not match: stored {stored:08x}, computed {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
    /// A record of several rows lacks one, or has one too many.
    #[error("row {missing} of {rows} is not there")]
    Rows { missing: u16, rows: u16 },
    /// The content is not the message it should be.
    #[error("{what} cannot be decoded: {cause}")]
    Message { what: &'static str, cause: String },
    /// A part that is always written is not there, or is of a kind this version does not know.
    #[error("{what} is missing or unknown")]
    Unknown { what: &'static str },
    /// A key does not have its family's layout.
    #[error("a key of the family {family} is malformed")]
    Key { family: &'static str },
}

impl CodecError {
    pub(crate) fn message(what: &'static str, cause: &impl ToString) -> Self {
        Self::Message { what, cause: cause.to_string() }
    }
}

/// Decodes a protobuf message of ours.
pub(crate) fn decode<M: prost::Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, CodecError> {
    M::decode(bytes).map_err(|cause| CodecError::message(what, &cause))
}
