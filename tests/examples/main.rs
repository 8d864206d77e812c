//! The examples against the real daemon: each language's stock service in turn, with each language's
//! client, and what the service's own table says afterwards.
#![allow(clippy::disallowed_methods, reason = "tests are their own daemon")]

mod cable;
mod calls;
mod languages;
mod shop;

use anyhow::{Context as _, Result, ensure};

use crate::cable::Cable;
use crate::calls::Calls;
use crate::languages::{LANGUAGES, Language, PYTHON, RUST, TYPESCRIPT};
use crate::shop::{Order, Shop};

/// As the services open with it.
const PIECES: i64 = 100;
/// Exit codes of the clients.
const PLACED: Option<i32> = Some(0);
const TURNED_AWAY: Option<i32> = Some(3);

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_service_in_rust_takes_part() -> Result<()> {
    takes_part(&RUST).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_service_in_python_takes_part() -> Result<()> {
    takes_part(&PYTHON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_service_in_typescript_takes_part() -> Result<()> {
    takes_part(&TYPESCRIPT).await
}

async fn takes_part(language: &'static Language) -> Result<()> {
    languages::prepare();
    let mut shop = Shop::open(language).await?;
    let outcome = play(language, &mut shop).await;
    outcome.with_context(|| format!("the service in {} wrote:\n{}", language.name, shop.service_log()))
}

async fn play(language: &Language, shop: &mut Shop) -> Result<()> {
    for client in LANGUAGES {
        orders_end_as_they_should(client, shop)
            .await
            .with_context(|| format!("a client in {}", client.name))?;
    }
    a_killed_service_and_a_lost_answer_lose_and_double_nothing(language, shop).await?;
    one_call_has_one_effect(shop).await?;
    the_registration_is_kept_and_ended(shop).await
}

/// One that holds, asked for twice; one for which there is too little stock; one that is undone because
/// the points run out; one that takes another's id.
async fn orders_end_as_they_should(client: &Language, shop: &mut Shop) -> Result<()> {
    let (held, id) = (shop.stock()?, |what: &str| format!("{what}-{}", client.name));

    let first = shop.order(client, &id("holds"), 1, 2).await?;
    ensure!(first.code == PLACED && first.said.contains("is placed: {\"order_id\":"), "{first:?}");
    ensure!(shop.stock()? == [held[0] - 2, held[1], held[2]], "two pieces of the first item are gone");
    let again = shop.order(client, &id("holds"), 1, 2).await?;
    ensure!((again.code, &again.said) == (first.code, &first.said), "{again:?} after {first:?}");
    ensure!(shop.stock()? == [held[0] - 2, held[1], held[2]], "asked again, no more is gone");

    let too_many = shop.order(client, &id("too-many"), 2, held[1] + 1).await?;
    ensure!(too_many.code == TURNED_AWAY && too_many.said.contains("OUT_OF_STOCK"), "{too_many:?}");
    // A hundred pieces cost all the points that there were before the first order.
    let too_dear = shop.order(client, &id("too-dear"), 3, PIECES).await?;
    ensure!(too_dear.code == TURNED_AWAY && too_dear.said.contains("NOT_ENOUGH_POINTS"), "{too_dear:?}");
    ensure!(shop.stock()? == [held[0] - 2, held[1], held[2]], "what was taken for it is back");

    let taken = shop.order(client, &id("holds"), 1, 3).await?;
    ensure!(taken.code == Some(1) && taken.wrote.contains("exists with another request"), "{taken:?}");
    ensure!(shop.stock()? == [held[0] - 2, held[1], held[2]], "the id was taken, nothing happened");
    Ok(())
}

/// The service is killed with the call in its hands, and the client's connection breaks meanwhile.
async fn a_killed_service_and_a_lost_answer_lose_and_double_nothing(
    language: &Language,
    shop: &mut Shop,
) -> Result<()> {
    let held = shop.stock()?;
    let mut cable = Cable::to(&shop.daemon).await?;
    let database = shop.database()?;
    database.execute_batch("BEGIN IMMEDIATE")?; // the service waits for this

    let order = Order::place(language, &cable.addr, "through-thick-and-thin", 1, 5)?;
    shop.step_is_under_way("through-thick-and-thin", "deduct-stock/0").await?;
    cable.cut();
    shop.kill_service().await?;
    database.execute_batch("ROLLBACK")?;
    ensure!(shop.stock()? == held, "nothing was taken by a call that was not finished");

    shop.start_service().await?;
    let order = order.ended().await?;
    ensure!(order.code == PLACED, "{order:?}");
    ensure!(order.wrote.contains("asking again"), "the client noticed the break: {order:?}");
    ensure!(shop.stock()? == [held[0] - 5, held[1], held[2]], "five pieces are gone, once");
    Ok(())
}

/// The test plays the daemon: calls that come twice, late, at once, before their action, and again after
/// the service was killed.
async fn one_call_has_one_effect(shop: &mut Shop) -> Result<()> {
    let [first, second, third] = shop.stock()?;
    let stock_is = |shop: &Shop, left: i64, when: &str| -> Result<()> {
        let found = shop.stock()?;
        ensure!(found == [first, second, left], "{when}: {found:?}, not {left} of the third item");
        Ok(())
    };
    let mut calls = Calls::to(&shop.service_url)?;

    let deducted = calls.deduct("a", 3, 5).await?;
    ensure!(deducted == format!("done {}", third - 5), "{deducted}");
    shop.kill_service().await?;
    shop.start_service().await?;
    ensure!(calls.deduct("a", 3, 5).await? == deducted, "the stored answer, also after a crash");
    stock_is(shop, third - 5, "a duplicate")?;
    for _ in 0..2 {
        ensure!(calls.restore("a", 3, 5).await? == "done");
        stock_is(shop, third, "undone, once")?;
    }
    ensure!(calls.deduct("a", 3, 5).await? == deducted, "a duplicate that comes behind the compensation");
    stock_is(shop, third, "and has no effect")?;

    ensure!(calls.restore("b", 3, 5).await? == "done", "a compensation of an action that never came");
    stock_is(shop, third, "gives nothing back")?;
    ensure!(calls.deduct("b", 3, 5).await? == "superseded", "the action, when it comes after all");
    stock_is(shop, third, "takes nothing")?;

    let at_once = calls.deduct_at_once("c", 3, 1, 8).await?;
    ensure!(at_once.iter().all(|answer| *answer == format!("done {}", third - 1)), "{at_once:?}");
    stock_is(shop, third - 1, "one of eight")?;

    let refused = calls.deduct("d", 3, third).await?;
    ensure!(refused == "refused OUT_OF_STOCK", "{refused}");
    shop.database()?.execute("UPDATE stock SET amount = amount + 1 WHERE item_id = 3", [])?;
    ensure!(calls.deduct("d", 3, third).await? == refused, "a no stays a no when goods come in");
    ensure!(calls.restore("d", 3, third).await? == "done");
    stock_is(shop, third, "nothing was taken, so nothing comes back")?;

    for (key, amount) in [("e", 0), ("f", -1)] {
        let nonsense = calls.deduct(key, 3, amount).await?;
        ensure!(nonsense == "refused BAD_INPUT", "{amount} pieces: {nonsense}");
        ensure!(calls.restore(key, 3, amount).await? == "done", "there is nothing to undo");
    }
    stock_is(shop, third, "nonsense is turned away")?;

    // Neighbours that are one number as a double: neither is taken for the other.
    let (even, odd) = (1_i64 << 53, (1_i64 << 53) + 1);
    shop.database()?.execute("INSERT INTO stock VALUES (?1, 1)", [even])?;
    let neighbour = calls.deduct("g", odd, 1).await?;
    ensure!(neighbour.starts_with("refused"), "{neighbour}");
    let left: i64 =
        shop.database()?
            .query_row("SELECT amount FROM stock WHERE item_id = ?1", [even], |row| row.get(0))?;
    ensure!(left == 1, "an item that nobody asked for was taken");
    Ok(())
}

/// It is renewed before it runs out, made again when the daemon does not know it any more, and ended
/// when the service is.
async fn the_registration_is_kept_and_ended(shop: &mut Shop) -> Result<()> {
    let made = shop.registration().await?.context("the service is registered")?;
    let renewed = shop.registered_otherwise(|now| now.is_some_and(|now| now.expires_at != made.expires_at));
    renewed.await.context("renewed")?;

    shop.deregister(&made.registration_id).await?;
    shop.registered_otherwise(|now| now.is_some()).await.context("registered again")?;

    let status = shop.stop_service().await?;
    ensure!(status.success(), "SIGTERM is not a failure: {status}");
    ensure!(shop.registration().await?.is_none(), "the service said good-bye");
    Ok(())
}
