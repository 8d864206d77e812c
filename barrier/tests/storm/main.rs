//! The storm: thousands of calls, duplicated, reordered, cut short and made at the same time from many
//! connections, against a shop in a real PostgreSQL; then every figure is checked.
//!
//! `SAGAD_BARRIER_CALLS` sets how many calls (10,000), `SAGAD_BARRIER_SEED` which storm.
#![expect(clippy::print_stdout, reason = "the figures are the point")]
#![expect(clippy::unwrap_used, reason = "a test may end at whatever goes wrong")]

mod calls;
mod ledger;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use calls::{Message, Random, Tally};
use sagad_barrier::postgres::SCHEMA;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const CALLS_DEFAULT: u64 = 10_000;
/// Connections that make calls at the same time.
const WORKERS: usize = 16;
/// Each round makes the calls that got no definite answer again; this many are far more than it takes.
const ROUNDS_MAX: usize = 200;

struct Storm {
    calls: u64,
    seed: u64,
}

impl Storm {
    fn from_env() -> Self {
        let read =
            |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"));
        Self { calls: read("SAGAD_BARRIER_CALLS", CALLS_DEFAULT), seed: read("SAGAD_BARRIER_SEED", 1) }
    }

    /// Plays the storm in a schema, after `harm` was done to its tables; what is wrong afterwards.
    async fn play(&self, schema: &'static str, harm: &str) -> Vec<String> {
        let setup = support::connect_new(schema).await;
        setup.client.batch_execute(SCHEMA).await.unwrap();
        setup.client.batch_execute(harm).await.unwrap();

        let mut random = Random(self.seed);
        let plans = calls::plan(self.calls, &mut random);
        let pieces = ledger::open(&setup.client, plans.len()).await;
        let mut messages = calls::disorder(&plans, &mut random);
        let made = messages.len();
        let tally = Arc::new(Tally::new(plans.len()));
        let mut late: Vec<Message> = messages.clone();

        // Until every call has its answer, as the daemon would do.
        let mut rounds = 0;
        while !messages.is_empty() {
            rounds += 1;
            assert!(rounds <= ROUNDS_MAX, "{} calls never got a definite answer", messages.len());
            messages = round(schema, messages, self.seed + rounds as u64, &tally, true).await;
            // Whoever died within an effect is surely gone by now.
            let expire =
                "UPDATE sagad_barrier SET lease_until = clock_timestamp() WHERE lease_until IS NOT NULL";
            setup.client.batch_execute(expire).await.unwrap();
            random.shuffle(&mut messages);
        }
        // Messages that were held up somewhere arrive when all is over.
        random.shuffle(&mut late);
        late.truncate(made / 4 + 1);
        let held_up = late.len();
        let left = round(schema, late, 0, &tally, false).await;
        assert!(left.is_empty(), "a late call got no definite answer: {left:?}");

        let wrong = ledger::check(&setup.client, &plans, &tally, pieces).await;
        let figures = ledger::figures(&setup.client).await;
        println!(
            "barrier storm: seed {}, {} actions, {made} calls and {held_up} late ones from {WORKERS} connections in {rounds} rounds",
            self.seed,
            plans.len(),
        );
        println!("  {figures}");
        println!("  {tally}; wrong: {}", wrong.len());
        setup.client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
        wrong
    }
}

/// Makes the calls from all connections at once; the ones without a definite answer come back.
async fn round(
    schema: &'static str,
    messages: Vec<Message>,
    seed: u64,
    tally: &Arc<Tally>,
    is_rough: bool,
) -> Vec<Message> {
    let next = Arc::new(AtomicU64::new(0));
    let (messages, open) = (Arc::new(messages), Arc::new(Mutex::new(Vec::new())));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS.min(messages.len()) {
        let (next, messages, open) = (Arc::clone(&next), Arc::clone(&messages), Arc::clone(&open));
        let tally = Arc::clone(tally);
        workers.spawn(async move {
            let mut session = support::connect(schema).await;
            let mut random = Random(seed.wrapping_mul(1_000).wrapping_add(worker as u64));
            loop {
                let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("it fits");
                let Some(message) = messages.get(at) else { break };
                let roughness = if is_rough { random.next() % 100 } else { 100 };
                if !calls::make(&mut session.client, message, roughness, &tally).await {
                    open.lock().await.push(message.clone());
                }
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("a worker does not panic");
    }
    std::mem::take(&mut *open.lock().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_storm_of_calls_each_effect_and_each_undo_happens_at_most_once() {
    let wrong = Storm::from_env().play("storm_rust", "").await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_storm_sees_tombstones_that_do_not_last() {
    let harm = "CREATE FUNCTION lift() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    DELETE FROM sagad_barrier WHERE action_key = NEW.action_key; RETURN NULL;
                END $$;
                CREATE TRIGGER lift AFTER INSERT ON sagad_barrier FOR EACH ROW
                    WHEN (NEW.action = 'tombstone') EXECUTE FUNCTION lift()";
    let wrong = Storm { calls: 2_000, seed: 1 }.play("storm_without_tombstones", harm).await;
    assert!(wrong.iter().any(|line| line.contains("compensated")), "nothing wrong was seen: {wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_storm_sees_rows_that_are_forgotten_too_early() {
    let harm = "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    DELETE FROM sagad_barrier WHERE action_key = NEW.action_key; RETURN NULL;
                END $$;
                CREATE TRIGGER forget AFTER UPDATE OF action ON sagad_barrier FOR EACH ROW
                    WHEN (NEW.action = 'done' AND NEW.lease_no = 0) EXECUTE FUNCTION forget()";
    let wrong = Storm { calls: 2_000, seed: 1 }.play("storm_without_memory", harm).await;
    assert!(wrong.iter().any(|line| line.contains("effects")), "nothing wrong was seen: {wrong:?}");
}
