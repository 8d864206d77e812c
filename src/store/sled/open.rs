//! Opening a store: make it, or find it whole, or refuse it.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::census::Census;
use super::disk::with_ballast;
use super::error::{OpenError, panic_text};
use super::front::Front;
use super::keeper::Findings;
use super::keys::{self, Family};
use super::live::Live;
use super::marker::{MARKER_FILE, Marker, sync_dir};
use super::part::{Changes, DATA_FILE, Part};
use super::records::{SENTINEL, SENTINEL_LOGGED, Tail, decode_identity, encode_identity, encode_mark};
use super::roll::{Alone, Meanwhile, Written, call_roll};
use super::wal::{Mark, Wal};
use super::{HISTORY_DIR, OPEN_DIR, SledOptions, compact};
use crate::clock::Stopwatch;
use crate::store::codec::frame;
use crate::store::{StoreError, StoreIdentity};

const LOCK_FILE: &str = "lock";
/// How long a lock may linger that another process has just let go of.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A store that was found whole, now ours.
pub struct Opened {
    pub lock: File,
    pub identity: StoreIdentity,
    pub part: Part,
    pub census: Census,
    pub findings: Findings,
    /// What its sagas are held against when they are called up in the background.
    pub uncalled: Option<Written>,
}

/// Opens the store, makes it when there is none, and raises its epoch durably.
pub fn open(options: &SledOptions) -> Result<Opened, OpenError> {
    let dir = &options.dir;
    fs::create_dir_all(dir).map_err(|error| OpenError::io(dir, "creating the store's directory", &error))?;
    let lock = lock(dir)?;
    compact::finish_swap(dir)?;
    let marker = match find(dir)? {
        Some(marker) => marker,
        None => create(options)?,
    };
    let (mut part, mut log) = with_ballast(dir, || open_folded(dir, options.cache_bytes, &marker))?;
    log.reserve(options.wal_bytes);
    let (identity, mut census, called) = read_checked(options, &part, &marker)?;
    let written = census.written();
    let open_sagas = written.open;
    let mut findings = Findings::of(&written, &census.deleting);
    let uncalled = match called {
        Some(called) => {
            findings.note(&called);
            census.live.take_up(called);
            None
        }
        None => Some(written),
    };
    let identity = StoreIdentity { epoch: identity.epoch + 1, ..identity };
    part.log_to(Front::new(log, options.wal_bytes));
    census.tail.commit += 1;
    census.live.commit = census.tail.commit;
    let mut changes = Changes::default();
    changes.overwrite(frame::seal(&keys::identity(), &encode_identity(&identity)));
    changes.overwrite(frame::seal(&keys::tail(), &census.tail.encode()));
    part.apply(census.tail.commit, changes)
        .map_err(|error| OpenError::io(part.dir(), "raising the epoch", &error))?;
    let marker = Marker { epoch: identity.epoch, commit: census.tail.commit, open_sagas, ..marker };
    write_marker(dir, &marker)?;
    findings.marker = Some(marker);
    Ok(Opened { lock, identity, part, census, findings, uncalled })
}

/// One process at a time; waits a moment for one that is just leaving.
pub fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| OpenError::io(&path, "opening the lock file", &error))?;
    let waiting = Stopwatch::start();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if waiting.elapsed() > LOCK_WAIT {
            return Err(OpenError::Locked { dir: dir.to_owned() });
        }
        std::thread::sleep(LOCK_RETRY);
    }
    Ok(file)
}

/// The marker of a store that is there; `None` when there is none and one may be made.
pub fn find(dir: &Path) -> Result<Option<Marker>, OpenError> {
    let marker = Marker::read(dir)?;
    let missing = [OPEN_DIR, HISTORY_DIR].map(|name| dir.join(name).join(DATA_FILE)).into_iter();
    let missing: Vec<_> = missing.filter(|data| !data.exists()).collect();
    match (marker, missing.first()) {
        (None, _) if missing.len() == 2 => Ok(None),
        (None, _) => {
            let file = dir.join(MARKER_FILE);
            Err(OpenError::damaged(dir, &file, "the marker is not there, but databases are"))
        }
        (Some(marker), _) if marker.creating => {
            for name in [OPEN_DIR, HISTORY_DIR].map(|name| dir.join(name)) {
                if name.exists() {
                    fs::remove_dir_all(&name)
                        .map_err(|error| OpenError::io(&name, "removing a half-made database", &error))?;
                }
            }
            Ok(None)
        }
        (Some(_), Some(data)) => {
            Err(OpenError::damaged(dir, data, "the database is not there, but its marker is"))
        }
        (Some(marker), None) => Ok(Some(marker)),
    }
}

