//! The barrier as a table of short stories, and the business behind it.

use super::super::catalogue::offers;
use super::*;

fn stock_of(items: &[(&str, i64)]) -> Book {
    let balances = items.iter().map(|(item, amount)| ((*item).to_owned(), *amount)).collect();
    let offers = offers("stock").unwrap();
    Book::open(offers, Opening { balances, default_balance: 0 })
}

fn call(phase: Phase, action: &str, key: &str, action_key: &str) -> Caller {
    Caller {
        saga: "order-1".to_owned(),
        step: "deduct-stock/0".to_owned(),
        phase,
        action: action.to_owned(),
        key: key.to_owned(),
        action_key: action_key.to_owned(),
        attempt: 1,
        epoch: 1,
    }
}

fn deduct() -> Caller {
    call(Phase::Action, "deduct", "a", "a")
}

fn restore() -> Caller {
    call(Phase::Compensation, "restore", "c", "a")
}

fn probe() -> Caller {
    call(Phase::Probe, "deduct", "p", "a")
}

fn take(book: &mut Book, caller: &Caller, input: &str) -> (&'static str, &'static str) {
    let (verdict, answer) = book.rule(caller, input);
    book.enter(&Entry { caller: caller.clone(), verdict: verdict.clone() });
    let verdict = match verdict {
        Verdict::Effect { .. } => "effect",
        Verdict::Refused { .. } => "refused",
        Verdict::Duplicate => "duplicate",
        Verdict::Superseded => "superseded",
        Verdict::Undone { .. } => "undone",
        Verdict::Tombstone => "tombstone",
        Verdict::NothingToUndo => "nothing to undo",
        Verdict::Found => "found",
        Verdict::NotFound => "not found",
    };
    let answer = match answer {
        Answer::Done(_) => "done",
        Answer::Refused { .. } => "refused",
        Answer::Superseded => "superseded",
    };
    (verdict, answer)
}

