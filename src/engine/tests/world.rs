//! The little world that the tests run in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::engine::error::EngineError;
use crate::engine::request::{SagaView, StartAnswer, StartRequest, WaitFor};
use crate::engine::settings::EngineSettings;
use crate::engine::{Engine, Parts};
use crate::metrics::Metrics;
use crate::participant::registry::Registry;
use crate::participant::{Backlog, Dispatch, Outgoing};
use crate::saga::ids::{ActionName, DefinitionName, ParticipantName, SagaId, Timestamp};
use crate::saga::input::Reach;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Refusal, SagaStatus};
use crate::store::memory::MemoryStore;
use crate::tasks::Tasks;

/// Two steps that can be undone, one that cannot fail.
pub(super) const ORDER: &str = "
saga: order
defaults: { retry: { initial: 100ms, jitter: 0, attempts: 3 } }
steps:
  - name: stock
    action: { call: stock.deduct }
    compensation: { call: stock.restore }
  - name: point
    action: { call: point.use }
    compensation: { call: point.charge }
  - name: ship
    kind: retriable
    action: { call: ship.send }
";

/// One step under a lock that all its sagas want.
pub(super) const LOCKED: &str = "
saga: locked
locks: [\"item/1\"]
lock_wait: 1h
steps:
  - name: stock
    action: { call: stock.deduct }
    compensation: { call: stock.restore }
";

/// A deadline that is far away.
pub(super) const SLOW: &str = "
saga: slow
deadline: 10h
steps:
  - name: stock
    action: { call: stock.deduct }
    compensation: { call: stock.restore }
    pending: { interval: 2h, max: 20h }
";

/// What most tests wait for.
pub(super) const ENDED: WaitFor = WaitFor::Ended;

/// Longer than anything takes.
pub(super) const LONG: Duration = Duration::from_hours(1_000);

/// Tokio's paused time as the time of day.
struct PausedClock(tokio::time::Instant);

impl PausedClock {
    #[expect(clippy::disallowed_methods, reason = "the tests' clock is tokio's own")]
    fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000) + self.0.elapsed()
    }
}

/// What a participant does with a call.
pub(super) enum Behaviour {
    Answer(Outcome),
    /// Answers when it is told to.
    Hold(oneshot::Receiver<Outcome>),
    Panic,
}

/// Participants that do what they are told, and remember what they were asked.
#[derive(Default)]
pub(super) struct FakeParticipants {
    script: Mutex<HashMap<String, VecDeque<Behaviour>>>,
    absent: Mutex<HashSet<String>>,
    behind: Mutex<HashMap<String, Backlog>>,
    calls: Mutex<Vec<Outgoing>>,
    /// Where the script says nothing, calls end as this seed and the call's key decide.
    chaos: Mutex<Option<u64>>,
    count: watch::Sender<usize>,
}

impl FakeParticipants {
    /// The next call of `call` (such as `stock.deduct`) gets this answer; without any it is done.
    pub(super) fn answer(&self, call: &str, outcome: Outcome) {
        self.plan(call, Behaviour::Answer(outcome));
    }

    pub(super) fn plan(&self, call: &str, behaviour: Behaviour) {
        self.script.lock().entry(call.to_owned()).or_default().push_back(behaviour);
    }

    /// The next call of `call` stands still until the sender answers it.
    pub(super) fn hold(&self, call: &str) -> oneshot::Sender<Outcome> {
        let (answer, held) = oneshot::channel();
        self.plan(call, Behaviour::Hold(held));
        answer
    }

    /// From now on calls without a script take their time and end in every way.
    pub(super) fn set_chaos(&self, seed: Option<u64>) {
        *self.chaos.lock() = seed;
    }

    pub(super) fn set_absent(&self, participant: &str, absent: bool) {
        if absent {
            self.absent.lock().insert(participant.to_owned());
        } else {
            self.absent.lock().remove(participant);
        }
    }

    /// The participant is behind with its calls from now on, or not any more.
    pub(super) fn set_behind(&self, participant: &str, backlog: Option<Backlog>) {
        let mut behind = self.behind.lock();
        match backlog {
            Some(backlog) => behind.insert(participant.to_owned(), backlog),
            None => behind.remove(participant),
        };
    }

    /// All calls so far: `stock.deduct 1` for its first attempt.
    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().iter().map(|call| format!("{} {}", name(call), call.duty.attempt)).collect()
    }

    pub(super) fn outgoing(&self) -> Vec<Outgoing> {
        self.calls.lock().clone()
    }

    /// Waits until there were so many calls.
    pub(super) async fn called(&self, times: usize) {
        self.count.subscribe().wait_for(|count| *count >= times).await.unwrap();
    }
}

fn name(call: &Outgoing) -> String {
    format!("{}.{}", call.duty.participant, call.duty.action)
}

impl Reach for FakeParticipants {
    fn can_call(&self, participant: &ParticipantName, _: &ActionName) -> bool {
        assert_ne!(participant.as_str(), "cursed", "the rules ask for a participant that makes them panic");
        !self.absent.lock().contains(participant.as_str())
    }
}

