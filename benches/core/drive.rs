//! A saga from its start to its end: the shell's loop without a store, a clock or a wire.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sagad::clock::Stopwatch;
use sagad::definition::compile;
use sagad::saga::apply::about;
use sagad::saga::decide::{Decision, NewSaga, decide, start};
use sagad::saga::duties::{calls_of, waits};
use sagad::saga::event::Fact;
use sagad::saga::ids::{InstanceRef, SagaId, Timestamp, Version};
use sagad::saga::input::{CallDuty, CallId, Context, Everyone, Input, Reply};
use sagad::saga::json::Json;
use sagad::saga::room::JournalLimit;
use sagad::saga::state::Saga;
use sagad::saga::words::{Outcome, Phase, Refusal};

use crate::shapes::{Answers, Shape};

/// Instances of all sagas of one measurement together, at least: the kernel counts in milliseconds.
const INSTANCES_MIN: usize = 6_000;

/// What one measurement found.
pub struct Run {
    /// Time in the rules, all sagas together.
    pub spent: Duration,
    /// The longest time between two commits.
    pub longest: Duration,
    /// Step instances, all sagas together.
    pub instances: usize,
}

/// Drives a saga of `size` instances to its end; a small one many times over.
pub fn run(shape: &Shape, size: usize) -> Run {
    let source = (shape.definition)(size);
    let compiled = compile(&source, None, Version(1)).expect("the definition is valid");
    let input = Json::parse(&(shape.input)(size)).expect("the input is a document");
    let repeats = INSTANCES_MIN.div_ceil(size);
    let mut run = Run { spent: Duration::ZERO, longest: Duration::ZERO, instances: size * repeats };
    let before = processor_time();
    for _ in 0..repeats {
        let new = NewSaga {
            id: SagaId::parse("core").expect("a plain name"),
            definition: Arc::clone(&compiled.definition),
            version_asked: 0,
            input: input.clone(),
            labels: Arc::default(),
            locks: Vec::new(),
            locks_held: true,
        };
        drive(new, shape, size, &mut run);
    }
    run.spent = processor_time().saturating_sub(before);
    run
}

/// The processor time of this thread: what else the machine does must not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel tells it");
    let nanos = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first figure is nanoseconds"))
}

fn drive(new: NewSaga, shape: &Shape, size: usize, run: &mut Run) {
    let mut shell = Shell {
        now: Timestamp(0),
        saga: None,
        in_flight: VecDeque::new(),
        known: BTreeSet::new(),
        wake_at: None,
    };
    let last_step = if size < 10 { "pay".to_owned() } else { last_name(shape, size) };
    let mut lap = Stopwatch::start();
    let Decision { facts, next, .. } = start(new, &shell.context());
    shell.settle(next, &facts);
    run.longest = run.longest.max(lap.elapsed());
    while let Some(inputs) = shell.next_inputs(shape, &last_step) {
        lap = Stopwatch::start();
        let base = shell.saga.clone().expect("it was started");
        let (mut working, mut facts) = (Saga::clone(&base), Vec::new());
        for input in &inputs {
            let decision = decide(&working, input, &shell.context()).expect("nobody asks for the impossible");
            working = decision.next;
            facts.extend(decision.facts);
        }
        shell.settle(working, &facts);
        run.longest = run.longest.max(lap.elapsed());
    }
    let saga = shell.saga.expect("it was started");
    let wanted = if shape.answers == Answers::RefusesTheLast { "COMPENSATED" } else { "COMPLETED" };
    assert_eq!(saga.status().as_str(), wanted, "{}", shape.name);
}

fn last_name(shape: &Shape, size: usize) -> String {
    if shape.name.starts_with("for_each") { format!("take/{}", size - 1) } else { format!("s{}", size - 1) }
}

/// What is around the rules.
struct Shell {
    now: Timestamp,
    saga: Option<Arc<Saga>>,
    in_flight: VecDeque<CallDuty>,
    /// Calls that left, ever: the attempts of an instance are numbered.
    known: BTreeSet<CallId>,
    wake_at: Option<Timestamp>,
}

impl Shell {
    fn context(&self) -> Context<'static> {
        Context { now: self.now, epoch: 1, reach: &Everyone, journal_limit: JournalLimit::NONE }
    }

    /// What happens next: replies, else the time of the next wake-up.
    fn next_inputs(&mut self, shape: &Shape, last_step: &str) -> Option<Vec<Input>> {
        if self.in_flight.is_empty() {
            self.now = self.wake_at?.max(self.now);
            return Some(vec![Input::Wake]);
        }
        let count = shape.batch.min(self.in_flight.len());
        Some(self.in_flight.drain(..count).map(|call| reply(&call, shape.answers, last_step)).collect())
    }

    /// Sends what the facts have made owed. Nothing here is ever dropped while it is in flight.
    fn settle(&mut self, saga: Saga, facts: &[Fact]) {
        let touched: BTreeSet<InstanceRef> = facts.iter().filter_map(|fact| about(&fact.event)).collect();
        for call in touched.into_iter().flat_map(|at| calls_of(&saga, at).collect::<Vec<_>>()) {
            if self.known.insert(call.id()) {
                self.in_flight.push_back(call);
            }
        }
        self.wake_at = waits(&saga, &Everyone).wake_at;
        self.saga = Some(Arc::new(saga));
    }
}

fn reply(call: &CallDuty, answers: Answers, last_step: &str) -> Input {
    let CallId { at, phase, attempt } = call.id();
    let is_action = phase == Phase::Action;
    let outcome = match answers {
        Answers::RefusesTheLast if is_action && call.step == last_step => {
            Outcome::Refused(Refusal { code: "NO".to_owned(), message: "none left".to_owned() })
        }
        Answers::LosesTheFirst if is_action && attempt == 1 => Outcome::Unknown("no answer".to_owned()),
        Answers::Does | Answers::RefusesTheLast | Answers::LosesTheFirst => {
            Outcome::Done(Json::trusted("{\"at\":1}".to_owned()))
        }
    };
    Input::Reply(Reply { at, phase, attempt, outcome })
}
