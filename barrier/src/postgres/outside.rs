//! Effects outside the database: the intent is committed, then the effect happens, then its outcome is
//! committed. A call that finds an intent whose lease has passed looks before it does anything.

use tokio_postgres::Client;

use super::statements::{Found, begin, commit, find, lease, release, settle_action, settle_undo};
use super::{Barrier, Error};
use crate::rules::{self, ActionNext, Claim, ProbeNext, UndoNext};
use crate::{Action, Answer, Compensation, Look, Probe, Reply};

/// What a call may do next, after its intent.
enum Turn<T> {
    /// It has its answer.
    Answer(Reply),
    /// It holds the lease of this number.
    Go(i64, T),
}

/// What a compensation does with its lease.
enum UndoTurn {
    Run(String),
    LookForAction,
    LookForUndo(String),
}

impl Barrier {
    /// Runs an action whose effect is outside this database.
    ///
    /// `effect` must be over well before the lease ends, one way or the other. `look` is asked when an
    /// earlier call began and never reported back. At most one of the two is running at any time for an
    /// action, as long as the lease is longer than either.
    pub async fn act_outside<E, F, L>(
        &self,
        client: &mut Client,
        call: &Action<'_>,
        effect: F,
        look: L,
    ) -> Result<Reply, Error<E>>
    where
        F: AsyncFnOnce() -> Result<Answer, E>,
        L: AsyncFnOnce() -> Result<Look, E>,
    {
        call.check()?;
        let (lease_no, is_first) = match self.act_intent(client, call).await? {
            Turn::Answer(reply) => return Ok(reply),
            Turn::Go(lease_no, is_first) => (lease_no, is_first),
        };
        let answer = if is_first {
            effect().await.map_err(Error::Effect)?
        } else {
            match look_or_release(client, call.key, lease_no, look).await? {
                Look::There(output) => Answer::Done(output),
                Look::NotThere => effect().await.map_err(Error::Effect)?,
                Look::CannotTell => return Ok(Reply::Unsettled),
            }
        };
        let tx = begin(client).await?;
        held(settle_action(&tx, call.key, Some(&answer), lease_no).await?, call.key)?;
        commit(tx).await?;
        Ok(answer.into())
    }

    /// Runs a compensation whose undo is outside this database. `undo` gets the output that the action
    /// answered (empty if it never did). `look` tells whether the *action's* effect is there.
    pub async fn undo_outside<E, F, L>(
        &self,
        client: &mut Client,
        call: &Compensation<'_>,
        undo: F,
        look: L,
    ) -> Result<Reply, Error<E>>
    where
        F: AsyncFnOnce(&str) -> Result<Answer, E>,
        L: AsyncFnOnce() -> Result<Look, E>,
    {
        call.check()?;
        let (mut lease_no, turn) = match self.undo_intent(client, call).await? {
            Turn::Answer(reply) => return Ok(reply),
            Turn::Go(lease_no, turn) => (lease_no, turn),
        };
        let answer = match turn {
            UndoTurn::Run(output) => undo(&output).await.map_err(Error::Effect)?,
            UndoTurn::LookForUndo(output) => {
                match look_or_release(client, call.action_key, lease_no, look).await? {
                    Look::There(_) => undo(&output).await.map_err(Error::Effect)?,
                    Look::NotThere => rules::nothing_to_undo(),
                    Look::CannotTell => return Ok(Reply::Unsettled),
                }
            }
            UndoTurn::LookForAction => {
                match look_or_release(client, call.action_key, lease_no, look).await? {
                    Look::There(output) => {
                        lease_no = self.begin_undo(client, call, lease_no, &output).await?;
                        undo(&output).await.map_err(Error::Effect)?
                    }
                    Look::NotThere => return close_action(client, call, lease_no).await,
                    Look::CannotTell => return Ok(Reply::Unsettled),
                }
            }
        };
        let tx = begin(client).await?;
        held(settle_undo(&tx, call, &answer, lease_no).await?, call.action_key)?;
        commit(tx).await?;
        Ok(answer.into())
    }

    /// Answers a probe of an action whose effect is outside this database: from the rows, and by a look
    /// if the action began and never reported back.
    pub async fn probe_outside<E, L>(
        &self,
        client: &mut Client,
        call: &Probe<'_>,
        look: L,
    ) -> Result<Reply, Error<E>>
    where
        L: AsyncFnOnce() -> Result<Look, E>,
    {
        call.check()?;
        let lease_no = match self.probe_intent(client, call).await? {
            Turn::Answer(reply) => return Ok(reply),
            Turn::Go(lease_no, ()) => lease_no,
        };
        let (found, reply) = match look_or_release(client, call.action_key, lease_no, look).await? {
            Look::There(output) => (Some(Answer::Done(output.clone())), Reply::Done(output)),
            Look::NotThere => (None, rules::never_arrived()),
            Look::CannotTell => return Ok(Reply::Unsettled),
        };
        let tx = begin(client).await?;
        held(settle_action(&tx, call.action_key, found.as_ref(), lease_no).await?, call.action_key)?;
        commit(tx).await?;
        Ok(reply)
    }

