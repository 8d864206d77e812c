//! A world in which messages are lost, doubled, late and out of order, and the daemon dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::definitions::Blueprint;
use super::mutants::Core;
use super::participants::{Mood, Participants, Stand};
use crate::saga::apply::replay;
use crate::saga::decide::{Decision, NewSaga, start};
use crate::saga::definition::Definition;
use crate::saga::duties::{Duties, Waits, rests};
use crate::saga::event::{Event, Fact};
use crate::saga::ids::{ActionName, InstanceRef, LockKey, ParticipantName, SagaId, Timestamp};
use crate::saga::input::{Act, CallDuty, CallId, Completion, Context, Everyone, Input, Reach, Reply};
use crate::saga::invariants::{check_answer, check_journal, check_step};
use crate::saga::json::Json;
use crate::saga::locks::LockTable;
use crate::saga::room::JournalLimit;
use crate::saga::state::{Saga, Stage};
use crate::saga::words::{Outcome, Phase, StepKind};

/// What went wrong, for people.
pub type Check<T = ()> = Result<T, String>;

/// Something on its way.
#[derive(Debug, Clone)]
pub enum Message {
    Request { run: usize, call: CallId },
    Response { run: usize, reply: Reply },
    Complete { run: usize, at: InstanceRef, phase: Phase, outcome: Completion },
}

/// One saga of the world.
pub struct Run {
    pub blueprint: Blueprint,
    pub definition: Arc<Definition>,
    pub saga: Saga,
    pub journal: Vec<Fact>,
    /// What the daemon waits for, and until when.
    pub in_flight: BTreeMap<CallId, Timestamp>,
    /// Calls that left, ever.
    pub sent: BTreeSet<CallId>,
    /// Calls that a participant saw, ever.
    pub seen: BTreeSet<CallId>,
    /// The input of each call, the same on every attempt.
    pub inputs: BTreeMap<(InstanceRef, Phase), String>,
    /// Instances about which an operator said something.
    pub asserted: BTreeSet<InstanceRef>,
    pub ticket: u64,
}

/// Who is away at the moment.
#[derive(Debug, Clone, Default)]
pub struct Away(pub BTreeSet<String>);

impl Reach for Away {
    fn can_call(&self, participant: &ParticipantName, _: &ActionName) -> bool {
        !self.0.contains(participant.as_str())
    }
}

pub struct World {
    pub core: Core,
    pub now: Timestamp,
    pub epoch: u64,
    pub runs: Vec<Run>,
    pub net: Vec<Message>,
    pub participants: Participants,
    pub away: Away,
    pub locks: LockTable,
    /// The next decision is lost with the daemon that made it.
    pub dies_before_commit: bool,
    pub journal_limit: JournalLimit,
}

impl World {
    pub fn new(core: Core, has_barrier: bool) -> Self {
        Self {
            core,
            now: Timestamp(1_000_000),
            epoch: 1,
            runs: Vec::new(),
            net: Vec::new(),
            participants: Participants::new(has_barrier),
            away: Away::default(),
            locks: LockTable::default(),
            dies_before_commit: false,
            journal_limit: JournalLimit::NONE,
        }
    }

    pub fn start(&mut self, blueprint: Blueprint, items: u64, locks: Vec<LockKey>) -> Check {
        let (run, definition) = (self.runs.len(), blueprint.build());
        let ticket = run as u64;
        let id = SagaId::parse(&format!("saga-{run}")).unwrap();
        let locks_held = locks.is_empty() || self.locks.enqueue(ticket, id.clone(), &locks);
        let items: Vec<u64> = (0..items).collect();
        let new = NewSaga {
            id,
            definition: Arc::clone(&definition),
            version_asked: 0,
            input: Json::from_value(&serde_json::json!({ "items": items })),
            labels: Arc::default(),
            locks,
            locks_held,
        };
        let (reach, now, epoch) = (self.away.clone(), self.now, self.epoch);
        let Decision { facts, next, .. } =
            start(new, &Context { now, epoch, reach: &reach, journal_limit: self.journal_limit });
        check_journal(&facts, &definition).map_err(|violation| violation.to_string())?;
        let (sent, in_flight, inputs) = Default::default();
        let asserted = BTreeSet::new();
        let saga = next;
        self.runs.push(Run {
            blueprint,
            definition,
            saga,
            journal: facts,
            in_flight,
            sent,
            seen: BTreeSet::new(),
            inputs,
            asserted,
            ticket,
        });
        self.settle(run)?;
        let saga = &self.runs[run].saga;
        if saga.locks.is_empty() || saga.uses_locks() { Ok(()) } else { self.release(run) }
    }

