//! The registry's tests about calls that are held back: by an endpoint that fails, and by an operator.

use super::*;
use crate::clock::ManualClock;
use crate::participant::breaker::{FAILS_IN_A_ROW, OPEN_FIRST, Standing};
use crate::participant::handlers::Endpoint;
use crate::participant::handlers::tests::handlers;
use crate::participant::listing::Health;
use crate::participant::pause::Pause;
use crate::saga::input::Obstacle;

const NOON: Timestamp = Timestamp(1_700_000_000_000);
const STOCK: &str = "http://127.0.0.1:9001";
const STOCK_TOO: &str = "http://127.0.0.1:9002";

/// A registry in which `stock` is registered at some endpoints.
struct Town {
    clock: Arc<ManualClock>,
    registry: Registry,
    stock: ParticipantName,
    deduct: ActionName,
    sagas: std::cell::Cell<u64>,
}

impl Town {
    async fn with(endpoints: &[&str], max_in_flight: u32) -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        let registry = Registry::new(Arc::clone(&clock) as SharedClock);
        let town = Self {
            clock,
            registry,
            stock: ParticipantName::parse("stock").unwrap(),
            deduct: ActionName::parse("deduct").unwrap(),
            sagas: std::cell::Cell::new(0),
        };
        for endpoint in endpoints {
            town.register(endpoint, max_in_flight).await;
        }
        town
    }

    async fn register(&self, endpoint: &str, max_in_flight: u32) -> String {
        let handlers = Handlers { max_in_flight, ..handlers("stock", endpoint, &["deduct"]) };
        self.registry.prepare(handlers).await.unwrap().activate().registration_id
    }

    fn can_call(&self) -> bool {
        self.registry.can_call(&self.stock, &self.deduct)
    }

    fn places(&self) -> usize {
        self.registry.places(&self.stock, &self.deduct)
    }

    async fn slot(&self) -> Result<Slot, NoGrant> {
        self.registry.slot(&self.stock, &self.deduct).await
    }

    /// Ends a call, each of another saga.
    fn end(&self, slot: Slot, answered: bool) {
        let saga = self.sagas.replace(self.sagas.get() + 1);
        slot.finish(saga, if answered { Verdict::Answered } else { Verdict::Unknown("gone".into()) });
    }

    async fn call(&self, answered: bool) -> Endpoint {
        let slot = self.slot().await.unwrap();
        let endpoint = slot.grant.endpoint.clone();
        self.end(slot, answered);
        endpoint
    }

    /// Has calls fail until it is called no more.
    async fn fail(&self) {
        for _ in 0..FAILS_IN_A_ROW {
            self.call(false).await;
        }
        assert!(!self.can_call());
    }

    fn health(&self) -> Health {
        self.registry.list(None)[0].health
    }

    fn breaker(&self) -> Standing {
        self.registry.list(None)[0].breaker
    }
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint::parse(url).unwrap()
}

async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    futures::future::poll_immediate(future).await
}

fn pause(reason: &str) -> Pause {
    Pause { reason: reason.to_owned(), actor: "mia".to_owned(), since: NOON }
}

async fn set_pause(town: &Town, wanted: Option<Pause>) -> bool {
    let pausing = town.registry.prepare_pause(town.stock.clone(), wanted).await.unwrap();
    let changes = pausing.changes_anything();
    pausing.activate();
    changes
}

#[tokio::test]
async fn who_fails_is_called_no_more_until_its_trial() {
    let town = Town::with(&[STOCK], 8).await;
    town.fail().await;
    assert_eq!(town.slot().await.err(), Some(NoGrant::Failing));
    assert_eq!(town.health(), Health::Down);
    let next_trial = Some(NOON + OPEN_FIRST);
    assert_eq!(town.registry.obstacle(&town.stock, &town.deduct), Obstacle::Failing { next_trial });
    assert_eq!(town.registry.next_turn(), next_trial);

    town.clock.advance(OPEN_FIRST);
    assert_eq!((town.places(), town.breaker()), (1, Standing::HalfOpen));
    town.call(true).await;
    assert_eq!((town.places(), town.health()), (2, Health::Degraded));
    for _ in 0..6 {
        town.call(true).await;
    }
    assert_eq!((town.breaker(), town.health()), (Standing::Closed, Health::Healthy));
    assert_eq!(town.registry.next_turn(), None);
}

#[tokio::test]
async fn the_healthy_registration_takes_the_load_and_the_other_a_trial() {
    let town = Town::with(&[STOCK, STOCK_TOO], 8).await;
    let bad = endpoint(STOCK);
    let next = async || {
        let slot = town.slot().await.unwrap();
        let called = slot.grant.endpoint.clone();
        town.end(slot, called != bad);
        called
    };
    for _ in 0..2 * FAILS_IN_A_ROW {
        next().await;
    }
    assert_eq!((town.health(), town.breaker()), (Health::Degraded, Standing::Closed));
    assert_eq!(town.registry.list(None)[0].registrations[0].last_error, "gone");
    for _ in 0..10 {
        assert_ne!(next().await, bad);
    }
    town.clock.advance(OPEN_FIRST);
    let tried: Vec<_> = [next().await, next().await, next().await].into();
    assert_eq!(tried.iter().filter(|called| **called == bad).count(), 1);
}

