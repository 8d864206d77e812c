//! Whether calls to one endpoint are let through, by what became of the latest ones.
//!
//! ```text
//!            fails                    the time has passed
//!   CLOSED ─────────► OPEN (no call) ────────────────────► HALF OPEN: 1, 2, 4, … calls at a time
//!     ▲                 ▲                                     │      │
//!     │                 └───── fails again, for twice as long ┘      │
//!     └────────────────── all that the endpoint takes, or calm ──────┘
//! ```
//! Pure: time is an argument, nothing is called, waited for or logged. Who grants calls asks
//! [`Breaker::room`], takes a place with [`Breaker::take`] and gives it back with what came of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::saga::ids::Timestamp;

/// So many unknown outcomes in a row open it: fewer are an accident, and each one more is an attempt of
/// somebody's.
pub const FAILS_IN_A_ROW: usize = 5;
/// How many of the latest outcomes are remembered.
const LATEST: usize = 32;
/// Outcomes older than this say nothing of the share that fails.
const SHARE_OF: Duration = Duration::from_secs(10);
/// Fewer outcomes than this have no share.
const SHARE_MIN: usize = 20;
/// How long a single saga's calls fail before they open it, when no other saga has called: till then its
/// own retry policy spares the endpoint as well as any breaker, and says how often it wants to ask.
pub const FAILS_ALONE: Duration = Duration::from_secs(10);
/// How long an answer to another saga speaks for an endpoint that fails a single one.
const WITNESS: Duration = Duration::from_mins(1);
/// The first time it stays open: shorter than most retries wait, so that a broken connection costs
/// next to nothing.
pub const OPEN_FIRST: Duration = Duration::from_millis(250);
/// The longest time it stays open: how long a participant that is back may wait to be noticed.
pub const OPEN_MAX: Duration = Duration::from_secs(30);
/// Doublings from [`OPEN_FIRST`] to [`OPEN_MAX`].
const DOUBLINGS: u32 = 7;
/// Closed for so long, it begins again with [`OPEN_FIRST`].
const FORGIVEN: Duration = Duration::from_secs(10);
/// Half open and quiet for so long behind a success, it closes though nobody asked for the rest.
const CALM: Duration = Duration::from_secs(5);

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Calls go through.
    Closed,
    /// None goes through before this time.
    Open { next_trial: Timestamp },
    /// A few go through at a time.
    HalfOpen,
}

/// A change that is worth telling: one for each opening and each closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It opened, having been closed.
    Opened { next_trial: Timestamp },
    /// A trial failed: it stays open.
    StaysOpen { next_trial: Timestamp },
    /// It closed.
    Closed,
}

/// Which calls an outcome may speak for: those that were granted since it opened last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Era(u64);

/// What became of one call.
#[derive(Debug, Clone, Copy)]
struct Ended {
    saga: u64,
    is_answered: bool,
    at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed { since: Timestamp },
    Open { until: Timestamp },
    Ramp(Ramp),
}

/// Half open: `allowed` calls at a time, twice as many after a round of as many that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ramp {
    allowed: u32,
    answered: u32,
    unknown: u32,
    /// The last time that something failed, or that it became half open.
    calm_since: Timestamp,
}

impl Ramp {
    fn of(allowed: u32, calm_since: Timestamp) -> Self {
        Self { allowed, answered: 0, unknown: 0, calm_since }
    }

    fn is_calm(&self, now: Timestamp) -> bool {
        self.allowed > 1 && now.since(self.calm_since) >= CALM
    }
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    phase: Phase,
    era: u64,
    /// Calls of this era in flight.
    running: u32,
    latest: VecDeque<Ended>,
    /// Since when no call was answered, if the last one was not.
    failing_since: Option<Timestamp>,
    /// The saga whose call was answered last, and when.
    witness: Option<(u64, Timestamp)>,
    /// How often the time it stays open was doubled.
    doublings: u32,
    openings: u64,
}

impl Breaker {
    /// Closed. `era` is none that an earlier breaker of the endpoint had.
    pub fn new(era: u64, now: Timestamp) -> Self {
        Self {
            phase: Phase::Closed { since: now },
            era,
            running: 0,
            latest: VecDeque::new(),
            failing_since: None,
            witness: None,
            doublings: 0,
            openings: 0,
        }
    }

