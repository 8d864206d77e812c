//! Faults stop: everybody is there, every call is answered, operators see to what is blocked.
//! Then every saga must end, and the ledger must agree with what it says.

use std::collections::BTreeMap;

use super::participants::{Entry, Mood, Stand};
use super::world::{Check, Run, World};
use crate::saga::ids::{InstanceRef, Timestamp};
use crate::saga::input::{Act, Input, Resolution};
use crate::saga::invariants::check_journal;
use crate::saga::json::Json;
use crate::saga::state::{Action, Saga, Stage};
use crate::saga::words::{Phase, StepKind};

/// Rounds of deliveries and wake-ups within which every saga must have ended.
const ROUNDS_MAX: usize = 600;
/// Times an operator tries a blocked call again before looking for the truth.
const PATIENCE: u32 = 1;

impl World {
    /// Brings every saga to its end and compares it with the ledger.
    pub fn end_well(&mut self) -> Check {
        self.dies_before_commit = false;
        self.away.0.clear();
        (0..self.runs.len()).try_for_each(|run| self.feed(run, &Input::Wake))?;
        let mut tried = BTreeMap::new();
        for _ in 0..ROUNDS_MAX {
            self.deliver_all()?;
            if self.runs.iter().all(|run| run.saga.is_terminal()) {
                return self.check_ends();
            }
            (0..self.runs.len()).try_for_each(|run| self.operate(run, &mut tried))?;
            self.pass(None)?;
        }
        let stuck = self.runs.iter().find(|run| !run.saga.is_terminal());
        Err(format!("a saga does not end: {:?}", stuck.map(|run| (run.saga.stage, &run.saga.steps))))
    }

    fn deliver_all(&mut self) -> Check {
        while !self.net.is_empty() {
            let message = self.net.remove(0);
            self.deliver(message, Mood::Does)?;
        }
        Ok(())
    }

    /// What a careful operator does: go on, try again, then find out and say so.
    fn operate(&mut self, run: usize, tried: &mut BTreeMap<(usize, String, Phase), u32>) -> Check {
        if self.runs[run].saga.paused.is_some() {
            self.act(run, Act::Resume)?;
        }
        for block in self.runs[run].saga.blocks() {
            let times = tried.entry((run, block.step.clone(), block.phase)).or_insert(0);
            *times += 1;
            if *times <= PATIENCE {
                self.act(run, Act::RetryNow { step: Some(block.step) })?;
            } else if let Some(at) = self.runs[run].saga.instance_named(&block.step) {
                let act = self.truth(run, at, block.phase, &block.step);
                self.act(run, act)?;
            }
        }
        Ok(())
    }

    /// Finds out what is the case, makes sure that it stays so, and says it.
    fn truth(&mut self, run: usize, at: InstanceRef, phase: Phase, name: &str) -> Act {
        let step = name.to_owned();
        let kind = self.runs[run].saga.step(at).kind;
        let entry = self.participants.ledger.entry((run, at)).or_default();
        if phase == Phase::Compensation {
            match entry.stand {
                Stand::Applied => (entry.stand, entry.undos) = (Stand::Undone, entry.undos + 1),
                Stand::Undone => {}
                _ => entry.stand = Stand::Tombstone,
            }
            return Act::Resolve { step, resolution: Resolution::Compensated };
        }
        match (entry.stand, kind) {
            (Stand::Applied, _) => {
                let output = Json::null();
                Act::Resolve { step, resolution: Resolution::Done(output) }
            }
            (_, StepKind::Retriable) => Act::Skip { step },
            (_, StepKind::Compensatable | StepKind::Pivot) => {
                entry.stand = Stand::Tombstone;
                Act::Resolve { step, resolution: Resolution::Failed }
            }
        }
    }

    pub fn act(&mut self, run: usize, act: Act) -> Check {
        let (actor, reason) = ("operator".to_owned(), "because".to_owned());
        self.feed(run, &Input::Act { act, actor, reason })
    }

    fn check_ends(&mut self) -> Check {
        let stages: Vec<Stage> = self.runs.iter().map(|run| run.saga.stage).collect();
        self.deliver_all()?;
        self.pass(Some(Timestamp(self.now.0 + 100_000_000)))?;
        if !self.locks.is_empty() {
            return Err("all sagas have ended and a lock is still held".to_owned());
        }
        for (run, stage) in stages.into_iter().enumerate() {
            let ended = &self.runs[run];
            if ended.saga.stage != stage {
                return Err(format!("saga {run} ended as {stage:?} and is now {:?}", ended.saga.stage));
            }
            check_journal(&ended.journal, &ended.definition).map_err(|violation| violation.to_string())?;
            if self.participants.has_barrier {
                self.check_ledger(run)?;
            }
        }
        Ok(())
    }

    fn check_ledger(&self, run: usize) -> Check {
        let Run { saga, asserted, .. } = &self.runs[run];
        for (at, instance) in saga.each_instance() {
            let (name, entry) = (saga.name_of(at), self.participants.entry((run, at)));
            let Entry { effects, undos, .. } = entry;
            if effects > 1 || undos > effects {
                return Err(format!("{name}: {effects} effects and {undos} undos"));
            }
            if asserted.contains(&at) {
                let is_marked = saga.uncertain || instance.action == Action::Skipped;
                if is_marked {
                    continue;
                }
                return Err(format!("{name} was settled by an operator and the saga is certain"));
            }
            let expected = match saga.stage {
                Stage::Completed => u32::from(instance.action != Action::Skipped),
                Stage::Compensated if is_undone_for_nothing(saga, at) => effects,
                Stage::Compensated => undos,
                _ => effects,
            };
            if effects != expected {
                return Err(format!(
                    "the saga ended as {:?}, {name} has {effects} effects and {undos} undos: {instance:?}",
                    saga.stage
                ));
            }
        }
        Ok(())
    }
}

/// Its definition says in so many words that it needs no compensation.
fn is_undone_for_nothing(saga: &Saga, at: InstanceRef) -> bool {
    let step = saga.step(at);
    step.kind == StepKind::Compensatable && step.compensation.is_none()
}
