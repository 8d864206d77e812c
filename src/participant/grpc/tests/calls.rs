//! Calls over real connections, to services of every kind.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tonic::{Code, Status};

use super::service::{Reflects, Sample, Says, compile};
use crate::participant::client::{Client, Route};
use crate::participant::dispatch::tests::outgoing;
use crate::participant::handlers::{Claim, ClaimedAction, Endpoint, Handlers, InvalidClaim, Protocol};
use crate::participant::targets::{self, TargetsError};
use crate::saga::ids::Timestamp;
use crate::saga::json::Json;
use crate::saga::words::{Outcome, Phase};
use crate::tasks::Tasks;

const NOON: Timestamp = Timestamp(1_700_000_000_000);
const DEDUCT: &str = "shop.stock.v1.StockService/Deduct";

/// A shop's service in two files, as its team wrote it years ago.
pub(super) const SHOP: [(&str, &str); 2] = [
    (
        "shop/stock/v1/stock.proto",
        r#"
syntax = "proto3";
package shop.stock.v1;
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
import "shop/types/money.proto";
service StockService {
  rpc Deduct(DeductRequest) returns (DeductResponse);
  rpc Restore(DeductRequest) returns (DeductResponse);
  rpc Watch(DeductRequest) returns (stream DeductResponse);
  rpc Upload(stream DeductRequest) returns (DeductResponse);
}
message DeductRequest { int64 item_id = 1; int32 amount = 2; google.protobuf.Any extra = 3; }
message DeductResponse {
  int64 left = 1; shop.types.Money price = 2; google.protobuf.Timestamp at = 3; google.protobuf.Any extra = 4;
}
"#,
    ),
    (
        "shop/types/money.proto",
        "syntax = \"proto3\"; package shop.types; message Money { string currency = 1; int64 units = 2; }",
    ),
];

pub(super) fn claim(endpoint: &str, target: &str) -> Claim {
    Claim {
        participant: "stock".to_owned(),
        endpoint: endpoint.to_owned(),
        protocol: Some(Protocol::Grpc),
        actions: vec![ClaimedAction {
            name: "deduct".to_owned(),
            target: target.to_owned(),
            ..ClaimedAction::default()
        }],
        ..Claim::default()
    }
}

/// A caller of one action at one endpoint.
pub(super) struct Caller {
    client: Client,
    handlers: Handlers,
    timeout: Duration,
}

impl Caller {
    pub(super) fn of(claim: &Claim) -> Self {
        Self::within(Duration::from_secs(30), claim)
    }

    /// Each of its calls may take so long.
    pub(super) fn within(timeout: Duration, claim: &Claim) -> Self {
        let handlers = Handlers::check(claim).unwrap();
        let endpoint = Endpoint::parse(&claim.endpoint).unwrap();
        Self { client: Client::new(Protocol::Grpc, &endpoint, &Tasks::new()), handlers, timeout }
    }

    fn route(&self) -> &Route {
        &self.handlers.actions.values().next().unwrap().route
    }

    pub(super) async fn call(&self, phase: Phase, input: &str) -> Outcome {
        let mut outgoing = outgoing(phase, self.timeout);
        outgoing.duty.input = Json::parse(input).unwrap();
        outgoing.duty.is_named = true;
        self.client.call(outgoing, self.route(), NOON).await
    }

    pub(super) async fn done(&self, input: &str) -> serde_json::Value {
        match self.call(Phase::Action, input).await {
            Outcome::Done(output) => output.value().clone(),
            other => panic!("not done: {other:?}"),
        }
    }

    pub(super) async fn unknown(&self, input: &str) -> String {
        match self.call(Phase::Action, input).await {
            Outcome::Unknown(cause) => cause,
            other => panic!("a certain outcome: {other:?}"),
        }
    }
}

fn left(n: i64) -> Says {
    Says::Json(json!({ "left": n.to_string(), "price": { "currency": "KRW", "units": "9007199254740993" } }))
}

