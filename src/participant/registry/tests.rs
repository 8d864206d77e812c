//! The registry's tests.

use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, join_all};
use proptest::prelude::*;

use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::participant::handlers::tests::{claim, handlers};
use crate::participant::listing::Health;
use crate::participant::roster::{LINE_LONG, LINE_SLOW, WAITING_PARK};

const NOON: Timestamp = Timestamp(1_700_000_000_000);
const STOCK: &str = "http://127.0.0.1:9001";
const STOCK_TOO: &str = "http://127.0.0.1:9002";

fn fresh() -> (Arc<ManualClock>, Registry) {
    let clock = Arc::new(ManualClock::at(NOON));
    (Arc::clone(&clock), Registry::new(clock))
}

fn stock() -> ParticipantName {
    ParticipantName::parse("stock").unwrap()
}

fn action(name: &str) -> ActionName {
    ActionName::parse(name).unwrap()
}

async fn register(registry: &Registry, handlers: Handlers) -> Registered {
    registry.prepare(handlers).await.unwrap().activate()
}

/// Lets a future run as far as it can.
async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    futures::future::poll_immediate(future).await
}

#[tokio::test]
async fn a_registration_has_no_effect_before_it_is_activated() {
    let (_, registry) = fresh();
    let prepared = registry.prepare(handlers("stock", STOCK, &["deduct"])).await.unwrap();
    assert!(prepared.to_store().is_some());
    assert!(!registry.can_call(&stock(), &action("deduct")));
    let registered = prepared.activate();
    assert!(registry.can_call(&stock(), &action("deduct")));
    assert!(!registry.can_call(&stock(), &action("count")), "it did not offer that");
    assert_eq!(registered.expires_at, NOON + Duration::from_secs(30));
}

#[tokio::test]
async fn a_prepared_registration_that_is_dropped_changes_nothing_and_blocks_nobody() {
    let (_, registry) = fresh();
    drop(registry.prepare(handlers("stock", STOCK, &["deduct"])).await.unwrap());
    assert!(registry.list(None).is_empty());
    register(&registry, handlers("stock", STOCK, &["deduct"])).await;
}

#[tokio::test]
async fn participants_at_one_endpoint_share_its_connections() {
    let (_, registry) = fresh();
    register(&registry, handlers("stock", STOCK, &["deduct"])).await;
    register(&registry, handlers("point", STOCK, &["deduct"])).await;
    register(&registry, handlers("order", STOCK_TOO, &["deduct"])).await;
    let mut grants = Vec::new();
    for name in ["stock", "point", "order"] {
        let participant = ParticipantName::parse(name).unwrap();
        grants.push(registry.slot(&participant, &action("deduct")).await.unwrap());
    }
    let same = |a: usize, b: usize| Arc::ptr_eq(&grants[a].grant.client, &grants[b].grant.client);
    assert!(same(0, 1), "stock and point are one process");
    assert!(!same(0, 2), "order is another one");
}

#[tokio::test]
async fn the_same_endpoint_again_replaces_and_keeps_its_id() {
    let (_, registry) = fresh();
    let first = register(&registry, handlers("stock", STOCK, &["deduct"])).await;
    let again = register(&registry, handlers("stock", "http://127.0.0.1:9001/", &["restore"])).await;
    assert_eq!(first.registration_id, again.registration_id);
    let listed = registry.list(Some("stock"));
    assert_eq!(listed[0].registrations.len(), 1);
    assert_eq!(listed[0].actions.keys().collect::<Vec<_>>(), [&action("restore")]);
}

#[tokio::test]
async fn two_targets_for_one_action_are_refused() {
    let (_, registry) = fresh();
    let mut first = claim("stock", STOCK, &["deduct"]);
    first.actions[0].target = "shop.Stock/Deduct".into();
    register(&registry, Handlers::check(&first).unwrap()).await;
    let second = handlers("stock", STOCK_TOO, &["deduct"]);
    let error = registry.prepare(second).await.err().unwrap();
    assert!(matches!(error, RegistryError::Precondition(why) if why.contains("stock.deduct")));
}

