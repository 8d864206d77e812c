//! What is done to the history's rows.

use super::keeper::Findings;
use super::keys::{self, Family};
use super::live::Entry;
use super::part::{Changes, Part};
use super::read::{Past, past};
use super::records::{Record, RowCounts, Tail, decode_identity};
use super::writer::Condemned;
use crate::saga::ids::{SagaId, Timestamp};
use crate::store::checks::damaged_saga;
use crate::store::codec::CodecError;
use crate::store::codec::frame::{self, Joiner, PART_BYTES, Row};
use crate::store::order::time_key;
use crate::store::{StoreError, StoreIdentity, Summary};

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
    if findings.unsure {
        return Ok(tail);
    }
    // Each ended saga is here, or still whole in the open database, or being deleted.
    let mut not_here = 0;
    for id in &findings.ended {
        not_here += u64::from(!is_known(part, id)?);
    }
    let mut condemned = 0;
    for id in &findings.deleting {
        condemned += u64::from(is_known(part, id)?);
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
pub fn count_rows(part: &Part, tail: &Tail) -> Result<(), StoreError> {
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

/// A saga in the history that is there with all of its rows: its indexes came with the last of them, and
/// until then it is known to the open database alone.
pub fn known_in(history: &Part, id: &SagaId) -> Result<Option<Summary>, StoreError> {
    if is_known(history, id)? { Ok(past(history, id)?.map(|past| past.summary)) } else { Ok(None) }
}

/// Whether the history has all of a saga.
pub fn is_known(history: &Part, id: &SagaId) -> Result<bool, StoreError> {
    Ok(history.record(&keys::known(id))?.is_some())
}

/// Takes the indexes of a saga into a batch for the history. `before` is what the history has of it already.
pub fn add_indexes(
    summary: &Summary,
    before: Option<&Summary>,
    changes: &mut Changes,
    counts: &mut RowCounts,
) {
    let indexes = indexes_of(summary);
    let old = before.map(indexes_of).unwrap_or_default();
    for (family, key, _) in old.iter().filter(|index| !indexes.contains(index)) {
        changes.remove(counts, *family, frame::part_key(key, 0));
    }
    for (family, key, content) in indexes.into_iter().filter(|index| !old.contains(index)) {
        changes.insert(counts, family, frame::seal(&key, &content));
    }
}

/// The rows by which a saga in the history is found: family, key and content.
pub fn indexes_of(summary: &Summary) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let Summary { id, status, created_at, updated_at, .. } = summary;
    let ended_at = summary.ended_at.unwrap_or(*updated_at);
    let definition = summary.definition.as_str().as_bytes().to_vec();
    vec![
        (Family::Known, keys::known(id), Vec::new()),
        (Family::Place, keys::place(*status, *created_at, id), definition),
        (Family::Ended, keys::ended(ended_at, id), Vec::new()),
    ]
}

/// What the last of a saga's records says; the rows begin with a record's first and are checked.
pub fn last_summary(id: &SagaId, rows: &[Row]) -> Result<Summary, StoreError> {
    let read = || -> Result<Summary, CodecError> {
        let (mut joiner, mut last) = (Joiner::default(), None);
        for (key, value) in rows {
            last = joiner.push(key, value)?.or(last);
        }
        joiner.finish()?;
        Record::parse(&last.unwrap_or_default())?.summary()
    };
    read().map_err(|cause| damaged_saga(id, cause.to_string()))
}

/// All rows of a saga in the open database, up to its entry's last fact.
pub fn rows_of(open: &Part, id: &SagaId, entry: &Entry) -> Result<Vec<Row>, StoreError> {
    let (mut rows, mut joiner, mut next) = (Vec::new(), Joiner::default(), entry.first_seq);
    let end = frame::part_key(&keys::saga(id, entry.seq), u16::MAX);
    for row in open.range(keys::saga_of(id)..=end)? {
        let (key, value) = row.map_err(|error| open.read_error(&error))?;
        let wrong = |cause: CodecError| damaged_saga(id, cause.to_string());
        let (_, first_seq) = keys::parse_saga(&key).ok_or_else(|| damaged_saga(id, "a malformed key"))?;
        if let Some(content) = joiner.push(&key, &value).map_err(wrong)? {
            if first_seq != next {
                return Err(damaged_saga(id, format!("fact {next} is not there")));
            }
            next = Record::parse(&content).and_then(|record| record.summary()).map_err(wrong)?.seq + 1;
        }
        rows.push((key.to_vec(), value.to_vec()));
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
    let Some(Past { summary, .. }) = past(history, id)? else { return Ok(()) };
    for row in history.prefixed(&keys::saga_of(id))? {
        let (key, _) = row.map_err(|error| history.read_error(&error))?;
        changes.remove(counts, Family::Saga, key.to_vec());
    }
    for (family, key, _) in indexes_of(&summary) {
        changes.remove(counts, family, frame::part_key(&key, 0));
    }
    Ok(())
}

/// The sagas that ended longest ago, before `ended_before`.
pub fn oldest(history: &Part, ended_before: Timestamp, limit: usize) -> Result<Vec<Condemned>, StoreError> {
    let from = Family::Ended.prefix().to_vec();
    let to = [&from[..], &time_key(ended_before)].concat();
    let mut sagas = Vec::new();
    for row in history.range(from..to)?.take(limit) {
        let (key, value) = row.map_err(|error| history.read_error(&error))?;
        frame::open(&key, &value).map_err(|cause| history.damaged(&key, &cause))?;
        let record_key = &key[..key.len() - PART_BYTES];
        let (_, id) = keys::parse_ended(record_key)
            .ok_or_else(|| history.damaged(&key, &"a key of the end index is malformed"))?;
        let found = past(history, &id)?.ok_or_else(|| damaged_saga(&id, "its records are not there"))?;
        sagas.push(Condemned { summary: found.summary, outbox: found.outbox });
    }
    Ok(sagas)
}
