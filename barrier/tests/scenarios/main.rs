//! The scenarios that the Rust, Python and TypeScript barriers share: `scenarios/calls.json`, played
//! over PostgreSQL and over SQLite.
#![expect(clippy::unwrap_used, reason = "a test may end at whatever goes wrong")]

mod postgres;
mod sqlite;
#[path = "../support/mod.rs"]
mod support;

use std::cell::Cell;
use std::fmt;

use sagad_barrier::{Answer, Error, Look, Purged, Reply};
use serde::Deserialize;

/// What happens in the participant's own database, beside the barrier's table.
const WORLD: &str =
    "CREATE TABLE world (id INTEGER PRIMARY KEY, effects INTEGER NOT NULL, undos INTEGER NOT NULL)";
const WORLD_AS_IT_WAS: &str =
    "DELETE FROM sagad_barrier; DELETE FROM world; INSERT INTO world VALUES (1, 0, 0)";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    #[serde(default)]
    outside: bool,
    #[serde(default)]
    lease_ms: u64,
    calls: Vec<Call>,
}

/// One call, what the participant's code does if it is run, and what must have come of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(rename = "call")]
    kind: String,
    #[serde(default)]
    outside: bool,
    #[serde(default = "saga")]
    saga: String,
    #[serde(default = "step")]
    step: String,
    key: Option<String>,
    /// Left out: the code must not be run.
    does: Option<String>,
    /// The output, or the message of a refusal.
    #[serde(default)]
    says: String,
    #[serde(default)]
    code: String,
    /// What the undo is given as the action's output.
    gets: Option<String>,
    /// Left out: nobody may look.
    look: Option<String>,
    /// The output that the look finds, if it is not `says`.
    finds: Option<String>,
    reply: Vec<String>,
    effects: i64,
    undos: i64,
}

fn saga() -> String {
    "order-1".to_owned()
}

fn step() -> String {
    "deduct-stock/0".to_owned()
}

/// What happens outside the database.
#[derive(Default)]
struct Outside {
    effects: Cell<i64>,
    undos: Cell<i64>,
}

/// The participant's own code failed, or its process died.
#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the participant's code failed")
    }
}

impl Call {
    fn own_key(&self) -> &str {
        self.key.as_deref().unwrap_or(if self.kind == "action" { "a" } else { "c" })
    }

    fn does(&self) -> &str {
        self.does.as_deref().unwrap_or_else(|| panic!("{}: the participant's code was run", self.kind))
    }

    fn refusal(&self) -> Answer {
        Answer::refused(&self.code, &self.says)
    }

    /// Runs the effect (or undo) outside the database.
    fn outside(&self, count: &Cell<i64>) -> Result<Answer, Failed> {
        let does = self.does();
        if does.starts_with("done") {
            count.set(count.get() + 1);
        }
        match does {
            "done" | "done, overtaken" => Ok(Answer::done(&self.says)),
            "refused" => Ok(self.refusal()),
            "crashes" | "done, then crashes" => Err(Failed),
            other => panic!("unknown deed {other:?}"),
        }
    }

    fn look(&self) -> Result<Look, Failed> {
        match self.look.as_deref().expect("nobody may look") {
            "there" => Ok(Look::There(self.finds.clone().unwrap_or_else(|| self.says.clone()))),
            "not there" => Ok(Look::NotThere),
            "cannot tell" => Ok(Look::CannotTell),
            "fails" => Err(Failed),
            other => panic!("unknown look {other:?}"),
        }
    }

    /// Holds what came of the call against what the scenario says.
    fn check(&self, scenario: &Scenario, at: usize, reply: &[String], effects: i64, undos: i64) {
        let name = format!("{}: call {at} ({})", scenario.name, self.kind);
        assert_eq!(reply, self.reply, "{name}: the reply");
        assert_eq!((effects, undos), (self.effects, self.undos), "{name}: effects and undos");
    }
}

fn words<S: fmt::Display, E: fmt::Display>(reply: &Result<Reply, Error<S, E>>) -> Vec<String> {
    let words: &[&str] = match reply {
        Ok(Reply::Done(output)) => &["done", output],
        Ok(Reply::Refused { code, message }) => &["refused", code, message],
        Ok(Reply::Superseded) => &["superseded"],
        Ok(Reply::InProgress) => &["in progress"],
        Ok(Reply::Unsettled) => &["unsettled"],
        Err(Error::Call(_)) => &["invalid call"],
        Err(Error::Effect(_)) => &["failed"],
        Err(Error::KeyReused { .. }) => &["key reused"],
        Err(Error::NeedsLook { .. }) => &["needs a look"],
        Err(Error::Overtaken { .. }) => &["overtaken"],
        Err(Error::Store { operation, source }) => panic!("{operation}: {source}"),
        Err(_) => &["another error"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn purge_words(purged: Purged) -> Vec<String> {
    vec![format!("{} deleted, {} unfinished", purged.deleted, purged.unfinished)]
}

fn scenarios() -> Vec<Scenario> {
    let scenarios: Vec<Scenario> = serde_json::from_str(include_str!("../../scenarios/calls.json")).unwrap();
    assert!(scenarios.len() > 20, "the scenarios were not found");
    scenarios
}
