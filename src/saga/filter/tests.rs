//! What the filter language says, and what it refuses.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Row {
    saga_id: String,
    status: SagaStatus,
    definition: String,
    version: u32,
    created_at: Timestamp,
    labels: BTreeMap<String, String>,
    failure: Option<Failure>,
    paused: bool,
    steps: Vec<LiveStep>,
}

const NOW: Timestamp = Timestamp(1_000_000_000);

impl Default for Row {
    fn default() -> Self {
        Self {
            saga_id: "o:1/a".into(),
            status: SagaStatus::Blocked,
            definition: "order".into(),
            version: 3,
            created_at: NOW - Duration::from_mins(20),
            labels: [
                ("region".to_owned(), "kr".to_owned()),
                ("odd name".to_owned(), "a \"b\" \\".to_owned()),
            ]
            .into(),
            failure: Some(Failure {
                step: "pay".into(),
                code: "DEADLINE".into(),
                message: "a timeout".into(),
            }),
            paused: false,
            steps: vec![LiveStep {
                instance: "deduct-stock/0".into(),
                participant: "stock".into(),
                error: None,
            }],
        }
    }
}

impl Candidate for Row {
    fn status(&self) -> SagaStatus {
        self.status
    }
    fn definition(&self) -> &str {
        &self.definition
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn saga_id(&self) -> &str {
        &self.saga_id
    }
    fn created_at(&self) -> Timestamp {
        self.created_at
    }
    fn updated_at(&self) -> Timestamp {
        NOW - Duration::from_secs(5)
    }
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
    fn paused(&self) -> bool {
        self.paused
    }
    fn uncertain(&self) -> bool {
        false
    }
    fn live_steps(&self) -> Cow<'_, [LiveStep]> {
        Cow::Borrowed(&self.steps)
    }
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> FilterError {
    Filter::parse(text).expect_err(text)
}

#[test]
fn each_field_is_compared_by_its_type() {
    let row = Row::default();
    let table = [
        ("", true),
        ("  ", true),
        ("status = BLOCKED", true),
        ("status != BLOCKED", false),
        ("status=\"BLOCKED\"", true),
        ("definition = order", true),
        ("definition : rde", true),
        ("definition : RDE", false),
        ("version >= 3 AND version < 4", true),
        ("version != 3", false),
        ("saga_id = o:1/a", true),
        ("saga_id:\"o:\"", true),
        ("age > 10m", true),
        ("age > 20m", false),
        ("age >= 20m", true),
        ("age = 20m", true),
        ("idle <= 5s AND idle > 4s999ms", true),
        ("created < 1970-01-12T13:46:40Z", true),
        ("created >= 1970-01-12T13:26:40Z", true),
        ("created > 1970-01-12T22:26:40+09:00", false),
        ("updated : 5", false),
        ("step = deduct-stock", true),
        ("step = deduct-stock/0", true),
        ("step = deduct-stock/1", false),
        ("step : stock", true),
        ("step != pay", true),
        ("participant = stock", true),
        ("participant != stock", false),
        ("error : \"timeout\"", true),
        ("error = DEADLINE", true),
        ("error = \"DEADLINE: a timeout\"", true),
        ("error != DEADLINE", false),
        ("blocked = true", true),
        ("blocked != true", false),
        ("paused = false AND uncertain = false", true),
        ("label.region = \"kr\"", true),
        ("label.region:k", true),
        ("label.\"odd name\" = \"a \\\"b\\\" \\\\\"", true),
    ];
    for (text, expected) in table {
        match Filter::parse(text) {
            Ok(filter) => assert_eq!(filter.matches(&row, NOW), expected, "{text}"),
            Err(error) => assert_eq!(text, "updated : 5", "{error}"),
        }
    }
}

#[test]
fn what_is_missing_is_unequal_to_every_value() {
    let row = Row { failure: None, steps: Vec::new(), labels: BTreeMap::new(), ..Row::default() };
    for field in ["label.region", "label.\"\\\\\"", "step", "participant", "error"] {
        assert!(filter(&format!("{field} != \"\"")).matches(&row, NOW), "{field}");
        assert!(!filter(&format!("{field} = \"\"")).matches(&row, NOW), "{field}");
        assert!(!filter(&format!("{field} : \"\"")).matches(&row, NOW), "{field}");
    }
}

#[test]
fn not_binds_tightest_then_and_then_or() {
    let table = [
        ("T OR F AND F", true),
        ("(T OR F) AND F", false),
        ("F AND F OR T", true),
        ("F AND (F OR T)", false),
        ("NOT F AND F", false),
        ("NOT (F AND F)", true),
        ("NOT T OR T", true),
        ("NOT (T OR T)", false),
        ("NOT NOT T", true),
        ("NOT(F)AND(T)OR(F)", true),
        ("T AND NOT F OR F", true),
    ];
    for (shape, expected) in table {
        let text: String = shape
            .replace("NOT", "~")
            .replace("OR", "|")
            .replace('T', "version=3")
            .replace('F', "version=4")
            .replace('~', "NOT")
            .replace('|', "OR");
        assert_eq!(filter(&text).matches(&Row::default(), NOW), expected, "{shape}");
    }
}

#[test]
fn what_is_wrong_is_reported_with_its_position() {
    let table = [
        ("status", 7, "the filter ends where one of ="),
        ("status = ", 10, "the filter ends where a value"),
        ("status = blocked", 10, "takes one of RUNNING, COMMITTED,"),
        ("status = SAGA_STATUS_BLOCKED", 10, "takes one of RUNNING"),
        ("status : BLOCK", 8, "`:` cannot be used with `status`"),
        ("definition > a", 12, "`>` cannot be used with `definition`"),
        ("state = X", 1, "there is no field `state`; the fields are status,"),
        ("label. = X", 1, "needs the name of a label"),
        ("version = x", 11, "takes a whole number"),
        ("version = -1", 11, "takes a whole number"),
        ("age > 10", 7, "takes a span of time"),
        ("age > 2024-01-01T00:00:00Z", 7, "takes a span of time"),
        ("created > 10m", 11, "takes a time such as"),
        ("paused = yes", 10, "takes true or false"),
        ("paused", 7, "the filter ends where"),
        ("definition = a AND", 19, "the filter ends where a field"),
        ("definition = a definition = b", 16, "AND or OR is expected, not `definition`"),
        ("definition = a and version = 1", 16, "keywords are written in upper case"),
        ("(version = 1", 13, "the filter ends where AND, OR or `)`"),
        ("version = 1)", 12, "AND or OR is expected, not `)`"),
        ("definition = \"a", 14, "does not end"),
        ("definition = \"\\n\"", 15, "stands only before"),
        ("definition = AND", 14, "a value is expected, not `AND`"),
        ("definition = a=b", 15, "must stand in double quotes"),
        ("AND", 1, "a condition is expected, not `AND`"),
        ("= 3", 1, "a field is expected"),
        ("label.\"ü\" = \"ü\" x", 17, "AND or OR is expected, not `x`"),
    ];
    for (text, position, message) in table {
        let found = error(text);
        assert_eq!(found.position, position, "{text}: {found}");
        assert!(found.message.contains(message), "{text}: {found}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let long = format!("definition = \"{}\"", "x".repeat(FILTER_MAX_BYTES));
    assert!(error(&long).message.contains("bytes"));
    let nested = |n: usize| format!("{}version=1{}", "(".repeat(n), ")".repeat(n));
    assert!(Filter::parse(&nested(64)).is_ok());
    assert_eq!(error(&nested(65)).position, 66);
    assert!(Filter::parse(&format!("{}version=1", "NOT ".repeat(64))).is_ok());
    assert!(error(&format!("{}version=1", "NOT ".repeat(65))).message.contains("nested deeper"));
    for n in [2_000, 10_000, 1_000_000] {
        assert!(Filter::parse(&nested(n)).is_err());
        assert!(Filter::parse(&"(".repeat(n)).is_err());
    }
}

#[test]
fn a_filter_says_what_it_needs() {
    let needs_steps = |text: &str, status| filter(text).needs_steps(status);
    assert!(needs_steps("NOT (version = 1 OR step = a)", SagaStatus::Completed));
    assert!(needs_steps("participant = a", SagaStatus::Completed));
    assert!(needs_steps("error = a", SagaStatus::Blocked));
    assert!(!needs_steps("error = a AND label.step = b", SagaStatus::Compensated));
    assert!(filter("").is_exact() && filter("").is_counted() && filter("").is_empty());
    assert!(filter("status = RUNNING OR NOT (version > 1 AND definition : a) AND age > 1m").is_exact());
    assert!(!filter("status = RUNNING AND age > 1m").is_counted());
    assert!(filter("status = RUNNING AND definition != a").is_counted());
    for text in ["created > 2024-01-01T00:00:00Z", "idle > 1m", "paused = true", "label.a = b", "saga_id = x"]
    {
        assert!(!filter(text).is_exact(), "{text}");
    }
}

#[test]
fn bounds_hold_what_an_index_can_use() {
    let found = filter("status = BLOCKED AND definition = order AND age > 10m AND age <= 1h AND error : x")
        .bounds(NOW);
    assert_eq!(found.statuses, [SagaStatus::Blocked].into());
    assert_eq!(found.definition.as_ref().map(ToString::to_string).as_deref(), Some("order"));
    assert_eq!(found.created_before, Some(NOW - Duration::from_mins(10)));
    assert_eq!(found.created_from, Some(NOW - Duration::from_hours(1)));
    let either = filter("(status = RUNNING OR status = BLOCKED) AND NOT blocked = true").bounds(NOW);
    assert_eq!(either.statuses, [SagaStatus::Running].into());
    let mixed = filter("definition = a OR definition = b OR label.x = y").bounds(NOW);
    assert_eq!(mixed, Bounds::all());
    for text in [
        "status = RUNNING AND status = BLOCKED",
        "definition = a AND definition = b",
        "definition = \"a b\"",
        "age < 0s",
    ] {
        assert!(filter(text).bounds(NOW).is_nothing(), "{text}");
    }
}

fn tests() -> impl Strategy<Value = Test> {
    let comparison = prop::sample::select(vec![
        Comparison::Equal,
        Comparison::Unequal,
        Comparison::Less,
        Comparison::AtMost,
        Comparison::More,
        Comparison::AtLeast,
    ]);
    let text_op = prop::sample::select(vec![TextOp::Equal, TextOp::Unequal, TextOp::Contains]);
    let text_field = prop_oneof![
        3 => Just(TextField::Definition),
        1 => prop::sample::select(vec![
            TextField::SagaId, TextField::Step, TextField::Participant, TextField::Error,
        ]),
        1 => "\\PC{1,8}".prop_map(TextField::Label),
    ];
    let word = prop_oneof![
        prop::sample::select(vec!["order", "trip", "stock"]).prop_map(str::to_owned),
        "\\PC{0,12}"
    ];
    let status = prop::sample::select(SagaStatus::ALL.to_vec());
    let flag = prop::sample::select(vec![FlagField::Blocked, FlagField::Paused, FlagField::Uncertain]);
    prop_oneof![
        (any::<bool>(), status).prop_map(|(equal, value)| Test::Status { equal, value }),
        (text_field, text_op, word).prop_map(|(field, op, value)| Test::Text { field, op, value }),
        (comparison.clone(), 0u32..6).prop_map(|(op, value)| Test::Version { op, value }),
        (any::<bool>(), comparison.clone(), 0u64..5_000).prop_map(|(age, op, millis)| Test::Span {
            field: if age { SpanField::Age } else { SpanField::Idle },
            op,
            value: Duration::from_millis(millis),
        }),
        (any::<bool>(), comparison, -5_000i64..5_000).prop_map(|(created, op, millis)| Test::Time {
            field: if created { TimeField::Created } else { TimeField::Updated },
            op,
            value: Timestamp(NOW.0 + millis),
        }),
        (flag, any::<bool>(), any::<bool>()).prop_map(|(field, equal, value)| Test::Flag {
            field,
            equal,
            value
        }),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    let node = tests().prop_map(Node::Test).prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::Or),
            inner.prop_map(|node| Node::Not(Box::new(node))),
        ]
    });
    prop::option::weighted(0.95, node).prop_map(Filter)
}

