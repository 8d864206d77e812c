//! The calls of a storm: which are made, what the shop does about them, and what they are answered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sagad_barrier::postgres::{Barrier, Error};
use sagad_barrier::{Action, Answer, Compensation, Look, Probe, Reply};
use tokio_postgres::{Client, Transaction};

/// Items in the shop; few, so that calls wait for each other's rows too.
pub const ITEMS: u64 = 20;
const STEP: &str = "deduct-stock/0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Action,
    Compensation,
    Probe,
}

/// One call on its way.
#[derive(Debug, Clone)]
pub struct Message {
    pub plan: usize,
    pub kind: Kind,
    pub item: i32,
    /// Its effect is outside the database.
    pub is_outside: bool,
}

/// All calls of one action.
pub struct Plan {
    pub is_compensated: bool,
    pub is_probed: bool,
    pub is_outside: bool,
    pub messages: Vec<Message>,
}

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            let other = usize::try_from(self.next() % (at as u64 + 1)).expect("it fits");
            list.swap(at, other);
        }
    }
}

/// Actions with 1 to 4 calls each, half of them compensated with 1 to 3, one in eight probed.
pub fn plan(calls: u64, random: &mut Random) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut made = 0;
    while made < calls {
        let item = i32::try_from(random.next() % ITEMS).expect("it fits");
        let is_outside = random.next().is_multiple_of(8);
        let mut messages = Vec::new();
        let mut add = |kind, times| {
            for _ in 0..times {
                messages.push(Message { plan: plans.len(), kind, item, is_outside });
            }
        };
        let (is_compensated, is_probed) = (random.next().is_multiple_of(2), random.next().is_multiple_of(8));
        add(Kind::Action, 1 + random.next() % 4);
        add(Kind::Compensation, if is_compensated { 1 + random.next() % 3 } else { 0 });
        add(Kind::Probe, u64::from(is_probed));
        made += messages.len() as u64;
        plans.push(Plan { is_compensated, is_probed, is_outside, messages });
    }
    plans
}

/// All calls in the order in which they arrive: most of an action's close together, so that they meet, and
/// in any order; one in five at any time at all.
pub fn disorder(plans: &[Plan], random: &mut Random) -> Vec<Message> {
    const CLOSE: u64 = 24;
    let all = || plans.iter().flat_map(|plan| &plan.messages);
    let made = all().count() as u64;
    let mut placed: Vec<(u64, &Message)> = (0..)
        .zip(all())
        .map(|(at, message)| match random.next() % 5 {
            0 => (random.next() % made, message),
            _ => (at + random.next() % CLOSE, message),
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, message)| message.clone()).collect()
}

/// What was answered, and how often what happened.
#[derive(Default)]
pub struct Tally {
    /// All definite answers of each action and each compensation: one each, or something is wrong.
    pub answers: Mutex<BTreeMap<(usize, &'static str), Vec<Reply>>>,
    /// Effects and undos outside the database, by plan.
    pub outside: Vec<[AtomicU64; 2]>,
    runs: AtomicU64,
    failures: AtomicU64,
    cuts: AtomicU64,
    looks: AtomicU64,
    in_progress: AtomicU64,
}

impl Tally {
    pub fn new(plans: usize) -> Self {
        Self { outside: (0..plans).map(|_| Default::default()).collect(), ..Self::default() }
    }

    fn note(&self, plan: usize, what: &'static str, reply: Reply) {
        let mut answers = self.answers.lock().expect("nobody panics in here");
        let known = answers.entry((plan, what)).or_default();
        if !known.contains(&reply) {
            known.push(reply);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "the shop's code ran {} times, failed on purpose {} times, was cut off {} times, looked {} times; {} calls found another at work",
            read(&self.runs),
            read(&self.failures),
            read(&self.cuts),
            read(&self.looks),
            read(&self.in_progress),
        )
    }
}

#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shop failed on purpose")
    }
}

/// What befalls the shop's code in this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    FailsBefore,
    FailsAfter,
    /// The connection's transaction is left hanging and dropped.
    IsCut,
}

impl Fate {
    fn of(roughness: u64) -> Self {
        match roughness {
            0..4 => Self::FailsBefore,
            4..8 => Self::FailsAfter,
            8..11 => Self::IsCut,
            _ => Self::Works,
        }
    }
}

