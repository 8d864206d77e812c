//! Idempotency keys, and the tokens that complete a pending step.

use sha2::{Digest as _, Sha256};

use super::ids::SagaId;
use super::words::Phase;

/// Bytes of the hash that make a key: 40 hexadecimal characters.
const KEY_BYTES: usize = 20;
/// Bytes of the hash that sign a token: 32 hexadecimal characters.
const TAG_BYTES: usize = 16;

/// The key of a call: a function of the saga, the step instance and the phase, and of nothing
/// else, so that every attempt on every daemon carries the same one.
#[must_use]
pub fn idempotency_key(saga: &SagaId, step: &str, phase: Phase) -> String {
    hex(&digest(&[saga.as_str().as_bytes(), step.as_bytes(), phase.as_str().as_bytes()]), KEY_BYTES)
}

/// The token by which a participant finishes a pending call later. Constant per step instance and
/// phase; `secret` is the store's own, so that nobody can make one up.
#[must_use]
pub fn token(secret: &[u8; 32], saga: &SagaId, step: &str, phase: Phase) -> String {
    format!("{}.{}.{step}.{saga}", tag(secret, saga, step, phase), phase.as_str())
}

/// What a token stands for; `None` when this store did not make it.
#[must_use]
pub fn parse_token(secret: &[u8; 32], token: &str) -> Option<(SagaId, String, Phase)> {
    let mut parts = token.splitn(4, '.');
    let (given, phase, step, saga) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let phase = match phase {
        "action" => Phase::Action,
        "compensation" => Phase::Compensation,
        _ => return None,
    };
    let saga = SagaId::parse(saga).ok()?;
    let expected = tag(secret, &saga, step, phase);
    let is_equal = given.len() == expected.len()
        && given.bytes().zip(expected.bytes()).fold(0, |d, (a, b)| d | (a ^ b)) == 0;
    is_equal.then(|| (saga, step.to_owned(), phase))
}

fn tag(secret: &[u8; 32], saga: &SagaId, step: &str, phase: Phase) -> String {
    hex(&digest(&[secret, saga.as_str().as_bytes(), step.as_bytes(), phase.as_str().as_bytes()]), TAG_BYTES)
}

/// The hash of the parts, each behind its length, so that no two lists of parts look alike.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn hex(bytes: &[u8], count: usize) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let halves = bytes.iter().take(count).flat_map(|byte| [byte >> 4, byte & 0xf]);
    halves.map(|half| char::from(DIGITS[usize::from(half)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SagaId {
        SagaId::parse(text).unwrap()
    }

    #[test]
    fn a_key_tells_saga_step_and_phase_apart_and_is_short_ascii() {
        let keys = [
            idempotency_key(&id("a"), "bc", Phase::Action),
            idempotency_key(&id("ab"), "c", Phase::Action),
            idempotency_key(&id("a"), "bc", Phase::Compensation),
            idempotency_key(&id("a"), "bc/0", Phase::Action),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(key.len() <= 64 && key.is_ascii());
            assert!(keys[i + 1..].iter().all(|other| other != key));
        }
    }

    #[test]
    fn keys_never_change_between_releases() {
        assert_eq!(
            idempotency_key(&id("order-1"), "use-point", Phase::Action),
            "2d766410d58a1ea7a2e81a195e82bb165b550ed1"
        );
    }

    #[test]
    fn a_token_comes_back_whole_and_a_forged_one_does_not() {
        let secret = [7; 32];
        let made = token(&secret, &id("shop.kr:1/2"), "deduct-stock/3", Phase::Compensation);
        assert_eq!(
            parse_token(&secret, &made),
            Some((id("shop.kr:1/2"), "deduct-stock/3".to_owned(), Phase::Compensation))
        );
        assert_eq!(parse_token(&[8; 32], &made), None);
        assert_eq!(parse_token(&secret, &made.replace("stock/3", "stock/4")), None);
        assert_eq!(parse_token(&secret, "nonsense"), None);
    }
}
