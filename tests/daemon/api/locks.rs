//! Locks: fair, taken all at once, never leaked.

use std::time::Duration;

use anyhow::Result;
use sagad::proto::{SagaStatus, WaitFor};
use tonic::Code;

use crate::support::daemon::Launch;
use crate::support::participant::{Answer, Call, Gate};
use crate::support::play::{Play, failure_code, is_terminal, step, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const LOCKED: &str = "locks: [\"${input.keys}\"]
lock_wait: 30s
steps:
  - { name: only, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: side, kind: retriable, action: { call: shop.side } }";

/// The definition with keys that no other test uses.
fn locked(play: &Play<'_>) -> String {
    LOCKED.replace("${input.keys}", &format!("${{input.keys.map(k, '{}/' + k)}}", play.name))
}

async fn playing(script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Result<Play<'static>> {
    let play = Play::unregistered(DAEMON.daemon(), script).await?;
    let body = locked(&play);
    play.register_shop(&body).await?;
    play.define(&body).await?;
    Ok(play)
}

/// Holds the action of the saga whose id ends in `holder`.
fn holding(gate: &Gate) -> impl Fn(&Call) -> Answer + Send + Sync + 'static {
    let gate = gate.clone();
    move |call| {
        let is_held = call.saga.ends_with("holder") && call.action == "do";
        if is_held { gate.then(Answer::done()) } else { Answer::done() }
    }
}

#[tokio::test]
async fn waiters_get_the_lock_in_the_order_they_came() -> Result<()> {
    let gate = Gate::closed();
    let play = playing(holding(&gate)).await?;
    let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == holder).await;
    for n in 0..8 {
        let id = play.start(&n.to_string(), r#"{"keys":["a"]}"#).await?;
        let saga = play.get(&id).await?;
        assert_eq!((saga.status(), saga.waiting_on), (SagaStatus::Running, format!("lock {}/a", play.name)));
    }
    assert!(play.words(&play.id("3")).await?.contains(&"lock_waiting".to_owned()));
    gate.open();
    for n in 0..8 {
        assert_eq!(play.ended(&play.id(&n.to_string())).await?.status(), SagaStatus::Completed);
    }
    let calls = play.shop.calls();
    let order: Vec<String> = calls.iter().filter(|c| c.action == "do").map(|c| c.saga.clone()).collect();
    let expected: Vec<String> =
        ["holder", "0", "1", "2", "3", "4", "5", "6", "7"].map(|n| play.id(n)).to_vec();
    assert_eq!(order, expected);
    assert!(play.words(&play.id("3")).await?.contains(&"lock_granted".to_owned()));
    Ok(())
}

