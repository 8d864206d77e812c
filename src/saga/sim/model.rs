//! Every state that a small definition can reach.
//!
//! Time is what it is to the saga: the next wake-up. Every call in flight may be answered in every
//! way, be lost before or after its effect, or arrive when nobody waits for it any more; once the
//! daemon dies, a client cancels, an operator pauses. In each state all invariants hold, at each
//! end the ledger agrees, and from each state an end can be reached.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::definitions::{Blueprint, DELAY, StepPlan};
use super::participants::{Mood, Participants, Stand};
use crate::saga::decide::{Decision, NewSaga, decide, start};
use crate::saga::definition::PendingPolicy;
use crate::saga::duties::duties;
use crate::saga::ids::{InstanceRef, SagaId, Timestamp};
use crate::saga::input::{Act, CallId, Completion, Context, Everyone, Input, Reply, Resolution};
use crate::saga::invariants::{check_answer, check_journal, check_step};
use crate::saga::json::Json;
use crate::saga::room::JournalLimit;
use crate::saga::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Saga, Stage};
use crate::saga::words::{Outcome, Phase, StepKind, codes};

/// States of one definition, at most.
const STATES_MAX: usize = 100_000;

/// How often each thing that nobody needs may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Faults {
    crashes: u8,
    cancels: u8,
    pauses: u8,
    retries: u8,
    /// Requests that may arrive late, and replies that may.
    ghosts: u8,
}

/// A saga and all of the world that matters to it.
#[derive(Debug, Clone)]
struct State {
    saga: Saga,
    now: Timestamp,
    epoch: u64,
    participants: Participants,
    faults: Faults,
    /// Requests of abandoned attempts, still on their way.
    late_requests: Vec<CallId>,
    /// Replies to abandoned attempts, still on their way.
    late_replies: Vec<(CallId, Outcome)>,
    asserted: Vec<InstanceRef>,
    limit: JournalLimit,
}

/// A definition, and how its participants behave.
struct Shape {
    name: &'static str,
    blueprint: Blueprint,
    items: Vec<u32>,
    moods: &'static [Mood],
    faults: Faults,
    limit: JournalLimit,
}

/// Times in step with those of retries, so that few different times to come exist.
const PENDING: PendingPolicy = PendingPolicy { interval: DELAY, max: DELAY.saturating_mul(2) };
const PLAIN: &[Mood] = &[Mood::Does, Mood::Refuses];
const SLOW: &[Mood] = &[Mood::Does, Mood::Refuses, Mood::Delays];
const FEW: Faults = Faults { crashes: 1, cancels: 1, pauses: 0, retries: 1, ghosts: 1 };

impl State {
    fn first(shape: &Shape) -> Self {
        let definition = shape.blueprint.build();
        let now = Timestamp(0);
        let new = NewSaga {
            id: SagaId::parse("model").unwrap(),
            definition: Arc::clone(&definition),
            version_asked: 0,
            input: Json::from_value(&serde_json::json!({ "items": shape.items })),
            labels: Arc::default(),
            locks: Vec::new(),
            locks_held: true,
        };
        let Decision { facts, next, .. } =
            start(new, &Context { now, epoch: 1, reach: &Everyone, journal_limit: shape.limit });
        check_journal(&facts, &definition).unwrap();
        Self {
            saga: next,
            now,
            epoch: 1,
            participants: Participants::new(true),
            faults: shape.faults,
            late_requests: Vec::new(),
            late_replies: Vec::new(),
            asserted: Vec::new(),
            limit: shape.limit,
        }
    }

    /// The state after `input`; `None` when it is refused.
    fn after(mut self, input: &Input) -> Option<Self> {
        let context =
            Context { now: self.now, epoch: self.epoch, reach: &Everyone, journal_limit: self.limit };
        let Decision { facts, next, .. } = decide(&self.saga, input, &context).ok()?;
        let checked = check_answer(input, &facts).and_then(|()| check_step(&self.saga, &facts, &next));
        assert!(checked.is_ok(), "{input:?}: {}\n{self:#?}", checked.unwrap_err());
        self.saga = next;
        Some(self)
    }

    /// Whether a step was left uncalled for want of room; nothing else keeps one from being called
    /// in these definitions.
    fn is_without_room(&self) -> bool {
        let failed = self.saga.failure.as_ref().is_some_and(|cause| cause.code == codes::SAGA_TOO_LARGE);
        let is_uncalled = |i: &Instance| matches!(i.action, Action::Blocked { last: None, .. });
        failed || self.saga.each_instance().any(|(_, instance)| is_uncalled(instance))
    }

