//! The write-ahead log in front of the open database: a commit is one write and one sync of it.
//!
//! The engine needs several writes, syncs and woken threads to make a batch durable, and most rows
//! of the open database are gone a moment later. So a batch is appended here, shown from memory
//! (`front.rs`), and what is left of many batches is *folded* into the database later, by a thread of
//! its own.
//!
//! There are two files. A *generation* of batches fills one of them; then it is sealed, folded, and
//! the next but one is written over it, from the front. So a file holds the records of one generation,
//! and behind them perhaps some of an older one, which is folded.
//!
//! ```text
//! record  = magic (u32) | CRC-32 of all behind it (u32) | length of the rows (u64) | store (16 bytes)
//!         | generation (u64) | commit (u64) | rows | zeros up to a multiple of 8
//! row     = key's length (u32) | value's length (u32, the most for none) | key | value
//! ```
//!
//! Rows are whole, and a row without a value is one that is gone: a generation that is folded again,
//! all of it, changes nothing. The database says up to which it is folded ([`Mark`]); commits are
//! numbered without a gap, so a generation or a file that is not there, or is an older copy, is noticed. A
//! record that was being written when the power went is the last one, and was never acknowledged; one that
//! cannot be read and has others behind it is damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use uuid::Uuid;

use super::disk::forget_cached;
use super::error::OpenError;
use super::marker::sync_dir;
use crate::clock::Stopwatch;

/// The files, by the lowest bit of the generation.
const FILES: [&str; 2] = ["wal-0", "wal-1"];
const MAGIC: [u8; 4] = *b"swal";
const HEAD_BYTES: usize = 4 + 4 + 8 + 16 + 8 + 8;
/// Where the checksum begins to count.
const CHECKED_FROM: usize = 8;
/// Where a record's head has these.
const ROWS_LENGTH_AT: usize = 8;
const GENERATION_AT: usize = 32;
const COMMIT_AT: usize = 40;
const ALIGN: usize = 8;
/// Generations that may not be folded: the sealed one, and the one that is written.
const NOT_FOLDED_MAX: u64 = 2;
/// The length of a value that says that the row is gone.
const GONE: u32 = u32::MAX;
/// A file grows by so much: a sync of what lies in room that is there already is quicker.
const GROW_BYTES: u64 = 1024 * 1024;
/// No file is larger: more than twice the largest size that can be configured, and a batch.
const FILE_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// A larger buffer is not kept from one record to the next.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// Up to where the database holds what the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub generation: u64,
    /// The last commit of it.
    pub commit: u64,
}

/// Rows by key; `None` for those that are gone.
pub type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The log of a store, at the place where it goes on.
#[derive(Debug)]
pub struct Wal {
    dir: PathBuf,
    files: [File; 2],
    /// Bytes that each file has room for.
    room: [u64; 2],
    /// Bytes that are set aside for each, and kept when a new generation begins in it.
    reserved: u64,
    store: Uuid,
    generation: u64,
    /// Where the next record goes.
    end: u64,
    buffer: Vec<u8>,
}

impl Wal {
    /// Makes the files of a store that has none, durably. What a file holds is never thrown away.
    pub fn create(dir: &Path) -> Result<(), OpenError> {
        for name in FILES {
            let path = dir.join(name);
            let made = File::options().create(true).write(true).truncate(false).open(&path);
            let length = made.and_then(|file| file.sync_all().and_then(|()| Ok(file.metadata()?.len())));
            let length =
                length.map_err(|error| OpenError::io(&path, "making the write-ahead log", &error))?;
            if length > 0 {
                return Err(OpenError::damaged(dir, &path, "it is there, and no database that knows it"));
            }
        }
        sync_dir(dir).map_err(|error| OpenError::io(dir, "syncing the store's directory", &error))
    }

