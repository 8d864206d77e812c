//! The rule that every participant keeps: one call has one effect.
//!
//! A call may come twice, late, or after its own compensation: a network does that, and so does a
//! daemon that was killed before it could store an answer. Every attempt has the same key, so one row
//! for each action, written in the same transaction as the effect, is enough to tell.

use rusqlite::{Connection, OptionalExtension as _, Result, Transaction, TransactionBehavior};

/// What was answered to each action; `superseded` stands for one that its compensation overtook. The rows
/// stay: a call may come very late.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS calls (
        action_key TEXT PRIMARY KEY NOT NULL,
        outcome    TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'superseded')),
        code       TEXT NOT NULL,
        text       TEXT NOT NULL,
        undone     INTEGER NOT NULL DEFAULT FALSE
    )";

/// A call, by the key of the *action*: that is how a compensation finds what it is to undo.
pub enum Call {
    /// Execute: its `idempotency_key`.
    Act(String),
    /// Compensate: its `action_idempotency_key`.
    Undo(String),
}

/// What to answer.
pub enum Answer {
    /// It happened; the output as JSON, or nothing.
    Done(String),
    /// It did not happen and will not: a definite no.
    Refused { code: String, message: String },
    /// Too late: its compensation was here before it.
    Superseded,
}

/// Answers a call and lets `effect` happen if this is the first time that it should.
///
/// An effect that answers `Refused` must not have changed anything. An error leaves everything as it
/// was; the daemon asks again.
pub fn once(
    db: &mut Connection,
    call: &Call,
    effect: impl FnOnce(&Transaction) -> Result<Answer>,
) -> Result<Answer> {
    // Immediate: of two calls with one key the second waits here until the first is through.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (Call::Act(key) | Call::Undo(key)) = call;
    let answer = match (call, seen(&tx, key)?) {
        // Seen before: the same answer again. For an action behind its compensation that is Superseded.
        (Call::Act(_), Some((answer, _))) => answer,
        (Call::Act(_), None) => {
            let answer = effect(&tx)?;
            store(&tx, key, &answer)?;
            answer
        }
        (Call::Undo(_), Some((Answer::Done(_), false))) => {
            let answer = effect(&tx)?;
            if let Answer::Done(_) = answer {
                tx.execute("UPDATE calls SET undone = TRUE WHERE action_key = ?1", [key])?;
            }
            answer
        }
        // Refused, or undone already: nothing is left to undo, and that is what was asked for.
        (Call::Undo(_), Some(_)) => Answer::Done(String::new()),
        // The action never came. If it still does, it must not have an effect any more.
        (Call::Undo(_), None) => {
            store(&tx, key, &Answer::Superseded)?;
            Answer::Done(String::new())
        }
    };
    tx.commit()?;
    Ok(answer)
}

/// What was answered to this action, and whether it has been undone since.
fn seen(tx: &Transaction, key: &str) -> Result<Option<(Answer, bool)>> {
    let sql = "SELECT outcome, code, text, undone FROM calls WHERE action_key = ?1";
    tx.query_row(sql, [key], |row| {
        let answer = match row.get_ref("outcome")?.as_str()? {
            "done" => Answer::Done(row.get("text")?),
            "refused" => Answer::Refused { code: row.get("code")?, message: row.get("text")? },
            _ => Answer::Superseded,
        };
        Ok((answer, row.get("undone")?))
    })
    .optional()
}

fn store(tx: &Transaction, key: &str, answer: &Answer) -> Result<()> {
    let (outcome, code, text) = match answer {
        Answer::Done(output) => ("done", "", output.as_str()),
        Answer::Refused { code, message } => ("refused", code.as_str(), message.as_str()),
        Answer::Superseded => ("superseded", "", ""),
    };
    let sql = "INSERT INTO calls (action_key, outcome, code, text) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(sql, [key, outcome, code, text])?;
    Ok(())
}
