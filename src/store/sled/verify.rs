//! Reading every record of a store that nobody has open, and saying what is wrong.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::error::{OpenError, panic_text};
use super::history::check_history;
use super::keeper::Findings;
use super::keys::{self, Family};
use super::open::{check_identity, find, lock};
use super::part::Part;
use super::read::head;
use super::records::{RowCounts, decode_journal, decode_outbox};
use super::scan::{Census, ended_count, records};
use super::{HISTORY_DIR, OPEN_DIR, compact};
use crate::saga::ids::SagaId;
use crate::store::StoreError;
use crate::store::codec::summary::decode_summary;

const VERIFY_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whose record it is, if one saga's.
    pub saga: Option<SagaId>,
    /// What is wrong with what.
    pub what: String,
}

/// What a store was found to hold.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Open sagas.
    pub open_sagas: u64,
    /// Ended sagas.
    pub ended_sagas: u64,
    /// Rows read.
    pub rows: u64,
    /// What is wrong, by saga; empty for a whole store.
    pub problems: Vec<Problem>,
}

/// Reads everything and changes nothing of it.
///
/// # Errors
/// [`OpenError`] when the store cannot be read at all.
pub fn verify(dir: &Path) -> Result<VerifyReport, OpenError> {
    let _lock = lock(dir)?;
    compact::finish_swap(dir)?;
    let missing = || OpenError::damaged(dir, dir, "there is no store here");
    let marker = find(dir)?.ok_or_else(missing)?;
    let mut report = VerifyReport::default();
    let open = Part::open(dir, OPEN_DIR, VERIFY_CACHE_BYTES)?;
    let history = Part::open(dir, HISTORY_DIR, VERIFY_CACHE_BYTES)?;
    let read = catch_unwind(AssertUnwindSafe(|| -> Result<(), StoreError> {
        let identity = check_identity(&open, &marker)?;
        let census = Census::take(&open)?;
        report.open_sagas = census.live.open.len() as u64;
        let damaged = census.damaged.iter();
        report
            .problems
            .extend(damaged.map(|(saga, cause)| Problem { saga: Some(saga.clone()), what: cause.clone() }));
        report.problems.extend(census.contradiction().map(|what| Problem { saga: None, what }));
        decode_journals(&open, &mut report)?;
        let whole = |id: &SagaId| census.live.get(id).is_some_and(|entry| entry.first_seq == 1);
        let findings = Findings {
            ended: census.live.ended().into_iter().filter(whole).collect(),
            ended_count: ended_count(&census.live.counters),
            deleting: census.deleting.clone(),
            unsure: !census.damaged.is_empty(),
            marker: Some(marker.clone()),
        };
        let relied_on = census.tail.history_commit.max(marker.history_commit);
        if let Err(error) = check_history(&history, &identity, relied_on, &findings) {
            report.problems.push(Problem { saga: None, what: error.to_string() });
        }
        verify_history(&history, &mut report)
    }));
    let failed = match read {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(format!("reading came to an end: {}", panic_text(&*panic))),
    };
    report.problems.extend(failed.map(|what| Problem { saga: None, what }));
    report.problems.sort_by(|a, b| (&a.saga, &a.what).cmp(&(&b.saga, &b.what)));
    report.problems.dedup();
    Ok(report)
}

/// Reads every journal record down to its facts.
fn decode_journals(part: &Part, report: &mut VerifyReport) -> Result<(), StoreError> {
    records(part, part.db()?.iter(), |found| {
        report.rows += found.rows as u64;
        let Some((id, first_seq)) =
            keys::parse_journal(found.key).filter(|_| found.family == Family::Journal)
        else {
            return Ok(());
        };
        let read = found.content.and_then(|content| decode_journal(first_seq, &content));
        if let Err(cause) = read {
            let what = format!("the journal from fact {first_seq}: {cause}");
            report.problems.push(Problem { saga: Some(id), what });
        }
        Ok(())
    })
}

