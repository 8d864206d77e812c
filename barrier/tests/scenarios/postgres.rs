//! Over PostgreSQL.

use std::time::Duration;

use sagad_barrier::postgres::{Barrier, Error, SCHEMA};
use sagad_barrier::{Action, Answer, Compensation, Look, Probe, Reply};
use tokio_postgres::{Client, Transaction};

use super::*;

async fn within(tx: &Transaction<'_>, call: &Call, column: &str) -> Result<Answer, Failed> {
    tx.execute(&format!("UPDATE world SET {column} = {column} + 1"), &[]).await.unwrap();
    match call.does() {
        "done" => Ok(Answer::done(&call.says)),
        "refused" => Ok(call.refusal()),
        "refused after a failed statement" => {
            tx.execute("INSERT INTO world VALUES (1, 0, 0)", &[]).await.unwrap_err();
            Ok(call.refusal())
        }
        "fails" => Err(Failed),
        other => panic!("unknown deed {other:?}"),
    }
}

async fn play(
    barrier: &Barrier,
    [db, other]: [&mut Client; 2],
    call: &Call,
    is_outside: bool,
    outside: &Outside,
) -> Vec<String> {
    let (saga_id, step, key) = (call.saga.as_str(), call.step.as_str(), call.own_key());
    let compensation = Compensation { saga_id, step, key, action_key: "a" };
    let reply: Result<Reply, Error<Failed>> = match (call.kind.as_str(), is_outside) {
        ("action", false) => {
            let action = Action { saga_id, step, key };
            barrier.act(db, &action, async |tx| within(tx, call, "effects").await).await
        }
        ("action", true) => {
            let effect = async || {
                if call.does() == "done, overtaken" {
                    let undo = async |_: &str| panic!("there is nothing to undo");
                    let look = async || Ok(Look::NotThere);
                    let call = Compensation { key: "c", ..compensation };
                    let reply: Result<Reply, Error<Failed>> =
                        barrier.undo_outside(other, &call, undo, look).await;
                    assert_eq!(reply.unwrap(), Reply::Done(String::new()));
                }
                call.outside(&outside.effects)
            };
            let action = Action { saga_id, step, key };
            barrier.act_outside(db, &action, effect, async || call.look()).await
        }
        ("compensation", false) => {
            let undo = async |tx: &Transaction<'_>, output: &str| {
                assert_eq!(Some(output), call.gets.as_deref(), "the action's output");
                within(tx, call, "undos").await
            };
            barrier.undo(db, &compensation, undo).await
        }
        ("compensation", true) => {
            let undo = async |output: &str| {
                assert_eq!(Some(output), call.gets.as_deref(), "the action's output");
                call.outside(&outside.undos)
            };
            barrier.undo_outside(db, &compensation, undo, async || call.look()).await
        }
        ("probe", false) => {
            return words(&barrier.probe(db, &Probe { saga_id, step, action_key: "a" }).await);
        }
        ("probe", true) => {
            let probe = Probe { saga_id, step, action_key: "a" };
            barrier.probe_outside(db, &probe, async || call.look()).await
        }
        ("reopen", _) => {
            return vec![if barrier.reopen(db, "a").await.unwrap() { "yes" } else { "no" }.to_owned()];
        }
        ("purge", _) => return purge_words(barrier.purge(db, sqlite::far_ahead()).await.unwrap()),
        (other, _) => panic!("unknown call {other:?}"),
    };
    words(&reply)
}

#[tokio::test]
async fn the_scenarios_over_postgresql() {
    let mut db = support::connect_new("scenarios_rust").await;
    let mut other = support::connect("scenarios_rust").await;
    db.client.batch_execute(SCHEMA).await.unwrap();
    db.client.batch_execute(WORLD).await.unwrap();
    for scenario in &scenarios() {
        db.client.batch_execute(WORLD_AS_IT_WAS).await.unwrap();
        let barrier = Barrier::default().with_lease(Duration::from_millis(scenario.lease_ms));
        let outside = Outside::default();
        for (at, call) in scenario.calls.iter().enumerate() {
            let is_outside = scenario.outside || call.outside;
            let connections = [&mut db.client, &mut other.client];
            let reply = play(&barrier, connections, call, is_outside, &outside).await;
            let row = db.client.query_one("SELECT effects, undos FROM world", &[]).await.unwrap();
            let (effects, undos) = (i64::from(row.get::<_, i32>(0)), i64::from(row.get::<_, i32>(1)));
            call.check(scenario, at, &reply, effects + outside.effects.get(), undos + outside.undos.get());
        }
    }
}