fn create(options: &SledOptions) -> Result<Marker, OpenError> {
    let dir = &options.dir;
    let mut token_secret = [0; 32];
    token_secret[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    token_secret[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    let identity = StoreIdentity { id: uuid::Uuid::new_v4(), token_secret, epoch: 0 };
    let marker = Marker { id: identity.id, creating: true, ..Marker::default() };
    write_marker(dir, &marker)?;
    for name in [OPEN_DIR, HISTORY_DIR] {
        let part = Part::open(dir, name, options.history_cache_bytes)?;
        let mut changes = Changes::default();
        changes.overwrite(frame::seal(&keys::sentinel(), SENTINEL));
        changes.overwrite(frame::seal(&keys::identity(), &encode_identity(&identity)));
        changes.overwrite(frame::seal(&keys::tail(), &Tail::default().encode()));
        part.store(&changes).map_err(|error| OpenError::io(part.dir(), "writing a new database", &error))?;
        part.settle()?;
        part.close();
    }
    if let Some(parent) = dir.parent().filter(|parent| parent.is_dir()) {
        sync_dir(parent).map_err(|error| OpenError::io(parent, "syncing the parent directory", &error))?;
    }
    let marker = Marker { creating: false, ..marker };
    write_marker(dir, &marker)?;
    Ok(marker)
}

fn write_marker(dir: &Path, marker: &Marker) -> Result<(), OpenError> {
    let written = marker.write(dir);
    written.map_err(|error| OpenError::io(&dir.join(MARKER_FILE), "writing the marker", &error))
}

/// Opens the open database of the marker's store and brings into it what only its log holds; the log goes
/// on behind that. A database that has none yet is given one.
pub fn open_folded(dir: &Path, cache_bytes: u64, marker: &Marker) -> Result<(Part, Wal), OpenError> {
    let part = Part::open(dir, OPEN_DIR, cache_bytes)?;
    let has_log = guarded(&part, || {
        check_owner(&part, marker)?;
        part.check_sentinel()
    })?;
    let folded = if has_log { guarded(&part, || part.folded())? } else { give_log(dir, &part)? };
    let (log, rows, mark) = Wal::open(dir, marker.id, folded, marker.commit)?;
    if mark != folded {
        let rows = rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        part.fold(rows, mark).map_err(|error| OpenError::io(part.dir(), "folding the log", &error))?;
    }
    Ok((part, log))
}

/// The files are there before the database says so.
fn give_log(dir: &Path, part: &Part) -> Result<Mark, OpenError> {
    Wal::create(dir)?;
    let folded = Mark { generation: 0, commit: guarded(part, || part.tail())?.commit };
    let mut changes = Changes::default();
    changes.overwrite(frame::seal(&keys::sentinel(), SENTINEL_LOGGED));
    changes.overwrite(frame::seal(&keys::folded(), &encode_mark(folded)));
    part.store(&changes).map_err(|error| OpenError::io(part.dir(), "noting that there is a log", &error))?;
    Ok(folded)
}

/// Reads something of a database that is being opened; what is wrong with it, or a panic, refuses the store.
pub fn guarded<T>(part: &Part, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, OpenError> {
    let file = part.data_file();
    let dir = part.dir().parent().unwrap_or(part.dir());
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(StoreError::Damaged { cause, what })) => {
            Err(OpenError::damaged(dir, &file, format!("{what}: {cause}")))
        }
        Ok(Err(error)) => Err(OpenError::io(&file, "reading the database", &error)),
        Err(panic) => Err(OpenError::damaged(dir, &file, panic_text(&*panic))),
    }
}

/// Reads the open database and compares it with the marker and with its own numbers. Its sagas are
/// read too, unless they are many and nothing was found wrong with the store before.
fn read_checked(
    options: &SledOptions,
    part: &Part,
    marker: &Marker,
) -> Result<(StoreIdentity, Census, Option<Live>), OpenError> {
    guarded(part, || {
        let identity = check_identity(part, marker)?;
        let census = Census::take(part)?;
        if let Some(cause) = census.contradiction() {
            return Err(part.contradicted(cause));
        }
        let is_large = census.tail.rows.of(Family::Saga) > options.roll_ahead_rows;
        let is_left = is_large && !marker.suspect;
        let called = if is_left { None } else { Some(called_up(part, &census.written(), &Alone)?) };
        Ok((identity, census, called))
    })
}

/// The sagas of the open database, all that were written or an error.
pub fn called_up(part: &Part, written: &Written, meanwhile: &dyn Meanwhile) -> Result<Live, StoreError> {
    let roll = call_roll(part, meanwhile)?;
    for (saga, cause) in &roll.damaged {
        tracing::error!(%saga, cause, "this saga cannot be read; it is left alone until it is repaired");
    }
    roll.contradiction(written).map_or_else(|| Ok(Live::of(roll)), |cause| Err(part.contradicted(cause)))
}

/// Whether the database is the marker's, and at least as far as the marker.
pub fn check_identity(part: &Part, marker: &Marker) -> Result<StoreIdentity, StoreError> {
    let identity = check_owner(part, marker)?;
    let tail = part.tail()?;
    if identity.epoch < marker.epoch || tail.commit < marker.commit {
        let cause = format!(
            "it ends at commit {} of epoch {}, and commit {} of epoch {} was on stable storage: it is an \
             older copy or lost its end",
            tail.commit, identity.epoch, marker.commit, marker.epoch
        );
        return Err(part.damaged(&keys::tail(), &cause));
    }
    Ok(identity)
}

/// Whether the database is the marker's.
fn check_owner(part: &Part, marker: &Marker) -> Result<StoreIdentity, StoreError> {
    part.check_sentinel()?;
    let key = keys::identity();
    let (content, _) = part.record(&key)?.ok_or_else(|| part.damaged(&key, &"it is not there"))?;
    let identity = decode_identity(&content).map_err(|cause| part.damaged(&key, &cause))?;
    if identity.id != marker.id {
        let cause = format!("it belongs to the store {}, and the marker to {}", identity.id, marker.id);
        return Err(part.damaged(&key, &cause));
    }
    Ok(identity)
}
