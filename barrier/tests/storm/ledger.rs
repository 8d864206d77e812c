//! The shop's books, and what must be true of them when the storm is over.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use sagad_barrier::Reply;
use tokio_postgres::Client;

use crate::calls::{ITEMS, Plan, Tally, key};

/// One piece for three actions: too few for all that are not undone in time.
const ACTIONS_PER_PIECE: usize = 3;

/// Opens the shop; how many pieces it has in all.
pub async fn open(client: &Client, actions: usize) -> i64 {
    let items = i64::try_from(ITEMS).unwrap();
    let of_each = i64::try_from(actions / ACTIONS_PER_PIECE).unwrap() / items;
    let tables = format!(
        "CREATE TABLE stock (item INTEGER PRIMARY KEY, amount INTEGER NOT NULL);
         INSERT INTO stock SELECT item, {of_each} FROM generate_series(0, {items} - 1) AS item;
         CREATE TABLE ledger (key TEXT PRIMARY KEY, effects INTEGER NOT NULL, undos INTEGER NOT NULL)"
    );
    client.batch_execute(&tables).await.unwrap();
    of_each * items
}

/// One line.
pub async fn figures(client: &Client) -> String {
    let row = client
        .query_one(
            "SELECT (SELECT COALESCE(sum(effects), 0) FROM ledger), (SELECT COALESCE(sum(undos), 0) FROM ledger),
                    (SELECT COALESCE(max(effects), 0) FROM ledger), (SELECT COALESCE(max(undos), 0) FROM ledger),
                    (SELECT count(*) FROM sagad_barrier WHERE action = 'refused'),
                    (SELECT count(*) FROM sagad_barrier WHERE action = 'tombstone')",
            &[],
        )
        .await
        .unwrap();
    format!(
        "in the database: {} effects (at most {} a key), {} undos (at most {} a key), {} refusals, {} tombstones",
        row.get::<_, i64>(0),
        row.get::<_, i32>(2),
        row.get::<_, i64>(1),
        row.get::<_, i32>(3),
        row.get::<_, i64>(4),
        row.get::<_, i64>(5),
    )
}

/// What is wrong, a line each.
pub async fn check(client: &Client, plans: &[Plan], tally: &Tally, pieces: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ledger = BTreeMap::new();
    for row in client.query("SELECT key, effects, undos FROM ledger", &[]).await.unwrap() {
        let counts = (i64::from(row.get::<_, i32>(1)), i64::from(row.get::<_, i32>(2)));
        ledger.insert(row.get::<_, String>(0), counts);
    }
    let answers = tally.answers.lock().unwrap().clone();
    let mut standing = 0;
    for (at, plan) in plans.iter().enumerate() {
        let key = key(at);
        let count = |which: usize| i64::try_from(tally.outside[at][which].load(Ordering::SeqCst)).unwrap();
        let (effects, undos) =
            if plan.is_outside { (count(0), count(1)) } else { ledger.remove(&key).unwrap_or_default() };
        let given = |what| answers.get(&(at, what)).map_or(&[] as &[Reply], Vec::as_slice);
        let (acted, undone) = (given("action"), given("compensation"));
        if !(0..=1).contains(&effects) || !(0..=1).contains(&undos) || undos > effects {
            wrong.push(format!("{key}: {effects} effects, {undos} undos"));
        }
        if plan.is_compensated && effects != undos {
            wrong.push(format!("{key}: compensated, but {effects} effects and {undos} undos are left"));
        }
        if !plan.is_compensated && undos > 0 {
            wrong.push(format!("{key}: undone without a compensation"));
        }
        // One answer for all calls of a kind, byte for byte, and it tells the truth.
        let [acted] = acted else {
            wrong.push(format!("{key}: the action was answered {acted:?}"));
            continue;
        };
        let says_effect = matches!(acted, Reply::Done(_));
        if says_effect != (effects > 0) {
            wrong.push(format!("{key}: answered {acted:?} with {effects} effects"));
        }
        if matches!(acted, Reply::Superseded) && !plan.is_compensated && !plan.is_probed {
            wrong.push(format!("{key}: turned away for nothing"));
        }
        if plan.is_compensated && !matches!(undone, [Reply::Done(_)]) {
            wrong.push(format!("{key}: the compensation was answered {undone:?}"));
        }
        if !plan.is_outside {
            standing += effects - undos;
        }
    }
    if !ledger.is_empty() {
        wrong.push(format!("effects of keys that were never sent: {ledger:?}"));
    }
    let row = client.query_one("SELECT sum(amount), min(amount) FROM stock", &[]).await.unwrap();
    let (left, least) = (row.get::<_, i64>(0), row.get::<_, i32>(1));
    if left + standing != pieces || least < 0 {
        wrong.push(format!("stock: {left} left and {standing} sold of {pieces}, the least {least}"));
    }
    wrong
}
