//! What clients see of values made by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{CompensationStatus, SagaStatus as WireStatus, StepStatus};

use super::test_values::{definition, instance, saga as saga_at, step, view};
use super::*;
use crate::engine::request::{DefinitionView, EngineStats};
use crate::saga::event::{CallInput, Event, Fact, Source, Started};
use crate::saga::ids::Timestamp;
use crate::saga::ids::{DefinitionName, Digest, InstanceRef, LockKey, SagaId, StepIx, Version};
use crate::saga::input::{Act, Resolution};
use crate::saga::json::Json;
use crate::saga::row::Row;
use crate::saga::state::{Action, Compensation, Doubt, Instance, ProbeWhy, Stage, StepState};
use crate::saga::view::WaitingOn;
use crate::saga::words::{Phase, Refusal, StepKind};

fn refusal() -> Refusal {
    Refusal { code: "OUT_OF_STOCK".to_owned(), message: "none left".to_owned() }
}

fn compensatable(state: StepState) -> (crate::saga::definition::Step, StepState) {
    (step("deduct", StepKind::Compensatable), state)
}

/// The only step's row in a saga at `stage`.
fn row(stage: Stage, instance: Instance) -> proto::Step {
    let mut shown = saga(&view(saga_at(stage, vec![compensatable(StepState::One(instance))])));
    assert_eq!(shown.steps.len(), 1);
    shown.steps.remove(0)
}

#[test]
fn times_before_the_epoch_are_still_well_formed() {
    let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    assert_eq!(timestamp(Timestamp(1_001)), wire(1, 1_000_000));
    assert_eq!(timestamp(Timestamp(-1)), wire(-1, 999_000_000));
}