    fn called(&mut self, call: CallId, mood: Mood) -> Outcome {
        let (key, remembers) = ((0, call.at), self.saga.step(call.at).kind != StepKind::Retriable);
        match call.phase {
            Phase::Action => self.participants.act(key, mood, remembers),
            Phase::Compensation => self.participants.undo(key, mood),
            Phase::Probe => self.participants.probe(key, mood, remembers),
        }
    }

    /// Every state that may come next.
    fn successors(&self, moods: &[Mood]) -> Vec<Self> {
        let mut next = Vec::new();
        self.late_messages(&mut next);
        if self.saga.is_terminal() {
            return next;
        }
        let owed = duties(&self.saga, &Everyone);
        for call in &owed.calls {
            self.answers(call.id(), moods, &mut next);
        }
        if let Some(at) = owed.waits.wake_at {
            let later = Self { now: at.max(self.now), ..self.clone() };
            next.extend(later.after(&Input::Wake));
        }
        self.work_ends(&mut next);
        self.faults_happen(&mut next);
        self.operators_act(&mut next);
        next
    }

    /// An answer, no answer before or after the effect, or a request that is only late.
    fn answers(&self, call: CallId, moods: &[Mood], next: &mut Vec<Self>) {
        let CallId { at, phase, attempt } = call;
        for &mood in moods {
            let mut state = self.clone();
            let outcome = state.called(call, mood);
            next.extend(state.after(&Input::Reply(Reply { at, phase, attempt, outcome })));
        }
        let lost = |state: Self| {
            let outcome = Outcome::Unknown("no answer".to_owned());
            state.after(&Input::Reply(Reply { at, phase, attempt, outcome }))
        };
        next.extend(lost(self.clone()));
        let mut done = self.clone();
        let outcome = done.called(call, Mood::Does);
        next.extend(lost(done.clone()));
        if self.faults.ghosts > 0 && phase != Phase::Probe {
            done.faults.ghosts -= 1;
            done.late_replies.push((call, outcome));
            next.extend(lost(done));
            let mut delayed = self.clone();
            delayed.faults.ghosts -= 1;
            delayed.late_requests.push(call);
            next.extend(lost(delayed));
        }
    }

    fn late_messages(&self, next: &mut Vec<Self>) {
        for (place, &call) in self.late_requests.iter().enumerate() {
            let mut arrived = self.clone();
            arrived.late_requests.remove(place);
            let outcome = arrived.called(call, Mood::Does);
            next.push(arrived.clone());
            let CallId { at, phase, attempt } = call;
            next.extend(arrived.after(&Input::Reply(Reply { at, phase, attempt, outcome })));
        }
        for (place, (call, outcome)) in self.late_replies.iter().enumerate() {
            let mut heard = self.clone();
            heard.late_replies.remove(place);
            let CallId { at, phase, attempt } = *call;
            next.extend(heard.after(&Input::Reply(Reply { at, phase, attempt, outcome: outcome.clone() })));
        }
    }

    /// Participants finish by token what they put off.
    fn work_ends(&self, next: &mut Vec<Self>) {
        for (at, _) in self.saga.each_instance() {
            if self.participants.entry((0, at)).stand == Stand::Working {
                let mut state = self.clone();
                let call = CallId { at, phase: Phase::Action, attempt: 0 };
                if let Outcome::Done(output) = state.called(call, Mood::Does) {
                    let outcome = Completion::Done(output);
                    next.extend(state.after(&Input::Complete { at, phase: Phase::Action, outcome }));
                }
            }
        }
    }

    fn faults_happen(&self, next: &mut Vec<Self>) {
        if self.faults.crashes > 0 {
            let mut died = Self { epoch: self.epoch + 1, ..self.clone() };
            died.faults.crashes -= 1;
            next.extend(died.after(&Input::Recovered));
        }
        if self.faults.cancels > 0 {
            let mut cancelled = self.clone();
            cancelled.faults.cancels -= 1;
            next.extend(
                cancelled.after(&Input::Cancel { actor: "client".to_owned(), reason: String::new() }),
            );
        }
    }

    fn operators_act(&self, next: &mut Vec<Self>) {
        if self.saga.paused.is_some() {
            next.extend(self.acted(Act::Resume, None));
        } else if self.faults.pauses > 0 {
            let mut state = self.clone();
            state.faults.pauses -= 1;
            next.extend(state.acted(Act::Pause, None));
        }
        for block in self.saga.blocks() {
            let (at, step) = (self.saga.instance_named(&block.step), block.step);
            if self.faults.retries > 0 {
                let mut state = self.clone();
                state.faults.retries -= 1;
                next.extend(state.acted(Act::RetryNow { step: Some(step.clone()) }, None));
            }
            let resolve = |resolution| Act::Resolve { step: step.clone(), resolution };
            let all = [Resolution::Done(Json::null()), Resolution::Failed, Resolution::Compensated];
            next.extend(all.into_iter().filter_map(|resolution| self.acted(resolve(resolution), at)));
            next.extend(self.acted(Act::Skip { step: step.clone() }, at));
        }
    }

