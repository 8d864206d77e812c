//! Reading sagas that lie in one database or in both, while one of them moves from the open
//! database to the history.
//!
//! A saga is complete in the history before its entry in [`Live`](super::live::Live) goes, and its
//! rows in the open database go after that. So: look at the entry, read where it says, and when
//! something is missing although the entry has not changed, it is damage; else look again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::keys;
use super::live::Entry;
use super::part::Part;
use super::records::Record;
use super::scan::records;
use super::shared::Shared;
use crate::saga::event::Fact;
use crate::saga::ids::{DefinitionName, SagaId};
use crate::saga::words::SagaStatus;
use crate::store::checks::{damaged_saga, wanted};
use crate::store::codec::CodecError;
use crate::store::codec::frame::{self, PART_BYTES};
use crate::store::order::{Window, place_key};
use crate::store::{ListQuery, StoreError, StoredSaga, Summary};

/// How often a read starts anew because what it reads has moved.
const TRIES_MAX: usize = 8;
/// How long a reader waits at once for a batch to become durable, before it looks again.
const SHOWN_WAIT: Duration = Duration::from_millis(50);

/// What the history knows of a saga.
#[derive(Debug)]
pub struct Past {
    pub summary: Summary,
    /// Bytes of its journal.
    pub bytes: u64,
    /// Outbox records in it.
    pub outbox: u32,
}

/// A saga in the history, if it is there. One that is said to be there and is not is damaged.
pub fn past(history: &Part, id: &SagaId) -> Result<Option<Past>, StoreError> {
    if let Some(found) = last_record(history, id)? {
        return Ok(Some(found));
    }
    if history.record(&keys::known(id))?.is_none() {
        return Ok(None);
    }
    // It may have come between the two looks.
    let again = last_record(history, id)?;
    again.map(Some).ok_or_else(|| damaged_saga(id, "its records are not there"))
}

/// What a saga's last record in a database says.
fn last_record(part: &Part, id: &SagaId) -> Result<Option<Past>, StoreError> {
    let Some(row) = part.prefixed(&keys::saga_of(id))?.next_back() else { return Ok(None) };
    let (key, value) = row.map_err(|error| part.read_error(&error))?;
    let wrong = |cause: CodecError| damaged_saga(id, cause.to_string());
    let row = frame::open(&key, &value).map_err(wrong)?;
    let whole;
    let content = if row.parts == 1 {
        row.content
    } else {
        let record = part.record(&key[..key.len() - PART_BYTES]).map_err(|error| named(id, error))?;
        let Some((content, _)) = record else { return Ok(None) };
        whole = content;
        &whole
    };
    let record = Record::parse(content).map_err(wrong)?;
    let summary = record.summary().map_err(wrong)?;
    Ok(Some(Past { summary, bytes: record.bytes, outbox: record.outbox }))
}

/// The same damage, named by the saga.
fn named(id: &SagaId, error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { cause, .. } => damaged_saga(id, cause),
        other => other,
    }
}

/// The whole saga.
pub fn load(shared: &Shared, id: &SagaId) -> Result<Option<StoredSaga>, StoreError> {
    span(shared, id, 1, u64::MAX)
}

/// Facts behind `after`, at most `limit`.
pub fn facts(shared: &Shared, id: &SagaId, after: u64, limit: usize) -> Result<Vec<Fact>, StoreError> {
    let last = after.saturating_add(limit as u64);
    if last == after {
        return Ok(Vec::new());
    }
    Ok(span(shared, id, after + 1, last)?.map(|saga| saga.facts).unwrap_or_default())
}

/// The facts `from..=to` of a saga, all that are durable of them.
fn span(shared: &Shared, id: &SagaId, from: u64, to: u64) -> Result<Option<StoredSaga>, StoreError> {
    let mut outcome = Ok(None);
    for _ in 0..TRIES_MAX {
        shared.usable()?;
        let entry = shared.live.read().get(id);
        outcome = match &entry {
            Some(entry) => span_of_open(shared, id, entry, from, to).map(Some),
            None => span_of_past(shared, id, from, to),
        };
        let settled = matches!(outcome, Ok(Some(_))) || shared.live.read().get(id) == entry;
        if settled {
            break;
        }
    }
    outcome
}

