//! Definitions made by hand and by chance.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::saga::definition::{
    Call, Definition, EventRule, PendingPolicy, Probe, RetryPolicy, Step, Trigger,
};
use crate::saga::expr::{Expr, Template};
use crate::saga::ids::{ActionName, DefinitionName, Digest, ParticipantName, StepIx, StepName, Version};
use crate::saga::plan::Plan;
use crate::saga::words::StepKind;

/// How long every call may take.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// The first delay between attempts.
pub const DELAY: Duration = Duration::from_millis(100);
/// Participants that definitions made by chance call.
pub const PARTICIPANTS: u8 = 3;
/// An expression that compiles and gives no value.
const BROKEN: &str = "1 / (size(input.items) - size(input.items))";

/// Numbers that look random and repeat themselves (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn small(&mut self, limit: u32) -> u32 {
        u32::try_from(self.below(u64::from(limit))).expect("smaller than a u32 limit")
    }
}

/// A definition that can be copied and changed before it is built.
#[derive(Debug, Clone)]
pub struct Blueprint {
    pub steps: Vec<StepPlan>,
    pub deadline: Option<Duration>,
    pub lock_wait: Duration,
    /// Every edge turned round: what a saga that undoes in the wrong order would go by.
    pub is_reversed: bool,
    /// Whether it writes outbox records, one of which cannot be made.
    pub has_events: bool,
}

/// One step of a [`Blueprint`]; `after` names steps by their place.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "one switch a feature")]
pub struct StepPlan {
    pub name: String,
    pub kind: StepKind,
    pub after: Vec<u32>,
    pub participant: u8,
    pub attempts: u32,
    pub undo_attempts: u32,
    pub elapsed: Duration,
    pub pending: PendingPolicy,
    pub concurrency: u32,
    pub is_fan_out: bool,
    pub items: &'static str,
    pub has_compensation: bool,
    pub compensate_on_refusal: bool,
    pub has_probe: bool,
    pub when: Option<&'static str>,
    pub has_broken_input: bool,
    pub has_broken_undo: bool,
}

impl StepPlan {
    pub fn new(name: &str, kind: StepKind, after: &[u32]) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            after: after.to_vec(),
            participant: 0,
            attempts: 2,
            undo_attempts: 2,
            elapsed: Duration::ZERO,
            pending: PendingPolicy { interval: Duration::from_millis(500), max: Duration::from_secs(2) },
            concurrency: 2,
            is_fan_out: false,
            items: "input.items",
            has_compensation: kind == StepKind::Compensatable,
            compensate_on_refusal: false,
            has_probe: false,
            when: None,
            has_broken_input: false,
            has_broken_undo: false,
        }
    }

    /// The same, changed.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn call(&self, action: &str, attempts: u32, is_broken: bool) -> Call {
        Call {
            participant: ParticipantName::parse(&format!("shop-{}", self.participant)).unwrap(),
            action: ActionName::parse(action).unwrap(),
            input: is_broken.then(|| Template::text(&format!("${{{BROKEN}}}")).unwrap()),
            timeout: TIMEOUT,
            retry: RetryPolicy {
                initial: DELAY,
                factor: 1.0,
                max: DELAY,
                jitter: 0.0,
                attempts,
                elapsed: self.elapsed,
            },
        }
    }

    fn build(&self) -> Step {
        let undo = || self.call(&format!("undo-{}", self.name), self.undo_attempts, self.has_broken_undo);
        let probe = || Probe {
            participant: ParticipantName::parse(&format!("shop-{}", self.participant)).unwrap(),
            action: ActionName::parse(&format!("probe-{}", self.name)).unwrap(),
            input: None,
        };
        Step {
            name: StepName::parse(&self.name).unwrap(),
            kind: self.kind,
            for_each: self.is_fan_out.then(|| Expr::compile(self.items).unwrap()),
            concurrency: self.concurrency,
            when: self.when.map(|when| Expr::compile(when).unwrap()),
            action: self.call(&format!("do-{}", self.name), self.attempts, self.has_broken_input),
            compensation: self.has_compensation.then(undo),
            compensate_on_refusal: self.compensate_on_refusal,
            probe: self.has_probe.then(probe),
            pending: self.pending,
        }
    }
}

impl Blueprint {
    pub fn new(steps: Vec<StepPlan>) -> Self {
        Self {
            steps,
            deadline: None,
            lock_wait: Duration::from_secs(5),
            is_reversed: false,
            has_events: false,
        }
    }