#[tokio::test]
async fn those_in_line_are_turned_back_when_nobody_lets_them_through() {
    let town = Town::with(&[STOCK], 1).await;
    for _ in 1..FAILS_IN_A_ROW {
        town.call(false).await;
    }
    let running = town.slot().await.unwrap();
    let mut waiting = Box::pin(town.slot());
    assert!(poll_once(&mut waiting).await.is_none());
    town.end(running, false);
    assert_eq!(waiting.await.err(), Some(NoGrant::Failing));
    assert_eq!(town.registry.list(None)[0].in_flight, 0);
}

#[tokio::test]
async fn a_call_that_is_decided_takes_its_place_before_it_asks() {
    let town = Town::with(&[STOCK], 8).await;
    town.fail().await;
    town.clock.advance(OPEN_FIRST);
    assert!(town.registry.is_holding_back());
    assert_eq!(town.places(), 1);
    town.registry.expect_call(&town.stock);
    assert!(!town.can_call(), "the one place is spoken for");
    let trial = town.slot().await.unwrap();
    assert!(!town.can_call());
    town.end(trial, true);
    assert_eq!(town.places(), 2);
    // Its commit failed: it never comes.
    town.registry.expect_call(&town.stock);
    assert_eq!(town.places(), 1);
    town.clock.advance(Duration::from_secs(6));
    assert_eq!(town.places(), 2);
}

#[tokio::test]
async fn each_place_of_the_ramp_that_comes_free_is_told() {
    let town = Town::with(&[STOCK], 8).await;
    town.fail().await;
    town.clock.advance(OPEN_FIRST);
    let mut changes = town.registry.changes();
    for _ in 0..7 {
        changes.mark_unchanged();
        town.call(true).await;
        assert!(changes.has_changed().unwrap());
    }
    assert_eq!(town.breaker(), Standing::Closed);
    changes.mark_unchanged();
    town.call(true).await;
    assert!(!changes.has_changed().unwrap(), "nobody waits for room any more");
}

#[tokio::test]
async fn a_trial_that_is_abandoned_is_told_too() {
    let town = Town::with(&[STOCK], 8).await;
    town.fail().await;
    town.clock.advance(OPEN_FIRST);
    let trial = town.slot().await.unwrap();
    let mut changes = town.registry.changes();
    changes.mark_unchanged();
    drop(trial);
    assert!(changes.has_changed().unwrap() && town.can_call());
}

#[tokio::test]
async fn a_new_registration_of_an_endpoint_that_fails_is_tried_at_once_with_one_call() {
    let town = Town::with(&[STOCK], 8).await;
    town.fail().await;
    town.register(STOCK, 8).await;
    assert_eq!(town.places(), 1);
    town.register(STOCK_TOO, 8).await;
    assert!(town.places() > 8, "another endpoint has done nothing wrong");
}

#[tokio::test]
async fn a_registration_that_ends_while_it_fails_leaves_nothing_behind() {
    let town = Town::with(&[], 8).await;
    let id = town.register(STOCK, 8).await;
    town.fail().await;
    assert!(town.registry.is_holding_back());
    town.registry.prepare_end(&id).await.unwrap().finish();
    assert!(!town.registry.is_holding_back());
    assert_eq!(town.registry.obstacle(&town.stock, &town.deduct), Obstacle::NoHandler);
}

#[tokio::test]
async fn who_is_paused_gets_no_new_call_and_those_in_flight_finish() {
    let town = Town::with(&[STOCK], 1).await;
    let running = town.slot().await.unwrap();
    let mut waiting = Box::pin(town.slot());
    assert!(poll_once(&mut waiting).await.is_none());
    assert!(set_pause(&town, Some(pause("moving house"))).await);
    assert_eq!(waiting.await.err(), Some(NoGrant::Paused));
    assert!(!town.can_call());
    let obstacle = Obstacle::Paused { by: "mia".into(), reason: "moving house".into() };
    assert_eq!(town.registry.obstacle(&town.stock, &town.deduct), obstacle);
    town.end(running, true);
    assert_eq!(town.slot().await.err(), Some(NoGrant::Paused));

    assert!(!set_pause(&town, Some(pause("again"))).await, "it is paused already");
    assert_eq!(town.registry.list(None)[0].pause.as_ref().unwrap().reason, "moving house");
    let mut changes = town.registry.changes();
    changes.mark_unchanged();
    assert!(set_pause(&town, None).await);
    assert!(changes.has_changed().unwrap() && town.can_call());
    assert!(!set_pause(&town, None).await);
    assert!(!town.registry.is_holding_back());
}

#[tokio::test]
async fn a_pause_outlives_the_registrations_and_may_come_before_them() {
    let town = Town::with(&[], 8).await;
    set_pause(&town, Some(pause("not yet"))).await;
    assert!(town.registry.knows(&town.stock));
    assert_eq!(town.registry.list(None)[0].health, Health::Absent);
    let id = town.register(STOCK, 8).await;
    assert!(!town.can_call());
    town.registry.prepare_end(&id).await.unwrap().finish();
    town.clock.advance(ABSENT_KEPT * 2);
    drop(town.registry.take_expired().await);
    assert_eq!(town.registry.list(None).len(), 1);
    set_pause(&town, None).await;
    town.clock.advance(ABSENT_KEPT * 2);
    assert!(town.registry.list(None).is_empty(), "nothing of it is kept for ever");
}