#[tokio::test]
async fn a_duplicate_waits_for_the_first_and_gets_its_answer() {
    let mut db = support::connect_new("waits_rust").await;
    let mut other = support::connect("waits_rust").await;
    let watcher = support::connect("waits_rust").await;
    db.client.batch_execute(SCHEMA).await.unwrap();
    let barrier = Barrier::default();
    let call = Action { saga_id: "order-1", step: "deduct-stock", key: "a" };
    let (is_in, has_begun) = tokio::sync::oneshot::channel();
    let first = barrier.act(&mut db.client, &call, async |_| {
        is_in.send(()).unwrap();
        wait_for_a_waiter(&watcher.client).await;
        Ok::<_, Failed>(Answer::done("1"))
    });
    let second = async {
        has_begun.await.unwrap();
        barrier.act(&mut other.client, &call, async |_| Err(Failed)).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), Reply::Done("1".to_owned()));
    assert_eq!(second.unwrap(), Reply::Done("1".to_owned()));
}

#[tokio::test]
async fn a_duplicate_that_may_not_wait_is_in_progress() {
    let mut db = support::connect_new("busy_rust").await;
    let mut other = support::connect("busy_rust").await;
    db.client.batch_execute(SCHEMA).await.unwrap();
    other.client.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    let barrier = Barrier::default();
    let (saga_id, step) = ("order-1", "deduct-stock");
    let call = Action { saga_id, step, key: "a" };
    let reply = barrier
        .act(&mut db.client, &call, async |_| {
            let again = barrier.act(&mut other.client, &call, async |_| Err(Failed)).await;
            assert_eq!(again.unwrap(), Reply::InProgress);
            let undo = Compensation { saga_id, step, key: "c", action_key: "a" };
            let undone = barrier.undo(&mut other.client, &undo, async |_, _| Err(Failed)).await;
            assert_eq!(undone.unwrap(), Reply::InProgress);
            let probe = Probe { saga_id, step, action_key: "a" };
            assert_eq!(barrier.probe(&mut other.client, &probe).await.unwrap(), Reply::InProgress);
            Ok::<_, Failed>(Answer::done("1"))
        })
        .await;
    assert_eq!(reply.unwrap(), Reply::Done("1".to_owned()));
}

#[tokio::test]
async fn the_database_may_default_to_another_isolation_level() {
    let mut db = support::connect_new("isolation_rust").await;
    db.client.batch_execute(SCHEMA).await.unwrap();
    db.client.batch_execute("SET default_transaction_isolation = 'repeatable read'").await.unwrap();
    let call = Action { saga_id: "order-1", step: "deduct-stock", key: "a" };
    let level = async |tx: &Transaction<'_>| {
        let row = tx.query_one("SHOW transaction_isolation", &[]).await.unwrap();
        Ok::<_, Failed>(Answer::done(row.get::<_, String>(0)))
    };
    let reply = Barrier::default().act(&mut db.client, &call, level).await;
    assert_eq!(reply.unwrap(), Reply::Done("read committed".to_owned()));
}

#[tokio::test]
async fn a_table_without_its_key_is_an_error_and_not_a_barrier_that_lets_all_through() {
    let mut db = support::connect_new("keyless_rust").await;
    db.client.batch_execute(&SCHEMA.replace("PRIMARY KEY", "")).await.unwrap();
    let call = Action { saga_id: "order-1", step: "deduct-stock", key: "a" };
    let reply = Barrier::default().act(&mut db.client, &call, async |_| Err(Failed)).await;
    let error = reply.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert!(error.to_string().contains("primary key"), "{error}");
}

/// Until another connection waits for a lock.
async fn wait_for_a_waiter(client: &Client) {
    let waiting = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO sagad_barrier%')";
    while !client.query_one(waiting, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
}