    fn acted(&self, act: Act, about: Option<InstanceRef>) -> Option<Self> {
        let mut state = self.clone();
        state.asserted.extend(about.filter(|at| !self.asserted.contains(at)));
        state.after(&Input::Act { act, actor: "operator".to_owned(), reason: "because".to_owned() })
    }

    /// At an end with nothing on its way, the ledger agrees with what the saga says.
    fn check_end(&self) {
        for (at, instance) in self.saga.each_instance() {
            let entry = self.participants.entry((0, at));
            assert!(entry.effects <= 1 && entry.undos <= entry.effects, "{entry:?}\n{self:#?}");
            if self.asserted.contains(&at) {
                assert!(self.saga.uncertain || instance.action == Action::Skipped, "no mark: {self:#?}");
                continue;
            }
            let expected = match self.saga.stage {
                Stage::Completed => u32::from(instance.action != Action::Skipped),
                _ => entry.undos,
            };
            assert_eq!(
                entry.effects,
                expected,
                "{} at {:?}: {self:#?}",
                self.saga.name_of(at),
                self.saga.stage
            );
        }
    }

    /// Equal for states that behave alike: times count from now, numbers of attempts not at all.
    fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.saga.stage, self.saga.uncertain, self.saga.committed).hash(&mut hash);
        (self.saga.paused.is_some(), self.faults, &self.asserted).hash(&mut hash);
        if self.limit != JournalLimit::NONE {
            self.saga.journal_bytes.hash(&mut hash);
        }
        self.saga.deadline.map(|deadline| deadline.since(self.now)).hash(&mut hash);
        for (at, instance) in self.saga.each_instance() {
            self.hash_instance(instance, &mut hash);
            self.participants.entry((0, at)).hash(&mut hash);
        }
        for step in &self.saga.steps {
            std::mem::discriminant(step).hash(&mut hash);
        }
        for call in self.late_requests.iter().chain(self.late_replies.iter().map(|(call, _)| call)) {
            let instance = self.saga.instance(call.at).expect("it was called");
            let latest =
                if call.phase == Phase::Action { &instance.tries } else { &instance.undo_tries }.attempt;
            (call.at, call.phase, latest - call.attempt, self.late_requests.len()).hash(&mut hash);
        }
        for (_, outcome) in &self.late_replies {
            std::mem::discriminant(outcome).hash(&mut hash);
        }
        hash.finish()
    }

    fn hash_instance(&self, instance: &Instance, hash: &mut DefaultHasher) {
        let from_now = |at: Timestamp| at.since(self.now);
        std::mem::discriminant(&instance.action).hash(hash);
        let doubt = |last: &Doubt| matches!(last, Doubt::Refused(_));
        match &instance.action {
            Action::Backoff { next_at, last } => (from_now(*next_at), doubt(last)).hash(hash),
            Action::Awaiting { check_at } => from_now(*check_at).hash(hash),
            Action::Probing { why: ProbeWhy::BeforeBlock(last) } => doubt(last).hash(hash),
            Action::Blocked { last, .. } => last.as_ref().map(doubt).hash(hash),
            _ => {}
        }
        std::mem::discriminant(&instance.compensation).hash(hash);
        match instance.compensation {
            Compensation::Backoff { next_at: at, .. } | Compensation::Awaiting { check_at: at } => {
                from_now(at).hash(hash);
            }
            _ => {}
        }
        for tries in [&instance.tries, &instance.undo_tries] {
            // What is settled has no budget to speak of.
            let budget = (tries.spent_attempts, tries.pending_until.map(from_now));
            (tries.attempt > 0, tries.ended_at.is_none().then_some(budget)).hash(hash);
        }
        (instance.doubtful, instance.late_success, instance.probe_unsupported).hash(hash);
    }
}

impl Hash for Stage {
    fn hash<H: Hasher>(&self, hash: &mut H) {
        std::mem::discriminant(self).hash(hash);
    }
}

