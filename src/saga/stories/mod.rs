//! What the rules come to, told as stories: what happens to a saga, and the facts that follow.
//!
//! Each line is `what happens => the facts that follow`; `-` is nothing at all, `no: …` a
//! rejection. Steps are called by name; `undo a` is the compensation of `a`, `probe a` its probe.

mod backward;
mod forward;
mod full;
mod operator;
mod pivot;
mod telling;
mod time;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::apply::replay;
use super::decide::{Decision, NewSaga, decide, start};
use super::event::Fact;
use super::ids::{ActionName, InstanceRef, LockKey, ParticipantName, SagaId, Timestamp};
use super::input::{Act, Completion, Context, Input, Reach, Rejection, Reply, Resolution};
use super::invariants::{check_answer, check_journal, check_step};
use super::json::Json;
use super::room::JournalLimit;
use super::sim::definitions::{Blueprint, StepPlan};
use super::sim::world::Away;
use super::state::Saga;
use super::words::{Outcome, Phase, Refusal, StepKind};

fn undoable(name: &str, after: &[u32]) -> StepPlan {
    StepPlan::new(name, StepKind::Compensatable, after)
}

fn pivot(after: &[u32]) -> StepPlan {
    StepPlan::new("pivot", StepKind::Pivot, after)
}

fn side_work(after: &[u32]) -> StepPlan {
    StepPlan::new("side", StepKind::Retriable, after)
}

/// Who is away, and how many calls the others let through.
struct Shops {
    away: Away,
    places: usize,
}

impl Reach for Shops {
    fn can_call(&self, participant: &ParticipantName, action: &ActionName) -> bool {
        self.places(participant, action) > 0
    }

    fn places(&self, participant: &ParticipantName, action: &ActionName) -> usize {
        if self.away.can_call(participant, action) { self.places } else { 0 }
    }
}

/// A saga under way.
struct Story {
    saga: Option<Saga>,
    journal: Vec<Fact>,
    now: Timestamp,
    epoch: u64,
    reach: Shops,
    limit: JournalLimit,
}

/// Tells the story and compares every line.
#[track_caller]
fn check(steps: Vec<StepPlan>, script: &str) {
    check_with(&Blueprint::new(steps), "", script);
}

/// The same with a whole blueprint and the keys of locks.
#[track_caller]
fn check_with(blueprint: &Blueprint, locks: &str, script: &str) {
    let mut story = Story::new();
    let (mut told, mut expected) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (what, follows) = line.split_once("=>").expect("a line is `what happens => what follows`");
        let what = what.trim();
        let happened = story.happen(blueprint, locks, what);
        let _ = writeln!(told, "{what} => {happened}");
        let _ = writeln!(expected, "{what} => {}", follows.trim());
    }
    assert!(told == expected, "expected:\n{expected}\ntold:\n{told}");
    let saga = story.saga.expect("a story begins with start");
    check_journal(&story.journal, &saga.definition).unwrap();
    assert!(replay(&story.journal, Arc::clone(&saga.definition)).unwrap() == saga, "replays to the same");
}

impl Story {
    fn new() -> Self {
        Self {
            saga: None,
            journal: Vec::new(),
            now: Timestamp(0),
            epoch: 1,
            reach: Shops { away: Away::default(), places: usize::MAX },
            limit: JournalLimit::NONE,
        }
    }

    fn happen(&mut self, blueprint: &Blueprint, locks: &str, what: &str) -> String {
        let words: Vec<&str> = what.split(' ').collect();
        match words[..] {
            ["start"] => return self.start(blueprint, locks),
            ["wait", span] => {
                let millis = span.trim_end_matches("ms").parse().expect("milliseconds");
                self.now = self.now + Duration::from_millis(millis);
                return self.decide(&Input::Wake);
            }
            ["wake"] => {
                let owed = super::duties::duties(self.saga(), &self.reach);
                self.now = owed.waits.wake_at.expect("it waits for a time").max(self.now);
                return self.decide(&Input::Wake);
            }
            // So many more bytes, and the journal is full.
            ["room", bytes] => {
                let bytes: usize = bytes.parse().expect("bytes");
                self.limit = JournalLimit::of(self.saga().journal_bytes + bytes);
                return self.decide(&Input::Wake);
            }
            ["away"] => {
                self.reach.away.0.insert("shop-0".to_owned());
                return "-".to_owned();
            }
            ["back"] => {
                self.reach.away.0.clear();
                return self.decide(&Input::Wake);
            }
            ["places", "all"] => {
                self.reach.places = usize::MAX;
                return self.decide(&Input::Wake);
            }
            ["places", places] => {
                self.reach.places = places.parse().expect("a number");
                return "-".to_owned();
            }
            ["crash"] => {
                (self.epoch, self.now) = (self.epoch + 1, self.now + Duration::from_mins(1));
                let definition = Arc::clone(&self.saga().definition);
                self.saga = Some(replay(&self.journal, definition).unwrap());
                return self.decide(&Input::Recovered);
            }
            ["status"] => return telling::status(self.saga()),
            _ => {}
        }
        let input = self.input(&words);
        self.decide(&input)
    }

