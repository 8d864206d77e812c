//! The marker: a small file beside the databases that knows what they must at least contain.
//!
//! A database that lost its end, was emptied, or is an older copy opens without complaint. The
//! marker tells: it names the store, its epoch and a commit number that was on stable storage when
//! the marker was written. It is replaced whole (written aside, synced, renamed, directory synced)
//! at most once a second and never on the way of a commit, so what is younger than the marker
//! cannot be missed by it. While a large store is called up it stays as the start wrote it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message;
use uuid::Uuid;

use super::error::OpenError;
use crate::store::codec::{CodecError, decode, frame};

/// The marker's file in the store's directory.
pub const MARKER_FILE: &str = "marker";
const KEY: &[u8] = b"marker";

/// What the databases must at least contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marker {
    /// Which store.
    pub id: Uuid,
    /// The epoch of its last owner.
    pub epoch: u64,
    /// The open database's commit.
    pub commit: u64,
    /// The history's commit.
    pub history_commit: u64,
    /// Open sagas then; for people.
    pub open_sagas: u64,
    /// The databases are being made; nothing was ever acknowledged.
    pub creating: bool,
    /// Damage was found while the daemon served: the next start reads everything first.
    pub suspect: bool,
}

#[derive(Clone, PartialEq, Message)]
struct MarkerForm {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
    #[prost(uint64, tag = "4")]
    history_commit: u64,
    #[prost(uint64, tag = "5")]
    open_sagas: u64,
    #[prost(bool, tag = "6")]
    creating: bool,
    #[prost(bool, tag = "7")]
    suspect: bool,
}

impl Marker {
    /// Reads the marker; `None` when there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(MARKER_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io(&path, "reading the marker", &error)),
        };
        let damaged = |cause: &dyn ToString| OpenError::damaged(dir, &path, cause.to_string());
        let key = frame::part_key(KEY, 0);
        let opened = frame::open(&key, &bytes).map_err(|cause| match cause {
            CodecError::Format { found, known } => OpenError::Format { dir: dir.to_owned(), found, known },
            cause => damaged(&cause),
        })?;
        let form: MarkerForm = decode("the marker", opened.content).map_err(|cause| damaged(&cause))?;
        Ok(Some(Self {
            id: Uuid::from_slice(&form.id).map_err(|cause| damaged(&cause))?,
            epoch: form.epoch,
            commit: form.commit,
            history_commit: form.history_commit,
            open_sagas: form.open_sagas,
            creating: form.creating,
            suspect: form.suspect,
        }))
    }

    /// Puts this marker in the place of the last one, durably.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let form = MarkerForm {
            id: self.id.as_bytes().to_vec(),
            epoch: self.epoch,
            commit: self.commit,
            history_commit: self.history_commit,
            open_sagas: self.open_sagas,
            creating: self.creating,
            suspect: self.suspect,
        };
        let mut rows = frame::seal(KEY, &form.encode_to_vec());
        let (_, bytes) = rows.remove(0);
        let aside: PathBuf = dir.join("marker.new");
        let mut file = File::create(&aside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, dir.join(MARKER_FILE))?;
        sync_dir(dir)
    }
}

/// Makes a directory's entries durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker { epoch: 3, commit: 9, history_commit: 4, open_sagas: 2, suspect: true, ..Marker::default() }
    }

    #[test]
    fn a_marker_reads_back_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
        marker().write(dir.path()).unwrap();
        let later = Marker { commit: 10, ..marker() };
        later.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(later));
    }

    #[test]
    fn any_flipped_bit_of_a_marker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        marker().write(dir.path()).unwrap();
        let path = dir.path().join(MARKER_FILE);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let refused = Marker::read(dir.path()).unwrap_err();
            assert!(matches!(refused, OpenError::Damaged { .. } | OpenError::Format { .. }), "bit {bit}");
        }
    }
}
