//! The keys of a call as headers or metadata, for the protocols whose messages have no place for them.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::Outgoing;

/// Bytes of a trace's id.
const TRACE_ID_BYTES: usize = 16;
/// Bytes of a span's id.
const SPAN_ID_BYTES: usize = 8;

/// What identifies a call, by lower-case names.
pub(super) fn headers(outgoing: &Outgoing) -> HeaderMap {
    let duty = &outgoing.duty;
    let (attempt, epoch) = (duty.attempt.to_string(), duty.epoch.to_string());
    let trace = traceparent(outgoing);
    let values: [(&'static str, &str); 9] = [
        ("sagad-saga-id", outgoing.saga_id.as_str()),
        ("sagad-step", &duty.step),
        ("sagad-phase", duty.phase.as_str()),
        ("sagad-idempotency-key", &outgoing.key),
        ("sagad-action-idempotency-key", &outgoing.action_key),
        ("sagad-attempt", &attempt),
        ("sagad-epoch", &epoch),
        ("sagad-token", &outgoing.token),
        ("traceparent", &trace),
    ];
    let value = |text: &str| HeaderValue::from_str(text).expect("names, ids and keys are printable ASCII");
    values.into_iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
}

/// The call's place in a trace, in W3C's form. All calls of a saga are in one trace, and each attempt
/// is a span of its own; both follow from the names alone, so that they are the same on every daemon.
fn traceparent(outgoing: &Outgoing) -> String {
    let duty = &outgoing.duty;
    let trace = hash(&[b"trace", outgoing.saga_id.as_str().as_bytes()]);
    let attempt = duty.attempt.to_be_bytes();
    let span = hash(&[b"span", &trace, duty.step.as_bytes(), duty.phase.as_str().as_bytes(), &attempt]);
    let mut text = String::from("00-");
    let mut write = |bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('-');
    };
    write(&trace[..TRACE_ID_BYTES]);
    write(&span[..SPAN_ID_BYTES]);
    text + "01"
}

/// The hash of the parts, each behind its length.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::outgoing;
    use super::*;
    use crate::saga::words::Phase;

    fn parts(text: &str) -> Vec<String> {
        text.split('-').map(str::to_owned).collect()
    }

    #[test]
    fn the_calls_of_a_saga_are_one_trace_and_each_attempt_is_a_span() {
        let first = outgoing(Phase::Action, "{}");
        let mut second = first.clone();
        second.duty.attempt += 1;
        let (one, two) = (parts(&traceparent(&first)), parts(&traceparent(&second)));
        assert_eq!(one.iter().map(String::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!((&one[0], &one[1], &one[3]), (&two[0], &two[1], &two[3]));
        assert_ne!(one[2], two[2]);
        let undo = parts(&traceparent(&outgoing(Phase::Compensation, "{}")));
        assert_eq!(one[1], undo[1]);
        assert_ne!(one[2], undo[2]);
        assert_eq!(traceparent(&first), traceparent(&first.clone()));
    }

    #[test]
    fn every_key_has_its_header() {
        let sent = headers(&outgoing(Phase::Compensation, "{}"));
        let value = |name: &str| sent[name].to_str().unwrap().to_owned();
        assert_eq!(value("sagad-saga-id"), "shop/order:1");
        assert_eq!(value("sagad-step"), "deduct-stock/2");
        assert_eq!(value("sagad-phase"), "compensation");
        assert_eq!(value("sagad-idempotency-key"), "undo-key-1");
        assert_eq!(value("sagad-action-idempotency-key"), "action-key-1");
        assert_eq!(value("sagad-attempt"), "3");
        assert_eq!(value("sagad-epoch"), "7");
        assert_eq!(value("sagad-token"), "tag.action.deduct-stock/2.shop/order:1");
        assert_eq!(value("traceparent").len(), 55);
    }
}