    /// Decides, commits, applies, settles: the shell's only loop.
    pub fn feed(&mut self, run: usize, input: &Input) -> Check {
        let (now, epoch) = (self.now, self.epoch);
        let away = self.away.clone();
        let context = Context { now, epoch, reach: &away, journal_limit: self.journal_limit };
        let before = self.runs[run].saga.clone();
        let Ok(decision) = self.core.decide(&self.runs[run].blueprint, &before, input, &context) else {
            return Ok(());
        };
        check_answer(input, &decision.facts).map_err(|violation| violation.to_string())?;
        check_step(&before, &decision.facts, &decision.next).map_err(|violation| violation.to_string())?;
        for fact in &decision.facts {
            check_epoch(fact, epoch)?;
        }
        if std::mem::take(&mut self.dies_before_commit) {
            return self.crash();
        }
        self.note_assertion(run, input);
        let rests = self.core.decide(&self.runs[run].blueprint, &decision.next, &Input::Wake, &context);
        if rests.is_ok_and(|rests| !rests.facts.is_empty()) {
            return Err(format!("after {input:?} a wake-up at the same moment still changes something"));
        }
        self.check_rest(run, &decision.next)?;
        if matches!(input, Input::Reply(_)) {
            let again = self.core.decide(&self.runs[run].blueprint, &decision.next, input, &context);
            if let Ok(Decision { facts, .. }) = again
                && !facts.is_empty()
            {
                return Err(format!("the same reply twice is not the same as once: {input:?}: {facts:?}"));
            }
        }
        self.runs[run].journal.extend(decision.facts);
        self.runs[run].saga = decision.next;
        self.settle(run)?;
        if before.uses_locks() && !self.runs[run].saga.uses_locks() {
            self.release(run)?;
        }
        Ok(())
    }

    /// A daemon that starts does not read what rests: until its wake-up nothing would follow from
    /// that, whoever can be reached by then.
    fn check_rest(&self, run: usize, saga: &Saga) -> Check {
        let waits = self.core.duties(saga, &self.away, self.epoch).waits;
        let Some(wake_at) = waits.wake_at.filter(|_| rests(saga, &waits)) else { return Ok(()) };
        let last = wake_at - Duration::from_millis(1);
        for (now, reach) in [(self.now, &Everyone as &dyn Reach), (last, &Everyone), (last, &self.away)] {
            if now >= wake_at {
                continue;
            }
            let (epoch, journal_limit) = (self.epoch + 1, self.journal_limit);
            let context = Context { now, epoch, reach, journal_limit };
            for input in [Input::Recovered, Input::Wake] {
                let read = self.core.decide(&self.runs[run].blueprint, saga, &input, &context);
                if let Ok(Decision { facts, .. }) = read
                    && !facts.is_empty()
                {
                    return Err(format!("it rests, and {input:?} changes something: {facts:?}"));
                }
            }
        }
        Ok(())
    }

    fn note_assertion(&mut self, run: usize, input: &Input) {
        if let Input::Act { act: Act::Skip { step } | Act::Resolve { step, .. }, .. } = input
            && let Some(at) = self.runs[run].saga.instance_named(step)
        {
            self.runs[run].asserted.insert(at);
        }
    }

    fn release(&mut self, run: usize) -> Check {
        for granted in self.locks.release(self.runs[run].ticket) {
            let next = self.runs.iter().position(|run| run.saga.id == granted);
            self.feed(next.expect("tickets belong to sagas of this world"), &Input::LocksGranted)?;
        }
        Ok(())
    }