impl Dispatch for FakeParticipants {
    fn call(&self, outgoing: Outgoing) -> BoxFuture<'static, Outcome> {
        let behaviour = self.script.lock().get_mut(&name(&outgoing)).and_then(VecDeque::pop_front);
        let timeout = outgoing.duty.timeout;
        let chaos = self.chaos.lock().map(|seed| Chaos::of(seed, &outgoing));
        self.calls.lock().push(outgoing);
        self.count.send_modify(|count| *count += 1);
        async move {
            match behaviour {
                None => match chaos {
                    None => done("null"),
                    Some(chaos) => chaos.ends().await,
                },
                Some(Behaviour::Answer(outcome)) => outcome,
                Some(Behaviour::Panic) => panic!("a participant's client that panics"),
                Some(Behaviour::Hold(held)) => match tokio::time::timeout(timeout, held).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => std::future::pending().await,
                    Err(_) => unknown(),
                },
            }
        }
        .boxed()
    }

    fn first_behind<'p>(
        &self,
        participants: &'p [ParticipantName],
    ) -> Option<(&'p ParticipantName, Backlog)> {
        let behind = self.behind.lock();
        participants.iter().find_map(|name| Some((name, *behind.get(name.as_str())?)))
    }
}

/// How a call ends that nobody scripted: always the same for the same seed, key and attempt.
struct Chaos {
    dice: u64,
    may_refuse: bool,
}

impl Chaos {
    fn of(seed: u64, call: &Outgoing) -> Self {
        let mut hash = std::hash::DefaultHasher::new();
        (seed, &call.key, call.duty.attempt, call.duty.epoch).hash(&mut hash);
        let may_refuse = matches!(call.duty.action.as_str(), "deduct" | "use");
        Self { dice: hash.finish(), may_refuse }
    }

    async fn ends(self) -> Outcome {
        tokio::time::sleep(Duration::from_millis(self.dice / 100 % 400)).await;
        match self.dice % 100 {
            0..15 => unknown(),
            15..25 if self.may_refuse => refused("NO"),
            25..32 => Outcome::Pending(Some(Duration::from_millis(self.dice / 7 % 900))),
            32..35 => panic!("a participant's client that panics"),
            35..40 => Outcome::Unsent("turned back in line".to_owned()),
            _ => done(r#"{"ok":true}"#),
        }
    }
}

/// One daemon's life.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) participants: Arc<FakeParticipants>,
    pub(super) engine: Engine,
    pub(super) tasks: Tasks,
    clock: Arc<PausedClock>,
    settings: EngineSettings,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(EngineSettings {
            evict_after: Duration::ZERO,
            mailbox_max: 512,
            ..EngineSettings::default()
        })
        .await
    }

    pub(super) async fn with(settings: EngineSettings) -> Self {
        let clock = Arc::new(PausedClock::start());
        let world = Self::over(MemoryStore::new(), Arc::default(), clock, settings).await;
        for source in [ORDER, LOCKED, SLOW] {
            world.engine.register_definition(source, false).await.unwrap();
        }
        world
    }

    async fn over(
        store: MemoryStore,
        participants: Arc<FakeParticipants>,
        clock: Arc<PausedClock>,
        settings: EngineSettings,
    ) -> Self {
        let tasks = Tasks::new();
        let parts = Parts {
            store: Arc::new(store.clone()),
            dispatch: Arc::clone(&participants) as Arc<dyn Dispatch>,
            registry: Registry::new(Arc::clone(&clock) as Arc<dyn Clock>),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            tasks: tasks.clone(),
            metrics: Metrics::new(clock.now()),
            settings: settings.clone(),
        };
        let engine = Engine::launch(parts).await.unwrap();
        Self { store, participants, engine, tasks, clock, settings }
    }

    /// A power cut, and the next daemon over what was stored.
    pub(super) async fn crash(self) -> Self {
        let store = self.store.crash();
        self.tasks.stop();
        let (participants, clock) = (Arc::clone(&self.participants), Arc::clone(&self.clock));
        let next = Self::over(store, participants, clock, self.settings.clone()).await;
        drop(self);
        next
    }

    /// Waits until recovery has looked at every open saga.
    pub(super) async fn recovered(&self) {
        while !self.engine.has_recovered() {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn request(definition: &str, id: &str) -> StartRequest {
        StartRequest {
            id: (!id.is_empty()).then(|| saga_id(id)),
            definition: DefinitionName::parse(definition).unwrap(),
            version: 0,
            input: Json::parse(r#"{"item":1}"#).unwrap(),
            labels: BTreeMap::new(),
            wait: Duration::ZERO,
            wait_for: WaitFor::Ended,
        }
    }

    pub(super) async fn start(&self, definition: &str, id: &str) -> Result<StartAnswer, EngineError> {
        self.engine.start(Self::request(definition, id)).await
    }

    pub(super) async fn ended(&self, id: &str) -> SagaView {
        let view = self.engine.wait(&saga_id(id), WaitFor::Ended, LONG).await.unwrap();
        assert!(view.saga.is_terminal(), "{id} stands at {:?}", view.saga.status());
        view
    }

    pub(super) async fn status(&self, id: &str) -> SagaStatus {
        self.engine.get(&saga_id(id)).await.unwrap().saga.status()
    }
}

pub(super) fn saga_id(text: &str) -> SagaId {
    SagaId::parse(text).unwrap()
}

pub(super) fn done(output: &str) -> Outcome {
    Outcome::Done(Json::parse(output).unwrap())
}

pub(super) fn refused(code: &str) -> Outcome {
    Outcome::Refused(Refusal { code: code.to_owned(), message: "no".to_owned() })
}

pub(super) fn unknown() -> Outcome {
    Outcome::Unknown("no answer".to_owned())
}