#[tokio::test]
async fn an_expired_registration_gets_no_calls_and_cannot_be_renewed() {
    let (clock, registry) = fresh();
    let id = register(&registry, handlers("stock", STOCK, &["deduct"])).await.registration_id;
    clock.advance(Duration::from_secs(29));
    let expires_at = registry.renew(&id).unwrap();
    assert_eq!(expires_at, Some(NOON + Duration::from_secs(59)));
    assert_eq!(registry.next_expiry(), expires_at);

    clock.advance(Duration::from_secs(30));
    assert!(!registry.can_call(&stock(), &action("deduct")));
    assert_eq!(registry.renew(&id), Err(RegistryError::NotFound { id: id.clone() }));
    assert_eq!(registry.list(None)[0].health, Health::Absent);
    assert!(registry.list(None)[0].registrations.is_empty());
    assert_eq!(registry.take_expired().await.registration_ids, [id]);
    assert_eq!(registry.next_expiry(), None);

    clock.advance(ABSENT_KEPT + Duration::from_secs(1));
    assert!(registry.list(None).is_empty());
}

#[tokio::test]
async fn an_ended_registration_is_gone_and_unknown() {
    let (_, registry) = fresh();
    let id = register(&registry, handlers("stock", STOCK, &["deduct"])).await.registration_id;
    let ending = registry.prepare_end(&id).await.unwrap();
    assert!(registry.can_call(&stock(), &action("deduct")), "nothing has ended before its row is deleted");
    ending.finish();
    assert!(!registry.can_call(&stock(), &action("deduct")));
    assert!(matches!(registry.prepare_end(&id).await, Err(RegistryError::NotFound { .. })));
}

#[tokio::test]
async fn a_restored_registration_gets_its_full_time_from_now() {
    let (_, registry) = fresh();
    let stored = registry.prepare(handlers("stock", STOCK, &["deduct"])).await.unwrap().to_store().unwrap();

    let (clock, restarted) = fresh();
    clock.advance(Duration::from_hours(5));
    restarted.restore(&stored.registration_id, &stored.body).unwrap();
    let expected = Some(clock.now() + Duration::from_secs(30));
    assert_eq!(restarted.renew(&stored.registration_id), Ok(expected));
    assert!(matches!(restarted.restore("x", b"\xff"), Err(RegistryError::Damaged { .. })));
}

#[tokio::test]
async fn the_configurations_own_never_runs_out_and_cannot_be_ended() {
    let (clock, registry) = fresh();
    registry.configure(handlers("stock", STOCK, &["deduct"])).unwrap();
    clock.advance(Duration::from_hours(1_000));
    assert!(registry.can_call(&stock(), &action("deduct")));
    assert_eq!(registry.next_expiry(), None);
    let id = registry.list(None)[0].registrations[0].registration_id.clone();
    assert_eq!(registry.renew(&id), Ok(None));
    assert!(matches!(registry.prepare_end(&id).await, Err(RegistryError::Precondition(_))));
    assert!(matches!(
        registry.configure(handlers("stock", STOCK, &["deduct"])),
        Err(RegistryError::Precondition(_))
    ));
}

#[tokio::test]
async fn registering_what_the_configuration_holds_stores_nothing() {
    let (_, registry) = fresh();
    registry.configure(handlers("stock", STOCK, &["deduct", "restore"])).unwrap();
    let prepared = registry.prepare(handlers("stock", STOCK, &["deduct"])).await.unwrap();
    assert_eq!(prepared.to_store(), None);
    assert_eq!(prepared.activate().expires_at, NOON + Duration::from_secs(30));
    assert_eq!(registry.next_expiry(), None);
    let more = registry.prepare(handlers("stock", STOCK, &["count"])).await.err().unwrap();
    assert!(matches!(more, RegistryError::Precondition(why) if why.contains("count")));
}

