//! The sagas of the open database, read from both ends at once: one thread goes up and one goes
//! down, until they meet. Which of them reads a row, and where they meet, changes nothing about what
//! is found.
//!
//! It may be called while new sagas are written already: whoever calls it tells those, which are not on it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::census::not_as_written;
use super::keys::{self, Family};
use super::live::{Entry, Kind, Kinds, Packed};
use super::part::Part;
use super::records::{Record, Tail};
use super::scan::{Found, Records, Stored};
use crate::saga::ids::{DefinitionName, SagaId, Timestamp, Version};
use crate::saga::words::SagaStatus;
use crate::store::StoreError;
use crate::store::codec::CodecError;
use crate::store::codec::summary::Standing;
use crate::store::open_set::Wake;
use crate::store::packed::PackedId;
use crate::tasks;

/// Rows that a thread reads before it sees how far the other one is.
const ROWS_AT_ONCE: usize = 256;

/// What the open database said of its sagas when it was opened.
#[derive(Debug, Clone)]
pub struct Written {
    /// As the last batch left it.
    pub tail: Tail,
    /// Open sagas by the counters.
    pub open: u64,
    /// Ended sagas by the counters.
    pub ended: u64,
}

/// Every saga that lay in the open database when it was opened.
#[derive(Debug, Default)]
pub struct Roll {
    /// By id.
    pub sagas: Vec<(PackedId, Packed)>,
    /// Those that cannot be read, and why.
    pub damaged: Vec<(SagaId, String)>,
    /// How many are open.
    pub open: u64,
    /// Rows found.
    pub rows: u64,
    /// The sum of their checksums.
    pub sum: u32,
}

impl Roll {
    /// What contradicts the numbers that were written with the last batch, if anything does.
    pub fn contradiction(&self, written: &Written) -> Option<String> {
        let rows = written.tail.rows.of(Family::Saga);
        if self.rows != rows {
            return Some(not_as_written(Family::Saga, self.rows, rows));
        }
        if self.sum != written.tail.sum && self.damaged.is_empty() {
            return Some("its sagas are not those that were written last".to_owned());
        }
        let (found, counted) = (self.open, written.open);
        (counted.abs_diff(found) > self.damaged.len() as u64)
            .then(|| format!("it holds {found} open sagas, and its counters say {counted}"))
    }
}

/// What goes on while sagas are called up.
pub trait Meanwhile: Sync {
    /// Whether nobody waits for them any more.
    fn is_over(&self) -> bool;
    /// Whether this saga was begun since the database was opened.
    fn has_begun(&self, id: &PackedId) -> bool;
}

/// Nothing: nobody else has the database.
pub struct Alone;

impl Meanwhile for Alone {
    fn is_over(&self) -> bool {
        false
    }

    fn has_begun(&self, _id: &PackedId) -> bool {
        false
    }
}

/// Reads all sagas, until it is over. Their damage is noted with them; an error is one of the database.
pub fn call_roll(part: &Part, meanwhile: &dyn Meanwhile) -> Result<Roll, StoreError> {
    let keys = Family::Saga.prefix()..Family::Known.prefix();
    let shared = Sharing { kinds: Mutex::default(), ends: Ends::default(), meanwhile };
    let db = part.db()?;
    let (lower, upper) = (db.range(keys.clone()), db.range(keys));
    let failed = |error: std::io::Error| StoreError::Io {
        operation: "starting a thread to read the open sagas",
        cause: error.to_string(),
    };
    let down = || read_down(part, upper, &shared);
    let up = || read_up(part, lower, &shared);
    let (down, up) = tasks::at_once("store-roll", down, up).map_err(failed)?;
    let ((mut reader, mut records), (above, middle)) = (up?, down?);
    // The last saga from below and the first from above may be one.
    for row in middle {
        records.push(row, &mut |found| reader.add(part, &found))?;
    }
    records.finish(&mut |found| reader.add(part, &found))?;
    reader.finish_saga();
    let mut roll = reader.roll;
    roll.sagas.reserve_exact(above.sagas.len());
    roll.sagas.extend(above.sagas.into_iter().rev());
    roll.damaged.extend(above.damaged.into_iter().rev());
    roll.open += above.open;
    roll.rows += above.rows;
    roll.sum = roll.sum.wrapping_add(above.sum);
    Ok(roll)
}