    /// Sends what is owed and not under way; forgets what is under way and not owed.
    fn settle(&mut self, run: usize) -> Check {
        let Duties { calls, waits: Waits { wake_at, parked } } =
            self.core.duties(&self.runs[run].saga, &self.away, self.epoch);
        let saga = &self.runs[run].saga;
        let moves = saga.is_terminal()
            || !calls.is_empty()
            || wake_at.is_some()
            || !parked.is_empty()
            || saga.paused.is_some()
            || saga.is_blocked();
        if !moves {
            return Err(format!("nothing comes next for saga {run}: {:?}", saga.steps));
        }
        if wake_at.is_some_and(|at| at <= self.now) {
            return Err(format!("saga {run} wants to be woken at once, again and again: {:?}", saga.steps));
        }
        let owed: BTreeSet<CallId> = calls.iter().map(CallDuty::id).collect();
        self.runs[run].in_flight.retain(|id, _| owed.contains(id));
        for call in &calls {
            if !self.runs[run].in_flight.contains_key(&call.id()) {
                self.send(run, call)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, run: usize, call: &CallDuty) -> Check {
        let (now, epoch, id) = (self.now, self.epoch, call.id());
        let run_state = &mut self.runs[run];
        if !run_state.sent.insert(id) {
            return Err(format!("{id:?} left twice under the same number"));
        }
        if call.epoch != epoch {
            return Err(format!("{id:?} left with epoch {}, the owner's is {epoch}", call.epoch));
        }
        if !run_state.journal.iter().rev().any(|fact| is_intent(&fact.event, id)) {
            return Err(format!("{id:?} left before its intent was stored"));
        }
        let input = call.input.text().to_owned();
        let known = run_state.inputs.entry((call.at, call.phase)).or_insert_with(|| input.clone());
        if *known != input {
            return Err(format!("{id:?} carries {input}, an earlier attempt carried {known}"));
        }
        let action_input = run_state.inputs.get(&(call.at, Phase::Action)).cloned();
        if call.phase != Phase::Action
            && call.action_input.as_ref().map(|json| json.text().to_owned()) != action_input
        {
            return Err(format!("{id:?} does not carry its action's input"));
        }
        run_state.in_flight.insert(id, now + call.timeout);
        self.net.push(Message::Request { run, call: id });
        Ok(())
    }

    /// Delivers one message; a request is answered in `mood`.
    pub fn deliver(&mut self, message: Message, mood: Mood) -> Check {
        match message {
            Message::Request { run, call } => {
                let key = (run, call.at);
                self.runs[run].seen.insert(call);
                let remembers = self.runs[run].saga.step(call.at).kind != StepKind::Retriable;
                let outcome = match call.phase {
                    Phase::Action => self.participants.act(key, mood, remembers),
                    Phase::Compensation => self.participants.undo(key, mood),
                    Phase::Probe => self.participants.probe(key, mood, remembers),
                };
                let reply = Reply { at: call.at, phase: call.phase, attempt: call.attempt, outcome };
                self.net.push(Message::Response { run, reply });
                Ok(())
            }
            Message::Response { run, reply } => {
                let id = CallId { at: reply.at, phase: reply.phase, attempt: reply.attempt };
                self.runs[run].in_flight.remove(&id);
                self.feed(run, &Input::Reply(reply))
            }
            Message::Complete { run, at, phase, outcome } => {
                self.feed(run, &Input::Complete { at, phase, outcome })
            }
        }
    }

    /// Turns a call back that stands in line and that nobody has seen: it was never made.
    pub fn turn_back(&mut self, pick: usize) -> Check {
        let Some(&Message::Request { run, call }) = self.net.get(pick) else { return Ok(()) };
        let of_run = &mut self.runs[run];
        if of_run.seen.contains(&call) || of_run.in_flight.remove(&call).is_none() {
            return Ok(());
        }
        let is_it = |message: &Message| matches!(message, Message::Request { run: r, call: c } if (*r, *c) == (run, call));
        self.net.retain(|message| !is_it(message));
        let CallId { at, phase, attempt } = call;
        let outcome = Outcome::Unsent("turned back".to_owned());
        self.feed(run, &Input::Reply(Reply { at, phase, attempt, outcome }))
    }

    /// Ends the n-th piece of work that a participant has put off, and says so by token.
    pub fn finish_work(&mut self, pick: usize, is_done: bool) {
        let working = |stand: Stand, undo: bool| stand == Stand::Working || undo;
        let open: Vec<_> = self
            .participants
            .ledger
            .iter()
            .filter(|(_, entry)| working(entry.stand, entry.is_undo_working))
            .map(|(key, _)| *key)
            .collect();
        if open.is_empty() {
            return;
        }
        let (run, at) = open[pick % open.len()];
        let entry = self.participants.ledger.get_mut(&(run, at)).expect("picked from the ledger");
        let phase = if entry.stand == Stand::Working { Phase::Action } else { Phase::Compensation };
        let mood = if is_done { Mood::Does } else { Mood::Refuses };
        let outcome = if phase == Phase::Compensation {
            entry.is_undo_working = false;
            self.participants.undo((run, at), mood)
        } else {
            if !is_done {
                entry.stand = Stand::Unseen;
            }
            let remembers = self.runs[run].saga.step(at).kind != StepKind::Retriable;
            self.participants.act((run, at), mood, remembers)
        };
        let outcome = match outcome {
            Outcome::Done(output) => Completion::Done(output),
            Outcome::Refused(refusal) => Completion::Refused(refusal),
            other => unreachable!("work ends one way or the other, not {other:?}"),
        };
        self.net.push(Message::Complete { run, at, phase, outcome });
    }

    /// When something happens next without anybody's doing.
    pub fn next_moment(&self) -> Option<Timestamp> {
        let of_run = |run: &Run| {
            let wake_at = self.core.duties(&run.saga, &self.away, self.epoch).waits.wake_at;
            run.in_flight.values().copied().chain(wake_at).min()
        };
        self.runs.iter().filter_map(of_run).min()
    }

    /// Lets time go by until the next moment, or `at_least` until then; whatever is due happens.
    pub fn pass(&mut self, at_least: Option<Timestamp>) -> Check {
        let next = self.next_moment().into_iter().chain(at_least).max();
        self.now = next.unwrap_or(self.now).max(self.now);
        for run in 0..self.runs.len() {
            let late: Vec<CallId> = self.runs[run]
                .in_flight
                .iter()
                .filter(|(_, end)| **end <= self.now)
                .map(|(id, _)| *id)
                .collect();
            for CallId { at, phase, attempt } in late {
                let is_still_awaited =
                    self.runs[run].in_flight.remove(&CallId { at, phase, attempt }).is_some();
                if is_still_awaited {
                    let outcome = Outcome::Unknown("no answer in time".to_owned());
                    self.feed(run, &Input::Reply(Reply { at, phase, attempt, outcome }))?;
                }
            }
            let wake_at = self.core.duties(&self.runs[run].saga, &self.away, self.epoch).waits.wake_at;
            if wake_at.is_some_and(|at| at <= self.now) {
                self.feed(run, &Input::Wake)?;
            }
        }
        Ok(())
    }

    /// A participant goes away or comes back; whoever waits for it is woken.
    pub fn toggle(&mut self, participant: u8) -> Check {
        let name = format!("shop-{participant}");
        if !self.away.0.remove(&name) {
            self.away.0.insert(name);
            return Ok(());
        }
        (0..self.runs.len()).try_for_each(|run| self.feed(run, &Input::Wake))
    }

    /// Everything not stored is lost; the next owner has a higher epoch.
    pub fn crash(&mut self) -> Check {
        self.dies_before_commit = false;
        self.epoch += 1;
        self.now = Timestamp(self.now.0 + 5_000);
        for run in &mut self.runs {
            run.in_flight.clear();
            let definition = Arc::clone(&run.definition);
            let replayed = replay(&run.journal, definition).map_err(|error| error.to_string())?;
            if replayed != run.saga {
                return Err(format!("the journal folds to another state: {replayed:?}"));
            }
        }
        for run in 0..self.runs.len() {
            self.feed(run, &Input::Recovered)?;
            let is_next = self.locks.holds(self.runs[run].ticket);
            if is_next && matches!(self.runs[run].saga.stage, Stage::AwaitingLocks { .. }) {
                self.feed(run, &Input::LocksGranted)?;
            }
        }
        Ok(())
    }

    /// No key has two holders.
    pub fn check_locks(&self) -> Check {
        let mut held = BTreeSet::new();
        for run in &self.runs {
            let is_waiting = matches!(run.saga.stage, Stage::AwaitingLocks { .. });
            if run.saga.uses_locks() && !is_waiting && !run.saga.locks.iter().all(|key| held.insert(key)) {
                return Err("two sagas hold the same lock".to_owned());
            }
        }
        Ok(())
    }
}

fn is_intent(event: &Event, id: CallId) -> bool {
    match event {
        Event::StepStarted { at, attempt, .. } => {
            (*at, Phase::Action, *attempt) == (id.at, id.phase, id.attempt)
        }
        Event::CompensationStarted { at, attempt, .. } => {
            (*at, Phase::Compensation, *attempt) == (id.at, id.phase, id.attempt)
        }
        Event::StepProbed { at, probe, .. } => (*at, Phase::Probe, *probe) == (id.at, id.phase, id.attempt),
        _ => false,
    }
}

fn check_epoch(fact: &Fact, epoch: u64) -> Check {
    match &fact.event {
        Event::StepStarted { epoch: given, .. }
        | Event::StepProbed { epoch: given, .. }
        | Event::CompensationStarted { epoch: given, .. }
            if *given != epoch =>
        {
            Err(format!("an intent under epoch {given}, the owner's is {epoch}"))
        }
        _ => Ok(()),
    }
}
