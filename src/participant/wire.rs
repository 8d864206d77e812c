//! One exchange with a gRPC server, taken apart by hand.
//!
//! What matters here is who said what: a status counts as the service's own word only where it stands
//! in an answer of gRPC form. A client library also makes up statuses of its own (an answer that is too
//! long becomes `OUT_OF_RANGE`, a proxy's page becomes `PERMISSION_DENIED`), and those must never pass
//! for a refusal.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use tonic::{Code, Status};

use super::line::{AnswerBody, Exchange};
use super::outcome;

/// What stands before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Largest answer of a call, in bytes: an output and what is around it.
const ANSWER_MAX_BYTES: usize = outcome::OUTPUT_MAX_BYTES + 64 * 1024;
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How much longer a server is given than the call.
const TIMEOUT_SLACK: Duration = Duration::from_millis(100);
/// The largest number that fits into `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: u128 = 99_999_999;
/// Details are read with and without padding.
const DETAILS: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is asked: a method's path, headers beside those that every call has, and the messages.
pub(super) struct Question {
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) messages: Bytes,
    /// Most bytes of all messages of the answer together, with what stands before each.
    pub(super) answer_max_bytes: usize,
    /// Most messages of the answer.
    pub(super) answers_max: usize,
}

impl Question {
    /// One request, to which one answer of the size of a call's is expected.
    pub(super) fn unary(path: PathAndQuery, headers: HeaderMap, request: &impl prost::Message) -> Self {
        let messages = messages(std::slice::from_ref(request));
        Self { path, headers, messages, answer_max_bytes: ANSWER_MAX_BYTES, answers_max: 1 }
    }
}

/// What the service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) messages: Vec<Bytes>,
    pub(super) status: ServiceStatus,
}

impl Answer {
    /// The message of an answer that must have one.
    pub(super) fn only(&self) -> Result<&Bytes, String> {
        match self.messages.as_slice() {
            [message] => Ok(message),
            messages => Err(format!("the answer has {} messages, not one", messages.len())),
        }
    }
}

/// A status in the service's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceStatus {
    pub(super) code: Code,
    pub(super) message: String,
    /// An encoded `google.rpc.Status`, or nothing.
    pub(super) details: Vec<u8>,
}

/// Why there is no answer of gRPC form: nothing is known of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Something answered, but not a gRPC service.
    NotGrpc(String),
    /// The answer broke off, is too long, or cannot be read.
    Broken(String),
}

/// The most of an answer that is kept.
struct Limits {
    bytes: usize,
    messages: usize,
}

impl NoAnswer {
    pub(super) fn cause(self) -> String {
        match self {
            NoAnswer::NotGrpc(cause) | NoAnswer::Broken(cause) => cause,
        }
    }
}

/// Messages of a question, as they are sent: each behind its prefix.
pub(super) fn messages<M: prost::Message>(messages: &[M]) -> Bytes {
    let length = messages.iter().map(|message| PREFIX_BYTES + message.encoded_len()).sum();
    let mut framed = BytesMut::with_capacity(length);
    for message in messages {
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.encoded_len()).expect("requests are bounded far below 4 GiB"));
        message.encode_raw(&mut framed);
    }
    framed.freeze()
}

/// Sends the question over a connection and reads the answer to its end, however long that takes.
///
/// # Errors
/// There is no answer of gRPC form.
pub(super) async fn ask(exchange: Exchange, origin: &Uri, question: Question) -> Result<Answer, NoAnswer> {
    let limits = Limits { bytes: question.answer_max_bytes, messages: question.answers_max };
    let broken = |cause: Status| NoAnswer::Broken(outcome::cause(&cause));
    let answer = exchange.send(request(origin, question)).await.map_err(broken)?;
    read(answer, limits).await
}

fn request(origin: &Uri, question: Question) -> Request<Bytes> {
    let Question { path, headers, messages, .. } = question;
    let mut parts = origin.clone().into_parts();
    parts.path_and_query = Some(path);
    let mut request = Request::new(messages);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(parts).expect("an endpoint has a scheme and a host");
    *request.headers_mut() = headers;
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

async fn read(answer: Response<AnswerBody>, limits: Limits) -> Result<Answer, NoAnswer> {
    let (head, mut body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(NoAnswer::NotGrpc(format!("the answer is HTTP {}, not gRPC", head.status)));
    }
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(b"application/grpc") {
        let kind = String::from_utf8_lossy(kind);
        return Err(NoAnswer::NotGrpc(format!("the answer is {kind:?}, not gRPC")));
    }
    // An answer without messages may be its headers alone.
    let mut status = status(&head.headers);
    let (mut unread, mut messages, mut left) = (BytesMut::new(), Vec::new(), limits.bytes);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NoAnswer::Broken(format!("the answer broke off: {error}")))?;
        match frame.into_data() {
            Ok(data) => {
                unread.extend_from_slice(&data);
                while let Some(message) = next_message(&mut unread, left)? {
                    if messages.len() == limits.messages {
                        let asked = limits.messages;
                        let cause = format!("the answer has more messages than the {asked} asked for");
                        return Err(NoAnswer::Broken(cause));
                    }
                    left -= PREFIX_BYTES + message.len();
                    messages.push(message);
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    status = self::status(&trailers).or(status);
                }
            }
        }
    }
    if !unread.is_empty() {
        return Err(NoAnswer::Broken("the answer ends within a message".to_owned()));
    }
    let status = status.ok_or_else(|| NoAnswer::Broken("the answer ends without a status".to_owned()))?;
    Ok(Answer { messages, status })
}

