//! A service that behaves, over both versions of the protocol.

use axum::body::to_bytes;
use axum::extract::Request as Asked;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use crate::tasks::Death;

/// A request as the service saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: String,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// A service that answers everything with `{"ok":true}` and remembers what it was asked.
fn pages(log: &Log) -> axum::Router {
    let log = Arc::clone(log);
    axum::Router::new().fallback(move |asked: Asked| {
        let log = Arc::clone(&log);
        async move {
            let (head, body) = asked.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let line = format!("{} {} {:?}", head.method, head.uri.path_and_query().unwrap(), head.version);
            let body = String::from_utf8(body.to_vec()).unwrap();
            log.lock().push(Seen { line, headers: head.headers, body });
            (StatusCode::CREATED, [("content-type", "application/json")], r#"{"ok":true}"#)
        }
    })
}

/// Serves over HTTP/1.1, or over HTTP/2 alone.
async fn serve(log: &Log, is_http2: bool) -> Caller {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::of(listener.local_addr().unwrap());
    let pages = pages(log);
    let stop = caller.tasks.stopping();
    caller.tasks.spawn("service", Death::Logged, async move {
        let serving = async {
            if is_http2 {
                let incoming = TcpListenerStream::new(listener);
                let server = tonic::transport::Server::builder();
                server
                    .accept_http1(false)
                    .add_routes(pages.into())
                    .serve_with_incoming(incoming)
                    .await
                    .unwrap();
            } else {
                axum::serve(listener, pages).await.unwrap();
            }
        };
        tokio::select! {
            () = serving => {}
            () = stop.cancelled() => {}
        }
    });
    caller
}

fn done() -> Outcome {
    Outcome::Done(Json::trusted(r#"{"ok":true}"#.to_owned()))
}

#[tokio::test]
async fn a_request_carries_path_keys_and_the_input_byte_for_byte() {
    const INPUT: &str = r#"{ "item": {"id": "a/1"}, "n": 9007199254740993 }"#;
    for (is_http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2")] {
        let log = Log::default();
        let caller = serve(&log, is_http2).await;
        let target = format!("POST /stock/{{item.id}}/deduct?amount={{n}} {version}");
        assert_eq!(caller.call(&target, INPUT).await, done());
        let seen = log.lock().pop().unwrap();
        let expected = format!("POST /stock/a%2F1/deduct?amount=9007199254740993 {version}");
        assert_eq!(seen.line, expected.replace("HTTP/2", "HTTP/2.0"));
        assert_eq!(seen.body, INPUT);
        let expected = [
            ("sagad-saga-id", "shop/order:1"),
            ("sagad-step", "deduct-stock/2"),
            ("sagad-phase", "action"),
            ("sagad-idempotency-key", "action-key-1"),
            ("sagad-action-idempotency-key", "action-key-1"),
            ("sagad-attempt", "3"),
            ("sagad-epoch", "7"),
            ("sagad-token", "tag.action.deduct-stock/2.shop/order:1"),
            ("sagad-callback-path", "/v1/steps/tag.action.deduct-stock%2F2.shop%2Forder%3A1"),
            ("idempotency-key", "action-key-1"),
            ("content-type", "application/json"),
            ("content-length", "48"),
            ("accept", "application/json"),
        ];
        for (name, value) in expected {
            assert_eq!(seen.headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
        }
        assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("sagad/"));
        assert!(seen.headers["traceparent"].to_str().unwrap().starts_with("00-"));
        assert!(!seen.headers.contains_key("accept-encoding"));
    }
}

#[tokio::test]
async fn a_compensation_carries_both_keys() {
    let log = Log::default();
    let caller = serve(&log, false).await;
    let undo = outgoing(Phase::Compensation, "{}");
    assert_eq!(caller.client.call(undo, &route("POST /undo"), NOON).await, done());
    let seen = log.lock().pop().unwrap();
    let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("sagad-phase"), "compensation");
    assert_eq!(
        (header("idempotency-key"), header("sagad-idempotency-key")),
        ("undo-key-1".into(), "undo-key-1".into())
    );
    assert_eq!(header("sagad-action-idempotency-key"), "action-key-1");
}

#[tokio::test]
async fn get_and_delete_have_no_body() {
    for (is_http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2")] {
        let log = Log::default();
        let caller = serve(&log, is_http2).await;
        for method in ["GET", "DELETE"] {
            assert_eq!(
                caller.call(&format!("{method} /items/{{id}} {version}"), r#"{"id":7}"#).await,
                done()
            );
            let seen = log.lock().pop().unwrap();
            assert!(seen.line.starts_with(&format!("{method} /items/7 ")), "{}", seen.line);
            assert_eq!(seen.body, "");
            assert!(!seen.headers.contains_key("content-type"));
        }
    }
}

#[tokio::test]
async fn a_question_is_named_by_the_definition_and_carries_no_idempotency_key() {
    let log = Log::default();
    let caller = serve(&log, false).await;
    let mut probe = outgoing(Phase::Probe, "{}");
    assert_eq!(caller.client.call(probe.clone(), &route("GET /look"), NOON).await, done());
    let seen = log.lock().pop().unwrap();
    assert!(!seen.headers.contains_key("idempotency-key"));
    assert_eq!(seen.headers["sagad-action-idempotency-key"], "action-key-1");
    probe.duty.is_named = false;
    assert_eq!(caller.client.call(probe, &route("POST /deduct"), NOON).await, Outcome::Unsupported);
    assert!(log.lock().is_empty());
}

#[tokio::test]
async fn an_input_that_does_not_fit_the_path_is_refused_and_nothing_is_sent() {
    let log = Log::default();
    let caller = serve(&log, false).await;
    for phase in [Phase::Action, Phase::Compensation] {
        let call = outgoing(phase, r#"{"id":null}"#);
        let Outcome::Refused(refusal) = caller.client.call(call, &route("POST /{id}"), NOON).await else {
            panic!("not refused")
        };
        assert_eq!(refusal.code, codes::INPUT_MISMATCH);
        assert!(refusal.message.contains("nothing was sent") && refusal.message.contains("`id`"));
    }
    let question = outgoing(Phase::Probe, "{}");
    let outcome = caller.client.call(question, &route("GET /{id}"), NOON).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(log.lock().is_empty());
}

#[tokio::test]
async fn calls_leave_their_connection_to_the_next() {
    let (count, connections) = tokio::sync::watch::channel(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::of(listener.local_addr().unwrap());
    let pages = pages(&Log::default());
    let stop = caller.tasks.stopping();
    let counted = axum::serve::ListenerExt::tap_io(listener, move |_| count.send_modify(|n| *n += 1));
    caller.tasks.spawn("service", Death::Logged, async move {
        tokio::select! {
            served = axum::serve(counted, pages).into_future() => served.unwrap(),
            () = stop.cancelled() => {}
        }
    });
    for _ in 0..20 {
        assert_eq!(caller.call("POST /a", "{}").await, done());
    }
    assert_eq!(*connections.borrow(), 1);
    futures::future::join_all((0..8).map(|_| caller.call("POST /a", "{}"))).await;
    assert!((2..=8).contains(&*connections.borrow()));
}
