//! How many calls ended over the last minute, and how many of them without a definite answer.

use crate::saga::ids::Timestamp;

/// Seconds in one slot.
const SLOT_SECONDS: i64 = 5;
/// Slots of a minute.
const SLOTS: i64 = 60 / SLOT_SECONDS;

/// See the module. Bounded: a slot is used again after a minute.
#[derive(Debug, Default)]
pub struct Minute([Slot; 12]);

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    /// Which five seconds since the epoch.
    number: i64,
    calls: u32,
    unknown: u32,
}

impl Minute {
    /// One more call ended.
    pub fn count(&mut self, is_unknown: bool, now: Timestamp) {
        let number = number(now);
        let place = usize::try_from(number.rem_euclid(SLOTS)).unwrap_or(0);
        let slot = &mut self.0[place];
        if slot.number != number {
            *slot = Slot { number, calls: 0, unknown: 0 };
        }
        slot.calls = slot.calls.saturating_add(1);
        slot.unknown = slot.unknown.saturating_add(u32::from(is_unknown));
    }

    /// Calls of the last minute, and those of them without a definite answer.
    pub fn total(&self, now: Timestamp) -> (u64, u64) {
        let last = number(now);
        let is_recent = |slot: &&Slot| (0..SLOTS).contains(&(last - slot.number));
        self.0.iter().filter(is_recent).fold((0, 0), |(calls, unknown), slot| {
            (calls + u64::from(slot.calls), unknown + u64::from(slot.unknown))
        })
    }
}

fn number(Timestamp(millis): Timestamp) -> i64 {
    millis.div_euclid(1_000 * SLOT_SECONDS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: Timestamp = Timestamp(1_700_000_000_000);

    #[test]
    fn what_ended_is_counted_for_a_minute_and_then_forgotten() {
        let mut minute = Minute::default();
        assert_eq!(minute.total(NOON), (0, 0));
        minute.count(true, NOON);
        minute.count(false, NOON + Duration::from_secs(30));
        assert_eq!(minute.total(NOON + Duration::from_secs(54)), (2, 1));
        assert_eq!(minute.total(NOON + Duration::from_secs(61)), (1, 0));
        minute.count(false, NOON + Duration::from_hours(1));
        assert_eq!(minute.total(NOON + Duration::from_hours(1)), (1, 0));
    }
}