    /// Where it stands. Time alone half opens it, and closes it once it was calm.
    pub fn standing(&self, now: Timestamp) -> Standing {
        match self.phase {
            Phase::Closed { .. } => Standing::Closed,
            Phase::Open { until } if now < until => Standing::Open { next_trial: until },
            Phase::Open { .. } | Phase::Ramp(_) => Standing::HalfOpen,
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// How often it opened, trials that failed not counted.
    pub fn openings(&self) -> u64 {
        self.openings
    }

    /// Whether the last call that ended had no definite answer.
    pub fn is_in_doubt(&self) -> bool {
        self.latest.back().is_some_and(|last| !last.is_answered)
    }

    /// How many further calls it lets through now.
    pub fn room(&self, now: Timestamp) -> u32 {
        match self.phase {
            Phase::Closed { .. } => u32::MAX,
            Phase::Open { until } => u32::from(now >= until),
            Phase::Ramp(ramp) => ramp.allowed.saturating_sub(self.running),
        }
    }

    /// Takes a place; there must be room.
    pub fn take(&mut self, now: Timestamp) -> Era {
        debug_assert!(self.room(now) > 0, "a call that is not let through");
        if let Phase::Open { .. } = self.phase {
            self.phase = Phase::Ramp(Ramp::of(1, now));
        }
        self.running += 1;
        Era(self.era)
    }

    /// Gives a place back for a call of which nothing is known: it was abandoned.
    pub fn give_back(&mut self, era: Era) {
        if era.0 == self.era {
            self.running = self.running.saturating_sub(1);
        }
    }

    /// Gives a place back with what became of the call. What was sent before it opened last says
    /// nothing new. `most` is how many calls the endpoint takes at a time.
    pub fn judge(&mut self, era: Era, saga: u64, answered: bool, most: u32, now: Timestamp) -> Option<Turn> {
        if era.0 != self.era {
            return None;
        }
        self.running = self.running.saturating_sub(1);
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(Ended { saga, is_answered: answered, at: now });
        if answered {
            self.witness = Some((saga, now));
            self.failing_since = None;
        } else {
            self.failing_since.get_or_insert(now);
        }
        match self.phase {
            Phase::Closed { .. } if !answered && self.fails(now) => Some(self.open(now)),
            Phase::Closed { .. } | Phase::Open { .. } => None,
            Phase::Ramp(ramp) => self.climb(ramp, answered, most, now),
        }
    }

    /// What time alone changes.
    pub fn pass_time(&mut self, now: Timestamp) -> Option<Turn> {
        match self.phase {
            Phase::Ramp(ramp) if self.running == 0 && ramp.is_calm(now) => Some(self.close(now)),
            Phase::Open { until } if now >= until => {
                self.phase = Phase::Ramp(Ramp::of(1, now));
                None
            }
            Phase::Closed { .. } | Phase::Open { .. } | Phase::Ramp(_) => None,
        }
    }

    /// When time alone changes something next, if nothing else does before.
    pub fn next_turn(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Ramp(ramp) if self.running == 0 && ramp.allowed > 1 => Some(ramp.calm_since + CALM),
            Phase::Closed { .. } | Phase::Ramp(_) => None,
        }
    }

    /// There is a reason to believe that the endpoint is back: the next trial is due now.
    pub fn try_now(&mut self, now: Timestamp) {
        if let Phase::Open { until } = &mut self.phase {
            *until = now.min(*until);
        }
    }

    /// Whether the latest outcomes say that it fails, and not only for one saga while others are
    /// answered.
    fn fails(&self, now: Timestamp) -> bool {
        self.fails_in_a_row(now) || self.fails_by_share(now)
    }

    fn fails_in_a_row(&self, now: Timestamp) -> bool {
        let row = self.latest.iter().rev().take_while(|ended| !ended.is_answered);
        let Some(Ended { saga, .. }) = self.latest.back() else { return false };
        let (length, is_one_saga) =
            row.fold((0, true), |(length, same), ended| (length + 1, same && ended.saga == *saga));
        let is_attested = self.witness.is_some_and(|(other, at)| other != *saga && now.since(at) <= WITNESS);
        let lasts = self.failing_since.is_some_and(|since| now.since(since) >= FAILS_ALONE);
        length >= FAILS_IN_A_ROW && (!is_one_saga || (lasts && !is_attested))
    }

    /// Half of the calls, and half of the sagas by the latest that became of each.
    fn fails_by_share(&self, now: Timestamp) -> bool {
        let recent = || self.latest.iter().rev().take_while(|ended| now.since(ended.at) <= SHARE_OF);
        let (calls, unknown) = recent()
            .fold((0, 0), |(calls, unknown), ended| (calls + 1, unknown + usize::from(!ended.is_answered)));
        if calls < SHARE_MIN || 2 * unknown < calls {
            return false;
        }
        let mut seen = Vec::with_capacity(LATEST);
        let (mut sagas, mut failing) = (0, 0);
        for ended in recent() {
            if !seen.contains(&ended.saga) {
                seen.push(ended.saga);
                sagas += 1;
                failing += usize::from(!ended.is_answered);
            }
        }
        failing > 1 && 2 * failing >= sagas
    }

    /// One more outcome of the ramp: a round that went well doubles what is allowed, one of which more
    /// than half failed opens it again.
    fn climb(&mut self, mut ramp: Ramp, answered: bool, most: u32, now: Timestamp) -> Option<Turn> {
        ramp.answered += u32::from(answered);
        ramp.unknown += u32::from(!answered);
        if !answered {
            ramp.calm_since = now;
        }
        if 2 * ramp.unknown > ramp.allowed {
            return Some(self.open(now));
        }
        if ramp.answered + ramp.unknown >= ramp.allowed {
            ramp = Ramp::of(ramp.allowed.saturating_mul(2), ramp.calm_since);
        }
        self.phase = Phase::Ramp(ramp);
        (ramp.allowed >= most || answered && ramp.is_calm(now)).then(|| self.close(now))
    }

    fn open(&mut self, now: Timestamp) -> Turn {
        let was_closed = match self.phase {
            Phase::Closed { since } => {
                if now.since(since) >= FORGIVEN {
                    self.doublings = 0;
                }
                self.openings += 1;
                true
            }
            Phase::Open { .. } | Phase::Ramp(_) => {
                self.doublings = (self.doublings + 1).min(DOUBLINGS);
                false
            }
        };
        let next_trial = now + (OPEN_FIRST * 2_u32.pow(self.doublings)).min(OPEN_MAX);
        self.phase = Phase::Open { until: next_trial };
        self.era += 1;
        self.running = 0;
        if was_closed { Turn::Opened { next_trial } } else { Turn::StaysOpen { next_trial } }
    }

    /// An endpoint that comes and goes is neither forgiven at once nor given up.
    fn close(&mut self, now: Timestamp) -> Turn {
        self.phase = Phase::Closed { since: now };
        self.doublings /= 2;
        self.latest.clear();
        self.failing_since = None;
        Turn::Closed
    }
}

#[cfg(test)]
mod tests;
