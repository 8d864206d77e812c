//! Over SQLite.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Savepoint};
use sagad_barrier::sqlite::{Barrier, Error, SCHEMA};
use sagad_barrier::{Action, Answer, Compensation, Look, Probe, Reply};

use super::*;

fn within(tx: &Savepoint<'_>, call: &Call, column: &str) -> Result<Answer, Failed> {
    tx.execute(&format!("UPDATE world SET {column} = {column} + 1"), []).unwrap();
    match call.does() {
        "done" => Ok(Answer::done(&call.says)),
        "refused" => Ok(call.refusal()),
        "refused after a failed statement" => {
            tx.execute("INSERT INTO world VALUES (1, 0, 0)", []).unwrap_err();
            Ok(call.refusal())
        }
        "fails" => Err(Failed),
        other => panic!("unknown deed {other:?}"),
    }
}

fn play(
    barrier: &Barrier,
    [db, other]: [&mut Connection; 2],
    call: &Call,
    is_outside: bool,
    outside: &Outside,
) -> Vec<String> {
    let (saga_id, step, key) = (call.saga.as_str(), call.step.as_str(), call.own_key());
    let compensation = Compensation { saga_id, step, key, action_key: "a" };
    let reply: Result<Reply, Error<Failed>> = match (call.kind.as_str(), is_outside) {
        ("action", false) => {
            barrier.act(db, &Action { saga_id, step, key }, |tx| within(tx, call, "effects"))
        }
        ("action", true) => {
            let effect = || {
                if call.does() == "done, overtaken" {
                    let (undo, look) = (|_: &str| panic!("there is nothing to undo"), || Ok(Look::NotThere));
                    let call = Compensation { key: "c", ..compensation };
                    let reply: Result<Reply, Error<Failed>> = barrier.undo_outside(other, &call, undo, look);
                    assert_eq!(reply.unwrap(), Reply::Done(String::new()));
                }
                call.outside(&outside.effects)
            };
            barrier.act_outside(db, &Action { saga_id, step, key }, effect, || call.look())
        }
        ("compensation", false) => barrier.undo(db, &compensation, |tx, output| {
            assert_eq!(Some(output), call.gets.as_deref(), "the action's output");
            within(tx, call, "undos")
        }),
        ("compensation", true) => {
            let undo = |output: &str| {
                assert_eq!(Some(output), call.gets.as_deref(), "the action's output");
                call.outside(&outside.undos)
            };
            barrier.undo_outside(db, &compensation, undo, || call.look())
        }
        ("probe", false) => return words(&barrier.probe(db, &Probe { saga_id, step, action_key: "a" })),
        ("probe", true) => {
            barrier.probe_outside(db, &Probe { saga_id, step, action_key: "a" }, || call.look())
        }
        ("reopen", _) => {
            return vec![if barrier.reopen(db, "a").unwrap() { "yes" } else { "no" }.to_owned()];
        }
        ("purge", _) => return purge_words(barrier.purge(db, far_ahead()).unwrap()),
        (other, _) => panic!("unknown call {other:?}"),
    };
    words(&reply)
}

pub fn far_ahead() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(876_000)
}

#[test]
fn the_scenarios_over_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let (mut db, mut other) = (Connection::open(&path).unwrap(), Connection::open(&path).unwrap());
    db.execute_batch(SCHEMA).unwrap();
    db.execute_batch(WORLD).unwrap();
    for scenario in &scenarios() {
        db.execute_batch(WORLD_AS_IT_WAS).unwrap();
        let barrier = Barrier::default().with_lease(Duration::from_millis(scenario.lease_ms));
        let outside = Outside::default();
        for (at, call) in scenario.calls.iter().enumerate() {
            let is_outside = scenario.outside || call.outside;
            let reply = play(&barrier, [&mut db, &mut other], call, is_outside, &outside);
            let (effects, undos) = db
                .query_row("SELECT effects, undos FROM world", [], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })
                .unwrap();
            call.check(scenario, at, &reply, effects + outside.effects.get(), undos + outside.undos.get());
        }
    }
}

#[test]
fn a_call_that_finds_the_database_busy_is_in_progress() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let (mut db, mut other) = (Connection::open(&path).unwrap(), Connection::open(&path).unwrap());
    db.execute_batch(SCHEMA).unwrap();
    db.execute_batch(WORLD).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let barrier = Barrier::default();
    let call = Action { saga_id: "order-1", step: "deduct-stock", key: "a" };
    let reply: Result<Reply, Error<Failed>> = barrier.act(&mut db, &call, |_| {
        let second: Result<Reply, Error<Failed>> =
            barrier.act(&mut other, &call, |_| panic!("it runs twice"));
        assert_eq!(second.unwrap(), Reply::InProgress);
        Ok(Answer::done("1"))
    });
    assert_eq!(reply.unwrap(), Reply::Done("1".to_owned()));
}

#[test]
fn eight_threads_that_make_the_same_calls_have_one_effect_and_one_undo() {
    const THREADS: usize = 8;
    const KEYS: i64 = 25;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(SCHEMA).unwrap();
    db.execute_batch("CREATE TABLE ledger (key TEXT PRIMARY KEY, effects INTEGER, undos INTEGER)").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let path = &path;
            scope.spawn(move || {
                let mut db = Connection::open(path).unwrap();
                db.busy_timeout(Duration::from_mins(1)).unwrap();
                for at in 0..KEYS {
                    let (key, undo_key) = (format!("a{at}"), format!("c{at}"));
                    let act = Action { saga_id: "order-1", step: "deduct-stock", key: &key };
                    let undo = Compensation {
                        saga_id: "order-1",
                        step: "deduct-stock",
                        key: &undo_key,
                        action_key: &key,
                    };
                    let barrier = Barrier::default();
                    // Half of the threads undo first.
                    for turn in 0..2 {
                        if (thread + turn) % 2 == 0 {
                            let reply = barrier.act(&mut db, &act, |tx| {
                                tx.execute(
                                    "INSERT INTO ledger VALUES (?1, 1, 0)
                                     ON CONFLICT (key) DO UPDATE SET effects = effects + 1",
                                    [&key],
                                )
                                .map(|_| Answer::done("1"))
                            });
                            assert!(matches!(reply.unwrap(), Reply::Done(_) | Reply::Superseded));
                        } else {
                            let reply = barrier.undo(&mut db, &undo, |tx, _| {
                                tx.execute("UPDATE ledger SET undos = undos + 1 WHERE key = ?1", [&key])
                                    .map(|_| Answer::done(""))
                            });
                            assert_eq!(reply.unwrap(), Reply::Done(String::new()));
                        }
                    }
                }
            });
        }
    });
    let wrong: i64 = db
        .query_row("SELECT count(*) FROM ledger WHERE effects <> 1 OR undos <> 1", [], |row| row.get(0))
        .unwrap();
    assert_eq!(wrong, 0, "keys whose effect did not happen once and was not undone once");
    let rows: i64 = db.query_row("SELECT count(*) FROM sagad_barrier", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, KEYS);
}

#[test]
fn a_table_without_its_key_is_an_error_and_not_a_barrier_that_lets_all_through() {
    let mut db = Connection::open_in_memory().unwrap();
    db.execute_batch(&SCHEMA.replace("PRIMARY KEY", "")).unwrap();
    let call = Action { saga_id: "order-1", step: "deduct-stock", key: "a" };
    let reply: Result<Reply, Error<Failed>> =
        Barrier::default().act(&mut db, &call, |_| panic!("it must not run"));
    let error = reply.unwrap_err().to_string();
    assert!(error.contains("primary key"), "{error}");
}
