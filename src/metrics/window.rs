//! What happened over the last minute, in bounded memory.

use std::time::Duration;

use parking_lot::Mutex;

use crate::saga::ids::Timestamp;

/// The length of a window, in seconds.
pub const WINDOW_SECONDS: u32 = 60;
/// Buckets for each doubling of a duration: a quantile is at most an eighth too long.
const BUCKETS_PER_DOUBLING: usize = 8;
/// Doublings from one microsecond up: 2^40 µs are 12 days.
const DOUBLINGS: usize = 40;
const BUCKETS: usize = DOUBLINGS * BUCKETS_PER_DOUBLING;

/// Counts events of the last minute.
#[derive(Debug)]
pub struct RateWindow {
    since: Timestamp,
    slots: Mutex<Ring<u64>>,
}

/// Samples of how long something took, over the last minute.
#[derive(Debug)]
pub struct LatencyWindow(Mutex<Ring<Box<[u32; BUCKETS]>>>);

/// How long something took over the last minute; `None` without samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of the samples took at most this long.
    pub p50: Option<Duration>,
    /// 95 of 100 took at most this long.
    pub p95: Option<Duration>,
    /// 99 of 100 took at most this long.
    pub p99: Option<Duration>,
    /// How many there were.
    pub samples: u64,
}

/// One slot a second, used again after a minute.
#[derive(Debug)]
struct Ring<T> {
    slots: Vec<(i64, T)>,
    empty: fn() -> T,
}

impl<T> Ring<T> {
    fn new(empty: fn() -> T) -> Self {
        Self { slots: (0..WINDOW_SECONDS).map(|_| (i64::MIN, empty())).collect(), empty }
    }

    /// The slot of this second, emptied if it held an earlier one.
    fn at(&mut self, now: Timestamp) -> &mut T {
        let second = second(now);
        let ix = usize::try_from(second.rem_euclid(i64::from(WINDOW_SECONDS))).unwrap_or(0);
        let slot = &mut self.slots[ix];
        if slot.0 != second {
            *slot = (second, (self.empty)());
        }
        &mut slot.1
    }

    /// The slots of the minute that ends now.
    fn recent(&self, now: Timestamp) -> impl Iterator<Item = &T> {
        let last = second(now);
        let first = last - i64::from(WINDOW_SECONDS) + 1;
        self.slots.iter().filter(move |(second, _)| (first..=last).contains(second)).map(|(_, slot)| slot)
    }
}

fn second(Timestamp(millis): Timestamp) -> i64 {
    millis.div_euclid(1_000)
}

impl RateWindow {
    /// A window that begins now.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, slots: Mutex::new(Ring::new(u64::default)) }
    }

    /// So many more events.
    pub fn count(&self, events: u64, now: Timestamp) {
        *self.slots.lock().at(now) += events;
    }

    /// Events over the last minute.
    #[must_use]
    pub fn total(&self, now: Timestamp) -> u64 {
        self.slots.lock().recent(now).sum()
    }

    /// Events per second over the last minute, or since the beginning if that is shorter.
    #[must_use]
    pub fn per_second(&self, now: Timestamp) -> f64 {
        let seconds = now.since(self.since).as_secs_f64().clamp(1.0, f64::from(WINDOW_SECONDS));
        self.total(now) as f64 / seconds
    }
}

impl Default for LatencyWindow {
    fn default() -> Self {
        Self(Mutex::new(Ring::new(|| Box::new([0; BUCKETS]))))
    }
}

impl LatencyWindow {
    /// One more sample.
    pub fn record(&self, took: Duration, now: Timestamp) {
        let mut ring = self.0.lock();
        let count = &mut ring.at(now)[bucket(took)];
        *count = count.saturating_add(1);
    }

    /// The last minute.
    #[must_use]
    pub fn quantiles(&self, now: Timestamp) -> Quantiles {
        let mut counts = vec![0_u64; BUCKETS];
        for slot in self.0.lock().recent(now) {
            for (sum, count) in counts.iter_mut().zip(slot.iter()) {
                *sum += u64::from(*count);
            }
        }
        let samples = counts.iter().sum();
        let at = |percent| quantile(&counts, samples, percent);
        Quantiles { p50: at(50), p95: at(95), p99: at(99), samples }
    }
}

/// The upper end of the bucket in which the sample of that rank lies.
fn quantile(counts: &[u64], samples: u64, percent: u64) -> Option<Duration> {
    let rank = (samples * percent).div_ceil(100);
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        rank > 0 && seen >= rank
    });
    found.map(upper_end)
}

/// Eight buckets of equal width for each doubling, from one microsecond up.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2() as usize;
    let within =
        ((u128::from(micros) * BUCKETS_PER_DOUBLING as u128) >> doubling) as usize - BUCKETS_PER_DOUBLING;
    (doubling * BUCKETS_PER_DOUBLING + within).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let (doubling, within) = (bucket / BUCKETS_PER_DOUBLING, bucket % BUCKETS_PER_DOUBLING);
    let eighths = (BUCKETS_PER_DOUBLING + within + 1) as u64;
    Duration::from_micros((eighths << doubling).div_ceil(BUCKETS_PER_DOUBLING as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_700_000_000_000);

    fn later(seconds: u64) -> Timestamp {
        NOON + Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_counts_the_last_minute_only() {
        let window = RateWindow::new(NOON);
        for second in 0..120 {
            window.count(1, later(second));
            window.count(1, later(second));
        }
        assert!((window.per_second(later(119)) - 2.0).abs() < 1e-9);
        assert!((window.per_second(later(149)) - 1.0).abs() < 1e-9);
        assert!(window.per_second(later(300)).abs() < 1e-9);
    }

    #[test]
    fn a_young_rate_is_not_spread_over_a_whole_minute() {
        let window = RateWindow::new(NOON);
        window.count(50, later(5));
        assert!((window.per_second(later(10)) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_at_most_an_eighth_too_long() {
        let window = LatencyWindow::default();
        for millis in 1..=1_000 {
            window.record(Duration::from_millis(millis), later(millis / 20));
        }
        let found = window.quantiles(later(50));
        assert_eq!(found.samples, 1_000);
        for (found, exact) in [(found.p50, 500), (found.p95, 950), (found.p99, 990)] {
            let (found, exact) = (found.unwrap(), Duration::from_millis(exact));
            assert!(found >= exact && found <= exact + exact / 8, "{found:?} for {exact:?}");
        }
    }

    #[test]
    fn samples_older_than_a_minute_are_gone() {
        let window = LatencyWindow::default();
        window.record(Duration::from_secs(9), NOON);
        window.record(Duration::from_millis(1), later(30));
        assert_eq!(window.quantiles(later(59)).samples, 2);
        assert_eq!(window.quantiles(later(60)).samples, 1);
        assert_eq!(window.quantiles(later(90)), Quantiles::default());
    }

    #[test]
    fn every_duration_has_a_bucket_that_holds_it() {
        for micros in [0, 1, 2, 3, 7, 8, 9, 1_000, 1_023, 1_024, 999_999, 60_000_000, 1 << 39] {
            let took = Duration::from_micros(micros);
            assert!(upper_end(bucket(took)) >= took, "{took:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
