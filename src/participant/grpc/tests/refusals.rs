//! Servers that answer nonsense: nothing of it may pass for a refusal, or for success.

use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionResponse, ServiceResponse,
};

use super::calls::{Caller, SHOP, claim};
use super::service::{Reflects, Sample, Says, compile};
use crate::participant::handlers::Claim;
use crate::participant::outcome::OUTPUT_MAX_BYTES;
use crate::saga::words::{Outcome, Phase};
use crate::tasks::{Death, Tasks};

const DEDUCT: &str = "shop.stock.v1.StockService/Deduct";

#[tokio::test]
async fn a_response_that_is_no_message_is_unknown() {
    let service =
        Sample::start(&compile(&SHOP), Reflects::V1, |_| Says::Bytes(b"\xff\xff\xff".to_vec())).await;
    let cause = Caller::of(&claim(&service.endpoint(), DEDUCT)).unknown("{}").await;
    assert!(cause.contains("the response is no shop.stock.v1.DeductResponse"), "{cause}");
}

#[tokio::test]
async fn a_response_that_is_too_long_is_unknown_and_not_out_of_range() {
    let service = Sample::start(&compile(&SHOP), Reflects::V1, |seen| {
        let length = if seen.request["amount"] == json!(1) { OUTPUT_MAX_BYTES } else { 2 * OUTPUT_MAX_BYTES };
        Says::Json(json!({ "price": { "currency": "x".repeat(length) } }))
    })
    .await;
    let mut claim = claim(&service.endpoint(), DEDUCT);
    claim.actions[0].refused_on = vec!["OUT_OF_RANGE".to_owned(), "RESOURCE_EXHAUSTED".to_owned()];
    let caller = Caller::of(&claim);
    let cause = caller.unknown(r#"{"amount":1}"#).await;
    assert!(cause.contains("over the limit of 1048576"), "{cause}");
    let cause = caller.unknown(r#"{"amount":2}"#).await;
    assert!(cause.contains("a message of") && cause.contains("over the limit"), "{cause}");
}

/// Serves pages over HTTP/2 and gives the URL.
async fn serve(pages: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    Tasks::new().spawn("pages", Death::Logged, async move {
        let incoming = TcpListenerStream::new(listener);
        let routes = Routes::from(pages);
        Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
    });
    endpoint
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_unknown_whatever_its_http_status() {
    let set = compile(&SHOP);
    for status in [400_u16, 401, 403, 404, 412, 429, 500, 503] {
        let page = move || async move { (http::StatusCode::from_u16(status).unwrap(), "<html>no</html>") };
        let endpoint = serve(axum::Router::new().fallback(page)).await;
        let mut claimed = Claim { descriptor_set: set.clone(), ..claim(&endpoint, DEDUCT) };
        let refused_on = ["PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "INVALID_ARGUMENT"];
        claimed.actions[0].refused_on = refused_on.map(str::to_owned).to_vec();
        let caller = Caller::of(&claimed);
        let cause = caller.unknown("{}").await;
        assert!(cause.contains(&format!("HTTP {status}")), "{cause}");
        assert!(!matches!(caller.call(Phase::Probe, "{}").await, Outcome::Refused(_)));
    }
}

#[tokio::test]
async fn garbage_on_the_socket_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    Tasks::new().spawn("babble", Death::Logged, async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut some = [0; 64];
            let _ = socket.read(&mut some).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await;
        }
    });
    let bare = claim(&endpoint, DEDUCT);
    let given = Claim { descriptor_set: compile(&SHOP), ..bare.clone() };
    for claimed in [bare, given] {
        assert!(!Caller::of(&claimed).unknown("{}").await.is_empty());
    }
}

#[tokio::test]
async fn headers_that_are_nonsense_do_not_bring_the_call_down() {
    let page = || async {
        http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "9")
            .header("grpc-message", "%zz")
            .header("grpc-status-details-bin", "not base64!")
            .body(axum::body::Body::empty())
            .unwrap()
    };
    let endpoint = serve(axum::Router::new().fallback(page)).await;
    let caller = Caller::of(&Claim { descriptor_set: compile(&SHOP), ..claim(&endpoint, DEDUCT) });
    let answer = caller.call(Phase::Action, "{}").await;
    assert!(matches!(&answer, Outcome::Refused(r) if r.code == "FAILED_PRECONDITION"), "{answer:?}");
}