    /// Opens the files of the store `store`, whose database is folded up to `folded`, and reads what is
    /// not: the rows, up to where they go, and the log to go on with behind it. It must reach at least to
    /// the commit `known`.
    pub fn open(dir: &Path, store: Uuid, folded: Mark, known: u64) -> Result<(Self, Rows, Mark), OpenError> {
        let open = |name: &str| {
            let path = dir.join(name);
            File::options().read(true).write(true).open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => OpenError::damaged(dir, &path, "it is not there"),
                _ => OpenError::io(&path, "opening the write-ahead log", &error),
            })
        };
        let files = [open(FILES[0])?, open(FILES[1])?];
        let mut generations = Vec::new();
        let mut newest = 0;
        for (file, name) in files.iter().zip(FILES) {
            let path = dir.join(name);
            // What a process that was killed had not synced may be read, and is relied on then.
            file.sync_data().map_err(|error| OpenError::io(&path, "fdatasync", &error))?;
            let failed = |error| OpenError::io(&path, "reading", &error);
            let first = read_first(file).map_err(failed)?;
            let found = match Generation::folded(&first, store, folded) {
                Some(found) => Some(found),
                None => Generation::read(&read_whole(file).map_err(failed)?, store, folded)
                    .map_err(|cause| OpenError::damaged(dir, &path, cause))?,
            };
            newest = newest.max(found.as_ref().map_or(0, |found| found.number));
            generations.extend(found.filter(|found| found.number > folded.generation).map(|f| (f, path)));
        }
        if newest < folded.generation {
            let cause = format!(
                "it ends at generation {newest}, and {} was folded into the database: it is an older copy",
                folded.generation
            );
            return Err(OpenError::damaged(dir, &dir.join(FILES[file_of(folded.generation)]), cause));
        }
        generations.sort_by_key(|(found, _)| found.number);
        let (mut rows, mut mark) = (Rows::new(), folded);
        for (found, path) in generations {
            let Generation { number: generation, first, last, rows: newer } = found;
            if (generation, first) != (mark.generation + 1, mark.commit + 1) {
                let cause = format!(
                    "it begins with commit {first} of generation {generation}, and before it the store ends \
                     at commit {} of generation {}: one of the files is an older copy or lost its end",
                    mark.commit, mark.generation
                );
                return Err(OpenError::damaged(dir, &path, cause));
            }
            rows.extend(newer);
            mark = Mark { generation, commit: last };
        }
        if mark.commit < known {
            let cause = format!(
                "it ends at commit {}, and commit {known} was on stable storage: it is an older copy or \
                 lost its end",
                mark.commit
            );
            return Err(OpenError::damaged(dir, &dir.join(FILES[file_of(mark.generation)]), cause));
        }
        let mut room = [0, 0];
        let next = file_of(mark.generation + 1);
        make_room(&files[next], &mut room[next], 1)
            .map_err(|error| OpenError::io(&dir.join(FILES[next]), "making room for the log", &error))?;
        let wal = Self {
            dir: dir.to_owned(),
            files,
            room,
            reserved: 0,
            store,
            generation: mark.generation + 1,
            end: 0,
            buffer: Vec::new(),
        };
        Ok((wal, rows, mark))
    }

    /// Appends a commit's rows; they are on stable storage when it returns, with the time the sync
    /// took. After an error nothing is known of what is stored, and nothing more may be appended.
    pub fn append<'a>(
        &mut self,
        commit: u64,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> io::Result<Duration> {
        self.encode(commit, rows)?;
        let file = file_of(self.generation);
        let end = self.end + self.buffer.len() as u64;
        make_room(&self.files[file], &mut self.room[file], end)?;
        self.files[file].write_all_at(&self.buffer, self.end)?;
        let watch = Stopwatch::start();
        self.files[file].sync_data()?;
        self.end = end;
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        Ok(watch.elapsed())
    }

    /// Sets room aside for generations of so many bytes, so that the files do not grow while there is no more
    /// in them. A disk that has none left has none for the log later.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved = bytes.next_multiple_of(GROW_BYTES);
        self.give_back();
        for (file, room) in self.files.iter().zip(&mut self.room) {
            if let Err(error) = make_room(file, room, self.reserved) {
                tracing::warn!(%error, dir = %self.dir.display(), "no room could be set aside for the log");
            }
        }
    }

    /// Gives back what the file of a generation that has just begun has beyond what is set aside.
    fn give_back(&mut self) {
        let file = file_of(self.generation);
        let shorten = || -> io::Result<()> {
            if self.files[file].metadata()?.len() > self.reserved + GROW_BYTES {
                self.files[file].set_len(self.reserved)?;
            }
            Ok(())
        };
        match shorten() {
            Ok(()) => self.room[file] = self.room[file].min(self.reserved),
            Err(error) => tracing::warn!(%error, path = %self.path().display(), "the log stays so long"),
        }
    }

    fn encode<'a>(
        &mut self,
        commit: u64,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> io::Result<()> {
        let length = |bytes: usize| {
            let length = u32::try_from(bytes).ok().filter(|length| *length != GONE);
            length.ok_or_else(|| io::Error::other("a row is too large for the write-ahead log"))
        };
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.resize(HEAD_BYTES, 0);
        for (key, value) in rows {
            buffer.extend_from_slice(&length(key.len())?.to_be_bytes());
            let value_length = value.map_or(Ok(GONE), |value| length(value.len()))?;
            buffer.extend_from_slice(&value_length.to_be_bytes());
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(value.unwrap_or_default());
        }
        let length = (buffer.len() - HEAD_BYTES) as u64;
        buffer[8..16].copy_from_slice(&length.to_be_bytes());
        buffer[16..32].copy_from_slice(self.store.as_bytes());
        buffer[32..40].copy_from_slice(&self.generation.to_be_bytes());
        buffer[40..48].copy_from_slice(&commit.to_be_bytes());
        let checksum = crc32fast::hash(&buffer[CHECKED_FROM..]);
        buffer[..4].copy_from_slice(&MAGIC);
        buffer[4..8].copy_from_slice(&checksum.to_be_bytes());
        buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
        Ok(())
    }

    /// Bytes of this generation so far.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// The generation that is being written.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Goes on with the next generation, over the one before this one, which must be folded.
    pub fn turn(&mut self) {
        self.generation += 1;
        self.end = 0;
        self.give_back();
    }

    /// The file that is being written.
    pub fn path(&self) -> PathBuf {
        self.dir.join(FILES[file_of(self.generation)])
    }

    /// Bytes of both files.
    pub fn disk_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum()
    }

    /// What a failed append may have left is not shown to the next process.
    pub fn forget_cached(&self) {
        forget_cached(&self.files[file_of(self.generation)], &self.path());
    }
}

