//! One participant's book: every call is ruled on here, by the barrier first and by business second.
//!
//! ```text
//! call ── rule ──► entry ── written to the ledger ── enter ──► book
//! ```
//!
//! `rule` changes nothing; `enter` is also what reads a ledger back after a crash. The barrier asks
//! in a fixed order: seen before (the stored answer again), overtaken by its own compensation
//! (refused, without effect), and only then whether the shop can do it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::catalogue::{Offer, Purse, Trade};

/// Ids that are answered count from here: past the integers that a double can hold.
pub const FIRST_RECORD_ID: i64 = 9_007_199_254_740_993;

/// Which of a step's calls it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The action.
    Action,
    /// Its compensation.
    Compensation,
    /// The question whether the action has had its effect.
    Probe,
}

/// Whose call it is: what the ledger keeps of every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The saga.
    pub saga: String,
    /// The step or step instance.
    pub step: String,
    /// Which of its calls.
    pub phase: Phase,
    /// The action asked for.
    pub action: String,
    /// The call's own key.
    pub key: String,
    /// The key of the action; equal to `key` for the action itself.
    pub action_key: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The epoch of the daemon that called.
    pub epoch: u64,
}

/// What was done to the balances or records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// `amount` (negative: taken) was added to the balance of `account`.
    Moved { account: String, amount: i64 },
    /// It was remembered that the action was asked for.
    Recorded,
}

/// What came of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// An action has had its effect, now and for the first time.
    Effect { deed: Deed, output: String },
    /// A definite no, with no effect.
    Refused { code: String, message: String },
    /// The same call was ruled on before: the stored answer went out again.
    Duplicate,
    /// An action that came after its own compensation or after a probe that denied it.
    Superseded,
    /// A compensation took back an effect.
    Undone { deed: Deed },
    /// A compensation or probe for an action that was never seen: the action's key is closed.
    Tombstone,
    /// A compensation with nothing (left) to take back.
    NothingToUndo,
    /// A probe found the effect.
    Found,
    /// A probe found that the action was refused or taken back.
    NotFound,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who called.
    #[serde(flatten)]
    pub caller: Caller,
    /// What came of it.
    pub verdict: Verdict,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, with an output as JSON.
    Done(String),
    /// Refused.
    Refused { code: String, message: String },
    /// Refused, because its compensation was here first.
    Superseded,
}

/// What a participant owns before the first call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Balances by account.
    pub balances: BTreeMap<String, i64>,
    /// The balance of every account that is not named.
    pub default_balance: i64,
}

/// How an action's key stands.
#[derive(Debug, Clone)]
enum Standing {
    Done { deed: Deed, output: String, undone: bool },
    Refused { code: String, message: String },
    Closed,
}

/// The book of one participant.
#[derive(Debug, Clone)]
pub struct Book {
    offers: &'static [Offer],
    opening: Opening,
    balances: BTreeMap<String, i64>,
    actions: BTreeMap<String, Standing>,
    compensations: BTreeMap<String, Answer>,
    effects: i64,
}

const NULL: &str = "null";

impl Book {
    /// An empty book.
    #[must_use]
    pub fn open(offers: &'static [Offer], opening: Opening) -> Self {
        Self {
            offers,
            balances: opening.balances.clone(),
            opening,
            actions: BTreeMap::new(),
            compensations: BTreeMap::new(),
            effects: 0,
        }
    }

    /// The balance of `account` as it stands.
    #[must_use]
    pub fn balance(&self, account: &str) -> i64 {
        self.balances.get(account).copied().unwrap_or(self.opening.default_balance)
    }

    /// The balance of `account` before the first call.
    #[must_use]
    pub fn opening_balance(&self, account: &str) -> i64 {
        self.opening.balances.get(account).copied().unwrap_or(self.opening.default_balance)
    }

    /// Says what comes of a call and what to answer. Changes nothing.
    #[must_use]
    pub fn rule(&self, caller: &Caller, input_json: &str) -> (Verdict, Answer) {
        match caller.phase {
            Phase::Action => self.rule_action(caller, input_json),
            Phase::Compensation => self.rule_compensation(caller),
            Phase::Probe => self.rule_probe(caller),
        }
    }

    /// Takes one ruling into the book.
    pub fn enter(&mut self, entry: &Entry) {
        let Entry { caller, verdict } = entry;
        match verdict {
            Verdict::Effect { deed, output } => {
                self.perform(deed);
                let standing = Standing::Done { deed: deed.clone(), output: output.clone(), undone: false };
                self.actions.insert(caller.action_key.clone(), standing);
            }
            Verdict::Refused { code, message } if caller.phase == Phase::Action => {
                let standing = Standing::Refused { code: code.clone(), message: message.clone() };
                self.actions.insert(caller.action_key.clone(), standing);
            }
            Verdict::Undone { deed } => {
                self.take_back(deed);
                if let Some(Standing::Done { undone, .. }) = self.actions.get_mut(&caller.action_key) {
                    *undone = true;
                }
            }
            Verdict::Tombstone => {
                self.actions.insert(caller.action_key.clone(), Standing::Closed);
            }
            Verdict::Refused { .. }
            | Verdict::Duplicate
            | Verdict::Superseded
            | Verdict::NothingToUndo
            | Verdict::Found
            | Verdict::NotFound => {}
        }
        let compensated =
            matches!(verdict, Verdict::Undone { .. } | Verdict::Tombstone | Verdict::NothingToUndo);
        if caller.phase == Phase::Compensation && compensated {
            self.compensations.insert(caller.key.clone(), Answer::Done(NULL.to_owned()));
        }
    }

