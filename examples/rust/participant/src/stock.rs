//! The shop's own part: what a service does without any saga.

use rusqlite::{OptionalExtension as _, Transaction};
use serde::Deserialize;

use crate::barrier::Answer;

/// Three items to play with, a hundred pieces each.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS stock (
        item_id INTEGER PRIMARY KEY,
        amount  INTEGER NOT NULL CHECK (amount >= 0)
    );
    INSERT INTO stock VALUES (1, 100), (2, 100), (3, 100) ON CONFLICT DO NOTHING";

/// The input of both actions, as the saga's definition makes it.
#[derive(Deserialize)]
pub struct Pieces {
    item_id: i64,
    amount: i64,
}

impl Pieces {
    pub fn parse(input_json: &str) -> Result<Self, String> {
        let pieces: Self = serde_json::from_str(input_json).map_err(|error| error.to_string())?;
        if pieces.amount < 1 { Err("amount must be 1 or more".to_owned()) } else { Ok(pieces) }
    }
}

/// Takes pieces out of stock.
pub fn deduct(tx: &Transaction, &Pieces { item_id, amount }: &Pieces) -> rusqlite::Result<Answer> {
    // Check and change are one statement, so no other order can come in between.
    let sql = "UPDATE stock SET amount = amount - ?2 WHERE item_id = ?1 AND amount >= ?2 RETURNING amount";
    let left: Option<i64> = tx.query_row(sql, (item_id, amount), |row| row.get(0)).optional()?;
    Ok(match left {
        Some(left) => Answer::Done(format!(r#"{{"left": {left}}}"#)),
        None => Answer::Refused {
            code: "OUT_OF_STOCK".to_owned(),
            message: format!("fewer than {amount} pieces of item {item_id} are left"),
        },
    })
}

/// Puts pieces back.
pub fn restore(tx: &Transaction, &Pieces { item_id, amount }: &Pieces) -> rusqlite::Result<Answer> {
    tx.execute("UPDATE stock SET amount = amount + ?2 WHERE item_id = ?1", (item_id, amount))?;
    Ok(Answer::Done(String::new()))
}