fn rows() -> impl Strategy<Value = Row> {
    let status = prop::sample::select(SagaStatus::ALL.to_vec());
    (status, prop::sample::select(vec!["order", "trip"]), 0u32..6, -5_000i64..3_000).prop_map(
        |(status, definition, version, created)| Row {
            status,
            definition: definition.to_owned(),
            version,
            created_at: Timestamp(NOW.0 + created),
            ..Row::default()
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_the_same(filter in filters()) {
        let text = filter.to_string();
        if text.len() <= FILTER_MAX_BYTES {
            prop_assert_eq!(Filter::parse(&text), Ok(filter), "{}", text);
        }
    }

    #[test]
    fn every_match_is_within_the_bounds(filter in filters(), row in rows()) {
        let bounds = filter.bounds(NOW);
        let within = bounds.statuses.contains(&row.status)
            && bounds.definition.is_none_or(|name| name.as_str() == row.definition)
            && bounds.created_from.is_none_or(|from| row.created_at >= from)
            && bounds.created_before.is_none_or(|before| row.created_at < before);
        prop_assert!(within || !filter.matches(&row, NOW), "{}", filter);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}", words in prop::collection::vec(prop::sample::select(vec![
        "status", "=", "!=", ":", "<=", "BLOCKED", "(", ")", "NOT", "AND", "OR", "\"", "\\", "label.", "age", "10m", "é", " ",
    ]), 0..20)) {
        let _ = Filter::parse(&text);
        let _ = Filter::parse(&words.concat());
        let _ = Filter::parse(&words.join(" "));
    }
}