    pub fn build(&self) -> Arc<Definition> {
        let mut after: Vec<Vec<StepIx>> =
            self.steps.iter().map(|step| step.after.iter().copied().map(StepIx).collect()).collect();
        if self.is_reversed {
            let mut turned = vec![Vec::new(); after.len()];
            for (ix, waits_for) in (0u32..).map(StepIx).zip(&after) {
                for before in waits_for {
                    turned[before.at()].push(ix);
                }
            }
            after = turned;
        }
        Arc::new(Definition {
            name: DefinitionName::parse("simulated").unwrap(),
            version: Version(1),
            digest: Digest([7; 32]),
            description: String::new(),
            source: Arc::from(""),
            deadline: self.deadline,
            locks: Vec::new(),
            lock_wait: self.lock_wait,
            steps: self.steps.iter().map(StepPlan::build).collect(),
            plan: Plan::new(after).unwrap(),
            events: if self.has_events { events() } else { Vec::new() },
            output: None,
            places: OnceLock::new(),
        })
    }

    /// A definition by chance: up to `size` compensatable steps in any order, perhaps a pivot,
    /// perhaps side work. Steps stand in the file in an order that is not that of their edges.
    pub fn by_chance(chance: &mut Chance, size: u8) -> Self {
        let forward = chance.small(u32::from(size) + 1);
        let has_pivot = chance.one_in(2);
        let side_work = chance.small(3).max(u32::from(forward == 0 && !has_pivot));
        let mut steps = Vec::new();
        for n in 0..forward {
            let after = (0..n).filter(|_| chance.one_in(2)).collect::<Vec<_>>();
            steps.push(compensatable(chance, n, &after));
        }
        if has_pivot {
            let after = (0..forward).filter(|_| chance.one_in(3)).collect::<Vec<_>>();
            let plan = StepPlan::new("pivot", StepKind::Pivot, &after);
            steps.push(common(chance, plan));
        }
        for n in 0..side_work {
            let after = (0..u32::try_from(steps.len()).unwrap()).filter(|_| chance.one_in(3));
            let plan = StepPlan::new(&format!("side-{n}"), StepKind::Retriable, &after.collect::<Vec<_>>());
            let is_fan_out = chance.one_in(5);
            steps.push(common(chance, plan).with(|step| step.is_fan_out = is_fan_out));
        }
        let mut blueprint = Self::new(steps);
        blueprint.has_events = chance.one_in(4);
        blueprint.deadline =
            chance.one_in(3).then(|| Duration::from_millis(300 + u64::from(chance.small(5_000))));
        blueprint.shuffle(chance);
        blueprint
    }

    /// Puts the steps into another file order; the edges stay what they are.
    fn shuffle(&mut self, chance: &mut Chance) {
        let count = u32::try_from(self.steps.len()).unwrap();
        let mut order: Vec<u32> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last as usize, chance.small(last + 1) as usize);
        }
        let place_of = |old: u32| u32::try_from(order.iter().position(|&ix| ix == old).unwrap()).unwrap();
        self.steps = order.iter().map(|&old| self.steps[old as usize].clone()).collect();
        for step in &mut self.steps {
            step.after = step.after.iter().map(|&old| place_of(old)).collect();
        }
    }
}

fn events() -> Vec<EventRule> {
    let all =
        [Trigger::Started, Trigger::Committed, Trigger::Compensating, Trigger::Compensated, Trigger::Blocked];
    let broken = || Template::text(&format!("${{{BROKEN}}}")).unwrap();
    let rule = |on: Trigger| {
        let data = (on == Trigger::Blocked).then(broken);
        EventRule { on, topic: "topic".to_owned(), key: None, data }
    };
    all.map(rule).into()
}

fn compensatable(chance: &mut Chance, n: u32, after: &[u32]) -> StepPlan {
    let plan = StepPlan::new(&format!("step-{n}"), StepKind::Compensatable, after);
    let (is_fan_out, concurrency) = (chance.one_in(4), 1 + chance.small(3));
    let (no_undo, on_refusal) = (chance.one_in(8), chance.one_in(5));
    let (broken_input, broken_undo) = (chance.one_in(25), chance.one_in(25));
    common(chance, plan).with(|step| {
        step.is_fan_out = is_fan_out;
        step.concurrency = concurrency;
        step.has_compensation = !no_undo;
        step.compensate_on_refusal = on_refusal && !no_undo;
        step.has_broken_input = broken_input;
        step.has_broken_undo = broken_undo;
    })
}

fn common(chance: &mut Chance, plan: StepPlan) -> StepPlan {
    let lowest = u32::from(plan.kind == StepKind::Compensatable);
    plan.with(|step| {
        step.participant = u8::try_from(chance.below(u64::from(PARTICIPANTS))).unwrap();
        step.attempts = lowest + chance.small(3);
        step.undo_attempts = chance.small(4);
        step.elapsed = if chance.one_in(3) { Duration::from_millis(2_500) } else { Duration::ZERO };
        step.pending.max = Duration::from_millis(600 + 200 * chance.below(10));
        step.has_probe = chance.one_in(2);
        step.items = if chance.one_in(20) { "input.nothing" } else { "input.items" };
        step.when = chance.one_in(8).then_some("size(input.items) > 1");
    })
}
