//! The rules, without a database: what a stored row says about the call that has just come.

use crate::{Action, Answer, Compensation, Error, Probe, Reply};

/// The code of an action that was turned away, or will be.
const SUPERSEDED: &str = "SUPERSEDED";
/// The code that a probe is told for an action that was undone.
const UNDONE: &str = "UNDONE";

/// What is stored of an action.
#[derive(Debug)]
pub(crate) struct Row {
    pub saga_id: String,
    pub step: String,
    pub action: ActionState,
    /// `None`: no compensation has been here.
    pub undo: Option<UndoState>,
    /// Grows with every lease that is taken.
    pub lease_no: i64,
    /// Whether the lease is still held.
    pub leased: bool,
}

#[derive(Debug)]
pub(crate) enum ActionState {
    /// An effect outside the database was begun; nothing is known of what came of it.
    Started,
    Settled(Answer),
    /// A compensation or a probe was here first.
    Tombstone,
}

#[derive(Debug)]
pub(crate) enum UndoState {
    /// An undo outside the database was begun.
    Started,
    Settled(Answer),
}

/// The row that a call would be the first to write.
pub(crate) struct Claim<'a> {
    pub action_key: &'a str,
    pub saga_id: &'a str,
    pub step: &'a str,
    pub action: &'static str,
    pub undo_key: Option<&'a str>,
    pub lease_ms: Option<i64>,
}

impl<'a> Claim<'a> {
    pub(crate) fn action(call: &Action<'a>) -> Self {
        let Action { saga_id, step, key } = *call;
        Self { action_key: key, saga_id, step, action: "started", undo_key: None, lease_ms: None }
    }

    pub(crate) fn leased(self, lease_ms: i64) -> Self {
        Self { lease_ms: Some(lease_ms), ..self }
    }

    pub(crate) fn compensation(call: &Compensation<'a>) -> Self {
        let Compensation { saga_id, step, key, action_key } = *call;
        Self { action_key, saga_id, step, action: "tombstone", undo_key: Some(key), lease_ms: None }
    }

    pub(crate) fn probe(call: &Probe<'a>) -> Self {
        let Probe { saga_id, step, action_key } = *call;
        Self { action_key, saga_id, step, action: "tombstone", undo_key: None, lease_ms: None }
    }
}

/// A state as its three columns have it.
pub(crate) struct Columns {
    pub state: String,
    pub code: Option<String>,
    pub text: Option<String>,
}

impl Columns {
    pub(crate) fn action(self) -> Result<ActionState, String> {
        match self.state.as_str() {
            "started" => Ok(ActionState::Started),
            "tombstone" => Ok(ActionState::Tombstone),
            _ => self.answer().map(ActionState::Settled),
        }
    }

    pub(crate) fn undo(self) -> Result<UndoState, String> {
        match self.state.as_str() {
            "started" => Ok(UndoState::Started),
            _ => self.answer().map(UndoState::Settled),
        }
    }

    fn answer(self) -> Result<Answer, String> {
        match (self.state.as_str(), self.code, self.text) {
            ("done", None, Some(output)) => Ok(Answer::Done(output)),
            ("refused", Some(code), Some(message)) => Ok(Answer::Refused { code, message }),
            (state, ..) => Err(format!("state {state:?}")),
        }
    }
}

/// An answer's three columns.
pub(crate) fn columns(answer: &Answer) -> (&'static str, Option<&str>, &str) {
    match answer {
        Answer::Done(output) => ("done", None, output),
        Answer::Refused { code, message } => ("refused", Some(code), message),
    }
}

impl Row {
    /// Whether the row is of the same saga and step as the call.
    pub(crate) fn check<S, E>(&self, call: &Claim<'_>) -> Result<(), Error<S, E>> {
        if self.saga_id == call.saga_id && self.step == call.step {
            return Ok(());
        }
        Err(Error::KeyReused {
            action_key: call.action_key.to_owned(),
            saga_id: self.saga_id.clone(),
            step: self.step.clone(),
        })
    }
}

/// What to do about an action that finds a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ActionNext {
    Answer(Reply),
    /// Its effect was begun by a call that is gone: look.
    Look,
}