    fn saga(&self) -> &Saga {
        self.saga.as_ref().expect("a story begins with start")
    }

    fn start(&mut self, blueprint: &Blueprint, locks: &str) -> String {
        let locks: Vec<LockKey> = locks.split_whitespace().map(|key| LockKey::parse(key).unwrap()).collect();
        let new = NewSaga {
            id: SagaId::parse("story").unwrap(),
            definition: blueprint.build(),
            version_asked: 0,
            input: Json::from_value(&serde_json::json!({ "items": [1, 2, 3], "note": "x".repeat(8_000) })),
            labels: Arc::default(),
            locks_held: locks.is_empty(),
            locks,
        };
        let context =
            Context { now: self.now, epoch: self.epoch, reach: &self.reach, journal_limit: self.limit };
        let Decision { facts, next, .. } = start(new, &context);
        let told = telling::facts(&next, &facts[1..]);
        (self.saga, self.journal) = (Some(next), facts);
        told
    }

    fn decide(&mut self, input: &Input) -> String {
        let context =
            Context { now: self.now, epoch: self.epoch, reach: &self.reach, journal_limit: self.limit };
        match decide(self.saga(), input, &context) {
            Err(Rejection::Precondition(_)) => "no: not now".to_owned(),
            Err(Rejection::Invalid { field, .. }) => format!("no: {field} is wrong"),
            Ok(Decision { facts, next, refused }) => {
                check_answer(input, &facts).unwrap();
                check_step(self.saga(), &facts, &next).unwrap();
                let mut told = telling::facts(&next, &facts);
                if refused.is_some() {
                    told.push_str("; no: not now");
                }
                self.journal.extend(facts);
                self.saga = Some(next);
                told
            }
        }
    }

    fn input(&self, words: &[&str]) -> Input {
        let (actor, reason) = ("ann".to_owned(), "because".to_owned());
        let act = |act| Input::Act { act, actor: "ann".to_owned(), reason: "because".to_owned() };
        let resolve = |step: &str, resolution| act(Act::Resolve { step: step.to_owned(), resolution });
        match *words {
            ["cancel"] => Input::Cancel { actor, reason },
            ["granted"] => Input::LocksGranted,
            ["pause"] => act(Act::Pause),
            ["resume"] => act(Act::Resume),
            ["operator", "cancels"] => act(Act::Cancel),
            ["retry", "all"] => act(Act::RetryNow { step: None }),
            ["retry", step] => act(Act::RetryNow { step: Some(step.to_owned()) }),
            ["skip", step] => act(Act::Skip { step: step.to_owned() }),
            ["resolve", step, "done"] => resolve(step, Resolution::Done(Json::null())),
            ["resolve", step, "big"] => resolve(step, Resolution::Done(big())),
            ["resolve", step, "failed"] => resolve(step, Resolution::Failed),
            ["resolve", step, "compensated"] => resolve(step, Resolution::Compensated),
            ["abandon", ref steps @ ..] => {
                act(Act::Abandon { steps: steps.iter().map(|&step| step.to_owned()).collect() })
            }
            ["token", answer, ref call @ ..] => {
                let (at, phase, _) = self.call(call);
                let outcome = match answer {
                    "done" => Completion::Done(Json::null()),
                    "big" => Completion::Done(big()),
                    _ => Completion::Refused(refusal()),
                };
                Input::Complete { at, phase, outcome }
            }
            [answer, ref call @ ..] => {
                let (at, phase, attempt) = self.call(call);
                let outcome = match answer {
                    "done" => Outcome::Done(Json::null()),
                    "big" => Outcome::Done(big()),
                    "refuse" => Outcome::Refused(refusal()),
                    "lose" => Outcome::Unknown("no answer".to_owned()),
                    "unsent" => Outcome::Unsent("not sent".to_owned()),
                    "delay" => Outcome::Pending(None),
                    "hurry" => Outcome::Pending(Some(Duration::ZERO)),
                    "unsupported" => Outcome::Unsupported,
                    other => panic!("{other} is not something that happens"),
                };
                Input::Reply(Reply { at, phase, attempt, outcome })
            }
            [] => panic!("nothing happens"),
        }
    }

    /// `a`, `undo a`, `probe a`, `a 1` for an earlier attempt.
    fn call(&self, words: &[&str]) -> (InstanceRef, Phase, u32) {
        let (phase, words) = match words.split_first() {
            Some((&"undo", rest)) => (Phase::Compensation, rest),
            Some((&"probe", rest)) => (Phase::Probe, rest),
            _ => (Phase::Action, words),
        };
        let at = self.saga().instance_named(words[0]).expect("an instance");
        let instance = self.saga().instance(at).expect("an instance");
        let latest = match phase {
            Phase::Action => instance.tries.attempt,
            Phase::Compensation => instance.undo_tries.attempt,
            Phase::Probe => instance.probes,
        };
        (at, phase, words.get(1).map_or(latest, |attempt| attempt.parse().expect("an attempt")))
    }
}

/// A large output.
fn big() -> Json {
    Json::from_value(&"x".repeat(10_000).into())
}

fn refusal() -> Refusal {
    Refusal { code: "NO".to_owned(), message: "no".to_owned() }
}
