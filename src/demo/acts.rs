//! The show: two acts against a daemon that is killed in the middle, then the accounting.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::accounting::{self, DaemonFigures, Ledgers, Placed};
use super::book::Opening;
use super::cast::{Cast, Places, Service};
use super::catalogue::ORDER_PARTICIPANTS;
use super::customers::{Customers, Order, Receipt};
use super::ledger::Ledger;
use super::processes::free_addresses;
use super::shop::Faults;
use super::show::{self, Act, say};
use crate::cli::render;
use crate::clock::Stopwatch;
use crate::proto::{SagaStatus, WaitFor};

/// The shipped definition of an order.
pub const ORDER_SAGA: &str = include_str!("../../sagas/order.yaml");

/// Ids of users and items count from here: past the integers that a double can hold.
const FIRST_ID: i64 = 9_007_199_254_740_993;
/// The item that everybody wants in act one.
const HOT_ITEM: i64 = FIRST_ID;
/// What one piece costs, in points.
const PRICE: i64 = 100;
/// Points of a user who has enough.
const PLENTY_OF_POINTS: i64 = 100 * PRICE;
/// Pieces of every item of act two.
const PLENTY_OF_STOCK: i64 = 10_000;
/// Orders of one user in act two.
const ORDERS_PER_USER: i64 = 4;
/// Every so many users, one has points for a single order.
const POOR_EVERY: i64 = 4;
/// Items of act two.
const MIXED_ITEMS: i64 = 40;
/// The pause between two customers of act two: they come while things go wrong, not before.
const MIXED_PACE: Duration = Duration::from_millis(10);
/// How long the slow service takes for a call.
const SLOWNESS: Duration = Duration::from_millis(150);
/// How long the service that crashes stays away.
const ABSENCE: Duration = Duration::from_millis(700);

/// What `sagad demo` was asked for.
#[derive(Debug, Clone, Copy)]
pub struct DemoOptions {
    /// Orders at once in act one.
    pub orders: u32,
    /// Pieces of the item they are for.
    pub stock: u32,
    /// Orders of act two.
    pub mixed: u32,
    /// Keep the folder also when all is well.
    pub keep: bool,
}

