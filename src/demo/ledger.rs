//! A participant's ledger: an append-only file, one checksummed line for every call it ruled on.
//!
//! ```text
//! 7c9f1a02 {"balances":{"7":100},"default_balance":0}          the opening, once
//! 1b2e44d0 {"saga":"order-1","step":"deduct-stock/0",…}         one line per call
//! ```
//!
//! A line cut off at the end belongs to a call that was never answered: it is dropped. Damage
//! anywhere else is an error.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::book::{Book, Entry, Opening};
use super::catalogue::{self, Offer};

/// Why a ledger cannot be used. Repeating does not help.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file system said no.
    #[error("{operation} ledger {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// A line in the middle of the file is not what was written.
    #[error("ledger {} is damaged in line {line}: restore it from a copy", path.display())]
    Damaged { path: PathBuf, line: usize },
    /// Nobody of this name is in the catalogue.
    #[error("there is no participant {0:?}: see `sagad shop --help`")]
    UnknownParticipant(String),
}

/// When a line counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage: survives a power cut.
    Synced,
    /// With the operating system: survives the end of the process.
    Written,
}

/// A ledger open for writing.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    durability: Durability,
}

/// A ledger read back: the calls in the order they were ruled on, and the book they add up to.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Every call.
    pub entries: Vec<Entry>,
    /// Balances after the last of them.
    pub book: Book,
}

impl Ledger {
    /// Reads the ledger of participant `name` in folder `dir`. Its owner may be running: the last
    /// line then counts only once it is complete.
    pub fn read(dir: &Path, name: &str) -> Result<Self, LedgerError> {
        let offers = known(name)?;
        let path = path_of(dir, name);
        let text = std::fs::read(&path).map_err(|source| failed("read", &path, source))?;
        let (ledger, _) = parse(&path, &text, offers)?;
        Ok(ledger
            .unwrap_or_else(|| Self { entries: Vec::new(), book: Book::open(offers, Opening::default()) }))
    }
}

impl LedgerFile {
    /// Opens or creates the ledger of participant `name` in folder `dir`. A ledger that exists
    /// keeps the opening it began with.
    pub fn open(
        dir: &Path,
        name: &str,
        opening: &Opening,
        durability: Durability,
    ) -> Result<(Self, Book), LedgerError> {
        let offers = known(name)?;
        let path = path_of(dir, name);
        let io = |operation| {
            let path = path.clone();
            move |source| failed(operation, &path, source)
        };
        std::fs::create_dir_all(dir).map_err(io("make the folder of"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open"))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read"))?;
        let (ledger, whole) = parse(&path, &text, offers)?;
        file.set_len(whole).map_err(io("drop the cut-off line of"))?;
        file.seek(SeekFrom::End(0)).map_err(io("seek in"))?;

        let mut this = Self { path, file, durability };
        let book = if let Some(ledger) = ledger {
            ledger.book
        } else {
            this.write(&line(opening))?;
            Book::open(offers, opening.clone())
        };
        Ok((this, book))
    }

    /// Writes the entries, all at once; they are durable when it returns.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        let text: String = entries.iter().map(line).collect();
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), LedgerError> {
        let io = |operation| {
            let path = self.path.clone();
            move |source| failed(operation, &path, source)
        };
        self.file.write_all(text.as_bytes()).map_err(io("append to"))?;
        match self.durability {
            Durability::Synced => self.file.sync_data().map_err(io("sync")),
            Durability::Written => Ok(()),
        }
    }
}

fn known(name: &str) -> Result<&'static [Offer], LedgerError> {
    catalogue::offers(name).ok_or_else(|| LedgerError::UnknownParticipant(name.to_owned()))
}

fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.ledger"))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Io { operation, path: path.to_owned(), source }
}