fn span_of_open(
    shared: &Shared,
    id: &SagaId,
    entry: &Entry,
    from: u64,
    to: u64,
) -> Result<StoredSaga, StoreError> {
    if let Some(damage) = shared.live.read().damage(id) {
        return Err(damaged_saga(id, damage.as_ref()));
    }
    let to = to.min(entry.seq);
    let mut facts = Vec::new();
    if from < entry.first_seq {
        facts = read_facts(shared.history()?, id, from, to.min(entry.first_seq - 1))?;
    }
    if to >= entry.first_seq {
        facts.extend(read_facts(&shared.open, id, from.max(entry.first_seq), to)?);
    }
    let ended = entry.status.is_terminal();
    let saga = complete(id, from, to, facts, ended)?;
    Ok(StoredSaga { far_wake: entry.wake.far.filter(|_| !ended), ..saga })
}

fn span_of_past(shared: &Shared, id: &SagaId, from: u64, to: u64) -> Result<Option<StoredSaga>, StoreError> {
    let history = shared.history()?;
    let Some(Past { summary, .. }) = past(history, id)? else { return Ok(None) };
    let to = to.min(summary.seq);
    let read = read_facts(history, id, from, to).and_then(|facts| complete(id, from, to, facts, true));
    match read {
        Ok(saga) => Ok(Some(saga)),
        // Deleted while it was read.
        Err(_) if past(history, id)?.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

fn complete(
    id: &SagaId,
    from: u64,
    to: u64,
    facts: Vec<Fact>,
    ended: bool,
) -> Result<StoredSaga, StoreError> {
    let expected = (to + 1).saturating_sub(from);
    match (from..).zip(&facts).find(|(seq, fact)| fact.seq != *seq) {
        Some((seq, _)) => Err(damaged_saga(id, format!("fact {seq} is not there"))),
        None if facts.len() as u64 == expected => Ok(StoredSaga { facts, ended, far_wake: None }),
        None => {
            Err(damaged_saga(id, format!("the facts behind {} are not there", from + facts.len() as u64 - 1)))
        }
    }
}

/// The facts `from..=to` that lie in this database.
fn read_facts(part: &Part, id: &SagaId, from: u64, to: u64) -> Result<Vec<Fact>, StoreError> {
    let mut facts = Vec::new();
    if from > to {
        return Ok(facts);
    }
    let mut start = keys::saga_of(id);
    if from > 1 {
        // The record that holds `from` begins at or before it.
        let last = frame::part_key(&keys::saga(id, from), u16::MAX);
        let row = part.range(start.clone()..=last)?.next_back().transpose();
        let first = row.map_err(|error| part.read_error(&error))?;
        if let Some((_, first)) = first.and_then(|(key, _)| keys::parse_saga(&key)) {
            start = keys::saga(id, first);
        }
    }
    let end = frame::part_key(&keys::saga(id, to), u16::MAX);
    records(part, part.range(start..=end)?, |found| {
        let read = found.content.and_then(|content| {
            let (_, first_seq) = keys::parse_saga(found.key).ok_or(CodecError::Key { family: "saga" })?;
            Record::parse(&content)?.facts(first_seq)
        });
        let read = read.map_err(|cause| damaged_saga(id, cause.to_string()))?;
        facts.extend(read.into_iter().filter(|fact| (from..=to).contains(&fact.seq)));
        Ok(())
    })?;
    Ok(facts)
}

/// A page of summaries.
pub fn list(shared: &Shared, query: &ListQuery) -> Result<Vec<Summary>, StoreError> {
    let Some(window) = Window::of(query).filter(|_| query.limit > 0) else { return Ok(Vec::new()) };
    let mut page = Vec::new();
    for _ in 0..TRIES_MAX {
        shared.usable()?;
        let mut steady = true;
        // First the open ones: what moves meanwhile is then found in the history.
        let listed = shared.live.read().list(query, &window);
        let mut open = Vec::with_capacity(listed.len());
        for (id, seq) in listed {
            let summary = summary_of(shared, &id, seq)?;
            let fits = summary.filter(|summary| wanted(query, summary));
            steady &= fits.is_some();
            open.extend(fits);
        }
        let mut rows = list_past(shared, query, &window)?;
        rows.extend(open.into_iter().map(|row| (place_key(row.created_at, &row.id), row)));
        page = if query.newest_first {
            rows.into_values().rev().take(query.limit).collect()
        } else {
            rows.into_values().take(query.limit).collect()
        };
        if steady {
            break;
        }
    }
    Ok(page)
}

/// The summary of a saga that was in the open database a moment ago, with this last fact; `None`
/// when it is gone.
fn summary_of(shared: &Shared, id: &SagaId, seq: u64) -> Result<Option<Summary>, StoreError> {
    if let Some(damage) = shared.live.read().damage(id) {
        return Err(damaged_saga(id, damage.as_ref()));
    }
    if let Some(found) = last_record(&shared.open, id)? {
        if found.summary.seq > seq {
            wait_until_shown(shared, id, found.summary.seq)?;
        }
        return Ok(Some(found.summary));
    }
    Ok(last_record(shared.history()?, id)?.map(|found| found.summary))
}

/// A row that is not durable yet is shown to nobody: waits until it is.
fn wait_until_shown(shared: &Shared, id: &SagaId, seq: u64) -> Result<(), StoreError> {
    loop {
        let mut shown = shared.shown.lock();
        shared.usable()?;
        if shared.live.read().get(id).is_none_or(|entry| entry.seq >= seq) {
            return Ok(());
        }
        shared.shown_wake.wait_for(&mut shown, SHOWN_WAIT);
    }
}

/// The summaries in the history that the query wants, by place.
fn list_past(
    shared: &Shared,
    query: &ListQuery,
    window: &Window,
) -> Result<BTreeMap<Vec<u8>, Summary>, StoreError> {
    let mut rows = BTreeMap::new();
    let ended = SagaStatus::ALL.into_iter().filter(|status| status.is_terminal());
    for status in ended.filter(|status| query.statuses.is_empty() || query.statuses.contains(status)) {
        let history = shared.history()?;
        let (lower, upper) = past_range(status, window);
        let mut range = history.range((lower, upper))?;
        let mut left = query.limit;
        while left > 0 {
            let next = if query.newest_first { range.next_back() } else { range.next() };
            let Some((key, value)) = next.transpose().map_err(|error| history.read_error(&error))? else {
                break;
            };
            let Some(id) = place_of(history, query, &key, &value)? else { continue };
            let Some(Past { summary, .. }) = past(history, &id)? else { continue };
            if wanted(query, &summary) {
                rows.insert(place_key(summary.created_at, &summary.id), summary);
                left -= 1;
            }
        }
    }
    Ok(rows)
}

/// The saga at this place, if it has the definition that is asked for.
fn place_of(
    history: &Part,
    query: &ListQuery,
    key: &[u8],
    value: &[u8],
) -> Result<Option<SagaId>, StoreError> {
    let row = frame::open(key, value).map_err(|cause| history.damaged(key, &cause))?;
    let named = |definition: &DefinitionName| row.content == definition.as_str().as_bytes();
    if !query.definition.as_ref().is_none_or(named) {
        return Ok(None);
    }
    let malformed = || history.damaged(key, &"a key of the list index is malformed");
    keys::parse_place(key).map(|(_, id)| Some(id)).ok_or_else(malformed)
}

fn past_range(status: SagaStatus, window: &Window) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let prefix = keys::places(status);
    let placed = |place: &[u8]| [&prefix[..], place].concat();
    let all_parts = |place: &[u8]| frame::part_key(&placed(place), u16::MAX);
    let lower = match &window.lower {
        Bound::Included(place) => Bound::Included(placed(place)),
        Bound::Excluded(place) => Bound::Excluded(all_parts(place)),
        Bound::Unbounded => Bound::Included(prefix.to_vec()),
    };
    let upper = match &window.upper {
        Bound::Included(place) => Bound::Included(all_parts(place)),
        Bound::Excluded(place) => Bound::Excluded(placed(place)),
        Bound::Unbounded => Bound::Excluded(vec![prefix[0], prefix[1] + 1]),
    };
    (lower, upper)
}
