//! Reading every record of a store that nobody has open, and saying what is wrong.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::census::Census;
use super::error::{OpenError, panic_text};
use super::history::{check_history, indexes_of, is_known};
use super::keeper::Findings;
use super::keys::{self, Family};
use super::live::Live;
use super::open::{check_identity, find, lock, open_folded};
use super::part::Part;
use super::records::{Record, RowCounts};
use super::roll::{Alone, call_roll};
use super::scan::{Found, records};
use super::{HISTORY_DIR, compact};
use crate::saga::ids::SagaId;
use crate::store::{StoreError, Summary};

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

/// Reads everything and changes nothing of it; what the log holds is folded before.
///
/// # Errors
/// [`OpenError`] when the store cannot be read at all.
pub fn verify(dir: &Path) -> Result<VerifyReport, OpenError> {
    let _lock = lock(dir)?;
    compact::finish_swap(dir)?;
    let missing = || OpenError::damaged(dir, dir, "there is no store here");
    let marker = find(dir)?.ok_or_else(missing)?;
    let mut report = VerifyReport::default();
    let (open, _log) = open_folded(dir, VERIFY_CACHE_BYTES, &marker)?;
    let history = Part::open(dir, HISTORY_DIR, VERIFY_CACHE_BYTES)?;
    let read = catch_unwind(AssertUnwindSafe(|| -> Result<(), StoreError> {
        let identity = check_identity(&open, &marker)?;
        let census = Census::take(&open)?;
        let written = census.written();
        let roll = call_roll(&open, &Alone)?;
        report.open_sagas = roll.open;
        let damaged = roll.damaged.iter();
        report
            .problems
            .extend(damaged.map(|(saga, cause)| Problem { saga: Some(saga.clone()), what: cause.clone() }));
        let contradictions = census.contradiction().into_iter().chain(roll.contradiction(&written));
        report.problems.extend(contradictions.map(|what| Problem { saga: None, what }));
        records(&open, open.db()?.iter(), |found| {
            report.rows += found.rows as u64;
            report.problems.extend(record_problem(found));
            Ok(())
        })?;
        let mut findings = Findings::of(&written, &census.deleting);
        findings.note(&Live::of(roll));
        let relied_on = census.tail.history_commit.max(marker.history_commit);
        if let Err(error) = check_history(&history, &identity, relied_on, &findings) {
            report.problems.push(Problem { saga: None, what: error.to_string() });
        }
        verify_history(&history, &half_moved(&history, findings.ended)?, &mut report)
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

/// What is wrong with a saga's record, read down to its facts.
fn record_problem(found: Found<'_>) -> Option<Problem> {
    let (id, first_seq) = keys::parse_saga(found.key).filter(|_| found.family == Family::Saga)?;
    let read = found.content.and_then(|content| Record::parse(&content)?.facts(first_seq));
    let cause = read.err()?;
    Some(Problem { saga: Some(id), what: format!("the record from fact {first_seq}: {cause}") })
}

/// A saga whose records are being read.
struct Reading {
    summary: Summary,
    next_seq: u64,
}

/// Those of the ended sagas in the open database of which the history may have some rows already.
fn half_moved(history: &Part, ended: Vec<SagaId>) -> Result<HashSet<SagaId>, StoreError> {
    let mut found = HashSet::new();
    for id in ended {
        if !is_known(history, &id)? {
            found.insert(id);
        }
    }
    Ok(found)
}

fn verify_history(
    history: &Part,
    half_moved: &HashSet<SagaId>,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let tail = history.tail()?;
    let mut rows = RowCounts::default();
    let mut found_of = RowCounts::default();
    let mut saga: Option<Reading> = None;
    let mut problems: Vec<Problem> = Vec::new();
    records(history, history.db()?.iter(), |found| {
        report.rows += found.rows as u64;
        if found.family != Family::Meta {
            rows.add(found.family, found.rows);
            found_of.add(found.family, 1);
        }
        let of_half_moved = || keys::parse_saga(found.key).is_some_and(|(id, _)| half_moved.contains(&id));
        match (found.family, &found.content) {
            (Family::Saga, _) if of_half_moved() => return Ok(()),
            (Family::Saga, Ok(content)) => {
                let record = Record::parse(content).and_then(|record| record.summary());
                if let (Some((id, first_seq)), Ok(summary)) = (keys::parse_saga(found.key), record) {
                    if let Some(last) = saga.take_if(|last| last.summary.id != id) {
                        problems.extend(index_problems(history, &last.summary)?);
                        report.ended_sagas += 1;
                    }
                    let due = saga.as_ref().map_or(1, |reading| reading.next_seq);
                    if first_seq != due {
                        problems.push(Problem { saga: Some(id), what: format!("fact {due} is not there") });
                    }
                    saga = Some(Reading { next_seq: summary.seq + 1, summary });
                }
            }
            (Family::Saga, Err(_)) | (_, Ok(_)) => {}
            (family, Err(cause)) => {
                problems.push(Problem { saga: None, what: format!("a {} record: {cause}", family.name()) });
            }
        }
        problems.extend(record_problem(found));
        Ok(())
    })?;
    if let Some(last) = saga {
        problems.extend(index_problems(history, &last.summary)?);
        report.ended_sagas += 1;
    }
    for family in Family::ALL {
        let (found, written) = (rows.of(family), tail.rows.of(family));
        if found != written {
            let what =
                format!("the history holds {found} {} rows, and {written} were written", family.name());
            problems.push(Problem { saga: None, what });
        }
    }
    let sagas = report.ended_sagas;
    for family in [Family::Known, Family::Place, Family::Ended] {
        let found = found_of.of(family);
        if found != sagas {
            let what = format!("the history's {} names {found} sagas, and {sagas} are there", family.name());
            problems.push(Problem { saga: None, what });
        }
    }
    report.problems.append(&mut problems);
    Ok(())
}

/// Which indexes do not lead to a saga.
fn index_problems(history: &Part, summary: &Summary) -> Result<Vec<Problem>, StoreError> {
    let mut problems = Vec::new();
    for (family, key, content) in indexes_of(summary) {
        if history.record(&key)?.is_none_or(|(found, _)| found != content) {
            let what = format!("the {} does not name it", family.name());
            problems.push(Problem { saga: Some(summary.id.clone()), what });
        }
    }
    Ok(problems)
}
