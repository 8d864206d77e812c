//! Descriptor sets that are given with a registration, for services without reflection.

use std::fmt;

use prost::Message as _;
use prost_reflect::DescriptorPool;

use super::files::Files;
use crate::participant::handlers::DESCRIPTOR_SET_MAX_BYTES;

/// A descriptor set and the types in it.
pub struct DescriptorSet {
    bytes: Vec<u8>,
    pub(super) pool: DescriptorPool,
}

impl DescriptorSet {
    /// Reads what `protoc --include_imports -o` or `buf build -o` has written.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub(in crate::participant) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > DESCRIPTOR_SET_MAX_BYTES {
            return Err(format!(
                "has {} bytes, over the limit of {DESCRIPTOR_SET_MAX_BYTES}; make it from the files of this service \
                 alone, without source info",
                bytes.len()
            ));
        }
        let not_one = |problem: String| {
            format!(
                "is no descriptor set ({problem}); make it with `protoc --include_imports -o FILE` or `buf build -o FILE`"
            )
        };
        let set = RawSet::decode(bytes).map_err(|error| not_one(error.to_string()))?;
        let mut files = Files::default();
        for file in &set.files {
            files.add(file).map_err(not_one)?;
        }
        for import in files.missing().imports {
            files.add_well_known(&import);
        }
        let pool = files.pool().map_err(not_one)?;
        if pool.services().len() == 0 {
            return Err(not_one("there is no service in it".to_owned()));
        }
        Ok(Self { bytes: bytes.to_vec(), pool })
    }

    /// As it was given.
    pub(in crate::participant) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for DescriptorSet {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for DescriptorSet {}

impl fmt::Debug for DescriptorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DescriptorSet").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// A `FileDescriptorSet` whose files are still encoded: an edition's features are not in the type.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}
