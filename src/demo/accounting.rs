//! The final accounting: what the customers were told, what the daemon says and what the services'
//! own ledgers hold must be the same story.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Phase, Verdict};
use super::customers::{Order, has_ended};
use super::ledger::Ledger;
use crate::proto::{Saga, SagaStatus};

/// An order and its saga at the end.
#[derive(Debug, Clone)]
pub struct Placed {
    /// What was ordered.
    pub order: Order,
    /// How it ended.
    pub saga: Saga,
}

impl Placed {
    fn stands(&self) -> bool {
        self.saga.committed
    }

    fn turned_away_for(&self, code: &str) -> bool {
        self.saga.status() == SagaStatus::Compensated
            && self.saga.failure.as_ref().is_some_and(|failure| failure.code == code)
    }
}

/// The ledgers of the five services.
#[derive(Debug, Clone)]
pub struct Ledgers(BTreeMap<&'static str, Ledger>);

/// What the daemon says of all its sagas.
#[derive(Debug, Clone, Default)]
pub struct DaemonFigures {
    /// Sagas by status, as counted by the daemon.
    pub by_status: BTreeMap<SagaStatus, u64>,
    /// The total of a list of all.
    pub list_total: u64,
    /// The distinct sagas of that list, page by page.
    pub listed: u64,
    /// Outbox records.
    pub outbox_records: u64,
    /// Calls that wait for an operator.
    pub stuck: u64,
}

/// One line of the final table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// What was counted.
    pub name: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// Whether it is what it must be.
    pub ok: bool,
}

fn exactly(name: &'static str, expected: impl TryInto<i128>, found: impl TryInto<i128>) -> Figure {
    let number = |given: Option<i128>| given.expect("counts fit 128 bits");
    let (expected, found) = (number(expected.try_into().ok()), number(found.try_into().ok()));
    Figure { name, expected: expected.to_string(), found: found.to_string(), ok: expected == found }
}

fn at_least(name: &'static str, least: usize, found: usize) -> Figure {
    Figure { name, expected: format!("{least} or more"), found: found.to_string(), ok: found >= least }
}

/// What one step of one saga left in a ledger.
#[derive(Debug, Clone, Default)]
struct Trace {
    effects: usize,
    undos: usize,
    action_keys: BTreeSet<String>,
    compensation_keys: BTreeSet<String>,
}

impl Trace {
    fn stands(&self) -> bool {
        self.effects > self.undos
    }
}

type Traces<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Trace>>;

impl Ledgers {
    /// Ledgers by the participant's name.
    pub fn new(ledgers: BTreeMap<&'static str, Ledger>) -> Self {
        Self(ledgers)
    }

    /// Saga → step → trace, for one service.
    fn traces(&self, name: &str) -> Traces<'_> {
        let mut traces = Traces::new();
        for entry in self.0.get(name).into_iter().flat_map(|ledger| &ledger.entries) {
            let caller = &entry.caller;
            let trace = traces.entry(&caller.saga).or_default().entry(&caller.step).or_default();
            match caller.phase {
                Phase::Action => trace.action_keys.insert(caller.key.clone()),
                Phase::Compensation => trace.compensation_keys.insert(caller.key.clone()),
                Phase::Probe => false,
            };
            match &entry.verdict {
                Verdict::Effect { .. } => trace.effects += 1,
                Verdict::Undone { .. } => trace.undos += 1,
                Verdict::Refused { .. }
                | Verdict::Duplicate
                | Verdict::Superseded
                | Verdict::Tombstone
                | Verdict::NothingToUndo
                | Verdict::Found
                | Verdict::NotFound => {}
            }
        }
        traces
    }

    fn count(&self, of: impl Fn(&Trace) -> usize) -> usize {
        let services = self.0.keys().map(|name| self.traces(name));
        services.map(|traces| traces.values().flat_map(BTreeMap::values).map(&of).sum::<usize>()).sum()
    }

    /// What is gone from the balances of these accounts since the opening.
    fn gone(&self, name: &str, accounts: impl Iterator<Item = i64>) -> i64 {
        let Some(ledger) = self.0.get(name) else { return 0 };
        let distinct: BTreeSet<String> = accounts.map(|account| account.to_string()).collect();
        distinct
            .iter()
            .map(|account| ledger.book.opening_balance(account) - ledger.book.balance(account))
            .sum()
    }

    fn balance(&self, name: &str, account: i64) -> i64 {
        self.0.get(name).map_or(0, |ledger| ledger.book.balance(&account.to_string()))
    }
}