/// Plays `calls` for 2 pieces of an item of which there are `stock`; expects verdict and answer of
/// each, and what is left.
fn check(story: &str, stock: i64, calls: &[(Caller, &'static str, &'static str)], left: i64) {
    let mut book = stock_of(&[("7", stock)]);
    for (at, (caller, verdict, answer)) in calls.iter().enumerate() {
        let found = take(&mut book, caller, r#"{"item_id": 7, "amount": 2}"#);
        assert_eq!(found, (*verdict, *answer), "{story}: call {at}");
    }
    assert_eq!(book.balance("7"), left, "{story}: what is left");
}

#[test]
fn the_barrier_lets_each_effect_and_each_undo_happen_once() {
    let (d, r, p) = (deduct, restore, probe);
    check("an action", 5, &[(d(), "effect", "done")], 3);
    check("a repeated action", 5, &[(d(), "effect", "done"), (d(), "duplicate", "done")], 3);
    check("a refused action", 1, &[(d(), "refused", "refused"), (d(), "duplicate", "refused")], 1);
    check("undone", 5, &[(d(), "effect", "done"), (r(), "undone", "done"), (r(), "duplicate", "done")], 5);
    check("an empty compensation", 5, &[(r(), "tombstone", "done"), (r(), "duplicate", "done")], 5);
    check("a hanging action", 5, &[(r(), "tombstone", "done"), (d(), "superseded", "superseded")], 5);
    check("undoing a refused action", 1, &[(d(), "refused", "refused"), (r(), "nothing to undo", "done")], 1);
    check(
        "a late duplicate of an undone action",
        5,
        &[(d(), "effect", "done"), (r(), "undone", "done"), (d(), "duplicate", "done")],
        5,
    );
    check("a probe after the effect", 5, &[(d(), "effect", "done"), (p(), "found", "done")], 3);
    check(
        "a probe before the action closes it",
        5,
        &[(p(), "tombstone", "refused"), (d(), "superseded", "superseded"), (p(), "not found", "refused")],
        5,
    );
    check("a probe of a refused action", 1, &[(d(), "refused", "refused"), (p(), "not found", "refused")], 1);
    check(
        "a probe after the undo",
        5,
        &[(d(), "effect", "done"), (r(), "undone", "done"), (p(), "not found", "refused")],
        5,
    );
}

#[test]
fn a_compensation_under_another_key_undoes_only_once() {
    let mut book = stock_of(&[("7", 5)]);
    let input = r#"{"item_id": 7, "amount": 2}"#;
    take(&mut book, &deduct(), input);
    take(&mut book, &restore(), input);
    let again = take(&mut book, &call(Phase::Compensation, "restore", "c2", "a"), input);
    assert_eq!(again, ("nothing to undo", "done"));
    assert_eq!(book.balance("7"), 5);
}

#[test]
fn a_compensation_takes_back_what_was_done_and_not_what_its_input_says() {
    let mut book = stock_of(&[("7", 5)]);
    take(&mut book, &deduct(), r#"{"item_id": 7, "amount": 2}"#);
    take(&mut book, &restore(), r#"{"item_id": 7, "amount": 1000}"#);
    assert_eq!(book.balance("7"), 5);
}

#[test]
fn the_refusal_says_what_is_missing() {
    let (_, answer) = stock_of(&[("7", 1)]).rule(&deduct(), r#"{"item_id": 7, "amount": 2}"#);
    let message = "stock of item 7: 1 left, 2 asked".to_owned();
    assert_eq!(answer, Answer::Refused { code: "OUT_OF_STOCK".to_owned(), message });
}

#[test]
fn input_that_makes_no_sense_is_refused_and_not_unknown() {
    for input in [
        "",
        "[]",
        "{}",
        r#"{"item_id": 7}"#,
        r#"{"item_id": 7, "amount": -2}"#,
        r#"{"item_id": 7, "amount": 1.5}"#,
    ] {
        let (_, answer) = stock_of(&[("7", 5)]).rule(&deduct(), input);
        assert!(
            matches!(answer, Answer::Refused { ref code, .. } if code == "BAD_INPUT"),
            "{input}: {answer:?}"
        );
    }
    let (_, answer) = stock_of(&[]).rule(&call(Phase::Action, "steal", "a", "a"), "{}");
    assert!(matches!(answer, Answer::Refused { ref code, .. } if code == "UNKNOWN_ACTION"));
}

#[test]
fn ids_beyond_a_double_stay_apart() {
    let mut book = stock_of(&[("9007199254740993", 3), ("9007199254740992", 3)]);
    take(&mut book, &deduct(), r#"{"item_id": 9007199254740993, "amount": 2}"#);
    assert_eq!((book.balance("9007199254740993"), book.balance("9007199254740992")), (1, 3));
}

#[test]
fn an_order_id_is_never_given_twice_even_after_a_cancel() {
    let mut book = Book::open(offers("order").unwrap(), Opening::default());
    let create = |key: &str| call(Phase::Action, "create", key, key);
    let id_of = |book: &Book, key: &str| book.rule(&create(key), "{}").1;
    assert_eq!(id_of(&book, "a"), Answer::Done(r#"{"order_id":9007199254740993}"#.to_owned()));
    take(&mut book, &create("a"), "{}");
    take(&mut book, &call(Phase::Compensation, "cancel", "c", "a"), "{}");
    assert_eq!(id_of(&book, "b"), Answer::Done(r#"{"order_id":9007199254740994}"#.to_owned()));
}

#[test]
fn looking_takes_nothing_and_giving_makes_a_booking() {
    let opening = Opening { balances: BTreeMap::new(), default_balance: 50 };
    let mut book = Book::open(offers("accounts").unwrap(), opening);
    let look = |key| call(Phase::Action, "check", key, key);
    assert_eq!(take(&mut book, &look("a"), r#"{"from": "x", "to": "y", "cents": 50}"#), ("effect", "done"));
    assert_eq!(
        take(&mut book, &look("b"), r#"{"from": "x", "to": "y", "cents": 51}"#),
        ("refused", "refused")
    );
    let credit = call(Phase::Action, "credit", "c", "c");
    let (_, answer) = book.rule(&credit, r#"{"account": "y", "cents": 50}"#);
    take(&mut book, &credit, r#"{"account": "y", "cents": 50}"#);
    assert_eq!((book.balance("x"), book.balance("y")), (50, 100));
    assert!(matches!(answer, Answer::Done(ref output) if output.contains("\"booking\":")), "{answer:?}");
}
