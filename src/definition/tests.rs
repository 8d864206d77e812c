//! Every mistake a definition can have, with its place.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::saga::definition::{RetryPolicy, Trigger};
use crate::saga::ids::StepIx;
use crate::saga::words::StepKind;

const HEAD: &str = "saga: s\nsteps:\n";
const A: &str = "  - name: a\n    action: { call: p.a }\n    compensation: none\n";
const B: &str = "  - name: b\n    action: { call: p.b }\n    compensation: none\n";
const PAY: &str = "  - name: pay\n    kind: pivot\n    action: { call: p.pay }\n";
const SIDE: &str = "  - name: side\n    kind: retriable\n    action: { call: p.side }\n";

fn compiled(source: &str) -> Compiled {
    compile(source, None, Version(3)).unwrap_or_else(|problems| panic!("{}", render(&problems, source, "it")))
}

fn problems(source: &str) -> Vec<String> {
    match compile(source, None, Version(1)) {
        Ok(_) => panic!("nothing was found in\n{source}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Each problem starts with what is expected: place and message.
fn check(source: &str, expected: &[&str]) {
    let found = problems(source);
    let as_expected = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(as_expected, "in\n{source}\nexpected {expected:#?}\nfound {found:#?}");
}

/// Step `a` with `more` in its action.
fn action_with(more: &str) -> String {
    format!("{HEAD}  - name: a\n    action: {{ call: p.a, {more} }}\n    compensation: none\n")
}

#[test]
fn what_is_not_a_definition_file_is_refused() {
    check("", &["1:1: unexpected end of input"]);
    check("saga: [", &["1:7: a text is expected here"]);
    check("- a", &["1:1: a map is expected here"]);
    check("saga: s\nsteps: 3\n", &["2:8: a list is expected here"]);
    check("saga: s\nsteps: []\n", &["2:8: a saga has at least one step"]);
    check(&format!("{HEAD}{A}---\n{HEAD}{A}"), &["6:1: a file holds one definition"]);
    check(&format!("steps:\n{A}"), &["1:1: the field `saga` is missing"]);
    check(&format!("{HEAD}  - name: a\n    compensation: none\n"), &["4:5: the field `action` is missing"]);
    check(&format!("{HEAD}{A}saga: t\n"), &["6:1: duplicate key `saga`"]);
    check(&action_with("input: { x: 1, x: 2 }"), &["4:41: duplicate key `x`"]);
    check(&format!("{HEAD}{A}output: {{ x: .inf }}\n"), &["6:14: non-finite float"]);
    check(
        &format!("{HEAD}{A}output: {{ x: 99999999999999999999 }}\n"),
        &["6:14: the number is outside 64 bits"],
    );
    check(&format!("{HEAD}{A}output: !!foo x\n"), &["6:15: unsupported tag"]);
    check(&format!("{}#{}", HEAD, " ".repeat(SOURCE_MAX_BYTES)), &["1:1: the definition has 1048592 bytes"]);
    let many: String = (0..=STEPS_MAX).map(|n| A.replace("name: a", &format!("name: a{n}"))).collect();
    check(&format!("{HEAD}{many}"), &["3:3: there are more than 2000 steps"]);
}

#[test]
fn unknown_fields_and_words_come_with_a_suggestion() {
    check(&format!("sage: x\n{HEAD}{A}"), &["1:1: there is no field `sage` here; did you mean `saga`?"]);
    check(
        &format!("{HEAD}{A}    zzz: 3\n"),
        &["6:5: there is no field `zzz` here; the fields are name, kind,"],
    );
    check(
        &format!(
            "{HEAD}  - name: a\n    action: {{ call: p.a }}\n    compensation: {{ call: p.b, inptu: 3 }}\n"
        ),
        &["5:32: there is no field `inptu` here; did you mean `input`?"],
    );
    check(
        &format!("{HEAD}{}", PAY.replace("pivot", "pivott")),
        &["4:11: `pivott` is not one of compensatable, pivot, retriable; did you mean `pivot`?"],
    );
    check(
        &format!("{HEAD}{A}").replace("none", "nothing"),
        &["5:19: a compensation is a call or the word `none`"],
    );
    check(&format!("{HEAD}{A}    compensate_on_refusal: yes\n"), &["6:28: `true` or `false` is expected"]);
    check(
        &format!("{HEAD}{A}    for_each: ${{input.x}}\n    concurrency: -1\n"),
        &["7:18: a whole number from 0"],
    );
    check(&action_with("retry: { factor: x }"), &["4:43: a number is expected here"]);
}

#[test]
fn names_must_fit_their_form_and_be_unique() {
    check(&format!("saga: \"s s\"\nsteps:\n{A}"), &["1:7: definition \"s s\" is not valid"]);
    check(&format!("{HEAD}{}", A.replace("name: a", "name: A")), &["3:11: step \"A\" is not valid"]);
    check(&format!("{HEAD}{A}{A}"), &["6:11: the step `a` is already there, in line 3"]);
    check(&format!("{HEAD}{}", A.replace("p.a", "pa")), &["4:21: `pa` names no action"]);
    check(&format!("{HEAD}{}", A.replace("p.a", ".a")), &["4:21: participant \"\" is not valid"]);
    check(&format!("{HEAD}{}", A.replace("p.a", "p.")), &["4:21: action \"\" is not valid"]);
}

#[test]
fn after_names_steps_that_are_there_without_a_circle() {
    check(
        &format!("{HEAD}{A}{B}    after: [aa, a, a]\n"),
        &["9:13: there is no step `aa`", "9:20: `a` stands here twice"],
    );
    check(
        &format!("{HEAD}{A}    after: [b]\n{B}    after: [a]\n"),
        &["6:13: the steps wait for one another in a circle: a → b → a"],
    );
    check(
        &format!("{HEAD}{A}    after: [a]\n"),
        &["6:13: the steps wait for one another in a circle: a → a"],
    );
}

#[test]
fn kinds_keep_their_order() {
    check(
        &format!("{HEAD}{PAY}{}", PAY.replace("name: pay", "name: pay2")),
        &["7:11: a saga has at most one pivot, and `pay` is one already"],
    );
    check(&format!("{HEAD}{PAY}{A}"), &["6:11: `a` is compensatable and waits for the pivot `pay`"]);
    check(
        &format!("{HEAD}{SIDE}{A}{PAY}    after: [side]\n"),
        &[
            "6:11: `a` waits for the retriable step `side`, which starts only after the commit",
            "12:13: `pay` waits for the retriable step `side`",
        ],
    );
}

#[test]
fn compensations_are_where_they_belong() {
    check(
        &format!("{HEAD}  - name: a\n    action: {{ call: p.a }}\n"),
        &["3:11: the step `a` has no compensation; name the call that undoes it"],
    );
    check(
        &format!("{HEAD}  - name: a\n    action: {{ call: p.a }}\n    compensation:\n"),
        &["3:11: the step `a` has no compensation"],
    );
    check(
        &format!("{HEAD}{PAY}    compensation: {{ call: p.x }}\n"),
        &["6:19: a pivot is never compensated"],
    );
    check(&format!("{HEAD}{SIDE}    compensation: none\n"), &["6:19: a retriable step is never compensated"]);
}

#[test]
fn figures_must_make_sense() {
    check(&action_with("timeout: 0s"), &["4:35: the span must be longer than zero"]);
    check(&action_with("timeout: 5"), &["4:35: `5` is not a span of time: time unit needed"]);
    check(&action_with("timeout: 100us"), &["4:35: the span is not a whole number of milliseconds"]);
    check(&action_with("timeout: 100years"), &["4:35: the span is longer than ten years"]);
    check(
        &action_with("retry: { factor: 0.5, jitter: 2, initial: 1m, max: 1s }"),
        &[
            "4:33: the first delay (1m) is longer than the longest (1s)",
            "4:43: `factor` is a number from 1 to 1000",
            "4:56: `jitter` is a number from 0 to 1",
        ],
    );
    check(
        &action_with("retry: { initial: 1m }"),
        &["4:33: the first delay (1m) is longer than the longest (10s)"],
    );
    check(
        &format!("{HEAD}{A}    for_each: ${{input.x}}\n    concurrency: 0\n"),
        &["7:18: `concurrency` is a number from 1"],
    );
    check(&format!("deadline: 0s\n{HEAD}{A}"), &["1:11: the span must be longer than zero"]);
    check(
        &format!("{HEAD}{A}    pending: {{ interval: 2h, max: 1h }}\n"),
        &["6:26: the interval is longer than the longest wait"],
    );
    check(&format!("input_schema: {{ type: strnig }}\n{HEAD}{A}"), &["1:15: not a JSON Schema: /type"]);
}

#[test]
fn expressions_must_compile() {
    check(
        &format!("{HEAD}{A}    when: input.x\n    for_each: a ${{input.x}}\n"),
        &["6:11: `input.x` is not an expression", "7:15: `a ${input.x}` is not an expression"],
    );
    check(
        &action_with("input: { x: \"${inptu.x}\", y: [\"${input.\"], \"${k}\": 1 }"),
        &[
            "4:38: in `inptu.x`: there is no variable `inptu`",
            "4:56: in `${input.`: `${` has no closing `}`",
            "4:69: in `${k}`: a key cannot hold an expression",
        ],
    );
}

#[test]
fn expressions_read_only_what_is_there() {
    check(
        &format!("{HEAD}{A}{B}    after: []\n    when: ${{steps.a.x}}\n    for_each: ${{steps['zz']}}\n"),
        &[
            "10:11: `b` reads `a` and does not depend on it; add `a` to its `after`",
            "11:15: there is no step `zz`",
        ],
    );
    check(&action_with("input: \"${steps.a.x}\""), &["4:33: `a` reads its own output"]);
    check(
        &action_with("input: \"${item.x + index}\""),
        &["4:33: there is no `item` here", "4:33: there is no `index` here"],
    );
    check(
        &format!("{HEAD}{A}    for_each: ${{item}}\n    when: ${{item.x}}\n"),
        &["6:15: there is no `item` here", "7:11: there is no `item` here"],
    );
    check(
        &format!("locks: [\"${{steps.a.x}}\", \"${{item}}\"]\n{HEAD}{A}"),
        &["1:9: locks are taken before any step, `a` included", "1:25: there is no `item` here"],
    );
    check(
        &format!("{HEAD}{A}    probe: {{ call: p.q, input: \"${{steps.a}}\" }}\n"),
        &["6:32: `a` reads its own"],
    );
    check(
        &format!(
            "output: \"${{steps.side.x}}\"\nevents: [{{ on: committed, topic: t, data: \"${{steps.side}}\" }}]\n{HEAD}{A}{SIDE}"
        ),
        &["1:9: `side` is retriable: output and events cannot read it", "2:43: `side` is retriable"],
    );
}

#[test]
fn events_name_what_happens_and_where_it_goes() {
    check(
        &format!(
            "events: [{{ on: commited, topic: t }}, {{ on: \"step:x\", topic: \"\" }}, {{ on: later, topic: \"${{input.x}}\" }}]\n{HEAD}{A}"
        ),
        &[
            "1:16: nothing happens `on: commited`; did you mean `committed`?",
            "1:44: there is no step `x`",
            "1:61: a topic is a fixed text",
            "1:73: nothing happens `on: later`; it is one of started,",
            "1:87: a topic is a fixed text",
        ],
    );
    let made = compiled(&format!("events: [{{ on: \"step:b\", topic: t }}]\n{HEAD}{A}{B}"));
    assert_eq!(made.definition.events[0].on, Trigger::Step(StepIx(1)));
}

#[test]
fn nesting_and_anchors_cannot_exhaust_anything() {
    for n in [33, 200, 100_000] {
        let lists = format!("{HEAD}{A}output: {}{}\n", "[".repeat(n), "]".repeat(n));
        assert_eq!(problems(&lists).len(), 1);
        let maps = format!("{HEAD}{A}output: {}1{}\n", "{a: ".repeat(n), "}".repeat(n));
        assert_eq!(problems(&maps).len(), 1);
    }
    let mut bomb = format!("{HEAD}{A}output:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (name, of) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e")] {
        let line = format!("  {name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(","));
        bomb.push_str(&line);
    }
    check(&bomb, &["11:10: its anchors repeat to more than 20000 values"]);
    let anchored = format!("{HEAD}{A}output: {{ a: &x {{ id: \"${{input.id}}\" }}, b: *x }}\n");
    assert!(compiled(&anchored).definition.output.is_some());
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let own = format!(
        "{HEAD}  - name: a\n    action: {{ call: p.a }}\n    compensation: {{ call: p.b, input: \"${{steps.a.x}}\" }}\n"
    );
    assert!(
        compiled(&own).warnings[0].starts_with("5:39: the compensation reads the output of its own step `a`")
    );
    for (source, place) in [
        (format!("{HEAD}{A}    concurrency: 2\n"), "6:18: `concurrency`"),
        (format!("lock_wait: 3s\n{HEAD}{A}"), "1:12: `lock_wait`"),
        (format!("{HEAD}{A}    compensate_on_refusal: true\n"), "6:28: `compensate_on_refusal`"),
        (format!("{HEAD}{SIDE}    compensate_on_refusal: true\n"), "6:28: `compensate_on_refusal`"),
    ] {
        let warnings = compiled(&source).warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(place), "{warnings:?}");
    }
    let failure = action_with("input: \"${failure.code}\"");
    assert!(compiled(&failure).warnings[0].starts_with("4:33: `failure` is always null here"));
}

#[test]
fn retries_are_merged_field_by_field() {
    let source = "saga: s
defaults: { timeout: 2s, retry: { initial: 50ms, max: 5s, attempts: 3, elapsed: 20s } }
steps:
  - name: a
    action: { call: p.a, retry: { attempts: 4 } }
    compensation: { call: p.undo.all, timeout: 7s, retry: { elapsed: 0 } }
  - name: pay
    kind: pivot
    action: { call: p.pay }
";
    let made = compiled(source);
    let [a, pay] = made.definition.steps.as_slice() else { panic!("two steps") };
    let policy = |attempts, elapsed| RetryPolicy {
        initial: Duration::from_millis(50),
        factor: 2.0,
        max: Duration::from_secs(5),
        jitter: 0.2,
        attempts,
        elapsed,
    };
    let undo = a.compensation.as_ref().unwrap();
    assert_eq!(a.action.retry, policy(4, Duration::from_secs(20)));
    assert_eq!(undo.retry, policy(0, Duration::ZERO));
    assert_eq!(pay.action.retry, policy(0, Duration::from_hours(24)));
    assert_eq!((a.action.timeout, undo.timeout), (Duration::from_secs(2), Duration::from_secs(7)));
    assert_eq!((undo.participant.as_str(), undo.action.as_str()), ("p", "undo.all"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let made = compiled(&format!("{HEAD}{A}{B}{PAY}{SIDE}{}", SIDE.replace("name: side", "name: side2")));
    let definition = &made.definition;
    let a = &definition.steps[0];
    assert_eq!(
        (a.kind, a.concurrency, a.action.timeout),
        (StepKind::Compensatable, 16, Duration::from_secs(10))
    );
    assert!(a.action.input.is_none() && a.compensation.is_none() && definition.deadline.is_none());
    assert_eq!((a.action.retry.attempts, a.action.retry.elapsed), (8, Duration::from_mins(1)));
    assert_eq!(definition.steps[2].action.retry.max, Duration::from_mins(1));
    assert_eq!(definition.lock_wait, Duration::from_secs(30));
    assert_eq!(definition.plan.after(StepIx(0)), []);
    assert_eq!(definition.plan.after(StepIx(4)), [StepIx(3)]);
    assert_eq!(definition.version, Version(3));
    assert!(made.input_check.is_none());
}

#[test]
fn the_digest_is_the_sha_256_of_the_source() {
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest("abc").to_string(), expected);
}

#[test]
fn a_drawing_shows_the_line_and_the_place() {
    let source = format!("{HEAD}{PAY}{SIDE}    after: [pya]\n");
    let found = compile(&source, Some("order.yaml"), Version(1)).unwrap_err();
    assert_eq!(found[0].to_string(), "order.yaml:9:13: there is no step `pya`; did you mean `pay`?");
    let drawing = render(&found, &source, "order.yaml");
    for part in
        ["there is no step `pya`", "[order.yaml:9:13]", "    after: [pya]", "help: did you mean `pay`?"]
    {
        assert!(drawing.contains(part), "{drawing}");
    }
}

#[test]
fn a_thousand_steps_in_a_row_compile() {
    let mut source = HEAD.to_owned();
    for n in 0..1_000 {
        let reads = if n == 0 { "input" } else { "steps.s0.x" };
        let step = format!(
            "  - name: s{n}\n    action: {{ call: p.a, input: \"${{{reads}}}\" }}\n    compensation: none\n"
        );
        source.push_str(&step);
    }
    assert_eq!(compiled(&source).definition.plan.ancestors(StepIx(999)).len(), 999);
}

mod shipped {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::saga::expr::lock_keys;
    use crate::saga::ids::{LockKey, SagaId};

    fn read(file: &str) -> String {
        std::fs::read_to_string(format!("{}/sagas/{file}", env!("CARGO_MANIFEST_DIR"))).expect(file)
    }

    #[test]
    fn every_definition_compiles_without_a_warning() {
        let folder = std::fs::read_dir(format!("{}/sagas", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let files: Vec<String> = folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(".yaml"))
            .collect();
        assert!(files.len() >= 3);
        for file in files {
            let source = read(&file);
            let made = compiled(&source);
            assert_eq!(made.warnings, Vec::<String>::new(), "{file}");
            assert_eq!(made.definition.name.as_str(), file.trim_end_matches(".yaml"));
            assert!(source.starts_with("# yaml-language-server: $schema=sagad.schema.json\n"), "{file}");
        }
    }

    #[test]
    fn an_orders_input_is_checked_and_its_lock_keys_are_sorted_and_unique() {
        let made = compiled(&read("order.yaml"));
        let input = json!({
            "user_id": 7, "total": 300,
            "items": [{ "item_id": 12, "amount": 1 }, { "item_id": 3, "amount": 2 }, { "item_id": 12, "amount": 5 }],
        });
        let check = made.input_check.expect("the file has a schema");
        assert_eq!(check.check(&input), []);
        assert_eq!(
            check.check(&json!({ "user_id": 7, "total": 1, "items": [{ "item_id": 1 }] }))[0].field,
            "items[0]"
        );
        let id = SagaId::parse("o-1").unwrap();
        let keys = lock_keys(&made.definition, &id, &input, &BTreeMap::new()).unwrap();
        let keys: Vec<&str> = keys.iter().map(LockKey::as_str).collect();
        assert_eq!(keys, ["stock/12", "stock/3", "user/7"]);
    }

    #[test]
    fn a_lock_key_that_names_nothing_is_an_error() {
        let id = SagaId::parse("o-1").unwrap();
        for (lock, input) in [
            ("user/${input.user_id}", json!({})),
            ("${input.user_id}", json!({})),
            ("${input.user_id}", json!({ "user_id": "" })),
            ("${input.user_id}", json!({ "user_id": { "a": 1 } })),
            ("${input.user_id}", json!({ "user_id": [["a"]] })),
            ("${input.user_id}", json!({ "user_id": ["a", null] })),
            ("${input.user_id + 1}", json!({ "user_id": "x" })),
        ] {
            let made = compiled(&format!("locks: [\"{lock}\"]\n{HEAD}{A}"));
            let keys = lock_keys(&made.definition, &id, &input, &BTreeMap::new());
            assert!(keys.is_err(), "{lock} with {input}: {keys:?}");
        }
        let made = compiled(&format!("locks: [\"${{input.ids}}\", fixed]\n{HEAD}{A}"));
        let keys =
            lock_keys(&made.definition, &id, &json!({ "ids": [2, 1, 2, true] }), &BTreeMap::new()).unwrap();
        assert_eq!(keys.iter().map(LockKey::as_str).collect::<Vec<_>>(), ["1", "2", "fixed", "true"]);
    }

    #[test]
    fn the_schema_for_editors_is_current_and_accepts_what_is_shipped() {
        let path = format!("{}/sagas/sagad.schema.json", env!("CARGO_MANIFEST_DIR"));
        let current = editor_schema();
        if std::env::var_os("SAGAD_UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(checked_in == current, "{path} is stale: run this test with SAGAD_UPDATE_SCHEMA=1");
        let schema = jsonschema::validator_for(&serde_json::from_str(&current).unwrap()).unwrap();
        for file in ["order.yaml", "trip.yaml", "transfer.yaml"] {
            let document: serde_json::Value = serde_saphyr::from_str(&read(file)).unwrap();
            let violations: Vec<String> =
                schema.iter_errors(&document).map(|error| error.to_string()).collect();
            assert_eq!(violations, Vec::<String>::new(), "{file}");
        }
        let typo: serde_json::Value = serde_saphyr::from_str(&format!("{HEAD}{A}    aftre: []\n")).unwrap();
        assert!(!schema.is_valid(&typo));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,300}") {
        let _ = compile(&text, None, Version(1)).map_err(|found| render(&found, &text, "it"));
    }

    #[test]
    fn no_damage_to_a_definition_makes_it_panic(at in 0usize..3_000, cut in 0usize..40, put in "[\\[\\]{}:,\\-'\"$&*#!|> \\n\\ta-z0-9é]{0,6}") {
        let source = include_str!("../../sagas/order.yaml");
        let floor = |mut at: usize| { while !source.is_char_boundary(at) { at -= 1; } at };
        let start = floor(at.min(source.len()));
        let end = floor((start + cut).min(source.len())).max(start);
        let damaged = format!("{}{put}{}", &source[..start], &source[end..]);
        match compile(&damaged, Some("order.yaml"), Version(1)) {
            Ok(_) => {}
            Err(found) => {
                prop_assert!(!found.is_empty());
                prop_assert!(!render(&found, &damaged, "order.yaml").is_empty());
            }
        }
    }
}