    fn rule_action(&self, caller: &Caller, input_json: &str) -> (Verdict, Answer) {
        match self.actions.get(&caller.action_key) {
            Some(Standing::Done { output, .. }) => (Verdict::Duplicate, Answer::Done(output.clone())),
            Some(Standing::Refused { code, message }) => {
                (Verdict::Duplicate, Answer::Refused { code: code.clone(), message: message.clone() })
            }
            Some(Standing::Closed) => (Verdict::Superseded, Answer::Superseded),
            None => match self.trade(&caller.action, input_json) {
                Ok((deed, output)) => {
                    let answer = Answer::Done(output.clone());
                    (Verdict::Effect { deed, output }, answer)
                }
                Err((code, message)) => refuse(code, message),
            },
        }
    }

    fn rule_compensation(&self, caller: &Caller) -> (Verdict, Answer) {
        if let Some(answer) = self.compensations.get(&caller.key) {
            return (Verdict::Duplicate, answer.clone());
        }
        if !self.offers.iter().any(|offer| offer.undo == Some(caller.action.as_str())) {
            return refuse("UNKNOWN_ACTION", format!("nothing is undone by {:?} here", caller.action));
        }
        let verdict = match self.actions.get(&caller.action_key) {
            None => Verdict::Tombstone,
            Some(Standing::Done { deed, undone: false, .. }) => Verdict::Undone { deed: deed.clone() },
            Some(Standing::Done { undone: true, .. } | Standing::Refused { .. } | Standing::Closed) => {
                Verdict::NothingToUndo
            }
        };
        (verdict, Answer::Done(NULL.to_owned()))
    }

    fn rule_probe(&self, caller: &Caller) -> (Verdict, Answer) {
        let denied = |code: &str, message: &str| Answer::Refused {
            code: code.to_owned(),
            message: message.to_owned(),
        };
        match self.actions.get(&caller.action_key) {
            None => {
                (Verdict::Tombstone, denied("NEVER_ARRIVED", "the action never arrived and is closed now"))
            }
            Some(Standing::Closed) => (Verdict::NotFound, denied("NEVER_ARRIVED", "the action is closed")),
            Some(Standing::Refused { code, message }) => (Verdict::NotFound, denied(code, message)),
            Some(Standing::Done { undone: true, .. }) => {
                (Verdict::NotFound, denied("UNDONE", "the action was taken back"))
            }
            Some(Standing::Done { output, undone: false, .. }) => {
                (Verdict::Found, Answer::Done(output.clone()))
            }
        }
    }

    /// The business check: the deed and its output, or the code and message of a refusal.
    fn trade(&self, action: &str, input_json: &str) -> Result<(Deed, String), (&'static str, String)> {
        let Some(offer) = self.offers.iter().find(|offer| offer.action == action) else {
            return Err(("UNKNOWN_ACTION", format!("{action:?} is not offered here")));
        };
        let input: Value = serde_json::from_str(input_json)
            .map_err(|error| ("BAD_INPUT", format!("the input is not JSON: {error}")))?;
        let mut output = Map::new();
        let deed = match offer.trade {
            Trade::Take(purse) => {
                let (account, amount, left) = self.afford(&input, purse)?;
                output.insert("left".to_owned(), left.into());
                Deed::Moved { account, amount: -amount }
            }
            Trade::Look(purse) => self.afford(&input, purse).map(|_| Deed::Recorded)?,
            Trade::Give { account, amount } => {
                let (account, amount) = moved(&input, account, amount)?;
                if self.balance(&account).checked_add(amount).is_none() {
                    return Err(("BAD_INPUT", format!("the balance of {account} cannot hold {amount} more")));
                }
                Deed::Moved { account, amount }
            }
            Trade::Record => Deed::Recorded,
        };
        if let Some(field) = offer.id_field {
            output.insert(field.to_owned(), (FIRST_RECORD_ID + self.effects).into());
        }
        Ok((deed, Value::Object(output).to_string()))
    }

    /// The account, the amount and what would be left of the balance.
    fn afford(&self, input: &Value, purse: Purse) -> Result<(String, i64, i64), (&'static str, String)> {
        let (account, amount) = moved(input, purse.account, purse.amount)?;
        let held = self.balance(&account);
        if held < amount {
            let message = format!("{} {account}: {held} left, {amount} asked", purse.thing);
            return Err((purse.refusal, message));
        }
        Ok((account, amount, held - amount))
    }

    fn perform(&mut self, deed: &Deed) {
        self.effects += 1;
        self.change_balance(deed, 1);
    }

    /// What is taken back keeps its id: ids are never given twice.
    fn take_back(&mut self, deed: &Deed) {
        self.change_balance(deed, -1);
    }

    fn change_balance(&mut self, deed: &Deed, sign: i64) {
        match deed {
            Deed::Moved { account, amount } => {
                let balance = self.balance(account) + sign * amount;
                self.balances.insert(account.clone(), balance);
            }
            Deed::Recorded => {}
        }
    }
}

fn refuse(code: &str, message: String) -> (Verdict, Answer) {
    let code = code.to_owned();
    let answer = Answer::Refused { code: code.clone(), message: message.clone() };
    (Verdict::Refused { code, message }, answer)
}

/// Reads the account and the amount, a positive integer, out of an input.
fn moved(
    input: &Value,
    account: &'static str,
    amount: &'static str,
) -> Result<(String, i64), (&'static str, String)> {
    let name = match input.get(account) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => return Err(("BAD_INPUT", format!("{account} must be an id"))),
    };
    match input.get(amount).and_then(Value::as_i64) {
        Some(amount) if amount > 0 => Ok((name, amount)),
        _ => Err(("BAD_INPUT", format!("{amount} must be a positive integer"))),
    }
}

#[cfg(test)]
mod tests;
