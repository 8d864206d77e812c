//! Evaluating what definitions say about data.

use std::collections::BTreeMap;
use std::hint::black_box;

use divan::Bencher;
use sagad::saga::expr::{Expr, Scope};
use serde_json::{Value, json};

/// A path is walked without CEL; the others are bound and run.
const SOURCES: [&str; 4] =
    ["input.user_id", "steps['create-order'].order_id", "input.total > 5", "input.items.map(i, i.item_id)"];

fn input(items: usize) -> Value {
    let items: Vec<Value> = (0..items).map(|n| json!({ "item_id": n, "amount": 1 })).collect();
    json!({ "user_id": 7, "items": items, "total": 10 })
}

fn evaluated(bencher: Bencher<'_, '_>, source: &str, input: &Value) {
    let expr = Expr::compile(source).expect("a sound expression");
    let labels = BTreeMap::new();
    let steps = |_: &str| json!({ "order_id": "o-1" });
    let scope = Scope {
        saga_id: "s-1",
        labels: &labels,
        input,
        steps: &steps,
        output_at: &|_, _| None,
        item: None,
        failure: None,
    };
    bencher.bench_local(|| expr.evaluate(black_box(&scope)).expect("a value"));
}

#[divan::bench(args = SOURCES)]
fn evaluate(bencher: Bencher<'_, '_>, source: &str) {
    evaluated(bencher, source, &input(2));
}

/// What binding a long list costs, of which each item is looked at.
#[divan::bench(args = [10, 100, 1_000])]
fn bind_items(bencher: Bencher<'_, '_>, items: usize) {
    evaluated(bencher, "input.items.map(i, i.item_id)", &input(items));
}

#[divan::bench]
fn compile_an_expression() -> Expr {
    Expr::compile(black_box("input.items.map(i, 'stock/' + string(i.item_id))")).expect("a sound expression")
}
