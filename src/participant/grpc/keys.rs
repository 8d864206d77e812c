//! What every call carries as metadata: whose it is, and the keys by which a service knows a call that
//! it has seen before.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::wire::percent_encoded;
use crate::participant::Outgoing;

/// The metadata of a call.
pub(super) fn metadata(outgoing: &Outgoing) -> HeaderMap {
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
    let value = |text: &str| {
        HeaderValue::try_from(percent_encoded(text)).expect("a percent-encoded text is a legal value")
    };
    values.into_iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
}

/// The W3C form of where the call stands: all calls of a saga are one trace, and each is a span of its
/// own. The daemon keeps no spans; both ids follow from the call, so that they can be found again.
fn traceparent(outgoing: &Outgoing) -> String {
    let duty = &outgoing.duty;
    let trace = hash(&[outgoing.saga_id.as_str()]);
    let span = hash(&[outgoing.saga_id.as_str(), &duty.step, duty.phase.as_str(), &duty.attempt.to_string()]);
    format!("00-{}-{}-01", &trace[..32], &span[..16])
}

/// The hash of the parts, each behind its length, in hexadecimal.
fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::participant::dispatch::tests::outgoing;
    use crate::saga::words::Phase;
    use std::time::Duration;

    #[test]
    fn a_call_carries_all_its_keys() {
        let sent = metadata(&outgoing(Phase::Compensation, Duration::from_secs(1)));
        let value = |name: &str| sent[name].to_str().unwrap().to_owned();
        assert_eq!(value("sagad-saga-id"), "order-1");
        assert_eq!(value("sagad-step"), "deduct-stock/2");
        assert_eq!(value("sagad-phase"), "compensation");
        assert_eq!(value("sagad-idempotency-key"), "key-1");
        assert_eq!(value("sagad-action-idempotency-key"), "action-key-1");
        assert_eq!(value("sagad-attempt"), "3");
        assert_eq!(value("sagad-epoch"), "7");
        assert_eq!(value("sagad-token"), "token-1");
        assert_eq!(value("traceparent").len(), 55);
    }

    #[test]
    fn a_saga_is_one_trace_and_each_attempt_a_span_of_its_own() {
        let first = outgoing(Phase::Action, Duration::from_secs(1));
        let mut second = first.clone();
        second.duty.attempt += 1;
        let (first, again, second) = (traceparent(&first), traceparent(&first), traceparent(&second));
        assert_eq!(first, again);
        assert_eq!(first[..36], second[..36]);
        assert_ne!(first[36..52], second[36..52]);
    }
}