fn verify_history(history: &Part, report: &mut VerifyReport) -> Result<(), StoreError> {
    let tail = history.tail()?;
    let mut rows = RowCounts::default();
    let mut journal: Option<(SagaId, u64)> = None;
    let mut problems: Vec<Problem> = Vec::new();
    let mut named: BTreeMap<&'static str, u64> = BTreeMap::new();
    records(history, history.db()?.iter(), |found| {
        report.rows += found.rows as u64;
        if found.family != Family::Meta {
            rows.add(found.family, found.rows);
        }
        *named.entry(found.family.name()).or_default() += 1;
        let saga = match found.family {
            Family::Journal => keys::parse_journal(found.key).map(|(id, _)| id),
            Family::Place => keys::parse_past_place(found.key).map(|(_, id)| id),
            Family::Head => keys::parse_id(found.key),
            Family::Ended => keys::parse_place(found.key).map(|(_, id)| id),
            _ => None,
        };
        let mut wrong = |saga: Option<SagaId>, what: String| problems.push(Problem { saga, what });
        let content = match found.content {
            Ok(content) => content,
            Err(cause) => {
                wrong(saga, format!("a {} record: {cause}", found.family.name()));
                return Ok(());
            }
        };
        match found.family {
            Family::Journal => {
                let Some((id, first_seq)) = keys::parse_journal(found.key) else {
                    wrong(None, "a journal key is malformed".to_owned());
                    return Ok(());
                };
                let before = journal.take_if(|(last, _)| *last != id);
                if let Some((last, seq)) = before {
                    problems.extend(ends_short(history, &last, seq)?);
                }
                let due = journal.as_ref().map_or(1, |(_, seq)| seq + 1);
                let mut wrong = |what: String| problems.push(Problem { saga: Some(id.clone()), what });
                if first_seq != due {
                    wrong(format!("fact {due} is not there"));
                }
                let last = match decode_journal(first_seq, &content) {
                    Ok(facts) => facts.last().map_or(first_seq, |fact| fact.seq),
                    Err(cause) => {
                        wrong(format!("the journal from fact {first_seq}: {cause}"));
                        first_seq
                    }
                };
                journal = Some((id, last));
            }
            Family::Place => {
                if let Err(cause) = decode_summary(&content) {
                    wrong(saga, format!("its summary: {cause}"));
                }
            }
            Family::Outbox => {
                if let Err(cause) = decode_outbox(&content) {
                    wrong(None, cause.to_string());
                }
            }
            Family::Head => report.ended_sagas += 1,
            _ => {}
        }
        Ok(())
    })?;
    if let Some((last, seq)) = journal {
        problems.extend(ends_short(history, &last, seq)?);
    }
    for family in Family::ALL {
        let (found, written) = (rows.of(family), tail.rows.of(family));
        if found != written {
            let what =
                format!("the history holds {found} {} rows, and {written} were written", family.name());
            problems.push(Problem { saga: None, what });
        }
    }
    let count = |family: Family| named.get(family.name()).copied().unwrap_or(0);
    let (heads, places, ends) = (count(Family::Head), count(Family::Place), count(Family::Ended));
    if heads != places || heads != ends {
        let what = format!("the history's indexes disagree: {heads} heads, {places} summaries, {ends} ends");
        problems.push(Problem { saga: None, what });
    }
    report.problems.append(&mut problems);
    Ok(())
}

/// The problem of a saga whose journal does not end where its head says.
fn ends_short(history: &Part, id: &SagaId, seq: u64) -> Result<Option<Problem>, StoreError> {
    let what = match head(history, id)? {
        Some(head) if head.seq == seq => return Ok(None),
        Some(head) => format!("its journal ends with fact {seq}, and its head says {}", head.seq),
        None => "its head is not there".to_owned(),
    };
    Ok(Some(Problem { saga: Some(id.clone()), what }))
}
