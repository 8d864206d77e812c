//! Everything goes wrong at once, by seeds: calls, commits, participants, whole daemons. Once it is
//! over every saga ends, and rightly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::faults::check_calls;
use super::world::{World, saga_id};
use crate::engine::error::EngineError;
use crate::engine::request::RepairRequest;
use crate::saga::apply::replay;
use crate::saga::event::Event;
use crate::saga::input::Act;
use crate::saga::state::Saga;
use crate::saga::words::{Phase, SagaStatus, StepStatus};
use crate::store::Store as _;
use crate::store::memory::CommitFault;

const SAGAS: usize = 40;
const ROUNDS: usize = 60;
const SEEDS: std::ops::Range<u64> = 1..25;

/// A small generator (splitmix64) that anyone can replay.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_every_saga_ends_rightly() {
    for seed in SEEDS {
        storm(seed).await;
    }
}

async fn storm(seed: u64) {
    let mut dice = Dice(seed);
    let mut world = World::new().await;
    world.participants.set_chaos(Some(seed));
    let names: Vec<String> = (0..SAGAS).map(|n| format!("saga-{n}")).collect();
    let mut acknowledged = BTreeSet::new();
    for _ in 0..ROUNDS {
        world = upset(world, &mut dice, &names, &mut acknowledged).await;
        tokio::time::sleep(Duration::from_millis(dice.roll(300))).await;
    }
    for participant in ["stock", "point", "ship"] {
        world.participants.set_absent(participant, false);
    }
    world.recovered().await;
    for name in &names {
        while !acknowledged.contains(name) {
            start(&world, name, &mut acknowledged).await;
        }
        resume(&world, name).await;
    }
    world.participants.set_chaos(None);
    for name in &names {
        let saga = world.ended(name).await.saga;
        check_end(&world, &saga).await;
    }
    check_calls(&world);
    check_the_whole(&world, seed).await;
}

/// One thing that happens.
async fn upset(
    mut world: World,
    dice: &mut Dice,
    names: &[String],
    acknowledged: &mut BTreeSet<String>,
) -> World {
    let name = &names[usize::try_from(dice.roll(names.len() as u64)).unwrap()];
    match dice.roll(12) {
        0 => world.store.fail_next_commit(CommitFault::LostBefore),
        1 => world.store.fail_next_commit(CommitFault::FailsAfterStored),
        2 => world.participants.set_absent("stock", true),
        3 => {
            world.participants.set_absent("stock", false);
            world.engine.participants_changed();
        }
        4 => {
            // Whether it is possible is the rules' to say; that it never harms is ours.
            let _maybe = world.engine.cancel(&saga_id(name), "kim".into(), "changed my mind".into()).await;
        }
        5 => {
            let _maybe = act(&world, name, Act::Pause).await;
        }
        6 => resume(&world, name).await,
        7 if dice.roll(3) == 0 => {
            world = world.crash().await;
            for name in acknowledged.iter() {
                let kept = world.engine.get(&saga_id(name)).await;
                assert!(kept.is_ok(), "{name} was acknowledged and is lost: {kept:?}");
            }
        }
        _ => start(&world, name, acknowledged).await,
    }
    world
}

async fn start(world: &World, name: &str, acknowledged: &mut BTreeSet<String>) {
    let number: usize = name.trim_start_matches("saga-").parse().unwrap();
    let definition = ["order", "locked", "slow"][number % 3];
    match world.start(definition, name).await {
        Ok(answer) => {
            assert!(answer.existed || !acknowledged.contains(name), "{name} was started twice");
            acknowledged.insert(name.to_owned());
        }
        Err(EngineError::Unavailable(_)) => {}
        Err(other) => panic!("{name}: {other}"),
    }
}

async fn act(world: &World, name: &str, act: Act) -> Result<(), EngineError> {
    let (id, actor, reason) = (saga_id(name), "kim".to_owned(), "a storm".to_owned());
    world.engine.repair(RepairRequest { id, act, actor, reason, dry_run: false }).await.map(|_| ())
}

async fn resume(world: &World, name: &str) {
    let mut tries = 0;
    while let Err(EngineError::Unavailable(_)) = act(world, name, Act::Resume).await {
        tries += 1;
        assert!(tries < 100, "{name} cannot be resumed");
    }
}

/// Its end fits its steps, and its journal folds to the state that was shown.
async fn check_end(world: &World, saga: &Saga) {
    for (at, instance) in saga.each_instance() {
        let status = instance.status();
        match saga.status() {
            SagaStatus::Completed => assert_eq!(status, StepStatus::Succeeded, "{}", saga.name_of(at)),
            SagaStatus::Compensated => {
                assert!(instance.is_settled_backward(saga.step(at)), "{}", saga.name_of(at));
            }
            other => panic!("{} stands at {other:?}", saga.id),
        }
    }
    let stored = world.store.load(&saga.id).await.unwrap().unwrap();
    let folded = replay(&stored.facts, saga.definition.clone()).unwrap();
    assert_eq!((folded.seq, folded.status()), (saga.seq, saga.status()));
    assert_eq!(format!("{:?}", folded.steps), format!("{:?}", saga.steps));
    let intents: BTreeSet<(String, Phase, u32)> = stored
        .facts
        .iter()
        .filter_map(|fact| match &fact.event {
            Event::StepStarted { at, attempt, .. } => Some((saga.name_of(*at), Phase::Action, *attempt)),
            Event::CompensationStarted { at, attempt, .. } => {
                Some((saga.name_of(*at), Phase::Compensation, *attempt))
            }
            Event::StepProbed { at, probe, .. } => Some((saga.name_of(*at), Phase::Probe, *probe)),
            _ => None,
        })
        .collect();
    for call in world.participants.outgoing().iter().filter(|call| call.saga_id == saga.id) {
        let sent = (call.duty.step.clone(), call.duty.phase, call.duty.attempt);
        assert!(intents.contains(&sent), "{}: {sent:?} was sent without an intent", saga.id);
    }
}

async fn check_the_whole(world: &World, seed: u64) {
    assert!(world.store.lock_tickets().await.unwrap().is_empty(), "seed {seed}: a lock leaked");
    let stats = world.engine.stats().await.unwrap();
    let by_status: BTreeMap<SagaStatus, u64> =
        stats.counters.iter().fold(BTreeMap::new(), |mut sums, ((_, _, status), count)| {
            *sums.entry(*status).or_default() += count;
            sums
        });
    let ended = [SagaStatus::Completed, SagaStatus::Compensated];
    let counted: u64 = ended.iter().filter_map(|status| by_status.get(status)).sum();
    assert_eq!(counted, SAGAS as u64, "seed {seed}: {by_status:?}");
    assert_eq!((stats.mended, stats.stuck), (0, 0), "seed {seed}: the sweeper had to help");
    assert_eq!((stats.resident, stats.calls_in_flight), (0, 0), "seed {seed}");
}
