//! The frame around every stored row, and records that need more than one row.
//!
//! ```text
//! key   = record key | part (u16, big-endian)
//! value = format (u8) | CRC-32 (u32, big-endian) | parts (u16, big-endian) | content
//! ```
//!
//! The checksum covers the whole key, the format, the number of parts and the content, so that a
//! row that was exchanged with another is noticed like a row that was changed. A record's content
//! is cut at [`ROW_CONTENT_MAX_BYTES`]: larger values would be written to files of their own by the
//! storage engine, which nothing ever syncs.

use super::CodecError;

/// The format that this version writes and the only one it reads. The first kept each commit of a
/// saga in a row of its own.
pub const FORMAT: u8 = 2;
/// Most content bytes in one row.
///
/// The engine's leaf pages hold up to 17 rows, and pages over a quarter segment (128 KiB) become
/// files of their own: 17 rows of this size and their keys stay below that.
pub const ROW_CONTENT_MAX_BYTES: usize = 6 * 1024;
/// Bytes of a record's key that number its rows.
pub const PART_BYTES: usize = 2;
const HEAD_BYTES: usize = 1 + 4 + 2;

/// One row: its key and its framed value.
pub type Row = (Vec<u8>, Vec<u8>);

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    /// How many rows the record has.
    pub parts: u16,
    /// Which of them this is.
    pub part: u16,
    /// This row's share of the content.
    pub content: &'a [u8],
}

/// The rows of a record. Its content must fit into 65,535 rows (384 MiB); the stores cap it far lower.
#[must_use]
pub fn seal(record_key: &[u8], content: &[u8]) -> Vec<Row> {
    if content.len() <= ROW_CONTENT_MAX_BYTES {
        return vec![seal_part(record_key, 0, 1, content)];
    }
    let parts = u16::try_from(content.len().div_ceil(ROW_CONTENT_MAX_BYTES))
        .expect("records are capped at a few MiB before they come here");
    let pieces = content.chunks(ROW_CONTENT_MAX_BYTES);
    (0..parts).zip(pieces).map(|(part, piece)| seal_part(record_key, part, parts, piece)).collect()
}

fn seal_part(record_key: &[u8], part: u16, parts: u16, content: &[u8]) -> Row {
    let key = part_key(record_key, part);
    let mut value = Vec::with_capacity(HEAD_BYTES + content.len());
    value.push(FORMAT);
    value.extend_from_slice(&checksum(&key, FORMAT, parts, content).to_be_bytes());
    value.extend_from_slice(&parts.to_be_bytes());
    value.extend_from_slice(content);
    (key, value)
}

/// The key of one of a record's rows.
#[must_use]
pub fn part_key(record_key: &[u8], part: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(record_key.len() + PART_BYTES);
    key.extend_from_slice(record_key);
    key.extend_from_slice(&part.to_be_bytes());
    key
}

fn checksum(key: &[u8], format: u8, parts: u16, content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(&[format]);
    crc.update(&parts.to_be_bytes());
    crc.update(content);
    crc.finalize()
}

/// How many rows the row's record has; nothing is checked.
#[must_use]
pub fn stored_parts(value: &[u8]) -> u16 {
    value.get(5..7).and_then(<[u8]>::first_chunk).map_or(0, |parts| u16::from_be_bytes(*parts))
}

/// The content of a row that [`open`] has found whole.
#[must_use]
pub fn content(value: &[u8]) -> &[u8] {
    value.get(HEAD_BYTES..).unwrap_or_default()
}

/// The checksum that a row carries; nothing is checked.
#[must_use]
pub fn stored_checksum(value: &[u8]) -> u32 {
    value.get(1..5).and_then(<[u8]>::first_chunk).map_or(0, |crc| u32::from_be_bytes(*crc))
}

