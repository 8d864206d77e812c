//! What a decision costs, counted in nodes visited and not in time: it must not grow with the number
//! of instances that have nothing to do with it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::apply::about;
use super::decide::{Decision, NewSaga, decide, start};
use super::duties::{calls_of, waits};
use super::event::Fact;
use super::ids::{SagaId, Timestamp};
use super::input::{CallDuty, Context, Everyone, Input, Reply};
use super::json::Json;
use super::room::JournalLimit;
use super::row::work;
use super::sim::definitions::{Blueprint, StepPlan};
use super::state::Saga;
use super::words::{Outcome, Phase, Refusal, SagaStatus, StepKind};

const NOW: Context<'static> =
    Context { now: Timestamp(0), epoch: 1, reach: &Everyone, journal_limit: JournalLimit::NONE };

/// Runs a saga of `count` instances to its end, one reply at a time; nodes visited for each
/// instance. With `refuses_last` the action of the last instance is refused.
fn nodes_each(blueprint: &Blueprint, count: u32, refuses_last: bool) -> u64 {
    let items: Vec<u32> = (0..count).collect();
    let new = NewSaga {
        id: SagaId::parse("costs").unwrap(),
        definition: blueprint.build(),
        version_asked: 0,
        input: Json::from_value(&serde_json::json!({ "items": items })),
        labels: Arc::default(),
        locks: Vec::new(),
        locks_held: true,
    };
    let before = work::done();
    let Decision { facts, next, .. } = start(new, &NOW);
    let (mut saga, mut in_flight) = (next, VecDeque::new());
    send(&saga, &facts, &mut in_flight);
    while let Some(call) = in_flight.pop_front() {
        let number = call.at.item.unwrap_or(call.at.step.0);
        let outcome = if refuses_last && call.phase == Phase::Action && number == count - 1 {
            Outcome::Refused(Refusal { code: "NO".to_owned(), message: "none left".to_owned() })
        } else {
            Outcome::Done(Json::null())
        };
        let reply = Reply { at: call.at, phase: call.phase, attempt: call.attempt, outcome };
        let Decision { facts, next, .. } = decide(&saga, &Input::Reply(reply), &NOW).unwrap();
        saga = next;
        send(&saga, &facts, &mut in_flight);
    }
    let ended = if refuses_last { SagaStatus::Compensated } else { SagaStatus::Completed };
    assert_eq!(saga.status(), ended);
    (work::done() - before) / u64::from(count)
}

/// What the shell does behind a commit.
fn send(saga: &Saga, facts: &[Fact], in_flight: &mut VecDeque<CallDuty>) {
    let told: BTreeSet<_> = facts.iter().filter_map(|fact| about(&fact.event)).collect();
    in_flight.extend(told.into_iter().flat_map(|at| calls_of(saga, at).collect::<Vec<_>>()));
    let _ = waits(saga, &Everyone);
}

/// Eight times the instances are one level more in each tree: some nodes a visit, not eight times.
#[track_caller]
fn assert_flat(blueprint: impl Fn(u32) -> Blueprint, refuses_last: bool) {
    let (few, many) = (200, 1_600);
    let cost_of_few = nodes_each(&blueprint(few), few, refuses_last);
    let cost_of_many = nodes_each(&blueprint(many), many, refuses_last);
    assert!(
        cost_of_many <= cost_of_few + cost_of_few / 2,
        "{cost_of_few} nodes for each of {few} instances, {cost_of_many} for each of {many}"
    );
}

fn list(cap: u32) -> Blueprint {
    let step = StepPlan::new("take", StepKind::Compensatable, &[]);
    Blueprint::new(vec![step.with(|step| (step.is_fan_out, step.concurrency) = (true, cap))])
}

fn chain(kind: StepKind) -> impl Fn(u32) -> Blueprint {
    move |count| {
        let after = |n: u32| n.checked_sub(1).into_iter().collect::<Vec<_>>();
        Blueprint::new((0..count).map(|n| StepPlan::new(&format!("s{n}"), kind, &after(n))).collect())
    }
}

fn side_by_side(count: u32) -> Blueprint {
    let step = |n| StepPlan::new(&format!("s{n}"), StepKind::Compensatable, &[]);
    Blueprint::new((0..count).map(step).collect())
}

#[test]
fn an_item_of_a_long_list_costs_what_one_of_a_short_list_costs() {
    assert_flat(|_| list(16), false);
    assert_flat(|_| list(1_000), false);
}

#[test]
fn undoing_a_long_list_costs_no_more_an_item_than_undoing_a_short_one() {
    assert_flat(|_| list(16), true);
}

#[test]
fn a_step_of_a_long_chain_costs_what_one_of_a_short_chain_costs() {
    assert_flat(chain(StepKind::Compensatable), false);
    assert_flat(chain(StepKind::Compensatable), true);
    assert_flat(chain(StepKind::Retriable), false);
}

#[test]
fn a_step_beside_many_others_costs_what_one_beside_few_costs() {
    assert_flat(side_by_side, false);
    assert_flat(side_by_side, true);
}