#[tokio::test]
async fn a_service_is_called_by_what_its_reflection_says_in_either_version() {
    for reflects in [Reflects::V1, Reflects::V1Alpha] {
        let service = Sample::start(&compile(&SHOP), reflects, |_| left(3)).await;
        let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
        let output = caller.done(r#"{"item_id":"9007199254740993","amount":2}"#).await;
        assert_eq!(
            output,
            json!({"left": 3, "price": {"currency": "KRW", "units": 9_007_199_254_740_993_i64}}),
            "{reflects:?}"
        );
        let seen = service.seen();
        assert_eq!(seen[0].request, json!({"itemId": "9007199254740993", "amount": 2}));
    }
}

#[tokio::test]
async fn every_call_carries_its_keys_and_what_is_left_of_its_time() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |_| left(3)).await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    caller.call(Phase::Compensation, "{}").await;
    let metadata = &service.seen()[0].metadata;
    for (name, value) in [
        ("sagad-saga-id", "order-1"),
        ("sagad-step", "deduct-stock/2"),
        ("sagad-phase", "compensation"),
        ("sagad-idempotency-key", "key-1"),
        ("sagad-action-idempotency-key", "action-key-1"),
        ("sagad-attempt", "3"),
        ("sagad-epoch", "7"),
        ("sagad-token", "token-1"),
        ("grpc-timeout", "30100m"),
    ] {
        assert_eq!(metadata[name], value, "{name}");
    }
    assert!(metadata["user-agent"].starts_with("sagad/"));
    assert_eq!(service.seen()[0].method, "Deduct");
}

#[tokio::test]
async fn a_call_without_an_answer_gives_its_connection_up_and_the_next_one_learns_anew() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |seen| {
        if seen.request["amount"] == json!(1) { Says::Nothing } else { left(3) }
    })
    .await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    let hung = caller.call(Phase::Action, r#"{"amount":1}"#);
    assert!(tokio::time::timeout(Duration::from_millis(300), hung).await.is_err());
    assert_eq!(caller.done("{}").await["left"], 3);
    assert_eq!(service.seen().len(), 2);
}

#[tokio::test]
async fn a_service_without_reflection_is_called_by_the_descriptor_set_that_was_given() {
    let set = compile(&SHOP);
    let service = Sample::start(&set, Reflects::No, |_| left(3)).await;
    let bare = claim(&service.endpoint(), DEDUCT);
    let cause = Caller::of(&bare).unknown("{}").await;
    assert!(cause.contains("not sent") && cause.contains("descriptor set"), "{cause}");
    let checked = targets::check(&Handlers::check(&bare).unwrap(), &Tasks::new()).await.unwrap_err();
    assert!(
        matches!(&checked, TargetsError::NotAsked(cause) if cause.contains("no server reflection")),
        "{checked}"
    );

    let given = Claim { descriptor_set: set, ..bare };
    assert_eq!(targets::check(&Handlers::check(&given).unwrap(), &Tasks::new()).await, Ok(()));
    assert_eq!(Caller::of(&given).done("{}").await["left"], 3);
}