/// Everybody wants the same thing: `stock` pieces of one item, an order for one piece each.
#[must_use]
pub fn rush_figures(stock: i64, item_id: i64, placed: &[Placed], ledgers: &Ledgers) -> Vec<Figure> {
    let pieces = usize::try_from(stock).unwrap_or(0).min(placed.len());
    let standing: Vec<&Placed> = placed.iter().filter(|one| one.stands()).collect();
    let turned_away: Vec<&Placed> = placed.iter().filter(|one| one.turned_away_for("OUT_OF_STOCK")).collect();
    let users = |of: &[&Placed]| of.iter().map(|one| one.order.user_id).collect::<Vec<_>>();
    let paid = standing.iter().map(|one| one.order.total).sum::<i64>();
    let opened = ledgers.traces("order");
    let made = placed.iter().filter(|one| {
        let steps = opened.get(one.order.saga_id.as_str());
        steps.is_some_and(|steps| steps.values().any(Trace::stands))
    });
    vec![
        exactly("orders placed", pieces, standing.len()),
        exactly("orders turned away, out of stock", placed.len() - pieces, turned_away.len()),
        exactly("stock left", stock - i64::try_from(pieces).unwrap_or(0), ledgers.balance("stock", item_id)),
        exactly("orders in the order service", pieces, made.count()),
        exactly("points taken for orders placed", paid, ledgers.gone("point", users(&standing).into_iter())),
        exactly(
            "points taken for orders turned away",
            0,
            ledgers.gone("point", users(&turned_away).into_iter()),
        ),
    ]
}

/// Things go wrong: what is gone from the shelves and the purses is what the standing orders cost.
#[must_use]
pub fn mixed_figures(placed: &[Placed], ledgers: &Ledgers) -> Vec<Figure> {
    let standing: Vec<&Order> = placed.iter().filter(|one| one.stands()).map(|one| &one.order).collect();
    let ended = placed.iter().filter(|one| has_ended(&one.saga)).count();
    let out_of_points = placed.iter().filter(|one| one.turned_away_for("NOT_ENOUGH_POINTS")).count();
    let items = placed.iter().map(|one| one.order.item_id);
    let users = placed.iter().map(|one| one.order.user_id);
    let overdrawn = placed.iter().filter(|one| ledgers.balance("point", one.order.user_id) < 0).count();
    vec![
        exactly("orders that came to an end", placed.len(), ended),
        at_least("orders turned away, points ran out", 1, out_of_points),
        exactly(
            "pieces gone from stock",
            standing.iter().map(|order| order.amount).sum::<i64>(),
            ledgers.gone("stock", items),
        ),
        exactly(
            "points gone from users",
            standing.iter().map(|order| order.total).sum::<i64>(),
            ledgers.gone("point", users),
        ),
        exactly("users with less than no points", 0, overdrawn),
    ]
}

/// Over everything: nothing lost, nothing doubled, nothing left behind.
#[must_use]
pub fn overall_figures(placed: &[Placed], ledgers: &Ledgers, daemon: &DaemonFigures) -> Vec<Figure> {
    let all = placed.len();
    let lost =
        placed.iter().filter(|one| one.saga.saga_id != one.order.saga_id || !has_ended(&one.saga)).count();
    let ended_by_count: u64 = [SagaStatus::Completed, SagaStatus::Compensated]
        .iter()
        .filter_map(|status| daemon.by_status.get(status))
        .sum();
    let count_of_all: u64 = daemon.by_status.values().sum();

    let mut missing = 0;
    let mut left_behind = 0;
    let none = BTreeMap::new();
    for name in ledgers.0.keys() {
        let traces = ledgers.traces(name);
        for one in placed {
            let steps = traces.get(one.order.saga_id.as_str()).unwrap_or(&none);
            let standing = steps.values().filter(|trace| trace.stands()).count();
            match one.saga.status() {
                SagaStatus::Completed => missing += 1_usize.saturating_sub(standing),
                SagaStatus::Compensated => left_behind += standing,
                _ => {}
            }
        }
    }
    vec![
        exactly("acknowledged orders lost", 0, lost),
        exactly("sagas ended, as the daemon counts", all, ended_by_count),
        exactly("sagas in all, as the daemon counts", all, count_of_all),
        exactly("sagas in all, as the daemon lists them", all, daemon.list_total),
        exactly("distinct sagas on the list's pages", all, daemon.listed),
        exactly("effects missing from completed orders", 0, missing),
        exactly("effects left behind by orders turned away", 0, left_behind),
        exactly("effects doubled", 0, ledgers.count(|trace| trace.effects.saturating_sub(1))),
        exactly(
            "undos without an effect",
            0,
            ledgers.count(|trace| trace.undos.saturating_sub(trace.effects)),
        ),
        exactly(
            "keys that changed between attempts",
            0,
            ledgers.count(|trace| {
                trace.action_keys.len().saturating_sub(1) + trace.compensation_keys.len().saturating_sub(1)
            }),
        ),
        exactly("events written to the outbox", all, daemon.outbox_records),
        exactly("calls that wait for an operator", 0, daemon.stuck),
    ]
}

#[cfg(test)]
mod tests;