#[tokio::test]
async fn other_keys_are_not_held_up() -> Result<()> {
    let gate = Gate::closed();
    let play = playing(holding(&gate)).await?;
    let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == holder).await;
    assert_eq!(play.run("other", r#"{"keys":["b","c"]}"#).await?.status(), SagaStatus::Completed);
    assert_eq!(play.run("none", r#"{"keys":[]}"#).await?.status(), SagaStatus::Completed);
    gate.open();
    assert_eq!(play.ended(&holder).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn locks_in_opposite_order_never_deadlock() -> Result<()> {
    let play = playing(|_| Answer::done()).await?;
    let starts = (0..40).map(|n| {
        let keys = ["[\"a\",\"b\",\"c\"]", "[\"c\",\"b\",\"a\"]", "[\"b\",\"b\"]", "[\"c\",\"a\"]"][n % 4];
        let (play, input) = (&play, format!("{{\"keys\":{keys}}}"));
        async move { play.run(&n.to_string(), &input).await }
    });
    for saga in futures::future::join_all(starts).await {
        assert_eq!(saga?.status(), SagaStatus::Completed);
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_beyond_the_limit_ends_the_saga_with_nothing_called() -> Result<()> {
    let gate = Gate::closed();
    let play = Play::unregistered(DAEMON.daemon(), holding(&gate)).await?;
    let body = locked(&play).replace("lock_wait: 30s", "lock_wait: 200ms");
    play.register_shop(&body).await?;
    play.define(&body).await?;
    let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == holder).await;
    let saga = play.run("late", r#"{"keys":["a"]}"#).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "LOCK_TIMEOUT"));
    assert!(play.shop.calls_of(&saga.saga_id).is_empty());
    let failure = saga.failure.expect("a cause");
    assert!(failure.step.is_empty() && !failure.message.is_empty());
    gate.open();
    assert_eq!(play.ended(&holder).await?.status(), SagaStatus::Completed);
    assert_eq!(
        play.run("next", r#"{"keys":["a"]}"#).await?.status(),
        SagaStatus::Completed,
        "no lock leaked"
    );
    Ok(())
}

#[tokio::test]
async fn a_cancelled_waiter_ends_at_once_and_lets_the_next_one_through() -> Result<()> {
    let gate = Gate::closed();
    let play = playing(holding(&gate)).await?;
    let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == holder).await;
    let waiter = play.start("waiter", r#"{"keys":["a","b"]}"#).await?;
    let behind = play.start("behind", r#"{"keys":["b"]}"#).await?;
    play.cancel(&waiter).await?;
    let saga = play.ended(&waiter).await?;
    assert_eq!((saga.status(), failure_code(&saga)), (SagaStatus::Compensated, "CANCELLED"));
    assert!(play.shop.calls_of(&waiter).is_empty());
    assert_eq!(play.ended(&behind).await?.status(), SagaStatus::Completed);
    gate.open();
    Ok(())
}

#[tokio::test]
async fn new_starts_do_not_overtake_a_waiter_of_several_keys() -> Result<()> {
    let gate = Gate::closed();
    let play = playing(holding(&gate)).await?;
    let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == holder).await;
    let first = play.start("first", r#"{"keys":["a","b"]}"#).await?;
    let second = play.start("second", r#"{"keys":["b"]}"#).await?;
    assert_eq!(play.get(&second).await?.waiting_on, format!("lock {}/b", play.name), "it came later");
    gate.open();
    play.ended(&second).await?;
    let calls = play.shop.calls();
    let at = |id: &str| calls.iter().position(|call| call.saga == id).expect("called");
    assert!(at(&first) < at(&second));
    Ok(())
}

#[tokio::test]
async fn locks_are_given_up_at_the_commit_while_side_work_is_down() -> Result<()> {
    let gate = Gate::closed();
    let side = gate.clone();
    let play = playing(move |call| match call.action.as_str() {
        "side" => side.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let first = play.start("first", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == first && call.action == "side").await;
    let second = play.start("second", r#"{"keys":["a"]}"#).await?;
    assert!(play.committed(&second).await?.committed);
    assert!(!is_terminal(&play.get(&first).await?));
    gate.open();
    play.ended(&first).await?;
    Ok(())
}

#[tokio::test]
async fn locks_are_held_until_the_last_compensation_is_done() -> Result<()> {
    let gate = Gate::closed();
    let undo = gate.clone();
    let play = Play::unregistered(DAEMON.daemon(), move |call| match call.action.as_str() {
        "no" if call.saga.ends_with("first") => Answer::Refused("NO", "no"),
        "undo" => undo.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let body = locked(&play).replace(
        "  - { name: side, kind: retriable, action: { call: shop.side } }",
        "  - { name: bad, action: { call: shop.no }, compensation: none }",
    );
    play.register_shop(&body).await?;
    play.define(&body).await?;
    let first = play.start("first", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == first && call.action == "undo").await;
    let second = play.start("second", r#"{"keys":["a"]}"#).await?;
    let waiting = play.wait(&second, WaitFor::Ended, Duration::from_millis(100)).await?;
    assert!(waiting.waiting_on.starts_with("lock "), "{waiting:#?}");
    gate.open();
    assert_eq!(play.ended(&second).await?.status(), SagaStatus::Completed);
    assert_eq!(play.ended(&first).await?.status(), SagaStatus::Compensated);
    Ok(())
}

#[tokio::test]
async fn the_deadline_counts_from_the_moment_the_locks_are_held() -> Result<()> {
    let gate = Gate::closed();
    let play = Play::unregistered(DAEMON.daemon(), holding(&gate)).await?;
    let body = format!("deadline: 5s\n{}", locked(&play));
    play.register_shop(&body).await?;
    play.define(&body).await?;
    let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
    play.shop.seen(|call| call.saga == holder).await;
    let waiter = play.start("waiter", r#"{"keys":["a"]}"#).await?;
    let waiting = play.get(&waiter).await?;
    let patience = waiting.next_wake_at.expect("it gives up some day").seconds
        - waiting.created_at.expect("a time").seconds;
    assert!((28..=31).contains(&patience), "the lock's limit and not the deadline: {patience}");
    gate.open();
    assert_eq!(play.ended(&waiter).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn lock_keys_that_cannot_be_evaluated_refuse_the_start() -> Result<()> {
    let play = playing(|_| Answer::done()).await?;
    for input in [r#"{"keys":[1]}"#, r#"{"keys":7}"#] {
        let status = play.send(play.request("a", input)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{input}");
        assert!(
            violations(&status).iter().all(|field| field.starts_with("locks") || field.starts_with("input"))
        );
    }
    assert!(play.get(&play.id("a")).await.is_err(), "nothing was stored");
    Ok(())
}

#[tokio::test]
async fn locks_and_their_queue_survive_the_daemon() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let gate = Gate::closed();
    let (name, participant, shop, ids) = {
        let play = Play::unregistered(&daemon, holding(&gate)).await?;
        let body = locked(&play);
        play.register_shop(&body).await?;
        play.define(&body).await?;
        let holder = play.start("holder", r#"{"keys":["a"]}"#).await?;
        play.shop.seen(|call| call.saga == holder).await;
        for n in 0..5 {
            play.start(&n.to_string(), r#"{"keys":["a"]}"#).await?;
        }
        (play.name.clone(), play.participant.clone(), play.shop, ["holder", "0", "1", "2", "3", "4"])
    };
    daemon.kill()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play { daemon: &daemon, shop, participant, name };
    let newcomer = play.start("newcomer", r#"{"keys":["a"]}"#).await?;
    assert!(play.get(&newcomer).await?.waiting_on.starts_with("lock "));
    assert!(play.get(&play.id("4")).await?.waiting_on.starts_with("lock "));
    gate.open();
    play.ended(&newcomer).await?;
    let mut order: Vec<String> =
        play.shop.calls().into_iter().filter(|call| call.action == "do").map(|call| call.saga).collect();
    order.dedup();
    let expected: Vec<String> = ids.into_iter().chain(["newcomer"]).map(|n| play.id(n)).collect();
    assert_eq!(order, expected);
    assert!(step(&play.get(&play.id("holder")).await?, "only").attempts <= 2);
    Ok(())
}