fn file_of(generation: u64) -> usize {
    usize::from(generation & 1 == 1)
}

fn length_of(file: &File) -> io::Result<usize> {
    let length = usize::try_from(file.metadata()?.len()).ok().filter(|length| *length <= FILE_BYTES_MAX);
    length.ok_or_else(|| io::Error::other("it is larger than a log ever is"))
}

fn read_up_to(file: &File, end: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; end];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    read_up_to(file, length_of(file)?)
}

/// As much as the first record says that it has.
fn read_first(file: &File) -> io::Result<Vec<u8>> {
    let length = length_of(file)?;
    let head = read_up_to(file, length.min(HEAD_BYTES))?;
    let rows = number(&head, ROWS_LENGTH_AT).and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0);
    read_up_to(file, length.min(HEAD_BYTES.saturating_add(rows)))
}

/// The number in a record's head.
fn number(head: &[u8], at: usize) -> Option<u64> {
    head.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Has the file system set room aside up to `end`.
fn make_room(file: &File, room: &mut u64, end: u64) -> io::Result<()> {
    if end <= *room {
        return Ok(());
    }
    let wanted = end.next_multiple_of(GROW_BYTES);
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, wanted)) {
        // Where that cannot be done, the file grows as it is written.
        Ok(()) | Err(Errno::OPNOTSUPP) => *room = wanted,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// What one file holds.
#[derive(Debug)]
struct Generation {
    number: u64,
    first: u64,
    last: u64,
    rows: Rows,
}

/// A record that is whole.
struct Record<'a> {
    store: Uuid,
    generation: u64,
    commit: u64,
    rows: &'a [u8],
}