#[tokio::test]
async fn a_target_that_is_not_there_is_told_with_what_is() {
    let set = compile(&SHOP);
    let service = Sample::start(&set, Reflects::V1, |_| left(3)).await;
    let cases = [
        (
            "shop.stock.v1.StokService/Deduct",
            "did you mean shop.stock.v1.StockService?; offered: shop.stock.v1.StockService (Deduct, Restore)",
        ),
        ("shop.stock.v1.StockService/Deductt", "did you mean Deduct?; its unary methods: Deduct, Restore"),
        ("shop.stock.v1.StockService/Watch", "is a server-streaming method"),
        ("shop.stock.v1.StockService/Upload", "is a client-streaming method"),
    ];
    for (target, expected) in cases {
        let claimed = claim(&service.endpoint(), target);
        let handlers = Handlers::check(&claimed).unwrap();
        let TargetsError::NotOffered(problems) = targets::check(&handlers, &Tasks::new()).await.unwrap_err()
        else {
            panic!("{target}: could not be asked")
        };
        assert_eq!(problems[0].field, "actions[0].target");
        assert!(problems[0].problem.contains(expected), "{}", problems[0].problem);
        // The same is found in a descriptor set, before anybody is asked.
        let given = Claim { descriptor_set: set.clone(), ..claimed };
        let InvalidClaim(problems) = Handlers::check(&given).unwrap_err();
        assert_eq!(problems[0].field, "actions[0].target");
        assert!(problems[0].problem.contains(&expected[..20]), "{}", problems[0].problem);
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_cannot_be_registered_and_says_what_helps() {
    let handlers = Handlers::check(&claim("http://127.0.0.1:1", DEDUCT)).unwrap();
    let told = targets::check(&handlers, &Tasks::new()).await.unwrap_err().to_string();
    for part in ["http://127.0.0.1:1", "connect to", "Register it once it serves", "descriptor set"] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn a_service_that_changes_is_called_by_its_new_types() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |_| left(3)).await;
    let (address, caller) = (service.address, Caller::of(&claim(&service.endpoint(), DEDUCT)));
    assert_eq!(caller.done(r#"{"item_id":1}"#).await["left"], 3);
    service.stop().await;

    let text = SHOP[0].1.replace("int32 amount = 2;", "int32 amount = 2; string reason = 7;");
    let text = text.replace("int64 left = 1;", "int64 left = 1; string note = 9;");
    let newer = compile(&[(SHOP[0].0, &text), SHOP[1]]);
    let service = Sample::start_at(address, &newer, Reflects::V1, |seen| {
        Says::Json(json!({ "note": seen.request["reason"] }))
    })
    .await;
    assert_eq!(caller.done(r#"{"item_id":1,"reason":"why"}"#).await["note"], "why");
    drop(service);
}

#[tokio::test]
async fn an_input_that_does_not_fit_types_from_before_is_refused_only_once_they_are_learned_anew() {
    const NEW_FIELD: &str = r#"{"item_id":1,"reason":"why"}"#;
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |_| left(3)).await;
    let (address, caller) = (service.address, Caller::of(&claim(&service.endpoint(), DEDUCT)));
    assert_eq!(caller.done(r#"{"item_id":1}"#).await["left"], 3);
    service.stop().await;

    let text = SHOP[0].1.replace("int32 amount = 2;", "int32 amount = 2; string reason = 7;");
    let newer = compile(&[(SHOP[0].0, &text), SHOP[1]]);
    let silent = Sample::start_at(address, &newer, Reflects::No, |_| left(2)).await;
    for phase in [Phase::Action, Phase::Compensation, Phase::Action] {
        let outcome = caller.call(phase, NEW_FIELD).await;
        assert!(
            matches!(&outcome, Outcome::Unknown(cause) if cause.contains("not sent") && cause.contains("'reason'")),
            "{outcome:?}"
        );
    }
    assert!(silent.seen().is_empty());
    assert_eq!(caller.done(r#"{"item_id":1}"#).await["left"], 2, "what fits is called");
    silent.stop().await;

    let service = Sample::start_at(address, &newer, Reflects::V1, |_| left(1)).await;
    assert_eq!(caller.done(NEW_FIELD).await["left"], 1);
    let refused = caller.call(Phase::Compensation, r#"{"coupon":1}"#).await;
    assert!(matches!(&refused, Outcome::Refused(r) if r.code == "INPUT_MISMATCH"), "{refused:?}");
    drop(service);
}

#[tokio::test]
async fn types_in_an_any_are_asked_for_when_they_are_met() {
    const NOTE: (&str, &str) =
        ("shop/note.proto", "syntax = \"proto3\"; package shop; message Note { int64 n = 1; }");
    let with_note =
        SHOP[0].1.replace("import \"shop/types", "import \"shop/note.proto\"; import \"shop/types");
    let set = compile(&[(SHOP[0].0, &with_note), SHOP[1], NOTE]);
    let service =
        Sample::start(&set, Reflects::V1, |seen| Says::Json(json!({ "extra": seen.request["extra"] }))).await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    let extra = json!({"@type": "type.googleapis.com/shop.Note", "n": 5});
    let output = caller.done(&json!({ "extra": extra }).to_string()).await;
    assert_eq!(output["extra"], extra);
}

#[tokio::test]
async fn what_cannot_be_written_as_the_request_is_refused_and_nothing_is_sent() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |_| left(3)).await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    for phase in [Phase::Action, Phase::Compensation] {
        let Outcome::Refused(refusal) = caller.call(phase, r#"{"item":1}"#).await else {
            panic!("not refused")
        };
        assert_eq!(refusal.code, "INPUT_MISMATCH");
        assert!(refusal.message.contains("its fields: itemId, amount, extra"), "{}", refusal.message);
    }
    assert!(matches!(caller.call(Phase::Probe, r#"{"item":1}"#).await, Outcome::Unknown(_)));
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn statuses_mean_what_the_registration_says() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |seen| {
        let code = seen.request["amount"].as_i64().unwrap_or_default();
        Says::Status(Status::new(Code::from_i32(i32::try_from(code).unwrap()), "as told"))
    })
    .await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    let with = |code: Code| format!("{{\"amount\":{}}}", code as i32);
    let refused = caller.call(Phase::Action, &with(Code::NotFound)).await;
    assert!(
        matches!(&refused, Outcome::Refused(r) if r.code == "NOT_FOUND" && r.message == "as told"),
        "{refused:?}"
    );
    assert_eq!(caller.unknown(&with(Code::Aborted)).await, "ABORTED: as told");
    assert_eq!(caller.unknown(&with(Code::Unimplemented)).await, "UNIMPLEMENTED: as told");

    let mut claim = claim(&service.endpoint(), DEDUCT);
    claim.actions[0].refused_on = vec!["ABORTED".to_owned()];
    claim.actions[0].done_on = vec!["NOT_FOUND".to_owned()];
    let caller = Caller::of(&claim);
    assert_eq!(caller.call(Phase::Compensation, &with(Code::NotFound)).await, Outcome::Done(Json::null()));
    assert!(matches!(caller.call(Phase::Action, &with(Code::Aborted)).await, Outcome::Refused(_)));
    assert!(matches!(caller.call(Phase::Action, &with(Code::OutOfRange)).await, Outcome::Unknown(_)));
}

#[tokio::test]
async fn a_probe_is_asked_only_where_the_definition_names_one() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |_| left(3)).await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    assert!(matches!(caller.call(Phase::Probe, "{}").await, Outcome::Done(_)));
    let mut without = outgoing(Phase::Probe, Duration::from_secs(30));
    without.duty.is_named = false;
    assert_eq!(caller.client.call(without, caller.route(), NOON).await, Outcome::Unsupported);
    assert_eq!(service.seen().len(), 1, "the action was not called for it");
}

#[tokio::test]
async fn one_endpoint_serves_many_at_once_and_is_asked_for_its_types_once() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |_| left(3)).await;
    let caller = Arc::new(Caller::of(&claim(&service.endpoint(), DEDUCT)));
    let calls = (0..100).map(|n| {
        let caller = Arc::clone(&caller);
        async move { caller.done(&format!("{{\"amount\":{n}}}")).await }
    });
    assert_eq!(futures::future::join_all(calls).await.len(), 100);
    assert_eq!(service.seen().len(), 100);
    assert_eq!(service.questions(), FIRST);
}

/// Exchanges until all types of [`SHOP`] are there: the service, then what it imports.
const FIRST: usize = 2;

#[tokio::test]
async fn types_are_asked_for_again_only_when_they_may_be_old() {
    let service =
        Sample::start(&compile(&SHOP), Reflects::V1, |seen| match seen.request["amount"].as_i64() {
            Some(1) => Says::Status(Status::unimplemented("gone")),
            Some(2) => Says::Bytes(b"\xff".to_vec()),
            Some(3) => Says::Status(Status::unavailable("not now")),
            _ => left(3),
        })
        .await;
    let caller = Caller::of(&claim(&service.endpoint(), DEDUCT));
    let asked_after = async |input: &str| {
        caller.call(Phase::Action, input).await;
        let before = service.questions();
        caller.call(Phase::Action, "{}").await;
        (before, service.questions())
    };
    assert_eq!(asked_after("{}").await, (FIRST, FIRST));
    assert_eq!(asked_after(r#"{"amount":3}"#).await, (FIRST, FIRST));
    assert_eq!(asked_after(r#"{"amount":1}"#).await, (FIRST, 2 * FIRST), "a method that is gone");
    assert_eq!(asked_after(r#"{"amount":2}"#).await, (3 * FIRST, 3 * FIRST), "an answer that cannot be read");
    assert_eq!(asked_after(r#"{"item":1}"#).await, (4 * FIRST, 4 * FIRST), "an input that does not fit");
    caller.client.registered_again();
    assert_eq!(asked_after("{}").await, (5 * FIRST, 5 * FIRST), "another registration");
}
