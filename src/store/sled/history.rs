//! What is done to the history's rows.

use super::HISTORY_EAGER_BYTES;
use super::keeper::Findings;
use super::keys::{self, Family};
use super::live::Entry;
use super::part::{Changes, Part};
use super::read::{head, head_and_parts};
use super::records::{Head, RowCounts, Tail, decode_identity, journal_head};
use super::writer::Moved;
use crate::saga::ids::{SagaId, Timestamp};
use crate::store::checks::damaged_saga;
use crate::store::codec::frame::{self, PART_BYTES, Row};
use crate::store::codec::summary::{decode_summary, encode_summary};
use crate::store::order::time_key;
use crate::store::{StoreError, StoreIdentity};

/// Whether this is the history that the open database knows; its tail if so.
pub fn check_history(
    part: &Part,
    identity: &StoreIdentity,
    relied_on: u64,
    findings: &Findings,
) -> Result<Tail, StoreError> {
    let refused = |cause: String| StoreError::Damaged { what: part.data_file().display().to_string(), cause };
    part.check_sentinel()?;
    let key = keys::identity();
    let stored = part.record(&key)?.map(|(content, _)| decode_identity(&content));
    match stored {
        Some(Ok(stored)) if stored.id == identity.id => {}
        Some(Ok(stored)) => {
            return Err(refused(format!("it belongs to the store {}, not to {}", stored.id, identity.id)));
        }
        _ => return Err(refused("its identity is not there".to_owned())),
    }
    let tail = part.tail()?;
    if tail.commit < relied_on {
        return Err(refused(format!(
            "it ends at commit {}, and {relied_on} was on stable storage: it is an older copy or lost its end",
            tail.commit
        )));
    }
    if part.disk_bytes() <= HISTORY_EAGER_BYTES {
        count_rows(part, &tail)?;
    }
    if findings.unsure {
        return Ok(tail);
    }
    // Each ended saga is here, or still whole in the open database, or being deleted.
    let mut not_here = 0;
    for id in &findings.ended {
        not_here += u64::from(head(part, id)?.is_none());
    }
    let mut condemned = 0;
    for id in &findings.deleting {
        condemned += u64::from(head(part, id)?.is_some());
    }
    let here = tail.rows.of(Family::Ended);
    if here + not_here != findings.ended_count + condemned {
        return Err(refused(format!(
            "it says it holds {here} sagas, and the counters say {}",
            (findings.ended_count + condemned).saturating_sub(not_here)
        )));
    }
    Ok(tail)
}

/// Whether all rows are there that were written.
fn count_rows(part: &Part, tail: &Tail) -> Result<(), StoreError> {
    let mut rows = RowCounts::default();
    for row in part.db()?.iter().keys() {
        let key = row.map_err(|error| part.read_error(&error))?;
        let family = Family::of(&key).ok_or_else(|| part.damaged(&key, &"its key is of no family"))?;
        if family != Family::Meta {
            rows.add(family, 1);
        }
    }
    let differs = |family: &Family| rows.of(*family) != tail.rows.of(*family);
    match Family::ALL.into_iter().find(differs) {
        None => Ok(()),
        Some(family) => Err(StoreError::Damaged {
            what: part.data_file().display().to_string(),
            cause: format!(
                "it holds {} {} rows, and {} were written",
                rows.of(family),
                family.name(),
                tail.rows.of(family)
            ),
        }),
    }
}

/// Copies one ended saga into a batch for the history.
pub fn copy_saga(
    open: &Part,
    history: &Part,
    id: &SagaId,
    entry: &Entry,
    changes: &mut Changes,
    counts: &mut RowCounts,
) -> Result<Moved, StoreError> {
    let before = head_and_parts(history, id)?;
    let journal = journal_rows(open, id, entry)?;
    let mut moved = Moved { id: id.clone(), seq: entry.seq, rows: Vec::new() };
    let known = before.as_ref().map_or(0, |(head, _)| head.seq);
    for (first_seq, row) in journal {
        moved.rows.push((Family::Journal, row.0.clone()));
        if first_seq <= known {
            changes.overwrite(vec![row]);
        } else {
            changes.insert(counts, Family::Journal, vec![row]);
        }
    }
    let mut outbox = before.as_ref().map_or_else(Vec::new, |(head, _)| head.outbox.clone());
    for number in &entry.outbox {
        let key = frame::part_key(&keys::outbox(*number), 0);
        let value = get(open, &key)?.ok_or_else(|| damaged_saga(id, "an outbox record is not there"))?;
        moved.rows.push((Family::Outbox, key.clone()));
        if outbox.contains(number) {
            changes.overwrite(vec![(key, value)]);
        } else {
            outbox.push(*number);
            changes.insert(counts, Family::Outbox, vec![(key, value)]);
        }
    }
    let stored = open.record(&keys::open_place(entry.created_at, id))?;
    let (content, _) = stored.ok_or_else(|| damaged_saga(id, "its summary is not there"))?;
    let mut summary = decode_summary(&content).map_err(|cause| damaged_saga(id, cause.to_string()))?;
    (summary.seq, summary.updated_at) = (entry.seq, entry.updated_at);
    let ended_at = summary.ended_at.unwrap_or(entry.updated_at);
    if let Some((old, _)) = before.as_ref().filter(|(old, _)| old.status != entry.status) {
        let key = keys::past_place(old.status, old.created_at, id);
        changes.remove_record(counts, Family::Place, &key, old.place_parts);
    }
    let old_parts = before.as_ref().filter(|(old, _)| old.status == entry.status);
    let place = keys::past_place(entry.status, entry.created_at, id);
    let rows = frame::seal(&place, &encode_summary(&summary));
    let place_parts = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    let old_parts = old_parts.map_or(0, |(old, _)| old.place_parts);
    changes.replace(counts, Family::Place, &place, rows, old_parts);
    let old_end = before.as_ref().map(|(old, _)| old.ended_at);
    if let Some(old_end) = old_end.filter(|old_end| *old_end != ended_at) {
        changes.remove(counts, Family::Ended, frame::part_key(&keys::ended(old_end, id), 0));
    }
    if old_end != Some(ended_at) {
        changes.insert(counts, Family::Ended, frame::seal(&keys::ended(ended_at, id), &[]));
    }
    let head = Head {
        created_at: entry.created_at,
        ended_at,
        status: entry.status,
        definition: entry.definition.clone(),
        version: entry.version,
        seq: entry.seq,
        bytes: entry.bytes,
        place_parts,
        outbox,
    };
    let key = keys::head(id);
    let old_parts = before.map_or(0, |(_, parts)| parts);
    changes.replace(counts, Family::Head, &key, frame::seal(&key, &head.encode()), old_parts);
    Ok(moved)
}

