//! The accounting must notice when the stories differ.

use super::super::book::{Book, Caller, Deed, Entry, Opening};
use super::super::catalogue::{ORDER_PARTICIPANTS, offers};
use super::*;
use crate::proto::Failure;

const ITEM: i64 = 9_007_199_254_740_993;
const PRICE: i64 = 100;

/// A shop that has seen `count` orders for one piece each, of which there are `stock`.
struct Story {
    placed: Vec<Placed>,
    ledgers: BTreeMap<&'static str, Ledger>,
}

impl Story {
    fn of(count: usize, stock: i64) -> Self {
        let empty = |name| {
            let mut opening = Opening { balances: BTreeMap::new(), default_balance: 1_000 };
            if name == "stock" {
                opening.balances.insert(ITEM.to_string(), stock);
            }
            (name, Ledger { entries: Vec::new(), book: Book::open(offers(name).unwrap(), opening) })
        };
        let ledgers = ORDER_PARTICIPANTS.into_iter().map(empty).collect();
        let mut story = Self { placed: Vec::new(), ledgers };
        for n in 0..count {
            story.order(n);
        }
        story
    }

    fn order(&mut self, n: usize) {
        let order = Order {
            saga_id: format!("order-{n}"),
            user_id: i64::try_from(n).unwrap(),
            item_id: ITEM,
            amount: 1,
            total: PRICE,
        };
        let stock = &self.ledgers["stock"].book;
        let mut saga = Saga { saga_id: order.saga_id.clone(), ..Saga::default() };
        if stock.balance(&ITEM.to_string()) > 0 {
            self.effect("stock", &order.saga_id, moved(ITEM, -1));
            self.effect("point", &order.saga_id, moved(order.user_id, -PRICE));
            self.effect("order", &order.saga_id, Deed::Recorded);
            self.effect("cart", &order.saga_id, Deed::Recorded);
            self.effect("data_platform", &order.saga_id, Deed::Recorded);
            saga.committed = true;
            saga.set_status(SagaStatus::Completed);
        } else {
            saga.set_status(SagaStatus::Compensated);
            saga.failure = Some(Failure { code: "OUT_OF_STOCK".to_owned(), ..Failure::default() });
        }
        self.placed.push(Placed { order, saga });
    }

    fn effect(&mut self, service: &'static str, saga: &str, deed: Deed) {
        self.entry(service, saga, Phase::Action, "a", Verdict::Effect { deed, output: String::new() });
    }

    fn entry(&mut self, service: &'static str, saga: &str, phase: Phase, key: &str, verdict: Verdict) {
        let caller = Caller {
            saga: saga.to_owned(),
            step: format!("step of {service}"),
            phase,
            action: String::new(),
            key: format!("{saga}-{key}"),
            action_key: format!("{saga}-a"),
            attempt: 1,
            epoch: 1,
        };
        let ledger = self.ledgers.get_mut(service).unwrap();
        let entry = Entry { caller, verdict };
        ledger.book.enter(&entry);
        ledger.entries.push(entry);
    }

    /// The names of the figures that are off.
    fn off(&self) -> Vec<&'static str> {
        let ledgers = Ledgers::new(self.ledgers.clone());
        let all = self.placed.len() as u64;
        let mut by_status = BTreeMap::new();
        for one in &self.placed {
            *by_status.entry(one.saga.status()).or_default() += 1;
        }
        let daemon = DaemonFigures { by_status, list_total: all, listed: all, outbox_records: all, stuck: 0 };
        let rush = rush_figures(3, ITEM, &self.placed, &ledgers);
        let overall = overall_figures(&self.placed, &ledgers, &daemon);
        rush.into_iter().chain(overall).filter(|figure| !figure.ok).map(|figure| figure.name).collect()
    }
}

fn moved(account: i64, amount: i64) -> Deed {
    Deed::Moved { account: account.to_string(), amount }
}

#[test]
fn a_run_without_a_flaw_has_no_figure_off() {
    assert_eq!(Story::of(10, 3).off(), Vec::<&str>::new());
}

#[test]
fn a_doubled_effect_is_seen_even_under_another_key() {
    let mut story = Story::of(10, 3);
    story.entry(
        "cart",
        "order-0",
        Phase::Action,
        "b",
        Verdict::Effect { deed: Deed::Recorded, output: String::new() },
    );
    assert_eq!(story.off(), ["effects doubled", "keys that changed between attempts"]);
}

#[test]
fn points_of_an_order_turned_away_are_missed() {
    let mut story = Story::of(10, 3);
    story.effect("point", "order-9", moved(9, -PRICE));
    assert_eq!(
        story.off(),
        ["points taken for orders turned away", "effects left behind by orders turned away"]
    );
}

#[test]
fn points_given_back_are_no_flaw_and_given_back_twice_they_are() {
    let mut story = Story::of(10, 3);
    story.effect("point", "order-9", moved(9, -PRICE));
    let undone = || Verdict::Undone { deed: moved(9, -PRICE) };
    story.entry("point", "order-9", Phase::Compensation, "c", undone());
    assert_eq!(story.off(), Vec::<&str>::new());
    story.entry("point", "order-9", Phase::Compensation, "c", undone());
    assert_eq!(story.off(), ["points taken for orders turned away", "undos without an effect"]);
}

#[test]
fn an_order_that_never_ended_is_lost() {
    let mut story = Story::of(10, 3);
    story.placed[9].saga.set_status(SagaStatus::Running);
    assert_eq!(
        story.off(),
        ["orders turned away, out of stock", "acknowledged orders lost", "sagas ended, as the daemon counts"]
    );
}

#[test]
fn an_order_sold_beyond_the_stock_is_seen() {
    let off = Story::of(10, 4).off();
    assert!(off.contains(&"orders placed"), "{off:?}");
}

#[test]
fn a_completed_order_without_its_side_work_is_seen() {
    let mut story = Story::of(10, 3);
    story.ledgers.get_mut("data_platform").unwrap().entries.pop();
    assert_eq!(story.off(), ["effects missing from completed orders"]);
}

#[test]
fn in_the_mixed_run_what_is_gone_is_what_the_standing_orders_cost() {
    let mut story = Story::of(10, 3);
    let off = |story: &Story| {
        let figures = mixed_figures(&story.placed, &Ledgers::new(story.ledgers.clone()));
        figures.into_iter().filter(|figure| !figure.ok).map(|figure| figure.name).collect::<Vec<_>>()
    };
    let nobody_ran_out = "orders turned away, points ran out";
    assert_eq!(off(&story), [nobody_ran_out]);
    story.placed[9].saga.failure =
        Some(Failure { code: "NOT_ENOUGH_POINTS".to_owned(), ..Failure::default() });
    assert_eq!(off(&story), Vec::<&str>::new());
    story.effect("stock", "order-9", moved(ITEM, -2));
    assert_eq!(off(&story), ["pieces gone from stock"]);
}