#[test]
fn documents_travel_byte_for_byte() {
    let mut done = instance(Action::Succeeded { output: Json::trusted("{\"x\" : 1.0}".to_owned()) });
    done.tries.ended_at = Some(Timestamp(1_600));
    let shown = saga(&view(saga_at(Stage::Forward, vec![compensatable(StepState::One(done))])));
    assert_eq!(shown.input_json, r#"{ "price": 1.10, "id": 18446744073709551615 }"#);
    assert_eq!(shown.steps[0].input_json, r#"{ "amount": 9007199254740993 }"#);
    assert_eq!(shown.steps[0].output_json, "{\"x\" : 1.0}");
    assert_eq!(shown.steps[0].started_at, Some(timestamp(Timestamp(1_500))));
    assert_eq!(shown.steps[0].ended_at, Some(timestamp(Timestamp(1_600))));
}

#[test]
fn a_saga_shows_what_it_runs_and_a_list_leaves_its_steps_out() {
    let mut value = view(saga_at(Stage::Committed, vec![compensatable(StepState::One(Instance::fresh()))]));
    value.waiting_on = Some(WaitingOn::Lock(LockKey::parse("stock/7").unwrap()));
    value.next_wake_at = Some(Timestamp(5_000));
    let shown = saga(&value);
    assert_eq!((shown.saga_id.as_str(), shown.definition.as_str(), shown.version), ("o-1", "order", 3));
    assert_eq!(shown.digest, "ab".repeat(32));
    assert_eq!(shown.status(), WireStatus::Committed);
    assert_eq!(shown.direction(), proto::Direction::Forward);
    assert!(shown.committed);
    assert_eq!(shown.waiting_on, "lock stock/7");
    assert_eq!(shown.next_wake_at, Some(timestamp(Timestamp(5_000))));
    assert_eq!(shown.labels, BTreeMap::from([("region".to_owned(), "kr".to_owned())]));
    assert_eq!(shown.output_json, "", "the definition has no output");
    assert_eq!(shown.seq, 9);
    assert_eq!(saga_row(&value), proto::Saga { steps: vec![], ..shown });
}

#[test]
fn a_step_has_one_row_an_instance_and_none_before_its_list_is_known() {
    let names = |state: StepState| -> Vec<(String, StepStatus)> {
        let shown = saga(&view(saga_at(Stage::Forward, vec![compensatable(state)])));
        shown.steps.iter().map(|step| (step.name.clone(), step.status())).collect()
    };
    let many = |count| StepState::Many(Json::null(), Row::repeat(Instance::fresh(), count));
    let pending = |name: &str| (name.to_owned(), StepStatus::Pending);
    assert_eq!(names(StepState::Unexpanded), []);
    assert_eq!(names(many(0)), []);
    assert_eq!(names(many(2)), [pending("deduct/0"), pending("deduct/1")]);
    assert_eq!(names(StepState::One(Instance::fresh())), [pending("deduct")]);
    assert_eq!(names(StepState::Skipped), [("deduct".to_owned(), StepStatus::Skipped)]);
}

#[test]
fn each_state_of_an_action_has_its_row() {
    let unknown = || Doubt::Unknown("timeout".to_owned());
    let at = Timestamp(7_000);
    let no = |code: &str, message: &str| Some((code.to_owned(), message.to_owned()));
    let blocked = |last| Action::Blocked { reason: "no list".to_owned(), since: at, last };
    let cases = [
        (Action::Pending, StepStatus::Pending, None, None),
        (Action::Running, StepStatus::Running, None, None),
        (
            Action::Backoff { next_at: at, last: unknown() },
            StepStatus::Unknown,
            no("UNKNOWN", "timeout"),
            Some(at),
        ),
        (
            Action::Backoff { next_at: at, last: Doubt::Refused(refusal()) },
            StepStatus::Failed,
            no("OUT_OF_STOCK", "none left"),
            Some(at),
        ),
        (Action::Awaiting { check_at: at }, StepStatus::Running, None, Some(at)),
        (Action::Probing { why: ProbeWhy::Pending }, StepStatus::Running, None, None),
        (
            Action::Probing { why: ProbeWhy::BeforeBlock(Doubt::Refused(refusal())) },
            StepStatus::Running,
            no("OUT_OF_STOCK", "none left"),
            None,
        ),
        (Action::Succeeded { output: Json::null() }, StepStatus::Succeeded, None, None),
        (Action::Refused { refusal: refusal() }, StepStatus::Failed, no("OUT_OF_STOCK", "none left"), None),
        (
            Action::Unknown { cause: String::new() },
            StepStatus::Unknown,
            no("UNKNOWN", "no reason was given"),
            None,
        ),
        (Action::Skipped, StepStatus::Skipped, None, None),
        (blocked(None), StepStatus::Pending, no("EXPRESSION", "no list"), None),
        (blocked(Some(unknown())), StepStatus::Unknown, no("UNKNOWN", "timeout"), None),
    ];
    for (action, status, failure, next) in cases {
        let named = format!("{action:?}");
        let mut shown = row(Stage::Forward, instance(action));
        assert_eq!(shown.status(), status, "{named}");
        assert_eq!(shown.failure.take().map(|f| (f.code, f.message)), failure, "{named}");
        assert_eq!(shown.next_attempt_at, next.map(timestamp), "{named}");
        assert_eq!(shown.compensation(), CompensationStatus::NotNeeded, "{named}");
        assert_eq!(shown.attempts, 1);
    }
}

#[test]
fn each_state_of_a_compensation_has_its_row() {
    let at = Timestamp(7_000);
    let cases = [
        (Compensation::Idle, CompensationStatus::Pending, None, None),
        (Compensation::Running, CompensationStatus::Running, None, None),
        (
            Compensation::Backoff { next_at: at, last: Doubt::Unknown("reset".to_owned()) },
            CompensationStatus::Running,
            Some("reset"),
            Some(at),
        ),
        (Compensation::Awaiting { check_at: at }, CompensationStatus::Running, None, Some(at)),
        (Compensation::Done, CompensationStatus::Done, None, None),
        (
            Compensation::Blocked { reason: "too often".to_owned(), since: at, last: None },
            CompensationStatus::Blocked,
            Some("too often"),
            None,
        ),
        (Compensation::Waived, CompensationStatus::Waived, None, None),
    ];
    for (compensation, status, message, next) in cases {
        let named = format!("{compensation:?}");
        let mut undone = instance(Action::Succeeded { output: Json::null() });
        undone.compensation = compensation;
        undone.undo_tries.attempt = 4;
        let mut shown = row(Stage::Backward, undone);
        assert_eq!(shown.compensation(), status, "{named}");
        assert_eq!(shown.compensation_attempts, 4);
        assert_eq!(shown.failure.take().map(|f| f.message), message.map(str::to_owned), "{named}");
        assert_eq!(shown.next_attempt_at, next.map(timestamp), "{named}");
    }
}

#[test]
fn nothing_is_due_in_a_saga_that_is_paused_or_has_ended() {
    let waiting = || {
        let last = Doubt::Unknown("timeout".to_owned());
        StepState::One(instance(Action::Backoff { next_at: Timestamp(7_000), last }))
    };
    let mut paused = saga_at(Stage::Forward, vec![compensatable(waiting())]);
    paused.paused = Some(Timestamp(1));
    let abandoned = saga_at(Stage::Abandoned, vec![compensatable(waiting())]);
    for value in [paused, abandoned] {
        assert_eq!(saga(&view(value)).steps[0].next_attempt_at, None);
    }
}

#[test]
fn what_waits_for_an_operator_is_listed_oldest_first() {
    let mut both = instance(Action::Succeeded { output: Json::null() });
    both.compensation =
        Compensation::Blocked { reason: "refused".to_owned(), since: Timestamp(9_000), last: None };
    let earlier =
        instance(Action::Blocked { reason: "no answer".to_owned(), since: Timestamp(8_000), last: None });
    let steps = || {
        let pay = step("pay", StepKind::Pivot);
        vec![compensatable(StepState::One(both.clone())), (pay, StepState::One(earlier.clone()))]
    };
    let shown = saga(&view(saga_at(Stage::Backward, steps())));
    assert_eq!(shown.status(), WireStatus::Blocked);
    let listed: Vec<(&str, &str, &str)> =
        shown.blocked.iter().map(|b| (b.step.as_str(), b.phase.as_str(), b.reason.as_str())).collect();
    assert_eq!(listed, [("pay", "action", "no answer"), ("deduct", "compensation", "refused")]);
    assert_eq!(saga(&view(saga_at(Stage::Abandoned, steps()))).blocked, []);
}

/// An event, and its step, attempt, actor, reason and details.
type Telling = (Event, (&'static str, u32, &'static str, &'static str, &'static str));

/// Step, attempt, actor, reason and details of an event.
fn told(event: Event) -> (String, u32, String, String, String) {
    let definition = definition(vec![step("deduct", StepKind::Compensatable), step("pay", StepKind::Pivot)]);
    let fact = Fact { seq: 4, at: Timestamp(1_000), event };
    let shown = super::event(&SagaId::parse("o-1").unwrap(), &definition, &fact);
    assert_eq!((shown.seq, shown.saga_id.as_str()), (4, "o-1"));
    assert_eq!(shown.r#type, fact.event.type_name());
    if !shown.detail_json.is_empty() {
        assert!(Json::parse(&shown.detail_json).unwrap().value().is_object(), "{}", shown.detail_json);
    }
    (shown.step, shown.attempt, shown.actor, shown.reason, shown.detail_json)
}

#[test]
fn each_event_of_a_call_tells_what_it_knows() {
    let item = InstanceRef { step: StepIx(0), item: Some(2) };
    let pay = InstanceRef { step: StepIx(1), item: None };
    let json = |text: &str| Json::trusted(text.to_owned());
    let elapsed = Duration::from_millis(40);
    let retry_at = Some(Timestamp(2_500));
    check(vec![
        (Event::LockGranted, ("", 0, "", "", "")),
        (
            Event::LockWaiting { until: Timestamp(2_500) },
            ("", 0, "", "", r#"{"until":"1970-01-01T00:00:02.500Z"}"#),
        ),
        (
            Event::StepExpanded { step: StepIx(0), items: json("[1, 2]") },
            ("deduct", 0, "", "", r#"{"items":[1, 2]}"#),
        ),
        (
            Event::StepStarted {
                at: item,
                attempt: 1,
                epoch: 5,
                input: Some(CallInput::Inline(json("{\"n\" : 1.10}"))),
            },
            ("deduct/2", 1, "", "", r#"{"epoch":5,"input":{"n" : 1.10}}"#),
        ),
        (
            Event::StepStarted { at: pay, attempt: 2, epoch: 5, input: None },
            ("pay", 2, "", "", r#"{"epoch":5}"#),
        ),
        (
            Event::CompensationStarted { at: item, attempt: 1, epoch: 5, input: Some(CallInput::Action) },
            ("deduct/2", 1, "", "", r#"{"epoch":5,"input_from":"action"}"#),
        ),
        (
            Event::StepSucceeded {
                at: pay,
                attempt: 1,
                output: json("{\"id\": 1.0}"),
                source: Source::Token,
            },
            ("pay", 1, "", "", r#"{"output":{"id": 1.0},"source":"token"}"#),
        ),
        (
            Event::StepFailed {
                at: pay,
                attempt: 3,
                refusal: refusal(),
                elapsed,
                retry_at,
                source: Source::Reply,
            },
            (
                "pay",
                3,
                "",
                "none left",
                r#"{"code":"OUT_OF_STOCK","elapsed_ms":40,"retry_at":"1970-01-01T00:00:02.500Z","source":"reply"}"#,
            ),
        ),
        (
            Event::StepUnknown {
                at: pay,
                attempt: 3,
                cause: "reset".to_owned(),
                elapsed,
                retry_at: None,
                unsent: false,
            },
            ("pay", 3, "", "reset", r#"{"elapsed_ms":40}"#),
        ),
        (
            Event::CompensationUnknown {
                at: pay,
                attempt: 3,
                cause: "not sent".to_owned(),
                elapsed: Duration::ZERO,
                retry_at: None,
                unsent: true,
            },
            ("pay", 3, "", "not sent", r#"{"elapsed_ms":0,"unsent":true}"#),
        ),
    ]);
}

#[test]
fn each_event_of_a_person_or_of_the_whole_saga_tells_what_it_knows() {
    let pay = InstanceRef { step: StepIx(1), item: None };
    let json = |text: &str| Json::trusted(text.to_owned());
    let text = str::to_owned;
    let resolve = Act::Resolve { step: text("pay"), resolution: Resolution::Done(json("{\"id\": 7.0}")) };
    check(vec![
        (
            Event::CancelRequested { actor: text("jin"), reason: text("a \"typo\"") },
            ("", 0, "jin", "a \"typo\"", ""),
        ),
        (
            Event::Blocked { at: pay, phase: Phase::Action, reason: text("no answer") },
            ("pay", 0, "", "no answer", r#"{"phase":"action"}"#),
        ),
        (
            Event::OperatorAct { act: resolve, actor: text("jin"), reason: text("seen") },
            ("pay", 0, "jin", "seen", r#"{"act":"resolve","outcome":"done","output":{"id": 7.0}}"#),
        ),
        (
            Event::LateReply {
                at: pay,
                phase: Phase::Action,
                attempt: 1,
                summary: text("done"),
                uncertain: true,
            },
            ("pay", 1, "", "done", r#"{"phase":"action","uncertain":true}"#),
        ),
        (
            Event::SagaAbandoned { steps: vec![text("deduct/0"), text("pay")] },
            ("", 0, "", "", r#"{"steps":["deduct/0","pay"]}"#),
        ),
        (
            Event::EventEmitted { topic: text("orders"), key: String::new(), data: json("null") },
            ("", 0, "", "", r#"{"topic":"orders","data":null}"#),
        ),
    ]);
}

fn check(tellings: Vec<Telling>) {
    for (event, expected) in tellings {
        let named = format!("{event:?}");
        let (step, attempt, actor, reason, detail) = told(event);
        assert_eq!(
            (step.as_str(), attempt, actor.as_str(), reason.as_str(), detail.as_str()),
            expected,
            "{named}"
        );
    }
}

#[test]
fn the_first_event_tells_the_whole_request() {
    let started = Started {
        id: SagaId::parse("o-1").unwrap(),
        definition: DefinitionName::parse("order").unwrap(),
        version: Version(3),
        digest: Digest([0; 32]),
        version_asked: 0,
        input: Json::trusted("{ }".to_owned()),
        labels: std::sync::Arc::new(BTreeMap::from([("a\"b".to_owned(), "c".to_owned())])),
        locks: vec![LockKey::parse("user/1").unwrap()],
    };
    let (.., detail) = told(Event::SagaStarted(Box::new(started)));
    let expected = format!(
        r#"{{"definition":"order","version":3,"version_asked":0,"digest":"{}","input":{{ }},"labels":{{"a\"b":"c"}},"locks":["user/1"]}}"#,
        "00".repeat(32)
    );
    assert_eq!(detail, expected);
}

#[test]
fn a_definition_shows_its_steps_as_they_were_understood() {
    let steps = vec![step("deduct", StepKind::Compensatable), step("pay", StepKind::Pivot)];
    let value = DefinitionView {
        definition: std::sync::Arc::new(definition(steps)),
        active: true,
        created_at: Some(Timestamp(1_000)),
    };
    let shown = super::definition(&value);
    assert_eq!(shown.source, "saga: order\n");
    assert_eq!(shown.steps[0].compensation, "stock.restore");
    assert_eq!(shown.steps[1].after, ["deduct"]);
    assert_eq!(shown.steps[1].kind(), proto::StepKind::Pivot);
    assert_eq!(shown.steps[1].compensation, "");
    let listed = definition_row(&value);
    assert_eq!(listed, proto::Definition { source: String::new(), steps: vec![], ..shown });
}

#[test]
fn figures_add_up_by_status() {
    let order = DefinitionName::parse("order").unwrap();
    let mut figures = EngineStats { mail_depths: vec![0, 3], mail_capacity: 1_024, ..Default::default() };
    figures.counters = BTreeMap::from([
        ((order.clone(), Version(1), SagaStatus::Running), 2),
        ((order.clone(), Version(2), SagaStatus::Running), 5),
        ((order, Version(2), SagaStatus::Blocked), 0),
    ]);
    figures.last_minute.started_per_second = 12.5;
    figures.last_minute.call.p99 = Some(Duration::from_millis(1_500));
    figures.last_minute.call.samples = 3;
    figures.oldest_open_started_at = Timestamp(1_500);
    let shown = stats(figures);
    let running = shown.by_status.iter().find(|row| row.status() == WireStatus::Running).unwrap();
    assert_eq!(running.count, 7);
    assert_eq!(shown.by_status.len(), SagaStatus::ALL.len());
    assert_eq!(shown.by_definition.len(), 2);
    assert_eq!(shown.queues[1].depth, 3);
    let since = prost_types::Timestamp { seconds: 1, nanos: 500_000_000 };
    assert_eq!(shown.oldest_open_started_at, Some(since));
    assert!((shown.started_per_second - 12.5).abs() < f64::EPSILON);
    let call = shown.latencies.iter().find(|latency| latency.name == "call").unwrap();
    let expected = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
    assert_eq!((call.p50, call.p99, call.samples), (None, Some(expected), 3));
}
