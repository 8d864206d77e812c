//! The sagas that are measured, and how their participants answer.

use std::fmt::Write as _;

use serde_json::json;

/// A kind of saga that comes in all sizes.
pub struct Shape {
    /// For the report.
    pub name: &'static str,
    /// Its definition for so many instances.
    pub definition: fn(usize) -> String,
    /// Its input for so many instances.
    pub input: fn(usize) -> String,
    /// How calls are answered.
    pub answers: Answers,
    /// The largest size there is.
    pub most: usize,
    /// Measured at these sizes only, when there are any.
    pub fixed: &'static [usize],
    /// Replies decided one after the other before what is owed is looked at.
    pub batch: usize,
}

/// How calls are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Done.
    Does,
    /// Done, but the last of the actions is refused.
    RefusesTheLast,
    /// The first attempt of each has no answer, the second is done.
    LosesTheFirst,
}

/// Steps in one definition, at most.
const STEPS_MAX: usize = 2_000;

const FAN_OUT: Shape = Shape {
    name: "for_each, cap 16",
    definition: |_| each(16),
    input: items,
    answers: Answers::Does,
    most: 10_000,
    fixed: &[],
    batch: 1,
};

const WIDE: Shape = Shape {
    name: "steps side by side",
    definition: |n| steps(n, |_| String::new()),
    input: |_| "{}".to_owned(),
    most: STEPS_MAX,
    ..FAN_OUT
};

const CHAIN: Shape = Shape {
    name: "chain of steps",
    definition: |n| steps(n, |at| at.checked_sub(1).map_or(String::new(), |before| format!("s{before}"))),
    ..WIDE
};

/// All of them.
pub const SHAPES: &[Shape] = &[
    Shape { name: "three steps, done", definition: three, input: three_input, fixed: &[3], ..FAN_OUT },
    Shape {
        name: "three steps, the last refused",
        definition: three,
        input: three_input,
        answers: Answers::RefusesTheLast,
        fixed: &[3],
        ..FAN_OUT
    },
    FAN_OUT,
    Shape { name: "for_each, cap 16, replies by sixteens", batch: 16, ..FAN_OUT },
    Shape { name: "for_each, cap 1000", definition: |_| each(1000), ..FAN_OUT },
    Shape { name: "for_each, the last refused", answers: Answers::RefusesTheLast, ..FAN_OUT },
    Shape {
        name: "for_each, cap 1000, each lost once",
        definition: |_| each(1000),
        answers: Answers::LosesTheFirst,
        ..FAN_OUT
    },
    Shape {
        name: "for_each, undone by its own output",
        definition: |_| {
            each(16).replace("shop.back", "shop.back, input: { at: \"${steps.take[index].at}\" }")
        },
        answers: Answers::RefusesTheLast,
        ..FAN_OUT
    },
    Shape { name: "for_each, input of 1 MiB", input: large_items, ..FAN_OUT },
    CHAIN,
    Shape { name: "chain of steps, the last refused", answers: Answers::RefusesTheLast, ..CHAIN },
    Shape { name: "chain of retriable steps", definition: retriable_chain, ..CHAIN },
    WIDE,
    Shape { name: "steps side by side, the last refused", answers: Answers::RefusesTheLast, ..WIDE },
    Shape { name: "steps side by side, each lost once", answers: Answers::LosesTheFirst, ..WIDE },
];

fn each(cap: usize) -> String {
    format!(
        "saga: core
steps:
  - name: take
    for_each: ${{input.items}}
    concurrency: {cap}
    action: {{ call: shop.take, input: {{ it: \"${{item}}\" }}, retry: {{ attempts: 4 }} }}
    compensation: {{ call: shop.back }}
"
    )
}

fn steps(count: usize, after: impl Fn(usize) -> String) -> String {
    let mut text = "saga: core\nsteps:\n".to_owned();
    for at in 0..count {
        let after = after(at);
        let _ = writeln!(
            text,
            "  - {{ name: s{at}, after: [{after}], action: {{ call: shop.do, retry: {{ attempts: 4 }} }}, compensation: {{ call: shop.undo }} }}"
        );
    }
    text
}

fn retriable_chain(count: usize) -> String {
    let mut text = "saga: core\nsteps:\n".to_owned();
    for at in 0..count {
        let after = at.checked_sub(1).map_or(String::new(), |before| format!("s{before}"));
        let _ = writeln!(
            text,
            "  - {{ name: s{at}, kind: retriable, after: [{after}], action: {{ call: shop.do }} }}"
        );
    }
    text
}

fn three(_: usize) -> String {
    "saga: core
steps:
  - { name: stock, action: { call: stock.take, input: { sku: \"${input.sku}\" } }, compensation: { call: stock.back } }
  - { name: points, after: [stock], action: { call: points.use }, compensation: { call: points.back } }
  - { name: pay, kind: pivot, after: [points], action: { call: pay.charge, input: { at: \"${steps.stock.at}\" } } }
"
    .to_owned()
}

fn three_input(_: usize) -> String {
    json!({ "sku": "A-1" }).to_string()
}

fn items(count: usize) -> String {
    json!({ "items": (0..count).collect::<Vec<_>>() }).to_string()
}

fn large_items(count: usize) -> String {
    let each = "x".repeat((1024 * 1024 - 64) / count - 3);
    json!({ "items": vec![each; count] }).to_string()
}