#[tokio::test]
async fn changes_tell_when_a_participant_becomes_reachable() {
    let (_, registry) = fresh();
    let mut changes = registry.changes();
    register(&registry, handlers("stock", STOCK, &["deduct"])).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    drop(registry.slot(&stock(), &action("deduct")).await.unwrap());
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test]
async fn a_slot_passes_to_whoever_waits_longest() {
    let (_, registry) = fresh();
    let mut one_at_a_time = handlers("stock", STOCK, &["deduct"]);
    one_at_a_time.max_in_flight = 1;
    register(&registry, one_at_a_time).await;
    let (stock, deduct) = (stock(), action("deduct"));

    let running = registry.slot(&stock, &deduct).await.unwrap();
    let mut first = Box::pin(registry.slot(&stock, &deduct));
    let mut abandoned = Box::pin(registry.slot(&stock, &deduct));
    let mut second = Box::pin(registry.slot(&stock, &deduct));
    for waiting in [&mut first, &mut abandoned, &mut second] {
        assert!(poll_once(waiting).await.is_none());
    }
    drop(abandoned);
    drop(running);
    let mut newcomer = Box::pin(registry.slot(&stock, &deduct));
    assert!(poll_once(&mut newcomer).await.is_none(), "nobody overtakes");
    let turn = poll_once(&mut first).await.expect("its turn").unwrap();
    assert!(poll_once(&mut second).await.is_none());
    drop(turn);
    // Handed over and never looked at: it must not be lost.
    drop(second);
    assert!(poll_once(&mut newcomer).await.is_some());
    drop(newcomer);
    assert_eq!(registry.list(None)[0].in_flight, 0);
}

#[tokio::test]
async fn those_in_line_are_turned_away_when_nobody_is_left_to_call() {
    let (_, registry) = fresh();
    let mut one_at_a_time = handlers("stock", STOCK, &["deduct"]);
    one_at_a_time.max_in_flight = 1;
    let id = register(&registry, one_at_a_time.clone()).await.registration_id;
    let (stock, deduct) = (stock(), action("deduct"));
    let running = registry.slot(&stock, &deduct).await.unwrap();
    let mut waiting = Box::pin(registry.slot(&stock, &deduct));
    assert!(poll_once(&mut waiting).await.is_none());
    registry.prepare_end(&id).await.unwrap().finish();
    assert_eq!(waiting.await.err(), Some(NoGrant::Absent));

    // The call in flight still counts when the endpoint comes back.
    register(&registry, one_at_a_time).await;
    let mut next = Box::pin(registry.slot(&stock, &deduct));
    assert!(poll_once(&mut next).await.is_none());
    drop(running);
    assert!(poll_once(&mut next).await.is_some());
}

#[tokio::test]
async fn an_action_nobody_offers_is_not_the_same_as_nobody_being_there() {
    let (_, registry) = fresh();
    register(&registry, handlers("stock", STOCK, &["deduct"])).await;
    assert_eq!(registry.slot(&stock(), &action("count")).await.err(), Some(NoGrant::NoAction));
    let point = ParticipantName::parse("point").unwrap();
    assert_eq!(registry.slot(&point, &action("use")).await.err(), Some(NoGrant::Absent));
}

#[tokio::test]
async fn too_long_a_line_parks_further_calls_until_it_is_short_again() {
    let (_, registry) = fresh();
    let mut narrow = handlers("stock", STOCK, &["deduct"]);
    narrow.max_in_flight = 1;
    register(&registry, narrow).await;
    let (stock, deduct) = (stock(), action("deduct"));
    let running = registry.slot(&stock, &deduct).await.unwrap();
    let in_line = (0..WAITING_PARK).map(|_| async { drop(registry.slot(&stock, &deduct).await) });
    let mut in_line = Box::pin(join_all(in_line));
    assert!(poll_once(&mut in_line).await.is_none());
    assert!(!registry.can_call(&stock, &deduct));

    let mut changes = registry.changes();
    changes.mark_unchanged();
    drop(running);
    in_line.await;
    assert!(registry.can_call(&stock, &deduct));
    assert!(changes.has_changed().unwrap());
}