/// The rows of a saga's journal up to its entry's last fact, checked, each with its record's first
/// sequence.
fn journal_rows(open: &Part, id: &SagaId, entry: &Entry) -> Result<Vec<(u64, Row)>, StoreError> {
    let mut rows = Vec::new();
    let mut next = entry.first_seq;
    let end = frame::part_key(&keys::journal(id, entry.seq), u16::MAX);
    for row in open.db()?.range(keys::journal_of(id)..=end) {
        let (key, value) = row.map_err(|error| open.read_error(&error))?;
        let (_, first_seq) =
            keys::parse_journal(&key).ok_or_else(|| damaged_saga(id, "a journal key is malformed"))?;
        let opened = frame::open(&key, &value).map_err(|cause| damaged_saga(id, cause.to_string()))?;
        if opened.part == 0 {
            if first_seq != next {
                return Err(damaged_saga(id, format!("fact {next} is not there")));
            }
            let head = journal_head(opened.content);
            next = head.map_err(|cause| damaged_saga(id, cause.to_string()))?.last_seq + 1;
        }
        rows.push((first_seq, (key.to_vec(), value.to_vec())));
    }
    if next == entry.seq + 1 { Ok(rows) } else { Err(damaged_saga(id, format!("fact {next} is not there"))) }
}

/// Takes all rows of one saga out of the history; nothing when it is not there.
pub fn delete_saga(
    history: &Part,
    id: &SagaId,
    changes: &mut Changes,
    counts: &mut RowCounts,
) -> Result<(), StoreError> {
    let Some((head, parts)) = head_and_parts(history, id)? else { return Ok(()) };
    for row in history.db()?.scan_prefix(keys::journal_of(id)) {
        let (key, _) = row.map_err(|error| history.read_error(&error))?;
        changes.remove(counts, Family::Journal, key.to_vec());
    }
    for number in &head.outbox {
        changes.remove(counts, Family::Outbox, frame::part_key(&keys::outbox(*number), 0));
    }
    let place = keys::past_place(head.status, head.created_at, id);
    changes.remove_record(counts, Family::Place, &place, head.place_parts);
    changes.remove(counts, Family::Ended, frame::part_key(&keys::ended(head.ended_at, id), 0));
    changes.remove_record(counts, Family::Head, &keys::head(id), parts);
    Ok(())
}

/// The sagas that ended longest ago, before `ended_before`.
pub fn oldest(
    history: &Part,
    ended_before: Timestamp,
    limit: usize,
) -> Result<Vec<(SagaId, Head)>, StoreError> {
    let from = Family::Ended.prefix().to_vec();
    let to = [&from[..], &time_key(ended_before)].concat();
    let mut sagas = Vec::new();
    for row in history.db()?.range(from..to).take(limit) {
        let (key, value) = row.map_err(|error| history.read_error(&error))?;
        frame::open(&key, &value).map_err(|cause| history.damaged(&key, &cause))?;
        let record_key = &key[..key.len() - PART_BYTES];
        let (_, id) = keys::parse_place(record_key)
            .ok_or_else(|| history.damaged(&key, &"a key of the end index is malformed"))?;
        let found = head(history, &id)?.ok_or_else(|| damaged_saga(&id, "its head is not there"))?;
        sagas.push((id, found));
    }
    Ok(sagas)
}

fn get(part: &Part, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let value = part.db()?.get(key).map_err(|error| part.read_error(&error))?;
    Ok(value.map(|value| value.to_vec()))
}