/// What the two threads have in common.
struct Sharing<'a> {
    kinds: Mutex<Kinds>,
    ends: Ends,
    meanwhile: &'a dyn Meanwhile,
}

impl Sharing<'_> {
    fn go_on(&self) -> Result<(), StoreError> {
        if self.meanwhile.is_over() { Err(StoreError::Closed) } else { Ok(()) }
    }
}

/// How far the two threads are. What lies between is nobody's yet.
#[derive(Default)]
struct Ends(Mutex<Claimed>);

#[derive(Default)]
struct Claimed {
    /// The last key of the one that goes up.
    low: Option<::sled::IVec>,
    /// The last key of the one that goes down.
    high: Option<::sled::IVec>,
}

impl Ends {
    /// Claims rows that were read going up, but for those that the other one has; whether there may
    /// be more.
    fn claim_up(&self, rows: &mut Vec<Stored>) -> bool {
        let read = rows.len();
        let mut claimed = self.0.lock();
        if let Some(high) = &claimed.high {
            rows.truncate(rows.partition_point(|(key, _)| key < high));
        }
        if let Some((key, _)) = rows.last() {
            claimed.low = Some(key.clone());
        }
        read == ROWS_AT_ONCE && rows.len() == read
    }

    /// The same going down.
    fn claim_down(&self, rows: &mut Vec<Stored>) -> bool {
        let read = rows.len();
        let mut claimed = self.0.lock();
        if let Some(low) = &claimed.low {
            rows.truncate(rows.partition_point(|(key, _)| key > low));
        }
        if let Some((key, _)) = rows.last() {
            claimed.high = Some(key.clone());
        }
        read == ROWS_AT_ONCE && rows.len() == read
    }
}

/// Reads up to where the other thread is; the last record may lack rows that the other one has.
fn read_up<'a>(
    part: &Part,
    mut from: ::sled::Iter,
    shared: &'a Sharing<'_>,
) -> Result<(Reader<'a>, Records), StoreError> {
    let (mut reader, mut records) = (Reader::new(shared), Records::default());
    let mut more = true;
    while more {
        shared.go_on()?;
        let mut rows = taken(part, from.by_ref().take(ROWS_AT_ONCE))?;
        more = shared.ends.claim_up(&mut rows);
        for row in rows {
            records.push(row, &mut |found| reader.add(part, &found))?;
        }
    }
    Ok((reader, records))
}

/// Reads down to where the other thread is. What was read, and the rows of the lowest saga in order,
/// of which the other one may have more.
fn read_down(
    part: &Part,
    from: ::sled::Iter,
    shared: &Sharing<'_>,
) -> Result<(Roll, Vec<Stored>), StoreError> {
    let mut from = from.rev();
    let mut reader = Reader::new(shared);
    // The rows of one saga, the last first.
    let mut saga: Vec<Stored> = Vec::new();
    let mut more = true;
    while more {
        shared.go_on()?;
        let mut rows = taken(part, from.by_ref().take(ROWS_AT_ONCE))?;
        more = shared.ends.claim_down(&mut rows);
        for row in rows {
            if saga.last().is_some_and(|(key, _)| !is_of_same_saga(key, &row.0)) {
                reader.add_whole(part, saga.drain(..).rev())?;
            }
            saga.push(row);
        }
    }
    saga.reverse();
    Ok((reader.roll, saga))
}

fn taken(part: &Part, rows: impl Iterator<Item = ::sled::Result<Stored>>) -> Result<Vec<Stored>, StoreError> {
    rows.map(|row| row.map_err(|error| part.read_error(&error))).collect()
}

/// Keys that are malformed are of no saga.
fn is_of_same_saga(a: &[u8], b: &[u8]) -> bool {
    let id = |key| keys::split_saga(key).map(|(id, _)| id);
    id(a).is_some() && id(a) == id(b)
}

/// Reads the sagas of a stretch of the database.
struct Reader<'a> {
    roll: Roll,
    shared: &'a Sharing<'a>,
    /// The one that was seen last.
    kind: Option<Arc<Kind>>,
    /// The saga whose records are being read.
    saga: Option<Reading>,
}

