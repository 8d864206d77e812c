//! Services that break the rules of the protocol, byte by byte.

use std::future::Future;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::tasks::Death;

/// Has `serve` look after each connection.
async fn each<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> Caller {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::of(listener.local_addr().unwrap());
    let (tasks, stop) = (caller.tasks.clone(), caller.tasks.stopping());
    caller.tasks.spawn("bad service", Death::Logged, async move {
        for number in 0.. {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = stop.cancelled() => return,
            };
            let (serving, stop) = (serve(socket, number), stop.clone());
            tasks.spawn("connection", Death::Logged, async move {
                tokio::select! {
                    () = serving => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    caller
}

/// Reads one request with a body of two bytes; false when the caller has closed.
async fn request(socket: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n{}") {
        match socket.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// Answers the first request of each connection with these bytes and closes.
async fn answering(bytes: impl AsRef<[u8]> + Clone + Send + Sync + 'static) -> Caller {
    each(move |mut socket, _| {
        let bytes = bytes.clone();
        async move {
            if request(&mut socket).await {
                let _ = socket.write_all(bytes.as_ref()).await;
                let _ = socket.shutdown().await;
            }
        }
    })
    .await
}

fn done(json: &str) -> Outcome {
    Outcome::Done(Json::trusted(json.to_owned()))
}

#[tokio::test]
async fn an_answer_that_is_broken_in_any_way_is_unknown() {
    let cases = [
        ("", "connection closed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n", "connection closed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"a\"", "broke off"),
        ("HTTP/1.1 422 No\r\ncontent-length: 10\r\n\r\n{\"a\"", "broke off"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":", "broke off"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}", "broke off"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}}", "content-length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}", "content-length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}", "cannot be read"),
        ("\u{7}\u{7}\u{7}\u{7} garbage\r\n\r\n", "invalid"),
        ("SSH-2.0-OpenSSH_9.6\r\n", "invalid"),
        ("HTTP/1.1 99999 Many\r\n\r\n", "invalid"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "HTTP 101"),
        ("HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n", "leads to /b"),
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP 500 Internal Server Error"),
    ];
    for (bytes, expected) in cases {
        let cause = answering(bytes).await.unknown("POST /a").await;
        assert!(cause.contains(expected), "{bytes:?} said {cause:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_odd_but_whole_counts() {
    let cases = [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}",
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 7\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200\r\nContent-Length: 7\r\nConnection: close\r\n\r\n{\"a\":1}",
    ];
    for bytes in cases {
        assert_eq!(answering(bytes).await.call("POST /a", "{}").await, done("{\"a\":1}"), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_unknown() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\n{{}}", "x".repeat(128 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\n{{}}", "x: y\r\n".repeat(1_000));
    for bytes in [long, many] {
        answering(bytes).await.unknown("POST /a").await;
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_given_up_at_the_limit() {
    let caller = each(|mut socket, _| async move {
        if request(&mut socket).await {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\"";
            let mut going_on = socket.write_all(head).await;
            while going_on.is_ok() {
                going_on = socket.write_all(&[b'x'; 8 * 1024]).await;
            }
        }
    })
    .await;
    let cause = caller.unknown("POST /a").await;
    assert!(cause.contains("over the limit of 1048576 bytes"), "{cause}");
}

#[tokio::test]
async fn a_byte_at_a_time_is_no_answer() {
    let caller = each(|mut socket, _| async move {
        if request(&mut socket).await {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
            let mut going_on = socket.write_all(head).await;
            while going_on.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                going_on = socket.write_all(b" ").await;
            }
        }
    })
    .await;
    let answering = caller.call("POST /a", "{}");
    assert!(tokio::time::timeout(Duration::from_millis(200), answering).await.is_err());
}

#[tokio::test]
async fn a_connection_closed_while_it_waited_costs_nothing() {
    let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
    let caller = each(move |mut socket, number| {
        let closed = closed.clone();
        async move {
            if request(&mut socket).await {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            drop(socket);
            closed.send(()).unwrap();
        }
    })
    .await;
    for number in 0..10 {
        assert_eq!(caller.call("POST /a", "{}").await, done(&number.to_string()));
        is_closed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_closed_under_a_call_makes_it_unknown_and_it_is_not_sent_again() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let caller = each(move |mut socket, number| {
        let seen = seen.clone();
        async move {
            while request(&mut socket).await {
                seen.send(number).unwrap();
                let answered = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1");
                answered.await.unwrap();
                if request(&mut socket).await {
                    seen.send(number).unwrap();
                    return;
                }
            }
        }
    })
    .await;
    assert_eq!(caller.call("POST /a", "{}").await, done("1"));
    caller.unknown("POST /a").await;
    assert_eq!(caller.call("POST /a", "{}").await, done("1"));
    let order = [requests.recv().await, requests.recv().await, requests.recv().await];
    assert_eq!(order, [Some(0), Some(0), Some(1)], "one request a call");
}

#[tokio::test]
async fn nobody_there_and_a_service_of_another_protocol_are_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for version in ["HTTP/1.1", "HTTP/2"] {
        let cause = Caller::of(address).unknown(&format!("POST /a {version}")).await;
        assert!(cause.starts_with(&format!("connect to http://{address}: ")), "{cause}");
    }
    let caller = each(|mut socket, _| async move {
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        // What it is sent is read, so that closing does not take its answer back.
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert!(!caller.unknown("POST /a HTTP/2").await.is_empty());
}