/// Visits every state; how many there are.
fn explore(shape: &Shape) -> usize {
    let first = State::first(shape);
    let mut places = HashMap::from([(first.fingerprint(), 0usize)]);
    let mut came_from: Vec<Vec<usize>> = vec![Vec::new()];
    let (mut ends, mut was_too_large) = (Vec::new(), false);
    let mut queue = VecDeque::from([(0, first)]);
    while let Some((place, state)) = queue.pop_front() {
        was_too_large |= state.is_without_room();
        if state.saga.is_terminal() {
            ends.push(place);
            if state.late_requests.is_empty() && state.late_replies.is_empty() {
                state.check_end();
            }
        }
        for next in state.successors(shape.moods) {
            let known = places.len();
            let next_place = *places.entry(next.fingerprint()).or_insert(known);
            if next_place == known {
                assert!(known < STATES_MAX, "{}: more than {STATES_MAX} states", shape.name);
                came_from.push(Vec::new());
                queue.push_back((known, next));
            }
            came_from[next_place].push(place);
        }
    }
    let has_limit = shape.limit != JournalLimit::NONE;
    assert_eq!(was_too_large, has_limit, "{}: a step without room, or none", shape.name);
    assert_eq!(can_end(&came_from, ends), came_from.len(), "{}: a state without a way out", shape.name);
    came_from.len()
}

/// How many states have a way to one of `ends`.
fn can_end(came_from: &[Vec<usize>], ends: Vec<usize>) -> usize {
    let mut has_way_out = vec![false; came_from.len()];
    let mut open = ends;
    while let Some(place) = open.pop() {
        if !std::mem::replace(&mut has_way_out[place], true) {
            open.extend(&came_from[place]);
        }
    }
    has_way_out.into_iter().filter(|&way| way).count()
}

fn shapes() -> Vec<Shape> {
    use StepKind::{Compensatable, Pivot, Retriable};
    let undoable = |name, after: &[u32]| StepPlan::new(name, Compensatable, after);
    let once = |name, after: &[u32]| undoable(name, after).with(|step| step.attempts = 1);
    let simple = |name, after: &[u32]| once(name, after).with(|step| step.undo_attempts = 1);
    let pivot = |after: &[u32]| StepPlan::new("pivot", Pivot, after).with(|step| step.has_probe = true);
    let side = |after: &[u32]| StepPlan::new("side", Retriable, after);
    let refusable = undoable("b", &[0]).with(|step| step.compensate_on_refusal = true);
    let each = undoable("each", &[]).with(|step| (step.is_fan_out, step.undo_attempts) = (true, 1));
    let in_step = |step: StepPlan| step.with(|step| step.pending = PENDING);
    let shape = |name, steps: Vec<StepPlan>, moods, faults| Shape {
        name,
        blueprint: Blueprint::new(steps.into_iter().map(in_step).collect()),
        items: vec![1, 2],
        moods,
        faults,
        limit: JournalLimit::NONE,
    };
    let calm = Faults { ghosts: 0, retries: 0, ..FEW };
    let chain = vec![simple("a", &[]), undoable("b", &[0]), simple("c", &[1])];
    let fork = vec![simple("a", &[]), once("b", &[]), simple("join", &[0, 1])];
    let short_chain = || vec![simple("a", &[]), undoable("b", &[0])];
    let with_side_work = || vec![simple("a", &[]), pivot(&[0]), side(&[1])];
    vec![
        shape("one step and every fault", vec![undoable("a", &[])], SLOW, Faults { pauses: 1, ..FEW }),
        shape("a chain of two", vec![simple("a", &[]), undoable("b", &[0])], PLAIN, FEW),
        shape("a chain of three", chain, PLAIN, calm),
        shape("fork and join", fork, PLAIN, Faults { crashes: 0, ..calm }),
        shape("a pivot", vec![simple("a", &[]), pivot(&[0])], PLAIN, FEW),
        shape("side work", vec![simple("a", &[]), side(&[0])], PLAIN, Faults { pauses: 1, ..FEW }),
        shape("two instances", vec![each], PLAIN, calm),
        shape("compensated on refusal", vec![simple("a", &[]), refusable], PLAIN, FEW),
        shape("pending", vec![simple("a", &[]), simple("b", &[0])], SLOW, calm),
        shape("a pending pivot", vec![pivot(&[]), side(&[0])], SLOW, calm),
        little_room(1_500, shape("a chain in little room", short_chain(), PLAIN, calm)),
        little_room(1_500, shape("a pivot in little room", with_side_work(), PLAIN, calm)),
        little_room(1_800, shape("side work in little room", with_side_work(), PLAIN, calm)),
    ]
}

/// The same in a journal of so many bytes, which is full on the way.
fn little_room(bytes: usize, shape: Shape) -> Shape {
    Shape { limit: JournalLimit::of(bytes), ..shape }
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was looked at belongs beside the verdict")]
fn every_state_of_small_definitions_keeps_the_invariants_and_has_a_way_to_an_end() {
    for shape in shapes() {
        let states = explore(&shape);
        println!("{}: {states} states", shape.name);
    }
}