/// What the records of one saga add up to.
#[derive(Debug)]
struct Reading {
    id: PackedId,
    first_seq: u64,
    sum: u32,
    /// The saga as of its last record; `None` until one could be read.
    entry: Option<Entry>,
    damage: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Sharing<'a>) -> Self {
        Self { roll: Roll::default(), shared, kind: None, saga: None }
    }

    /// Takes all rows of one saga, in order.
    fn add_whole(&mut self, part: &Part, rows: impl Iterator<Item = Stored>) -> Result<(), StoreError> {
        let mut records = Records::default();
        for row in rows {
            records.push(row, &mut |found| self.add(part, &found))?;
        }
        records.finish(&mut |found| self.add(part, &found))?;
        self.finish_saga();
        Ok(())
    }

    /// Takes a saga's next record; they come in order.
    fn add(&mut self, part: &Part, found: &Found<'_>) -> Result<(), StoreError> {
        let malformed = || part.damaged(found.key, &CodecError::Key { family: found.family.name() });
        let (id, first_seq) = keys::split_saga(found.key).ok_or_else(malformed)?;
        let id = PackedId::read(id).ok_or_else(malformed)?;
        if self.saga.as_ref().is_none_or(|saga| saga.id != id) {
            self.finish_saga();
            if self.shared.meanwhile.has_begun(&id) {
                return Ok(());
            }
        }
        self.roll.rows += found.rows as u64;
        self.roll.sum = self.roll.sum.wrapping_add(found.sum);
        let read = found.content.as_ref().map_err(Clone::clone).and_then(|content| {
            let record = Record::parse(content)?;
            let standing = record.standing()?;
            Ok((record, self.kind_of(&standing)?, standing))
        });
        let saga = self.saga.get_or_insert(Reading { id, first_seq, sum: 0, entry: None, damage: None });
        saga.sum = saga.sum.wrapping_add(found.sum);
        let due = saga.entry.as_ref().map_or(saga.first_seq, |entry| entry.seq + 1);
        let (record, kind, standing) = match read {
            Ok(read) => read,
            Err(cause) => {
                saga.damage.get_or_insert(format!("the record from fact {first_seq}: {cause}"));
                return Ok(());
            }
        };
        if first_seq != due {
            saga.damage.get_or_insert(format!("the facts {due} up to {first_seq} are not there"));
        }
        saga.entry = Some(Entry {
            created_at: standing.created_at,
            wake: Wake::of(record.far_wake, standing.rests),
            kind,
            first_seq: saga.first_seq,
            record_seq: first_seq,
            seq: standing.seq,
            bytes: record.bytes,
            outbox: record.outbox,
            sum: saga.sum,
            record_sum: found.sum,
            parts: u16::try_from(found.rows).unwrap_or(u16::MAX),
            status: standing.status,
        });
        Ok(())
    }

    /// The kind of a saga; it is nearly always that of the saga before.
    fn kind_of(&mut self, standing: &Standing) -> Result<Arc<Kind>, CodecError> {
        let is_same =
            |kind: &Kind| kind.version == standing.version && kind.definition.as_str() == standing.definition;
        if let Some(kind) = self.kind.as_ref().filter(|kind| is_same(kind)) {
            return Ok(kind.clone());
        }
        let name = DefinitionName::parse(&standing.definition);
        let name = name.map_err(|error| CodecError::message("a name", &error))?;
        let kind = self.shared.kinds.lock().of(&name, standing.version);
        self.kind = Some(kind.clone());
        Ok(kind)
    }

    fn finish_saga(&mut self) {
        let Some(Reading { id, first_seq, entry, mut damage, .. }) = self.saga.take() else { return };
        let mut entry = entry.unwrap_or_else(|| self.unreadable(first_seq));
        if first_seq != 1 && !entry.status.is_terminal() {
            damage.get_or_insert(format!("the facts before {first_seq} are not there"));
        }
        if let Some(cause) = damage {
            // Whoever takes up what does not rest must come across it.
            entry.wake.rests = false;
            self.roll.damaged.push((id.unpack(), cause));
        }
        self.roll.open += u64::from(!entry.status.is_terminal());
        self.roll.sagas.push((id, Packed::of(entry)));
    }

    /// Stands for a saga of which nothing can be read: it counts as running, so that somebody
    /// comes across it.
    fn unreadable(&mut self, first_seq: u64) -> Entry {
        let unnamed = DefinitionName::parse("unreadable").expect("a valid name");
        let kind = self.shared.kinds.lock().of(&unnamed, Version(0));
        Entry { seq: 0, ..Entry::unwritten(Timestamp(0), kind, SagaStatus::Running, first_seq) }
    }
}
