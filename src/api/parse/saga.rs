//! Requests of `SagaService`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::violations::Violations;
use crate::api::limits::{
    LABEL_KEY_MAX_CHARS, LABEL_VALUE_MAX_BYTES, LABELS_MAX, Limits, REASON_MAX_BYTES, WAIT_MAX,
};
use crate::engine::error::EngineError;
use crate::engine::request::{ListRequest, StartRequest, WaitFor};
use crate::proto;
use crate::saga::ids::SagaId;
use crate::saga::json::Json;

/// A start, and how its client waits.
#[derive(Debug)]
pub struct Start {
    /// The start itself; does not wait.
    pub request: StartRequest,
    /// How long to wait for `wait_for` once it is durable.
    pub wait: Duration,
    /// What to wait for.
    pub wait_for: WaitFor,
}

/// A wait.
#[derive(Debug)]
pub struct Wait {
    /// For which saga.
    pub id: SagaId,
    /// What to wait for.
    pub wait_for: WaitFor,
    /// How long.
    pub timeout: Duration,
}

/// A cancel.
#[derive(Debug)]
pub struct Cancel {
    /// Which saga.
    pub id: SagaId,
    /// Why; may be empty.
    pub reason: String,
}

/// Checks a saga's id.
pub fn saga_id(text: &str) -> Result<SagaId, EngineError> {
    let mut bad = Violations::default();
    let id = bad.saga_id(text);
    bad.finish(|| id)
}

/// Checks a start.
pub fn start(request: proto::StartSagaRequest, limits: &Limits) -> Result<Start, EngineError> {
    let mut bad = Violations::default();
    let id = match request.saga_id.as_str() {
        "" => Some(None),
        given => bad.saga_id(given).map(Some),
    };
    let definition = bad.definition("definition", &request.definition);
    let input = input(&mut bad, &request.input_json, limits.input_json_max_bytes);
    let labels = labels(&mut bad, request.labels);
    let wait = bad.span("wait", request.wait, WAIT_MAX);
    let wait_for = wait_for(&mut bad, request.wait_for);
    let version = request.version;
    bad.finish(|| {
        let wait_for = wait_for?;
        let request = StartRequest {
            id: id?,
            definition: definition?,
            version,
            input: input?,
            labels: labels?,
            wait: Duration::ZERO,
            wait_for,
        };
        Some(Start { request, wait: wait?, wait_for })
    })
}

/// Checks a wait.
pub fn wait(request: &proto::WaitSagaRequest) -> Result<Wait, EngineError> {
    let mut bad = Violations::default();
    let id = bad.saga_id(&request.saga_id);
    let wait_for = wait_for(&mut bad, request.wait_for);
    let timeout = bad.span("timeout", request.timeout, WAIT_MAX);
    bad.finish(|| Some(Wait { id: id?, wait_for: wait_for?, timeout: timeout? }))
}

/// Checks a cancel.
pub fn cancel(request: proto::CancelSagaRequest) -> Result<Cancel, EngineError> {
    let mut bad = Violations::default();
    let id = bad.saga_id(&request.saga_id);
    let reason = bad.text("reason", request.reason, REASON_MAX_BYTES);
    bad.finish(|| Some(Cancel { id: id?, reason: reason? }))
}

/// Checks a list, but for its filter and its token: whoever reads those refuses them.
pub fn list(request: proto::ListSagasRequest) -> Result<ListRequest, EngineError> {
    let mut bad = Violations::default();
    let page_size = bad.page_size(request.page_size);
    let page_token = bad.page_token(request.page_token);
    let order = bad.known::<proto::ListOrder>("order", request.order);
    bad.finish(|| {
        let oldest_first = match order? {
            proto::ListOrder::Unspecified | proto::ListOrder::NewestFirst => false,
            proto::ListOrder::OldestFirst => true,
        };
        Some(ListRequest {
            filter: request.filter,
            page_size: page_size?,
            page_token: page_token?,
            oldest_first,
            with_total: request.with_total,
        })
    })
}

fn input(bad: &mut Violations, text: &str, max_bytes: usize) -> Option<Json> {
    if text.is_empty() {
        return Some(Json::trusted("{}".to_owned()));
    }
    let input = bad.json("input_json", text, max_bytes)?;
    if !input.value().is_object() {
        bad.add("input_json", "the top level must be a JSON object");
        return None;
    }
    Some(input)
}

fn labels(bad: &mut Violations, labels: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    if labels.len() > LABELS_MAX {
        bad.add("labels", format!("{} labels are over the limit of {LABELS_MAX}", labels.len()));
        return None;
    }
    let mut fine = true;
    for (key, value) in &labels {
        if !(1..=LABEL_KEY_MAX_CHARS).contains(&key.chars().count()) {
            let shown: String = key.chars().take(LABEL_KEY_MAX_CHARS).collect();
            bad.add(
                format!("labels[{shown:?}]"),
                format!("a label's name has 1 to {LABEL_KEY_MAX_CHARS} characters"),
            );
            fine = false;
        } else if value.len() > LABEL_VALUE_MAX_BYTES {
            bad.add(
                format!("labels[{key:?}]"),
                format!("the value is {} bytes long, over the limit of {LABEL_VALUE_MAX_BYTES}", value.len()),
            );
            fine = false;
        }
    }
    fine.then_some(labels)
}

fn wait_for(bad: &mut Violations, number: i32) -> Option<WaitFor> {
    Some(match bad.known::<proto::WaitFor>("wait_for", number)? {
        proto::WaitFor::Unspecified | proto::WaitFor::Committed => WaitFor::Committed,
        proto::WaitFor::Ended => WaitFor::Ended,
    })
}