pub(crate) fn action(row: &Row) -> ActionNext {
    match &row.action {
        ActionState::Settled(answer) => ActionNext::Answer(answer.clone().into()),
        ActionState::Tombstone => ActionNext::Answer(Reply::Superseded),
        ActionState::Started if row.leased => ActionNext::Answer(Reply::InProgress),
        ActionState::Started => ActionNext::Look,
    }
}

/// What to do about a compensation that finds a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UndoNext {
    Answer(Reply),
    /// There is nothing to undo; that is stored and answered.
    Empty,
    /// The effect stands; this is the action's output.
    Run(String),
    /// The action's effect was begun by a call that is gone: look.
    LookForAction,
    /// The undo was begun by a call that is gone: look. This is the action's output.
    LookForUndo(String),
}

pub(crate) fn undo(row: &Row) -> UndoNext {
    match (&row.action, &row.undo) {
        (_, Some(UndoState::Settled(answer))) => UndoNext::Answer(answer.clone().into()),
        (ActionState::Started, _) | (_, Some(UndoState::Started)) if row.leased => {
            UndoNext::Answer(Reply::InProgress)
        }
        (ActionState::Started, _) => UndoNext::LookForAction,
        (ActionState::Settled(Answer::Done(output)), Some(UndoState::Started)) => {
            UndoNext::LookForUndo(output.clone())
        }
        (ActionState::Settled(Answer::Done(output)), None) => UndoNext::Run(output.clone()),
        (ActionState::Settled(Answer::Refused { .. }) | ActionState::Tombstone, _) => UndoNext::Empty,
    }
}

/// What to do about a probe that finds a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProbeNext {
    Answer(Reply),
    /// The action's effect was begun by a call that is gone: look.
    Look,
}

pub(crate) fn probe(row: &Row) -> ProbeNext {
    ProbeNext::Answer(match (&row.action, &row.undo) {
        (ActionState::Started, _) if !row.leased => return ProbeNext::Look,
        (ActionState::Started, _) | (_, Some(UndoState::Started)) => Reply::InProgress,
        (ActionState::Tombstone, _) => never_arrived(),
        (ActionState::Settled(Answer::Done(_)), Some(UndoState::Settled(Answer::Done(_)))) => {
            Reply::Refused { code: UNDONE.to_owned(), message: "the action was undone".to_owned() }
        }
        (ActionState::Settled(answer), _) => answer.clone().into(),
    })
}

/// What a probe is told that finds no row, once it has left a tombstone.
pub(crate) fn never_arrived() -> Reply {
    Reply::Refused {
        code: SUPERSEDED.to_owned(),
        message: "the action had no effect, and is turned away if it still arrives".to_owned(),
    }
}

/// What a compensation is told that had nothing to undo.
pub(crate) fn nothing_to_undo() -> Answer {
    Answer::Done(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(action: ActionState, undo: Option<UndoState>) -> Row {
        Row { saga_id: "s".to_owned(), step: "t".to_owned(), action, undo, lease_no: 0, leased: false }
    }

    #[test]
    fn a_tombstone_stays_one_for_every_later_call() {
        let stone = row(ActionState::Tombstone, None);
        assert_eq!(action(&stone), ActionNext::Answer(Reply::Superseded));
        assert_eq!(undo(&stone), UndoNext::Empty);
        assert_eq!(probe(&stone), ProbeNext::Answer(never_arrived()));
    }

    #[test]
    fn an_undo_that_was_refused_leaves_the_effect_standing() {
        let refused = Some(UndoState::Settled(Answer::refused("SHIPPED", "it is on its way")));
        let row = row(ActionState::Settled(Answer::done("1")), refused);
        assert_eq!(probe(&row), ProbeNext::Answer(Reply::Done("1".to_owned())));
    }

    #[test]
    fn columns_that_the_barrier_never_writes_are_damage() {
        let columns = |state: &str, code: Option<&str>, text: Option<&str>| Columns {
            state: state.to_owned(),
            code: code.map(str::to_owned),
            text: text.map(str::to_owned),
        };
        assert!(columns("done", None, None).action().is_err());
        assert!(columns("refused", None, Some("no code")).action().is_err());
        assert!(columns("tombstone", None, None).undo().is_err());
        assert!(columns("doen", None, Some("1")).action().is_err());
    }
}
