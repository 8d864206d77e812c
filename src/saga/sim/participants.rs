//! Participants with a ledger of effects, and the barrier that makes each happen once.

use std::collections::BTreeMap;

use crate::saga::ids::InstanceRef;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Refusal, codes};

/// Whose effect: the saga's place in the world, and the step instance.
pub type Key = (usize, InstanceRef);

/// What a participant does with a call it has not seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Carries it out.
    Does,
    /// Refuses it.
    Refuses,
    /// Takes its time.
    Delays,
    /// Answers with an error that says nothing.
    Fails,
    /// Carries it out and answers with an error that says nothing.
    DoesAndFails,
}

/// What became of one effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stand {
    #[default]
    Unseen,
    Working,
    Applied,
    Refused,
    Undone,
    /// Undone before it was seen: whatever arrives later is too late.
    Tombstone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    pub stand: Stand,
    pub effects: u32,
    pub undos: u32,
    pub is_undo_working: bool,
}

/// All participants of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participants {
    pub has_barrier: bool,
    pub ledger: BTreeMap<Key, Entry>,
}

impl Participants {
    pub fn new(has_barrier: bool) -> Self {
        Self { has_barrier, ledger: BTreeMap::new() }
    }

    pub fn entry(&self, key: Key) -> Entry {
        self.ledger.get(&key).copied().unwrap_or_default()
    }

    /// An action's call. `remembers` says whether a refusal is for good.
    pub fn act(&mut self, key: Key, mood: Mood, remembers: bool) -> Outcome {
        let has_barrier = self.has_barrier;
        let entry = self.ledger.entry(key).or_default();
        match entry.stand {
            Stand::Applied if has_barrier => return done(),
            Stand::Refused if has_barrier => return refused("OUT_OF_STOCK"),
            Stand::Undone | Stand::Tombstone if has_barrier => return refused(codes::SUPERSEDED),
            // Without a barrier the second attempt finds the last unit gone.
            Stand::Applied if mood == Mood::Refuses => return refused("OUT_OF_STOCK"),
            _ => {}
        }
        match mood {
            Mood::Does | Mood::DoesAndFails => {
                entry.stand = Stand::Applied;
                entry.effects += 1;
                if mood == Mood::Does { done() } else { error() }
            }
            Mood::Refuses if entry.stand == Stand::Working => Outcome::Pending(None),
            Mood::Refuses => {
                if remembers {
                    entry.stand = Stand::Refused;
                }
                refused("OUT_OF_STOCK")
            }
            Mood::Delays => {
                entry.stand = Stand::Working;
                Outcome::Pending(None)
            }
            Mood::Fails => error(),
        }
    }

    /// A compensation's call.
    pub fn undo(&mut self, key: Key, mood: Mood) -> Outcome {
        let has_barrier = self.has_barrier;
        let entry = self.ledger.entry(key).or_default();
        match (entry.stand, mood) {
            (Stand::Undone | Stand::Tombstone, _) if has_barrier => done(),
            (_, Mood::Fails) => error(),
            (Stand::Unseen | Stand::Working | Stand::Refused, _) => {
                entry.stand = Stand::Tombstone;
                done()
            }
            (_, Mood::Refuses) => refused("TOO_LATE"),
            (_, Mood::Delays) => {
                entry.is_undo_working = true;
                Outcome::Pending(None)
            }
            (_, Mood::Does | Mood::DoesAndFails) => {
                entry.stand = Stand::Undone;
                entry.undos += 1;
                if mood == Mood::Does { done() } else { error() }
            }
        }
    }

    /// A probe: it makes sure that what has not happened will not happen, unless the step is one
    /// that will be tried until it has.
    pub fn probe(&mut self, key: Key, mood: Mood, remembers: bool) -> Outcome {
        if !self.has_barrier && mood != Mood::Does {
            return Outcome::Unsupported;
        }
        let entry = self.ledger.entry(key).or_default();
        match (entry.stand, mood) {
            (_, Mood::Fails | Mood::DoesAndFails) => error(),
            (Stand::Applied, _) => done(),
            (Stand::Working, Mood::Delays) => Outcome::Pending(None),
            (Stand::Working, Mood::Does) => {
                (entry.stand, entry.effects) = (Stand::Applied, entry.effects + 1);
                done()
            }
            (Stand::Unseen | Stand::Working, _) => {
                entry.stand = if remembers { Stand::Tombstone } else { Stand::Unseen };
                refused("NOT_FOUND")
            }
            (Stand::Refused | Stand::Undone | Stand::Tombstone, _) => refused("NOT_FOUND"),
        }
    }
}

fn done() -> Outcome {
    Outcome::Done(Json::trusted("{\"ok\":true}".to_owned()))
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused(Refusal { code: code.to_owned(), message: "no".to_owned() })
}

fn error() -> Outcome {
    Outcome::Unknown("the participant answered 500".to_owned())
}
