//! The rules: deciding an input, and making a saga of its journal.

use std::hint::black_box;
use std::sync::Arc;

use divan::Bencher;
use sagad::definition::compile;
use sagad::saga::apply::replay;
use sagad::saga::decide::{NewSaga, decide, start};
use sagad::saga::definition::Definition;
use sagad::saga::duties::duties;
use sagad::saga::event::Fact;
use sagad::saga::ids::{InstanceRef, SagaId, StepIx, Timestamp, Version};
use sagad::saga::input::{Context, Everyone, Input, Reply};
use sagad::saga::json::Json;
use sagad::saga::room::JournalLimit;
use sagad::saga::words::{Outcome, Phase};

use crate::records::{Common, life_of};

const CONTEXT: Context<'static> = Context {
    now: Timestamp(1_800_000_000_000),
    epoch: 1,
    reach: &Everyone,
    journal_limit: JournalLimit::NONE,
};

fn order3() -> Arc<Definition> {
    let source = include_str!("../order3.yaml");
    compile(source, None, Version(1)).expect("the bench's definition is sound").definition
}

fn new_saga(definition: &Arc<Definition>) -> NewSaga {
    let input = r#"{"user_id":7,"items":[{"item_id":1,"amount":1},{"item_id":2,"amount":2}],"total":10}"#;
    NewSaga {
        id: SagaId::parse("019338f4-5a00-7c3e-9f10-000000000001").expect("a good id"),
        definition: Arc::clone(definition),
        version_asked: 0,
        input: Json::trusted(input.to_owned()),
        labels: Arc::default(),
        locks: Vec::new(),
        locks_held: true,
    }
}

fn done(step: u32) -> Input {
    Input::Reply(Reply {
        at: InstanceRef { step: StepIx(step), item: None },
        phase: Phase::Action,
        attempt: 1,
        outcome: Outcome::Done(Json::trusted(r#"{"order_id":"o-1"}"#.to_owned())),
    })
}

fn journal(definition: &Definition) -> Vec<Fact> {
    let common = Common { run: 0, digest: definition.digest, begin: CONTEXT.now };
    life_of(common, 1).into_iter().flat_map(|write| write.facts).collect()
}

#[divan::bench]
fn decide_start(bencher: Bencher<'_, '_>) {
    let definition = order3();
    bencher.with_inputs(|| new_saga(&definition)).bench_values(|new| start(new, &CONTEXT));
}

#[divan::bench]
fn decide_reply(bencher: Bencher<'_, '_>) {
    let saga = start(new_saga(&order3()), &CONTEXT).next;
    let reply = done(0);
    bencher.bench(|| decide(black_box(&saga), &reply, &CONTEXT).expect("a reply is never refused"));
}

#[divan::bench]
fn what_is_owed(bencher: Bencher<'_, '_>) {
    let saga = start(new_saga(&order3()), &CONTEXT).next;
    bencher.bench(|| duties(black_box(&saga), &Everyone));
}

#[divan::bench]
fn whole_life(bencher: Bencher<'_, '_>) {
    let definition = order3();
    bencher.with_inputs(|| new_saga(&definition)).bench_values(|new| {
        let mut saga = start(new, &CONTEXT).next;
        for step in 0..3 {
            saga = decide(&saga, &done(step), &CONTEXT).expect("a reply is never refused").next;
        }
        assert!(saga.is_terminal());
        saga
    });
}

#[divan::bench]
fn replay_whole_life(bencher: Bencher<'_, '_>) {
    let definition = order3();
    let journal = journal(&definition);
    bencher.bench(|| replay(black_box(&journal), Arc::clone(&definition)).expect("a sound journal"));
}
