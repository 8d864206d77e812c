//! A disk that keeps only what it was told to keep.
//!
//! The shim beside this file records what a process does to a folder. [`Disk`] replays that
//! record and says what would be on the platter after the power went: for each file what was
//! synced, and of the rest nothing, or any part of it down to single sectors; names of files count
//! as kept only when their folder was synced.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::support::chance::Chance;

/// What of an unsynced write may be kept, in bytes.
const SECTOR: usize = 512;

const CREATE: u32 = 1;
const WRITE: u32 = 2;
const TRUNCATE: u32 = 3;
const SYNC: u32 = 4;
const RENAME: u32 = 5;
const UNLINK: u32 = 6;
const MKDIR: u32 = 7;
const RMDIR: u32 = 8;
const SYNC_FAILED: u32 = 9;

/// Builds the shim with the machine's C compiler; its path.
pub fn build_shim(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("powercut.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/powercut/shim.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
        .arg(&library)
        .arg(&source)
        .args(["-ldl", "-lpthread"])
        .status()
        .context(
            "the C compiler `cc` could not be run: install gcc (Debian: apt-get install gcc libc6-dev)",
        )?;
    ensure!(status.success(), "cc failed on {}", source.display());
    Ok(library)
}

/// A file, apart from its names.
#[derive(Clone, Default)]
struct Inode {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Truncate(length) => content.resize(*length, 0),
            Change::Write(offset, data) => {
                if content.len() < offset + data.len() {
                    content.resize(offset + data.len(), 0);
                }
                content[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }

    /// Applies some of the change's sectors.
    fn apply_torn(&self, content: &mut Vec<u8>, chance: &mut Chance) {
        match self {
            Change::Truncate(_) => self.apply(content),
            Change::Write(offset, data) => {
                for (n, sector) in data.chunks(SECTOR).enumerate() {
                    if chance.one_in(2) {
                        Change::Write(offset + n * SECTOR, sector.to_vec()).apply(content);
                    }
                }
            }
        }
    }
}

/// What one run of a process did to a folder.
pub struct Disk {
    inodes: Vec<Inode>,
    /// Names as the process sees them, and as the platter has them.
    names: BTreeMap<PathBuf, Entry>,
    kept_names: BTreeMap<PathBuf, Entry>,
    /// Records read.
    pub records: usize,
    /// Syncs among them.
    pub syncs: usize,
    /// Syncs that failed.
    pub failed_syncs: usize,
    /// Writes to the files of databases, and syncs of those.
    pub database: (usize, usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(usize),
    Folder,
}

impl Disk {
    /// A disk that holds the content of `folder`, all of it kept.
    pub fn holding(folder: &Path) -> Result<Self> {
        let mut disk = Self {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            records: 0,
            syncs: 0,
            failed_syncs: 0,
            database: (0, 0),
        };
        let mut open = vec![folder.canonicalize()?];
        while let Some(folder) = open.pop() {
            disk.names.insert(folder.clone(), Entry::Folder);
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    disk.inodes.push(Inode { synced: fs::read(&path)?, unsynced: Vec::new() });
                    disk.names.insert(path, Entry::File(disk.inodes.len() - 1));
                }
            }
        }
        disk.kept_names = disk.names.clone();
        Ok(disk)
    }

    /// Replays the shim's record of a run.
    pub fn replay(&mut self, log: &Path) -> Result<()> {
        let bytes = fs::read(log)?;
        let mut rest = bytes.as_slice();
        while rest.len() >= 24 {
            let number = |from: usize| u32::from_ne_bytes(rest[from..from + 4].try_into().expect("4 bytes"));
            let size = |from: usize| {
                let value = u64::from_ne_bytes(rest[from..from + 8].try_into().expect("8 bytes"));
                usize::try_from(value).expect("a length that fits memory")
            };
            let (kind, path_length, offset, length) = (number(0), number(4) as usize, size(8), size(16));
            let whole = 24 + path_length + length;
            if rest.len() < whole {
                break; // the record that the power went in
            }
            let path = PathBuf::from(std::str::from_utf8(&rest[24..24 + path_length])?);
            self.replay_one(kind, &path, offset, &rest[24 + path_length..whole])?;
            rest = &rest[whole..];
            self.records += 1;
        }
        Ok(())
    }

    fn replay_one(&mut self, kind: u32, path: &Path, offset: usize, data: &[u8]) -> Result<()> {
        if path.file_name().is_some_and(|name| name == "db") {
            self.database.0 += usize::from(kind == WRITE);
            self.database.1 += usize::from(kind == SYNC);
        }
        match kind {
            CREATE => {
                self.inodes.push(Inode::default());
                self.names.insert(path.to_owned(), Entry::File(self.inodes.len() - 1));
            }
            WRITE => self.file(path)?.unsynced.push(Change::Write(offset, data.to_vec())),
            TRUNCATE => self.file(path)?.unsynced.push(Change::Truncate(offset)),
            SYNC => self.sync(path)?,
            SYNC_FAILED => {
                // What was to be synced is lost: a later sync that succeeds does not bring it back.
                self.failed_syncs += 1;
                self.file(path)?.unsynced.clear();
            }
            RENAME => {
                let to = PathBuf::from(std::str::from_utf8(data)?);
                let moved: Vec<(PathBuf, Entry)> = self
                    .names
                    .range(path.to_owned()..)
                    .filter(|(p, _)| p.starts_with(path))
                    .map(|(p, e)| (p.clone(), *e))
                    .collect();
                for (old, entry) in moved {
                    self.names.remove(&old);
                    let tail = old.strip_prefix(path)?;
                    let new = if tail.as_os_str().is_empty() { to.clone() } else { to.join(tail) };
                    self.names.insert(new, entry);
                }
            }
            UNLINK | RMDIR => drop(self.names.remove(path)),
            MKDIR => drop(self.names.insert(path.to_owned(), Entry::Folder)),
            other => bail!("the log has a record of unknown kind {other}"),
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<&mut Inode> {
        match self.names.get(path) {
            Some(Entry::File(inode)) => Ok(&mut self.inodes[*inode]),
            _ => bail!("the log writes to {}, which it never created", path.display()),
        }
    }

    fn sync(&mut self, path: &Path) -> Result<()> {
        self.syncs += 1;
        match self.names.get(path) {
            Some(Entry::File(inode)) => {
                let inode = &mut self.inodes[*inode];
                for change in std::mem::take(&mut inode.unsynced) {
                    change.apply(&mut inode.synced);
                }
            }
            Some(Entry::Folder) => {
                let is_child = |p: &PathBuf| p.parent() == Some(path);
                self.kept_names.retain(|p, _| !is_child(p));
                self.kept_names
                    .extend(self.names.iter().filter(|(p, _)| is_child(p)).map(|(p, e)| (p.clone(), *e)));
            }
            None => bail!("the log syncs {}, which it never created", path.display()),
        }
        Ok(())
    }

    /// Writes to `target` what is left of `folder` after the power went. Unsynced content and names
    /// are gone, or kept by `chance`.
    pub fn cut_power(mut self, folder: &Path, target: &Path, chance: &mut Chance) -> Result<()> {
        let folder = folder.canonicalize()?;
        let names = if chance.one_in(3) { self.names.clone() } else { self.kept_names.clone() };
        let mode = chance.below(3);
        let mut contents: HashMap<usize, Vec<u8>> = HashMap::new();
        for (path, entry) in &names {
            let Ok(inside) = path.strip_prefix(&folder) else { continue };
            let to = target.join(inside);
            match entry {
                Entry::Folder => fs::create_dir_all(&to)?,
                Entry::File(inode) => {
                    let content = contents.entry(*inode).or_insert_with(|| {
                        let inode = &mut self.inodes[*inode];
                        let mut content = std::mem::take(&mut inode.synced);
                        for change in &inode.unsynced {
                            match mode {
                                1 if chance.one_in(2) => change.apply(&mut content),
                                0 | 1 => {}
                                _ => change.apply_torn(&mut content, chance),
                            }
                        }
                        content
                    });
                    if to.parent().is_some_and(Path::is_dir) {
                        fs::write(&to, content)?;
                    }
                }
            }
        }
        fs::create_dir_all(target)?;
        Ok(())
    }
}

#[test]
fn a_cut_disk_keeps_what_was_synced_and_nothing_that_was_not() {
    let base = tempfile::tempdir().unwrap();
    let (folder, target) = (base.path().join("data"), base.path().join("left"));
    fs::create_dir(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let mut disk = Disk::holding(&folder).unwrap();
    let (kept, lost) = (folder.join("kept"), folder.join("lost"));
    disk.replay_one(CREATE, &kept, 0, &[]).unwrap();
    disk.replay_one(WRITE, &kept, 0, b"synced").unwrap();
    disk.replay_one(SYNC, &kept, 0, &[]).unwrap();
    disk.replay_one(SYNC, &folder, 0, &[]).unwrap();
    disk.replay_one(CREATE, &lost, 0, &[]).unwrap();
    disk.replay_one(WRITE, &lost, 0, b"never").unwrap();
    disk.replay_one(SYNC, &lost, 0, &[]).unwrap();
    disk.replay_one(WRITE, &kept, 6, b" and not").unwrap();
    let mut seen_without = false;
    for seed in 0..40 {
        let _ = fs::remove_dir_all(&target);
        let copy = Disk {
            inodes: disk.inodes.clone(),
            names: disk.names.clone(),
            kept_names: disk.kept_names.clone(),
            records: 0,
            syncs: 0,
            failed_syncs: 0,
            database: (0, 0),
        };
        copy.cut_power(&folder, &target, &mut Chance::seeded(seed)).unwrap();
        let content = fs::read(target.join("kept")).unwrap();
        assert!(content.starts_with(b"synced"));
        seen_without |= content == b"synced" && !target.join("lost").exists();
    }
    assert!(seen_without, "what was not synced was kept in every case");
}
