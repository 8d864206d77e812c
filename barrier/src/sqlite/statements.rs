//! The statements, as `sql/sqlite/` documents them, and their rows.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Transaction, TransactionBehavior, params};

use super::Error;
use crate::rules::{Claim, Columns, Row, columns};
use crate::{Answer, Compensation};

const CLAIM: &str = include_str!("../../sql/sqlite/claim.sql");
const READ: &str = include_str!("../../sql/sqlite/read.sql");
const SETTLE_ACTION: &str = include_str!("../../sql/sqlite/settle_action.sql");
const SETTLE_UNDO: &str = include_str!("../../sql/sqlite/settle_undo.sql");
const LEASE: &str = include_str!("../../sql/sqlite/lease.sql");
const RELEASE: &str = include_str!("../../sql/sqlite/release.sql");
const REOPEN: &str = include_str!("../../sql/sqlite/reopen.sql");
const PURGE: &str = include_str!("../../sql/sqlite/purge.sql");
const UNFINISHED: &str = include_str!("../../sql/sqlite/unfinished.sql");

/// What a call finds when it comes.
pub(super) enum Found {
    /// Nothing: it is the first that was seen of its action, and its row is written.
    First,
    /// The row of an earlier call.
    Row(Row),
    /// Another one is at work and the connection's `busy_timeout` has passed.
    Busy,
}

pub(super) fn store<E>(operation: &'static str, source: rusqlite::Error) -> Error<E> {
    Error::Store { operation, source }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Begins the transaction that a call looks in. `None`: others keep the database busy.
pub(super) fn open<E>(connection: &mut Connection) -> Result<Option<Transaction<'_>>, Error<E>> {
    match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => Ok(Some(tx)),
        Err(error) if is_busy(&error) => Ok(None),
        Err(error) => Err(store("begin", error)),
    }
}

pub(super) fn begin<E>(connection: &mut Connection) -> Result<Transaction<'_>, Error<E>> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|source| store("begin", source))
}

pub(super) fn commit<E>(tx: Transaction<'_>) -> Result<(), Error<E>> {
    tx.commit().map_err(|source| store("commit", source))
}

/// Writes the row of a first call, or reads the one that is there.
pub(super) fn find<E>(tx: &Transaction<'_>, claim: &Claim<'_>) -> Result<Found, Error<E>> {
    let undo = claim.undo_key.map(|_| "done");
    let lease_no = i64::from(claim.lease_ms.is_some());
    let Claim { action_key, saga_id, step, action, undo_key, lease_ms } = *claim;
    let written = changed(
        tx,
        "insert its row (is the table there, with its primary key?)",
        CLAIM,
        params![action_key, saga_id, step, action, undo_key, undo, lease_no, lease_ms],
    )?;
    if written {
        return Ok(Found::First);
    }
    let row = tx
        .prepare_cached(READ)
        .and_then(|mut read| read.query_row([action_key], |row| Ok(parse(row))).optional())
        .map_err(|source| store("read its row", source))?;
    let Some(row) = row else { return Ok(Found::Busy) };
    let row = row
        .map_err(|source| store("read its row", source))?
        .map_err(|why| Error::Damaged { action_key: action_key.to_owned(), why })?;
    row.check(claim)?;
    Ok(Found::Row(row))
}

fn parse(row: &rusqlite::Row<'_>) -> Result<Result<Row, String>, rusqlite::Error> {
    let action =
        Columns { state: row.get("action")?, code: row.get("action_code")?, text: row.get("action_text")? };
    let undo = match row.get::<_, Option<String>>("undo")? {
        Some(state) => Some(Columns { state, code: row.get("undo_code")?, text: row.get("undo_text")? }),
        None => None,
    };
    let (saga_id, step) = (row.get("saga_id")?, row.get("step")?);
    let (lease_no, leased) = (row.get("lease_no")?, row.get("leased")?);
    Ok(action.action().and_then(|action| {
        let undo = undo.map(Columns::undo).transpose()?;
        Ok(Row { saga_id, step, action, undo, lease_no, leased })
    }))
}

/// Stores what came of an action; `None` is a tombstone. `false`: the lease was taken over.
pub(super) fn settle_action<E>(
    tx: &Transaction<'_>,
    action_key: &str,
    answer: Option<&Answer>,
    lease_no: i64,
) -> Result<bool, Error<E>> {
    let (state, code, text) = match answer.map(columns) {
        Some((state, code, text)) => (state, code, Some(text)),
        None => ("tombstone", None, None),
    };
    changed(
        tx,
        "store what came of the action",
        SETTLE_ACTION,
        params![action_key, state, code, text, lease_no],
    )
}

/// Stores what came of a compensation. `false`: the lease was taken over.
pub(super) fn settle_undo<E>(
    tx: &Transaction<'_>,
    call: &Compensation<'_>,
    answer: &Answer,
    lease_no: i64,
) -> Result<bool, Error<E>> {
    let (state, code, text) = columns(answer);
    changed(
        tx,
        "store what came of the compensation",
        SETTLE_UNDO,
        params![call.action_key, call.key, state, code, text, lease_no],
    )
}

/// Takes the lease with this number; `undo_key` marks an undo as begun.
pub(super) fn lease<E>(
    tx: &Transaction<'_>,
    action_key: &str,
    lease_no: i64,
    lease_ms: i64,
    undo_key: Option<&str>,
) -> Result<bool, Error<E>> {
    let undo = undo_key.map(|_| "started");
    changed(tx, "take the lease", LEASE, params![action_key, lease_no, lease_ms, undo, undo_key])
}

/// Gives the lease back.
pub(super) fn release<E>(tx: &Transaction<'_>, action_key: &str, lease_no: i64) -> Result<bool, Error<E>> {
    changed(tx, "give the lease back", RELEASE, params![action_key, lease_no])
}

/// Forgets a refused compensation; whether there was one.
pub(super) fn reopen(connection: &Connection, action_key: &str) -> rusqlite::Result<bool> {
    connection.prepare(REOPEN)?.exists([action_key])
}

/// Deletes one batch of old rows and counts them.
pub(super) fn delete(connection: &Connection, before: i64, batch: u64) -> rusqlite::Result<u64> {
    let mut delete = connection.prepare(PURGE)?;
    let mut rows = delete.query(params![before, i64::try_from(batch).unwrap_or(i64::MAX)])?;
    let mut deleted = 0;
    while rows.next()?.is_some() {
        deleted += 1;
    }
    Ok(deleted)
}

/// Counts the old rows that are unfinished.
pub(super) fn count(connection: &Connection, before: i64) -> rusqlite::Result<u64> {
    connection.query_row(UNFINISHED, [before], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn changed<E>(
    tx: &Transaction<'_>,
    operation: &'static str,
    statement: &str,
    params: impl Params,
) -> Result<bool, Error<E>> {
    tx.prepare_cached(statement)
        .and_then(|mut statement| {
            // To the end: a statement that returns rows has done its work only then.
            let mut rows = statement.query(params)?;
            let is_changed = rows.next()?.is_some();
            while rows.next()?.is_some() {}
            Ok(is_changed)
        })
        .map_err(|source| store(operation, source))
}