    /// Commits an action's intent, or takes over one whose lease has passed. With the lease: whether this
    /// is the first call, before which no effect can have happened.
    async fn act_intent<E>(&self, client: &mut Client, call: &Action<'_>) -> Result<Turn<bool>, Error<E>> {
        let tx = begin(client).await?;
        let row = match find(&tx, &Claim::action(call).leased(self.lease_ms())).await? {
            Found::First => {
                commit(tx).await?;
                return Ok(Turn::Go(1, true));
            }
            Found::Busy => return Ok(Turn::Answer(Reply::InProgress)),
            Found::Row(row) => row,
        };
        match rules::action(&row) {
            ActionNext::Answer(reply) => Ok(Turn::Answer(reply)),
            ActionNext::Look => {
                let lease_no = row.lease_no + 1;
                held(lease(&tx, call.key, lease_no, self.lease_ms(), None).await?, call.key)?;
                commit(tx).await?;
                Ok(Turn::Go(lease_no, false))
            }
        }
    }

    async fn undo_intent<E>(
        &self,
        client: &mut Client,
        call: &Compensation<'_>,
    ) -> Result<Turn<UndoTurn>, Error<E>> {
        let tx = begin(client).await?;
        let row = match find(&tx, &Claim::compensation(call)).await? {
            Found::First => {
                commit(tx).await?;
                return Ok(Turn::Answer(rules::nothing_to_undo().into()));
            }
            Found::Busy => return Ok(Turn::Answer(Reply::InProgress)),
            Found::Row(row) => row,
        };
        let (turn, undo_key) = match rules::undo(&row) {
            UndoNext::Answer(reply) => return Ok(Turn::Answer(reply)),
            UndoNext::Empty => {
                let answer = rules::nothing_to_undo();
                held(settle_undo(&tx, call, &answer, row.lease_no).await?, call.action_key)?;
                commit(tx).await?;
                return Ok(Turn::Answer(answer.into()));
            }
            UndoNext::Run(output) => (UndoTurn::Run(output), Some(call.key)),
            UndoNext::LookForUndo(output) => (UndoTurn::LookForUndo(output), Some(call.key)),
            UndoNext::LookForAction => (UndoTurn::LookForAction, None),
        };
        let lease_no = row.lease_no + 1;
        held(lease(&tx, call.action_key, lease_no, self.lease_ms(), undo_key).await?, call.action_key)?;
        commit(tx).await?;
        Ok(Turn::Go(lease_no, turn))
    }

    async fn probe_intent<E>(&self, client: &mut Client, call: &Probe<'_>) -> Result<Turn<()>, Error<E>> {
        let tx = begin(client).await?;
        let row = match find(&tx, &Claim::probe(call)).await? {
            Found::First => {
                commit(tx).await?;
                return Ok(Turn::Answer(rules::never_arrived()));
            }
            Found::Busy => return Ok(Turn::Answer(Reply::InProgress)),
            Found::Row(row) => row,
        };
        match rules::probe(&row) {
            ProbeNext::Answer(reply) => Ok(Turn::Answer(reply)),
            ProbeNext::Look => {
                let lease_no = row.lease_no + 1;
                held(lease(&tx, call.action_key, lease_no, self.lease_ms(), None).await?, call.action_key)?;
                commit(tx).await?;
                Ok(Turn::Go(lease_no, ()))
            }
        }
    }

    /// Stores that the action's effect was found, and the intent to undo it. The new lease.
    async fn begin_undo<E>(
        &self,
        client: &mut Client,
        call: &Compensation<'_>,
        lease_no: i64,
        output: &str,
    ) -> Result<i64, Error<E>> {
        let tx = begin(client).await?;
        let found = Answer::done(output);
        held(settle_action(&tx, call.action_key, Some(&found), lease_no).await?, call.action_key)?;
        let (next, key) = (lease_no + 1, Some(call.key));
        held(lease(&tx, call.action_key, next, self.lease_ms(), key).await?, call.action_key)?;
        commit(tx).await?;
        Ok(next)
    }

    fn lease_ms(&self) -> i64 {
        i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX / 2)
    }
}

/// Stores that the action had no effect, and will have none, and that there is nothing to undo.
async fn close_action<E>(
    client: &mut Client,
    call: &Compensation<'_>,
    lease_no: i64,
) -> Result<Reply, Error<E>> {
    let answer = rules::nothing_to_undo();
    let tx = begin(client).await?;
    held(settle_action(&tx, call.action_key, None, lease_no).await?, call.action_key)?;
    held(settle_undo(&tx, call, &answer, lease_no).await?, call.action_key)?;
    commit(tx).await?;
    Ok(answer.into())
}

/// Looks. If that fails or cannot tell, the lease is given back: nothing of ours is under way.
async fn look_or_release<E, L>(
    client: &mut Client,
    action_key: &str,
    lease_no: i64,
    look: L,
) -> Result<Look, Error<E>>
where
    L: AsyncFnOnce() -> Result<Look, E>,
{
    let found = look().await;
    if matches!(found, Ok(Look::CannotTell) | Err(_)) {
        let tx = begin(client).await?;
        release(&tx, action_key, lease_no).await?;
        commit(tx).await?;
    }
    found.map_err(Error::Effect)
}

/// Whether the lease was still ours when the outcome was written.
fn held<E>(is_ours: bool, action_key: &str) -> Result<(), Error<E>> {
    if is_ours { Ok(()) } else { Err(Error::Overtaken { action_key: action_key.to_owned() }) }
}
