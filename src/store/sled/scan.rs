//! Reading a whole database: what opening a store and verifying it have in common.

use std::ops::Deref;

use super::keys::Family;
use super::part::Part;
use crate::store::StoreError;
use crate::store::codec::CodecError;
use crate::store::codec::frame::{self, Joiner, PART_BYTES, stored_checksum, stored_parts};

/// A row as the engine hands it out.
pub type Stored = (::sled::IVec, ::sled::IVec);

/// A record as it lies in a database.
pub struct Found<'a> {
    pub family: Family,
    /// Its key without the part number.
    pub key: &'a [u8],
    /// Rows seen of it.
    pub rows: usize,
    /// The sum of the checksums that they carry.
    pub sum: u32,
    /// Its content, or why it has none.
    pub content: Result<Content, CodecError>,
}

/// A record's content, as it lies in its only row or put together from several.
pub enum Content {
    Row(::sled::IVec),
    Joined(Vec<u8>),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Row(value) => frame::content(value),
            Self::Joined(content) => content,
        }
    }
}

struct Current {
    /// The key of its first row.
    key: ::sled::IVec,
    joiner: Joiner,
    rows: usize,
    sum: u32,
    result: Option<Result<Content, CodecError>>,
}

impl Current {
    fn new(key: ::sled::IVec) -> Self {
        Self { key, joiner: Joiner::default(), rows: 0, sum: 0, result: None }
    }

    fn record_key(&self) -> &[u8] {
        record_key(&self.key)
    }

    fn push(&mut self, key: &[u8], value: ::sled::IVec) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(stored_checksum(&value));
        match &self.result {
            Some(Err(_)) => {}
            // A row behind a complete record is one too many.
            Some(Ok(_)) => {
                let rows = u16::try_from(self.rows).unwrap_or(u16::MAX);
                self.result = Some(Err(CodecError::Rows { missing: 0, rows }));
            }
            None if self.rows == 1 && stored_parts(&value) == 1 => {
                self.result = Some(frame::open(key, &value).map(drop).map(|()| Content::Row(value)));
            }
            None => {
                let joined = self.joiner.push(key, &value).transpose();
                self.result = joined.map(|joined| joined.map(Content::Joined));
            }
        }
    }

    fn hand_over(self, each: &mut impl FnMut(Found<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let family = Family::of(self.record_key()).ok_or_else(|| StoreError::Damaged {
            what: "a key".to_owned(),
            cause: "it is of no family that any version writes".to_owned(),
        })?;
        let unfinished = || Err(self.joiner.finish().err().unwrap_or(CodecError::Short { bytes: 0 }));
        let content = self.result.unwrap_or_else(unfinished);
        each(Found { family, key: record_key(&self.key), rows: self.rows, sum: self.sum, content })
    }
}

/// The key of a row's record.
fn record_key(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(PART_BYTES)]
}

/// Puts records together from rows that come in order.
#[derive(Default)]
pub struct Records {
    current: Option<Current>,
}

impl Records {
    /// Takes the next row, and hands over the record before it if that is complete now.
    pub fn push(
        &mut self,
        (key, value): Stored,
        each: &mut impl FnMut(Found<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(last) = self.current.take_if(|current| current.record_key() != record_key(&key)) {
            last.hand_over(each)?;
        }
        self.current.get_or_insert_with(|| Current::new(key.clone())).push(&key, value);
        Ok(())
    }

    /// Hands over the last record.
    pub fn finish(
        self,
        each: &mut impl FnMut(Found<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.current.map_or(Ok(()), |last| last.hand_over(each))
    }
}

/// Hands over every record of the rows, whole or with the reason why not.
pub fn records(
    part: &Part,
    rows: impl Iterator<Item = ::sled::Result<Stored>>,
    mut each: impl FnMut(Found<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut records = Records::default();
    for row in rows {
        records.push(row.map_err(|error| part.read_error(&error))?, &mut each)?;
    }
    records.finish(&mut each)
}
