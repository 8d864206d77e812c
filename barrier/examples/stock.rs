//! A stock service over SQLite: what Execute, Compensate and Probe do around their work.

use std::error::Error;

use rusqlite::{Connection, OptionalExtension, Savepoint};
use sagad_barrier::sqlite::{Barrier, SCHEMA};
use sagad_barrier::{Action, Answer, Compensation, Reply};

/// Takes one piece of an item. The check and the change are in the barrier's transaction.
fn deduct(tx: &Savepoint<'_>, item: i64) -> rusqlite::Result<Answer> {
    let left = tx
        .query_row(
            "UPDATE stock SET amount = amount - 1 WHERE item = ?1 AND amount > 0 RETURNING amount",
            [item],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    Ok(match left {
        Some(left) => Answer::done(format!(r#"{{"left":{left}}}"#)),
        None => Answer::refused("OUT_OF_STOCK", format!("item {item} is out of stock")),
    })
}

fn restore(tx: &Savepoint<'_>, item: i64) -> rusqlite::Result<Answer> {
    tx.execute("UPDATE stock SET amount = amount + 1 WHERE item = ?1", [item])?;
    Ok(Answer::done(""))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut stock = Connection::open_in_memory()?;
    stock.execute_batch(SCHEMA)?;
    stock.execute_batch(
        "CREATE TABLE stock (item INTEGER PRIMARY KEY, amount INTEGER); INSERT INTO stock VALUES (7, 5)",
    )?;
    let barrier = Barrier::default();

    // As the request has them: idempotency_key, and for Compensate action_idempotency_key.
    let (saga_id, step, action_key) = ("order-1", "deduct-stock/0", "a1");
    let execute = Action { saga_id, step, key: action_key };
    let compensate = Compensation { saga_id, step, key: "c1", action_key };

    let first = barrier.act(&mut stock, &execute, |tx| deduct(tx, 7))?;
    let again = barrier.act(&mut stock, &execute, |tx| deduct(tx, 7))?;
    assert_eq!((&first, &again), (&Reply::Done(r#"{"left":4}"#.to_owned()), &first));

    let undone = barrier.undo(&mut stock, &compensate, |tx, _output| restore(tx, 7))?;
    assert_eq!(undone, Reply::Done(String::new()));
    let left: i64 = stock.query_row("SELECT amount FROM stock WHERE item = 7", [], |row| row.get(0))?;
    assert_eq!(left, 5);
    Ok(())
}
