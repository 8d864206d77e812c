//! Backoff and budget: when the next attempt is due, and when there is none.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::definition::RetryPolicy;
use super::state::Tries;

/// The delay before the attempt that follows, or `None` when the budget is spent.
///
/// `tries` holds what was spent up to and including the attempt that just ended. The delay is
/// `initial · factorⁿ⁻¹`, at most `max`, spread by `jitter`; the spread is a hash of the call's
/// key and attempt, so that the same journal always gives the same times.
#[must_use]
pub fn next_delay(policy: &RetryPolicy, tries: &Tries, key: &str) -> Option<Duration> {
    if policy.attempts > 0 && tries.spent_attempts >= policy.attempts {
        return None;
    }
    let delay = spread(policy, backoff(policy, tries.spent_attempts), key, tries.attempt);
    let is_over = !policy.elapsed.is_zero() && tries.spent + delay > policy.elapsed;
    (!is_over).then_some(delay)
}

/// The delay after `attempts` attempts, before it is spread.
fn backoff(policy: &RetryPolicy, attempts: u32) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = policy.initial.as_secs_f64() * policy.factor.powi(exponent);
    if seconds.is_finite() && seconds < policy.max.as_secs_f64() {
        Duration::from_secs_f64(seconds.max(0.0))
    } else {
        policy.max
    }
}

/// Moves `delay` by up to `jitter` of itself in either direction.
fn spread(policy: &RetryPolicy, delay: Duration, key: &str, attempt: u32) -> Duration {
    let hash = Sha256::new().chain_update(key).chain_update(attempt.to_be_bytes()).finalize();
    let share = f64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX);
    let factor = 1.0 + policy.jitter * (2.0 * share - 1.0);
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(policy.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            initial: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(1),
            jitter: 0.0,
            attempts: 8,
            elapsed: Duration::from_mins(1),
        }
    }

    fn tries(attempts: u32, spent: Duration) -> Tries {
        Tries { attempt: attempts, spent_attempts: attempts, spent, ..Tries::default() }
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays: Vec<u64> = (1..=6)
            .filter_map(|n| next_delay(&policy(), &tries(n, Duration::ZERO), "k"))
            .map(|d| u64::try_from(d.as_millis()).unwrap())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn the_budget_ends_at_whichever_limit_comes_first() {
        assert_eq!(next_delay(&policy(), &tries(8, Duration::ZERO), "k"), None);
        assert_eq!(next_delay(&policy(), &tries(1, Duration::from_millis(59_950)), "k"), None);
        assert!(next_delay(&policy(), &tries(7, Duration::ZERO), "k").is_some());
    }

    #[test]
    fn zero_means_no_limit() {
        let unlimited = RetryPolicy { attempts: 0, elapsed: Duration::ZERO, ..policy() };
        assert_eq!(
            next_delay(&unlimited, &tries(u32::MAX, Duration::from_hours(1_000)), "k"),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn jitter_stays_within_its_share_and_repeats_itself() {
        let spread_out = RetryPolicy { jitter: 0.2, ..policy() };
        for n in 1..50 {
            let key = format!("key-{n}");
            let delay = next_delay(&spread_out, &tries(1, Duration::ZERO), &key).unwrap();
            assert!((80..=120).contains(&delay.as_millis()), "{delay:?}");
            assert_eq!(Some(delay), next_delay(&spread_out, &tries(1, Duration::ZERO), &key));
        }
    }
}