/// Runs the show. The exit code tells whether every figure is right.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    let dir = tempfile::Builder::new().prefix("sagad-demo-").tempdir().context("make a folder")?;
    let outcome = tokio::select! {
        outcome = perform(options, dir.path()) => outcome,
        stopped = crate::daemon::told_to_stop() => {
            stopped?;
            say("\ninterrupted");
            return Ok(ExitCode::from(130));
        }
    };
    let well = matches!(outcome, Ok(0));
    if options.keep || !well {
        say(&format!("\nStore, ledgers and logs are kept in {}", dir.keep().display()));
    }
    match outcome? {
        0 => Ok(ExitCode::SUCCESS),
        off => {
            say(&format!("{off} of the figures are off."));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What is remembered of an act.
struct Scene {
    receipts: Vec<Receipt>,
    elapsed: Duration,
}

/// Plays both acts; gives how many figures are off.
async fn perform(options: DemoOptions, dir: &Path) -> anyhow::Result<usize> {
    let whole = Stopwatch::start();
    let mut cast = raise(options, dir).await?;
    let order = cast.register_definition(ORDER_SAGA).await?;
    say(&format!("The definition {} is registered as version {}.", order.name, order.version));
    let customers = Arc::new(Customers::of(&cast.places().url())?);

    say(&format!(
        "\nAct one: {} orders at once for an item of which there are {}.",
        options.orders, options.stock
    ));
    let act = Act::begin("settled", options.orders.into());
    let rush =
        place_all(&customers, &act, &watch::Sender::new(0), rush_orders(options.orders), Duration::ZERO)
            .await?;
    drop(act);
    let rushed = see_through(&customers, &rush.receipts).await?;

    say(&format!("\nAct two: {} orders for many items while things go wrong.", options.mixed));
    let act = Act::begin("settled", options.mixed.into());
    let settled = watch::Sender::new(0);
    slow_down(&mut cast, &act).await?;
    let (mixed, incidents) = tokio::join!(
        place_all(&customers, &act, &settled, mixed_orders(options.mixed), MIXED_PACE),
        let_things_go_wrong(&mut cast, &act, settled.subscribe(), options.mixed as usize),
    );
    drop(act);
    let (mixed, back_after) = (mixed?, incidents?);
    let mixed_up = see_through(&customers, &mixed.receipts).await?;

    let daemon = daemon_figures(&cast, &customers).await?;
    let off = account(options, &rushed, &mixed_up, &ledgers(cast.places())?, &daemon);
    timeline_of_one(&customers, &mixed_up).await?;
    timings(&rush, &mixed, back_after, whole.elapsed());
    cast.stop().await?;
    Ok(off)
}

/// Starts the daemon and the shop.
async fn raise(options: DemoOptions, dir: &Path) -> anyhow::Result<Cast> {
    let addresses = free_addresses(2 + ORDER_PARTICIPANTS.len())?;
    let places = Places::below(dir, addresses[0], addresses[1])?;
    let services = ORDER_PARTICIPANTS.iter().zip(&addresses[2..]).map(|(name, addr)| {
        let opening = match *name {
            "stock" => Opening {
                balances: [(HOT_ITEM.to_string(), options.stock.into())].into(),
                default_balance: PLENTY_OF_STOCK,
            },
            "point" => Opening { balances: purses(options.mixed), default_balance: PLENTY_OF_POINTS },
            _ => Opening::default(),
        };
        Service { name, addr: *addr, opening }
    });
    say(&format!("sagad {} on a fresh store in {}", env!("CARGO_PKG_VERSION"), dir.display()));
    let cast = Cast::start(places, services.collect()).await?;
    say(&format!("The daemon serves on {}, with {}.", cast.places().grpc, ORDER_PARTICIPANTS.join(", ")));
    Ok(cast)
}

fn rush_orders(count: u32) -> Vec<Order> {
    let order = |n: u32| Order {
        saga_id: format!("demo/rush-{n:04}"),
        user_id: FIRST_ID + i64::from(n),
        item_id: HOT_ITEM,
        amount: 1,
        total: PRICE,
    };
    (0..count).map(order).collect()
}

/// Users of act two begin far behind those of act one.
fn mixed_user(n: u32) -> i64 {
    FIRST_ID + 1_000_000 + i64::from(n) / ORDERS_PER_USER
}

fn mixed_orders(count: u32) -> Vec<Order> {
    let order = |n: u32| Order {
        saga_id: format!("demo/mixed-{n:04}"),
        user_id: mixed_user(n),
        item_id: HOT_ITEM + 1 + i64::from(n) * 7 % MIXED_ITEMS,
        amount: 1 + i64::from(n) % 2,
        total: PRICE,
    };
    (0..count).map(order).collect()
}

/// The users of act two who have points for one order only.
fn purses(mixed: u32) -> BTreeMap<String, i64> {
    let users = (0..mixed).map(mixed_user);
    users
        .filter(|user| (user - mixed_user(0)) % POOR_EVERY == 0)
        .map(|user| (user.to_string(), PRICE))
        .collect()
}

/// All customers, one `pace` after the other; each sees the order through to its commit or its end.
async fn place_all(
    customers: &Arc<Customers>,
    act: &Act,
    settled: &watch::Sender<usize>,
    orders: Vec<Order>,
    pace: Duration,
) -> anyhow::Result<Scene> {
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    for (at, order) in (0..).zip(orders) {
        let customers = Arc::clone(customers);
        running.spawn(async move {
            tokio::time::sleep(pace * at).await;
            customers.place(order).await
        });
    }
    let mut receipts = Vec::new();
    while let Some(receipt) = running.join_next().await {
        receipts.push(receipt.context("a customer's task died")??);
        settled.send_replace(act.advance());
    }
    Ok(Scene { receipts, elapsed: watch.elapsed() })
}

/// Waits until every acknowledged saga has ended.
async fn see_through(customers: &Customers, receipts: &[Receipt]) -> anyhow::Result<Vec<Placed>> {
    let ends = receipts.iter().map(|receipt| async {
        let (saga, _) = customers.wait(&receipt.order.saga_id, WaitFor::Ended).await?;
        anyhow::Ok(Placed { order: receipt.order.clone(), saga })
    });
    futures::future::try_join_all(ends).await
}

/// The point service comes back slow, on the same ledger.
async fn slow_down(cast: &mut Cast, act: &Act) -> anyhow::Result<()> {
    cast.kill_service("point").await?;
    cast.start_service("point", Faults { delay: SLOWNESS, ..Faults::default() })?;
    act.say(&format!("  the point service takes {} for each call now", show::millis(SLOWNESS)));
    Ok(())
}

/// Kills a service and the daemon while orders are under way. Gives how long the daemon needed to be
/// back.
async fn let_things_go_wrong(
    cast: &mut Cast,
    act: &Act,
    mut settled: watch::Receiver<usize>,
    orders: usize,
) -> anyhow::Result<Duration> {
    let gone = || anyhow::anyhow!("the customers gave up");
    settled.wait_for(|count| *count >= orders / 8).await.map_err(|_| gone())?;
    cast.kill_service("stock").await?;
    act.say("  SIGKILL: the stock service is gone");
    tokio::time::sleep(ABSENCE).await;
    cast.start_service("stock", Faults::default())?;
    act.say("  the stock service is back");

    settled.wait_for(|count| *count >= orders / 2).await.map_err(|_| gone())?;
    cast.kill_daemon().await?;
    act.say("  SIGKILL: the daemon is gone; customers ask again with the same ids");
    let watch = Stopwatch::start();
    cast.start_daemon()?;
    cast.daemon_ready().await?;
    let back_after = watch.elapsed();
    act.say(&format!("  the daemon is back after {}", show::millis(back_after)));
    Ok(back_after)
}

async fn daemon_figures(cast: &Cast, customers: &Customers) -> anyhow::Result<DaemonFigures> {
    let stats = cast.stats().await?;
    let (list_total, listed) = customers.listed().await?;
    let by_status = stats.by_status.iter().map(|count| (count.status(), count.count)).collect();
    Ok(DaemonFigures {
        by_status,
        list_total,
        listed,
        outbox_records: stats.outbox_records,
        stuck: stats.stuck,
    })
}

fn ledgers(places: &Places) -> anyhow::Result<Ledgers> {
    let read = |name| Ok((name, Ledger::read(&places.ledgers, name)?));
    ORDER_PARTICIPANTS.into_iter().map(read).collect::<anyhow::Result<_>>().map(Ledgers::new)
}

fn account(
    options: DemoOptions,
    rushed: &[Placed],
    mixed: &[Placed],
    ledgers: &Ledgers,
    daemon: &DaemonFigures,
) -> usize {
    let everything: Vec<Placed> = rushed.iter().chain(mixed).cloned().collect();
    [
        show::figures(
            "Act one, checked against the services' own ledgers",
            &accounting::rush_figures(options.stock.into(), HOT_ITEM, rushed, ledgers),
        ),
        show::figures("Act two, the same way", &accounting::mixed_figures(mixed, ledgers)),
        show::figures("Over everything", &accounting::overall_figures(&everything, ledgers, daemon)),
    ]
    .into_iter()
    .sum()
}

/// Shows one saga that had something to undo, as an operator sees it.
async fn timeline_of_one(customers: &Customers, placed: &[Placed]) -> anyhow::Result<()> {
    let undone = |one: &&Placed| {
        one.saga.status() == SagaStatus::Compensated
            && one.saga.steps.iter().any(|step| step.compensation_attempts > 0)
    };
    let Some(one) = placed.iter().find(undone) else { return Ok(()) };
    let events = customers.history(&one.order.saga_id).await?;
    say(&format!("\nOne that was undone, as `sagactl watch {}` shows it", one.order.saga_id));
    say(render::timeline(&events).trim_end());
    Ok(())
}

fn timings(rush: &Scene, mixed: &Scene, back_after: Duration, whole: Duration) {
    let spans = |samples: Vec<Duration>| {
        let (half, most) = show::percentiles(samples);
        format!("p50 {}, p99 {}", show::millis(half), show::millis(most))
    };
    let accepted = rush.receipts.iter().map(|receipt| receipt.accepted_after).collect();
    let placed = rush.receipts.iter().filter(|receipt| receipt.committed);
    let committed = placed.map(|receipt| receipt.settled_after).collect();
    let rate = rush.receipts.len() as f64 / rush.elapsed.as_secs_f64();
    let repeats: usize = mixed.receipts.iter().map(|receipt| receipt.repeats).sum();
    say("\nTimings, as seen in this run");
    say(&format!("  act one      {:.1} s, {rate:.0} orders/s", rush.elapsed.as_secs_f64()));
    say(&format!("    accepted   {}", spans(accepted)));
    say(&format!("    committed  {}", spans(committed)));
    say(&format!(
        "  act two      {:.1} s, {repeats} requests repeated, daemon back after {}",
        mixed.elapsed.as_secs_f64(),
        show::millis(back_after)
    ));
    say(&format!("  in all       {:.1} s", whole.as_secs_f64()));
}
