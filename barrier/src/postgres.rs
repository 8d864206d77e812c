//! The barrier over PostgreSQL.
//!
//! Every call begins with an `INSERT … ON CONFLICT DO NOTHING`. The primary key lets one of several
//! concurrent first calls through and has the others wait until it has committed, so there is no moment
//! between looking and writing. Transactions are READ COMMITTED, whatever the database's default is: the
//! statement after such a wait must see what was committed during it.
//!
//! Set `lock_timeout` on the connections: a duplicate that waits longer is answered
//! [`Reply::InProgress`] instead of holding a connection.

mod outside;
mod statements;

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use crate::rules::{self, ActionNext, Claim, ProbeNext, UndoNext};
use crate::{Action, Answer, Compensation, Probe, Purged, Reply};
use statements::{Found, begin, commit, find, settle_action, settle_undo, store};

/// Why there is no answer.
pub type Error<E> = crate::Error<tokio_postgres::Error, E>;

/// The table, to run with the participant's own migrations.
pub const SCHEMA: &str = include_str!("../sql/postgres/schema.sql");

/// How long a call outside the database keeps others from looking and trying, unless it is set.
const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// Rows deleted in one transaction of a purge.
const PURGE_BATCH_ROWS: i64 = 5_000;

/// The barrier. It holds settings only: make it once, share it, hand it a connection for each call.
#[derive(Debug, Clone)]
pub struct Barrier {
    lease: Duration,
}

impl Default for Barrier {
    fn default() -> Self {
        Self { lease: LEASE_DEFAULT }
    }
}

impl Barrier {
    /// How long a call outside the database keeps others from looking and trying (30 s unless set). It
    /// must be longer than any such call can take to have its effect, its own timeout included.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Runs an action whose effect is in this database. `effect` gets the transaction that also holds the
    /// barrier's row: it checks, changes and answers. It must not commit, and does nothing outside.
    pub async fn act<E, F>(
        &self,
        client: &mut Client,
        call: &Action<'_>,
        effect: F,
    ) -> Result<Reply, Error<E>>
    where
        F: AsyncFnOnce(&Transaction<'_>) -> Result<Answer, E>,
    {
        call.check()?;
        let mut tx = begin(client).await?;
        match find(&tx, &Claim::action(call)).await? {
            Found::First => {}
            Found::Busy => return Ok(Reply::InProgress),
            Found::Row(row) => {
                return match rules::action(&row) {
                    ActionNext::Answer(reply) => Ok(reply),
                    ActionNext::Look => Err(Error::NeedsLook { action_key: call.key.to_owned() }),
                };
            }
        }
        let answer = within(&mut tx, effect).await?;
        if !settle_action(&tx, call.key, Some(&answer), 0).await? {
            return Err(Error::Overtaken { action_key: call.key.to_owned() });
        }
        commit(tx).await?;
        Ok(answer.into())
    }

    /// Runs a compensation whose undo is in this database. `undo` is called only while the action's effect
    /// stands, with the transaction and the output that the action answered.
    pub async fn undo<E, F>(
        &self,
        client: &mut Client,
        call: &Compensation<'_>,
        undo: F,
    ) -> Result<Reply, Error<E>>
    where
        F: AsyncFnOnce(&Transaction<'_>, &str) -> Result<Answer, E>,
    {
        call.check()?;
        let mut tx = begin(client).await?;
        let row = match find(&tx, &Claim::compensation(call)).await? {
            Found::First => {
                commit(tx).await?;
                return Ok(rules::nothing_to_undo().into());
            }
            Found::Busy => return Ok(Reply::InProgress),
            Found::Row(row) => row,
        };
        let answer = match rules::undo(&row) {
            UndoNext::Answer(reply) => return Ok(reply),
            UndoNext::Empty => rules::nothing_to_undo(),
            UndoNext::Run(output) => within(&mut tx, async |tx| undo(tx, &output).await).await?,
            UndoNext::LookForAction | UndoNext::LookForUndo(_) => {
                return Err(Error::NeedsLook { action_key: call.action_key.to_owned() });
            }
        };
        if !settle_undo(&tx, call, &answer, row.lease_no).await? {
            return Err(Error::Overtaken { action_key: call.action_key.to_owned() });
        }
        commit(tx).await?;
        Ok(answer.into())
    }

    /// Answers a probe from the rows. An action that was never seen gets a tombstone: it is turned away
    /// if it still arrives.
    pub async fn probe(&self, client: &mut Client, call: &Probe<'_>) -> Result<Reply, Error<Infallible>> {
        call.check()?;
        let tx = begin(client).await?;
        let row = match find(&tx, &Claim::probe(call)).await? {
            Found::First => {
                commit(tx).await?;
                return Ok(rules::never_arrived());
            }
            Found::Busy => return Ok(Reply::InProgress),
            Found::Row(row) => row,
        };
        match rules::probe(&row) {
            ProbeNext::Answer(reply) => Ok(reply),
            ProbeNext::Look => Err(Error::NeedsLook { action_key: call.action_key.to_owned() }),
        }
    }

    /// Forgets that a compensation was refused, so that its next call runs: for an operator who has
    /// mended the cause and is about to retry it. Whether there was a refusal to forget.
    pub async fn reopen(&self, client: &Client, action_key: &str) -> Result<bool, Error<Infallible>> {
        let rows = client
            .query_typed(statements::REOPEN, &[(&action_key, Type::TEXT)])
            .await
            .map_err(|source| store("reopen a refused compensation", source))?;
        Ok(!rows.is_empty())
    }

    /// Deletes the settled rows made before a time, which must be safe: see "Deleting old rows" in the
    /// README. It goes in small transactions.
    pub async fn purge(&self, client: &Client, before: SystemTime) -> Result<Purged, Error<Infallible>> {
        let before = before.duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        let mut purged = Purged { deleted: 0, unfinished: 0 };
        loop {
            let rows = client
                .query_typed(statements::PURGE, &[(&before, Type::INT8), (&PURGE_BATCH_ROWS, Type::INT8)])
                .await
                .map_err(|source| store("delete old rows", source))?;
            purged.deleted += rows.len() as u64;
            if (rows.len() as u64) < PURGE_BATCH_ROWS.unsigned_abs() {
                break;
            }
        }
        let rows = client
            .query_typed(statements::UNFINISHED, &[(&before, Type::INT8)])
            .await
            .map_err(|source| store("count unfinished rows", source))?;
        purged.unfinished = rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs());
        Ok(purged)
    }
}

/// Runs the participant's code behind a savepoint: a refusal takes back what it wrote before, and heals a
/// transaction in which one of its statements failed, but leaves the barrier's row.
async fn within<E, F>(tx: &mut Transaction<'_>, work: F) -> Result<Answer, Error<E>>
where
    F: AsyncFnOnce(&Transaction<'_>) -> Result<Answer, E>,
{
    let inner = tx.savepoint("sagad_effect").await.map_err(|source| store("set a savepoint", source))?;
    let answer = work(&inner).await.map_err(Error::Effect)?;
    match answer {
        Answer::Done(_) => inner.commit().await,
        Answer::Refused { .. } => inner.rollback().await,
    }
    .map_err(|source| store("end a savepoint", source))?;
    Ok(answer)
}