impl Generation {
    /// The generation that a file begins with, if it is folded. A newer one would have been written over it,
    /// so nothing else in the file is needed.
    fn folded(first: &[u8], store: Uuid, folded: Mark) -> Option<Self> {
        let is_folded = |of: Uuid, generation: u64| of == store && generation <= folded.generation;
        let Record { generation, commit, .. } = Record::at(first, 0, is_folded)?;
        Some(Self { number: generation, first: commit, last: commit, rows: Rows::new() })
    }

    /// Reads a file's records; `None` when it has none. Rows are read only of what is not folded.
    fn read(bytes: &[u8], store: Uuid, folded: Mark) -> Result<Option<Self>, String> {
        let (mut found, mut at) = (None::<Self>, 0);
        while let Some(record) = Record::at(bytes, at, |_, _| true) {
            if record.store != store {
                return Err(format!("it belongs to the store {}, not to {store}", record.store));
            }
            let Record { generation, commit, rows, .. } = record;
            let found = found.get_or_insert(Self {
                number: generation,
                first: commit,
                last: commit - 1,
                rows: Rows::new(),
            });
            if generation != found.number {
                break;
            }
            if commit != found.last + 1 {
                return Err(format!("commit {commit} comes behind commit {}", found.last));
            }
            found.last = commit;
            if generation > folded.generation {
                read_rows(rows, &mut found.rows)?;
            }
            at += (HEAD_BYTES + rows.len()).next_multiple_of(ALIGN);
        }
        // An older generation may have left records behind, which are folded. A newer one was written
        // behind something that was on stable storage then and cannot be read now.
        let least = found.as_ref().map_or(0, |found| found.number).max(folded.generation + 1);
        let newer = |of: Uuid, generation: u64| {
            of == store && (least..=folded.generation + NOT_FOLDED_MAX).contains(&generation)
        };
        for (words, word) in bytes[at..].chunks_exact(ALIGN).enumerate() {
            let place = at + words * ALIGN;
            if let Some(behind) = word.starts_with(&MAGIC).then(|| Record::at(bytes, place, newer)).flatten()
            {
                let commit = behind.commit;
                return Err(format!(
                    "its record at byte {at} cannot be read, and commit {commit} at byte {place} can"
                ));
            }
        }
        Ok(found)
    }
}

impl<'a> Record<'a> {
    /// The record at this place, if one that is whole begins there, of a store and a generation that are
    /// `wanted`.
    fn at(bytes: &'a [u8], at: usize, wanted: impl Fn(Uuid, u64) -> bool) -> Option<Self> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk::<HEAD_BYTES>()?;
        if head[..4] != MAGIC {
            return None;
        }
        let length = usize::try_from(number(head, ROWS_LENGTH_AT)?).ok()?;
        let (generation, commit) = (number(head, GENERATION_AT)?, number(head, COMMIT_AT)?);
        let store = Uuid::from_slice(&head[16..32]).ok()?;
        if !wanted(store, generation) {
            return None;
        }
        let rows = rest.get(..length)?;
        let checksum = crc32fast::hash(&bytes[at + CHECKED_FROM..at + HEAD_BYTES + length]);
        let is_whole = head[4..8] == checksum.to_be_bytes() && commit > 0;
        is_whole.then_some(Self { store, generation, commit, rows })
    }
}

fn read_rows(mut bytes: &[u8], rows: &mut Rows) -> Result<(), String> {
    let short = || "a record ends within a row".to_owned();
    while !bytes.is_empty() {
        let (key_length, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let (value_length, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (key, rest) =
            rest.split_at_checked(u32::from_be_bytes(*key_length) as usize).ok_or_else(short)?;
        let value_length = u32::from_be_bytes(*value_length);
        let kept = if value_length == GONE { 0 } else { value_length as usize };
        let (value, rest) = rest.split_at_checked(kept).ok_or_else(short)?;
        rows.insert(key.to_vec(), (value_length != GONE).then(|| value.to_vec()));
        bytes = rest;
    }
    Ok(())
}