fn line(record: &impl Serialize) -> String {
    let json = serde_json::to_string(record).expect("maps with text keys and plain values become JSON");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// Reads whole lines; also gives the length of what is whole. `None` when not even the opening is.
fn parse(path: &Path, text: &[u8], offers: &'static [Offer]) -> Result<(Option<Ledger>, u64), LedgerError> {
    let mut ledger: Option<Ledger> = None;
    let mut whole = 0_u64;
    for (at, raw) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let at_the_end = whole + raw.len() as u64 == text.len() as u64;
        let understood = match &mut ledger {
            None => checked::<Opening>(raw).map(|opening| {
                ledger = Some(Ledger { entries: Vec::new(), book: Book::open(offers, opening) });
            }),
            Some(ledger) => checked::<Entry>(raw).map(|entry| {
                ledger.book.enter(&entry);
                ledger.entries.push(entry);
            }),
        };
        match understood {
            Some(()) => whole += raw.len() as u64,
            None if at_the_end => break,
            None => return Err(LedgerError::Damaged { path: path.to_owned(), line: at + 1 }),
        }
    }
    Ok((ledger, whole))
}

fn checked<T: DeserializeOwned>(raw: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(raw.strip_suffix(b"\n")?).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    let intact = u32::from_str_radix(checksum, 16).ok()? == crc32fast::hash(json.as_bytes());
    if intact { serde_json::from_str(json).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Caller, Deed, Phase, Verdict};
    use super::*;

    fn effect(key: &str) -> Entry {
        let caller = Caller {
            saga: "order-1".to_owned(),
            step: "deduct-stock/0".to_owned(),
            phase: Phase::Action,
            action: "deduct".to_owned(),
            key: key.to_owned(),
            action_key: key.to_owned(),
            attempt: 2,
            epoch: u64::MAX,
        };
        let deed = Deed::Moved { account: "7".to_owned(), amount: -1 };
        Entry { caller, verdict: Verdict::Effect { deed, output: "{}".to_owned() } }
    }

    fn opening(stock: i64) -> Opening {
        Opening { balances: [("7".to_owned(), stock)].into(), default_balance: 0 }
    }

    fn open(dir: &Path, stock: i64) -> (LedgerFile, Book) {
        LedgerFile::open(dir, "stock", &opening(stock), Durability::Synced).unwrap()
    }

    #[test]
    fn a_ledger_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 10).0.append(&[effect("a"), effect("b")]).unwrap();

        let ledger = Ledger::read(dir.path(), "stock").unwrap();
        assert_eq!(ledger.entries, [effect("a"), effect("b")]);
        assert_eq!(ledger.book.balance("7"), 8);
    }

    #[test]
    fn a_reopened_ledger_keeps_its_opening_and_its_effects() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 10).0.append(&[effect("a")]).unwrap();

        let (_, book) = open(dir.path(), 500);
        assert_eq!((book.opening_balance("7"), book.balance("7")), (10, 9));
    }

    #[test]
    fn a_line_cut_off_anywhere_at_the_end_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 10).0.append(&[effect("a")]).unwrap();
        let path = path_of(dir.path(), "stock");
        let first = std::fs::read(&path).unwrap();
        open(dir.path(), 10).0.append(&[effect("b")]).unwrap();
        let both = std::fs::read(&path).unwrap();

        for cut in first.len()..both.len() {
            std::fs::write(&path, &both[..cut]).unwrap();
            let (mut file, book) = open(dir.path(), 10);
            assert_eq!(book.balance("7"), 9, "cut at {cut}");
            file.append(&[effect("c")]).unwrap();
            let ledger = Ledger::read(dir.path(), "stock").unwrap();
            assert_eq!(ledger.entries, [effect("a"), effect("c")], "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_end_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 10).0.append(&[effect("a"), effect("b")]).unwrap();
        let path = path_of(dir.path(), "stock");
        let text = std::fs::read_to_string(&path).unwrap().replacen("order-1", "order-2", 1);
        std::fs::write(&path, text).unwrap();

        let error = Ledger::read(dir.path(), "stock").unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { line: 2, .. }), "{error}");
    }

    #[test]
    fn nobody_can_open_the_ledger_of_a_stranger() {
        let dir = tempfile::tempdir().unwrap();
        let error = Ledger::read(dir.path(), "bank").unwrap_err();
        assert!(error.to_string().contains("\"bank\""), "{error}");
    }
}
