//! The barrier over SQLite.
//!
//! Every call runs in a transaction begun with `BEGIN IMMEDIATE`: one call at a time looks and writes, so
//! what it read cannot have changed when it writes. Set a `busy_timeout` on the connections: a call that
//! waits longer for another is answered [`Reply::InProgress`].

mod outside;
mod statements;

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Savepoint, Transaction};

use crate::rules::{self, ActionNext, Claim, ProbeNext, UndoNext};
use crate::{Action, Answer, Compensation, Probe, Purged, Reply};
use statements::{Found, commit, count, delete, find, open, settle_action, settle_undo, store};

/// Why there is no answer.
pub type Error<E> = crate::Error<rusqlite::Error, E>;

/// The table, to run with the participant's own migrations.
pub const SCHEMA: &str = include_str!("../sql/sqlite/schema.sql");

/// How long a call outside the database keeps others from looking and trying, unless it is set.
const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// Rows deleted in one transaction of a purge.
const PURGE_BATCH_ROWS: u64 = 5_000;

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
    pub fn act<E, F>(
        &self,
        connection: &mut Connection,
        call: &Action<'_>,
        effect: F,
    ) -> Result<Reply, Error<E>>
    where
        F: FnOnce(&Savepoint<'_>) -> Result<Answer, E>,
    {
        call.check()?;
        let Some(mut tx) = open(connection)? else { return Ok(Reply::InProgress) };
        match find(&tx, &Claim::action(call))? {
            Found::First => {}
            Found::Busy => return Ok(Reply::InProgress),
            Found::Row(row) => {
                return match rules::action(&row) {
                    ActionNext::Answer(reply) => Ok(reply),
                    ActionNext::Look => Err(Error::NeedsLook { action_key: call.key.to_owned() }),
                };
            }
        }
        let answer = within(&mut tx, effect)?;
        if !settle_action(&tx, call.key, Some(&answer), 0)? {
            return Err(Error::Overtaken { action_key: call.key.to_owned() });
        }
        commit(tx)?;
        Ok(answer.into())
    }

    /// Runs a compensation whose undo is in this database. `undo` is called only while the action's effect
    /// stands, with the transaction and the output that the action answered.
    pub fn undo<E, F>(
        &self,
        connection: &mut Connection,
        call: &Compensation<'_>,
        undo: F,
    ) -> Result<Reply, Error<E>>
    where
        F: FnOnce(&Savepoint<'_>, &str) -> Result<Answer, E>,
    {
        call.check()?;
        let Some(mut tx) = open(connection)? else { return Ok(Reply::InProgress) };
        let row = match find(&tx, &Claim::compensation(call))? {
            Found::First => {
                commit(tx)?;
                return Ok(rules::nothing_to_undo().into());
            }
            Found::Busy => return Ok(Reply::InProgress),
            Found::Row(row) => row,
        };
        let answer = match rules::undo(&row) {
            UndoNext::Answer(reply) => return Ok(reply),
            UndoNext::Empty => rules::nothing_to_undo(),
            UndoNext::Run(output) => within(&mut tx, |tx| undo(tx, &output))?,
            UndoNext::LookForAction | UndoNext::LookForUndo(_) => {
                return Err(Error::NeedsLook { action_key: call.action_key.to_owned() });
            }
        };
        if !settle_undo(&tx, call, &answer, row.lease_no)? {
            return Err(Error::Overtaken { action_key: call.action_key.to_owned() });
        }
        commit(tx)?;
        Ok(answer.into())
    }

    /// Answers a probe from the rows. An action that was never seen gets a tombstone: it is turned away
    /// if it still arrives.
    pub fn probe(&self, connection: &mut Connection, call: &Probe<'_>) -> Result<Reply, Error<Infallible>> {
        call.check()?;
        let Some(tx) = open(connection)? else { return Ok(Reply::InProgress) };
        let row = match find(&tx, &Claim::probe(call))? {
            Found::First => {
                commit(tx)?;
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
    pub fn reopen(&self, connection: &Connection, action_key: &str) -> Result<bool, Error<Infallible>> {
        let reopened = statements::reopen(connection, action_key);
        reopened.map_err(|source| store("reopen a refused compensation", source))
    }

    /// Deletes the settled rows made before a time, which must be safe: see "Deleting old rows" in the
    /// README. It goes in small transactions.
    pub fn purge(&self, connection: &Connection, before: SystemTime) -> Result<Purged, Error<Infallible>> {
        let before = before.duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        let mut purged = Purged { deleted: 0, unfinished: 0 };
        loop {
            let deleted = delete(connection, before, PURGE_BATCH_ROWS)
                .map_err(|source| store("delete old rows", source))?;
            purged.deleted += deleted;
            if deleted < PURGE_BATCH_ROWS {
                break;
            }
        }
        purged.unfinished =
            count(connection, before).map_err(|source| store("count unfinished rows", source))?;
        Ok(purged)
    }
}

/// Runs the participant's code behind a savepoint: a refusal takes back what it wrote before, and heals a
/// transaction in which one of its statements failed, but leaves the barrier's row.
fn within<E, F>(tx: &mut Transaction<'_>, work: F) -> Result<Answer, Error<E>>
where
    F: FnOnce(&Savepoint<'_>) -> Result<Answer, E>,
{
    let mut inner =
        tx.savepoint_with_name("sagad_effect").map_err(|source| store("set a savepoint", source))?;
    let answer = work(&inner).map_err(Error::Effect)?;
    match answer {
        Answer::Done(_) => inner.commit(),
        Answer::Refused { .. } => inner.rollback().and_then(|()| inner.commit()),
    }
    .map_err(|source| store("end a savepoint", source))?;
    Ok(answer)
}