#[cfg(test)]
mod tests {
    use super::super::violations::fields_of;
    use super::*;

    fn valid() -> proto::StartSagaRequest {
        proto::StartSagaRequest { definition: "order".into(), ..Default::default() }
    }

    fn started(request: proto::StartSagaRequest) -> Result<Start, EngineError> {
        start(request, &Limits::default())
    }

    #[test]
    fn the_smallest_start_names_a_definition() {
        let parsed = started(valid()).unwrap();
        assert_eq!(parsed.request.id, None);
        assert_eq!(parsed.request.input.text(), "{}");
        assert_eq!(parsed.wait, Duration::ZERO);
        assert_eq!(parsed.wait_for, WaitFor::Committed);
    }

    #[test]
    fn an_input_keeps_its_exact_text() {
        let text = r#"{ "id": 9007199254740993,  "price": 1.10 }"#;
        let parsed = started(proto::StartSagaRequest { input_json: text.into(), ..valid() }).unwrap();
        assert_eq!(parsed.request.input.text(), text);
    }

    #[test]
    fn each_wrong_field_of_a_start_is_named() {
        let duration = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let cases: Vec<(&str, proto::StartSagaRequest)> = vec![
            ("saga_id", proto::StartSagaRequest { saga_id: "a b".into(), ..valid() }),
            ("saga_id", proto::StartSagaRequest { saga_id: "é".into(), ..valid() }),
            ("saga_id", proto::StartSagaRequest { saga_id: "x".repeat(201), ..valid() }),
            ("definition", proto::StartSagaRequest::default()),
            ("definition", proto::StartSagaRequest { definition: "a.b".into(), ..valid() }),
            ("input_json", proto::StartSagaRequest { input_json: "[]".into(), ..valid() }),
            ("input_json", proto::StartSagaRequest { input_json: "null".into(), ..valid() }),
            ("input_json", proto::StartSagaRequest { input_json: "{".into(), ..valid() }),
            ("input_json", proto::StartSagaRequest { input_json: " ".into(), ..valid() }),
            ("input_json", proto::StartSagaRequest { input_json: r#"{"a":1,"a":1}"#.into(), ..valid() }),
            (
                "input_json",
                proto::StartSagaRequest {
                    input_json: format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64)),
                    ..valid()
                },
            ),
            (
                "input_json",
                proto::StartSagaRequest { input_json: r#"{"a":18446744073709551616}"#.into(), ..valid() },
            ),
            ("wait", proto::StartSagaRequest { wait: duration(-1), ..valid() }),
            ("wait", proto::StartSagaRequest { wait: duration(3_601), ..valid() }),
            ("wait_for", proto::StartSagaRequest { wait_for: 99, ..valid() }),
            (r#"labels[""]"#, proto::StartSagaRequest { labels: label("", "v"), ..valid() }),
            (r#"labels["k"]"#, proto::StartSagaRequest { labels: label("k", &"v".repeat(1_025)), ..valid() }),
            (
                "labels",
                proto::StartSagaRequest {
                    labels: (0..65).map(|n| (n.to_string(), String::new())).collect(),
                    ..valid()
                },
            ),
        ];
        for (field, request) in cases {
            let shown = format!("{request:?}");
            assert_eq!(fields_of(started(request)), [field], "{shown}");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let request = proto::StartSagaRequest {
            saga_id: "x".repeat(200),
            labels: (0..64).map(|n| (format!("{n:0128}"), "v".repeat(1_024))).collect(),
            wait: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            ..valid()
        };
        assert_eq!(started(request).unwrap().wait, WAIT_MAX);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let request = proto::StartSagaRequest {
            saga_id: "a b".into(),
            input_json: "3".into(),
            wait_for: -1,
            wait: Some(prost_types::Duration { seconds: -5, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(fields_of(started(request)), ["saga_id", "definition", "input_json", "wait", "wait_for"]);
    }

    #[test]
    fn an_input_over_the_limit_is_refused_by_its_name() {
        let limits = Limits { input_json_max_bytes: 16, ..Limits::default() };
        let fits = proto::StartSagaRequest { input_json: r#"{"a":"12345678"}"#.into(), ..valid() };
        assert!(start(fits, &limits).is_ok());
        let over = proto::StartSagaRequest { input_json: r#"{"a":"123456789"}"#.into(), ..valid() };
        assert_eq!(fields_of(start(over, &limits)), ["input_json"]);
    }

    #[test]
    fn a_list_asks_for_the_newest_first_unless_told() {
        let parsed = list(proto::ListSagasRequest::default()).unwrap();
        assert!(!parsed.oldest_first);
        assert_eq!(parsed.page_size, 100);
        let oldest = proto::ListSagasRequest { order: 2, page_size: 1_000, ..Default::default() };
        assert!(list(oldest).unwrap().oldest_first);
        let wrong = proto::ListSagasRequest {
            order: 7,
            page_size: 1_001,
            page_token: "t".repeat(5_000),
            ..Default::default()
        };
        assert_eq!(fields_of(list(wrong)), ["page_size", "page_token", "order"]);
    }

    #[test]
    fn waits_and_cancels_name_a_saga() {
        assert_eq!(fields_of(wait(&proto::WaitSagaRequest::default())), ["saga_id"]);
        let long = proto::CancelSagaRequest { saga_id: "s".into(), reason: "r".repeat(REASON_MAX_BYTES + 1) };
        assert_eq!(fields_of(cancel(long)), ["reason"]);
        assert_eq!(fields_of(saga_id("")), ["saga_id"]);
    }
}