/// Calls in line for a participant that takes one at a time and is busy with another.
fn in_line<'r>(registry: &'r Registry, of: &ParticipantName, calls: usize) -> Vec<LocalBoxFuture<'r, ()>> {
    let call = |_| {
        let (of, deduct) = (of.clone(), action("deduct"));
        let mut call = async move { drop(registry.slot(&of, &deduct).await) }.boxed_local();
        assert!(poll_now(&mut call).is_none());
        call
    };
    (0..calls).map(call).collect()
}

fn poll_now(call: &mut LocalBoxFuture<'_, ()>) -> Option<()> {
    call.now_or_never()
}

async fn register_narrow(registry: &Registry, participant: &str) -> ParticipantName {
    let mut narrow = handlers(participant, STOCK, &["deduct"]);
    narrow.max_in_flight = 1;
    register(registry, narrow).await;
    ParticipantName::parse(participant).unwrap()
}

fn is_behind(registry: &Registry, participant: &ParticipantName) -> bool {
    registry.first_behind(std::slice::from_ref(participant)).is_some()
}

#[tokio::test]
async fn a_line_is_a_backlog_once_it_is_both_long_and_slow() {
    let (clock, registry) = fresh();
    let stock = register_narrow(&registry, "stock").await;
    let running = registry.slot(&stock, &action("deduct")).await.unwrap();
    let mut calls = in_line(&registry, &stock, LINE_LONG - 1);
    clock.advance(LINE_SLOW * 10);
    assert!(!is_behind(&registry, &stock), "slow and short");
    calls.extend(in_line(&registry, &stock, 1));
    let behind = Backlog { calls_waiting: LINE_LONG, first_waits: LINE_SLOW * 10 };
    assert_eq!(registry.first_behind(std::slice::from_ref(&stock)), Some((&stock, behind)));

    drop(running);
    join_all(calls).await;
    assert!(!is_behind(&registry, &stock), "nobody waits");
    let _running = registry.slot(&stock, &action("deduct")).await.unwrap();
    let _calls = in_line(&registry, &stock, LINE_LONG * 2);
    clock.advance(LINE_SLOW);
    assert!(!is_behind(&registry, &stock), "long and quick");
    clock.advance(Duration::from_millis(1));
    assert!(is_behind(&registry, &stock));
}

#[tokio::test]
async fn a_backlog_is_its_participants_alone_and_the_one_that_has_it_is_named() {
    let (clock, registry) = fresh();
    let stock = register_narrow(&registry, "stock").await;
    let point = register_narrow(&registry, "point").await;
    let nobody = ParticipantName::parse("nobody").unwrap();
    let _running = registry.slot(&stock, &action("deduct")).await.unwrap();
    let _calls = in_line(&registry, &stock, LINE_LONG);
    clock.advance(LINE_SLOW * 2);
    assert!(registry.first_behind(&[nobody.clone(), point.clone()]).is_none());
    let both = [nobody, point, stock.clone()];
    assert_eq!(registry.first_behind(&both).unwrap().0, &stock);
}

#[tokio::test]
async fn calls_that_were_abandoned_are_no_backlog() {
    let (clock, registry) = fresh();
    let stock = register_narrow(&registry, "stock").await;
    let _running = registry.slot(&stock, &action("deduct")).await.unwrap();
    let abandoned = in_line(&registry, &stock, LINE_LONG);
    clock.advance(LINE_SLOW * 2);
    let _waiting = in_line(&registry, &stock, LINE_LONG - 1);
    assert!(is_behind(&registry, &stock));
    drop(abandoned);
    assert!(!is_behind(&registry, &stock));
}

#[tokio::test]
async fn a_participant_that_is_gone_has_no_backlog() {
    let (clock, registry) = fresh();
    let stock = register_narrow(&registry, "stock").await;
    let _running = registry.slot(&stock, &action("deduct")).await.unwrap();
    let calls = in_line(&registry, &stock, LINE_LONG);
    clock.advance(Duration::from_secs(31));
    assert_eq!(registry.take_expired().await.registration_ids.len(), 1);
    assert!(!is_behind(&registry, &stock), "its calls were turned away");
    join_all(calls).await;
}