#[tokio::test]
async fn reflection_that_is_nonsense_is_told_as_such_and_nothing_is_called() {
    let page = || async {
        http::Response::builder()
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from(&b"\0\0\0\0\x03\xff\xff\xff"[..]))
            .unwrap()
    };
    let endpoint = serve(axum::Router::new().fallback(page)).await;
    let cause = Caller::of(&claim(&endpoint, DEDUCT)).unknown("{}").await;
    assert!(cause.contains("not sent: its server reflection did not answer as it should"), "{cause}");
}

#[tokio::test]
async fn a_service_that_is_listed_and_not_shown_is_told_as_such() {
    let said = |message: MessageResponse| {
        let response = ServerReflectionResponse {
            message_response: Some(message),
            ..ServerReflectionResponse::default()
        };
        framed(&response.encode_to_vec())
    };
    let name = DEDUCT.split('/').next().unwrap().to_owned();
    let service = vec![ServiceResponse { name: name.clone() }];
    let listed = said(MessageResponse::ListServicesResponse(ListServiceResponse { service }));
    let error = ErrorResponse { error_code: 13, error_message: "descriptors are gone".to_owned() };
    let broken = said(MessageResponse::ErrorResponse(error));
    let page = move |request: axum::body::Bytes| async move {
        let asks_for_it = request.windows(12).any(|part| part == b"StockService");
        http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .body(axum::body::Body::from(if asks_for_it { broken } else { listed }))
            .unwrap()
    };
    let cause =
        Caller::of(&claim(&serve(axum::Router::new().fallback(page)).await, DEDUCT)).unknown("{}").await;
    assert!(
        cause.contains(&format!("its server reflection lists {name} and does not show its types")),
        "{cause}"
    );
}

#[tokio::test]
async fn messages_without_end_are_no_answer_however_short_they_are() {
    const EMPTY: [u8; 5] = [0; 5];
    let page = || async {
        let messages = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(EMPTY.repeat(100)));
        http::Response::builder()
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from_stream(messages))
            .unwrap()
    };
    let endpoint = serve(axum::Router::new().fallback(page)).await;
    let bare = claim(&endpoint, DEDUCT);
    let given = Claim { descriptor_set: compile(&SHOP), ..bare.clone() };
    // One asks for the types first, the other calls at once.
    for claimed in [bare, given] {
        let caller = Caller::within(Duration::from_hours(1), &claimed);
        let cause = caller.unknown("{}").await;
        assert!(cause.contains("more messages than the 1 asked for"), "{cause}");
    }
}

#[tokio::test]
async fn an_input_with_a_type_that_could_not_be_asked_for_is_unknown_and_not_refused() {
    let set = prost_types::FileDescriptorSet::decode(&*compile(&SHOP)).unwrap();
    let files = set.file.iter().map(prost_types::FileDescriptorProto::encode_to_vec).collect();
    let found = FileDescriptorResponse { file_descriptor_proto: files };
    let message_response = Some(MessageResponse::FileDescriptorResponse(found));
    let response = ServerReflectionResponse { message_response, ..ServerReflectionResponse::default() };
    let files = framed(&response.encode_to_vec());
    // It knows the service, and breaks at the type in the input.
    let page = move |request: axum::body::Bytes| async move {
        let is_broken = request.windows(4).any(|part| part == b"Note");
        http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .body(axum::body::Body::from(if is_broken { framed(b"\xff") } else { files }))
            .unwrap()
    };
    let caller = Caller::of(&claim(&serve(axum::Router::new().fallback(page)).await, DEDUCT));
    let input = r#"{"extra":{"@type":"type.googleapis.com/shop.Note","n":5}}"#;
    for phase in [Phase::Compensation, Phase::Action] {
        let outcome = caller.call(phase, input).await;
        assert!(
            matches!(&outcome, Outcome::Unknown(cause) if cause.contains("'shop.Note' not found")),
            "{outcome:?}"
        );
    }
    let refused = caller.call(Phase::Action, r#"{"coupon":1}"#).await;
    assert!(matches!(&refused, Outcome::Refused(r) if r.code == "INPUT_MISMATCH"), "{refused:?}");
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}
