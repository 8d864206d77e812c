//! The statements, as `sql/postgres/` documents them, and their rows.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::Error;
use crate::rules::{Claim, Columns, Row, columns};
use crate::{Answer, Compensation};

const CLAIM: &str = include_str!("../../sql/postgres/claim.sql");
const READ: &str = include_str!("../../sql/postgres/read.sql");
const SETTLE_ACTION: &str = include_str!("../../sql/postgres/settle_action.sql");
const SETTLE_UNDO: &str = include_str!("../../sql/postgres/settle_undo.sql");
const LEASE: &str = include_str!("../../sql/postgres/lease.sql");
const RELEASE: &str = include_str!("../../sql/postgres/release.sql");
pub(super) const REOPEN: &str = include_str!("../../sql/postgres/reopen.sql");
pub(super) const PURGE: &str = include_str!("../../sql/postgres/purge.sql");
pub(super) const UNFINISHED: &str = include_str!("../../sql/postgres/unfinished.sql");

/// What a call finds when it comes.
pub(super) enum Found {
    /// Nothing: it is the first that was seen of its action, and its row is written.
    First,
    /// The row of an earlier call, locked.
    Row(Row),
    /// Another one is at work and the connection's `lock_timeout` has passed.
    Busy,
}

pub(super) fn store<E>(operation: &'static str, source: tokio_postgres::Error) -> Error<E> {
    Error::Store { operation, source }
}

/// Whether a statement of the barrier failed only because another call was in its way.
fn is_wait(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::LOCK_NOT_AVAILABLE
            || *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
    })
}

pub(super) async fn begin<E>(client: &mut Client) -> Result<Transaction<'_>, Error<E>> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false)
        .start()
        .await
        .map_err(|source| store("begin", source))
}

pub(super) async fn commit<E>(tx: Transaction<'_>) -> Result<(), Error<E>> {
    tx.commit().await.map_err(|source| store("commit", source))
}

/// Writes the row of a first call, or reads the one that is there.
pub(super) async fn find<E>(tx: &Transaction<'_>, claim: &Claim<'_>) -> Result<Found, Error<E>> {
    match claim_row(tx, claim).await {
        Ok(true) => return Ok(Found::First),
        Ok(false) => {}
        Err(error) if is_wait(&error) => return Ok(Found::Busy),
        Err(error) => return Err(store("insert its row (is the table there, with its primary key?)", error)),
    }
    match tx.query_typed(READ, &[(&claim.action_key, Type::TEXT)]).await {
        Err(error) if is_wait(&error) => Ok(Found::Busy),
        Err(error) => Err(store("read its row", error)),
        Ok(rows) => {
            // No row: a purge has deleted it this moment. The next call is a first one.
            let Some(row) = rows.first() else { return Ok(Found::Busy) };
            let damaged = |why: String| Error::Damaged { action_key: claim.action_key.to_owned(), why };
            let row = parse(row).map_err(damaged)?;
            row.check(claim)?;
            Ok(Found::Row(row))
        }
    }
}

/// Whether this is the first call. Waits for a concurrent one.
async fn claim_row(tx: &Transaction<'_>, claim: &Claim<'_>) -> Result<bool, tokio_postgres::Error> {
    let undo = claim.undo_key.map(|_| "done");
    let lease_no = i64::from(claim.lease_ms.is_some());
    let rows = tx
        .query_typed(
            CLAIM,
            &[
                (&claim.action_key, Type::TEXT),
                (&claim.saga_id, Type::TEXT),
                (&claim.step, Type::TEXT),
                (&claim.action, Type::TEXT),
                (&claim.undo_key, Type::TEXT),
                (&undo, Type::TEXT),
                (&lease_no, Type::INT8),
                (&claim.lease_ms, Type::INT8),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

fn parse(row: &tokio_postgres::Row) -> Result<Row, String> {
    let action =
        Columns { state: row.get("action"), code: row.get("action_code"), text: row.get("action_text") };
    let undo = row.get::<_, Option<String>>("undo").map(|state| Columns {
        state,
        code: row.get("undo_code"),
        text: row.get("undo_text"),
    });
    Ok(Row {
        saga_id: row.get("saga_id"),
        step: row.get("step"),
        action: action.action()?,
        undo: undo.map(Columns::undo).transpose()?,
        lease_no: row.get("lease_no"),
        leased: row.get("leased"),
    })
}

/// Stores what came of an action; `None` is a tombstone. `false`: the lease was taken over.
pub(super) async fn settle_action<E>(
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
        &[
            (&action_key, Type::TEXT),
            (&state, Type::TEXT),
            (&code, Type::TEXT),
            (&text, Type::TEXT),
            (&lease_no, Type::INT8),
        ],
    )
    .await
}

/// Stores what came of a compensation. `false`: the lease was taken over.
pub(super) async fn settle_undo<E>(
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
        &[
            (&call.action_key, Type::TEXT),
            (&call.key, Type::TEXT),
            (&state, Type::TEXT),
            (&code, Type::TEXT),
            (&text, Type::TEXT),
            (&lease_no, Type::INT8),
        ],
    )
    .await
}

/// Takes the lease with this number; `undo_key` marks an undo as begun.
pub(super) async fn lease<E>(
    tx: &Transaction<'_>,
    action_key: &str,
    lease_no: i64,
    lease_ms: i64,
    undo_key: Option<&str>,
) -> Result<bool, Error<E>> {
    let undo = undo_key.map(|_| "started");
    changed(
        tx,
        "take the lease",
        LEASE,
        &[
            (&action_key, Type::TEXT),
            (&lease_no, Type::INT8),
            (&lease_ms, Type::INT8),
            (&undo, Type::TEXT),
            (&undo_key, Type::TEXT),
        ],
    )
    .await
}

/// Gives the lease back.
pub(super) async fn release<E>(
    tx: &Transaction<'_>,
    action_key: &str,
    lease_no: i64,
) -> Result<bool, Error<E>> {
    changed(tx, "give the lease back", RELEASE, &[(&action_key, Type::TEXT), (&lease_no, Type::INT8)]).await
}

async fn changed<E>(
    tx: &Transaction<'_>,
    operation: &'static str,
    statement: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Result<bool, Error<E>> {
    let rows = tx.query_typed(statement, params).await.map_err(|source| store(operation, source))?;
    Ok(!rows.is_empty())
}