/// The first message, once all of it is there. It takes at most `max` bytes with what stands before it.
fn next_message(unread: &mut BytesMut, max: usize) -> Result<Option<Bytes>, NoAnswer> {
    let Some(mut prefix) = unread.get(..PREFIX_BYTES) else { return Ok(None) };
    let is_plain = prefix.get_u8() == 0;
    let length = prefix.get_u32() as usize;
    if !is_plain {
        let cause = "the answer is compressed, which was not asked for";
        return Err(NoAnswer::Broken(cause.to_owned()));
    }
    if PREFIX_BYTES + length > max {
        let cause = format!("the answer has a message of {length} bytes, over the limit of {max}");
        return Err(NoAnswer::Broken(cause));
    }
    if unread.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    unread.advance(PREFIX_BYTES);
    Ok(Some(unread.split_to(length).freeze()))
}

fn status(headers: &HeaderMap) -> Option<ServiceStatus> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    let message = headers.get("grpc-message").map(|text| percent_decoded(text.as_bytes()));
    let details = headers.get("grpc-status-details-bin");
    let details = details.and_then(|text| DETAILS.decode(text.as_bytes()).ok());
    Some(ServiceStatus { code, message: message.unwrap_or_default(), details: details.unwrap_or_default() })
}

/// `text` with its percent-encoded bytes decoded; what is not well formed stays as it is.
fn percent_decoded(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits"));
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Tells a server how long it has, `grpc-timeout`: eight digits and a unit. It is given a little longer
/// than the call, so that a passed timeout always reads the same: the daemon's own comes first.
pub(super) fn give_time(headers: &mut HeaderMap, timeout: Duration) {
    let text = grpc_timeout(timeout.saturating_add(TIMEOUT_SLACK));
    headers.insert(TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter"));
}

fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis if millis <= TIMEOUT_DIGITS_MAX => format!("{millis}m"),
        millis => format!("{}S", (millis / 1_000).min(TIMEOUT_DIGITS_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_decoded_and_what_is_not_encoded_is_left_alone() {
        let cases: [(&[u8], &str); 4] =
            [(b"none%20left", "none left"), (b"%EC%A3%BC", "주"), (b"50% off", "50% off"), (b"%4", "%4")];
        for (text, decoded) in cases {
            assert_eq!(percent_decoded(text), decoded);
        }
    }

    #[test]
    fn a_timeout_has_eight_digits_at_most() {
        assert_eq!(grpc_timeout(Duration::from_millis(1_500)), "1500m");
        assert_eq!(grpc_timeout(Duration::from_hours(24 * 365)), "31536000S");
        assert_eq!(grpc_timeout(Duration::MAX), "99999999S");
    }

    #[test]
    fn messages_are_cut_out_of_what_has_come_and_never_before_they_are_whole() {
        let mut unread = BytesMut::from(&b"\0\0\0\0\x02ab\0\0\0\0\x01"[..]);
        assert_eq!(next_message(&mut unread, 10).unwrap().unwrap(), "ab");
        assert_eq!(next_message(&mut unread, 10), Ok(None));
        unread.extend_from_slice(b"c");
        assert_eq!(next_message(&mut unread, 10).unwrap().unwrap(), "c");
        assert_eq!(next_message(&mut unread, 10), Ok(None));
    }

    #[test]
    fn a_message_that_is_too_long_or_compressed_is_no_answer() {
        let long = next_message(&mut BytesMut::from(&b"\0\xff\xff\xff\xff"[..]), 10).unwrap_err();
        assert!(long.cause().contains("4294967295 bytes, over the limit of 10"));
        let packed = next_message(&mut BytesMut::from(&b"\x01\0\0\0\0"[..]), 10).unwrap_err();
        assert!(packed.cause().contains("compressed"));
    }

    #[test]
    fn a_status_is_read_whatever_its_details_are() {
        let mut headers = HeaderMap::new();
        assert_eq!(status(&headers), None);
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        headers.insert("grpc-message", HeaderValue::from_static("no%20such%20item"));
        headers.insert("grpc-status-details-bin", HeaderValue::from_static("not base64!"));
        let read = status(&headers).unwrap();
        assert_eq!((read.code, read.message.as_str()), (Code::NotFound, "no such item"));
        assert!(read.details.is_empty());
        headers.insert("grpc-status", HeaderValue::from_static("nonsense"));
        assert_eq!(status(&headers).unwrap().code, Code::Unknown);
    }
}