/// Makes one call. Whether it got a definite answer.
pub async fn make(client: &mut Client, message: &Message, roughness: u64, tally: &Tally) -> bool {
    let fate = Fate::of(roughness);
    let call = async {
        if message.is_outside {
            outside(client, message, fate, tally).await
        } else {
            within(client, message, fate, tally).await
        }
    };
    let reply = if fate == Fate::IsCut {
        // Dropped at some await, as when the process's caller goes away.
        let steps = roughness - 7;
        tokio::select! {
            biased;
            () = turns(steps * 3) => {
                tally.cuts.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            reply = call => reply,
        }
    } else {
        call.await
    };
    match reply {
        Ok(Reply::InProgress | Reply::Unsettled) => {
            tally.in_progress.fetch_add(1, Ordering::Relaxed);
            false
        }
        Ok(reply) => {
            match message.kind {
                Kind::Action => tally.note(message.plan, "action", reply),
                Kind::Compensation => tally.note(message.plan, "compensation", reply),
                // A probe's answer changes with what it asks about.
                Kind::Probe => {}
            }
            true
        }
        Err(Error::Effect(Broken)) => {
            tally.failures.fetch_add(1, Ordering::Relaxed);
            false
        }
        Err(error) => panic!("{message:?}: {error}"),
    }
}

/// Lets others run this many times.
async fn turns(steps: u64) {
    for _ in 0..steps {
        tokio::task::yield_now().await;
    }
}

async fn within(
    client: &mut Client,
    message: &Message,
    fate: Fate,
    tally: &Tally,
) -> Result<Reply, Error<Broken>> {
    let (saga, key, undo_key) = names(message);
    let (saga_id, barrier) = (saga.as_str(), Barrier::default());
    match message.kind {
        Kind::Action => {
            let call = Action { saga_id, step: STEP, key: &key };
            barrier.act(client, &call, async |tx| deduct(tx, message, &key, fate, tally).await).await
        }
        Kind::Compensation => {
            let call = Compensation { saga_id, step: STEP, key: &undo_key, action_key: &key };
            barrier
                .undo(client, &call, async |tx, output| restore(tx, message, &key, output, fate, tally).await)
                .await
        }
        Kind::Probe => {
            let call = Probe { saga_id, step: STEP, action_key: &key };
            Ok(barrier.probe(client, &call).await.expect("the database works"))
        }
    }
}

/// Checks, changes and answers; a refusal is said after a change, to see it taken back.
async fn deduct(
    tx: &Transaction<'_>,
    message: &Message,
    key: &str,
    fate: Fate,
    tally: &Tally,
) -> Result<Answer, Broken> {
    tally.runs.fetch_add(1, Ordering::Relaxed);
    if fate == Fate::FailsBefore {
        return Err(Broken);
    }
    let ledger =
        "INSERT INTO ledger VALUES ($1, 1, 0) ON CONFLICT (key) DO UPDATE SET effects = ledger.effects + 1";
    tx.execute(ledger, &[&key]).await.map_err(|_| Broken)?;
    let take = "UPDATE stock SET amount = amount - 1 WHERE item = $1 AND amount > 0 RETURNING amount";
    let left = tx.query_opt(take, &[&message.item]).await.map_err(|_| Broken)?;
    if fate == Fate::FailsAfter {
        return Err(Broken);
    }
    Ok(match left {
        Some(row) => Answer::done(format!("{{\"left\":{},\"key\":\"{key}\"}}", row.get::<_, i32>(0))),
        None => Answer::refused("OUT_OF_STOCK", format!("item {} is out of stock", message.item)),
    })
}

async fn restore(
    tx: &Transaction<'_>,
    message: &Message,
    key: &str,
    output: &str,
    fate: Fate,
    tally: &Tally,
) -> Result<Answer, Broken> {
    tally.runs.fetch_add(1, Ordering::Relaxed);
    assert!(output.contains(key), "the undo got another action's output: {output}");
    if fate == Fate::FailsBefore {
        return Err(Broken);
    }
    tx.execute("UPDATE ledger SET undos = undos + 1 WHERE key = $1", &[&key]).await.map_err(|_| Broken)?;
    tx.execute("UPDATE stock SET amount = amount + 1 WHERE item = $1", &[&message.item])
        .await
        .map_err(|_| Broken)?;
    if fate == Fate::FailsAfter { Err(Broken) } else { Ok(Answer::done("{}")) }
}

/// The same with a world outside the database that can be looked at.
async fn outside(
    client: &mut Client,
    message: &Message,
    fate: Fate,
    tally: &Tally,
) -> Result<Reply, Error<Broken>> {
    let (saga, key, undo_key) = names(message);
    // So long that only the storm itself ends it.
    let barrier = Barrier::default().with_lease(std::time::Duration::from_hours(1));
    let [effects, undos] = &tally.outside[message.plan];
    let deed = async |count: &AtomicU64| {
        tally.runs.fetch_add(1, Ordering::Relaxed);
        if fate == Fate::FailsBefore {
            return Err(Broken);
        }
        turns(3).await;
        count.fetch_add(1, Ordering::SeqCst);
        turns(3).await;
        if fate == Fate::FailsAfter { Err(Broken) } else { Ok(Answer::done("{}")) }
    };
    let look = async || {
        tally.looks.fetch_add(1, Ordering::Relaxed);
        Ok(if effects.load(Ordering::SeqCst) > undos.load(Ordering::SeqCst) {
            Look::There("{}".to_owned())
        } else {
            Look::NotThere
        })
    };
    let saga_id = saga.as_str();
    match message.kind {
        Kind::Action => {
            let call = Action { saga_id, step: STEP, key: &key };
            barrier.act_outside(client, &call, async || deed(effects).await, look).await
        }
        Kind::Compensation => {
            let call = Compensation { saga_id, step: STEP, key: &undo_key, action_key: &key };
            barrier.undo_outside(client, &call, async |_: &str| deed(undos).await, look).await
        }
        Kind::Probe => {
            let call = Probe { saga_id, step: STEP, action_key: &key };
            barrier.probe_outside(client, &call, look).await
        }
    }
}

fn names(message: &Message) -> (String, String, String) {
    let plan = message.plan;
    (format!("order-{plan}"), key(plan), format!("undo-{plan}"))
}

/// The key of a plan's action.
pub fn key(plan: usize) -> String {
    format!("act-{plan}")
}
