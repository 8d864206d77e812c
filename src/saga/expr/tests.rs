//! What expressions and templates give, and what they refuse.

use serde_json::json;

use super::*;

fn eval_with(source: &str, scope: &Scope<'_>) -> Result<Value, EvalError> {
    Expr::compile(source).unwrap_or_else(|error| panic!("{error}")).evaluate(scope)
}

fn with_input<T>(input: &Value, then: impl FnOnce(&Scope<'_>) -> T) -> T {
    let labels = BTreeMap::from([("region".to_owned(), "kr".to_owned())]);
    let steps = |name: &str| match name {
        "create-order" => json!({ "order_id": 9_007_199_254_740_993_i64 }),
        "deduct" => json!([{ "left": 3 }, null]),
        _ => Value::Null,
    };
    let failure = Failure { step: "pay".into(), code: "NO_FUNDS".into(), message: "too poor".into() };
    let item = json!({ "item_id": 7, "amount": 2 });
    then(&Scope {
        saga_id: "s-1",
        labels: &labels,
        input,
        steps: &steps,
        output_at: &|_, _| None,
        item: Some((&item, 4)),
        failure: Some(&failure),
    })
}

fn eval(source: &str, input: &Value) -> Result<Value, EvalError> {
    with_input(input, |scope| eval_with(source, scope))
}

#[test]
fn values_keep_their_types() {
    let input = json!({
        "user": { "id": 9_007_199_254_740_993_i64 }, "big": u64::MAX, "price": 1.0, "total": 12,
        "items": [{ "id": 1, "n": 2 }, { "id": 2, "n": 3 }], "none": null, "name": "kim",
    });
    let table = [
        ("input.user.id", json!(9_007_199_254_740_993_i64)),
        ("input['user']['id']", json!(9_007_199_254_740_993_i64)),
        ("input.user.id + 0", json!(9_007_199_254_740_993_i64)),
        ("input.big", json!(u64::MAX)),
        ("[input.big][0]", json!(u64::MAX)),
        ("input.price", json!(1.0)),
        ("input.price + 1.0", json!(2.0)),
        ("input.total * 3 - 1", json!(35)),
        ("input.total > 10 && size(input.items) == 2", json!(true)),
        ("input.items.map(i, i.id * i.n)", json!([2, 6])),
        ("input.items.filter(i, i.n > 2)[0]", json!({ "id": 2, "n": 3 })),
        ("input.items.exists(i, i.id == 2) ? 'yes' : 'no'", json!("yes")),
        ("input", input.clone()),
        ("{'a': input.name, 'b': [1, true, null]}", json!({ "a": "kim", "b": [1, true, null] })),
        ("string(input.user.id) + '/' + input.name", json!("9007199254740993/kim")),
        ("steps['create-order'].order_id", json!(9_007_199_254_740_993_i64)),
        ("steps['create-order']", json!({ "order_id": 9_007_199_254_740_993_i64 })),
        ("[steps['create-order'].order_id]", json!([9_007_199_254_740_993_i64])),
        ("steps.deduct[0].left", json!(3)),
        ("item.amount * 2", json!(4)),
        ("item", json!({ "item_id": 7, "amount": 2 })),
        ("index", json!(4)),
        ("index + 1", json!(5)),
        ("failure.message", json!("too poor")),
        ("failure.code == 'NO_FUNDS'", json!(true)),
        ("saga.id", json!("s-1")),
        ("saga.labels.region", json!("kr")),
        ("saga.id + '@' + saga.labels['region']", json!("s-1@kr")),
        ("duration('90s')", json!("90s")),
        ("duration('1500ms')", json!("1.5s")),
        ("timestamp('2024-01-02T03:04:05Z')", json!("2024-01-02T03:04:05+00:00")),
        ("type(input.total) == int", json!(true)),
        ("has(input.user.id) && !has(input.user.age)", json!(true)),
        ("input.name.startsWith('k')", json!(true)),
        ("input.name.matches('^k.m$')", json!(true)),
    ];
    for (source, expected) in table {
        let value = eval(source, &input).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(value, expected, "{source}");
        assert_eq!(value.to_string(), expected.to_string(), "{source}");
    }
}

#[test]
fn a_missing_key_or_a_selection_below_null_makes_it_null() {
    let input = json!({ "none": null, "user": {} });
    for source in [
        "input.nothing",
        "input.nothing.at.all",
        "input.none.name",
        "input.none.name + 'x'",
        "input['none']['name'] == 1",
        "input.user.name + '!'",
        "steps['skipped'].order_id",
        "steps['skipped'].order_id + 1",
        "steps.deduct[1].left",
        "saga.labels.missing",
    ] {
        assert_eq!(eval(source, &input), Ok(Value::Null), "{source}");
    }
}

#[test]
fn other_failures_name_the_expression() {
    let input = json!({ "name": "kim", "n": 1, "items": [1], "max": i64::MAX });
    for (source, part) in [
        ("input.name + 1", "nsupported"),
        ("input.n.x", "selected from a number"),
        ("input.n.x + 1", "overload"),
        ("input.items[3]", "out of bounds"),
        ("input.n / 0", "zero"),
        ("input.max + 1", "verflow"),
        ("1.0 / 0.0", "JSON"),
        ("b'abc'", "JSON"),
        ("int(input.name)", "int"),
    ] {
        let error = eval(source, &input).unwrap_err();
        assert_eq!(error.expression, source);
        assert!(error.problem.contains(part), "{source}: {}", error.problem);
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_when_compiled() {
    for (source, part) in [
        ("", "empty"),
        ("  ", "empty"),
        ("input.", "column"),
        ("input.x +", "column"),
        ("inptu.x", "no variable `inptu`"),
        ("steps", "name of a step"),
        ("steps[input.x]", "name of a step"),
        ("saga.status", "no `status`"),
        ("failure.reason", "no `reason`"),
        ("now()", "no function `now`"),
        ("input.x.toUpper()", "no function `toUpper`"),
        ("Point{x: 1}", "message"),
        ("[1].map(a, [1].map(b, [1].map(c, c)))", "loops"),
        ("google.protobuf.Timestamp", "no variable"),
        ("input.x.matches(input.pattern)", "stands in the expression"),
        ("input.x.matches('(')", "regex"),
        ("input.x.all(i, i.matches('a'))", "inside a loop"),
    ] {
        let error = Expr::compile(source).unwrap_err();
        assert!(error.problem.contains(part), "{source}: {}", error.problem);
    }
    let long = format!("'{}'", "x".repeat(EXPRESSION_MAX_BYTES));
    assert!(Expr::compile(&long).unwrap_err().problem.contains("bytes"));
}

#[test]
fn deep_source_is_refused_without_touching_the_end_of_the_stack() {
    let nested = |open: &str, middle: &str, close: &str, n: usize| {
        format!("{}{middle}{}", open.repeat(n), close.repeat(n))
    };
    for source in [
        nested("(", "1", ")", 2000),
        nested("[", "1", "]", 2000),
        nested("{1:", "1", "}", 800),
        nested("-", "1", "", 4000),
        nested("!", "true", "", 4001),
        nested("size(", "input", ")", 600),
        nested("input.x + ", "1", "", 400),
        nested("true ? 1 : ", "1", "", 300),
        nested("", "input", ".x", 2000),
        nested("", "input", "[0]", 1300),
        nested("", "input", ".size()", 500),
        nested("1 - (", "1", ")", 700),
        "[".repeat(4000),
        "(".repeat(4000),
    ] {
        // A parser may take parentheses and double negations apart without nesting; what matters
        // is that it answers.
        let _ = Expr::compile(&source);
    }
    for source in
        [nested("[", "1", "]", 100), nested("input.x + ", "1", "", 100), nested("", "input", ".x", 100)]
    {
        assert!(Expr::compile(&source).is_err(), "{source}");
    }
}

#[test]
fn the_deepest_tree_allowed_is_evaluated_on_a_small_stack() {
    const STACK_BYTES: usize = 512 * 1024;
    let deep = |open: &str, middle: &str, close: &str| {
        (1..=EXPRESSION_DEPTH_MAX as usize)
            .rev()
            .map(|n| format!("{}{middle}{}", open.repeat(n), close.repeat(n)))
            .find(|source| Expr::compile(source).is_ok())
            .expect("some depth is allowed")
    };
    let sources = [
        deep("[", "1", "]"),
        deep("(1 + ", "1", ")"),
        deep("size(string(", "1", "))"),
        deep("{'a': ", "1", "}"),
        deep("(true ? ", "1", " : 2)"),
        deep("[1].map(a, [2].map(b, ", "[a, b]", "))"),
        deep("(input.x == 1 && ", "true", ")"),
    ];
    let small = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = move || {
        for source in sources {
            eval(&source, &json!({ "x": 1 })).unwrap_or_else(|error| panic!("{error}"));
        }
    };
    small.spawn(run).expect("a thread starts").join().expect("the stack is large enough");
}

#[test]
fn loops_over_long_lists_are_refused_before_they_run() {
    let numbers = |n: usize| json!({ "a": (0..n).collect::<Vec<_>>(), "b": (0..n).collect::<Vec<_>>() });
    assert_eq!(eval("size(input.a.map(x, x + 1))", &numbers(10_000)), Ok(json!(10_000)));
    assert_eq!(eval("size(input.a.map(x, input.b.map(y, x + y)))", &numbers(100)), Ok(json!(100)));
    for source in [
        "input.a.map(x, input.b.map(y, x + y))",
        "input.a.filter(x, x in input.b)",
        "input.a.map(x, input.b)",
    ] {
        let problem = eval(source, &numbers(3_000)).unwrap_err().problem;
        assert!(problem.contains("too long"), "{source}: {problem}");
    }
    let doubled = format!("size({})", vec!["input.a"; 40].join(" + "));
    assert_eq!(eval(&doubled, &numbers(10)), Ok(json!(400)));
    assert!(eval(&doubled, &numbers(10_000)).unwrap_err().problem.contains("too long"));
    assert!(eval("size(input.a)", &numbers(10_001)).unwrap_err().problem.contains("10001"));
    assert!(eval("input.a", &numbers(10_001)).unwrap_err().problem.contains("10001"));
}

#[test]
fn loops_inside_an_entrys_own_list_are_counted_by_what_is_there() {
    let orders: Vec<Value> = (0..1_000).map(|n| json!({ "items": [n, n, n] })).collect();
    let input = json!({ "orders": orders });
    let sums = eval("size(input.orders.map(o, o.items.map(i, i * 2)))", &input);
    assert_eq!(sums, Ok(json!(1_000)));
}

#[test]
fn only_the_steps_it_names_are_asked_for() {
    let asked = std::cell::RefCell::new(Vec::new());
    let steps = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        json!({ "id": 1 })
    };
    let labels = BTreeMap::new();
    let scope = Scope {
        saga_id: "s",
        labels: &labels,
        input: &json!({}),
        steps: &steps,
        output_at: &|_, _| None,
        item: None,
        failure: None,
    };
    assert_eq!(eval_with("steps['a'].id + steps.b.id", &scope), Ok(json!(2)));
    assert_eq!(*asked.borrow(), ["a", "b"]);
}

#[test]
fn what_is_read_is_known_and_loop_variables_are_not_part_of_it() {
    let reads = |source: &str| Expr::compile(source).unwrap().reads().clone();
    assert_eq!(reads("[1].map(item, item + 1)"), Reads::default());
    assert_eq!(
        reads("steps['b'].x + steps.a.y[index] + item.z + saga.id + failure.code + string(input)"),
        Reads {
            input: true,
            item: true,
            index: true,
            failure: true,
            saga: true,
            steps: vec!["a".into(), "b".into()]
        }
    );
    assert_eq!(reads("input.items.map(steps, steps.x)").steps, Vec::<String>::new());
}

#[test]
fn without_a_failure_or_an_item_they_are_null() {
    let labels = BTreeMap::new();
    let none = |_: &str| Value::Null;
    let scope = Scope {
        saga_id: "s",
        labels: &labels,
        input: &json!({}),
        steps: &none,
        output_at: &|_, _| None,
        item: None,
        failure: None,
    };
    for source in ["failure", "failure.message", "failure.message + '!'", "item.x", "item.x + 1", "index"] {
        assert_eq!(eval_with(source, &scope), Ok(Value::Null), "{source}");
    }
}

mod templates {
    use super::*;

    fn fill(template: &Value, input: &Value) -> Value {
        with_input(input, |scope| Template::compile(template).unwrap().evaluate(scope).unwrap())
    }

    #[test]
    fn one_whole_expression_keeps_its_type_and_text_takes_text() {
        let input = json!({
            "n": 9_007_199_254_740_993_i64, "f": 2.0, "s": "kim", "l": [1, "a"], "none": null, "yes": true,
        });
        let table = [
            (json!("${input.n}"), json!(9_007_199_254_740_993_i64)),
            (json!("no ${input.n}"), json!("no 9007199254740993")),
            (json!("${input.f}/${input.s}"), json!("2.0/kim")),
            (json!("${input.l} ${input.yes} ${input.none}"), json!("[1,\"a\"] true null")),
            (
                json!({ "a": ["${input.l}", 3, null], "b": { "c": "x" } }),
                json!({ "a": [[1, "a"], 3, null], "b": { "c": "x" } }),
            ),
            (json!(" ${input.n}"), json!(" 9007199254740993")),
            (json!("$${input.n}"), json!("${input.n}")),
            (json!("$$${input.n}"), json!("$${input.n}")),
            (json!("5$ and $ {x}"), json!("5$ and $ {x}")),
            (json!("${ input.s }"), json!("kim")),
            (json!("${{'a': {'b': input.s}}}"), json!({ "a": { "b": "kim" } })),
            (json!("${'}' + input.s + \"}\"}"), json!("}kim}")),
            (json!("${'it\\'s }' + input.s}!"), json!("it's }kim!")),
            (json!("${r'\\' + input.s}"), json!("\\kim")),
            (json!("${'''a'}b''' + input.s}"), json!("a'}bkim")),
            (json!(""), json!("")),
            (json!(7), json!(7)),
        ];
        for (template, expected) in table {
            assert_eq!(fill(&template, &input), expected, "{template}");
        }
    }

    #[test]
    fn what_is_not_closed_or_stands_in_a_key_is_refused() {
        for template in [json!("${input.n"), json!("a ${'}'"), json!("${}"), json!({ "${input.n}": 1 })] {
            assert!(Template::compile(&template).is_err(), "{template}");
        }
    }

    #[test]
    fn all_expressions_are_listed_in_order() {
        let template =
            Template::compile(&json!({ "a": "${input.x}", "b": ["${input.y}-${input.z}"] })).unwrap();
        let sources: Vec<_> = template.expressions().iter().map(|expr| expr.source()).collect();
        assert_eq!(sources, ["input.x", "input.y", "input.z"]);
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_compiler_panic(text in "\\PC{0,200}") {
            let _ = Expr::compile(&text);
            let _ = Template::text(&text);
        }

        #[test]
        fn no_heap_of_tokens_makes_the_compiler_or_the_evaluation_panic(tokens in prop::collection::vec(
            prop::sample::select(vec![
                "input", ".", "x", "[", "]", "(", ")", "{", "}", "'a'", "1", "2u", "1.5", "+", "-", "*", "/", "%",
                "?", ":", "&&", "||", "!", "==", "<", "in", "has(", ".map(", "i", ",", "size(", "null", "true",
                "b'x'", "\"", "\\", "r'", "//", "\n", "steps['a']", "0x", "9999999999999999999", ".all(", "`a`",
            ]), 0..40,
        )) {
            if let Ok(expr) = Expr::compile(&tokens.concat()) {
                let _ = with_input(&json!({ "x": [1, { "i": "t" }] }), |scope| expr.evaluate(scope));
            }
        }
    }
}

#[test]
fn the_output_of_the_instance_at_hand_is_what_the_whole_list_gives() {
    let list = json!([{ "id": 7, "of": { "x": [1] } }, null, 3, { "id": null }]);
    let steps = |_: &str| list.clone();
    let entry = |_: &str, index: u64| list.get(usize::try_from(index).unwrap()).cloned();
    let none = |_: &str, _: u64| None;
    let (labels, item) = (BTreeMap::new(), Value::Null);
    let sources = [
        "steps.take[index]",
        "steps.take[index].id",
        "steps['take'][index]['of'].x",
        "steps.take[index].none.at.all",
        "has(steps.take[index].id)",
        "steps.take[index].of.x[index]",
        "steps.take[index + 0].id",
    ];
    for (source, index) in sources.iter().flat_map(|source| (0..6).map(move |index| (source, index))) {
        let scope = |output_at| Scope {
            saga_id: "s",
            labels: &labels,
            input: &Value::Null,
            steps: &steps,
            output_at,
            item: Some((&item, index)),
            failure: None,
        };
        assert_eq!(eval_with(source, &scope(&entry)), eval_with(source, &scope(&none)), "{source} {index}");
    }
    let expression = Expr::compile("steps.take[index].id").unwrap();
    assert_eq!(
        (expression.reads().steps.as_slice(), expression.reads().index),
        (&["take".to_owned()][..], true)
    );
}