/// One thing that can happen to a registry.
#[derive(Debug, Clone)]
enum Happening {
    Call { action: &'static str },
    CallEnds { nth: usize },
    CallerGivesUp { nth: usize },
    Registers { port: u16, max_in_flight: u32, both_actions: bool },
    Ends { nth: usize },
    TimePasses { seconds: u64 },
    Sweeps,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => prop_oneof![Just("deduct"), Just("restore")].prop_map(|action| Happening::Call { action }),
        4 => (0..8_usize).prop_map(|nth| Happening::CallEnds { nth }),
        2 => (0..8_usize).prop_map(|nth| Happening::CallerGivesUp { nth }),
        2 => (1..4_u16, 1..4_u32, any::<bool>()).prop_map(|(port, max_in_flight, both_actions)| {
            Happening::Registers { port, max_in_flight, both_actions }
        }),
        1 => (0..4_usize).prop_map(|nth| Happening::Ends { nth }),
        1 => (1..40_u64).prop_map(|seconds| Happening::TimePasses { seconds }),
        1 => Just(Happening::Sweeps),
    ]
}

/// Runs the story; after each happening nothing may be lost, forgotten or overdone.
async fn no_grant_is_lost(story: Vec<Happening>) {
    let (clock, registry) = fresh();
    let stock = stock();
    let names = [action("deduct"), action("restore")];
    let mut running: Vec<Slot> = Vec::new();
    let mut waiting: Vec<(&str, LocalBoxFuture<'_, Result<Slot, NoGrant>>)> = Vec::new();
    for happening in story {
        match happening {
            Happening::Call { action } => {
                let name = &names[usize::from(action == "restore")];
                waiting.push((action, Box::pin(registry.slot(&stock, name))));
            }
            Happening::CallEnds { nth } if nth < running.len() => drop(running.swap_remove(nth)),
            Happening::CallerGivesUp { nth } if nth < waiting.len() => drop(waiting.remove(nth)),
            Happening::Registers { port, max_in_flight, both_actions } => {
                let actions: &[&str] = if both_actions { &["deduct", "restore"] } else { &["deduct"] };
                let mut stock = handlers("stock", &format!("http://shop:{port}"), actions);
                stock.max_in_flight = max_in_flight;
                register(&registry, stock).await;
            }
            Happening::Ends { nth } => {
                let id = registry.list(None).first().and_then(|stock| stock.registrations.get(nth).cloned());
                if let Some(registration) = id {
                    registry.prepare_end(&registration.registration_id).await.unwrap().finish();
                }
            }
            Happening::TimePasses { seconds } => clock.advance(Duration::from_secs(seconds)),
            Happening::Sweeps => drop(registry.take_expired().await),
            Happening::CallEnds { .. } | Happening::CallerGivesUp { .. } => {}
        }
        let mut still_waiting = Vec::new();
        for (action, mut call) in waiting {
            match poll_once(&mut call).await {
                Some(Ok(slot)) => running.push(slot),
                Some(Err(_)) => {}
                None => still_waiting.push((action, call)),
            }
        }
        waiting = still_waiting;
        let Some(seen) = registry.list(None).pop() else { continue };
        assert_eq!(seen.in_flight as usize, running.len(), "every grant is held by somebody");
        for lane in seen.registrations.iter().filter(|lane| lane.in_flight < lane.max_in_flight) {
            // Every registration here offers `deduct`.
            assert!(
                !waiting.iter().any(|(action, _)| *action == "deduct"),
                "somebody waits for {lane:?}, which has room"
            );
        }
    }
    drop(waiting);
    drop(running);
    assert!(registry.list(None).iter().all(|stock| stock.in_flight == 0));
}

proptest! {
    #[test]
    fn no_grant_is_lost_whatever_happens(story in proptest::collection::vec(happening(), 1..60)) {
        futures::executor::block_on(no_grant_is_lost(story));
    }
}
