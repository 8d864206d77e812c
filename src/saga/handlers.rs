//! Whom a definition calls, numbered, so that it takes a few bits to say whom many steps wait for.

use std::collections::HashMap;

use super::definition::{Call, Probe, Step};
use super::ids::{ActionName, ParticipantName, StepIx};
use super::input::Reach;

/// The handlers that the steps of a definition call.
#[derive(Debug)]
pub struct Handlers {
    known: Vec<(ParticipantName, ActionName)>,
    /// Each participant among them, once.
    participants: Vec<ParticipantName>,
    /// Of each step: its action's and its probe's.
    forward: Vec<Callees>,
    /// Of each step: its compensation's.
    backward: Vec<Callees>,
}

/// Some of a definition's handlers: one bit each. Those whose numbers are 64 apart share a bit, so
/// it may stand for more than was meant, and never for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Callees(u64);

impl Callees {
    fn one(number: usize) -> Self {
        Self(1 << (number % 64))
    }

    /// Adds others.
    pub fn add(&mut self, others: Callees) {
        self.0 |= others.0;
    }

    fn has(self, number: usize) -> bool {
        self.0 & Self::one(number).0 != 0
    }
}

impl Handlers {
    /// Those that `steps` call.
    #[must_use]
    pub fn of(steps: &[Step]) -> Self {
        let mut numbers = HashMap::new();
        let mut known = Vec::new();
        let mut number = |handler: (&ParticipantName, &ActionName)| {
            let handler = (handler.0.clone(), handler.1.clone());
            let next = known.len();
            let number = *numbers.entry(handler.clone()).or_insert(next);
            if number == next {
                known.push(handler);
            }
            Callees::one(number)
        };
        let mut of_step = |step: &Step| {
            let mut forward = number(step.action.handler());
            forward.add(step.probe.as_ref().map(Probe::handler).map(&mut number).unwrap_or_default());
            let backward = step.compensation.as_ref().map(Call::handler).map(&mut number);
            (forward, backward.unwrap_or_default())
        };
        let (forward, backward) = steps.iter().map(&mut of_step).unzip();
        let mut participants: Vec<_> = known.iter().map(|(participant, _)| participant.clone()).collect();
        participants.sort_unstable();
        participants.dedup();
        Self { known, participants, forward, backward }
    }

    /// Every participant that some step calls, whatever for.
    #[must_use]
    pub fn participants(&self) -> &[ParticipantName] {
        &self.participants
    }

    /// Whom the action and the probe of `step` call.
    #[must_use]
    pub fn forward(&self, step: StepIx) -> Callees {
        self.forward[step.at()]
    }

    /// Whom the compensation of `step` calls.
    #[must_use]
    pub fn backward(&self, step: StepIx) -> Callees {
        self.backward[step.at()]
    }

    /// Whether all of `callees` can be called now.
    pub fn can_all_be_called(&self, callees: Callees, reach: &dyn Reach) -> bool {
        let meant = self.known.iter().enumerate().filter(|(number, _)| callees.has(*number));
        meant.into_iter().all(|(_, (participant, action))| reach.can_call(participant, action))
    }
}