/// Checks one row and takes the frame off.
pub fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<Opened<'a>, CodecError> {
    let Some((head, content)) = value.split_first_chunk::<HEAD_BYTES>() else {
        return Err(CodecError::Short { bytes: value.len() });
    };
    let [format, crc @ .., parts_high, parts_low] = *head;
    if format != FORMAT {
        return Err(CodecError::Format { found: format, known: FORMAT });
    }
    let parts = u16::from_be_bytes([parts_high, parts_low]);
    let stored = u32::from_be_bytes(crc);
    let computed = checksum(key, format, parts, content);
    if stored != computed {
        return Err(CodecError::Checksum { stored, computed });
    }
    let part = key.last_chunk::<PART_BYTES>().ok_or(CodecError::Key { family: "any" })?;
    let part = u16::from_be_bytes(*part);
    if part >= parts {
        return Err(CodecError::Rows { missing: part, rows: parts });
    }
    Ok(Opened { parts, part, content })
}

/// Puts a record together from its rows as they come out of the store, in order.
#[derive(Debug, Default)]
pub struct Joiner {
    content: Vec<u8>,
    next: u16,
    parts: u16,
}

impl Joiner {
    /// Takes the next row. The record's content when this was its last row.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        let row = open(key, value)?;
        if row.part != self.next || (self.next > 0 && row.parts != self.parts) {
            return Err(CodecError::Rows { missing: self.next, rows: row.parts });
        }
        self.content.extend_from_slice(row.content);
        self.next += 1;
        self.parts = row.parts;
        if self.next < row.parts {
            return Ok(None);
        }
        self.next = 0;
        Ok(Some(std::mem::take(&mut self.content)))
    }

    /// Whether no record is half read; else the error that says so.
    pub fn finish(&self) -> Result<(), CodecError> {
        if self.next == 0 { Ok(()) } else { Err(CodecError::Rows { missing: self.next, rows: self.parts }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(rows: &[Row]) -> Result<Vec<u8>, CodecError> {
        let mut joiner = Joiner::default();
        let mut whole = None;
        for (key, value) in rows {
            whole = joiner.push(key, value)?;
        }
        joiner.finish()?;
        Ok(whole.expect("a record has at least one row"))
    }

    #[test]
    fn a_small_record_is_one_row_and_reads_back() {
        let rows = seal(b"key", b"content");
        assert_eq!(rows.len(), 1);
        assert_eq!(join(&rows).unwrap(), b"content");
    }

    #[test]
    fn an_empty_record_reads_back() {
        assert_eq!(join(&seal(b"key", b"")).unwrap(), b"");
    }

    #[test]
    fn a_large_record_is_cut_and_reads_back() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let rows = seal(b"key", &content);
        assert_eq!(rows.len(), content.len().div_ceil(ROW_CONTENT_MAX_BYTES));
        assert!(rows.iter().all(|(_, value)| value.len() <= ROW_CONTENT_MAX_BYTES + HEAD_BYTES));
        assert_eq!(join(&rows).unwrap(), content);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (key, value) = seal(b"key", b"content").remove(0);
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_row_under_another_key_is_noticed() {
        let (_, value) = seal(b"key", b"content").remove(0);
        assert!(matches!(open(&part_key(b"kez", 0), &value), Err(CodecError::Checksum { .. })));
    }

    #[test]
    fn the_frame_is_written_as_ever() {
        let (key, value) = (*b"key\0\0", *b"\x02\xd5\xf0\x48\xa6\0\x01content");
        assert_eq!(seal(b"key", b"content"), vec![(key.to_vec(), value.to_vec())]);
        assert_eq!(stored_checksum(&value), 0xd5f0_48a6);
    }

    #[test]
    fn a_missing_row_is_noticed() {
        let rows = seal(b"key", &vec![7; 3 * ROW_CONTENT_MAX_BYTES]);
        assert_eq!(rows.len(), 3);
        for missing in 0..3 {
            let mut some = rows.clone();
            some.remove(missing);
            assert!(matches!(join(&some), Err(CodecError::Rows { .. })), "row {missing}");
        }
    }

    #[test]
    fn another_format_is_refused() {
        let (key, mut value) = seal(b"key", b"content").remove(0);
        value[0] = 1;
        assert_eq!(open(&key, &value), Err(CodecError::Format { found: 1, known: 2 }));
    }
}
